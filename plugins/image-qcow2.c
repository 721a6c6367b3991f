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
#include "plugins/branch.h"
#include "plugins/coalesce.h"
#include "plugins/datapath.h"
#include "plugins/hold.h"
#include "plugins/lock.h"
#include "plugins/qemu-img.h"
#include "plugins/taking.h"
#include "plugins/tree.h"
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
	if (r == 0) {
		qemu_img_lengthen(path, bytes);
		r = sync_file(path, e);
	}
	hold_end(&h, &why);
	return r;
}

/* --- take */

static int qcow2_take(struct image_taking *t, struct error *e)
{
	CLEANUP_LOCK int lock = tree_lock(t->from.dir, e);

	return lock < 0 ? -1 : taking_alone(&taking_qcow2, t, e);
}

static int qcow2_image_is_blank(const struct image *i, bool *is_blank, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);
	CLEANUP_CLOSE int fd = path ? qcow2_open(AT_FDCWD, path, O_RDONLY, e) : -1;
	struct qcow2_header h;

	if (!path)
		return out_of_memory(e);
	return fd < 0 || qcow2_read_header(fd, path, &h, e) == -1 ? -1 : qcow2_is_blank(fd, &h, is_blank, e);
}

/* --- compose */

/* What may stand for the image at path, and is not written to. Where that is the image itself it becomes a base. */
static int find_base(const char *dir, const char *path, char name[static TREE_NAME_TEXT], struct error *e)
{
	CLEANUP_LOCK int fd = lock_try(path, e);
	struct qcow2_header h;
	struct branch b;
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
		r = branch_make(&b, e);
	if (r == 0)
		r = branch_off(&b, e);
	if (r == -1)
		branch_undo(&b);
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
	.steps = &taking_qcow2,
	.describe = qcow2_describe,
	.is_blank = qcow2_image_is_blank,
	.compose = qcow2_compose,
	.collect = qcow2_collect,
};
