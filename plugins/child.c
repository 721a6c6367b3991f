/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * child - see child.h
 *
 *      fork, own process group, killed with us
 *        exec PROGRAM        status 127 and the errno: it could not be started
 *        or fn()             the answer, and at its end a struct error
 *      parent: reads what comes, asks each 2 to 50 ms whether the child has ended
 *        deadline            -> SIGKILL to the group; not waited for: who hangs in the kernel hears no signal
 *
 * The end of the child counts, not the end of its output: a program may have started a daemon that keeps that.
 */
#include "plugins/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define NOT_STARTED 127
#define FAILED 126 /* a function's: its error ends the answer */

struct output {
	char *text;
	size_t used, max;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
}

int child_write(int fd, const void *data, size_t bytes)
{
	const char *from = data;

	while (bytes) {
		ssize_t n = write(fd, from, bytes);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0) {
			from += n;
			bytes -= (size_t)n;
		}
	}
	return 0;
}

/* --- in the child */

/* A function logs as this process does. */
static int arrange_descriptors(int to, bool is_program)
{
	CLEANUP_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int other = is_program ? to : null;

	if (null < 0 || dup2(null, 0) < 0 || dup2(other, 1) < 0)
		return -1;
	return (!is_program && log_is_on_stderr()) || dup2(other, 2) >= 0 ? 0 : -1;
}

static void settle(pid_t parent, int to, bool is_program)
{
	sigset_t none;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(NOT_STARTED);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, is_program ? SIG_DFL : SIG_IGN);
	if (arrange_descriptors(to, is_program) == -1)
		_exit(NOT_STARTED);
}

static void become_program(const char *const *argv)
{
	int err;

	setenv("LC_ALL", "C", 1);
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	err = errno;
	(void)!write(1, &err, sizeof(err));
	_exit(NOT_STARTED);
}

static void become_function(child_fn *fn, void *arg, int to)
{
	struct error e = { 0 };

	if (fn(arg, to, &e) == 0)
		_exit(0);
	child_write(to, &e, sizeof(e));
	_exit(FAILED);
}

/* --- the parent */

/* False: there is nothing more, for the moment or ever. */
static bool take_some(int from, struct output *o)
{
	char surplus[4096], *more;
	bool has_room = o->used < o->max;
	ssize_t n;

	if (has_room) {
		more = realloc(o->text, MIN(o->used + CHILD_OUTPUT_BYTES, o->max) + 1);
		if (!more)
			return false;
		o->text = more;
	}
	n = read(from, has_room ? o->text + o->used : surplus,
		 has_room ? MIN(o->max - o->used, CHILD_OUTPUT_BYTES) : sizeof(surplus));
	if (n > 0 && has_room)
		o->used += (size_t)n;
	return n > 0 || (n < 0 && errno == EINTR);
}

/* Its wait status; -1: the time is over. */
static int wait_for(pid_t pid, int from, unsigned wait_ms, struct output *o)
{
	uint64_t end = now_ms() + wait_ms;
	int pause_ms = 2, status = 0;
	bool has_ended = false;

	for (;;) {
		struct pollfd fd = { .fd = from, .events = POLLIN };

		has_ended = has_ended || waitpid(pid, &status, WNOHANG) == pid;
		/* What it had written before its end is there by then. */
		if (poll(&fd, 1, has_ended ? 0 : pause_ms) > 0 && (fd.revents & POLLIN) && take_some(from, o) && now_ms() < end) {
			pause_ms = 2;
			continue;
		}
		if (has_ended)
			return status;
		if (fd.revents) /* nobody has its end any more: poll() no longer pauses */
			nanosleep(&(struct timespec) { .tv_nsec = pause_ms * (long)NS_PER_MS }, NULL);
		if (now_ms() >= end)
			return -1;
		pause_ms = MIN(2 * pause_ms, 50);
	}
}

/* One that can be killed is gone in a moment, and no zombie is left. */
static void end(pid_t pid)
{
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	for (int i = 0; i < 50 && waitpid(pid, NULL, WNOHANG) == 0; i++)
		nanosleep(&(struct timespec) { .tv_nsec = (long)(2 * NS_PER_MS) }, NULL);
}

