/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tunnel - see tunnel.h
 *
 *      caller --SOCK_SEQPACKET: CHANNEL, SERVE--> the keeper's loop --> struct reply, and a descriptor with CHANNEL
 *                                                          |  somebody connects to a socket that is served
 *                                                          '-- carrier_channel(), fork: "connect", then a pump, then the end
 *
 * Can fail: the way to the host. Who connected is then hung up on, and tries again as often as he likes.
 * The keeper may be in carrier_channel() for long, and hears only then that its caller is gone. It has nothing of his: no lock,
 * so that who takes his place need not wait, and no end of a channel, so that those end with him.
 */
#include "migrate/tunnel.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "migrate/carrier-ends.h"
#include "migrate/peer.h"
#include "migrate/pump.h"
#include "migrate/squeeze.h"

#define DISKS_MAX 256u
#define BACKLOG 16
#define CONNECT_WAIT_MS 20000u
#define URI_MAX 4096
#define DOMAIN_MAX 128

enum kind { CHANNEL, WHY, WAY, SERVE };
struct request {
	enum kind kind;
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char uri[URI_MAX], domain[DOMAIN_MAX];
	bool is_squeezed;
};

struct tunnel {
	int fd;                    /* owned: to the keeper */
	pid_t keeper;
	struct carrier *carrier;   /* owned; the keeper's to use as long as it is there */
};

/* --- the keeper */

struct served {
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char uri[URI_MAX], domain[DOMAIN_MAX];
	bool is_squeezed;
	int fd; /* owned */
};

struct keeper {
	struct carrier *carrier;  /* owned */
	int fd;                   /* owned: to the caller */
	struct error no_way;      /* why the last connection of a disk could not be made; err 0: it was */
	int last;                 /* owned: the channel that was given last, to know why it ended; -1: none */
	struct served *disk;      /* owned: DISKS_MAX */
	size_t disks;
	pid_t *child;             /* owned */
	size_t children;
};

static void reap(struct keeper *k)
{
	size_t kept = 0;

	for (size_t i = 0; i < k->children; i++)
		if (waitpid(k->child[i], NULL, WNOHANG) == 0)
			k->child[kept++] = k->child[i];
	k->children = kept;
}

/* In the child: never returns. */
static void carry(const struct served *d, int conn, int channel)
{
	const struct pump_end here = { conn, conn, false };
	struct pump_end there = { channel, channel, d->is_squeezed && squeeze_is_there() };
	const char *uri = d->uri;
	struct error e = { 0 };

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGTERM, SIG_DFL);
	carrier_close_others((const int[]) { conn, channel }, 2);
	if (peer_connect(channel, uri, d->domain, &there.is_squeezed, CONNECT_WAIT_MS, &e) == -1)
		log_warn("%s: %s", uri, e.text);
	else if (pump_run(&here, &there, NULL, 0, &e) == -1)
		log_info("%s: its connection ended: %s", uri, e.text);
	_exit(0);
}

static void accept_one(struct keeper *k, const struct served *d)
{
	CLEANUP_CLOSE int conn = accept4(d->fd, NULL, NULL, SOCK_CLOEXEC);
	CLEANUP_CLOSE int channel = -1;
	struct error e = { 0 };
	pid_t *more;
	pid_t pid;

	if (conn < 0)
		return;
	reap(k);
	more = realloc(k->child, (k->children + 1) * sizeof(*more));
	if (!more)
		return;
	k->child = more;
	channel = carrier_channel(k->carrier, &e);
	k->no_way = e;
	if (channel < 0) {
		log_info("%s: %s", d->uri, e.text);
		return;
	}
	pid = fork();
	if (pid == 0)
		carry(d, conn, channel);
	if (pid > 0)
		k->child[k->children++] = pid;
}

static int listen_at(const char *path, struct error *e)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (fd < 0)
		return error_errno(e, errno, "make a socket");
	if (unlink(path) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove the dead socket %s", path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1 || chmod(path, 0600) == -1 || listen(fd, BACKLOG) == -1)
		return error_errno(e, errno, "listen at %s", path);
	return take_fd(&fd);
}

static int serve(struct keeper *k, const struct request *r, struct error *e)
{
	struct served *d;

	for (size_t i = 0; i < k->disks; i++)
		if (strcmp(k->disk[i].socket, r->socket) == 0)
			return 0;
	if (k->disks == DISKS_MAX)
		return error_set(e, EMFILE, "more than %u disks cannot be moved together", DISKS_MAX);
	d = &k->disk[k->disks];
	memcpy(d->socket, r->socket, sizeof(d->socket));
	memcpy(d->uri, r->uri, sizeof(d->uri));
	memcpy(d->domain, r->domain, sizeof(d->domain));
	d->is_squeezed = r->is_squeezed;
	d->fd = listen_at(r->socket, e);
	if (d->fd < 0)
		return -1;
	k->disks++;
	return 0;
}

static void answer(struct keeper *k, const struct error *e, int channel)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec data = { .iov_base = (void *)(uintptr_t)e, .iov_len = sizeof(*e) };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1 };

	if (channel >= 0) {
		struct cmsghdr *c;

		m.msg_control = control.bytes;
		m.msg_controllen = sizeof(control.bytes);
		c = CMSG_FIRSTHDR(&m);
		*c = (struct cmsghdr) { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(c), &channel, sizeof(int));
	}
	(void)!sendmsg(k->fd, &m, MSG_NOSIGNAL);
}

