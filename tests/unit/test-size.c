/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Sizes as people write them, and what is not a size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/size.h"

static void sizes_are_powers_of_1024(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = { { "0", 0 }, { "4096", 4096 }, { "64K", 64 * KiB }, { "64KiB", 64 * KiB }, { "64kb", 64 * KiB },
		     { "1.5GiB", GiB + 512 * MiB }, { "2T", 2 * TiB }, { "512B", 512 },
		     { "9223372036854775807", INT64_MAX }, { "9007199254740993B", UINT64_C(9007199254740993) },
		     { "9007199254740991K", UINT64_C(9007199254740991) * KiB }, { "7E", UINT64_C(7) << 60 },
		     { "0.5K", 512 }, { "1.", 1 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		uint64_t bytes = 1;

		assert_true(size_parse(good[i].text, &bytes));
		assert_int_equal(bytes, good[i].bytes);
	}
}

static void what_is_not_a_size_is_refused(void **state)
{
	static const char *const bad[] = { "", "-1", "+1", " 1", "1 K", "K", "0x10", "1e3", "inf", "nan", "1Q", "1KiBs", "8E",
					   "8192P", "9007199254740992K", "7.9999999999999999E", "1e3K", "1.5e3K", ".5K", "1..5",
					   "9223372036854775808", "99999999999999999999", "1.2.3" };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		uint64_t bytes = 7;

		if (size_parse(bad[i], &bytes))
			fail_msg("\"%s\" was taken for a size", bad[i]);
		assert_int_equal(bytes, 7);
	}
}

static void sizes_read_well(void **state)
{
	char text[SIZE_TEXT_MAX];

	(void)state;
	assert_string_equal(size_format(0, text), "0 B");
	assert_string_equal(size_format(1023, text), "1023 B");
	assert_string_equal(size_format(1536, text), "1.5 KiB");
	assert_string_equal(size_format(MiB - 1, text), "1.0 MiB");
	assert_string_equal(size_format(MiB - 60 * KiB, text), "964.0 KiB");
	assert_string_equal(size_format(2 * TiB, text), "2.0 TiB");
	assert_string_equal(size_format(UINT64_MAX, text), "16.0 EiB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_powers_of_1024),
		cmocka_unit_test(what_is_not_a_size_is_refused),
		cmocka_unit_test(sizes_read_well),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
