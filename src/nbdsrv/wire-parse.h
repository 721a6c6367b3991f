/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * wire-parse - a client's bytes -> structs, and the verdict on them. Pure: no socket, no export, no allocation
 *
 * Texts point into the caller's bytes and are not terminated.
 */
#ifndef SXM_NBDSRV_WIRE_PARSE_H
#define SXM_NBDSRV_WIRE_PARSE_H

#include "base/bytes.h"
#include "nbdsrv/wire.h"

struct wire_text {
	const uint8_t *at; /* borrowed */
	uint32_t bytes;
};
bool wire_text_is(const struct wire_text *t, const char *literal);

struct wire_option {
	uint32_t type; /* enum wire_option_type, or something we do not know */
	uint32_t length;
};
/* False: wrong magic. */
bool wire_parse_option(const uint8_t header[static WIRE_OPTION_BYTES], struct wire_option *out);

/* Data of INFO and GO. */
struct wire_info {
	struct wire_text name;
	bool wants_name;
	bool wants_block_size;
};
/* False: the lengths inside do not add up to `bytes`, or the name is too long. */
bool wire_parse_info(const uint8_t *data, size_t bytes, struct wire_info *out);

/* Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
struct wire_meta {
	struct wire_text name;
	uint32_t queries;           /* left to be taken by wire_next_query() */
	struct bytes_reader reader; /* at the next one */
};
/* Checks all of it: after true, every wire_next_query() of the given number succeeds. */
bool wire_parse_meta(const uint8_t *data, size_t bytes, struct wire_meta *out);
/* False: there are no more. */
bool wire_next_query(struct wire_meta *m, struct wire_text *query);

struct wire_request {
	uint16_t flags;
	uint16_t type; /* enum wire_command, or something we do not know */
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
};
/* False: wrong magic. */
bool wire_parse_request(const uint8_t header[static WIRE_REQUEST_BYTES], struct wire_request *out);

bool wire_is_write(uint16_t type);

/* What was agreed with this client, and what stands below it now. */
struct wire_terms {
	uint64_t size_bytes;
	bool is_read_only;
	bool can_trim;
	bool can_zero;
	bool has_structured;
	bool has_contexts;
};
/* 0: may be carried out; else the errno to answer with. A request that passes has a range inside the export that is not
 * empty (FLUSH and DISC aside), and at most WIRE_PAYLOAD_MAX bytes of payload in either direction. */
int wire_check_request(const struct wire_request *r, const struct wire_terms *terms);

#endif
