/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * layer - the stack: one virtual disk is a pile of layers, and layer_submit() is the only way down
 *
 *      frontends -> gate -> [mirror] -> disk
 *
 * Law: submit() never calls done() and never fails by return value; every outcome is a completion.
 * layer_submit() asserts what the submitter promised, checks the range against geometry (outside: EINVAL, for writes ENOSPC;
 * writes on a read-only layer: EPERM), counts the request in, and calls the layer's submit. An empty range ends at once, good.
 */
#ifndef SXM_BLOCK_LAYER_H
#define SXM_BLOCK_LAYER_H

#include "block/req.h"
#include "loop/loop.h"

struct layer;

struct geometry {
	uint64_t size_bytes;
	uint32_t block_bytes;     /* smallest unit the medium writes without a read; requests need not be aligned to it */
	uint32_t optimal_bytes;
	bool is_read_only;
	bool can_trim;
	bool can_zero;
	bool trim_reads_zero;     /* what REQ_TRIM covered reads as zero afterwards */
};

struct layer_ops {
	const char *name;
	void (*submit)(struct layer *l, struct req *r);
	void (*close)(struct layer *l); /* frees the layer; nothing is in flight */
};

/* Told of the writes (WRITE, ZERO, TRIM) of one layer: see watch.h. */
struct layer_watch {
	void (*on_begin)(struct layer_watch *w, const struct req *r);
	void (*on_end)(struct layer_watch *w, const struct req *r);
	void (*on_stranger_end)(struct layer_watch *w); /* of any request that was in flight when the watch was set */
};

struct layer {
	const struct layer_ops *ops;
	struct layer *below; /* borrowed from vdi; NULL at the bottom */
	struct geometry geometry;
	unsigned in_flight;  /* requests counted in and not completed */
	void (*on_idle)(struct layer *l, void *arg); /* one drain waiter at a time */
	void *on_idle_arg;
	struct loop_task idle_task; /* layer.c's */
	struct layer_watch *watch;  /* borrowed; NULL: none */
	uint32_t watch_number;      /* of this watch: a request that carries it began under it */
};

void layer_init(struct layer *l, const struct layer_ops *ops, struct layer *below, const struct geometry *g);
void layer_submit(struct layer *l, struct req *r);
/* Passes the very request on; the layer above stays counted until it completes. */
void layer_forward(struct layer *below, struct req *r);
/* on_idle is called once, from the deferred queue, when nothing is in flight in l (soon, when nothing is now).
 * It does not stop new requests: hold the gate first. */
void layer_drain(struct layer *l, void (*on_idle)(struct layer *l, void *arg), void *arg);
void layer_close(struct layer *l);
/* One layer of a stack, at most. NULL: no more. */
void layer_set_watch(struct layer *l, struct layer_watch *w);

/* req.c's: r has ended, the layers it was counted in let it go. */
void layer_count_out(struct req *r);

#endif
