/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dispatch - a line of PROTOCOL.control becomes a call of the vdi room, its outcome a line
 *
 *      line --request_spec--> verb --its args_spec--> struct args --fn--> vdi_*() ... dispatch_done --> {"id":N,"ok":...}
 *                                                                                                  '-> {"id":N,"error":...}
 *
 * Knows the verbs' names and records; src/PROTOCOL.control is their text.  A verb is one row of the table at the end; what
 * mirror.* and verify.* do is in dispatch-mirror.
 * Can fail: whatever the client sent; each mistake is one sentence.
 * Invariant: a call is answered once and freed then; it owns its arguments until that moment.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/log.h"
#include "control/dispatch-private.h"
#include "control/report.h"
#include "vdi/domains.h"

#define PATIENCE_MS 30000
#define PATIENCE_MS_MAX 600000
#define HOLD_MS 5000
#define HOLD_MS_MAX 10000

/* --- what comes in */

struct request {
	int64_t id;
	char *verb, *args; /* owned */
};
static const struct jsonspec_field request_fields[] = {
	{ .name = "id", .type = JS_INT64, .offset = offsetof(struct request, id), .is_optional = true },
	{ .name = "verb", .type = JS_STRING, .offset = offsetof(struct request, verb) },
	{ .name = "args", .type = JS_TEXT, .offset = offsetof(struct request, args), .is_optional = true },
	{ .name = NULL },
};
static const struct jsonspec request_spec = { "request", sizeof(struct request), request_fields };

#define ARG(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct args, field) }
#define OPTION(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct args, field), .is_optional = true }
#define ARGS(verb, ...) \
	static const struct jsonspec_field verb##_fields[] = { __VA_ARGS__, { .name = NULL } }; \
	static const struct jsonspec verb##_args = { "args", sizeof(struct args), verb##_fields }

static const struct jsonspec_field no_fields[] = { { .name = NULL } };
static const struct jsonspec no_args = { "args", sizeof(struct args), no_fields };
ARGS(domain, ARG("domain", JS_STRING, domain));
ARGS(activate, ARG("domain", JS_STRING, domain), OPTION("read_only", JS_BOOL, is_read_only),
     OPTION("force", JS_BOOL, is_forced));
ARGS(force, OPTION("force", JS_BOOL, is_forced));
ARGS(listen, ARG("domain", JS_STRING, domain), ARG("host", JS_STRING, host), OPTION("port", JS_INT64, port),
     { .name = "tls", .type = JS_RECORD, .offset = offsetof(struct args, tls), .is_optional = true,
       .has = offsetof(struct args, has_tls), .sub = &domains_tls_spec });
ARGS(figures, ARG("domain", JS_STRING, domain), ARG("vm", JS_STRING, vm), ARG("device", JS_STRING, device));
ARGS(vbd, ARG("domain", JS_STRING, domain), ARG("backend", JS_STRING, backend), OPTION("eager", JS_BOOL, is_eager));
ARGS(drop, ARG("domain", JS_STRING, domain), ARG("backend", JS_STRING, backend));
ARGS(start, ARG("domain", JS_STRING, domain), ARG("remote", JS_STRING, remote), OPTION("copy", JS_BOOL, is_copy),
     OPTION("mode", JS_STRING, mode), OPTION("resume", JS_BOOL, is_resume), OPTION("base", JS_STRING, base),
OPTION("blocksize", JS_INT64, blocksize),
     { .name = "ranges", .type = JS_RANGES, .offset = offsetof(struct args, ranges), .is_optional = true,
       .has = offsetof(struct args, has_ranges) });
ARGS(verify, OPTION("remote", JS_STRING, remote),
     { .name = "rate_bytes", .type = JS_INT64, .offset = offsetof(struct args, rate_bytes), .is_optional = true,
       .has = offsetof(struct args, has_rate) },
     { .name = "ranges", .type = JS_RANGES, .offset = offsetof(struct args, ranges), .is_optional = true,
       .has = offsetof(struct args, has_ranges) });
ARGS(operation, ARG("id", JS_STRING, id));
ARGS(group, ARG("group", JS_STRING, group));
ARGS(prepare, ARG("domain", JS_STRING, domain), ARG("group", JS_STRING, group), OPTION("patience_ms", JS_INT64, wait_ms));
ARGS(path, ARG("path", JS_STRING, path));
ARGS(recall, ARG("mirror", JS_STRING, mirror), ARG("epoch", JS_STRING, epoch));
ARGS(snapshot, ARG("path", JS_STRING, path), OPTION("volume", JS_STRING, volume));
ARGS(hold, ARG("path", JS_STRING, path), OPTION("volume", JS_STRING, volume), OPTION("patience_ms", JS_INT64, wait_ms),
     OPTION("bound", JS_BOOL, is_bound));
