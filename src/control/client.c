/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * client - see client.h
 *
 *      connect -> one line there -> one line back -> close
 *
 * The socket's own timeouts bound each wait (of connect too, when the backlog is full); a deadline bounds them all.
 * Can fail: at every step, with an outcome that says whether asking again makes sense.
 */
#include "control/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"

#define LINE_MAX_BYTES (1u << 20)

struct answer_error {
	char *code, *text;
};
struct answer {
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
	{ "ok", JS_TEXT, offsetof(struct answer, ok), .is_optional = true },
	{ "error", JS_RECORD, offsetof(struct answer, error), .is_optional = true, .has = offsetof(struct answer, has_error),
	  .sub = &error_spec },
	{ NULL },
};
static const struct jsonspec answer_spec = { "answer", sizeof(struct answer), answer_fields };

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
}

/* The time left becomes the socket's bound. False: none is left. deadline_ms 0: for ever. */
static bool bound_wait(int fd, uint64_t deadline_ms)
{
	uint64_t now = now_ms(), left;
	struct timeval tv;

	if (!deadline_ms)
		return true;
	if (now >= deadline_ms)
		return false;
	left = deadline_ms - now;
	tv = (struct timeval) { .tv_sec = (time_t)(left / 1000), .tv_usec = (suseconds_t)(left % 1000 * 1000) };
	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) == 0 &&
	       setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0;
}

static enum client_outcome say_late(const char *path, struct error *e)
{
	error_set(e, ETIMEDOUT, "the datapath process at %s did not answer in time", path);
	return CLIENT_LATE;
}

static enum client_outcome reach(const char *path, uint64_t deadline_ms, int *fd, struct error *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int r;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		error_set(e, ENAMETOOLONG, "socket path %s has more than %zu bytes", path, sizeof(addr.sun_path) - 1);
		return CLIENT_BROKEN;
	}
	strcpy(addr.sun_path, path);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*fd < 0) {
		error_errno(e, errno, "make a socket");
		return CLIENT_BROKEN;
	}
	do {
		if (!bound_wait(*fd, deadline_ms))
			return say_late(path, e);
		r = connect(*fd, (struct sockaddr *)&addr, sizeof(addr));
	} while (r == -1 && (errno == EINTR || errno == EAGAIN));
	if (r == 0)
		return CLIENT_ANSWERED;
	if (errno == ECONNREFUSED || errno == ENOENT || errno == ENOTDIR) {
		error_set(e, ECONNREFUSED, "no datapath process listens at %s", path);
		return CLIENT_ABSENT;
	}
	error_errno(e, errno, "connect to %s", path);
	return CLIENT_BROKEN;
}

static enum client_outcome say_lost(const char *path, struct error *e)
{
	error_set(e, ECONNRESET, "the datapath process at %s went away without an answer", path);
	return CLIENT_LOST;
}

static enum client_outcome judge(const char *path, uint64_t deadline_ms, struct error *e)
{
	if (errno == EAGAIN)
		return deadline_ms && now_ms() < deadline_ms ? CLIENT_ANSWERED : say_late(path, e);
	return errno == EINTR ? CLIENT_ANSWERED : say_lost(path, e);
}

static enum client_outcome send_line(int fd, const char *path, const char *line, size_t bytes, uint64_t deadline_ms,
				     struct error *e)
{
	while (bytes) {
		ssize_t n;

		if (!bound_wait(fd, deadline_ms))
			return say_late(path, e);
		n = send(fd, line, bytes, MSG_NOSIGNAL);
		if (n < 0) {
			enum client_outcome o = judge(path, deadline_ms, e);

			if (o != CLIENT_ANSWERED)
				return o;
			continue;
		}
		line += n;
		bytes -= (size_t)n;
	}
	return CLIENT_ANSWERED;
}

/* *line: heap, also on failure NULL or to be freed. */
static enum client_outcome receive_line(int fd, const char *path, uint64_t deadline_ms, char **line, size_t *bytes,
					struct error *e)
{
	size_t used = 0, room = 0;

