/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ssh2-link - one SSH session over one socket, from connect() to its loss
 *
 *      socket -> handshake -> the host's key is checked -> login -> channels, without blocking
 *
 * libssh2 must be called again with the very same bytes when a packet did not go out whole, whatever else there is to do, and an
 * exchange of keys in the middle breaks that.  So it never sees a packet that does not go out: our callbacks take all it sends,
 * and what the socket does not take waits in `out`.  Whoever fills channels stops at SSH2_OUT_HIGH.
 *
 * Cut or only slow?  A host that is there answers, or at least its kernel takes what we send.  Nothing of either for dead_ms: the
 * link is lost.  Where little is under way, only answers count: a keepalive asks for one.
 * Can fail: everything; each way with a sentence, and all waits have an end.
 */
#include "migrate/carrier-ssh2-private.h"

#include <errno.h>
#include <fcntl.h>
#include <libssh2.h>
#include <linux/sockios.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/printable.h"

#define BUSY_BYTES 65536u
#define CIPHERS "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr"
#define MACS "hmac-sha2-256,hmac-sha2-256-etm@openssh.com,hmac-sha2-512,hmac-sha2-512-etm@openssh.com"
#define KEX "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521," \
	    "diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512," \
	    "diffie-hellman-group14-sha256"

uint64_t ssh2_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

int ssh2_error(const struct ssh2_link *l, int err, struct error *e, const char *what)
{
	char *text = NULL;
	int rc = libssh2_session_last_error(l->session, &text, NULL, 0);

	if (*l->goodbye)
		return error_set(e, err, "%s: %s", what, l->goodbye);
	return error_set(e, rc == LIBSSH2_ERROR_TIMEOUT ? ETIMEDOUT : err, "%s: %s", what,
			 text && *text ? text : "no reason is given");
}

void ssh2_link_lose(struct ssh2_link *l, const char *why)
{
	l->is_lost = true;
	if (!*l->goodbye)
		snprintf(l->goodbye, sizeof(l->goodbye), "%s", why);
}

/* --- libssh2's memory */

static void *allocate(size_t bytes, void **abstract UNUSED)
{
	return malloc(bytes);
}

static void release(void *p, void **abstract)
{
	struct ssh2_link *l = *abstract;

	if (p && l->is_wiping)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

static void *reallocate(void *p, size_t bytes, void **abstract)
{
	void *more = malloc(bytes);

	if (more && p)
		memcpy(more, p, MIN(bytes, malloc_usable_size(p)));
	if (more)
		release(p, abstract);
	return more;
}

/* --- libssh2's socket */

static ssize_t send_now(struct ssh2_link *l, const void *data, size_t bytes)
{
	ssize_t n;

	do {
		n = send(l->fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n == -1 && errno == EINTR);
	if (n > 0)
		l->sent += (uint64_t)n;
	return n >= 0 ? n : -errno;
}

static bool keep(struct ssh2_link *l, const uint8_t *data, size_t bytes)
{
	if (l->out_start == l->out_end)
		l->out_start = l->out_end = 0;
	if (l->out_room - l->out_end < bytes && l->out_start) {
		memmove(l->out, l->out + l->out_start, l->out_end - l->out_start);
		l->out_end -= l->out_start;
		l->out_start = 0;
	}
	if (l->out_room - l->out_end < bytes) {
		size_t room = MAX(l->out_room * 2, l->out_end + bytes);
		uint8_t *more = realloc(l->out, room);

		if (!more)
			return false;
		l->out = more;
		l->out_room = room;
	}
	memcpy(l->out + l->out_end, data, bytes);
	l->out_end += bytes;
	return true;
}

void ssh2_link_flush(struct ssh2_link *l)
{
	while (ssh2_link_pending(l) && !l->is_lost) {
		ssize_t n = send_now(l, l->out + l->out_start, ssh2_link_pending(l));

		if (n == -EAGAIN)
			return;
		if (n < 0)
			ssh2_link_lose(l, strerror((int)-n));
		else
			l->out_start += (size_t)n;
	}
}

/* Another descriptor than ours is the agent's: libssh2 waits for that, and that may wait for a person. Not for ever. */
static ssize_t agent_io(const struct ssh2_link *l, libssh2_socket_t fd, void *to, const void *from, size_t bytes)
{
	struct pollfd p = { .fd = fd, .events = from ? POLLOUT : POLLIN };
	uint64_t end_ns = ssh2_now_ns() + l->way->agent_ms * NS_PER_MS, now;
	ssize_t n = -1;

	for (errno = EAGAIN; n == -1 && (errno == EAGAIN || errno == EINTR);) {
		now = ssh2_now_ns();
		if (now >= end_ns)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((end_ns - now) / NS_PER_MS) + 1) > 0)
			n = from ? send(fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) : recv(fd, to, bytes, MSG_DONTWAIT);
	}
	return n >= 0 ? n : -errno;
}

