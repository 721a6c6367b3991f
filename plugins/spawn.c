/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * spawn - see spawn.h
 *
 *      lock SXM_RUN_DIR/<id>.lock
 *        somebody listens?  -> done: another verb was quicker
 *        bind and listen    -> from here on nobody can come too early
 *        fork, setsid, fork, exec sxm-datapath with the socket as descriptor 3
 *      unlock
 *
 * Under systemd the unit sxm-datapath@<id> is started instead (unit.h), so that the process has a cgroup of its own and
 * outlives a restart of xapi's services; it binds the socket itself, under the same lock, which is therefore not held while
 * we wait.  Where that fails (a unit that is not installed), the process is started here: better a disk that goes with the
 * caller's service than none.
 *
 * xapi waits for the end of a verb's standard output and error for ever: the child keeps nothing of ours but the socket.
 */
#include "plugins/spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "plugins/lock.h"
#include "plugins/program.h"
#include "plugins/unit.h"

#define CONTROL_FD 3
#define REPORT_FD 4
#define BACKLOG 128
#define UNIT_TRIES 20u /* about two seconds */

static void fill_address(const struct process *p, struct sockaddr_un *addr)
{
	*addr = (struct sockaddr_un) { .sun_family = AF_UNIX };
	memcpy(addr->sun_path, p->control, strlen(p->control) + 1);
}

/* A full backlog is somebody too. */
static bool is_listening(const struct process *p)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr;

	fill_address(p, &addr);
	return fd >= 0 && (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EAGAIN);
}

/* --- the unit */

static void pause_before(unsigned attempt)
{
	const struct timespec pause = { .tv_nsec = (long)(10 * (attempt + 1) * NS_PER_MS) };

	nanosleep(&pause, NULL);
}

/* True: somebody listens. */
static bool start_unit(const struct process *p)
{
	for (unsigned attempt = 0; attempt < UNIT_TRIES; attempt++) {
		struct error e = { 0 };
		enum unit_outcome outcome = unit_start(p, &e);

		if (is_listening(p))
			return true;
		if (outcome == UNIT_ABSENT) {
			error_set(&e, ENOENT, "it is not installed");
			attempt = UNIT_TRIES;
		}
		if (attempt + 1 < UNIT_TRIES)
			pause_before(attempt);
		else
			log_warn("sxm-datapath@%s.service could not be started (%s): the process is started without it, and ends "
				 "with the service that runs this verb", p->id, *e.text ? e.text : "nobody listens");
	}
	return false;
}

/* --- our own child */

static int bind_control(const struct process *p, struct error *e)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr;

	if (fd < 0)
		return error_errno(e, errno, "make a socket");
	if (unlink(p->control) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove the dead socket %s", p->control);
	fill_address(p, &addr);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1 || chmod(p->control, 0600) == -1 || listen(fd, BACKLOG) == -1)
		return error_errno(e, errno, "listen at %s", p->control);
	return take_fd(&fd);
}

/* control and report become 3 and 4, everything else goes. */
static int arrange_descriptors(int control, int report)
{
	int null = open("/dev/null", O_RDWR);
	int high_control = fcntl(control, F_DUPFD, 16), high_report = fcntl(report, F_DUPFD, 16);
	struct dirent *entry;
	DIR *dir;

	if (null < 0 || high_control < 0 || high_report < 0)
		return -1;
	for (int fd = 0; fd <= 2; fd++)
		if (dup2(null, fd) < 0)
			return -1;
	if (dup2(high_control, CONTROL_FD) < 0 || dup2(high_report, REPORT_FD) < 0 || fcntl(REPORT_FD, F_SETFD, FD_CLOEXEC) == -1)
		return -1;
	dir = opendir("/proc/self/fd");
	if (!dir)
		return -1;
	while ((entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (fd > REPORT_FD && fd != dirfd(dir))
			close(fd);
	}
	closedir(dir);
	return 0;
}

/* Never returns. What goes wrong before the exec is told through report. */
static void become_datapath(const struct process *p, const char *program, int control, int report)
{
	char *const argv[] = { (char *)(uintptr_t)"sxm-datapath", (char *)(uintptr_t)"--id", (char *)(uintptr_t)p->id,
			       (char *)(uintptr_t)"--path", (char *)(uintptr_t)p->path, (char *)(uintptr_t)"--keep", NULL };
	sigset_t none;
	int err;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL); /* inherited ignored */
	proc_calm();
	unsetenv("NOTIFY_SOCKET"); /* of the service that runs the verb */
	if (chdir("/") == 0 && arrange_descriptors(control, report) == 0) {
		report = REPORT_FD;
		execv(program, argv);
	}
	err = errno;
	(void)!write(report, &err, sizeof(err));
	_exit(127);
}

static int fork_twice(const struct process *p, const char *program, int control, int report, struct error *e)
{
	pid_t pid = fork();
	int status = 0;

	if (pid < 0)
		return error_errno(e, errno, "fork");
	if (pid == 0) {
		setsid();
		pid = fork();
		if (pid == 0)
			become_datapath(p, program, control, report);
		_exit(pid < 0 ? 1 : 0);
	}
	while (waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	return status == 0 ? 0 : error_set(e, EAGAIN, "the system has no room for another process");
}

static int start_child(const struct process *p, int control, struct error *e)
{
	CLEANUP_CLOSE int from = -1;
	CLEANUP_CLOSE int to = -1;
	char program[PATH_MAX];
	int pipe_fds[2], err, r;
	ssize_t n;

	if (program_find("sxm-datapath", program, e) == -1)
		return -1;
	if (pipe2(pipe_fds, O_CLOEXEC) == -1)
		return error_errno(e, errno, "make a pipe");
	from = pipe_fds[0];
	to = pipe_fds[1];
	r = fork_twice(p, program, control, to, e);
	close(take_fd(&to));
	if (r == -1)
		return -1;
	do {
		n = read(from, &err, sizeof(err)); /* its end is the exec */
	} while (n == -1 && errno == EINTR);
	return n == sizeof(err) ? error_errno(e, err, "run %s", program) : 0;
}

static int start_own(const struct process *p, struct error *e)
{
	CLEANUP_CLOSE int control = bind_control(p, e);

	if (control < 0)
		return -1;
	if (start_child(p, control, e) == 0)
		return 0;
	unlink(p->control);
	return -1;
}

int spawn_start(const struct process *p, struct error *e)
{
	CLEANUP_FREE char *lock_path = NULL;
	CLEANUP_LOCK int lock = -1;

	if (proc_make_dir(proc_run_dir(), e) == -1)
		return error_prefix(e, "make SXM_RUN_DIR");
	if (unit_is_usable(p) && start_unit(p))
		return 0;
	if (asprintf(&lock_path, "%s/%s.lock", proc_run_dir(), p->id) < 0) {
		lock_path = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	lock = lock_make(lock_path, LOCK_EXCLUSIVE, e);
	if (lock < 0)
		return -1;
	if (is_listening(p))
		return 0;
	if (proc_make_dir(p->dir, e) == -1)
		return -1;
	if (start_own(p, e) == 0)
		return 0;
	rmdir(p->dir); /* stays where somebody else's files are in it */
	return error_prefix(e, "start the datapath process of %s", p->path);
}
