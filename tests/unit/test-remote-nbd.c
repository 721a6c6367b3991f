/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-remote-nbd - the link to a far side, with far sides that misbehave
 */
#include <sched.h>

#include "tests/unit/remote-rig.h"

static const struct fake_nbd_plan plain = { .size_bytes = SIZE, .can_zero = true };

static void refused_with(struct world *w, const struct fake_nbd_plan *plan, int err, const char *because)
{
	rig_start(w, plan);
	rig_await(w, &w->failures, 1);
	assert_int_equal(w->why.err, err);
	if (!strstr(w->why.text, because))
		fail_msg("\"%s\" does not say \"%s\"", w->why.text, because);
	rig_hang_up(w, true);
	assert_int_equal(w->ups + w->downs, 0);
}

static void writes_zeroes_and_flushes_arrive(void **state)
{
	struct world *w = *state;
	struct test_op t[3];
	uint8_t data[8192];

	rig_start(w, &plain);
	rig_await(w, &w->ups, 1);
	assert_int_equal(w->info.size_bytes, SIZE);
	assert_int_equal(w->info.min_block_bytes, 512);
	assert_int_equal(w->info.max_bytes, 32u << 20);
	assert_true(w->info.can_zero && w->info.can_flush && !w->info.can_multi_conn);
	assert_int_equal(w->zero_bytes, 0);
	memset(data, 0xa5, sizeof(data));
	memset(w->far.disk, 0x11, SIZE);
	rig_submit(w, &t[0], REMOTE_WRITE, (struct range){ 4096, 12288 }, data);
	rig_submit(w, &t[1], REMOTE_ZERO, (struct range){ 65536, 131072 }, NULL);
	rig_submit(w, &t[2], REMOTE_FLUSH, (struct range){ 0, 0 }, NULL);
	assert_int_equal(w->done, 0); /* completions are posted */
	rig_await(w, &w->done, 3);
	assert_int_equal(w->done_err, 0);
	assert_memory_equal(w->far.disk + 4096, data, sizeof(data));
	assert_int_equal(w->far.disk[4095], 0x11);
	assert_int_equal(w->far.disk[65536] + w->far.disk[131071], 0);
	assert_int_equal(w->far.disk[131072], 0x11);
	assert_int_equal(w->far.no_holes, 1);
	assert_int_equal(w->far.flushes, 1);
	rig_hang_up(w, true);
	fake_nbd_await_end(&w->far);
	assert_int_equal(w->far.goodbyes, 1);
	assert_int_equal(w->downs, 0);
}

static void a_socket_that_appears_late_is_waited_for(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;

	fake_nbd_start(&w->far, &plain, 200);
	spec = rig_spec(w);
	rig_connect(w, &spec);
	rig_await(w, &w->ups, 1);
	rig_hang_up(w, true);
}

static void a_socket_that_never_appears_fails_in_time(void **state)
{
	struct world *w = *state;
	struct remote_spec spec = rig_spec(w);
	uint64_t start_ns = loop_now_ns();

	spec.uri = "nbd:unix:/tmp/sxm-no-such-socket:exportname=x";
	spec.connect_wait_ms = 100;
	rig_connect(w, &spec);
	rig_await(w, &w->failures, 1);
	assert_int_equal(w->why.err, ENOENT);
	assert_true(loop_now_ns() - start_ns < 30 * NS_PER_S);
	rig_hang_up(w, false);
}

static void a_peer_that_never_speaks_fails_in_time(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .manner = FAKE_NBD_SILENT, .size_bytes = SIZE }, 0);
	spec = rig_spec(w);
	spec.handshake_ms = 150;
	rig_connect(w, &spec);
	rig_await(w, &w->failures, 1);
	assert_int_equal(w->why.err, ETIMEDOUT);
	rig_hang_up(w, false);
}

