/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The logs of a disk's changes as a stranger may send them, piece by piece: each is refused or taken, no more memory is used than
 * is said, and what was taken can be sent on and arrives as it was. A piece: 2 bytes which log, 2 which page, 1 how many pages of
 * the bytes that follow (0: a header of their fields, as a mutation would never get its sum right).
 */
#include <stdlib.h>
#include <string.h>

#include "cbt/cbt-moved.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define DISK_BYTES (6 * GiB)

static uint8_t page[8 * CBT_PAGE_BYTES], piece[CBT_MOVED_PART_BYTES];

/* From the data's next bytes: size in MiB (2), id, flags (sealed, session, parent, size to the byte), origin's letter. */
static size_t make_header(const uint8_t *data, size_t bytes)
{
	struct cbt_header h = { .size_bytes = 0 };

	if (bytes < 5)
		return 0;
	h.size_bytes = ((uint64_t)data[0] << 8 | data[1]) * MiB + (data[3] & 8 ? 513 : 0);
	h.id = data[2];
	h.is_sealed = data[3] & 1;
	h.session = data[3] & 2;
	h.parent[0] = data[3] & 4 ? 'p' : '\0';
	h.origin[0] = (char)data[4];
	cbt_header_encode(&h, page);
	return 5;
}

static void check(const struct cbt_moved *m)
{
	struct cbt_moved again = { .count = 0 };
	uint64_t cursor = 0, at, total = 0;
	size_t bytes;

	for (unsigned i = 0; i < m->count; i++)
		total += cbt_pages(m->log[i].header.size_bytes) * CBT_PAGE_BYTES;
	if (m->count > CBT_MOVED_MAX || total != m->bytes || total > CBT_MOVED_BYTES)
		abort();
	while ((bytes = cbt_moved_part(m, NULL, &cursor, piece, &at)))
		if (cbt_moved_take(&again, DISK_BYTES, at, piece, bytes) != 0)
			abort();
	if (!cbt_moved_is_same(m, &again))
		abort();
	for (unsigned i = 0; i < m->count; i++)
		if (memcmp(m->log[i].bits, again.log[i].bits, m->log[i].regions * CBT_REGION_WORDS * 8) != 0)
			abort();
	cbt_moved_clear(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct cbt_moved m = { .count = 0 };

	while (bytes >= 5) {
		uint64_t at = ((uint64_t)data[0] << 8 | data[1]) * CBT_MOVED_WINDOW + ((uint64_t)data[2] << 8 | data[3]) * CBT_PAGE_BYTES;
		size_t length = data[4] % 9 * CBT_PAGE_BYTES, used;

		data += 5;
		bytes -= 5;
		if (length) {
			used = MIN(bytes, length);
			memset(page, 0, sizeof(page));
			memcpy(page, data, used);
		} else {
			used = make_header(data, bytes);
			length = CBT_PAGE_BYTES;
		}
		cbt_moved_take(&m, DISK_BYTES, at, page, length);
		data += used;
		bytes -= used;
	}
	check(&m);
	cbt_moved_clear(&m);
	return 0;
}
