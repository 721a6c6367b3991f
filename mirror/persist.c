/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist - groups of marks, from the loop to the medium and back
 *
 *      persist_mark() --> waiting ==hook==> going ==pool: memory, blocks, one fdatasync==> over --deferred--> done()
 *                 '------ marked already, and its map decided -----------------------------^
 *
 * One group is on its way at a time. What comes meanwhile waits and goes with the next, so the medium decides how large a group
 * is: an idle one takes each mark at once, a slow one gets few and large groups. The hook runs before the loop sleeps, so marks
 * of one turn go together.
 *
 * The pool gets what it needs by value: the regions that want memory in the map, the pages to give back, the blocks of bits. It
 * touches nothing that the loop touches until the group is back.
 *
 * Retired marks and persist_vouch() only take away, so nobody waits for them: they go with the next group, and where none comes
 * within a second they make one. It has its fdatasync, too: the kernel would leave the page alone for half a minute, and if the
 * power went meanwhile a disk that is long the same on both sides would be copied for nothing. A page of the map whose eight
 * regions are all unmarked goes back to the tmpfs then. First the loop forgets that they are reserved, then the pool punches the
 * hole; a mark that comes meanwhile finds an undecided region and is served by the next group.
 *
 * A mark that cannot be made, and a write that goes on without: persist_void(). A group that is on its way is waited for, and no
 * other one starts: it would make the file anew.
 *
 * Can fail: fdatasync (those who went get the errno, the file is made anew), memory in the tmpfs (has_map false), the pool
 * (ENOMEM, for all who went).
 */
#include "mirror/persist-private.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define TIDY_MS 1000u
#define RESERVE_AT_ONCE 64u /* regions; fallocate() gives all of a piece or nothing */

uint64_t *persist_owing(struct persist *p)
{
	return p->map.owing;
}

uint64_t *persist_unflushed(struct persist *p)
{
	return p->map.unflushed;
}

/* --- what a mark still needs */

static uint64_t end_of(const struct persist_mark *m)
{
	return m->region + MAX(m->count, UINT64_C(1));
}

static bool is_settled(const struct persist *p, const struct persist_mark *m)
{
	if (!bitmap_test_all(p->marks.marked, m->region, end_of(m)))
		return false;
	for (uint64_t r = m->region; r < end_of(m); r++)
		if (!persist_map_is_decided(&p->map, r))
			return false;
	return true;
}

static bool has_map(const struct persist *p, const struct persist_mark *m)
{
	for (uint64_t r = m->region; r < end_of(m); r++)
		if (!persist_map_is_reserved(&p->map, r))
			return false;
	return true;
}

/* m is in no list. */
static void answer(struct persist *p, struct persist_mark *m, int err)
{
	m->err = err;
	TAILQ_INSERT_TAIL(&p->over, m, link);
	loop_defer(p->loop, &p->deliver);
}

static void answer_all(struct persist *p, struct mark_list *list, int err)
{
	struct persist_mark *m;

	while ((m = TAILQ_FIRST(list))) {
		TAILQ_REMOVE(list, m, link);
		answer(p, m, err);
	}
}

/* --- a group, in the pool */

static void reserve_memory(struct persist *p)
{
	uint64_t regions = p->map.regions;

	for (uint64_t r = bitmap_next(p->wanted, 0); r < regions; r = bitmap_next(p->wanted, r)) {
		uint64_t end = MIN(bitmap_next_clear(p->wanted, r), r + RESERVE_AT_ONCE);

		if (persist_map_reserve(&p->map, r, end) != 0)
			bitmap_set(p->refused, r, end);
		r = end;
	}
}

static void give_back_memory(struct persist *p)
{
	uint64_t groups = bitmap_bits(p->given_back);

	for (uint64_t g = bitmap_next(p->given_back, 0); g < groups; g = bitmap_next(p->given_back, g + 1))
		persist_map_release(&p->map, g * PERSIST_GROUP, MIN((g + 1) * PERSIST_GROUP, p->map.regions));
}

