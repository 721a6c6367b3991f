/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * peer - see peer.h
 *
 *      no channel --channel()--> greeted: versions agree --> line out, line in, line out, ...
 *          ^------------ an end, a wait that was too long, something that is no answer ------'
 *
 * After any failure that is not an answer the channel is closed: what would come later could be taken for the answer to another
 * question.
 */
#include "migrate/peer.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "migrate/question.h"
#include "migrate/relay.h"
#include "migrate/squeeze.h"

#define GREETING_WAIT_MS 60000u
#define ANSWER_MAX_BYTES (8u << 20)
#define PROBE_WAIT_MS 120000u

struct answer_error {
	char *code, *text;
};
struct answer {
	int64_t id;
	char *ok;
	bool has_error;
	struct answer_error error;
};
static const struct jsonspec_field error_fields[] = {
	{ "code", JS_STRING, offsetof(struct answer_error, code) },
	{ "text", JS_STRING, offsetof(struct answer_error, text) },
	{ NULL },
};
static const struct jsonspec error_spec = { "error", sizeof(struct answer_error), error_fields };
static const struct jsonspec_field answer_fields[] = {
	{ "id", JS_INT64, offsetof(struct answer, id) },
	{ "ok", JS_TEXT, offsetof(struct answer, ok), .is_optional = true },
	{ "error", JS_RECORD, offsetof(struct answer, error), .is_optional = true, .has = offsetof(struct answer, has_error),
	  .sub = &error_spec },
	{ NULL },
};
static const struct jsonspec answer_spec = { "answer", sizeof(struct answer), answer_fields };

struct greeting {
	int64_t protocol, now_ms;
	char *version, *hostname, *host, *run_dir, *address, *compress;
	struct jsonspec_list transports;
};
static const struct jsonspec_field greeting_fields[] = {
	{ "protocol", JS_INT64, offsetof(struct greeting, protocol) },
	{ "now_ms", JS_INT64, offsetof(struct greeting, now_ms) },
	{ "version", JS_STRING, offsetof(struct greeting, version) },
	{ "hostname", JS_STRING, offsetof(struct greeting, hostname) },
	{ "host", JS_STRING, offsetof(struct greeting, host) },
	{ "run_dir", JS_STRING, offsetof(struct greeting, run_dir) },
	{ "address", JS_STRING, offsetof(struct greeting, address), .is_optional = true },
	{ "transports", JS_LIST, offsetof(struct greeting, transports), .is_optional = true },
	{ "compress", JS_STRING, offsetof(struct greeting, compress), .is_optional = true },
	{ NULL },
};
static const struct jsonspec greeting_spec = { "greeting", sizeof(struct greeting), greeting_fields };

static int64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void peer_init(struct peer *p, const char *name, peer_channel_fn *channel, void *arg)
{
	*p = (struct peer) { .channel = channel, .arg = arg, .fd = -1 };
	snprintf(p->name, sizeof(p->name), "%s", name);
}

/* Whoever gave it may have it still. */
static void hang_up(struct peer *p)
{
	if (p->fd >= 0) {
		shutdown(p->fd, SHUT_RDWR);
		close(p->fd);
	}
	p->fd = -1;
	p->used = 0;
}

void peer_fini(struct peer *p)
{
	hang_up(p);
	free(take_ptr(&p->buffer));
	p->room = 0;
}

/* -1, and the channel is closed. */
static int lose(struct peer *p, struct error *e)
{
	if (e->err == ECONNRESET && p->why)
		p->why(p->arg, e);
	hang_up(p);
	p->is_lost = true;
	return error_prefix(e, "%s", p->name);
}

/* --- bytes */

static int send_all(int fd, const char *from, size_t left, struct error *e)
{
	while (left) {
		ssize_t n = send(fd, from, left, MSG_NOSIGNAL);

		if (n < 0 && errno != EINTR)
			return error_errno(e, errno == EPIPE ? ECONNRESET : errno, "send to its relay");
		if (n > 0) {
			from += n;
			left -= (size_t)n;
		}
	}
	return 0;
}

/* Something can be read of fd. until_us 0: whenever. */
static int wait_for(int fd, int64_t until_us, struct error *e)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	for (;;) {
		int64_t left_ms = until_us ? (until_us - now_us()) / 1000 : -1;
		int r;

		if (until_us && left_ms < 0)
			return error_set(e, ETIMEDOUT, "its relay does not answer");
		r = poll(&poller, 1, (int)MIN(left_ms, (int64_t)60000));
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return error_errno(e, errno, "wait for its relay");
	}
}

static int say_gone(struct error *e)
{
	return error_set(e, ECONNRESET, "its relay is gone: the way there was lost, or there is no `sxm relay`");
}

