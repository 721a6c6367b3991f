/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-watch - whoever writes to what is watched is seen, from the moment he begins until he has ended
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "block/gate.h"
#include "block/watch.h"

#define SIZE (UINT64_C(1) << 40)
#define A ((struct range){ 0, 4096 })
#define B ((struct range){ 8192, 12288 })

/* A disk that keeps what it is given. */
static struct loop *loop;
static struct layer disk;
static struct layer *gate;
static struct req_list held = TAILQ_HEAD_INITIALIZER(held);
static struct watch *w;

static void hold(struct layer *l, struct req *r)
{
	(void)l;
	TAILQ_INSERT_TAIL(&held, r, link);
}

static const struct layer_ops ops = { .name = "held", .submit = hold };

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
	req_put(r);
}

static void submit(enum req_op op, struct range range)
{
	struct req *r = req_get();

	r->op = op;
	r->range = range;
	r->done = on_done;
	layer_submit(gate, r);
}

static void finish_all(void)
{
	struct req *r;

	while ((r = TAILQ_FIRST(&held))) {
		TAILQ_REMOVE(&held, r, link);
		req_complete(r, 0);
	}
	turn();
}

static int setup(void **state)
{
	const struct geometry g = { .size_bytes = SIZE, .can_trim = true, .can_zero = true };

	(void)state;
	loop = loop_new();
	req_init(loop);
	layer_init(&disk, &ops, NULL, &g);
	gate = gate_new(&disk);
	w = watch_new(gate);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	finish_all();
	watch_free(w, true);
	layer_close(gate);
	req_fini();
	loop_free(loop);
	return 0;
}

static void a_write_is_seen_where_it_is_until_it_ends(void **state)
{
	uint64_t a = watch_stamp(w, A), b = watch_stamp(w, B);

	(void)state;
	assert_true(watch_is_quiet(w, A) && watch_is_quiet(w, B));
	submit(REQ_ZERO, (struct range){ 4095, 8192 });
	assert_false(watch_is_quiet(w, A));
	assert_true(watch_is_quiet(w, B));
	finish_all();
	assert_true(watch_is_quiet(w, A));
	assert_int_not_equal(watch_stamp(w, A), a);
	assert_int_equal(watch_stamp(w, B), b);
}

static void reads_and_flushes_are_not_writes(void **state)
{
	uint64_t a = watch_stamp(w, A);

	(void)state;
	submit(REQ_FLUSH, (struct range){ 0, 0 });
	submit(REQ_CACHE, A);
	assert_true(watch_is_quiet(w, A));
	submit(REQ_TRIM, A);
	assert_false(watch_is_quiet(w, A));
	finish_all();
	assert_true(watch_is_quiet(w, A));
	assert_int_equal(watch_stamp(w, A), a + 1);
}

static void a_write_of_very_much_is_seen_everywhere(void **state)
{
	uint64_t a = watch_stamp(w, A);

	(void)state;
	submit(REQ_ZERO, (struct range){ GiB, SIZE });
	assert_false(watch_is_quiet(w, A));
	finish_all();
	assert_true(watch_is_quiet(w, A));
	assert_int_not_equal(watch_stamp(w, A), a);
}

static void what_began_before_may_be_anywhere(void **state)
{
	(void)state;
	submit(REQ_ZERO, B);
	watch_free(w, true);
	w = watch_new(gate);
	submit(REQ_TRIM, B);
	assert_false(watch_is_quiet(w, A));
	finish_all();
	assert_true(watch_is_quiet(w, A) && watch_is_quiet(w, B));
}

static void one_that_waits_at_the_gate_has_not_begun(void **state)
{
	uint64_t a = watch_stamp(w, A);

	(void)state;
	gate_hold(gate);
	submit(REQ_ZERO, A);
	assert_true(watch_is_quiet(w, A));
	gate_release(gate);
	assert_false(watch_is_quiet(w, A));
	assert_int_not_equal(watch_stamp(w, A), a);
	finish_all();
	assert_true(watch_is_quiet(w, A));
}

static void nonsense_ranges_leave_nothing_behind(void **state)
{
	(void)state;
	submit(REQ_ZERO, (struct range){ SIZE - 1, SIZE + 1 });
	submit(REQ_ZERO, (struct range){ UINT64_MAX - 1, UINT64_MAX });
	submit(REQ_ZERO, (struct range){ 8192, 4096 });
	finish_all();
	assert_true(watch_is_quiet(w, A) && watch_is_quiet(w, (struct range){ 0, 64 * MiB }));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_write_is_seen_where_it_is_until_it_ends),
		TEST(reads_and_flushes_are_not_writes),
		TEST(a_write_of_very_much_is_seen_everywhere),
		TEST(what_began_before_may_be_anywhere),
		TEST(one_that_waits_at_the_gate_has_not_begun),
		TEST(nonsense_ranges_leave_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