/* False: the caller is gone. */
static bool hear(struct keeper *k)
{
	struct request r;
	int channel = -1;
	struct error e = { 0 };
	ssize_t n = recv(k->fd, &r, sizeof(r), 0);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (n != (ssize_t)sizeof(r))
		return false;
	if (r.kind == CHANNEL)
		channel = carrier_channel(k->carrier, &e);
	else if (r.kind == WHY && k->last >= 0)
		carrier_why(k->carrier, k->last, &e);
	else if (r.kind == WAY)
		e = k->no_way;
	else if (r.kind == SERVE)
		serve(k, &r, &e);
	answer(k, &e, channel);
	if (channel >= 0) {
		if (k->last >= 0)
			close(k->last);
		k->last = channel;
	}
	return true;
}

static void keep(struct keeper *k)
{
	static struct pollfd fds[DISKS_MAX + 1];
	bool is_wanted = true;

	while (is_wanted) {
		size_t disks = k->disks;

		fds[0] = (struct pollfd) { .fd = k->fd, .events = POLLIN };
		for (size_t i = 0; i < disks; i++)
			fds[i + 1] = (struct pollfd) { .fd = k->disk[i].fd, .events = POLLIN };
		if (poll(fds, (nfds_t)disks + 1, -1) == -1)
			continue;
		for (size_t i = 0; i < disks; i++)
			if (fds[i + 1].revents)
				accept_one(k, &k->disk[i]);
		if (fds[0].revents)
			is_wanted = hear(k);
	}
}

static void run_keeper(struct carrier *carrier, int fd)
{
	struct keeper k = { .carrier = carrier, .fd = fd, .last = -1, .disk = calloc(DISKS_MAX, sizeof(*k.disk)) };

	int needed[CARRIER_DESCRIPTORS_MAX + 1];
	size_t count = carrier_descriptors(carrier, needed);

	needed[count++] = fd;
	carrier_close_others(needed, count);
	setsid(); /* Ctrl-C is the caller's to hear */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	if (k.disk)
		keep(&k); /* its sockets stay: where it was slow to end, another keeper may have bound these names */
	for (size_t i = 0; i < k.children; i++)
		kill(k.child[i], SIGTERM);
	carrier_free(carrier);
	_exit(0);
}

/* --- the caller */

struct tunnel *tunnel_new(struct carrier *carrier, struct error *e)
{
	struct tunnel *t = calloc(1, sizeof(*t));
	int ends[2];

	if (!t) {
		error_set(e, ENOMEM, "out of memory");
		goto fail;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1) {
		error_errno(e, errno, "make a pair of sockets");
		goto fail;
	}
	t->fd = ends[0];
	t->carrier = carrier;
	t->keeper = fork();
	if (t->keeper == 0) {
		close(ends[0]);
		run_keeper(carrier, ends[1]);
	}
	close(ends[1]);
	if (t->keeper > 0)
		return t;
	error_errno(e, errno, "fork");
	close(t->fd);
fail:
	free(t);
	carrier_free(carrier);
	return NULL;
}

void tunnel_free(struct tunnel *t)
{
	if (!t)
		return;
	close(t->fd);
	while (waitpid(t->keeper, NULL, 0) == -1 && errno == EINTR)
		;
	carrier_free(t->carrier); /* what the keeper has ended was begun by us: it is ours to wait for */
	free(t);
}

static int take_answer(struct tunnel *t, int *channel, struct error *e)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec data = { .iov_base = e, .iov_len = sizeof(*e) };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
			    .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c;
	ssize_t n;

	do
		n = recvmsg(t->fd, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(*e))
		return error_set(e, ECONNRESET, "the process that has the way to the other host is gone");
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(channel, CMSG_DATA(c), sizeof(int));
	return e->err ? -1 : 0;
}

static int ask(struct tunnel *t, const struct request *r, int *channel, struct error *e)
{
	*channel = -1;
	if (send(t->fd, r, sizeof(*r), MSG_NOSIGNAL) != (ssize_t)sizeof(*r))
		return error_set(e, ECONNRESET, "the process that has the way to the other host is gone");
	return take_answer(t, channel, e);
}

int tunnel_channel(void *t, struct error *e)
{
	const struct request r = { .kind = CHANNEL };
	int channel;

	return ask(t, &r, &channel, e) == 0 ? channel : -1;
}

int tunnel_why(void *t, struct error *e)
{
	const struct request r = { .kind = WHY };
	struct error why = { 0 };
	int none;

	ask(t, &r, &none, &why);
	if (why.err)
		*e = why;
	return -1;
}

int tunnel_way(struct tunnel *t, struct error *e)
{
	const struct request r = { .kind = WAY };
	int none;

	return ask(t, &r, &none, e);
}

int tunnel_serve(struct tunnel *t, const char *socket_path, const char *uri, const char *domain, bool is_squeezed,
		 struct error *e)
{
	struct request r = { .kind = SERVE, .is_squeezed = is_squeezed };
	int none;

	if (strlen(socket_path) >= sizeof(r.socket) || strlen(uri) >= sizeof(r.uri) || strlen(domain) >= sizeof(r.domain))
		return error_set(e, ENAMETOOLONG, "%s, or %s, is too long", socket_path, uri);
	strcpy(r.socket, socket_path);
	strcpy(r.uri, uri);
	strcpy(r.domain, domain);
	return ask(t, &r, &none, e);
}
