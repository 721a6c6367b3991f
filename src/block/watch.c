/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * watch - see watch.h
 *
 *      a write's chunks -> counters, by the chunk's number modulo COUNTERS:   begun  7 9 7 3 ...    under way  0 1 1 0 ...
 *
 * A layer tells of each write as it is counted in and out (layer.c); where nobody watches that costs one comparison.  A write
 * of more chunks than there are counters is counted once, for all.
 * Can fail: memory, at birth.
 * Invariant: under way of a chunk is at least the number of watched writes that cover it and have not ended.
 */
#include "block/watch.h"

#include <stdlib.h>

#define CHUNK_BYTES 4096u
#define COUNTERS 4096u

struct watch {
	struct layer_watch base;
	struct layer *top;      /* borrowed */
	unsigned strangers;     /* requests from before, still in flight */
	uint32_t all_under_way, all_begun;
	uint32_t under_way[COUNTERS], begun[COUNTERS];
};

static void count(struct watch *w, struct range r, uint32_t under_way, uint32_t begun)
{
	uint64_t first = r.start / CHUNK_BYTES, end = (r.end + CHUNK_BYTES - 1) / CHUNK_BYTES;

	if (end - first >= COUNTERS) {
		w->all_under_way += under_way;
		w->all_begun += begun;
		return;
	}
	for (uint64_t i = first; i < end; i++) {
		w->under_way[i % COUNTERS] += under_way;
		w->begun[i % COUNTERS] += begun;
	}
}

static void on_begin(struct layer_watch *base, const struct req *r)
{
	count(container_of(base, struct watch, base), r->range, 1, 1);
}

static void on_end(struct layer_watch *base, const struct req *r)
{
	count(container_of(base, struct watch, base), r->range, (uint32_t)-1, 0);
}

static void on_stranger_end(struct layer_watch *base)
{
	struct watch *w = container_of(base, struct watch, base);

	assert(w->strangers > 0);
	w->strangers--;
}

struct watch *watch_new(struct layer *top)
{
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->base = (struct layer_watch){ .on_begin = on_begin, .on_end = on_end, .on_stranger_end = on_stranger_end };
	w->top = top;
	w->strangers = top->in_flight;
	layer_set_watch(top, &w->base);
	return w;
}

void watch_free(struct watch *w, bool has_layer)
{
	if (w && has_layer)
		layer_set_watch(w->top, NULL);
	free(w);
}

bool watch_is_quiet(const struct watch *w, struct range r)
{
	uint64_t first = r.start / CHUNK_BYTES, end = (r.end + CHUNK_BYTES - 1) / CHUNK_BYTES;

	if (w->strangers || w->all_under_way)
		return false;
	for (uint64_t i = first; i < end; i++)
		if (w->under_way[i % COUNTERS])
			return false;
	return true;
}

uint64_t watch_stamp(const struct watch *w, struct range r)
{
	uint64_t first = r.start / CHUNK_BYTES, end = (r.end + CHUNK_BYTES - 1) / CHUNK_BYTES, stamp = w->all_begun;

	for (uint64_t i = first; i < end; i++)
		stamp += w->begun[i % COUNTERS];
	return stamp;
}
