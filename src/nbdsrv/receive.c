/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * receive - a socket over which connections are passed: each message on it carries one descriptor, which becomes an NBD client
 *
 *      xapi: connect, one sendmsg(text, SCM_RIGHTS: one descriptor), close
 *      here: accept -> one recvmsg -> nbdsrv_adopt() -> the greeting is on its way to whoever is at the other end of it
 *
 * The text says which datapath it is for; there is one behind a socket, so it is not looked at.  No answer is sent, and none is
 * waited for: who passed it learns from the connection itself.
 *
 * Can fail: no descriptor came, or several, or one that is no stream socket: those are closed, and that is logged.  Who connects
 * and says nothing is dropped after PASSING_MS; at most PASSINGS_MAX of them wait at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "nbdsrv/conn.h"

#define PASSING_MS 10000u
#define PASSINGS_MAX 8u
#define TEXT_MAX_BYTES 16384u
#define FDS_MAX 8u /* taken, to be closed; the kernel closes what there is no room for */

struct passing {
	struct nbdsrv *server;
	int fd;                   /* owned */
	struct loop_watch *watch; /* owned */
	struct loop_timer *timer; /* owned */
	LIST_ENTRY(passing) link;
};

static void passing_free(struct passing *p)
{
	LIST_REMOVE(p, link);
	p->server->passing_count--;
	loop_watch_free(p->watch);
	loop_timer_free(p->timer);
	close(p->fd);
	free(p);
}

static void complain(const char *what)
{
	static struct log_limit limit = LOG_LIMIT(5);

	if (log_allowed(&limit))
		log_warn("a connection was to be passed on: %s", what);
}

/* How many came; *first: the first of them, or -1; the others are closed. */
static unsigned take_fds(struct msghdr *msg, int *first)
{
	unsigned count = 0;

	*first = -1;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t bytes = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int), count++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
			if (count == 0)
				*first = fd;
			else
				close(fd);
		}
	}
	return count;
}

static void adopt(struct nbdsrv *s, struct msghdr *msg)
{
	CLEANUP_CLOSE int fd = -1;
	struct error e;
	unsigned count = take_fds(msg, &fd);

	if (count != 1 || (msg->msg_flags & MSG_CTRUNC))
		complain(count ? "with more than one descriptor" : "without a descriptor");
	else if (nbdsrv_adopt(s, take_fd(&fd), true, &e) == -1)
		complain(e.text);
	else
		log_info("a connection was passed to this disk");
}

static void on_message(void *arg, int events UNUSED)
{
	struct passing *p = arg;
	union {
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	char text[TEXT_MAX_BYTES];
	struct iovec iov = { text, sizeof(text) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(p->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		adopt(p->server, &msg);
	passing_free(p);
}

static void on_time(void *arg)
{
	complain("nothing came");
	passing_free(arg);
}

void receive_begin(struct nbdsrv *s, int fd)
{
	struct passing *p = s->passing_count < PASSINGS_MAX ? calloc(1, sizeof(*p)) : NULL;

	if (!p) {
		complain("too many at a time");
		close(fd);
		return;
	}
	*p = (struct passing){ .server = s, .fd = fd };
	LIST_INSERT_HEAD(&s->passings, p, link);
	s->passing_count++;
	p->watch = loop_watch_new(s->loop, fd, LOOP_IN, on_message, p);
	p->timer = loop_timer_new(s->loop, on_time, p);
	if (p->watch && p->timer)
		loop_timer_set(p->timer, PASSING_MS);
	else
		passing_free(p);
}

void receive_drop_all(struct nbdsrv *s)
{
	while (!LIST_EMPTY(&s->passings))
		passing_free(LIST_FIRST(&s->passings));
}
