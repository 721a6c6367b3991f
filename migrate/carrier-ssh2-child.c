/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ssh2-child - the process that speaks SSH: its links, their channels, and what its parent asks
 *
 *      poll: control | each link's socket | each channel's stream --> links flushed, channels brought on --> again
 *
 * Usually there is one link; where the host allows no further session on it (sshd's MaxSessions), another is made.  A lost link
 * is made anew when the next channel is asked for.  To connect blocks, and channels of other links wait meanwhile.
 * The parent asks one thing at a time and waits for its answer.
 * Invariant: ends when control does, and then nothing of it is left.
 */
#include "migrate/carrier-ssh2-private.h"

#include <errno.h>
#include <libssh2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

#define LINKS_MAX 16u
#define CHANNELS_MAX 256u
#define TICK_MS 500

struct child {
	struct ssh2_way *way;
	int control;
	struct ssh2_links links;
	struct ssh2_channels channels;
	unsigned link_count, channel_count;
	struct ssh2_channel *asked; /* the parent waits for this one */
	uint64_t asked_ns;
	bool was_lost;              /* with the link it was asked for first */
	uint64_t tick_ns;
	struct pollfd polled[1 + LINKS_MAX + CHANNELS_MAX];
};

/* --- answers */

static void answer(struct child *k, const struct error *e)
{
	struct ssh2_answer a = { .err = e ? (e->err ? e->err : EIO) : 0 };

	snprintf(a.text, sizeof(a.text), "%s", e ? e->text : "");
	(void)!send(k->control, &a, sizeof(a), MSG_NOSIGNAL);
}

static void refuse(struct child *k, int err, const char *why)
{
	struct error e = { 0 };

	error_set(&e, err, "%s", why);
	answer(k, &e);
}

/* --- links */

static struct ssh2_link *add_link(struct child *k, struct error *e)
{
	struct ssh2_link *l;

	if (k->link_count == LINKS_MAX) {
		error_set(e, EMFILE, "%s: more connections than %u are too many", k->way->name, LINKS_MAX);
		return NULL;
	}
	l = ssh2_link_new(k->way, e);
	k->way->may_ask = false;
	if (!l)
		return NULL;
	TAILQ_INSERT_TAIL(&k->links, l, next);
	k->link_count++;
	return l;
}

static struct ssh2_link *find_link(const struct child *k)
{
	struct ssh2_link *l;

	TAILQ_FOREACH(l, &k->links, next)
		if (!l->is_lost && !l->is_full && !l->is_stuck)
			return l;
	return NULL;
}

static void remove_channel(struct child *k, struct ssh2_channel *c)
{
	if (k->asked == c)
		k->asked = NULL;
	TAILQ_REMOVE(&k->channels, c, next);
	k->channel_count--;
	ssh2_channel_free(c);
}

/* Its channels go with it. */
static void remove_link(struct child *k, struct ssh2_link *l)
{
	struct ssh2_channel *c, *next;

	for (c = TAILQ_FIRST(&k->channels); c; c = next) {
		next = TAILQ_NEXT(c, next);
		if (c->link != l)
			continue;
		c->channel = NULL; /* the session's */
		remove_channel(k, c);
	}
	TAILQ_REMOVE(&k->links, l, next);
	k->link_count--;
	ssh2_link_free(l);
}

/* --- what is asked */

/* stream and tell are taken over. */
static void begin_channel(struct child *k, const struct ssh2_request *r, int stream, int tell)
{
	struct error e = { 0 };
	struct ssh2_link *l = find_link(k);

	if (!l)
		l = add_link(k, &e);
	if (!l || k->channel_count == CHANNELS_MAX) {
		close(stream);
		close(tell);
		if (l)
			refuse(k, EMFILE, "there are too many channels");
		else
			answer(k, &e);
		return;
	}
	k->asked = ssh2_channel_new(l, r, stream, tell);
	if (!k->asked) {
		refuse(k, ENOMEM, "out of memory");
		return;
	}
	k->asked_ns = ssh2_now_ns();
	TAILQ_INSERT_TAIL(&k->channels, k->asked, next);
	k->channel_count++;
}

/* The same on another link. */
static void begin_again(struct child *k, struct ssh2_channel *c)
{
	const struct ssh2_request r = c->request;
	int stream = take_fd(&c->stream), tell = take_fd(&c->tell);

	begin_channel(k, &r, stream, tell);
}

/* False: the parent is gone. */
static bool receive_request(struct child *k)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(2 * sizeof(int))];
	} control = { 0 };
	struct ssh2_request r = { 0 };
	struct iovec iov = { .iov_base = &r, .iov_len = sizeof(r) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(k->control, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	int fds[2];

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n != (ssize_t)sizeof(r))
		return false;
	r.host[sizeof(r.host) - 1] = '\0';
	if (r.verb == SSH2_IS_ALIVE) {
		if (find_link(k))
			answer(k, NULL);
		else
			refuse(k, ENOLINK, "there is no connection");
		return true;
	}
	if (m.msg_controllen < CMSG_LEN(sizeof(fds)) || control.head.cmsg_len != CMSG_LEN(sizeof(fds)))
		return false;
	memcpy(fds, CMSG_DATA(&control.head), sizeof(fds));
	k->was_lost = false;
	begin_channel(k, &r, fds[0], fds[1]);
	return true;
}

