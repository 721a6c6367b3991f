/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is known of a move when nobody drives it: read as it was written, by one driver at a time, and a disk is in one move.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "migrate/journey.h"

#define TEXT(s) ((char *)(uintptr_t)(s))

static struct journey_disk disk = {
	.name = TEXT("root"), .description = TEXT(""), .uri = TEXT("sxm:///a/k.raw"), .id = TEXT("k-1"), .sr = TEXT("file:///a"),
	.key = TEXT("k"), .domain = TEXT("3"), .size_bytes = 4096, .far_key = TEXT(""), .far_uri = TEXT(""), .far_id = TEXT(""),
	.operation = TEXT(""), .base = TEXT(""), .log = TEXT(""),
};

static struct journey_record record(const char *id, enum journey_step step)
{
	return (struct journey_record) {
		.format = 1, .id = TEXT(id), .step = TEXT(journey_step_name(step)), .why = TEXT(""), .host = TEXT("b"),
			.kind = TEXT(""),
		.user = TEXT(""), .config = TEXT(""), .far_sr = TEXT("file:///b"), .far_domain = TEXT(""),
			.receiver = TEXT("MIR1"),
		.group = TEXT(""), .switchover = TEXT("auto"), .keep_s = 5, .disks = { 1, &disk },
	};
}

static void a_record_is_read_as_it_was_written(void **state UNUSED)
{
	struct journey_record r = record("m0a", JOURNEY_SYNCED), got;
	struct error e;

	assert_int_equal(journey_write(&r, &e), 0);
	assert_int_equal(journey_read("m0a", &got, &e), 0);
	assert_int_equal(journey_step_of(&got), JOURNEY_SYNCED);
	assert_string_equal(((struct journey_disk *)got.disks.item)->uri, disk.uri);
	assert_int_equal(got.keep_s, 5);
	assert_string_equal(got.transport, "ssh"); /* as it is where nothing is said of it */
	assert_string_equal(got.address, "");
	jsonspec_clear(&journey_record_spec, &got);
	journey_forget("m0a");
	assert_int_equal(journey_read("m0a", &got, &e), -1);
	assert_int_equal(e.err, ENOENT);
}

static void what_is_no_record_is_none(void **state UNUSED)
{
	static const char *const texts[] = { "", "{}", "{\"format\":1", "[]" };
	struct journey_record good = record("m0b", JOURNEY_SYNCED), got;
	CLEANUP_FREE char *path = journey_path("m0b", ".json");
	struct error e;

	assert_int_equal(journey_write(&good, &e), 0);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		assert_int_equal(proc_replace_file(path, texts[i], strlen(texts[i]), 0600, &e), 0);
		assert_int_equal(journey_read("m0b", &got, &e), -1);
		assert_non_null(strstr(e.text, "m0b"));
	}
	good.step = TEXT("flying");
	assert_int_equal(journey_write(&good, &e), 0);
	assert_int_equal(journey_read("m0b", &got, &e), -1);
	assert_int_equal(e.err, EBADMSG);
	good.step = TEXT("synced");
	good.format = 2;
	assert_int_equal(journey_write(&good, &e), 0);
	assert_int_equal(journey_read("m0b", &got, &e), -1);
	assert_int_equal(e.err, ENOTSUP);
	assert_int_equal(journey_read("../m0b", &got, &e), -1);
	assert_int_equal(e.err, EINVAL);
	journey_forget("m0b");
}

static void one_drives_it_at_a_time(void **state UNUSED)
{
	struct error e;
	int first = journey_lock("m0c", &e);

	assert_true(first >= 0);
	assert_int_equal(journey_lock("m0c", &e), -1);
	assert_int_equal(e.err, EBUSY);
	close(first);
	first = journey_lock("m0c", &e);
	assert_true(first >= 0);
	close(first);
	journey_forget("m0c");
}

static void a_disk_is_in_one_move_until_that_is_over(void **state UNUSED)
{
	static const enum journey_step over[] = { JOURNEY_DONE, JOURNEY_ABORTED };
	struct journey_record r = record("m0d", JOURNEY_PLANNED);
	struct error e;
	char *found;

	assert_null(journey_of_disk(disk.uri));
	assert_int_equal(journey_write(&r, &e), 0);
	found = journey_of_disk(disk.uri);
	assert_string_equal(found, "m0d");
	free(found);
	assert_null(journey_of_disk("sxm:///a/other.raw"));
	for (size_t i = 0; i < ARRAY_LEN(over); i++) {
		r.step = TEXT(journey_step_name(over[i]));
		assert_int_equal(journey_write(&r, &e), 0);
		assert_null(journey_of_disk(disk.uri));
	}
	journey_forget("m0d");
}

static char dir[] = "/tmp/sxm.XXXXXX";

static int begin(void **state UNUSED)
{
	if (!mkdtemp(dir))
		return -1;
	setenv("SXM_RUN_DIR", dir, 1);
	return setenv("SXM_STATE_DIR", dir, 1);
}

static int end(void **state UNUSED)
{
	CLEANUP_FREE char *journeys = journey_path("", "");

	rmdir(journeys);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_is_read_as_it_was_written), cmocka_unit_test(what_is_no_record_is_none),
		cmocka_unit_test(one_drives_it_at_a_time), cmocka_unit_test(a_disk_is_in_one_move_until_that_is_over),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
