/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-order - no two writers fly together of which one writes back bytes that are not its own
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "disk/disk-order.h"

static struct disk_slot slot(uint64_t start, uint64_t end, bool is_exclusive)
{
	return (struct disk_slot){ .touched = { start, end }, .is_exclusive = is_exclusive };
}

static void plain_writes_never_wait_for_each_other(void **state)
{
	struct disk_order o;
	struct disk_slot a = slot(0, 8, false), b = slot(4, 12, false);

	(void)state;
	disk_order_init(&o);
	assert_true(disk_order_enter(&o, &a));
	assert_true(disk_order_enter(&o, &b));
	assert_int_equal(o.exclusive, 0);
}

static void an_exclusive_write_waits_for_a_plain_one_in_flight(void **state)
{
	struct disk_order o;
	struct disk_slot plain = slot(0, 8, false), far = slot(8, 16, false), rmw = slot(0, 8, true);

	(void)state;
	disk_order_init(&o);
	assert_true(disk_order_enter(&o, &plain));
	assert_true(disk_order_enter(&o, &far));
	assert_false(disk_order_enter(&o, &rmw));
	assert_null(disk_order_next(&o));
	disk_order_leave(&o, &plain);
	assert_ptr_equal(disk_order_next(&o), &rmw);
	assert_null(disk_order_next(&o));
}

static void a_plain_write_waits_for_an_exclusive_one_in_flight(void **state)
{
	struct disk_order o;
	struct disk_slot rmw = slot(0, 8, true), plain = slot(0, 16, false), far = slot(8, 16, false);

	(void)state;
	disk_order_init(&o);
	assert_true(disk_order_enter(&o, &rmw));
	assert_false(disk_order_enter(&o, &plain));
	assert_true(disk_order_enter(&o, &far));
	disk_order_leave(&o, &rmw);
	assert_ptr_equal(disk_order_next(&o), &plain);
	assert_int_equal(o.exclusive, 0);
}

static void a_stream_of_writes_does_not_starve_a_waiting_exclusive_one(void **state)
{
	struct disk_order o;
	struct disk_slot first = slot(0, 8, false), rmw = slot(0, 8, true), late = slot(0, 8, false);

	(void)state;
	disk_order_init(&o);
	assert_true(disk_order_enter(&o, &first));
	assert_false(disk_order_enter(&o, &rmw));
	assert_false(disk_order_enter(&o, &late));
	disk_order_leave(&o, &first);
	assert_ptr_equal(disk_order_next(&o), &rmw);
	assert_null(disk_order_next(&o));
	disk_order_leave(&o, &rmw);
	assert_ptr_equal(disk_order_next(&o), &late);
}

/* Random arrivals and landings: the invariant holds at every step, and everybody flies in the end. */
static void nobody_clashes_and_nobody_is_forgotten(void **state)
{
	enum { COUNT = 4000, WIDTH = 24 };
	struct disk_slot *s = calloc(COUNT, sizeof(*s)), *a, *b;
	struct disk_order o;
	unsigned entered = 0, landed = 0;

	(void)state;
	srand(7);
	disk_order_init(&o);
	while (landed < COUNT) {
		if (entered < COUNT && (rand() % 2 || TAILQ_EMPTY(&o.flying))) {
			uint64_t start = (uint64_t)rand() % 64;

			s[entered] = slot(start, start + 1 + (uint64_t)rand() % 8, rand() % 3 == 0);
			disk_order_enter(&o, &s[entered++]);
		} else {
			unsigned skip = (unsigned)rand() % WIDTH;

			a = TAILQ_FIRST(&o.flying);
			assert_non_null(a);
			while (skip-- && TAILQ_NEXT(a, link))
				a = TAILQ_NEXT(a, link);
			disk_order_leave(&o, a);
			landed++;
			while (disk_order_next(&o))
				;
		}
		TAILQ_FOREACH(a, &o.flying, link)
			TAILQ_FOREACH(b, &o.flying, link)
				assert_false(a != b && (a->is_exclusive || b->is_exclusive) &&
					     range_overlaps(a->touched, b->touched));
	}
	assert_true(TAILQ_EMPTY(&o.flying) && TAILQ_EMPTY(&o.waiting));
	assert_int_equal(o.exclusive, 0);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_writes_never_wait_for_each_other),
		cmocka_unit_test(an_exclusive_write_waits_for_a_plain_one_in_flight),
		cmocka_unit_test(a_plain_write_waits_for_an_exclusive_one_in_flight),
		cmocka_unit_test(a_stream_of_writes_does_not_starve_a_waiting_exclusive_one),
		cmocka_unit_test(nobody_clashes_and_nobody_is_forgotten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