static void work_on_group(struct offload *o)
{
	struct persist *p = container_of(o, struct persist, offload);

	give_back_memory(p);
	reserve_memory(p);
	p->err = persist_marks_write(&p->marks, p->must_last);
}

/* --- a group, on the loop */

static void start_closing(struct persist *p);
static void start_voiding(struct persist *p);

/* What had to wait for the pool. */
static void go_on(struct persist *p)
{
	if (p->is_void && !p->is_voided)
		start_voiding(p);
	else if (p->is_closing)
		start_closing(p);
}

static void decide_map(struct persist *p)
{
	static struct log_limit limit = LOG_LIMIT(3);
	uint64_t regions = p->map.regions;

	if (bitmap_count(p->refused) && log_allowed(&limit))
		log_warn("no memory for the map %s: after a restart whole regions are copied instead of single chunks",
			 p->map.path);
	for (uint64_t r = bitmap_next(p->wanted, 0); r < regions; r = bitmap_next(p->wanted, r + 1))
		persist_map_take(&p->map, r, !bitmap_test(p->refused, r));
	bitmap_clear(p->wanted, 0, regions);
	bitmap_clear(p->refused, 0, regions);
	bitmap_clear(p->given_back, 0, bitmap_bits(p->given_back));
}

/* It may have been marked before and retired on the way: then its bit was written all the same. */
static void take_marked(struct persist *p, uint64_t region)
{
	persist_marks_set(&p->marks, region);
	bitmap_set(p->marks.marked, region, region + 1);
	if (!persist_map_is_decided(&p->map, region))
		persist_map_take(&p->map, region, false);
}

static void on_group_back(struct offload *o)
{
	struct persist *p = container_of(o, struct persist, offload);
	struct persist_mark *m, *next;

	p->is_busy = false;
	decide_map(p);
	TAILQ_FOREACH(m, &p->going, link)
		for (uint64_t r = m->region; r < end_of(m); r++)
			if (!p->err)
				take_marked(p, r);
			else if (!bitmap_test(p->marks.marked, r))
				persist_marks_clear(&p->marks, r);
	answer_all(p, &p->going, p->err);
	for (m = TAILQ_FIRST(&p->waiting); m; m = next) { /* for the same regions, perhaps */
		next = TAILQ_NEXT(m, link);
		if (is_settled(p, m)) {
			TAILQ_REMOVE(&p->waiting, m, link);
			answer(p, m, 0);
		}
	}
	go_on(p);
}

static void on_group_lost(struct persist *p)
{
	uint64_t regions = p->map.regions;

	p->err = ENOMEM;
	bitmap_set(p->refused, 0, regions);
	/* The blocks are in `file` and in no page cache: as after a failed write. */
	p->marks.is_suspect = true;
	bitmap_clear(p->marks.writing, 0, p->marks.blocks);
	on_group_back(&p->offload);
}

/* What the loop forgets before the pool takes its memory. */
static void pick_spare(struct persist *p)
{
	uint64_t groups = bitmap_bits(p->spare);

	for (uint64_t g = bitmap_next(p->spare, 0); g < groups; g = bitmap_next(p->spare, g + 1)) {
		uint64_t first = g * PERSIST_GROUP, end = MIN(first + PERSIST_GROUP, p->map.regions);

		if (bitmap_test_any(p->marks.marked, first, end))
			continue;
		for (uint64_t r = first; r < end; r++)
			persist_map_unreserve(&p->map, r);
		bitmap_set(p->given_back, g, g + 1);
	}
	bitmap_clear(p->spare, 0, groups);
}

static void pick_marks(struct persist *p)
{
	struct persist_mark *m;

	TAILQ_FOREACH(m, &p->waiting, link)
		for (uint64_t r = m->region; r < end_of(m); r++) {
			if (!persist_map_is_decided(&p->map, r))
				bitmap_set(p->wanted, r, r + 1);
			if (!bitmap_test(p->marks.marked, r)) {
				persist_marks_set(&p->marks, r);
				p->must_last = true;
			}
		}
	TAILQ_CONCAT(&p->going, &p->waiting, link);
}

