/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A connected ring at work: what a guest writes is what it reads, in batches, with little memory and a disk that fails; and what is
 * under way at the end is ended, or gone on with by who comes next.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/lane-rig.h"

static void what_is_written_is_read(void **state)
{
	(void)state;
	for (int is_32 = 0; is_32 < 2; is_32++)
		for (unsigned order = 0; order <= RING_ORDER_MAX; order++) {
			struct front_request q = { .op = 1, .segments = 11, .id = 3, .sector = 80 };
			uint8_t *bytes = memory_layer_bytes(disk) + 80 * 512;
			size_t at = 0;

			end_lane();
			begin_ring(order, is_32);
			memset(memory_layer_bytes(disk), 0, DISK_BYTES);
			for (unsigned i = 0; i < 11; i++) { /* pieces of pages, one after the other */
				q.segment[i] = (struct front_segment){ DATA + i, (uint8_t)(i % 4), (uint8_t)(4 + i % 4) };
				memset(world_page(&world, DATA + i), (int)(0x40 + i), 4096);
			}
			assert_int_equal(done(q), 0);
			for (unsigned i = 0; i < 11; i++)
				for (unsigned n = 0; n < 5 * 512; n++)
					assert_int_equal(bytes[at++], 0x40 + i);
			assert_int_equal(bytes[at], 0);
			q.op = 0;
			q.id = 4;
			for (unsigned i = 0; i < 11; i++)
				memset(world_page(&world, DATA + i), 0xee, 4096);
			assert_int_equal(done(q), 0);
			for (unsigned i = 0; i < 11; i++) {
				const uint8_t *page = world_page(&world, DATA + i);

				for (unsigned n = 0; n < 4096; n++)
					assert_int_equal(page[n], n / 512 >= i % 4 && n / 512 <= 4 + i % 4 ? 0x40 + i : 0xee);
			}
		}
}

static void fill_indirect(unsigned segments, int first)
{
	for (unsigned i = 0; i < segments; i++) {
		front_put_segment(world_page(&world, DATA + 40), i, (struct front_segment){ DATA + i, (uint8_t)(i % 4), 7 });
		memset(world_page(&world, DATA + i), first < 0 ? 0xee : first + (int)i, 4096);
	}
}

/* ... by requests whose segments are in a page of the guest's. */
static void what_is_written_indirectly_is_read(void **state)
{
	(void)state;
	for (int is_32 = 0; is_32 < 2; is_32++) {
		const uint8_t *bytes = memory_layer_bytes(disk) + 80 * 512;
		size_t at = 0;

		end_lane();
		begin_ring(0, is_32);
		memset(memory_layer_bytes(disk), 0, DISK_BYTES);
		fill_indirect(32, 0x40);
		assert_int_equal(done(front_indirect(1, 3, 80, DATA + 40, 32)), 0);
		for (unsigned i = 0; i < 32; i++)
			for (unsigned n = 0; n < (8 - i % 4) * 512; n++)
				assert_int_equal(bytes[at++], 0x40 + i);
		assert_int_equal(bytes[at], 0);
		fill_indirect(32, -1);
		assert_int_equal(done(front_indirect(0, 4, 80, DATA + 40, 32)), 0);
		for (unsigned i = 0; i < 32; i++)
			for (unsigned n = 0; n < 4096; n++)
				assert_int_equal(((uint8_t *)world_page(&world, DATA + i))[n], n / 512 >= i % 4 ? 0x40 + i : 0xee);
		assert_true(stats.reads == 1 && stats.writes == 1 && stats.bytes_read == at && stats.bytes_written == at);
	}
}

static void flushes_and_discards_reach_the_disk(void **state)
{
	struct front_request q = { .op = 3, .id = 1 };

	(void)state;
	assert_int_equal(done(q), 0);
	assert_int_equal(memory_layer_flushes(disk), 1);
	memset(memory_layer_bytes(disk), 7, DISK_BYTES);
	q = (struct front_request){ .op = 5, .id = 2, .sector = 8, .sectors = 16 };
	assert_int_equal(done(q), 0);
	assert_true(memory_layer_bytes(disk)[4095] == 7 && memory_layer_bytes(disk)[4096] == 0 && memory_layer_bytes(disk)[12288] == 7);
	q.segments = 1; /* secure */
	assert_int_equal(done(q), -2);
	assert_int_equal(memory_layer_bytes(disk)[12288], 7);
	can_discard = false;
	end_lane();
	begin_ring(0, false);
	q.segments = 0;
	assert_int_equal(done(q), -2);
}

