/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * transfer - see transfer.h
 *
 *      mirror.start copy:true -> mirror.stat (waits for news) and status (the figures) ... -> complete, failed, or mirror.cancel
 *      verify.start           -> verify.stat                                           ... -> complete, failed, or verify.cancel
 *
 * What a copy may send is said in the file "bandwidth" of the process' directory, so it may be changed by hand while it runs.
 * It is of whatever the process sends: it is there before the copy begins, unless a mirror runs, and is put back at the end.
 */
#include "cmd/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "cmd/live.h"
#include "plugins/process.h"

#define START_MS 60000u
#define ANSWER_MS 30000u /* beyond what it may wait for news */
#define LIMIT_MAX_BYTES 4096u

struct start_args {
	char *domain, *remote;
	bool is_copy;
};
static const struct jsonspec_field start_fields[] = {
	{ "domain", JS_STRING, offsetof(struct start_args, domain) },
	{ "remote", JS_STRING, offsetof(struct start_args, remote) },
	{ "copy", JS_BOOL, offsetof(struct start_args, is_copy) },
	{ NULL },
};
static const struct jsonspec start_spec = { "mirror.start", sizeof(struct start_args), start_fields };

struct compare_args {
	char *remote;
	int64_t rate_bytes;
};
static const struct jsonspec_field compare_fields[] = {
	{ "remote", JS_STRING, offsetof(struct compare_args, remote) },
	{ "rate_bytes", JS_INT64, offsetof(struct compare_args, rate_bytes) },
	{ NULL },
};
static const struct jsonspec compare_spec = { "verify.start", sizeof(struct compare_args), compare_fields };

struct named {
	char *id;
	int64_t wait_ms;
};
static const struct jsonspec_field named_fields[] = {
	{ "id", JS_STRING, offsetof(struct named, id) },
	{ "wait_ms", JS_INT64, offsetof(struct named, wait_ms), .is_optional = true },
	{ NULL },
};
static const struct jsonspec named_spec = { "operation", sizeof(struct named), named_fields };

struct news {
	bool is_failed, is_complete;
	char *text;
};
static const struct jsonspec_field news_fields[] = {
	{ "failed", JS_BOOL, offsetof(struct news, is_failed) },
	{ "complete", JS_BOOL, offsetof(struct news, is_complete) },
	{ "text", JS_STRING, offsetof(struct news, text) },
	{ NULL },
};
static const struct jsonspec news_spec = { "mirror.stat", sizeof(struct news), news_fields };

struct verdict {
	char *state, *text;
	bool is_verified;
	double progress;
	int64_t total, done, rate, different_bytes, unsettled_bytes;
	struct jsonspec_ranges different;
};
#define VERDICT(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct verdict, field) }
static const struct jsonspec_field verdict_fields[] = {
	VERDICT("state", JS_STRING, state), VERDICT("verified", JS_BOOL, is_verified), VERDICT("text", JS_STRING, text),
	VERDICT("progress", JS_FLOAT, progress), VERDICT("total_bytes", JS_INT64, total), VERDICT("done_bytes", JS_INT64, done),
	VERDICT("rate_bytes", JS_INT64, rate), VERDICT("different_bytes", JS_INT64, different_bytes),
	VERDICT("unsettled_bytes", JS_INT64, unsettled_bytes), VERDICT("different", JS_RANGES, different), { .name = NULL },
};
static const struct jsonspec verdict_spec = { "verify.stat", sizeof(struct verdict), verdict_fields };

/* --- started */

static int begin(const struct place *p, const char *verb, const char *args, char id[static TRANSFER_ID_MAX], struct error *e)
{
	CLEANUP_FREE char *ok = NULL;
	struct process process;
	struct named started;
	int r = 0;

	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	if (process_by_path(&process, p->image, e) == -1)
		return -1;
	ok = process_call(&process, verb, args, PROCESS_ONCE, START_MS, e);
	if (!ok || jsonspec_decode(&named_spec, ok, strlen(ok), &started, e) == -1)
		return -1;
	if (snprintf(id, TRANSFER_ID_MAX, "%s", started.id) >= TRANSFER_ID_MAX)
		r = error_set(e, EPROTO, "the operation's name is too long");
	jsonspec_clear(&named_spec, &started);
	return r;
}

/* --- how much it may send */

static char *limit_path(const struct place *p, struct error *e)
{
	struct process process;
	char *path;

	if (process_by_path(&process, p->image, e) == -1)
		return NULL;
	if (asprintf(&path, "%s/bandwidth", process.dir) >= 0)
		return path;
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

static int set_limit(const struct place *p, uint64_t bytes, struct transfer_limit *limit, struct error *e)
{
	CLEANUP_FREE char *path = limit_path(p, e);
	struct error none;
	char text[32];
	int length = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)bytes);

	if (!path)
		return -1;
	limit->before = proc_read_own_file(path, LIMIT_MAX_BYTES, NULL, &none);
	limit->is_set = proc_swap_file(path, text, (size_t)length, 0600, e) == 0;
	return limit->is_set ? 0 : -1;
}

void transfer_unlimit(const struct place *p, struct transfer_limit *limit)
{
	struct error ignored; /* then its process has ended, and its files with it */
	CLEANUP_FREE char *path = limit->is_set ? limit_path(p, &ignored) : NULL;
	CLEANUP_FREE char *before = take_ptr(&limit->before);

	if (path && before)
		proc_swap_file(path, before, strlen(before), 0600, &ignored);
	else if (path)
		unlink(path);
	limit->is_set = false;
}

