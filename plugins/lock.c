/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * lock - see lock.h
 *
 *      open -> flock, may wait -> is this still the file of that name? -> yes: ours
 *       ^                                   | no: replaced or gone meanwhile
 *       +-----------------------------------+
 */
#include "plugins/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

static int wait_for(int fd, enum lock_mode mode)
{
	int r;

	do {
		r = flock(fd, mode == LOCK_SHARED ? LOCK_SH : LOCK_EX);
	} while (r == -1 && errno == EINTR);
	return r;
}

static bool is_current(int fd, const char *path)
{
	struct stat locked, named;

	return fstat(fd, &locked) == 0 && stat(path, &named) == 0 && locked.st_ino == named.st_ino &&
	       locked.st_dev == named.st_dev;
}

static int take(const char *path, int flags, enum lock_mode mode, struct error *e)
{
	for (;;) {
		/* For writing: network file systems grant an exclusive lock on nothing less. */
		CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);

		if (fd < 0)
			return error_errno(e, errno, "open %s to lock it", path);
		if (wait_for(fd, mode) == -1)
			return error_errno(e, errno, "lock %s", path);
		if (is_current(fd, path))
			return take_fd(&fd);
	}
}

int lock_take(const char *path, enum lock_mode mode, struct error *e)
{
	return take(path, 0, mode, e);
}

int lock_make(const char *path, enum lock_mode mode, struct error *e)
{
	return take(path, O_CREAT, mode, e);
}

static int try(const char *path, int flags, int how, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		return error_errno(e, errno, "open %s", path);
	if (flock(fd, how | LOCK_NB) == -1)
		return errno == EWOULDBLOCK ? error_set(e, EBUSY, "%s is in use", path) : error_errno(e, errno, "lock %s", path);
	return take_fd(&fd);
}

int lock_try(const char *path, struct error *e)
{
	return try(path, O_RDWR, LOCK_EX, e);
}

int lock_try_shared(const char *path, struct error *e)
{
	return try(path, O_RDONLY, LOCK_SH, e);
}