static void closing_while_connecting_is_prompt(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;
	uint64_t start_ns;

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .manner = FAKE_NBD_SILENT, .size_bytes = SIZE }, 0);
	spec = rig_spec(w);
	spec.handshake_ms = 600000;
	rig_connect(w, &spec);
	start_ns = loop_now_ns();
	rig_hang_up(w, true);
	assert_true(loop_now_ns() - start_ns < 30 * NS_PER_S);
	assert_int_equal(w->ups + w->failures + w->downs, 0);
}

static void a_peer_that_is_no_nbd_server_is_refused(void **state)
{
	struct world *w = *state;

	rig_start(w, &(struct fake_nbd_plan){ .manner = FAKE_NBD_GARBAGE, .size_bytes = SIZE });
	rig_await(w, &w->failures, 1);
	rig_hang_up(w, true);
}

static void a_smaller_far_side_is_refused_with_both_sizes(void **state)
{
	refused_with(*state, &(struct fake_nbd_plan){ .size_bytes = SIZE - 512 }, ENOSPC, "4193792 bytes, this disk has 4194304");
}

static void a_larger_far_side_is_taken(void **state)
{
	struct world *w = *state;

	rig_start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE + 4096 });
	rig_await(w, &w->ups, 1);
	rig_hang_up(w, true);
}

static void a_read_only_far_side_is_refused(void **state)
{
	refused_with(*state, &(struct fake_nbd_plan){ .size_bytes = SIZE, .is_read_only = true }, EROFS, "read-only");
}

static void on_read_done(struct remote_op *op, int err)
{
	struct world *w = ((struct test_op *)op)->world;

	w->done++;
	w->done_err = err;
	rig_check(w);
}

static struct remote_spec reader_of(struct world *w, const struct fake_nbd_plan *plan)
{
	struct remote_spec spec;

	fake_nbd_start(&w->far, plan, 0);
	spec = rig_spec(w);
	spec.is_reader = true;
	return spec;
}

static void a_reader_reads_a_read_only_far_side_and_changes_nothing(void **state)
{
	struct world *w = *state;
	struct fake_nbd_plan plan = { .size_bytes = SIZE, .is_read_only = true, .can_zero = true, .can_multi_conn = true };
	struct remote_spec spec = reader_of(w, &plan);
	struct extents holes, found;
	uint8_t data[8192] = { 0 };
	struct test_op t[2];

	extents_init(&holes, 0);
	extents_init(&found, 0);
	extents_add(&holes, (struct range){ 0, SIZE }, EXTENT_ZERO);
	spec.holes = &holes;
	for (size_t i = 0; i < SIZE; i++)
		w->far.disk[i] = (uint8_t)(i >> 9);
	rig_connect(w, &spec);
	rig_await(w, &w->ups, 1);
	t[0] = (struct test_op){ .op = { .opcode = REMOTE_READ, .range = { 12288, 20480 }, .buffer = data, .done = on_read_done }, .world = w };
	w->remote->ops->submit(w->remote, &t[0].op);
	rig_await(w, &w->done, 1);
	assert_int_equal(w->done_err, 0);
	assert_memory_equal(data, w->far.disk + 12288, sizeof(data));
	/* One that does not tell what is allocated says so, and the link goes on. */
	t[1] = (struct test_op){ .op = { .opcode = REMOTE_EXTENTS, .range = { 0, SIZE }, .extents = &found, .done = on_read_done }, .world = w };
	w->remote->ops->submit(w->remote, &t[1].op);
	rig_await(w, &w->done, 2);
	assert_int_not_equal(w->done_err, 0);
	assert_int_not_equal(w->done_err, ESHUTDOWN);
	rig_hang_up(w, true);
	assert_int_equal(w->far.accepted, 1);
	assert_int_equal(w->far.zeroes + w->far.writes, 0);
	extents_fini(&holes);
	extents_fini(&found);
}

