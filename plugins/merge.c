/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * merge - see merge.h
 *
 *      leaf   leaf                    held: both, at once (hold.h), or none
 *        \_____/
 *        upper                        B1
 *          |   commit: what it has is written into the lower one, which nobody reads but through it
 *        lower                        B0    rename to B1's name: it has what both had, and no image is told of another base
 *
 * A leaf that was never written to, alone on its base, and halted: no data is moved, the base is renamed to the leaf's name.
 *
 *        leaf (blank) --> base        leaf, that was the base        a volume whose snapshot is gone, before its next start; a
 *                                                                    snapshot whose volume is gone
 *
 * Killed anywhere it leaves B1 and B0, or the new B1; what was committed is committed again. Nothing but B1 can come to stand on
 * B0 meanwhile: who makes an image on B0 makes it of another that stands there (image-qcow2.c).
 */
#include "plugins/merge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "plugins/hold.h"
#include "plugins/lock.h"
#include "plugins/ownership.h"
#include "plugins/qemu-img.h"
#include "qcow2/qcow2-chain.h"

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static char *join(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

/* --- which */

bool merge_is_possible(const struct tree *t, const struct tree_node *upper)
{
	const struct tree_node *lower = upper->parent == TREE_NONE ? NULL : &t->node[upper->parent];

	if (!upper->is_base || !upper->children || !lower || !lower->is_base || lower->children != 1)
		return false;
	/* What a shorter one hides of a longer one must not come up. */
	return upper->bytes >= lower->bytes && (lower->parent == TREE_NONE || t->node[lower->parent].bytes <= lower->bytes);
}

bool merge_is_same(const struct merge *a, const struct merge *b)
{
	/* Names are uuids; numbers of inodes are used again. */
	return strcmp(a->upper, b->upper) == 0 && strcmp(a->lower, b->lower) == 0 && a->upper_inode == b->upper_inode &&
	       a->lower_inode == b->lower_inode && a->lower_bytes == b->lower_bytes;
}

static bool stands_on(const struct tree *t, const struct tree_node *n, size_t base)
{
	/* A circle stands on nothing that is asked for. */
	for (size_t steps = 0; n->parent != TREE_NONE && steps < t->count; steps++) {
		if (n->parent == base)
			return true;
		n = &t->node[n->parent];
	}
	return false;
}

void merge_init(struct merge *p, const struct tree *t, const struct tree_node *upper)
{
	const struct tree_node *lower = &t->node[upper->parent];

	*p = (struct merge) { .upper_inode = upper->inode, .lower_inode = lower->inode, .upper_bytes = upper->bytes,
			     .lower_bytes = lower->bytes };
	strcpy(p->upper, upper->name);
	strcpy(p->lower, lower->name);
}

/* NULL: it is not as it was. */
static const struct tree_node *find_again(const struct tree *t, const struct merge *p)
{
	for (size_t i = 0; i < t->count; i++) {
		const struct tree_node *n = &t->node[i];

		if (strcmp(n->name, p->upper) == 0)
			return merge_is_possible(t, n) && n->inode == p->upper_inode && strcmp(n->on, p->lower) == 0 &&
			       t->node[n->parent].inode == p->lower_inode ? n : NULL;
	}
	return NULL;
}

/* --- the leaves above a pair */

struct leaves {
	size_t count;
	char **path;        /* owned, each */
	struct hold *hold;  /* owned */
};

static void leaves_fini(struct leaves *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->path[i]);
	free(l->path);
	free(l->hold);
}

/* 1: one is being made. */
static int leaves_init(struct leaves *l, const char *dir, const struct tree *t, const struct tree_node *upper,
		       struct error *e)
{
	size_t base = (size_t)(upper - t->node);

	*l = (struct leaves) { .path = calloc(t->count, sizeof(*l->path)), .hold = calloc(t->count, sizeof(*l->hold)) };
	if (!l->path || !l->hold)
		return out_of_memory(e);
	for (size_t i = 0; i < t->count; i++) {
		const struct tree_node *n = &t->node[i];

		if (n->is_base || !stands_on(t, n, base))
			continue;
		if (n->is_passing) {
			error_set(e, EAGAIN, "%s is being made", n->name);
			return 1;
		}
		if (!(l->path[l->count] = join(dir, n->name)))
			return out_of_memory(e);
		l->count++;
	}
	return 0;
}

/* Before any guest waits. */
static bool can_be_held(const struct leaves *l, struct error *e)
{
	struct failure f;

	for (size_t i = 0; i < l->count; i++) {
		if (!hold_is_possible(l->path[i], e))
			return false;
		if (ownership_check(l->path[i], &f) == -1) {
			*e = f.e;
			return false;
		}
	}
	return true;
}

/* All of them, or none. */
static int hold_all(struct leaves *l, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < l->count; i++)
		hold_begin(&l->hold[i], l->path[i], HOLD_WAIT_MS);
	for (size_t i = 0; r == 0 && i < l->count; i++)
		r = hold_wait(&l->hold[i], l->path[i], e);
	return r;
}

