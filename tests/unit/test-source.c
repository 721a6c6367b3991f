/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The disk as the source of a mirror to another sxm, over fakes of the rooms below: the commit, what comes after it, what undoes it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/proc.h"
#include "tests/unit/source-rig.h"

static void the_far_side_has_the_disk_before_the_verb_succeeds(void **state)
{
	(void)state;
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(rig_emptied, 0); /* the link is waited on */
	fake_news(REMOTE_NEWS_TAKEN, 2);
	UNTIL(stat_of().is_ended);
	assert_true(stat_of().is_complete && !stat_of().is_failed);
	UNTIL(rig_emptied);
	assert_true(fake_traced("abort mirror- flush close "));
	assert_true(rig_is_owned("\"taken\":true"));
	assert_int_equal(rig_activate("4", false), EPERM);
}

static void a_reader_may_stay_and_nobody_may_write(void **state)
{
	(void)state;
	switch_over();
	assert_int_equal(rig_activate("u0_1", true), 0);
	assert_int_equal(fake.plain, NBDSRV_PLAIN_READS);
}

static void a_digest_that_differs_fails_the_barrier(void **state)
{
	(void)state;
	mirror_for_guest();
	fake.digest = (struct digest){ .count = 7 };
	assert_int_equal(rig_deactivate("3"), EBADMSG);
	assert_true(fake_traced("flush finish prepare reclaim end abort mirror- "));
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\"") && rig_is_owned("\"raised\":true"));
	assert_true(stat_of().is_failed);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void a_digest_nobody_knows_is_not_compared(void **state)
{
	(void)state;
	mirror_for_guest();
	fake.digest = (struct digest){ .count = 7 };
	fake.is_digest_void = true;
	assert_int_equal(rig_deactivate("3"), 0);
}

static void a_commit_of_another_epoch_is_none(void **state)
{
	(void)state;
	mirror_for_guest();
	says(REMOTE_ASK_COMMIT, 0, REMOTE_IS_ELIGIBLE, 9);
	assert_int_equal(rig_deactivate("3"), EPROTO);
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\""));
}

static void a_far_side_that_cannot_write_it_down_fails_the_barrier(void **state)
{
	(void)state;
	mirror_for_guest();
	says(REMOTE_ASK_COMMIT, REMOTE_SAYS_FAILED, 28, 0);
	assert_int_equal(rig_deactivate("3"), ENOSPC);
	assert_true(fake_traced("flush finish prepare commit reclaim end abort mirror- "));
}

/* The answer was lost, or the question: it is asked again. */
static void a_commit_cut_off_is_asked_again_on_the_next_link(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_for_guest();
	fake.says[REMOTE_ASK_COMMIT].err = ESHUTDOWN;
	vdi_deactivate(rig_vdi, "3", rig_answer, &a);
	UNTIL(strstr(fake.trace, "reach"));
	assert_true(rig_is_owned("\"state\":\"offered\""));
	assert_int_equal(a.count, 0);
	assert_null(strstr(fake.trace, "commit reach commit"));
	says(REMOTE_ASK_COMMIT, 0, REMOTE_IS_ELIGIBLE, 2);
	fake_link_down(true);
	UNTIL(!fake.wait);
	fake_link_up();
	assert_int_equal(rig_answered(&a), 0);
	assert_true(fake_traced("flush finish prepare commit reach commit wait cut "));
	assert_true(rig_is_owned("\"state\":\"given\""));
}

static void a_commit_cut_off_for_good_is_withdrawn_and_raised_once(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_for_guest();
	fake.says[REMOTE_ASK_COMMIT].err = ESHUTDOWN;
	vdi_deactivate(rig_vdi, "3", rig_answer, &a);
	UNTIL(strstr(fake.trace, "reach"));
	fake_link_down(false);
	assert_int_equal(rig_answered(&a), ENOTCONN);
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\"") && rig_is_owned("\"raised\":true"));
	assert_int_equal(rig_deactivate("3"), 0);
}

