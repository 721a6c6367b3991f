/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Pacing: never more than 20 ms, never fewer than 500 writes a second, not for a burst, not once it is stopped; and the rate,
 * which idleness does not spoil.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mirror/pace.h"

#define MS NS_PER_MS

static const struct pace_view crowded = { .is_promised = true, .fill_percent = 100, .load_percent = 100 };
static const struct pace_view calm = { .is_promised = true };

static uint64_t observe(struct pace *p, uint64_t from_ns, unsigned ms, const struct pace_view *v)
{
	for (unsigned i = 0; i < ms; i++)
		pace_observe(p, from_ns + i * MS, v);
	return from_ns + ms * MS;
}

static struct pace started(void)
{
	struct pace p = { 0 };

	pace_stop(&p, 0);
	return p;
}

static void a_standing_queue_slows_guests_and_a_calm_one_lets_them_go(void **state)
{
	struct pace p = started();
	uint64_t now = observe(&p, 0, 1000, &crowded);

	(void)state;
	pace_delay_us(&p, now);
	assert_int_equal(pace_delay_us(&p, now), PACE_FLOOR_GAP_US);
	assert_true(pace_is_at_limit(&p));
	assert_int_equal(pace_ops(&p), 500);
	now = observe(&p, now, 3000, &calm);
	assert_int_equal(pace_delay_us(&p, now), 0);
	assert_int_equal(pace_reason(&p), PACE_FREE);
	assert_int_equal(pace_ops(&p), 0);
	assert_false(pace_is_at_limit(&p));
}

/* 8000 of its writes are acknowledged a second. */
static uint64_t follow(struct pace *p, uint64_t from_ns, unsigned ms, const struct pace_view *v)
{
	for (unsigned i = 0; i < ms; i++) {
		for (unsigned acks = 0; acks < 8; acks++)
			pace_acked(p, from_ns + i * MS, 4096, MS, true);
		pace_observe(p, from_ns + i * MS, v);
	}
	return from_ns + ms * MS;
}

static uint32_t gap_us(struct pace *p, uint64_t now_ns)
{
	pace_delay_us(p, now_ns);
	return pace_delay_us(p, now_ns);
}

static void a_standing_queue_slows_guests_to_what_the_far_side_takes_and_no_more(void **state)
{
	struct pace_view half = { .is_promised = true, .fill_percent = 50, .load_percent = 50 }, full = half, owing = half;
	struct pace p = started();
	uint64_t now;

	(void)state;
	full.fill_percent = 100;
	owing.debt_percent = 75;
	now = follow(&p, 0, 60, &half);
	assert_in_range(gap_us(&p, now), 118, 132); /* at once */
	now = follow(&p, now + 100 * MS, 1000, &half);
	assert_in_range(gap_us(&p, now), 118, 132); /* and so it stays */
	now = follow(&p, now + 100 * MS, 200, &full);
	assert_in_range(gap_us(&p, now), 145, 165);
	assert_int_equal(pace_reason(&p), PACE_FAR_IS_SLOWER);
	assert_in_range(pace_ops(&p), 6000, 7000);
	now = follow(&p, now + 100 * MS, 200, &owing);
	assert_in_range(gap_us(&p, now), 235, 265);
	assert_int_equal(pace_reason(&p), PACE_DEBT_IS_HIGH);
	assert_false(pace_is_at_limit(&p));
}

static void a_burst_the_queue_swallows_is_not_paced(void **state)
{
	struct pace p = started();
	uint64_t now = 0;

	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		now = observe(&p, now, 15, &crowded);
		now = observe(&p, now, 5, &calm);
		assert_int_equal(pace_delay_us(&p, now), 0);
	}
}

static void no_write_is_held_longer_than_20_ms(void **state)
{
	struct pace p = started();
	uint64_t now = observe(&p, 0, 1000, &crowded);

	(void)state;
	for (unsigned i = 0; i < 1000; i++)
		assert_true(pace_delay_us(&p, now + i * 1000) <= PACE_DELAY_MAX_US);
}

