/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * keeper - the small parent of the process that serves
 *
 *      verb --spawn--> keeper --fork--> child serves the disk
 *                        ^ ^               |
 *                        | '--- died ------'   again: at once, or after 50 ms .. 1 s when it died young
 *                        '----- exit 0 ----'   nothing left: close the door, end
 *
 * It holds the listening control socket and nothing else: while no child lives, verbs wait in the socket's backlog and the
 * next child answers them.  A child is forked, not executed: a dead process is then replaced by the same program whatever
 * happened to the file it came from (an upgrade, an unreachable root filesystem).  Rejected: fork and exec of itself.
 *
 * The race at the end, "the last detach" against "a new verb":
 *
 *      child                     keeper                        verb
 *      detach done, no client
 *                                                              connect(control)        in the backlog
 *      exit 0
 *                                lock; a knock? yes: fork again                        answered by the next child
 *
 *                                lock; a knock? no
 *                                unlink(control)               connect: ENOENT -> lock (waits)
 *                                exit, lock released                -> spawns anew under the lock
 *
 * The lock is SXM_RUN_DIR/<id>.lock, the same that spawning takes, so nobody binds a new socket while ours is taken away.
 * Between the last look and the unlink a verb can still slip into the backlog; it is hung up on when the keeper exits,
 * without an answer, and does what it must do after any crash: ask again.  Verbs are idempotent.
 * A verb may hold the lock while it waits for an answer; so the lock is tried, and knocks are looked for, in turns.
 *
 * Signals: all blocked and taken one by one.  TERM and INT are passed on and end the keeper after its child; HUP is nothing.
 * Can fail: fork (tried again each second), for ever while domains.json says that somebody is attached.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "keeper.h"

#define DELAY_FIRST_MS 50u
#define DELAY_MAX_MS 1000u
#define YOUNG_MS 2000u     /* a death before this age delays the next life */
#define BACKLOG 128

/* --- the door */

