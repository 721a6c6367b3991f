/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * place-use - does somebody on this host have that file or device?
 *
 *      a datapath of this host has it for somebody         its status
 *      a datapath of another SXM_RUN_DIR, a verb           flock
 *      a qemu                                              its locks on single bytes of the file, one for each permission
 *      the kernel                                          a device that is mounted, or part of another; a loop device
 *
 * What opens a file without any lock is not seen. The datapath takes its own lock when it opens the image; this is for a sentence
 * that says who it is, and for those who know nothing of that lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "cmd/live.h"
#include "cmd/place.h"

#define ASK_MS 5000u
#define QEMU_HELD_BASE 100   /* + permission: somebody has it */
#define QEMU_DENIED_BASE 200 /* + permission: somebody does not want others to have it */
#define QEMU_PERMISSIONS 64
#define QEMU_READ 0
#define QEMU_WRITE 1
#define QEMU_RESIZE 3
#define PATH_BYTES 4096u

static int check_datapath(const struct place *p, struct error *e)
{
	struct live l;
	const struct live_user *u;
	int r = 0;

	if (live_ask(p->image, ASK_MS, &l, e) == -1)
		return e->err == ESRCH ? 0 : -1;
	u = l.users.item;
	if (l.users.count)
		r = error_set(e, EBUSY, "%s is %s for domain %s", p->name, u->is_active ? "active" : "attached", u->domain);
	else if (live_current(&l) && !live_current(&l)->is_ended)
		r = error_set(e, EBUSY, "%s is being copied or mirrored (%s)", p->name, live_current(&l)->id);
	live_clear(&l);
	return r;
}

/* A lock that would be in the way of ours, of so many bytes. */
static bool is_locked(int fd, off_t at, off_t bytes)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = bytes };

	return fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

static int check_qemu(const struct place *p, int fd, bool is_read_only, struct error *e)
{
	const bool is_written = is_locked(fd, QEMU_HELD_BASE + QEMU_WRITE, 1) || is_locked(fd, QEMU_HELD_BASE + QEMU_RESIZE, 1);
	const bool is_denied = is_read_only ? is_locked(fd, QEMU_DENIED_BASE + QEMU_READ, 1)
					    : is_locked(fd, QEMU_HELD_BASE, QEMU_PERMISSIONS) ||
					      is_locked(fd, QEMU_DENIED_BASE, QEMU_PERMISSIONS);

	return is_written || is_denied ? error_set(e, EBUSY, "%s is open in another program, as a qemu locks what it has open",
						   p->name) : 0;
}

static bool is_file_of_loop(const char *file, const struct stat *st)
{
	size_t bytes;
	struct error e;
	struct stat backing;
	CLEANUP_FREE char *text = proc_read_file(file, PATH_BYTES, &bytes, &e);

	if (!text)
		return false;
	text[strcspn(text, "\n")] = '\0';
	return stat(text, &backing) == 0 && backing.st_dev == st->st_dev && backing.st_ino == st->st_ino;
}

static int check_loops(const struct place *p, const struct stat *st, struct error *e)
{
	glob_t found;
	int r = 0;

	if (glob("/sys/block/loop*/loop/backing_file", GLOB_NOSORT, NULL, &found) != 0)
		return 0;
	for (size_t i = 0; r == 0 && i < found.gl_pathc; i++)
		if (is_file_of_loop(found.gl_pathv[i], st))
			r = error_set(e, EBUSY, "%s is what the device /dev/%.*s is made of", p->name,
				      (int)strcspn(found.gl_pathv[i] + strlen("/sys/block/"), "/"),
				      found.gl_pathv[i] + strlen("/sys/block/"));
	globfree(&found);
	return r;
}

/* The kernel opens a device exclusively that it mounts, or makes another one of. */
static int check_device(const struct place *p, struct error *e)
{
	CLEANUP_CLOSE int fd = open(p->real, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 && errno == EBUSY)
		return error_set(e, EBUSY, "%s is mounted, or part of another device, or somebody has it for himself", p->name);
	return fd < 0 ? error_errno(e, errno, "open %s", p->real) : 0;
}

static int check_file(const struct place *p, int fd, bool is_read_only, struct error *e)
{
	struct stat st;

	if (fstat(fd, &st) == -1)
		return error_errno(e, errno, "look at %s", p->real);
	if (check_qemu(p, fd, is_read_only, e) == -1)
		return -1;
	return is_read_only ? 0 : check_loops(p, &st, e);
}

int place_check_unused(const struct place *p, bool is_read_only, struct error *e)
{
	CLEANUP_CLOSE int fd = -1;

	if (check_datapath(p, e) == -1)
		return -1;
	if (p->is_device && check_device(p, e) == -1)
		return -1;
	fd = open(p->real, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return error_errno(e, errno, "open %s", p->real);
	if (flock(fd, (is_read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == -1 && errno == EWOULDBLOCK)
		return error_set(e, EBUSY, "%s is locked: another program has it open", p->name);
	return p->is_device ? 0 : check_file(p, fd, is_read_only, e);
}
