/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qcow2-header - see qcow2-header.h
 *
 *      | fixed part: 72 bytes (version 2) or header_length | extensions: type, length, data ... end | backing file's name |
 *      '----------------------------------- all of it in the first cluster -----------------------------------------------'
 *
 * What decides which other files are opened, and how, is read here. The tables that lead to the data are left to the program that
 * serves the image: it checks each entry when it uses it.
 *
 * A program that opens an image finds a backing file without a stated format by looking into it, and a guest could have written
 * into a raw one what makes it look like another; so the format must be there, and be qcow2.
 */
#include "qcow2/qcow2-header.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"

#define MAGIC UINT32_C(0x514649fb) /* "QFI\xfb" */
#define V2_BYTES 72u
#define V3_BYTES 104u
#define CLUSTER_BITS_MIN 9u
#define CLUSTER_BITS_MAX 21u
#define L1_MAX_BYTES (32 * MiB)
#define SIZE_MAX_BYTES (UINT64_C(1) << 62)

/* Incompatible features: bits. */
#define DIRTY UINT64_C(1)
#define CORRUPT UINT64_C(2)
#define EXTERNAL_DATA UINT64_C(4)
#define COMPRESSION_TYPE UINT64_C(8)
#define EXTENDED_L2 UINT64_C(16)
#define KNOWN (DIRTY | COMPRESSION_TYPE | EXTENDED_L2)

/* Types of extensions. */
#define EXTENSION_END UINT32_C(0)
#define EXTENSION_BACKING_FORMAT UINT32_C(0xe2792aca)
#define EXTENSION_DATA_FILE UINT32_C(0x44415441)
#define EXTENSION_ENCRYPTION UINT32_C(0x0537be77)

struct head {
	uint64_t backing_offset, refcount_offset, incompatible;
	uint32_t backing_bytes, cluster_bits, crypt, header_bytes;
	bool is_backing_qcow2;
};

static int damaged(struct error *e, const char *why)
{
	return error_set(e, EINVAL, "it is no sound qcow2 image: %s", why);
}

/* --- the fixed part */

static int read_fixed(struct bytes_reader *r, struct qcow2_header *out, struct head *h, struct error *e)
{
	if (bytes_get_u32(r) != MAGIC || r->is_short)
		return error_set(e, EINVAL, "it is no qcow2 image: it does not begin like one");
	out->version = bytes_get_u32(r);
	if (!r->is_short && out->version != 2 && out->version != 3)
		return error_set(e, EOPNOTSUPP, "it is a qcow2 image of version %u; 2 and 3 are known here", out->version);
	h->backing_offset = bytes_get_u64(r);
	h->backing_bytes = bytes_get_u32(r);
	h->cluster_bits = bytes_get_u32(r);
	out->size_bytes = bytes_get_u64(r);
	h->crypt = bytes_get_u32(r);
	out->l1_count = bytes_get_u32(r);
	out->l1_offset = bytes_get_u64(r);
	h->refcount_offset = bytes_get_u64(r);
	bytes_get(r, 4 + 4 + 8); /* size of the refcount table; snapshots in it */
	h->header_bytes = V2_BYTES;
	if (out->version == 3) {
		h->incompatible = bytes_get_u64(r);
		bytes_get(r, 8 + 8 + 4); /* compatible and autoclear features, width of a reference count */
		h->header_bytes = bytes_get_u32(r);
	}
	return r->is_short ? damaged(e, "its header is cut short") : 0;
}

static int check_fixed(const struct qcow2_header *out, const struct head *h, struct error *e)
{
	uint64_t cluster_bytes;

	if (h->cluster_bits < CLUSTER_BITS_MIN || h->cluster_bits > CLUSTER_BITS_MAX)
		return damaged(e, "the size of its clusters is out of bounds");
	cluster_bytes = UINT64_C(1) << h->cluster_bits;
	if (h->header_bytes > cluster_bytes || (out->version == 3 && (h->header_bytes < V3_BYTES || h->header_bytes % 8)))
		return damaged(e, "the length of its header is out of bounds");
	if (out->size_bytes > SIZE_MAX_BYTES || out->size_bytes % 512)
		return damaged(e, "the size of its disk is out of bounds");
	if (out->l1_count > L1_MAX_BYTES / 8 || out->l1_offset % cluster_bytes || out->l1_offset > INT64_MAX - L1_MAX_BYTES ||
	    (out->l1_count && !out->l1_offset))
		return damaged(e, "its first table is out of bounds");
	if (h->refcount_offset % cluster_bytes || h->refcount_offset > INT64_MAX)
		return damaged(e, "its table of reference counts is out of bounds");
	if (h->crypt)
		return error_set(e, EOPNOTSUPP, "it is encrypted, which is not supported");
	if (h->incompatible & CORRUPT)
		return error_set(e, EINVAL, "it is marked as corrupt; `qemu-img check -r all` may repair it");
	if (h->incompatible & EXTERNAL_DATA)
		return error_set(e, EPERM, "it keeps its data in another file, which is not allowed");
	if (h->incompatible & ~KNOWN)
		return error_set(e, EOPNOTSUPP, "it needs features that are not known here (bits 0x%llx)",
				 (unsigned long long)(h->incompatible & ~KNOWN));
	return 0;
}

