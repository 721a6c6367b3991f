/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A connected ring with a guest that is not honest. Tests of what once was a vulnerability somewhere are named for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/lane-rig.h"

/* Of two, 1 and 2: the first. */
static void push_and_see_that_one_fails(void)
{
	push();
	for (unsigned i = 0; i < 20 && *front_word(&front, 8) < 2; i++)
		turn();
	for (unsigned i = 0; i < 2; i++) {
		struct front_response a;

		assert_true(front_take(&front, &a));
		assert_int_equal(a.status, a.id == 1 ? -1 : 0);
	}
}

static void xsa_362_a_page_that_is_not_granted_fails_its_request_alone(void **state)
{
	struct front_request q = front_one(1, 1, 0, DATA, 0, 7);

	(void)state;
	memset(memory_layer_bytes(disk), 7, DISK_BYTES);
	world_page(&world, DATA);
	world_page(&world, DATA + 1);
	q.segments = 3;
	q.segment[1] = (struct front_segment){ DATA + 1, 0, 7 };
	q.segment[2] = (struct front_segment){ 4000000000u, 0, 7 };
	front_put(&front, &q);
	q = front_one(1, 2, 64, DATA, 0, 7);
	front_put(&front, &q);
	push_and_see_that_one_fails();
	assert_int_equal(memory_layer_bytes(disk)[0], 7); /* not even the part of it that was there */
	assert_int_equal(memory_layer_bytes(disk)[64 * 512], 0);
	assert_int_equal(done(front_one(0, 3, 0, 4000000000u, 0, 7)), -1);
}

static void put_segments(unsigned count, uint32_t gref)
{
	for (unsigned i = 0; i < count; i++)
		front_put_segment(world_page(&world, DATA + 40), i, (struct front_segment){ gref, 0, 7 });
}

/* Where its segments are said to be is copied once: what it writes there later changes nothing of a request under way. */
static void xsa_155_an_indirect_page_is_read_once(void **state)
{
	(void)state;
	memset(world_page(&world, DATA), 1, 4096);
	memset(world_page(&world, DATA + 1), 2, 4096);
	put_segments(1, DATA);
	is_slow = true;
	ask(front_indirect(0, 1, 0, DATA + 40, 1));
	for (unsigned i = 0; i < 50 && !held_count; i++)
		turn();
	assert_int_equal(held_count, 1);
	put_segments(512, DATA + 1);
	memset(world_page(&world, DATA + 40), 0xff, 8); /* last: 255 */
	is_slow = false;
	layer_forward(disk, held[--held_count]);
	assert_int_equal(answered(1), 0);
	assert_int_equal(*(uint8_t *)world_page(&world, DATA), 0);
	assert_int_equal(*(uint8_t *)world_page(&world, DATA + 1), 2);
}

static void xsa_362_an_indirect_page_that_is_not_granted_fails_its_request_alone(void **state)
{
	struct front_request q = front_indirect(1, 1, 0, 4000000000u, 32);

	(void)state;
	put_segments(32, DATA);
	memset(world_page(&world, DATA), 7, 4096);
	front_put(&front, &q);
	q = front_indirect(1, 2, 8, DATA + 40, 1);
	front_put(&front, &q);
	push_and_see_that_one_fails();
	assert_int_equal(memory_layer_bytes(disk)[0], 0);
	assert_int_equal(memory_layer_bytes(disk)[4096], 7);
}

/* What its place in the book has of an older request is nobody's. */
static void xsa_362_an_indirect_page_that_is_not_granted_brings_nothing_of_another_request(void **state)
{
	(void)state;
	put_segments(1, DATA);
	memset(world_page(&world, DATA), 7, 4096);
	assert_int_equal(done(front_indirect(1, 1, 0, DATA + 40, 1)), 0);
	memset(memory_layer_bytes(disk), 0, DISK_BYTES);
	assert_int_equal(done(front_indirect(1, 2, 0, 4000000000u, 1)), -1);
	assert_int_equal(memory_layer_bytes(disk)[0], 0);
}

static unsigned fed, heard;