static void let_go_of_all(struct leaves *l)
{
	struct error e;

	for (size_t i = 0; i < l->count; i++)
		hold_end(&l->hold[i], &e);
}

int merge_held(const char *dir, const struct merge *p, merge_fn *fn, struct error *e)
{
	CLEANUP_LOCK int lock = tree_lock(dir, e);
	const struct tree_node *upper;
	struct leaves leaves = { 0 };
	struct tree t;
	int r;

	if (lock < 0 || tree_scan(dir, &t, e) == -1)
		return -1;
	upper = find_again(&t, p);
	r = upper ? leaves_init(&leaves, dir, &t, upper, e) : error_set(e, ESTALE, "%s is not as it was", p->upper);
	if (r == 0 && !can_be_held(&leaves, e))
		r = 1;
	if (r == 0 && fn) {
		r = hold_all(&leaves, e) == 0 ? fn(dir, p, e) : 1;
		let_go_of_all(&leaves);
	}
	leaves_fini(&leaves);
	tree_clear(&t);
	return r;
}

/* --- the steps */

static int sync_file(const char *path, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || fsync(fd) == -1 ? error_errno(e, errno, "make %s durable", path) : 0;
}

/* Its first table may move then: whoever opened the image in that moment would read the old one. */
int merge_make_longer(const char *dir, const struct merge *p, struct error *e)
{
	CLEANUP_FREE char *path = join(dir, p->lower);
	CLEANUP_FREE char *alone = path ? tree_describe_alone(path, e) : NULL;

	if (!path)
		return out_of_memory(e);
	if (!alone)
		return -1;
	return qemu_img_resize(alone, p->upper_bytes, e) == 0 ? sync_file(path, e) : -1;
}

int merge_take_name(const char *dir, const struct merge *p, struct error *e)
{
	CLEANUP_FREE char *upper = join(dir, p->upper);
	CLEANUP_FREE char *lower = join(dir, p->lower);
	int err;

	if (!upper || !lower)
		return out_of_memory(e);
	if (rename(lower, upper) == -1)
		return error_errno(e, errno, "rename %s", lower);
	err = image_sync_dir(dir);
	return err ? error_errno(e, err, "make the new %s durable", upper) : 0;
}

int merge_commit(const char *dir, const struct merge *p, struct error *e)
{
	CLEANUP_FREE char *upper = join(dir, p->upper);
	CLEANUP_FREE char *lower = join(dir, p->lower);
	CLEANUP_FREE char *described = upper ? tree_describe(dir, upper, e) : NULL;

	if (!upper || !lower)
		return out_of_memory(e);
	if (!described)
		return -1;
	return qemu_img_commit(described, e) == 0 ? sync_file(lower, e) : -1;
}

/* --- leaves */

/* Was it never written to, and is it what was scanned? fd has its lock. */
static bool is_blank(int fd, const struct tree_node *leaf)
{
	struct qcow2_header h;
	struct error e;
	struct stat st;
	bool is = false;

	return fstat(fd, &st) == 0 && st.st_ino == leaf->inode && qcow2_read_header(fd, leaf->name, &h, &e) == 0 &&
	       strcmp(h.backing, leaf->on) == 0 && (int64_t)h.size_bytes == leaf->bytes &&
	       qcow2_is_blank(fd, &h, &is, &e) == 0 && is;
}

/* Under the lock of the tree. Nobody but the leaf stands on base, and nobody reads the leaf: so nobody has base open. */
static int replace_leaf(const char *dir, const struct tree_node *leaf, const struct tree_node *base, struct error *e)
{
	CLEANUP_FREE char *from = join(dir, base->name);
	CLEANUP_FREE char *to = join(dir, leaf->name);
	CLEANUP_LOCK int lock = -1;
	struct failure f;
	int err;

	if (!from || !to)
		return out_of_memory(e);
	lock = lock_try(to, e);
	if (lock < 0 || !is_blank(lock, leaf) || ownership_check(to, &f) == -1)
		return 0; /* it is in use, or not as it was */
	if (rename(from, to) == -1)
		return error_errno(e, errno, "rename %s", from);
	err = image_sync_dir(dir);
	if (err)
		return error_errno(e, err, "make the new %s durable", to);
	log_info("%s is now what it stood on alone", to);
	return 0;
}

int merge_blank_leaves(const char *dir, struct error *e)
{
	CLEANUP_LOCK int lock = tree_lock(dir, e);
	struct tree t;
	int r = 0;

	if (lock < 0 || tree_scan(dir, &t, e) == -1)
		return -1;
	for (size_t i = 0; r == 0 && i < t.count; i++) {
		const struct tree_node *leaf = &t.node[i];
		const struct tree_node *base = leaf->parent == TREE_NONE ? NULL : &t.node[leaf->parent];

		if (!leaf->is_base && !leaf->is_passing && base && base->is_base && base->children == 1 &&
		    base->bytes == leaf->bytes)
			r = replace_leaf(dir, leaf, base, e);
	}
	tree_clear(&t);
	return r;
}
