/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-marks - the marks' file: what it should say, what it says, and how it is made to say so
 *
 * Knows no loop. Two groups of functions, which may run at once in two threads: the loop's, and between begin and end the pool's.
 */
#ifndef SXM_MIRROR_PERSIST_MARKS_H
#define SXM_MIRROR_PERSIST_MARKS_H

#include "base/bitmap.h"
#include "mirror/persist-file.h"
#include "mirror/persist-header.h"

struct persist_marks {
	const struct persist_ops *ops;
	char *path;            /* owned */
	uint64_t regions;      /* bit `regions` of the file: all of the disk is marked */
	size_t blocks;         /* of bits */

	/* the loop's */
	struct bitmap *marked; /* owned: marked, and on the medium */
	uint8_t *now;          /* owned: the bits as they should be */
	struct bitmap *changed; /* owned: blocks of `now` that were not handed over to be written */

	/* the pool's, between begin and end */
	uint8_t *file;         /* owned: the header, then the bits as they are being written */
	struct bitmap *writing; /* owned: blocks */
	bool is_suspect;       /* a write or a sync failed: the next one makes the file anew */
	int fd;                /* owned */
};

/* Block. Everything is marked, no region is. -1 + e; fini() is safe then. */
int persist_marks_init(struct persist_marks *m, const struct persist_ops *ops, const char *path, const struct persist_header *h,
		       struct error *e);
/* After init(), before make(): takes up what is there. -1 + why: nothing was taken. */
int persist_marks_load(struct persist_marks *m, const struct persist_header *h, struct error *why);
/* After init() and perhaps load(): makes the file, with that. */
int persist_marks_make(struct persist_marks *m, struct error *e);
void persist_marks_fini(struct persist_marks *m); /* closes, removes nothing */

/* --- the loop's */
void persist_marks_set(struct persist_marks *m, uint64_t region);
/* Not on the medium any more, for all we know. */
void persist_marks_clear(struct persist_marks *m, uint64_t region);
void persist_marks_vouch(struct persist_marks *m);
bool persist_marks_is_vouched(const struct persist_marks *m);
bool persist_marks_has_changed(const struct persist_marks *m);
/* Hands over what has changed. */
void persist_marks_begin(struct persist_marks *m);

/* --- the pool's. 0, or an errno. */
int persist_marks_write(struct persist_marks *m, bool must_last);
/* Nothing is written any more. The file goes, and does not come back with a power loss. -1 + e: it may. */
int persist_marks_void(struct persist_marks *m, struct error *e);

#endif
