/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A blkif ring in ordinary memory: what a guest asks is what is done, in both layouts and every size; what it writes to the
 * ring besides harms nobody else. Tests of what once was a vulnerability somewhere are named for it.
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

static enum ring_status judge(const struct front_request *q, bool is_read_only, bool can_discard, struct range *range)
{
	const struct ring_terms terms = { .size_bytes = 1000 * 512 + 100, .is_read_only = is_read_only, .can_discard = can_discard };
	enum ring_status status;
	int entry;

	begin(0, false);
	ask(*q);
	entry = ring_take(&ring);
	assert_true(entry >= 0);
	status = ring_judge(&ring, entry, &terms, range);
	assert_true(range->start <= range->end && range->end <= terms.size_bytes);
	return status;
}

static enum ring_status judged(struct front_request q)
{
	struct range range;

	return judge(&q, false, true, &range);
}

/* --- the protocol */

static void a_ring_of_each_order_has_so_many_entries(void **state)
{
	(void)state;
	for (unsigned order = 0; order <= RING_ORDER_MAX; order++)
		assert_int_equal(ring_entries(order), 32u << order);
}

static void a_request_is_read_field_by_field_in_both_layouts(void **state)
{
	(void)state;
	for (int is_32 = 0; is_32 < 2; is_32++) {
		struct front_request q = { .op = 1, .segments = 11, .id = UINT64_C(0x1122334455667788), .sector = UINT64_C(0x99aabbccddeeff00) };
		const struct ring_request *r;
		int entry;

		for (unsigned i = 0; i < 11; i++)
			q.segment[i] = (struct front_segment){ 0x10000 + i, (uint8_t)(i % 3), (uint8_t)(3 + i % 5) };
		begin(2, is_32);
		ask(q);
		entry = ring_take(&ring);
		assert_true(entry >= 0);
		r = ring_request(&ring, entry);
		assert_int_equal(r->op, 1);
		assert_int_equal(r->segments, 11);
		assert_true(r->id == q.id && r->sector == q.sector);
		for (unsigned i = 0; i < 11; i++) {
			assert_int_equal(r->segment[i].gref, 0x10000 + i);
			assert_int_equal(r->segment[i].first, i % 3);
			assert_int_equal(r->segment[i].last, 3 + i % 5);
		}
		q = (struct front_request){ .op = 5, .segments = 0, .id = 9, .sector = 8, .sectors = UINT64_C(0x123456789a) };
		ask(q);
		r = ring_request(&ring, ring_take(&ring));
		assert_true(r->op == 5 && r->id == 9 && r->sector == 8 && r->sectors == q.sectors);
	}
}

/* Responses in another order than requests, over many times the ring's size, always full. */
static void every_request_gets_its_answer_once_round_after_round(void **state)
{
	(void)state;
	for (int is_32 = 0; is_32 < 2; is_32++)
		for (unsigned order = 0; order <= RING_ORDER_MAX; order += 2) {
			int held[RING_ENTRIES_MAX];
			uint64_t next = 0, sum = 0, heard = 0;
			struct front_response a;
			uint32_t count = 0;

			begin(order, is_32);
			for (unsigned round = 0; round < 200; round++) {
				int entry;

				while (front.asked - front.heard < front.entries)
					ask(front_one((uint8_t)(next % 2), 1000 + next, next, 5, 0, 7)), next++;
				while ((entry = ring_take(&ring)) >= 0)
					held[count++] = entry;
				assert_int_equal(entry, RING_NONE);
				assert_int_equal(ring_open_requests(&ring), count);
				for (unsigned n = 1 + round % count; n && count; n--) { /* the newest, or one from the middle */
					unsigned at = n % 2 ? count - 1 : count / 2;

					ring_answer(&ring, held[at], RING_OKAY);
					held[at] = held[--count];
				}
				ring_publish(&ring);
				while (front_take(&front, &a)) {
					assert_int_equal(a.status, 0);
					assert_int_equal(a.op, a.id % 2);
					sum += a.id;
					heard++;
				}
			}
			while (count)
				ring_answer(&ring, held[--count], RING_OKAY);
			ring_publish(&ring);
			while (front_take(&front, &a))
				sum += a.id, heard++;
			assert_true(heard == next && sum == 1000 * next + next * (next - 1) / 2);
		}
}

