/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-log - see cbt-log.h: the pure half
 *
 *      | header, 4096 | page 0 | page 1 | ...        page:  16 bytes of marks | 127 x 32 bytes of bits | 16 bytes of nothing
 *
 *      header:  8 "sxm.cbt\n"  4 version  4 flags  8 size of the disk  8 id  8 session  65 parent  65 origin  ...  8 FNV-1a
 *
 * A page speaks of 127 regions, so a log grows at its end, and a mark and the bits beside it go in one write. The header's fields
 * are in its first sector, big-endian; bits and marks are in bytes, the first one in the least significant bit.
 */
#include "cbt/cbt-log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define MAGIC "sxm.cbt\n"
#define VERSION 1u
#define FLAG_SEALED 1u
#define HEADER_BYTES 512u
#define SUM_AT (HEADER_BYTES - 8u)
#define MARK_BYTES 16u
#define REGION_BLOCKS (CBT_REGION_BYTES / CBT_BLOCK_BYTES)
#define REGION_BITS_BYTES (REGION_BLOCKS / 8)

static_assert(MARK_BYTES + CBT_PAGE_REGIONS * REGION_BITS_BYTES <= CBT_PAGE_BYTES, "a page holds its regions");
static_assert(REGION_BLOCKS == 64 * CBT_REGION_WORDS, "a region is whole words");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words and bytes have the same bits");

static uint64_t divide_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

uint64_t cbt_regions(uint64_t size_bytes)
{
	return divide_up(size_bytes, CBT_REGION_BYTES);
}

uint64_t cbt_blocks(uint64_t size_bytes)
{
	return divide_up(size_bytes, CBT_BLOCK_BYTES);
}

uint64_t cbt_pages(uint64_t size_bytes)
{
	return divide_up(cbt_regions(size_bytes), CBT_PAGE_REGIONS);
}

uint64_t cbt_file_bytes(uint64_t size_bytes)
{
	return (1 + cbt_pages(size_bytes)) * CBT_PAGE_BYTES;
}

/* --- the header */

static uint64_t sum(const uint8_t *data, size_t bytes)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < bytes; i++)
		h = (h ^ data[i]) * UINT64_C(0x100000001b3);
	return h;
}

static void put_key(struct bytes_writer *w, const char *key)
{
	size_t bytes = strnlen(key, CBT_KEY_MAX - 1);

	bytes_put(w, key, bytes);
	bytes_put_zeros(w, CBT_KEY_MAX - bytes);
}

static bool get_key(struct bytes_reader *r, char key[static CBT_KEY_MAX])
{
	const uint8_t *text = bytes_get(r, CBT_KEY_MAX);

	if (!text || memchr(text, '\0', CBT_KEY_MAX) == NULL || memchr(text, '/', CBT_KEY_MAX) || *text == '.')
		return false;
	memcpy(key, text, strlen((const char *)text));
	return true;
}

void cbt_header_encode(const struct cbt_header *h, uint8_t page[static CBT_PAGE_BYTES])
{
	struct bytes_writer w = bytes_writer(page, HEADER_BYTES);

	memset(page, 0, CBT_PAGE_BYTES);
	bytes_put(&w, MAGIC, sizeof(MAGIC) - 1);
	bytes_put_u32(&w, VERSION);
	bytes_put_u32(&w, h->is_sealed ? FLAG_SEALED : 0);
	bytes_put_u64(&w, h->size_bytes);
	bytes_put_u64(&w, h->id);
	bytes_put_u64(&w, h->session);
	put_key(&w, h->parent);
	put_key(&w, h->origin);
	bytes_put_zeros(&w, SUM_AT - bytes_written(&w));
	bytes_put_u64(&w, sum(page, SUM_AT));
	assert(!w.is_full);
}

