/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-shadow - the part of the map that survives a kill, written through as the core goes (I11)
 *
 *      owing       not CLEAN, or something of either leg is queued or in flight set before either leg is submitted,
 *      unflushed   written there since the last flush began that ended well     cleared when the core knows better
 *
 * The arrays are the driver's, in memory that outlives the process; they are written here and never read. Only what lies in a
 * region that is `mapped` has memory behind it. A region's bits are written whole when it becomes so.
 *
 * Invariant: between two steps, a chunk of a mapped region has its bit of owing unless it is CLEAN and no leg is on it.
 */
#include "mirror/core-private.h"

static void write_bits(uint64_t *words, uint64_t first, uint64_t end, bool is_set)
{
	for (uint64_t at = first; at < end;) {
		uint64_t stop = MIN(end, (at / 64 + 1) * 64), mask = UINT64_MAX << (at % 64);

		if (stop % 64)
			mask &= UINT64_MAX >> (64 - stop % 64);
		if (is_set)
			words[at / 64] |= mask;
		else
			words[at / 64] &= ~mask;
		at = stop;
	}
}

/* Of s, what lies in mapped regions. */
static void write_span(struct core *c, uint64_t *words, struct core_span s, bool is_set)
{
	uint64_t chunks = c->marks.region_bytes / CORE_CHUNK_BYTES;

	if (!words)
		return;
	for (uint64_t at = s.first; at < s.end;) {
		uint64_t region = at / chunks, stop = MIN(s.end, (region + 1) * chunks);

		if (bitmap_test(c->marks.mapped, region))
			write_bits(words, at, stop, is_set);
		at = stop;
	}
}

static void write_set(struct core *c, uint64_t *words, const struct bitmap *from, struct core_span s)
{
	for (uint64_t first = bitmap_next(from, s.first); words && first < s.end;) {
		uint64_t end = MIN(bitmap_next_clear(from, first), s.end);

		write_span(c, words, (struct core_span){ first, end }, true);
		first = bitmap_next(from, end);
	}
}

void core_shadow_owe(struct core *c, struct core_span s)
{
	write_span(c, c->marks.owing, s, true);
}

/* Perhaps more than is: a copy's range, not its mask. Its own end settles that. */
static bool is_copying(const struct core *c, struct range r)
{
	for (unsigned i = 0; i < c->live_count; i++)
		if (c->live[i]->mine_count && range_overlaps(c->live[i]->range, r))
			return true;
	return false;
}

/* A write that was submitted here may not have reached the disk when the process is killed. */
static bool is_at_home(const struct claim *claim)
{
	const struct core_op *op = claim->owner;

	return op->kind != CORE_COPY && op->local_leg == CORE_LOCAL_BUSY && !PLANTED(BUG_OWING_NOT_AT_HOME);
}

static bool is_busy(const struct core *c, struct core_span s)
{
	struct range r = core_map_bytes(&c->map, s);

	return bitmap_test_any(c->map.dirty, s.first, s.end) || is_copying(c, r) ||
	       claims_overlap(c->local_claims, r, is_at_home) ||
	       (claims_overlap(c->far_claims, r, NULL) && !PLANTED(BUG_OWING_SETTLED_EARLY));
}

void core_shadow_region(struct core *c, uint64_t region)
{
	uint64_t chunks = c->marks.region_bytes / CORE_CHUNK_BYTES;
	struct core_span s = { region * chunks, MIN((region + 1) * chunks, c->map.chunks) };

	write_span(c, c->marks.owing, s, false);
	write_span(c, c->marks.unflushed, s, false);
	write_set(c, c->marks.owing, c->map.dirty, s);
	for (uint64_t i = s.first; c->marks.region[region].pins && i < s.end; i++)
		if (is_busy(c, (struct core_span){ i, i + 1 }))
			write_span(c, c->marks.owing, (struct core_span){ i, i + 1 }, true);
	write_set(c, c->marks.unflushed, c->map.touched, s);
	write_set(c, c->marks.unflushed, c->map.flushing, s);
}

void core_shadow_settle(struct core *c, struct range r)
{
	struct core_span s = core_map_span(&c->map, r);

	if (!c->marks.owing)
		return;
	if (!is_busy(c, s)) {
		write_span(c, c->marks.owing, s, false);
		return;
	}
	for (uint64_t i = s.first; i < s.end; i++) {
		struct core_span one = { i, i + 1 };

		if (!is_busy(c, one))
			write_span(c, c->marks.owing, one, false);
	}
}

void core_shadow_touch(struct core *c, struct core_span s)
{
	if (!PLANTED(BUG_UNFLUSHED_NOT_KEPT))
		write_span(c, c->marks.unflushed, s, true);
}

void core_shadow_flushed(struct core *c)
{
	const struct bitmap *flushing = c->map.flushing;
	uint64_t bits = bitmap_bits(flushing);

	for (uint64_t first = bitmap_next(flushing, 0); c->marks.unflushed && first < bits;) {
		uint64_t end = bitmap_next_clear(flushing, first);

		write_span(c, c->marks.unflushed, (struct core_span){ first, end }, false);
		write_set(c, c->marks.unflushed, c->map.touched, (struct core_span){ first, end });
		first = bitmap_next(flushing, end);
	}
}
