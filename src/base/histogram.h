/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * histogram - how often something took how long: a hundred counters, four for each power of two
 *
 *      us      0 1 2 3 4 5 6 7 8   10   12   14   16 ...   2^27 and more
 *      bucket  0 1 2 3 4 5 6 7 8   9    10   11   12 ...   103
 *
 * So what is read from one is right to a quarter. Two of them, taken one after the other, tell what was between: whoever looks
 * subtracts, and any number may look.
 */
#ifndef SXM_BASE_HISTOGRAM_H
#define SXM_BASE_HISTOGRAM_H

#include "base/compiler.h"

#define HISTOGRAM_BUCKETS 104u

struct histogram {
	uint64_t count[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t us)
{
	unsigned power, bucket;

	if (us < 4)
		return (unsigned)us;
	power = 63 - (unsigned)__builtin_clzll(us);
	bucket = 4 * (power - 1) + (unsigned)(us >> (power - 2) & 3);
	return MIN(bucket, HISTOGRAM_BUCKETS - 1);
}

static inline void histogram_add(struct histogram *h, uint64_t us)
{
	h->count[histogram_bucket(us)]++;
}

/* What is in the bucket took less than that; of the last one that is not so. */
static inline uint64_t histogram_bound_us(unsigned bucket)
{
	unsigned next = bucket + 1, power = next / 4 + 1;

	return next < 4 ? next : (4 + (uint64_t)next % 4) << (power - 2);
}

#endif
