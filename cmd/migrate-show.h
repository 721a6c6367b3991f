/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * migrate-show - what `sxm migrate` says while a move goes on, and before and after it
 */
#ifndef SXM_CMD_MIGRATE_SHOW_H
#define SXM_CMD_MIGRATE_SHOW_H

#include "migrate/history.h"
#include "migrate/journey.h"
#include "migrate/plan.h"
#include "migrate/progress.h"

struct show {
	bool is_json, is_quiet;
	struct progress *progress; /* owned */
	struct history *history;   /* owned: of the move that was begun last; NULL: it cannot be kept */
};

/* NULL + e in show_open(): out of memory. */
int show_open(struct show *s, struct error *e);
void show_close(struct show *s);
/* arg: a struct show. What is seen from show_begin() on is kept, too, for `sxm report`. */
void show_begin(void *arg, const struct journey *j);
void show_view(void *arg, const struct move_view *v);
void show_text(void *arg, const char *text);

void show_plan(const struct plan *p);
void show_record(const struct journey_record *r, bool is_json);

#endif
