/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-qcow2-server - the qemu process under an image: started, found again by another process, ended
 *
 *      RUN_DIR/qcow2.json     which process it is     qcow2.sock   where it listens
 *      RUN_DIR/qcow2.log      what it said            qcow2.lock   held by whoever starts or ends one
 *
 *      us       fork ------------------------> write qcow2.json ---> "go" ------------------->
 *      child         waits for "go", or that we are gone: exit          descriptors, exec qemu
 *
 * It outlives us when we are killed: what it acknowledged and has not stored is in its memory.  So there is no moment in which
 * one runs that is not on record, and a pid counts only with the time at which its process began.
 * An exit that was asked for (SIGTERM) stores everything.  A record whose process is gone says that it died.
 *
 * Between fork and exec the child calls only what a signal handler may: other threads of ours may hold any lock.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "base/proc.h"
#include "disk/disk-qcow2.h"

#define RECORD_MAX_BYTES 4096u
#define LOG_MAX_BYTES (64 * KiB)
#define END_WAIT_MS 30000u
#define KILL_WAIT_MS 2000u
#define BIND_WAIT_MS 10000u
#define BACKLOG 16
#define STAT_THREADS 20u
#define STAT_STARTED 22u
#define HIGH_FD 256 /* above what a server has: copies of descriptors that are about to be put there */

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* --- files of run_dir */

static char *name_file(const char *run_dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/qcow2.%s", run_dir, name) == -1 ? NULL : path;
}

int disk_server_socket(const char *run_dir, char path[static 108], struct error *e)
{
	int n = snprintf(path, 108, "%s/qcow2.sock", run_dir);

	return n < 0 || n >= 108 ? error_set(e, ENAMETOOLONG, "%s is too long a directory for sockets", run_dir) : 0;
}

int disk_server_lock(const char *run_dir, struct error *e)
{
	CLEANUP_FREE char *path = name_file(run_dir, "lock");
	CLEANUP_CLOSE int fd = -1;

	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(e, errno, "open %s", path);
	while (flock(fd, LOCK_EX) == -1)
		if (errno != EINTR)
			return error_errno(e, errno, "lock %s", path);
	return take_fd(&fd);
}

char *disk_server_words(const char *run_dir)
{
	CLEANUP_FREE char *path = name_file(run_dir, "log"), *text = NULL;
	char *line;

	if (!path || !(text = proc_read_file(path, LOG_MAX_BYTES, NULL, NULL)))
		return NULL;
	for (size_t end = strlen(text); end && text[end - 1] == '\n';)
		text[--end] = '\0';
	line = strrchr(text, '\n');
	line = strdup(line ? line + 1 : text);
	if (line && !*line)
		free(take_ptr(&line));
	return line;
}

/* --- the record */

struct record {
	int64_t pid, dev, ino;
	char *started; /* owned */
	bool is_read_only, is_served, was_lost;
};
static const struct jsonspec_field record_fields[] = {
	{ .name = "pid", .type = JS_INT64, .offset = offsetof(struct record, pid) },
	{ .name = "started", .type = JS_STRING, .offset = offsetof(struct record, started) },
	{ .name = "dev", .type = JS_INT64, .offset = offsetof(struct record, dev) },
	{ .name = "ino", .type = JS_INT64, .offset = offsetof(struct record, ino) },
	{ .name = "read_only", .type = JS_BOOL, .offset = offsetof(struct record, is_read_only) },
	{ .name = "served", .type = JS_BOOL, .offset = offsetof(struct record, is_served) },
	{ .name = "lost", .type = JS_BOOL, .offset = offsetof(struct record, was_lost) },
	{ .name = NULL },
};
static const struct jsonspec record_spec = { "record of a server", sizeof(struct record), record_fields };

