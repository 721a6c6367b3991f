/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * debt - where a mirror of this disk keeps what it owes (mirror/persist.h), and that nothing stale stays there
 *
 *      map      SXM_RUN_DIR/<id>/map
 *      marks    <image>.marks (base/beside.h)
 *      journal  <image>.mirror; likewise (journal.h)
 *
 * All of it blocks: in the pool, or where the loop does not run.
 */
#ifndef SXM_VDI_DEBT_H
#define SXM_VDI_DEBT_H

#include "base/error.h"

#define DEBT_MAP_FILE "map"
#define DEBT_MARKS_SUFFIX ".marks"
#define DEBT_JOURNAL_SUFFIX ".mirror"

struct debt {
	char *map, *marks, *journal; /* owned; paths */
};
/* run_dir: SXM_RUN_DIR/<id>. Makes SXM_STATE_DIR where it is needed. -1 + e; debt_clear() is safe then. */
int debt_find(const char *run_dir, const char *image, struct debt *d, struct error *e);
void debt_clear(struct debt *d);

/* No mirror of this disk is to be resumed: all of it goes, as far as it can. */
void debt_forget(const char *run_dir, const char *image);
/* No mirror of this disk runs, nor did when its process died. The marks stay: whether one is to be resumed after the end of its
 * host is not known in SXM_RUN_DIR. This one is for the loop, too: it is one unlink() on a tmpfs. */
void debt_forget_map(const char *run_dir);

#endif
