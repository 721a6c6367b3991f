/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A guest's figures have the layout that xcp-rrdd's reader of protocol 2 takes apart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "vdi/figures.h"

#define VM "5e0b8c3d-0000-4000-8000-00000000000a"

static char *metadata;
static uint8_t file[8192];

static const struct figures_sample before = { .read_bytes = 4096, .reads = 1, .read_ns = 100000, .write_bytes = 1 << 20,
					      .writes = 2, .write_ns = 300000, .in_flight = 9 };
static const struct figures_sample now = { .read_bytes = 4096 + (3 << 20), .reads = 4, .read_ns = 700000, .write_bytes = 1 << 20,
					   .writes = 2, .write_ns = 300000, .in_flight = 5 };

static int fill(void **state)
{
	(void)state;
	metadata = figures_metadata(VM, "xvdb");
	if (!metadata || figures_bytes(metadata) > sizeof(file))
		return -1;
	memset(file, 0xee, sizeof(file));
	figures_fill(file, metadata, 1700000000.5, &before, &now);
	return 0;
}

static int drop(void **state)
{
	(void)state;
	free(metadata);
	return 0;
}

static uint64_t u64_at(size_t at)
{
	struct bytes_reader r = bytes_reader(file + at, 8);

	return bytes_get_u64(&r);
}

static uint32_t u32_at(size_t at)
{
	return (uint32_t)(u64_at(at) >> 32);
}

static double double_at(size_t at)
{
	uint64_t bits = u64_at(at);
	double value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static void head_time_and_metadata_are_where_they_are_read(void **state)
{
	size_t values_end = 31 + 8 * 12, bytes = strlen(metadata);

	(void)state;
	assert_memory_equal(file, "DATASOURCES", 11);
	assert_int_equal(u32_at(19), 12);
	assert_true(double_at(23) == 1700000000.5);
	assert_int_equal(u32_at(values_end), bytes);
	assert_memory_equal(file + values_end + 4, metadata, bytes);
	assert_int_equal(figures_bytes(metadata), values_end + 4 + bytes);
	assert_int_equal(file[figures_bytes(metadata)], 0xee);
}

static void values_are_totals_or_what_came_since(void **state)
{
	(void)state;
	assert_int_equal(u64_at(31), 4096 + (3 << 20));  /* read */
	assert_int_equal(u64_at(39), 1 << 20);           /* write */
	assert_int_equal(u64_at(47), 200);               /* read_latency */
	assert_int_equal(u64_at(55), 0);                 /* write_latency: there was none */
	assert_true(double_at(63) == 3.0);               /* io_throughput_read */
	assert_true(double_at(71) == 0.0);
	assert_true(double_at(79) == 3.0);
	assert_int_equal(u64_at(87), 3);                 /* iops_read */
	assert_int_equal(u64_at(95), 0);
	assert_int_equal(u64_at(103), 3);
	assert_true(double_at(111) == 0.0006);           /* iowait */
	assert_int_equal(u64_at(119), 5);                /* inflight */
}

/* The check value of this CRC is that of "123456789"; the other one is of 104 zeros. */
static void both_crcs_are_zlibs(void **state)
{
	static const struct figures_sample none;

	(void)state;
	figures_fill(file, "123456789", 0.0, &none, &none);
	assert_int_equal(u32_at(15), 0xcbf43926u);
	assert_int_equal(u32_at(11), 0xd71f022fu);
}

static void totals_are_read_back_from_the_same_file_only(void **state)
{
	char *other = figures_metadata(VM, "xvdc");
	struct figures_sample found;

	(void)state;
	assert_non_null(other);
	assert_true(figures_read(file, figures_bytes(metadata), metadata, &found));
	assert_int_equal(found.read_bytes, now.read_bytes);
	assert_int_equal(found.write_bytes, now.write_bytes);
	assert_false(figures_read(file, figures_bytes(metadata) - 1, metadata, &found));
	assert_false(figures_read(file, figures_bytes(other), other, &found));
	free(other);
}

static void names_that_would_break_the_metadata_are_not_taken(void **state)
{
	(void)state;
	assert_true(guid_is(VM) && figures_is_device("xvda") && figures_is_device("hda"));
	assert_false(guid_is("5e0b8c3d") || guid_is("5e0b8c3d-0000-4000-8000-0000000000\",") || guid_is(""));
	assert_false(figures_is_device("") || figures_is_device("xvd\"") || figures_is_device("xvd/a") ||
		     figures_is_device("0123456789abcdef"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(head_time_and_metadata_are_where_they_are_read, fill, drop),
		cmocka_unit_test_setup_teardown(values_are_totals_or_what_came_since, fill, drop),
		cmocka_unit_test_setup_teardown(both_crcs_are_zlibs, fill, drop),
		cmocka_unit_test_setup_teardown(totals_are_read_back_from_the_same_file_only, fill, drop),
		cmocka_unit_test(names_that_would_break_the_metadata_are_not_taken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
