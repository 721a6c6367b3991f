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
	r.volume = UINT64_MAX - 2;
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

static char *file_of(const char *path)
{
	struct owner o;
	char *name;

	assert_int_equal(owner_load(path, &o, NULL), 0);
	name = strdup(o.file);
	owner_clear(&o);
	return name;
}

static void what_is_no_file_has_its_record_in_the_state_directory(void **state)
{
	char *name = file_of("/dev/null"), expected[80];

	(void)state;
	snprintf(expected, sizeof(expected), "%s/%%2Fdev%%2Fnull.owner", dir);
	assert_string_equal(name, expected);
	free(name);
}

/* Makes the directories of path, and its last part a device. */
static void make_device(const char *path)
{
	struct error e;
	char *parent = strndup(path, (size_t)(strrchr(path, '/') - path));

	assert_int_equal(proc_make_dir(parent, &e), 0);
	assert_int_equal(symlink("/dev/null", path), 0);
	free(parent);
}

static void devices_with_the_same_last_part_have_records_of_their_own(void **state)
{
	static const char *const last[] = { "vg1/x", "vg2/x", "vg2%2Fx", "vg2%252Fx", "vg3-x", "vg3/-x", "vg1/x.owner" };
	char path[128], *name[ARRAY_LEN(last)];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(last); i++) {
		snprintf(path, sizeof(path), "%s/dev/%s", dir, last[i]);
		make_device(path);
		name[i] = file_of(path);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(name[i], name[j]);
	}
	for (size_t i = 0; i < ARRAY_LEN(last); i++)
		free(name[i]);
}

/* Each entry of a directory has at most 255 bytes, and a record's temporary has to fit, too. */
static void a_long_path_has_a_record_that_can_be_written(void **state)
{
	char path[1000], *name, *other;

	(void)state;
	for (size_t bytes = 150; bytes < 900; bytes += bytes % 100 ? 1 : 2) { /* no // */
		size_t n = (size_t)snprintf(path, sizeof(path), "%s/dev", dir);

		for (; n < bytes; n++)
			path[n] = n % 100 ? 'y' : '/';
		snprintf(path + n, sizeof(path) - n, "/x");
		make_device(path);
		name = file_of(path);
		assert_int_equal(proc_replace_file(name, "{}", 2, 0600, NULL), 0);
		path[n + 1] = 'z';
		make_device(path);
		other = file_of(path);
		assert_string_not_equal(name, other);
		free(name);
		free(other);
	}
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
		cmocka_unit_test(devices_with_the_same_last_part_have_records_of_their_own),
		cmocka_unit_test(a_long_path_has_a_record_that_can_be_written),
	};

	if (!mkdtemp(dir))
		return 1;
	setenv("SXM_STATE_DIR", dir, 1);
	snprintf(image, sizeof(image), "%s/image.raw", dir);
	snprintf(file, sizeof(file), "%s.owner", image);
	return cmocka_run_group_tests(tests, NULL, remove_dir);
}