int cbt_header_decode(const uint8_t *page, size_t bytes, struct cbt_header *h, struct error *why)
{
	struct bytes_reader r = bytes_reader(page, bytes), end;
	const uint8_t *magic = bytes_get(&r, sizeof(MAGIC) - 1);
	uint32_t version = bytes_get_u32(&r), flags = bytes_get_u32(&r);

	*h = (struct cbt_header){ 0 };
	if (!magic || memcmp(magic, MAGIC, sizeof(MAGIC) - 1) != 0 || bytes < HEADER_BYTES)
		return error_set(why, EBADMSG, "it has no header of ours");
	end = bytes_reader(page + SUM_AT, 8);
	if (bytes_get_u64(&end) != sum(page, SUM_AT))
		return error_set(why, EBADMSG, "the checksum of its header is wrong");
	if (version != VERSION || (flags & ~FLAG_SEALED))
		return error_set(why, EBADMSG, "it is of version %u; this program knows %u", version, VERSION);
	h->is_sealed = flags & FLAG_SEALED;
	h->size_bytes = bytes_get_u64(&r);
	h->id = bytes_get_u64(&r);
	h->session = bytes_get_u64(&r);
	if (!get_key(&r, h->parent) || !get_key(&r, h->origin))
		return error_set(why, EBADMSG, "its parent is no volume's key");
	if (h->size_bytes > CBT_MAX_BYTES)
		return error_set(why, EBADMSG, "it is of a disk of %llu bytes", (unsigned long long)h->size_bytes);
	return 0;
}

/* --- pages */

static uint64_t regions_of(uint64_t n, uint64_t regions)
{
	uint64_t first = n * CBT_PAGE_REGIONS;

	return first < regions ? MIN(regions - first, (uint64_t)CBT_PAGE_REGIONS) : 0;
}

static bool has_bit(const uint64_t *words, uint64_t bit)
{
	return words[bit / 64] >> bit % 64 & 1;
}

void cbt_page_encode(const uint64_t *bits, const uint64_t *marks, uint64_t regions, uint64_t n,
		     uint8_t page[static CBT_PAGE_BYTES])
{
	uint64_t first = n * CBT_PAGE_REGIONS, count = regions_of(n, regions);

	memset(page, 0, CBT_PAGE_BYTES);
	for (uint64_t i = 0; marks && i < count; i++)
		if (has_bit(marks, first + i))
			page[i / 8] |= (uint8_t)(1u << i % 8);
	memcpy(page + MARK_BYTES, bits + first * CBT_REGION_WORDS, count * REGION_BITS_BYTES);
}

void cbt_page_decode(const uint8_t page[static CBT_PAGE_BYTES], uint64_t n, uint64_t regions, uint64_t *bits, uint64_t *marks)
{
	uint64_t first = n * CBT_PAGE_REGIONS, count = regions_of(n, regions);

	for (uint64_t i = 0; i < count; i++)
		if (page[i / 8] >> i % 8 & 1)
			marks[(first + i) / 64] |= UINT64_C(1) << (first + i) % 64;
	memcpy(bits + first * CBT_REGION_WORDS, page + MARK_BYTES, count * REGION_BITS_BYTES);
}

/* The bits of word w that are in [first, end). */
static uint64_t mask_of(uint64_t w, uint64_t first, uint64_t end)
{
	uint64_t mask = ~UINT64_C(0);

	if (first > w * 64)
		mask &= ~UINT64_C(0) << (first - w * 64);
	if (end < (w + 1) * 64)
		mask &= ~(~UINT64_C(0) << (end - w * 64));
	return mask;
}

bool cbt_bits_test_all(const uint64_t *words, uint64_t first, uint64_t end)
{
	for (uint64_t w = first / 64; w * 64 < end; w++)
		if (~words[w] & mask_of(w, first, end))
			return false;
	return true;
}

void cbt_bits_set(uint64_t *words, uint64_t first, uint64_t end)
{
	for (uint64_t w = first / 64; w * 64 < end; w++)
		words[w] |= mask_of(w, first, end);
}

/* --- a log */

static int allocate(uint64_t size_bytes, uint64_t **bits, uint64_t **marks, struct error *e)
{
	uint64_t regions = cbt_regions(size_bytes);

	if (size_bytes > CBT_MAX_BYTES)
		return error_set(e, EFBIG, "changes of a disk of %llu bytes cannot be tracked", (unsigned long long)size_bytes);
	*bits = calloc(regions * CBT_REGION_WORDS + 1, sizeof(**bits));
	*marks = calloc(regions / 64 + 1, sizeof(**marks));
	if (*bits && *marks)
		return 0;
	free(*bits);
	free(*marks);
	return error_set(e, ENOMEM, "out of memory");
}

