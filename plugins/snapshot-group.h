/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * snapshot-group - snapshots of several volumes at one moment: all of them, or none
 *
 * What each of them holds is its disk at an instant when the writes of all were held (taking.h); they become volumes together
 * (joint.h).  Volumes may be of several SRs and formats, in use or not; in use only on this host.
 */
#ifndef SXM_PLUGINS_SNAPSHOT_GROUP_H
#define SXM_PLUGINS_SNAPSHOT_GROUP_H

#include <stdint.h>

#include "plugins/volume.h"

#define SNAPSHOT_GROUP_MAX 128u

struct snapshot_member {
	const char *dir, *key;           /* borrowed: the SR's directory, the volume */
	/* Out: */
	char new_key[VOLUME_UUID_TEXT];  /* the snapshot */
	uint64_t held_us;                /* how long its guests were; 0: it has none */
};
struct snapshot_group {
	struct snapshot_member *member;  /* borrowed */
	size_t count;                    /* 1 to SNAPSHOT_GROUP_MAX */
	/* Out: */
	char id[VOLUME_UUID_TEXT];       /* each snapshot's key "snapshot_group" */
	char time[VOLUME_TIME_TEXT];     /* and "snapshot_time" */
};

/* -1 + e: none was taken, nothing is left of any, and guests go on. */
int snapshot_group(struct snapshot_group *g, struct error *e);

#endif
