/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bar - one disk, or all of them, on one line of a terminal, however narrow
 */
#ifndef SXM_MIGRATE_BAR_H
#define SXM_MIGRATE_BAR_H

#include "migrate/columns.h"
#include "migrate/view.h"

struct bar_style {
	unsigned columns;
	bool has_colours, is_unicode;
	unsigned name_columns; /* bar_name_columns() of all that are shown */
};

unsigned bar_name_columns(const char *const *names, unsigned count, unsigned columns);
void bar_disk(struct columns *c, const struct move_disk *d, const struct bar_style *s);
/* Why the disk waits or has failed. False: there is no reason, and no line. */
bool bar_reason(struct columns *c, const struct move_disk *d, const struct bar_style *s);
/* The move as a whole. */
void bar_move(struct columns *c, const struct move_view *v, const struct bar_style *s);

/* A word for people: "connecting", "copying", "in sync", "handing over", "moved", "waits", "failed", ... */
const char *bar_state(const struct move_disk *d);
unsigned bar_percent(const struct move_disk *d);

#endif