bool disk_server_load(const char *run_dir, struct disk_server *s)
{
	CLEANUP_FREE char *path = name_file(run_dir, "json"), *text = NULL;
	struct record r;
	size_t bytes = 0;
	struct error e = { 0 };

	*s = (struct disk_server){ 0 };
	text = path ? proc_read_file(path, RECORD_MAX_BYTES, &bytes, NULL) : NULL;
	if (!text)
		return false;
	if (jsonspec_decode(&record_spec, text, bytes, &r, &e) == -1 || r.pid <= 1 || r.pid > INT32_MAX) {
		log_warn("%s says nothing sensible, and is not believed: %s", path, e.text);
		jsonspec_clear(&record_spec, &r);
		return false;
	}
	*s = (struct disk_server){ .pid = (pid_t)r.pid, .started = r.started, .dev = r.dev, .ino = r.ino,
				   .is_read_only = r.is_read_only, .is_served = r.is_served, .was_lost = r.was_lost };
	return true;
}

int disk_server_save(const char *run_dir, const struct disk_server *s, struct error *e)
{
	const struct record r = { .pid = s->pid, .started = s->started, .dev = s->dev, .ino = s->ino,
				  .is_read_only = s->is_read_only, .is_served = s->is_served, .was_lost = s->was_lost };
	CLEANUP_FREE char *path = name_file(run_dir, "json"), *text = jsonspec_encode(&record_spec, &r);

	if (!path || !text)
		return error_set(e, ENOMEM, "out of memory");
	return proc_swap_file(path, text, strlen(text), 0600, e);
}

void disk_server_clear(struct disk_server *s)
{
	free(s->started);
	*s = (struct disk_server){ 0 };
}

static void forget(const char *run_dir)
{
	static const char *const names[] = { "json", "sock", "log" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		CLEANUP_FREE char *path = name_file(run_dir, names[i]);

		if (path && unlink(path) == -1 && errno != ENOENT)
			log_warn("remove %s: %s", path, strerror(errno));
	}
}

/* --- is it alive? */

/* Of /proc/PID/stat: when it began (heap). NULL: there is no such process, or it is dead and not buried yet. One whose first
 * thread is dead lives as long as another one does: it has its files, and the lock. */
static char *ask_started(pid_t pid)
{
	CLEANUP_FREE char *text = NULL;
	char path[64], *at, *rest = NULL, *field;
	bool is_dying;

	snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
	text = proc_read_file(path, RECORD_MAX_BYTES, NULL, NULL);
	at = text ? strrchr(text, ')') : NULL; /* its name may contain anything */
	field = at ? strtok_r(at + 1, " ", &rest) : NULL;
	is_dying = field && (*field == 'Z' || *field == 'X');
	for (unsigned i = 3; i < STAT_STARTED && field; i++) {
		field = strtok_r(NULL, " ", &rest);
		if (field && i + 1 == STAT_THREADS && is_dying && strtoul(field, NULL, 10) <= 1)
			return NULL;
	}
	return field ? strdup(field) : NULL;
}

bool disk_server_is_alive(const struct disk_server *s)
{
	CLEANUP_FREE char *started = ask_started(s->pid);

	if (!started)
		waitpid(s->pid, NULL, WNOHANG); /* where it is our child */
	return started && strcmp(started, s->started) == 0;
}

/* Its descriptor number; -1: not of the image. process: a pidfd. */
static int take_number(const struct disk_server *s, int process, int number)
{
	CLEANUP_CLOSE int fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) == -1 || (int64_t)st.st_dev != s->dev || (int64_t)st.st_ino != s->ino)
		return -1;
	return take_fd(&fd);
}

int disk_server_take_fd(const struct disk_server *s)
{
	CLEANUP_CLOSE int process = (int)syscall(SYS_pidfd_open, s->pid, 0);

	return process < 0 || !disk_server_is_alive(s) ? -1 : take_number(s, process, DISK_SERVER_IMAGE_FD);
}

