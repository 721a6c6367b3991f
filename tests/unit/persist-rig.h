/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the tests of persist share: a directory, a loop, marks that can be waited for; and a file whose plug can be pulled.
 */
#ifndef SXM_TESTS_UNIT_PERSIST_RIG_H
#define SXM_TESTS_UNIT_PERSIST_RIG_H

#include "mirror/persist-file.h"
#include "mirror/persist.h"

struct try;
struct persist_rig {
	char dir[64], map[96], marks[96];
	struct loop *loop;
	struct persist_spec spec;
	struct persist *p;
	void (*answered)(struct try *t); /* NULL allowed */
};

void rig_start(struct persist_rig *rig, uint64_t size_bytes);
void rig_stop(struct persist_rig *rig); /* closes p, removes the directory */
void rig_new(struct persist_rig *rig);
/* Closed, kept and opened again. */
void rig_reopen(struct persist_rig *rig, struct persist_found *found);
void rig_close(struct persist_rig *rig, enum persist_end end);

/* A mark that counts its answers. */
struct try {
	struct persist_mark mark;
	struct persist_rig *rig; /* borrowed; set by try_mark() */
	unsigned answers;
	int err;
	bool has_map;
};
void try_mark(struct persist_rig *rig, struct try *t, uint64_t region, uint64_t count);
void rig_run(struct persist_rig *rig);  /* until every try is answered */
void rig_turn(struct persist_rig *rig); /* once round */
/* Marks and waits; asserts that it went well and has a map. */
void rig_mark(struct persist_rig *rig, uint64_t region, uint64_t count);

/* What an iteration said: "16M-32M 40960K-..." in KiB, as "start-end start-end". */
const char *rig_owing(struct persist_rig *rig, unsigned which);
const char *rig_marked(struct persist_rig *rig);

/* A file with a cache before its medium. */
#define PLUG_MAX (256u * 1024)
struct plug {
	uint8_t cache[PLUG_MAX], medium[PLUG_MAX];
	bool is_dirty[PLUG_MAX / 512];
	size_t bytes;        /* 0: no file */
	bool is_unlinked;    /* ... but it may be back after a crash */
	uint64_t random;     /* which sectors get to the medium when they need not */
	unsigned syncs, makes, writes;
	unsigned dies_after; /* calls until the power goes; 0: never */
	bool is_dead;
	int fail_sync;       /* the next fdatasync loses some of what it should have written, and says so once */
	int fail_make, fail_sync_dir;
	void (*before_sync)(struct plug *plug); /* in the pool */
	struct persist_ops ops;
};
void plug_init(struct plug *plug, uint64_t seed);
/* The power goes, or has gone, and comes back: each dirty sector is old or new. */
void plug_crash(struct plug *plug);
uint64_t plug_draw(struct plug *plug, uint64_t limit);

#endif
