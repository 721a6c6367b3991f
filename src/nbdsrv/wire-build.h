/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * wire-build - structs -> the bytes of our answers. Pure
 */
#ifndef SXM_NBDSRV_WIRE_BUILD_H
#define SXM_NBDSRV_WIRE_BUILD_H

#include "base/bytes.h"
#include "block/extents.h"
#include "nbdsrv/wire.h"

/* --- handshake: appended to w, which has room for it. */
void wire_build_greeting(struct bytes_writer *w);
void wire_build_option_reply(struct bytes_writer *w, uint32_t option, uint32_t reply, uint32_t length);
/* An error reply with a sentence for whoever reads the client's log. */
void wire_build_option_error(struct bytes_writer *w, uint32_t option, uint32_t reply, const char *text);
void wire_build_export(struct bytes_writer *w, uint64_t size_bytes, uint16_t flags);

/* --- transmission: the bytes of a reply before its payload. */
#define WIRE_HEAD_MAX 64u

size_t wire_build_simple(uint8_t head[static WIRE_HEAD_MAX], uint64_t cookie, int err);
/* The only chunk of a successful READ; data_bytes follow. */
size_t wire_build_data(uint8_t head[static WIRE_HEAD_MAX], uint64_t cookie, uint64_t offset, uint32_t data_bytes);
/* The only chunk of a failed request; no payload. */
size_t wire_build_error(uint8_t head[static WIRE_HEAD_MAX], uint64_t cookie, int err);
/* A chunk of BLOCK_STATUS, one for each context; so many descriptors follow. */
void wire_build_status(struct bytes_writer *w, uint64_t cookie, uint32_t context, uint32_t descriptors, bool is_last);
#define WIRE_STATUS_BYTES (WIRE_CHUNK_BYTES + 4)
void wire_build_descriptor(struct bytes_writer *w, uint32_t length, uint32_t flags);
/* The descriptors for the extents, cut at range.end: room for x->count. Returns how many: at least one. */
uint32_t wire_build_descriptors(struct bytes_writer *w, const struct extents *x, struct range range);

/* errno -> the protocol's number. err is not 0. */
uint32_t wire_error(int err);

#endif
