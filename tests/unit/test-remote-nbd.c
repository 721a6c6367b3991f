/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-remote-nbd - the link to a far side, with far sides that misbehave
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <cmocka.h>

#include "mirror/remote.h"
#include "tests/lib/fake-nbd.h"

#define SIZE (UINT64_C(4) << 20)

/* Everything that may happen to a link, and a test that waits for it. */
struct world {
	struct loop *loop;
	struct loop_timer *alarm;
	struct fake_nbd far;
	struct remote *remote;
	unsigned ups, failures, downs, closes;
	int down_err;
	struct error why;
	struct remote_info info;
	uint64_t zero_bytes;
	unsigned done;       /* operations */
	int done_err;        /* of the last */
	unsigned done_at_down;
	unsigned *awaited;   /* the loop stops when it reaches wanted */
	unsigned wanted;
};

static void check(struct world *w)
{
	if (w->awaited && *w->awaited >= w->wanted)
		loop_stop(w->loop);
}

static void on_alarm(void *arg)
{
	(void)arg;
	fail_msg("nothing happened for 10 s");
}

static void await(struct world *w, unsigned *what, unsigned wanted)
{
	w->awaited = what;
	w->wanted = wanted;
	if (*what < wanted) {
		loop_timer_set(w->alarm, 10000);
		loop_run(w->loop);
		loop_timer_clear(w->alarm);
	}
	w->awaited = NULL;
	assert_int_equal(*what, wanted);
}

static void on_up(void *arg, const struct remote_info *info)
{
	struct world *w = arg;

	w->ups++;
	w->info = *info;
	for (size_t i = 0; i < info->zero.count; i++)
		w->zero_bytes += range_length(info->zero.item[i].range);
	check(w);
}

static void on_failed(void *arg, const struct error *e)
{
	struct world *w = arg;

	w->failures++;
	w->why = *e;
	check(w);
}

static void on_down(void *arg, int err)
{
	struct world *w = arg;

	w->downs++;
	w->down_err = err;
	w->done_at_down = w->done;
	check(w);
}

static void on_closed(void *arg)
{
	struct world *w = arg;

	w->closes++;
	w->remote = NULL;
	check(w);
}

struct test_op {
	struct remote_op op; /* first */
	struct world *world;
};

static void on_done(struct remote_op *op, int err)
{
	struct world *w = ((struct test_op *)op)->world;

	w->done++;
	w->done_err = err;
	check(w);
}

static struct remote_spec spec_for(struct world *w)
{
	return (struct remote_spec){
		.loop = w->loop, .uri = w->far.uri, .min_size_bytes = SIZE,
		.connect_wait_ms = 1000, .handshake_ms = 1000, .dead_ms = 200,
		.on_up = on_up, .on_failed = on_failed, .on_down = on_down, .arg = w,
	};
}

static void connect_with(struct world *w, const struct remote_spec *spec)
{
	struct error e = { 0 };

	w->remote = remote_nbd_new(spec, &e);
	if (!w->remote)
		fail_msg("%s", e.text);
}

static void start(struct world *w, const struct fake_nbd_plan *plan)
{
	struct remote_spec spec;

	fake_nbd_start(&w->far, plan, 0);
	spec = spec_for(w);
	connect_with(w, &spec);
}

static void hang_up(struct world *w, bool is_polite)
{
	w->remote->ops->close(w->remote, is_polite, on_closed, w);
	await(w, &w->closes, 1);
}

