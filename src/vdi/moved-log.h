/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * moved-log - the log of a disk's changes goes with it to the far side of its mirror: the steps of both ends, for this room
 */
#ifndef SXM_VDI_MOVED_LOG_H
#define SXM_VDI_MOVED_LOG_H

#include "cbt/cbt-moved.h"
#include "nbdsrv/link.h"

struct outgoing;
struct vdi;
typedef void step_fn(struct vdi *v);

/* --- source-log.c */
/* Sends the logs of changes, as they are now; is_final: held and drained, and the far side is told that this is all. Whatever
 * comes of it, v->step is good then. */
void source_log(struct vdi *v, bool is_final, step_fn *next);
void source_log_stays(const struct vdi *v, const char *why); /* it does not move: one line, where there is one */
void source_log_free(struct outgoing *o);                    /* NULL is allowed */

/* --- far-log.c */
struct far_log {
	struct cbt_moved moved; /* owned: what has come */
	uint64_t generation;    /* of the link that sends; 0: none does */
	uint64_t epoch;         /* all has come, in this epoch; 0: not so */
};
int far_log_take(void *v, struct nbdsrv_link *link, uint64_t at, const uint8_t *data, size_t bytes); /* nbdsrv_link_ops' */
void far_log_begin(struct vdi *v);               /* JOB_LINK: LOG_BEGIN, LOG_KEEP, LOG_END */
void far_log_forget(struct vdi *v, bool is_all); /* what has not come whole; or all of it */
/* COMMIT's two halves: on the medium, before it is said; and kept from now on, before anybody writes. What cannot be is left,
 * with a word in the process' log. */
void far_log_store(struct vdi *v, step_fn *next);
void far_log_use(struct vdi *v, step_fn *next);

/* --- tracking.c */
/* Held and drained, and the log's file was replaced: it takes the place of the log that was kept, if one was. v->step: nothing is
 * tracked any more. */
void tracking_swap(struct vdi *v, step_fn *next);

#endif