int disk_server_own_fd(const struct disk_server *s)
{
	CLEANUP_CLOSE int process = (int)syscall(SYS_pidfd_open, s->pid, 0);
	char path[64];
	struct dirent *entry;
	int fd = -1;
	DIR *dir;

	if (process < 0 || !disk_server_is_alive(s))
		return -1;
	snprintf(path, sizeof(path), "/proc/%ld/fd", (long)s->pid);
	dir = opendir(path);
	while (dir && fd < 0 && (entry = readdir(dir))) {
		int number = atoi(entry->d_name); /* not a number: 0 */

		if (number > DISK_SERVER_IMAGE_FD)
			fd = take_number(s, process, number);
		if (fd >= 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
			close(take_fd(&fd));
	}
	if (dir)
		closedir(dir);
	return fd;
}

/* --- it begins */

/* What the child needs, all of it made before the fork. */
struct birth {
	struct disk_command command;
	int from[QCOW2_CHAIN_MAX + 2]; /* owned: what becomes DISK_SERVER_IMAGE_FD and so on */
	size_t count;
	int null, log, go;     /* owned; go: the end to read from */
	char *run_dir;         /* owned: SXM_RUN_DIR=..., whose it is */
	const char *environment[4];
};

static _Noreturn void live(const struct birth *b)
{
	char byte;

	setsid();
	if (read(b->go, &byte, 1) != 1)
		_exit(0);
	if (dup2(b->null, 0) < 0 || dup2(b->null, 1) < 0 || dup2(b->log, 2) < 0)
		_exit(126);
	for (size_t i = 0; i < b->count; i++)
		if (dup2(b->from[i], DISK_SERVER_IMAGE_FD + (int)i) < 0)
			_exit(126);
	execve(b->command.program, b->command.argument, (char *const *)(uintptr_t)b->environment);
	_exit(127);
}

/* -1 + e. Of the descriptor a copy out of the way of those that the child puts into place. */
static int keep(struct birth *b, int fd, struct error *e)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);

	if (copy < 0)
		return error_errno(e, errno, "copy a descriptor");
	b->from[b->count++] = copy;
	return 0;
}

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	return un;
}

static int listen_at(const char *path, struct error *e)
{
	struct sockaddr_un un = address_of(path);
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) == -1 || listen(fd, BACKLOG) == -1)
		return error_errno(e, errno, "listen at %s", path);
	return take_fd(&fd);
}

/* In the order of DISK_SERVER_*_FD. A program that binds its socket itself gets /dev/null in its place. */
static int gather(struct birth *b, const struct disk_qcow2 *image, const struct qcow2_chain *c, struct error *e)
{
	CLEANUP_FREE char *log = name_file(image->run_dir, "log");
	CLEANUP_CLOSE int listener = -1;
	char path[108];

	if (!log || asprintf(&b->run_dir, "SXM_RUN_DIR=%s", proc_run_dir()) == -1) {
		b->run_dir = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	b->environment[0] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
	b->environment[1] = "LC_ALL=C";
	b->environment[2] = b->run_dir;
	if (disk_server_socket(image->run_dir, path, e) == -1 || disk_command_fill(&b->command, image, c, path, e) == -1)
		return -1;
	if (unlink(path) == -1 && errno != ENOENT) /* a dead one's */
		return error_errno(e, errno, "replace %s", path);
	b->null = open("/dev/null", O_RDWR | O_CLOEXEC);
	b->log = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (b->null < 0 || b->log < 0)
		return error_errno(e, errno, "open %s", b->null < 0 ? "/dev/null" : log);
	listener = b->command.takes_socket ? listen_at(path, e) : dup(b->null);
	if (listener < 0 || keep(b, image->fd, e) == -1 || keep(b, listener, e) == -1)
		return -1;
	for (size_t i = 0; i < c->count; i++)
		if (keep(b, c->base[i].fd, e) == -1)
			return -1;
	return 0;
}

static void scatter(struct birth *b)
{
	disk_command_clear(&b->command);
	free(b->run_dir);
	while (b->count)
		close(b->from[--b->count]);
	if (b->null >= 0)
		close(b->null);
	if (b->log >= 0)
		close(b->log);
	if (b->go >= 0)
		close(b->go);
}

/* The child waits for a byte: until that was sent it may be forgotten. */
static int bear(struct birth *b, const char *run_dir, struct disk_server *s, struct error *e)
{
	CLEANUP_CLOSE int send = -1;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) == -1)
		return error_errno(e, errno, "pipe");
	send = ends[1];
	b->go = fcntl(ends[0], F_DUPFD_CLOEXEC, HIGH_FD);
	close(ends[0]);
	s->pid = b->go < 0 ? -1 : fork();
	if (s->pid == 0) {
		close(send);
		live(b);
	}
	if (s->pid < 0)
		return error_errno(e, errno, "fork");
	s->started = ask_started(s->pid);
	if (!s->started)
		return error_set(e, ESRCH, "the process that was started is gone");
	if (disk_server_save(run_dir, s, e) == -1)
		return -1;
	return write(send, "", 1) == 1 ? 0 : error_errno(e, errno, "start it");
}

