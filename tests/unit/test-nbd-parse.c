/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What strangers may send: every option's data and every command, as it should be, too short, too long, and with lengths
 * that lie; and the numbers of our answers.
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

#include "nbdsrv/wire-build.h"
#include "nbdsrv/wire-parse.h"
#include "nbdsrv/wire-xsxm.h"

static uint8_t buffer[8192];
static struct bytes_writer w;

static void begin(void)
{
	memset(buffer, 0xee, sizeof(buffer));
	w = bytes_writer(buffer, sizeof(buffer));
}

static void put_text(const char *text)
{
	bytes_put_u32(&w, (uint32_t)strlen(text));
	bytes_put(&w, text, strlen(text));
}

/* Parsers see a copy of exactly so many bytes, so that a sanitizer catches one more. */
static uint8_t *exact(size_t bytes)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);

	assert_non_null(copy);
	memcpy(copy, buffer, bytes);
	return copy;
}

static bool info_of(size_t bytes, struct wire_info *out)
{
	uint8_t *copy = exact(bytes);
	bool is_good = wire_parse_info(copy, bytes, out);

	free(copy);
	return is_good;
}

static bool meta_of(size_t bytes, struct wire_meta *out)
{
	uint8_t *copy = exact(bytes);
	bool is_good = wire_parse_meta(copy, bytes, out);

	free(copy);
	return is_good;
}

static void option_header_is_taken_apart(void **state)
{
	struct wire_option o;

	(void)state;
	begin();
	bytes_put_u64(&w, WIRE_OPTION_MAGIC);
	bytes_put_u32(&w, WIRE_OPT_GO);
	bytes_put_u32(&w, 0xfffffff0u);
	assert_true(wire_parse_option(buffer, &o));
	assert_int_equal(o.type, WIRE_OPT_GO);
	assert_int_equal(o.length, 0xfffffff0u);
	buffer[7] ^= 1;
	assert_false(wire_parse_option(buffer, &o));
}

static void info_knows_what_is_asked_for(void **state)
{
	struct wire_info info;

	(void)state;
	begin();
	put_text("disk");
	bytes_put_u16(&w, 3);
	bytes_put_u16(&w, WIRE_INFO_BLOCK_SIZE);
	bytes_put_u16(&w, 4711);
	bytes_put_u16(&w, WIRE_INFO_NAME);
	assert_true(wire_parse_info(buffer, bytes_written(&w), &info));
	assert_true(wire_text_is(&info.name, "disk"));
	assert_true(info.wants_name && info.wants_block_size);
}

static void info_of_any_other_length_is_refused(void **state)
{
	struct wire_info info;
	size_t right;

	(void)state;
	begin();
	put_text("disk");
	bytes_put_u16(&w, 2);
	bytes_put_u16(&w, WIRE_INFO_BLOCK_SIZE);
	bytes_put_u16(&w, WIRE_INFO_NAME);
	right = bytes_written(&w);
	for (size_t bytes = 0; bytes < right + 5; bytes++)
		assert_int_equal(info_of(bytes, &info), bytes == right);
}

static void info_with_lying_lengths_is_refused(void **state)
{
	static const uint32_t lies[] = { 5, 4097, 0x7fffffff, 0x80000000, 0xfffffffa, 0xffffffff };
	struct wire_info info;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		begin();
		bytes_put_u32(&w, lies[i]);
		bytes_put(&w, "name", 4);
		bytes_put_u16(&w, 0);
		assert_false(info_of(bytes_written(&w), &info));
	}
	begin();
	put_text("");
	bytes_put_u16(&w, 0xffff);
	assert_false(info_of(bytes_written(&w), &info));
}

