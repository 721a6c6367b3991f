/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-header - what the map and the marks begin with: whose they are. Pure
 */
#ifndef SXM_MIRROR_PERSIST_HEADER_H
#define SXM_MIRROR_PERSIST_HEADER_H

#include "base/error.h"

#define PERSIST_HEADER_BYTES 16384u
#define PERSIST_BOOT_ID_BYTES 36u

enum persist_kind { PERSIST_KIND_MAP = 1, PERSIST_KIND_MARKS = 2 };

struct persist_header {
	enum persist_kind kind;
	uint64_t size_bytes, content_generation;
	const char *mirror_id, *source_name, *target_name; /* borrowed */
	char boot_id[PERSIST_BOOT_ID_BYTES + 1];           /* MAP only, else "" */
};

/* out: PERSIST_HEADER_BYTES, all of them filled. -1 + e: a name is longer than there is room for. */
int persist_header_encode(const struct persist_header *h, uint8_t *out, struct error *e);

/* Whether data is the header of such a file, the boot id apart, which *is_same_boot tells of. -1 + why: EUCLEAN, it is none or a
 * spoilt one; ESTALE, it is of something else. Reads nothing past `bytes`. */
int persist_header_check(const struct persist_header *want, const uint8_t *data, size_t bytes, bool *is_same_boot,
			 struct error *why);

#endif