/* An admin took it there while COMMIT's answer was lost. Withdrawn now, the disk would have two owners. */
static void a_commit_that_finds_the_disk_taken_has_succeeded(void **state)
{
	(void)state;
	mirror_for_guest();
	says(REMOTE_ASK_COMMIT, REMOTE_SAYS_BAD_STATE, REMOTE_IS_OWNED, 2);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_true(rig_is_owned("\"state\":\"given\"") && rig_is_owned("\"taken\":true"));
	says(REMOTE_ASK_RECLAIM, REMOTE_SAYS_BAD_STATE, REMOTE_IS_OWNED, 2);
	assert_int_equal(rig_activate("4", false), EPERM);
}

static void a_commit_cut_off_that_meets_the_disk_taken_has_succeeded(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_for_guest();
	fake.says[REMOTE_ASK_COMMIT].err = ESHUTDOWN;
	vdi_deactivate(rig_vdi, "3", rig_answer, &a);
	UNTIL(strstr(fake.trace, "reach"));
	fake.on_heard(fake.heard_arg, REMOTE_SAYS_BAD_STATE, REMOTE_IS_OWNED, 2); /* HELLO's answer: there is no link */
	fake_link_down(false);
	assert_int_equal(rig_answered(&a), 0);
	assert_true(rig_is_owned("\"state\":\"given\"") && rig_is_owned("\"taken\":true"));
	UNTIL(stat_of().is_ended);
	assert_true(stat_of().is_complete && !stat_of().is_failed);
}

static void a_guest_that_reboots_gets_the_disk_back_and_the_mirror_goes_on(void **state)
{
	(void)state;
	switch_over();
	assert_int_equal(rig_activate("4", false), 0);
	assert_true(fake_traced("reclaim go-on serve:rw "));
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\""));
	assert_int_equal(fake.epoch, 3);
	assert_int_equal(fake.plain, NBDSRV_PLAIN_WRITES);
	/* And the next switchover is one as the first. */
	says(REMOTE_ASK_PREPARE, 0, REMOTE_IS_RECEIVING, 3);
	says(REMOTE_ASK_COMMIT, 0, REMOTE_IS_ELIGIBLE, 4);
	assert_int_equal(rig_deactivate("4"), 0);
	assert_true(rig_is_owned("\"state\":\"given\"") && rig_is_owned("\"epoch\":\"4\""));
}

static void a_disk_that_was_taken_meanwhile_is_not_given_back(void **state)
{
	(void)state;
	switch_over();
	says(REMOTE_ASK_RECLAIM, REMOTE_SAYS_BAD_STATE, REMOTE_IS_OWNED, 2);
	assert_int_equal(rig_activate("4", false), EPERM);
	assert_true(rig_is_owned("\"state\":\"given\"") && rig_is_owned("\"taken\":true"));
}

static void without_a_link_the_disk_stays_given_and_the_admin_is_told(void **state)
{
	struct answer a = { 0 };

	(void)state;
	switch_over();
	fake_link_down(false);
	vdi_activate(rig_vdi, "4", false, false, rig_answer, &a);
	assert_int_equal(rig_answered(&a), EPERM);
	assert_non_null(strstr(a.e.text, "sxm epoch take"));
	assert_true(rig_is_owned("\"state\":\"given\""));
}

static void a_link_made_anew_gets_the_disk_back(void **state)
{
	struct answer a = { 0 };

	(void)state;
	switch_over();
	fake_link_down(true);
	vdi_activate(rig_vdi, "4", false, false, rig_answer, &a);
	UNTIL(strstr(fake.trace, "reach"));
	fake_link_up();
	assert_int_equal(rig_answered(&a), 0);
	assert_true(rig_is_owned("\"state\":\"owned\""));
}

