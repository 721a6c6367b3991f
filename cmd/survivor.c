/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * survivor - see survivor.h
 *
 *      caller --fork--> survivor, of its own session          the caller: one byte for "armed", one for "not"
 *                         reads to the end, which is the caller's: armed -> undo
 *
 * A session of its own: what ends the caller's whole group, as a terminal that is closed does, does not end it. It keeps nothing
 * open that others could wait for.
 */
#include "cmd/survivor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

#define ARMED 'a'
#define DISARMED 'd'

static void let_go_of_streams(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
}

static void survive(int fd, survivor_fn *undo, const void *arg)
{
	char said = DISARMED, next;
	ssize_t n;

	setsid();
	let_go_of_streams();
	while ((n = read(fd, &next, 1)) == 1 || (n == -1 && errno == EINTR))
		said = n == 1 ? next : said;
	if (said == ARMED)
		undo(arg);
	_exit(0);
}

int survivor_begin(struct survivor *s, survivor_fn *undo, const void *arg, struct error *e)
{
	int ends[2];

	*s = (struct survivor) { .fd = -1 };
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == -1)
		return error_errno(e, errno, "make a pair of sockets");
	s->pid = fork();
	if (s->pid == 0) {
		close(ends[1]);
		survive(ends[0], undo, arg);
	}
	close(ends[0]);
	s->fd = ends[1];
	if (s->pid > 0)
		return 0;
	error_errno(e, errno, "fork");
	close(take_fd(&s->fd));
	return -1;
}

/* Nobody there any more: then this goes on without. */
static void tell(const struct survivor *s, char what)
{
	if (s->fd >= 0)
		send(s->fd, &what, 1, MSG_NOSIGNAL);
}

void survivor_arm(const struct survivor *s)
{
	tell(s, ARMED);
}

void survivor_disarm(const struct survivor *s)
{
	tell(s, DISARMED);
}

void survivor_end(struct survivor *s)
{
	if (s->fd < 0)
		return;
	close(take_fd(&s->fd));
	while (waitpid(s->pid, NULL, 0) == -1 && errno == EINTR)
		;
}
