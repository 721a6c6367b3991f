/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * conn - one client: when it is read, when it is written to, when it ends (states: conn.h)
 *
 *      epoll --.                                                             .--> handshake.c
 *              +--> receive() -> input buffer -> take_messages(): one by one -+
 *      poller -'    or straight into the payload being filled                 '--> transmit.c ~~~> replies
 *                                                                                                     |
 *      before the loop sleeps, every conn that was touched: settle() = send, close if over, set watch <'
 *
 * One recv() takes what is there, up to 128 KiB: many requests.  The buffer is borrowed from the server for as long as there
 * are bytes in it, so a client that is silent holds none.  The payload of a large write is received where it belongs, the
 * bytes after it into the buffer, in the same call.
 * The watch is level-triggered: what the poller took before is simply not reported again.
 *
 * Back-pressure: take_messages() stops at a message there is no room for (is_stalled); nothing is received then.  Room comes
 * with replies sent (settle) or with an iobuf returned (waiter); both post `resume`.
 * With TLS the socket's readiness is half the truth: what the stream holds is taken by `resume` as well.
 * Invariant: a stalled conn has room missing by conn_has_room(), or a waiter waiting, or resume posted.
 */
#include "nbdsrv/conn.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define POLL_AT_ONCE 8u           /* conns asked by one round of the poller */
#define EMPTY_POLLS_MAX 1000u     /* then it is left to epoll */
#define PAYLOAD_PATIENCE_MS 120000u /* a payload that has begun must go on: it holds a buffer others wait for */
#define ENDING_PATIENCE_S 30u       /* for answers nobody takes after the client said good-bye */
#define LOOK_AGAIN_MS 1000u
#define VAIN_WAKEUPS_MAX 100u
#define TRY_AGAIN_MS 10u            /* where epoll cannot tell when it is worth it */

void conn_complain(struct conn *c, const char *fmt, ...)
{
	static struct log_limit limit = LOG_LIMIT(5);
	char text[200];
	va_list args;

	if (!log_allowed(&limit))
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_warn("NBD client on socket %d %s", c->stream.fd, text);
}

void conn_touch(struct conn *c)
{
	if (c->is_touched || c->state == CONN_CUT)
		return;
	c->is_touched = true;
	TAILQ_INSERT_TAIL(&c->server->touched, c, touched_link);
}

static void untouch(struct conn *c)
{
	if (c->is_touched)
		TAILQ_REMOVE(&c->server->touched, c, touched_link);
	c->is_touched = false;
}

void conn_enliven(struct conn *c)
{
	c->empty_polls = 0;
	if (c->is_lively)
		return;
	c->is_lively = true;
	c->server->lively_count++;
	TAILQ_INSERT_TAIL(&c->server->lively, c, lively_link);
}

static void weary(struct conn *c)
{
	if (!c->is_lively)
		return;
	c->is_lively = false;
	c->server->lively_count--;
	TAILQ_REMOVE(&c->server->lively, c, lively_link);
}

void conn_ref(struct conn *c)
{
	c->refs++;
}

void conn_unref(struct conn *c)
{
	assert(c->refs > 0);
	if (--c->refs)
		return;
	assert(c->state == CONN_CUT && c->commands == 0 && !c->in && !c->is_touched);
	if (!link_is_leaving(c))
		conn_free(c);
}

void conn_free(struct conn *c)
{
	struct nbdsrv *s = c->server;

	free(c);
	nbdsrv_forget_one(s);
}

bool conn_has_room(const struct conn *c)
{
	if (c->is_securing)
		return !reply_is_pending(c);
	if (c->is_parting)
		return c->commands == 0 && !reply_is_pending(c);
	if (c->state == CONN_HANDSHAKE)
		return CONN_HELLO_BYTES - c->hello_end >= CONN_HELLO_ROOM;
	return !c->is_pondered && c->commands < CONN_COMMANDS_MAX && c->reading_bytes < CONN_READING_MAX;
}