int cbt_log_init(struct cbt_log *l, uint64_t size_bytes, struct error *e)
{
	*l = (struct cbt_log){ .header = { .size_bytes = size_bytes, .id = cbt_random() }, .regions = cbt_regions(size_bytes) };
	return allocate(size_bytes, &l->bits, &l->marks, e);
}

void cbt_log_clear(struct cbt_log *l)
{
	free(l->bits);
	free(l->marks);
	l->bits = l->marks = NULL;
}

int cbt_log_grow(struct cbt_log *l, uint64_t size_bytes, struct error *e)
{
	uint64_t *bits, *marks;

	assert(size_bytes >= l->header.size_bytes);
	if (allocate(size_bytes, &bits, &marks, e) == -1)
		return -1;
	memcpy(bits, l->bits, l->regions * CBT_REGION_WORDS * sizeof(*bits));
	memcpy(marks, l->marks, (l->regions / 64 + 1) * sizeof(*marks));
	cbt_log_clear(l);
	l->bits = bits;
	l->marks = marks;
	l->regions = cbt_regions(size_bytes);
	l->header.size_bytes = size_bytes;
	return 0;
}

void cbt_log_set(struct cbt_log *l, struct range r)
{
	assert(r.end <= l->header.size_bytes);
	if (!range_is_empty(r))
		cbt_bits_set(l->bits, r.start / CBT_BLOCK_BYTES, cbt_blocks(r.end));
}

void cbt_log_settle(struct cbt_log *l)
{
	uint64_t blocks = cbt_blocks(l->header.size_bytes);

	for (uint64_t r = 0; r < l->regions && l->header.session; r++)
		if (has_bit(l->marks, r))
			cbt_bits_set(l->bits, r * REGION_BLOCKS, MIN((r + 1) * REGION_BLOCKS, blocks));
	memset(l->marks, 0, (l->regions / 64 + 1) * sizeof(*l->marks));
	l->header.session = 0;
}

int cbt_log_merge(struct cbt_log *into, const struct cbt_log *from, struct error *e)
{
	if (from->header.size_bytes > into->header.size_bytes && cbt_log_grow(into, from->header.size_bytes, e) == -1)
		return -1;
	for (uint64_t w = 0; w < from->regions * CBT_REGION_WORDS; w++)
		into->bits[w] |= from->bits[w];
	return 0;
}

/* --- as it is told */

static char letter(unsigned six)
{
	return "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[six & 63];
}

/* Blocks `first` on, eight of them, the first one in the most significant bit; none from `end` on. */
static unsigned octet(const struct cbt_log *l, uint64_t first, uint64_t end)
{
	unsigned value = 0;

	for (uint64_t b = first; b < first + 8; b++)
		value = value << 1 | (b < end && b < l->regions * REGION_BLOCKS && has_bit(l->bits, b));
	return value;
}

char *cbt_log_base64(const struct cbt_log *l, struct range r)
{
	uint64_t first = r.start / CBT_BLOCK_BYTES, end = range_is_empty(r) ? first : cbt_blocks(r.end);
	uint64_t bytes = divide_up(end - first, 8);
	char *text = malloc((bytes + 2) / 3 * 4 + 1), *to = text;

	for (uint64_t i = 0; text && i < bytes; i += 3) {
		uint64_t left = bytes - i;
		unsigned three = octet(l, first + i * 8, end) << 16;

		three |= left > 1 ? octet(l, first + (i + 1) * 8, end) << 8 : 0;
		three |= left > 2 ? octet(l, first + (i + 2) * 8, end) : 0;
		*to++ = letter(three >> 18);
		*to++ = letter(three >> 12);
		*to++ = left > 1 ? letter(three >> 6) : '=';
		*to++ = left > 2 ? letter(three) : '=';
	}
	if (text)
		*to = '\0';
	return text;
}
