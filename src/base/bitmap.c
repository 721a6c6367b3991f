/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bitmap - see bitmap.h
 *
 *      summary   1 bit: "this word of bits is not zero"
 *        |
 *      words     64 bits each, in address space that costs memory only where a bit was set (a small one: on the heap)
 *
 * next() walks the summary, 4096 bits a step, and so never reads (touches) words that were never set.  The summary itself
 * is 1/64 of the bits: 1 MiB for a 2 TiB disk in 4 KiB chunks, lazily touched too.
 *
 * Invariant: summary bit w is set exactly when words[w] != 0; count is the number of set bits.
 */
#include "base/bitmap.h"

#include <stdlib.h>
#include <sys/mman.h>

struct bitmap {
	uint64_t bits;
	uint64_t count;
	uint64_t *words;   /* owned: mapped */
	uint64_t *summary; /* owned: mapped */
	size_t words_bytes, summary_bytes;
};

#define SMALL_BYTES 4096u

static uint64_t *reserve(size_t bytes)
{
	void *p;

	if (bytes <= SMALL_BYTES)
		return calloc(1, bytes);
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	/* A huge page would make one set bit cost 2 MiB. */
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static void give_back(uint64_t *words, size_t bytes)
{
	if (!words)
		return;
	if (bytes <= SMALL_BYTES)
		free(words);
	else
		munmap(words, bytes);
}

/* At least one word, so that every pointer is valid; whole words of words. */
static size_t bytes_for(uint64_t bits)
{
	return (size_t)((bits + 63) / 64 + 1) * sizeof(uint64_t);
}

struct bitmap *bitmap_new(uint64_t bits)
{
	struct bitmap *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->bits = bits;
	b->words_bytes = bytes_for(bits);
	b->summary_bytes = bytes_for((bits + 63) / 64);
	b->words = reserve(b->words_bytes);
	b->summary = reserve(b->summary_bytes);
	if (!b->words || !b->summary) {
		bitmap_free(b);
		return NULL;
	}
	return b;
}

void bitmap_free(struct bitmap *b)
{
	if (!b)
		return;
	give_back(b->words, b->words_bytes);
	give_back(b->summary, b->summary_bytes);
	free(b);
}

uint64_t bitmap_bits(const struct bitmap *b)
{
	return b->bits;
}

uint64_t bitmap_count(const struct bitmap *b)
{
	return b->count;
}

static bool is_word_set(const struct bitmap *b, uint64_t word)
{
	return b->summary[word / 64] >> (word % 64) & 1;
}

/* A word nobody set is not even read: reading would map it. */
static uint64_t word_at(const struct bitmap *b, uint64_t word)
{
	return is_word_set(b, word) ? b->words[word] : 0;
}

/* The bits of [first, end) that lie in `word`. */
static uint64_t mask_in(uint64_t word, uint64_t first, uint64_t end)
{
	uint64_t mask = UINT64_MAX;

	if (first > word * 64)
		mask &= UINT64_MAX << (first - word * 64);
	if (end < word * 64 + 64)
		mask &= UINT64_MAX >> (word * 64 + 64 - end);
	return mask;
}

bool bitmap_test(const struct bitmap *b, uint64_t bit)
{
	assert(bit < b->bits);
	return word_at(b, bit / 64) >> (bit % 64) & 1;
}

uint64_t bitmap_set(struct bitmap *b, uint64_t first, uint64_t end)
{
	uint64_t changed = 0;

	assert(first <= end && end <= b->bits);
	for (uint64_t word = first / 64; first < end && word <= (end - 1) / 64; word++) {
		uint64_t added = mask_in(word, first, end) & ~word_at(b, word);

		if (!added)
			continue;
		b->words[word] |= added;
		b->summary[word / 64] |= UINT64_C(1) << (word % 64);
		changed += (uint64_t)__builtin_popcountll(added);
	}
	b->count += changed;
	return changed;
}

/* The first word at or after `from` that is not zero; the number of words when there is none. */
static uint64_t next_word(const struct bitmap *b, uint64_t from)
{
	uint64_t words = (b->bits + 63) / 64, group;

	if (from >= words)
		return words;
	group = b->summary[from / 64] & (UINT64_MAX << (from % 64));
	for (uint64_t g = from / 64;;) {
		if (group)
			return g * 64 + (uint64_t)__builtin_ctzll(group);
		if (++g * 64 >= words)
			return words;
		group = b->summary[g];
	}
}

uint64_t bitmap_clear(struct bitmap *b, uint64_t first, uint64_t end)
{
	uint64_t changed = 0, words;

	assert(first <= end && end <= b->bits);
	if (first == end || !b->count)
		return 0;
	words = (end - 1) / 64 + 1;
	for (uint64_t word = next_word(b, first / 64); word < words; word = next_word(b, word + 1)) {
		uint64_t gone = mask_in(word, first, end) & b->words[word];

		b->words[word] &= ~gone;
		if (!b->words[word])
			b->summary[word / 64] &= ~(UINT64_C(1) << (word % 64));
		changed += (uint64_t)__builtin_popcountll(gone);
	}
	b->count -= changed;
	return changed;
}

uint64_t bitmap_next(const struct bitmap *b, uint64_t from)
{
	uint64_t word, bits;

	if (from >= b->bits || !b->count)
		return b->bits;
	word = from / 64;
	bits = word_at(b, word) & (UINT64_MAX << (from % 64));
	if (!bits) {
		word = next_word(b, word + 1);
		if (word * 64 >= b->bits)
			return b->bits;
		bits = b->words[word];
	}
	return word * 64 + (uint64_t)__builtin_ctzll(bits);
}

uint64_t bitmap_next_clear(const struct bitmap *b, uint64_t from)
{
	if (from >= b->bits)
		return b->bits;
	for (uint64_t word = from / 64; word * 64 < b->bits; word++) {
		uint64_t clear = ~word_at(b, word);

		if (word == from / 64)
			clear &= UINT64_MAX << (from % 64);
		if (clear)
			return MIN(word * 64 + (uint64_t)__builtin_ctzll(clear), b->bits);
	}
	return b->bits;
}

bool bitmap_test_all(const struct bitmap *b, uint64_t first, uint64_t end)
{
	assert(first <= end && end <= b->bits);
	return first == end || bitmap_next_clear(b, first) >= end;
}

bool bitmap_test_any(const struct bitmap *b, uint64_t first, uint64_t end)
{
	assert(first <= end && end <= b->bits);
	return first != end && bitmap_next(b, first) < end;
}