/* A pid, 0 in the child; *from: its output. */
static pid_t begin(int *from, int *to, bool is_program, struct error *e)
{
	pid_t parent = getpid(), pid;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) == -1)
		return error_errno(e, errno, "make a pipe");
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		settle(parent, fds[1], is_program);
		*to = fds[1];
		return 0;
	}
	close(fds[1]);
	*from = fds[0];
	if (pid > 0) {
		fcntl(fds[0], F_SETFL, O_NONBLOCK);
		return pid;
	}
	close(fds[0]);
	return error_errno(e, errno, "fork");
}

static int collect(pid_t pid, int from, unsigned wait_ms, const char *what, struct output *o, int *status, struct error *e)
{
	*status = wait_for(pid, from, wait_ms, o);
	close(from);
	if (*status != -1) {
		if (!o->text)
			o->text = malloc(1);
		if (!o->text)
			return error_set(e, ENOMEM, "out of memory");
		o->text[o->used] = '\0';
		return 0;
	}
	end(pid);
	return error_set(e, ETIMEDOUT, "%s has not ended within %u.%u s", what, wait_ms / 1000, wait_ms % 1000 / 100);
}

/* --- programs */

/* The last line that says something, without what cannot be shown. */
static void last_line(const char *text, char line[static 256])
{
	size_t end = strlen(text), start, n = 0;

	while (end && (text[end - 1] == '\n' || text[end - 1] == ' ' || text[end - 1] == '\r'))
		end--;
	for (start = end; start && text[start - 1] != '\n';)
		start--;
	for (; start < end && n < 255; start++)
		line[n++] = (unsigned char)text[start] < ' ' ? ' ' : text[start];
	line[n] = '\0';
}

static int judge(const char *name, int status, const struct output *o, struct error *e)
{
	char line[256];
	int err = EIO;

	if (status == 0)
		return 0;
	if (WIFSIGNALED(status))
		return error_set(e, EIO, "%s was killed by signal %d", name, WTERMSIG(status));
	if (WEXITSTATUS(status) == NOT_STARTED && o->used == sizeof(err)) {
		memcpy(&err, o->text, sizeof(err));
		return error_errno(e, err, "run %s", name);
	}
	last_line(o->text, line);
	if (*line)
		return error_set(e, EIO, "%s failed: %s", name, line);
	return error_set(e, EIO, "%s failed with status %d and says nothing", name, WEXITSTATUS(status));
}

int child_read(const char *const *argv, unsigned wait_ms, size_t max, char **output, struct error *e)
{
	struct output o = { .max = max };
	int from = -1, to, status, r;
	pid_t pid = begin(&from, &to, true, e);

	if (pid == 0)
		become_program(argv);
	if (pid < 0)
		return -1;
	r = collect(pid, from, wait_ms, argv[0], &o, &status, e);
	if (r == 0)
		r = judge(argv[0], status, &o, e);
	if (r == 0 && output && o.used == max && max > CHILD_OUTPUT_BYTES)
		r = error_set(e, EFBIG, "%s said %zu bytes or more", argv[0], max);
	if (r == 0 && output)
		*output = take_ptr(&o.text);
	free(o.text);
	return r;
}

int child_run(const char *const *argv, unsigned wait_ms, char **output, struct error *e)
{
	return child_read(argv, wait_ms, CHILD_OUTPUT_BYTES, output, e);
}

/* --- functions */

int child_call(child_fn *fn, void *arg, unsigned wait_ms, size_t max, char **answer, struct error *e)
{
	struct output o = { .max = max + sizeof(*e) };
	int from = -1, to, status, r;
	pid_t pid = begin(&from, &to, false, e);

	if (pid == 0)
		become_function(fn, arg, to);
	if (pid < 0)
		return -1;
	r = collect(pid, from, wait_ms, "what was asked", &o, &status, e);
	if (r == 0 && WIFEXITED(status) && WEXITSTATUS(status) == FAILED && o.used >= sizeof(*e)) {
		memcpy(e, o.text + o.used - sizeof(*e), sizeof(*e));
		r = -1;
	} else if (r == 0 && (status != 0 || o.used > max)) {
		r = error_set(e, EIO, "a child of this verb died (wait status %d)", status);
	}
	if (r == 0 && answer)
		*answer = take_ptr(&o.text);
	free(o.text);
	return r;
}
