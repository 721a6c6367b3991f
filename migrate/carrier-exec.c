/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-exec - a program on this host is the way: our own relay, or whatever the caller says brings bytes to one
 *
 *      channel: socketpair -> fork -> a session of its own, one end as its standard input and output -> exec
 *
 * A session of its own: Ctrl-C on the terminal is the caller's to hear, and a relay that carries a disk's bytes goes on until
 * he has come to an end. It ends when its standard input does.
 * Can fail: no descriptors, no memory, no such program (the child tells through a pipe that exec closes). Of a program that
 * itself finds none (a shell, ssh, what enters a container) the exit status tells.
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
#define WHY_WAIT_MS 2000u
#define NOT_FOUND 127 /* as shells say it, and those who do as they do */

struct child {
	pid_t pid;
	int stream; /* the caller's descriptor; not ours. -1: it is another's by now */
	bool is_over;
	int status; /* then */
};
struct exec_carrier {
	struct carrier carrier;
	char **argv;         /* owned */
	struct child *child; /* owned */
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

/* Children that have ended, and of which nobody can ask why, are forgotten. True: some have not. */
static bool reap(struct exec_carrier *x)
{
	bool is_any = false;
	size_t kept = 0;

	for (size_t i = 0; i < x->count; i++) {
		struct child *c = &x->child[i];

		c->is_over = c->is_over || waitpid(c->pid, &c->status, WNOHANG) != 0;
		is_any |= !c->is_over;
		if (!c->is_over || c->stream >= 0)
			x->child[kept++] = *c;
	}
	x->count = kept;
	return is_any;
}

/* That descriptor is a new channel's: it was closed. */
static void forget(struct exec_carrier *x, int stream)
{
	for (size_t i = 0; i < x->count; i++)
		if (x->child[i].stream == stream)
			x->child[i].stream = -1;
}

static void tell_all(const struct exec_carrier *x, int number)
{
	for (size_t i = 0; i < x->count; i++)
		if (!x->child[i].is_over)
			kill(x->child[i].pid, number);
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
	while (x->count--)
		if (!x->child[x->count].is_over)
			waitpid(x->child[x->count].pid, NULL, 0);
	x->count = 0;
}

/* The child runs the program, or says why not. */
static int begin(struct exec_carrier *x, int ours, int stream, struct error *e)
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
	forget(x, ours);
	x->child[x->count++] = (struct child){ .pid = pid, .stream = ours };
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
	struct child *more;
	int ends[2];

	reap(x);
	more = realloc(x->child, (x->count + 1) * sizeof(*more));
	if (!more)
		return error_set(e, ENOMEM, "out of memory");
	x->child = more;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
		return error_errno(e, errno, "make a pair of sockets");
	ours = ends[0];
	theirs = ends[1];
	return begin(x, ours, theirs, e) == 0 ? take_fd(&ours) : -1;
}

/* NULL: that descriptor is no channel of ours. */
static const struct child *find(const struct exec_carrier *x, int stream)
{
	for (size_t i = 0; i < x->count; i++)
		if (x->child[i].stream == stream)
			return &x->child[i];
	return NULL;
}

static int why_exec(struct carrier *c, int channel, struct error *e)
{
	struct exec_carrier *x = container_of(c, struct exec_carrier, carrier);
	const struct timespec pause = { .tv_nsec = END_PAUSE_MS * (long)NS_PER_MS };
	const struct child *child = NULL;

	for (unsigned ms = 0; ms < WHY_WAIT_MS; ms += END_PAUSE_MS) {
		reap(x);
		child = find(x, channel);
		if (!child || child->is_over)
			break;
		nanosleep(&pause, NULL);
	}
	if (!child || !child->is_over)
		return error_set(e, EPIPE, "the relay behind %s has ended", x->argv[0]);
	if (WIFSIGNALED(child->status))
		return error_set(e, EPIPE, "%s, which brings the bytes to the relay, was killed", x->argv[0]);
	if (WEXITSTATUS(child->status) == NOT_FOUND)
		return error_set(e, ENOENT, "%s ended with status 127: what it should run was not found; is there an sxm, "
				 "and does the PATH there lead to it?", x->argv[0]);
	return error_set(e, EPIPE, "%s, which brings the bytes to the relay, ended with status %d", x->argv[0],
			 WEXITSTATUS(child->status));
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
	free(x->child);
	free(x->carrier.name);
	free(x);
}

const struct carrier_ops carrier_exec = {
	.kind = "exec", .open = open_exec, .channel = channel_exec, .why = why_exec, .is_alive = is_exec_alive, .free = free_exec,
};
