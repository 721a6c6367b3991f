/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * image-qcow2 - a volume's data in a qcow2 image that may stand on others (tree.h)
 *
 * One volume is made of another, V, whose leaf is A:
 *
 *      1. two new leaves under passing names, on a base B that is not there yet
 *      2. link A's file to the name B.base.qcow2                  V is as before
 *      3. V's leaf is held: guests wait (hold.h)
 *      4. rename V's new leaf to <V>.qcow2                        V goes on, on B: nobody writes to that file any more
 *      5. guests go on; the other new leaf becomes what it is for
 *
 * Stopped before 4 it leaves passing names and another name of A, on which nothing stands when they are swept; stopped after 4
 * a V that is as it was, of one file more. Nothing else stands on B before 4: V might still write to it.
 * Where A was never written to, no B is needed: the new leaf stands on what A stands on.
 *
 * Can fail: a chain that is too long already; a disk in use elsewhere; no room. Then V is as before.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "plugins/chain.h"
#include "plugins/coalesce.h"
#include "plugins/datapath.h"
#include "plugins/hold.h"
#include "plugins/lock.h"
#include "plugins/qemu-img.h"
#include "plugins/tree.h"
#include "plugins/volume.h"
#include "qcow2/qcow2-chain.h"

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static int qcow2_lock(const char *dir, struct error *e)
{
	return tree_lock(dir, e);
}

static int qcow2_make(const char *path, int64_t bytes, struct error *e)
{
	return qemu_img_make(path, bytes, e);
}

static int read_header(const char *path, struct qcow2_header *h, struct error *e)
{
	CLEANUP_CLOSE int fd = qcow2_open(AT_FDCWD, path, O_RDONLY, e);

	return fd < 0 ? -1 : qcow2_read_header(fd, path, h, e);
}