static ssize_t on_send(libssh2_socket_t fd, const void *data, size_t bytes, int flags UNUSED, void **abstract)
{
	struct ssh2_link *l = *abstract;
	ssize_t n = 0;

	if (fd != l->fd)
		return agent_io(l, fd, NULL, data, bytes);
	if (!l->is_buffered)
		return send_now(l, data, bytes);
	if (!ssh2_link_pending(l))
		n = send_now(l, data, bytes);
	if (n == -EAGAIN)
		n = 0;
	if (n < 0)
		return n;
	return (size_t)n == bytes || keep(l, (const uint8_t *)data + n, bytes - (size_t)n) ? (ssize_t)bytes : -ENOMEM;
}

static ssize_t on_receive(libssh2_socket_t fd, void *buffer, size_t bytes, int flags UNUSED, void **abstract)
{
	struct ssh2_link *l = *abstract;
	ssize_t n;

	if (fd != l->fd)
		return agent_io(l, fd, buffer, NULL, bytes);
	if (l->is_buffered && !l->can_receive)
		return -EAGAIN;
	do {
		n = recv(l->fd, buffer, bytes, MSG_DONTWAIT);
	} while (n == -1 && errno == EINTR);
	l->can_receive = n == (ssize_t)bytes;
	if (n == 0)
		ssh2_link_lose(l, "the host closed the connection");
	if (n > 0)
		l->received_ns = l->progress_ns = ssh2_now_ns();
	else if (n < 0 && errno != EAGAIN)
		ssh2_link_lose(l, strerror(errno));
	return n >= 0 ? n : -errno;
}

static void on_disconnect(LIBSSH2_SESSION *session UNUSED, int reason UNUSED, const char *message, int message_bytes,
			  const char *language UNUSED, int language_bytes UNUSED, void **abstract)
{
	struct ssh2_link *l = *abstract;

	snprintf(l->goodbye, sizeof(l->goodbye), "%.*s", message_bytes > 0 ? MIN(message_bytes, 250) : 0, message);
	printable_make(l->goodbye, '?');
}

/* --- cut? */

void ssh2_link_tick(struct ssh2_link *l)
{
	uint64_t now = ssh2_now_ns(), acked;
	int queued = 0, unread = 0;

	if (!l->channels && ioctl(l->fd, FIONREAD, &unread) == 0 && unread != l->unread)
		l->received_ns = l->progress_ns = now;
	l->unread = unread;
	(void)ioctl(l->fd, SIOCOUTQ, &queued);
	acked = l->sent - MIN(l->sent, (uint64_t)MAX(queued, 0));
	if (acked > l->acked && l->backlog >= BUSY_BYTES)
		l->progress_ns = now;
	l->acked = acked;
	l->backlog = (size_t)MAX(queued, 0) + ssh2_link_pending(l);
	if (now - l->received_ns > l->way->dead_ms / 4 * NS_PER_MS && !l->is_lost) {
		int seconds;

		if (libssh2_keepalive_send(l->session, &seconds) < 0)
			ssh2_link_lose(l, "nothing can be sent any more");
	}
	if (now - l->progress_ns > l->way->dead_ms * NS_PER_MS) {
		char why[80];

		snprintf(why, sizeof(why), "nothing has come for %u s", l->way->dead_ms / 1000);
		ssh2_link_lose(l, why);
	}
}

/* --- the socket */

static int wait_connected(int fd, uint64_t end_ns)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	uint64_t now = ssh2_now_ns();
	socklen_t bytes = sizeof(int);
	int err = 0, r;

	r = poll(&p, 1, now < end_ns ? (int)((end_ns - now) / NS_PER_MS) : 0);
	if (r == 0)
		return ETIMEDOUT;
	if (r < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &bytes) == -1)
		return errno;
	return err;
}

static int connect_one(const struct addrinfo *a, uint64_t end_ns, int *err)
{
	CLEANUP_CLOSE int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || (connect(fd, a->ai_addr, a->ai_addrlen) == -1 && errno != EINPROGRESS)) {
		*err = errno;
		return -1;
	}
	*err = wait_connected(fd, end_ns);
	return *err ? -1 : take_fd(&fd);
}

static void set_options(int fd, const struct ssh2_way *w)
{
	const int one = 1, dead = (int)w->dead_ms;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead, sizeof(dead));
}

static int connect_there(const struct ssh2_way *w, struct error *e)
{
	const struct ssh_config *c = &w->config;
	int family = c->address_family == 4 ? AF_INET : c->address_family == 6 ? AF_INET6 : AF_UNSPEC;
	const struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_STREAM };
	uint64_t end_ns = ssh2_now_ns() + w->connect_ms * NS_PER_MS;
	struct addrinfo *list;
	int fd = -1, err = 0, r;
	char port[8];

	snprintf(port, sizeof(port), "%u", c->port % 100000);
	r = getaddrinfo(c->host_name, port, &hints, &list);
	if (r != 0)
		return error_set(e, EHOSTUNREACH, "the address of %s is not found: %s", c->host_name, gai_strerror(r));
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = connect_one(a, end_ns, &err);
	freeaddrinfo(list);
	if (fd < 0)
		return error_errno(e, err, "%s does not answer at port %s", c->host_name, port);
	set_options(fd, w);
	return fd;
}

