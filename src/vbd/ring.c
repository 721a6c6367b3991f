/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ring - see ring.h
 *
 *      shared pages:   req_prod req_event rsp_prod rsp_event ... 64 bytes | slot 0 | slot 1 | ... entries-1
 *                      the guest writes req_prod, rsp_event and requests; we write rsp_prod, req_event and responses
 *
 *      numbers, mod 2^32:    published <= answered <= taken <= req_prod <= published + entries
 *
 * Requests are answered in any order, and a response goes to the slot after the last response, whosever request that held: so a
 * request that was taken may be in the book alone.
 *
 * The book.  take: entry filled, then `taken`.  answer: entry says with which response, then `answered`, then the slot.
 * publish: rsp_prod, then the entries are free.  A process that dies between any two of these leaves what its successor can tell:
 *
 *      entry TAKEN, at = taken                  it was not taken: it is still in its slot, which no response can reach
 *      entry TAKEN                              to be done (again: the guest has no answer, so nothing that it knows is undone)
 *      entry ANSWERED, at >= answered           the same as TAKEN: nothing was written to the slot
 *      entry ANSWERED, rsp_prod <= at           the response is written once more, with the same contents
 *      entry ANSWERED, at < rsp_prod            the guest has it
 *
 * Of a request with more segments than a slot has room for, the slot says in which page of the guest's they are; they are copied
 * into the book, and then its form says that they are there: who comes before that copies them again, nobody does so after it.
 *
 * Can fail: req_prod beyond what the ring holds; then the ring is broken, nothing more is taken, and what was taken is answered.
 * Never happens: a shared word read twice for one decision, an index that is not masked, an assertion on what a guest wrote.
 */
#include "vbd/ring.h"

#include <string.h>

#define HEADER_BYTES 64u
enum { REQ_PROD = 0, REQ_EVENT = 4, RSP_PROD = 8, RSP_EVENT = 12 };
#define SECTORS_PER_PAGE (RING_PAGE_BYTES / RING_SECTOR_BYTES)
#define DISCARD_SECURE 1u
#define SLOT_BYTES_MAX 112u

/* Where the fields are, by the guest's alignment of 64 bits. */
static const struct layout {
	uint32_t slot_bytes, response_bytes;
	uint32_t id, sector, segment, discard_sectors, page;
} layouts[] = {
	[RING_X86_64] = { 112, 16, 8, 16, 24, 24, 28 },
	[RING_X86_32] = { 108, 12, 4, 12, 20, 20, 24 },
};
#define INDIRECT_OP 1u
#define INDIRECT_SEGMENTS 2u
#define RESPONSE_OP 8u
#define RESPONSE_STATUS 10u
#define SEGMENT_BYTES 8u

uint32_t ring_entries(unsigned order)
{
	uint32_t slots, entries = 1;

	assert(order <= RING_ORDER_MAX);
	slots = ((RING_PAGE_BYTES << order) - HEADER_BYTES) / SLOT_BYTES_MAX;
	while (entries * 2 <= slots)
		entries *= 2;
	return entries;
}

static uint32_t load(const struct ring *r, unsigned word)
{
	return __atomic_load_n((const uint32_t *)(const void *)(r->shared + word), __ATOMIC_ACQUIRE);
}

static void store(struct ring *r, unsigned word, uint32_t value)
{
	__atomic_store_n((uint32_t *)(void *)(r->shared + word), value, __ATOMIC_RELEASE);
}