	for (;;) {
		char *end;
		ssize_t n;

		if (used == room) {
			char *more = room < LINE_MAX_BYTES ? realloc(*line, room ? 2 * room : 4096) : NULL;

			if (!more) {
				error_set(e, EMSGSIZE, "the answer from %s is too long", path);
				return CLIENT_BROKEN;
			}
			*line = more;
			room = room ? 2 * room : 4096;
		}
		if (!bound_wait(fd, deadline_ms))
			return say_late(path, e);
		n = recv(fd, *line + used, room - used, 0);
		if (n == 0)
			return say_lost(path, e);
		if (n < 0) {
			enum client_outcome o = judge(path, deadline_ms, e);

			if (o != CLIENT_ANSWERED)
				return o;
			continue;
		}
		end = memchr(*line + used, '\n', (size_t)n);
		used += (size_t)n;
		if (end) {
			*bytes = (size_t)(end - *line);
			return CLIENT_ANSWERED;
		}
	}
}

static enum client_outcome read_answer(const char *path, const char *line, size_t bytes, char **ok, struct error *e)
{
	enum client_outcome outcome = CLIENT_ANSWERED;
	struct answer answer;

	if (jsonspec_decode(&answer_spec, line, bytes, &answer, e) == -1) {
		error_prefix(e, "the datapath process at %s", path);
		return CLIENT_BROKEN;
	}
	if (answer.has_error) {
		error_set(e, error_number(answer.error.code), "%s", answer.error.text);
		outcome = CLIENT_REFUSED;
	} else if (!answer.ok) {
		error_set(e, EPROTO, "the datapath process at %s answered neither ok nor error", path);
		outcome = CLIENT_BROKEN;
	} else {
		*ok = take_ptr(&answer.ok);
	}
	jsonspec_clear(&answer_spec, &answer);
	return outcome;
}

/* --- */

enum client_outcome client_connect(struct client *c, const char *socket_path, unsigned wait_ms, struct error *e)
{
	enum client_outcome outcome;

	*c = (struct client) { .fd = -1, .deadline_ms = wait_ms ? now_ms() + wait_ms : 0 };
	if (strlen(socket_path) < sizeof(c->path))
		strcpy(c->path, socket_path);
	outcome = reach(socket_path, c->deadline_ms, &c->fd, e);
	if (outcome != CLIENT_ANSWERED)
		client_close(c);
	return outcome;
}

void client_bound(struct client *c, unsigned wait_ms)
{
	const struct timeval none = { 0 };

	c->deadline_ms = wait_ms ? now_ms() + wait_ms : 0;
	setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
}

void client_close(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

enum client_outcome client_send(struct client *c, const char *verb, const char *args, struct error *e)
{
	CLEANUP_FREE char *name = jsonspec_string(verb);
	CLEANUP_FREE char *request = NULL;

	if (!name || asprintf(&request, "{\"id\":1,\"verb\":%s,\"args\":%s}\n", name, args ? args : "{}") < 0) {
		request = NULL;
		error_set(e, ENOMEM, "out of memory");
		return CLIENT_BROKEN;
	}
	return send_line(c->fd, c->path, request, strlen(request), c->deadline_ms, e);
}

enum client_outcome client_receive(struct client *c, char **ok, struct error *e)
{
	CLEANUP_FREE char *line = NULL;
	size_t bytes = 0;
	enum client_outcome outcome = receive_line(c->fd, c->path, c->deadline_ms, &line, &bytes, e);

	return outcome == CLIENT_ANSWERED ? read_answer(c->path, line, bytes, ok, e) : outcome;
}

enum client_outcome client_ask(const char *socket_path, const char *verb, const char *args, unsigned wait_ms, char **ok,
			       struct error *e)
{
	struct client c;
	enum client_outcome outcome = client_connect(&c, socket_path, wait_ms, e);

	if (outcome == CLIENT_ANSWERED)
		outcome = client_send(&c, verb, args, e);
	if (outcome == CLIENT_ANSWERED)
		outcome = client_receive(&c, ok, e);
	client_close(&c);
	return outcome;
}

char *client_call(const char *socket_path, const char *verb, const char *args, unsigned wait_ms, struct error *e)
{
	char *ok = NULL;

	return client_ask(socket_path, verb, args, wait_ms, &ok, e) == CLIENT_ANSWERED ? ok : NULL;
}