static void a_read_that_fails_there_is_that_reads_alone(void **state)
{
	struct world *w = *state;
	struct remote_spec spec = reader_of(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .read_error = 5 });
	uint8_t data[4096];
	struct test_op t = { .op = { .opcode = REMOTE_READ, .range = { 0, 4096 }, .buffer = data, .done = on_read_done }, .world = w };

	rig_connect(w, &spec);
	rig_await(w, &w->ups, 1);
	w->remote->ops->submit(w->remote, &t.op);
	rig_await(w, &w->done, 1);
	assert_int_equal(w->done_err, EIO);
	assert_int_equal(w->downs, 0);
	rig_hang_up(w, true);
}

static void blocks_larger_than_the_mirrors_are_refused(void **state)
{
	struct fake_nbd_plan plan = { .size_bytes = SIZE, .min_block = 65536, .max_block = 1u << 20 };

	refused_with(*state, &plan, EINVAL, "65536");
}

static void stated_block_sizes_are_passed_on(void **state)
{
	struct world *w = *state;

	rig_start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .min_block = 4096, .max_block = 1u << 20 });
	rig_await(w, &w->ups, 1);
	assert_int_equal(w->info.min_block_bytes, 4096);
	assert_int_equal(w->info.max_bytes, 1u << 20);
	rig_hang_up(w, true);
}

static void holes_of_the_source_are_zeroed_where_nothing_is_known(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;
	struct extents holes;

	extents_init(&holes, 0);
	extents_add(&holes, (struct range){ 1000, 70000 }, EXTENT_ZERO | EXTENT_HOLE);
	extents_add(&holes, (struct range){ 80000, 90112 }, EXTENT_HOLE); /* a hole that need not read as zero */
	extents_add(&holes, (struct range){ 1 << 20, SIZE }, EXTENT_ZERO);
	fake_nbd_start(&w->far, &plain, 0);
	memset(w->far.disk, 0x11, SIZE);
	spec = rig_spec(w);
	spec.holes = &holes;
	rig_connect(w, &spec);
	extents_fini(&holes);
	rig_await(w, &w->ups, 1);
	assert_int_equal(w->zero_bytes, 65536 + SIZE - (1 << 20));
	for (uint64_t i = 0; i < SIZE; i += 512) {
		bool is_zeroed = (i >= 4096 && i < 69632) || i >= 1 << 20;

		assert_int_equal(w->far.disk[i], is_zeroed ? 0 : 0x11);
	}
	assert_int_equal(w->far.no_holes, 0);
	rig_hang_up(w, true);
}

static void an_error_of_the_far_side_is_that_operations_alone(void **state)
{
	struct world *w = *state;
	struct test_op t[2];
	char data[4096] = { 0 };

	rig_start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .write_error = 28 });
	rig_await(w, &w->ups, 1);
	rig_submit(w, &t[0], REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	rig_await(w, &w->done, 1);
	assert_int_equal(w->done_err, ENOSPC);
	rig_submit(w, &t[1], REMOTE_FLUSH, (struct range){ 0, 0 }, NULL);
	rig_await(w, &w->done, 2);
	assert_int_equal(w->done_err, 0);
	assert_int_equal(w->downs, 0);
	rig_hang_up(w, true);
}

/* NBD has that number too; it must not look like the link's end. */
static void a_server_that_says_it_shuts_down_is_not_the_links_end(void **state)
{
	struct world *w = *state;
	struct test_op t;
	char data[4096] = { 0 };

	rig_start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .write_error = 108 });
	rig_await(w, &w->ups, 1);
	rig_submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	rig_await(w, &w->done, 1);
	assert_int_equal(w->done_err, EIO);
	rig_hang_up(w, true);
}

