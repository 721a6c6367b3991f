/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * digest - what a disk was given, as one number
 *
 *      kind 8 | offset 8 | length 8 | bytes ...     little-endian, the bytes of a write only
 *      '------------- XXH3, 128 bits, seed 0 ---' -> added to the sum
 *
 * It finds what was lost, doubled, torn or put elsewhere by mistake; it is no defence against somebody who means it.
 * Never fails: the hash's state is one for the process, as everything here runs in the loop's thread.
 */
#define XXH_STATIC_LINKING_ONLY /* the state's size; it is the same in all of 0.8 */
#include <xxhash.h>
#ifdef HAVE_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

#include "block/digest.h"

#define HEADER_BYTES 24u

static XXH3_state_t state;

void digest_reset(struct digest *d)
{
	*d = (struct digest){ 0 };
}

static void add(struct digest *d, uint64_t high, uint64_t low)
{
	d->low += low;
	d->high += high + (d->low < low);
}

static void put_u64(uint8_t *out, uint64_t value)
{
	for (unsigned i = 0; i < 8; i++)
		out[i] = (uint8_t)(value >> (8 * i));
}

void digest_add(struct digest *d, enum digest_kind kind, uint64_t offset, uint64_t length, const void *bytes)
{
	uint8_t header[HEADER_BYTES];
	XXH128_hash_t hash;

	assert((kind == DIGEST_WRITE) == (bytes != NULL));
	put_u64(header, (uint64_t)kind);
	put_u64(header + 8, offset);
	put_u64(header + 16, length);
	XXH3_128bits_reset(&state);
	XXH3_128bits_update(&state, header, sizeof(header));
	if (bytes)
		XXH3_128bits_update(&state, bytes, (size_t)length);
	hash = XXH3_128bits_digest(&state);
	add(d, hash.high64, hash.low64);
	d->count++;
}

void digest_merge(struct digest *d, const struct digest *other)
{
	add(d, other->high, other->low);
	d->count += other->count;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return a->high == b->high && a->low == b->low && a->count == b->count;
}
