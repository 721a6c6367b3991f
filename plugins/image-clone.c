/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * image-clone - a file is made that shares another one's blocks
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

/* A leaf that was just made is snapshotted in every move from SMAPIv1. */
static bool is_blank(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (st.st_blocks == 0 || (lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO));
}

static int fill(int from, const char *from_path, int to, bool may_copy, struct error *e)
{
	struct stat st;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (!is_not_shared(errno))
		return error_errno(e, errno, "share the blocks of %s", from_path);
	if (!may_copy && !is_blank(from))
		return error_set(e, EOPNOTSUPP, "the file system of %s cannot let two files share blocks (no reflink)",
				 from_path);
	if (fstat(from, &st) == -1 || copy_data(from, to, st.st_size) == -1)
		return error_errno(e, errno, "copy %s", from_path);
	return 0;
}

int image_clone(int from, const char *from_path, const char *to_path, bool may_copy, struct error *e)
{
	CLEANUP_CLOSE int to = image_open_new(to_path, e);

	if (to < 0)
		return -1;
	if (fill(from, from_path, to, may_copy, e) == 0) {
		if (fsync(to) == 0)
			return 0;
		error_errno(e, errno, "make %s durable", to_path);
	}
	unlink(to_path);
	return -1;
}

bool image_can_share(const char *dir)
{
	CLEANUP_CLOSE int from = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	CLEANUP_CLOSE int to = from < 0 ? -1 : open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	return to >= 0 && pwrite(from, "x", 1, 0) == 1 && ioctl(to, FICLONE, from) == 0;
}
