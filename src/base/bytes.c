/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bytes - see bytes.h
 *
 *      start        at              end
 *        |  done    |   left        |
 *
 * Every access asks take() (reserve() when writing) for its bytes first; these two are the only places that compare and move
 * `at`.  Lengths are compared with what is left, never added to a pointer, so a hostile length cannot wrap around.
 *
 * Invariant: start <= at <= end; once spoilt, `at` does not move again.
 */
#include "base/bytes.h"

#include <string.h>

struct bytes_reader bytes_reader(const void *data, size_t bytes)
{
	static const uint8_t nothing[1];
	const uint8_t *start = data ? data : nothing;

	assert(data || bytes == 0);
	return (struct bytes_reader){ .at = start, .end = start + bytes };
}

struct bytes_writer bytes_writer(void *data, size_t bytes)
{
	static uint8_t nothing[1];
	uint8_t *start = data ? data : nothing;

	assert(data || bytes == 0);
	return (struct bytes_writer){ .start = start, .at = start, .end = start + bytes };
}

static const uint8_t *take(struct bytes_reader *r, size_t bytes)
{
	const uint8_t *at = r->at;

	if (r->is_short || bytes > (size_t)(r->end - r->at)) {
		r->is_short = true;
		return NULL;
	}
	r->at += bytes;
	return at;
}

static uint64_t get_big_endian(struct bytes_reader *r, size_t bytes)
{
	const uint8_t *at = take(r, bytes);
	uint64_t value = 0;

	for (size_t i = 0; at && i < bytes; i++)
		value = value << 8 | at[i];
	return value;
}

uint8_t bytes_get_u8(struct bytes_reader *r)
{
	return (uint8_t)get_big_endian(r, 1);
}

uint16_t bytes_get_u16(struct bytes_reader *r)
{
	return (uint16_t)get_big_endian(r, 2);
}

uint32_t bytes_get_u32(struct bytes_reader *r)
{
	return (uint32_t)get_big_endian(r, 4);
}

uint64_t bytes_get_u64(struct bytes_reader *r)
{
	return get_big_endian(r, 8);
}

const uint8_t *bytes_get(struct bytes_reader *r, size_t bytes)
{
	return take(r, bytes);
}

size_t bytes_left(const struct bytes_reader *r)
{
	return r->is_short ? 0 : (size_t)(r->end - r->at);
}

bool bytes_is_exhausted(const struct bytes_reader *r)
{
	return !r->is_short && r->at == r->end;
}

static uint8_t *reserve(struct bytes_writer *w, size_t bytes)
{
	uint8_t *at = w->at;

	if (w->is_full || bytes > (size_t)(w->end - w->at)) {
		w->is_full = true;
		return NULL;
	}
	w->at += bytes;
	return at;
}

static void put_big_endian(struct bytes_writer *w, uint64_t value, size_t bytes)
{
	uint8_t *at = reserve(w, bytes);

	for (size_t i = bytes; at && i-- > 0; value >>= 8)
		at[i] = (uint8_t)value;
}

void bytes_put_u8(struct bytes_writer *w, uint8_t value)
{
	put_big_endian(w, value, 1);
}

void bytes_put_u16(struct bytes_writer *w, uint16_t value)
{
	put_big_endian(w, value, 2);
}

void bytes_put_u32(struct bytes_writer *w, uint32_t value)
{
	put_big_endian(w, value, 4);
}

void bytes_put_u64(struct bytes_writer *w, uint64_t value)
{
	put_big_endian(w, value, 8);
}

void bytes_put(struct bytes_writer *w, const void *data, size_t bytes)
{
	uint8_t *at = reserve(w, bytes);

	if (at && bytes)
		memcpy(at, data, bytes);
}

void bytes_put_zeros(struct bytes_writer *w, size_t bytes)
{
	uint8_t *at = reserve(w, bytes);

	if (at && bytes)
		memset(at, 0, bytes);
}

uint8_t *bytes_put_space(struct bytes_writer *w, size_t bytes)
{
	return reserve(w, bytes);
}

size_t bytes_written(const struct bytes_writer *w)
{
	return (size_t)(w->at - w->start);
}

size_t bytes_room(const struct bytes_writer *w)
{
	return w->is_full ? 0 : (size_t)(w->end - w->at);
}
