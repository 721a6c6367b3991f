/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Any bytes to the pure parsers of the NBD server: they stay inside them, texts too, and what passes the verdict is a range
 * inside the disk with no more payload than was agreed on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbdsrv/wire-build.h"
#include "nbdsrv/wire-parse.h"
#include "nbdsrv/wire-xsxm.h"

#define DISK_BYTES (4 * GiB + 512)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
extern const char *const fuzz_words[];
const char *const fuzz_words[] = { "IHAVEOPT", "NBDMAGIC", "\x25\x60\x95\x13", "base:", "base:allocation", "x-sxm:1/m/1/1", "18446744073709551615",
					NULL };

static void insist(bool is_so)
{
	if (!is_so)
		abort();
}

static void check_text(const struct wire_text *t, const uint8_t *data, size_t bytes)
{
	insist(t->bytes <= WIRE_STRING_MAX);
	insist(t->at >= data && t->at <= data + bytes && t->bytes <= (size_t)(data + bytes - t->at));
}

static void try_name(const struct wire_text *t)
{
	struct xsxm_name name;
	char text[XSXM_NAME_MAX + 1];

	if (!wire_xsxm_parse(t, &name))
		return;
	/* There is one way to write it. */
	insist(memchr(name.mirror, '\0', sizeof(name.mirror)) != NULL);
	snprintf(text, sizeof(text), "x-sxm:%u/%s/%llu/%llu", name.version, name.mirror, (unsigned long long)name.epoch,
		 (unsigned long long)name.generation);
	insist(wire_text_is(t, text));
}

static void try_options(const uint8_t *data, size_t bytes)
{
	struct wire_option option;
	struct wire_info info;
	struct wire_meta meta;
	struct wire_text query;
	uint32_t announced;

	if (bytes >= WIRE_OPTION_BYTES)
		wire_parse_option(data, &option);
	if (wire_parse_info(data, bytes, &info))
		check_text(&info.name, data, bytes);
	if (!wire_parse_meta(data, bytes, &meta))
		return;
	check_text(&meta.name, data, bytes);
	for (announced = meta.queries; wire_next_query(&meta, &query); announced--) {
		check_text(&query, data, bytes);
		try_name(&query);
	}
	insist(announced == 0);
}

static void try_request(const uint8_t *data, unsigned terms_bits)
{
	struct wire_terms terms = {
		.size_bytes = DISK_BYTES, .is_read_only = terms_bits & 1, .can_trim = terms_bits & 2, .can_zero = terms_bits & 4,
		.has_structured = terms_bits & 8, .has_contexts = terms_bits & 16,
	};
	struct wire_request r;
	int err;

	if (!wire_parse_request(data, &r))
		return;
	err = wire_check_request(&r, &terms);
	if (err)
		insist(wire_error(err) != 0 && wire_error(err) != WIRE_EIO);
	else if (r.type != WIRE_CMD_FLUSH && r.type != WIRE_CMD_DISC)
		insist(r.length > 0 && r.offset < DISK_BYTES && r.length <= DISK_BYTES - r.offset);
	if (!err && (r.type == WIRE_CMD_READ || r.type == WIRE_CMD_WRITE))
		insist(r.length <= WIRE_PAYLOAD_MAX);
	if (!err && r.type == WIRE_CMD_WRITE)
		insist(!terms.is_read_only);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	try_options(data, bytes);
	try_name(&(struct wire_text){ data, (uint32_t)MIN(bytes, (size_t)WIRE_STRING_MAX) });
	if (bytes >= WIRE_REQUEST_BYTES)
		for (unsigned bits = 0; bits < 32; bits++)
			try_request(data, bits);
	return 0;
}
