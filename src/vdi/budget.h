/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * budget - what all mirrors of this host may send a second, divided among those that run
 *
 *      SXM_RUN_DIR/bandwidth, else SXM_STATE_DIR/bandwidth     how much: "100MiB"; made, changed and removed by whoever likes
 *      SXM_RUN_DIR/<id>/bandwidth                              what this disk's alone may send besides
 *      SXM_RUN_DIR/bandwidth.shares                            who wants how much: a slot for each mirror
 *
 * Four times a second each mirror writes what it wants into its slot, reads the others', and takes its own share: all come to the
 * same, as all see the same.  Nobody waits for anybody; a slot that was not written for two seconds is nobody's.
 */
#ifndef SXM_VDI_BUDGET_H
#define SXM_VDI_BUDGET_H

#include "loop/offload.h"

#define BUDGET_FILE "bandwidth"
#define BUDGET_SHARES_FILE "bandwidth.shares"
#define BUDGET_MIRRORS_MAX 256u
#define BUDGET_ALL UINT64_MAX /* a demand: as much as there is */

/* Of a limit, what each may have at most: so that everybody gets what he wants, or as much as any other. count: 1 to
 * BUDGET_MIRRORS_MAX. Pure. */
uint64_t budget_share(uint64_t limit, const uint64_t *demand, size_t count);

struct vdi;
struct budget {
	struct loop_timer *timer;   /* owned; NULL: no mirror runs */
	struct offload offload;
	bool is_asking, is_waited_for;

	uint64_t sent_bytes, at_ns; /* when it was asked last */
	uint64_t limit_bytes;       /* of this mirror; 0: none */

	/* the pool's while is_asking */
	bool is_leaving;
	int fd;                     /* owned; -1: none; its lock is the slot's */
	unsigned slot;
	uint64_t demand_bytes, share_bytes;
};

void budget_init(struct vdi *v);
void budget_begin(struct vdi *v);  /* a mirror or a copy runs */
void budget_fini(struct vdi *v);   /* nothing is asked any more */
/* A step: nothing is asked any more, and the slot is given back. */
void budget_end(struct vdi *v, void (*next)(struct vdi *v));

#endif