static void numbers_go_past_the_end_of_32_bits(void **state)
{
	struct front_response a;

	(void)state;
	begin(0, false);
	front.asked = front.heard = 0xfffffff0;
	*front_word(&front, 0) = *front_word(&front, 8) = 0xfffffff0;
	*front_word(&front, 12) = 0xfffffff1;
	memset(&book, 0, sizeof(book));
	assert_true(ring_open(&ring, pages, 0, RING_X86_64, &book, 7));
	for (unsigned i = 0; i < 100; i++) {
		int entry;

		ask(front_one(0, i, 0, 5, 0, 7));
		entry = ring_take(&ring);
		assert_true(entry >= 0);
		ring_answer(&ring, entry, RING_OKAY);
		assert_true(ring_publish(&ring));
		assert_true(front_take(&front, &a));
		assert_int_equal(a.id, i);
		assert_false(front_take(&front, &a));
	}
}

static void one_notification_is_enough_for_a_batch(void **state)
{
	struct front_response a;
	int entry[3];

	(void)state;
	begin(0, false);
	assert_false(ring_arm(&ring));
	for (unsigned i = 0; i < 3; i++) {
		struct front_request q = front_one(0, i, 0, 5, 0, 7);

		front_put(&front, &q);
		assert_int_equal(front_push(&front), i == 0); /* we sleep until the first */
	}
	for (unsigned i = 0; i < 3; i++)
		entry[i] = ring_take(&ring);
	ring_answer(&ring, entry[1], RING_OKAY);
	ring_answer(&ring, entry[0], RING_OKAY);
	assert_true(ring_publish(&ring));
	assert_false(ring_publish(&ring)); /* nothing is new */
	ring_answer(&ring, entry[2], RING_OKAY);
	assert_false(ring_publish(&ring)); /* it has not asked for another: it is still reading */
	for (unsigned i = 0; i < 3; i++)
		assert_true(front_take(&front, &a));
	assert_false(front_take(&front, &a));
}

/* Between the last look and going to sleep. */
static void who_arms_sees_what_came_just_before(void **state)
{
	struct front_request q = front_one(0, 1, 0, 5, 0, 7);

	(void)state;
	begin(0, false);
	ring_arm(&ring);
	front_put(&front, &q);
	front_push(&front);
	assert_true(ring_take(&ring) >= 0);
	front_put(&front, &q);
	assert_false(front_push(&front)); /* we were awake */
	assert_true(ring_arm(&ring));
	assert_true(ring_take(&ring) >= 0);
	assert_false(ring_arm(&ring));
	front_put(&front, &q);
	assert_true(front_push(&front));
}

/* So many good segments as its page has them; judged when they were copied. */
static enum ring_status judge_indirect(struct front_request q, const struct front_segment *segment, bool is_32, struct range *range)
{
	static uint8_t page[4096];
	const struct ring_terms terms = { .size_bytes = 1000 * 512 };
	struct ring_rest rest;
	int entry;

	begin(0, is_32);
	ask(q);
	entry = ring_take(&ring);
	assert_true(entry >= 0);
	assert_int_equal(ring_judge(&ring, entry, &terms, range), RING_ERROR); /* not yet */
	if (!ring_misses(&ring, entry, &rest))
		return RING_ERROR;
	assert_int_equal(rest.gref, q.page);
	assert_int_equal(rest.bytes, q.many * 8);
	for (unsigned i = 0; i < q.many; i++)
		front_put_segment(page, i, segment[i]);
	memcpy(rest.memory, page, rest.bytes);
	ring_complete(&ring, entry);
	assert_false(ring_misses(&ring, entry, &rest));
	return ring_judge(&ring, entry, &terms, range);
}

static void an_indirect_request_is_read_in_both_layouts_and_answered_by_what_is_inside(void **state)
{
	struct front_segment segment[32];
	struct front_response a;
	struct range range;

	(void)state;
	for (unsigned i = 0; i < 32; i++)
		segment[i] = (struct front_segment){ 0x10000 + i, (uint8_t)(i % 3), (uint8_t)(3 + i % 5) };
	for (int is_32 = 0; is_32 < 2; is_32++)
		for (uint8_t op = 0; op < 2; op++) {
			const struct ring_segment *s;

			assert_int_equal(judge_indirect(front_indirect(op, UINT64_C(0x1122334455667788), 5, 0xabcdef01, 32), segment,
							is_32, &range), RING_OKAY);
			s = ring_segments(&ring, 0);
			for (unsigned i = 0; i < 32; i++)
				assert_true(s[i].gref == segment[i].gref && s[i].first == segment[i].first &&
					    s[i].last == segment[i].last);
			assert_int_equal(range.start, 5 * 512);
			ring_answer(&ring, 0, RING_OKAY);
			ring_publish(&ring);
			assert_true(front_take(&front, &a));
			assert_true(a.id == UINT64_C(0x1122334455667788) && a.op == op && a.status == 0);
		}
}

