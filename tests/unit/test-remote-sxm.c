/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-remote-sxm - what is said between two sxm, with far sides that say something else; and links that are quiet
 */
#include "tests/unit/remote-rig.h"

static const struct fake_nbd_plan plain = { .size_bytes = SIZE, .can_zero = true };

#define HELLO_ANSWER { .field = { 0, REMOTE_IS_RECEIVING, 1, 2, 0, 9, 3, 4, 5, 6, 1 }, .count = 11 }

/* Patient only where the far side is not to be found dead. */
static void start_sxm_in(struct world *w, const struct fake_nbd_plan *plan, unsigned handshake_ms, unsigned dead_ms)
{
	struct remote_spec spec;

	fake_nbd_start(&w->far, plan, 0);
	spec = rig_spec(w);
	spec.mirror_id = "5e6f0c3a.1700000000000";
	spec.epoch = 7;
	spec.generation = UINT64_MAX;
	spec.handshake_ms = handshake_ms;
	spec.dead_ms = dead_ms;
	rig_connect(w, &spec);
}

static void start_sxm(struct world *w, const struct fake_nbd_plan *plan)
{
	start_sxm_in(w, plan, PATIENT_MS, PATIENT_MS);
}

struct test_ask {
	struct remote_ask ask; /* first */
	struct world *world;
	int err;
	bool is_done;
};

static void on_answer(struct remote_ask *a, int err)
{
	struct test_ask *t = (struct test_ask *)a;

	t->err = err;
	t->is_done = true;
	t->world->done++;
	rig_check(t->world);
}

static void ask(struct world *w, struct test_ask *t, enum remote_question question)
{
	*t = (struct test_ask){ .ask = { .question = question, .done = on_answer }, .world = w };
	w->remote->ops->ask(w->remote, &t->ask);
}

static void an_sxm_far_side_is_greeted_before_anything_else(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_ANSWER } };
	struct world *w = *state;
	struct extents holes;
	struct remote_spec spec;

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_zero = true, .sxm = &sxm }, 0);
	spec = rig_spec(w);
	spec.mirror_id = "5e6f0c3a.1700000000000";
	spec.epoch = 7;
	spec.generation = UINT64_MAX;
	extents_init(&holes, 0);
	extents_add(&holes, (struct range){ 0, SIZE }, EXTENT_ZERO);
	spec.holes = &holes;
	rig_connect(w, &spec);
	extents_fini(&holes);
	rig_await(w, &w->ups, 1);
	assert_string_equal(w->far.context, "x-sxm:2/5e6f0c3a.1700000000000/7/18446744073709551615");
	assert_int_equal(w->far.asked[0], 1);
	assert_int_equal(w->far.zeroes, 1);
	assert_int_equal(w->far.written_early, 0);
	assert_true(w->info.is_sxm && w->info.is_caching);
	assert_int_equal(w->info.state, REMOTE_IS_RECEIVING);
	assert_true(w->info.epoch == (UINT64_C(1) << 32 | 2) && w->info.generation == 9);
	assert_true(w->info.boot == (UINT64_C(3) << 32 | 4) && w->info.process == (UINT64_C(5) << 32 | 6));
	rig_hang_up(w, true);
	fake_nbd_await_end(&w->far);
	assert_int_equal(w->far.goodbyes, 1);
}

static void a_foreign_far_side_is_no_sxm_and_says_so_when_asked(void **state)
{
	struct world *w = *state;
	struct test_ask t;

	start_sxm(w, &plain);
	rig_await(w, &w->ups, 1);
	assert_true(!w->info.is_sxm && !w->info.state && !w->info.boot);
	ask(w, &t, REMOTE_ASK_COMMIT);
	rig_await(w, &w->done, 1);
	assert_int_equal(t.err, ENOTSUP);
	rig_hang_up(w, true);
}

static void refused_at_hello(struct world *w, struct fake_sxm_answer answer, int err, const char *because)
{
	struct fake_sxm sxm = { .answer = { answer } };

	start_sxm_in(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm }, answer.is_silent ? 1000 : PATIENT_MS, PATIENT_MS);
	rig_await(w, &w->failures, 1);
	assert_int_equal(w->why.err, err);
	if (!strstr(w->why.text, because))
		fail_msg("\"%s\" does not say \"%s\"", w->why.text, because);
	rig_hang_up(w, true);
	assert_int_equal(w->ups + w->downs, 0);
}

static void a_stale_generation_is_told_apart(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .field = { REMOTE_SAYS_STALE }, .count = 1 }, ESTALE, "newer link");
}