/* Twenty at once, more than it bears, as soon as the last ones were answered: when it has looked, and is about to sleep. */
static void feed(struct loop_poller *p)
{
	struct front_response a;

	(void)p;
	while (front_take(&front, &a)) {
		assert_int_equal(a.status, -1);
		heard++;
	}
	if (heard == fed && fed < 400) {
		for (unsigned i = 0; i < 20; i++, fed++) {
			struct front_request q = front_indirect(1, i, 0, DATA + 40, 4);

			front_put(&front, &q);
		}
		push();
	}
}

static bool has_nothing(struct loop_poller *p)
{
	(void)p;
	return false;
}

/* It is seen only when their segments were copied that they are bad: nothing of it is lost, and the guest is served on. */
static void a_sweep_of_bad_indirect_requests_ends_in_a_rest_and_not_for_good(void **state)
{
	struct loop_poller feeder = { .poll = has_nothing, .sleep = feed };

	(void)state;
	put_segments(4, DATA);
	memset(world_page(&world, DATA + 40), 0xff, 8);
	fed = heard = 0;
	loop_poller_add(loop, &feeder);
	for (unsigned i = 0; i < 500 && heard < 400; i++)
		turn();
	loop_poller_remove(loop, &feeder);
	assert_int_equal(heard, 400);
	world_page(&world, DATA);
	assert_int_equal(done(front_one(1, 1, 0, DATA, 0, 7)), 0);
}

static void xsa_142_a_read_only_device_is_not_written(void **state)
{
	(void)state;
	is_read_only = true;
	end_lane();
	begin_ring(0, false);
	memset(world_page(&world, DATA), 7, 4096);
	assert_int_equal(done(front_one(1, 1, 0, DATA, 0, 7)), -1);
	assert_int_equal(done((struct front_request){ .op = 5, .id = 2, .sector = 0, .sectors = 8 }), -1);
	assert_int_equal(memory_layer_bytes(disk)[0], 0);
	assert_int_equal(done(front_one(0, 3, 0, DATA, 0, 7)), 0);
	is_read_only = false; /* by whom it is served for; the disk is opened so, all the same */
	slow.geometry.is_read_only = true;
	end_lane();
	begin_ring(0, false);
	submitted = 0;
	assert_int_equal(done(front_one(1, 4, 0, DATA, 0, 7)), -1);
	assert_int_equal(submitted, 0);
}

static void xsa_403_a_failed_read_shows_no_byte(void **state)
{
	const uint8_t *page = world_page(&world, DATA);

	(void)state;
	memset(world_page(&world, DATA), 0xee, 4096);
	disk_err = EIO;
	assert_int_equal(done(front_one(0, 1, 0, DATA, 0, 7)), -1);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(page[i], 0xee);
}

/* What it writes to its page while its write is under way is its own affair: here it is one thing, the old or the new. */
static void xsa_229_a_write_is_of_one_moment(void **state)
{
	(void)state;
	memset(world_page(&world, DATA), 1, 4096);
	is_slow = true;
	ask(front_one(1, 1, 0, DATA, 0, 7));
	for (unsigned i = 0; i < 50 && !held_count; i++)
		turn();
	memset(world_page(&world, DATA), 2, 4096);
	is_slow = false;
	layer_forward(disk, held[0]);
	assert_int_equal(answered(1), 0);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(memory_layer_bytes(disk)[i], 1);
}

static void cve_2010_4247_an_absurd_producer_ends_the_ring_and_not_the_process(void **state)
{
	struct front_response a;

	(void)state;
	world_page(&world, DATA);
	is_slow = true;
	ask(front_one(0, 1, 0, DATA, 0, 7));
	for (unsigned i = 0; i < 50 && !held_count; i++)
		turn();
	*front_word(&front, 0) = 0x80000000;
	world_notify(&world, CHANNEL);
	for (unsigned i = 0; i < 5; i++)
		turn();
	is_slow = false;
	layer_forward(disk, held[0]);
	turn();
	assert_true(front_take(&front, &a) && a.id == 1); /* what was good before is answered */
	end_lane();
	begin_ring(0, false);
	assert_int_equal(done(front_one(0, 2, 0, DATA, 0, 7)), 0);
}

