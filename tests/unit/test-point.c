/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-point - what is cloned is the disk at one moment, whatever is written meanwhile
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "block/gate.h"
#include "block/point.h"

#define G POINT_GRANULE_BYTES
#define SIZE (64 * G + 512)
#define GRANULES 65

/* The disk is a number for each granule; a write adds one when it arrives below. The clone is another. */
static struct loop *loop;
static struct layer disk, *gate, *point;
static unsigned below[GRANULES], cloned[GRANULES], clones_of[GRANULES];
static struct point_part *asked;
static unsigned asked_parts;
static bool is_asked;
static unsigned overs, done, flushed;

static void arrive(struct layer *l, struct req *r)
{
	(void)l;
	if (r->op == REQ_FLUSH)
		flushed++;
	if (r->op == REQ_WRITE || r->op == REQ_ZERO || r->op == REQ_TRIM)
		for (uint64_t g = r->range.start / G; g * G < r->range.end; g++)
			below[g]++;
	req_complete(r, 0);
}

static const struct layer_ops disk_ops = { .name = "numbers", .submit = arrive };

static void clone(void *arg, struct point_part *part, unsigned count)
{
	(void)arg;
	assert_false(is_asked);
	assert_in_range(count, 1, POINT_PARTS);
	for (unsigned i = 0; i < count; i++) {
		assert_true(part[i].r.start % G == 0 && (part[i].r.end % G == 0 || part[i].r.end == SIZE));
		assert_true(part[i].r.start < part[i].r.end && part[i].end == part[i].r.start);
		for (unsigned j = 0; j < i; j++)
			assert_false(range_overlaps(part[i].r, part[j].r));
	}
	asked = part;
	asked_parts = count;
	is_asked = true;
}

static void over(void *arg)
{
	(void)arg;
	overs++;
}

static const struct point_ops ops = { .clone = clone, .over = over };

static void stop(struct loop_task *t)
{
	(void)t;
	loop_stop(loop);
}

static void turn(void)
{
	static struct loop_task task = { .run = stop };

	loop_defer(loop, &task);
	loop_run(loop);
}

static void on_done(struct req *r)
{
	assert_int_equal(r->err, 0);
	done++;
	req_put(r);
}

static void submit(enum req_op op, uint64_t start, uint64_t end)
{
	struct req *r = req_get();

	r->op = op;
	r->range = (struct range){ start, end };
	r->done = on_done;
	layer_submit(gate, r);
}

static void submit_zero(uint64_t first, uint64_t end)
{
	submit(REQ_ZERO, first * G, MIN(end * G, SIZE));
}

/* The clone that is asked for comes so many granules far, in all its parts together. */
static void answer(uint64_t granules)
{
	assert_true(is_asked);
	is_asked = false;
	for (unsigned i = 0; i < asked_parts; i++)
		for (; granules && asked[i].end < asked[i].r.end; granules--) {
			cloned[asked[i].end / G] = below[asked[i].end / G];
			clones_of[asked[i].end / G]++;
			asked[i].end = MIN(asked[i].end + G, asked[i].r.end);
		}
	point_cloned(point, 0);
}

static int setup(void **state)
{
	const struct geometry g = { .size_bytes = SIZE, .can_trim = true, .can_zero = true };

	(void)state;
	loop = loop_new();
	req_init(loop);
	memset(below, 0, sizeof(below));
	memset(cloned, 0xff, sizeof(cloned));
	memset(clones_of, 0, sizeof(clones_of));
	overs = done = flushed = 0;
	is_asked = false;
	layer_init(&disk, &disk_ops, NULL, &g);
	gate = gate_new(&disk);
	gate_hold(gate);
	point = point_new(&disk, &g, &ops, NULL);
	gate_set_below(gate, point);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	gate_hold(gate);
	gate_set_below(gate, &disk);
	layer_close(point);
	layer_close(gate);
	req_fini();
	loop_free(loop);
	return 0;
}

static void go(void)
{
	gate_release(gate);
	point_start(point);
}

/* Of the moment, each granule once, and no write is lost. */
static void check(unsigned writes)
{
	struct point_status s;

	turn();
	assert_int_equal(overs, 1);
	assert_int_equal(done, writes);
	for (unsigned g = 0; g < GRANULES; g++) {
		assert_int_equal(cloned[g], 0);
		assert_int_equal(clones_of[g], 1);
	}
	point_status(point, &s);
	assert_int_equal(s.done_bytes, SIZE);
	assert_int_equal(s.err, 0);
}

static void a_disk_nobody_writes_is_swept_once(void **state)
{
	(void)state;
	go();
	while (is_asked)
		answer(7);
	check(0);
}

