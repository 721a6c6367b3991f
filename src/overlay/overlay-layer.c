/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * overlay-layer - see overlay-layer.h
 *
 *      request --nothing of it is here--> the disk, as it is
 *         '--something is--> waiting: one after the other, each in pieces: what is here to the data, the rest to the disk
 *
 *      a batch of what is merged (overlay-merge.c) waits its turn like a request
 *
 * While a sector is here it is here alone that it is read and written; it is taken away only when the disk has the same, durably.
 * So whoever is killed, and whenever, finds each sector's truth where the record says.  Requests of which nothing is here need no
 * order with a batch: that touches only what is here, and nothing comes to be here while merging.
 *
 * Invariant: at most one of `current` and a batch is under way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/extents.h"
#include "overlay/overlay-private.h"

#define PIECES_MAX 16u            /* of a request, in flight at a time */
#define TURNS 16u                 /* requests before a batch has its turn */
#define POOL_BYTES (4u << 20)

static struct overlay *overlay_of(const struct layer *l)
{
	return container_of((struct layer *)(uintptr_t)l, struct overlay, layer);
}

/* --- what is here */

static struct range sectors_of(struct range r)
{
	return range_widen(r, OVERLAY_SECTOR_BYTES);
}

static bool is_any_here(const struct overlay *o, struct range r)
{
	struct range s = sectors_of(r);

	return bitmap_test_any(o->file->sectors, s.start / OVERLAY_SECTOR_BYTES, s.end / OVERLAY_SECTOR_BYTES);
}

/* From `at` on, as far as all of it is here, or none. */
static struct range next_piece(const struct overlay *o, uint64_t at, uint64_t end, bool *is_here)
{
	uint64_t sector = at / OVERLAY_SECTOR_BYTES, next;

	*is_here = bitmap_test(o->file->sectors, sector);
	next = *is_here ? bitmap_next_clear(o->file->sectors, sector) : bitmap_next(o->file->sectors, sector);
	return (struct range){ at, MIN(end, next * OVERLAY_SECTOR_BYTES) };
}

/* --- a request in pieces */

static void advance(struct overlay *o);

static void on_piece(struct req *r)
{
	struct overlay *o = r->arg;

	if (r->err && !o->err)
		o->err = r->err;
	req_put(r);
	o->pieces--;
	advance(o);
}

static void submit_piece(struct overlay *o, struct layer *to, struct range r)
{
	struct req *parent = o->current, *piece = req_get();

	if (!piece) {
		o->err = ENOMEM;
		return;
	}
	piece->op = parent->op;
	piece->flags = parent->flags;
	if (parent->op == REQ_TRIM && to == o->data) { /* what is here is read, and must be something */
		piece->op = REQ_ZERO;
		piece->flags |= REQ_MAY_TRIM;
	}
	piece->range = r;
	piece->data = parent->data;
	piece->data_offset = parent->data_offset + (uint32_t)(r.start - parent->range.start);
	piece->done = on_piece;
	piece->arg = o;
	o->pieces++;
	layer_submit(to, piece);
}

static void advance(struct overlay *o)
{
	struct req *r = o->current;

	while (!o->err && o->at < r->range.end && o->pieces < PIECES_MAX) {
		bool is_here;
		struct range piece = next_piece(o, o->at, r->range.end, &is_here);

		o->at = piece.end;
		submit_piece(o, is_here ? o->data : o->layer.below, piece);
	}
	if (o->pieces)
		return;
	o->current = NULL;
	req_complete(r, o->err);
	overlay_look(o);
}

static void begin(struct overlay *o, struct req *r)
{
	if (!is_any_here(o, r->range)) { /* not any more */
		layer_forward(o->layer.below, r);
		overlay_look(o);
		return;
	}
	o->current = r;
	o->at = r->range.start;
	o->err = 0;
	o->turns++;
	advance(o);
}

/* --- whose turn it is */

static bool may_merge(const struct overlay *o)
{
	return o->mode == OVERLAY_MERGING && !o->is_read_only && !o->is_held && !o->is_resting && !o->is_waiting;
}

static void take_turn(struct loop_task *t)
{
	struct overlay *o = container_of(t, struct overlay, turn);
	struct req *r = TAILQ_FIRST(&o->waiting);

	if (o->current || o->is_batch)
		return;
	if (r && (o->turns < TURNS || !may_merge(o))) {
		TAILQ_REMOVE(&o->waiting, r, link);
		begin(o, r);
	} else if (may_merge(o)) {
		if (bitmap_count(o->file->sectors))
			overlay_begin_batch(o);
		else
			overlay_begin_end(o);
	} else if (o->is_resting && o->rested) {
		take_ptr(&o->rested)(o->rested_arg);
	}
}

/* --- requests */

static void on_collected(struct req *r)
{
	struct req *parent = r->arg;
	struct overlay *o = overlay_of(parent->path[parent->depth - 1]);
	int err = r->err;

	if (!err)
		bitmap_set(o->file->sectors, r->range.start / OVERLAY_SECTOR_BYTES, r->range.end / OVERLAY_SECTOR_BYTES);
	req_put(r);
	req_complete(parent, err);
}

static struct req *child_of(struct req *parent, req_done_fn *done)
{
	struct req *r = req_get();

	if (!r) {
		req_complete(parent, ENOMEM);
		return NULL;
	}
	r->op = parent->op;
	r->flags = parent->flags;
	r->range = parent->range;
	r->data = parent->data;
	r->data_offset = parent->data_offset;
	r->extents = parent->extents;
	r->done = done;
	r->arg = parent;
	return r;
}