static void five_hundred_writes_a_second_always_pass(void **state)
{
	struct pace p = started();
	uint64_t now = observe(&p, 0, 1000, &crowded), end = now + NS_PER_S;
	unsigned writes = 0;

	(void)state;
	while (now < end) {
		now += 1000 + pace_delay_us(&p, now) * UINT64_C(1000); /* one at a time, each 1 us */
		writes++;
		observe(&p, now, 1, &crowded);
	}
	assert_in_range(writes, 490, 510);
}

static void before_complete_only_a_pass_that_does_not_end_slows_guests(void **state)
{
	struct pace p = started();
	struct pace_view v = { .fill_percent = 100, .owed_bytes = 1000 * MiB };
	uint64_t now = 0;

	(void)state;
	for (unsigned i = 0; i < 100; i++) { /* half of what arrives is progress */
		pace_acked(&p, now, 10 * MiB, MS, true);
		v.owed_bytes -= 5 * MiB;
		now = observe(&p, now, 100, &v);
	}
	assert_int_equal(pace_delay_us(&p, now), 0);
	for (unsigned i = 0; i < 10; i++) { /* nothing is */
		pace_acked(&p, now, 10 * MiB, MS, true);
		now = observe(&p, now, 100, &v);
	}
	pace_delay_us(&p, now);
	assert_true(pace_delay_us(&p, now) > 0);
	assert_int_equal(pace_reason(&p), PACE_PASS_IS_BEHIND);
}

static void once_stopped_nobody_is_held(void **state)
{
	struct pace p = started();
	uint64_t now = observe(&p, 0, 1000, &crowded);

	(void)state;
	pace_stop(&p, now);
	assert_int_equal(pace_delay_us(&p, now), 0);
}

static void the_rate_is_what_arrives_while_there_is_something_to_do(void **state)
{
	struct pace p = started();
	uint64_t now = 0;

	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		pace_busy(&p, now, true);
		now += 100 * MS;
		pace_acked(&p, now, 10 * MiB, 5 * MS, true);
		pace_busy(&p, now, false);
		now += 900 * MS; /* idle */
	}
	assert_in_range(p.rate_bytes, 99 * MiB, 101 * MiB);
	assert_int_equal(pace_latency_ns(&p), 5 * MS);
}

static void little_work_does_not_make_the_far_side_slow(void **state)
{
	struct pace p = started();

	(void)state;
	pace_busy(&p, 0, true);
	pace_acked(&p, 0, 4096, MS, true);
	pace_acked(&p, 100 * MS, 10 * MiB, MS, true);
	for (unsigned i = 2; i < 50; i++)
		pace_acked(&p, i * 100 * MS, 4096, MS, true);
	assert_in_range(p.rate_bytes, 99 * MiB, 101 * MiB);
	for (unsigned i = 50; i < 100; i++) {
		pace_observe(&p, i * 100 * MS, &crowded);
		pace_acked(&p, i * 100 * MS, MiB, MS, true);
	}
	assert_in_range(p.rate_bytes, 9 * MiB, 11 * MiB);
}

/* 16 answers of a MiB, a millisecond apart, after 50 ms on the way. */
static void a_far_side_that_is_far_away_does_not_look_slow(void **state)
{
	struct pace p = started();

	(void)state;
	pace_busy(&p, 0, true);
	for (unsigned i = 0; i < 16; i++)
		pace_acked(&p, (50 + i) * MS, MiB, (50 + i) * MS, false);
	assert_in_range(p.rate_bytes, 999 * MiB, 1001 * MiB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_standing_queue_slows_guests_and_a_calm_one_lets_them_go),
		cmocka_unit_test(a_standing_queue_slows_guests_to_what_the_far_side_takes_and_no_more),
		cmocka_unit_test(a_burst_the_queue_swallows_is_not_paced),
		cmocka_unit_test(no_write_is_held_longer_than_20_ms),
		cmocka_unit_test(five_hundred_writes_a_second_always_pass),
		cmocka_unit_test(before_complete_only_a_pass_that_does_not_end_slows_guests),
		cmocka_unit_test(once_stopped_nobody_is_held),
		cmocka_unit_test(the_rate_is_what_arrives_while_there_is_something_to_do),
		cmocka_unit_test(little_work_does_not_make_the_far_side_slow),
		cmocka_unit_test(a_far_side_that_is_far_away_does_not_look_slow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
