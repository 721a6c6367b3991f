/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * server - the control socket: lines in, lines out
 *
 *      accept -> who is it? -> bytes -> line -> on_line(request) ... server_answer(request) -> bytes -> close
 *
 * Knows connections and lines, not verbs.  Only root and our own user are spoken to.  A client may ask several things and
 * leave before the answers: what it asked for goes on, the answer is dropped.
 *
 * Can fail: a line longer than SERVER_LINE_MAX (answered, then hung up on), a client that asks without reading (not read from
 * until it does), too many clients (they wait in the backlog).
 * Invariants: a connection is freed when its socket is closed and no request of it is open; buffers are bounded by
 * SERVER_LINE_MAX in, and OUT_MAX plus one answer per open request out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "control/server.h"

#define CLIENTS_MAX 256u
#define REQUESTS_MAX 64u        /* open, of one connection */
#define OUT_MAX (1u << 20)      /* unsent bytes after which a connection is not read from */
#define READ_BYTES 4096u

struct conn {
	struct server *server;
	int fd;                  /* owned; -1: closed */
	struct loop_watch *watch;/* owned */
	char *in, *out;          /* owned */
	size_t in_bytes, in_capacity, out_bytes;
	unsigned requests;       /* open */
	bool is_ended;           /* nothing more is read: end of file, or a line too long */
	bool is_in_lines;        /* on the stack: take_lines() */
	uint64_t minded;         /* server_mind()'s; 0: none */
	uint64_t heard_ns;
	TAILQ_ENTRY(conn) link;
};

struct server_request {
	struct conn *conn;
};

struct server {
	struct server_spec spec;
	struct loop_watch *watch; /* owned; NULL when stopped */
	TAILQ_HEAD(, conn) conns;
	unsigned open;            /* with a socket */
};

static void take_lines(struct conn *c);

/* --- a connection's end */

static void watch_listener(struct server *s)
{
	if (s->watch)
		loop_watch_set(s->watch, s->open < CLIENTS_MAX ? LOOP_IN : 0);
}

static void conn_free(struct conn *c)
{
	TAILQ_REMOVE(&c->server->conns, c, link);
	free(c->in);
	free(c->out);
	free(c);
}

static void tell_gone(struct conn *c)
{
	uint64_t number = c->minded;

	c->minded = 0;
	if (number && c->server->spec.on_gone)
		c->server->spec.on_gone(c->server->spec.arg, number);
}

static void hang_up(struct conn *c)
{
	struct server *s = c->server;

	tell_gone(c);
	if (c->fd < 0)
		return;
	loop_watch_free(c->watch);
	c->watch = NULL;
	close(take_fd(&c->fd));
	s->open--;
	watch_listener(s);
	if (s->open == 0)
		s->spec.on_quiet(s->spec.arg);
}

/* The last word of every path into a connection: it may be gone afterwards. */
static void look_at(struct conn *c)
{
	int events = 0;

	if (c->is_in_lines)
		return;
	if (c->fd >= 0 && c->is_ended && !c->requests && !c->out_bytes)
		hang_up(c);
	if (c->fd < 0) {
		if (!c->requests)
			conn_free(c);
		return;
	}
	if (!c->is_ended && c->requests < REQUESTS_MAX && c->out_bytes < OUT_MAX)
		events |= LOOP_IN;
	if (c->out_bytes)
		events |= LOOP_OUT;
	loop_watch_set(c->watch, events);
}

/* --- out */

static void send_some(struct conn *c)
{
	ssize_t n;

	if (c->fd < 0 || !c->out_bytes)
		return;
	n = send(c->fd, c->out, c->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		hang_up(c);
		return;
	}
	c->out_bytes -= (size_t)n;
	memmove(c->out, c->out + n, c->out_bytes);
}

static int append(struct conn *c, const char *text)
{
	size_t bytes = strlen(text);
	char *more = realloc(c->out, c->out_bytes + bytes + 1);

	if (!more)
		return -1;
	memcpy(more + c->out_bytes, text, bytes);
	more[c->out_bytes + bytes] = '\n';
	c->out = more;
	c->out_bytes += bytes + 1;
	return 0;
}

void server_answer(struct server_request *q, char *text)
{
	struct conn *c = q->conn;
	CLEANUP_FREE char *line = text;

	free(q);
	c->requests--;
	if (c->fd >= 0 && (!line || append(c, line) == -1))
		hang_up(c);
	send_some(c);
	if (c->in_bytes && !c->is_in_lines)
		take_lines(c); /* what waited behind REQUESTS_MAX */
	look_at(c);
}

void server_mind(struct server_request *q, uint64_t number)
{
	q->conn->minded = number;
	if (q->conn->is_ended || q->conn->fd < 0)
		tell_gone(q->conn);
}

/* --- in */

static void ask(struct conn *c, const char *line, size_t bytes)
{
	struct server_request *q = malloc(sizeof(*q));

	if (!q) {
		hang_up(c);
		return;
	}
	q->conn = c;
	c->requests++;
	c->server->spec.on_line(c->server->spec.arg, q, line, bytes);
}