static void collect(struct overlay *o, struct req *parent)
{
	struct req *r;

	if (o->mode != OVERLAY_COLLECTING)
		req_complete(parent, EPERM);
	else if (parent->op != REQ_WRITE)
		req_complete(parent, EOPNOTSUPP);
	else if ((parent->range.start | parent->range.end) % OVERLAY_SECTOR_BYTES)
		req_complete(parent, EINVAL);
	else if ((r = child_of(parent, on_collected)))
		layer_submit(o->data, r);
}

static void on_data_flushed(struct req *r)
{
	struct req *parent = r->arg;
	struct overlay *o = overlay_of(parent->path[parent->depth - 1]);
	int err = r->err;

	req_put(r);
	if (err)
		req_complete(parent, err);
	else
		layer_forward(o->layer.below, parent);
}

static void on_extents(struct req *r)
{
	struct req *parent = r->arg;
	int err = r->err;

	req_put(r);
	req_complete(parent, err);
}

/* What is here is data; of what is before it the disk knows. */
static void tell_extents(struct overlay *o, struct req *parent)
{
	bool is_here;
	struct range piece = next_piece(o, parent->range.start, parent->range.end, &is_here);
	struct req *r;

	if (is_here) {
		req_complete(parent, extents_add(parent->extents, piece, 0) == -1 ? ENOMEM : 0);
		return;
	}
	r = child_of(parent, on_extents);
	if (!r)
		return;
	r->range = piece;
	layer_submit(o->layer.below, r);
}

static void submit(struct layer *l, struct req *r)
{
	struct overlay *o = overlay_of(l);
	bool is_write = r->op == REQ_WRITE || r->op == REQ_ZERO || r->op == REQ_TRIM;

	if (o->mode == OVERLAY_MERGED) {
		layer_forward(l->below, r);
	} else if (r->op == REQ_FLUSH) {
		struct req *child = child_of(r, on_data_flushed);

		if (child)
			layer_submit(o->data, child);
	} else if (is_write && o->mode != OVERLAY_MERGING) {
		collect(o, r);
	} else if (!is_any_here(o, r->range)) {
		layer_forward(l->below, r);
	} else if (r->op == REQ_CACHE) {
		req_complete(r, 0);
	} else if (r->op == REQ_EXTENTS) {
		tell_extents(o, r);
	} else {
		TAILQ_INSERT_TAIL(&o->waiting, r, link);
		overlay_look(o);
	}
}

/* --- from outside */

enum overlay_mode overlay_mode(const struct layer *l)
{
	return overlay_of(l)->mode;
}

uint64_t overlay_bytes(const struct layer *l)
{
	return bitmap_count(overlay_of(l)->file->sectors) * OVERLAY_SECTOR_BYTES;
}

struct layer *overlay_data(const struct layer *l)
{
	return overlay_of(l)->data;
}

void overlay_stop_collecting(struct layer *l)
{
	assert(overlay_of(l)->mode == OVERLAY_COLLECTING);
	overlay_of(l)->mode = OVERLAY_SEALING;
}

int overlay_seal(struct layer *l, struct error *e)
{
	return overlay_file_seal(overlay_of(l)->file, e);
}

void overlay_go(struct layer *l)
{
	struct overlay *o = overlay_of(l);

	o->is_held = false;
	overlay_look(o);
}

bool overlay_is_held(const struct layer *l)
{
	return overlay_of(l)->is_held;
}

void overlay_rest(struct layer *l, void (*done)(void *arg), void *arg)
{
	struct overlay *o = overlay_of(l);

	assert(!o->rested);
	o->is_resting = true;
	o->rested = done;
	o->rested_arg = arg;
	overlay_look(o);
}

static void close_overlay(struct layer *l)
{
	struct overlay *o = overlay_of(l);

	assert(TAILQ_EMPTY(&o->waiting) && !o->current && !o->is_batch);
	loop_defer_cancel(o->loop, &o->turn);
	loop_timer_free(o->again);
	layer_close(o->data);
	overlay_file_free(o->file);
	iobuf_pool_free(o->pool);
	free(o->image);
	free(o);
}

static const struct layer_ops ops = { .name = "overlay", .submit = submit, .close = close_overlay };

static struct layer *fail(const struct overlay_spec *spec, struct overlay *o)
{
	layer_close(spec->data);
	overlay_file_free(spec->file);
	if (o && o->pool)
		iobuf_pool_free(o->pool);
	if (o) {
		loop_timer_free(o->again);
		free(o->image);
	}
	free(o);
	return NULL;
}

struct layer *overlay_new(const struct overlay_spec *spec)
{
	struct overlay *o = calloc(1, sizeof(*o));
	struct geometry g = spec->below->geometry;

	if (!o)
		return fail(spec, o);
	if (spec->mode == OVERLAY_COLLECTING)
		g.can_trim = g.can_zero = false;
	layer_init(&o->layer, &ops, spec->below, &g);
	o->loop = spec->loop;
	o->image = strdup(spec->image);
	o->pool = iobuf_pool_new(POOL_BYTES);
	o->again = loop_timer_new(spec->loop, overlay_on_again, o);
	if (!o->image || !o->pool || !o->again)
		return fail(spec, o);
	o->data = spec->data;
	o->file = spec->file;
	o->mode = spec->mode;
	o->is_held = spec->is_held;
	o->is_read_only = g.is_read_only;
	o->on_merged = spec->on_merged;
	o->arg = spec->arg;
	o->turn.run = take_turn;
	TAILQ_INIT(&o->waiting);
	if (o->mode == OVERLAY_MERGING)
		overlay_look(o);
	return &o->layer;
}