static void a_cut_link_fails_what_was_in_flight_before_it_is_told(void **state)
{
	struct world *w = *state;
	struct test_op t[8];
	char data[4096] = { 0 };

	rig_start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .die_after = 3 });
	rig_await(w, &w->ups, 1);
	for (unsigned i = 0; i < 8; i++)
		rig_submit(w, &t[i], REMOTE_WRITE, (struct range){ i * 4096u, i * 4096u + 4096 }, data);
	rig_await(w, &w->downs, 1);
	assert_int_equal(w->done_at_down, 8);
	assert_int_equal(w->done_err, ESHUTDOWN);
	rig_hang_up(w, true);
	assert_int_equal(w->downs, 1);
}

static void a_link_that_ends_while_idle_is_told(void **state)
{
	struct world *w = *state;

	rig_start(w, &plain);
	rig_await(w, &w->ups, 1);
	fake_nbd_stop(&w->far);
	w->far.own = NULL;
	rig_await(w, &w->downs, 1);
	assert_int_not_equal(w->down_err, 0);
	rig_hang_up(w, false);
}

static void no_progress_for_dead_ms_cuts_the_link(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;
	struct test_op t[4];
	char data[4096] = { 0 };

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .size_bytes = SIZE, .hang_after = 2 }, 0);
	spec = rig_spec(w);
	spec.dead_ms = DEAD_MS;
	rig_connect(w, &spec);
	rig_await(w, &w->ups, 1);
	for (unsigned i = 0; i < 4; i++)
		rig_submit(w, &t[i], REMOTE_WRITE, (struct range){ i * 4096u, i * 4096u + 4096 }, data);
	rig_await(w, &w->downs, 1);
	assert_int_equal(w->down_err, ETIMEDOUT);
	assert_int_equal(w->done_at_down, 4);
	rig_hang_up(w, false);
}

static void closing_at_once_ends_what_is_in_flight_first(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;
	struct test_op t[4];
	char data[4096] = { 0 };

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .size_bytes = SIZE, .hang_after = 1 }, 0);
	spec = rig_spec(w);
	spec.dead_ms = 600000;
	rig_connect(w, &spec);
	rig_await(w, &w->ups, 1);
	for (unsigned i = 0; i < 4; i++)
		rig_submit(w, &t[i], REMOTE_WRITE, (struct range){ i * 4096u, i * 4096u + 4096 }, data);
	rig_await(w, &w->done, 1);
	rig_hang_up(w, false);
	assert_int_equal(w->done, 4);
	assert_int_equal(w->done_err, ESHUTDOWN);
	assert_int_equal(w->downs, 0);
}

/* This disk's engine submits in an older hook: the far side must not come before it. */
static void what_is_submitted_leaves_at_the_turns_end(void **state)
{
	struct world *w = *state;
	struct test_op t;
	uint8_t data[4096] = { 0 };

	rig_start(w, &plain);
	rig_await(w, &w->ups, 1);
	rig_submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	rig_hang_up(w, false); /* in the same turn */
	assert_int_equal(w->done, 1);
	assert_int_equal(w->done_err, ESHUTDOWN);
	fake_nbd_await_end(&w->far);
	assert_int_equal(w->far.writes, 0);
}

#define MANY 40u

struct turns {
	struct loop_hook hook;
	struct world *world;
	unsigned count;
};

/* Younger than the link's: the writes have left. The loop comes back when all of them have arrived over there. */
static void on_turn(struct loop_hook *h)
{
	struct turns *t = (struct turns *)h;

	t->count++;
	while (t->world->far.writes < MANY)
		sched_yield();
}

static void answers_that_have_come_are_taken_in_one_turn(void **state)
{
	struct world *w = *state;
	struct turns turns = { .hook.run = on_turn, .world = w };
	struct test_op t[MANY];
	uint8_t data[4096] = { 0 };

	rig_start(w, &plain);
	rig_await(w, &w->ups, 1);
	loop_hook_add(w->loop, &turns.hook);
	for (unsigned i = 0; i < MANY; i++)
		rig_submit(w, &t[i], REMOTE_WRITE, (struct range){ i * 4096, (i + 1) * 4096 }, data);
	rig_await(w, &w->done, MANY);
	loop_hook_remove(w->loop, &turns.hook);
	assert_int_equal(w->done_err, 0);
	assert_true(turns.count < MANY / 2);
	rig_hang_up(w, true);
}