static void a_volume_that_is_somebodys_is_told_apart(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .field = { REMOTE_SAYS_NOT_YOURS, REMOTE_IS_OWNED }, .count = 2 }, EBUSY,
	                 "owned there");
}

static void a_far_side_that_cannot_write_its_mark_fails_with_its_number(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .field = { REMOTE_SAYS_FAILED, 28 }, .count = 2 }, ENOSPC, "write it down");
}

static void a_status_nobody_knows_is_refused(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .field = { 77, 4 }, .count = 2 }, EPROTO, "does not know");
}

static void an_admission_to_a_volume_in_a_strange_state_is_refused(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .field = { 0, 99 }, .count = 2 }, EPROTO, "state this version");
}

static void descriptors_of_another_length_are_garbage(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .field = { 0, 4 }, .count = 2, .length = 2 }, EPROTO, "no sense");
}

static void an_answer_without_the_context_is_garbage(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .count = 0 }, EPROTO, "no sense");
}

static void a_context_that_comes_twice_is_garbage(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .field = { 0, 4 }, .count = 2, .is_twice = true }, EPROTO, "no sense");
}

static void an_errno_for_an_answer_is_passed_on(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .error = 12 }, ENOMEM, "refused");
}

static void a_hello_that_is_never_answered_fails_in_time(void **state)
{
	refused_at_hello(*state, (struct fake_sxm_answer){ .is_silent = true }, ETIMEDOUT, "does not answer");
}

static void what_an_answer_lacks_is_zero_and_what_is_late_is_taken(void **state)
{
	static const struct fake_sxm sxm = { .answer = { { .field = { 0, REMOTE_IS_RECEIVING, 1, 2 }, .count = 4, .late_ms = 200 } } };
	struct world *w = *state;

	start_sxm(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm });
	rig_await(w, &w->ups, 1);
	assert_true(w->info.is_sxm && w->info.epoch == (UINT64_C(1) << 32 | 2));
	assert_true(!w->info.generation && !w->info.boot && !w->info.process && !w->info.is_caching);
	rig_hang_up(w, true);
}

static void what_an_answer_has_too_much_is_not_looked_at(void **state)
{
	static const struct fake_sxm sxm = { .answer = {
		{ .field = { 0, REMOTE_IS_ELIGIBLE, 0, 8, 0, 9, 3, 4, 5, 6, 0xfffffffe, 1, 1, 1, 1, 1, 1, 1, 1, 1 }, .count = 20 },
	} };
	struct world *w = *state;

	start_sxm(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm });
	rig_await(w, &w->ups, 1);
	assert_true(w->info.state == REMOTE_IS_ELIGIBLE && w->info.epoch == 8 && !w->info.is_caching);
	rig_hang_up(w, true);
}

static void an_id_or_a_number_that_cannot_be_is_refused_at_once(void **state)
{
	struct world *w = *state;
	struct remote_spec spec = rig_spec(w);
	struct error e = { 0 };

	spec.uri = "nbd://localhost/";
	spec.generation = 1;
	spec.epoch = 1;
	spec.mirror_id = ".x";
	assert_null(remote_nbd_new(&spec, &e));
	spec.mirror_id = "a/b";
	assert_null(remote_nbd_new(&spec, &e));
	spec.mirror_id = "0123456789012345678901234567890123456789012345678901234567890123";
	assert_null(remote_nbd_new(&spec, &e));
	spec.mirror_id = "a";
	spec.generation = 0;
	assert_null(remote_nbd_new(&spec, &e));
	assert_int_equal(e.err, EINVAL);
}

