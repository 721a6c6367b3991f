/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What falls to each mirror of a host: never more than the limit together, as much as any other, and what one leaves is the others'.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "vdi/budget.h"

#define MIB UINT64_C(1048576)
#define ALL BUDGET_ALL

static void alone_it_is_all(void **state)
{
	(void)state;
	assert_int_equal(budget_share(100 * MIB, (uint64_t[]){ ALL }, 1), 100 * MIB);
	assert_int_equal(budget_share(100 * MIB, (uint64_t[]){ 0 }, 1), 100 * MIB); /* it may begin to want */
}

static void all_who_want_all_get_the_same(void **state)
{
	uint64_t demand[BUDGET_MIRRORS_MAX];

	(void)state;
	for (size_t i = 0; i < BUDGET_MIRRORS_MAX; i++)
		demand[i] = ALL;
	for (size_t n = 1; n <= BUDGET_MIRRORS_MAX; n++)
		assert_int_equal(budget_share(2048 * MIB, demand, n), 2048 * MIB / n);
}

static void what_one_leaves_is_the_others(void **state)
{
	(void)state;
	assert_int_equal(budget_share(100 * MIB, (uint64_t[]){ ALL, 10 * MIB, ALL }, 3), 45 * MIB);
	assert_int_equal(budget_share(100 * MIB, (uint64_t[]){ 0, 0, ALL }, 3), 100 * MIB);
	/* 30 is more than a third, and less than a half of what the first leaves */
	assert_int_equal(budget_share(90 * MIB, (uint64_t[]){ 10 * MIB, 35 * MIB, ALL }, 3), 45 * MIB);
}

static void together_it_is_never_more(void **state)
{
	uint64_t seed = 1, demand[16], level, sum;

	(void)state;
	for (unsigned round = 0; round < 10000; round++) {
		for (size_t i = 0; i < 16; i++) {
			seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
			demand[i] = seed >> 62 ? (seed >> 30) % (20 * MIB) : ALL;
		}
		level = budget_share(100 * MIB, demand, 16);
		sum = 0;
		for (size_t i = 0; i < 16; i++)
			sum += MIN(demand[i], level);
		assert_true(sum <= 100 * MIB);
		assert_true(level >= 100 * MIB / 16);
	}
}

static void nobody_stands_still(void **state)
{
	(void)state;
	assert_true(budget_share(1, (uint64_t[]){ ALL, ALL }, 2) >= 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(alone_it_is_all),
		cmocka_unit_test(all_who_want_all_get_the_same),
		cmocka_unit_test(what_one_leaves_is_the_others),
		cmocka_unit_test(together_it_is_never_more),
		cmocka_unit_test(nobody_stands_still),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