static bool borrow_buffer(struct conn *c)
{
	struct nbdsrv *s = c->server;

	if (!c->in)
		c->in = s->spare_ins ? s->spare_in[--s->spare_ins] : malloc(CONN_IN_BYTES);
	return c->in;
}

static void return_buffer(struct conn *c)
{
	struct nbdsrv *s = c->server;

	c->in_start = c->in_end = 0;
	if (c->in && s->spare_ins < ARRAY_LEN(s->spare_in))
		s->spare_in[s->spare_ins++] = c->in;
	else
		free(c->in);
	c->in = NULL;
}

/* Nothing more will be taken from this client. */
static void drop_input(struct conn *c)
{
	struct command *filling = take_ptr(&c->filling);

	return_buffer(c);
	c->is_stalled = false;
	iobuf_wait_cancel(c->server->pool, &c->waiter);
	loop_defer_cancel(c->server->loop, &c->resume);
	weary(c);
	if (filling)
		command_free(filling);
}

void conn_end(struct conn *c)
{
	if (!conn_is_open(c))
		return;
	conn_ref(c);
	c->state = CONN_ENDING;
	drop_input(c);
	link_orphan_asks(c);
	conn_hurry(c, ENDING_PATIENCE_S);
	conn_touch(c);
	conn_unref(c);
}

void conn_part(struct conn *c)
{
	c->state = CONN_HANDSHAKE;
	c->is_parting = true;
	c->has_client_flags = c->has_no_zeroes = c->has_structured = false;
	c->contexts = 0;
	nbdsrv_set_deadline(c->server, c, 0);
	conn_touch(c);
}

void conn_hurry(struct conn *c, unsigned seconds)
{
	c->give_up_ns = loop_now_ns() + seconds * NS_PER_S;
	nbdsrv_set_deadline(c->server, c, LOOK_AGAIN_MS);
}

void conn_cut(struct conn *c)
{
	struct command *cmd;

	if (c->state == CONN_CUT)
		return;
	conn_ref(c);
	drop_input(c);
	untouch(c);
	c->state = CONN_CUT;
	link_orphan_asks(c);
	while ((cmd = STAILQ_FIRST(&c->replies))) {
		STAILQ_REMOVE_HEAD(&c->replies, link);
		command_free(cmd);
	}
	free(take_ptr(&c->hello));
	loop_watch_free(take_ptr(&c->watch));
	stream_close(&c->stream);
	nbdsrv_keys_unref(take_ptr(&c->keys));
	TAILQ_REMOVE(&c->server->conns, c, link);
	if (c->is_stranger)
		c->server->strangers--;
	else
		c->server->stats.clients--;
	conn_unref(c); /* the socket's */
	conn_unref(c);
}

static bool receive(struct conn *c);

static void take_messages(struct conn *c)
{
	enum take t = TAKE_MORE;

	while (t == TAKE_MORE && conn_is_open(c))
		t = c->state == CONN_HANDSHAKE ? handshake_take(c) : transmit_take(c);
	if (!conn_is_open(c))
		return;
	c->is_stalled = t == TAKE_STALL;
	if (c->in_start == c->in_end)
		return_buffer(c);
	if (c->filling)
		nbdsrv_set_deadline(c->server, c, PAYLOAD_PATIENCE_MS);
	else if (c->state == CONN_TRANSMISSION && c->deadline_ns && !c->is_half_closed)
		nbdsrv_set_deadline(c->server, c, 0);
	conn_touch(c);
}

static void on_resume(struct loop_task *t)
{
	struct conn *c = container_of(t, struct conn, resume);

	conn_ref(c);
	if (c->is_stalled)
		take_messages(c);
	else
		receive(c); /* what TLS holds */
	conn_unref(c);
}

static void on_room(struct iobuf_waiter *w)
{
	struct conn *c = container_of(w, struct conn, waiter);

	loop_defer(c->server->loop, &c->resume);
}

static void on_eof(struct conn *c)
{
	if (c->filling || conn_in_bytes(c) || c->skip_bytes)
		conn_complain(c, "hung up in the middle of a message");
	conn_end(c);
}

