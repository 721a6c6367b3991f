/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A disk that is handed over with others, over fakes of the rooms below: it does what is decided for all, and nothing else.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/decision.h"
#include "base/proc.h"
#include "tests/unit/source-rig.h"
#include "vdi/vdi-private.h"

#define LONG_MS 60000u

static char group[32];
static unsigned groups;

static void mirror_one_of_group(void)
{
	snprintf(group, sizeof(group), "g%u", ++groups);
	mirror_for_guest();
}

static int prepare(unsigned patience_ms)
{
	struct answer a = { 0 };

	vdi_prepare(rig_vdi, "3", group, patience_ms, rig_answer, &a);
	return rig_answered(&a);
}

static int follow(bool is_commit)
{
	struct answer a = { 0 };

	vdi_follow(rig_vdi, group, is_commit, rig_answer, &a);
	return rig_answered(&a);
}

static enum decision decided(void)
{
	struct error e;

	return decision_read(group, &e);
}

static void decide(enum decision d)
{
	struct error e;

	assert_int_equal(decision_make(group, d, &e), d);
}

static bool is_owner(const char *state, const char *epoch)
{
	char text[32];

	snprintf(text, sizeof(text), "\"epoch\":\"%s\"", epoch);
	return rig_is_owned(state) && rig_is_owned(text);
}

static void prepared_guests_are_held_until_the_decision_and_then_it_is_given(void **state)
{
	(void)state;
	mirror_one_of_group();
	assert_int_equal(prepare(LONG_MS), 0);
	assert_true(fake_traced("prepare flush finish ")); /* asked at once, and not again */
	assert_true(is_owner("offered", "2") && rig_is_owned(group));
	assert_int_equal(prepare(LONG_MS), 0);
	assert_int_equal(follow(true), ENOENT); /* an order is no decision */
	assert_true(is_owner("offered", "2"));
	decide(DECISION_COMMIT);
	assert_int_equal(follow(true), 0);
	assert_true(fake_traced("commit cut "));
	assert_true(is_owner("given", "2") && !rig_is_on_file("\"active\":true"));
	assert_int_equal(follow(true), 0);
	assert_int_equal(follow(false), EALREADY);
}

static void cancelled_the_guest_and_the_mirror_go_on(void **state)
{
	(void)state;
	mirror_one_of_group();
	assert_int_equal(prepare(LONG_MS), 0);
	assert_int_equal(follow(true), ENOENT); /* heard and forgotten */
	assert_int_equal(follow(false), 0);
	assert_int_equal(decided(), DECISION_CANCEL);
	assert_true(fake_traced("prepare flush finish go-on reclaim "));
	assert_true(is_owner("owned", "3") && !rig_is_owned("group"));
	assert_int_equal(fake.epoch, 3);
	assert_true(stat_of().is_complete && !stat_of().is_failed);
	assert_int_equal(follow(true), ENOENT);
	assert_int_equal(prepare(LONG_MS), EALREADY); /* a name is used once */
	says(REMOTE_ASK_PREPARE, 0, REMOTE_IS_RECEIVING, 3);
	says(REMOTE_ASK_COMMIT, 0, REMOTE_IS_ELIGIBLE, 4);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_true(is_owner("given", "4"));
}

static void out_of_patience_it_decides_itself(void **state)
{
	(void)state;
	mirror_one_of_group();
	assert_int_equal(prepare(1), 0);
	UNTIL(strstr(fake.trace, "reclaim"));
	assert_int_equal(decided(), DECISION_CANCEL);
	assert_true(is_owner("owned", "3"));
}

static void out_of_patience_it_does_what_was_decided(void **state)
{
	(void)state;
	mirror_one_of_group();
	decide(DECISION_CANCEL);
	assert_int_equal(prepare(LONG_MS), EALREADY);
	snprintf(group, sizeof(group), "g%u", ++groups);
	assert_int_equal(prepare(50), 0);
	decide(DECISION_COMMIT);
	UNTIL(is_owner("given", "2"));
}

static void who_is_told_to_stop_decides_first(void **state)
{
	(void)state;
	mirror_one_of_group();
	assert_int_equal(prepare(LONG_MS), 0);
	rig_stop();
	assert_int_equal(decided(), DECISION_CANCEL);
	assert_true(is_owner("owned", "3"));
	rig_begin();
}

