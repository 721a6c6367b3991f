/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Volumes in a directory: none is lost from sight, whatever its record looks like; nobody else's file becomes one; locks hold
 * through replacement.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/smapi.h"

static char dir[64];
#define RAW(key) (&(struct image) { dir, key, &image_raw })

static int make_dir(void **state UNUSED)
{
	strcpy(dir, "/tmp/sxm-meta.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state UNUSED)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void put(const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void make_volume(const char *key, int64_t bytes)
{
	char text[] = "text", raw[] = "raw";
	struct meta_volume m = { .uuid = text, .name = text, .description = text, .read_write = true, .virtual_size = bytes, .format = raw };
	struct error e = { 0 };

	if (image_create(RAW(key), bytes, &e) == -1 || meta_volume_write(dir, key, &m, &e) == -1)
		fail_msg("%s", e.text);
	image_settle(RAW(key));
}

static void volumes_are_listed_in_order_and_other_files_are_not(void **state UNUSED)
{
	struct jsonspec_list keys, leftovers;
	struct error e;

	make_volume("b", 512);
	make_volume("a", 0);
	put("sxm-sr.json", "{}");
	put("c.raw", "");
	put(".d.raw.new", "");
	put("a.json.77.tmp", "");
	put("readme.txt", "");
	put("a.raw.owner", "{}"); /* a's */
	put("e.raw.owner", "{}"); /* nobody's */
	put("a.raw.owner.77.tmp", "");
	put("a.raw.marks", "");
	put("f.raw.marks", "");
	put("a.raw.marks.78.tmp", "");
	assert_int_equal(meta_list(dir, &keys, &e), 0);
	assert_int_equal(keys.count, 2);
	assert_string_equal(keys.item[0], "a");
	assert_string_equal(keys.item[1], "b");
	meta_list_clear(&keys);
	assert_int_equal(meta_leftovers(dir, &leftovers, &e), 0);
	assert_int_equal(leftovers.count, 7);
	assert_string_equal(leftovers.item[0], ".d.raw.new");
	assert_string_equal(leftovers.item[1], "a.json.77.tmp");
	assert_string_equal(leftovers.item[2], "a.raw.marks.78.tmp");
	assert_string_equal(leftovers.item[3], "a.raw.owner.77.tmp");
	assert_string_equal(leftovers.item[4], "c.raw");
	assert_string_equal(leftovers.item[5], "e.raw.owner");
	assert_string_equal(leftovers.item[6], "f.raw.marks");
	meta_list_clear(&leftovers);
}

static void exists(const char *name, bool is_there)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	if ((access(path, F_OK) == 0) != is_there)
		fail_msg("%s should %sbe there", name, is_there ? "" : "not ");
}

static void make_old(const char *name)
{
	const struct timespec times[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void what_a_killed_verb_left_is_swept_and_nothing_else(void **state UNUSED)
{
	CLEANUP_FREE char *lock_path = meta_sr_lock_path(dir);
	struct error e;
	int lock;

	make_volume("a", 512);
	assert_int_equal(image_create(RAW("b"), 512, &e), 0); /* killed before its record */
	put("c.raw", "somebody's");
	put("c.json.77.tmp", "{");
	put("d.json.77.tmp", "{");
	make_old("d.json.77.tmp");
	put("x.json.raw", "somebody's");
	make_old("x.json.raw");
	assert_int_equal(image_create(RAW("e"), 512, &e), 0);
	put("e.json", "{}"); /* killed after it */
	put(".f.raw.new", "");
	lock = lock_make(lock_path, LOCK_SHARED, &e);
	meta_sweep(dir); /* somebody makes a volume just now */
	exists(".b.raw.new", true);
	close(lock);
	meta_sweep(dir);
	exists("a.raw", true);
	exists("b.raw", false);
	exists(".b.raw.new", false);
	exists("c.raw", true);
	exists("c.json.77.tmp", true);
	exists("d.json.77.tmp", false);
	exists("x.json.raw", true);
	exists("e.raw", true);
	exists(".e.raw.new", false);
	exists(".f.raw.new", false);
}

static void with_its_SR_goes_what_is_half_written_however_new(void **state UNUSED)
{
	static const char *const ours[] = { "sxm-sr.json", "sxm-sr.json.AbCdEf.tmp", "v.json.AbCdEf.tmp", "v.cbt.AbCdEf.tmp", "sxm-sr.lock",
					    "sxm-sr.group.0a0b0c0d-1111-2222-3333-444455550000.AbCdEf.tmp", ".sxm-sr.listing",
					    "sxm-sr.chains", "sxm-sr.coalesce" };
	static const char *const not_ours[] = { "notes.tmp", "v.raw", "v.json.damaged" };
	struct error e;

	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		put(ours[i], "");
	for (size_t i = 0; i < ARRAY_LEN(not_ours); i++)
		put(not_ours[i], "");
	assert_int_equal(meta_sr_remove(dir, &e), 0);
	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		exists(ours[i], false);
	for (size_t i = 0; i < ARRAY_LEN(not_ours); i++)
		exists(not_ours[i], true);
}

static void a_directory_that_cannot_be_read_is_not_an_empty_one(void **state UNUSED)
{
	struct jsonspec_list keys;
	struct error e;

	assert_int_equal(meta_list("/nowhere/at/all", &keys, &e), -1);
	assert_int_equal(e.err, ENOENT);
}

static void a_volume_with_a_damaged_record_is_still_shown(void **state UNUSED)
{
	static const char *const damage[] = { "", "{", "{}", "null", "{\"uuid\":1}", "\xff\xfe" };
	struct types_volume v;
	struct error e;

	make_volume("k", 4096);
	for (size_t i = 0; i < ARRAY_LEN(damage); i++) {
		put("k.json", damage[i]);
		assert_int_equal(volume_describe(dir, "k", &v, &e), 0);
		assert_string_equal(v.key, "k");
		assert_string_equal(v.uuid, "k");
		assert_int_equal(v.virtual_size, 4096);
		assert_string_equal(jsonspec_map_get(&v.keys, "content_id"), "k");
		jsonspec_clear(&types_volume, &v);
	}
}

static void a_volume_without_its_image_is_still_shown_with_its_size(void **state UNUSED)
{
	struct types_volume v;
	struct error e;

	make_volume("k", 4096);
	assert_int_equal(image_unlink(RAW("k"), &e), 0);
	assert_int_equal(volume_describe(dir, "k", &v, &e), 0);
	assert_int_equal(v.virtual_size, 4096);
	assert_int_equal(v.physical_utilisation, 0);
	jsonspec_clear(&types_volume, &v);
}

static void somebody_elses_json_is_no_volume(void **state UNUSED)
{
	struct types_volume v;
	struct error e;

	put("package.json", "{\"name\":\"something else\"}");
	assert_int_equal(volume_describe(dir, "package", &v, &e), 1);
	assert_int_equal(volume_describe(dir, "nothing", &v, &e), 1);
}

static void a_damaged_record_is_kept_when_a_new_one_replaces_it(void **state UNUSED)
{
	char path[128];
	CLEANUP_FREE char *kept = NULL;
	struct error e;
	size_t bytes;

	put("k.json", "{damaged");
	make_volume("k", 512);
	snprintf(path, sizeof(path), "%s/k.json.damaged", dir);
	kept = proc_read_file(path, 100, &bytes, &e);
	assert_string_equal(kept, "{damaged");
}

static void sizes_are_rounded_up_and_absurd_ones_refused(void **state UNUSED)
{
	struct error e;
	int64_t r;

	assert_int_equal(image_round(0, &r, &e), 0);
	assert_int_equal(r, 0);
	assert_int_equal(image_round(1, &r, &e), 0);
	assert_int_equal(r, 512);
	assert_int_equal(image_round(512, &r, &e), 0);
	assert_int_equal(r, 512);
	assert_int_equal(image_round(INT64_C(1) << 62, &r, &e), 0);
	assert_int_equal(image_round((INT64_C(1) << 62) + 1, &r, &e), -1);
	assert_int_equal(image_round(INT64_MAX, &r, &e), -1);
	assert_int_equal(image_round(-1, &r, &e), -1);
}

static void an_image_in_use_is_neither_resized_nor_claimed(void **state UNUSED)
{
	CLEANUP_FREE char *path = NULL;
	struct image_info info;
	struct error e;
	int held;

	make_volume("k", 4096);
	path = image_path(RAW("k"));
	held = lock_try(path, &e);
	assert_true(held >= 0);
	assert_int_equal(image_raw.grow(RAW("k"), 8192, &e), -1);
	assert_int_equal(e.err, EBUSY);
	assert_int_equal(image_raw.grow(RAW("k"), 4096, &e), 0); /* a repeated call */
	assert_int_equal(image_claim(RAW("k"), &e), -1);
	assert_int_equal(e.err, EBUSY);
	close(held);
	assert_int_equal(image_raw.grow(RAW("k"), 8192, &e), 0);
	assert_int_equal(image_raw.grow(RAW("k"), 4096, &e), -1);
	assert_int_equal(e.err, ERANGE);
	assert_int_equal(image_look(RAW("k"), &info, &e), 0);
	assert_int_equal(info.virtual_bytes, 8192);
}

/* Each child adds 1 to a number in a file that is replaced by rename, under the file's own lock. */
static void a_lock_holds_through_the_replacement_of_its_file(void **state UNUSED)
{
	enum { CHILDREN = 8, ROUNDS = 50 };
	CLEANUP_FREE char *text = NULL;
	char path[128];
	struct error e;

	put("counter", "0");
	snprintf(path, sizeof(path), "%s/counter", dir);
	for (int i = 0; i < CHILDREN; i++) {
		if (fork())
			continue;
		for (int round = 0; round < ROUNDS; round++) {
			int lock = lock_take(path, LOCK_EXCLUSIVE, &e);
			char *old = lock < 0 ? NULL : proc_read_file(path, 100, NULL, &e);
			char next[32], passing[160];
			FILE *f;

			snprintf(passing, sizeof(passing), "%s.%d", path, getpid());
			f = old ? fopen(passing, "w") : NULL;
			if (!f)
				_exit(1);
			snprintf(next, sizeof(next), "%d", atoi(old) + 1);
			fputs(next, f);
			fclose(f);
			if (rename(passing, path) == -1)
				_exit(1);
			free(old);
			close(lock);
		}
		_exit(0);
	}
	for (int i = 0; i < CHILDREN; i++) {
		int status;

		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	text = proc_read_file(path, 100, NULL, &e);
	assert_int_equal(atoi(text), CHILDREN * ROUNDS);
}

static void a_lock_on_what_is_not_there_is_an_error_and_makes_nothing(void **state UNUSED)
{
	char path[128];
	struct error e;

	snprintf(path, sizeof(path), "%s/nothing", dir);
	assert_int_equal(lock_take(path, LOCK_EXCLUSIVE, &e), -1);
	assert_int_equal(e.err, ENOENT);
	assert_int_equal(access(path, F_OK), -1);
}

#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

static void what_lies_beside_an_image_goes_with_it(void **state UNUSED)
{
	struct error e = { 0 };

	for (int i = 0; i < 2; i++) { /* repeated, with nothing there any more */
		assert_int_equal(i ? 0 : image_create(RAW("a"), 512, &e), 0);
		if (i == 0) {
			put("a.raw.owner", "{}");
			put("a.raw.marks", "");
			put("b.raw.marks", ""); /* another's */
		}
		assert_int_equal(image_unlink(RAW("a"), &e), 0);
	}
	for (const char *const *name = (const char *const[]){ "a.raw", "a.raw.owner", "a.raw.marks", NULL }; *name; name++) {
		char path[256];

		snprintf(path, sizeof(path), "%s/%s", dir, *name);
		assert_int_equal(access(path, F_OK), -1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_DIR(volumes_are_listed_in_order_and_other_files_are_not),
		IN_DIR(with_its_SR_goes_what_is_half_written_however_new),
		IN_DIR(what_a_killed_verb_left_is_swept_and_nothing_else),
		IN_DIR(a_directory_that_cannot_be_read_is_not_an_empty_one),
		IN_DIR(a_volume_with_a_damaged_record_is_still_shown),
		IN_DIR(a_volume_without_its_image_is_still_shown_with_its_size),
		IN_DIR(somebody_elses_json_is_no_volume),
		IN_DIR(a_damaged_record_is_kept_when_a_new_one_replaces_it),
		IN_DIR(sizes_are_rounded_up_and_absurd_ones_refused),
		IN_DIR(an_image_in_use_is_neither_resized_nor_claimed),
		IN_DIR(what_lies_beside_an_image_goes_with_it),
		IN_DIR(a_lock_holds_through_the_replacement_of_its_file),
		IN_DIR(a_lock_on_what_is_not_there_is_an_error_and_makes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
