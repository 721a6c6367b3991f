/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * digest - what a disk was given, as one number: two ends that were given the same have the same
 *
 * The sum modulo 2^128 of a hash of each operation (PROTOCOL.x-sxm, section 3), and their count.  Addition forgets the order,
 * so each end folds an operation in when it is over there.
 */
#ifndef SXM_BLOCK_DIGEST_H
#define SXM_BLOCK_DIGEST_H

#include "base/compiler.h"

/* The numbers are the wire's. */
enum digest_kind { DIGEST_WRITE = 1, DIGEST_ZERO = 2 };

struct digest {
	uint64_t high, low; /* the sum's halves */
	uint64_t count;
};

void digest_reset(struct digest *d);
/* length bytes are at `bytes`; DIGEST_ZERO has none: NULL. One thread only: the loop's. */
void digest_add(struct digest *d, enum digest_kind kind, uint64_t offset, uint64_t length, const void *bytes);
/* As though all of other's operations had been added one by one: with a digest of one operation, its hash may be made at one
 * time and folded in at another. */
void digest_merge(struct digest *d, const struct digest *other);
bool digest_equal(const struct digest *a, const struct digest *b);

#endif