static void submit(struct world *w, struct test_op *t, enum remote_opcode opcode, struct range r, const void *data)
{
	*t = (struct test_op){ .op = { .opcode = opcode, .range = r, .data = data, .done = on_done }, .world = w };
	w->remote->ops->submit(w->remote, &t->op);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->loop = loop_new();
	w->alarm = loop_timer_new(w->loop, on_alarm, w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	if (w->far.own)
		fake_nbd_stop(&w->far);
	loop_timer_free(w->alarm);
	loop_free(w->loop);
	free(w);
	return 0;
}

static const struct fake_nbd_plan plain = { .size_bytes = SIZE, .can_zero = true };

static void refused_with(struct world *w, const struct fake_nbd_plan *plan, int err, const char *because)
{
	start(w, plan);
	await(w, &w->failures, 1);
	assert_int_equal(w->why.err, err);
	if (!strstr(w->why.text, because))
		fail_msg("\"%s\" does not say \"%s\"", w->why.text, because);
	hang_up(w, true);
	assert_int_equal(w->ups + w->downs, 0);
}

static void writes_zeroes_and_flushes_arrive(void **state)
{
	struct world *w = *state;
	struct test_op t[3];
	uint8_t data[8192];

	start(w, &plain);
	await(w, &w->ups, 1);
	assert_int_equal(w->info.size_bytes, SIZE);
	assert_int_equal(w->info.min_block_bytes, 512);
	assert_int_equal(w->info.max_bytes, 32u << 20);
	assert_true(w->info.can_zero && w->info.can_flush && !w->info.can_multi_conn);
	assert_int_equal(w->zero_bytes, 0);
	memset(data, 0xa5, sizeof(data));
	memset(w->far.disk, 0x11, SIZE);
	submit(w, &t[0], REMOTE_WRITE, (struct range){ 4096, 12288 }, data);
	submit(w, &t[1], REMOTE_ZERO, (struct range){ 65536, 131072 }, NULL);
	submit(w, &t[2], REMOTE_FLUSH, (struct range){ 0, 0 }, NULL);
	assert_int_equal(w->done, 0); /* completions are posted */
	await(w, &w->done, 3);
	assert_int_equal(w->done_err, 0);
	assert_memory_equal(w->far.disk + 4096, data, sizeof(data));
	assert_int_equal(w->far.disk[4095], 0x11);
	assert_int_equal(w->far.disk[65536] + w->far.disk[131071], 0);
	assert_int_equal(w->far.disk[131072], 0x11);
	assert_int_equal(w->far.no_holes, 1);
	assert_int_equal(w->far.flushes, 1);
	hang_up(w, true);
	assert_int_equal(w->far.goodbyes, 1);
	assert_int_equal(w->downs, 0);
}

static void a_socket_that_appears_late_is_waited_for(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;

	fake_nbd_start(&w->far, &plain, 200);
	spec = spec_for(w);
	spec.connect_wait_ms = 8000;
	connect_with(w, &spec);
	await(w, &w->ups, 1);
	hang_up(w, true);
}

static void a_socket_that_never_appears_fails_in_time(void **state)
{
	struct world *w = *state;
	struct remote_spec spec = spec_for(w);
	uint64_t start_ns = loop_now_ns();

	spec.uri = "nbd:unix:/tmp/sxm-no-such-socket:exportname=x";
	spec.connect_wait_ms = 100;
	connect_with(w, &spec);
	await(w, &w->failures, 1);
	assert_int_equal(w->why.err, ENOENT);
	assert_true(loop_now_ns() - start_ns < 5 * NS_PER_S);
	hang_up(w, false);
}

static void a_peer_that_never_speaks_fails_in_time(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .manner = FAKE_NBD_SILENT, .size_bytes = SIZE }, 0);
	spec = spec_for(w);
	spec.handshake_ms = 150;
	connect_with(w, &spec);
	await(w, &w->failures, 1);
	assert_int_equal(w->why.err, ETIMEDOUT);
	hang_up(w, false);
}

static void closing_while_connecting_is_prompt(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;
	uint64_t start_ns;

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .manner = FAKE_NBD_SILENT, .size_bytes = SIZE }, 0);
	spec = spec_for(w);
	spec.handshake_ms = 600000;
	connect_with(w, &spec);
	start_ns = loop_now_ns();
	hang_up(w, true);
	assert_true(loop_now_ns() - start_ns < 3 * NS_PER_S);
	assert_int_equal(w->ups + w->failures + w->downs, 0);
}

