/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The file that says whose a disk is: what was written is read again, and what is damaged lets nobody in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/proc.h"
#include "vdi/owner.h"

static char dir[] = "/tmp/sxm-owner-XXXXXX";
static char image[64], file[80];

static void put(const char *text)
{
	assert_int_equal(proc_replace_file(file, text, strlen(text), 0600, NULL), 0);
}

static void a_disk_without_a_file_has_no_past(void **state)
{
	struct commit_record fresh;
	struct owner o;

	(void)state;
	unlink(file);
	commit_record_init(&fresh);
	assert_int_equal(owner_load(image, &o, NULL), 0);
	assert_memory_equal(&o.record, &fresh, sizeof(fresh));
	assert_string_equal(o.file, file);
	assert_int_equal(o.written_s, 0);
	owner_clear(&o);
}

static void what_was_written_is_read_again(void **state)
{
	struct commit_record r;
	struct owner o;
	char *text;

	(void)state;
	commit_record_init(&r);
	r.state = COMMIT_GIVEN;
	r.role = COMMIT_ROLE_SOURCE;
	r.epoch = INT64_MAX;
	r.generation = UINT64_MAX;
	r.since = UINT64_MAX - 1;
	r.was_written = r.is_told = r.is_taken = r.is_unverified = r.is_acknowledged = r.is_raised = r.is_ended = true;
	r.lost_s = 1700000000;
	strcpy(r.mirror, "5e6f.17");
	strcpy(r.group, "g1");
	text = owner_encode(&r);
	put(text);
	free(text);
	assert_int_equal(owner_load(image, &o, NULL), 0);
	assert_memory_equal(&o.record, &r, sizeof(r));
	assert_true(o.written_s > 0);
	owner_clear(&o);
}

static void what_is_damaged_is_not_guessed(void **state)
{
#define REST "\"generation\":\"0\",\"since\":\"0\",\"written\":true}"
	static const char *const bad[] = {
		"", "{", "{}", "[]",
		"{\"state\":\"mine\",\"role\":\"none\",\"epoch\":\"1\",\"mirror\":\"\"," REST,
		"{\"state\":\"owned\",\"role\":\"king\",\"epoch\":\"1\",\"mirror\":\"\"," REST,
		"{\"state\":\"owned\",\"role\":\"none\",\"epoch\":\"0\",\"mirror\":\"\"," REST,
		"{\"state\":\"owned\",\"role\":\"none\",\"epoch\":\"-1\",\"mirror\":\"\"," REST,
		"{\"state\":\"owned\",\"role\":\"none\",\"epoch\":\"1x\",\"mirror\":\"\"," REST,
		"{\"state\":\"owned\",\"role\":\"none\",\"epoch\":\"99999999999999999999\",\"mirror\":\"\"," REST,
		"{\"state\":\"receiving\",\"role\":\"far\",\"epoch\":\"1\",\"mirror\":\"../x\"," REST,
		"{\"state\":\"receiving\",\"role\":\"far\",\"epoch\":\"1\",\"mirror\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"," REST,
	};
	struct error e = { 0 };
	struct owner o;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		put(bad[i]);
		if (owner_load(image, &o, &e) == 0)
			fail_msg("taken: %s", bad[i]);
		assert_int_equal(e.err, EBADMSG);
		assert_non_null(strstr(e.text, file));
		assert_null(o.file);
	}
}

static void what_is_no_file_has_its_record_in_the_state_directory(void **state)
{
	struct owner o;
	char expected[80];

	(void)state;
	snprintf(expected, sizeof(expected), "%s/null.owner", dir);
	assert_int_equal(owner_load("/dev/null", &o, NULL), 0);
	assert_string_equal(o.file, expected);
	owner_clear(&o);
}

static int remove_dir(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) == 0 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_disk_without_a_file_has_no_past),
		cmocka_unit_test(what_was_written_is_read_again),
		cmocka_unit_test(what_is_damaged_is_not_guessed),
		cmocka_unit_test(what_is_no_file_has_its_record_in_the_state_directory),
	};

	if (!mkdtemp(dir))
		return 1;
	setenv("SXM_STATE_DIR", dir, 1);
	snprintf(image, sizeof(image), "%s/image.raw", dir);
	snprintf(file, sizeof(file), "%s.owner", image);
	return cmocka_run_group_tests(tests, NULL, remove_dir);
}