static void on_broken(struct conn *c, int err)
{
	/* Whoever looked in only, or said good-bye already, may go. */
	bool is_missed = c->state == CONN_TRANSMISSION || (c->state == CONN_HANDSHAKE && c->has_client_flags);
	const char *why = stream_why(&c->stream);

	if (is_missed)
		conn_complain(c, "is lost: %s%s", why ? "TLS: " : "", why ? why : strerror(err));
	conn_cut(c);
}

/* First what is missing of a payload, then room in the buffer. Returns the bytes of the former. */
static size_t aim(struct conn *c, struct iovec iov[2], size_t *count)
{
	size_t payload_bytes = 0;

	if (c->in_start) {
		memmove(c->in, c->in + c->in_start, conn_in_bytes(c));
		c->in_end -= c->in_start;
		c->in_start = 0;
	}
	*count = 0;
	if (c->filling && c->filling->data) {
		payload_bytes = c->filling->wire.length - c->filled_bytes;
		iov[(*count)++] = (struct iovec){ c->filling->data->data + c->filled_bytes, payload_bytes };
	}
	iov[(*count)++] = (struct iovec){ c->in + c->in_end, CONN_IN_BYTES - c->in_end };
	return payload_bytes;
}

/* It is known who it is: now it counts. */
static void become_client(struct conn *c)
{
	struct nbdsrv *s = c->server;

	c->is_stranger = false;
	s->strangers--;
	if (s->stats.clients++ < s->max_clients)
		return;
	conn_complain(c, "is not let in: %u NBD clients are connected", s->max_clients);
	conn_end(c);
}

/* A step of TLS's handshake may have been made, or something has come that TLS answers by itself. */
static void look_at_tls(struct conn *c, bool was_secure)
{
	if (!was_secure && stream_is_secure(&c->stream)) {
		become_client(c);
		nbdsrv_set_deadline(c->server, c, CONN_HANDSHAKE_MS);
	}
	if (stream_is_unsent(&c->stream) || stream_is_holding(&c->stream))
		conn_touch(c);
}

/* Takes what is there now. False: nothing was. The caller holds a reference. */
static bool receive(struct conn *c)
{
	bool was_secure = stream_is_secure(&c->stream);
	struct iovec iov[2];
	size_t payload_bytes, count;
	ssize_t got;
	int err;

	if (!conn_is_open(c) || c->is_stalled)
		return false;
	if (!borrow_buffer(c)) {
		on_broken(c, ENOMEM);
		return false;
	}
	payload_bytes = aim(c, iov, &count);
	got = stream_receive(&c->stream, iov, count);
	err = got < 0 ? errno : 0;
	look_at_tls(c, was_secure);
	if (got > 0) {
		size_t direct = MIN((size_t)got, payload_bytes);

		c->filled_bytes += (uint32_t)direct;
		c->in_end += (uint32_t)((size_t)got - direct);
		take_messages(c);
		return true;
	}
	if (got == 0)
		on_eof(c);
	else if (err != EAGAIN && err != EINTR)
		on_broken(c, err);
	else if (c->in_start == c->in_end)
		return_buffer(c);
	return false;
}

/* The client hung up one way, and the socket is full the other way: epoll says so without end.  After some turns of that it
 * is left alone, and the timer tries. */
static void bear_half_close(struct conn *c)
{
	if (++c->vain_wakeups < VAIN_WAKEUPS_MAX)
		return;
	c->is_half_closed = true;
	if (!c->give_up_ns)
		conn_hurry(c, ENDING_PATIENCE_S);
	nbdsrv_set_deadline(c->server, c, TRY_AGAIN_MS);
}

static void on_events(void *arg, int events)
{
	struct conn *c = arg;
	bool is_found = false;

	conn_ref(c);
	if (events & (LOOP_IN | LOOP_HUP))
		is_found = receive(c);
	if ((events & LOOP_HUP) && !(events & LOOP_OUT) && !is_found && c->is_blocked && c->state != CONN_CUT)
		bear_half_close(c);
	else
		c->vain_wakeups = 0;
	conn_touch(c);
	conn_unref(c);
}

