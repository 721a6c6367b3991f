/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * range - half-open ranges of bytes: [start, end)
 */
#ifndef SXM_BASE_RANGE_H
#define SXM_BASE_RANGE_H

#include "base/compiler.h"

struct range {
	uint64_t start; /* bytes */
	uint64_t end;   /* bytes, not included; >= start */
};

/* offset + length from outside may overflow: false then, and *r is left alone. */
static inline bool range_from_length(struct range *r, uint64_t offset, uint64_t length)
{
	if (offset + length < offset)
		return false;
	*r = (struct range){ offset, offset + length };
	return true;
}

static inline uint64_t range_length(struct range r)
{
	return r.end - r.start;
}

static inline bool range_is_empty(struct range r)
{
	return r.start >= r.end;
}

static inline bool range_overlaps(struct range a, struct range b)
{
	return a.start < b.end && b.start < a.end;
}

static inline bool range_contains(struct range outer, struct range inner)
{
	return outer.start <= inner.start && inner.end <= outer.end;
}

/* The common part; empty when there is none. */
static inline struct range range_clip(struct range a, struct range b)
{
	struct range r = { MAX(a.start, b.start), MIN(a.end, b.end) };

	return r.start < r.end ? r : (struct range){ r.start, r.start };
}

/* The smallest range on multiples of `align` (a power of two) that contains r. */
static inline struct range range_widen(struct range r, uint64_t align)
{
	return (struct range){ r.start & ~(align - 1), (r.end + align - 1) & ~(align - 1) };
}

/* The largest range on multiples of `align` inside r; empty when there is none. */
static inline struct range range_shrink(struct range r, uint64_t align)
{
	struct range s = { (r.start + align - 1) & ~(align - 1), r.end & ~(align - 1) };

	return s.start < s.end ? s : (struct range){ r.start, r.start };
}

static inline bool range_is_aligned(struct range r, uint64_t align)
{
	return ((r.start | r.end) & (align - 1)) == 0;
}

#endif
