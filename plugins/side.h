/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * side - a volume's data, to be read while nobody writes to it
 *
 * It is shared-locked from side_open() to side_close(). Behind its end it reads as zeros.
 */
#ifndef SXM_PLUGINS_SIDE_H
#define SXM_PLUGINS_SIDE_H

#include <sys/types.h>

#include "plugins/image.h"

#define SIDE_BLOCK_BYTES 65536

/* Where bytes are kept: the same place has the same bytes. */
struct side_place {
	uint64_t device, file, offset;
};

struct side_map;
struct side {
	int fd;               /* owned; holds the lock */
	off_t bytes;
	char *block;          /* owned: what side_read() has read */
	struct side_map *map; /* owned; NULL: a raw file */
};

/* -1 + e: EBUSY, it is being written to. To be closed in any case. */
int side_open(struct side *s, const struct image *i, struct error *e);
void side_close(struct side *s);
/* The first byte of data at or after `at`; `end` where there is none. */
off_t side_next_data(const struct side *s, off_t at, off_t end);
/* The place of the byte at `at`, and how far the next ones follow it there. False: not known. */
bool side_find(const struct side *s, off_t at, struct side_place *place, off_t *end);
/* The block at `at`. */
int side_read(struct side *s, off_t at, struct error *e);

/* --- side-qcow2.c */
struct side_map *side_map_new(const struct image *i, const char *path, int fd, off_t *bytes, struct error *e);
void side_map_free(struct side_map *m);
off_t side_map_next_data(const struct side_map *m, off_t at, off_t end);
bool side_map_find(const struct side_map *m, off_t at, struct side_place *place, off_t *end);
int side_map_read(const struct side_map *m, off_t at, char *block, struct error *e);

#endif