/* --- what is judged */

static void a_good_request_says_which_bytes(void **state)
{
	struct front_request q = front_one(0, 1, 990, 5, 2, 4);
	struct range range;

	(void)state;
	q.segments = 2;
	q.segment[1] = (struct front_segment){ 6, 0, 6 };
	assert_int_equal(judge(&q, true, false, &range), RING_OKAY);
	assert_true(range.start == 990 * 512 && range.end == 1000 * 512);
	q.op = 1;
	assert_int_equal(judge(&q, false, false, &range), RING_OKAY);
	q = (struct front_request){ .op = 5, .sector = 1000, .sectors = 0 };
	assert_int_equal(judge(&q, false, true, &range), RING_OKAY);
	q = (struct front_request){ .op = 3, .sector = UINT64_MAX };
	assert_int_equal(judge(&q, false, true, &range), RING_OKAY);
	assert_true(range.start == 0 && range.end == 0);
}

static void nothing_outside_the_disk_passes(void **state)
{
	struct front_request q = front_one(0, 1, 993, 5, 0, 7);

	(void)state;
	assert_int_equal(judged(q), RING_ERROR); /* by one sector; and the disk's last 100 bytes are none */
	q.sector = 1000;
	assert_int_equal(judged(q), RING_ERROR);
	q.sector = UINT64_MAX - 3; /* wraps */
	assert_int_equal(judged(q), RING_ERROR);
	q.sector = UINT64_MAX / 512 + 1; /* in bytes it wraps to 0 */
	assert_int_equal(judged(q), RING_ERROR);
	q = (struct front_request){ .op = 5, .sector = 999, .sectors = 2 };
	assert_int_equal(judged(q), RING_ERROR);
	q.sectors = UINT64_MAX;
	assert_int_equal(judged(q), RING_ERROR);
	q.sector = 1001;
	q.sectors = 0;
	assert_int_equal(judged(q), RING_ERROR);
}

static void segments_are_one_to_eleven_and_inside_their_pages(void **state)
{
	struct front_request q = front_one(0, 1, 0, 5, 0, 7);

	(void)state;
	q.segments = 0;
	assert_int_equal(judged(q), RING_ERROR);
	for (unsigned n = 12; n < 256; n++) {
		q.segments = (uint8_t)n;
		assert_int_equal(judged(q), RING_ERROR);
	}
	q.segments = 1;
	for (unsigned last = 8; last < 256; last++) {
		q.segment[0].last = (uint8_t)last;
		assert_int_equal(judged(q), RING_ERROR);
	}
	q.segment[0] = (struct front_segment){ 5, 4, 3 };
	assert_int_equal(judged(q), RING_ERROR);
	q.segments = 11;
	for (unsigned i = 0; i < 11; i++)
		q.segment[i] = (struct front_segment){ i, 0, 7 };
	assert_int_equal(judged(q), RING_OKAY);
	q.segment[10].last = 8;
	assert_int_equal(judged(q), RING_ERROR);
}

