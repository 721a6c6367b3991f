/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * listing - what is known of the volumes of an SR, from its files and from the processes that serve them here
 *
 * Whatever the files say: names may hold any text, and parents may make circles.
 */
#ifndef SXM_CMD_LISTING_H
#define SXM_CMD_LISTING_H

#include "base/error.h"
#include "base/jsonspec.h"

#define LISTING_NONE SIZE_MAX

struct listing_user {
	char *domain;
	bool is_active, is_read_only;
	int64_t clients;
};
struct listing_mirror {
	char *id, *state, *why, *remote;
	bool is_copy, is_failed, is_complete;
	double progress;
};
struct listing_volume {
	char *key, *uuid, *name, *description, *format, *uri, *image; /* owned */
	int64_t size_bytes, allocated_bytes;
	bool is_writable, is_sharable, is_snapshot, is_tracked, is_data_destroyed;
	char *snapshot_of, *snapshot_time;  /* NULL: not on record */
	char *family;                       /* what clones of one another share */
	char *host;                         /* another host that has it active; NULL: none */
	char *owner;                        /* whose it is, where a mirror left a record of that; "" or NULL: none */
	char *trouble;                      /* why less is known of it; NULL: nothing is wrong */
	struct jsonspec_records users;      /* struct listing_user: who has it attached here */
	struct jsonspec_records mirrors;    /* struct listing_mirror: one or none */
	size_t parent;                      /* the volume it is a snapshot of; LISTING_NONE: that is not in the SR */
};
struct listing {
	char *dir, *uuid, *name, *description, *format; /* owned */
	bool is_shared;
	char *trouble;                   /* NULL: all is well; else why there is nothing of its volumes */
	struct jsonspec_records volumes; /* struct listing_volume, in the order of their keys */
};
extern const struct jsonspec listing_spec; /* jsonspec_clear(&listing_spec, &l) frees */

/* What is wrong is in l, too. -1: out of memory. */
int listing_look(const char *dir, struct listing *l);

#endif
