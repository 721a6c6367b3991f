/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * listen - one server: its sockets, its clients' number and deadlines, its end
 *
 *      nbdsrv_new -> listen_unix, listen_tcp, adopt ... -> shutdown ~~~ every conn freed ~~~> done() -> nbdsrv_free
 *
 * All deadlines share one timer, set to the nearest.  A conn whose deadline was moved or dropped is found not due when the
 * timer fires; so a deadline costs a clock reading, and a timer operation only when it is nearer than all others.
 * Can fail: no descriptors left: listening rests for a second (a level-triggered watch would spin on it).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "nbdsrv/conn.h"

#define DEFAULT_MAX_CLIENTS 64u
#define REST_MS 1000u
#define SHUTDOWN_PATIENCE_S 1u
#define BACKLOG 64
#define ACCEPT_AT_ONCE 16

struct listener {
	struct nbdsrv *server;
	int fd;                   /* owned */
	struct loop_watch *watch; /* owned */
	char *path;               /* owned; NULL: TCP */
	bool is_for_fds;          /* who connects passes a connection, and is no client */
	struct nbdsrv_keys *keys; /* a reference; NULL: plain */
	dev_t device;             /* of the socket file made here */
	ino_t inode;
	SLIST_ENTRY(listener) link;
};

static void arm(struct nbdsrv *s, uint64_t at_ns, uint64_t now_ns)
{
	if (s->armed_ns && s->armed_ns <= at_ns)
		return;
	s->armed_ns = at_ns;
	loop_timer_set(s->timer, (at_ns - now_ns) / NS_PER_MS + 1);
}

void nbdsrv_set_deadline(struct nbdsrv *s, struct conn *c, unsigned ms)
{
	uint64_t now_ns = ms ? loop_now_ns() : 0;

	c->deadline_ns = ms ? now_ns + ms * NS_PER_MS : 0;
	if (ms)
		arm(s, c->deadline_ns, now_ns);
}

static void on_timer(void *arg)
{
	struct nbdsrv *s = arg;
	uint64_t now_ns = loop_now_ns();
	struct conn *c, *next;
	struct listener *l;

	s->armed_ns = 0;
	SLIST_FOREACH(l, &s->listeners, link)
		loop_watch_set(l->watch, LOOP_IN);
	for (c = TAILQ_FIRST(&s->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (!c->deadline_ns)
			continue;
		if (c->deadline_ns <= now_ns) {
			c->deadline_ns = 0;
			conn_on_deadline(c);
		} else {
			arm(s, c->deadline_ns, now_ns);
		}
	}
}

static void announce_shut(struct loop_task *t)
{
	struct nbdsrv *s = container_of(t, struct nbdsrv, shut_task);

	s->on_shut(s->on_shut_arg);
}

void nbdsrv_forget_one(struct nbdsrv *s)
{
	assert(s->alive > 0);
	if (--s->alive == 0 && s->is_shutting_down)
		loop_defer(s->loop, &s->shut_task);
}

struct nbdsrv *nbdsrv_new(const struct nbdsrv_spec *spec, struct error *e)
{
	struct nbdsrv *s = calloc(1, sizeof(*s));
	const char *name = spec->export_name ? spec->export_name : "";

	if (strlen(name) > WIRE_STRING_MAX) {
		error_set(e, ENAMETOOLONG, "export name longer than %d bytes", (int)WIRE_STRING_MAX);
		goto fail;
	}
	if (!s || !(s->export_name = strdup(name)) || !(s->timer = loop_timer_new(spec->loop, on_timer, s))) {
		error_set(e, ENOMEM, "out of memory for an NBD server");
		goto fail;
	}
	s->loop = spec->loop;
	s->top = spec->top;
	s->pool = spec->pool;
	s->is_read_only = spec->is_read_only;
	s->links = spec->links;
	s->links_arg = spec->links_arg;
	s->xsxm_newest = spec->xsxm_newest ? spec->xsxm_newest : XSXM_NEWEST;
	s->max_clients = spec->max_clients ? spec->max_clients : DEFAULT_MAX_CLIENTS;
	SLIST_INIT(&s->listeners);
	LIST_INIT(&s->passings);
	TAILQ_INIT(&s->conns);
	TAILQ_INIT(&s->touched);
	TAILQ_INIT(&s->lively);
	STAILQ_INIT(&s->spare_commands);
	s->shut_task.run = announce_shut;
	s->hook.run = conn_settle_all;
	s->poller.poll = conn_poll_lively;
	loop_hook_add(s->loop, &s->hook);
	loop_poller_add(s->loop, &s->poller);
	return s;
fail:
	if (s)
		free(s->export_name);
	free(s);
	return NULL;
}

static bool is_inet(int fd)
{
	struct sockaddr_storage address = { 0 };
	socklen_t length = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
		return false;
	return address.ss_family == AF_INET || address.ss_family == AF_INET6;
}

/* Answers are gathered here already; and a peer that is gone for good must be noticed some day. */
static void tune_inet(int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* Of those who have not shown who they are the first goes: whoever is meant to be here has it done in a moment, and nobody keeps
 * him out by doing nothing. */
static void make_way(struct nbdsrv *s)
{
	struct conn *c;

	if (s->strangers < CONN_STRANGERS_MAX)
		return;
	TAILQ_FOREACH(c, &s->conns, link)
		if (c->is_stranger)
			break;
	conn_complain(c, "is cut before its handshake: %u others came after it", s->strangers);
	conn_cut(c);
}

/* Takes fd. */
static struct conn *admit(struct nbdsrv *s, int fd, struct nbdsrv_keys *keys, struct error *e)
{
	if (keys && !s->is_shutting_down)
		make_way(s);
	if (s->is_shutting_down || (!keys && s->stats.clients >= s->max_clients)) {
		close(fd);
		if (s->is_shutting_down)
			error_set(e, ESHUTDOWN, "the NBD server is shutting down");
		else
			error_set(e, EBUSY, "%u NBD clients are connected, no more are let in", s->stats.clients);
		return NULL;
	}
	if (is_inet(fd))
		tune_inet(fd);
	return conn_new(s, fd, keys, e);
}

int nbdsrv_adopt(struct nbdsrv *s, int fd, bool begins_again, struct error *e)
{
	int type = 0, flags = fcntl(fd, F_GETFL);
	socklen_t length = sizeof(type);
	struct conn *c;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM) {
		close(fd);
		return error_set(e, EINVAL, "descriptor %d is not a stream socket", fd);
	}
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
		int err = errno;

		close(fd);
		return error_errno(e, err, "descriptor %d", fd);
	}
	c = admit(s, fd, NULL, e);
	if (c)
		c->begins_again = begins_again;
	return c ? 0 : -1;
}

