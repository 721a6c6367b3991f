/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * copy-memory - see copy-memory.h
 *
 *      slots    |0 1 2 3 4 5 6 7|8 9 ...           eight to a huge page; the lowest ones that are free, and enough together
 *      pages    [made          ][made when needed, and kept until they are trimmed]
 *
 * The lowest first, so that as few pages are touched as copies are alive at once; the core's budget bounds their bytes. A copy
 * shorter than half a slot would waste it: guests leave single chunks behind, a hundred copies at a time.
 *
 * Can fail:    no memory; the caller tries again later.
 */
#include "mirror/copy-memory.h"

#include <stdlib.h>

#define PAGE_SLOTS (IOBUF_HUGE_BYTES / COPY_SLOT_BYTES)
/* No bound that anybody meets: that is the core's budget. */
#define PAGES (CORE_COPIES_MAX * COPY_LONGEST_BYTES / IOBUF_HUGE_BYTES)
#define SHORT_BYTES (COPY_SLOT_BYTES / 2)
#define CEILING_BYTES (PAGES * IOBUF_HUGE_BYTES + (size_t)CORE_COPIES_MAX * SHORT_BYTES)
#define KEPT_PAGES 2u

_Static_assert(PAGE_SLOTS == 8, "a byte has a bit for each slot of a page");

struct copy_memory {
	struct iobuf_pool *pool;         /* owned */
	struct iobuf *page[PAGES];       /* owned */
	uint8_t taken[PAGES];            /* a bit for each slot */
};

struct copy_memory *copy_memory_new(void)
{
	struct copy_memory *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->pool = iobuf_pool_new(CEILING_BYTES);
	if (!m->pool) {
		free(m);
		return NULL;
	}
	return m;
}

void copy_memory_free(struct copy_memory *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < PAGES; i++) {
		assert(!m->taken[i]);
		iobuf_return(m->page[i]);
	}
	iobuf_pool_free(m->pool);
	free(m);
}

/* The lowest `count` slots of a page that lie together and are free, as bits; 0: there are none. */
static uint8_t find_slots(uint8_t taken, unsigned count)
{
	unsigned slots = (1u << count) - 1;

	for (unsigned first = 0; first + count <= PAGE_SLOTS; first++, slots <<= 1)
		if (!(taken & slots))
			return (uint8_t)slots;
	return 0;
}

static bool get_slots(struct copy_memory *m, unsigned count, struct copy_bytes *b)
{
	unsigned i = 0;
	uint8_t slots;

	while (i < PAGES && !find_slots(m->taken[i], count))
		i++;
	if (i == PAGES)
		return false;
	if (!m->page[i])
		m->page[i] = iobuf_get(m->pool, IOBUF_HUGE_BYTES);
	if (!m->page[i])
		return false;
	slots = find_slots(m->taken[i], count);
	m->taken[i] |= slots;
	*b = (struct copy_bytes){ .buffer = m->page[i], .page = i, .slots = slots };
	b->offset = (uint32_t)__builtin_ctz(slots) * COPY_SLOT_BYTES;
	return true;
}

bool copy_memory_get(struct copy_memory *m, size_t bytes, struct copy_bytes *b)
{
	struct iobuf *own;

	assert(bytes <= COPY_LONGEST_BYTES);
	if (bytes > SHORT_BYTES)
		return get_slots(m, (unsigned)((bytes + COPY_SLOT_BYTES - 1) / COPY_SLOT_BYTES), b);
	own = iobuf_get(m->pool, bytes);
	if (!own)
		return false;
	*b = (struct copy_bytes){ .buffer = own };
	return true;
}

void copy_memory_put(struct copy_memory *m, struct copy_bytes *b)
{
	if (!b->buffer)
		return;
	if (b->slots)
		m->taken[b->page] &= (uint8_t)~b->slots;
	else
		iobuf_return(b->buffer);
	*b = (struct copy_bytes){ 0 };
}

void copy_memory_trim(struct copy_memory *m)
{
	for (unsigned i = KEPT_PAGES; i < PAGES; i++) {
		if (m->taken[i] || !m->page[i])
			continue;
		iobuf_return(m->page[i]);
		m->page[i] = NULL;
	}
}

size_t copy_memory_bytes(const struct copy_memory *m)
{
	return iobuf_pool_used(m->pool);
}