static void a_write_waits_for_what_it_overwrites_and_no_longer(void **state)
{
	(void)state;
	go();
	assert_int_equal(asked->r.start, 0);
	submit_zero(20, 21);
	turn();
	assert_int_equal(done, 0);
	answer(4); /* of the sweep */
	assert_int_equal(asked->r.start, 20 * G);
	assert_int_equal(asked->r.end, 21 * G);
	assert_int_equal(asked_parts, 2);
	assert_int_equal(below[20], 0);
	answer(1);
	turn();
	assert_int_equal(done, 1);
	assert_int_equal(asked->r.start, 4 * G); /* the sweep goes on, round what is done */
	assert_int_equal(asked->r.end, 20 * G);
	assert_int_equal(asked_parts, 1);
	submit_zero(20, 21); /* again: it was cloned */
	turn();
	assert_int_equal(done, 2);
	while (is_asked)
		answer(100);
	assert_int_equal(below[20], 2);
	check(2);
}

static void reads_and_flushes_never_wait(void **state)
{
	(void)state;
	go();
	submit_zero(3, 5);
	submit(REQ_FLUSH, 0, 0);
	submit(REQ_CACHE, 0, G);
	turn();
	assert_int_equal(done, 2);
	assert_int_equal(flushed, 1);
	while (is_asked)
		answer(1);
	check(3);
}

static void a_long_write_goes_when_all_of_it_was_cloned(void **state)
{
	(void)state;
	go();
	submit(REQ_ZERO, 30 * G - 1, 33 * G + 1);
	answer(1);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(asked->r.start, (29 + i) * G);
		answer(1);
		assert_int_equal(below[29], 0);
	}
	answer(1);
	turn();
	assert_int_equal(done, 1);
	assert_int_equal(below[33], 1);
	while (is_asked)
		answer(9);
	check(1);
}

static void before_it_starts_nothing_is_cloned_and_held_writes_belong_behind_it(void **state)
{
	(void)state;
	submit_zero(0, 65); /* at the gate */
	turn();
	assert_false(is_asked);
	go();
	while (is_asked)
		answer(3);
	check(1);
}

static void a_clone_that_fails_lets_everybody_go(void **state)
{
	struct point_status s;

	(void)state;
	go();
	submit_zero(50, 51);
	is_asked = false;
	point_cloned(point, ENOSPC);
	turn();
	assert_int_equal(done, 1);
	assert_int_equal(overs, 1);
	submit_zero(51, 52);
	turn();
	assert_int_equal(done, 2);
	point_status(point, &s);
	assert_int_equal(s.err, ENOSPC);
	assert_false(is_asked);
}

static void given_up_it_is_over_when_the_clone_under_way_has_ended(void **state)
{
	(void)state;
	go();
	submit_zero(50, 51);
	point_give_up(point, ECANCELED);
	turn();
	assert_int_equal(done, 1);
	assert_int_equal(overs, 0);
	answer(1);
	turn();
	assert_int_equal(overs, 1);
	assert_false(is_asked);
	point_give_up(point, ECANCELED);
	turn();
	assert_int_equal(overs, 1);
}

static void given_up_before_it_started_it_is_over_at_once(void **state)
{
	(void)state;
	point_give_up(point, ETIMEDOUT);
	turn();
	assert_int_equal(overs, 1);
	gate_release(gate);
}

static void whatever_is_written_when(void **state)
{
	unsigned writes = 0;

	(void)state;
	srandom(1);
	go();
	while (is_asked) {
		if (random() % 2) {
			uint64_t first = (uint64_t)random() % GRANULES;

			submit_zero(first, MIN(first + 1 + (uint64_t)random() % 3, UINT64_C(65)));
			writes++;
		}
		if (random() % 3 == 0)
			turn();
		answer(1 + (uint64_t)random() % 5);
	}
	check(writes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_disk_nobody_writes_is_swept_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_write_waits_for_what_it_overwrites_and_no_longer, setup, teardown),
		cmocka_unit_test_setup_teardown(reads_and_flushes_never_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(a_long_write_goes_when_all_of_it_was_cloned, setup, teardown),
		cmocka_unit_test_setup_teardown(before_it_starts_nothing_is_cloned_and_held_writes_belong_behind_it, setup, teardown),
		cmocka_unit_test_setup_teardown(a_clone_that_fails_lets_everybody_go, setup, teardown),
		cmocka_unit_test_setup_teardown(given_up_it_is_over_when_the_clone_under_way_has_ended, setup, teardown),
		cmocka_unit_test_setup_teardown(given_up_before_it_started_it_is_over_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(whatever_is_written_when, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
