/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-file - see persist-file.h
 *
 * The marks lie in a directory that others may write to (a shared SR). What is there under their name is opened without
 * following a symbolic link, without waiting (a FIFO), and used only if it is a plain file that belongs to us; it is replaced by
 * rename, which looks at nothing.
 */
#include "mirror/persist-file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"

int persist_file_open(const char *path, uint64_t *bytes, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0 && errno == ELOOP)
		return error_set(e, EPERM, "%s is a symbolic link, and is not followed", path);
	if (fd < 0)
		return error_errno(e, errno, "open %s", path);
	if (fstat(fd, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(e, EPERM, "%s is not a plain file", path);
	if (st.st_uid != geteuid())
		return error_set(e, EPERM, "%s belongs to user %u, not to us", path, (unsigned)st.st_uid);
	*bytes = (uint64_t)st.st_size;
	return take_fd(&fd);
}

int persist_file_read(int fd, void *into, size_t bytes, uint64_t at)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = pread(fd, (char *)into + done, bytes - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EUCLEAN;
		done += (size_t)n;
	}
	return 0;
}

static int load(void *arg UNUSED, const char *path, void *into, size_t bytes, struct error *e)
{
	uint64_t there;
	CLEANUP_CLOSE int fd = persist_file_open(path, &there, e);
	int err;

	if (fd < 0)
		return -1;
	if (there != bytes)
		return error_set(e, EUCLEAN, "%s has %llu bytes instead of %zu", path, (unsigned long long)there, bytes);
	err = persist_file_read(fd, into, bytes, 0);
	return err ? error_errno(e, err, "read %s", path) : 0;
}

static int make(void *arg UNUSED, const char *path, const void *content, size_t bytes, struct error *e)
{
	uint64_t there;

	if (proc_replace_file(path, content, bytes, 0600, e) == -1)
		return -1;
	return persist_file_open(path, &there, e);
}

static ssize_t write_at(void *arg UNUSED, int fd, const void *from, size_t bytes, off_t at)
{
	return pwrite(fd, from, bytes, at);
}

static int sync_data(void *arg UNUSED, int fd)
{
	return fdatasync(fd);
}

static void close_file(void *arg UNUSED, int fd)
{
	close(fd);
}

static void unlink_file(void *arg UNUSED, const char *path)
{
	unlink(path);
}

static int sync_dir(void *arg UNUSED, const char *path, struct error *e)
{
	return proc_sync_dir(path, e);
}

const struct persist_ops persist_file_ops = {
	.load = load,
	.make = make,
	.pwrite = write_at,
	.fdatasync = sync_data,
	.close = close_file,
	.unlink = unlink_file,
	.sync_dir = sync_dir,
};
