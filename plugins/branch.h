/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * branch - the leaf of a qcow2 volume becomes a base that others may stand on, under a leaf that is new (image-qcow2.c)
 *
 *      branch_init, branch_make, branch_link     the volume is as before
 *      branch_hold ... branch_swap               guests wait; the leaf's name is the new one's
 *      the directory made durable, branch_hold's end, branch_fini
 *
 * Under tree_lock().
 */
#ifndef SXM_PLUGINS_BRANCH_H
#define SXM_PLUGINS_BRANCH_H

#include "plugins/hold.h"
#include "plugins/tree.h"
#include "qcow2/qcow2-chain.h"

struct branch {
	const char *dir, *leaf; /* borrowed */
	char base_name[TREE_NAME_TEXT];
	char *base, *next; /* owned: paths. next: the new leaf */
	struct qcow2_header header;
	struct hold hold;
	bool is_swapped;
};

/* -1 + e: the chain is too long already, or cannot be read. branch_fini() in either case. */
int branch_init(struct branch *b, const char *dir, const char *leaf, struct error *e);
void branch_fini(struct branch *b);
/* The new leaf, under a passing name, on a base that is not there yet. */
int branch_make(struct branch *b, struct error *e);
/* The leaf's file has the base's name, too; durable. */
int branch_link(struct branch *b, struct error *e);
/* With b->hold taken: the new leaf has the leaf's name. Durable with the directory. -1 + e: it is as before. */
int branch_swap(struct branch *b, struct error *e);
/* ... and it is as before again, where it was swapped and is still held. */
void branch_swap_back(struct branch *b);
/* What was made goes. The base stays where it is more than another name of the leaf. */
void branch_undo(struct branch *b);

/* All of these from branch_link() on. */
int branch_off(struct branch *b, struct error *e);

#endif
