/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * history - what was seen of a move, kept: SXM_STATE_DIR/journeys/ID.history, a line of view-json for each look
 *
 * It is for people afterwards, and nothing depends on it: what cannot be written is not there. Its size is bounded.
 */
#ifndef SXM_MIGRATE_HISTORY_H
#define SXM_MIGRATE_HISTORY_H

#include "base/error.h"
#include "migrate/view.h"

#define HISTORY_MAX_BYTES (UINT64_C(1) << 20) /* then it is thinned to half */

/* A name for a file: 1 to 63 of A-Z a-z 0-9 . _ -, no leading dot. */
bool history_is_id(const char *id);
/* Heap. NULL: out of memory. */
char *history_path(const char *id);

struct history;
/* Goes on with one that is there. most_bytes: 0 for HISTORY_MAX_BYTES. NULL + e. */
struct history *history_open(const char *path, uint64_t most_bytes, struct error *e);
/* -1 + e: this look is not in it. */
int history_append(struct history *h, const struct move_view *v, struct error *e);
void history_close(struct history *h);

/* fn for each look, in their order; what is no such line, as a crash may leave the last one, is passed over. -1 + e: it cannot be
 * read, or nothing of it. */
int history_read(const char *path, void (*fn)(const struct move_view *v, void *arg), void *arg, struct error *e);

#endif
