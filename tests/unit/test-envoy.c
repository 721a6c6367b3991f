/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The disk was given away by a process that is no more: what the next one asks and hears, and what it finds beside the image.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"
#include "tests/unit/source-rig.h"

static int take(bool is_forced)
{
	struct answer a = { 0 };

	vdi_take(rig_vdi, is_forced, rig_answer, &a);
	return rig_answered(&a);
}

static bool has_end_on_record(void)
{
	char path[160], *json;
	bool has_end;

	snprintf(path, sizeof(path), "%s/operations/%s.json", proc_state_dir(), id);
	json = proc_read_file(path, 65536, NULL, NULL);
	has_end = json && !strstr(json, "\"ended\":0");
	free(json);
	return has_end;
}

/* Its process is killed: the files stay. */
static void die(void)
{
	rig_stop();
	rig_begin();
	fake.trace[0] = '\0';
}

static void a_later_process_asks_the_disk_back_and_goes_on(void **state)
{
	(void)state;
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	assert_true(has_end_on_record()); /* it trails the answer to the deactivation */
	die();
	assert_int_equal(rig_activate("4", false), 0);
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\""));
	assert_int_equal(fake.envoy_epoch, 1);
	assert_int_equal(fake.epoch, 3);
	assert_false(has_end_on_record());
	assert_true(fake_traced("open:rw envoy envoy-reclaim mirror+ restore start serve:rw "));
}

/* The disk's record says that it is back, the operation's that it is complete. */
static void a_process_that_dies_while_it_has_the_disk_back_goes_on_all_the_same(void **state)
{
	char owner[128], text[512];

	(void)state;
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	rig_stop();
	assert_true(has_end_on_record());
	snprintf(owner, sizeof(owner), "%s/fake.owner", rig_dir);
	snprintf(text, sizeof(text), "{\"state\":\"owned\",\"role\":\"source\",\"epoch\":\"3\",\"mirror\":\"%s\","
	         "\"generation\":\"3000000\",\"since\":\"0\",\"written\":true,\"told\":true}", id);
	assert_int_equal(proc_replace_file(owner, text, strlen(text), 0600, NULL), 0);
	fake.trace[0] = '\0';
	rig_begin();
	assert_int_equal(rig_activate("4", false), 0);
	assert_true(fake_traced("open:rw mirror+ restore start serve:rw "));
	assert_false(has_end_on_record());
}

static bool is_beside(const char *suffix)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/fake%s", rig_dir, suffix);
	return access(path, F_OK) == 0;
}

static void what_no_mirror_goes_on_by_is_not_left_beside_the_image(void **state)
{
	char path[128];

	(void)state;
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	die();
	snprintf(path, sizeof(path), "%s/fake.marks", rig_dir);
	assert_int_equal(proc_replace_file(path, "m", 1, 0600, NULL), 0);
	fake.envoy_err = ECONNREFUSED;
	rig_stop();
	rig_envoy_ms = 1;
	rig_begin();
	assert_int_equal(rig_activate("4", false), EPERM);
	assert_true(is_beside(".mirror") && is_beside(".marks")); /* it may be asked back yet */
	assert_int_equal(take(false), 0);
	assert_int_equal(rig_activate("4", false), 0);
	assert_false(is_beside(".mirror") || is_beside(".marks"));
}

static void a_later_process_learns_that_the_disk_was_taken(void **state)
{
	(void)state;
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	die();
	fake.envoy_err = EPROTO;
	says(REMOTE_ASK_HELLO, REMOTE_SAYS_BAD_STATE, REMOTE_IS_OWNED, 2);
	assert_int_equal(rig_activate("4", false), EPERM);
	assert_true(rig_is_owned("\"taken\":true"));
	assert_true(has_end_on_record());
}

static void a_later_process_that_reaches_nobody_leaves_it_given(void **state)
{
	(void)state;
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	rig_envoy_ms = 250;
	die();
	fake.envoy_err = ECONNREFUSED;
	assert_int_equal(rig_activate("4", false), EPERM);
	assert_true(rig_is_owned("\"state\":\"given\""));
}

static unsigned refused_after_ms(void)
{
	uint64_t began_ns = loop_now_ns();

	assert_int_equal(rig_activate("4", false), EPERM);
	return (unsigned)((loop_now_ns() - began_ns) / NS_PER_MS);
}

/* A keeper takes less; who waits for the disk has waited long enough. */
static void a_socket_where_nobody_listens_is_given_up_sooner(void **state)
{
	(void)state;
	fake.uri = "nbd+unix:///x?socket=/far";
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	rig_envoy_ms = 3000;
	die();
	fake.envoy_err = ECONNREFUSED;
	assert_in_range(refused_after_ms(), 1000, 2900);
	fake.envoy_err = ETIMEDOUT;
	assert_in_range(refused_after_ms(), 3000, 100000);
	assert_true(rig_is_owned("\"state\":\"given\""));
}

static void a_later_process_takes_what_was_given_back_and_says_so(void **state)
{
	(void)state;
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	die();
	fake.is_envoy_released = true;
	assert_int_equal(rig_activate("4", false), 0);
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\""));
	assert_true(fake_traced("open:rw envoy envoy-released serve:rw "));
}

/* The far side's process is just being started again. */
static void a_later_process_asks_again_where_nobody_answers(void **state)
{
	struct answer a = { 0 };

	(void)state;
	switch_over();
	assert_int_equal(rig_detach("3"), 0);
	die();
	fake.envoy_err = ECONNREFUSED;
	vdi_activate(rig_vdi, "4", false, false, rig_answer, &a);
	UNTIL(strstr(fake.trace, "envoy envoy"));
	fake.envoy_err = 0;
	fake.says[REMOTE_ASK_RECLAIM].err = ESHUTDOWN; /* heard or not: the link is lost */
	UNTIL(strstr(fake.trace, "envoy-reclaim envoy"));
	assert_int_equal(a.count, 0);
	says(REMOTE_ASK_RECLAIM, 0, REMOTE_IS_RECEIVING, 3);
	assert_int_equal(rig_answered(&a), 0);
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(a_later_process_asks_the_disk_back_and_goes_on),
		RIG_TEST(a_process_that_dies_while_it_has_the_disk_back_goes_on_all_the_same),
		RIG_TEST(what_no_mirror_goes_on_by_is_not_left_beside_the_image),
		RIG_TEST(a_later_process_learns_that_the_disk_was_taken),
		RIG_TEST(a_later_process_that_reaches_nobody_leaves_it_given),
		RIG_TEST(a_socket_where_nobody_listens_is_given_up_sooner),
		RIG_TEST(a_later_process_takes_what_was_given_back_and_says_so),
		RIG_TEST(a_later_process_asks_again_where_nobody_answers),
	};

	return rig_group("envoy", tests, sizeof(tests) / sizeof(*tests));
}
