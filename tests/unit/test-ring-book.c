/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The book of a ring tells the next process what this one had in its hands, wherever it was killed: no request of the guest's is left
 * without an answer, and none gets two.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/lib/blk-front.h"
#include "vbd/ring.h"

static _Alignas(4096) uint8_t pages[RING_PAGES_MAX * RING_PAGE_BYTES];
static struct ring_book book;
static struct front front;
static struct ring ring;

static void begin(unsigned order, bool is_32)
{
	memset(&book, 0, sizeof(book));
	front_init(&front, pages, order, is_32);
	assert_true(ring_open(&ring, pages, order, is_32 ? RING_X86_32 : RING_X86_64, &book, 7));
}

static void ask(struct front_request q)
{
	front_put(&front, &q);
	front_push(&front);
}

struct seen {
	unsigned done[64], answers[64];
};

static bool step(struct seen *seen, unsigned n)
{
	static unsigned at;
	int entry;

	if (n == 0)
		at = 0;
	switch (n % 4) {
	case 0:
		if (front.asked < 64 && front.asked - front.heard < front.entries)
			ask(front_one(0, front.asked, 0, 5, 0, 7));
		return true;
	case 1:
	case 2:
		ring_take(&ring);
		return true;
	default:
		at = n * 7 % RING_ENTRIES_MAX;
		for (unsigned i = 0; i < RING_ENTRIES_MAX; i++) {
			entry = (int)((at + i) % RING_ENTRIES_MAX);
			if (book.entry[entry].stage == RING_TAKEN) {
				seen->done[book.entry[entry].request.id]++;
				ring_answer(&ring, entry, RING_OKAY);
				break;
			}
		}
		if (n % 8 == 3)
			ring_publish(&ring);
		return true;
	}
}

static void hear(struct seen *seen)
{
	struct front_response a;

	while (front_take(&front, &a)) {
		assert_true(a.id < 64);
		seen->answers[a.id]++;
	}
}

/* The process is killed between any two steps; its successor has the book and the guest's pages. */
static void a_killed_process_leaves_no_request_without_an_answer_and_none_with_two(void **state)
{
	(void)state;
	for (unsigned killed = 0; killed < 200; killed++) {
		struct seen seen = { 0 };
		unsigned at = 0;
		int entry;

		begin(0, killed % 2);
		for (unsigned n = 0; n < killed; n++) {
			step(&seen, n);
			if (n % 5 == 0)
				hear(&seen);
		}
		memset(&ring, 0xdd, sizeof(ring));
		assert_true(ring_open(&ring, pages, 0, killed % 2 ? RING_X86_32 : RING_X86_64, &book, 7));
		while ((entry = ring_next_left(&ring, &at)) >= 0)
			ring_answer(&ring, entry, RING_OKAY);
		while ((entry = ring_take(&ring)) >= 0)
			ring_answer(&ring, entry, RING_OKAY);
		assert_int_equal(entry, RING_NONE);
		ring_publish(&ring);
		hear(&seen);
		for (unsigned i = 0; i < 64; i++)
			assert_int_equal(seen.answers[i], i < front.asked);
	}
}

/* ... and inside of a step: each word of the book that it writes last may be the last. */
static void a_killed_process_may_die_inside_of_any_step(void **state)
{
	struct ring_book before;
	struct front_response a;
	unsigned at = 0;
	int entry;

	(void)state;
	begin(0, false);
	ask(front_one(0, 1, 0, 5, 0, 7));
	entry = ring_take(&ring);
	book.taken--; /* it died before that: it is taken again, once */
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	assert_int_equal(ring_next_left(&ring, &at), RING_NONE);
	entry = ring_take(&ring);
	assert_true(entry >= 0);
	before = book;
	ring_answer(&ring, entry, RING_OKAY);
	book.answered--; /* before that: nothing is in the slot */
	memcpy(front_slot(&front, 0), "rubbish, rubbish", 16);
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	at = 0;
	assert_int_equal(ring_next_left(&ring, &at), entry);
	ring_answer(&ring, entry, RING_OKAY);
	memcpy(front_slot(&front, 0), "rubbish, rubbish", 16); /* before the slot was written */
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	at = 0;
	assert_int_equal(ring_next_left(&ring, &at), RING_NONE);
	before = book;
	assert_true(ring_publish(&ring));
	book = before; /* before its entry was free: the guest was shown it */
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	at = 0;
	assert_int_equal(ring_next_left(&ring, &at), RING_NONE);
	assert_false(ring_publish(&ring));
	assert_true(front_take(&front, &a) && a.id == 1);
	assert_false(front_take(&front, &a));
}

