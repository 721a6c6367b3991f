/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * progress - a move while it is under way, for whoever looks: a person at a terminal, a log, a program
 *
 *      PROGRESS_AUTO    a bar for each disk where the descriptor is a terminal, else as LINES
 *      PROGRESS_LINES   a line when something changes, and each 10 %
 *      PROGRESS_STEADY  as LINES, and each ten seconds
 *      PROGRESS_JSON    a line of JSON (view-json.h) each time
 *      PROGRESS_QUIET   nothing
 *
 * SIGWINCH interrupts whatever waits (no SA_RESTART): then progress_show() again if progress_is_stale().
 */
#ifndef SXM_MIGRATE_PROGRESS_H
#define SXM_MIGRATE_PROGRESS_H

#include "base/error.h"
#include "migrate/view.h"

enum progress_kind { PROGRESS_AUTO, PROGRESS_LINES, PROGRESS_STEADY, PROGRESS_JSON, PROGRESS_QUIET };

struct progress;
/* fd: borrowed. NULL + e: out of memory. */
struct progress *progress_new(int fd, enum progress_kind kind, struct error *e);
/* What was drawn stays. */
void progress_free(struct progress *p);

/* Each interval, and when something has happened. */
void progress_show(struct progress *p, const struct move_view *v);
bool progress_is_stale(const struct progress *p); /* the terminal has another size now */
/* A line that stays: with a bar above it. Not for PROGRESS_JSON, where a program reads. Made fit for a terminal. */
void progress_say(struct progress *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