static void several_connections_are_used_where_allowed(void **state)
{
	struct world *w = *state;
	struct test_op t[64];
	char data[4096] = { 0 };

	rig_start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_multi_conn = true, .is_tcp = true });
	rig_await(w, &w->ups, 1);
	/* Further ones come one by one: keep busy until the fourth has greeted. */
	for (unsigned round = 1; atomic_load(&w->far.greeted) < 4; round++) {
		rig_submit(w, &t[0], REMOTE_WRITE, (struct range){ 0, 4096 }, data);
		rig_await(w, &w->done, round);
	}
	w->done = 0;
	for (unsigned i = 0; i < 64; i++)
		rig_submit(w, &t[i], REMOTE_WRITE, (struct range){ i * 4096u, i * 4096u + 4096 }, data);
	rig_await(w, &w->done, 64);
	assert_int_equal(w->done_err, 0);
	rig_hang_up(w, true);
	fake_nbd_await_end(&w->far);
	assert_true(atomic_load(&w->far.goodbyes) >= 3);
}

static void a_unix_socket_is_connected_to_once(void **state)
{
	struct world *w = *state;
	struct test_op t;
	char data[4096] = { 0 };

	rig_start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_multi_conn = true });
	rig_await(w, &w->ups, 1);
	for (unsigned round = 1; round <= 100; round++) {
		rig_submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
		rig_await(w, &w->done, round);
	}
	rig_hang_up(w, true);
	fake_nbd_await_end(&w->far);
	assert_int_equal(w->far.accepted, 1);
}

static void further_connections_that_do_not_greet_hold_nothing_up(void **state)
{
	struct world *w = *state;
	struct test_op t;
	char data[4096] = { 0 };

	rig_start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_multi_conn = true, .is_tcp = true, .greet_max = 1 });
	rig_await(w, &w->ups, 1);
	rig_submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	rig_await(w, &w->done, 1);
	assert_int_equal(w->done_err, 0);
	rig_hang_up(w, true);
	fake_nbd_await_end(&w->far);
	assert_int_equal(w->far.goodbyes, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(writes_zeroes_and_flushes_arrive),
		TEST(a_socket_that_appears_late_is_waited_for),
		TEST(a_socket_that_never_appears_fails_in_time),
		TEST(a_peer_that_never_speaks_fails_in_time),
		TEST(closing_while_connecting_is_prompt),
		TEST(a_peer_that_is_no_nbd_server_is_refused),
		TEST(a_smaller_far_side_is_refused_with_both_sizes),
		TEST(a_larger_far_side_is_taken),
		TEST(a_read_only_far_side_is_refused),
		TEST(a_reader_reads_a_read_only_far_side_and_changes_nothing),
		TEST(a_read_that_fails_there_is_that_reads_alone),
		TEST(blocks_larger_than_the_mirrors_are_refused),
		TEST(stated_block_sizes_are_passed_on),
		TEST(holes_of_the_source_are_zeroed_where_nothing_is_known),
		TEST(an_error_of_the_far_side_is_that_operations_alone),
		TEST(a_server_that_says_it_shuts_down_is_not_the_links_end),
		TEST(a_cut_link_fails_what_was_in_flight_before_it_is_told),
		TEST(a_link_that_ends_while_idle_is_told),
		TEST(no_progress_for_dead_ms_cuts_the_link),
		TEST(closing_at_once_ends_what_is_in_flight_first),
		TEST(what_is_submitted_leaves_at_the_turns_end),
		TEST(answers_that_have_come_are_taken_in_one_turn),
		TEST(several_connections_are_used_where_allowed),
		TEST(a_unix_socket_is_connected_to_once),
		TEST(further_connections_that_do_not_greet_hold_nothing_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
