/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-marks - what survives the host: one mark a region, on the medium before a write into it is submitted to either leg (I11)
 *
 *                 a guest's write, or owed at MAP_ON                       both disks flushed, not touched meanwhile
 *      unmarked ------------> wanted --MARK--> asked --MARKED--> marked ------> retiring ------> retired --RETIRE--> unmarked
 *                                                                  ^----- touched -----'
 *
 * A write whose regions are not all marked is parked with its local claim: nothing else happens to its range meanwhile, and
 * it is routed when it goes on (I3).  What is alive in a region, or waits for its mark, pins it.
 *
 * A guest that writes all over a large disk would wait for a mark with each of thousands of first writes.  Once it has waited for
 * many in a second, those that follow are asked for by eights, its neighbours as if it had written there, too: after a power
 * loss up to eight times as much may be copied, and of a disk that is written in few places nothing more than before.
 *
 * Retirement costs one pair of flushes a second at most.  When it begins, every marked region that is CLEAN and not pinned, and
 * where no guest wrote for keep_mark_ms, is `retiring`; whoever pins one takes it out.  When both flushes have ended well
 * what is left loses its mark: all that was ever written there is on both media, and nothing differs.
 *
 * The end of the operation does not end this: map and marks lie there, and are believed, until somebody has removed them. In
 * FAILED and ENDED writes are owed and wait for marks as before, until the driver says that the files are void (VOIDED). In
 * FINISHED nobody writes.
 *
 * Can fail:    a mark that cannot be written: the files are void, the operation fails, the guest goes on without it.
 * Invariants:  a DIRTY or COPYING chunk, or one with a leg in flight, lies in a marked region (from is_ready on, until VOIDED).
 */
#include "mirror/core-private.h"

#include <errno.h>
#include <stdlib.h>

#define PAIR_EVERY_NS NS_PER_S
#define ASK_REGIONS_MAX 4096u /* in one MARK */
#define AHEAD_REGIONS 8u      /* a page of the map in files */

struct core_regions {
	uint64_t first, end;
};

static struct core_regions regions_of(const struct core *c, struct range r)
{
	return (struct core_regions){ r.start / c->marks.region_bytes, (r.end - 1) / c->marks.region_bytes + 1 };
}

bool core_marks_init(struct core *c)
{
	struct core_marks *m = &c->marks;

	m->region_bytes = c->spec.region_bytes;
	m->regions = c->spec.size_bytes / m->region_bytes + (c->spec.size_bytes % m->region_bytes != 0);
	TAILQ_INIT(&m->parked);
	m->region = calloc(MAX(m->regions, UINT64_C(1)), sizeof(*m->region));
	m->marked = bitmap_new(m->regions);
	m->wanted = bitmap_new(m->regions);
	m->asked = bitmap_new(m->regions);
	m->mapped = bitmap_new(m->regions);
	m->retiring = bitmap_new(m->regions);
	m->retired = bitmap_new(m->regions);
	return m->region && m->marked && m->wanted && m->asked && m->mapped && m->retiring && m->retired;
}

void core_marks_fini(struct core *c)
{
	struct core_marks *m = &c->marks;

	free(m->region);
	bitmap_free(m->marked);
	bitmap_free(m->wanted);
	bitmap_free(m->asked);
	bitmap_free(m->mapped);
	bitmap_free(m->retiring);
	bitmap_free(m->retired);
}

void core_mark_marked(struct core *c, struct range r, bool has_map)
{
	struct core_regions g;

	assert(c->state == CORE_CONNECTING && !c->marks.is_on);
	r = range_clip(r, (struct range){ 0, c->spec.size_bytes });
	if (range_is_empty(r))
		return;
	g = regions_of(c, r);
	bitmap_set(c->marks.marked, g.first, g.end);
	if (has_map)
		bitmap_set(c->marks.mapped, g.first, g.end);
}

static void want(struct core *c, struct core_regions g)
{
	struct core_marks *m = &c->marks;

	for (uint64_t i = g.first; i < g.end; i++)
		if (!bitmap_test(m->marked, i) && !bitmap_test(m->asked, i))
			bitmap_set(m->wanted, i, i + 1);
}

static void want_owed(struct core *c)
{
	const struct bitmap *dirty = c->map.dirty;
	uint64_t first = bitmap_next(dirty, 0);

	while (first < c->map.chunks) {
		uint64_t end = bitmap_next_clear(dirty, first);

		want(c, regions_of(c, core_map_bytes(&c->map, (struct core_span){ first, end })));
		first = bitmap_next(dirty, end);
	}
	for (uint64_t i = 0; i < c->marks.regions; i++)
		if (c->marks.region[i].pins)
			want(c, (struct core_regions){ i, i + 1 });
}