static void stop_loop_now(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static unsigned most, before;

static void count_done(struct loop_hook *h)
{
	unsigned now = submitted + (unsigned)stats.errors;

	(void)h;
	most = MAX(most, now - before);
	before = now;
}

/* A guest that always has more, of that operation, and says so all the time, does not keep the loop from others. For how many ms. */
static uint64_t flood(uint8_t op)
{
	struct loop_hook hook = { .run = count_done };
	struct front_response a;
	struct loop_timer *t;
	uint64_t begin_ns = loop_now_ns();

	end_lane();
	begin_ring(4, false);
	submitted = before = most = 0;
	t = loop_timer_new(loop, stop_loop_now, NULL);
	loop_hook_add(loop, &hook);
	while (loop_now_ns() - begin_ns < 20 * NS_PER_MS) {
		while (front.asked - front.heard < 512)
			ask((struct front_request){ .op = op, .id = front.asked });
		world_notify(&world, CHANNEL);
		loop_timer_set(t, 0);
		loop_run(loop);
		while (front_take(&front, &a))
			;
	}
	loop_hook_remove(loop, &hook);
	loop_timer_free(t);
	return (loop_now_ns() - begin_ns) / NS_PER_MS;
}

static void xsa_332_a_sweep_is_bounded(void **state)
{
	uint64_t ms;

	(void)state;
	flood(3);
	assert_in_range(most, 64, 3 * 64); /* an event, a timer and a poller: three of them before the end of a turn */
	for (unsigned i = 0; i < 20; i++)
		turn();
	assert_true(stats.events > 0 && world.shared->masked == 0); /* when it is over the next event is heard */
	ms = flood(7);
	assert_in_range(most, 8, 2 * 8);
	assert_in_range(stats.errors, 8, 8 * (ms + 2)); /* rubbish: it waits for a millisecond after so much of it */
}

static void rubbish_of_every_kind_is_answered_and_harms_nobody(void **state)
{
	struct front_response a;

	(void)state;
	srand(11);
	memset(memory_layer_bytes(disk), 7, DISK_BYTES);
	is_read_only = true;
	end_lane();
	begin_ring(1, true);
	for (unsigned round = 0; round < 300; round++) {
		for (unsigned n = (unsigned)rand() % 8; n && front.asked - front.heard < front.entries; n--) {
			uint8_t *slot = front_slot(&front, front.asked++);

			for (unsigned i = 0; i < 108; i++)
				slot[i] = (uint8_t)(rand() % 4 ? rand() % 12 : rand());
		}
		push();
		turn();
		while (front_take(&front, &a))
			assert_true(a.status <= 0 && a.status >= -2);
	}
	for (unsigned i = 0; i < 2000 && front.asked != front.heard; i++) {
		turn();
		while (front_take(&front, &a))
			;
	}
	assert_int_equal(front.asked, front.heard);
	for (size_t i = 0; i < DISK_BYTES; i++)
		if (memory_layer_bytes(disk)[i] != 7)
			fail_msg("byte %zu of a read-only disk was written", i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LANE_TEST(xsa_362_a_page_that_is_not_granted_fails_its_request_alone),
		LANE_TEST(xsa_155_an_indirect_page_is_read_once),
		LANE_TEST(xsa_362_an_indirect_page_that_is_not_granted_fails_its_request_alone),
		LANE_TEST(xsa_362_an_indirect_page_that_is_not_granted_brings_nothing_of_another_request),
		LANE_TEST(a_sweep_of_bad_indirect_requests_ends_in_a_rest_and_not_for_good),
		LANE_TEST(xsa_142_a_read_only_device_is_not_written),
		LANE_TEST(xsa_403_a_failed_read_shows_no_byte),
		LANE_TEST(xsa_229_a_write_is_of_one_moment),
		LANE_TEST(cve_2010_4247_an_absurd_producer_ends_the_ring_and_not_the_process),
		LANE_TEST(xsa_332_a_sweep_is_bounded),
		LANE_TEST(rubbish_of_every_kind_is_answered_and_harms_nobody),
	};

	setenv("SXM_LOG", "stderr", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
