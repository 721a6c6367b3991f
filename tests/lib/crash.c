/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * crash - runs a command, and kills it and all it started just before its n-th change of a file system
 *
 *      crash [-o FILE] [-u DIR]... N COMMAND...        N = 0: it runs to its end
 *      crash -f [-o FILE] [-u DIR]... N COMMAND...     from the n-th change on the file system is full, instead
 *
 *      fork -> traced: every system call stops it on its way in -> is this one a change? -> the n-th: SIGKILL to all, nothing of
 *      it is done                                                 -> else it goes on
 *
 * A change is a call that makes, fills, moves, removes or mounts something that has a path, or makes it durable; with -u only
 * what is below DIR.  Reads, sockets, pipes and /dev/null are none.  Of many writes to one descriptor the 1st, 2nd, 4th,
 * 8th... count.  Each change is a line in FILE: its number, its call, its path.
 *
 * Full: calls that need room (they make, fill, lengthen or link something, or make it durable) fail with ENOSPC; what takes
 * away still works, as it does on a real one.
 *
 * Exit status: the command's; 137 when it was killed here; 125 when crash itself failed.
 * A datapath (sxm-datapath) is let go: it outlives the verb that starts it. So is, where the file system is full, who merges in
 * the background (--coalesce): he waits for room.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define STATUS_KILLED 137
#define STATUS_FAILED 125
#define TASKS_MAX 256
#define DIRS_MAX 8
#define NONE (-1)

/* What of a call says where the change is: a path's address and the descriptor it is relative to, or a descriptor. */
struct call {
	long number;
	const char *name;
	int dir, path, fd; /* numbers of arguments, or NONE */
	int flags;         /* the argument that has open's flags, or NONE */
};

static const struct call calls[] = {
#ifdef SYS_open
	{ SYS_open, "open", NONE, 0, NONE, 1 },
	{ SYS_creat, "creat", NONE, 0, NONE, NONE },
	{ SYS_rename, "rename", NONE, 1, NONE, NONE },
	{ SYS_link, "link", NONE, 1, NONE, NONE },
	{ SYS_symlink, "symlink", NONE, 1, NONE, NONE },
	{ SYS_unlink, "unlink", NONE, 0, NONE, NONE },
	{ SYS_mkdir, "mkdir", NONE, 0, NONE, NONE },
	{ SYS_rmdir, "rmdir", NONE, 0, NONE, NONE },
	{ SYS_chmod, "chmod", NONE, 0, NONE, NONE },
	{ SYS_chown, "chown", NONE, 0, NONE, NONE },
	{ SYS_mknod, "mknod", NONE, 0, NONE, NONE },
	{ SYS_renameat, "renameat", 2, 3, NONE, NONE },
#endif
	{ SYS_openat, "openat", 0, 1, NONE, 2 },
	{ SYS_renameat2, "renameat2", 2, 3, NONE, NONE },
	{ SYS_linkat, "linkat", 2, 3, NONE, NONE },
	{ SYS_symlinkat, "symlinkat", 1, 2, NONE, NONE },
	{ SYS_unlinkat, "unlinkat", 0, 1, NONE, NONE },
	{ SYS_mkdirat, "mkdirat", 0, 1, NONE, NONE },
	{ SYS_mknodat, "mknodat", 0, 1, NONE, NONE },
	{ SYS_fchmodat, "fchmodat", 0, 1, NONE, NONE },
	{ SYS_fchownat, "fchownat", 0, 1, NONE, NONE },
	{ SYS_utimensat, "utimensat", 0, 1, NONE, NONE },
	{ SYS_truncate, "truncate", NONE, 0, NONE, NONE },
	{ SYS_setxattr, "setxattr", NONE, 0, NONE, NONE },
	{ SYS_mount, "mount", NONE, 1, NONE, NONE },
	{ SYS_umount2, "umount", NONE, 0, NONE, NONE },
#ifdef SYS_move_mount
	{ SYS_move_mount, "move_mount", 2, 3, NONE, NONE },
#endif
	{ SYS_write, "write", NONE, NONE, 0, NONE },
	{ SYS_writev, "writev", NONE, NONE, 0, NONE },
	{ SYS_pwrite64, "pwrite", NONE, NONE, 0, NONE },
	{ SYS_pwritev, "pwritev", NONE, NONE, 0, NONE },
	{ SYS_ftruncate, "ftruncate", NONE, NONE, 0, NONE },
	{ SYS_fallocate, "fallocate", NONE, NONE, 0, NONE },
	{ SYS_fsync, "fsync", NONE, NONE, 0, NONE },
	{ SYS_fdatasync, "fdatasync", NONE, NONE, 0, NONE },
	{ SYS_syncfs, "syncfs", NONE, NONE, 0, NONE },
	{ SYS_sync_file_range, "sync_file_range", NONE, NONE, 0, NONE },
	{ SYS_fchmod, "fchmod", NONE, NONE, 0, NONE },
	{ SYS_fchown, "fchown", NONE, NONE, 0, NONE },
	{ SYS_fsetxattr, "fsetxattr", NONE, NONE, 0, NONE },
	{ SYS_copy_file_range, "copy_file_range", NONE, NONE, 2, NONE },
	{ SYS_sendfile, "sendfile", NONE, NONE, 0, NONE },
	{ SYS_splice, "splice", NONE, NONE, 2, NONE },
	{ SYS_ioctl, "ioctl", NONE, NONE, 0, NONE },
};
#define CALLS (sizeof(calls) / sizeof(calls[0]))