static void a_batch_is_one_event_each_way(void **state)
{
	struct front_response a;
	unsigned count = 0;

	(void)state;
	turn();
	stats = (struct vbd_stats){ 0 };
	is_slow = true;
	for (unsigned i = 0; i < 32; i++) {
		struct front_request q = front_one(0, i, i * 8, DATA + i, 0, 7);

		world_page(&world, DATA + i);
		front_put(&front, &q);
	}
	push();
	for (unsigned i = 0; i < 50 && held_count < 32; i++)
		turn();
	assert_int_equal(held_count, 32);
	is_slow = false;
	for (unsigned i = 0; i < 32; i++)
		layer_forward(disk, held[31 - i]);
	turn();
	while (front_take(&front, &a))
		count++;
	assert_int_equal(count, 32);
	assert_in_range(stats.events, 0, 1); /* 0: a poller saw it first */
	assert_int_equal(stats.notifications, 1);
	assert_int_equal(stats.reads, 32);
}

static void a_guest_that_asks_more_than_there_are_buffers_for_is_served_all_the_same(void **state)
{
	struct front_response a;
	unsigned count = 0;

	(void)state;
	end_lane();
	begin_ring(4, false);
	is_slow = true;
	for (unsigned i = 0; i < 512; i++) {
		struct front_request q = { .op = (uint8_t)(i % 2), .segments = 11, .id = i, .sector = i };

		for (unsigned n = 0; n < 11; n++) {
			q.segment[n] = (struct front_segment){ DATA + n, 0, 7 };
			world_page(&world, DATA + n);
		}
		front_put(&front, &q);
	}
	push();
	for (unsigned i = 0; i < 100 && held_count < 100; i++)
		turn();
	assert_in_range(held_count, 100, 128); /* 8 MiB in pieces of 64 KiB */
	assert_in_range(stats.in_flight, held_count, held_count + 64); /* and of the others no more than a sweep was taken */
	assert_true(iobuf_pool_used(pool) <= 8 * MiB);
	is_slow = false;
	while (held_count)
		layer_forward(disk, held[--held_count]);
	for (unsigned i = 0; i < 500 && count < 512; i++) {
		turn();
		while (front_take(&front, &a)) {
			assert_int_equal(a.status, 0);
			count++;
		}
	}
	assert_int_equal(count, 512);
}

static void a_disk_that_fails_fails_this_request(void **state)
{
	(void)state;
	world_page(&world, DATA);
	disk_err = EIO;
	assert_int_equal(done(front_one(0, 1, 0, DATA, 0, 7)), -1);
	assert_int_equal(done(front_one(1, 2, 0, DATA, 0, 7)), -1);
	assert_int_equal(done((struct front_request){ .op = 3, .id = 3 }), -1); /* not -2: the guest would never flush again */
	disk_err = EOPNOTSUPP;
	assert_int_equal(done((struct front_request){ .op = 5, .id = 4, .sector = 0, .sectors = 8 }), -2);
	assert_int_equal(done((struct front_request){ .op = 3, .id = 5 }), -1);
	disk_err = EIO;
	assert_int_equal(done((struct front_request){ .op = 5, .id = 6, .sector = 0, .sectors = 8 }), -1);
	disk_err = 0;
	assert_int_equal(done(front_one(0, 7, 0, DATA, 0, 7)), 0);
	assert_int_equal(stats.errors, 6);
}

/* By the clock of the loop's turns. What fails counts with nobody. */
static void how_long_requests_take_is_counted(void **state)
{
	uint64_t began_ns = loop_now_ns(), held_ns, most_ns, in_histogram = 0;

	(void)state;
	world_page(&world, DATA);
	is_slow = true;
	ask(front_one(0, 1, 0, DATA, 0, 7));
	ask(front_one(1, 2, 8, DATA, 0, 7));
	for (unsigned i = 0; i < 200 && held_count < 2; i++)
		turn();
	assert_int_equal(held_count, 2);
	held_ns = loop_now_ns();
	while (loop_now_ns() - held_ns < 20 * NS_PER_MS)
		turn();
	held_ns = loop_now_ns() - held_ns;
	is_slow = false;
	layer_forward(disk, held[--held_count]);
	layer_forward(disk, held[--held_count]);
	for (unsigned i = 0; i < 200 && stats.in_flight; i++)
		turn();
	most_ns = loop_now_ns() - began_ns;
	assert_true(stats.reads == 1 && stats.writes == 1);
	assert_in_range(stats.read_ns, held_ns, most_ns);
	assert_in_range(stats.write_ns, held_ns, most_ns);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		in_histogram += stats.writes_us.count[i];
	assert_true(in_histogram == 1 && stats.writes_us.count[histogram_bucket(stats.write_ns / 1000)] == 1);
	most_ns = stats.read_ns + stats.write_ns;
	disk_err = EIO;
	ask(front_one(0, 3, 0, DATA, 0, 7));
	for (unsigned i = 0; i < 200 && !stats.errors; i++)
		turn();
	assert_true(stats.errors == 1 && stats.read_ns + stats.write_ns == most_ns);
}

