/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Any bytes as a guest's shared pages, changed between any two steps of ours: what passes the verdict is inside the disk and its
 * segments inside their pages, no more is taken than a ring holds, each is answered once; and a book with any bytes in it is
 * taken up or refused.
 *
 * The input: a byte (order, layout, whether the book is rubbish, too), then pieces: where to write, how much, bytes; a step of
 * ours after each.
 */
#include <stdlib.h>
#include <string.h>

#include "vbd/ring.h"

#define DISK_BYTES (1 * GiB + 1536)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
extern const char *const fuzz_words[];
const char *const fuzz_words[] = { "\x20", "\x21", "\xff\xff\xff\xff", "1gnirmxs", "\x01\x0b", "\x05\x01", NULL };

static void insist(bool is_so)
{
	if (!is_so)
		abort();
}

static void check(const struct ring *r, int entry)
{
	const struct ring_request *q = ring_request(r, entry);

	for (unsigned bits = 0; bits < 4; bits++) {
		const struct ring_terms terms = { DISK_BYTES, bits & 1, bits & 2 };
		uint64_t sectors = 0;
		struct range range;

		if (ring_judge(q, &terms, &range) != RING_OKAY)
			continue;
		insist(range.start <= range.end && range.end <= DISK_BYTES && range.start % RING_SECTOR_BYTES == 0);
		insist(!terms.is_read_only || q->op == RING_READ || q->op == RING_FLUSH);
		insist(q->op != RING_DISCARD || (terms.can_discard && !(q->segments & 1)));
		if (q->op != RING_READ && q->op != RING_WRITE)
			continue;
		insist(q->segments >= 1 && q->segments <= RING_SEGMENTS_MAX && range_length(range) <= RING_REQUEST_BYTES_MAX);
		for (unsigned i = 0; i < q->segments; i++) {
			insist(q->segment[i].first <= q->segment[i].last && q->segment[i].last < 8);
			sectors += q->segment[i].last - q->segment[i].first + 1u;
		}
		insist(sectors * RING_SECTOR_BYTES == range_length(range));
	}
}

/* Takes what there is, answers some of it. */
static void step(struct ring *r, uint8_t how)
{
	unsigned taken = 0, at = 0;
	int entry;

	while ((entry = ring_take(r)) >= 0) {
		check(r, entry);
		insist(++taken <= r->entries);
	}
	insist(r->is_broken || ring_open_requests(r) <= r->entries);
	while (how & 3 && (entry = ring_next_left(r, &at)) >= 0)
		if (how & 1 || at % 3 == 0)
			ring_answer(r, entry, how & 4 ? RING_ERROR : RING_OKAY);
	if (how & 8)
		ring_publish(r);
	if (how & 16)
		ring_arm(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	unsigned order = bytes ? data[0] % (RING_ORDER_MAX + 1) : 0;
	uint8_t *pages = aligned_alloc(RING_PAGE_BYTES, RING_PAGE_BYTES << order);
	struct ring_book *book = calloc(1, sizeof(*book));
	struct ring *r = calloc(1, sizeof(*r));
	size_t at = 1;

	insist(pages && book && r);
	memset(pages, 0, RING_PAGE_BYTES << order);
	if (bytes && data[0] & 0x40)
		memcpy(book, data, MIN(bytes, sizeof(*book)));
	if (bytes && data[0] & 0x20)
		*book = (struct ring_book){ .magic = RING_BOOK_MAGIC, .identity = 7, .entry[3].stage = data[0] & 3 };
	ring_open(r, pages, order, bytes && data[0] & 0x80 ? RING_X86_32 : RING_X86_64, book, 7);
	while (at + 4 <= bytes) {
		uint32_t where = (data[at] | (uint32_t)data[at + 1] << 8) % (RING_PAGE_BYTES << order);
		size_t count = MIN((size_t)data[at + 2], bytes - at - 4);

		if (where + count <= RING_PAGE_BYTES << order)
			memcpy(pages + where, data + at + 4, count);
		step(r, data[at + 3]);
		if (data[at + 3] & 0x20) /* killed, and another one comes */
			ring_open(r, pages, order, r->abi, book, 7);
		at += 4 + count;
	}
	free(r);
	free(book);
	free(pages);
	return 0;
}
