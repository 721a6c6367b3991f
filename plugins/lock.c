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

/* Only a file is opened: whatever else lies there was put there by others. */
static int open_file(const char *path, int flags, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	struct stat st;

	if (fd < 0 && errno != ELOOP)
		return error_errno(e, errno, "open %s", path);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return take_fd(&fd);
	return error_set(e, ELOOP, "%s is %s, not a file of the SR's; `sxm fsck` moves it out of the way", path,
			 fd < 0 ? "a symbolic link" : "something else");
}

static int take(const char *path, int flags, enum lock_mode mode, struct error *e)
{
	for (;;) {
		/* For writing: network file systems grant an exclusive lock on nothing less. */
		CLEANUP_CLOSE int fd = open_file(path, O_RDWR | flags, e);

		if (fd < 0)
			return -1;
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
	for (;;) {
		CLEANUP_CLOSE int fd = open_file(path, flags, e);

		if (fd < 0)
			return -1;
		if (flock(fd, how | LOCK_NB) == -1)
			return errno == EWOULDBLOCK ? error_set(e, EBUSY, "%s is in use", path)
						    : error_errno(e, errno, "lock %s", path);
		if (is_current(fd, path))
			return take_fd(&fd);
	}
}

int lock_try(const char *path, struct error *e)
{
	return try(path, O_RDWR, LOCK_EX, e);
}

int lock_try_shared(const char *path, struct error *e)
{
	return try(path, O_RDONLY, LOCK_SH, e);
}