/* --- the end */

/* The disk answers, and it is asked nothing more. */
static void let_the_stopped_lane_end(void)
{
	is_slow = false;
	while (held_count)
		layer_forward(disk, held[--held_count]);
	while (!is_stopped)
		loop_run(loop);
	lane_free(lane);
	lane = NULL;
	xen_ops()->disconnect(xen);
}

static void nothing_is_touched_after_it_was_stopped_and_all_that_was_taken_is_answered(void **state)
{
	struct front_response a;
	uint64_t copies;
	unsigned count = 0;

	(void)state;
	is_slow = true;
	for (unsigned i = 0; i < 8; i++) {
		memset(world_page(&world, DATA + i), (int)i, 4096);
		ask(front_one((uint8_t)(i % 2), i, i * 8, DATA + i, 0, 7));
	}
	for (unsigned i = 0; i < 50 && held_count < 8; i++)
		turn();
	is_stopped = false;
	lane_stop(lane, on_stopped, NULL);
	for (unsigned i = 0; i < 5; i++)
		turn();
	assert_false(is_stopped); /* it waits for the disk */
	ask(front_one(0, 99, 0, DATA, 0, 7));
	let_the_stopped_lane_end();
	while (front_take(&front, &a)) {
		assert_true(a.id < 8 && a.status == 0);
		count++;
	}
	assert_int_equal(count, 8); /* and not what came later */
	copies = world.shared->copies;
	for (unsigned i = 0; i < 5; i++)
		turn();
	assert_true(world.shared->copies == copies && world.shared->mapped == 0);
}

/* It waits for buffers, and there are more requests in the ring than it has taken: those are a successor's. */
static void who_stops_takes_nothing_more_when_there_is_room_again(void **state)
{
	struct front_response a;
	unsigned count = 0, taken;

	(void)state;
	end_lane();
	begin_ring(4, false);
	world_page(&world, DATA);
	is_slow = true;
	for (unsigned i = 0; i < 512; i++) {
		struct front_request q = { .op = 0, .segments = 11, .id = i, .sector = i };

		for (unsigned n = 0; n < 11; n++)
			q.segment[n] = (struct front_segment){ DATA, 0, 7 };
		front_put(&front, &q);
	}
	push();
	for (unsigned i = 0; i < 100 && held_count < 100; i++)
		turn();
	taken = stats.in_flight;
	is_stopped = false;
	lane_stop(lane, on_stopped, NULL);
	let_the_stopped_lane_end();
	while (front_take(&front, &a))
		count++;
	assert_int_equal(count, taken);
	assert_true(count < 512);
}

/* The last answer was made, and is not shown yet. */
static void who_stops_shows_what_was_answered(void **state)
{
	struct front_response a;

	(void)state;
	is_slow = true;
	ask((struct front_request){ .op = 3, .id = 1 });
	for (unsigned i = 0; i < 50 && !held_count; i++)
		turn();
	req_complete(held[0], 0);
	end_lane();
	assert_true(front_take(&front, &a) && a.id == 1 && a.status == 0);
}

static void nothing_is_tried_again_by_who_has_stopped(void **state)
{
	struct front_response a;

	(void)state;
	world_page(&world, DATA);
	disk_err = ESHUTDOWN;
	ask(front_one(1, 1, 0, DATA, 0, 7)); /* it was held back before ... */
	for (unsigned i = 0; i < 50 && !submitted; i++)
		turn();
	is_slow = true;
	ask(front_one(1, 2, 0, DATA, 0, 7)); /* ... and it will be after */
	for (unsigned i = 0; i < 50 && !held_count; i++)
		turn();
	is_stopped = false;
	lane_stop(lane, on_stopped, NULL);
	req_complete(held[0], ESHUTDOWN);
	while (!is_stopped)
		loop_run(loop);
	submitted = 0;
	for (uint64_t end_ns = loop_now_ns() + 1200 * NS_PER_MS; loop_now_ns() < end_ns;) /* it would be in a second */
		turn();
	assert_int_equal(submitted, 0);
	lane_free(lane);
	lane = NULL;
	xen_ops()->disconnect(xen);
	assert_false(front_take(&front, &a));
}

