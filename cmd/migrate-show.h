/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * migrate-show - what `sxm migrate` says while a move goes on, and before and after it
 */
#ifndef SXM_CMD_MIGRATE_SHOW_H
#define SXM_CMD_MIGRATE_SHOW_H

#include "migrate/journey.h"
#include "migrate/plan.h"

struct show {
	bool is_json, is_quiet;
	const char *phase;   /* borrowed: as it was said last */
	int64_t said_ms;
};

/* arg: a struct show. */
void show_begin(void *arg, const struct journey *j);
void show_view(void *arg, const struct move_view *v);
void show_text(void *arg, const char *text);

void show_plan(const struct plan *p);
void show_record(const struct journey_record *r, bool is_json);

#endif
