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

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* --- what is in a book, and was not written by a process that was killed */

static void take_three(void)
{
	begin(0, false);
	for (unsigned n = 0; n < 3; n++)
		ask(front_one(0, n, 0, 5, 0, 7));
	for (unsigned n = 0; n < 3; n++)
		ring_take(&ring);
}

static void assert_begun_anew(uint32_t identity)
{
	unsigned at = 0;
	int entry;

	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, identity));
	assert_int_equal(ring_next_left(&ring, &at), RING_NONE);
	assert_int_equal(ring_open_requests(&ring), 0);
	for (unsigned i = 0; i < RING_ENTRIES_MAX; i++)
		assert_int_equal(book.entry[i].stage, RING_FREE);
	entry = ring_take(&ring); /* none was answered: so all of them are there */
	assert_true(entry >= 0 && ring_request(&ring, entry)->id == 0);
}

static void a_book_that_no_process_can_have_left_is_begun_anew(void **state)
{
	(void)state;
	take_three();
	book.entry[9].stage = RING_ANSWERED + 1;
	assert_begun_anew(7);
	take_three();
	book.entry[1].form = RING_WHOLE + 1;
	assert_begun_anew(7);
	take_three();
	book.taken = book.answered + 33;
	assert_begun_anew(7);
	take_three();
	book.magic = 0;
	assert_begun_anew(7);
	take_three();
	memset(&book, 0, sizeof(book)); /* a new file, and a ring that happens to be called so */
	*front_word(&front, 8) = 3;
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 0));
}

static void assert_broken(void)
{
	assert_false(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	assert_int_equal(ring_take(&ring), RING_BROKEN);
}

static void a_book_that_has_not_what_its_numbers_say_breaks_the_ring(void **state)
{
	(void)state;
	take_three();
	book.entry[1].stage = RING_FREE; /* one that was taken is missing */
	assert_broken();
	take_three();
	book.entry[9] = book.entry[1]; /* or is there twice */
	assert_broken();
	take_three();
	ring_answer(&ring, 0, RING_OKAY);
	book.entry[0].stage = RING_FREE; /* a response is */
	assert_broken();
	take_three();
	for (unsigned i = 0; i < 40; i++) /* more than the ring holds, of which some were answered */
		book.entry[i] = (struct ring_entry){ .stage = i < 20 ? RING_ANSWERED : RING_TAKEN, .at = i };
	book.answered = 20;
	book.taken = 40;
	assert_broken();
}

/* Only what reads or writes has segments elsewhere. */
static void what_a_book_says_to_be_whole_is_judged_all_the_same(void **state)
{
	const struct ring_terms terms = { .size_bytes = MiB, .can_discard = true };
	struct range range;

	(void)state;
	take_three();
	for (unsigned op = 0; op < 256; op++) {
		book.entry[1].form = RING_WHOLE;
		book.entry[1].request.op = (uint8_t)op;
		book.entry[1].request.segments = op == RING_FLUSH || op == RING_DISCARD ? 0 : 1;
		assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
		assert_int_equal(ring_judge(&ring, 1, &terms, &range), op <= RING_WRITE ? RING_OKAY : RING_ERROR);
	}
}

static void what_was_answered_and_not_shown_is_free_when_it_was(void **state)
{
	(void)state;
	take_three();
	ring_answer(&ring, 1, RING_OKAY);
	ring_answer(&ring, 2, RING_OKAY);
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	ring_publish(&ring);
	assert_int_equal(book.entry[0].stage, RING_TAKEN);
	assert_true(book.entry[1].stage == RING_FREE && book.entry[2].stage == RING_FREE);
	for (unsigned n = 3; n < 34; n++)
		ask(front_one(0, n, 0, 5, 0, 7));
	for (unsigned n = 3; n < 34; n++)
		assert_true(ring_take(&ring) > 0);
	assert_int_equal(ring_request(&ring, 0)->id, 0);
}

/* --- each state of its memory that a process can leave, as it is killed after any of its instructions */

static struct shared {
	_Alignas(4096) uint8_t pages[RING_PAGE_BYTES];
	struct ring_book book;
} *shared;

static void do_traced(void (*work)(void))
{
	ring.shared = shared->pages;
	ring.book = &shared->book;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1)
		_exit(77);
	raise(SIGSTOP);
	work();
	_exit(0);
}

/* False: it has ended. */
static bool step_over_one_instruction(pid_t pid)
{
	int status;

	assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSTOPPED(status);
}