bool conn_poll_lively(struct loop_poller *p)
{
	struct nbdsrv *s = container_of(p, struct nbdsrv, poller);
	unsigned count = MIN(s->lively_count, POLL_AT_ONCE);
	bool is_found = false;
	struct conn *c;

	while (count-- && (c = TAILQ_FIRST(&s->lively))) {
		/* To the end of the row: with more than POLL_AT_ONCE each has its turn. */
		TAILQ_REMOVE(&s->lively, c, lively_link);
		TAILQ_INSERT_TAIL(&s->lively, c, lively_link);
		conn_ref(c);
		if (receive(c))
			is_found = true;
		else if (c->is_lively && ++c->empty_polls > EMPTY_POLLS_MAX)
			weary(c);
		conn_unref(c);
	}
	return is_found;
}

static int wanted_events(const struct conn *c)
{
	int events = 0;

	if (c->is_half_closed)
		return 0;
	if (conn_is_open(c) && !c->is_stalled && !stream_is_full(&c->stream))
		events |= LOOP_IN;
	if (c->is_blocked)
		events |= LOOP_OUT;
	return events;
}

static void settle(struct conn *c)
{
	if (!reply_send(c)) {
		on_broken(c, errno);
		return;
	}
	if (!c->is_blocked)
		c->is_half_closed = false;
	if (c->state == CONN_ENDING && c->commands == 0 && !reply_is_pending(c)) {
		conn_cut(c);
		return;
	}
	if (c->is_stalled && !c->waiter.is_waiting && conn_has_room(c))
		loop_defer(c->server->loop, &c->resume);
	if (!c->is_stalled && conn_is_open(c) && stream_is_holding(&c->stream) && !c->is_blocked)
		loop_defer(c->server->loop, &c->resume);
	loop_watch_set(c->watch, wanted_events(c));
}

void conn_settle_all(struct loop_hook *h)
{
	struct nbdsrv *s = container_of(h, struct nbdsrv, hook);
	struct conn *c;

	while ((c = TAILQ_FIRST(&s->touched))) {
		untouch(c);
		conn_ref(c);
		settle(c);
		conn_unref(c);
	}
}

void conn_on_deadline(struct conn *c)
{
	const char *complaint = NULL;

	if (c->state == CONN_HANDSHAKE)
		complaint = "did not finish the handshake";
	else if (c->filling)
		complaint = "stopped in the middle of a write";
	else if (c->is_blocked && c->give_up_ns && loop_now_ns() >= c->give_up_ns)
		complaint = "does not take its answers";
	if (complaint) {
		conn_complain(c, "%s", complaint);
		conn_cut(c);
		return;
	}
	c->is_half_closed = false;
	c->vain_wakeups = 0;
	nbdsrv_set_deadline(c->server, c, LOOK_AGAIN_MS);
	conn_touch(c);
}

struct conn *conn_new(struct nbdsrv *s, int fd, struct nbdsrv_keys *keys, struct error *e)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		goto fail;
	*c = (struct conn){ .server = s, .stream = { .fd = fd }, .refs = 1, .keys = nbdsrv_keys_ref(keys) };
	c->waiter.on_room = on_room;
	c->resume.run = on_resume;
	STAILQ_INIT(&c->replies);
	TAILQ_INIT(&c->asks);
	c->watch = loop_watch_new(s->loop, fd, LOOP_IN, on_events, c);
	if (!c->watch || !handshake_start(c))
		goto fail;
	TAILQ_INSERT_TAIL(&s->conns, c, link);
	s->alive++;
	c->is_stranger = keys;
	if (keys)
		s->strangers++;
	else
		s->stats.clients++;
	return c;
fail:
	error_set(e, ENOMEM, "out of memory for an NBD client");
	if (c) {
		loop_watch_free(c->watch);
		nbdsrv_keys_unref(c->keys);
	}
	free(c);
	close(fd);
	return NULL;
}
