/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * copy-memory - what copies read into
 *
 * A direct read into scattered pages takes the device a descriptor for each, and its rate was seen to be a third of what it is
 * into a huge page. So a long copy has its place in one; a short one has a buffer of its own size.
 */
#ifndef SXM_MIRROR_COPY_MEMORY_H
#define SXM_MIRROR_COPY_MEMORY_H

#include "base/iobuf.h"
#include "mirror/core.h"

#define COPY_LONGEST_BYTES ((size_t)CORE_COPY_CHUNKS * CORE_CHUNK_BYTES)
#define COPY_SLOT_BYTES (256u * KiB) /* a long one takes one of these, or several that lie together */

struct copy_memory;

struct copy_bytes {
	struct iobuf *buffer;  /* NULL: none */
	uint32_t offset;       /* where they begin in it */
	uint32_t page;         /* in copy_memory, */
	uint8_t slots;         /* ... and a bit for each slot there; 0: a buffer of its own */
};

struct copy_memory *copy_memory_new(void);
/* All must be back. */
void copy_memory_free(struct copy_memory *m);

/* Up to COPY_LONGEST_BYTES. False: out of memory, *b is as it was. */
bool copy_memory_get(struct copy_memory *m, size_t bytes, struct copy_bytes *b);
/* Does nothing where there is none. */
void copy_memory_put(struct copy_memory *m, struct copy_bytes *b);
/* What is in no use goes back to the system, but for a little. */
void copy_memory_trim(struct copy_memory *m);
/* What it has from the system. */
size_t copy_memory_bytes(const struct copy_memory *m);

#endif