static void nothing_else_ends_what_is_prepared(void **state)
{
	struct answer cancelled = { 0 }, deactivated = { 0 };

	(void)state;
	mirror_one_of_group();
	assert_int_equal(prepare(LONG_MS), 0);
	vdi_cancel(rig_vdi, id, rig_answer, &cancelled);
	assert_int_equal(rig_answered(&cancelled), EBUSY);
	vdi_deactivate(rig_vdi, "3", rig_answer, &deactivated);
	rig_turn();
	assert_int_equal(deactivated.count, 0);
	decide(DECISION_COMMIT);
	assert_int_equal(follow(true), 0);
	assert_int_equal(rig_answered(&deactivated), 0);
	assert_true(is_owner("given", "2"));
}

static void cancelled_before_it_is_prepared_the_far_side_hears_that_it_is_over(void **state)
{
	struct answer prepared = { 0 }, cancelled = { 0 };

	(void)state;
	mirror_one_of_group();
	fake.says[REMOTE_ASK_PREPARE].is_slow = true;
	vdi_prepare(rig_vdi, "3", group, LONG_MS, rig_answer, &prepared);
	UNTIL(is_owner("offered", "2"));
	vdi_cancel(rig_vdi, id, rig_answer, &cancelled);
	fake_say();
	assert_int_equal(rig_answered(&prepared), ECANCELED);
	assert_int_equal(rig_answered(&cancelled), 0);
	assert_true(fake_traced("prepare flush finish reclaim end abort mirror- "));
	assert_true(is_owner("owned", "3") && stat_of().is_failed);
	assert_int_equal(decided(), DECISION_NONE);
	assert_int_equal(rig_deactivate("3"), 0);
}

/* Decided, and the far side does not answer: who reads goes on, nobody writes, and nobody comes to. */
static void what_was_decided_and_has_no_link_is_written_by_nobody(void **state)
{
	struct answer a = { 0 }, b = { 0 };

	(void)state;
	mirror_one_of_group();
	assert_int_equal(rig_activate("4", true), 0);
	assert_int_equal(prepare(LONG_MS), 0);
	fake.says[REMOTE_ASK_COMMIT] = (struct fake_says){ .err = EIO };
	fake.envoy_err = ECONNREFUSED;
	decide(DECISION_COMMIT);
	fake.trace[0] = '\0';
	vdi_follow(rig_vdi, group, true, rig_answer, &a);
	vdi_activate(rig_vdi, "u0_1", false, false, rig_answer, &b);
	assert_int_equal(rig_answered(&a), EIO);
	assert_int_equal(rig_answered(&b), EPERM);
	assert_true(strncmp(fake.trace, "commit cut keep abort mirror- ", 30) == 0);
	assert_null(strstr(fake.trace, "serve:rw"));
	assert_null(strstr(strstr(fake.trace, "cut") + 3, "cut")); /* domain 4 reads */
	assert_true(is_owner("offered", "2"));
	assert_false(stat_of().is_failed);
	fake.envoy_err = 0;
	UNTIL(is_owner("given", "2"));
	UNTIL(stat_of().is_complete);
	assert_false(stat_of().is_failed);
	assert_null(strstr(fake.trace, "serve:rw"));
}

static void what_cannot_be_prepared_goes_on(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_one_of_group();
	vdi_prepare(rig_vdi, "4", group, LONG_MS, rig_answer, &a);
	assert_int_equal(rig_answered(&a), ENOENT);
	assert_int_equal(rig_activate("u0_1", false), 0);
	assert_int_equal(prepare(LONG_MS), EBUSY);
	assert_int_equal(rig_deactivate("u0_1"), 0);
	fake.trace[0] = '\0';
	fake.says[REMOTE_ASK_PREPARE].err = ESHUTDOWN;
	assert_int_equal(prepare(LONG_MS), ESHUTDOWN);
	assert_true(is_owner("owned", "3") && !stat_of().is_failed);
	assert_non_null(strstr(fake.trace, "prepare go-on "));
	fake_link_down(true);
	UNTIL(!fake.wait);
	assert_int_equal(prepare(LONG_MS), ENOTCONN);
	assert_int_equal(decided(), DECISION_NONE);
}

