/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * decision - whether a group of disks is handed over: one word, durable, and whoever says it first has said it
 *
 * SXM_STATE_DIR/groups/<group>.json, on the host whose disks they are.  It is made once and never changed:
 *
 *      the coordinator        when every disk is prepared: "commit"
 *      anybody else           who will not wait for it any longer: "cancel"
 *
 * So nobody has to guess what another one is about to write.  A decision that was heard of is durable.
 * Everything here blocks.
 */
#ifndef SXM_BASE_DECISION_H
#define SXM_BASE_DECISION_H

#include "base/compiler.h"
#include "base/error.h"

#define DECISION_GROUP_MAX 64 /* bytes of a group's name with its NUL */

enum decision { DECISION_NONE = 0, DECISION_COMMIT, DECISION_CANCEL };

/* A-Z a-z 0-9 . _ -, no leading dot: it is safe in a file's name. */
bool decision_group_is_valid(const char *group);

/* What is decided. DECISION_NONE: nothing yet, e->err 0; or it cannot be known: e. */
enum decision decision_read(const char *group, struct error *e);
/* What is decided: `want`, if nothing was. DECISION_NONE + e: it cannot be known, nor made. */
enum decision decision_make(const char *group, enum decision want, struct error *e);
/* Nobody needs it any more: every disk of the group has followed it. */
int decision_forget(const char *group, struct error *e);

/* Drops each "cancel" that is older than that, and what a maker left who died in the middle. A "commit" stays, however old: a
 * disk that has not followed it yet would find nothing, and cancel what the others did. */
void decision_collect(int64_t kept_s);

const char *decision_name(enum decision d);

#endif