static void an_indirect_request_has_one_to_32_segments_inside_pages_and_the_disk(void **state)
{
	static const uint16_t counts[] = { 0, 33, 34, 255, 256, 257, 512, 513, 0x8001, 0xffff };
	struct front_segment segment[32];
	struct range range;

	(void)state;
	for (unsigned i = 0; i < 32; i++)
		segment[i] = (struct front_segment){ i, 0, 7 };
	for (size_t i = 0; i < ARRAY_LEN(counts); i++)
		assert_int_equal(judge_indirect(front_indirect(0, 1, 0, 9, counts[i]), segment, false, &range), RING_ERROR);
	for (unsigned op = 2; op < 256; op++)
		assert_int_equal(judge_indirect(front_indirect((uint8_t)op, 1, 0, 9, 1), segment, false, &range), RING_ERROR);
	assert_int_equal(judge_indirect(front_indirect(1, 1, 744, 9, 32), segment, false, &range), RING_OKAY);
	assert_true(range.start == 744 * 512 && range.end == 1000 * 512);
	assert_int_equal(judge_indirect(front_indirect(1, 1, 745, 9, 32), segment, false, &range), RING_ERROR);
	assert_int_equal(judge_indirect(front_indirect(1, 1, UINT64_MAX - 3, 9, 32), segment, false, &range), RING_ERROR);
	segment[31].last = 8;
	assert_int_equal(judge_indirect(front_indirect(0, 1, 0, 9, 31), segment, false, &range), RING_OKAY);
	assert_int_equal(judge_indirect(front_indirect(0, 1, 0, 9, 32), segment, false, &range), RING_ERROR);
	segment[31] = (struct front_segment){ 1, 4, 3 };
	assert_int_equal(judge_indirect(front_indirect(0, 1, 0, 9, 32), segment, false, &range), RING_ERROR);
}

static void what_is_not_offered_is_refused_as_the_guest_expects(void **state)
{
	struct front_request q = { .op = 5, .sector = 1, .sectors = 1 };
	struct range range;

	(void)state;
	assert_int_equal(judge(&q, false, false, &range), RING_NOT_SUPPORTED);
	q.segments = 1; /* secure */
	assert_int_equal(judged(q), RING_NOT_SUPPORTED);
	for (unsigned op = 0; op < 256; op++) {
		q = front_one((uint8_t)op, 1, 0, 5, 0, 7);
		if (op == RING_INDIRECT || op == RING_FLUSH)
			assert_int_equal(judged(q), RING_ERROR);
		else if (op > RING_WRITE && op != RING_DISCARD)
			assert_int_equal(judged(q), RING_NOT_SUPPORTED);
	}
}

static void xsa_142_a_read_only_disk_is_not_written(void **state)
{
	struct front_request q = front_one(1, 1, 0, 5, 0, 7);
	struct range range;

	(void)state;
	assert_int_equal(judge(&q, true, true, &range), RING_ERROR);
	q = (struct front_request){ .op = 5, .sector = 1, .sectors = 1 };
	assert_int_equal(judge(&q, true, true, &range), RING_ERROR);
	begin(0, false);
	ask(front_indirect(1, 1, 0, 9, 1));
	ring_take(&ring);
	ring_complete(&ring, 0);
	assert_int_equal(ring_judge(&ring, 0, &(struct ring_terms){ .size_bytes = MiB }, &range), RING_OKAY);
	assert_int_equal(ring_judge(&ring, 0, &(struct ring_terms){ .size_bytes = MiB, .is_read_only = true }, &range), RING_ERROR);
}

/* --- what a guest does to the ring */

/* After a request was taken nothing that the guest writes changes it. */
static void xsa_155_a_slot_is_read_once(void **state)
{
	const struct ring_terms terms = { .size_bytes = 1 << 20 };
	const struct ring_request *r;
	struct range range;
	int entry;

	(void)state;
	begin(0, false);
	ask(front_one(1, 77, 3, 5, 1, 6));
	entry = ring_take(&ring);
	memset(front_slot(&front, 0), 0xff, 112);
	r = ring_request(&ring, entry);
	assert_int_equal(ring_judge(&ring, entry, &terms, &range), RING_OKAY);
	assert_true(range.start == 3 * 512 && range.end == 9 * 512);
	memset(front_slot(&front, 0), 0, 112);
	assert_true(r->segment[0].gref == 5 && r->segment[0].first == 1 && r->segment[0].last == 6);
	ring_answer(&ring, entry, RING_OKAY);
	assert_int_equal(*(uint64_t *)(void *)front_slot(&front, 0), 77);
}

static void xsa_216_a_response_has_no_byte_of_ours_besides(void **state)
{
	(void)state;
	for (int is_32 = 0; is_32 < 2; is_32++) {
		const size_t bytes = is_32 ? 12 : 16, slot = is_32 ? 108 : 112;
		uint8_t *at;

		begin(0, is_32);
		ask(front_one(0, UINT64_MAX, 0, 5, 0, 7));
		at = front_slot(&front, 0);
		ring_take(&ring);
		memset(at, 0xee, slot);
		ring_answer(&ring, 0, RING_ERROR);
		assert_true(at[9] == 0);
		for (size_t i = 12; i < bytes; i++)
			assert_int_equal(at[i], 0);
		for (size_t i = bytes; i < slot; i++)
			assert_int_equal(at[i], 0xee); /* the guest's own */
	}
}

