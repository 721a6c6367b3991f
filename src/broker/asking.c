/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * asking - see asking.h
 *
 *      connect (at once, or the backlog is full: again in a while) -> the line is sent -> a line comes -> done
 *
 * A process that is stopped, or is busy with something long, keeps nobody waiting but this question; when wait_ms is over that
 * has an end, too.
 */
#include "broker/asking.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"

#define ANSWER_MAX 8192u
#define CONNECT_AGAIN_MS 20u

struct asking {
	struct loop *loop;
	struct sockaddr_un address;
	int fd;                    /* owned */
	struct loop_watch *watch;  /* owned */
	struct loop_timer *timer;  /* owned */
	uint64_t end_ns;
	bool is_connected;
	char *line;                /* owned: what is sent */
	size_t bytes, sent;
	char answer[ANSWER_MAX];
	size_t got;
	asking_done_fn *done;
	void *arg;
};

struct refusal {
	char *code, *text;
};
struct answer {
	struct refusal error;
	bool has_error; /* not the first member: jsonspec takes an offset of 0 for none */
};
static const struct jsonspec_field refusal_fields[] = {
	{ "code", JS_STRING, offsetof(struct refusal, code) },
	{ "text", JS_STRING, offsetof(struct refusal, text) },
	{ NULL },
};
static const struct jsonspec refusal_spec = { "error", sizeof(struct refusal), refusal_fields };
static const struct jsonspec_field answer_fields[] = {
	{ "error", JS_RECORD, offsetof(struct answer, error), .is_optional = true, .has = offsetof(struct answer, has_error),
	  .sub = &refusal_spec },
	{ NULL },
};
static const struct jsonspec answer_spec = { "answer", sizeof(struct answer), answer_fields };

void asking_cancel(struct asking *a)
{
	if (!a)
		return;
	loop_watch_free(a->watch);
	loop_timer_free(a->timer);
	if (a->fd >= 0)
		close(a->fd);
	free(a->line);
	free(a);
}

static void finish(struct asking *a, const struct error *e)
{
	asking_done_fn *done = a->done;
	void *arg = a->arg;

	asking_cancel(a);
	done(arg, e);
}

static void give_up(struct asking *a, int err, const char *what)
{
	struct error e;

	error_set(&e, err, "the process at %s %s", a->address.sun_path, what);
	finish(a, &e);
}

static void read_answer(struct asking *a, size_t bytes)
{
	struct answer answer;
	struct error e = { 0 };

	if (jsonspec_decode(&answer_spec, a->answer, bytes, &answer, &e) == -1) {
		error_prefix(&e, "the process at %s", a->address.sun_path);
		e.err = EPROTO;
	} else {
		if (answer.has_error) {
			int err = error_number(answer.error.code);

			error_set(&e, err == ESRCH ? EIO : err, "%s", answer.error.text);
		}
		jsonspec_clear(&answer_spec, &answer);
	}
	finish(a, &e);
}

static void receive(struct asking *a)
{
	ssize_t n = recv(a->fd, a->answer + a->got, sizeof(a->answer) - a->got, MSG_DONTWAIT);
	char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		give_up(a, ECONNRESET, "went away without an answer");
		return;
	}
	end = memchr(a->answer + a->got, '\n', (size_t)n);
	a->got += (size_t)n;
	if (end)
		read_answer(a, (size_t)(end - a->answer));
	else if (a->got == sizeof(a->answer))
		give_up(a, EPROTO, "says more than an answer has");
}

static void on_socket(void *arg, int events UNUSED)
{
	struct asking *a = arg;

	while (a->sent < a->bytes) {
		ssize_t n = send(a->fd, a->line + a->sent, a->bytes - a->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			give_up(a, ECONNRESET, "went away before it was asked");
			return;
		}
		a->sent += (size_t)n;
	}
	loop_watch_set(a->watch, LOOP_IN);
	receive(a);
}

static void set_end(struct asking *a)
{
	uint64_t now_ns = loop_now_ns();

	loop_timer_set(a->timer, now_ns < a->end_ns ? (a->end_ns - now_ns) / NS_PER_MS + 1 : 0);
}

static void connect_it(struct asking *a)
{
	if (connect(a->fd, (struct sockaddr *)&a->address, sizeof(a->address)) == -1) {
		if (errno == EAGAIN || errno == EINTR)
			loop_timer_set(a->timer, CONNECT_AGAIN_MS);
		else if (errno == ECONNREFUSED || errno == ENOENT || errno == ENOTDIR)
			give_up(a, ESRCH, "is not there");
		else
			give_up(a, errno, "cannot be reached");
		return;
	}
	a->is_connected = true;
	set_end(a);
	a->watch = loop_watch_new(a->loop, a->fd, LOOP_IN | LOOP_OUT, on_socket, a);
	if (!a->watch)
		give_up(a, ENOMEM, "cannot be watched: out of memory");
}

static void on_timer(void *arg)
{
	struct asking *a = arg;

	if (loop_now_ns() >= a->end_ns)
		give_up(a, ETIMEDOUT, "has not answered");
	else if (!a->is_connected)
		connect_it(a);
	else
		set_end(a);
}

struct asking *asking_new(struct loop *l, const char *socket_path, const char *verb, const char *args, unsigned wait_ms,
			  asking_done_fn *done, void *arg, struct error *e)
{
	struct asking *a = calloc(1, sizeof(*a));

	if (!a || strlen(socket_path) >= sizeof(a->address.sun_path))
		goto fail;
	a->loop = l;
	a->fd = -1;
	a->address.sun_family = AF_UNIX;
	memcpy(a->address.sun_path, socket_path, strlen(socket_path) + 1);
	if (asprintf(&a->line, "{\"verb\":\"%s\",\"args\":%s}\n", verb, args) < 0) {
		a->line = NULL;
		goto fail;
	}
	a->bytes = strlen(a->line);
	a->end_ns = loop_now_ns() + wait_ms * NS_PER_MS;
	a->done = done;
	a->arg = arg;
	a->timer = loop_timer_new(l, on_timer, a);
	a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (!a->timer || a->fd < 0)
		goto fail;
	loop_timer_set(a->timer, 0); /* not in the caller's stack */
	return a;
fail:
	asking_cancel(a);
	error_set(e, ENOMEM, "no memory or descriptor to ask %s", socket_path);
	return NULL;
}