static void rest(struct listener *l, int err)
{
	static struct log_limit limit = LOG_LIMIT(2);
	uint64_t now_ns = loop_now_ns();

	if (log_allowed(&limit))
		log_warn("no NBD client can be let in for now: %s", strerror(err));
	loop_watch_set(l->watch, 0);
	arm(l->server, now_ns + REST_MS * NS_PER_MS, now_ns);
}

static void on_listener(void *arg, int events)
{
	static struct log_limit limit = LOG_LIMIT(5);
	struct listener *l = arg;
	struct error e;
	struct conn *c;
	int fd;

	(void)events;
	for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
		fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS))
			rest(l, errno);
		if (fd < 0)
			return;
		if (l->is_for_fds) {
			receive_begin(l->server, fd);
			continue;
		}
		c = admit(l->server, fd, l->keys, &e);
		if (c)
			nbdsrv_set_deadline(l->server, c, l->keys ? CONN_SECURE_MS : CONN_HANDSHAKE_MS);
		else if (log_allowed(&limit))
			log_warn("%s", e.text);
	}
}

static void remove_own_file(const struct listener *l)
{
	struct stat st;

	if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->device && st.st_ino == l->inode)
		unlink(l->path);
}

static void drop_listeners(struct nbdsrv *s)
{
	struct listener *l;

	while ((l = SLIST_FIRST(&s->listeners))) {
		SLIST_REMOVE_HEAD(&s->listeners, link);
		loop_watch_free(l->watch);
		remove_own_file(l);
		close(l->fd);
		free(l->path);
		nbdsrv_keys_unref(l->keys);
		free(l);
	}
}

/* Takes fd. path: NULL for TCP. */
static int add_listener(struct nbdsrv *s, int fd, const char *path, bool is_for_fds, struct nbdsrv_keys *keys, struct error *e)
{
	struct listener *l = calloc(1, sizeof(*l));
	struct stat st = { 0 };

	if (!l)
		goto fail;
	*l = (struct listener){ .server = s, .fd = fd, .is_for_fds = is_for_fds, .keys = nbdsrv_keys_ref(keys) };
	if (path) {
		l->path = strdup(path);
		if (!l->path || lstat(path, &st) != 0)
			goto fail;
		l->device = st.st_dev;
		l->inode = st.st_ino;
	}
	l->watch = loop_watch_new(s->loop, fd, LOOP_IN, on_listener, l);
	if (!l->watch)
		goto fail;
	SLIST_INSERT_HEAD(&s->listeners, l, link);
	return 0;
fail:
	if (l) {
		nbdsrv_keys_unref(l->keys);
		free(l->path);
	}
	free(l);
	close(fd);
	return error_set(e, ENOMEM, "out of memory for a listening socket");
}

