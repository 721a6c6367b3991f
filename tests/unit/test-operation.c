/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Mirrors and copies over fakes of the rooms below: what is said, handed over, raised, owed and kept.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"
#include "tests/unit/vdi-rig.h"

static void mirror_args(struct answer *a, char id[64], const char *domain, bool is_copy)
{
	const struct vdi_mirror_args args = { .domain = domain, .remote = "nbd://far/x", .is_copy = is_copy };

	vdi_mirror(rig_vdi, &args, id, 64, rig_answer, a);
}

/* Started and reached. */
static void mirror(char id[64], const char *domain)
{
	struct answer a = { 0 };

	fake.status.started_ns = 0; /* an earlier one's */
	mirror_args(&a, id, domain, false);
	UNTIL(fake.status.started_ns);
	fake_change(CORE_SYNCING, true, false);
	assert_int_equal(rig_answered(&a), 0);
}

static struct vdi_operation_status stat_of(const char *id)
{
	struct vdi_operation_status s;

	assert_int_equal(vdi_operation(rig_vdi, id, &s), 0);
	return s;
}

static void sync_and_tell(const char *id)
{
	fake_change(CORE_SYNCED, true, true);
	UNTIL(stat_of(id).is_complete);
}

static void complete_is_on_file_before_it_is_said(void **state)
{
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	assert_false(rig_is_on_file("\"told\":true"));
	sync_and_tell(id);
	assert_true(rig_is_on_file("\"told\":true"));
}

static void the_last_writers_deactivation_is_the_barrier(void **state)
{
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	sync_and_tell(id);
	assert_true(fake_traced("open:rw serve:rw mirror+ start "));
	assert_int_equal(rig_deactivate("3"), 0);
	assert_true(fake_traced("flush finish cut abort mirror- close "));
	assert_true(stat_of(id).is_complete && stat_of(id).is_ended);
	assert_false(rig_is_on_file("operation"));
}

static void a_barrier_that_fails_raises_once(void **state)
{
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	sync_and_tell(id);
	fake.trace[0] = '\0';
	fake.finish_err = ETIMEDOUT;
	assert_int_equal(rig_deactivate("3"), ETIMEDOUT);
	assert_true(fake_traced("flush finish abort mirror- "));
	assert_true(stat_of(id).is_failed && !stat_of(id).is_complete);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_true(fake_traced("cut flush close "));
}

static void a_mirror_dead_after_complete_raises_once(void **state)
{
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	sync_and_tell(id);
	fake_fail("the link is gone");
	UNTIL(stat_of(id).is_ended);
	assert_true(stat_of(id).is_failed && !stat_of(id).is_complete);
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
}

/* Complete, and failed since. */
static void owe_by(const char *domain, char id[64])
{
	assert_int_equal(rig_activate(domain, false), 0);
	mirror(id, domain);
	sync_and_tell(id);
	fake_fail("the link is gone");
	UNTIL(stat_of(id).is_ended);
}

static void owe(const char *domain)
{
	char id[64];

	owe_by(domain, id);
}

typedef void give_up_fn(struct vdi *v, const char *id, vdi_done_fn *done, void *arg);

static int give_up(give_up_fn *how, const char *id)
{
	struct answer a = { 0 };

	how(rig_vdi, id, rig_answer, &a);
	return rig_answered(&a);
}

static void who_gives_up_one_that_failed_is_not_told_again(void **state)
{
	give_up_fn *const how[] = { vdi_forget, vdi_cancel };
	char id[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(how); i++) {
		owe_by("3", id);
		UNTIL(rig_is_on_file("had been complete"));
		assert_true(rig_is_owned("\"told\":true"));
		assert_int_equal(give_up(how[i], id), 0);
		assert_false(rig_is_on_file("had been complete") || rig_is_owned("\"told\":true"));
		assert_int_equal(rig_deactivate("3"), 0);
	}
	owe_by("3", id);
	rig_stop();
	rig_begin();
	assert_int_equal(give_up(vdi_forget, id), 0); /* the next process knows whose debt it is */
	assert_int_equal(rig_deactivate("3"), 0);
}