/* Of a chain that is broken the leaf can still be told. */
static int qcow2_look(const struct image *i, const char *path, struct image_info *out, struct error *e)
{
	struct qcow2_header h;
	struct stat st;
	unsigned files;

	if (lstat(path, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(e, EINVAL, "%s is no file; `sxm fsck` moves it out of the way", path);
	out->allocated_bytes = (int64_t)st.st_blocks * 512;
	if (read_header(path, &h, e) == -1)
		return -1;
	out->virtual_bytes = (int64_t)h.size_bytes;
	return *h.backing ? tree_look(i->dir, path, out, &files, e) : 0;
}

/* --- grow */

/* 1: it has that size. */
static int check_growth(const char *path, int64_t bytes, struct error *e)
{
	struct qcow2_header h;

	if (read_header(path, &h, e) == -1)
		return -1;
	if ((int64_t)h.size_bytes > bytes)
		return error_set(e, ERANGE,
				 "it has %lld bytes, and a disk can only grow: making it %lld bytes would cut data off",
				 (long long)h.size_bytes, (long long)bytes);
	return (int64_t)h.size_bytes == bytes;
}

static int sync_file(const char *path, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || fsync(fd) == -1 ? error_errno(e, errno, "make %s durable", path) : 0;
}

static int qcow2_grow(const struct image *i, int64_t bytes, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);
	CLEANUP_FREE char *alone = path ? tree_describe_alone(path, e) : NULL;
	struct error why;
	struct hold h;
	int r;

	if (!path || !alone)
		return out_of_memory(e);
	r = check_growth(path, bytes, e);
	if (r)
		return r == 1 ? 0 : -1;
	if (hold_take(&h, path, true, e) == -1)
		return -1;
	r = qemu_img_resize(alone, bytes, e);
	if (r == 0)
		r = sync_file(path, e);
	hold_end(&h, &why);
	return r;
}

/* --- take */

static int make_on(const char *path, const struct qcow2_header *h, struct error *e)
{
	return *h->backing ? qemu_img_overlay(path, h->backing, (int64_t)h->size_bytes, e)
			   : qemu_img_make(path, (int64_t)h->size_bytes, e);
}

/* With the leaf's lock. What a process has open it goes on noting in the log it has; such a snapshot gets none. */
static int cut_log(const struct image_taking *t, struct error *e)
{
	return t->is_snapshot ? chain_cut(t->from.dir, t->from.key, t->to.key, e) : 0;
}

/* 1: it was written to, or is being. */
static int take_blank(const struct image_taking *t, const char *leaf, const char *to, struct error *e)
{
	CLEANUP_LOCK int fd = lock_try_shared(leaf, e);
	struct qcow2_header h;
	bool is_blank;

	if (fd < 0)
		return e->err == EBUSY ? 1 : -1;
	if (qcow2_read_header(fd, leaf, &h, e) == -1 || qcow2_is_blank(fd, &h, &is_blank, e) == -1)
		return -1;
	if (!is_blank || make_on(to, &h, e) == -1)
		return is_blank ? -1 : 1;
	if (cut_log(t, e) == 0)
		return 0;
	unlink(to);
	return -1;
}

struct branch {
	const char *dir, *leaf;
	char base_name[TREE_NAME_TEXT];
	char *base, *next; /* owned: paths. next: V's new leaf */
	struct qcow2_header header;
};

static int check_length(const struct branch *b, struct error *e)
{
	struct image_info info;
	unsigned files;

	if (tree_look(b->dir, b->leaf, &info, &files, e) == -1)
		return -1;
	if (files < TREE_MAX)
		return 0;
	return error_set(e, EMLINK,
			 "it consists of %u files already, so often was it snapshotted or cloned; destroy some, and wait "
			 "until their data was merged (Plugin.diagnostics tells), or copy it", files);
}

static int branch_init(struct branch *b, const char *dir, const char *leaf, struct error *e)
{
	char uuid[VOLUME_UUID_TEXT];

	*b = (struct branch) { .dir = dir, .leaf = leaf };
	if (check_length(b, e) == -1 || read_header(leaf, &b->header, e) == -1)
		return -1;
	volume_make_uuid(uuid);
	snprintf(b->base_name, sizeof(b->base_name), "%s" QCOW2_BASE_SUFFIX, uuid);
	if (asprintf(&b->base, "%s/%s", dir, b->base_name) < 0)
		b->base = NULL;
	if (asprintf(&b->next, "%s/.%s" QCOW2_SUFFIX ".new", dir, uuid) < 0)
		b->next = NULL;
	return b->base && b->next ? 0 : out_of_memory(e);
}

static void branch_fini(struct branch *b)
{
	free(b->base);
	free(b->next);
}

/* Is the leaf that is held now the one that has the base's name, and of the size it had? */
static int check_held(const struct branch *b, const struct hold *h, struct error *e)
{
	struct qcow2_header now;
	struct stat held, linked;

	if (fstat(h->lock, &held) == -1 || stat(b->base, &linked) == -1)
		return error_errno(e, errno, "look at %s", b->leaf);
	if (qcow2_read_header(h->lock, b->leaf, &now, e) == -1)
		return -1;
	if (held.st_ino == linked.st_ino && held.st_dev == linked.st_dev && now.size_bytes == b->header.size_bytes)
		return 0;
	return error_set(e, EAGAIN, "%s was changed by another call meanwhile; ask again", b->leaf);
}

static int rename_held(const struct branch *b, const struct hold *h, struct error *e)
{
	int err;

	if (check_held(b, h, e) == -1)
		return -1;
	if (rename(b->next, b->leaf) == -1)
		return error_errno(e, errno, "replace %s", b->leaf);
	err = image_sync_dir(b->dir);
	if (!err)
		return 0;
	/* Perhaps the directory shows it and the medium has it not: then it must not be written to. Back, which is as good. */
	if (rename(b->base, b->leaf) == -1)
		log_error("%s cannot be put back: %s", b->leaf, strerror(errno));
	return error_errno(e, err, "make the new %s durable", b->leaf);
}

static int link_base(const struct branch *b, struct error *e)
{
	int err;

	if (link(b->leaf, b->base) == -1)
		return error_errno(e, errno, "give %s another name", b->leaf);
	err = image_sync_dir(b->dir);
	return err ? error_errno(e, err, "make %s durable", b->base) : 0;
}

/* The leaf's file becomes the base. Then the leaf is a new one. */
static int branch_off(const struct branch *b, struct image_taking *t, struct error *e)
{
	struct error why;
	struct hold h;
	int r;

	if (link_base(b, e) == -1)
		return -1;
	r = hold_take(&h, b->leaf, false, e);
	if (r == -1)
		return -1;
	t->was_written = h.was_open;
	r = cut_log(t, e); /* its process closed the log with the image */
	if (r == 0)
		r = rename_held(b, &h, e);
	hold_end(&h, &why);
	return r;
}

/* It failed. The base goes where it is but another name of the leaf. */
static void branch_undo(const struct branch *b, const char *to)
{
	struct stat leaf, base;

	unlink(b->next);
	unlink(to);
	if (stat(b->leaf, &leaf) == 0 && stat(b->base, &base) == 0 && leaf.st_ino == base.st_ino)
		unlink(b->base);
}

static int take_written(struct image_taking *t, const char *leaf, const char *to, struct error *e)
{
	struct branch b;
	int r = branch_init(&b, t->from.dir, leaf, e);

	if (r == 0)
		r = qemu_img_overlay(b.next, b.base_name, (int64_t)b.header.size_bytes, e);
	if (r == 0)
		r = qemu_img_overlay(to, b.base_name, (int64_t)b.header.size_bytes, e);
	if (r == 0)
		r = branch_off(&b, t, e);
	if (r == -1 && b.base && b.next)
		branch_undo(&b, to);
	branch_fini(&b);
	return r;
}

static int qcow2_take(struct image_taking *t, struct error *e)
{
	CLEANUP_LOCK int lock = tree_lock(t->from.dir, e);
	CLEANUP_FREE char *leaf = image_path(&t->from);
	CLEANUP_FREE char *to = image_passing_path(&t->to);
	int r;

	if (lock < 0)
		return -1;
	if (!leaf || !to)
		return out_of_memory(e);
	if (datapath_check_whole(leaf, e) == -1)
		return -1;
	r = take_blank(t, leaf, to, e);
	return r == 1 ? take_written(t, leaf, to, e) : r;
}

/* --- compose */

/* What may stand for the image at path, and is not written to. Where that is the image itself it becomes a base. */
static int find_base(const char *dir, const char *path, char name[static TREE_NAME_TEXT], struct error *e)
{
	CLEANUP_LOCK int fd = lock_try(path, e);
	struct qcow2_header h;
	struct branch b;
	struct image_taking t = { 0 };
	bool is_blank;
	int r;

	if (fd < 0)
		return -1;
	if (qcow2_read_header(fd, path, &h, e) == -1 || qcow2_is_blank(fd, &h, &is_blank, e) == -1)
		return -1;
	if (is_blank && *h.backing && strlen(h.backing) < TREE_NAME_TEXT) {
		strcpy(name, h.backing);
		return 0;
	}
	close(take_fd(&fd));
	r = branch_init(&b, dir, path, e);
	if (r == 0)
		r = qemu_img_overlay(b.next, b.base_name, (int64_t)b.header.size_bytes, e);
	if (r == 0)
		r = branch_off(&b, &t, e);
	if (r == -1 && b.base && b.next)
		branch_undo(&b, b.next);
	strcpy(name, b.base_name);
	branch_fini(&b);
	return r;
}

/* 1: it cannot be done by overwriting one name by another, within one sector, which is written whole or not at all. */
static int overwrite_backing(int fd, const struct qcow2_header *h, const char *name, struct error *e)
{
	size_t bytes = strlen(name);
	uint64_t at;

	if (strlen(h->backing) != bytes || pread(fd, &at, sizeof(at), 8) != sizeof(at))
		return 1;
	at = be64toh(at);
	if (at / 512 != (at + bytes - 1) / 512)
		return 1;
	if (pwrite(fd, name, bytes, (off_t)at) != (ssize_t)bytes || fsync(fd) == -1)
		return error_errno(e, errno, "write the new backing file's name");
	return 0;
}

static int set_backing(const char *path, const char *name, struct error *e)
{
	CLEANUP_FREE char *alone = tree_describe_alone(path, e);
	struct qcow2_header header;
	struct error why;
	struct hold h;
	int r;

	if (!alone || hold_take(&h, path, false, e) == -1)
		return -1;
	r = qcow2_read_header(h.lock, path, &header, e);
	if (r == 0)
		r = overwrite_backing(h.lock, &header, name, e);
	if (r == 1)
		r = qemu_img_rebase(alone, name, e) == 0 ? sync_file(path, e) : -1;
	hold_end(&h, &why);
	return r;
}

static int check_sizes(const char *leaf, const char *parent, struct error *e)
{
	struct qcow2_header upper, lower;

	if (read_header(leaf, &upper, e) == -1 || read_header(parent, &lower, e) == -1)
		return -1;
	if (upper.size_bytes >= lower.size_bytes)
		return 0;
	return error_set(e, ERANGE, "it has %llu bytes, less than the %llu of what it is to be composed with",
			 (unsigned long long)upper.size_bytes, (unsigned long long)lower.size_bytes);
}

/* Stopped in between, parent is as it was, of one file more. */
static int qcow2_compose(const struct image *i, const struct image *parent, struct error *e)
{
	CLEANUP_LOCK int lock = tree_lock(i->dir, e);
	CLEANUP_FREE char *leaf = image_path(i);
	CLEANUP_FREE char *below = image_path(parent);
	char name[TREE_NAME_TEXT];

	if (lock < 0)
		return -1;
	if (!leaf || !below)
		return out_of_memory(e);
	if (check_sizes(leaf, below, e) == -1 || find_base(i->dir, below, name, e) == -1)
		return -1;
	return set_backing(leaf, name, e);
}

static char *qcow2_describe(const struct image *i, const char *path, struct error *e)
{
	return tree_describe(i->dir, path, e);
}

static void qcow2_collect(const char *dir)
{
	struct error e;

	if (!tree_has_bases(dir))
		return;
	coalesce_start(dir);
	if (tree_collect(dir, &e) == -1)
		log_error("what %s holds and nobody needs is not removed: %s", dir, e.text);
}

const struct image_ops image_qcow2 = {
	.format = "qcow2",
	.lock = qcow2_lock,
	.make = qcow2_make,
	.look = qcow2_look,
	.grow = qcow2_grow,
	.take = qcow2_take,
	.describe = qcow2_describe,
	.compose = qcow2_compose,
	.collect = qcow2_collect,
};