/* Of the book: between what was written before and what is written after, for whoever reads it when we were killed. */
static void note(uint32_t *field, uint32_t value)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(field, value, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static uint8_t *slot_of(const struct ring *r, uint32_t number)
{
	return r->shared + HEADER_BYTES + (size_t)(number & (r->entries - 1)) * layouts[r->abi].slot_bytes;
}

/* --- the book */

static bool is_plausible(const struct ring_book *b, uint32_t entries)
{
	if (b->taken - b->answered > entries)
		return false;
	for (unsigned i = 0; i < RING_ENTRIES_MAX; i++)
		if (b->entry[i].stage > RING_ANSWERED || b->entry[i].form > RING_WHOLE)
			return false;
	return true;
}

static void begin_book(struct ring *r, uint32_t identity)
{
	struct ring_book *b = r->book;
	uint32_t shown = load(r, RSP_PROD);

	note(&b->identity, ~identity); /* until it is whole */
	memset(b->entry, 0, sizeof(b->entry));
	b->magic = RING_BOOK_MAGIC;
	b->taken = b->answered = shown;
	note(&b->identity, identity);
	r->published = shown;
}

static void write_response(struct ring *r, uint32_t number, uint64_t id, uint8_t op, int32_t status)
{
	const struct layout *l = &layouts[r->abi];
	uint8_t response[16] = { 0 }; /* no byte of ours goes along */
	int16_t narrow = (int16_t)status;

	memcpy(response, &id, sizeof(id));
	response[RESPONSE_OP] = op;
	memcpy(response + RESPONSE_STATUS, &narrow, sizeof(narrow));
	memcpy(slot_of(r, number), response, l->response_bytes);
}

/* What the dead process had in its hands. */
static bool take_up(struct ring *r)
{
	struct ring_book *b = r->book;
	uint32_t shown = load(r, RSP_PROD), made = 0, left = 0;

	if (b->answered - shown > r->entries || b->taken - shown > r->entries)
		return false;
	r->published = shown;
	for (unsigned i = 0; i < RING_ENTRIES_MAX; i++) {
		struct ring_entry *e = &b->entry[i];
		bool is_made = e->stage == RING_ANSWERED && e->at - shown < b->answered - shown;

		if (is_made) {
			write_response(r, e->at, e->request.id, e->request.op, e->status);
			r->hidden[made++] = (uint16_t)i;
		} else if (e->stage == RING_ANSWERED && shown - e->at - 1 < r->entries) {
			note(&e->stage, RING_FREE);
		} else if (e->stage == RING_ANSWERED) {
			note(&e->stage, RING_TAKEN); /* its response was not written */
		} else if (e->stage == RING_TAKEN && e->at == b->taken) {
			note(&e->stage, RING_FREE);  /* it was not taken */
		}
		left += e->stage == RING_TAKEN;
	}
	r->hiddens = made;
	return made == b->answered - shown && left == b->taken - b->answered;
}

bool ring_open(struct ring *r, void *shared, unsigned order, enum ring_abi abi, struct ring_book *book, uint32_t identity)
{
	memset(r, 0, sizeof(*r));
	r->shared = shared;
	r->book = book;
	r->abi = abi;
	r->entries = ring_entries(order);
	if (book->magic == RING_BOOK_MAGIC && book->identity == identity && is_plausible(book, r->entries))
		r->is_broken = !take_up(r);
	else
		begin_book(r, identity);
	for (unsigned i = RING_ENTRIES_MAX; i-- > 0;)
		if (book->entry[i].stage == RING_FREE)
			r->spare[r->spares++] = (uint16_t)i;
	return !r->is_broken;
}

int ring_next_left(const struct ring *r, unsigned *at)
{
	while (*at < RING_ENTRIES_MAX) {
		unsigned entry = (*at)++;

		if (r->book->entry[entry].stage == RING_TAKEN)
			return (int)entry;
	}
	return RING_NONE;
}

uint32_t ring_open_requests(const struct ring *r)
{
	return r->book->taken - r->book->answered;
}

/* --- requests */

/* Each word once: what the guest writes meanwhile is in the copy or not, and the copy does not change. */
static void copy_slot(const struct ring *r, uint32_t number, uint8_t *copy)
{
	const volatile uint32_t *from = (const volatile uint32_t *)(const void *)slot_of(r, number);

	for (unsigned i = 0; i < layouts[r->abi].slot_bytes / 4; i++) {
		uint32_t word = from[i];

		memcpy(copy + 4 * i, &word, sizeof(word));
	}
}

static void parse_indirect(const uint8_t *copy, const struct layout *l, struct ring_request *q)
{
	uint16_t segments;

	memcpy(&segments, copy + INDIRECT_SEGMENTS, sizeof(segments));
	q->op = copy[INDIRECT_OP];
	q->segments = (uint8_t)MIN(segments, (uint16_t)UINT8_MAX);
	memcpy(&q->segment[0].gref, copy + l->page, sizeof(q->segment[0].gref));
}

static void parse(const uint8_t *copy, const struct layout *l, struct ring_entry *e)
{
	struct ring_request *q = &e->request;

	memset(q, 0, sizeof(*q));
	q->op = copy[0];
	q->segments = copy[1];
	e->form = q->op == RING_INDIRECT ? RING_UNREAD : RING_DIRECT;
	memcpy(&q->id, copy + l->id, sizeof(q->id));
	memcpy(&q->sector, copy + l->sector, sizeof(q->sector));
	if (q->op == RING_INDIRECT) {
		parse_indirect(copy, l, q);
		return;
	}
	if (q->op == RING_DISCARD) {
		memcpy(&q->sectors, copy + l->discard_sectors, sizeof(q->sectors));
		return;
	}
	for (unsigned i = 0; i < RING_SEGMENTS_MAX; i++) {
		const uint8_t *segment = copy + l->segment + i * SEGMENT_BYTES;

		memcpy(&q->segment[i].gref, segment, sizeof(q->segment[i].gref));
		q->segment[i].first = segment[4];
		q->segment[i].last = segment[5];
	}
}

bool ring_has_more(const struct ring *r)
{
	return !r->is_broken && load(r, REQ_PROD) != r->book->taken;
}

int ring_take(struct ring *r)
{
	uint8_t copy[SLOT_BYTES_MAX];
	struct ring_book *b = r->book;
	struct ring_entry *e;
	uint32_t made;
	int entry;

	if (r->is_broken)
		return RING_BROKEN;
	made = load(r, REQ_PROD);
	if (made == b->taken)
		return RING_NONE;
	/* So many it cannot have asked: it may use a slot again when it was shown that slot's response. */
	if (made - r->published > r->entries || made - b->taken > r->entries || !r->spares) {
		r->is_broken = true;
		return RING_BROKEN;
	}
	copy_slot(r, b->taken, copy);
	entry = r->spare[--r->spares];
	e = &b->entry[entry];
	parse(copy, &layouts[r->abi], e);
	e->at = b->taken;
	note(&e->stage, RING_TAKEN);
	note(&b->taken, b->taken + 1);
	return entry;
}

static bool is_transfer(const struct ring_request *q)
{
	return q->op == RING_READ || q->op == RING_WRITE;
}

static bool is_count(const struct ring_entry *e)
{
	unsigned max = e->form == RING_DIRECT ? RING_SEGMENTS_MAX : RING_INDIRECT_MAX;

	return e->request.segments >= 1 && e->request.segments <= max;
}

bool ring_misses(struct ring *r, int entry, struct ring_rest *out)
{
	const struct ring_entry *e = &r->book->entry[entry];

	if (e->form != RING_UNREAD || !is_transfer(&e->request) || !is_count(e))
		return false;
	*out = (struct ring_rest){
		.gref = e->request.segment[0].gref,
		.bytes = (uint16_t)(e->request.segments * sizeof(struct ring_segment)),
		.memory = r->book->indirect[entry],
	};
	return true;
}

void ring_complete(struct ring *r, int entry)
{
	assert(r->book->entry[entry].form == RING_UNREAD);
	note(&r->book->entry[entry].form, RING_WHOLE);
}

static bool add_segments(const struct ring *r, int entry, uint64_t *sectors)
{
	const struct ring_segment *segment = ring_segments(r, entry);

	if (!is_count(&r->book->entry[entry]))
		return false;
	*sectors = 0;
	for (unsigned i = 0; i < ring_request(r, entry)->segments; i++) {
		const struct ring_segment *s = &segment[i];

		if (s->first > s->last || s->last >= SECTORS_PER_PAGE)
			return false;
		*sectors += (uint64_t)(s->last - s->first + 1);
	}
	return true;
}

static bool is_inside(uint64_t sector, uint64_t sectors, uint64_t size_bytes, struct range *range)
{
	uint64_t end = size_bytes / RING_SECTOR_BYTES;

	if (sector > end || sectors > end - sector)
		return false;
	*range = (struct range){ sector * RING_SECTOR_BYTES, (sector + sectors) * RING_SECTOR_BYTES };
	return true;
}

enum ring_status ring_judge(const struct ring *r, int entry, const struct ring_terms *t, struct range *range)
{
	const struct ring_request *q = ring_request(r, entry);
	uint32_t form = r->book->entry[entry].form;
	uint64_t sectors;

	*range = (struct range){ 0, 0 };
	if (form != RING_DIRECT && (form != RING_WHOLE || !is_transfer(q)))
		return RING_ERROR;
	switch (q->op) {
	case RING_READ:
	case RING_WRITE:
		if (q->op == RING_WRITE && t->is_read_only)
			return RING_ERROR;
		if (!add_segments(r, entry, &sectors))
			return RING_ERROR;
		return is_inside(q->sector, sectors, t->size_bytes, range) ? RING_OKAY : RING_ERROR;
	case RING_FLUSH:
		return q->segments == 0 ? RING_OKAY : RING_ERROR;
	case RING_DISCARD:
		if (!t->can_discard || (q->segments & DISCARD_SECURE))
			return RING_NOT_SUPPORTED;
		if (t->is_read_only)
			return RING_ERROR;
		return is_inside(q->sector, q->sectors, t->size_bytes, range) ? RING_OKAY : RING_ERROR;
	default:
		return RING_NOT_SUPPORTED;
	}
}

/* --- responses */

void ring_answer(struct ring *r, int entry, enum ring_status status)
{
	struct ring_book *b = r->book;
	struct ring_entry *e = &b->entry[entry];

	assert(e->stage == RING_TAKEN);
	r->hidden[r->hiddens++] = (uint16_t)entry;
	e->at = b->answered;
	e->status = status;
	note(&e->stage, RING_ANSWERED);
	note(&b->answered, b->answered + 1);
	write_response(r, e->at, e->request.id, e->request.op, status);
}

bool ring_publish(struct ring *r)
{
	struct ring_book *b = r->book;
	uint32_t before = r->published, now = b->answered, wanted;

	if (before == now)
		return false;
	store(r, RSP_PROD, now);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* it is shown before it is asked whether anybody looks */
	wanted = load(r, RSP_EVENT);
	r->published = now;
	while (r->hiddens) {
		uint16_t entry = r->hidden[--r->hiddens];

		note(&b->entry[entry].stage, RING_FREE);
		r->spare[r->spares++] = entry;
	}
	return now - wanted < now - before;
}

bool ring_arm(struct ring *r)
{
	store(r, REQ_EVENT, r->book->taken + 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* the guest sees that we sleep, or we see what it asked before it looked */
	return ring_has_more(r);
}