void core_marks_on(struct core *c, const struct core_event *ev)
{
	struct core_marks *m = &c->marks;

	if (c->state != CORE_CONNECTING || m->is_on)
		return;
	m->is_on = true;
	m->owing = ev->owing;
	m->unflushed = ev->unflushed;
	for (uint64_t i = bitmap_next(m->mapped, 0); i < m->regions; i = bitmap_next(m->mapped, i + 1))
		core_shadow_region(c, i);
	want_owed(c);
}

void core_marks_pin(struct core *c, struct core_op *op)
{
	struct core_marks *m = &c->marks;
	struct core_regions g = regions_of(c, op->range);

	op->is_pinned = true;
	for (uint64_t i = g.first; i < g.end; i++) {
		m->region[i].pins++;
		if (op->kind != CORE_COPY)
			m->region[i].guest_ms = (uint32_t)(c->now_ns / NS_PER_MS);
	}
	if (!m->is_on || PLANTED(BUG_RETIRE_TOUCHED))
		return;
	bitmap_clear(m->retiring, g.first, g.end);
	bitmap_clear(m->retired, g.first, g.end);
}

void core_marks_unpin(struct core *c, struct core_op *op)
{
	struct core_regions g;

	if (!op->is_pinned)
		return;
	op->is_pinned = false;
	g = regions_of(c, op->range);
	for (uint64_t i = g.first; i < g.end; i++) {
		assert(c->marks.region[i].pins > 0);
		c->marks.region[i].pins--;
	}
}

static bool is_marked(const struct core *c, const struct core_op *op)
{
	struct core_regions g = regions_of(c, op->range);

	if (!c->marks.is_on || c->marks.is_void || c->state == CORE_FINISHED)
		return true;
	return (core_is_over(c) && PLANTED(BUG_END_UNMARKED)) || bitmap_test_all(c->marks.marked, g.first, g.end);
}

bool core_marks_covers(const struct core *c, uint64_t chunk)
{
	return !c->marks.is_on || bitmap_test(c->marks.marked, chunk * CORE_CHUNK_BYTES / c->marks.region_bytes);
}

/* What to ask for besides. */
static struct core_regions foresee(struct core *c, struct core_regions g)
{
	struct core_marks *m = &c->marks;

	if (c->now_ns - m->firsts_from_ns > NS_PER_S) {
		m->firsts_from_ns = c->now_ns;
		m->firsts = 0;
	}
	if (++m->firsts <= c->spec.mark_ahead_after || core_is_over(c))
		return g;
	g.first -= g.first % AHEAD_REGIONS;
	g.end = MIN((g.end + AHEAD_REGIONS - 1) / AHEAD_REGIONS * AHEAD_REGIONS, m->regions);
	for (uint64_t i = g.first; i < g.end; i++)
		if (!bitmap_test(m->marked, i))
			m->region[i].guest_ms = (uint32_t)(c->now_ns / NS_PER_MS);
	return g;
}

bool core_marks_let_in(struct core *c, struct core_op *op)
{
	if (!op->is_pinned)
		core_marks_pin(c, op); /* parked, too: none of its marks goes while it waits for another */
	if (is_marked(c, op) || PLANTED(BUG_MARK_NOT_AWAITED))
		return true;
	TAILQ_INSERT_TAIL(&c->marks.parked, op, link);
	want(c, foresee(c, regions_of(c, op->range)));
	return false;
}

/* Those that need not wait any more are granted once again. */
static void unpark(struct core *c)
{
	struct core_op *op, *next;

	for (op = TAILQ_FIRST(&c->marks.parked); op; op = next) {
		next = TAILQ_NEXT(op, link);
		if (!is_marked(c, op))
			continue;
		TAILQ_REMOVE(&c->marks.parked, op, link);
		TAILQ_INSERT_TAIL(&c->granted, &op->local, wake);
	}
}

void core_marks_marked(struct core *c, const struct core_event *ev)
{
	struct core_marks *m = &c->marks;
	uint64_t end = ev->region + ev->count;

	bitmap_clear(m->asked, ev->region, end);
	if (c->state == CORE_FINISHED)
		return;
	if (ev->err) {
		core_marks_voided(c);
		core_fail(c, ev->err);
		return;
	}
	bitmap_set(m->marked, ev->region, end);
	for (uint64_t i = ev->region; ev->has_map && i < end; i++) {
		bitmap_set(m->mapped, i, i + 1);
		core_shadow_region(c, i);
	}
	unpark(c);
}

void core_marks_voided(struct core *c)
{
	c->marks.is_void = true;
	bitmap_clear(c->marks.wanted, 0, c->marks.regions);
	unpark(c);
}

/* Only of those who wait marks are still wanted. */
void core_marks_stop(struct core *c)
{
	struct core_marks *m = &c->marks;
	struct core_op *op;

	core_marks_void_pair(c);
	bitmap_clear(m->wanted, 0, m->regions);
	unpark(c);
	TAILQ_FOREACH(op, &m->parked, link)
		want(c, regions_of(c, op->range));
}

