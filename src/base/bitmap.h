/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bitmap - a large, sparse set of small numbers, with a count and a fast "next"
 *
 * Two levels: the bits, in memory that is reserved at once and touched only where a bit is set, and a summary (one bit per
 * 64 words) that lets next() step over what was never touched.  2^36 bits cost nothing until set.
 */
#ifndef SXM_BASE_BITMAP_H
#define SXM_BASE_BITMAP_H

#include "base/compiler.h"

struct bitmap;

/* bits: 0 .. 2^40. All clear. NULL when address space runs out. */
struct bitmap *bitmap_new(uint64_t bits);
void bitmap_free(struct bitmap *b); /* NULL is allowed */

uint64_t bitmap_bits(const struct bitmap *b);
uint64_t bitmap_count(const struct bitmap *b); /* how many are set; O(1) */

bool bitmap_test(const struct bitmap *b, uint64_t bit);
/* All of [first, end) set? True for an empty range. */
bool bitmap_test_all(const struct bitmap *b, uint64_t first, uint64_t end);
bool bitmap_test_any(const struct bitmap *b, uint64_t first, uint64_t end);

/* Sets or clears [first, end); returns how many changed. */
uint64_t bitmap_set(struct bitmap *b, uint64_t first, uint64_t end);
uint64_t bitmap_clear(struct bitmap *b, uint64_t first, uint64_t end);

/* The first set (clear) bit at or after `from`; bitmap_bits() when there is none. */
uint64_t bitmap_next(const struct bitmap *b, uint64_t from);
uint64_t bitmap_next_clear(const struct bitmap *b, uint64_t from);

#endif
