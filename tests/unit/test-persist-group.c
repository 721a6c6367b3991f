/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Marks go to the medium in groups, are answered once, and are there after the power went, whenever it goes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/persist-rig.h"

#define REGIONS 70000u /* three blocks of bits */
#define SIZE (REGIONS * PERSIST_REGION_BYTES)

static struct persist_rig rig;
static struct plug plug;
static sem_t reached, released;

static int setup(void **state)
{
	(void)state;
	rig_start(&rig, SIZE);
	plug_init(&plug, 1);
	rig.spec.ops = &plug.ops;
	sem_init(&reached, 0, 0);
	sem_init(&released, 0, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_stop(&rig);
	return 0;
}

static void stop_before_sync(struct plug *p)
{
	p->before_sync = NULL; /* this one only */
	sem_post(&reached);
	sem_wait(&released);
}

static void marks_of_one_turn_cost_one_sync(void **state)
{
	struct try t[16];

	(void)state;
	rig_new(&rig);
	for (unsigned i = 0; i < 16; i++)
		try_mark(&rig, &t[i], 4000 * i, 1);
	rig_run(&rig);
	assert_int_equal(plug.syncs, 1);
	for (unsigned i = 0; i < 16; i++) {
		assert_int_equal(t[i].answers, 1);
		assert_int_equal(t[i].err, 0);
	}
	try_mark(&rig, &t[0], 0, 1); /* marked already */
	try_mark(&rig, &t[1], 4000, 1);
	rig_run(&rig);
	assert_int_equal(t[0].answers, 1);
	assert_true(t[0].has_map);
	assert_int_equal(plug.syncs, 1);
	try_mark(&rig, &t[0], 0, REGIONS);
	rig_run(&rig);
	assert_int_equal(plug.syncs, 2);
	assert_true(persist_is_marked(rig.p, REGIONS - 1) && persist_has_map(rig.p, REGIONS - 1));
}

static void what_comes_during_a_sync_goes_with_the_next(void **state)
{
	struct try first, again, t[12];

	(void)state;
	rig_new(&rig);
	plug.before_sync = stop_before_sync;
	try_mark(&rig, &first, 1, 1);
	rig_turn(&rig);
	sem_wait(&reached);
	try_mark(&rig, &again, 1, 1); /* of the same region: may not be answered either */
	for (unsigned i = 0; i < 12; i++) {
		try_mark(&rig, &t[i], 10 + i, 1);
		rig_turn(&rig);
	}
	assert_int_equal(first.answers + again.answers + t[0].answers, 0);
	assert_false(persist_is_marked(rig.p, 1));
	sem_post(&released);
	rig_run(&rig);
	assert_int_equal(plug.syncs, 2);
	assert_int_equal(first.answers, 1);
	assert_int_equal(again.answers, 1);
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(t[i].answers, 1);
}

static void a_failed_sync_fails_its_marks_and_the_next_ones_get_a_new_file(void **state)
{
	struct try t[3];
	struct persist_found found;
	unsigned makes;

	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	rig_mark(&rig, 5, 1);
	makes = plug.makes;
	plug.fail_sync = ENOSPC;
	try_mark(&rig, &t[0], 6, 1);
	try_mark(&rig, &t[1], 5, 1); /* is there already */
	rig_run(&rig);
	assert_int_equal(t[0].err, ENOSPC);
	assert_false(t[0].has_map);
	assert_int_equal(t[1].err, 0);
	assert_false(persist_is_marked(rig.p, 6));
	assert_true(persist_is_marked(rig.p, 5));
	plug.fail_make = EROFS; /* still */
	try_mark(&rig, &t[0], 7, 1);
	rig_run(&rig);
	assert_int_equal(t[0].err, EROFS);
	plug.fail_make = 0;
	rig_mark(&rig, 8, 1);
	assert_int_equal(plug.makes, makes + 2);
	rig_close(&rig, PERSIST_KEEP);
	plug_crash(&plug);
	rig_reopen(&rig, &found);
	assert_true(found.has_marks);
	assert_string_equal(rig_marked(&rig), "81920-98304 131072-147456");
}

static unsigned voids;
static int void_err;

static void on_voided(void *arg UNUSED, const struct error *e)
{
	voids++;
	void_err = e ? e->err : 0;
	loop_stop(rig.loop);
}

static void void_all(void)
{
	voids = 0;
	persist_void(rig.p, on_voided, NULL);
	assert_int_equal(voids, 0); /* not in this stack */
	while (!voids)
		loop_run(rig.loop);
}

/* The write of a mark that could not be made goes on: then no power loss may bring back marks that lack it. */
static void what_is_void_is_so_after_a_power_loss(void **state)
{
	struct persist_found found;
	struct try t;

	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	rig_mark(&rig, 5, 1);
	plug.fail_sync = EIO;
	try_mark(&rig, &t, 6, 1);
	rig_run(&rig);
	assert_int_equal(t.err, EIO);
	void_all();
	assert_int_equal(void_err, 0);
	try_mark(&rig, &t, 5, 1);
	rig_run(&rig);
	assert_int_equal(t.err, ECANCELED);
	persist_retire(rig.p, 5);
	assert_int_equal(access(rig.map, F_OK), -1);
	rig_close(&rig, PERSIST_KEEP);
	plug_crash(&plug);
	rig_reopen(&rig, &found);
	assert_false(found.has_marks || found.has_map);
	assert_int_equal(found.marks_reason.err, ENOENT);
}

/* A group that follows would make the file anew, without the mark that failed. */
static void nothing_is_written_any_more_once_it_is_void(void **state)
{
	struct try going, waiting;
	struct persist_found found;
	unsigned makes;

	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	plug.before_sync = stop_before_sync;
	plug.fail_sync = EIO;
	try_mark(&rig, &going, 1, 1);
	rig_turn(&rig);
	sem_wait(&reached);
	try_mark(&rig, &waiting, 2, 1);
	makes = plug.makes;
	voids = 0;
	persist_void(rig.p, on_voided, NULL);
	rig_turn(&rig);
	assert_int_equal(waiting.err, ECANCELED);
	assert_int_equal(going.answers + voids, 0);
	sem_post(&released);
	rig_run(&rig);
	while (!voids)
		loop_run(rig.loop);
	assert_int_equal(going.err, EIO);
	assert_int_equal(plug.makes, makes);
	rig_close(&rig, PERSIST_KEEP);
	rig_reopen(&rig, &found);
	assert_false(found.has_marks || found.has_map);
}

static void what_cannot_be_made_void_for_good_is_told(void **state)
{
	(void)state;
	rig_new(&rig);
	plug.fail_sync_dir = EROFS;
	void_all();
	assert_int_equal(void_err, EROFS);
}

static void closing_answers_what_waits_and_what_is_on_its_way(void **state)
{
	struct try going, waiting;
	struct persist_found found;

	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	rig_mark(&rig, 9, 1);
	plug.before_sync = stop_before_sync;
	try_mark(&rig, &going, 1, 1);
	rig_turn(&rig);
	sem_wait(&reached);
	try_mark(&rig, &waiting, 2, 1);
	persist_retire(rig.p, 9);
	sem_post(&released);
	rig_close(&rig, PERSIST_KEEP);
	assert_int_equal(going.answers, 1);
	assert_int_equal(going.err, 0);
	assert_int_equal(waiting.answers, 1);
	assert_int_equal(waiting.err, ECANCELED);
	rig_reopen(&rig, &found);
	assert_string_equal(rig_marked(&rig), "16384-32768");
}

static void a_region_retired_under_a_mark_on_its_way_is_marked(void **state)
{
	struct persist_found found;
	struct try t;

	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	rig_mark(&rig, 1, 1);
	plug.before_sync = stop_before_sync;
	try_mark(&rig, &t, 1, 2);
	rig_turn(&rig);
	sem_wait(&reached);
	persist_retire(rig.p, 1);
	sem_post(&released);
	rig_run(&rig);
	assert_int_equal(t.err, 0);
	assert_true(t.has_map);
	assert_true(persist_is_marked(rig.p, 1) && persist_is_marked(rig.p, 2));
	rig_mark(&rig, 3, 1);
	rig_close(&rig, PERSIST_KEEP);
	plug_crash(&plug);
	rig_reopen(&rig, &found);
	assert_string_equal(rig_marked(&rig), "16384-65536");
}

/* Within a second or so: else the region is copied for nothing when the power goes. */
static void a_retired_region_is_soon_unmarked_on_the_medium(void **state)
{
	struct persist_found found;

	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	rig_mark(&rig, 5, 2);
	persist_retire(rig.p, 5);
	for (uint64_t end = loop_now_ns() + 60 * NS_PER_S; plug.syncs < 2 && loop_now_ns() < end;)
		rig_turn(&rig);
	assert_int_equal(plug.syncs, 2);
	rig_close(&rig, PERSIST_KEEP);
	plug_crash(&plug);
	rig_reopen(&rig, &found);
	assert_string_equal(rig_marked(&rig), "98304-114688");
}

static void closing_needs_no_sync(void **state)
{
	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	rig_mark(&rig, 5, 1);
	rig_mark(&rig, 6, 1);
	persist_retire(rig.p, 5);
	rig_close(&rig, PERSIST_KEEP);
	assert_int_equal(plug.syncs, 2);
}

/* A bit that a dead process wrote but never synced is not taken for a mark. */
static void what_is_taken_up_is_on_the_medium_first(void **state)
{
	struct persist_found found;
	size_t at;

	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	rig_mark(&rig, 0, 1);
	rig_close(&rig, PERSIST_KEEP);
	at = plug.bytes - 3 * 4096; /* region 1, in the page cache only */
	plug.cache[at] |= 2;
	rig_reopen(&rig, &found);
	rig_mark(&rig, 1, 1);
	rig_close(&rig, PERSIST_KEEP);
	plug_crash(&plug);
	rig_reopen(&rig, &found);
	assert_string_equal(rig_marked(&rig), "0-32768");
}

/* --- the power goes at a random instant */

#define TRIES 6u

static uint64_t promised[REGIONS / 64 + 1]; /* a mark that was done(0), and not retired since */

static uint64_t random_state; /* not the plug's: that is the pool's */

static uint64_t draw(uint64_t limit)
{
	random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (random_state >> 33) % limit;
}

static bool is_promised(uint64_t region)
{
	return promised[region / 64] >> region % 64 & 1;
}

static void promise(uint64_t region, bool is_it)
{
	promised[region / 64] &= ~(UINT64_C(1) << region % 64);
	promised[region / 64] |= (uint64_t)is_it << region % 64;
}

/* Few of them, near each other and in all blocks. */
static uint64_t draw_region(void)
{
	return draw(5) * 16000 + draw(24);
}

static void on_answered(struct try *t)
{
	for (uint64_t k = 0; k < t->mark.count && t->err == 0; k++) {
		assert_true(persist_is_marked(rig.p, t->mark.region + k));
		promise(t->mark.region + k, true);
	}
}

static void retire_some(void)
{
	for (unsigned i = 0; i < 3; i++) {
		uint64_t r = draw_region();

		if (persist_is_marked(rig.p, r) && draw(2)) {
			persist_retire(rig.p, r);
			promise(r, false);
		}
	}
}

static void live(void)
{
	struct try t[TRIES];

	for (unsigned round = 0; round < 30 && !plug.is_dead; round++) {
		unsigned n = 1 + (unsigned)draw(TRIES);

		retire_some();
		if (draw(10) == 0)
			plug.fail_sync = EIO;
		for (unsigned i = 0; i < n; i++) {
			try_mark(&rig, &t[i], draw_region(), 1 + draw(3));
			if (draw(2))
				rig_turn(&rig);
			if (draw(2))
				retire_some();
		}
		rig_run(&rig);
		for (unsigned i = 0; i < n; i++)
			assert_int_equal(t[i].answers, 1);
	}
}

static void look(void *arg UNUSED, struct range r)
{
	for (uint64_t region = r.start / PERSIST_REGION_BYTES; region * PERSIST_REGION_BYTES < r.end; region++)
		promise(region, false);
}

static void check_promises(uint64_t seed)
{
	uint64_t kept[REGIONS / 64 + 1];

	memcpy(kept, promised, sizeof(kept));
	persist_each_marked(rig.p, look, NULL);
	for (uint64_t r = 0; r < REGIONS; r++)
		if (is_promised(r))
			fail_msg("seed %llu: region %llu was marked and is not", (unsigned long long)seed, (unsigned long long)r);
	memcpy(promised, kept, sizeof(kept));
}

static void play(uint64_t seed)
{
	struct persist_found found;
	struct error e;

	plug_init(&plug, seed);
	random_state = ~seed;
	rig.answered = on_answered;
	rig.spec.ops = &plug.ops;
	memset(promised, 0, sizeof(promised));
	rig_new(&rig);
	persist_vouch(rig.p);
	for (unsigned life = 0; life < 4; life++) {
		plug.dies_after = 1 + (unsigned)draw(150);
		live();
		plug.is_dead = true;
		rig_close(&rig, PERSIST_KEEP); /* nothing of it arrives */
		if (draw(2))
			plug_crash(&plug);
		plug.is_dead = false; /* else: only the process died; the page cache lives on */
		plug.dies_after = 0;
		plug.fail_sync = 0;
		rig.p = persist_open(&rig.spec, &found, &e);
		assert_non_null(rig.p);
		assert_true(found.has_marks);
		check_promises(seed);
	}
	rig_close(&rig, PERSIST_UNLINK);
}

static void a_mark_that_was_done_outlives_the_power(void **state)
{
	const char *runs = getenv("PERSIST_SCHEDULES"), *from = getenv("PERSIST_SEED");
	uint64_t seed = from ? strtoull(from, NULL, 10) : 1;

	(void)state;
	for (uint64_t i = 0; i < (runs ? strtoull(runs, NULL, 10) : 100); i++)
		play(seed + i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(marks_of_one_turn_cost_one_sync, setup, teardown),
		cmocka_unit_test_setup_teardown(what_comes_during_a_sync_goes_with_the_next, setup, teardown),
		cmocka_unit_test_setup_teardown(a_failed_sync_fails_its_marks_and_the_next_ones_get_a_new_file, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_void_is_so_after_a_power_loss, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_is_written_any_more_once_it_is_void, setup, teardown),
		cmocka_unit_test_setup_teardown(what_cannot_be_made_void_for_good_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(closing_answers_what_waits_and_what_is_on_its_way, setup, teardown),
		cmocka_unit_test_setup_teardown(a_region_retired_under_a_mark_on_its_way_is_marked, setup, teardown),
		cmocka_unit_test_setup_teardown(a_retired_region_is_soon_unmarked_on_the_medium, setup, teardown),
		cmocka_unit_test_setup_teardown(closing_needs_no_sync, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_taken_up_is_on_the_medium_first, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mark_that_was_done_outlives_the_power, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
