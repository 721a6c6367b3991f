/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay - see relay.h
 *
 *      read -> a whole line? -> relay_line() -> write
 *                 |                 '-- a stream: what was read beyond the line goes first, then the pump, then the end
 *                 '-- too long: said, and the end
 *
 * Can fail: memory, and whoever is on the other end, in any way.
 */
#include "migrate/relay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "migrate/pump.h"

struct question {
	int64_t id;
	char *verb, *args;
};
static const struct jsonspec_field question_fields[] = {
	{ "id", JS_INT64, offsetof(struct question, id), .is_optional = true },
	{ "verb", JS_STRING, offsetof(struct question, verb) },
	{ "args", JS_TEXT, offsetof(struct question, args), .is_optional = true },
	{ NULL },
};
static const struct jsonspec question_spec = { "question", sizeof(struct question), question_fields };

void relay_reply_clear(struct relay_reply *r)
{
	free(r->ok);
	if (r->stream >= 0)
		close(r->stream);
	*r = (struct relay_reply) { .stream = -1 };
}

static char *say_error(int64_t id, const struct error *e)
{
	CLEANUP_FREE char *text = jsonspec_string(e->text);
	char *line = NULL;

	if (!text || asprintf(&line, "{\"id\":%" PRId64 ",\"error\":{\"code\":\"%s\",\"text\":%s}}\n", id, error_name(e->err),
			      text) < 0)
		return NULL;
	return line;
}

static char *say_ok(int64_t id, const char *ok)
{
	char *line = NULL;

	return asprintf(&line, "{\"id\":%" PRId64 ",\"ok\":%s}\n", id, ok) < 0 ? NULL : line;
}

static int run(const struct relay_table *t, const struct question *q, struct relay_reply *r, struct error *e)
{
	for (const struct relay_verb *v = t->verb; v->name; v++)
		if (strcmp(v->name, q->verb) == 0)
			return v->run(q->args ? q->args : "{}", r, e);
	return error_set(e, ENOSYS, "a relay of this sxm has no verb %.60s", q->verb);
}

char *relay_line(const struct relay_table *t, const char *line, size_t bytes, struct relay_reply *r)
{
	struct question q = { 0 };
	struct error e = { 0 };
	char *answer;

	*r = (struct relay_reply) { .stream = -1 };
	if (jsonspec_decode(&question_spec, line, bytes, &q, &e) == -1)
		return say_error(0, &e);
	if (run(t, &q, r, &e) == 0) {
		r->id = q.id;
		answer = say_ok(q.id, r->ok ? r->ok : "{}");
	} else {
		relay_reply_clear(r);
		answer = say_error(q.id, &e);
	}
	jsonspec_clear(&question_spec, &q);
	return answer;
}

char *relay_refuse(void)
{
	struct error e;

	error_set(&e, E2BIG, "a line has more than %u bytes", RELAY_LINE_MAX);
	return say_error(0, &e);
}

/* --- standard input and output */

struct service {
	const struct relay_table *table;
	int in, out;
	char *buffer; /* owned: RELAY_LINE_MAX + 1 bytes */
	size_t used;
};

static int say(const struct service *s, char *text)
{
	CLEANUP_FREE char *line = text;
	const char *from = line;
	size_t left = line ? strlen(line) : 0;

	while (left) {
		ssize_t n = write(s->out, from, left);

		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0) {
			from += n;
			left -= (size_t)n;
		}
	}
	return line ? 0 : -1;
}

/* 1: more came; 0: the end; -1: broken. */
static int read_more(struct service *s)
{
	ssize_t n;

	do
		n = read(s->in, s->buffer + s->used, RELAY_LINE_MAX + 1 - s->used);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return (int)n;
	s->used += (size_t)n;
	return 1;
}

static void forget(struct service *s, size_t bytes)
{
	s->used -= bytes;
	memmove(s->buffer, s->buffer + bytes, s->used);
}

static int swallow(struct service *s, const struct relay_reply *r)
{
	uint64_t bytes = r->swallow_bytes;

	while (bytes) {
		size_t some = MIN((uint64_t)s->used, bytes);

		forget(s, some);
		bytes -= some;
		if (bytes && read_more(s) <= 0)
			return -1;
	}
	return say(s, say_ok(r->id, "{}"));
}

static int carry(struct service *s, const struct relay_reply *r)
{
	const struct pump_end caller = { s->in, s->out, r->is_squeezed }, disk = { r->stream, r->stream, false };
	struct error e;

	int ended = pump_run(&caller, &disk, s->buffer, s->used, &e);

	s->used = 0;
	if (ended == -1)
		log_info("a disk's connection ended: %s", e.text);
	return 0;
}

/* 1: go on. */
static int follow(struct service *s, struct relay_reply *r)
{
	if (r->stream >= 0) {
		carry(s, r);
		return 0;
	}
	return !r->swallow_bytes || swallow(s, r) == 0 ? 1 : -1;
}

/* 1: go on; 0: that was all; -1: broken. */
static int take_line(struct service *s)
{
	char *end = memchr(s->buffer, '\n', s->used);
	struct relay_reply r;
	char *answer;
	int next;

	if (!end && s->used > RELAY_LINE_MAX) {
		say(s, relay_refuse());
		return -1;
	}
	if (!end)
		return read_more(s);
	answer = relay_line(s->table, s->buffer, (size_t)(end - s->buffer), &r);
	forget(s, (size_t)(end - s->buffer) + 1);
	next = say(s, answer) == 0 ? follow(s, &r) : -1;
	relay_reply_clear(&r);
	return next;
}

int relay_serve(const struct relay_table *t, int in, int out)
{
	struct service s = { .table = t, .in = in, .out = out, .buffer = malloc(RELAY_LINE_MAX + 1) };
	int next = s.buffer ? 1 : -1;

	while (next == 1)
		next = take_line(&s);
	next = next == 0 && s.used ? 1 : next; /* in the middle of a line */
	free(s.buffer);
	return next == 0 ? 0 : 1;
}
