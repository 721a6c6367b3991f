/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * joint - volumes that come to be together, or not at all
 *
 *      joint_begin    DIR/sxm-sr.group.<uuid> in each of their SRs, durable
 *      their images and records are made; each record's key "snapshot_group" names the group: no verb shows such a volume
 *      joint_commit   in the first SR that file says so, durable: now all of them are there; then the files go
 *
 * Whoever is killed in between leaves volumes that nobody sees; joint_sweep() removes them with their images at the next
 * SR.attach.  An SR whose file names another SR asks there; while that one is not to be had its volumes stay, unseen.
 *
 * With the locks of all their SRs held shared (volume_hold_sr), from before joint_begin until the end.
 */
#ifndef SXM_PLUGINS_JOINT_H
#define SXM_PLUGINS_JOINT_H

#include "base/jsonspec.h"
#include "plugins/meta.h"

#define JOINT_PREFIX "sxm-sr.group."
#define JOINT_KEY "snapshot_group" /* of a volume's keys: the group's uuid */

/* dirs: of the SRs, the first is the one that decides. -1 + e: no file is left. */
int joint_begin(const char *const *dirs, size_t count, const char *id, struct error *e);
/* -1 + e: it is not decided; joint_abandon() then, when records and images are gone. */
int joint_commit(const char *const *dirs, size_t count, const char *id, struct error *e);
void joint_abandon(const char *const *dirs, size_t count, const char *id);

/* A volume of a group that is not there yet, or will never be, is none. keys: its record's. */
bool joint_is_pending(const char *dir, const struct jsonspec_map *keys);
/* Is that the name of a group's file? */
bool joint_is_file(const char *name);
/* ... and what it stands for is put right. With the SR's lock, exclusive: whoever made the group was killed. */
void joint_sweep(const char *dir, const char *name);

#endif
