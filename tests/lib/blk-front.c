/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * blk-front - see blk-front.h
 */
#include "tests/lib/blk-front.h"

#include <string.h>

void front_init(struct front *f, void *shared, unsigned order, bool is_32)
{
	memset(shared, 0, (size_t)4096 << order);
	*f = (struct front){ .shared = shared, .is_32 = is_32, .entries = 32u << order };
	*front_word(f, 4) = 1;
	*front_word(f, 12) = 1;
}

uint32_t *front_word(struct front *f, unsigned at)
{
	return (uint32_t *)(void *)(f->shared + at);
}

uint8_t *front_slot(struct front *f, uint32_t n)
{
	return f->shared + 64 + (size_t)(n % f->entries) * (f->is_32 ? 108 : 112);
}

void front_put_segment(void *page, unsigned n, struct front_segment s)
{
	uint8_t *at = (uint8_t *)page + (size_t)n * 8;

	memset(at, 0, 8);
	memcpy(at, &s.gref, 4);
	at[4] = s.first;
	at[5] = s.last;
}

static void put_indirect(const struct front *f, uint8_t *slot, const struct front_request *q)
{
	slot[1] = q->inner;
	memcpy(slot + 2, &q->many, 2);
	memcpy(slot + (f->is_32 ? 24 : 28), &q->page, 4);
}

void front_put(struct front *f, const struct front_request *q)
{
	uint8_t *slot = front_slot(f, f->asked++);
	size_t id = f->is_32 ? 4 : 8, sector = f->is_32 ? 12 : 16, rest = f->is_32 ? 20 : 24;

	memset(slot, 0, f->is_32 ? 108 : 112);
	slot[0] = q->op;
	slot[1] = q->segments;
	memcpy(slot + id, &q->id, 8);
	memcpy(slot + sector, &q->sector, 8);
	if (q->op == 6)
		put_indirect(f, slot, q);
	else if (q->op == 5)
		memcpy(slot + rest, &q->sectors, 8);
	for (unsigned i = 0; q->op < 5 && i < 11; i++)
		front_put_segment(slot + rest, i, q->segment[i]);
}

bool front_push(struct front *f)
{
	uint32_t before = *front_word(f, 0), wanted;

	__atomic_store_n(front_word(f, 0), f->asked, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	wanted = __atomic_load_n(front_word(f, 4), __ATOMIC_ACQUIRE);
	return f->asked - wanted < f->asked - before;
}

bool front_take(struct front *f, struct front_response *out)
{
	const uint8_t *slot;

	if (__atomic_load_n(front_word(f, 8), __ATOMIC_ACQUIRE) == f->heard) {
		__atomic_store_n(front_word(f, 12), f->heard + 1, __ATOMIC_RELEASE);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(front_word(f, 8), __ATOMIC_ACQUIRE) == f->heard)
			return false;
	}
	slot = front_slot(f, f->heard++);
	memcpy(&out->id, slot, 8);
	out->op = slot[8];
	memcpy(&out->status, slot + 10, 2);
	return true;
}

struct front_request front_indirect(uint8_t inner, uint64_t id, uint64_t sector, uint32_t page, uint16_t many)
{
	return (struct front_request){ .op = 6, .inner = inner, .id = id, .sector = sector, .page = page, .many = many };
}

struct front_request front_one(uint8_t op, uint64_t id, uint64_t sector, uint32_t gref, uint8_t first, uint8_t last)
{
	return (struct front_request){
		.op = op, .segments = 1, .id = id, .sector = sector, .segment = { { gref, first, last } },
	};
}