ARGS(pause, OPTION("resize", JS_BOOL, is_resize));
ARGS(resize, ARG("size_bytes", JS_INT64, size_bytes));
ARGS(mode, ARG("id", JS_STRING, id), ARG("mode", JS_STRING, mode));
ARGS(stat, ARG("id", JS_STRING, id), OPTION("wait_ms", JS_INT64, wait_ms));

struct verb {
	const char *name;
	const struct jsonspec *args;
	void (*fn)(struct call *c);
	/* What "ok" says; heap; NULL: out of memory. */
	char *(*ok)(struct call *c);
};

/* --- what goes out */

static char *empty(struct call *c UNUSED)
{
	return strdup("{}");
}

static char *error_line(int64_t id, const struct error *e)
{
	CLEANUP_FREE char *text = jsonspec_string(e->text);
	char *line;

	if (!text || asprintf(&line, "{\"id\":%" PRId64 ",\"error\":{\"code\":\"%s\",\"text\":%s}}", id,
			      error_name(e->err), text) == -1)
		return NULL;
	return line;
}

static char *ok_line(struct call *c)
{
	CLEANUP_FREE char *ok = c->verb->ok(c);
	char *line;

	if (!ok || asprintf(&line, "{\"id\":%" PRId64 ",\"ok\":%s}", c->id, ok) == -1)
		return NULL;
	return line;
}

static void call_free(struct call *c)
{
	if (c->verb)
		jsonspec_clear(c->verb->args, &c->args);
	free(c);
}

void dispatch_done(void *arg, const struct error *e)
{
	struct call *c = arg;

	server_answer(c->q, e ? error_line(c->id, e) : ok_line(c));
	call_free(c);
}

void dispatch_fail(struct call *c, int err, const char *text)
{
	struct error e = { 0 };

	error_set(&e, err, "%s", text);
	dispatch_done(c, &e);
}

/* --- the verbs */

static void on_now(struct call *c)
{
	dispatch_done(c, NULL);
}

static char *hello_ok(struct call *c)
{
	return report_hello(c->d->id, c->d->path);
}

static char *status_ok(struct call *c)
{
	vdi_watch(c->d->vdi);
	return report_status(c->d->vdi, c->d->id, c->d->path);
}

static char *list_ok(struct call *c)
{
	return report_list(c->d->vdi);
}

static void on_attach(struct call *c)
{
	vdi_attach(c->d->vdi, c->args.domain, c->text, sizeof(c->text), dispatch_done, c);
}

static char *attach_ok(struct call *c)
{
	return report_attach(c->text, c->d->id);
}

static void on_activate(struct call *c)
{
	vdi_activate(c->d->vdi, c->args.domain, c->args.is_read_only, c->args.is_forced, dispatch_done, c);
}

static void on_deactivate(struct call *c)
{
	vdi_deactivate(c->d->vdi, c->args.domain, dispatch_done, c);
}

static void on_prepare(struct call *c)
{
	int64_t patience_ms = c->args.wait_ms ? c->args.wait_ms : PATIENCE_MS;

	if (patience_ms < 1 || patience_ms > PATIENCE_MS_MAX)
		dispatch_fail(c, EINVAL, "patience_ms is between 1 and 600000");
	else
		vdi_prepare(c->d->vdi, c->args.domain, c->args.group, (unsigned)patience_ms, dispatch_done, c);
}

static void on_group_commit(struct call *c)
{
	vdi_follow(c->d->vdi, c->args.group, true, dispatch_done, c);
}

static void on_group_cancel(struct call *c)
{
	vdi_follow(c->d->vdi, c->args.group, false, dispatch_done, c);
}

static void on_detach(struct call *c)
{
	vdi_detach(c->d->vdi, c->args.domain, dispatch_done, c);
}

static void on_take(struct call *c)
{
	vdi_take(c->d->vdi, c->args.is_forced, dispatch_done, c);
}

static void on_drop(struct call *c)
{
	vdi_drop(c->d->vdi, dispatch_done, c);
}

