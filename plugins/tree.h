/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tree - the qcow2 images of a directory: which stands on which
 *
 *      <key>.qcow2            a leaf: what a volume reads and writes
 *      .<key>.qcow2.new       one that is being made
 *      <uuid>.base.qcow2      nobody's: others stand on it, so nobody writes to it
 *
 * Under tree_lock() no image gets a name, a base or another base, on any host, but by whoever holds it; images may lose their
 * names at any time.
 */
#ifndef SXM_PLUGINS_TREE_H
#define SXM_PLUGINS_TREE_H

#include "plugins/image.h"

#define TREE_MAX 40u /* files a volume may be made to consist of; those that are there may have some more */
#define TREE_NAME_TEXT 96
#define TREE_NONE SIZE_MAX
#define TREE_LISTING_NAME ".sxm-sr.listing" /* made and removed by who looks at the directory */

/* A descriptor. Waits: those who have it are quick. */
int tree_lock(const char *dir, struct error *e);

/* The file at path and all it stands on, checked, as an argument of qemu-img's; heap. NULL + e. */
char *tree_describe(const char *dir, const char *path, struct error *e);
/* The file at path alone. */
char *tree_describe_alone(const char *path, struct error *e);
/* What is allocated in all of its files. *files: how many. */
int tree_look(const char *dir, const char *path, struct image_info *out, unsigned *files, struct error *e);

struct tree_node {
	char name[TREE_NAME_TEXT];
	char on[TREE_NAME_TEXT]; /* what it stands on; "": nothing */
	size_t parent;            /* that one's number; TREE_NONE: it is not there */
	unsigned children;
	bool is_base, is_passing;
	int64_t bytes;            /* of the disk */
	uint64_t inode;
};
struct tree {
	size_t count;
	struct tree_node *node; /* owned */
};
/* Under the lock. -1 + e: one of them cannot be read, so nothing is known of what stands on what. */
int tree_scan(const char *dir, struct tree *t, struct error *e);
void tree_clear(struct tree *t);

/* Without the lock: false may be wrong only for bases that come just now. */
bool tree_has_bases(const char *dir);
/* Removes the bases on which nothing stands. -1 + e: it is not known which. */
int tree_collect(const char *dir, struct error *e);

#endif
