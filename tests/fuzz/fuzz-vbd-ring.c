/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Any bytes as a guest's shared pages, changed between any two steps of ours: what passes the verdict is inside the disk and its
 * segments inside their pages, no more is taken than a ring holds, each is answered once, what an indirect one misses is put into
 * the book where it has its place; and a book with any bytes in it is taken up or refused.
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
const char *const fuzz_words[] = { "\x20", "\x21", "\xff\xff\xff\xff", "1gnirmxs", "\x01\x0b", "\x05\x01", "\x06\x01\x20", "\x06\x01\x0c", NULL };

static void insist(bool is_so)
{
	if (!is_so)
		abort();
}

static void check(struct ring *r, int entry)
{
	const struct ring_request *q = ring_request(r, entry);
	const struct ring_segment *segment = ring_segments(r, entry);
	struct ring_rest rest;

	for (unsigned bits = 0; bits < 4; bits++) {
		const struct ring_terms terms = { DISK_BYTES, bits & 1, bits & 2 };
		uint64_t sectors = 0;
		struct range range;

		if (ring_judge(r, entry, &terms, &range) != RING_OKAY)
			continue;
		insist(range.start <= range.end && range.end <= DISK_BYTES && range.start % RING_SECTOR_BYTES == 0);
		insist(!ring_misses(r, entry, &rest));
		insist(!terms.is_read_only || q->op == RING_READ || q->op == RING_FLUSH);
		insist(q->op != RING_DISCARD || (terms.can_discard && !(q->segments & 1)));
		if (q->op != RING_READ && q->op != RING_WRITE)
			continue;
		insist(q->segments >= 1 && q->segments <= RING_INDIRECT_MAX && range_length(range) <= RING_REQUEST_BYTES_MAX);
		for (unsigned i = 0; i < q->segments; i++) {
			insist(segment[i].first <= segment[i].last && segment[i].last < 8);
			sectors += segment[i].last - segment[i].first + 1u;
		}
		insist(sectors * RING_SECTOR_BYTES == range_length(range));
	}
}

/* Its page is one of the ring's: so its contents are what the guest likes. */
static void complete(struct ring *r, int entry)
{
	struct ring_rest rest;
	uint8_t *to;

	if (!ring_misses(r, entry, &rest))
		return;
	to = rest.memory;
	insist(to == (uint8_t *)r->book->indirect[entry] && rest.bytes && rest.bytes <= sizeof(r->book->indirect[entry]));
	memcpy(to, r->shared + rest.gref % (RING_PAGE_BYTES - RING_PAGE_BYTES / 8), rest.bytes);
	ring_complete(r, entry);
	insist(!ring_misses(r, entry, &rest));
	check(r, entry);
}

/* Takes what there is, answers some of it. */
static void step(struct ring *r, uint8_t how)
{
	unsigned taken = 0, at = 0;
	int entry;

	while ((entry = ring_take(r)) >= 0) {
		check(r, entry);
		if (!(how & 0x40)) /* else it is killed before that, perhaps */
			complete(r, entry);
		insist(++taken <= r->entries);
	}
	insist(r->is_broken || ring_open_requests(r) <= r->entries);
	while (how & 3 && (entry = ring_next_left(r, &at)) >= 0) {
		check(r, entry);
		complete(r, entry);
		if (how & 1 || at % 3 == 0)
			ring_answer(r, entry, how & 4 ? RING_ERROR : RING_OKAY);
	}
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
	if (bytes && data[0] & 0x20) {
		book->magic = RING_BOOK_MAGIC;
		book->identity = 7;
		book->entry[3].stage = data[0] & 3;
		book->entry[3].form = data[0] >> 2 & 3;
		book->entry[3].request.segments = 12;
	}
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
