/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * overlay-private - what the two halves of the layer share: requests (overlay-layer.c), and merging (overlay-merge.c)
 */
#ifndef SXM_OVERLAY_OVERLAY_PRIVATE_H
#define SXM_OVERLAY_OVERLAY_PRIVATE_H

#include "loop/offload.h"
#include "overlay/overlay-layer.h"

#define OVERLAY_BATCH_ITEMS 64u

struct overlay;
struct overlay_item {
	struct overlay *overlay;
	struct range range;
	struct iobuf *data; /* owned */
};

struct overlay {
	struct layer layer;
	struct loop *loop;             /* borrowed */
	struct layer *data;            /* owned */
	struct overlay_file *file;     /* owned */
	char *image;                   /* owned */
	enum overlay_mode mode;
	bool is_read_only;             /* nothing is merged */
	void (*on_merged)(void *arg);
	void *arg;

	struct req_list waiting;
	struct loop_task turn;
	unsigned turns;                /* since the last batch */

	struct req *current;           /* in pieces */
	uint64_t at;                   /* of it: up to here its pieces are under way */
	unsigned pieces;
	int err;

	bool is_batch;
	struct iobuf_pool *pool;       /* owned */
	struct overlay_item item[OVERLAY_BATCH_ITEMS];
	struct range done[OVERLAY_BATCH_ITEMS];
	size_t items, left;
	uint64_t cursor;               /* the next sector to be merged is looked for from here on */
	struct offload offload;
	struct error error;
	struct loop_timer *again;      /* owned */
	bool is_waiting;               /* for it */

	bool is_held;                  /* nothing is merged yet */
	bool is_resting;
	void (*rested)(void *arg);
	void *rested_arg;
};

/* The next of those who wait has its turn. */
static inline void overlay_look(struct overlay *o)
{
	loop_defer(o->loop, &o->turn);
}

/* Merges some of what is here; o->is_batch until that is over. */
void overlay_begin_batch(struct overlay *o);
/* Nothing is here any more: its files go. */
void overlay_begin_end(struct overlay *o);
void overlay_on_again(void *o); /* its timer's */

#endif
