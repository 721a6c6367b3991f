/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * target - where a disk is to be written: what is there already, a file that is made, or a new volume of an SR
 *
 * What was made goes again where it did not become whole; what was there before is left as it is then, and is said not to be so.
 * Until it is whole its name is another one: "NAME (incomplete)", FILE.partial, FILE.partial.qcow2. So nobody takes what a killed
 * command left, or a host that lost its power, for a disk; the doctor knows it (plugins/unfinished.h).
 */
#ifndef SXM_CMD_TARGET_H
#define SXM_CMD_TARGET_H

#include "cmd/place.h"

struct target {
	struct place place;
	char *made_name; /* owned: what place.name is, where it was made here */
	char *whole_name; /* owned: what a volume is called, or where a file is, when it is whole */
	char *sr;        /* owned: handle of the SR in which a volume was made */
	bool is_made;
};

struct target_wish {
	const char *name;        /* SR: a new volume; SR/KEY, PATH, NBD URI */
	const char *format;      /* as place_find()'s */
	const char *volume_name; /* of a new volume */
	int64_t bytes;
	const struct place *not_this; /* NULL allowed */
	bool may_overwrite;      /* what is there and was written to */
};

/* -1 + e: nothing was made. EEXIST: there is something in it. */
int target_find(struct target *t, const struct target_wish *wish, struct error *e);
/* A new volume: a clone of that one where the SR can clone, else a copy of it; enlarged to so many bytes. */
int target_clone(struct target *t, const char *dir, const char *base_key, const char *volume_name, int64_t bytes,
		 struct error *e);
/* Of what was made, and is whole, durable, and let go of: it has its name. k, v: as Volume.set does it before, of a volume; k
 * NULL: nothing is set. Good where nothing was made. */
int target_finish(struct target *t, const char *k, const char *v, struct error *e);
/* is_whole: else what was made goes. What is in t is freed. */
void target_close(struct target *t, bool is_whole);

#endif
