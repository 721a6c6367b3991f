/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * view-json - what is seen of a move as one line of JSON, and back: for programs (--json), and for the history
 *
 *      {"time":ms,"id":"...","phase":"...","why":"","started":ms,"held":ms,"released":ms,"ended":ms,"failed":false,"eta_ms":N,
 *       "downtime_ms":N,"disks":[{"name":"...","state":"...", ...}]}
 *
 * -1 is not known; times are Unix time in ms, 0: not yet.
 */
#ifndef SXM_MIGRATE_VIEW_JSON_H
#define SXM_MIGRATE_VIEW_JSON_H

#include "migrate/view.h"

#define VIEW_PHASE_MAX 32u

/* Heap, without an end of line; NULL: out of memory. */
char *view_encode(const struct move_view *v);
char *view_encode_disk(const struct move_disk *d); /* one of "disks" */
/* v is empty, or view_clear()ed. phase: where the word is kept that v->phase then is. -1 + e: it is no such line. */
int view_decode(const char *text, size_t bytes, struct move_view *v, char phase[static VIEW_PHASE_MAX], struct error *e);

#endif
