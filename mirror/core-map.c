/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-map - what the core knows of every chunk, cheap for a disk of any size
 *
 * Bits are set for what is out of the ordinary, so that a disk nobody writes to costs nothing. Pristine is the exception: a
 * new target is pristine everywhere, an old one nowhere. Both must be cheap, so it is two things: the ranges that were proved
 * at the start (one, or none), and a bit for each chunk of them that something was sent to since.
 *
 *      pristine ranges   [------------------------)      [------)
 *      soiled bits            ##     #
 *      pristine now      [---)  [---) [-----------)      [------)
 *
 * Flushes of the far side have two sets of chunks. What was written there is `touched`; when a flush begins that becomes
 * `flushing`, except what is queued or in flight at that moment: the flush covers none of it, though it may be acknowledged
 * before the flush is. A good flush forgets `flushing`, a bad one puts it back.
 *
 *      enqueue --> touched --flush begins--> flushing --good--> (flushed)
 *                     ^  '-pending: stays-'     |
 *                     '----------- bad ---------'
 */
#include "mirror/core-map.h"

#include <stdlib.h>
#include <string.h>

#include "mirror/core.h"

static uint64_t divide_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

bool core_map_init(struct core_map *m, uint64_t size_bytes)
{
	*m = (struct core_map){ .size_bytes = size_bytes, .chunks = divide_up(size_bytes, CORE_CHUNK_BYTES) };
	m->dirty = bitmap_new(m->chunks);
	m->unreadable = bitmap_new(m->chunks);
	m->soiled = bitmap_new(m->chunks);
	m->touched = bitmap_new(m->chunks);
	m->flushing = bitmap_new(m->chunks);
	return m->dirty && m->unreadable && m->soiled && m->touched && m->flushing;
}

void core_map_fini(struct core_map *m)
{
	bitmap_free(m->dirty);
	bitmap_free(m->unreadable);
	bitmap_free(m->soiled);
	bitmap_free(m->touched);
	bitmap_free(m->flushing);
	free(m->pristine);
}

struct core_span core_map_span(const struct core_map *m, struct range r)
{
	assert(r.start <= r.end && r.end <= m->size_bytes);
	return (struct core_span){ r.start / CORE_CHUNK_BYTES, divide_up(r.end, CORE_CHUNK_BYTES) };
}

struct range core_map_bytes(const struct core_map *m, struct core_span s)
{
	return (struct range){ s.first * CORE_CHUNK_BYTES, MIN(s.end * CORE_CHUNK_BYTES, m->size_bytes) };
}

/* The first pristine range that ends after `bytes`. */
static size_t find_pristine(const struct core_map *m, uint64_t bytes)
{
	size_t low = 0, high = m->pristine_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (m->pristine[middle].end > bytes)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static bool reserve_pristine(struct core_map *m)
{
	size_t room = m->pristine_room ? 2 * m->pristine_room : 16;
	struct range *more;

	if (m->pristine_count < m->pristine_room)
		return true;
	more = reallocarray(m->pristine, room, sizeof *more);
	if (!more)
		return false;
	m->pristine = more;
	m->pristine_room = room;
	return true;
}

/* Only whole chunks count; those that touch or overlap become one. */
void core_map_add_pristine(struct core_map *m, struct range r)
{
	struct range new = range_shrink(r, CORE_CHUNK_BYTES);
	size_t first, end;

	if (r.end == m->size_bytes && r.start < r.end)
		new = (struct range){ divide_up(r.start, CORE_CHUNK_BYTES) * CORE_CHUNK_BYTES, r.end };
	if (range_is_empty(new) || !reserve_pristine(m))
		return;

	first = new.start ? find_pristine(m, new.start - 1) : 0;
	for (end = first; end < m->pristine_count && m->pristine[end].start <= new.end; end++) {
		new.start = MIN(new.start, m->pristine[end].start);
		new.end = MAX(new.end, m->pristine[end].end);
	}
	memmove(&m->pristine[first + 1], &m->pristine[end], (m->pristine_count - end) * sizeof *m->pristine);
	m->pristine[first] = new;
	m->pristine_count = m->pristine_count - (end - first) + 1;
}

bool core_map_is_pristine(const struct core_map *m, struct core_span s)
{
	struct range r = core_map_bytes(m, s);
	size_t i = find_pristine(m, r.start);

	return i < m->pristine_count && range_contains(m->pristine[i], r) && !bitmap_test_any(m->soiled, s.first, s.end);
}

void core_map_enqueued(struct core_map *m, struct range r)
{
	struct core_span s = core_map_span(m, r);
	size_t i = find_pristine(m, r.start);

	bitmap_set(m->touched, s.first, s.end);
	for (; i < m->pristine_count && m->pristine[i].start < r.end; i++) {
		struct core_span p = core_map_span(m, m->pristine[i]);

		bitmap_set(m->soiled, MAX(p.first, s.first), MIN(p.end, s.end));
	}
}

bool core_map_is_flushed(const struct core_map *m)
{
	return bitmap_count(m->touched) == 0 && bitmap_count(m->flushing) == 0;
}

void core_map_flush_begins(struct core_map *m)
{
	struct bitmap *empty = m->flushing;

	assert(bitmap_count(empty) == 0);
	m->flushing = m->touched;
	m->touched = empty;
}

void core_map_flush_ends(struct core_map *m, bool is_good)
{
	uint64_t bits = bitmap_bits(m->flushing);

	if (!is_good) {
		uint64_t first = bitmap_next(m->flushing, 0);

		while (first < bits) {
			uint64_t end = bitmap_next_clear(m->flushing, first);

			bitmap_set(m->touched, first, end);
			first = bitmap_next(m->flushing, end);
		}
	}
	bitmap_clear(m->flushing, 0, bits);
}