static void name_may_have_4096_bytes_and_no_more(void **state)
{
	static char name[4098];
	struct wire_info info;

	(void)state;
	memset(name, 'n', 4096);
	begin();
	put_text(name);
	bytes_put_u16(&w, 0);
	assert_true(info_of(bytes_written(&w), &info));
	name[4096] = 'n';
	begin();
	put_text(name);
	bytes_put_u16(&w, 0);
	assert_false(info_of(bytes_written(&w), &info));
}

static void meta_queries_come_one_by_one(void **state)
{
	struct wire_text query;
	struct wire_meta meta;

	(void)state;
	begin();
	put_text("disk");
	bytes_put_u32(&w, 2);
	put_text("base:");
	put_text("");
	assert_true(wire_parse_meta(buffer, bytes_written(&w), &meta));
	assert_true(wire_text_is(&meta.name, "disk"));
	assert_true(wire_next_query(&meta, &query) && wire_text_is(&query, "base:"));
	assert_true(wire_next_query(&meta, &query) && wire_text_is(&query, ""));
	assert_false(wire_next_query(&meta, &query));
}

static void meta_of_any_other_length_is_refused(void **state)
{
	struct wire_meta meta;
	size_t right;

	(void)state;
	begin();
	put_text("d");
	bytes_put_u32(&w, 2);
	put_text("base:allocation");
	put_text("x:y");
	right = bytes_written(&w);
	for (size_t bytes = 0; bytes < right + 5; bytes++)
		assert_int_equal(meta_of(bytes, &meta), bytes == right);
}

static void meta_with_lying_lengths_is_refused(void **state)
{
	struct wire_meta meta;

	(void)state;
	begin();
	put_text("");
	bytes_put_u32(&w, UINT32_MAX);
	put_text("base:allocation");
	assert_false(meta_of(bytes_written(&w), &meta));
	begin();
	put_text("");
	bytes_put_u32(&w, 1);
	bytes_put_u32(&w, UINT32_MAX);
	bytes_put(&w, "base:", 5);
	assert_false(meta_of(bytes_written(&w), &meta));
}

static void request_header_is_taken_apart(void **state)
{
	struct wire_request r;

	(void)state;
	begin();
	bytes_put_u32(&w, WIRE_REQUEST_MAGIC);
	bytes_put_u16(&w, WIRE_FLAG_FUA);
	bytes_put_u16(&w, WIRE_CMD_WRITE);
	bytes_put_u64(&w, UINT64_C(0x1122334455667788));
	bytes_put_u64(&w, UINT64_C(0xfedcba9876543210));
	bytes_put_u32(&w, 4096);
	assert_int_equal(bytes_written(&w), WIRE_REQUEST_BYTES);
	assert_true(wire_parse_request(buffer, &r));
	assert_int_equal(r.flags, WIRE_FLAG_FUA);
	assert_int_equal(r.type, WIRE_CMD_WRITE);
	assert_int_equal(r.cookie, UINT64_C(0x1122334455667788));
	assert_int_equal(r.offset, UINT64_C(0xfedcba9876543210));
	assert_int_equal(r.length, 4096);
	buffer[0] ^= 0x80;
	assert_false(wire_parse_request(buffer, &r));
}

static const struct wire_terms all_terms = {
	.size_bytes = 1 * GiB, .can_trim = true, .can_zero = true, .has_structured = true, .has_contexts = true,
};

static int verdict(const struct wire_terms *terms, unsigned type, unsigned flags, uint64_t offset, uint32_t length)
{
	struct wire_request r = { .type = (uint16_t)type, .flags = (uint16_t)flags, .offset = offset, .length = length };

	return wire_check_request(&r, terms);
}

