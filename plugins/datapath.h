/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * datapath - what others need of an image's datapath
 */
#ifndef SXM_PLUGINS_DATAPATH_H
#define SXM_PLUGINS_DATAPATH_H

#include "plugins/failure.h"
#include "plugins/process.h"

/* The image of a datapath URI, canonical; heap. NULL + f. */
char *datapath_image(const char *uri, struct failure *f);

/* Before the image is removed: lets go of what a move that failed left attached (domains MIR...). -1 + f: somebody else has
 * it attached or active. */
int datapath_release(const char *path, struct failure *f);

/* What the image's process does for who has it open. 0: it did; 1: there is no process, or it does not have it so; -1 + e.
 * key: the volume that is made; NULL: none, and the log of changes goes on. */
int datapath_snapshot(const char *image, const char *to, const char *key, struct error *e);
int datapath_track(const char *image, bool is_wanted, struct error *e);
int datapath_save_log(const char *image, const char *to, struct error *e);
int datapath_resize(const char *image, int64_t bytes, struct error *e);

/* The image has all of the disk then: what was mirrored to it as a leaf, and composed, is merged into it, which may take a while.
 * EPERM: it is a leaf that is not composed. Most images have nothing of the kind, and it is good at once. */
int datapath_merge(const char *image, struct error *e);
/* It was composed: its process, where there is one, opens it for the guest that waits, and this waits for nothing. */
void datapath_expect(const char *image);

/* A domain of this host has it active for writing, or that cannot be known; whether or not the image is open just now: while its
 * files are changed it is not (vdi/pause), nor between a process that was killed and its successor, and its lock is free. */
bool datapath_has_writer(const char *path);
/* ... or has it attached: it may be about to be activated. */
bool datapath_may_get_writer(const char *path);
/* -1 + f: somebody has it attached, or a mirror of it is not settled. */
int datapath_check_idle(const char *path, struct failure *f);
/* -1 + e: it is a mirror's far side and has not everything. */
int datapath_check_whole(const char *path, struct error *e);

/* The image is there, and its record says that it is not plainly its owner's, or that a mirror of it was never settled. */
bool datapath_owes(const char *path);

/* {"domain":"..."}: heap; NULL: out of memory. */
char *datapath_domain(const char *domain);

#endif