/* The first run of a set that is not empty. */
static void take_run(struct bitmap *from, uint64_t *first, uint64_t *end)
{
	*first = bitmap_next(from, 0);
	*end = MIN(bitmap_next_clear(from, *first), *first + ASK_REGIONS_MAX);
	bitmap_clear(from, *first, *end);
}

static void push_regions(struct core_actions *out, enum core_action_type type, uint64_t first, uint64_t end)
{
	core_push(out, type, NULL, 0, 0);
	out->item[out->count - 1].region = first;
	out->item[out->count - 1].count = end - first;
}

void core_marks_ask(struct core *c, struct core_actions *out)
{
	struct core_marks *m = &c->marks;
	uint64_t first, end;

	if (!m->is_on)
		return;
	while (bitmap_count(m->wanted) && core_has_room(out, 1)) {
		take_run(m->wanted, &first, &end);
		bitmap_set(m->asked, first, end);
		push_regions(out, CORE_DO_MARK, first, end);
	}
	while (bitmap_count(m->retired) && core_has_room(out, 1)) {
		take_run(m->retired, &first, &end);
		bitmap_clear(m->marked, first, end);
		bitmap_clear(m->mapped, first, end);
		push_regions(out, CORE_DO_RETIRE, first, end);
	}
	if (!m->is_ready && !core_is_over(c) && bitmap_count(m->wanted) == 0 && bitmap_count(m->asked) == 0) {
		m->is_ready = true;
		c->has_news = true;
	}
}

/* --- retirement */

static bool is_owed(const struct core *c, uint64_t region)
{
	uint64_t chunks = c->marks.region_bytes / CORE_CHUNK_BYTES;

	return bitmap_next(c->map.dirty, region * chunks) < MIN((region + 1) * chunks, c->map.chunks);
}

static bool can_retire(const struct core *c, uint64_t region)
{
	const struct core_region *r = &c->marks.region[region];
	uint32_t quiet_ms = (uint32_t)(c->now_ns / NS_PER_MS) - r->guest_ms;

	if ((r->pins && !PLANTED(BUG_RETIRE_PENDING)) || (is_owed(c, region) && !PLANTED(BUG_RETIRE_DIRTY)))
		return false;
	return !r->guest_ms || quiet_ms >= c->spec.keep_mark_ms;
}

bool core_marks_begin_pair(struct core *c, struct core_actions *out)
{
	struct core_marks *m = &c->marks;

	if (!m->is_on || m->is_flushing_home || c->now_ns - m->pair_ns < PAIR_EVERY_NS || bitmap_count(m->marked) == 0)
		return false;
	if (!c->far.can_flush)
		return false; /* it may lose anything at any time */
	m->pair_ns = c->now_ns;
	assert(bitmap_count(m->retiring) == 0);
	for (uint64_t i = bitmap_next(m->marked, 0); i < m->regions; i = bitmap_next(m->marked, i + 1))
		if (!bitmap_test(m->retired, i) && can_retire(c, i))
			bitmap_set(m->retiring, i, i + 1);
	if (bitmap_count(m->retiring) == 0)
		return false;
	m->is_flushing_home = true;
	m->is_home_good = PLANTED(BUG_RETIRE_BEFORE_HOME);
	m->is_far_of_pair = true;
	m->is_far_good = PLANTED(BUG_RETIRE_BEFORE_FAR);
	core_push(out, CORE_DO_FLUSH_HOME, NULL, 0, 0);
	return true;
}

static void retire_if_both(struct core *c)
{
	struct core_marks *m = &c->marks;

	if (!m->is_home_good || !m->is_far_good)
		return;
	for (uint64_t i = bitmap_next(m->retiring, 0); i < m->regions; i = bitmap_next(m->retiring, i + 1))
		bitmap_set(m->retired, i, i + 1);
	bitmap_clear(m->retiring, 0, m->regions);
}

void core_marks_home_flushed(struct core *c, int err)
{
	c->marks.is_flushing_home = false;
	if (err) {
		core_fail(c, err); /* what was read may not be what is on the disk (I10) */
		return;
	}
	c->marks.is_home_good = true;
	retire_if_both(c);
}

void core_marks_far_flushed(struct core *c, bool is_good)
{
	if (!c->marks.is_far_of_pair)
		return;
	c->marks.is_far_of_pair = false;
	if (!is_good) {
		core_marks_void_pair(c);
		return;
	}
	c->marks.is_far_good = true;
	retire_if_both(c);
}

void core_marks_void_pair(struct core *c)
{
	c->marks.is_far_of_pair = false;
	bitmap_clear(c->marks.retiring, 0, c->marks.regions);
}
