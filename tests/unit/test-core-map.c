/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the core knows of chunks: pristine only where it was proved and nothing was sent since, flushed only what the flush
 * covered, and memory for neither nothing nor everything.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "mirror/core-map.h"
#include "mirror/core.h"

#define CHUNK ((uint64_t)CORE_CHUNK_BYTES)
#define CHUNKS(first, end_) ((struct range){ (first) * CHUNK, (end_) * CHUNK })
#define SPAN(first, end_) ((struct core_span){ (first), (end_) })

static struct core_map map;

static int set_up(void **state)
{
	(void)state;
	return core_map_init(&map, 1024 * CHUNK + 512) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	core_map_fini(&map);
	return 0;
}

static void only_whole_chunks_become_pristine(void **state)
{
	(void)state;
	core_map_add_pristine(&map, (struct range){ 1, 3 * CHUNK - 1 });
	assert_false(core_map_is_pristine(&map, SPAN(0, 1)));
	assert_true(core_map_is_pristine(&map, SPAN(1, 2)));
	assert_false(core_map_is_pristine(&map, SPAN(2, 3)));
	core_map_add_pristine(&map, (struct range){ 1024 * CHUNK, 1024 * CHUNK + 512 });
	assert_true(core_map_is_pristine(&map, SPAN(1024, 1025)));
}

static void ranges_in_any_order_join(void **state)
{
	static const unsigned order[] = { 7, 1, 5, 0, 3, 6, 2, 4 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		core_map_add_pristine(&map, CHUNKS(order[i] * 10, order[i] * 10 + 10));
	assert_true(core_map_is_pristine(&map, SPAN(0, 80)));
	assert_false(core_map_is_pristine(&map, SPAN(0, 81)));
	assert_int_equal(map.pristine_count, 1);
}

static void any_set_of_ranges_is_what_was_added(void **state)
{
	bool is_added[1024];

	(void)state;
	memset(is_added, 0, sizeof is_added);
	for (unsigned n = 0, dice = 1; n < 60; n++) {
		unsigned first, count;

		dice = dice * 1103515245 + 12345;
		first = (dice >> 16) % 1000;
		count = 1 + (dice >> 8) % 20;
		core_map_add_pristine(&map, CHUNKS(first, first + count));
		for (unsigned i = first; i < first + count; i++)
			is_added[i] = true;
	}
	for (unsigned i = 0; i < 1024; i++)
		assert_int_equal(core_map_is_pristine(&map, SPAN(i, i + 1)), is_added[i]);
	for (size_t i = 1; i < map.pristine_count; i++)
		assert_true(map.pristine[i - 1].end < map.pristine[i].start);
}

static void what_something_was_enqueued_for_is_pristine_no_more(void **state)
{
	(void)state;
	core_map_add_pristine(&map, CHUNKS(0, 100));
	core_map_enqueued(&map, (struct range){ 10 * CHUNK + 512, 10 * CHUNK + 1024 });
	assert_true(core_map_is_pristine(&map, SPAN(0, 10)));
	assert_false(core_map_is_pristine(&map, SPAN(10, 11)));
	assert_true(core_map_is_pristine(&map, SPAN(11, 100)));
}

static void soiling_an_old_target_costs_no_memory(void **state)
{
	(void)state;
	core_map_enqueued(&map, CHUNKS(0, 1024));
	assert_int_equal(bitmap_count(map.soiled), 0);
}

static void a_good_flush_settles_what_was_there_when_it_began(void **state)
{
	(void)state;
	core_map_enqueued(&map, CHUNKS(0, 1));
	core_map_flush_begins(&map);
	core_map_enqueued(&map, CHUNKS(100, 101));
	core_map_flush_ends(&map, true);
	assert_false(core_map_is_flushed(&map));
	core_map_flush_begins(&map);
	core_map_flush_ends(&map, true);
	assert_true(core_map_is_flushed(&map));
}

static void a_bad_flush_settles_nothing(void **state)
{
	(void)state;
	core_map_enqueued(&map, CHUNKS(0, 1));
	core_map_flush_begins(&map);
	core_map_enqueued(&map, CHUNKS(100, 101));
	core_map_flush_ends(&map, false);
	assert_int_equal(bitmap_count(map.touched), 2);
	assert_int_equal(bitmap_count(map.flushing), 0);
}

static void the_last_chunk_may_be_short(void **state)
{
	struct core_span s = core_map_span(&map, (struct range){ 1024 * CHUNK, 1024 * CHUNK + 512 });
	struct range r = core_map_bytes(&map, s);

	(void)state;
	assert_int_equal(s.first, 1024);
	assert_int_equal(s.end, 1025);
	assert_int_equal(range_length(r), 512);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_whole_chunks_become_pristine),
		TEST(ranges_in_any_order_join),
		TEST(any_set_of_ranges_is_what_was_added),
		TEST(what_something_was_enqueued_for_is_pristine_no_more),
		TEST(soiling_an_old_target_costs_no_memory),
		TEST(a_good_flush_settles_what_was_there_when_it_began),
		TEST(a_bad_flush_settles_nothing),
		TEST(the_last_chunk_may_be_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