/* Somebody else's live socket stays; what a dead process left goes. */
static int clear_way(const struct sockaddr_un *address, struct error *e)
{
	CLEANUP_CLOSE int fd = -1;
	struct stat st;

	if (lstat(address->sun_path, &st) != 0)
		return errno == ENOENT ? 0 : error_errno(e, errno, "%s", address->sun_path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(e, EEXIST, "%s exists and is not a socket", address->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_errno(e, errno, "socket");
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno != ECONNREFUSED)
		return error_set(e, EADDRINUSE, "%s: somebody is listening there", address->sun_path);
	if (unlink(address->sun_path) != 0 && errno != ENOENT)
		return error_errno(e, errno, "%s", address->sun_path);
	return 0;
}

static int listen_unix(struct nbdsrv *s, const char *path, bool is_for_fds, struct error *e)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	CLEANUP_CLOSE int fd = -1;

	assert(!s->is_shutting_down);
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(e, ENAMETOOLONG, "%s is too long for a socket", path);
	strcpy(address.sun_path, path);
	if (clear_way(&address, e) == -1)
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* The mode given before bind() is the file's from its first moment. */
	if (fd < 0 || fchmod(fd, 0600) != 0)
		return error_errno(e, errno, "socket for %s", path);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, BACKLOG) != 0)
		return error_errno(e, errno, "%s", path);
	return add_listener(s, take_fd(&fd), path, is_for_fds, NULL, e);
}

int nbdsrv_listen_unix(struct nbdsrv *s, const char *path, struct error *e)
{
	return listen_unix(s, path, false, e);
}

int nbdsrv_receive_unix(struct nbdsrv *s, const char *path, struct error *e)
{
	return listen_unix(s, path, true, e);
}

static int parse_address(const char *host, uint16_t port, struct sockaddr_storage *out, socklen_t *length)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;

	*out = (struct sockaddr_storage){ 0 };
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		*length = sizeof(*v4);
		return 0;
	}
	if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		*length = sizeof(*v6);
		return 0;
	}
	return -1;
}

int nbdsrv_listen_tcp(struct nbdsrv *s, const char *host, uint16_t port, struct nbdsrv_keys *keys, uint16_t *bound,
		      struct error *e)
{
	struct sockaddr_storage address;
	CLEANUP_CLOSE int fd = -1;
	socklen_t length;
	int on = 1;

	assert(!s->is_shutting_down);
	if (parse_address(host, port, &address, &length) == -1)
		return error_set(e, EINVAL, "%s is not a numeric address", host);
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
		return error_errno(e, errno, "socket for %s", host);
	if (bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, BACKLOG) != 0)
		return error_errno(e, errno, "%s port %u", host, port);
	length = sizeof(address);
	if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
		return error_errno(e, errno, "%s port %u", host, port);
	if (bound) /* sin_port and sin6_port are at the same place */
		*bound = ntohs(((struct sockaddr_in *)&address)->sin_port);
	return add_listener(s, take_fd(&fd), NULL, false, keys, e);
}

void nbdsrv_replace_keys(struct nbdsrv *s, const struct nbdsrv_keys *old, struct nbdsrv_keys *keys)
{
	struct listener *l;

	SLIST_FOREACH(l, &s->listeners, link)
		if (l->keys && l->keys == old) {
			nbdsrv_keys_unref(l->keys);
			l->keys = nbdsrv_keys_ref(keys);
		}
}

void nbdsrv_shutdown(struct nbdsrv *s, void (*done)(void *arg), void *arg)
{
	struct conn *c, *next;

	assert(!s->is_shutting_down);
	s->is_shutting_down = true;
	s->on_shut = done;
	s->on_shut_arg = arg;
	drop_listeners(s);
	receive_drop_all(s);
	for (c = TAILQ_FIRST(&s->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		conn_end(c);
		conn_hurry(c, SHUTDOWN_PATIENCE_S);
		conn_touch(c);
	}
	if (s->alive == 0)
		loop_defer(s->loop, &s->shut_task);
}

void nbdsrv_free(struct nbdsrv *s)
{
	struct command *cmd;

	if (!s)
		return;
	assert(s->alive == 0 && !s->shut_task.is_posted);
	drop_listeners(s);
	loop_hook_remove(s->loop, &s->hook);
	loop_poller_remove(s->loop, &s->poller);
	loop_timer_free(s->timer);
	while ((cmd = STAILQ_FIRST(&s->spare_commands))) {
		STAILQ_REMOVE_HEAD(&s->spare_commands, link);
		free(cmd);
	}
	while (s->spare_ins)
		free(s->spare_in[--s->spare_ins]);
	free(s->export_name);
	free(s);
}

void nbdsrv_stats(const struct nbdsrv *s, struct nbdsrv_stats *out)
{
	*out = s->stats;
}

void nbdsrv_time(struct nbdsrv *s)
{
	s->is_timed = true;
}