/* Of a program that binds its socket itself: until it has, or is gone, which the next who connects will see. */
static void wait_for_socket(const char *run_dir, const struct disk_server *s)
{
	struct error ignored = { 0 };
	struct sockaddr_un un;
	char path[108];

	if (disk_server_socket(run_dir, path, &ignored) == -1)
		return;
	un = address_of(path);
	for (unsigned i = 0; i < BIND_WAIT_MS && disk_server_is_alive(s); i++) {
		CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0)
			return;
		poll(NULL, 0, 1);
	}
}

int disk_server_start(const struct disk_qcow2 *image, const struct qcow2_chain *c, struct disk_server *s, struct error *e)
{
	static struct log_limit limit = LOG_LIMIT(5);
	struct birth b = { .null = -1, .log = -1, .go = -1 };
	int outcome = gather(&b, image, c, e);

	if (outcome == 0)
		outcome = bear(&b, image->run_dir, s, e);
	if (outcome == 0 && !b.command.takes_socket)
		wait_for_socket(image->run_dir, s);
	scatter(&b);
	if (outcome == 0 && log_allowed(&limit))
		log_info("%s serves %s and %zu images below it: process %ld", b.command.argument[0], image->path, c->count,
			 (long)s->pid);
	if (outcome == -1)
		forget(image->run_dir);
	return outcome;
}

/* --- it ends */

bool disk_server_ends_within(const struct disk_server *s, unsigned ms)
{
	for (unsigned i = 0; i < ms; i++) {
		if (!disk_server_is_alive(s))
			return true;
		poll(NULL, 0, 1);
	}
	return !disk_server_is_alive(s);
}

void disk_server_kill(const struct disk_server *s)
{
	if (!disk_server_is_alive(s))
		return;
	log_error("the server of this image, process %ld, is killed", (long)s->pid);
	kill(s->pid, SIGKILL);
}

int disk_server_end(const char *run_dir, struct disk_server *s, struct error *e)
{
	if (disk_server_is_alive(s)) {
		struct error why;

		/* It writes what it has: should we be killed meanwhile, its death is no loss. */
		s->is_served = false;
		if (disk_server_save(run_dir, s, &why) == -1)
			log_warn("the server of this image: %s", why.text);
		kill(s->pid, SIGTERM);
		if (!disk_server_ends_within(s, END_WAIT_MS)) {
			log_error("the server of this image, process %ld, does not end: it is killed", (long)s->pid);
			kill(s->pid, SIGKILL);
			if (!disk_server_ends_within(s, KILL_WAIT_MS))
				return error_set(e, EBUSY, "the server of this image, process %ld, does not end", (long)s->pid);
		}
	}
	forget(run_dir);
	return 0;
}