static void start_group(struct persist *p)
{
	p->must_last = p->is_due;
	if (p->map.base)
		pick_spare(p);
	pick_marks(p);
	persist_marks_begin(&p->marks);
	p->is_due = false;
	if (p->is_tidy_set)
		loop_timer_clear(p->tidy);
	p->is_tidy_set = false;
	p->is_busy = true;
	p->offload = (struct offload){ .work = work_on_group, .done = on_group_back };
	if (offload_submit(p->loop, &p->offload) == -1)
		on_group_lost(p);
}

static void run_hook(struct loop_hook *h)
{
	struct persist *p = container_of(h, struct persist, hook);

	if (!p->is_busy && !p->is_closing && !p->is_void && (p->is_due || !TAILQ_EMPTY(&p->waiting)))
		start_group(p);
}

/* --- what is asked */

static void on_tidy(void *arg)
{
	struct persist *p = arg;

	p->is_tidy_set = false;
	p->is_due = true;
}

/* persist_new() ran in the pool, where the loop must not be touched. */
static void set_up(struct persist *p)
{
	if (p->is_set_up)
		return;
	p->is_set_up = true;
	loop_hook_add(p->loop, &p->hook);
	p->tidy = loop_timer_new(p->loop, on_tidy, p); /* NULL: tidied with the next marks */
}

void persist_mark(struct persist *p, struct persist_mark *m)
{
	assert(!p->is_closing && end_of(m) > m->region && end_of(m) <= p->map.regions);
	set_up(p);
	if (p->is_void)
		answer(p, m, ECANCELED);
	else if (is_settled(p, m))
		answer(p, m, 0);
	else
		TAILQ_INSERT_TAIL(&p->waiting, m, link);
}

bool persist_is_marked(const struct persist *p, uint64_t region)
{
	return bitmap_test(p->marks.marked, region);
}

bool persist_has_map(const struct persist *p, uint64_t region)
{
	return persist_is_marked(p, region) && persist_map_is_reserved(&p->map, region);
}

void persist_retire(struct persist *p, uint64_t region)
{
	assert(!p->is_closing && region < p->map.regions);
	if (!bitmap_test(p->marks.marked, region))
		return;
	set_up(p);
	persist_marks_clear(&p->marks, region);
	persist_map_drop(&p->map, region);
	bitmap_set(p->spare, region / PERSIST_GROUP, region / PERSIST_GROUP + 1);
	if (p->tidy && !p->is_tidy_set)
		loop_timer_set(p->tidy, TIDY_MS);
	p->is_tidy_set = p->tidy;
}

void persist_vouch(struct persist *p)
{
	assert(!p->is_closing);
	set_up(p);
	persist_map_vouch(&p->map);
	persist_marks_vouch(&p->marks);
	p->is_due = true;
}

int persist_each_owing(struct persist *p, unsigned which, persist_range_fn *fn, void *arg)
{
	return persist_map_each(&p->map, which, fn, arg);
}

void persist_each_marked(struct persist *p, persist_range_fn *fn, void *arg)
{
	const struct persist_marks *m = &p->marks;

	if (!persist_marks_is_vouched(m)) {
		fn(arg, (struct range){ 0, p->map.size_bytes });
		return;
	}
	for (uint64_t r = bitmap_next(m->marked, 0); r < m->regions; r = bitmap_next(m->marked, r)) {
		uint64_t end = bitmap_next_clear(m->marked, r);

		fn(arg, (struct range){ r * PERSIST_REGION_BYTES, MIN(end * PERSIST_REGION_BYTES, p->map.size_bytes) });
		r = end;
	}
}

/* --- not to be believed any more */

static void work_on_void(struct offload *o)
{
	struct persist *p = container_of(o, struct persist, offload);

	unlink(p->map.path);
	persist_marks_void(&p->marks, &p->void_error);
}