/* Its segments are copied by who was not killed before that, and by nobody after it. */
static void an_indirect_request_is_whole_or_copied_again(void **state)
{
	const struct ring_terms terms = { .size_bytes = MiB };
	struct ring_rest rest;
	struct range range;
	unsigned at = 0;

	(void)state;
	begin(0, false);
	ask(front_indirect(1, 4711, 8, 99, 20));
	assert_true(ring_take(&ring) >= 0);
	assert_true(ring_misses(&ring, 0, &rest));
	memset(rest.memory, 0xff, rest.bytes / 2); /* killed while it was copied */
	memset(front_slot(&front, 0), 0xff, 112);
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	assert_int_equal(ring_next_left(&ring, &at), 0);
	assert_true(ring_misses(&ring, 0, &rest));
	assert_true(rest.gref == 99 && rest.bytes == 160);
	for (unsigned i = 0; i < 20; i++)
		front_put_segment(rest.memory, i, (struct front_segment){ 100 + i, 1, 2 });
	ring_complete(&ring, 0);
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7)); /* killed after it */
	at = 0;
	assert_int_equal(ring_next_left(&ring, &at), 0);
	assert_false(ring_misses(&ring, 0, &rest));
	assert_int_equal(ring_judge(&ring, 0, &terms, &range), RING_OKAY);
	assert_true(range.start == 8 * 512 && range.end == 48 * 512 && ring_segments(&ring, 0)[19].gref == 119);
}

static void a_request_may_wait_while_the_ring_goes_round(void **state)
{
	struct front_response a;
	int slow, entry;
	unsigned at = 0;

	(void)state;
	begin(0, false);
	ask(front_one(0, 4711, 0, 5, 0, 7));
	slow = ring_take(&ring);
	for (unsigned i = 0; i < 3000; i++) {
		ask(front_one(0, i, 0, 5, 0, 7));
		entry = ring_take(&ring);
		ring_answer(&ring, entry, RING_OKAY);
		ring_publish(&ring);
		assert_true(front_take(&front, &a));
	}
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	assert_int_equal(ring_next_left(&ring, &at), slow);
	assert_int_equal(ring_request(&ring, slow)->id, 4711);
}

static void the_book_of_another_ring_is_begun_anew(void **state)
{
	unsigned at = 0;

	(void)state;
	begin(0, false);
	ask(front_one(0, 1, 0, 5, 0, 7));
	ring_take(&ring);
	front_init(&front, pages, 0, false);
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 8));
	assert_int_equal(ring_next_left(&ring, &at), RING_NONE);
	assert_int_equal(ring_open_requests(&ring), 0);
	ask(front_one(0, 2, 0, 5, 0, 7));
	assert_int_equal(ring_request(&ring, ring_take(&ring))->id, 2);
}

static void a_guest_that_lies_to_the_successor_gets_a_broken_ring(void **state)
{
	static const uint32_t lies[] = { 1, 3, 40, 0x80000000, 0xffffffff };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		begin(0, false);
		for (unsigned n = 0; n < 5; n++)
			ask(front_one(0, n, 0, 5, 0, 7));
		for (unsigned n = 0; n < 5; n++)
			ring_take(&ring);
		ring_answer(&ring, 2, RING_OKAY);
		ring_answer(&ring, 3, RING_OKAY);
		ring_publish(&ring);
		*front_word(&front, 8) = lies[i];
		assert_false(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
		assert_int_equal(ring_take(&ring), RING_BROKEN);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_killed_process_leaves_no_request_without_an_answer_and_none_with_two),
		cmocka_unit_test(a_killed_process_may_die_inside_of_any_step),
		cmocka_unit_test(an_indirect_request_is_whole_or_copied_again),
		cmocka_unit_test(a_request_may_wait_while_the_ring_goes_round),
		cmocka_unit_test(the_book_of_another_ring_is_begun_anew),
		cmocka_unit_test(a_guest_that_lies_to_the_successor_gets_a_broken_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