static void a_reclaim_cut_off_is_asked_again_on_the_next_link(void **state)
{
	struct answer a = { 0 };

	(void)state;
	switch_over();
	fake.says[REMOTE_ASK_RECLAIM].err = ESHUTDOWN;
	vdi_activate(rig_vdi, "4", false, false, rig_answer, &a);
	UNTIL(strstr(fake.trace, "reach"));
	assert_int_equal(a.count, 0);
	says(REMOTE_ASK_RECLAIM, 0, REMOTE_IS_RECEIVING, 3);
	fake_link_down(true);
	fake_link_up();
	assert_int_equal(rig_answered(&a), 0);
	assert_true(fake_traced("reclaim reach reclaim wait go-on serve:rw "));
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\""));
}

static void what_is_given_back_is_owned_before_that_is_said(void **state)
{
	(void)state;
	switch_over();
	fake_news(REMOTE_NEWS_RELEASED, 3);
	UNTIL(strstr(fake.trace, "released"));
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\""));
	UNTIL(stat_of().is_ended);
	assert_true(stat_of().is_failed);
	assert_int_equal(rig_activate("4", false), 0);
	assert_int_equal(rig_deactivate("4"), 0);
}

static void an_operation_the_far_side_ended_raises_nothing(void **state)
{
	(void)state;
	mirror_for_guest();
	fake_news(REMOTE_NEWS_ENDED, 1);
	UNTIL(stat_of().is_ended);
	assert_true(stat_of().is_failed && rig_is_owned("\"ended\":true"));
	assert_int_equal(rig_deactivate("3"), 0);
}

static void without_a_writer_it_is_complete_when_it_is_given(void **state)
{
	(void)state;
	begin_mirror();
	fake_change(CORE_SYNCED, true, true);
	UNTIL(stat_of().is_complete);
	assert_true(rig_is_owned("\"state\":\"given\""));
	assert_true(fake_traced("open:rw mirror+ start wait flush finish prepare commit "));
}

static void what_the_next_links_hello_says_is_heard(void **state)
{
	(void)state;
	switch_over();
	fake_link_down(true);
	fake.on_heard(fake.heard_arg, REMOTE_SAYS_BAD_STATE, REMOTE_IS_OWNED, 2);
	UNTIL(stat_of().is_ended);
	assert_true(stat_of().is_complete && !stat_of().is_failed);
}

static void a_process_that_dies_in_between_withdraws_before_it_serves(void **state)
{
	char owner[128], *text;

	(void)state;
	mirror_for_guest();
	rig_stop();
	snprintf(owner, sizeof(owner), "%s/fake.owner", rig_dir);
	text = strdup("{\"state\":\"offered\",\"role\":\"source\",\"epoch\":\"2\",\"mirror\":\"m\",\"generation\":\"9\",\"since\":\"0\","
	              "\"written\":true,\"told\":true}");
	assert_int_equal(proc_replace_file(owner, text, strlen(text), 0600, NULL), 0);
	free(text);
	rig_begin();
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\""));
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
}

/* A dead link is no reason to hurt a guest that is suspended hours later. */
static void lost_for_an_hour_it_raises_nothing(void **state)
{
	char owner[128], text[512];

	(void)state;
	mirror_for_guest();
	fake_link_down(true);
	UNTIL(rig_is_owned("\"lost\":1") || rig_is_owned("\"lost\":2"));
	fake_fail("the link is gone");
	UNTIL(stat_of().is_ended);
	rig_stop();
	snprintf(owner, sizeof(owner), "%s/fake.owner", rig_dir);
	snprintf(text, sizeof(text), "{\"state\":\"owned\",\"role\":\"source\",\"epoch\":\"1\",\"mirror\":\"m\",\"generation\":\"9\","
	         "\"since\":\"0\",\"written\":true,\"told\":true,\"lost\":%lld}", (long long)time(NULL) - 3601);
	assert_int_equal(proc_replace_file(owner, text, strlen(text), 0600, NULL), 0);
	rig_begin();
	assert_int_equal(rig_deactivate("3"), 0);
}

