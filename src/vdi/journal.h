/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journal - the file beside an image with what a mirror's next process must know to go on with it
 *
 * <image>.mirror (base/beside.h says where exactly), replaced by rename; there from before the first link until the operation's
 * end is on record.  Whose the disk is stands in the owner's file, what is owed in map and marks.
 */
#ifndef SXM_VDI_JOURNAL_H
#define SXM_VDI_JOURNAL_H

#include "base/error.h"
#include "mirror/mirror.h"

struct journal {
	char *id, *remote, *domain; /* owned */
	bool is_sync;
	bool is_remembered;         /* its link was given up: no other is made before that is asked for */
	struct mirror_peer peer;    /* the far side as it was met last; no generation: that is the owner's file's */
};

/* Blocks. -1 + e: ENOENT: there is none. */
int journal_load(const char *file, struct journal *j, struct error *e);
void journal_clear(struct journal *j);
char *journal_encode(const struct journal *j); /* heap; NULL: out of memory */

#endif
