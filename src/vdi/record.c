/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * record - what is kept of operations, and who waits for news of them
 *
 * In memory: the live operation and the last few that ended.  On disk, SXM_STATE_DIR/operations/<id>.json, which outlives process
 * and host: written when it begins, before complete=true is said, and when it has ended, before the verbs that caused the end are
 * answered.
 *
 *      {"id":"5e6f.1700000000000","kind":"mirror","failed":false,"complete":false,"text":"","ended":0,
 *       "domain":"3","remote":"nbd://...","path":"/srv/disk.raw","journal":"/srv/disk.raw.mirror"}
 *      {"id":"5e6f.1700000000000","kind":"mirror","failed":true,"complete":false,"text":"why","ended":1700000012, ...}
 *
 * ended 0: a process has it, or it is suspended, as long as its journal is there (journal.h); or it ended with its process.
 * complete with ended 0: that was told.
 *
 * News: a waiter hears once, at the next change of its operation or when its time is over; from its own task, never from
 * the stack of whoever made the change.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "vdi/vdi-private.h"

#define RECORD_MAX 65536u

struct record {
	char *id, *kind, *text, *domain, *remote, *path, *journal; /* borrowed when encoding, owned after decoding */
	bool is_failed, is_complete;
	int64_t ended;
};

static const struct jsonspec_field fields[] = {
	{ .name = "id", .type = JS_STRING, .offset = offsetof(struct record, id) },
	{ .name = "kind", .type = JS_STRING, .offset = offsetof(struct record, kind) },
	{ .name = "failed", .type = JS_BOOL, .offset = offsetof(struct record, is_failed) },
	{ .name = "complete", .type = JS_BOOL, .offset = offsetof(struct record, is_complete) },
	{ .name = "text", .type = JS_STRING, .offset = offsetof(struct record, text) },
	{ .name = "ended", .type = JS_INT64, .offset = offsetof(struct record, ended) },
	{ .name = "domain", .type = JS_STRING, .offset = offsetof(struct record, domain), .is_optional = true },
	{ .name = "remote", .type = JS_STRING, .offset = offsetof(struct record, remote), .is_optional = true },
	{ .name = "path", .type = JS_STRING, .offset = offsetof(struct record, path), .is_optional = true },
	{ .name = "journal", .type = JS_STRING, .offset = offsetof(struct record, journal), .is_optional = true },
	{ .name = NULL },
};
static const struct jsonspec spec = { "operation", sizeof(struct record), fields };

/* --- operations */

struct operation *record_find(const struct vdi *v, const char *id)
{
	struct operation *op;

	TAILQ_FOREACH(op, &v->operations, link)
		if (strcmp(op->id, id) == 0)
			return op;
	return NULL;
}

struct operation *record_by_number(const struct vdi *v, uint64_t number)
{
	struct operation *op;

	TAILQ_FOREACH(op, &v->operations, link)
		if (op->number == number)
			return op;
	return NULL;
}

uint64_t record_number(struct vdi *v)
{
	struct timespec now;
	uint64_t number;

	clock_gettime(CLOCK_REALTIME, &now);
	number = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
	v->last_number = MAX(number, v->last_number + 1);
	return v->last_number;
}

struct operation *record_new(struct vdi *v, const char *domain, bool is_copy)
{
	struct operation *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->number = record_number(v);
	op->vdi = v;
	op->is_copy = is_copy;
	snprintf(op->id, sizeof(op->id), "%s.%" PRIu64, v->id, op->number);
	snprintf(op->domain, sizeof(op->domain), "%s", domain);
	TAILQ_INSERT_TAIL(&v->operations, op, link);
	return op;
}

void record_free(struct vdi *v, struct operation *op)
{
	assert(v->op != op && !op->mirror);
	TAILQ_REMOVE(&v->operations, op, link);
	loop_timer_free(op->timer);
	debt_clear(&op->debt);
	loop_timer_free(op->reach);
	source_log_free(op->outgoing);
	free(op);
}

void record_trim(struct vdi *v)
{
	struct operation *op, *next;
	unsigned ended = 0;

	TAILQ_FOREACH(op, &v->operations, link)
		ended += op->is_ended;
	for (op = TAILQ_FIRST(&v->operations); op && ended > VDI_OPERATIONS_KEPT; op = next) {
		next = TAILQ_NEXT(op, link);
		if (!op->is_ended)
			continue;
		record_free(v, op);
		ended--;
	}
}

/* --- files */