static int open_socket(const struct ssh2_way *w, struct error *e)
{
	int fd = w->over ? ssh2_forward(w->over, w->config.host_name, w->config.port, e) : connect_there(w, e);

	if (fd >= 0)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return fd;
}

/* --- the session */

/* Of the list what libssh2 has, in the list's order: told of others, 1.10 copies within one buffer as memcpy() must not. */
int ssh2_link_prefer(struct ssh2_link *l, int method, const char *list)
{
	const char **known = NULL;
	int count = libssh2_session_supported_algs(l->session, method, &known), r = -1;
	char names[2048] = "";
	size_t used = 0;

	for (const char *at = list; *at && count > 0; at += strcspn(at, ","), at += *at == ',') {
		size_t bytes = strcspn(at, ",");

		for (int i = 0; i < count; i++)
			if (strlen(known[i]) == bytes && memcmp(known[i], at, bytes) == 0 && used + bytes + 2 < sizeof(names))
				used += (size_t)sprintf(names + used, "%s%s", used ? "," : "", known[i]);
	}
	if (used)
		r = libssh2_session_method_pref(l->session, method, names);
	if (count > 0)
		libssh2_free(l->session, (void *)(uintptr_t)known);
	return r;
}

static int prefer(struct ssh2_link *l, int method, const char *what, const char *ours, const char *said, struct error *e)
{
	char list[2048];

	ssh2_algorithms(ours, said, list, sizeof(list));
	if (ssh2_link_prefer(l, method, list) == 0)
		return 0;
	return error_set(e, ENOTSUP, "of the %s that are asked for (%.200s) libssh2 has none; use --carrier ssh", what, list);
}

static int prefer_all(struct ssh2_link *l, struct error *e)
{
	const struct ssh_config *c = &l->way->config;

	if (prefer(l, LIBSSH2_METHOD_CRYPT_CS, "Ciphers", CIPHERS, c->ciphers, e) == -1 ||
	    prefer(l, LIBSSH2_METHOD_CRYPT_SC, "Ciphers", CIPHERS, c->ciphers, e) == -1 ||
	    prefer(l, LIBSSH2_METHOD_MAC_CS, "MACs", MACS, c->macs, e) == -1 ||
	    prefer(l, LIBSSH2_METHOD_MAC_SC, "MACs", MACS, c->macs, e) == -1 ||
	    prefer(l, LIBSSH2_METHOD_KEX, "KexAlgorithms", KEX, c->kex, e) == -1)
		return -1;
	return ssh2_known_prefer(l, e);
}

static int begin_session(struct ssh2_link *l, struct error *e)
{
	l->session = libssh2_session_init_ex(allocate, release, reallocate, l);
	if (!l->session)
		return error_set(e, ENOMEM, "out of memory");
	/* The type of what is handed over is the callback's own. */
	libssh2_session_callback_set(l->session, LIBSSH2_CALLBACK_SEND, (void *)(uintptr_t)on_send);
	libssh2_session_callback_set(l->session, LIBSSH2_CALLBACK_RECV, (void *)(uintptr_t)on_receive);
	libssh2_session_callback_set(l->session, LIBSSH2_CALLBACK_DISCONNECT, (void *)(uintptr_t)on_disconnect);
	libssh2_session_set_timeout(l->session, (long)l->way->connect_ms);
	if (prefer_all(l, e) == -1)
		return -1;
	if (libssh2_session_handshake(l->session, l->fd) != 0)
		return ssh2_error(l, EPROTO, e, "no SSH with it");
	return 0;
}

struct ssh2_link *ssh2_link_new(struct ssh2_way *way, struct error *e)
{
	struct ssh2_link *l = calloc(1, sizeof(*l));

	if (!l) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	l->way = way;
	l->is_wiping = true;
	l->fd = open_socket(way, e);
	if (l->fd < 0 || begin_session(l, e) == -1 || ssh2_known_check(l, e) == -1 || ssh2_login(l, e) == -1)
		goto fail;
	l->is_wiping = false;
	l->is_buffered = l->can_receive = true;
	l->received_ns = l->progress_ns = ssh2_now_ns();
	libssh2_session_set_blocking(l->session, 0);
	libssh2_keepalive_config(l->session, 1, 2);
	return l;
fail:
	ssh2_link_free(l);
	error_prefix(e, "%s", way->name);
	return NULL;
}

/* Says goodbye if it can without waiting. */
void ssh2_link_free(struct ssh2_link *l)
{
	if (l->session) {
		l->is_wiping = true;
		libssh2_session_set_blocking(l->session, 0);
		if (!l->is_lost) {
			libssh2_session_disconnect(l->session, "done");
			ssh2_link_flush(l);
		}
		shutdown(l->fd, SHUT_RDWR);
		l->can_receive = true;
		libssh2_session_free(l->session);
	}
	if (l->fd >= 0)
		close(l->fd);
	free(l->out);
	free(l);
}