/* What could not be known when it was chosen: the link is lost. Once another is tried. */
static void answer_lost(struct child *k, struct ssh2_channel *c)
{
	bool was_lost = k->was_lost;

	k->asked = NULL;
	k->was_lost = true;
	if (was_lost)
		refuse(k, ENOLINK, *c->link->goodbye ? c->link->goodbye : "the connection was lost");
	else
		begin_again(k, c);
}

/* The one that is asked for has begun, or was refused; where it was one session too many, another link is tried. */
static void answer_asked(struct child *k)
{
	struct ssh2_channel *c = k->asked;

	if (c && c->link->is_lost && c->state != SSH2_RUNNING) {
		answer_lost(k, c);
		return;
	}
	if (!c || (c->state != SSH2_RUNNING && c->state != SSH2_OVER))
		return;
	k->asked = NULL;
	if (c->state == SSH2_RUNNING || !c->why.err)
		answer(k, NULL);
	else if (c->link->is_full && c->link->channels > 1)
		begin_again(k, c);
	else
		answer(k, &c->why);
}

/* The host is there, and says nothing to it. libssh2 would go on asking: the link opens no other. */
static void give_up_asked(struct child *k, uint64_t now)
{
	struct ssh2_channel *c = k->asked;

	if (!c || now - k->asked_ns < 2 * k->way->connect_ms * NS_PER_MS)
		return;
	c->link->is_stuck = true;
	c->state = SSH2_OVER;
	error_set(&c->why, ETIMEDOUT, "%s does not say whether it runs `" SSH2_COMMAND "`", k->way->name);
}

/* --- the loop */

static nfds_t fill_polled(struct child *k)
{
	struct ssh2_channel *c;
	struct ssh2_link *l;
	nfds_t n = 0;

	k->polled[n++] = (struct pollfd){ .fd = k->asked ? -1 : k->control, .events = POLLIN };
	TAILQ_FOREACH(l, &k->links, next) {
		short in = l->channels ? POLLIN : POLLRDHUP; /* libssh2 reads for a channel only */

		k->polled[n++] = (struct pollfd){ .fd = l->fd, .events = (short)(in | (ssh2_link_pending(l) ? POLLOUT : 0)) };
	}
	TAILQ_FOREACH(c, &k->channels, next) {
		short events = ssh2_channel_events(c);

		k->polled[n++] = (struct pollfd){ .fd = events ? c->stream : -1, .events = events };
	}
	return n;
}

static void take_polled(struct child *k)
{
	struct ssh2_link *l;
	nfds_t n = 1;

	TAILQ_FOREACH(l, &k->links, next) {
		if (k->polled[n].revents & (POLLIN | POLLHUP | POLLERR))
			l->can_receive = true;
		if (k->polled[n].revents & POLLOUT)
			ssh2_link_flush(l);
		if (!l->channels && (k->polled[n].revents & (POLLRDHUP | POLLHUP | POLLERR)))
			ssh2_link_lose(l, "the host closed the connection");
		n++;
	}
}

static bool bring_on(struct child *k)
{
	struct ssh2_channel *c, *next_channel;
	struct ssh2_link *l, *next_link;
	bool moved = false;

	TAILQ_FOREACH(c, &k->channels, next)
		moved = ssh2_channel_step(c) || moved;
	answer_asked(k);
	for (c = TAILQ_FIRST(&k->channels); c; c = next_channel) {
		next_channel = TAILQ_NEXT(c, next);
		if (c->state == SSH2_OVER)
			remove_channel(k, c);
	}
	for (l = TAILQ_FIRST(&k->links); l; l = next_link) {
		next_link = TAILQ_NEXT(l, next);
		if (l->is_lost)
			remove_link(k, l);
	}
	return moved;
}

static void tick(struct child *k)
{
	struct ssh2_link *l;
	uint64_t now = ssh2_now_ns();

	if (now - k->tick_ns < TICK_MS * NS_PER_MS)
		return;
	k->tick_ns = now;
	give_up_asked(k, now);
	TAILQ_FOREACH(l, &k->links, next)
		ssh2_link_tick(l);
}

static void run(struct child *k)
{
	bool moved = false;

	for (;;) {
		nfds_t n = fill_polled(k);

		if (poll(k->polled, n, moved ? 0 : TICK_MS) == -1 && errno != EINTR)
			return;
		if (k->polled[0].revents && !receive_request(k))
			return;
		if (!k->polled[0].revents)
			take_polled(k);
		tick(k);
		moved = bring_on(k);
	}
}

static void end(struct child *k)
{
	struct ssh2_link *l;

	k->asked = NULL;
	while ((l = TAILQ_FIRST(&k->links)))
		remove_link(k, l);
	libssh2_exit();
	carrier_free(k->way->over);
	ssh2_secrets_free(k->way->secrets);
	_exit(0);
}

void ssh2_child_run(struct ssh2_way *way, int control)
{
	static struct child k;
	struct error e = { 0 };

	k = (struct child){ .way = way, .control = control };
	TAILQ_INIT(&k.links);
	TAILQ_INIT(&k.channels);
	prctl(PR_SET_DUMPABLE, 0); /* no core, no debugger: it knows secrets */
	way->secrets = ssh2_secrets_new(&e);
	if (!way->secrets || libssh2_init(0) != 0 || !add_link(&k, &e)) {
		answer(&k, &e);
		end(&k);
	}
	answer(&k, NULL);
	setsid();
	run(&k);
	end(&k);
}
