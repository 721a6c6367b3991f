/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-pause - the image is let go under its guests and a mirror, and opened anew, whatever else happens
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/vdi-rig.h"

static uint64_t number;

static int pause_it(bool will_resize)
{
	struct answer a = { 0 };

	number = vdi_pause(rig_vdi, will_resize, rig_answer, &a);
	return rig_answered(&a);
}

static int resume(void)
{
	struct answer a = { 0 };

	vdi_unpause(rig_vdi, rig_answer, &a);
	return rig_answered(&a);
}

static void start_mirror(void)
{
	struct vdi_mirror_args args = { .domain = "3", .remote = "nbd://far" };
	struct answer a = { 0 };
	char id[64];

	vdi_mirror(rig_vdi, &args, id, sizeof(id), rig_answer, &a);
	UNTIL(fake.mirror && fake.status.started_ns);
	fake_change(CORE_SYNCING, true, false);
	assert_int_equal(rig_answered(&a), 0);
}

static void flushed_closed_and_opened_anew(void **state)
{
	struct vdi_status s;

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	fake.trace[0] = '\0';
	assert_int_equal(pause_it(false), 0);
	assert_true(fake_traced("flush close "));
	vdi_status(rig_vdi, &s);
	assert_false(s.is_open);
	fake.size_bytes = 2 * MiB;
	assert_int_equal(resume(), 0);
	assert_true(fake_traced("open:rw "));
	vdi_status(rig_vdi, &s);
	assert_int_equal(s.size_bytes, 2 * MiB);
	assert_int_equal(resume(), ENOENT);
}

static void a_flush_that_fails_changes_nothing(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	fake.trace[0] = '\0';
	fake.flush_err = EIO;
	assert_int_equal(pause_it(false), EIO);
	assert_true(fake_traced("flush "));
	fake.flush_err = 0;
	assert_int_equal(pause_it(false), 0);
	assert_int_equal(resume(), 0);
}

static void a_mirror_stays_in_place_and_its_size_too(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	start_mirror();
	fake.trace[0] = '\0';
	assert_int_equal(pause_it(true), EBUSY);
	assert_true(fake_traced(""));
	assert_int_equal(pause_it(false), 0);
	assert_true(fake_traced("flush close "));
	assert_int_equal(resume(), 0);
	assert_true(fake_traced("open:rw "));
	assert_non_null(fake.mirror);
	assert_int_equal(pause_it(false), 0); /* another size all the same */
	fake.size_bytes = 2 * MiB;
	fake.trace[0] = '\0';
	assert_int_equal(resume(), 0);
	assert_null(fake.mirror);
	assert_true(fake_traced("open:rw abort mirror- "));
}

static void verbs_wait_and_whoever_asked_may_go(void **state)
{
	struct answer a = { 0 }, second = { 0 };
	uint64_t queued;

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(pause_it(false), 0);
	vdi_activate(rig_vdi, "4", true, false, rig_answer, &a);
	queued = vdi_pause(rig_vdi, false, rig_answer, &second);
	vdi_hold_is_over(rig_vdi, queued); /* before its turn */
	assert_int_equal(a.count, 0);
	vdi_hold_is_over(rig_vdi, number);
	assert_int_equal(rig_answered(&a), 0);
	assert_int_equal(rig_answered(&second), 0);
	assert_int_equal(resume(), ENOENT);
	assert_int_equal(rig_deactivate("4"), 0);
}

static void what_cannot_be_opened_is_tried_again(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(pause_it(false), 0);
	fake.open_err = ENOENT;
	assert_int_equal(resume(), ENOENT);
	fake.trace[0] = '\0';
	fake.open_err = 0;
	assert_int_equal(rig_deactivate("3"), 0); /* its turn comes when the disk is open */
	assert_non_null(strstr(fake.trace, "open:rw "));
}

static void a_process_that_stops_does_not_wait_for_it(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	start_mirror();
	assert_int_equal(pause_it(false), 0);
	fake.open_err = ENOENT;
	rig_stop();
	assert_null(fake.mirror);
	fake.open_err = 0;
	fake.trace[0] = '\0';
	rig_begin(); /* the next one opens it, and goes on */
	assert_non_null(strstr(fake.trace, "open:rw "));
}

static void what_nobody_has_open_stays_closed(void **state)
{
	struct answer a = { 0 };

	(void)state;
	assert_int_equal(pause_it(false), 0);
	vdi_activate(rig_vdi, "3", false, false, rig_answer, &a);
	assert_true(fake_traced(""));
	assert_int_equal(resume(), 0);
	assert_int_equal(rig_answered(&a), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(flushed_closed_and_opened_anew),
		RIG_TEST(a_flush_that_fails_changes_nothing),
		RIG_TEST(a_mirror_stays_in_place_and_its_size_too),
		RIG_TEST(verbs_wait_and_whoever_asked_may_go),
		RIG_TEST(what_cannot_be_opened_is_tried_again),
		RIG_TEST(a_process_that_stops_does_not_wait_for_it),
		RIG_TEST(what_nobody_has_open_stays_closed),
	};

	return rig_group("pause", tests, sizeof(tests) / sizeof(tests[0]));
}
