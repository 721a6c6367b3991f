/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The header of a map or of marks, as a stranger may have written it: whatever it is it is refused or it is just what we would
 * have written, and nothing outside it is read.
 */
#include <stdlib.h>
#include <string.h>

#include "mirror/persist-header.h"
#include "mirror/persist.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const struct persist_header want = {
	.size_bytes = GiB,
	.content_generation = 7,
	.mirror_id = "op.1",
	.source_name = "a",
	.target_name = "nbd://b/c",
	.boot_id = "01234567-89ab-cdef-0123-456789abcdef",
};

/* As persist-header.c says: a mutation would never get past it. */
static void put_sum(uint8_t *header)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < PERSIST_HEADER_BYTES - 8; i++)
		h = (h ^ header[i]) * UINT64_C(0x100000001b3);
	for (size_t i = 0; i < 8; i++)
		header[PERSIST_HEADER_BYTES - 8 + i] = (uint8_t)(h >> (56 - 8 * i));
}

static void check(const uint8_t *data, size_t bytes)
{
	size_t named = 76 + 6 + strlen(want.mirror_id) + strlen(want.source_name) + strlen(want.target_name);
	struct persist_header mine = want;
	uint8_t *ours = malloc(PERSIST_HEADER_BYTES);
	bool is_same_boot = false;
	struct error e;

	for (mine.kind = PERSIST_KIND_MAP; mine.kind <= PERSIST_KIND_MARKS; mine.kind++)
		if (persist_header_check(&mine, data, bytes, &is_same_boot, &e) == 0) {
			persist_header_encode(&mine, ours, &e);
			if (!is_same_boot) /* the one thing that may differ */
				memcpy(ours + 40, data + 40, PERSIST_BOOT_ID_BYTES);
			if (memcmp(ours, data, named) != 0)
				abort();
		}
	free(ours);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint8_t *header = calloc(1, PERSIST_HEADER_BYTES);

	check(data, bytes);
	memcpy(header, data, MIN(bytes, PERSIST_HEADER_BYTES - 8));
	put_sum(header);
	check(header, PERSIST_HEADER_BYTES);
	free(header);
	return 0;
}
