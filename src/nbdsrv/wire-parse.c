/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * wire-parse - see wire-parse.h
 *
 * Everything here is written by strangers. Each parser reads all its fields through a bounded reader and asks once, at the
 * end, whether everything was there and nothing was left over.
 *
 *      INFO, GO:    name length 4 | name | n 2 | n x type 2
 *      *_META_*:    name length 4 | name | n 4 | n x ( length 4 | query )
 *      request:     magic 4 | flags 2 | type 2 | cookie 8 | offset 8 | length 4
 */
#include "nbdsrv/wire-parse.h"

#include <errno.h>
#include <string.h>

#include "base/range.h"

bool wire_text_is(const struct wire_text *t, const char *literal)
{
	size_t bytes = strlen(literal);

	return t->bytes == bytes && memcmp(t->at, literal, bytes) == 0;
}

bool wire_parse_option(const uint8_t header[static WIRE_OPTION_BYTES], struct wire_option *out)
{
	struct bytes_reader r = bytes_reader(header, WIRE_OPTION_BYTES);
	uint64_t magic = bytes_get_u64(&r);

	out->type = bytes_get_u32(&r);
	out->length = bytes_get_u32(&r);
	return magic == WIRE_OPTION_MAGIC;
}

/* Too long a text spoils the reader like one that is not there. */
static struct wire_text get_text(struct bytes_reader *r)
{
	struct wire_text t = { .bytes = bytes_get_u32(r) };

	if (t.bytes > WIRE_STRING_MAX)
		r->is_short = true;
	t.at = bytes_get(r, t.bytes);
	return t;
}

bool wire_parse_info(const uint8_t *data, size_t bytes, struct wire_info *out)
{
	struct bytes_reader r = bytes_reader(data, bytes);
	uint16_t count;

	*out = (struct wire_info){ .name = get_text(&r) };
	count = bytes_get_u16(&r);
	for (uint16_t i = 0; i < count && !r.is_short; i++) {
		uint16_t type = bytes_get_u16(&r);

		if (r.is_short)
			break;
		out->wants_name |= type == WIRE_INFO_NAME;
		out->wants_block_size |= type == WIRE_INFO_BLOCK_SIZE;
	}
	return bytes_is_exhausted(&r);
}

bool wire_parse_meta(const uint8_t *data, size_t bytes, struct wire_meta *out)
{
	struct bytes_reader r = bytes_reader(data, bytes);

	*out = (struct wire_meta){ .name = get_text(&r) };
	out->queries = bytes_get_u32(&r);
	out->reader = r;
	/* Every query takes at least four bytes, so a lying count ends this with the data. */
	for (uint32_t i = 0; i < out->queries && !r.is_short; i++)
		get_text(&r);
	return bytes_is_exhausted(&r);
}

bool wire_next_query(struct wire_meta *m, struct wire_text *query)
{
	if (m->queries == 0)
		return false;
	m->queries--;
	*query = get_text(&m->reader);
	return !m->reader.is_short;
}

bool wire_parse_request(const uint8_t header[static WIRE_REQUEST_BYTES], struct wire_request *out)
{
	struct bytes_reader r = bytes_reader(header, WIRE_REQUEST_BYTES);
	uint32_t magic = bytes_get_u32(&r);

	out->flags = bytes_get_u16(&r);
	out->type = bytes_get_u16(&r);
	out->cookie = bytes_get_u64(&r);
	out->offset = bytes_get_u64(&r);
	out->length = bytes_get_u32(&r);
	return magic == WIRE_REQUEST_MAGIC;
}

/* FUA is legal with every command and means something only with those that write. */
static unsigned allowed_flags(uint16_t type)
{
	switch (type) {
	case WIRE_CMD_READ:
		return WIRE_FLAG_FUA | WIRE_FLAG_DF;
	case WIRE_CMD_WRITE_ZEROES:
		return WIRE_FLAG_FUA | WIRE_FLAG_NO_HOLE;
	case WIRE_CMD_BLOCK_STATUS:
		return WIRE_FLAG_FUA | WIRE_FLAG_REQ_ONE;
	default:
		return WIRE_FLAG_FUA;
	}
}

bool wire_is_write(uint16_t type)
{
	return type == WIRE_CMD_WRITE || type == WIRE_CMD_WRITE_ZEROES || type == WIRE_CMD_TRIM;
}

static int check_range(const struct wire_request *r, const struct wire_terms *terms)
{
	struct range range;

	if (r->length == 0)
		return EINVAL;
	if (!range_from_length(&range, r->offset, r->length) || range.end > terms->size_bytes)
		return wire_is_write(r->type) && r->type != WIRE_CMD_TRIM ? ENOSPC : EINVAL;
	return 0;
}

int wire_check_request(const struct wire_request *r, const struct wire_terms *terms)
{
	if (r->flags & ~allowed_flags(r->type))
		return EINVAL;
	if ((r->flags & WIRE_FLAG_DF) && !terms->has_structured)
		return EINVAL;
	if (terms->is_read_only && wire_is_write(r->type))
		return EPERM;
	switch (r->type) {
	case WIRE_CMD_DISC:
	case WIRE_CMD_FLUSH:
		return 0;
	case WIRE_CMD_READ:
		if (r->length > WIRE_PAYLOAD_MAX)
			return terms->has_structured ? EOVERFLOW : EINVAL;
		break;
	case WIRE_CMD_WRITE:
		if (r->length > WIRE_PAYLOAD_MAX)
			return EINVAL;
		break;
	case WIRE_CMD_TRIM:
		if (!terms->can_trim)
			return EINVAL;
		break;
	case WIRE_CMD_WRITE_ZEROES:
		if (!terms->can_zero)
			return EINVAL;
		break;
	case WIRE_CMD_BLOCK_STATUS:
		if (!terms->has_contexts)
			return EINVAL;
		break;
	case WIRE_CMD_CACHE:
		break;
	default:
		return EINVAL;
	}
	return check_range(r, terms);
}
