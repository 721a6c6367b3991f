/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-header - see persist-header.h
 *
 *      bytes       field, big-endian
 *      8           "sxm.owed"
 *      4, 4        version, kind
 *      8           size of the disk
 *      4, 4        bytes of a region, bytes of a chunk
 *      8           content generation of the source
 *      36          boot id, or zeros
 *      2 + n       three times: mirror id, source, target
 *      ...         zeros
 *      8           FNV-1a, 64 bits, of all before it
 *
 * It is written once, with the file, and never again. So it is either all there, or the file is none of ours, or the medium has
 * spoilt it; the checksum is for the last. It proves nothing against somebody who can write there: that somebody could as well
 * clear the bits.
 */
#include "mirror/persist-header.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "mirror/persist.h"

#define MAGIC "sxm.owed"
#define MAGIC_BYTES 8u
#define VERSION 1u
#define SUM_AT (PERSIST_HEADER_BYTES - 8u)

static_assert(76 + 6 + PERSIST_ID_MAX + 2 * PERSIST_NAME_MAX < SUM_AT, "the longest names fit");

static uint64_t sum(const uint8_t *data, size_t bytes)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < bytes; i++)
		h = (h ^ data[i]) * UINT64_C(0x100000001b3);
	return h;
}

static int put_name(struct bytes_writer *w, const char *what, const char *name, size_t max, struct error *e)
{
	size_t bytes = strlen(name);

	if (bytes >= max)
		return error_set(e, ENAMETOOLONG, "the %s has %zu bytes; there is room for %zu", what, bytes, max - 1);
	bytes_put_u16(w, (uint16_t)bytes);
	bytes_put(w, name, bytes);
	return 0;
}

int persist_header_encode(const struct persist_header *h, uint8_t *out, struct error *e)
{
	struct bytes_writer w = bytes_writer(out, PERSIST_HEADER_BYTES);
	char boot_id[PERSIST_BOOT_ID_BYTES] = { 0 };

	memcpy(boot_id, h->boot_id, strnlen(h->boot_id, sizeof(boot_id)));
	bytes_put(&w, MAGIC, MAGIC_BYTES);
	bytes_put_u32(&w, VERSION);
	bytes_put_u32(&w, h->kind);
	bytes_put_u64(&w, h->size_bytes);
	bytes_put_u32(&w, PERSIST_REGION_BYTES);
	bytes_put_u32(&w, PERSIST_CHUNK_BYTES);
	bytes_put_u64(&w, h->content_generation);
	bytes_put(&w, boot_id, sizeof(boot_id));
	if (put_name(&w, "mirror's id", h->mirror_id, PERSIST_ID_MAX, e) == -1 ||
	    put_name(&w, "source's name", h->source_name, PERSIST_NAME_MAX, e) == -1 ||
	    put_name(&w, "target's name", h->target_name, PERSIST_NAME_MAX, e) == -1)
		return -1;
	bytes_put_zeros(&w, SUM_AT - bytes_written(&w));
	bytes_put_u64(&w, sum(out, SUM_AT));
	assert(bytes_is_exhausted(&(struct bytes_reader){ .at = w.at, .end = w.end }) && !w.is_full);
	return 0;
}

static bool is_name(struct bytes_reader *r, const char *want)
{
	size_t bytes = bytes_get_u16(r);
	const uint8_t *name = bytes_get(r, bytes);

	return name && bytes == strlen(want) && memcmp(name, want, bytes) == 0;
}

static int check_form(const struct persist_header *want, struct bytes_reader *r, const uint8_t *data, size_t bytes,
		      struct error *why)
{
	const uint8_t *magic = bytes_get(r, MAGIC_BYTES);
	uint32_t version = bytes_get_u32(r), kind = bytes_get_u32(r);
	struct bytes_reader end;

	if (!magic || memcmp(magic, MAGIC, MAGIC_BYTES) != 0 || bytes < PERSIST_HEADER_BYTES)
		return error_set(why, EUCLEAN, "it has no header of ours");
	end = bytes_reader(data + SUM_AT, 8);
	if (bytes_get_u64(&end) != sum(data, SUM_AT))
		return error_set(why, EUCLEAN, "the checksum of its header is wrong");
	if (version != VERSION)
		return error_set(why, EUCLEAN, "it is of version %u; this program knows %u", version, VERSION);
	if (kind != (uint32_t)want->kind)
		return error_set(why, EUCLEAN, "it is a file of another kind");
	return 0;
}

int persist_header_check(const struct persist_header *want, const uint8_t *data, size_t bytes, bool *is_same_boot,
			 struct error *why)
{
	struct bytes_reader r = bytes_reader(data, bytes);
	uint64_t size, generation;
	uint32_t region, chunk;
	const uint8_t *boot_id;

	if (check_form(want, &r, data, bytes, why) == -1)
		return -1;
	size = bytes_get_u64(&r);
	region = bytes_get_u32(&r);
	chunk = bytes_get_u32(&r);
	generation = bytes_get_u64(&r);
	boot_id = bytes_get(&r, PERSIST_BOOT_ID_BYTES);
	if (region != PERSIST_REGION_BYTES || chunk != PERSIST_CHUNK_BYTES)
		return error_set(why, EUCLEAN, "it counts in regions of %u and chunks of %u bytes", region, chunk);
	if (!is_name(&r, want->mirror_id))
		return error_set(why, ESTALE, "it is of another mirror than %s", want->mirror_id);
	if (!is_name(&r, want->source_name) || !is_name(&r, want->target_name))
		return error_set(why, ESTALE, "it is of other volumes than %s and %s", want->source_name, want->target_name);
	if (size != want->size_bytes)
		return error_set(why, ESTALE, "it is of a disk of %llu bytes, and this one has %llu", (unsigned long long)size,
				 (unsigned long long)want->size_bytes);
	if (generation != want->content_generation)
		return error_set(why, ESTALE, "it is of the disk's content number %llu, and this is number %llu",
				 (unsigned long long)generation, (unsigned long long)want->content_generation);
	*is_same_boot = want->boot_id[0] && boot_id && memcmp(boot_id, want->boot_id, PERSIST_BOOT_ID_BYTES) == 0;
	return 0;
}
