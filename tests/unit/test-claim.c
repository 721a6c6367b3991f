/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Claims: what overlaps waits in arrival order, what does not never waits, whatever cells the ranges fall into.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "mirror/claim.h"

#define R(first, end_) ((struct range){ (first), (end_) })

static void a_later_claim_waits_behind_an_earlier_one_it_overlaps_granted_or_not(void **state)
{
	struct claim_wake wake = TAILQ_HEAD_INITIALIZER(wake);
	struct claims *t = claims_new();
	struct claim a, b, c;

	(void)state;
	assert_true(claim_take(t, &a, R(0, 8), NULL));
	assert_false(claim_take(t, &b, R(4, 12), NULL));
	assert_false(claim_take(t, &c, R(8, 10), NULL));
	claim_drop(t, &a, &wake);
	assert_ptr_equal(TAILQ_FIRST(&wake), &b);
	assert_null(TAILQ_NEXT(&b, wake));
	claim_drop(t, &b, &wake);
	assert_ptr_equal(TAILQ_LAST(&wake, claim_wake), &c);
	claim_drop(t, &c, &wake);
	assert_int_equal(claims_count(t), 0);
	claims_free(t);
}

static void a_claim_given_up_while_it_waits_lets_those_behind_it_go(void **state)
{
	struct claim_wake wake = TAILQ_HEAD_INITIALIZER(wake);
	struct claims *t = claims_new();
	struct claim a, b, c;

	(void)state;
	assert_true(claim_take(t, &a, R(0, 8), NULL));
	assert_false(claim_take(t, &b, R(4, 12), NULL));
	assert_false(claim_take(t, &c, R(8, 10), NULL));
	claim_drop(t, &b, &wake);
	assert_ptr_equal(TAILQ_FIRST(&wake), &c);
	claim_drop(t, &a, &wake);
	assert_ptr_equal(TAILQ_LAST(&wake, claim_wake), &c);
	claim_drop(t, &c, &wake);
	claims_free(t);
}

static void those_set_free_by_a_wide_claim_come_in_arrival_order(void **state)
{
	struct claim_wake wake = TAILQ_HEAD_INITIALIZER(wake);
	struct claims *t = claims_new();
	struct claim wide, small[64], *c;
	unsigned n = 0;

	(void)state;
	assert_true(claim_take(t, &wide, R(0, 64 * CLAIM_CELL_BYTES), NULL));
	for (unsigned i = 0; i < ARRAY_LEN(small); i++) {
		uint64_t at = (i * 37 % 64) * CLAIM_CELL_BYTES;

		assert_false(claim_take(t, &small[i], R(at, at + 512), NULL));
	}
	claim_drop(t, &wide, &wake);
	TAILQ_FOREACH(c, &wake, wake)
		assert_ptr_equal(c, &small[n++]);
	assert_int_equal(n, ARRAY_LEN(small));
	for (unsigned i = 0; i < ARRAY_LEN(small); i++)
		claim_drop(t, &small[i], &wake);
	claims_free(t);
}

#define MANY 96u
struct model {
	struct claims *t;
	struct claim claim[MANY];
	bool is_granted[MANY];
};

static bool must_wait(const struct model *m, unsigned i)
{
	for (unsigned j = 0; j < MANY; j++)
		if (m->claim[j].is_live && m->claim[j].sequence < m->claim[i].sequence &&
		    range_overlaps(m->claim[j].range, m->claim[i].range))
			return true;
	return false;
}

static bool is_even(const struct claim *c)
{
	return c->sequence % 2 == 0;
}

static bool is_met(const struct model *m, struct range r, bool (*counts)(const struct claim *c))
{
	for (unsigned j = 0; j < MANY; j++)
		if (m->claim[j].is_live && range_overlaps(m->claim[j].range, r) && (!counts || counts(&m->claim[j])))
			return true;
	return false;
}

/* Short ones around cells' borders, wide ones, and some longer than the table. */
static struct range random_range(void)
{
	static const uint64_t lengths[] = { 512, 4096, 200000, CLAIM_CELL_BYTES, 3 * CLAIM_CELL_BYTES, 700 * CLAIM_CELL_BYTES };
	static const uint64_t places[] = { 4, 600, 600 * 512 };
	uint64_t cell = (uint64_t)random() % places[random() % 3], at = cell * CLAIM_CELL_BYTES + (uint64_t)(random() % 9) * 32768;

	return R(at, at + lengths[random() % 6]);
}

static void drop(struct model *m, unsigned i)
{
	struct claim_wake wake = TAILQ_HEAD_INITIALIZER(wake);
	uint64_t last = 0;
	struct claim *c;

	claim_drop(m->t, &m->claim[i], &wake);
	TAILQ_FOREACH(c, &wake, wake) {
		unsigned k = (unsigned)(c - m->claim);

		assert_true(c->sequence > last);
		assert_false(m->is_granted[k]);
		m->is_granted[k] = true;
		last = c->sequence;
	}
}

static void who_is_granted_is_who_overlaps_no_earlier_claim(void **state)
{
	static struct model m;
	struct range asked;

	(void)state;
	srandom(7);
	m.t = claims_new();
	for (unsigned n = 0; n < 20000; n++) {
		unsigned i = (unsigned)random() % MANY;

		if (m.claim[i].is_live)
			drop(&m, i);
		else
			m.is_granted[i] = claim_take(m.t, &m.claim[i], random_range(), NULL);
		asked = random_range();
		assert_int_equal(claims_overlap(m.t, asked, NULL), is_met(&m, asked, NULL));
		assert_int_equal(claims_overlap(m.t, asked, is_even), is_met(&m, asked, is_even));
		for (unsigned j = 0; j < MANY; j++)
			if (m.claim[j].is_live)
				assert_int_equal(m.is_granted[j], !must_wait(&m, j));
	}
	for (unsigned i = 0; i < MANY; i++)
		if (m.claim[i].is_live)
			drop(&m, i);
	claims_free(m.t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_later_claim_waits_behind_an_earlier_one_it_overlaps_granted_or_not),
		cmocka_unit_test(a_claim_given_up_while_it_waits_lets_those_behind_it_go),
		cmocka_unit_test(those_set_free_by_a_wide_claim_come_in_arrival_order),
		cmocka_unit_test(who_is_granted_is_who_overlaps_no_earlier_claim),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
