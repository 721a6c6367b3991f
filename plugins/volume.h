/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volume - what the files of the Volume.* verbs share, and what the datapath's need of them
 */
#ifndef SXM_PLUGINS_VOLUME_H
#define SXM_PLUGINS_VOLUME_H

#include "plugins/failure.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/meta.h"
#include "plugins/smapi.h"

#define VOLUME_UUID_TEXT 37
#define VOLUME_TIME_TEXT 24

void volume_make_uuid(char text[static VOLUME_UUID_TEXT]);
void volume_make_time(char text[static VOLUME_TIME_TEXT]); /* now, as a snapshot's key "snapshot_time" has it */
/* All of these: -1 + f. */
int volume_raise_missing(const char *key, struct failure *f);
int volume_open_sr(struct smapi_call *call, struct sr *sr, struct failure *f); /* key is one, too */
int volume_answer(const char *dir, const char *key, char **result, struct failure *f);
/* A descriptor: the SR's lock, shared, keeps SR.destroy from finding no volumes, and a sweep from passing names, while a volume
 * is being made. */
int volume_hold_sr(const struct sr *sr, struct failure *f);
/* A descriptor: the record's lock. */
int volume_lock(const char *dir, const char *key, enum lock_mode mode, struct failure *f);
/* It is active on no other host: see ownership_check(). Before locks are taken, as it may wait. */
int volume_check_here(const char *dir, const char *key, struct failure *f);
/* The record, or what can be said where it is damaged; meta_volume_clear() frees. */
int volume_read(const char *dir, const char *key, struct meta_volume *m, struct failure *f);
/* ... of one whose data is there: -1 + f for others. */
int volume_read_whole(const char *dir, const char *key, struct meta_volume *m, struct failure *f);
/* By its image's path, which is not there. */
bool volume_is_data_destroyed(const char *image);
/* The image of the volume that is there. */
int volume_image(const struct sr *sr, const char *key, struct image *i, struct failure *f);
/* The origin's record becomes that of what was taken of it: t->to's passing file is there. */
int volume_derive(struct meta_volume *m, const struct image_taking *t, bool is_snapshot, struct error *e);
/* Its image is published: the record makes it a volume. On error nothing of it is left. */
int volume_add(const struct image *i, const struct meta_volume *m, struct error *e);
/* With the record's lock held. record: its path; NULL: it has none of ours. */
int volume_remove(const struct image *i, const char *record, struct failure *f);
/* It holds something else now: a new content_id. 1; -1: out of memory. */
int volume_renew(struct meta_volume *m);
/* Of a new volume. */
const struct image_ops *volume_format(const struct sr *sr, bool is_sharable);

/* The image is about to be written to: a new content_id, durable, for which no room is needed. is_read_only: set where nobody may
 * write to the volume. + e where it has none in its record: 1, this host knows one, and volume_is_doubted() until it gets one;
 * -1, not even that. */
int volume_note_writer(const char *image, bool *is_read_only, struct error *e);
/* m: its record. As far as this host knows its content may be another than when it got its content_id, or become another under
 * that id: so that one names nothing. */
bool volume_is_doubted(const char *dir, const char *key, const struct meta_volume *m);

#endif