/* The ioctls that change something. */
static const unsigned long changing[] = {
	0x40049409, /* FICLONE */
	0x4020940d, /* FICLONERANGE */
	0x40086602, /* FS_IOC_SETFLAGS */
	0x1277,     /* BLKDISCARD */
	0x127f,     /* BLKZEROOUT */
};

struct task {
	pid_t pid; /* 0: the place is free */
	long last; /* the last change was such a write ... */
	int fd;
	unsigned long run; /* ... as so many before it, to the same descriptor */
};

static struct {
	struct task task[TASKS_MAX];
	const char *dir[DIRS_MAX];
	size_t dirs;
	unsigned long kill_at, changes;
	bool is_full; /* nobody is killed */
	FILE *log;
} crash;

static void fail(const char *what)
{
	fprintf(stderr, "crash: %s: %s\n", what, strerror(errno));
	exit(STATUS_FAILED); /* PTRACE_O_EXITKILL: nothing is left running */
}

static struct task *find_task(pid_t pid)
{
	struct task *free_place = NULL;

	for (size_t i = 0; i < TASKS_MAX; i++) {
		if (crash.task[i].pid == pid)
			return &crash.task[i];
		if (!crash.task[i].pid && !free_place)
			free_place = &crash.task[i];
	}
	if (!free_place) {
		errno = EMFILE;
		fail("too many processes");
	}
	*free_place = (struct task){ .pid = pid };
	return free_place;
}

/* --- what is changed */

static void read_link(pid_t pid, const char *what, char path[static PATH_MAX])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%d/%s", (int)pid, what);
	n = readlink(link, path, PATH_MAX - 1);
	path[n > 0 ? n : 0] = '\0';
}

static void read_descriptor(pid_t pid, int fd, char path[static PATH_MAX])
{
	char what[32];

	snprintf(what, sizeof(what), "fd/%d", fd);
	read_link(pid, what, path);
}

static void read_string(pid_t pid, unsigned long long at, char *text, size_t room)
{
	size_t used = 0;

	/* By pages: the next one may not be there. */
	while (used + 1 < room) {
		size_t want = 4096 - (size_t)((at + used) & 4095);
		struct iovec to = { text + used, want < room - 1 - used ? want : room - 1 - used };
		struct iovec from = { (void *)(uintptr_t)(at + used), to.iov_len };
		ssize_t n = process_vm_readv(pid, &to, 1, &from, 1, 0);

		if (n <= 0)
			break;
		used += (size_t)n;
		if (memchr(to.iov_base, '\0', (size_t)n))
			return;
	}
	text[used] = '\0';
}

