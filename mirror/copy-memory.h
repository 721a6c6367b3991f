/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * copy-memory - what copies read into
 *
 * A direct read into scattered pages takes the device a descriptor for each, and its rate was seen to be a third of what it is
 * into a huge page. So a long copy has a slot in one; a short one has a buffer of its own size.
 */
#ifndef SXM_MIRROR_COPY_MEMORY_H
#define SXM_MIRROR_COPY_MEMORY_H

#include "base/iobuf.h"
#include "mirror/core.h"

#define COPY_SLOT_BYTES (CORE_COPY_CHUNKS * CORE_CHUNK_BYTES)

struct copy_memory;

struct copy_bytes {
	struct iobuf *buffer;  /* NULL: none */
	uint32_t offset;       /* where they begin in it */
	unsigned slot;         /* in copy_memory, if it is not a buffer of its own */
};

struct copy_memory *copy_memory_new(void);
/* All must be back. */
void copy_memory_free(struct copy_memory *m);

/* Up to COPY_SLOT_BYTES. False: out of memory, *b is as it was. */
bool copy_memory_get(struct copy_memory *m, size_t bytes, struct copy_bytes *b);
/* Does nothing where there is none. */
void copy_memory_put(struct copy_memory *m, struct copy_bytes *b);

#endif
