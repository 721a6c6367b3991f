/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * image - see image.h
 *
 * Whoever does I/O on an image holds flock() on it; taking the same lock here is what keeps a resize or a removal off a disk
 * in use, on this host and, where the file system carries locks, on the others.
 */
#include "plugins/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lease.h"
#include "base/log.h"
#include "plugins/lock.h"

#define MAX_BYTES (INT64_C(1) << 62)

const char *const image_beside[] = { IMAGE_OWNER_SUFFIX, IMAGE_MARKS_SUFFIX, IMAGE_JOURNAL_SUFFIX, NULL };

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

char *image_path(const char *dir, const char *key)
{
	char *path;

	return asprintf(&path, "%s/%s.raw", dir, key) < 0 ? NULL : path;
}

int image_round(int64_t bytes, int64_t *rounded, struct error *e)
{
	if (bytes < 0)
		return error_set(e, EINVAL, "a size of %lld bytes is negative", (long long)bytes);
	if (bytes > MAX_BYTES)
		return error_set(e, EFBIG, "a size of %lld bytes is more than any disk can have", (long long)bytes);
	*rounded = (bytes + IMAGE_ALIGNMENT - 1) / IMAGE_ALIGNMENT * IMAGE_ALIGNMENT;
	return 0;
}

int image_sync_dir(const char *dir)
{
	CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) == -1 ? errno : 0;
}

static int set_size(int fd, const char *path, int64_t bytes, struct error *e)
{
	if (ftruncate(fd, bytes) == 0 && fsync(fd) == 0)
		return 0;
	if (errno == EFBIG || errno == EINVAL)
		return error_set(e, EFBIG, "the file system of %s cannot hold a file of %lld bytes", path, (long long)bytes);
	return error_errno(e, errno, "give %s a size of %lld bytes", path, (long long)bytes);
}

int image_create(const char *dir, const char *key, int64_t bytes, struct error *e)
{
	CLEANUP_FREE char *passing = image_passing_path(dir, key);
	CLEANUP_CLOSE int fd = -1;

	if (!passing)
		return out_of_memory(e);
	fd = open(passing, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_errno(e, errno, "make %s", passing);
	if (set_size(fd, passing, bytes, e) == 0)
		return image_publish(dir, key, e);
	unlink(passing);
	return -1;
}

int image_grow(const char *dir, const char *key, int64_t bytes, struct error *e)
{
	CLEANUP_FREE char *path = image_path(dir, key);
	CLEANUP_LOCK int fd = -1;
	struct stat st;

	if (!path)
		return out_of_memory(e);
	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == bytes)
		return 0; /* a repeated call, perhaps with the disk in use meanwhile */
	fd = lock_try(path, e);
	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	if (st.st_size > bytes)
		return error_set(e, ERANGE,
				 "it has %lld bytes, and a disk can only grow: making it %lld bytes would cut data off",
				 (long long)st.st_size, (long long)bytes);
	return set_size(fd, path, bytes, e);
}

int image_claim(const char *dir, const char *key, struct error *e)
{
	CLEANUP_FREE char *path = image_path(dir, key);

	return path ? lock_try(path, e) : out_of_memory(e);
}

static int unlink_beside(const char *path, const char *suffix, struct error *e)
{
	CLEANUP_FREE char *file = NULL;

	if (asprintf(&file, "%s%s", path, suffix) < 0) {
		file = NULL;
		return out_of_memory(e);
	}
	return unlink(file) == -1 && errno != ENOENT ? error_errno(e, errno, "remove %s", file) : 0;
}

void image_retire(const char *dir, const char *key)
{
	CLEANUP_FREE char *path = image_path(dir, key);
	CLEANUP_FREE char *passing = image_passing_path(dir, key);

	if (path && passing && link(path, passing) == -1 && errno != EEXIST && errno != ENOENT)
		log_debug("no second name for %s: %s", path, strerror(errno)); /* there are file systems without */
}

int image_unlink(const char *dir, const char *key, struct error *e)
{
	CLEANUP_FREE char *path = image_path(dir, key);
	int err;

	if (!path)
		return out_of_memory(e);
	if (unlink(path) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove %s", path);
	for (const char *const *suffix = image_beside; *suffix; suffix++)
		if (unlink_beside(path, *suffix, e) == -1)
			return -1;
	if (lease_remove(path, e) == -1)
		return -1;
	image_settle(dir, key);
	err = image_sync_dir(dir);
	return err ? error_errno(e, err, "make the removal of %s durable", path) : 0;
}

int image_look(const char *dir, const char *key, struct image_info *out, struct error *e)
{
	CLEANUP_FREE char *path = image_path(dir, key);
	struct stat st;

	if (!path)
		return out_of_memory(e);
	if (lstat(path, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(e, EINVAL, "%s is no file; `sxm fsck` moves it out of the way", path);
	out->virtual_bytes = st.st_size;
	out->allocated_bytes = (int64_t)st.st_blocks * 512;
	return 0;
}
