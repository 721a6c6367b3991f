/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bytes - reading and writing big-endian fields, never past the end of a buffer
 *
 *      struct bytes_reader r = bytes_reader(data, length);
 *      uint32_t option = bytes_get_u32(&r);
 *      uint32_t length = bytes_get_u32(&r);
 *      const uint8_t *name = bytes_get(&r, length);
 *      if (!bytes_is_exhausted(&r))            too short or too long: ask once, at the end
 *              return EINVAL;
 *
 * The first access that does not fit spoils the reader (writer) for good: it moves no further, reads give 0 or NULL, writes
 * nothing. So a parser may read all its fields and check once, before it uses any.
 */
#ifndef SXM_BASE_BYTES_H
#define SXM_BASE_BYTES_H

#include "base/compiler.h"

struct bytes_reader {
	const uint8_t *at;  /* borrowed: the next byte */
	const uint8_t *end; /* borrowed: after the last byte */
	bool is_short;      /* something did not fit */
};

struct bytes_writer {
	uint8_t *start; /* borrowed */
	uint8_t *at;    /* where the next byte goes */
	uint8_t *end;   /* after the last byte of the buffer */
	bool is_full;   /* something did not fit */
};

/* data: may be NULL when bytes is 0. */
struct bytes_reader bytes_reader(const void *data, size_t bytes);
struct bytes_writer bytes_writer(void *data, size_t bytes);

/* Network byte order; 0 when there is too little left. */
uint8_t bytes_get_u8(struct bytes_reader *r);
uint16_t bytes_get_u16(struct bytes_reader *r);
uint32_t bytes_get_u32(struct bytes_reader *r);
uint64_t bytes_get_u64(struct bytes_reader *r);
/* The next `bytes` bytes, in the reader's buffer; NULL when there are fewer (for 0 bytes: a pointer nobody may read from). */
const uint8_t *bytes_get(struct bytes_reader *r, size_t bytes);
/* What is left; 0 for a spoilt reader. */
size_t bytes_left(const struct bytes_reader *r);
/* Everything was read, and everything fitted. */
bool bytes_is_exhausted(const struct bytes_reader *r);

void bytes_put_u8(struct bytes_writer *w, uint8_t value);
void bytes_put_u16(struct bytes_writer *w, uint16_t value);
void bytes_put_u32(struct bytes_writer *w, uint32_t value);
void bytes_put_u64(struct bytes_writer *w, uint64_t value);
void bytes_put(struct bytes_writer *w, const void *data, size_t bytes);
void bytes_put_zeros(struct bytes_writer *w, size_t bytes);
/* Room for `bytes` bytes to be filled in by the caller; NULL when they do not fit. */
uint8_t *bytes_put_space(struct bytes_writer *w, size_t bytes);
/* How much was written; what fitted before the first that did not. */
size_t bytes_written(const struct bytes_writer *w);
size_t bytes_room(const struct bytes_writer *w); /* 0 for a spoilt writer */

#endif
