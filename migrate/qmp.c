/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qmp - see qmp.h
 *
 *      connect --{"QMP":...}--> "qmp_capabilities" --{"return":{}}--> agreed: command out, lines in until the one with its id
 *                                                                          events, and whatever else has no id, go by
 *
 * Can fail: no socket; a socket where nobody accepts, since another client has it; lines that never end; a QEMU that dies.
 */
#include "migrate/qmp.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"

#define LINE_MAX_BYTES (4u << 20)
#define FIRST_BYTES 4096u

struct refusal {
	char *kind, *text;
};
static const struct jsonspec_field refusal_fields[] = {
	{ "class", JS_STRING, offsetof(struct refusal, kind), .is_optional = true },
	{ "desc", JS_STRING, offsetof(struct refusal, text) }, { NULL },
};
static const struct jsonspec refusal_spec = { "error", sizeof(struct refusal), refusal_fields };
struct message {
	char *greeting, *event, *result;
	int64_t id;
	bool has_id, has_refusal;
	struct refusal refusal;
};
#define MESSAGE(name, kind, member) { name, kind, offsetof(struct message, member), .is_optional = true }
static const struct jsonspec_field message_fields[] = {
	MESSAGE("QMP", JS_TEXT, greeting), MESSAGE("event", JS_STRING, event), MESSAGE("return", JS_TEXT, result),
	{ "id", JS_INT64, offsetof(struct message, id), .is_optional = true, .has = offsetof(struct message, has_id) },
	{ "error", JS_RECORD, offsetof(struct message, refusal), .is_optional = true,
	  .has = offsetof(struct message, has_refusal), .sub = &refusal_spec }, { NULL },
};
static const struct jsonspec message_spec = { "message", sizeof(struct message), message_fields };

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / (long)NS_PER_MS;
}

void qmp_init(struct qmp *q, const char *path)
{
	*q = (struct qmp) { .path = path, .fd = -1 };
}

void qmp_fini(struct qmp *q)
{
	if (q->fd >= 0)
		close(q->fd);
	free(q->buffer);
	qmp_init(q, q->path);
}

/* -1; there is no connection any more. */
static int lose(struct qmp *q, struct error *e)
{
	qmp_fini(q);
	return error_prefix(e, "the QEMU at %s", q->path);
}

/* --- bytes */

/* -1 + e: until_ms is over. */
static int wait_for(const struct qmp *q, short what, int64_t until_ms, struct error *e)
{
	struct pollfd poller = { .fd = q->fd, .events = what };

	for (;;) {
		int64_t left_ms = until_ms - now_ms();
		int r = left_ms > 0 ? poll(&poller, 1, (int)MIN(left_ms, (int64_t)60000)) : 0;

		if (r > 0)
			return 0;
		if (left_ms <= 0)
			return error_set(e, ETIMEDOUT, "it does not answer: is another client connected to that socket?");
		if (r < 0 && errno != EINTR)
			return error_errno(e, errno, "wait for it");
	}
}

static int say_lost(struct error *e)
{
	return error_set(e, ECONNRESET, "it has ended, or hung up");
}

