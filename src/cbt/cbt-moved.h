/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-moved - the logs of a disk that moves to another SR: its own, and those that lead from its snapshots to it
 *
 *      here                                            there
 *      S1.cbt <-- S2.cbt <-- V.cbt                     K1.cbt <-- K2.cbt <-- W.cbt
 *                                                      origin S1  origin S2
 *
 * The disk has another name there, and so have its snapshots, if they were copied. The logs of these go under names nobody has
 * had before, so they replace nobody's; of which volume each was is its origin. Where W's chain comes to one whose origin a
 * volume there is a copy of, it says what changed since that volume.
 *
 * On its way a log is its file: log 0 (the disk's) at 0, the next older at CBT_MOVED_WINDOW, and so on; pages that were not sent
 * have no bits. What comes is checked, and costs no more memory than is said here. A page may come again, with more.
 */
#ifndef SXM_CBT_CBT_MOVED_H
#define SXM_CBT_CBT_MOVED_H

#include "cbt/cbt-log.h"

#define CBT_MOVED_MAX 64u                      /* logs; older ones are left behind */
#define CBT_MOVED_BYTES (UINT64_C(64) * MiB)   /* of all their pages, likewise */
#define CBT_MOVED_WINDOW (UINT64_C(1) << 40)
#define CBT_MOVED_PART_BYTES (1u << 20)        /* that are sent at once */

struct cbt_moved {
	struct cbt_log log[CBT_MOVED_MAX];     /* owned; [0] is the disk's, each next one its parent's */
	unsigned count;
	uint64_t bytes;                        /* of their pages */
	char key[CBT_MOVED_MAX][CBT_KEY_MAX];  /* there: the name of its file; "": it is not stored yet */
};

void cbt_moved_clear(struct cbt_moved *m); /* to one that has none, as {0} is */

/* --- here */
/* Reads those that lead to `log`, the disk's, whose file is `path`; takes log, also when it fails. What cannot be read, or is too
 * much, is left out, and all that is older. */
int cbt_moved_collect(struct cbt_moved *m, const char *path, struct cbt_log *log, struct error *e);
/* Whether the logs before the disk's are the same, and hers is no other, whatever its bits. */
bool cbt_moved_is_same(const struct cbt_moved *a, const struct cbt_moved *b);
/* What is to be sent next: as far as it is not in `sent` (of the same logs; NULL: nothing was sent). 0: no more; else so many
 * bytes of buffer, for *at. cursor: 0 at first. */
size_t cbt_moved_part(const struct cbt_moved *m, const struct cbt_moved *sent, uint64_t *cursor, uint8_t *buffer, uint64_t *at);

/* --- there */
/* Some bytes of it, from a stranger. 0, or an errno: they are refused. */
int cbt_moved_take(struct cbt_moved *m, uint64_t disk_bytes, uint64_t at, const uint8_t *data, size_t bytes);
/* Durable: all but the disk's own, whose file will be `path`; again: those that are not there any more. */
int cbt_moved_store_past(struct cbt_moved *m, const char *path, struct error *e);
/* ... and that one, in the place of whatever is there. All of it or nothing that counts. */
int cbt_moved_store(struct cbt_moved *m, const char *path, struct error *e);

#endif
