/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * image-clone - an image is made from another one
 *
 *      .<key>.raw.new: made, filled, durable --image_publish--> <key>.raw beside it, the same file --record--> image_settle
 *
 * While both names are there the volume is being made, or whoever made it was killed: then meta_sweep() knows, by the passing
 * name, that an image without a record is nobody's, and takes both away.  One that is being removed has both names, too.
 *
 * Blocks are shared where the file system can (FICLONE); else, where that is wanted, the data is copied, holes left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "plugins/image.h"

#define COPY_BYTES (1u << 20)

char *image_passing_path(const char *dir, const char *key)
{
	char *path;

	return asprintf(&path, "%s/.%s.raw.new", dir, key) < 0 ? NULL : path;
}

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static bool is_not_shared(int err)
{
	return err == EOPNOTSUPP || err == EXDEV || err == EINVAL || err == ENOTTY || err == ENOSYS;
}

/* Where the kernel can do it by itself it may do it on the server (NFS), or share blocks all the same. */
static ssize_t copy_some(int from, int to, off_t at, size_t bytes, char **buffer)
{
	off_t in = at, out = at;
	ssize_t n = *buffer ? -1 : copy_file_range(from, &in, to, &out, bytes, 0);

	if (n > 0)
		return n;
	if (!*buffer && !(*buffer = malloc(COPY_BYTES))) {
		errno = ENOMEM;
		return -1;
	}
	n = pread(from, *buffer, MIN(bytes, (size_t)COPY_BYTES), at);
	return n > 0 ? pwrite(to, *buffer, (size_t)n, at) : n;
}

/* -1 + errno. */
static int copy_data(int from, int to, off_t size)
{
	CLEANUP_FREE char *buffer = NULL;
	off_t at = 0;

	if (ftruncate(to, size) == -1)
		return -1;
	while (at < size) {
		off_t data = lseek(from, at, SEEK_DATA), end;

		if (data < 0 && errno == ENXIO)
			return 0;
		end = data < 0 ? size : lseek(from, data, SEEK_HOLE);
		if (data < 0)
			data = at; /* cannot be asked: all of it */
		for (at = data; at < MIN(end, size);) {
			ssize_t n = copy_some(from, to, at, (size_t)MIN(end - at, (off_t)1 << 30), &buffer);

			if (n < 0 && errno == EINTR)
				continue;
			if (n < 0)
				return -1;
			if (n == 0) {
				errno = EIO; /* it got shorter */
				return -1;
			}
			at += n;
		}
	}
	return 0;
}

static int fill(int from, const char *from_path, int to, bool may_copy, struct error *e)
{
	struct stat st;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (!is_not_shared(errno))
		return error_errno(e, errno, "share the blocks of %s", from_path);
	if (!may_copy)
		return error_set(e, EOPNOTSUPP, "the file system of %s cannot let two files share blocks (no reflink)",
				 from_path);
	if (fstat(from, &st) == -1 || copy_data(from, to, st.st_size) == -1)
		return error_errno(e, errno, "copy %s", from_path);
	return 0;
}

int image_clone(int from, const char *from_path, const char *to_path, bool may_copy, struct error *e)
{
	CLEANUP_CLOSE int to = -1;

	if (unlink(to_path) == -1 && errno != ENOENT)
		return error_errno(e, errno, "replace %s", to_path);
	to = open(to_path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return error_errno(e, errno, "make %s", to_path);
	if (fill(from, from_path, to, may_copy, e) == 0) {
		if (fsync(to) == 0)
			return 0;
		error_errno(e, errno, "make %s durable", to_path);
	}
	unlink(to_path);
	return -1;
}

int image_publish(const char *dir, const char *key, struct error *e)
{
	CLEANUP_FREE char *path = image_path(dir, key);
	CLEANUP_FREE char *passing = image_passing_path(dir, key);
	int err;

	if (!path || !passing)
		return out_of_memory(e);
	/* Some file systems have no second names. */
	if (link(passing, path) == -1 && (errno == EEXIST || rename(passing, path) == -1)) {
		err = errno;
		unlink(passing);
		return error_errno(e, err, "make %s", path);
	}
	err = image_sync_dir(dir);
	if (!err)
		return 0;
	unlink(path);
	unlink(passing);
	return error_errno(e, err, "make %s durable", path);
}

void image_settle(const char *dir, const char *key)
{
	CLEANUP_FREE char *passing = image_passing_path(dir, key);

	if (passing)
		unlink(passing);
}

int image_replace(const char *dir, const char *key, struct error *e)
{
	CLEANUP_FREE char *path = image_path(dir, key);
	CLEANUP_FREE char *passing = image_passing_path(dir, key);
	int err;

	if (!path || !passing)
		return out_of_memory(e);
	if (rename(passing, path) == -1) {
		err = errno;
		unlink(passing);
		return error_errno(e, err, "replace %s", path);
	}
	err = image_sync_dir(dir);
	return err ? error_errno(e, err, "make the new %s durable", path) : 0;
}