static void a_digest_that_differs_ends_the_mirror_and_raises(void **state)
{
	(void)state;
	mirror_one_of_group();
	fake.digest = (struct digest){ .count = 7 };
	assert_int_equal(prepare(LONG_MS), EBADMSG);
	assert_true(is_owner("owned", "3") && stat_of().is_failed);
	assert_true(fake_traced("prepare flush finish prepare abort mirror- "));
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
}

/* It was asked early; the disk is offered now, and waits for the answer before it asks anything else. */
static void prepare_and_wait_for_the_answer(struct answer *a)
{
	mirror_one_of_group();
	fake.says[REMOTE_ASK_PREPARE].is_slow = true;
	vdi_prepare(rig_vdi, "3", group, LONG_MS, rig_answer, a);
	UNTIL(is_owner("offered", "2") && rig_vdi->op->after_early);
}

/* When the first is asked, guests' writes are still on their way. */
static void an_early_answer_that_is_not_about_all_of_it_is_asked_for_again(void **state)
{
	struct answer a = { 0 };

	(void)state;
	prepare_and_wait_for_the_answer(&a);
	fake.digest = (struct digest){ .count = 7 };
	assert_true(fake_is_asked(REMOTE_ASK_PREPARE));
	fake_say();
	UNTIL(strstr(fake.trace, "finish prepare"));
	fake.digest = (struct digest){ .count = 0 };
	fake_say();
	assert_int_equal(rig_answered(&a), 0);
	assert_true(fake_traced("prepare flush finish prepare "));
}

/* Its digest may be the same: nothing went over the new one yet. */
static void an_early_answer_of_another_link_is_none(void **state)
{
	struct answer a = { 0 };

	(void)state;
	prepare_and_wait_for_the_answer(&a);
	fake.status.links_lost++;
	fake_say();
	UNTIL(strstr(fake.trace, "finish prepare"));
	fake_say();
	assert_int_equal(rig_answered(&a), 0);
}

/* It would say that all is there, of a link over which nothing came. */
static void of_a_far_side_that_was_started_anew_meanwhile_nothing_is_asked(void **state)
{
	struct answer a = { 0 };

	(void)state;
	prepare_and_wait_for_the_answer(&a);
	fake.status.links_lost++;
	fake.status.has_lost = true;
	fake_say();
	assert_int_equal(rig_answered(&a), ESHUTDOWN);
	assert_true(is_owner("owned", "3") && !stat_of().is_failed);
	assert_non_null(strstr(fake.trace, "prepare flush finish go-on "));
}

/* What it could not write is forgotten there: another try would be answered well. */
static void what_could_not_be_flushed_there_is_not_tried_again(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_one_of_group();
	says(REMOTE_ASK_PREPARE, REMOTE_SAYS_FAILED, 5, 0);
	fake.says[REMOTE_ASK_PREPARE].is_slow = true;
	vdi_prepare(rig_vdi, "3", group, LONG_MS, rig_answer, &a);
	UNTIL(is_owner("offered", "2"));
	fake.status.links_lost++;
	fake_say();
	UNTIL(!fake_is_asked(REMOTE_ASK_PREPARE));
	says(REMOTE_ASK_PREPARE, 0, REMOTE_IS_RECEIVING, 1);
	assert_int_equal(rig_answered(&a), EIO);
	assert_true(is_owner("owned", "3") && stat_of().is_failed);
	assert_true(fake_traced("prepare flush finish abort mirror- "));
}

static void an_early_question_of_a_failed_attempt_is_the_next_ones(void **state)
{
	struct answer first = { 0 }, second = { 0 };

	(void)state;
	mirror_one_of_group();
	fake.says[REMOTE_ASK_PREPARE].is_slow = fake.is_finish_slow = true;
	vdi_prepare(rig_vdi, "3", group, LONG_MS, rig_answer, &first);
	UNTIL(strstr(fake.trace, "finish "));
	fake_finish(ETIMEDOUT);
	assert_int_equal(rig_answered(&first), ETIMEDOUT);
	assert_true(is_owner("owned", "1") && !stat_of().is_failed);
	fake.finish_err = 0;
	fake.is_finish_slow = false;
	vdi_deactivate(rig_vdi, "3", rig_answer, &second);
	UNTIL(is_owner("offered", "2"));
	fake_say();
	assert_int_equal(rig_answered(&second), 0);
	assert_true(fake_traced("prepare flush finish flush finish commit cut "));
}

