/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * lane - one connected ring at work: its requests become struct req, and their ends responses
 */
#ifndef SXM_VBD_LANE_H
#define SXM_VBD_LANE_H

#include "base/histogram.h"
#include "base/iobuf.h"
#include "block/layer.h"
#include "loop/loop.h"
#include "vbd/xen.h"

struct lane;

struct lane_spec {
	struct loop *loop;         /* borrowed, as all of these */
	struct layer *top;
	struct iobuf_pool *pool;
	const struct xen_ops *ops;
	struct xen *xen;           /* connected */
	void *shared;              /* its ring's pages */
	struct ring_book *book;
	const struct xenbus_ring *ring;
	uint32_t identity;         /* see ring_open() */
	const char *name;          /* in what is logged */
	bool is_read_only, can_discard;
	struct vbd_stats *stats;
};

struct vbd_stats {
	uint64_t reads, writes, flushes, discards; /* answered well */
	uint64_t bytes_read, bytes_written;
	uint64_t read_ns, write_ns;   /* what those took, from the ring to the answer; to a turn of the loop */
	struct histogram writes_us;   /* likewise: how long each write took */
	uint64_t errors;          /* answered otherwise */
	uint64_t events, notifications;
	uint64_t left;            /* by an earlier process, and done by this one */
	unsigned in_flight;       /* taken, and not answered */
};

/* Begins with what an earlier process left in the book. NULL + e. */
struct lane *lane_new(const struct lane_spec *spec, struct error *e);
/* Takes nothing more; done() from the deferred queue when all that was taken has ended and is answered, but for what ended
 * with ESHUTDOWN (the disk is another's, or was lost), which stays in the book. From then on the guest's memory is not
 * touched. */
void lane_stop(struct lane *l, void (*done)(void *arg), void *arg);
/* After lane_stop()'s done() only. */
void lane_free(struct lane *l);

#endif
