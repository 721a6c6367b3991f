/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Fields in network order, and that the first one which does not fit is the end of it: nothing is read or written past the
 * buffer, then or later.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

static const uint8_t wire[15] = { 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32 };

static void fields_are_read_most_significant_byte_first(void **state)
{
	struct bytes_reader r = bytes_reader(wire, sizeof(wire));

	(void)state;
	assert_int_equal(bytes_get_u8(&r), 0x01);
	assert_int_equal(bytes_get_u16(&r), 0x2345);
	assert_int_equal(bytes_get_u32(&r), 0x6789abcd);
	assert_int_equal(bytes_left(&r), 8);
	assert_true(bytes_get_u64(&r) == UINT64_C(0xeffedcba98765432));
	assert_true(bytes_is_exhausted(&r));
}

static void bytes_are_lent_from_the_buffer_itself(void **state)
{
	struct bytes_reader r = bytes_reader(wire, 4);

	(void)state;
	assert_ptr_equal(bytes_get(&r, 3), wire);
	assert_non_null(bytes_get(&r, 0));
	assert_false(bytes_is_exhausted(&r));
	assert_ptr_equal(bytes_get(&r, 1), wire + 3);
	assert_true(bytes_is_exhausted(&r));
}

static void a_read_that_does_not_fit_spoils_the_reader(void **state)
{
	uint8_t *exact = malloc(3); /* a sanitizer sees a fourth */
	struct bytes_reader r;

	(void)state;
	assert_non_null(exact);
	memcpy(exact, wire, 3);
	r = bytes_reader(exact, 3);
	assert_int_equal(bytes_get_u32(&r), 0);
	assert_int_equal(bytes_left(&r), 0);
	assert_int_equal(bytes_get_u8(&r), 0);
	assert_null(bytes_get(&r, 0));
	assert_false(bytes_is_exhausted(&r));
	free(exact);
}

static void a_hostile_length_does_not_wrap(void **state)
{
	struct bytes_reader r = bytes_reader(wire, 8);

	(void)state;
	bytes_get_u8(&r);
	assert_null(bytes_get(&r, SIZE_MAX));
	r = bytes_reader(wire, 8);
	assert_null(bytes_get(&r, SIZE_MAX - 7));
	assert_int_equal(bytes_get_u8(&r), 0);
}

static void nothing_can_be_read_from_nothing(void **state)
{
	struct bytes_reader r = bytes_reader(NULL, 0);

	(void)state;
	assert_true(bytes_is_exhausted(&r));
	assert_int_equal(bytes_get_u8(&r), 0);
	assert_false(bytes_is_exhausted(&r));
}

static void what_was_put_reads_the_same(void **state)
{
	uint8_t out[sizeof(wire)];
	struct bytes_writer w = bytes_writer(out, sizeof(out));

	(void)state;
	bytes_put_u8(&w, 0x01);
	bytes_put_u16(&w, 0x2345);
	bytes_put_u32(&w, 0x6789abcd);
	assert_int_equal(bytes_room(&w), 8);
	bytes_put_u64(&w, UINT64_C(0xeffedcba98765432));
	assert_false(w.is_full);
	assert_int_equal(bytes_written(&w), sizeof(wire));
	assert_memory_equal(out, wire, sizeof(wire));
}

static void zeros_space_and_bytes_go_where_they_belong(void **state)
{
	static const uint8_t wanted[8] = { 7, 7, 0, 0, 0, 0x45, 0x67, 9 };
	uint8_t out[8];
	struct bytes_writer w = bytes_writer(out, sizeof(out));

	(void)state;
	memset(out, 0xee, sizeof(out));
	memset(bytes_put_space(&w, 2), 7, 2);
	bytes_put_zeros(&w, 3);
	bytes_put(&w, wire + 2, 2);
	bytes_put(&w, NULL, 0);
	bytes_put_u8(&w, 9);
	assert_int_equal(bytes_room(&w), 0);
	assert_false(w.is_full);
	assert_memory_equal(out, wanted, sizeof(wanted));
}

static void a_write_that_does_not_fit_spoils_the_writer(void **state)
{
	static const uint8_t wanted[8] = { 1, 2, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee };
	uint8_t out[8];
	struct bytes_writer w = bytes_writer(out, 4);

	(void)state;
	memset(out, 0xee, sizeof(out));
	bytes_put_u16(&w, 0x0102);
	bytes_put_u32(&w, 0x03040506);
	bytes_put_u8(&w, 7);
	assert_null(bytes_put_space(&w, 0));
	bytes_put_zeros(&w, SIZE_MAX);
	assert_true(w.is_full);
	assert_int_equal(bytes_room(&w), 0);
	assert_int_equal(bytes_written(&w), 2);
	assert_memory_equal(out, wanted, sizeof(wanted));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_read_most_significant_byte_first),
		cmocka_unit_test(bytes_are_lent_from_the_buffer_itself),
		cmocka_unit_test(a_read_that_does_not_fit_spoils_the_reader),
		cmocka_unit_test(a_hostile_length_does_not_wrap),
		cmocka_unit_test(nothing_can_be_read_from_nothing),
		cmocka_unit_test(what_was_put_reads_the_same),
		cmocka_unit_test(zeros_space_and_bytes_go_where_they_belong),
		cmocka_unit_test(a_write_that_does_not_fit_spoils_the_writer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
