/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * req - one block request and its life
 *
 *      free --req_get--> filled --layer_submit--> in flight --req_complete--> done queued --done()--> free (req_put)
 *
 * A request falls through the stack of layers and its completion rises.  A layer that only looks forwards the same request
 * (layer_forward); one that needs its own answer takes a child from the pool, submits that, and completes the parent.
 * err is a positive errno, 0 = good; never a text, never an allocation in flight.
 */
#ifndef SXM_BLOCK_REQ_H
#define SXM_BLOCK_REQ_H

#include <sys/queue.h>

#include "base/compiler.h"
#include "base/iobuf.h"
#include "base/range.h"

struct layer;
struct loop;
struct extents;

enum req_op {
	REQ_READ,    /* fills data */
	REQ_WRITE,   /* bytes from data */
	REQ_ZERO,    /* reads as zero afterwards; REQ_MAY_TRIM: may give the space back */
	REQ_TRIM,    /* contents undefined afterwards, unless geometry says trim_reads_zero */
	REQ_FLUSH,   /* everything completed before it was submitted is durable; range ignored */
	REQ_EXTENTS, /* fills extents for the range, from range.start on; may stop early, never empty */
	REQ_CACHE,   /* a hint */
};

enum {
	REQ_FUA = 1,      /* WRITE, ZERO, TRIM: durable before it completes */
	REQ_MAY_TRIM = 2, /* ZERO */
	REQ_ONE = 4,      /* EXTENTS: one extent is enough */
	REQ_UNCACHED = 8, /* READ: what the medium holds, as far as it can be had, not what is remembered of it */
};

#define REQ_MAX_LAYERS 6

struct req;
typedef void req_done_fn(struct req *r);

struct req {
	enum req_op op;
	unsigned flags;
	struct range range;      /* bytes; checked against the top layer before anyone sees it */
	struct iobuf *data;      /* READ, WRITE: owned by the submitter until done(); byte i of the range is data->data[i] */
	uint32_t data_offset;    /* ... or data->data[data_offset + i] */
	struct extents *extents; /* EXTENTS: owned by the submitter */
	req_done_fn *done;       /* called exactly once, from the deferred queue */
	void *arg;               /* the submitter's */
	int err;                 /* valid in done() */

	uint64_t submitted_ns;   /* stamped at the top */
	struct req *parent;      /* a layer's, when this is a child */
	TAILQ_ENTRY(req) link;   /* for whoever holds it now */
	/* layer.c's: which layers count it in */
	struct layer *path[REQ_MAX_LAYERS];
	uint8_t depth;
	bool is_in_flight;
	uint32_t watch_number;   /* of the watch that was told of it */
};
TAILQ_HEAD(req_list, req);

/* From a pool that grows and is never given back; zeroed but for the pool's own links. NULL: out of memory. */
struct req *req_get(void);
void req_put(struct req *r);

/* Ends r, from any callback of the loop: posts, never calls done() itself. Asserts that it is in flight and ends once. */
void req_complete(struct req *r, int err);

/* Which loop done() runs from. Once, before the first request. */
void req_init(struct loop *l);
void req_fini(void); /* every request is back */
struct loop *req_loop(void);

#endif
