/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * merge - one image of two: what coalesce.c does step by step
 */
#ifndef SXM_PLUGINS_MERGE_H
#define SXM_PLUGINS_MERGE_H

#include "plugins/tree.h"

struct merge {
	char upper[TREE_NAME_TEXT], lower[TREE_NAME_TEXT]; /* B1, B0 */
	uint64_t upper_inode, lower_inode;
	int64_t upper_bytes, lower_bytes;
};

/* Could upper be merged into what it stands on? Both are bases, and nothing else stands there. */
bool merge_is_possible(const struct tree *t, const struct tree_node *upper);
void merge_init(struct merge *p, const struct tree *t, const struct tree_node *upper);

/* Are they the same two? What was committed of one is of the other. */
bool merge_is_same(const struct merge *a, const struct merge *b);

/* The steps. -1 + e; ESTALE: the two are not as they were. */
typedef int merge_fn(const char *dir, const struct merge *p, struct error *e);
/* fn, while nobody has the leaves open that stand on upper; with fn NULL: could that be? 1 + e: not now. */
int merge_held(const char *dir, const struct merge *p, merge_fn *fn, struct error *e);
merge_fn merge_make_longer; /* held: lower gets upper's size */
merge_fn merge_commit;      /* upper's data into lower. May take long, and nobody waits */
merge_fn merge_take_name;   /* held: lower is upper */

/* A leaf alone on its base that was never written to, and that nobody has open, becomes that base: all of them. -1 + e: it is not
 * known which. */
int merge_blank_leaves(const char *dir, struct error *e);

#endif
