/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * proc - see proc.h
 */
#include "base/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"

static int point_at_null(int fd, struct error *e)
{
	CLEANUP_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return error_errno(e, errno, "open /dev/null");
	if (null == fd) {
		fcntl(null, F_SETFD, 0);
		take_fd(&null);
		return 0;
	}
	if (dup2(null, fd) < 0)
		return error_errno(e, errno, "dup2 to descriptor %d", fd);
	return 0;
}

/* By what is open, not by counting to the limit, which may be a billion. */
static int close_others(int keep_from, int keep_to, struct error *e)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	if (!dir)
		return error_errno(e, errno, "list /proc/self/fd");
	while ((entry = readdir(dir))) {
		char *end;
		long fd = strtol(entry->d_name, &end, 10);

		if (*end || end == entry->d_name || fd <= 2 || fd == dirfd(dir) || (fd >= keep_from && fd < keep_to))
			continue;
		close((int)fd);
	}
	closedir(dir);
	return 0;
}

int proc_settle(int keep_from, int keep_to, struct error *e)
{
	const char *log = getenv("SXM_LOG");
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_IGN);
	umask(077);
	if (chdir("/") == -1)
		return error_errno(e, errno, "chdir to /");
	if (point_at_null(0, e) == -1 || point_at_null(1, e) == -1)
		return -1;
	if ((!log || strcmp(log, "stderr") != 0) && point_at_null(2, e) == -1)
		return -1;
	return close_others(keep_from, keep_to, e);
}

void proc_make_room(int descriptors)
{
	int fd = fcntl(0, F_DUPFD_CLOEXEC, descriptors - 1);

	if (fd >= 0)
		close(fd);
}

#define HURRY 10 /* steps of nice */

static int usual_nice;
static bool is_hurried;

void proc_hurry(void)
{
	usual_nice = getpriority(PRIO_PROCESS, 0);
	is_hurried = setpriority(PRIO_PROCESS, 0, usual_nice - HURRY) == 0;
}

void proc_calm(void)
{
	if (is_hurried)
		setpriority(PRIO_PROCESS, 0, usual_nice);
}

/* struct sched_attr of the kernel's first version, which every kernel takes. */
struct turns {
	uint32_t bytes, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t turn_ns, deadline_ns, period_ns;
};

#define SHORT_TURN_NS 100000u /* the shortest that is taken; usual are 0.7 to 3 ms */

void proc_take_short_turns(void)
{
	struct turns t = { .bytes = sizeof(t) };

	if (syscall(SYS_sched_getattr, 0, &t, sizeof(t), 0) == -1 || t.policy != SCHED_OTHER)
		return;
	t.turn_ns = SHORT_TURN_NS;
	t.flags = 0;
	(void)!syscall(SYS_sched_setattr, 0, &t, 0);
}

void proc_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	size_t length = path ? strlen(path) : 0;
	CLEANUP_CLOSE int fd = -1;

	if (length < 2 || length >= sizeof(addr.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(addr.sun_path, path, length);
	if (path[0] == '@') /* the abstract namespace */
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
}

const char *proc_run_dir(void)
{
	const char *dir = getenv("SXM_RUN_DIR");

	return dir && *dir ? dir : "/run/sxm";
}

const char *proc_state_dir(void)
{
	static char beside[4096];
	const char *dir = getenv("SXM_STATE_DIR");
	const char *run = getenv("SXM_RUN_DIR");

	if (dir && *dir)
		return dir;
	if (!run || !*run)
		return "/var/lib/sxm";
	snprintf(beside, sizeof(beside), "%s/state", run);
	return beside;
}

int proc_make_dir(const char *path, struct error *e)
{
	CLEANUP_FREE char *copy = strdup(path);
	struct stat st;

	if (!copy)
		return error_set(e, ENOMEM, "out of memory");
	for (char *p = copy + 1; *copy && *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0755) == -1 && errno != EEXIST)
			return error_errno(e, errno, "make directory %s", copy);
		*p = '/';
	}
	if (mkdir(path, 0700) == -1 && errno != EEXIST)
		return error_errno(e, errno, "make directory %s", path);
	if (lstat(path, &st) == -1)
		return error_errno(e, errno, "look at directory %s", path);
	if (!S_ISDIR(st.st_mode))
		return error_set(e, ENOTDIR, "%s is in the way: it should be a directory", path);
	if (st.st_uid != geteuid())
		return error_set(e, EPERM, "directory %s belongs to user %u, not to us: refusing to trust it", path,
				 (unsigned)st.st_uid);
	return 0;
}

