/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-cbt-log - a log says what was put into it, in the order and the letters that are asked for, and never less
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "cbt/cbt-log.h"

#define B CBT_BLOCK_BYTES

static char dir[] = "/tmp/sxm-cbt.XXXXXX";

static char *in_dir(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static struct cbt_log make(uint64_t bytes)
{
	struct cbt_log l;
	struct error e;

	assert_int_equal(cbt_log_init(&l, bytes, &e), 0);
	return l;
}

static void is_base64(const struct cbt_log *l, uint64_t start, uint64_t end, const char *want)
{
	CLEANUP_FREE char *text = cbt_log_base64(l, (struct range){ start, end });

	assert_string_equal(text, want);
}

static void the_first_block_is_the_most_significant_bit(void **state)
{
	struct cbt_log l = make(24 * B + 1);

	(void)state;
	cbt_log_set(&l, (struct range){ 0, 1 });
	is_base64(&l, 0, 24 * B + 1, "gAAAAA==");
	cbt_log_set(&l, (struct range){ 8 * B - 1, 8 * B + 1 });
	is_base64(&l, 0, 8 * B, "gQ==");
	is_base64(&l, 0, 16 * B, "gYA=");
	is_base64(&l, 0, 24 * B, "gYAA");
	is_base64(&l, B, 9 * B, "Aw==");
	is_base64(&l, 7 * B + 5, 8 * B, "gA==");
	is_base64(&l, 5, 5, "");
	cbt_log_set(&l, (struct range){ 24 * B, 24 * B + 1 });
	is_base64(&l, 0, 24 * B + 1, "gYAAgA==");
	is_base64(&l, 24 * B, 24 * B + 1, "gA==");
	is_base64(&l, 0, 40 * B, "gYAAgAA="); /* what it does not know */
	cbt_log_clear(&l);
}

static void bits_are_set_and_tested_across_words(void **state)
{
	uint64_t words[4] = { 0 };

	(void)state;
	cbt_bits_set(words, 60, 70);
	assert_true(words[0] == UINT64_C(0xf) << 60 && words[1] == 0x3f && !words[2]);
	assert_true(cbt_bits_test_all(words, 60, 70));
	assert_false(cbt_bits_test_all(words, 59, 70));
	assert_false(cbt_bits_test_all(words, 60, 71));
	assert_true(cbt_bits_test_all(words, 64, 64));
	cbt_bits_set(words, 0, 256);
	assert_true(cbt_bits_test_all(words, 0, 256));
}

static void random_ranges(uint64_t bytes, unsigned seed)
{
	CLEANUP_FREE bool *model = calloc(cbt_blocks(bytes), 1);
	struct cbt_log a = make(bytes), b = make(bytes), c;
	struct error e;

	srand(seed);
	for (unsigned i = 0; i < 200; i++) {
		uint64_t start = (uint64_t)rand() % bytes, end = MIN(bytes, start + 1 + (uint64_t)rand() % (3 * MiB));

		cbt_log_set(i % 2 ? &a : &b, (struct range){ start, end });
		for (uint64_t n = start / B; n < cbt_blocks(end); n++)
			model[n] = true;
	}
	assert_int_equal(cbt_log_merge(&a, &b, &e), 0);
	snprintf(a.header.parent, sizeof(a.header.parent), "someone");
	a.header.is_sealed = seed % 2;
	assert_int_equal(cbt_log_store(in_dir("a.cbt"), &a, &e), 0);
	assert_int_equal(cbt_log_load(in_dir("a.cbt"), &c, &e), 0);
	assert_string_equal(c.header.parent, "someone");
	assert_true(c.header.is_sealed == (seed % 2 == 1) && c.header.size_bytes == bytes && c.header.id == a.header.id);
	for (uint64_t n = 0; n < cbt_blocks(bytes); n++)
		assert_int_equal(cbt_bits_test_all(c.bits, n, n + 1), model[n]);
	cbt_log_clear(&a);
	cbt_log_clear(&b);
	cbt_log_clear(&c);
}

static void what_is_stored_is_loaded_of_any_size(void **state)
{
	const uint64_t sizes[] = { 1, B, B + 1, 127 * CBT_REGION_BYTES, 127 * CBT_REGION_BYTES + 1, 5 * GiB + 512, 130 * GiB };

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(sizes); i++)
		random_ranges(sizes[i], i + 1);
}

static void what_is_larger_makes_a_log_larger(void **state)
{
	struct cbt_log small = make(3 * B), large = make(5 * GiB);
	struct error e;

	(void)state;
	cbt_log_set(&small, (struct range){ 2 * B, 3 * B });
	cbt_log_set(&large, (struct range){ 4 * GiB, 4 * GiB + 1 });
	assert_int_equal(cbt_log_merge(&small, &large, &e), 0);
	assert_true(small.header.size_bytes == 5 * GiB && cbt_bits_test_all(small.bits, 2, 3));
	assert_true(cbt_bits_test_all(small.bits, 65536, 65537) && !cbt_bits_test_all(small.bits, 65537, 65538));
	assert_int_equal(cbt_log_grow(&small, 6 * GiB, &e), 0);
	assert_true(cbt_bits_test_all(small.bits, 65536, 65537) && !cbt_bits_test_all(small.bits, 90000, 90001));
	cbt_log_clear(&small);
	cbt_log_clear(&large);
}