static void find_path(pid_t pid, const struct call *call, const unsigned long long *args, char path[static PATH_MAX])
{
	char name[PATH_MAX / 2], dir[PATH_MAX];

	if (call->fd != NONE) {
		read_descriptor(pid, (int)args[call->fd], path);
		return;
	}
	read_string(pid, args[call->path], name, sizeof(name));
	if (*name == '/') {
		snprintf(path, PATH_MAX, "%s", name);
		return;
	}
	if (call->dir == NONE || (int)args[call->dir] == AT_FDCWD)
		read_link(pid, "cwd", dir);
	else
		read_descriptor(pid, (int)args[call->dir], dir);
	snprintf(path, PATH_MAX, "%.2000s/%.2000s", dir, name);
}

static bool is_below(const char *path, const char *dir)
{
	size_t bytes = strlen(dir);

	return strncmp(path, dir, bytes) == 0 && (!path[bytes] || path[bytes] == '/');
}

static bool is_wanted(const char *path)
{
	static const char *const left_out[] = { "/dev/null", "/dev/pts", "/dev/tty", "/proc", "/sys", NULL };

	for (size_t i = 0; i < crash.dirs; i++)
		if (is_below(path, crash.dir[i]))
			return true;
	for (const char *const *out = left_out; *out; out++)
		if (is_below(path, *out))
			return false;
	return !crash.dirs && *path == '/';
}

static bool is_changing(const struct call *call, const unsigned long long *args)
{
	if (call->number == SYS_ioctl) {
		for (size_t i = 0; i < sizeof(changing) / sizeof(changing[0]); i++)
			if ((args[1] & 0xffffffff) == changing[i])
				return true;
		return false;
	}
	return call->flags == NONE || (args[call->flags] & (O_CREAT | O_TRUNC));
}

/* Of a row of writes the 1st, 2nd, 4th... */
static bool counts(struct task *t, const struct call *call, int fd)
{
	bool is_row = call->number == SYS_write || call->number == SYS_pwrite64 || call->number == SYS_writev ||
		      call->number == SYS_pwritev || call->number == SYS_copy_file_range;

	if (is_row && t->last == call->number && t->fd == fd)
		t->run++;
	else
		t->run = 1;
	t->last = is_row ? call->number : 0;
	t->fd = fd;
	return (t->run & (t->run - 1)) == 0;
}

/* Does it need room? */
static bool needs_room(const struct call *call, const char *path)
{
	static const long none[] = {
#ifdef SYS_unlink
		SYS_unlink, SYS_rmdir, SYS_chmod, SYS_chown,
#endif
		SYS_unlinkat, SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat, SYS_utimensat, SYS_umount2, SYS_mount,
	};

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		if (none[i] == call->number)
			return false;
	return call->flags == NONE || access(path, F_OK) == -1; /* one that is there is only opened */
}

/* Instead of what it is about to do. */
static void fail_call(const struct task *t)
{
#ifdef __x86_64__
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, t->pid, NULL, &regs) == -1)
		return;
	regs.orig_rax = (unsigned long long)-1;
	regs.rax = (unsigned long long)-ENOSPC;
	ptrace(PTRACE_SETREGS, t->pid, NULL, &regs);
#else
	(void)t;
	errno = ENOSYS;
	fail("a full file system on this processor");
#endif
}

/* Is what the task is about to do the change it is not to live to? */
static bool is_the_end(struct task *t, const unsigned long long number, const unsigned long long *args)
{
	const struct call *call = calls;
	char path[PATH_MAX];

	while (call < calls + CALLS && (unsigned long long)call->number != number)
		call++;
	if (call == calls + CALLS || !is_changing(call, args))
		return false;
	find_path(t->pid, call, args, path);
	if (!is_wanted(path) || !counts(t, call, call->fd == NONE ? NONE : (int)args[call->fd]))
		return false;
	crash.changes++;
	if (crash.log)
		fprintf(crash.log, "%lu %s %s\n", crash.changes, call->name, path);
	if (!crash.is_full)
		return crash.changes == crash.kill_at;
	if (crash.kill_at && crash.changes >= crash.kill_at && needs_room(call, path))
		fail_call(t);
	return false;
}

/* --- the tasks */