static void questions_are_answered_among_writes(void **state)
{
	static const struct fake_sxm sxm = { .answer = {
		HELLO_ANSWER,
		[REMOTE_ASK_WAIT] = { .field = { 0, REMOTE_NEWS_TAKEN, 0, 8 }, .count = 4 },
		[REMOTE_ASK_PREPARE] = { .field = { 0, 4, 0, 7, 0, 12, 0xa, 0xb, 0xc, 0xd }, .count = 10 },
		[REMOTE_ASK_COMMIT] = { .field = { REMOTE_SAYS_BAD_STATE, REMOTE_IS_OWNED }, .count = 2 },
		[REMOTE_ASK_RECLAIM] = { .error = 22 },
		[REMOTE_ASK_END] = { .field = { 0 }, .count = 1 },
	} };
	struct world *w = *state;
	struct test_ask wait, prepare, commit, reclaim, end;
	struct error e = { 0 };
	struct test_op t;
	char data[4096] = { 0 };

	start_sxm(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm });
	rig_await(w, &w->ups, 1);
	ask(w, &wait, REMOTE_ASK_WAIT);
	rig_submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	ask(w, &prepare, REMOTE_ASK_PREPARE);
	ask(w, &commit, REMOTE_ASK_COMMIT);
	ask(w, &reclaim, REMOTE_ASK_RECLAIM);
	assert_int_equal(w->done, 0);
	rig_await(w, &w->done, 4);
	assert_true(!wait.is_done);
	assert_int_equal(prepare.err, 0);
	assert_int_equal(prepare.ask.count, 10);
	assert_true(remote_ask_u64(&prepare.ask, 4) == 12 && remote_ask_u64(&prepare.ask, 8) == (UINT64_C(0xc) << 32 | 0xd));
	assert_int_equal(remote_ask_check(&prepare.ask, prepare.err, &e), 0);
	assert_int_equal(commit.err, 0);
	assert_int_equal(remote_ask_check(&commit.ask, commit.err, &e), -1);
	assert_non_null(strstr(e.text, "owned there"));
	assert_int_equal(reclaim.err, EINVAL);
	ask(w, &end, REMOTE_ASK_END);
	rig_await(w, &w->done, 6);
	assert_true(wait.is_done && wait.err == 0 && wait.ask.field[1] == REMOTE_NEWS_TAKEN && end.err == 0);
	rig_hang_up(w, true);
	fake_nbd_await_end(&w->far);
	assert_int_equal(w->far.goodbyes, 1);
}

static void stop(void *arg)
{
	struct world *w = arg;

	loop_stop(w->loop);
}

static void turn_for(struct world *w, struct loop_timer *timer, unsigned ms)
{
	loop_timer_set(timer, ms);
	loop_run(w->loop);
}

/* It may stay open for days: no timeout, no hindrance to a goodbye. */
static void a_wait_is_no_request_in_flight(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_ANSWER } };
	struct world *w = *state;
	struct loop_timer *later = loop_timer_new(w->loop, stop, w);
	struct test_ask wait;

	start_sxm_in(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm }, PATIENT_MS, DEAD_MS);
	rig_await(w, &w->ups, 1);
	ask(w, &wait, REMOTE_ASK_WAIT);
	while (!atomic_load(&w->far.asked[REMOTE_ASK_WAIT]))
		turn_for(w, later, 1);
	turn_for(w, later, 3 * DEAD_MS);
	loop_timer_free(later);
	assert_true(!wait.is_done);
	assert_int_equal(w->downs, 0);
	rig_hang_up(w, true);
	assert_true(wait.is_done);
	assert_int_equal(wait.err, ESHUTDOWN);
	fake_nbd_await_end(&w->far);
	assert_int_equal(w->far.goodbyes, 1);
}

static void an_ask_ends_with_the_link(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_ANSWER, [REMOTE_ASK_PREPARE] = { .is_silent = true } } };
	struct world *w = *state;
	struct test_ask wait, prepare;

	start_sxm_in(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm }, PATIENT_MS, DEAD_MS);
	rig_await(w, &w->ups, 1);
	ask(w, &wait, REMOTE_ASK_WAIT);
	ask(w, &prepare, REMOTE_ASK_PREPARE);
	rig_await(w, &w->downs, 1);
	assert_int_equal(w->down_err, ETIMEDOUT);
	assert_int_equal(w->done_at_down, 2);
	assert_true(wait.err == ESHUTDOWN && prepare.err == ESHUTDOWN);
	rig_hang_up(w, false);
}

static void a_quiet_sxm_is_pinged_and_found_dead(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_ANSWER, [REMOTE_ASK_PING] = { .is_silent = true } } };
	struct world *w = *state;
	struct remote_spec spec;

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .size_bytes = SIZE, .sxm = &sxm }, 0);
	spec = rig_spec(w);
	spec.mirror_id = "m";
	spec.epoch = spec.generation = 1;
	spec.idle_ms = 50;
	spec.dead_ms = DEAD_MS;
	rig_connect(w, &spec);
	rig_await(w, &w->downs, 1);
	assert_int_equal(w->down_err, ETIMEDOUT);
	rig_hang_up(w, false);
	fake_nbd_await_end(&w->far); /* it may come to read what was asked only now */
	assert_int_equal(w->far.asked[REMOTE_ASK_PING], 1);
}