static void what_was_not_closed_has_changed_where_it_is_marked(void **state)
{
	struct cbt_log l = make(3 * CBT_REGION_BYTES - 1);

	(void)state;
	l.marks[0] = 1 << 2 | 1;
	cbt_log_settle(&l);
	assert_false(cbt_bits_test_all(l.bits, 0, 1)); /* it was closed: they mean nothing */
	l.marks[0] = 1 << 2 | 1;
	l.header.session = 7;
	cbt_log_settle(&l);
	assert_true(cbt_bits_test_all(l.bits, 0, 256) && cbt_bits_test_all(l.bits, 512, 768));
	assert_false(cbt_bits_test_all(l.bits, 256, 257));
	assert_true(!l.marks[0] && !l.header.session);
	cbt_log_clear(&l);
}

static void a_snapshot_that_was_killed_is_finished_or_undone(void **state)
{
	(void)state;
	for (int is_sealed = 0; is_sealed < 2; is_sealed++) {
		struct cbt_log old = make(MiB), next = make(MiB), l;
		struct error e;

		cbt_log_set(&old, (struct range){ 0, 1 });
		cbt_log_set(&next, (struct range){ B, B + 1 });
		snprintf(old.header.parent, sizeof(old.header.parent), "P");
		snprintf(next.header.parent, sizeof(next.header.parent), "S");
		assert_int_equal(cbt_log_store(in_dir("V.cbt"), &old, &e), 0);
		assert_int_equal(cbt_log_store(in_dir("V.cbt.next"), &next, &e), 0);
		old.header.is_sealed = true;
		if (is_sealed)
			assert_int_equal(cbt_log_store(in_dir("S.cbt"), &old, &e), 0);
		assert_int_equal(cbt_log_take_up(in_dir("V.cbt"), &l, &e), 0);
		assert_string_equal(l.header.parent, is_sealed ? "S" : "P");
		assert_int_equal(cbt_bits_test_all(l.bits, 0, 1), !is_sealed);
		assert_true(cbt_bits_test_all(l.bits, 1, 2));
		assert_int_equal(access(in_dir("V.cbt.next"), F_OK), -1);
		cbt_log_clear(&old);
		cbt_log_clear(&next);
		cbt_log_clear(&l);
		unlink(in_dir("S.cbt"));
		unlink(in_dir("V.cbt"));
	}
}

static void refused(const char *path, int err)
{
	struct cbt_log l;
	struct error e;

	assert_int_equal(cbt_log_load(path, &l, &e), -1);
	assert_int_equal(e.err, err);
}

static void what_is_damaged_is_no_log(void **state)
{
	struct cbt_log l = make(GiB);
	struct error e;

	(void)state;
	refused(in_dir("none.cbt"), ENOENT);
	for (off_t at = 0; at < 120; at++) {
		CLEANUP_CLOSE int fd = -1;
		uint8_t byte;

		assert_int_equal(cbt_log_store(in_dir("d.cbt"), &l, &e), 0);
		fd = open(in_dir("d.cbt"), O_RDWR);
		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		refused(in_dir("d.cbt"), EBADMSG);
	}
	assert_int_equal(cbt_log_store(in_dir("d.cbt"), &l, &e), 0);
	assert_int_equal(truncate(in_dir("d.cbt"), (off_t)cbt_file_bytes(GiB) - 1), 0);
	refused(in_dir("d.cbt"), EBADMSG);
	assert_int_equal(truncate(in_dir("d.cbt"), 100), 0);
	refused(in_dir("d.cbt"), EBADMSG);
	unlink(in_dir("d.cbt"));
	assert_int_equal(symlink("a.cbt", in_dir("d.cbt")), 0);
	refused(in_dir("d.cbt"), EBADMSG);
	unlink(in_dir("d.cbt"));
	cbt_log_clear(&l);
}

static void a_log_is_named_like_its_volume(void **state)
{
	const struct { const char *image, *log; } rows[] = {
		{ "/srv/a.raw", "/srv/a.cbt" }, { "/srv/a.b.qcow2", "/srv/a.b.cbt" }, { "/dev/sda", NULL }, { "/s.r/a", NULL },
		{ "/srv/.raw", NULL }, { "a", NULL },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP_FREE char *path = cbt_log_path_of_image(rows[i].image, CBT_SUFFIX);

		assert_true(rows[i].log ? path && strcmp(path, rows[i].log) == 0 : !path);
	}
}

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	unlink(in_dir("a.cbt"));
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_block_is_the_most_significant_bit),
		cmocka_unit_test(bits_are_set_and_tested_across_words),
		cmocka_unit_test(what_is_stored_is_loaded_of_any_size),
		cmocka_unit_test(what_is_larger_makes_a_log_larger),
		cmocka_unit_test(what_was_not_closed_has_changed_where_it_is_marked),
		cmocka_unit_test(a_snapshot_that_was_killed_is_finished_or_undone),
		cmocka_unit_test(what_is_damaged_is_no_log),
		cmocka_unit_test(a_log_is_named_like_its_volume),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
