/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * running - see running.h
 *
 * What a verb says fits into its pipe, so that it is read when the verb has ended.  Its standard error is ours.
 */
#include "broker/running.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define OUTPUT_MAX 4096u

extern char **environ;

struct running {
	pid_t pid;
	int fd; /* owned: of its standard output */
	char verb[64];
	running_done_fn *done;
	void *arg;
	LIST_ENTRY(running) link;
};
static LIST_HEAD(, running) all = LIST_HEAD_INITIALIZER(all);

static int spawn(struct running *r, char **argv, int out)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, pipe_alone;
	int err = posix_spawn_file_actions_init(&actions);

	if (err)
		return err;
	err = posix_spawnattr_init(&attr);
	if (err) {
		posix_spawn_file_actions_destroy(&actions);
		return err;
	}
	sigemptyset(&none);
	sigemptyset(&pipe_alone);
	sigaddset(&pipe_alone, SIGPIPE);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &pipe_alone);
	err = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (!err)
		err = posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	if (!err)
		err = posix_spawn(&r->pid, argv[0], &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return err;
}

struct running *running_new(const char *directory, const char *verb, const char *uri, const char *domain, running_done_fn *done,
			    void *arg, struct error *e)
{
	char file[PATH_MAX];
	char *argv[] = { file, (char *)(uintptr_t)"sxm-xenbus", (char *)(uintptr_t)uri, (char *)(uintptr_t)domain, NULL };
	struct running *r = calloc(1, sizeof(*r));
	int out[2] = { -1, -1 }, err = ENOMEM;

	snprintf(file, sizeof(file), "%s/%s", directory, verb);
	if (r && pipe2(out, O_CLOEXEC) == 0) {
		fcntl(out[0], F_SETFL, O_NONBLOCK);
		err = spawn(r, argv, out[1]);
		close(out[1]);
	}
	if (err) {
		if (out[0] >= 0)
			close(out[0]);
		free(r);
		error_errno(e, err, "run %s", file);
		return NULL;
	}
	r->fd = out[0];
	snprintf(r->verb, sizeof(r->verb), "%s", verb);
	r->done = done;
	r->arg = arg;
	LIST_INSERT_HEAD(&all, r, link);
	return r;
}

static void drop(struct running *r)
{
	LIST_REMOVE(r, link);
	close(r->fd);
	free(r);
}

static void finish(struct running *r, int status)
{
	running_done_fn *done = r->done;
	void *arg = r->arg;
	char output[OUTPUT_MAX];
	ssize_t bytes = read(r->fd, output, sizeof(output) - 1);
	struct error e = { 0 };

	output[MAX(bytes, (ssize_t)0)] = '\0';
	if (WIFSIGNALED(status))
		error_set(&e, EINTR, "%s was killed by signal %d", r->verb, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		error_set(&e, EIO, "%s failed; what it says is in the log", r->verb);
	drop(r);
	done(arg, output, &e);
}

void running_reap(void)
{
	struct running *r, *next;

	for (r = LIST_FIRST(&all); r; r = next) {
		int status;

		next = LIST_NEXT(r, link);
		if (waitpid(r->pid, &status, WNOHANG) == r->pid)
			finish(r, status);
	}
}

void running_forget_all(void)
{
	while (!LIST_EMPTY(&all))
		drop(LIST_FIRST(&all));
}
