/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-rooms - disk, nbdsrv and mirror as the vdi room sees them, with everything that happens written down in one trace
 */
#ifndef SXM_TESTS_FAKE_ROOMS_H
#define SXM_TESTS_FAKE_ROOMS_H

#include "disk/disk.h"
#include "mirror/mirror.h"
#include "nbdsrv/nbdsrv.h"

struct fake {
	/* Words, a space after each: open:rw open:ro flush close serve:rw serve:ro tcp cut mirror+ start finish abort mirror- */
	char trace[4096];
	struct loop *loop;
	int open_err, flush_err, listen_err;
	struct layer *mirror;   /* the living one */
	struct mirror_status status;
	bool is_finish_slow;    /* fake_finish() ends it */
	int finish_err;
};
extern struct fake fake;

void fake_reset(struct loop *l);
/* The mirror's state changes; its on_change() runs from the loop. */
void fake_change(enum core_state s, bool is_connected, bool was_synced);
void fake_fail(const char *why);
/* Ends a slow mirror_finish(). */
void fake_finish(int err);
/* True once; then the trace is empty. */
bool fake_traced(const char *words);

#endif
