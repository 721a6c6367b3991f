/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * verify - reads a disk and its copy back and says where they differ, in the background
 *
 *      verify_new() -> verify_start() ... [verify_cancel()] ... on_over() -> verify_free()
 *
 *      CONNECTING --far side greeted--> RUNNING --all is known--> COMPLETE
 *           '-------------------------------'-----------------> FAILED (a side could not be read), CANCELLED
 */
#ifndef SXM_MIRROR_VERIFY_H
#define SXM_MIRROR_VERIFY_H

#include "base/error.h"
#include "block/layer.h"
#include "loop/loop.h"
#include "mirror/verify-plan.h"

enum verify_state { VERIFY_CONNECTING, VERIFY_RUNNING, VERIFY_COMPLETE, VERIFY_FAILED, VERIFY_CANCELLED };

struct verify_spec {
	struct loop *loop;          /* borrowed */
	struct layer *top;          /* borrowed: where this side is read; not touched once the state is one of the last three */
	const char *uri;            /* copied: the far side, any NBD URI; it gets one connection, which only reads */
	const struct extents *only; /* bytes, in order, within the disk (copied); NULL: all */
	uint64_t rate_bytes;        /* a second, of each side; 0: as fast as it goes */
	unsigned connect_wait_ms;   /* 0: 1000 */
	unsigned handshake_ms;      /* 0: 20000 */
	unsigned dead_ms;           /* 0: 30000 */
	unsigned tries, pause_ms;   /* see verify-plan.h */
	/* Whether nothing of the range is owed to the far side, or on its way. NULL: there is no mirror. Who writes here is seen
	 * at the top layer. */
	bool (*is_settled)(void *arg, struct range r);
	/* The state changed; from the loop. */
	void (*on_change)(void *arg);
	/* Once, last: nothing of it is under way any more. From the deferred queue; may free it. */
	void (*on_over)(void *arg);
	void *arg;
};

struct verify;
struct verify *verify_new(const struct verify_spec *spec, struct error *e); /* NULL + e: bad URI, no memory */
void verify_start(struct verify *v);
/* Ends it: FAILED by `why`, CANCELLED where that is NULL. Nothing happens to one that has ended. */
void verify_cancel(struct verify *v, const struct error *why);
/* After on_over(), or before verify_start(). */
void verify_free(struct verify *v);

struct verify_status {
	enum verify_state state;
	char remote[256];
	struct error why;                        /* FAILED */
	uint64_t started_ns, running_ns, ended_ns; /* loop_now_ns(); 0: not yet */
	struct verify_result result;
	/* COMPLETE, and each byte was seen to be the same (or called zero) on both sides. */
	bool is_verified;
};
void verify_status(const struct verify *v, struct verify_status *out);
const char *verify_state_name(enum verify_state s);

#endif
