/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-map - what the core knows of every chunk, cheap for a disk of any size
 */
#ifndef SXM_MIRROR_CORE_MAP_H
#define SXM_MIRROR_CORE_MAP_H

#include "base/bitmap.h"
#include "base/range.h"

/* Chunks [first, end). */
struct core_span {
	uint64_t first, end;
};

struct core_map {
	uint64_t size_bytes, chunks;
	struct bitmap *dirty;      /* owned: one bit a chunk; COPYING is in the copies' masks */
	struct bitmap *unreadable; /* owned: DIRTY, and the local disk does not give it (I7) */
	struct range *pristine;    /* owned: proved to read as zero at the start; sorted, apart, whole chunks */
	size_t pristine_count, pristine_room;
	struct bitmap *soiled;     /* owned: of those, what something was enqueued for since */
	struct bitmap *touched;    /* owned: written there since the last flush began, or being written */
	struct bitmap *flushing;   /* owned: what the flush under way will settle */
};

/* False: out of memory; core_map_fini() is safe then. */
bool core_map_init(struct core_map *m, uint64_t size_bytes);
void core_map_fini(struct core_map *m);

/* Every chunk the bytes touch; and a span's bytes, the disk's last chunk being short perhaps. */
struct core_span core_map_span(const struct core_map *m, struct range r);
struct range core_map_bytes(const struct core_map *m, struct core_span s);

void core_map_add_pristine(struct core_map *m, struct range r);
bool core_map_is_pristine(const struct core_map *m, struct core_span s); /* all of it */

/* Before an operation is enqueued for the far side: nothing there is pristine nor flushed any more. */
void core_map_enqueued(struct core_map *m, struct range r);

bool core_map_is_flushed(const struct core_map *m);
/* A flush of the far side begins; then core_map_enqueued() again for all that is queued or in flight: it covers none of that. */
void core_map_flush_begins(struct core_map *m);
void core_map_flush_ends(struct core_map *m, bool is_good); /* not good: all of it is `touched` again */

#endif
