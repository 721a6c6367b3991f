/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is put into a histogram is found in it, to a quarter.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/histogram.h"

static void a_time_is_below_its_bound_and_not_far(void **state)
{
	(void)state;
	for (uint64_t us = 0; us < UINT64_C(100000000); us += 1 + us / 97) {
		uint64_t bound = histogram_bound_us(histogram_bucket(us));

		assert_true(us < bound);
		assert_true(bound <= us + us / 4 + 1);
	}
}

static void bounds_ascend_and_each_begins_the_next(void **state)
{
	(void)state;
	for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
		assert_true(histogram_bound_us(i) < histogram_bound_us(i + 1));
		assert_int_equal(histogram_bucket(histogram_bound_us(i)), i + 1);
		assert_int_equal(histogram_bucket(histogram_bound_us(i) - 1), i);
	}
}

static void what_takes_for_ever_is_in_the_last_one(void **state)
{
	struct histogram h = { { 0 } };

	(void)state;
	histogram_add(&h, UINT64_MAX);
	histogram_add(&h, UINT64_C(1) << 40);
	assert_int_equal(h.count[HISTOGRAM_BUCKETS - 1], 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_time_is_below_its_bound_and_not_far),
		cmocka_unit_test(bounds_ascend_and_each_begins_the_next),
		cmocka_unit_test(what_takes_for_ever_is_in_the_last_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
