/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror - the layer that makes a far copy of the disk below it while the guest writes
 *
 *      mirror_new() -> put under the gate -> mirror_start() ... on_change() ... mirror_finish() or mirror_abort()
 *                                                                      -> take out from under the gate -> layer_close()
 */
#ifndef SXM_MIRROR_MIRROR_H
#define SXM_MIRROR_MIRROR_H

#include "base/error.h"
#include "block/extents.h"
#include "block/layer.h"
#include "loop/loop.h"
#include "mirror/core.h"

struct mirror_spec {
	struct loop *loop;         /* borrowed */
	struct layer *below;       /* borrowed: the disk */
	const char *uri;           /* copied */
	bool is_copy;              /* Data.copy: ends by itself, flushed */
	const struct extents *only;/* COPY: its items of type 0, nothing else (copied); NULL: all */
	uint64_t lag_bytes;        /* 0: 16 MiB */
	uint32_t lag_ms;           /* 0: 50 */
	unsigned connect_wait_ms;  /* 0: 5000 */
	unsigned handshake_ms;     /* 0: 20000; for the far side to greet, and for each answer while connecting */
	unsigned dead_ms;          /* 0: 30000; no progress for so long with requests in flight: the link is lost */
	/* The state changed; from the deferred queue. Ask mirror_status(). */
	void (*on_change)(void *arg);
	void *arg;
};

/* NULL + e: bad URI, no memory. Until mirror_start() it only records what is written. layer_close() wants mirror_abort()'s done
 * before, or that mirror_start() was never called; and, as always, that nothing is in flight. */
struct layer *mirror_new(const struct mirror_spec *spec, struct error *e);
/* Once it stands under the gate and every request that went past it has ended. */
void mirror_start(struct layer *mirror);

struct mirror_status {
	struct core_status core;
	bool is_connected;     /* LINK_UP was reached */
	struct error why;      /* core.state FAILED: the sentence */
	char remote[256];      /* the URI, for people */
	uint64_t started_ns, ready_ns, ended_ns; /* loop_now_ns(); 0: not yet */
	uint64_t source_allocated_bytes; /* data extents at start */
};
void mirror_status(const struct layer *mirror, struct mirror_status *out);

/* The barrier, one at a time. The gate is held and nothing is in flight above. Sends what is owed, flushes the far side, says
 * goodbye; done(arg, NULL) then, or done(arg, error) and the mirror is as it was (or FAILED). From the deferred queue. */
void mirror_finish(struct layer *mirror, void (*done)(void *arg, const struct error *e), void *arg);
/* Ends the operation where it stands, or does nothing to one that has ended; done() when the far side touches nothing any more.
 * Idempotent, also while one is under way (each done() is called); guests go on. A finish under way ends first, with an error. */
void mirror_abort(struct layer *mirror, void (*done)(void *arg), void *arg);

#endif