static void a_quiet_foreign_far_side_is_read_and_found_dead(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .size_bytes = SIZE, .read_hangs = true }, 0);
	spec = rig_spec(w);
	spec.idle_ms = 50;
	spec.dead_ms = DEAD_MS;
	rig_connect(w, &spec);
	rig_await(w, &w->downs, 1);
	assert_int_equal(w->down_err, ETIMEDOUT);
	rig_hang_up(w, false);
	fake_nbd_await_end(&w->far);
	assert_int_equal(w->far.reads, 1);
}

static void stop_when_read_thrice(void *arg)
{
	struct world *w = arg;

	if (atomic_load(&w->far.reads) >= 3)
		loop_stop(w->loop);
	else
		loop_timer_set(w->alarm, 10);
}

static void a_quiet_link_stays_up_while_its_peer_lives(void **state)
{
	struct world *w = *state;
	struct remote_spec spec;
	struct loop_timer *alarm = w->alarm;

	fake_nbd_start(&w->far, &plain, 0);
	spec = rig_spec(w);
	spec.idle_ms = 120;
	rig_connect(w, &spec);
	rig_await(w, &w->ups, 1);
	w->alarm = loop_timer_new(w->loop, stop_when_read_thrice, w);
	loop_timer_set(w->alarm, 10);
	loop_run(w->loop);
	loop_timer_free(w->alarm);
	w->alarm = alarm;
	assert_int_equal(w->downs, 0);
	rig_hang_up(w, true); /* a question may be open: then there is no goodbye */
}

static void further_connections_say_hello_too(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_ANSWER } };
	struct world *w = *state;
	struct test_op t;
	char data[4096] = { 0 };

	start_sxm(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_multi_conn = true, .is_tcp = true, .sxm = &sxm });
	rig_await(w, &w->ups, 1);
	for (unsigned round = 1; atomic_load(&w->far.asked[0]) < 4; round++) {
		rig_submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
		rig_await(w, &w->done, round);
	}
	rig_hang_up(w, true);
	assert_int_equal(w->far.written_early, 0);
}

/* Between two turns another connection ends; in the next, when that is seen and nothing is done about it yet, the word comes. */
static struct last_word {
	struct loop_hook hook;
	struct world *world;
	unsigned turns;
} last;

static void cut_then_answer(struct loop_hook *h)
{
	(void)h;
	if (last.turns == 1)
		fake_nbd_cut(&last.world->far, 1);
	else if (last.turns == 2)
		fake_nbd_answer_wait(&last.world->far, 0);
	last.turns += last.turns > 0;
}

static void the_last_word_is_heard_though_another_connection_ended_first(void **state)
{
	static const struct fake_sxm sxm = { .answer = {
		HELLO_ANSWER, [REMOTE_ASK_WAIT] = { .field = { 0, REMOTE_NEWS_TAKEN, 0, 8 }, .count = 4 },
	} };
	struct world *w = *state;
	struct test_ask wait;
	struct test_op t;
	char data[4096] = { 0 };

	last = (struct last_word){ .hook = { .run = cut_then_answer }, .world = w };
	loop_hook_add(w->loop, &last.hook); /* before the link's own */
	start_sxm(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_multi_conn = true, .is_tcp = true, .sxm = &sxm });
	rig_await(w, &w->ups, 1);
	ask(w, &wait, REMOTE_ASK_WAIT);
	for (unsigned round = 1; atomic_load(&w->far.asked[0]) < 4 || !atomic_load(&w->far.asked[1]); round++) {
		rig_submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
		rig_await(w, &w->done, round);
	}
	assert_false(wait.is_done);
	last.turns = 1;
	rig_await(w, &w->downs, 1);
	assert_true(wait.is_done);
	assert_int_equal(wait.err, 0);
	assert_int_equal(wait.ask.field[1], REMOTE_NEWS_TAKEN);
	rig_hang_up(w, false);
}

static int remove_hook(void **state)
{
	loop_hook_remove(last.world->loop, &last.hook);
	return rig_teardown(state);
}

static void a_further_connection_that_is_no_sxm_is_left_out(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_ANSWER }, .chosen_max = 1 };
	struct world *w = *state;
	struct test_op t[16];
	char data[4096] = { 0 };

	start_sxm(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_multi_conn = true, .is_tcp = true, .sxm = &sxm });
	rig_await(w, &w->ups, 1);
	for (unsigned round = 1; atomic_load(&w->far.greeted) < 2; round++) {
		rig_submit(w, &t[0], REMOTE_WRITE, (struct range){ 0, 4096 }, data);
		rig_await(w, &w->done, round);
	}
	w->done = 0;
	for (unsigned i = 0; i < 16; i++)
		rig_submit(w, &t[i], REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	rig_await(w, &w->done, 16);
	assert_int_equal(w->done_err, 0);
	rig_hang_up(w, true);
	assert_int_equal(w->far.written_early, 0);
}