static void one_that_is_given_up_settles_no_others_debt(void **state)
{
	char first[64], id[64];

	(void)state;
	owe_by("3", first);
	mirror(id, "3");
	fake_fail("this one, too");
	UNTIL(stat_of(id).is_ended);
	assert_int_equal(give_up(vdi_cancel, id), 0);
	assert_int_equal(give_up(vdi_forget, id), 0);
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void one_is_given_up_while_the_next_runs(void **state)
{
	char first[64], id[64];

	(void)state;
	owe_by("3", first);
	mirror(id, "3");
	assert_int_equal(give_up(vdi_forget, first), 0);
	assert_false(rig_is_on_file("had been complete"));
	sync_and_tell(id);
	fake_fail("this one, too");
	UNTIL(stat_of(id).is_ended);
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void a_new_guest_settles_what_was_owed(void **state)
{
	(void)state;
	owe("3");
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(rig_activate("4", false), 0);
	assert_int_equal(rig_deactivate("4"), 0);
}

static void a_second_guest_settles_nothing_while_the_first_writes(void **state)
{
	(void)state;
	owe("3");
	assert_int_equal(rig_activate("4", false), 0);
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void a_guest_that_does_not_start_settles_nothing(void **state)
{
	(void)state;
	owe("3");
	assert_int_equal(rig_detach("3"), 0);
	fake.open_err = EIO;
	assert_int_equal(rig_activate("4", false), EIO);
	fake.open_err = 0;
	assert_true(rig_is_on_file("had been complete"));
	assert_int_equal(rig_activate("u0_x", true), 0); /* writes domains.json */
	assert_true(rig_is_on_file("had been complete"));
	assert_int_equal(rig_activate("4", false), 0);
	assert_false(rig_is_on_file("had been complete"));
}

static void a_mirror_goes_on_in_the_next_process(void **state)
{
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	fake_link_up();
	sync_and_tell(id);
	fake.trace[0] = '\0';
	rig_stop();
	assert_true(fake_traced("cut keep abort mirror- flush close ")); /* nobody writes past files that are kept */
	rig_begin();
	assert_true(fake_traced("open:rw mirror+ restore start serve:rw "));
	assert_true(stat_of(id).is_complete && !stat_of(id).is_failed);
	fake_link_up();
	fake_change(CORE_SYNCED, true, true);
	fake.says[REMOTE_ASK_COMMIT] = (struct fake_says){ .field = { 0, REMOTE_IS_ELIGIBLE, 0, 2 } };
	assert_int_equal(rig_deactivate("3"), 0);
	assert_true(stat_of(id).is_complete);
}

static void one_that_cannot_be_taken_up_is_failed_and_owed(void **state)
{
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	sync_and_tell(id);
	rig_stop();
	fake.restore_err = EIO;
	rig_begin();
	assert_true(stat_of(id).is_failed);
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void an_operation_of_a_dead_process_is_failed_and_owed(void **state)
{
	static const char json[] = "{\"domains\":[{\"domain\":\"3\",\"active\":true,\"read_only\":false}],"
				   "\"operation\":\"disk.17\",\"operation_domain\":\"3\",\"told\":true}";
	char path[128];

	(void)state;
	rig_stop();
	snprintf(path, sizeof(path), "%s/operations/disk.17.json", proc_state_dir());
	unlink(path);
	snprintf(path, sizeof(path), "%s/domains.json", rig_dir);
	assert_int_equal(proc_replace_file(path, json, strlen(json), 0600, NULL), 0);
	rig_begin();
	assert_true(stat_of("disk.17").is_failed);
	assert_int_equal(rig_deactivate("3"), EIO);
	assert_int_equal(rig_deactivate("3"), 0);
}

static int resume(const char *remote, char id[64])
{
	const struct vdi_mirror_args args = { .domain = "3", .remote = remote, .is_resume = true };
	struct answer a = { 0 };

	vdi_mirror(rig_vdi, &args, id, 64, rig_answer, &a);
	if (strcmp(remote, "nbd://far/mirror") == 0) {
		UNTIL(!fake.status.is_remembering);
		fake_change(CORE_SYNCING, true, true); /* it was in sync once */
	}
	return rig_answered(&a);
}

static void lose(const char *id)
{
	fake.status.is_remembering = true;
	error_set(&fake.status.why, EPIPE, "lost");
	fake_change(CORE_BROKEN, true, true);
	UNTIL(stat_of(id).is_remembered);
	assert_true(stat_of(id).is_failed && stat_of(id).is_ended && !stat_of(id).is_complete);
}

static void a_lost_link_is_remembered_and_resumed(void **state)
{
	char id[64], again[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	sync_and_tell(id);
	lose(id);
	UNTIL(!rig_is_on_file("\"told\":true"));
	assert_int_equal(resume("nbd://elsewhere", again), ENOENT);
	assert_true(stat_of(id).is_remembered);
	assert_int_equal(resume("nbd://far/mirror", again), 0);
	assert_string_equal(again, id);
	assert_false(stat_of(id).is_failed || stat_of(id).is_complete); /* not by what it was before */
	fake_change(CORE_SYNCED, true, true);
	UNTIL(stat_of(id).is_complete);
	lose(id);
	assert_int_equal(rig_deactivate("3"), EIO); /* what was told is owed */
	assert_int_equal(rig_deactivate("3"), 0);
	UNTIL(!fake.mirror); /* nobody is left whose writes are to be recorded */
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(resume("nbd://elsewhere", again), ENOENT);
}

static void a_remembered_one_that_is_given_up_owes_nothing(void **state)
{
	give_up_fn *const how[] = { vdi_forget, vdi_cancel };
	char id[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(how); i++) {
		assert_int_equal(rig_activate("3", false), 0);
		mirror(id, "3");
		sync_and_tell(id);
		lose(id);
		assert_int_equal(give_up(how[i], id), 0);
		assert_int_equal(rig_deactivate("3"), 0);
	}
}

/* Of its last link nobody knows what is still on its way there. */
static void a_mirror_to_a_foreign_far_side_is_failed_and_remembered_by_the_next_process(void **state)
{
	char id[64], again[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	sync_and_tell(id);
	rig_stop();
	rig_begin();
	assert_true(stat_of(id).is_failed && stat_of(id).is_remembered && !stat_of(id).is_complete);
	assert_true(rig_is_on_file("owed"));
	assert_int_equal(resume("nbd://far/mirror", again), 0);
	assert_string_equal(again, id);
	assert_false(stat_of(id).is_failed);
}

static void a_mirror_dead_before_complete_does_not_disturb_the_guest(void **state)
{
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	fake_fail("the link is gone");
	UNTIL(stat_of(id).is_ended);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_true(stat_of(id).is_failed);
}

static void a_far_side_that_cannot_be_reached_leaves_nothing(void **state)
{
	struct vdi_operation_status s;
	struct answer a = { 0 };
	char id[64];

	(void)state;
	mirror_args(&a, id, "-1", false);
	UNTIL(fake.status.started_ns);
	fake_fail("nobody listens");
	assert_int_equal(rig_answered(&a), ENOLINK);
	assert_true(fake_traced("open:rw mirror+ start abort mirror- flush close "));
	assert_int_equal(vdi_operation(rig_vdi, id, &s), -1);
	assert_int_equal(vdi_operations(rig_vdi, &s, 1), 0);
	assert_int_equal(rig_emptied, 1);
}

static void a_mirror_nobody_writes_under_finishes_by_itself(void **state)
{
	char id[64];

	(void)state;
	mirror(id, "-1");
	fake.is_finish_slow = true;
	fake_change(CORE_SYNCED, true, true);
	UNTIL(strstr(fake.trace, "finish"));
	assert_false(stat_of(id).is_complete);
	fake_finish(0);
	UNTIL(stat_of(id).is_complete);
	assert_true(stat_of(id).is_ended);
	UNTIL(rig_emptied);
	assert_true(fake_traced("open:rw mirror+ start flush finish abort mirror- close "));
}

static void a_guest_that_goes_early_leaves_the_copy_going(void **state)
{
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	assert_int_equal(rig_deactivate("3"), 0);
	assert_int_equal(rig_detach("3"), 0);
	assert_true(fake_traced("open:rw serve:rw mirror+ start cut flush "));
	assert_int_equal(rig_emptied, 0);
	fake_change(CORE_SYNCED, true, true);
	UNTIL(rig_emptied);
	assert_true(stat_of(id).is_complete);
	assert_true(fake_traced("flush finish abort mirror- close "));
}

static void dom0s_writer_puts_the_end_off(void **state)
{
	char id[64];

	(void)state;
	mirror(id, "-1");
	assert_int_equal(rig_activate("u0_x", false), 0);
	fake_change(CORE_SYNCED, true, true);
	assert_int_equal(rig_activate("u0_y", true), 0); /* twice: the second is behind what the change queued */
	assert_int_equal(rig_activate("u0_y", true), 0);
	assert_false(stat_of(id).is_complete);
	assert_null(strstr(fake.trace, "finish"));
	assert_int_equal(rig_deactivate("u0_x"), 0);
	UNTIL(stat_of(id).is_complete);
	assert_int_equal(rig_detach("u0_y"), 0);
}

static void a_second_operation_is_refused_by_the_name_of_the_first(void **state)
{
	struct answer a = { 0 };
	char id[64], other[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	mirror_args(&a, other, "3", true);
	assert_int_equal(rig_answered(&a), EBUSY);
	assert_non_null(strstr(a.e.text, id));
}

static void two_writing_guests_have_no_mirror(void **state)
{
	struct answer a = { 0 };
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(rig_activate("4", false), 0);
	mirror_args(&a, id, "3", false);
	assert_int_equal(rig_answered(&a), EBUSY);
}

static void another_writer_at_the_barrier_is_raised(void **state)
{
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	sync_and_tell(id);
	assert_int_equal(rig_activate("u0_x", false), 0);
	assert_int_equal(rig_deactivate("3"), EBUSY);
	assert_true(stat_of(id).is_failed);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void a_cancellation_ends_a_barrier_that_hangs(void **state)
{
	struct answer a = { 0 }, b = { 0 };
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	sync_and_tell(id);
	fake.is_finish_slow = true;
	vdi_deactivate(rig_vdi, "3", rig_answer, &a);
	UNTIL(strstr(fake.trace, "finish"));
	vdi_cancel(rig_vdi, id, rig_answer, &b);
	assert_int_equal(rig_answered(&a), ECANCELED);
	assert_int_equal(rig_answered(&b), 0);
	assert_true(stat_of(id).is_failed);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void a_cancelled_mirror_is_failed_and_nothing_is_owed(void **state)
{
	struct vdi_operation_status s;
	struct answer a = { 0 }, b = { 0 };
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	sync_and_tell(id);
	vdi_cancel(rig_vdi, id, rig_answer, &a);
	assert_int_equal(rig_answered(&a), 0);
	assert_true(stat_of(id).is_failed && stat_of(id).is_ended);
	assert_int_equal(rig_deactivate("3"), 0);
	vdi_forget(rig_vdi, id, rig_answer, &b);
	assert_int_equal(rig_answered(&b), 0);
	assert_int_equal(vdi_operation(rig_vdi, id, &s), -1);
}

static void a_copy_ends_complete_by_itself(void **state)
{
	struct answer a = { 0 };
	char id[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	mirror_args(&a, id, "3", true);
	UNTIL(fake.status.started_ns);
	fake_change(CORE_SYNCING, true, false);
	assert_int_equal(rig_answered(&a), 0);
	fake_change(CORE_FINISHED, true, true);
	UNTIL(stat_of(id).is_ended);
	assert_true(stat_of(id).is_complete);
	assert_int_equal(rig_deactivate("3"), 0);
}

/* Early in a boot SXM_STATE_DIR may be out of reach: the disk is served all the same. */
static void a_record_finds_its_place_when_it_is_written(void **state)
{
	char id[64], away[128], path[256];
	struct answer a = { 0 };

	(void)state;
	rig_stop();
	snprintf(away, sizeof(away), "%s.away", proc_state_dir());
	assert_int_equal(rename(proc_state_dir(), away), 0);
	assert_int_equal(proc_replace_file(proc_state_dir(), "in the way", 10, 0600, NULL), 0);
	rig_begin();
	assert_int_equal(unlink(proc_state_dir()), 0);
	assert_int_equal(rig_activate("3", false), 0);
	mirror(id, "3");
	vdi_cancel(rig_vdi, id, rig_answer, &a);
	assert_int_equal(rig_answered(&a), 0);
	snprintf(path, sizeof(path), "%s/operations/%s.json", proc_state_dir(), id);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/operations", proc_state_dir());
	assert_int_equal(rmdir(path) == 0 && rmdir(proc_state_dir()) == 0 ? rename(away, proc_state_dir()) : -1, 0);
}

static void a_bad_address_is_told_at_once(void **state)
{
	const struct vdi_mirror_args args = { .domain = "3", .remote = "file:///etc/passwd" };
	struct answer a = { 0 };
	char id[64];

	(void)state;
	vdi_mirror(rig_vdi, &args, id, sizeof(id), rig_answer, &a);
	assert_int_equal(rig_answered(&a), EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(complete_is_on_file_before_it_is_said),
		RIG_TEST(the_last_writers_deactivation_is_the_barrier),
		RIG_TEST(a_barrier_that_fails_raises_once),
		RIG_TEST(a_mirror_dead_after_complete_raises_once),
		RIG_TEST(a_mirror_goes_on_in_the_next_process),
		RIG_TEST(a_mirror_to_a_foreign_far_side_is_failed_and_remembered_by_the_next_process),
		RIG_TEST(who_gives_up_one_that_failed_is_not_told_again),
		RIG_TEST(one_that_is_given_up_settles_no_others_debt),
		RIG_TEST(one_is_given_up_while_the_next_runs),
		RIG_TEST(a_remembered_one_that_is_given_up_owes_nothing),
		RIG_TEST(a_new_guest_settles_what_was_owed),
		RIG_TEST(a_second_guest_settles_nothing_while_the_first_writes),
		RIG_TEST(a_guest_that_does_not_start_settles_nothing),
		RIG_TEST(one_that_cannot_be_taken_up_is_failed_and_owed),
		RIG_TEST(an_operation_of_a_dead_process_is_failed_and_owed),
		RIG_TEST(a_lost_link_is_remembered_and_resumed),
		RIG_TEST(a_mirror_dead_before_complete_does_not_disturb_the_guest),
		RIG_TEST(a_far_side_that_cannot_be_reached_leaves_nothing),
		RIG_TEST(a_mirror_nobody_writes_under_finishes_by_itself),
		RIG_TEST(a_guest_that_goes_early_leaves_the_copy_going),
		RIG_TEST(dom0s_writer_puts_the_end_off),
		RIG_TEST(a_second_operation_is_refused_by_the_name_of_the_first),
		RIG_TEST(two_writing_guests_have_no_mirror),
		RIG_TEST(another_writer_at_the_barrier_is_raised),
		RIG_TEST(a_cancellation_ends_a_barrier_that_hangs),
		RIG_TEST(a_cancelled_mirror_is_failed_and_nothing_is_owed),
		RIG_TEST(a_copy_ends_complete_by_itself),
		RIG_TEST(a_record_finds_its_place_when_it_is_written),
		RIG_TEST(a_bad_address_is_told_at_once),
	};

	return rig_group("operation", tests, ARRAY_LEN(tests));
}
