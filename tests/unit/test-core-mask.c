/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A copy's mask against a plain array, on both sides of each word's end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mirror/core-mask.h"

struct plain {
	bool is_set[CORE_COPY_CHUNKS];
};

static uint64_t dice = 1;

static unsigned below(unsigned end)
{
	dice = dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(dice >> 33) % end;
}

static void fill(struct core_mask *m, struct plain *p, unsigned percent)
{
	*m = (struct core_mask){ 0 };
	for (unsigned i = 0; i < CORE_COPY_CHUNKS; i++) {
		p->is_set[i] = below(100) < percent;
		if (p->is_set[i])
			core_mask_set(m, i);
	}
}

static void assert_same(const struct core_mask *m, const struct plain *p)
{
	unsigned count = 0;

	for (unsigned i = 0; i < CORE_COPY_CHUNKS; i++) {
		assert_int_equal(core_mask_test(m, i), p->is_set[i]);
		count += p->is_set[i];
	}
	assert_int_equal(core_mask_count(m), count);
	assert_int_equal(core_mask_is_empty(m), count == 0);
}

static void bits_come_and_go_one_by_one(void **state)
{
	struct core_mask m = { 0 };
	struct plain p = { 0 };

	(void)state;
	for (unsigned i = 0; i < 4 * CORE_COPY_CHUNKS; i++) {
		unsigned bit = below(CORE_COPY_CHUNKS);

		p.is_set[bit] = !p.is_set[bit];
		if (p.is_set[bit])
			core_mask_set(&m, bit);
		else
			core_mask_clear(&m, bit);
		assert_same(&m, &p);
	}
}

static void the_first_and_the_last_are_found(void **state)
{
	(void)state;
	for (unsigned first = 0; first < CORE_COPY_CHUNKS; first += 1 + first % 7)
		for (unsigned last = first; last < CORE_COPY_CHUNKS; last++) {
			struct core_mask m = { 0 };

			core_mask_set(&m, first);
			core_mask_set(&m, last);
			assert_int_equal(core_mask_first(&m), first);
			assert_int_equal(core_mask_last(&m), last);
		}
}

static void what_is_taken_away_is_away_and_nothing_else(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 500; round++) {
		unsigned first = below(CORE_COPY_CHUNKS), last = first + below(CORE_COPY_CHUNKS - first);
		struct core_mask a, b, without, outside;
		struct plain pa, pb, pw, po;

		fill(&a, &pa, round % 101);
		fill(&b, &pb, 50);
		without = core_mask_without(a, &b);
		outside = core_mask_outside(a, first, last);
		for (unsigned i = 0; i < CORE_COPY_CHUNKS; i++) {
			pw.is_set[i] = pa.is_set[i] && !pb.is_set[i];
			po.is_set[i] = pa.is_set[i] && (i < first || i > last);
		}
		assert_same(&without, &pw);
		assert_same(&outside, &po);
		assert_same(&a, &pa);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bits_come_and_go_one_by_one),
		cmocka_unit_test(the_first_and_the_last_are_found),
		cmocka_unit_test(what_is_taken_away_is_away_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