static void cve_2010_4247_an_absurd_producer_halts_the_ring(void **state)
{
	static const uint32_t absurd[] = { 33, 34, 100, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(absurd); i++) {
		begin(0, false);
		*front_word(&front, 0) = absurd[i];
		assert_int_equal(ring_take(&ring), RING_BROKEN);
		*front_word(&front, 0) = 1; /* and it stays so */
		assert_int_equal(ring_take(&ring), RING_BROKEN);
		assert_false(ring_has_more(&ring));
		assert_false(ring_arm(&ring));
	}
}

/* A slot is used again when its response was seen, not when it was made. */
static void a_producer_beyond_what_was_answered_halts_the_ring(void **state)
{
	int entry = 0;

	(void)state;
	begin(0, false);
	for (unsigned i = 0; i < 32; i++)
		ask(front_one(0, i, 0, 5, 0, 7));
	for (unsigned i = 0; i < 32; i++)
		entry = ring_take(&ring);
	assert_true(entry >= 0);
	assert_int_equal(ring_take(&ring), RING_NONE);
	ring_answer(&ring, entry, RING_OKAY);
	*front_word(&front, 0) = 33;
	assert_int_equal(ring_take(&ring), RING_BROKEN);
	ring_answer(&ring, entry ? 0 : 1, RING_OKAY); /* what was taken ends as ever */
	ring_publish(&ring);
	assert_int_equal(*front_word(&front, 8), 2);
}

static void a_producer_that_goes_back_halts_the_ring(void **state)
{
	(void)state;
	begin(0, false);
	ask(front_one(0, 1, 0, 5, 0, 7));
	ask(front_one(0, 2, 0, 5, 0, 7));
	assert_true(ring_take(&ring) >= 0);
	assert_true(ring_take(&ring) >= 0);
	*front_word(&front, 0) = 1;
	assert_int_equal(ring_take(&ring), RING_BROKEN);
}

/* rsp_prod and rsp_event are the guest's to write, and nothing to us. */
static void what_the_guest_writes_over_our_numbers_is_not_read(void **state)
{
	int entry;

	(void)state;
	begin(0, false);
	for (unsigned i = 0; i < 40; i++) {
		*front_word(&front, 8) = 0xdeadbeef * i;
		*front_word(&front, 4) = 0xdeadbeef * i;
		ask(front_one(0, i, 0, 5, 0, 7));
		entry = ring_take(&ring);
		assert_true(entry >= 0);
		*front_word(&front, 8) = 0xcafe0000 + i;
		ring_answer(&ring, entry, RING_OKAY);
		ring_publish(&ring);
		assert_int_equal(*front_word(&front, 8), i + 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ring_of_each_order_has_so_many_entries),
		cmocka_unit_test(a_request_is_read_field_by_field_in_both_layouts),
		cmocka_unit_test(every_request_gets_its_answer_once_round_after_round),
		cmocka_unit_test(numbers_go_past_the_end_of_32_bits),
		cmocka_unit_test(one_notification_is_enough_for_a_batch),
		cmocka_unit_test(who_arms_sees_what_came_just_before),
		cmocka_unit_test(an_indirect_request_is_read_in_both_layouts_and_answered_by_what_is_inside),
		cmocka_unit_test(a_good_request_says_which_bytes),
		cmocka_unit_test(nothing_outside_the_disk_passes),
		cmocka_unit_test(segments_are_one_to_eleven_and_inside_their_pages),
		cmocka_unit_test(an_indirect_request_has_one_to_32_segments_inside_pages_and_the_disk),
		cmocka_unit_test(what_is_not_offered_is_refused_as_the_guest_expects),
		cmocka_unit_test(xsa_142_a_read_only_disk_is_not_written),
		cmocka_unit_test(xsa_155_a_slot_is_read_once),
		cmocka_unit_test(xsa_216_a_response_has_no_byte_of_ours_besides),
		cmocka_unit_test(cve_2010_4247_an_absurd_producer_halts_the_ring),
		cmocka_unit_test(a_producer_beyond_what_was_answered_halts_the_ring),
		cmocka_unit_test(a_producer_that_goes_back_halts_the_ring),
		cmocka_unit_test(what_the_guest_writes_over_our_numbers_is_not_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
