/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The bitmap against a naive one, at random and at the edges of its words; and that a huge one costs nothing until set.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <stdio.h>

#include "base/bitmap.h"

#define BITS 9001

static bool model[BITS];

static uint64_t model_next(uint64_t from, bool wanted)
{
	while (from < BITS && model[from] != wanted)
		from++;
	return from;
}

static uint64_t model_fill(uint64_t first, uint64_t end, bool value)
{
	uint64_t changed = 0;

	for (uint64_t i = first; i < end; i++) {
		changed += model[i] != value;
		model[i] = value;
	}
	return changed;
}

static void agrees_with_a_naive_bitmap(void **state)
{
	struct bitmap *b = bitmap_new(BITS);
	uint64_t count = 0;

	(void)state;
	srandom(42);
	memset(model, 0, sizeof(model));
	for (int round = 0; round < 20000; round++) {
		uint64_t first = (uint64_t)random() % (BITS + 1);
		uint64_t length = (uint64_t)random() % (random() % 4 ? 70 : 5000);
		uint64_t end = MIN(first + length, (uint64_t)BITS);
		uint64_t next = model_next(first, true), next_clear = model_next(first, false);

		assert_int_equal(bitmap_next(b, first), next);
		assert_int_equal(bitmap_next_clear(b, first), next_clear);
		assert_int_equal(bitmap_test_any(b, first, end), first < end && next < end);
		assert_int_equal(bitmap_test_all(b, first, end), first == end || next_clear >= end);
		if (first < BITS)
			assert_int_equal(bitmap_test(b, first), model[first]);
		if (random() % 2) {
			uint64_t changed = bitmap_set(b, first, end);

			assert_int_equal(changed, model_fill(first, end, true));
			count += changed;
		} else {
			uint64_t changed = bitmap_clear(b, first, end);

			assert_int_equal(changed, model_fill(first, end, false));
			count -= changed;
		}
		assert_int_equal(bitmap_count(b), count);
	}
	bitmap_free(b);
}

static void an_empty_bitmap_has_no_next(void **state)
{
	struct bitmap *b = bitmap_new(0);

	(void)state;
	assert_int_equal(bitmap_next(b, 0), 0);
	assert_int_equal(bitmap_next_clear(b, 0), 0);
	assert_true(bitmap_test_all(b, 0, 0));
	assert_false(bitmap_test_any(b, 0, 0));
	assert_int_equal(bitmap_set(b, 0, 0), 0);
	bitmap_free(b);
}

static long resident_pages(void)
{
	long size, resident;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%ld %ld", &size, &resident), 2);
	fclose(f);
	return resident;
}

static void a_huge_bitmap_costs_only_what_is_set(void **state)
{
	const uint64_t bits = UINT64_C(1) << 36; /* 256 TiB in chunks of 4 KiB */
	long before = resident_pages();
	struct bitmap *b = bitmap_new(bits);

	(void)state;
	assert_non_null(b);
	assert_int_equal(bitmap_set(b, bits - 3, bits), 3);
	assert_int_equal(bitmap_set(b, 7, 8), 1);
	assert_int_equal(bitmap_next(b, 0), 7);
	assert_int_equal(bitmap_next(b, 8), bits - 3);
	assert_int_equal(bitmap_clear(b, 0, bits), 4);
	assert_int_equal(bitmap_next(b, 0), bits);
	/* The walk reads the summary's zero pages, which cost page tables only. */
	assert_true((resident_pages() - before) * sysconf(_SC_PAGESIZE) < (long)(4 * MiB));
	bitmap_free(b);
}

static int compare_bits(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Every set bit, found by next(), is the list's next one. */
static void assert_holds(const struct bitmap *b, const uint64_t *bits, size_t count)
{
	uint64_t bit = bitmap_next(b, 0);

	assert_int_equal(bitmap_count(b), count);
	for (size_t i = 0; i < count; i++) {
		assert_true(bit == bits[i]);
		assert_true(bitmap_test(b, bit));
		bit = bitmap_next(b, bit + 1);
	}
	assert_true(bit == bitmap_bits(b));
}

static void a_huge_bitmap_agrees_with_a_sorted_list(void **state)
{
	enum { COUNT = 4000 };
	const uint64_t size = UINT64_C(1) << 36;
	struct bitmap *b = bitmap_new(size);
	uint64_t bits[COUNT];
	size_t kept = 0;

	(void)state;
	srandom(43);
	for (size_t i = 0; i < COUNT;) { /* in clusters of ten, so that words and their neighbours are shared */
		uint64_t far = ((uint64_t)random() << 31 | (uint64_t)random()) % size;

		bits[i] = i % 10 ? (bits[i - 1] + 1 + (uint64_t)random() % 100) % size : far;
		i += bitmap_set(b, bits[i], bits[i] + 1); /* 0: it was there, another one then */
	}
	qsort(bits, COUNT, sizeof(*bits), compare_bits);
	assert_holds(b, bits, COUNT);
	for (size_t i = 0; i < COUNT; i++) {
		if (random() % 2)
			assert_int_equal(bitmap_clear(b, bits[i], bits[i] + 1), 1);
		else
			bits[kept++] = bits[i];
	}
	assert_holds(b, bits, kept);
	bitmap_free(b);
}

static void the_largest_bitmap_there_may_be_costs_nothing_either(void **state)
{
	const uint64_t bits = UINT64_C(1) << 40;
	long before = resident_pages();
	struct bitmap *b = bitmap_new(bits);

	(void)state;
	assert_non_null(b);
	assert_int_equal(bitmap_bits(b), bits);
	assert_int_equal(bitmap_set(b, bits - 1, bits), 1);
	assert_int_equal(bitmap_set(b, bits / 2 - 70, bits / 2 + 70), 140);
	assert_true(bitmap_test_all(b, bits / 2 - 70, bits / 2 + 70));
	assert_true(bitmap_next(b, bits / 2 + 69) == bits / 2 + 69);
	assert_true(bitmap_next_clear(b, bits / 2 - 70) == bits / 2 + 70);
	assert_true(bitmap_next_clear(b, bits - 1) == bits);
	assert_int_equal(bitmap_clear(b, bits / 2, bits / 2 + 100), 70);
	assert_int_equal(bitmap_count(b), 71);
	assert_true((resident_pages() - before) * sysconf(_SC_PAGESIZE) < (long)MiB);
	bitmap_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(agrees_with_a_naive_bitmap),
		cmocka_unit_test(an_empty_bitmap_has_no_next),
		cmocka_unit_test(a_huge_bitmap_costs_only_what_is_set),
		cmocka_unit_test(a_huge_bitmap_agrees_with_a_sorted_list),
		cmocka_unit_test(the_largest_bitmap_there_may_be_costs_nothing_either),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
