/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * meta - what a directory of volumes says about itself: one small JSON file for the SR, one for each volume
 *
 *      DIR/sxm-sr.json         the SR's record; its presence makes DIR an SR
 *      DIR/sxm-sr.lock         held shared while a volume is made, exclusively while the SR is made or removed
 *      DIR/<key>.json          a volume's record: its presence makes the volume
 *      DIR/<key>.raw, .qcow2   its image
 *      DIR/<key>.raw.lease/    where the SR is shared: which host has it active (base/lease.h)
 *      DIR/.<key>.raw.new      another name of it while the volume is made
 *      DIR/<key>.cbt           what changed in it, where that is tracked (chain.h); also when its image was destroyed
 *      DIR/sxm-sr.group.<uuid> while volumes are made that come to be together (joint.h)
 *      DIR/<uuid>.base.qcow2   what images stand on (tree.h), and DIR/sxm-sr.chains, the lock of who looks at that or changes it
 *
 * Files are replaced by rename, so readers take no lock and see the old or the new.
 */
#ifndef SXM_PLUGINS_META_H
#define SXM_PLUGINS_META_H

#include "base/error.h"
#include "base/jsonspec.h"

struct meta_sr {
	char *uuid, *name, *description; /* owned */
	char *format;                    /* owned; of new volumes */
	bool is_shared;                  /* several hosts have it attached: volumes are leased */
};

/* ENOENT in e: no SR here. EBADMSG: there is a record, but it cannot be understood. */
int meta_sr_read(const char *dir, struct meta_sr *m, struct error *e);
int meta_sr_write(const char *dir, const struct meta_sr *m, struct error *e);
/* With the SR's lock, exclusive, and no volume in it: the record, and what else is ours and nobody's. */
int meta_sr_remove(const char *dir, struct error *e);
void meta_sr_clear(struct meta_sr *m);
char *meta_sr_path(const char *dir);      /* heap */
char *meta_sr_lock_path(const char *dir); /* heap */

struct meta_volume {
	char *uuid, *name, *description; /* owned */
	bool read_write, sharable;
	int64_t virtual_size;            /* as made; the image knows better while it is there */
	char *format;                    /* owned; "raw", "qcow2" */
	bool is_data_destroyed;          /* there is no image any more: what changed up to it is all that is known */
	char *family;                    /* owned; what clones and snapshots of one another share; NULL: the volume's key */
	struct jsonspec_map keys;        /* what Volume.set stored */
};

/* As for meta_sr_read(). */
int meta_volume_read(const char *dir, const char *key, struct meta_volume *m, struct error *e);
/* A record that cannot be understood is kept beside the new one, as <key>.json.damaged. */
int meta_volume_write(const char *dir, const char *key, const struct meta_volume *m, struct error *e);
/* The same, and what is read, changed and written after it is so under the lock of the record still: *lock becomes that of the
 * new one. For who writes it more than once. */
int meta_volume_rewrite(const char *dir, const char *key, const struct meta_volume *m, int *lock, struct error *e);
/* What can be said of a volume whose record is damaged: never nothing, or xapi would forget the disk. format: its image's.
 * -1: out of memory. */
int meta_volume_guess(const char *key, const char *format, struct meta_volume *m);
void meta_volume_clear(struct meta_volume *m);
char *meta_volume_path(const char *dir, const char *key); /* heap */

/* May this be a volume's key? Then it is also safe as a file's name. */
#define META_KEY_MAX 64
bool meta_is_key(const char *text);
/* Is name a key and the suffix? Then key holds the key. */
bool meta_split_name(const char *name, const char *suffix, char key[static META_KEY_MAX + 1]);

/* Every name in dir that is a volume's record, in the order of the names; the list is complete or -1 + e. */
int meta_list(const char *dir, struct jsonspec_list *keys, struct error *e);
/* Every name in dir that is of ours but belongs to no volume: left by a verb that was killed. */
int meta_leftovers(const char *dir, struct jsonspec_list *names, struct error *e);
/* Removes those that are known to be nobody's: passing names with what has no record yet, when nobody makes a volume now, and
 * half-written records an hour old. What is removed is in the log. */
void meta_sweep(const char *dir);
void meta_list_clear(struct jsonspec_list *l);

#endif
