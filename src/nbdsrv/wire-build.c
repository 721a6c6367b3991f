/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * wire-build - see wire-build.h
 *
 *      option reply:  magic 8 | option 4 | reply 4 | length 4
 *      simple reply:  magic 4 | error 4 | cookie 8
 *      chunk:         magic 4 | flags 2 | type 2 | cookie 8 | length 4
 */
#include "nbdsrv/wire-build.h"

#include <errno.h>
#include <string.h>

void wire_build_greeting(struct bytes_writer *w)
{
	bytes_put_u64(w, WIRE_MAGIC);
	bytes_put_u64(w, WIRE_OPTION_MAGIC);
	bytes_put_u16(w, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
}

void wire_build_option_reply(struct bytes_writer *w, uint32_t option, uint32_t reply, uint32_t length)
{
	bytes_put_u64(w, WIRE_OPTION_REPLY_MAGIC);
	bytes_put_u32(w, option);
	bytes_put_u32(w, reply);
	bytes_put_u32(w, length);
}

void wire_build_option_error(struct bytes_writer *w, uint32_t option, uint32_t reply, const char *text)
{
	size_t bytes = strlen(text);

	wire_build_option_reply(w, option, reply, (uint32_t)bytes);
	bytes_put(w, text, bytes);
}

void wire_build_export(struct bytes_writer *w, uint64_t size_bytes, uint16_t flags)
{
	bytes_put_u64(w, size_bytes);
	bytes_put_u16(w, flags);
}

size_t wire_build_simple(uint8_t head[static WIRE_HEAD_MAX], uint64_t cookie, int err)
{
	struct bytes_writer w = bytes_writer(head, WIRE_HEAD_MAX);

	bytes_put_u32(&w, WIRE_SIMPLE_REPLY_MAGIC);
	bytes_put_u32(&w, err ? wire_error(err) : 0);
	bytes_put_u64(&w, cookie);
	return bytes_written(&w);
}

static void put_chunk(struct bytes_writer *w, uint16_t flags, uint16_t type, uint64_t cookie, uint32_t length)
{
	bytes_put_u32(w, WIRE_CHUNK_MAGIC);
	bytes_put_u16(w, flags);
	bytes_put_u16(w, type);
	bytes_put_u64(w, cookie);
	bytes_put_u32(w, length);
}

size_t wire_build_data(uint8_t head[static WIRE_HEAD_MAX], uint64_t cookie, uint64_t offset, uint32_t data_bytes)
{
	struct bytes_writer w = bytes_writer(head, WIRE_HEAD_MAX);

	put_chunk(&w, WIRE_CHUNK_DONE, WIRE_CHUNK_OFFSET_DATA, cookie, 8 + data_bytes);
	bytes_put_u64(&w, offset);
	return bytes_written(&w);
}

size_t wire_build_error(uint8_t head[static WIRE_HEAD_MAX], uint64_t cookie, int err)
{
	struct bytes_writer w = bytes_writer(head, WIRE_HEAD_MAX);

	put_chunk(&w, WIRE_CHUNK_DONE, WIRE_CHUNK_ERROR, cookie, 6);
	bytes_put_u32(&w, wire_error(err));
	bytes_put_u16(&w, 0); /* no text */
	return bytes_written(&w);
}

void wire_build_status(struct bytes_writer *w, uint64_t cookie, uint32_t context, uint32_t descriptors, bool is_last)
{
	put_chunk(w, is_last ? WIRE_CHUNK_DONE : 0, WIRE_CHUNK_BLOCK_STATUS, cookie, 4 + descriptors * WIRE_DESCRIPTOR_BYTES);
	bytes_put_u32(w, context);
}

void wire_build_descriptor(struct bytes_writer *w, uint32_t length, uint32_t flags)
{
	bytes_put_u32(w, length);
	bytes_put_u32(w, flags);
}

uint32_t wire_build_descriptors(struct bytes_writer *w, const struct extents *x, struct range range)
{
	uint32_t count = 0;

	for (size_t i = 0; i < x->count; i++) {
		struct range r = range_clip(x->item[i].range, range);

		if (range_is_empty(r))
			break;
		wire_build_descriptor(w, (uint32_t)range_length(r), x->item[i].type);
		count++;
	}
	assert(count > 0 && !w->is_full);
	return count;
}

uint32_t wire_error(int err)
{
	switch (err) {
	case EPERM:
	case EACCES:
	case EROFS:
		return WIRE_EPERM;
	case ENOMEM:
		return WIRE_ENOMEM;
	case EINVAL:
	case EOPNOTSUPP: /* the protocol's own number for it belongs to a flag we do not offer */
		return WIRE_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return WIRE_ENOSPC;
	case EOVERFLOW:
		return WIRE_EOVERFLOW;
	case ESHUTDOWN:
		return WIRE_ESHUTDOWN;
	default:
		return WIRE_EIO;
	}
}