static void the_digest_is_of_what_was_acknowledged(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_ANSWER } };
	struct world *w = *state;
	struct digest wanted = { 0 }, got;
	struct remote_spec spec;
	struct extents holes;
	struct test_op t[3];
	char data[8192];

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_zero = true, .sxm = &sxm }, 0);
	spec = rig_spec(w);
	spec.mirror_id = "m";
	spec.epoch = spec.generation = 1;
	extents_init(&holes, 0);
	extents_add(&holes, (struct range){ 1 << 20, SIZE }, EXTENT_ZERO);
	spec.holes = &holes;
	rig_connect(w, &spec);
	extents_fini(&holes);
	rig_await(w, &w->ups, 1);
	memset(data, 0x5a, sizeof(data));
	rig_submit(w, &t[0], REMOTE_WRITE, (struct range){ 4096, 12288 }, data);
	rig_submit(w, &t[1], REMOTE_ZERO, (struct range){ 65536, 131072 }, NULL);
	rig_submit(w, &t[2], REMOTE_FLUSH, (struct range){ 0, 0 }, NULL);
	rig_await(w, &w->done, 3);
	digest_add(&wanted, DIGEST_ZERO, 65536, 65536, NULL);
	digest_add(&wanted, DIGEST_ZERO, 1 << 20, SIZE - (1 << 20), NULL);
	digest_add(&wanted, DIGEST_WRITE, 4096, 8192, data);
	assert_true(w->remote->ops->digest(w->remote, &got));
	assert_true(digest_equal(&got, &wanted));
	rig_hang_up(w, true);
}

static void an_error_voids_the_digest(void **state)
{
	static const struct fake_sxm sxm = { .answer = { HELLO_ANSWER } };
	struct world *w = *state;
	struct digest got;
	struct test_op t;
	char data[4096] = { 0 };

	start_sxm(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .write_error = 28, .sxm = &sxm });
	rig_await(w, &w->ups, 1);
	assert_true(w->remote->ops->digest(w->remote, &got));
	rig_submit(w, &t, REMOTE_WRITE, (struct range){ 0, 4096 }, data);
	rig_await(w, &w->done, 1);
	assert_int_equal(w->done_err, ENOSPC);
	assert_false(w->remote->ops->digest(w->remote, &got));
	rig_hang_up(w, true);
}

static void a_foreign_far_side_has_no_digest(void **state)
{
	struct world *w = *state;
	struct digest got;

	start_sxm(w, &plain);
	rig_await(w, &w->ups, 1);
	assert_false(w->remote->ops->digest(w->remote, &got));
	rig_hang_up(w, true);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		TEST(an_sxm_far_side_is_greeted_before_anything_else),
		TEST(a_foreign_far_side_is_no_sxm_and_says_so_when_asked),
		TEST(a_stale_generation_is_told_apart),
		TEST(a_volume_that_is_somebodys_is_told_apart),
		TEST(a_far_side_that_cannot_write_its_mark_fails_with_its_number),
		TEST(a_status_nobody_knows_is_refused),
		TEST(an_admission_to_a_volume_in_a_strange_state_is_refused),
		TEST(descriptors_of_another_length_are_garbage),
		TEST(an_answer_without_the_context_is_garbage),
		TEST(a_context_that_comes_twice_is_garbage),
		TEST(an_errno_for_an_answer_is_passed_on),
		TEST(a_hello_that_is_never_answered_fails_in_time),
		TEST(what_an_answer_lacks_is_zero_and_what_is_late_is_taken),
		TEST(what_an_answer_has_too_much_is_not_looked_at),
		TEST(an_id_or_a_number_that_cannot_be_is_refused_at_once),
		TEST(questions_are_answered_among_writes),
		TEST(a_wait_is_no_request_in_flight),
		TEST(an_ask_ends_with_the_link),
		TEST(a_quiet_sxm_is_pinged_and_found_dead),
		TEST(a_quiet_foreign_far_side_is_read_and_found_dead),
		TEST(a_quiet_link_stays_up_while_its_peer_lives),
		TEST(further_connections_say_hello_too),
		cmocka_unit_test_setup_teardown(the_last_word_is_heard_though_another_connection_ended_first, rig_setup, remove_hook),
		TEST(a_further_connection_that_is_no_sxm_is_left_out),
		TEST(the_digest_is_of_what_was_acknowledged),
		TEST(an_error_voids_the_digest),
		TEST(a_foreign_far_side_has_no_digest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