static int destroy(bool is_forced)
{
	struct answer a = { 0 };

	vdi_destroy(rig_vdi, is_forced, rig_answer, &a);
	return rig_answered(&a);
}

static void the_source_of_an_unresolved_mirror_is_not_destroyed(void **state)
{
	(void)state;
	mirror_for_guest();
	fake_link_down(false);
	fake_fail("the link is gone");
	UNTIL(stat_of().is_ended);
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(destroy(false), EPERM);
	assert_int_equal(rig_activate("4", false), 0); /* it is used: resolved */
	assert_int_equal(rig_deactivate("4"), 0);
	assert_int_equal(rig_detach("4"), 0);
	assert_int_equal(destroy(false), 0);
}

static void an_operation_that_is_destroyed_resolves_it(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_for_guest();
	fake_fail("the link is gone");
	UNTIL(stat_of().is_ended);
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(destroy(false), EPERM);
	vdi_forget(rig_vdi, id, rig_answer, &a);
	assert_int_equal(rig_answered(&a), 0);
	assert_int_equal(destroy(false), 0);
}

static void a_given_disk_may_be_destroyed(void **state)
{
	(void)state;
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(destroy(false), 0);
	assert_true(stat_of().is_ended && stat_of().is_complete);
	assert_true(fake_traced("abort mirror- flush close "));
}

static void a_cancelled_mirror_owes_nothing(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_for_guest();
	vdi_cancel(rig_vdi, id, rig_answer, &a);
	assert_int_equal(rig_answered(&a), 0);
	assert_false(rig_is_owned("\"told\":true"));
	assert_int_equal(rig_deactivate("3"), 0);
}

/* --- cancelled while the barrier of the guest's deactivation is at this question */

static struct answer deactivated, cancelled;

static void cancel_at(enum remote_question q)
{
	mirror_for_guest();
	fake.says[q].is_slow = true;
	deactivated = cancelled = (struct answer){ 0 };
	vdi_deactivate(rig_vdi, "3", rig_answer, &deactivated);
	UNTIL(fake_is_asked(q));
	vdi_cancel(rig_vdi, id, rig_answer, &cancelled);
	fake_say();
}

static void is_cancelled(const char *trace)
{
	assert_int_equal(rig_answered(&deactivated), ECANCELED);
	assert_int_equal(rig_answered(&cancelled), 0);
	assert_true(fake_traced(trace));
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\"") && rig_is_owned("\"raised\":true"));
	assert_true(stat_of().is_failed && !stat_of().is_complete);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void cancelled_while_it_prepares_the_far_side_hears_that_it_is_over(void **state)
{
	(void)state;
	cancel_at(REMOTE_ASK_PREPARE);
	is_cancelled("flush finish prepare reclaim end abort mirror- ");
}

/* It says that it has the disk. It is not given: that is not on record, and nobody was told. */
static void cancelled_while_it_commits_the_disk_is_asked_back(void **state)
{
	(void)state;
	cancel_at(REMOTE_ASK_COMMIT);
	is_cancelled("flush finish prepare commit reclaim end abort mirror- ");
}

static void cancelled_while_a_guest_starts_there_it_is_too_late(void **state)
{
	(void)state;
	mirror_for_guest();
	says(REMOTE_ASK_COMMIT, REMOTE_SAYS_BAD_STATE, REMOTE_IS_OWNED, 2);
	fake.says[REMOTE_ASK_COMMIT].is_slow = true;
	deactivated = cancelled = (struct answer){ 0 };
	vdi_deactivate(rig_vdi, "3", rig_answer, &deactivated);
	UNTIL(fake_is_asked(REMOTE_ASK_COMMIT));
	vdi_cancel(rig_vdi, id, rig_answer, &cancelled);
	fake_say();
	assert_int_equal(rig_answered(&deactivated), 0);
	assert_int_equal(rig_answered(&cancelled), 0);
	assert_true(rig_is_owned("\"state\":\"given\"") && rig_is_owned("\"taken\":true"));
	assert_true(stat_of().is_complete && !stat_of().is_failed);
}

