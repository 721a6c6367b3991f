/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * copy-memory - see copy-memory.h
 *
 *      slots    |0 1 2 3 4 5 6 7|8 9 ...           eight to a huge page, the lowest free one is taken
 *      pages    [made          ][made when needed, and kept until the mirror ends]
 *
 * The lowest first, so that as few pages are touched as copies are alive at once; the core's budget bounds their bytes. A copy
 * shorter than half a slot would waste it: guests leave single chunks behind, a hundred copies at a time.
 *
 * Can fail:    no memory; the caller tries again later.
 */
#include "mirror/copy-memory.h"

#include <stdlib.h>

#define SLOTS CORE_COPIES_MAX
#define PAGE_SLOTS (IOBUF_HUGE_BYTES / COPY_SLOT_BYTES)
#define PAGES (SLOTS / PAGE_SLOTS)
#define SHORT_BYTES (COPY_SLOT_BYTES / 2)
/* No bound that anybody meets: that is the core's budget. */
#define CEILING_BYTES (PAGES * IOBUF_HUGE_BYTES + (size_t)SLOTS * SHORT_BYTES)

struct copy_memory {
	struct iobuf_pool *pool;         /* owned */
	struct iobuf *page[PAGES];       /* owned */
	bool is_taken[SLOTS];
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
	for (unsigned i = 0; i < SLOTS; i++)
		assert(!m->is_taken[i]);
	for (unsigned i = 0; i < PAGES; i++)
		iobuf_return(m->page[i]);
	iobuf_pool_free(m->pool);
	free(m);
}

static bool get_slot(struct copy_memory *m, struct copy_bytes *b)
{
	unsigned slot = 0;
	struct iobuf **page;

	while (slot < SLOTS && m->is_taken[slot])
		slot++;
	if (slot == SLOTS)
		return false;
	page = &m->page[slot / PAGE_SLOTS];
	if (!*page)
		*page = iobuf_get(m->pool, IOBUF_HUGE_BYTES);
	if (!*page)
		return false;
	m->is_taken[slot] = true;
	*b = (struct copy_bytes){ .buffer = *page, .offset = (uint32_t)(slot % PAGE_SLOTS * COPY_SLOT_BYTES), .slot = slot };
	return true;
}

bool copy_memory_get(struct copy_memory *m, size_t bytes, struct copy_bytes *b)
{
	struct iobuf *own;

	assert(bytes <= COPY_SLOT_BYTES);
	if (bytes > SHORT_BYTES)
		return get_slot(m, b);
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
	if (b->buffer == m->page[b->slot / PAGE_SLOTS])
		m->is_taken[b->slot] = false;
	else
		iobuf_return(b->buffer);
	*b = (struct copy_bytes){ 0 };
}