/* Whole lines out of the buffer; on_line() may answer, or hang up, at once. */
static void take_lines(struct conn *c)
{
	size_t start = 0;
	char *end;

	c->is_in_lines = true;
	while (c->fd >= 0 && c->requests < REQUESTS_MAX &&
	       (end = memchr(c->in + start, '\n', c->in_bytes - start))) {
		size_t bytes = (size_t)(end - (c->in + start));

		*end = '\0';
		if (bytes)
			ask(c, c->in + start, bytes);
		start += bytes + 1;
	}
	c->in_bytes -= start;
	memmove(c->in, c->in + start, c->in_bytes);
	if (c->in_bytes > SERVER_LINE_MAX && !c->is_ended && !memchr(c->in, '\n', c->in_bytes)) {
		c->is_ended = true;
		c->in_bytes = 0;
		append(c, "{\"id\":0,\"error\":{\"code\":\"E2BIG\",\"text\":\"a request is at most 1 MiB long\"}}");
	}
	c->is_in_lines = false;
}

static int make_room(struct conn *c)
{
	size_t capacity = c->in_capacity ? 2 * c->in_capacity : READ_BYTES;
	char *more;

	if (c->in_capacity - c->in_bytes > READ_BYTES / 2)
		return 0;
	more = realloc(c->in, capacity);
	if (!more)
		return -1;
	c->in = more;
	c->in_capacity = capacity;
	return 0;
}

static void read_some(struct conn *c)
{
	ssize_t n;

	if (make_room(c) == -1) {
		hang_up(c);
		return;
	}
	n = recv(c->fd, c->in + c->in_bytes, c->in_capacity - c->in_bytes, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		hang_up(c);
		return;
	}
	if (n == 0) {
		c->is_ended = true;
		tell_gone(c);
	}
	c->heard_ns = loop_now_ns();
	c->in_bytes += (size_t)n;
	take_lines(c);
}

static void on_conn(void *arg, int events)
{
	struct conn *c = arg;

	if (events & LOOP_OUT)
		send_some(c);
	if (c->fd >= 0 && (events & (LOOP_IN | LOOP_HUP)) && !c->is_ended)
		read_some(c);
	if ((events & LOOP_HUP) && c->is_ended)
		hang_up(c); /* gone, not only silent: nobody reads the answers */
	look_at(c);
}

/* --- accept */

static bool may_speak(int fd)
{
	struct ucred who;
	socklen_t length = sizeof(who);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == -1)
		return false;
	return who.uid == 0 || who.uid == geteuid();
}

static void take(struct server *s, int fd)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->server = s;
	c->fd = fd;
	c->heard_ns = loop_now_ns();
	c->watch = loop_watch_new(s->spec.loop, fd, LOOP_IN, on_conn, c);
	if (!c->watch) {
		close(fd);
		free(c);
		return;
	}
	TAILQ_INSERT_TAIL(&s->conns, c, link);
	s->open++;
	watch_listener(s);
}

static void on_listener(void *arg, int events UNUSED)
{
	static struct log_limit limit = LOG_LIMIT(3);
	struct server *s = arg;
	int fd = accept4(s->spec.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED && log_allowed(&limit))
			log_error("accept on the control socket: %s", strerror(errno));
		return;
	}
	if (may_speak(fd)) {
		take(s, fd);
		return;
	}
	if (log_allowed(&limit))
		log_warn("somebody who is neither root nor us was turned away from the control socket");
	close(fd);
}

struct server *server_new(const struct server_spec *spec, struct error *e)
{
	struct server *s = calloc(1, sizeof(*s));

	if (s) {
		s->spec = *spec;
		TAILQ_INIT(&s->conns);
		s->watch = loop_watch_new(spec->loop, spec->fd, LOOP_IN, on_listener, s);
	}
	if (!s || !s->watch) {
		free(s);
		error_set(e, ENOMEM, "out of memory for the control socket");
		return NULL;
	}
	return s;
}

bool server_is_quiet(const struct server *s)
{
	return s->open == 0;
}

void server_hang_up_idle(struct server *s, unsigned silent_ms)
{
	uint64_t now = loop_now_ns();
	struct conn *c, *next;

	for (c = TAILQ_FIRST(&s->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->fd >= 0 && !c->requests && !c->minded && now - c->heard_ns >= silent_ms * NS_PER_MS)
			c->is_ended = true, c->out_bytes = 0;
		look_at(c);
	}
}

void server_stop(struct server *s)
{
	loop_watch_free(s->watch);
	s->watch = NULL;
}

void server_free(struct server *s)
{
	struct conn *c, *next;

	assert(!s->watch);
	for (c = TAILQ_FIRST(&s->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		assert(!c->requests);
		if (c->fd >= 0) {
			loop_watch_free(c->watch);
			close(c->fd);
		}
		conn_free(c);
	}
	free(s);
}
