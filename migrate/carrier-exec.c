/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-exec - a program on this host is the way: our own relay, or whatever the caller says brings bytes to one
 *
 *      channel: socketpair -> fork -> a session of its own, one end as its standard input and output -> exec
 *
 * A session of its own: Ctrl-C on the terminal is the caller's to hear, and a relay that carries a disk's bytes goes on until
 * he has come to an end. It ends when its standard input does.
 * Can fail: no descriptors, no memory, no such program (the child tells through a pipe that exec closes).
 */
#include "migrate/carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define END_MS 3000u
#define END_PAUSE_MS 5u

struct exec_carrier {
	struct carrier carrier;
	char **argv; /* owned */
	pid_t *pid;  /* owned: of the children that were not waited for */
	size_t count;
};

static void free_exec(struct carrier *c);

static struct carrier *open_exec(const struct carrier_spec *spec, struct error *e)
{
	struct exec_carrier *x = calloc(1, sizeof(*x));
	size_t count = 0;

	if (!spec->argv || !spec->argv[0]) {
		free(x);
		error_set(e, EINVAL, "no program is named that would bring bytes to a relay");
		return NULL;
	}
	while (spec->argv[count])
		count++;
	if (!x || !(x->argv = calloc(count + 1, sizeof(*x->argv))) ||
	    !(x->carrier.name = strdup(spec->host ? spec->host : spec->argv[0])))
		goto fail;
	x->carrier.ops = &carrier_exec;
	for (size_t i = 0; i < count; i++)
		if (!(x->argv[i] = strdup(spec->argv[i])))
			goto fail;
	return &x->carrier;
fail:
	error_set(e, ENOMEM, "out of memory");
	if (x)
		free_exec(&x->carrier);
	return NULL;
}

static void run(char *const *argv, int stream, int told)
{
	sigset_t none;
	int err;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(stream, STDIN_FILENO) >= 0 && dup2(stream, STDOUT_FILENO) >= 0)
		execvp(argv[0], argv);
	err = errno;
	(void)!write(told, &err, sizeof(err));
	_exit(127);
}

/* Children that have ended are forgotten. True: there are others. */
static bool reap(struct exec_carrier *x)
{
	size_t kept = 0;

	for (size_t i = 0; i < x->count; i++)
		if (waitpid(x->pid[i], NULL, WNOHANG) == 0)
			x->pid[kept++] = x->pid[i];
	x->count = kept;
	return kept > 0;
}

static void tell_all(const struct exec_carrier *x, int number)
{
	for (size_t i = 0; i < x->count; i++)
		kill(x->pid[i], number);
}

/* Asked to first; who does not hear that is ended. */
static void end_all(struct exec_carrier *x)
{
	const struct timespec pause = { .tv_nsec = END_PAUSE_MS * (long)NS_PER_MS };

	if (!reap(x))
		return;
	tell_all(x, SIGTERM);
	for (unsigned ms = 0; ms < END_MS && reap(x); ms += END_PAUSE_MS)
		nanosleep(&pause, NULL);
	tell_all(x, SIGKILL);
	while (x->count)
		waitpid(x->pid[--x->count], NULL, 0);
}

/* The child runs the program, or says why not. */
static int begin(struct exec_carrier *x, int stream, struct error *e)
{
	int tell[2], err = 0;
	pid_t pid;

	if (pipe2(tell, O_CLOEXEC) == -1)
		return error_errno(e, errno, "make a pipe");
	pid = fork();
	if (pid == 0)
		run(x->argv, stream, tell[1]);
	close(tell[1]);
	if (pid < 0) {
		close(tell[0]);
		return error_errno(e, errno, "fork");
	}
	x->pid[x->count++] = pid;
	if (read(tell[0], &err, sizeof(err)) != (ssize_t)sizeof(err))
		err = 0;
	close(tell[0]);
	return err ? error_errno(e, err, "run %s", x->argv[0]) : 0;
}

static int channel_exec(struct carrier *c, struct error *e)
{
	struct exec_carrier *x = container_of(c, struct exec_carrier, carrier);
	CLEANUP_CLOSE int ours = -1;
	CLEANUP_CLOSE int theirs = -1;
	int ends[2];
	pid_t *more;

	reap(x);
	more = realloc(x->pid, (x->count + 1) * sizeof(*more));
	if (!more)
		return error_set(e, ENOMEM, "out of memory");
	x->pid = more;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
		return error_errno(e, errno, "make a pair of sockets");
	ours = ends[0];
	theirs = ends[1];
	return begin(x, theirs, e) == 0 ? take_fd(&ours) : -1;
}

static bool is_exec_alive(struct carrier *c UNUSED)
{
	return true;
}

static void free_exec(struct carrier *c)
{
	struct exec_carrier *x = container_of(c, struct exec_carrier, carrier);

	end_all(x);
	for (size_t i = 0; x->argv && x->argv[i]; i++)
		free(x->argv[i]);
	free(x->argv);
	free(x->pid);
	free(x->carrier.name);
	free(x);
}

const struct carrier_ops carrier_exec = {
	.kind = "exec", .open = open_exec, .channel = channel_exec, .is_alive = is_exec_alive, .free = free_exec,
};