static void a_peer_that_is_no_nbd_server_is_refused(void **state)
{
	struct world *w = *state;

	start(w, &(struct fake_nbd_plan){ .manner = FAKE_NBD_GARBAGE, .size_bytes = SIZE });
	await(w, &w->failures, 1);
	hang_up(w, true);
}

static void a_smaller_far_side_is_refused_with_both_sizes(void **state)
{
	refused_with(*state, &(struct fake_nbd_plan){ .size_bytes = SIZE - 512 }, ENOSPC, "4193792 bytes, this disk has 4194304");
}

static void a_larger_far_side_is_taken(void **state)
{
	struct world *w = *state;

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE + 4096 });
	await(w, &w->ups, 1);
	hang_up(w, true);
}

static void a_read_only_far_side_is_refused(void **state)
{
	refused_with(*state, &(struct fake_nbd_plan){ .size_bytes = SIZE, .is_read_only = true }, EROFS, "read-only");
}

static void blocks_larger_than_the_mirrors_are_refused(void **state)
{
	struct fake_nbd_plan plan = { .size_bytes = SIZE, .min_block = 65536, .max_block = 1u << 20 };

	refused_with(*state, &plan, EINVAL, "65536");
}

static void stated_block_sizes_are_passed_on(void **state)
{
	struct world *w = *state;

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .min_block = 4096, .max_block = 1u << 20 });
	await(w, &w->ups, 1);
	assert_int_equal(w->info.min_block_bytes, 4096);
	assert_int_equal(w->info.max_bytes, 1u << 20);
	hang_up(w, true);
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
	spec = spec_for(w);
	spec.holes = &holes;
	connect_with(w, &spec);
	extents_fini(&holes);
	await(w, &w->ups, 1);
	assert_int_equal(w->zero_bytes, 65536 + SIZE - (1 << 20));
	for (uint64_t i = 0; i < SIZE; i += 512) {
		bool is_zeroed = (i >= 4096 && i < 69632) || i >= 1 << 20;

		assert_int_equal(w->far.disk[i], is_zeroed ? 0 : 0x11);
	}
	assert_int_equal(w->far.no_holes, 0);
	hang_up(w, true);
}

static void an_error_of_the_far_side_is_that_operations_alone(void **state)
{
	struct world *w = *state;
	struct test_op t[2];
	char data[4096] = { 0 };

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .write_error = 28 });
	await(w, &w->ups, 1);
	submit(w, &t[0], REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	await(w, &w->done, 1);
	assert_int_equal(w->done_err, ENOSPC);
	submit(w, &t[1], REMOTE_FLUSH, (struct range){ 0, 0 }, NULL);
	await(w, &w->done, 2);
	assert_int_equal(w->done_err, 0);
	assert_int_equal(w->downs, 0);
	hang_up(w, true);
}

/* NBD has that number too; it must not look like the link's end. */
static void a_server_that_says_it_shuts_down_is_not_the_links_end(void **state)
{
	struct world *w = *state;
	struct test_op t;
	char data[4096] = { 0 };

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .write_error = 108 });
	await(w, &w->ups, 1);
	submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	await(w, &w->done, 1);
	assert_int_equal(w->done_err, EIO);
	hang_up(w, true);
}

static void a_cut_link_fails_what_was_in_flight_before_it_is_told(void **state)
{
	struct world *w = *state;
	struct test_op t[8];
	char data[4096] = { 0 };

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .die_after = 3 });
	await(w, &w->ups, 1);
	for (unsigned i = 0; i < 8; i++)
		submit(w, &t[i], REMOTE_WRITE, (struct range){ i * 4096u, i * 4096u + 4096 }, data);
	await(w, &w->downs, 1);
	assert_int_equal(w->done_at_down, 8);
	assert_int_equal(w->done_err, ESHUTDOWN);
	hang_up(w, true);
	assert_int_equal(w->downs, 1);
}

