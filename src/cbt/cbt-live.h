/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-live - the log of a disk that is written now: its file beside the image, its map in SXM_RUN_DIR, and what blocks
 *
 *      the map     SXM_RUN_DIR/<id>/cbt.<session>: exact, shared mapping, written by plain stores before a write is submitted:
 *                  survives kill -9. Where it cannot be had (a full tmpfs), memory instead
 *      the file    bits: what was written of them; marks: in which regions there may be more. Survive the host
 *
 *      session 0 --open--> session s, of the file and of the map --seal--> session 0, all bits in the file, no marks, no map
 *                             | killed: the map of this session and this boot has the bits
 *                             '--host died, or another host had it: bits, and all of every marked region
 *
 * All here blocks, but for the arrays, which belong to the loop while no call is under way that says otherwise.
 */
#ifndef SXM_CBT_CBT_LIVE_H
#define SXM_CBT_CBT_LIVE_H

#include "block/extents.h"
#include "cbt/cbt-log.h"

struct cbt_live {
	char *path, *run_dir, *map_path;  /* owned; map_path NULL: memory only */
	int fd;                           /* owned; the file, whatever its name is by now */
	struct cbt_header header;
	uint64_t regions, pages;
	void *map;                        /* owned; the bits are in it */
	size_t map_bytes;
	uint64_t *bits;
	uint64_t *marks;                  /* owned; that are in the file, durable */
	uint64_t *touched;                /* owned; a bit a region: bits were set since the last checkpoint began */
	uint64_t *before;                 /* owned; ... between the two before that */
	uint64_t *dirty;                  /* owned; a bit a page: it has bits, or lacks marks, that the file does not show */
};

/* For writing; nobody else has it (the image is locked). NULL, e->err 0: changes are not tracked. A log that is worth nothing
 * is begun anew, with a word in the log of the process. NULL + e: it could be neither used nor put away. */
struct cbt_live *cbt_live_open(const char *path, const char *run_dir, uint64_t size_bytes, struct error *e);
/* A new one. marks: in the file from the beginning; NULL: none. */
struct cbt_live *cbt_live_make(const char *path, const char *run_dir, uint64_t size_bytes, const char *parent,
			       const uint64_t *marks, struct error *e);
/* Frees the memory; the files stay. NULL is allowed. */
void cbt_live_free(struct cbt_live *l);

/* Pages as they were copied; then they are on the medium. 0 or an errno. */
struct cbt_page {
	uint64_t n;
	uint8_t bytes[CBT_PAGE_BYTES];
};
int cbt_live_write(int fd, const struct cbt_page *page, size_t count);
/* The rest with the arrays, which nobody else touches meanwhile. */
int cbt_live_seal(struct cbt_live *l, struct error *e);                           /* at rest: session 0 */
int cbt_live_copy(const struct cbt_live *l, const char *path, const char *key, struct error *e); /* a sealed log, key's */
int cbt_live_grow(struct cbt_live *l, uint64_t size_bytes, struct error *e);
/* What was written, in order, is added to out (bytes). On the loop. -1: no memory. */
int cbt_live_changed(const struct cbt_live *l, uint64_t size_bytes, struct extents *out);
/* It is none any more: durable. */
int cbt_live_void(const char *path, struct error *e);
void cbt_live_drop_map(struct cbt_live *l);

#endif
