/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-remote-volume - links between versions of x-sxm, and to a far volume that is another one than before
 */
#include "mirror/remote-private.h"
#include "tests/unit/remote-rig.h"

#define HELLO_OF(volume) { .field = { 0, REMOTE_IS_RECEIVING, 0, 7, 0, 9, 3, 4, 5, 6, 0, 0, 1, volume, 1 }, .count = 15 }

static void note_heard(void *arg, uint32_t status, uint32_t state, uint64_t epoch)
{
	(void)status;
	(void)state;
	(void)epoch;
	((struct world *)arg)->done++;
}

static void start(struct world *w, const struct fake_nbd_plan *plan, uint64_t volume)
{
	struct remote_spec spec;

	fake_nbd_start(&w->far, plan, 0);
	spec = rig_spec(w);
	spec.mirror_id = "m";
	spec.epoch = 7;
	spec.generation = 9;
	spec.volume = volume;
	spec.on_heard = note_heard;
	rig_connect(w, &spec);
}

static void the_version_before_ours_is_spoken_too(void **state)
{
	static const struct fake_sxm sxm = { .answer = { { .field = { 0, REMOTE_IS_RECEIVING }, .count = 2 } }, .version = 1 };
	struct world *w = *state;

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm }, 5);
	rig_await(w, &w->ups, 1);
	assert_string_equal(w->far.context, "x-sxm:1/m/7/9");
	assert_true(w->info.is_sxm && w->info.version == 1 && !w->info.volume);
	rig_hang_up(w, true);
}

/* What it says of itself is not said of the one that the mirror goes to. */
static void another_volume_is_refused_and_not_heard(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_OF(5) } };
	struct world *w = *state;

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm }, UINT64_C(4) << 32 | 1);
	rig_await(w, &w->failures, 1);
	assert_int_equal(w->why.err, EBUSY);
	assert_non_null(strstr(w->why.text, "another volume"));
	assert_int_equal(w->done, 0);
	rig_hang_up(w, true);
}

static void the_volume_that_is_known_is_let_pass(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_OF(5) } };
	struct world *w = *state;

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm }, UINT64_C(5) << 32 | 1);
	rig_await(w, &w->ups, 1);
	assert_string_equal(w->far.context, "x-sxm:2/m/7/9");
	assert_true(w->done == 1 && w->info.volume == (UINT64_C(5) << 32 | 1) && w->info.version == 2);
	rig_hang_up(w, true);
}

/* It was made anew at the address while the first connection lived: that one's `since` is its, too. */
static void a_further_connection_to_another_volume_is_left_out(void **state)
{
	static const struct fake_sxm_answer other = HELLO_OF(6);
	static const struct fake_sxm sxm = { .answer = { HELLO_OF(5) }, .second_hello = &other };
	struct world *w = *state;
	struct test_op t;
	char data[4096] = { 0 };

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_multi_conn = true, .is_tcp = true, .sxm = &sxm }, 0);
	rig_await(w, &w->ups, 1);
	while (atomic_load(&w->far.asked[0]) < 2 || remote_nbd_of(w->remote)->is_connecting) {
		rig_submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
		rig_await(w, &w->done, w->done + 1);
	}
	assert_int_equal(remote_nbd_of(w->remote)->connections, 1);
	assert_int_equal(w->downs, 0);
	rig_hang_up(w, true);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(the_version_before_ours_is_spoken_too),
		TEST(another_volume_is_refused_and_not_heard),
		TEST(the_volume_that_is_known_is_let_pass),
		TEST(a_further_connection_to_another_volume_is_left_out),
	};

	return cmocka_run_group_tests_name("remote-volume", tests, NULL, NULL);
}