static void ordinary_commands_pass(void **state)
{
	static const struct {
		unsigned type, flags;
	} good[] = {
		{ WIRE_CMD_READ, 0 }, { WIRE_CMD_READ, WIRE_FLAG_DF }, { WIRE_CMD_READ, WIRE_FLAG_FUA },
		{ WIRE_CMD_WRITE, 0 }, { WIRE_CMD_WRITE, WIRE_FLAG_FUA }, { WIRE_CMD_TRIM, WIRE_FLAG_FUA },
		{ WIRE_CMD_WRITE_ZEROES, WIRE_FLAG_FUA | WIRE_FLAG_NO_HOLE }, { WIRE_CMD_CACHE, 0 },
		{ WIRE_CMD_BLOCK_STATUS, 0 }, { WIRE_CMD_BLOCK_STATUS, WIRE_FLAG_REQ_ONE }, { WIRE_CMD_FLUSH, 0 }, { WIRE_CMD_DISC, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_int_equal(verdict(&all_terms, good[i].type, good[i].flags, GiB - 512, 512), 0);
	assert_int_equal(verdict(&all_terms, WIRE_CMD_FLUSH, 0, 0, 0), 0);
}

static void flags_that_do_not_belong_are_refused(void **state)
{
	struct wire_terms simple = all_terms;

	(void)state;
	simple.has_structured = false;
	assert_int_equal(verdict(&simple, WIRE_CMD_READ, WIRE_FLAG_DF, 0, 512), EINVAL);
	assert_int_equal(verdict(&all_terms, WIRE_CMD_READ, WIRE_FLAG_REQ_ONE, 0, 512), EINVAL);
	assert_int_equal(verdict(&all_terms, WIRE_CMD_WRITE, WIRE_FLAG_DF, 0, 512), EINVAL);
	assert_int_equal(verdict(&all_terms, WIRE_CMD_WRITE_ZEROES, 1 << 4, 0, 512), EINVAL); /* FAST_ZERO is not offered */
	assert_int_equal(verdict(&all_terms, WIRE_CMD_WRITE, 0x8000, 0, 512), EINVAL);
}

static void unknown_and_unoffered_commands_are_refused(void **state)
{
	struct wire_terms poor = { .size_bytes = GiB };

	(void)state;
	assert_int_equal(verdict(&all_terms, 8, 0, 0, 512), EINVAL);
	assert_int_equal(verdict(&all_terms, 0xffff, 0, 0, 512), EINVAL);
	assert_int_equal(verdict(&poor, WIRE_CMD_TRIM, 0, 0, 512), EINVAL);
	assert_int_equal(verdict(&poor, WIRE_CMD_WRITE_ZEROES, 0, 0, 512), EINVAL);
	assert_int_equal(verdict(&poor, WIRE_CMD_BLOCK_STATUS, 0, 0, 512), EINVAL);
}

static void empty_and_outside_ranges_are_refused(void **state)
{
	static const unsigned types[] = { WIRE_CMD_READ, WIRE_CMD_WRITE, WIRE_CMD_TRIM, WIRE_CMD_CACHE, WIRE_CMD_WRITE_ZEROES,
					  WIRE_CMD_BLOCK_STATUS };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		bool is_filling = types[i] == WIRE_CMD_WRITE || types[i] == WIRE_CMD_WRITE_ZEROES;
		int outside = is_filling ? ENOSPC : EINVAL;

		assert_int_equal(verdict(&all_terms, types[i], 0, 0, 0), EINVAL);
		assert_int_equal(verdict(&all_terms, types[i], 0, GiB - 512, 513), outside);
		assert_int_equal(verdict(&all_terms, types[i], 0, GiB, 1), outside);
		assert_int_equal(verdict(&all_terms, types[i], 0, UINT64_MAX, 512), outside);
		assert_int_equal(verdict(&all_terms, types[i], 0, UINT64_MAX - 511, 512), outside);
	}
}

static void payloads_over_32_mib_are_refused(void **state)
{
	struct wire_terms simple = all_terms;

	(void)state;
	simple.has_structured = false;
	assert_int_equal(verdict(&all_terms, WIRE_CMD_READ, 0, 0, WIRE_PAYLOAD_MAX), 0);
	assert_int_equal(verdict(&all_terms, WIRE_CMD_READ, 0, 0, WIRE_PAYLOAD_MAX + 1), EOVERFLOW);
	assert_int_equal(verdict(&simple, WIRE_CMD_READ, 0, 0, WIRE_PAYLOAD_MAX + 1), EINVAL);
	assert_int_equal(verdict(&all_terms, WIRE_CMD_WRITE, 0, 0, WIRE_PAYLOAD_MAX + 1), EINVAL);
	assert_int_equal(verdict(&all_terms, WIRE_CMD_WRITE, 0, 0, UINT32_MAX), EINVAL);
	/* Those without payload may be as long as the disk. */
	assert_int_equal(verdict(&all_terms, WIRE_CMD_WRITE_ZEROES, 0, 0, 1u << 30), 0);
	assert_int_equal(verdict(&all_terms, WIRE_CMD_BLOCK_STATUS, 0, 0, 1u << 30), 0);
}

static void read_only_refuses_all_that_writes(void **state)
{
	struct wire_terms terms = all_terms;

	(void)state;
	terms.is_read_only = true;
	assert_int_equal(verdict(&terms, WIRE_CMD_WRITE, 0, 0, 512), EPERM);
	assert_int_equal(verdict(&terms, WIRE_CMD_TRIM, 0, 0, 512), EPERM);
	assert_int_equal(verdict(&terms, WIRE_CMD_WRITE_ZEROES, 0, 0, 512), EPERM);
	assert_int_equal(verdict(&terms, WIRE_CMD_READ, 0, 0, 512), 0);
	assert_int_equal(verdict(&terms, WIRE_CMD_FLUSH, 0, 0, 0), 0);
}

static void errors_have_the_numbers_of_the_protocol(void **state)
{
	(void)state;
	assert_int_equal(wire_error(EROFS), 1);
	assert_int_equal(wire_error(EIO), 5);
	assert_int_equal(wire_error(ENOMEM), 12);
	assert_int_equal(wire_error(EINVAL), 22);
	assert_int_equal(wire_error(EOPNOTSUPP), 22);
	assert_int_equal(wire_error(EDQUOT), 28);
	assert_int_equal(wire_error(EFBIG), 28);
	assert_int_equal(wire_error(ESHUTDOWN), 108);
	assert_int_equal(wire_error(ETIMEDOUT), 5);
}

static void descriptors_stay_inside_the_request(void **state)
{
	static const uint8_t expected[] = { 0, 0, 2, 0, 0, 0, 0, 0, 0xff, 0xff, 0xfc, 0xff, 0, 0, 0, 3 };
	struct extents x;

	(void)state;
	extents_init(&x, 0);
	assert_int_equal(extents_add(&x, (struct range){ 0, 1024 }, 0), 0);
	assert_int_equal(extents_add(&x, (struct range){ 1024, 8 * GiB }, EXTENT_HOLE | EXTENT_ZERO), 0);
	assert_int_equal(extents_add(&x, (struct range){ 8 * GiB, 9 * GiB }, 0), 0);
	begin();
	/* 512 bytes of data, then the hole up to the end of the longest request there is. */
	assert_int_equal(wire_build_descriptors(&w, &x, (struct range){ 512, 512 + UINT64_C(0xfffffeff) }), 2);
	assert_memory_equal(buffer, expected, sizeof(expected));
	extents_fini(&x);
}

/* --- x-sxm */

static bool xsxm_of(const char *text, struct xsxm_name *out)
{
	uint8_t *copy;
	bool is_good;

	begin();
	bytes_put(&w, text, strlen(text));
	copy = exact(strlen(text));
	is_good = wire_xsxm_parse(&(struct wire_text){ copy, (uint32_t)strlen(text) }, out);
	free(copy);
	return is_good;
}

static void the_name_of_a_link_is_taken_apart(void **state)
{
	char longest[XSXM_NAME_MAX + 1], id[XSXM_MIRROR_MAX];
	struct xsxm_name name;

	(void)state;
	assert_true(xsxm_of("x-sxm:1/5e6f0c3a.1700000000000/7/3", &name));
	assert_int_equal(name.version, 1);
	assert_string_equal(name.mirror, "5e6f0c3a.1700000000000");
	assert_true(name.epoch == 7 && name.generation == 3);
	memset(id, 'a', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	snprintf(longest, sizeof(longest), "x-sxm:99/%s/18446744073709551615/18446744073709551615", id);
	assert_int_equal(strlen(longest), XSXM_NAME_MAX);
	assert_true(xsxm_of(longest, &name));
	assert_true(name.version == 99 && name.epoch == UINT64_MAX && name.generation == UINT64_MAX);
	assert_string_equal(name.mirror, id);
}

static void what_is_not_quite_a_links_name_is_refused(void **state)
{
	static const char *const bad[] = {
		"", "x-sxm:", "x-sxm:1", "x-sxm:1/", "x-sxm:1/m", "x-sxm:1/m/1", "x-sxm:1/m/1/", "x-sxm:1/m/1/1/", "x-sxm:1/m/1/1 ",
		"X-sxm:1/m/1/1", "x-sxm:0/m/1/1", "x-sxm:100/m/1/1", "x-sxm:01/m/1/1", "x-sxm:1/m/0/1", "x-sxm:1/m/1/0", "x-sxm:1/m/1/01",
		"x-sxm:1/m/+1/1", "x-sxm:1/m/-1/1", "x-sxm:1//1/1", "x-sxm:1/.m/1/1", "x-sxm:1/m m/1/1", "x-sxm:1/m\n/1/1", "x-sxm:1/m/1/1/1",
		"x-sxm:1/m/18446744073709551616/1", "x-sxm:1/m/1/99999999999999999999", "x-sxm:1/m/1/184467440737095516150",
		"x-sxm:1/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/1/1", "x-sxm:1/m\xc3\xa4/1/1",
	};
	struct xsxm_name name;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (xsxm_of(bad[i], &name))
			fail_msg("%s was taken", bad[i]);
}

static void a_version_and_the_one_before_it_are_spoken(void **state)
{
	(void)state;
	assert_true(wire_xsxm_speaks(1, 1) && wire_xsxm_speaks(1, 2) && wire_xsxm_speaks(2, 2));
	assert_false(wire_xsxm_speaks(2, 1) || wire_xsxm_speaks(1, 3) || wire_xsxm_speaks(4, 3));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(option_header_is_taken_apart),
		cmocka_unit_test(info_knows_what_is_asked_for),
		cmocka_unit_test(info_of_any_other_length_is_refused),
		cmocka_unit_test(info_with_lying_lengths_is_refused),
		cmocka_unit_test(name_may_have_4096_bytes_and_no_more),
		cmocka_unit_test(meta_queries_come_one_by_one),
		cmocka_unit_test(meta_of_any_other_length_is_refused),
		cmocka_unit_test(meta_with_lying_lengths_is_refused),
		cmocka_unit_test(request_header_is_taken_apart),
		cmocka_unit_test(ordinary_commands_pass),
		cmocka_unit_test(flags_that_do_not_belong_are_refused),
		cmocka_unit_test(unknown_and_unoffered_commands_are_refused),
		cmocka_unit_test(empty_and_outside_ranges_are_refused),
		cmocka_unit_test(payloads_over_32_mib_are_refused),
		cmocka_unit_test(read_only_refuses_all_that_writes),
		cmocka_unit_test(errors_have_the_numbers_of_the_protocol),
		cmocka_unit_test(descriptors_stay_inside_the_request),
		cmocka_unit_test(the_name_of_a_link_is_taken_apart),
		cmocka_unit_test(what_is_not_quite_a_links_name_is_refused),
		cmocka_unit_test(a_version_and_the_one_before_it_are_spoken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
