/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a mirror remembers over the death of its process: exactly what was written down, and never less than what is owed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mirror/persist-header.h"
#include "tests/unit/persist-rig.h"

#define BOTH (PERSIST_OWING | PERSIST_UNFLUSHED)
#define EVERYTHING "0-1048572"
#define SIZE (GiB - 4 * KiB) /* 64 regions, the last short by a chunk */

static struct persist_rig rig;

static int setup(void **state)
{
	(void)state;
	rig_start(&rig, SIZE);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_stop(&rig);
	return 0;
}

static void set_chunk(uint64_t *bits, uint64_t chunk)
{
	bits[chunk / 64] |= UINT64_C(1) << chunk % 64;
}

/* Vouched for, so that it says what it holds. */
static void begin(void)
{
	rig_new(&rig);
	persist_vouch(rig.p);
}

static void a_new_one_says_that_everything_is_owed(void **state)
{
	struct persist_found found;

	(void)state;
	rig_new(&rig);
	assert_string_equal(rig_owing(&rig, BOTH), EVERYTHING);
	assert_string_equal(rig_marked(&rig), EVERYTHING);
	rig_mark(&rig, 3, 1);
	rig_reopen(&rig, &found); /* it died before it could vouch */
	assert_true(found.has_map && found.is_same_boot && found.has_marks && found.names_match);
	assert_string_equal(rig_owing(&rig, BOTH), EVERYTHING);
	assert_string_equal(rig_marked(&rig), EVERYTHING);
	persist_vouch(rig.p);
	assert_string_equal(rig_owing(&rig, BOTH), "");
	assert_string_equal(rig_marked(&rig), "49152-65536");
}

static void what_was_set_is_there_again(void **state)
{
	struct persist_found found;

	(void)state;
	begin();
	rig_mark(&rig, 3, 2);
	rig_mark(&rig, 63, 1);
	set_chunk(persist_owing(rig.p), 3 * 4096 + 5);
	set_chunk(persist_unflushed(rig.p), 3 * 4096 + 6);
	set_chunk(persist_owing(rig.p), 63 * 4096);
	rig_reopen(&rig, &found);
	assert_true(found.has_map && found.is_same_boot && found.has_marks && found.names_match);
	assert_string_equal(rig_owing(&rig, PERSIST_OWING), "49172-49176 1032192-1032196");
	assert_string_equal(rig_owing(&rig, PERSIST_UNFLUSHED), "49176-49180");
	assert_string_equal(rig_owing(&rig, BOTH), "49172-49180 1032192-1032196");
	assert_string_equal(rig_marked(&rig), "49152-81920 1032192-1048572");
	assert_true(persist_is_marked(rig.p, 4) && persist_has_map(rig.p, 4));
	assert_false(persist_is_marked(rig.p, 5) || persist_has_map(rig.p, 5));
}

static void a_retired_region_is_forgotten_and_can_be_marked_again(void **state)
{
	struct persist_found found;

	(void)state;
	begin();
	rig_mark(&rig, 3, 2);
	persist_retire(rig.p, 3);
	persist_retire(rig.p, 50); /* never marked: nothing */
	assert_false(persist_is_marked(rig.p, 3) || persist_has_map(rig.p, 3));
	rig_reopen(&rig, &found);
	assert_string_equal(rig_marked(&rig), "65536-81920");
	rig_mark(&rig, 3, 1);
	set_chunk(persist_owing(rig.p), 3 * 4096);
	rig_reopen(&rig, &found);
	assert_string_equal(rig_marked(&rig), "49152-81920");
	assert_string_equal(rig_owing(&rig, BOTH), "49152-49156");
}

static uint64_t map_blocks(void)
{
	struct stat st;

	assert_int_equal(stat(rig.map, &st), 0);
	return (uint64_t)st.st_blocks;
}

