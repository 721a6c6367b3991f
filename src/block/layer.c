/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * layer - see layer.h
 */
#include "block/layer.h"

#include <errno.h>

#include "loop/loop.h"

static void announce_idle(struct loop_task *t)
{
	struct layer *l = container_of(t, struct layer, idle_task);
	void (*on_idle)(struct layer *, void *) = l->on_idle;

	/* A request that came in meanwhile (nobody held the gate) keeps the waiter waiting. */
	if (!on_idle || l->in_flight)
		return;
	l->on_idle = NULL;
	on_idle(l, l->on_idle_arg);
}

void layer_init(struct layer *l, const struct layer_ops *ops, struct layer *below, const struct geometry *g)
{
	*l = (struct layer){ .ops = ops, .below = below, .geometry = *g, .idle_task = { .run = announce_idle } };
}

static bool is_write(enum req_op op)
{
	return op == REQ_WRITE || op == REQ_ZERO || op == REQ_TRIM;
}

static void tell_begin(struct layer *l, struct req *r)
{
	r->watch_number = l->watch_number;
	if (is_write(r->op))
		l->watch->on_begin(l->watch, r);
}

static void tell_end(struct layer *l, struct req *r)
{
	if (r->watch_number != l->watch_number)
		l->watch->on_stranger_end(l->watch);
	else if (is_write(r->op))
		l->watch->on_end(l->watch, r);
}

static void count_in(struct layer *l, struct req *r)
{
	assert(r->depth < REQ_MAX_LAYERS);
	r->path[r->depth++] = l;
	l->in_flight++;
	if (UNLIKELY(l->watch != NULL))
		tell_begin(l, r);
}

void layer_count_out(struct req *r)
{
	while (r->depth) {
		struct layer *l = r->path[--r->depth];

		assert(l->in_flight > 0);
		if (UNLIKELY(l->watch != NULL))
			tell_end(l, r);
		if (--l->in_flight == 0 && l->on_idle)
			loop_defer(req_loop(), &l->idle_task);
	}
}

static int check(const struct layer *l, const struct req *r)
{
	if (r->op == REQ_FLUSH)
		return 0;
	if (r->range.start > r->range.end || r->range.end > l->geometry.size_bytes)
		return is_write(r->op) ? ENOSPC : EINVAL;
	if (is_write(r->op) && l->geometry.is_read_only)
		return EPERM;
	return 0;
}

void layer_submit(struct layer *l, struct req *r)
{
	int err;

	assert(r->done && !r->is_in_flight && r->depth == 0);
	if (r->op == REQ_READ || r->op == REQ_WRITE)
		assert(r->data && r->data_offset + range_length(r->range) <= r->data->capacity);
	if (r->op == REQ_EXTENTS)
		assert(r->extents);
	r->is_in_flight = true;
	r->err = 0;
	count_in(l, r);
	err = check(l, r);
	if (!err && range_is_empty(r->range) && r->op != REQ_FLUSH) {
		req_complete(r, 0);
		return;
	}
	if (err) {
		req_complete(r, err);
		return;
	}
	l->ops->submit(l, r);
}

void layer_forward(struct layer *below, struct req *r)
{
	assert(r->is_in_flight && r->depth > 0);
	count_in(below, r);
	below->ops->submit(below, r);
}

void layer_drain(struct layer *l, void (*on_idle)(struct layer *l, void *arg), void *arg)
{
	assert(!l->on_idle);
	l->on_idle = on_idle;
	l->on_idle_arg = arg;
	if (l->in_flight == 0)
		loop_defer(req_loop(), &l->idle_task);
}

void layer_close(struct layer *l)
{
	assert(l->in_flight == 0 && !l->on_idle);
	l->ops->close(l);
}

void layer_set_watch(struct layer *l, struct layer_watch *w)
{
	assert(!w || !l->watch);
	l->watch = w;
	l->watch_number++;
}
