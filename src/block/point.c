/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * point - see point.h
 *
 *      todo:   1 1 1 0 0 1 0 1 1 1     a bit for each granule that was not cloned yet
 *                    ^ swept so far    0s past it: cloned early, for a write
 *
 * A write whose granules are all done goes down at once.  Another one stands in the queue, and what it overwrites is cloned
 * next: each call is for a part of every one that waits, and at last for the next part of the sweep.  A granule is cloned
 * once: afterwards it may have been written.
 *
 * Can fail: a clone; then everything goes down and the owner hears.
 * Invariant: no write is below that overlaps a granule to do; one call at most is under way; its parts do
 * not overlap, and their granules are still to do.
 */
#include "block/point.h"

#include <stdlib.h>

#include "base/bitmap.h"

#define GRANULE POINT_GRANULE_BYTES
#define SWEEP_BYTES GiB

struct point {
	struct layer layer;
	const struct point_ops *ops; /* borrowed */
	void *arg;
	struct bitmap *todo;         /* owned */
	uint64_t swept;              /* nothing before this granule is to do */
	struct point_part part[POINT_PARTS];
	unsigned parts;
	bool is_cloning, is_started, is_over;
	struct req_list waiting;     /* in arrival order */
	struct loop_task over;
	struct point_status status;
};

static struct point *point_of(const struct layer *l)
{
	return container_of((struct layer *)(uintptr_t)l, struct point, layer);
}

static uint64_t granule_end(uint64_t bytes)
{
	return bytes / GRANULE + (bytes % GRANULE != 0);
}

static bool is_to_do(const struct point *p, struct range r)
{
	return bitmap_test_any(p->todo, r.start / GRANULE, granule_end(r.end));
}

static void run_over(struct loop_task *t)
{
	struct point *p = container_of(t, struct point, over);

	p->ops->over(p->arg);
}

static void end(struct point *p)
{
	if (p->is_over)
		return;
	p->is_over = true;
	loop_defer(req_loop(), &p->over);
}

/* From granule `first` on, which is to do, at most to `limit`; up to where another part begins. */
static void add_part(struct point *p, uint64_t first, uint64_t limit)
{
	uint64_t next = MIN(bitmap_next_clear(p->todo, first), limit);

	for (unsigned i = 0; i < p->parts; i++) {
		if (first * GRANULE >= p->part[i].r.start && first * GRANULE < p->part[i].r.end)
			return;
		if (p->part[i].r.start > first * GRANULE)
			next = MIN(next, p->part[i].r.start / GRANULE);
	}
	p->part[p->parts].r = (struct range){ first * GRANULE, MIN(next * GRANULE, p->layer.geometry.size_bytes) };
	p->part[p->parts].end = first * GRANULE;
	p->parts++;
}

static void go_on(struct point *p)
{
	struct req *r;

	if (p->is_cloning || !p->is_started || p->is_over)
		return;
	if (p->status.err || !bitmap_count(p->todo)) {
		end(p);
		return;
	}
	p->parts = 0;
	TAILQ_FOREACH(r, &p->waiting, link) {
		if (p->parts == POINT_PARTS - 1)
			break;
		add_part(p, bitmap_next(p->todo, r->range.start / GRANULE), granule_end(r->range.end));
	}
	p->swept = bitmap_next(p->todo, p->swept);
	add_part(p, p->swept, p->swept + SWEEP_BYTES / GRANULE);
	p->is_cloning = true;
	p->status.clones++;
	p->ops->clone(p->arg, p->part, p->parts);
}

static void submit(struct layer *l, struct req *r)
{
	struct point *p = point_of(l);
	bool is_write = r->op == REQ_WRITE || r->op == REQ_ZERO || r->op == REQ_TRIM;

	if (!is_write || p->status.err || !is_to_do(p, r->range)) {
		layer_forward(l->below, r);
		return;
	}
	p->status.waited++;
	r->submitted_ns = loop_now_ns();
	TAILQ_INSERT_TAIL(&p->waiting, r, link);
	go_on(p);
}

/* Those that need not wait any more go down, in their order. */
static void let_go(struct point *p)
{
	uint64_t now_ns = loop_now_ns();
	struct req *r, *next;

	for (r = TAILQ_FIRST(&p->waiting); r; r = next) {
		next = TAILQ_NEXT(r, link);
		if (!p->status.err && is_to_do(p, r->range))
			continue;
		TAILQ_REMOVE(&p->waiting, r, link);
		p->status.longest_wait_ns = MAX(p->status.longest_wait_ns, now_ns - r->submitted_ns);
		layer_forward(p->layer.below, r);
	}
}

static void take_part(struct point *p, const struct point_part *part)
{
	assert(part->end >= part->r.start && part->end <= part->r.end);
	assert(part->end % GRANULE == 0 || part->end == p->layer.geometry.size_bytes);
	bitmap_clear(p->todo, part->r.start / GRANULE, granule_end(part->end));
	p->status.done_bytes += part->end - part->r.start;
}

void point_cloned(struct layer *l, int err)
{
	struct point *p = point_of(l);

	assert(p->is_cloning && (err || p->part[0].end > p->part[0].r.start));
	p->is_cloning = false;
	if (err)
		p->status.err = p->status.err ? p->status.err : err;
	for (unsigned i = 0; !err && i < p->parts; i++)
		take_part(p, &p->part[i]);
	let_go(p);
	go_on(p);
}

void point_start(struct layer *l)
{
	point_of(l)->is_started = true;
	go_on(point_of(l));
}

void point_give_up(struct layer *l, int err)
{
	struct point *p = point_of(l);

	assert(err > 0);
	if (p->is_over)
		return;
	p->status.err = p->status.err ? p->status.err : err;
	p->is_started = true;
	let_go(p);
	go_on(p);
}

void point_status(const struct layer *l, struct point_status *out)
{
	*out = point_of(l)->status;
}

static void close_point(struct layer *l)
{
	struct point *p = point_of(l);

	assert(!p->is_cloning && TAILQ_EMPTY(&p->waiting));
	loop_defer_cancel(req_loop(), &p->over);
	bitmap_free(p->todo);
	free(p);
}

static const struct layer_ops point_layer_ops = { .name = "point", .submit = submit, .close = close_point };

struct layer *point_new(struct layer *below, const struct geometry *g, const struct point_ops *ops, void *arg)
{
	struct point *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->todo = bitmap_new(granule_end(g->size_bytes));
	if (!p->todo) {
		free(p);
		return NULL;
	}
	layer_init(&p->layer, &point_layer_ops, below, g);
	bitmap_set(p->todo, 0, bitmap_bits(p->todo));
	p->ops = ops;
	p->arg = arg;
	p->over.run = run_over;
	TAILQ_INIT(&p->waiting);
	return &p->layer;
}
