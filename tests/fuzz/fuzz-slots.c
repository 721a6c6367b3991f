/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A file in slots, as a stranger may have written it: what is found in it lies in it, and its sum is right.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/slots.h"

#define SLOT_BYTES (SLOTS_FILE_BYTES / 2)
#define HEAD_BYTES 47u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* As slots.c says: a mutation would never get past it. */
static void put_sum(char *slot)
{
	char head[HEAD_BYTES + 1], sum[17];
	uint64_t number, h;
	unsigned length;

	memcpy(head, slot, HEAD_BYTES);
	head[HEAD_BYTES] = '\0';
	if (sscanf(head, "slot %16" SCNx64 " %*16x %7x", &number, &length) != 2 || length > SLOT_BYTES - HEAD_BYTES)
		return;
	h = UINT64_C(14695981039346656037) ^ number;
	for (size_t i = 0; i < length; i++)
		h = (h ^ (uint8_t)slot[HEAD_BYTES + i]) * UINT64_C(1099511628211);
	snprintf(sum, sizeof(sum), "%016" PRIx64, h);
	memcpy(slot + 22, sum, 16);
}

static void check(const char *file, size_t bytes)
{
	size_t found = bytes;
	const char *text = slots_find(file, &found);

	if (text && (text < file || found > bytes || text + found > file + bytes))
		abort();
	if (text && bytes == SLOTS_FILE_BYTES && found > SLOTS_TEXT_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	char *any = malloc(bytes + 1), *file = calloc(1, SLOTS_FILE_BYTES);

	memcpy(any, data, bytes);
	check(any, bytes);
	memcpy(file, data, MIN(bytes, SLOTS_FILE_BYTES));
	check(file, SLOTS_FILE_BYTES);
	put_sum(file);
	put_sum(file + SLOT_BYTES);
	check(file, SLOTS_FILE_BYTES);
	free(file);
	free(any);
	return 0;
}