static void on_recall(struct call *c)
{
	char *end;
	uint64_t epoch = strtoull(c->args.epoch, &end, 10);

	if (!epoch || *end)
		dispatch_fail(c, EINVAL, "epoch is a number, as text");
	else
		vdi_recall(c->d->vdi, c->args.mirror, epoch, dispatch_done, c);
}

static void on_destroy_volume(struct call *c)
{
	vdi_destroy(c->d->vdi, c->args.is_forced, dispatch_done, c);
}

static void on_listen(struct call *c)
{
	if (c->args.port < 0 || c->args.port > UINT16_MAX)
		dispatch_fail(c, EINVAL, "a port is between 0 (any) and 65535");
	else
		vdi_listen(c->d->vdi, c->args.domain, c->args.host, (uint16_t)c->args.port, c->args.has_tls ? &c->args.tls : NULL,
			   &c->port, dispatch_done, c);
}

static void on_figures(struct call *c)
{
	vdi_figures(c->d->vdi, c->args.domain, c->args.vm, c->args.device, dispatch_done, c);
}

static void on_vbd(struct call *c)
{
	vdi_device(c->d->vdi, c->args.domain, c->args.backend, c->args.is_eager, dispatch_done, c);
}

static void on_vbd_drop(struct call *c)
{
	vdi_device_drop(c->d->vdi, c->args.domain, c->args.backend, dispatch_done, c);
}

static void on_import(struct call *c)
{
	vdi_import(c->d->vdi, c->args.domain, c->text, sizeof(c->text), dispatch_done, c);
}

/* A record of c->text alone. */
char *dispatch_text_ok(const struct call *c, const char *name)
{
	CLEANUP_FREE char *value = jsonspec_string(c->text);
	char *text;

	return !value || asprintf(&text, "{\"%s\":%s}", name, value) == -1 ? NULL : text;
}

static char *import_ok(struct call *c)
{
	return dispatch_text_ok(c, "socket");
}

static void on_merge(struct call *c)
{
	vdi_merge(c->d->vdi, dispatch_done, c);
}

/* Whoever says it waits for nothing. */
static void on_expect(struct call *c)
{
	vdi_expect(c->d->vdi);
	dispatch_done(c, NULL);
}

static char *listen_ok(struct call *c)
{
	char *text;

	return asprintf(&text, "{\"port\":%u}", c->port) == -1 ? NULL : text;
}

static void on_snapshot(struct call *c)
{
	vdi_snapshot(c->d->vdi, c->args.path, c->args.volume, &c->snapshot, dispatch_done, c);
}

static void on_snapshot_hold(struct call *c)
{
	int64_t patience_ms = c->args.wait_ms ? c->args.wait_ms : HOLD_MS;
	struct server_request *q = c->q;
	bool is_bound = c->args.is_bound;
	uint64_t number;

	if (patience_ms < 1 || patience_ms > HOLD_MS_MAX) {
		dispatch_fail(c, EINVAL, "patience_ms is between 1 and 10000");
		return;
	}
	number = vdi_snapshot_hold(c->d->vdi, c->args.path, c->args.volume, (unsigned)patience_ms, dispatch_done, c);
	if (number && is_bound)
		server_mind(q, number);
}

static void on_snapshot_go(struct call *c)
{
	vdi_snapshot_go(c->d->vdi, c->args.path, true, &c->snapshot, dispatch_done, c);
}

static void on_snapshot_cancel(struct call *c)
{
	vdi_snapshot_go(c->d->vdi, c->args.path, false, NULL, dispatch_done, c);
}

static char *snapshot_ok(struct call *c)
{
	return report_snapshot(&c->snapshot);
}

static void on_cbt_enable(struct call *c)
{
	vdi_track(c->d->vdi, true, dispatch_done, c);
}

static void on_cbt_disable(struct call *c)
{
	vdi_track(c->d->vdi, false, dispatch_done, c);
}

static void on_cbt_save(struct call *c)
{
	vdi_track_save(c->d->vdi, c->args.path, dispatch_done, c);
}

static void on_resize(struct call *c)
{
	if (c->args.size_bytes < 0)
		dispatch_fail(c, EINVAL, "size_bytes is negative");
	else
		vdi_resize(c->d->vdi, (uint64_t)c->args.size_bytes, dispatch_done, c);
}