/* Then another one is refused; and what that may send is not this one's to say. */
static bool is_sending(const struct place *p)
{
	const struct live_operation *o;
	struct error e;
	struct live l;
	bool is_it;

	if (live_ask(p->image, ANSWER_MS, &l, &e) == -1)
		return false;
	o = live_current(&l);
	is_it = o && !o->is_ended;
	live_clear(&l);
	return is_it;
}

int transfer_copy(const struct place *p, const char *domain, const char *remote, uint64_t limit_bytes,
		   struct transfer_limit *limit, char id[static TRANSFER_ID_MAX], struct error *e)
{
	const struct start_args a = { (char *)(uintptr_t)domain, (char *)(uintptr_t)remote, true };
	CLEANUP_FREE char *args = jsonspec_encode(&start_spec, &a);
	struct error ignored;

	*limit = (struct transfer_limit) { 0 };
	if (limit_bytes && !is_sending(p) && set_limit(p, limit_bytes, limit, e) == -1)
		return -1;
	if (begin(p, "mirror.start", args, id, e) == -1)
		return -1;
	if (!limit_bytes || limit->is_set || set_limit(p, limit_bytes, limit, e) == 0) /* the other one has just ended */
		return 0;
	transfer_cancel(p, id, &ignored);
	return -1;
}

int transfer_compare(const struct place *p, const char *remote, uint64_t rate_bytes, char id[static TRANSFER_ID_MAX],
		      struct error *e)
{
	const struct compare_args a = { (char *)(uintptr_t)remote, (int64_t)MIN(rate_bytes, (uint64_t)INT64_MAX) };
	CLEANUP_FREE char *args = jsonspec_encode(&compare_spec, &a);

	return begin(p, "verify.start", args, id, e);
}

/* --- asked about */

static char *ask(const struct place *p, const char *verb, const char *id, unsigned wait_ms, struct error *e)
{
	const struct named named = { (char *)(uintptr_t)id, wait_ms };
	CLEANUP_FREE char *args = jsonspec_encode(&named_spec, &named);
	struct process process;

	if (!args) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	if (process_by_path(&process, p->image, e) == -1)
		return NULL;
	return process_ask(&process, verb, args, wait_ms + ANSWER_MS, e);
}

static uint64_t count(int64_t n)
{
	return n < 0 ? 0 : (uint64_t)n;
}

static void fill_figures(const struct place *p, const char *id, struct transfer_figures *out)
{
	const struct live_operation *o;
	struct error e;
	struct live l;

	out->eta_ms = -1;
	if (live_ask(p->image, ANSWER_MS, &l, &e) == -1)
		return;
	o = l.operations.item;
	for (size_t i = 0; i < l.operations.count; i++) {
		if (strcmp(o[i].id, id) != 0)
			continue;
		out->progress = o[i].progress;
		out->total_bytes = count(o[i].total_bytes);
		out->done_bytes = out->total_bytes - MIN(out->total_bytes, count(o[i].dirty_bytes));
		out->rate_bytes = count(o[i].rate_bytes);
		out->eta_ms = o[i].eta_ms;
	}
	live_clear(&l);
}

int transfer_look(const struct place *p, const char *id, unsigned wait_ms, struct transfer_figures *out, struct error *e)
{
	CLEANUP_FREE char *ok = ask(p, "mirror.stat", id, wait_ms, e);
	struct news n;

	*out = (struct transfer_figures) { 0 };
	if (!ok || jsonspec_decode(&news_spec, ok, strlen(ok), &n, e) == -1)
		return -1;
	out->is_complete = n.is_complete;
	out->is_failed = n.is_failed;
	snprintf(out->why, sizeof(out->why), "%.255s", n.text);
	jsonspec_clear(&news_spec, &n);
	fill_figures(p, id, out);
	return 0;
}

int transfer_cancel(const struct place *p, const char *id, struct error *e)
{
	CLEANUP_FREE char *ok = ask(p, "mirror.destroy", id, 0, e);

	return ok || e->err == ENOENT || e->err == ESRCH ? 0 : -1;
}

int transfer_look_verdict(const struct place *p, const char *id, unsigned wait_ms, struct transfer_verdict *out,
			   struct error *e)
{
	CLEANUP_FREE char *ok = ask(p, "verify.stat", id, wait_ms, e);
	struct verdict v;

	*out = (struct transfer_verdict) { 0 };
	if (!ok || jsonspec_decode(&verdict_spec, ok, strlen(ok), &v, e) == -1)
		return -1;
	*out = (struct transfer_verdict) {
		.is_over = strcmp(v.state, "connecting") != 0 && strcmp(v.state, "running") != 0, .is_same = v.is_verified,
		.progress = v.progress, .total_bytes = count(v.total), .done_bytes = count(v.done), .rate_bytes = count(v.rate),
		.different_bytes = count(v.different_bytes), .unsettled_bytes = count(v.unsettled_bytes),
	};
	if (v.different.count) {
		out->first_start = count(v.different.item[0].start);
		out->first_bytes = count(v.different.item[0].length);
	}
	snprintf(out->why, sizeof(out->why), "%.255s", v.text);
	jsonspec_clear(&verdict_spec, &v);
	return 0;
}

int transfer_stop_comparing(const struct place *p, const char *id, struct error *e)
{
	CLEANUP_FREE char *ok = ask(p, "verify.cancel", id, 0, e);

	return ok || e->err == ENOENT || e->err == ESRCH ? 0 : -1;
}