static void on_void(struct offload *o)
{
	struct persist *p = container_of(o, struct persist, offload);

	p->is_busy = false;
	p->is_voided = true;
	loop_defer(p->loop, &p->deliver);
	go_on(p);
}

static void start_voiding(struct persist *p)
{
	p->is_busy = true;
	p->offload = (struct offload){ .work = work_on_void, .done = on_void };
	if (offload_submit(p->loop, &p->offload) == -1) {
		work_on_void(&p->offload); /* it blocks, once, where there is no memory for a small struct */
		on_void(&p->offload);
	}
}

void persist_void(struct persist *p, void (*done)(void *arg, const struct error *e), void *arg)
{
	assert(!p->is_void && !p->is_closing && done);
	p->is_void = true;
	p->voided = done;
	p->voided_arg = arg;
	answer_all(p, &p->waiting, ECANCELED);
	if (!p->is_busy)
		start_voiding(p);
}

/* --- the end */

void persist_free(struct persist *p)
{
	persist_map_fini(&p->map);
	persist_marks_fini(&p->marks);
	bitmap_free(p->wanted);
	bitmap_free(p->refused);
	bitmap_free(p->spare);
	bitmap_free(p->given_back);
	free(p);
}

static void run_deliver(struct loop_task *t)
{
	struct persist *p = container_of(t, struct persist, deliver);
	struct persist_mark *m;

	while ((m = TAILQ_FIRST(&p->over))) {
		TAILQ_REMOVE(&p->over, m, link);
		if (m->err == 0 && !is_settled(p, m)) { /* retired since it was answered */
			if (!p->is_closing && !p->is_void) {
				TAILQ_INSERT_TAIL(&p->waiting, m, link);
				continue;
			}
			m->err = ECANCELED;
		}
		m->done(m, m->err, m->err == 0 && has_map(p, m));
	}
	if (p->is_voided && p->voided) {
		void (*voided)(void *, const struct error *) = take_ptr(&p->voided);

		voided(p->voided_arg, p->void_error.err ? &p->void_error : NULL);
	}
	if (!p->is_closed)
		return;
	if (p->closed)
		p->closed(p->arg);
	persist_free(p);
}

static void work_on_end(struct offload *o)
{
	struct persist *p = container_of(o, struct persist, offload);
	const struct persist_ops *ops = p->marks.ops;

	if (p->end == PERSIST_KEEP && !p->is_void) {
		persist_marks_write(&p->marks, false);
		return;
	}
	unlink(p->map.path);
	ops->unlink(ops->arg, p->marks.path);
}

static void on_end(struct offload *o)
{
	struct persist *p = container_of(o, struct persist, offload);

	p->is_closed = true;
	loop_defer(p->loop, &p->deliver);
}

static void start_closing(struct persist *p)
{
	if (p->is_set_up)
		loop_hook_remove(p->loop, &p->hook);
	loop_timer_free(take_ptr(&p->tidy));
	persist_marks_begin(&p->marks);
	p->offload = (struct offload){ .work = work_on_end, .done = on_end };
	if (offload_submit(p->loop, &p->offload) == -1) {
		work_on_end(&p->offload); /* it blocks, once, where there is no memory for a small struct */
		on_end(&p->offload);
	}
}

void persist_close(struct persist *p, enum persist_end end, void (*done)(void *arg), void *arg)
{
	assert(!p->is_closing);
	p->is_closing = true;
	p->end = end;
	p->closed = done;
	p->arg = arg;
	answer_all(p, &p->waiting, ECANCELED);
	if (!p->is_busy)
		start_closing(p);
}

void persist_init(struct persist *p, struct loop *loop)
{
	*p = (struct persist){ .loop = loop, .hook.run = run_hook, .deliver.run = run_deliver };
	p->map.fd = p->marks.fd = -1;
	TAILQ_INIT(&p->waiting);
	TAILQ_INIT(&p->going);
	TAILQ_INIT(&p->over);
}