/* The disk is another host's: whoever asks there gets an answer there, and none here. */
static void what_ends_because_the_disk_was_given_away_is_not_answered(void **state)
{
	struct front_response a;

	(void)state;
	memset(world_page(&world, DATA), 1, 4096);
	disk_err = ESHUTDOWN;
	ask(front_one(1, 1, 0, DATA, 0, 7));
	ask(front_one(0, 2, 0, DATA, 0, 7));
	for (unsigned i = 0; i < 20; i++)
		turn();
	assert_false(front_take(&front, &a));
	assert_int_equal(stats.in_flight, 2);
	end_lane();
	assert_int_equal(stats.in_flight, 0);
	assert_false(front_take(&front, &a));
	disk_err = 0;
	begin_lane(); /* it came back, to the same guest */
	for (unsigned i = 0; i < 20; i++)
		turn();
	assert_int_equal(stats.left, 2);
	assert_true(front_take(&front, &a) && front_take(&front, &a) && !front_take(&front, &a));
	assert_int_equal(memory_layer_bytes(disk)[0], 1);
}

static void what_was_held_back_is_tried_again_while_the_guest_waits(void **state)
{
	(void)state;
	memset(world_page(&world, DATA), 1, 4096);
	disk_err = ESHUTDOWN;
	ask(front_one(1, 1, 0, DATA, 0, 7));
	for (unsigned i = 0; i < 20; i++)
		turn();
	disk_err = 0;
	for (unsigned i = 0; i < 1500 && *front_word(&front, 8) == 0; i++)
		turn();
	assert_int_equal(answered(1), 0);
}

/* Another process over the same book and pages, with requests in the dead one's hands. */
static void a_successor_does_what_a_killed_process_had_in_its_hands(void **state)
{
	static struct ring_book left;
	struct front_response a;
	unsigned seen = 0;

	(void)state;
	is_slow = true;
	for (unsigned i = 0; i < 6; i++) {
		memset(world_page(&world, DATA + i), (int)(0x50 + i), 4096);
		front_put_segment(world_page(&world, DATA + 40 + i), 0, (struct front_segment){ DATA + i, 0, 7 });
		ask(i % 2 ? front_one(1, i, i * 8, DATA + i, 0, 7) : front_indirect(1, i, i * 8, DATA + 40 + i, 1));
	}
	for (unsigned i = 0; i < 50 && held_count < 6; i++)
		turn();
	left = book;   /* killed here */
	disk_err = EIO;
	is_slow = false;
	book.magic = 0;
	while (held_count)
		req_complete(held[--held_count], ESHUTDOWN);
	end_lane();
	disk_err = 0;
	book = left;
	begin_lane();
	for (unsigned i = 0; i < 20; i++)
		turn();
	assert_int_equal(stats.left, 6);
	while (front_take(&front, &a)) {
		assert_int_equal(a.status, 0);
		seen |= 1u << a.id;
	}
	assert_int_equal(seen, 0x3f);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(memory_layer_bytes(disk)[i * 4096 + 99], 0x50 + i);
}

/* ... and what it had answered, and perhaps shown, but the guest does not know of. */
static void a_successor_shows_what_a_killed_process_had_answered(void **state)
{
	struct front_response a;
	struct ring dead;
	int entry;

	(void)state;
	end_lane();
	begin_ring(0, false);
	end_lane();
	assert_true(ring_open(&dead, world_page(&world, 1), 0, RING_X86_64, &book, 7));
	ask(front_one(0, 1, 0, DATA, 0, 7));
	entry = ring_take(&dead);
	assert_true(entry >= 0);
	ring_answer(&dead, entry, RING_OKAY);
	was_notified();
	begin_lane();
	turn();
	assert_true(front_take(&front, &a) && a.id == 1);
	assert_true(was_notified());
	end_lane();
	begin_lane(); /* it has shown it, and was killed before it said so */
	assert_true(was_notified());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		LANE_TEST(what_is_written_is_read),
		LANE_TEST(what_is_written_indirectly_is_read),
		LANE_TEST(flushes_and_discards_reach_the_disk),
		LANE_TEST(a_batch_is_one_event_each_way),
		LANE_TEST(a_guest_that_asks_more_than_there_are_buffers_for_is_served_all_the_same),
		LANE_TEST(a_disk_that_fails_fails_this_request),
		LANE_TEST(how_long_requests_take_is_counted),
		LANE_TEST(nothing_is_touched_after_it_was_stopped_and_all_that_was_taken_is_answered),
		LANE_TEST(who_stops_takes_nothing_more_when_there_is_room_again),
		LANE_TEST(who_stops_shows_what_was_answered),
		LANE_TEST(nothing_is_tried_again_by_who_has_stopped),
		LANE_TEST(what_ends_because_the_disk_was_given_away_is_not_answered),
		LANE_TEST(what_was_held_back_is_tried_again_while_the_guest_waits),
		LANE_TEST(a_successor_does_what_a_killed_process_had_in_its_hands),
		LANE_TEST(a_successor_shows_what_a_killed_process_had_answered),
	};

	setenv("SXM_LOG", "stderr", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