/* --- its process was killed while it was prepared */

static void stop_prepared(void)
{
	char owner[128], text[512];

	rig_stop();
	snprintf(owner, sizeof(owner), "%s/fake.owner", rig_dir);
	snprintf(text, sizeof(text), "{\"state\":\"offered\",\"role\":\"source\",\"epoch\":\"2\",\"mirror\":\"%s\",\"generation\":\"1048576\","
		 "\"since\":\"0\",\"written\":true,\"told\":true,\"group\":\"%s\"}", id, group);
	assert_int_equal(proc_replace_file(owner, text, strlen(text), 0600, NULL), 0);
	fake.trace[0] = '\0';
}

static void die_prepared(void)
{
	stop_prepared();
	rig_begin();
}

static void a_later_process_cancels_what_nobody_decided(void **state)
{
	(void)state;
	mirror_one_of_group();
	die_prepared();
	assert_int_equal(decided(), DECISION_CANCEL);
	assert_true(is_owner("owned", "3"));
	assert_true(fake_traced("open:rw mirror+ restore start serve:rw "));
	assert_int_equal(follow(false), 0);
	assert_int_equal(follow(true), ENOENT);
}

static void a_later_process_commits_what_was_decided_and_serves_nobody(void **state)
{
	(void)state;
	mirror_one_of_group();
	decide(DECISION_COMMIT);
	die_prepared();
	assert_true(is_owner("given", "2"));
	assert_int_equal(fake.envoy_epoch, 1);
	assert_false(rig_is_on_file("\"active\":true"));
	assert_null(strstr(fake.trace, "serve"));
	assert_non_null(strstr(fake.trace, "envoy envoy-commit "));
	assert_int_equal(follow(true), 0);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void what_was_decided_and_cannot_be_done_yet_is_served_to_nobody_and_tried_again(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_one_of_group();
	decide(DECISION_COMMIT);
	stop_prepared();
	fake.envoy_err = ECONNREFUSED;
	rig_begin_badly();
	assert_true(is_owner("offered", "2"));
	assert_null(strstr(fake.trace, "serve"));
	assert_int_equal(follow(true), ECONNREFUSED);
	assert_int_equal(rig_deactivate("3"), EAGAIN);
	vdi_activate(rig_vdi, "5", false, false, rig_answer, &a);
	assert_int_equal(rig_answered(&a), EPERM);
	assert_true(is_owner("offered", "2"));
	fake.envoy_err = 0;
	UNTIL(is_owner("given", "2")); /* by itself */
	UNTIL(!rig_is_on_file("\"active\":true"));
	assert_null(strstr(fake.trace, "serve"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(prepared_guests_are_held_until_the_decision_and_then_it_is_given),
		RIG_TEST(cancelled_the_guest_and_the_mirror_go_on),
		RIG_TEST(out_of_patience_it_decides_itself),
		RIG_TEST(out_of_patience_it_does_what_was_decided),
		RIG_TEST(who_is_told_to_stop_decides_first),
		RIG_TEST(nothing_else_ends_what_is_prepared),
		RIG_TEST(cancelled_before_it_is_prepared_the_far_side_hears_that_it_is_over),
		RIG_TEST(what_was_decided_and_has_no_link_is_written_by_nobody),
		RIG_TEST(what_cannot_be_prepared_goes_on),
		RIG_TEST(a_digest_that_differs_ends_the_mirror_and_raises),
		RIG_TEST(an_early_answer_that_is_not_about_all_of_it_is_asked_for_again),
		RIG_TEST(an_early_answer_of_another_link_is_none),
		RIG_TEST(of_a_far_side_that_was_started_anew_meanwhile_nothing_is_asked),
		RIG_TEST(what_could_not_be_flushed_there_is_not_tried_again),
		RIG_TEST(an_early_question_of_a_failed_attempt_is_the_next_ones),
		RIG_TEST(a_later_process_cancels_what_nobody_decided),
		RIG_TEST(a_later_process_commits_what_was_decided_and_serves_nobody),
		RIG_TEST(what_was_decided_and_cannot_be_done_yet_is_served_to_nobody_and_tried_again),
	};

	return rig_group("group", tests, ARRAY_LEN(tests));
}
