/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-layer - notes what is written, before it is: the layer under a mirror and over the disk
 *
 *      a write --> all its bits are set? ----------------------------yes--> down
 *                    no: are its regions marked? --yes--> set the bits --> down
 *                          no: wait; mark them, durable, together with what else waits --> set the bits --> down
 *
 * A snapshot, with nothing in flight and the moment chosen by the owner:
 *
 *      cbt_prepare (a new log in V.cbt.next) ... hold, drain, cbt_cut, release ... cbt_seal_cut (the old one is S.cbt now)
 *
 * Reads and flushes are never held. Where a mark cannot be written the log is put away, durable, and nothing is tracked any more;
 * where that cannot be done either, the write fails. What was written is reported, always; something else may be.
 */
#ifndef SXM_CBT_CBT_LAYER_H
#define SXM_CBT_CBT_LAYER_H

#include "block/extents.h"
#include "block/layer.h"
#include "cbt/cbt-live.h"
#include "loop/loop.h"

/* Takes log, also when it fails. NULL: out of memory. */
struct layer *cbt_new(struct loop *loop, struct layer *below, struct cbt_live *log);
/* It is at rest: nothing is written to its file until cbt_go_on(), but marks that a request needs. done() from the deferred
 * queue. */
void cbt_rest(struct layer *l, void (*done)(void *arg), void *arg);
void cbt_go_on(struct layer *l);
void cbt_checkpoint(struct layer *l);    /* the file has all bits soon; by itself a minute after the first */
bool cbt_is_lost(const struct layer *l); /* it was put away */

/* --- on the pool, at rest */
/* key: of the volume that will be the snapshot. */
int cbt_prepare(struct layer *l, const char *key, struct error *e);
void cbt_unprepare(struct layer *l);                         /* it does not come to a cut */
int cbt_seal_cut(struct layer *l, struct error *e);          /* after the cut: also while requests are in flight. -1: what was
                                                              * before the cut is not in a log; cbt_lose() */
int cbt_save(struct layer *l, const char *path, struct error *e); /* a sealed copy of the log as it is now */
/* A copy of what it is now, not sealed. */
int cbt_copy(const struct layer *l, struct cbt_log *copy, struct error *e);
/* --- at rest, and with nothing in flight */
int cbt_seal(struct layer *l, struct error *e);              /* on the pool; the log is closed: only layer_close() follows */
int cbt_grow(struct layer *l, uint64_t size_bytes, struct error *e); /* on the pool; before the disk is so large */
/* --- on the loop, nothing in flight */
void cbt_cut(struct layer *l);
void cbt_lose(struct layer *l);                              /* its files are gone: nothing is tracked any more */
const char *cbt_path(const struct layer *l);
uint64_t cbt_id(const struct layer *l);                      /* of the log; 0: it is lost */
/* What was written since the log of that id began, in order, is added to out (bytes). -1: it is another log, or lost; or no
 * memory. */
int cbt_changed(const struct layer *l, uint64_t id, struct extents *out);

#endif