/* Guests are held: no link is waited for, and it is on record that the far side may not know. */
static void cancelled_without_a_link_it_is_over_at_once(void **state)
{
	(void)state;
	mirror_for_guest();
	fake.says[REMOTE_ASK_COMMIT].err = ESHUTDOWN;
	deactivated = cancelled = (struct answer){ 0 };
	vdi_deactivate(rig_vdi, "3", rig_answer, &deactivated);
	UNTIL(strstr(fake.trace, "reach"));
	fake_link_down(true);
	UNTIL(!fake.wait);
	vdi_cancel(rig_vdi, id, rig_answer, &cancelled);
	is_cancelled("flush finish prepare commit reach abort mirror- ");
}

static void cancelled_when_it_was_given_it_stays_so(void **state)
{
	(void)state;
	switch_over();
	cancelled = (struct answer){ 0 };
	vdi_cancel(rig_vdi, id, rig_answer, &cancelled);
	assert_int_equal(rig_answered(&cancelled), 0);
	assert_true(stat_of().is_complete && !stat_of().is_ended && !stat_of().is_failed);
	assert_true(rig_is_owned("\"state\":\"given\""));
	fake_news(REMOTE_NEWS_TAKEN, 2);
	UNTIL(stat_of().is_ended);
	assert_true(stat_of().is_complete);
}

static void cancelled_while_it_is_asked_back_it_ends_when_it_is_here(void **state)
{
	struct answer activated = { 0 };

	(void)state;
	switch_over();
	fake.says[REMOTE_ASK_RECLAIM].is_slow = true;
	vdi_activate(rig_vdi, "4", false, false, rig_answer, &activated);
	UNTIL(fake_is_asked(REMOTE_ASK_RECLAIM));
	cancelled = (struct answer){ 0 };
	vdi_cancel(rig_vdi, id, rig_answer, &cancelled);
	fake_say();
	assert_int_equal(rig_answered(&activated), 0);
	assert_int_equal(rig_answered(&cancelled), 0);
	assert_true(fake_traced("reclaim go-on serve:rw abort mirror- "));
	assert_true(stat_of().is_failed && !stat_of().is_complete);
	assert_true(rig_is_owned("\"state\":\"owned\""));
	assert_int_equal(rig_deactivate("4"), 0);
}

/* The barrier has not begun: it raises, as what is under way is over. */
static void cancelled_before_the_barrier_that_waits_its_turn_raises(void **state)
{
	(void)state;
	mirror_for_guest();
	deactivated = cancelled = (struct answer){ 0 };
	vdi_deactivate(rig_vdi, "3", rig_answer, &deactivated);
	vdi_cancel(rig_vdi, id, rig_answer, &cancelled);
	assert_int_equal(rig_answered(&deactivated), ECANCELED);
	assert_int_equal(rig_answered(&cancelled), 0);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void a_killed_process_says_complete_of_what_it_gave(void **state)
{
	char text[256], path[128];

	(void)state;
	switch_over();
	rig_stop();
	snprintf(text, sizeof(text), "{\"domains\":[],\"operation\":\"%s\",\"operation_domain\":\"3\",\"told\":true}", id);
	snprintf(path, sizeof(path), "%s/domains.json", rig_dir);
	assert_int_equal(proc_replace_file(path, text, strlen(text), 0600, NULL), 0);
	rig_begin();
	assert_false(rig_is_on_file("operation"));
	assert_false(rig_is_on_file("owed"));
	/* The same, and it had not come to write that down. */
	rig_stop();
	assert_int_equal(proc_replace_file(path, text, strlen(text), 0600, NULL), 0);
	snprintf(path, sizeof(path), "%s/operations/%s.json", proc_state_dir(), id);
	unlink(path);
	rig_begin();
	assert_true(stat_of().is_complete && !stat_of().is_failed);
}

static int take(bool is_forced)
{
	struct answer a = { 0 };

	vdi_take(rig_vdi, is_forced, rig_answer, &a);
	return rig_answered(&a);
}

static void an_admin_may_take_what_was_given(void **state)
{
	(void)state;
	switch_over();
	fake_link_down(false);
	assert_int_equal(take(false), 0);
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\""));
	assert_true(stat_of().is_ended);
	assert_int_equal(rig_activate("4", false), 0);
	assert_int_equal(take(true), EPERM);
}