static void a_page_of_retired_regions_is_given_back(void **state)
{
	uint64_t before;

	(void)state;
	begin();
	rig_mark(&rig, 0, 1);
	before = map_blocks();
	rig_mark(&rig, 8, 8); /* a page of each array */
	assert_true(map_blocks() > before);
	set_chunk(persist_owing(rig.p), 0);
	for (uint64_t r = 8; r < 16; r++)
		persist_retire(rig.p, r);
	rig_mark(&rig, 1, 1); /* takes it along */
	assert_int_equal(map_blocks(), before);
	assert_string_equal(rig_owing(&rig, BOTH), "0-4");
	for (uint64_t r = 8; r < 16; r++)
		assert_false(persist_has_map(rig.p, r));
	persist_retire(rig.p, 1);
	rig_mark(&rig, 9, 1);
	assert_true(map_blocks() > before); /* before anything is stored there */
	set_chunk(persist_owing(rig.p), 9 * 4096);
	assert_string_equal(rig_owing(&rig, BOTH), "0-4 147456-147460");
}

static void borders_of_regions_pages_and_the_disk(void **state)
{
	uint64_t before;

	(void)state;
	begin();
	rig_mark(&rig, 0, 2);
	rig_mark(&rig, 7, 2);
	rig_mark(&rig, 63, 1);
	before = map_blocks();
	set_chunk(persist_owing(rig.p), 0);
	for (uint64_t c = 63; c < 129; c++)
		set_chunk(persist_owing(rig.p), c);
	set_chunk(persist_owing(rig.p), 4095); /* a region's last, the next one's first */
	set_chunk(persist_unflushed(rig.p), 4096);
	set_chunk(persist_owing(rig.p), 8 * 4096 - 1); /* likewise, and a page's */
	set_chunk(persist_owing(rig.p), 8 * 4096);
	set_chunk(persist_owing(rig.p), 9 * 4096 - 1); /* the next region has no memory */
	set_chunk(persist_owing(rig.p), 64 * 4096 - 2); /* the disk's last chunk */
	set_chunk(persist_owing(rig.p), 64 * 4096 - 1); /* after its end */
	assert_string_equal(rig_owing(&rig, BOTH),
			    "0-4 252-516 16380-16388 131068-131076 147452-147456 1048568-1048572");
	assert_int_equal(map_blocks(), before); /* looking made no memory */
}

static void expect_not_there(int err, bool is_map)
{
	struct persist_found found;

	rig_reopen(&rig, &found);
	assert_false(is_map ? found.has_map : found.has_marks);
	assert_true(is_map ? found.has_marks : found.has_map);
	assert_int_equal(is_map ? found.map_reason.err : found.marks_reason.err, err);
	assert_int_equal(found.names_match, err != ESTALE);
	assert_string_equal(is_map ? rig_owing(&rig, BOTH) : rig_marked(&rig), EVERYTHING);
	persist_vouch(rig.p);
	rig_mark(&rig, 3, 1);
}

