/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * overlay-file - the two files beside an image that has an overlay
 *
 *      (none) --make--> OPEN: being written --seal--> SEALED: all is here --the image is replaced--> COMPOSED --> (removed)
 *
 * COMPOSED is SEALED where the image is not the file any more that it was when the overlay was made: so a rename composes.
 * What is OPEN and has no process that writes it is not whole, and never will be.
 * All of these block.
 */
#ifndef SXM_OVERLAY_OVERLAY_FILE_H
#define SXM_OVERLAY_OVERLAY_FILE_H

#include "base/bitmap.h"
#include "base/error.h"
#include "base/range.h"

#define OVERLAY_SECTOR_BYTES 512u
#define OVERLAY_SUFFIX ".overlay"
#define OVERLAY_MAP_SUFFIX ".overlay.map"

enum overlay_state { OVERLAY_NONE, OVERLAY_OPEN, OVERLAY_SEALED, OVERLAY_COMPOSED };

struct overlay_file {
	int fd;                 /* owned: the map's */
	char *data_path;        /* owned */
	uint64_t size_bytes;    /* of the disk */
	uint64_t end_bytes;     /* of the map */
	struct bitmap *sectors; /* owned: which are here; the layer's, once it has the file */
};

/* Of the image at this path. -1 + e: its map cannot be read, or is damaged. */
int overlay_state(const char *image, enum overlay_state *state, struct error *e);
/* A new one, empty, durable. EEXIST: it has one. */
struct overlay_file *overlay_file_make(const char *image, uint64_t size_bytes, struct error *e);
/* What is in f->sectors is all; durable. The data is already. */
int overlay_file_seal(struct overlay_file *f, struct error *e);
/* One that is SEALED. */
struct overlay_file *overlay_file_load(const char *image, struct error *e);
/* These are on the disk now, durable, and no longer here: so that is, then. f->sectors is left alone. */
int overlay_file_clear(struct overlay_file *f, const struct range *r, size_t count, struct error *e);
void overlay_file_free(struct overlay_file *f);
/* Good when there is none. */
int overlay_remove(const char *image, struct error *e);

#endif
