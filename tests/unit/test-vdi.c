/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A disk's life over fakes of the rooms below: what is opened, served, and found again.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/vdi-rig.h"

static void every_verb_may_be_repeated(void **state)
{
	char first[108], second[108];
	struct answer a = { 0 }, b = { 0 };

	(void)state;
	vdi_attach(rig_vdi, "3", first, sizeof(first), rig_answer, &a);
	assert_int_equal(rig_answered(&a), 0);
	vdi_attach(rig_vdi, "3", second, sizeof(second), rig_answer, &b);
	assert_int_equal(rig_answered(&b), 0);
	assert_string_equal(first, second);
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(rig_activate("3", false), 0);
	assert_true(fake_traced("open:rw serve:rw "));
	assert_int_equal(rig_deactivate("3"), 0);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_int_equal(rig_deactivate("never"), 0);
	assert_int_equal(rig_deactivate(""), 0);
	assert_true(fake_traced("cut flush close "));
	assert_int_equal(rig_emptied, 0);
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(rig_emptied, 1);
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(rig_detach(""), 0);
	assert_true(fake_traced(""));
}

static void a_reader_that_starts_to_write_gets_the_disk_opened_anew(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("u0_a", true), 0);
	assert_true(fake_traced("open:ro serve:ro "));
	assert_int_equal(rig_activate("3", false), 0);
	assert_true(fake_traced("close open:rw serve:rw "));
	assert_int_equal(rig_deactivate("3"), 0);
	assert_true(fake_traced("cut flush "));
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(rig_detach("u0_a"), 0);
}

static void an_upgrade_that_fails_leaves_the_reader_served(void **state)
{
	struct vdi_status s;

	(void)state;
	assert_int_equal(rig_activate("u0_a", true), 0);
	fake.open_err = EBUSY;
	assert_int_equal(rig_activate("3", false), EBUSY);
	fake.open_err = 0;
	/* ... refused while it could not be opened at all; the next activation mends it */
	assert_int_equal(rig_activate("3", false), 0);
	vdi_status(rig_vdi, &s);
	assert_true(s.is_open && !s.is_read_only);
}

static void an_activation_that_fails_leaves_nothing_open(void **state)
{
	(void)state;
	fake.open_err = ENOENT;
	assert_int_equal(rig_activate("3", false), ENOENT);
	fake.open_err = 0;
	fake.listen_err = EADDRINUSE;
	assert_int_equal(rig_activate("3", false), EADDRINUSE);
	assert_true(fake_traced("open:rw cut flush close "));
	fake.listen_err = 0;
	assert_false(rig_is_on_file("\"active\":true"));
	assert_int_equal(rig_activate("3", false), 0);
}

static void parallel_deactivations_get_one_answer_each(void **state)
{
	struct answer a[8] = { 0 };

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_true(fake_traced("open:rw serve:rw "));
	for (size_t i = 0; i < ARRAY_LEN(a); i++)
		vdi_deactivate(rig_vdi, "3", rig_answer, &a[i]);
	for (size_t i = 0; i < ARRAY_LEN(a); i++)
		assert_int_equal(rig_answered(&a[i]), 0);
	assert_true(fake_traced("cut flush close "));
}

static void a_flush_that_fails_is_raised(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	fake.flush_err = EIO;
	assert_int_equal(rig_deactivate("3"), EIO);
	fake.flush_err = 0;
	assert_int_equal(rig_deactivate("3"), 0);
}

static void who_was_active_is_served_again(void **state)
{
	struct answer a = { 0 };
	uint16_t port = 0;

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(rig_activate("u0_b", true), 0);
	vdi_listen(rig_vdi, "3", "127.0.0.1", 0, NULL, &port, rig_answer, &a);
	assert_int_equal(rig_answered(&a), 0);
	assert_int_equal(port, 1234);
	assert_true(fake_traced("open:rw serve:rw serve:ro tcp "));
	rig_stop();
	fake.trace[0] = '\0';
	rig_begin();
	assert_true(fake_traced("open:rw serve:rw tcp serve:ro "));
	assert_int_equal(rig_deactivate("3"), 0);
	assert_int_equal(rig_detach("u0_b"), 0);
}

static void put_map(void)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/map", rig_dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fclose(f);
}

static bool has_map(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/map", rig_dir);
	return access(path, F_OK) == 0;
}

static void a_map_that_no_operation_needs_goes(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("1", false), 0);
	rig_stop();
	put_map();
	assert_true(vdi_is_needed(rig_dir)); /* there will be a successor: it decides */
	assert_true(has_map());
	rig_begin();
	assert_false(has_map());
	assert_int_equal(rig_deactivate("1"), 0);
	assert_int_equal(rig_detach("1"), 0);
	rig_stop();
	put_map();
	assert_false(vdi_is_needed(rig_dir));
	vdi_sweep(rig_dir);
	assert_false(has_map());
	rig_begin();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(every_verb_may_be_repeated),
		RIG_TEST(a_reader_that_starts_to_write_gets_the_disk_opened_anew),
		RIG_TEST(an_upgrade_that_fails_leaves_the_reader_served),
		RIG_TEST(an_activation_that_fails_leaves_nothing_open),
		RIG_TEST(parallel_deactivations_get_one_answer_each),
		RIG_TEST(a_flush_that_fails_is_raised),
		RIG_TEST(who_was_active_is_served_again),
		RIG_TEST(a_map_that_no_operation_needs_goes),
	};

	return rig_group("vdi", tests, ARRAY_LEN(tests));
}
