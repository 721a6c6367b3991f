/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * memory-layer - see memory-layer.h
 *
 * Every request ends at once. One bit per 4 KiB tells whether it was written; a hole's bytes are zero.
 */
#include "tests/lib/memory-layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"
#include "block/extents.h"

#define UNIT_BYTES 4096u

struct memory {
	struct layer layer;
	uint8_t *bytes;         /* owned */
	struct bitmap *written; /* owned */
	unsigned flushes, durable_writes, hints;
};

static struct memory *memory_of(const struct layer *l)
{
	return container_of(l, struct memory, layer);
}

/* Whole units inside the range become holes when they may. */
static void zero(struct memory *m, struct range r, bool may_be_hole)
{
	struct range inner = range_shrink(r, UNIT_BYTES), outer = range_widen(r, UNIT_BYTES);

	memset(m->bytes + r.start, 0, range_length(r));
	if (may_be_hole)
		bitmap_clear(m->written, inner.start / UNIT_BYTES, inner.end / UNIT_BYTES);
	else
		bitmap_set(m->written, outer.start / UNIT_BYTES, outer.end / UNIT_BYTES);
}

static int find_extents(struct memory *m, const struct req *r)
{
	uint64_t at = r->range.start, next;

	while (at < r->range.end) {
		bool is_data = bitmap_test(m->written, at / UNIT_BYTES);
		struct range run;

		next = is_data ? bitmap_next_clear(m->written, at / UNIT_BYTES) : bitmap_next(m->written, at / UNIT_BYTES);
		run = (struct range){ at, MIN(next * UNIT_BYTES, r->range.end) };
		switch (extents_add(r->extents, run, is_data ? 0 : EXTENT_HOLE | EXTENT_ZERO)) {
		case -1:
			return ENOMEM;
		case 1:
			return 0;
		}
		at = run.end;
		if (r->flags & REQ_ONE)
			return 0;
	}
	return 0;
}

static void memory_submit(struct layer *l, struct req *r)
{
	struct memory *m = memory_of(l);
	struct range wide = range_widen(r->range, UNIT_BYTES);
	size_t bytes = range_length(r->range);
	int err = 0;

	m->durable_writes += (r->flags & REQ_FUA) != 0;
	switch (r->op) {
	case REQ_READ:
		memcpy(r->data->data + r->data_offset, m->bytes + r->range.start, bytes);
		break;
	case REQ_WRITE:
		memcpy(m->bytes + r->range.start, r->data->data + r->data_offset, bytes);
		bitmap_set(m->written, wide.start / UNIT_BYTES, wide.end / UNIT_BYTES);
		break;
	case REQ_ZERO:
		zero(m, r->range, r->flags & REQ_MAY_TRIM);
		break;
	case REQ_TRIM:
		zero(m, r->range, true);
		break;
	case REQ_FLUSH:
		m->flushes++;
		break;
	case REQ_EXTENTS:
		err = find_extents(m, r);
		break;
	case REQ_CACHE:
		m->hints++;
		break;
	}
	req_complete(r, err);
}

static void memory_close(struct layer *l)
{
	struct memory *m = memory_of(l);

	munmap(m->bytes, l->geometry.size_bytes);
	bitmap_free(m->written);
	free(m);
}

static const struct layer_ops memory_ops = { "memory", memory_submit, memory_close };

struct layer *memory_layer_new(uint64_t size_bytes)
{
	struct geometry g = {
		.size_bytes = size_bytes,
		.block_bytes = 512,
		.optimal_bytes = UNIT_BYTES,
		.can_trim = true,
		.can_zero = true,
		.trim_reads_zero = true,
	};
	struct memory *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	m->written = bitmap_new((size_bytes + UNIT_BYTES - 1) / UNIT_BYTES);
	if (m->bytes == MAP_FAILED || !m->written) {
		if (m->bytes != MAP_FAILED)
			munmap(m->bytes, size_bytes);
		bitmap_free(m->written);
		free(m);
		return NULL;
	}
	layer_init(&m->layer, &memory_ops, NULL, &g);
	return &m->layer;
}

uint8_t *memory_layer_bytes(struct layer *l)
{
	return memory_of(l)->bytes;
}

unsigned memory_layer_flushes(const struct layer *l)
{
	return memory_of(l)->flushes;
}

unsigned memory_layer_durable_writes(const struct layer *l)
{
	return memory_of(l)->durable_writes;
}

unsigned memory_layer_hints(const struct layer *l)
{
	return memory_of(l)->hints;
}