static int read_some(struct peer *p, int64_t until_us, struct error *e)
{
	ssize_t n;

	if (p->used == p->room) {
		size_t room = p->room ? 2 * p->room : 16384;
		char *more = room <= ANSWER_MAX_BYTES ? realloc(p->buffer, room) : NULL;

		if (!more)
			return error_set(e, EMSGSIZE, "its answer is too long");
		p->buffer = more;
		p->room = room;
	}
	if (wait_for(p->fd, until_us, e) == -1)
		return -1;
	n = recv(p->fd, p->buffer + p->used, p->room - p->used, 0);
	if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
		return say_gone(e);
	p->used += n > 0 ? (size_t)n : 0;
	return 0;
}

/* --- one question */

static int ask_line(int fd, int64_t id, const char *verb, const char *args, struct error *e)
{
	CLEANUP_FREE char *name = jsonspec_string(verb);
	CLEANUP_FREE char *line = NULL;

	if (!name || asprintf(&line, "{\"id\":%" PRId64 ",\"verb\":%s,\"args\":%s}\n", id, name, args ? args : "{}") < 0) {
		line = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (strlen(line) > RELAY_LINE_MAX)
		return error_set(e, E2BIG, "the question %s is too long", verb);
	return send_all(fd, line, strlen(line), e);
}

/* 0: *ok. 1 + e: it was refused. -1 + e: that is no answer to question id. */
static int read_answer(const char *line, size_t bytes, int64_t id, char **ok, struct error *e)
{
	struct answer a;
	int r = 0;

	if (jsonspec_decode(&answer_spec, line, bytes, &a, e) == -1)
		return error_prefix(e, "what answers is no `sxm relay`");
	if (a.has_error) {
		error_set(e, error_number(a.error.code), "%s", a.error.text);
		r = 1;
	} else if (!a.ok || a.id != id) {
		r = error_set(e, EPROTO, "what answers is no `sxm relay`: neither ok nor error, or another question's");
	} else {
		*ok = take_ptr(&a.ok);
	}
	jsonspec_clear(&answer_spec, &a);
	return r;
}

static char *hear(struct peer *p, unsigned wait_ms, struct error *e)
{
	int64_t until_us = wait_ms ? now_us() + (int64_t)wait_ms * 1000 : 0;
	char *end, *ok = NULL;
	int r;

	while (!(end = p->used ? memchr(p->buffer, '\n', p->used) : NULL))
		if (read_some(p, until_us, e) == -1) {
			lose(p, e);
			return NULL;
		}
	r = read_answer(p->buffer, (size_t)(end - p->buffer), p->next_id, &ok, e);
	p->used -= (size_t)(end - p->buffer) + 1;
	memmove(p->buffer, end + 1, p->used);
	if (r == -1)
		lose(p, e);
	else if (r == 1)
		error_prefix(e, "%s", p->name);
	return ok;
}

static int say(struct peer *p, const char *verb, const char *args, struct error *e)
{
	p->is_lost = false;
	return ask_line(p->fd, ++p->next_id, verb, args, e) == 0 ? 0 : lose(p, e);
}

/* --- the greeting */

static void copy(char to[static PEER_TEXT_MAX], const char *from)
{
	snprintf(to, PEER_TEXT_MAX, "%s", from);
}

static bool has(const struct jsonspec_list *l, const char *text)
{
	for (size_t i = 0; i < l->count; i++)
		if (strcmp(l->item[i], text) == 0)
			return true;
	return false;
}

static int take_greeting(struct peer *p, const char *text, int64_t took_us, struct error *e)
{
	struct greeting g;

	if (jsonspec_decode(&greeting_spec, text, strlen(text), &g, e) == -1)
		return -1;
	p->greeting.protocol = g.protocol;
	p->greeting.now_ms = g.now_ms;
	p->greeting.round_trip_us = took_us;
	copy(p->greeting.version, g.version);
	copy(p->greeting.hostname, g.hostname);
	copy(p->greeting.host, g.host);
	copy(p->greeting.run_dir, g.run_dir);
	copy(p->greeting.address, g.address ? g.address : "");
	p->greeting.has_tcp = has(&g.transports, "tcp");
	p->greeting.has_tls = has(&g.transports, "tcp+tls");
	p->greeting.can_squeeze = g.compress && strcmp(g.compress, SQUEEZE_NAME) == 0;
	jsonspec_clear(&greeting_spec, &g);
	if (p->greeting.protocol >= RELAY_PROTOCOL_OLDEST && p->greeting.protocol <= RELAY_PROTOCOL)
		return 0;
	return error_set(e, ENOTSUP, "its sxm %s speaks version %" PRId64 " of a relay's protocol, this one %d to %d: install "
			 "the same on both hosts", p->greeting.version, p->greeting.protocol, RELAY_PROTOCOL_OLDEST,
			 RELAY_PROTOCOL);
}

/* The second one is timed: before the first is answered the program has to be started. */
static int greet(struct peer *p, struct error *e)
{
	CLEANUP_FREE char *args = NULL;

	if (asprintf(&args, "{\"protocol\":%d}", RELAY_PROTOCOL) < 0) {
		args = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	for (int i = 0; i < 2; i++) {
		int64_t began_us = now_us();
		CLEANUP_FREE char *ok = say(p, "hello", args, e) == 0 ? hear(p, GREETING_WAIT_MS, e) : NULL;

		if (!ok)
			return -1;
		if (take_greeting(p, ok, now_us() - began_us, e) == -1)
			return lose(p, e);
	}
	return 0;
}

int peer_reach(struct peer *p, struct error *e)
{
	if (p->fd >= 0)
		return 0;
	p->fd = p->channel(p->arg, e);
	if (p->fd < 0) {
		p->is_lost = true;
		return -1;
	}
	if (greet(p, e) == 0)
		return 0;
	hang_up(p);
	return -1;
}

/* --- */

int peer_send(struct peer *p, const char *verb, const char *args, struct error *e)
{
	return peer_reach(p, e) == 0 ? say(p, verb, args, e) : -1;
}

char *peer_hear(struct peer *p, unsigned wait_ms, struct error *e)
{
	if (p->fd >= 0)
		return hear(p, wait_ms, e);
	say_gone(e);
	lose(p, e);
	return NULL;
}

char *peer_ask(struct peer *p, const char *verb, const char *args, unsigned wait_ms, struct error *e)
{
	bool was_up = p->fd >= 0;
	char *ok = peer_send(p, verb, args, e) == 0 ? peer_hear(p, wait_ms, e) : NULL;

	if (ok || !p->is_lost || !was_up || e->err == ETIMEDOUT)
		return ok;
	return peer_send(p, verb, args, e) == 0 ? peer_hear(p, wait_ms, e) : NULL;
}

int64_t peer_probe(struct peer *p, uint64_t bytes, struct error *e)
{
	static const char filler[65536];
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *first = NULL;
	CLEANUP_FREE char *second = NULL;
	int64_t began_us;

	if (asprintf(&args, "{\"bytes\":%" PRIu64 "}", bytes) < 0) {
		args = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	first = peer_ask(p, "probe", args, GREETING_WAIT_MS, e);
	if (!first)
		return -1;
	began_us = now_us();
	for (uint64_t left = bytes; left; left -= MIN(left, sizeof(filler)))
		if (send_all(p->fd, filler, MIN(left, sizeof(filler)), e) == -1)
			return lose(p, e);
	second = hear(p, PROBE_WAIT_MS, e);
	return second ? (int64_t)((double)bytes * 1e6 / (double)MAX(now_us() - began_us, INT64_C(1))) : -1;
}

/* --- a disk's connection */

/* Exactly one line: what comes after it is the disk's. *bytes: without its end. */
static int read_line(int fd, char *line, size_t room, size_t *bytes, int64_t until_us, struct error *e)
{
	for (;;) {
		ssize_t n;
		char *end;

		if (wait_for(fd, until_us, e) == -1)
			return -1;
		n = recv(fd, line, room, MSG_PEEK);
		if (n == 0 || (n < 0 && errno != EINTR))
			return say_gone(e);
		end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
		if (end) {
			*bytes = (size_t)(end - line);
			return recv(fd, line, *bytes + 1, 0) == (ssize_t)*bytes + 1 ? 0 : say_gone(e);
		}
		if ((size_t)MAX(n, (ssize_t)0) == room)
			return error_set(e, EPROTO, "what answers is no `sxm relay`");
		poll(NULL, 0, 1); /* the rest of the line is on its way */
	}
}

int peer_stream(int fd, const char *verb, const char *args, unsigned wait_ms, char **ok, struct error *e)
{
	CLEANUP_FREE char *answer = NULL;
	char line[4096];
	size_t bytes = 0;

	if (ask_line(fd, 1, verb, args, e) == -1 ||
	    read_line(fd, line, sizeof(line), &bytes, now_us() + (int64_t)wait_ms * 1000, e) == -1 ||
	    read_answer(line, bytes, 1, &answer, e) != 0)
		return -1;
	if (ok)
		*ok = take_ptr(&answer);
	return 0;
}

/* What was answered to "connect". */
struct connected {
	char *compress;
};
static const struct jsonspec_field connected_fields[] = {
	{ "compress", JS_STRING, offsetof(struct connected, compress), .is_optional = true }, { NULL }
};
static const struct jsonspec connected_spec = { "connect", sizeof(struct connected), connected_fields };

int peer_connect(int fd, const char *uri, const char *domain, bool *is_squeezed, unsigned wait_ms, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "uri", uri, "domain", domain, "compress",
					       *is_squeezed ? SQUEEZE_NAME : NULL, NULL);
	CLEANUP_FREE char *ok = NULL;
	struct connected c;

	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	if (peer_stream(fd, "connect", args, wait_ms, &ok, e) == -1 ||
	    jsonspec_decode(&connected_spec, ok, strlen(ok), &c, e) == -1)
		return -1;
	*is_squeezed = *is_squeezed && c.compress && strcmp(c.compress, SQUEEZE_NAME) == 0;
	jsonspec_clear(&connected_spec, &c);
	return 0;
}