static void what_was_started_there_is_taken_by_force_only(void **state)
{
	(void)state;
	switch_over();
	fake_news(REMOTE_NEWS_TAKEN, 2);
	UNTIL(stat_of().is_ended);
	assert_int_equal(take(false), EPERM);
	assert_int_equal(take(true), 0);
	assert_int_equal(rig_activate("4", false), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(the_far_side_has_the_disk_before_the_verb_succeeds),
		RIG_TEST(a_reader_may_stay_and_nobody_may_write),
		RIG_TEST(a_digest_that_differs_fails_the_barrier),
		RIG_TEST(a_digest_nobody_knows_is_not_compared),
		RIG_TEST(a_commit_of_another_epoch_is_none),
		RIG_TEST(a_far_side_that_cannot_write_it_down_fails_the_barrier),
		RIG_TEST(a_commit_cut_off_is_asked_again_on_the_next_link),
		RIG_TEST(a_commit_cut_off_for_good_is_withdrawn_and_raised_once),
		RIG_TEST(a_commit_that_finds_the_disk_taken_has_succeeded),
		RIG_TEST(a_commit_cut_off_that_meets_the_disk_taken_has_succeeded),
		RIG_TEST(a_guest_that_reboots_gets_the_disk_back_and_the_mirror_goes_on),
		RIG_TEST(a_disk_that_was_taken_meanwhile_is_not_given_back),
		RIG_TEST(without_a_link_the_disk_stays_given_and_the_admin_is_told),
		RIG_TEST(a_link_made_anew_gets_the_disk_back),
		RIG_TEST(a_reclaim_cut_off_is_asked_again_on_the_next_link),
		RIG_TEST(what_is_given_back_is_owned_before_that_is_said),
		RIG_TEST(an_operation_the_far_side_ended_raises_nothing),
		RIG_TEST(without_a_writer_it_is_complete_when_it_is_given),
		RIG_TEST(what_the_next_links_hello_says_is_heard),
		RIG_TEST(a_process_that_dies_in_between_withdraws_before_it_serves),
		RIG_TEST(lost_for_an_hour_it_raises_nothing),
		RIG_TEST(the_source_of_an_unresolved_mirror_is_not_destroyed),
		RIG_TEST(an_operation_that_is_destroyed_resolves_it),
		RIG_TEST(a_given_disk_may_be_destroyed),
		RIG_TEST(a_cancelled_mirror_owes_nothing),
		RIG_TEST(cancelled_while_it_prepares_the_far_side_hears_that_it_is_over),
		RIG_TEST(cancelled_while_it_commits_the_disk_is_asked_back),
		RIG_TEST(cancelled_while_a_guest_starts_there_it_is_too_late),
		RIG_TEST(cancelled_without_a_link_it_is_over_at_once),
		RIG_TEST(cancelled_when_it_was_given_it_stays_so),
		RIG_TEST(cancelled_while_it_is_asked_back_it_ends_when_it_is_here),
		RIG_TEST(cancelled_before_the_barrier_that_waits_its_turn_raises),
		RIG_TEST(an_admin_may_take_what_was_given),
		RIG_TEST(what_was_started_there_is_taken_by_force_only),
		RIG_TEST(a_killed_process_says_complete_of_what_it_gave),
	};

	return rig_group("source", tests, sizeof(tests) / sizeof(*tests));
}