static void a_link_that_ends_while_idle_is_told(void **state)
{
	struct world *w = *state;

	start(w, &plain);
	await(w, &w->ups, 1);
	fake_nbd_stop(&w->far);
	w->far.own = NULL;
	await(w, &w->downs, 1);
	assert_int_not_equal(w->down_err, 0);
	hang_up(w, false);
}

static void no_progress_for_dead_ms_cuts_the_link(void **state)
{
	struct world *w = *state;
	struct test_op t[4];
	char data[4096] = { 0 };

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .hang_after = 2 });
	await(w, &w->ups, 1);
	for (unsigned i = 0; i < 4; i++)
		submit(w, &t[i], REMOTE_WRITE, (struct range){ i * 4096u, i * 4096u + 4096 }, data);
	await(w, &w->downs, 1);
	assert_int_equal(w->down_err, ETIMEDOUT);
	assert_int_equal(w->done_at_down, 4);
	hang_up(w, false);
}

static void closing_at_once_ends_what_is_in_flight_first(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;
	struct test_op t[4];
	char data[4096] = { 0 };

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .size_bytes = SIZE, .hang_after = 1 }, 0);
	spec = spec_for(w);
	spec.dead_ms = 600000;
	connect_with(w, &spec);
	await(w, &w->ups, 1);
	for (unsigned i = 0; i < 4; i++)
		submit(w, &t[i], REMOTE_WRITE, (struct range){ i * 4096u, i * 4096u + 4096 }, data);
	await(w, &w->done, 1);
	hang_up(w, false);
	assert_int_equal(w->done, 4);
	assert_int_equal(w->done_err, ESHUTDOWN);
	assert_int_equal(w->downs, 0);
}

static void several_connections_are_used_where_allowed(void **state)
{
	struct world *w = *state;
	struct test_op t[64];
	char data[4096] = { 0 };

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_multi_conn = true });
	await(w, &w->ups, 1);
	/* Further ones come one by one: keep busy until the fourth has greeted. */
	for (unsigned round = 1; atomic_load(&w->far.greeted) < 4; round++) {
		submit(w, &t[0], REMOTE_WRITE, (struct range){ 0, 4096 }, data);
		await(w, &w->done, round);
	}
	w->done = 0;
	for (unsigned i = 0; i < 64; i++)
		submit(w, &t[i], REMOTE_WRITE, (struct range){ i * 4096u, i * 4096u + 4096 }, data);
	await(w, &w->done, 64);
	assert_int_equal(w->done_err, 0);
	hang_up(w, true);
	assert_true(atomic_load(&w->far.goodbyes) >= 3);
}

static void further_connections_that_do_not_greet_hold_nothing_up(void **state)
{
	struct world *w = *state;
	struct test_op t;
	char data[4096] = { 0 };

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_multi_conn = true, .greet_max = 1 });
	await(w, &w->ups, 1);
	submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	await(w, &w->done, 1);
	assert_int_equal(w->done_err, 0);
	hang_up(w, true);
	assert_int_equal(w->far.goodbyes, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
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
		TEST(blocks_larger_than_the_mirrors_are_refused),
		TEST(stated_block_sizes_are_passed_on),
		TEST(holes_of_the_source_are_zeroed_where_nothing_is_known),
		TEST(an_error_of_the_far_side_is_that_operations_alone),
		TEST(a_server_that_says_it_shuts_down_is_not_the_links_end),
		TEST(a_cut_link_fails_what_was_in_flight_before_it_is_told),
		TEST(a_link_that_ends_while_idle_is_told),
		TEST(no_progress_for_dead_ms_cuts_the_link),
		TEST(closing_at_once_ends_what_is_in_flight_first),
		TEST(several_connections_are_used_where_allowed),
		TEST(further_connections_that_do_not_greet_hold_nothing_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