/* --- extensions */

static int take_extension(uint32_t type, const uint8_t *data, uint32_t bytes, struct head *h, struct error *e)
{
	switch (type) {
	case EXTENSION_BACKING_FORMAT:
		h->is_backing_qcow2 = bytes == 5 && memcmp(data, "qcow2", 5) == 0;
		return 0;
	case EXTENSION_DATA_FILE:
		return error_set(e, EPERM, "it names another file for its data, which is not allowed");
	case EXTENSION_ENCRYPTION:
		return error_set(e, EOPNOTSUPP, "it is encrypted, which is not supported");
	default:
		return 0; /* a table of names, bitmaps, what is to come */
	}
}

/* They end with their own end, or where the backing file's name begins, or with the first cluster. */
static int read_extensions(struct bytes_reader r, struct head *h, struct error *e)
{
	while (bytes_left(&r) >= 8) {
		uint32_t type = bytes_get_u32(&r), bytes = bytes_get_u32(&r);
		const uint8_t *data;

		if (type == EXTENSION_END)
			return 0;
		data = bytes_get(&r, bytes);
		if (!data)
			return damaged(e, "an extension of its header is too long");
		if (take_extension(type, data, bytes, h, e) == -1)
			return -1;
		bytes_get(&r, MIN((8 - bytes % 8) % 8, bytes_left(&r)));
	}
	return 0;
}

/* --- the backing file */

static bool is_plain(const char *name, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		char c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
		      (c == '.' && i)))
			return false;
	}
	return length > 0;
}

static bool has_suffix(const char *name, size_t length, const char *suffix)
{
	size_t bytes = strlen(suffix);

	return length > bytes && memcmp(name + length - bytes, suffix, bytes) == 0;
}

static bool is_base_name(const char *name, size_t length)
{
	return length <= QCOW2_NAME_MAX && is_plain(name, length) && has_suffix(name, length, QCOW2_BASE_SUFFIX);
}

bool qcow2_is_base_name(const char *name)
{
	return is_base_name(name, strlen(name));
}

bool qcow2_is_named(const char *path)
{
	return has_suffix(path, strlen(path), QCOW2_SUFFIX);
}

static int read_backing(const uint8_t *data, size_t bytes, const struct head *h, struct qcow2_header *out, struct error *e)
{
	const char *name;

	if (!h->backing_offset)
		return h->backing_bytes ? damaged(e, "the name of its backing file is nowhere") : 0;
	if (!h->backing_bytes)
		return 0;
	if (h->backing_bytes > 1023 || h->backing_offset < h->header_bytes || h->backing_offset > bytes ||
	    h->backing_bytes > bytes - h->backing_offset)
		return damaged(e, "the name of its backing file is out of bounds");
	name = (const char *)data + h->backing_offset;
	if (!is_base_name(name, h->backing_bytes))
		return error_set(e, EPERM, "its backing file is \"%.*s\"; only a plain name *" QCOW2_BASE_SUFFIX
				 ", of the same directory, is allowed", (int)MIN(h->backing_bytes, 100u), name);
	if (!h->is_backing_qcow2)
		return error_set(e, EPERM, "it does not say that its backing file %.*s is qcow2; any other format is not allowed",
				 (int)MIN(h->backing_bytes, 100u), name);
	memcpy(out->backing, name, h->backing_bytes);
	return 0;
}

int qcow2_header_parse(const void *data, size_t bytes, struct qcow2_header *out, struct error *e)
{
	struct bytes_reader r = bytes_reader(data, bytes);
	struct head h = { 0 };
	size_t end;

	*out = (struct qcow2_header){ 0 };
	if (read_fixed(&r, out, &h, e) == -1 || check_fixed(out, &h, e) == -1)
		return -1;
	out->cluster_bits = h.cluster_bits;
	out->is_dirty = h.incompatible & DIRTY;
	bytes = MIN(bytes, (size_t)1 << h.cluster_bits);
	end = h.backing_offset ? (size_t)MIN(h.backing_offset, (uint64_t)bytes) : bytes;
	if (h.header_bytes > end)
		return damaged(e, "its header is cut short");
	r = bytes_reader((const uint8_t *)data + h.header_bytes, end - h.header_bytes);
	if (read_extensions(r, &h, e) == -1)
		return -1;
	return read_backing(data, bytes, &h, out, e);
}
