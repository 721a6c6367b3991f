/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * image-raw - a volume's data in a sparse file
 *
 *      the image's lock, shared, to be had?   nobody writes: its blocks are shared from here
 *                               taken?        its process has it: that one makes the file, at one moment, while guests go on
 *                               but active?   closed for a moment only: the same, when it is open again
 *                               no process?   opened or closed just now: again; else another host has it
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "plugins/chain.h"
#include "plugins/datapath.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/taking.h"

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static int set_size(int fd, const char *path, int64_t bytes, struct error *e)
{
	if (ftruncate(fd, bytes) == 0 && fsync(fd) == 0)
		return 0;
	if (errno == EFBIG || errno == EINVAL)
		return error_set(e, EFBIG, "the file system of %s cannot hold a file of %lld bytes", path, (long long)bytes);
	return error_errno(e, errno, "give %s a size of %lld bytes", path, (long long)bytes);
}

static int raw_make(const char *path, int64_t bytes, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return error_errno(e, errno, "make %s", path);
	if (set_size(fd, path, bytes, e) == 0)
		return 0;
	unlink(path);
	return -1;
}

static int raw_look(const struct image *i UNUSED, const char *path, struct image_info *out, struct error *e)
{
	struct stat st;

	if (lstat(path, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(e, EINVAL, "%s is no file; `sxm fsck` moves it out of the way", path);
	out->virtual_bytes = st.st_size;
	out->allocated_bytes = (int64_t)st.st_blocks * 512;
	return 0;
}

/* --- grow */

/* EBUSY: somebody has it open. */
static int grow_unused(const char *path, int64_t bytes, struct error *e)
{
	CLEANUP_LOCK int fd = -1;
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == bytes)
		return 0; /* a repeated call, perhaps with the disk in use meanwhile */
	fd = lock_try(path, e);
	if (fd < 0)
		return -1;
	if (datapath_has_writer(path))
		return error_set(e, EBUSY, "%s is closed for a moment", path);
	if (fstat(fd, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	if (st.st_size > bytes)
		return error_set(e, ERANGE,
				 "it has %lld bytes, and a disk can only grow: making it %lld bytes would cut data off",
				 (long long)st.st_size, (long long)bytes);
	return set_size(fd, path, bytes, e);
}

/* Whoever has the image open grows it. It may be closed, or opened, at any moment. */
static int raw_grow(const struct image *i, int64_t bytes, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);

	if (!path)
		return out_of_memory(e);
	for (unsigned tries = 0; tries < IMAGE_TRIES; tries++) {
		int r;

		if (grow_unused(path, bytes, e) == 0)
			return 0;
		if (e->err != EBUSY)
			return -1;
		r = datapath_resize(path, bytes, e);
		if (r != 1)
			return r;
		image_pause();
	}
	return error_set(e, EBUSY, "it is in use, perhaps on another host; resize it there");
}

/* --- take */

/* Nobody writes to it while fd is open. */
static int take_idle(struct image_taking *t, int fd, const char *image, const char *to, struct error *e)
{
	if (datapath_check_whole(image, e) == -1 || image_clone(fd, image, to, t->may_copy, e) == -1)
		return -1;
	if (!t->is_snapshot || chain_cut(t->from.dir, t->from.key, t->to.key, e) == 0)
		return 0;
	unlink(to);
	return -1;
}

static int raw_take(struct image_taking *t, struct error *e)
{
	CLEANUP_FREE char *image = image_path(&t->from);
	CLEANUP_FREE char *to = image_passing_path(&t->to);

	if (!image || !to)
		return out_of_memory(e);
	for (unsigned tries = 0; tries < IMAGE_TRIES; tries++) {
		CLEANUP_LOCK int fd = lock_try_shared(image, e);
		int r;

		if (fd < 0 && e->err != EBUSY)
			return -1;
		if (fd >= 0 && !datapath_has_writer(image))
			return take_idle(t, fd, image, to, e);
		if (fd >= 0)
			close(take_fd(&fd));
		t->was_written = true;
		r = datapath_snapshot(image, to, t->is_snapshot ? t->to.key : NULL, e);
		if (r != 1)
			return r;
		image_pause();
	}
	return error_set(e, EBUSY,
			 "%s is in use on another host, or by a program that is none of ours; do this there, or stop it", image);
}

static char *raw_describe(const struct image *i UNUSED, const char *path, struct error *e)
{
	CLEANUP_FREE char *name = jsonspec_string(path);
	char *text;

	if (name && asprintf(&text, "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":%s,"
			     "\"locking\":\"off\"}}", name) >= 0)
		return text;
	out_of_memory(e);
	return NULL;
}

/* A file without blocks; one that cannot say where its data is was written to. */
static int raw_is_blank(const struct image *i, bool *is_blank, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);
	CLEANUP_CLOSE int fd = path ? open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK) : -1;
	struct stat st;

	if (!path)
		return out_of_memory(e);
	if (fd < 0 || fstat(fd, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	*is_blank = st.st_blocks == 0 || (lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO);
	return 0;
}

const struct image_ops image_raw = {
	.format = "raw",
	.make = raw_make,
	.look = raw_look,
	.grow = raw_grow,
	.take = raw_take,
	.steps = &taking_raw,
	.describe = raw_describe,
	.is_blank = raw_is_blank,
};
