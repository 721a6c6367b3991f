/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirrors - every mirror and copy of this host: of the processes that run, and of the records of those that do not
 */
#ifndef SXM_CMD_MIRRORS_H
#define SXM_CMD_MIRRORS_H

#include "migrate/view.h"
#include "plugins/vdi-id.h"

/* What a row of the view is besides; as many as the view has disks, in the same order. */
struct mirrors_row {
	char id[VDI_ID_MAX];   /* of the disk */
	char *path;            /* owned: its image; NULL: not known */
	char *move;            /* owned: the id, on the other host, of the move that it comes by; NULL: not known, or of none */
	bool is_receiver;      /* a mirror is received here: the far side of one */
	bool is_recorded;      /* no process tells of it: its record does */
	int64_t ended_s;       /* Unix time; 0: not yet, or not known */
	int64_t seen_ms;       /* when a process told of it last */
	bool is_there;         /* in this look */
};
struct mirrors {
	struct move_view view;
	struct mirrors_row *row; /* owned */
};

/* Who is asked for, of each the id of a disk or of an operation, or the path of an image; the last one is NULL. NULL: all. */
void mirrors_look(struct mirrors *m, const char *const *wanted, int64_t now_ms);
void mirrors_clear(struct mirrors *m);

#endif