static bool is_knocked(const struct keeper_spec *k)
{
	struct pollfd p = { .fd = k->fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

static int open_lock(const struct keeper_spec *k, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	int fd;

	if (asprintf(&path, "%s/%s.lock", proc_run_dir(), k->id) == -1) {
		path = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd >= 0 ? fd : error_errno(e, errno, "open %s", path);
}

static int control_address(const struct keeper_spec *k, struct sockaddr_un *un, struct error *e)
{
	int n;

	*un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(un->sun_path, sizeof(un->sun_path), "%s/control", k->run_dir);
	if (n < 0 || (size_t)n >= sizeof(un->sun_path))
		return error_set(e, ENAMETOOLONG, "%s is too long a directory for sockets", k->run_dir);
	return 0;
}

/* The lock is held and nobody knocks. The socket goes last: who misses it may write the unit's file anew. */
static void take_away(const struct keeper_spec *k)
{
	bool is_over = !k->is_needed(k->run_dir); /* else stopped, not finished: its successor takes it up */
	CLEANUP_FREE char *environment = NULL;
	struct sockaddr_un un;
	struct error e = { 0 };

	proc_notify("STOPPING=1"); /* a unit that is started from now on waits for our end, and is started then */
	if (asprintf(&environment, "%s/env", k->run_dir) == -1)
		environment = NULL;
	if (environment && is_over)
		unlink(environment);
	if (control_address(k, &un, &e) == 0)
		unlink(un.sun_path);
	if (is_over) {
		k->sweep(k->run_dir);
		rmdir(k->run_dir); /* somebody else's files keep it */
	}
}

bool keeper_close_door(const struct keeper_spec *k)
{
	const struct timespec turn = { .tv_nsec = 5 * 1000 * 1000 };
	struct error e = { 0 };
	CLEANUP_CLOSE int lock = open_lock(k, &e);

	if (lock < 0) {
		log_error("%s", e.text);
		return is_knocked(k);
	}
	for (;;) {
		if (is_knocked(k))
			return true;
		if (flock(lock, LOCK_EX | LOCK_NB) == 0)
			break;
		nanosleep(&turn, NULL);
	}
	if (is_knocked(k))
		return true;
	take_away(k);
	return false;
}

static bool is_served(const struct sockaddr_un *un)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return false;
	return connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0 || errno == EAGAIN;
}

int keeper_bind(const struct keeper_spec *k, struct error *e)
{
	CLEANUP_CLOSE int lock = open_lock(k, e), fd = -1;
	struct sockaddr_un un;

	if (lock < 0 || control_address(k, &un, e) == -1)
		return -1;
	while (flock(lock, LOCK_EX) == -1)
		if (errno != EINTR)
			return error_errno(e, errno, "lock of %s", k->id);
	if (is_served(&un))
		return error_set(e, EADDRINUSE, "%s is served already: a process listens at %s", k->id, un.sun_path);
	if (unlink(un.sun_path) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove %s", un.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_errno(e, errno, "make a socket");
	/* The directory is ours alone, so nobody is faster than chmod. */
	if (bind(fd, (struct sockaddr *)&un, sizeof(un)) == -1 || chmod(un.sun_path, 0600) == -1 || listen(fd, BACKLOG) == -1)
		return error_errno(e, errno, "listen at %s", un.sun_path);
	return take_fd(&fd);
}

/* --- the child */

static void pass_on(pid_t child, int signum, bool *is_told)
{
	*is_told = true;
	if (child > 0)
		kill(child, signum);
}

/* Until the child is dead (0: there is none) or ms are over (0: no bound). True: dead, *status says how. */
static bool wait_for(pid_t child, unsigned ms, int *status, bool *is_told)
{
	const struct timespec bound = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
	sigset_t mine;
	int signum;

	sigemptyset(&mine);
	sigaddset(&mine, SIGCHLD);
	sigaddset(&mine, SIGTERM);
	sigaddset(&mine, SIGINT);
	for (;;) {
		if (child > 0 && waitpid(child, status, WNOHANG) == child)
			return true;
		signum = ms ? sigtimedwait(&mine, NULL, &bound) : sigwaitinfo(&mine, NULL);
		if (signum == SIGTERM || signum == SIGINT)
			pass_on(child, signum, is_told);
		if (child == 0 && (signum < 0 || *is_told))
			return false;
	}
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / NS_PER_MS;
}

static void block_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGHUP, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* inherited ignored, its dead would be reaped unseen */
}

static void become_child(void)
{
	sigset_t none;

	prctl(PR_SET_NAME, "sxm-datapath");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void log_death(int status, uint64_t age_ms, unsigned delay_ms)
{
	if (WIFSIGNALED(status))
		log_error("killed by signal %d (%s) after %llu ms; again in %u ms", WTERMSIG(status),
			  strsignal(WTERMSIG(status)), (unsigned long long)age_ms, delay_ms);
	else
		log_error("exited with %d after %llu ms; again in %u ms", WEXITSTATUS(status), (unsigned long long)age_ms,
			  delay_ms);
}

/* What to do after a death: true, live again. */
static bool goes_on(const struct keeper_spec *k, int status, bool is_told)
{
	if (is_told)
		return false;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return keeper_close_door(k);
	return k->is_needed(k->run_dir) || keeper_close_door(k);
}

void keeper_run(const struct keeper_spec *k)
{
	unsigned delay_ms = 0;
	bool is_told = false;

	prctl(PR_SET_NAME, "sxm-keeper");
	block_signals();
	for (;;) {
		uint64_t born_ms = now_ms();
		int status = 0;
		pid_t child = fork();

		if (child == 0) {
			become_child();
			return;
		}
		if (child < 0) {
			log_error("fork: %s", strerror(errno));
			delay_ms = DELAY_MAX_MS;
		} else {
			wait_for(child, 0, &status, &is_told);
			if (!goes_on(k, status, is_told))
				break;
			if (now_ms() - born_ms >= YOUNG_MS || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
				delay_ms = 0;
			else
				delay_ms = delay_ms ? MIN(2 * delay_ms, DELAY_MAX_MS) : DELAY_FIRST_MS;
			if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
				log_death(status, now_ms() - born_ms, delay_ms);
		}
		if (delay_ms)
			wait_for(0, delay_ms, &status, &is_told);
		if (is_told)
			break;
	}
	exit(0);
}