/* look() has them, each in its turn, in pages, book and front. */
static unsigned die_everywhere(void (*work)(void), void (*look)(void))
{
	static struct shared last;
	const struct front guest = front;
	unsigned states = 0;
	int status;
	pid_t pid;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(shared != MAP_FAILED);
	memcpy(shared->pages, pages, sizeof(shared->pages));
	shared->book = book;
	pid = fork();
	if (pid == 0)
		do_traced(work);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFSTOPPED(status)) { /* nobody may trace here */
		munmap(shared, sizeof(*shared));
		skip();
	}
	last = *shared;
	while (step_over_one_instruction(pid)) {
		if (memcmp(&last, shared, sizeof(last)) == 0)
			continue;
		last = *shared;
		memcpy(pages, last.pages, sizeof(last.pages));
		book = last.book;
		front = guest;
		look();
		states++;
	}
	munmap(shared, sizeof(*shared));
	return states;
}

static void work_through_five(void)
{
	struct ring_rest rest;
	int entry[5];

	for (unsigned n = 0; n < 3; n++)
		entry[n] = ring_take(&ring);
	ring_misses(&ring, entry[2], &rest);
	for (unsigned i = 0; i < 20; i++)
		front_put_segment(rest.memory, i, (struct front_segment){ 100 + i, 1, 2 });
	ring_complete(&ring, entry[2]);
	ring_answer(&ring, entry[1], RING_OKAY);
	ring_publish(&ring);
	ring_answer(&ring, entry[2], RING_OKAY);
	entry[3] = ring_take(&ring);
	ring_answer(&ring, entry[0], RING_OKAY);
	ring_answer(&ring, entry[3], RING_OKAY);
	ring_publish(&ring);
	entry[4] = ring_take(&ring);
}

/* As it was asked, and if it is whole its segments are. */
static void check_and_answer(int entry)
{
	const struct ring_request *q = ring_request(&ring, entry);
	const struct ring_segment *s = ring_segments(&ring, entry);

	assert_true(q->sector == 1000 + q->id);
	if (q->id == 2 && book.entry[entry].form == RING_WHOLE)
		for (unsigned i = 0; i < 20; i++)
			assert_true(s[i].gref == 100 + i && s[i].first == 1 && s[i].last == 2);
	ring_answer(&ring, entry, RING_OKAY);
}

static void each_of_five_is_answered_once(void)
{
	struct front_response a;
	unsigned at = 0, seen = 0;
	int entry;

	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	while ((entry = ring_next_left(&ring, &at)) >= 0)
		check_and_answer(entry);
	while ((entry = ring_take(&ring)) >= 0)
		check_and_answer(entry);
	ring_publish(&ring);
	while (front_take(&front, &a)) {
		assert_true(a.id < 5 && !(seen >> a.id & 1));
		seen |= 1u << a.id;
	}
	assert_int_equal(seen, 0x1f);
}

static void whatever_instruction_was_its_last_each_request_is_answered_once(void **state)
{
	(void)state;
	begin(0, false);
	for (unsigned n = 0; n < 5; n++)
		ask(n == 2 ? front_indirect(1, n, 1000 + n, 99, 20) : front_one(1, n, 1000 + n, 5, 0, 7));
	assert_in_range(die_everywhere(work_through_five, each_of_five_is_answered_once), 50, 5000);
}

static void begin_anew(void)
{
	ring_open(&ring, shared->pages, 0, RING_X86_64, &shared->book, 7);
}

static void its_successor_begins_anew(void)
{
	assert_begun_anew(7);
}

static void whatever_instruction_was_its_last_a_book_is_begun_anew(void **state)
{
	(void)state;
	take_three();
	book.entry[2].form = RING_WHOLE + 1;
	assert_in_range(die_everywhere(begin_anew, its_successor_begins_anew), 3, 100000);
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
		cmocka_unit_test(a_book_that_no_process_can_have_left_is_begun_anew),
		cmocka_unit_test(a_book_that_has_not_what_its_numbers_say_breaks_the_ring),
		cmocka_unit_test(what_a_book_says_to_be_whole_is_judged_all_the_same),
		cmocka_unit_test(what_was_answered_and_not_shown_is_free_when_it_was),
		cmocka_unit_test(whatever_instruction_was_its_last_each_request_is_answered_once),
		cmocka_unit_test(whatever_instruction_was_its_last_a_book_is_begun_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
