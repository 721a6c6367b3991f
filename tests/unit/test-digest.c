/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The digest: the same whatever the order, another for whatever was lost, doubled, torn or misplaced; and the very numbers of
 * PROTOCOL.x-sxm, so that another version, or another machine's byte order, comes to the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "block/digest.h"

static uint8_t block[4096];

static void fill(uint8_t seed)
{
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)(i * 7 + seed);
}

/* One-shot XXH3 over header and bytes laid out in one buffer gave these. */
static void the_numbers_are_the_protocols(void **state)
{
	struct digest d;

	(void)state;
	fill(0);
	digest_reset(&d);
	digest_add(&d, DIGEST_WRITE, 4096, sizeof(block), block);
	assert_true(d.high == UINT64_C(0xfb0547fcbc33ef4c) && d.low == UINT64_C(0xf81bb39d8e25433e));
	digest_reset(&d);
	digest_add(&d, DIGEST_ZERO, UINT64_C(1) << 40, 1u << 20, NULL);
	assert_true(d.high == UINT64_C(0x5247c6ee2c525776) && d.low == UINT64_C(0xa6938b0ac44f23cc));
	assert_int_equal(d.count, 1);
}

static void add_nth(struct digest *d, unsigned n)
{
	fill((uint8_t)n);
	if (n % 3)
		digest_add(d, DIGEST_WRITE, n * 512u, 1 + n * 37 % sizeof(block), block);
	else
		digest_add(d, DIGEST_ZERO, n * 4096u, 4096, NULL);
}

static void the_order_does_not_matter(void **state)
{
	unsigned order[200];
	struct digest a, b, part;

	(void)state;
	digest_reset(&a);
	digest_reset(&b);
	digest_reset(&part);
	for (unsigned i = 0; i < 200; i++) {
		order[i] = i;
		add_nth(&a, i);
	}
	srandom(1);
	for (unsigned i = 199; i > 0; i--) {
		unsigned other = (unsigned)random() % (i + 1), n = order[i];

		order[i] = order[other];
		order[other] = n;
	}
	for (unsigned i = 0; i < 200; i++)
		add_nth(i < 77 ? &b : &part, order[i]);
	assert_false(digest_equal(&a, &b));
	digest_merge(&b, &part);
	assert_true(digest_equal(&a, &b));
}

static void assert_differs(enum digest_kind kind, uint64_t offset, uint64_t length, const struct digest *good)
{
	struct digest d;

	digest_reset(&d);
	digest_add(&d, kind, offset, length, kind == DIGEST_WRITE ? block : NULL);
	assert_false(digest_equal(&d, good));
}

static void whatever_went_wrong_is_seen(void **state)
{
	struct digest good, twice;

	(void)state;
	fill(9);
	digest_reset(&good);
	digest_add(&good, DIGEST_WRITE, 8192, 4096, block);
	assert_differs(DIGEST_WRITE, 8193, 4096, &good);
	assert_differs(DIGEST_WRITE, 8192, 4095, &good);
	assert_differs(DIGEST_ZERO, 8192, 4096, &good);
	block[4095] ^= 1;
	assert_differs(DIGEST_WRITE, 8192, 4096, &good);
	twice = good;
	digest_merge(&twice, &good);
	assert_false(digest_equal(&twice, &good));
	digest_reset(&twice);
	assert_false(digest_equal(&twice, &good));
}

static void the_low_half_carries_into_the_high_one(void **state)
{
	struct digest a = { .high = 1, .low = UINT64_MAX }, b = { .high = UINT64_MAX, .low = 2, .count = 3 };

	(void)state;
	digest_merge(&a, &b);
	assert_true(a.high == 1 && a.low == 1 && a.count == 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_numbers_are_the_protocols),
		cmocka_unit_test(the_order_does_not_matter),
		cmocka_unit_test(whatever_went_wrong_is_seen),
		cmocka_unit_test(the_low_half_carries_into_the_high_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
