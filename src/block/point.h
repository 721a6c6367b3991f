/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * point - the disk below stays, for whoever clones it, as it was at one moment, while guests go on writing
 *
 *      gate held and drained -> point_new() put under it = the moment -> gate released, point_start()
 *          the owner is asked to clone one range after the other; a write waits until what it overwrites was cloned, which is
 *          asked for next; reads and flushes never wait
 *      -> over(): all was cloned, or it was given up; from then on nothing waits, and the layer may be taken out
 *
 * So guests are held for as long as a drain takes, and then a write at most for the clone under way and one of its own.
 */
#ifndef SXM_BLOCK_POINT_H
#define SXM_BLOCK_POINT_H

#include "block/layer.h"

#define POINT_GRANULE_BYTES (64 * KiB)

#define POINT_PARTS 33u

struct point_part {
	struct range r; /* begins at a granule and ends at one, or at the disk's end */
	uint64_t end;   /* so far it was cloned: r.start, a granule's end, or r.end */
};

struct point_ops {
	/* Clone these, or the beginnings of some, at least of the first: then point_cloned(), from the loop. One call at once. */
	void (*clone)(void *arg, struct point_part *part, unsigned count);
	/* Once, from the deferred queue. */
	void (*over)(void *arg);
};

/* below: NULL where nothing will be submitted. NULL: out of memory. */
struct layer *point_new(struct layer *below, const struct geometry *g, const struct point_ops *ops, void *arg);
void point_start(struct layer *l);
/* The parts' ends say how far it came; err: they mean nothing, and it is all given up. */
void point_cloned(struct layer *l, int err);
/* It is not wanted any more: over() follows the clone under way. */
void point_give_up(struct layer *l, int err);

struct point_status {
	int err;                    /* why it was given up; 0: it was not */
	uint64_t done_bytes;
	uint64_t clones;            /* calls */
	uint64_t waited;            /* writes that waited */
	uint64_t longest_wait_ns;   /* the longest of them */
};
void point_status(const struct layer *l, struct point_status *out);

#endif