int record_make_dir(struct error *e)
{
	CLEANUP_FREE char *dir = NULL;

	if (asprintf(&dir, "%s/operations", proc_state_dir()) == -1) {
		dir = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (proc_make_dir(proc_state_dir(), e) == -1)
		return -1;
	return proc_make_dir(dir, e);
}

char *record_path(const char *id)
{
	char *path;

	return asprintf(&path, "%s/operations/%s.json", proc_state_dir(), id) == -1 ? NULL : path;
}

static char *borrow(const char *text)
{
	return (char *)(uintptr_t)text;
}

char *record_encode(const struct operation *op)
{
	bool is_over = op->is_ended || op->is_complete || op->is_remembered; /* a disk that was given: nothing is to come */
	const struct record r = {
		.id = borrow(op->id),
		.kind = borrow(op->is_copy ? "copy" : "mirror"),
		.text = borrow(op->why.text),
		.domain = borrow(op->domain),
		.remote = borrow(op->mirror ? mirror_uri(op->mirror) : op->last.remote),
		.path = op->vdi->path,
		.journal = is_over ? NULL : op->debt.journal,
		.is_failed = op->is_failed,
		.is_complete = (op->is_complete || (op->is_told && !op->is_ended)) && !op->is_failed,
		.ended = is_over ? (int64_t)time(NULL) : 0,
	};

	return jsonspec_encode(&spec, &r);
}

bool record_says_ended(const char *id, bool *is_complete)
{
	CLEANUP_FREE char *path = record_path(id), *text = NULL;
	struct error why = { 0 };
	struct record r;
	size_t bytes = 0;
	bool has_ended;

	*is_complete = false;
	if (path)
		text = proc_read_file(path, RECORD_MAX, &bytes, &why);
	if (!text || jsonspec_decode(&spec, text, bytes, &r, &why) == -1)
		return false;
	has_ended = r.ended != 0;
	*is_complete = has_ended && r.is_complete;
	jsonspec_clear(&spec, &r);
	return has_ended;
}

/* --- news */

static void tell(struct loop_task *t)
{
	struct news *n = container_of(t, struct news, task);
	struct vdi *v = n->vdi;

	TAILQ_REMOVE(&v->news, n, link);
	loop_timer_free(n->timer);
	n->done(n->arg);
	free(n);
}

static void on_time(void *arg)
{
	struct news *n = arg;

	loop_defer(n->vdi->loop, &n->task);
}

void record_news(struct vdi *v, const char *id)
{
	struct news *n;

	TAILQ_FOREACH(n, &v->news, link)
		if (strcmp(n->id, id) == 0)
			loop_defer(v->loop, &n->task);
}

void record_drop_news(struct vdi *v)
{
	struct news *n;

	while ((n = TAILQ_FIRST(&v->news))) {
		loop_defer_cancel(v->loop, &n->task);
		tell(&n->task);
	}
}

/* Whether there may be news of it: known, and neither complete nor failed nor over. */
static bool is_going_on(const struct vdi *v, const char *id)
{
	struct vdi_verification_status n;
	struct vdi_operation_status s;

	if (vdi_operation(v, id, &s) == 0)
		return !s.is_complete && !s.is_failed && !s.is_ended;
	return vdi_verification(v, id, &n) == 0 && n.verify.state < VERIFY_COMPLETE;
}

void vdi_wait_news(struct vdi *v, const char *id, unsigned wait_ms, void (*done)(void *arg), void *arg)
{
	struct news *n = calloc(1, sizeof(*n));

	if (!n) {
		done(arg);
		return;
	}
	n->vdi = v;
	n->task.run = tell;
	n->done = done;
	n->arg = arg;
	snprintf(n->id, sizeof(n->id), "%s", id);
	TAILQ_INSERT_TAIL(&v->news, n, link);
	if (wait_ms && is_going_on(v, id))
		n->timer = loop_timer_new(v->loop, on_time, n);
	if (n->timer)
		loop_timer_set(n->timer, wait_ms);
	else
		loop_defer(v->loop, &n->task);
}

/* --- what is said of them */

static double progress_of(const struct core_status *s)
{
	double left = (double)s->dirty_bytes + (double)s->lag_bytes, total = (double)s->total_bytes;

	if (s->state == CORE_CONNECTING)
		return 0.0;
	if (total <= 0.0)
		return left > 0.0 ? 0.0 : 1.0;
	return left >= total ? 0.0 : 1.0 - left / total;
}

static void describe(const struct operation *op, struct vdi_operation_status *out)
{
	memset(out, 0, sizeof(*out));
	if (op->mirror)
		mirror_status(op->mirror, &out->mirror);
	else
		out->mirror = op->last;
	memcpy(out->id, op->id, sizeof(out->id));
	out->is_copy = op->is_copy;
	out->is_ended = op->is_ended || op->is_remembered;
	out->is_remembered = op->is_remembered;
	out->is_given = op->is_given;
	out->is_verified = op->is_verified;
	out->is_failed = op->is_failed || out->mirror.core.state == CORE_FAILED;
	out->is_complete = !out->is_failed && (op->is_said || (op->is_complete && op->is_ended));
	out->progress = out->is_complete ? 1.0 : progress_of(&out->mirror.core);
	out->why = op->is_failed ? op->why : out->mirror.why;
}

/* One that ran when this process's predecessor died, until it goes on or is buried. What was said stays said. */
static void describe_remains(const struct remains *r, struct vdi_operation_status *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->id, r->id, sizeof(out->id));
	out->is_copy = r->is_copy;
	out->is_complete = r->is_told;
}

int vdi_operation(const struct vdi *v, const char *id, struct vdi_operation_status *out)
{
	const struct operation *op = record_find(v, id);

	if (op)
		describe(op, out);
	else if (v->remains.is_there && strcmp(v->remains.id, id) == 0)
		describe_remains(&v->remains, out);
	else
		return -1;
	return 0;
}

size_t vdi_operations(const struct vdi *v, struct vdi_operation_status *out, size_t max)
{
	const struct operation *op;
	size_t n = 0;

	TAILQ_FOREACH(op, &v->operations, link)
		if (n < max)
			describe(op, &out[n++]);
	return n;
}