/* The first byte takes the descriptor with it. passed -1: none. */
static ssize_t send_some(const struct qmp *q, const char *from, size_t bytes, int passed)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec data = { .iov_base = (void *)(uintptr_t)from, .iov_len = bytes };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1 };

	if (passed >= 0) {
		struct cmsghdr *c;

		m.msg_control = control.bytes;
		m.msg_controllen = sizeof(control.bytes);
		c = CMSG_FIRSTHDR(&m);
		*c = (struct cmsghdr) { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(c), &passed, sizeof(int));
	}
	return sendmsg(q->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int send_all(const struct qmp *q, const char *from, size_t left, int passed, int64_t until_ms, struct error *e)
{
	while (left) {
		ssize_t n = wait_for(q, POLLOUT, until_ms, e) == 0 ? send_some(q, from, left, passed) : -1;

		if (n < 0 && e->err)
			return -1;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return errno == EPIPE || errno == ECONNRESET ? say_lost(e) : error_errno(e, errno, "send to it");
		if (n > 0) {
			from += n;
			left -= (size_t)n;
			passed = -1;
		}
	}
	return 0;
}

static int read_some(struct qmp *q, int64_t until_ms, struct error *e)
{
	ssize_t n;

	if (q->used == q->room) {
		size_t room = q->room ? 2 * q->room : FIRST_BYTES;
		char *more = room <= LINE_MAX_BYTES ? realloc(q->buffer, room) : NULL;

		if (!more)
			return error_set(e, EPROTO, "what it says has no end");
		q->buffer = more;
		q->room = room;
	}
	if (wait_for(q, POLLIN, until_ms, e) == -1)
		return -1;
	n = recv(q->fd, q->buffer + q->used, q->room - q->used, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
		return say_lost(e);
	q->used += n > 0 ? (size_t)n : 0;
	return 0;
}

/* --- messages */

/* m is the caller's to clear, where 0. */
static int hear(struct qmp *q, struct message *m, int64_t until_ms, struct error *e)
{
	char *end;
	int r;

	while (!(end = q->used ? memchr(q->buffer, '\n', q->used) : NULL))
		if (read_some(q, until_ms, e) == -1)
			return -1;
	r = jsonspec_decode(&message_spec, q->buffer, (size_t)(end - q->buffer), m, e);
	q->used -= (size_t)(end - q->buffer) + 1;
	memmove(q->buffer, end + 1, q->used);
	if (r == -1)
		error_set(e, EPROTO, "what is there speaks no QMP");
	return r;
}

/* 1: the answer to that question is still to come. 0: *result. -1 + e: refused, or no QMP. */
static int take(struct message *m, int64_t id, char **result, struct error *e)
{
	if (!m->has_id && m->has_refusal)
		return error_set(e, EPROTO, "it did not understand: %s", m->refusal.text);
	if (!m->has_id || m->event || m->id != id)
		return 1;
	if (m->has_refusal)
		return error_set(e, EREMOTEIO, "it refused: %.300s", m->refusal.text);
	if (!m->result)
		return error_set(e, EPROTO, "its answer has neither a result nor an error");
	*result = take_ptr(&m->result);
	return 0;
}

static char *await_answer(struct qmp *q, int64_t id, int64_t until_ms, struct error *e)
{
	char *result = NULL;
	int r = 1;

	while (r == 1) {
		struct message m;

		r = hear(q, &m, until_ms, e);
		if (r == -1)
			break;
		r = take(&m, id, &result, e);
		jsonspec_clear(&message_spec, &m);
	}
	return result;
}

static char *ask(struct qmp *q, const char *command, const char *args, int passed, int64_t until_ms, struct error *e)
{
	CLEANUP_FREE char *name = jsonspec_string(command);
	CLEANUP_FREE char *line = NULL;
	int64_t id = ++q->next_id;

	if (!name || asprintf(&line, "{\"execute\":%s,\"id\":%" PRId64 "%s%s}\n", name, id, args ? ",\"arguments\":" : "",
			      args ? args : "") < 0) {
		line = NULL;
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	if (send_all(q, line, strlen(line), passed, until_ms, e) == -1)
		return NULL;
	return await_answer(q, id, until_ms, e);
}

/* --- the connection */

static int greet(struct qmp *q, int64_t until_ms, struct error *e)
{
	CLEANUP_FREE char *agreed = NULL;
	struct message m;
	bool is_qmp;

	if (hear(q, &m, until_ms, e) == -1)
		return -1;
	is_qmp = m.greeting;
	jsonspec_clear(&message_spec, &m);
	if (!is_qmp)
		return error_set(e, EPROTO, "what is there speaks no QMP");
	agreed = ask(q, "qmp_capabilities", NULL, -1, until_ms, e);
	return agreed ? 0 : -1;
}

static int reach(struct qmp *q, int64_t until_ms, struct error *e)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (q->fd >= 0)
		return 0;
	if (*q->path != '/' || strlen(q->path) >= sizeof(addr.sun_path))
		return error_set(e, EINVAL, "%.150s is no path of a QEMU's QMP socket", q->path);
	strcpy(addr.sun_path, q->path);
	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (q->fd < 0)
		return error_errno(e, errno, "make a socket");
	if (connect(q->fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return greet(q, until_ms, e);
	if (errno == EAGAIN)
		return error_set(e, EBUSY, "another client is connected to that socket");
	if (errno == ENOENT || errno == ECONNREFUSED)
		return error_set(e, ESRCH, "there is none");
	return error_errno(e, errno, "connect to it");
}

static char *ask_with(struct qmp *q, const char *command, const char *args, int passed, unsigned wait_ms, struct error *e)
{
	int64_t until_ms = now_ms() + wait_ms;
	char *result;

	error_clear(e);
	result = reach(q, until_ms, e) == 0 ? ask(q, command, args, passed, until_ms, e) : NULL;
	if (!result && e->err == EREMOTEIO)
		error_prefix(e, "the QEMU at %s: %s", q->path, command);
	else if (!result)
		lose(q, e);
	return result;
}

char *qmp_ask(struct qmp *q, const char *command, const char *args, unsigned wait_ms, struct error *e)
{
	return ask_with(q, command, args, -1, wait_ms, e);
}

int qmp_pass(struct qmp *q, const char *name, int fd, unsigned wait_ms, struct error *e)
{
	CLEANUP_FREE char *quoted = jsonspec_string(name);
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *result = NULL;

	if (!quoted || asprintf(&args, "{\"fdname\":%s}", quoted) < 0) {
		args = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	result = ask_with(q, "getfd", args, fd, wait_ms, e);
	return result ? 0 : -1;
}

int qmp_await_end(struct qmp *q, unsigned wait_ms, struct error *e)
{
	int64_t until_ms = now_ms() + wait_ms;
	struct message m;

	while (q->fd >= 0 && hear(q, &m, until_ms, e) == 0)
		jsonspec_clear(&message_spec, &m);
	if (q->fd >= 0)
		lose(q, e);
	return e->err == ECONNRESET ? 0 : -1;
}
