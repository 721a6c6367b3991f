/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-mask - which chunks of one copy: bit i is the i-th of its range
 */
#ifndef SXM_MIRROR_CORE_MASK_H
#define SXM_MIRROR_CORE_MASK_H

#include "base/compiler.h"

#define CORE_COPY_CHUNKS 128u /* in one copy, at most; a multiple of 64 */
#define CORE_MASK_WORDS (CORE_COPY_CHUNKS / 64)

struct core_mask {
	uint64_t word[CORE_MASK_WORDS];
};

static inline bool core_mask_test(const struct core_mask *m, uint64_t bit)
{
	return m->word[bit / 64] >> (bit % 64) & 1;
}

static inline void core_mask_set(struct core_mask *m, uint64_t bit)
{
	m->word[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static inline void core_mask_clear(struct core_mask *m, uint64_t bit)
{
	m->word[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

static inline bool core_mask_is_empty(const struct core_mask *m)
{
	uint64_t any = 0;

	for (unsigned i = 0; i < CORE_MASK_WORDS; i++)
		any |= m->word[i];
	return any == 0;
}

static inline unsigned core_mask_count(const struct core_mask *m)
{
	unsigned count = 0;

	for (unsigned i = 0; i < CORE_MASK_WORDS; i++)
		count += (unsigned)__builtin_popcountll(m->word[i]);
	return count;
}

/* What of a is not in b. */
static inline struct core_mask core_mask_without(struct core_mask a, const struct core_mask *b)
{
	for (unsigned i = 0; i < CORE_MASK_WORDS; i++)
		a.word[i] &= ~b->word[i];
	return a;
}

/* The first and the last of a mask that is not empty. */
static inline unsigned core_mask_first(const struct core_mask *m)
{
	unsigned i = 0;

	while (!m->word[i])
		i++;
	return i * 64 + (unsigned)__builtin_ctzll(m->word[i]);
}

static inline unsigned core_mask_last(const struct core_mask *m)
{
	unsigned i = CORE_MASK_WORDS - 1;

	while (!m->word[i])
		i--;
	return i * 64 + 63 - (unsigned)__builtin_clzll(m->word[i]);
}

/* What of m lies outside [first, last]. */
static inline struct core_mask core_mask_outside(struct core_mask m, unsigned first, unsigned last)
{
	for (unsigned i = first; i <= last; i++)
		core_mask_clear(&m, i);
	return m;
}

#endif