static void kill_all(void)
{
	for (size_t i = 0; i < TASKS_MAX; i++)
		if (crash.task[i].pid)
			kill(crash.task[i].pid, SIGKILL);
	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, __WALL);

		if (pid < 0 && errno != EINTR)
			break;
		if (pid > 0 && WIFSTOPPED(status)) /* born while it happened */
			kill(pid, SIGKILL);
	}
	if (crash.log)
		fclose(crash.log);
	exit(STATUS_KILLED);
}

static bool is_datapath(pid_t pid)
{
	char path[PATH_MAX];
	const char *slash;

	read_link(pid, "exe", path);
	slash = strrchr(path, '/');
	return slash && strcmp(slash + 1, "sxm-datapath") == 0;
}

static bool is_background(pid_t pid)
{
	char path[64], words[PATH_MAX] = "";
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, words, sizeof(words) - 1);
	if (fd >= 0)
		close(fd);
	return n > 0 && (size_t)n > strlen(words) + 1 && strcmp(words + strlen(words) + 1, "--coalesce") == 0;
}

/* It has stopped; on it goes. */
static void go_on(struct task *t, int status)
{
	struct __ptrace_syscall_info info;
	int signal_number = WSTOPSIG(status), event = status >> 16;

	if (event == PTRACE_EVENT_EXEC && (is_datapath(t->pid) || (crash.is_full && is_background(t->pid)))) {
		ptrace(PTRACE_DETACH, t->pid, NULL, NULL);
		t->pid = 0;
		return;
	}
	if (signal_number == (SIGTRAP | 0x80)) {
		if (ptrace(PTRACE_GET_SYSCALL_INFO, t->pid, (void *)sizeof(info), &info) > 0 &&
		    info.op == PTRACE_SYSCALL_INFO_ENTRY &&
		    is_the_end(t, info.entry.nr, (const unsigned long long *)info.entry.args))
			kill_all();
		signal_number = 0;
	} else if (event) {
		signal_number = 0;
	}
	ptrace(PTRACE_SYSCALL, t->pid, NULL, (void *)(long)signal_number);
}

static int follow(pid_t first)
{
	int result = STATUS_FAILED;

	for (;;) {
		int status;
		pid_t pid = waitpid(-1, &status, __WALL);

		if (pid < 0 && errno == EINTR)
			continue;
		if (pid < 0)
			return result; /* the last one has gone */
		if (WIFSTOPPED(status)) {
			go_on(find_task(pid), status);
			continue;
		}
		find_task(pid)->pid = 0;
		if (pid == first)
			result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
}

static pid_t start(char **argv)
{
	const unsigned long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
				      PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
	int go[2];
	char byte;
	pid_t pid;

	if (pipe2(go, O_CLOEXEC) == -1)
		fail("pipe");
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		if (read(go[0], &byte, 1) == 1)
			execvp(argv[0], argv);
		_exit(STATUS_FAILED);
	}
	if (pid < 0 || ptrace(PTRACE_SEIZE, pid, NULL, (void *)options) == -1 ||
	    ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == -1)
		fail("trace the command");
	if (write(go[1], "", 1) != 1)
		fail("start the command");
	close(go[0]);
	close(go[1]);
	return pid;
}

static int explain(void)
{
	fprintf(stderr, "usage: crash [-f] [-o FILE] [-u DIR]... N COMMAND...\n");
	return STATUS_FAILED;
}

int main(int argc, char **argv)
{
	char *end;
	int c;

	while ((c = getopt(argc, argv, "+fo:u:")) != -1) {
		if (c == 'f')
			crash.is_full = true;
		else if (c == 'u' && crash.dirs < DIRS_MAX)
			crash.dir[crash.dirs++] = optarg;
		else if (c == 'o' && !crash.log && (crash.log = fopen(optarg, "we")))
			continue;
		else
			return explain();
	}
	if (argc - optind < 2)
		return explain();
	crash.kill_at = strtoul(argv[optind], &end, 10);
	if (*end)
		return explain();
	c = follow(start(argv + optind + 1));
	return crash.log && fclose(crash.log) != 0 ? STATUS_FAILED : c;
}
