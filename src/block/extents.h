/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * extents - a list of data / zero / hole, in order, without overlaps
 */
#ifndef SXM_BLOCK_EXTENTS_H
#define SXM_BLOCK_EXTENTS_H

#include "base/compiler.h"
#include "base/range.h"

/* As NBD's base:allocation: a hole that reads as zero is EXTENT_HOLE | EXTENT_ZERO. 0: data. */
enum { EXTENT_HOLE = 1, EXTENT_ZERO = 2 };

struct extent {
	struct range range;
	unsigned type;
};

struct extents {
	size_t count, capacity, max; /* max: no more than so many (0: no bound) */
	struct extent *item;         /* owned */
};

void extents_init(struct extents *x, size_t max);
void extents_fini(struct extents *x);
/* Appends r, which starts at or after the end of the last; merges with an adjacent last extent of the same type.
 * 1: full (max reached, not added); 0: added; -1: out of memory. */
int extents_add(struct extents *x, struct range r, unsigned type);

#endif
