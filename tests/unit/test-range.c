/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Half-open ranges: empty ones, neighbours that do not overlap, and numbers at the end of what 64 bits hold.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/range.h"

static struct range make(uint64_t start, uint64_t end)
{
	return (struct range){ start, end };
}

static void assert_range(struct range r, uint64_t start, uint64_t end)
{
	assert_true(r.start == start);
	assert_true(r.end == end);
}

static void a_length_that_overflows_is_refused(void **state)
{
	struct range r = make(1, 2);

	(void)state;
	assert_false(range_from_length(&r, UINT64_MAX, 1));
	assert_false(range_from_length(&r, 1, UINT64_MAX));
	assert_range(r, 1, 2);
	assert_true(range_from_length(&r, UINT64_MAX - 1, 1));
	assert_range(r, UINT64_MAX - 1, UINT64_MAX);
	assert_true(range_from_length(&r, 7, 0));
	assert_true(range_is_empty(r));
	assert_int_equal(range_length(r), 0);
}

static void neighbours_do_not_overlap(void **state)
{
	(void)state;
	assert_false(range_overlaps(make(0, 8), make(8, 16)));
	assert_false(range_overlaps(make(8, 16), make(0, 8)));
	assert_true(range_overlaps(make(0, 9), make(8, 16)));
	assert_true(range_overlaps(make(0, 100), make(40, 41)));
	assert_false(range_overlaps(make(4, 4), make(4, 8)));
}

static void a_range_contains_itself_and_what_is_empty_at_its_edges(void **state)
{
	(void)state;
	assert_true(range_contains(make(4, 8), make(4, 8)));
	assert_true(range_contains(make(4, 8), make(8, 8)));
	assert_false(range_contains(make(4, 8), make(4, 9)));
	assert_false(range_contains(make(4, 8), make(3, 8)));
}

static void ranges_apart_clip_to_nothing(void **state)
{
	(void)state;
	assert_range(range_clip(make(0, 10), make(5, 20)), 5, 10);
	assert_range(range_clip(make(5, 20), make(0, 10)), 5, 10);
	assert_true(range_is_empty(range_clip(make(0, 5), make(5, 9))));
	assert_true(range_is_empty(range_clip(make(7, 9), make(0, 5))));
}

static void widened_contains_and_shrunk_is_contained(void **state)
{
	(void)state;
	srandom(7);
	for (int round = 0; round < 20000; round++) {
		uint64_t align = UINT64_C(1) << random() % 20;
		uint64_t start = (uint64_t)random() << (random() % 20);
		struct range r = make(start, start + (uint64_t)random() % (4 * align));
		struct range wide = range_widen(r, align), inner = range_shrink(r, align);

		assert_true(range_contains(wide, r) && range_is_aligned(wide, align));
		assert_true(r.start - wide.start < align && wide.end - r.end < align);
		if (range_is_empty(inner)) {
			/* No aligned piece fits: the first one that begins inside ends outside. */
			assert_true(range_widen(make(r.start, r.start), align).end + align > r.end);
			continue;
		}
		assert_true(range_contains(r, inner) && range_is_aligned(inner, align));
		assert_true(inner.start - r.start < align && r.end - inner.end < align);
	}
}

static void small_ranges_shrink_to_nothing(void **state)
{
	(void)state;
	assert_true(range_is_empty(range_shrink(make(1, 4096), 4096)));
	assert_true(range_is_empty(range_shrink(make(4095, 4097), 4096)));
	assert_range(range_shrink(make(1, 8193), 4096), 4096, 8192);
	assert_range(range_widen(make(4096, 4097), 4096), 4096, 8192);
	assert_range(range_widen(make(4096, 4096), 4096), 4096, 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_length_that_overflows_is_refused),
		cmocka_unit_test(neighbours_do_not_overlap),
		cmocka_unit_test(a_range_contains_itself_and_what_is_empty_at_its_edges),
		cmocka_unit_test(ranges_apart_clip_to_nothing),
		cmocka_unit_test(widened_contains_and_shrunk_is_contained),
		cmocka_unit_test(small_ranges_shrink_to_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