static char *read_all(int fd, const char *path, size_t max, size_t *bytes, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	size_t used = 0, capacity = 0;

	for (;;) {
		ssize_t n;

		if (used + 1 >= capacity) {
			char *more = realloc(text, capacity += capacity + 4096);

			if (!more) {
				error_set(e, ENOMEM, "out of memory reading %s", path);
				return NULL;
			}
			text = more;
		}
		n = read(fd, text + used, capacity - used - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			error_errno(e, errno, "read %s", path);
			return NULL;
		}
		if (n == 0)
			break;
		used += (size_t)n;
		if (used > max) {
			error_set(e, EFBIG, "%s is larger than %zu bytes", path, max);
			return NULL;
		}
	}
	text[used] = '\0';
	if (bytes)
		*bytes = used;
	return take_ptr(&text);
}

char *proc_read_file(const char *path, size_t max, size_t *bytes, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* what should be a file may be a FIFO */

	if (fd >= 0)
		return read_all(fd, path, max, bytes, e);
	error_errno(e, errno, "open %s", path);
	return NULL;
}

char *proc_read_own_file(const char *path, size_t max, size_t *bytes, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	struct stat st;

	if (fd < 0 && errno == ELOOP)
		error_set(e, EBADMSG, "%s is a symbolic link, not a file of ours", path);
	else if (fd < 0)
		error_errno(e, errno, "open %s", path);
	else if (fstat(fd, &st) == 0 && !S_ISREG(st.st_mode))
		error_set(e, EBADMSG, "%s is no file", path);
	else
		return read_all(fd, path, max, bytes, e);
	return NULL;
}

static int write_all(int fd, const char *text, size_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, text, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		text += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int sync_dir_of(const char *path)
{
	CLEANUP_FREE char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL;
	CLEANUP_CLOSE int fd = -1;

	if (!dir)
		return ENOMEM;
	if (slash == dir)
		slash++;
	if (slash)
		*slash = '\0';
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) == -1)
		return errno;
	return 0;
}

int proc_sync_dir(const char *path, struct error *e)
{
	int err = sync_dir_of(path);

	return err ? error_errno(e, err, "make %s durable", path) : 0;
}

/* A descriptor, and its name in *temporary, heap. -1 + e: nothing is left. */
static int write_temporary(const char *path, const char *text, size_t bytes, unsigned mode, bool is_durable, char **temporary,
			   struct error *e)
{
	CLEANUP_CLOSE int fd = -1;
	int err;

	if (asprintf(temporary, "%s.%d.tmp", path, (int)getpid()) < 0) {
		*temporary = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	fd = open(*temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
	if (fd < 0)
		return error_errno(e, errno, "create %s", *temporary);
	err = write_all(fd, text, bytes);
	if (!err && is_durable && fsync(fd) == -1)
		err = errno;
	if (!err)
		return take_fd(&fd);
	unlink(*temporary);
	return error_errno(e, err, "write %s", path);
}

/* lock: NULL, or the old file's, which becomes the new one's. */
static int replace(const char *path, const char *text, size_t bytes, unsigned mode, bool is_durable, int *lock, struct error *e)
{
	CLEANUP_FREE char *temporary = NULL;
	CLEANUP_CLOSE int fd = write_temporary(path, text, bytes, mode, is_durable, &temporary, e);
	int err;

	if (fd < 0)
		return -1;
	if ((lock && flock(fd, LOCK_EX | LOCK_NB) == -1) || rename(temporary, path) == -1) {
		err = errno;
		unlink(temporary);
		return error_errno(e, err, "write %s", path);
	}
	if (lock) {
		close(*lock);
		*lock = take_fd(&fd);
	}
	return is_durable ? proc_sync_dir(path, e) : 0;
}

int proc_replace_file(const char *path, const char *text, size_t bytes, unsigned mode, struct error *e)
{
	return replace(path, text, bytes, mode, true, NULL, e);
}

int proc_replace_locked_file(const char *path, const char *text, size_t bytes, unsigned mode, int *lock, struct error *e)
{
	return replace(path, text, bytes, mode, true, lock, e);
}

int proc_swap_file(const char *path, const char *text, size_t bytes, unsigned mode, struct error *e)
{
	return replace(path, text, bytes, mode, false, NULL, e);
}

int proc_create_file(const char *path, const char *text, size_t bytes, unsigned mode, struct error *e)
{
	CLEANUP_FREE char *temporary = NULL;
	CLEANUP_CLOSE int fd = write_temporary(path, text, bytes, mode, true, &temporary, e);
	int err = 0;

	if (fd < 0)
		return -1;
	if (link(temporary, path) == -1) /* what is written, under its name or not at all */
		err = errno;
	unlink(temporary);
	if (err && err != EEXIST)
		return error_errno(e, err, "create %s", path);
	if (proc_sync_dir(path, e) == -1) /* of one that is there, too: who made it may not have come so far */
		return -1;
	return err ? error_errno(e, err, "create %s", path) : 0;
}
