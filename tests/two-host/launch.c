/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * launch - runs verbs for the stage, one after the other, and says when each began and ended; on a socket at standard input
 *
 *      ARGS IN\n args, each with its NUL, and what is to be read ->  spawned: stdin | stdout, stderr, both read to their end
 *                                                            <-  STATUS BEGAN ENDED OUT ERR\n and what was written
 *
 * Numbers are bytes and, of CLOCK_MONOTONIC, ns; STATUS is negative after a signal. A verb takes what it takes from its fork
 * until its end was heard of, here, where nothing else is done: an interpreter that starts and awaits four at once takes as long
 * as the verbs do, and of the same processors.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/proc.h"

#define LINE_MAX_BYTES 64u
#define ARGS_MAX 16u
#define REQUEST_MAX (1u << 24)

extern char **environ;

struct text {
	char *data;
	size_t bytes, room;
};

static void die(const char *what)
{
	fprintf(stderr, "launch: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static char *make_room(struct text *t, size_t bytes)
{
	if (t->room - t->bytes < bytes) {
		t->room = 2 * (t->bytes + bytes);
		t->data = realloc(t->data, t->room);
		if (!t->data)
			die("memory");
	}
	return t->data + t->bytes;
}

/* False: the other end is gone. */
static bool receive(void *into, size_t bytes)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = read(0, (char *)into + done, bytes - done);

		if (n == 0)
			return false;
		if (n < 0 && errno != EINTR)
			die("read");
		done += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void send_all(int fd, const char *from, size_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, from, bytes);

		if (n < 0 && errno != EINTR)
			die("write");
		from += n > 0 ? n : 0;
		bytes -= n > 0 ? (size_t)n : 0;
	}
}

static bool receive_line(char line[static LINE_MAX_BYTES])
{
	for (size_t i = 0; i < LINE_MAX_BYTES; i++) {
		if (!receive(&line[i], 1))
			return false;
		if (line[i] == '\n') {
			line[i] = '\0';
			return true;
		}
	}
	errno = EPROTO;
	die("a line of a request");
	return false;
}

/* --- a child and its three pipes */

struct child {
	pid_t pid;
	int in, out, err; /* our ends; -1: closed */
};

static int spawn(struct child *c, char **words)
{
	int in[2], out[2], err[2], rc;
	posix_spawn_file_actions_t actions;

	if (pipe2(in, O_CLOEXEC) == -1 || pipe2(out, O_CLOEXEC) == -1 || pipe2(err, O_CLOEXEC) == -1)
		die("pipe");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in[0], 0);
	posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	posix_spawn_file_actions_adddup2(&actions, err[1], 2);
	rc = posix_spawnp(&c->pid, words[0], &actions, NULL, words, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	c->in = in[1];
	c->out = out[0];
	c->err = err[0];
	return rc;
}

static void end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void take(int *fd, struct text *into)
{
	ssize_t n = read(*fd, make_room(into, 65536), 65536);

	if (n > 0)
		into->bytes += (size_t)n;
	else if (n == 0 || errno != EINTR)
		end(fd);
}

/* It may end, or write, without having read. */
static void give(struct child *c, const char *in, size_t bytes, size_t *given)
{
	ssize_t n = *given < bytes ? write(c->in, in + *given, bytes - *given) : 0;

	if (n > 0)
		*given += (size_t)n;
	if (*given == bytes || (n < 0 && errno != EINTR && errno != EAGAIN))
		end(&c->in);
}

static void converse(struct child *c, const char *in, size_t bytes, struct text *out, struct text *err)
{
	size_t given = 0;

	fcntl(c->in, F_SETFL, O_NONBLOCK);
	give(c, in, bytes, &given);
	while (c->in >= 0 || c->out >= 0 || c->err >= 0) {
		struct pollfd fd[] = { { .fd = c->in, .events = POLLOUT }, { .fd = c->out, .events = POLLIN },
				       { .fd = c->err, .events = POLLIN } };

		if (poll(fd, ARRAY_LEN(fd), -1) == -1)
			continue;
		if (c->in >= 0 && fd[0].revents)
			give(c, in, bytes, &given);
		if (c->out >= 0 && fd[1].revents)
			take(&c->out, out);
		if (c->err >= 0 && fd[2].revents)
			take(&c->err, err);
	}
}

static void serve(char *args, size_t args_bytes, size_t in_bytes)
{
	static struct text out, err;
	char *words[ARGS_MAX + 1] = { NULL }, line[128];
	uint64_t began = now_ns(), ended;
	struct child c;
	int status = 0, rc;

	for (size_t at = 0, n = 0; at < args_bytes && n < ARGS_MAX; at += strlen(args + at) + 1)
		words[n++] = args + at;
	out.bytes = err.bytes = 0;
	rc = spawn(&c, words);
	if (rc) {
		err.bytes = (size_t)snprintf(make_room(&err, 512), 512, "%.400s: %s", words[0], strerror(rc));
		status = 127 << 8;
	}
	converse(&c, args + args_bytes, rc ? 0 : in_bytes, &out, &err);
	while (!rc && waitpid(c.pid, &status, 0) == -1 && errno == EINTR)
		;
	ended = now_ns();
	status = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
	snprintf(line, sizeof(line), "%d %" PRIu64 " %" PRIu64 " %zu %zu\n", status, began, ended, out.bytes, err.bytes);
	send_all(0, line, strlen(line));
	send_all(0, out.data, out.bytes);
	send_all(0, err.data, err.bytes);
}

int main(void)
{
	static struct text request;
	char line[LINE_MAX_BYTES];

	fcntl(0, F_SETFD, FD_CLOEXEC);
	proc_take_short_turns(); /* what waits for a processor here is no part of a verb */
	signal(SIGPIPE, SIG_IGN); /* and so have verbs it, as under xapi */
	while (receive_line(line)) {
		unsigned long args_bytes, in_bytes;

		if (sscanf(line, "%lu %lu", &args_bytes, &in_bytes) != 2 || args_bytes > REQUEST_MAX ||
		    in_bytes > REQUEST_MAX || !args_bytes)
			die(line);
		request.bytes = 0;
		make_room(&request, args_bytes + in_bytes + 1);
		if (!receive(request.data, args_bytes + in_bytes))
			return 0;
		if (request.data[args_bytes - 1])
			die(line);
		serve(request.data, args_bytes, in_bytes);
	}
	return 0;
}