static void scribble(const char *path, off_t at)
{
	int fd = open(path, O_RDWR);
	char byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

static void a_spoilt_or_truncated_file_is_not_there(void **state)
{
	(void)state;
	begin();
	rig_mark(&rig, 3, 1);
	for (int is_map = 0; is_map < 2; is_map++) {
		const char *path = is_map ? rig.map : rig.marks;
		struct stat st;

		for (off_t at = 0; at < (off_t)PERSIST_HEADER_BYTES; at += 61) {
			rig_close(&rig, PERSIST_KEEP);
			scribble(path, at);
			expect_not_there(EUCLEAN, is_map);
		}
		rig_close(&rig, PERSIST_KEEP);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(truncate(path, st.st_size - 1), 0);
		expect_not_there(EUCLEAN, is_map);
		rig_close(&rig, PERSIST_KEEP);
		assert_int_equal(truncate(path, 100), 0);
		expect_not_there(EUCLEAN, is_map);
		rig_close(&rig, PERSIST_KEEP);
		assert_int_equal(unlink(path), 0);
		expect_not_there(ENOENT, is_map);
	}
}

static void of_another_mirror_volume_content_or_size_is_not_there(void **state)
{
	struct persist_found found;

	(void)state;
	begin();
	rig_mark(&rig, 3, 1);
	for (int i = 0; i < 5; i++) {
		switch (i) {
		case 0: rig.spec.mirror_id = "5e6f0c3a.1700000000001"; break;
		case 1: rig.spec.source_name = "file:///srv/a/disk.ra"; break;
		case 2: rig.spec.target_name = "nbd://10.0.0.2/disk2"; break;
		case 3: rig.spec.content_generation++; break;
		default: rig.spec.size_bytes += 4096; break;
		}
		rig_reopen(&rig, &found);
		assert_false(found.names_match);
		assert_false(found.has_map || found.is_same_boot);
		assert_false(found.has_marks);
		assert_true(strlen(found.map_reason.text) > 0 && strlen(found.marks_reason.text) > 0);
		persist_vouch(rig.p);
		rig_mark(&rig, 3, 1);
	}
}

static void a_map_of_an_earlier_boot_is_worth_nothing(void **state)
{
	struct persist_header h = { .kind = PERSIST_KIND_MAP, .boot_id = "01234567-89ab-cdef-0123-456789abcdef" };
	struct persist_found found;
	uint8_t header[PERSIST_HEADER_BYTES];
	int fd;

	(void)state;
	begin();
	rig_mark(&rig, 3, 1);
	rig_close(&rig, PERSIST_KEEP);
	h.size_bytes = rig.spec.size_bytes;
	h.content_generation = rig.spec.content_generation;
	h.mirror_id = rig.spec.mirror_id;
	h.source_name = rig.spec.source_name;
	h.target_name = rig.spec.target_name;
	assert_int_equal(persist_header_encode(&h, header, NULL), 0);
	fd = open(rig.map, O_RDWR);
	assert_int_equal(pwrite(fd, header, sizeof(header), 0), sizeof(header));
	close(fd);
	rig_reopen(&rig, &found);
	assert_true(found.has_map && found.has_marks && found.names_match);
	assert_false(found.is_same_boot);
	assert_string_equal(rig_owing(&rig, BOTH), EVERYTHING);
	assert_string_equal(rig_marked(&rig), "49152-65536");
	/* marked already, it has memory in the new map, too */
	assert_true(persist_is_marked(rig.p, 3));
	assert_true(persist_has_map(rig.p, 3));
	set_chunk(persist_owing(rig.p), 3 * 4096);
	persist_vouch(rig.p);
	rig_reopen(&rig, &found);
	assert_true(found.is_same_boot);
	assert_string_equal(rig_owing(&rig, BOTH), "49152-49156");
}

/* Killed when the mark was on the medium, and the map did not say so yet. */
static void a_mark_that_the_map_does_not_know_gets_its_bits(void **state)
{
	struct persist_found found;
	char command[256];

	(void)state;
	begin();
	snprintf(command, sizeof(command), "cp %s %s.old", rig.map, rig.map);
	assert_int_equal(system(command), 0);
	rig_mark(&rig, 3, 1);
	rig_close(&rig, PERSIST_KEEP);
	snprintf(command, sizeof(command), "mv %s.old %s", rig.map, rig.map);
	assert_int_equal(system(command), 0);
	rig_reopen(&rig, &found);
	assert_true(found.has_map && found.is_same_boot);
	assert_string_equal(rig_owing(&rig, BOTH), "");
	assert_true(persist_has_map(rig.p, 3));
	set_chunk(persist_owing(rig.p), 3 * 4096);
	rig_reopen(&rig, &found);
	assert_string_equal(rig_owing(&rig, BOTH), "49152-49156");
}

static void what_is_no_plain_file_of_ours_is_not_followed(void **state)
{
	struct persist_found found;
	char target[128];
	struct stat st;

	(void)state;
	begin();
	rig_mark(&rig, 3, 1);
	rig_close(&rig, PERSIST_KEEP);
	snprintf(target, sizeof(target), "%s.target", rig.marks);
	assert_int_equal(rename(rig.marks, target), 0);
	assert_int_equal(symlink(target, rig.marks), 0);
	rig_reopen(&rig, &found);
	assert_false(found.has_marks);
	assert_int_equal(found.marks_reason.err, EPERM);
	assert_int_equal(lstat(rig.marks, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(st.st_mode & 0777, 0600);
	rig_close(&rig, PERSIST_KEEP);
	assert_int_equal(unlink(rig.marks), 0);
	assert_int_equal(mkfifo(rig.marks, 0600), 0);
	rig_reopen(&rig, &found); /* and does not wait for its other end */
	assert_int_equal(found.marks_reason.err, EPERM);
	if (geteuid() != 0)
		return;
	rig_close(&rig, PERSIST_KEEP);
	assert_int_equal(chown(rig.marks, 12345, 12345), 0);
	assert_int_equal(chown(rig.map, 12345, 12345), 0);
	rig_reopen(&rig, &found);
	assert_int_equal(found.marks_reason.err, EPERM);
	assert_int_equal(found.map_reason.err, EPERM);
}

static void unlinked_at_the_end(void **state)
{
	(void)state;
	begin();
	rig_mark(&rig, 3, 1);
	rig_close(&rig, PERSIST_UNLINK);
	assert_int_equal(access(rig.map, F_OK), -1);
	assert_int_equal(access(rig.marks, F_OK), -1);
}

static void names_too_long_and_sizes_too_large_are_refused_and_leave_nothing(void **state)
{
	char name[PERSIST_NAME_MAX + 1];
	struct error e;

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	begin();
	rig_close(&rig, PERSIST_KEEP);
	rig.spec.target_name = name;
	assert_null(persist_new(&rig.spec, &e));
	assert_int_equal(e.err, ENAMETOOLONG);
	assert_int_equal(access(rig.map, F_OK), -1);
	assert_int_equal(access(rig.marks, F_OK), -1);
	name[PERSIST_NAME_MAX - 1] = '\0';
	rig.spec.size_bytes = PERSIST_MAX_BYTES + 1;
	assert_null(persist_new(&rig.spec, &e));
	assert_int_equal(e.err, EFBIG);
	rig.spec.size_bytes = SIZE;
	rig_new(&rig); /* the longest name fits */
}

/* The child is killed right after its mark was done(). */
static void die_marked(void)
{
	struct try t;

	rig.loop = loop_new();
	rig.spec.loop = rig.loop;
	begin();
	try_mark(&rig, &t, 3, 1);
	rig_run(&rig);
	if (t.err || !t.has_map)
		_exit(1);
	set_chunk(persist_owing(rig.p), 3 * 4096 + 1);
	set_chunk(persist_unflushed(rig.p), 3 * 4096 + 2);
	kill(getpid(), SIGKILL);
}

static void a_killed_process_leaves_mark_and_bits(void **state)
{
	struct persist_found found;
	pid_t child = fork();
	int status;

	(void)state;
	if (child == 0) {
		die_marked();
		_exit(1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	rig_reopen(&rig, &found);
	assert_true(found.has_map && found.is_same_boot && found.has_marks);
	assert_string_equal(rig_owing(&rig, PERSIST_OWING), "49156-49160");
	assert_string_equal(rig_owing(&rig, BOTH), "49156-49164");
	assert_string_equal(rig_marked(&rig), "49152-65536");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_new_one_says_that_everything_is_owed, setup, teardown),
		cmocka_unit_test_setup_teardown(what_was_set_is_there_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_retired_region_is_forgotten_and_can_be_marked_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_page_of_retired_regions_is_given_back, setup, teardown),
		cmocka_unit_test_setup_teardown(borders_of_regions_pages_and_the_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(a_spoilt_or_truncated_file_is_not_there, setup, teardown),
		cmocka_unit_test_setup_teardown(of_another_mirror_volume_content_or_size_is_not_there, setup, teardown),
		cmocka_unit_test_setup_teardown(a_map_of_an_earlier_boot_is_worth_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mark_that_the_map_does_not_know_gets_its_bits, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_plain_file_of_ours_is_not_followed, setup, teardown),
		cmocka_unit_test_setup_teardown(unlinked_at_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(names_too_long_and_sizes_too_large_are_refused_and_leave_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_killed_process_leaves_mark_and_bits, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