/* In force as long as the connection is. */
static void on_pause(struct call *c)
{
	struct server_request *q = c->q;
	uint64_t number = vdi_pause(c->d->vdi, c->args.is_resize, dispatch_done, c);

	if (number)
		server_mind(q, number);
}

static void on_unpause(struct call *c)
{
	vdi_unpause(c->d->vdi, dispatch_done, c);
}

void dispatch_gone(void *arg, uint64_t number)
{
	const struct dispatch *d = arg;

	vdi_hold_is_over(d->vdi, number);
}

static const struct verb verbs[] = {
	{ "hello", &no_args, on_now, hello_ok },
	{ "attach", &domain_args, on_attach, attach_ok },
	{ "activate", &activate_args, on_activate, empty },
	{ "deactivate", &domain_args, on_deactivate, empty },
	{ "detach", &domain_args, on_detach, empty },
	{ "handover.prepare", &prepare_args, on_prepare, empty },
	{ "handover.commit", &group_args, on_group_commit, empty },
	{ "handover.cancel", &group_args, on_group_cancel, empty },
	{ "snapshot", &snapshot_args, on_snapshot, snapshot_ok },
	{ "snapshot.hold", &hold_args, on_snapshot_hold, empty },
	{ "snapshot.go", &path_args, on_snapshot_go, snapshot_ok },
	{ "snapshot.cancel", &path_args, on_snapshot_cancel, empty },
	{ "cbt.enable", &no_args, on_cbt_enable, empty },
	{ "cbt.disable", &no_args, on_cbt_disable, empty },
	{ "cbt.save", &path_args, on_cbt_save, empty },
	{ "resize", &resize_args, on_resize, empty },
	{ "pause", &pause_args, on_pause, empty },
	{ "resume", &no_args, on_unpause, empty },
	{ "destroy", &force_args, on_destroy_volume, empty },
	{ "epoch.take", &force_args, on_take, empty },
	{ "epoch.drop", &no_args, on_drop, empty },
	{ "epoch.recall", &recall_args, on_recall, empty },
	{ "listen", &listen_args, on_listen, listen_ok },
	{ "figures", &figures_args, on_figures, empty },
	{ "vbd", &vbd_args, on_vbd, empty },
	{ "vbd.drop", &drop_args, on_vbd_drop, empty },
	{ "import", &domain_args, on_import, import_ok },
	{ "merge", &no_args, on_merge, empty },
	{ "expect", &no_args, on_expect, empty },
	{ "mirror.start", &start_args, dispatch_mirror_start, dispatch_mirror_start_ok },
	{ "mirror.mode", &mode_args, dispatch_mirror_mode, empty },
	{ "mirror.stat", &stat_args, dispatch_mirror_stat, dispatch_mirror_stat_ok },
	{ "mirror.cancel", &operation_args, dispatch_mirror_cancel, empty },
	{ "mirror.destroy", &operation_args, dispatch_mirror_destroy, empty },
	{ "mirror.list", &no_args, on_now, list_ok },
	{ "verify.start", &verify_args, dispatch_mirror_verify, dispatch_mirror_start_ok },
	{ "verify.stat", &stat_args, dispatch_mirror_verify_stat, dispatch_mirror_verify_stat_ok },
	{ "verify.cancel", &operation_args, dispatch_mirror_verify_cancel, empty },
	{ "status", &no_args, on_now, status_ok },
};

/* --- a line */

static const struct verb *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static int decode(struct call *c, const char *line, size_t bytes, struct error *e)
{
	struct request r;
	const char *args;
	int result;

	if (jsonspec_decode(&request_spec, line, bytes, &r, e) == -1)
		return -1;
	c->id = r.id;
	c->verb = find(r.verb);
	args = r.args ? r.args : "{}";
	if (!c->verb)
		result = error_set(e, ENOSYS, "there is no verb %.60s", r.verb);
	else
		result = jsonspec_decode(c->verb->args, args, strlen(args), &c->args, e);
	if (result == -1 && c->verb)
		error_prefix(e, "%s", c->verb->name);
	jsonspec_clear(&request_spec, &r);
	return result;
}

void dispatch_line(void *arg, struct server_request *q, const char *line, size_t bytes)
{
	struct call *c = calloc(1, sizeof(*c));
	struct error e = { 0 };

	if (!c) {
		server_answer(q, NULL);
		return;
	}
	c->d = arg;
	c->q = q;
	if (decode(c, line, bytes, &e) == -1)
		dispatch_done(c, &e);
	else
		c->verb->fn(c);
}
