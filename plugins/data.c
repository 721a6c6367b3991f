/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * data - the Data.* verbs: a mirror or a copy is an operation of the image's process
 *
 *      "<vdi id>.<number>": its first part names the process, so a later call finds it without the URI.
 *      The process is gone, or does not know it any more: its record says how it ended, or that it has not (records.h).
 *      It has not, and another process can take it up: that is started, and asked.  None can yet, as after a reboot, before the
 *      disk is active again: it is suspended, neither failed nor, unless that was said before, complete.
 *
 * Data.stat never fails for what an operation did or did not do: xapi takes a failing stat on its late paths for the reason to
 * skip cleaning up.  An operation nobody knows has failed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "plugins/datapath.h"
#include "plugins/records.h"
#include "plugins/smapi.h"

#define NEWS_WAIT_MS 1000
#define STAT_WAIT_MS 60000u
#define LIST_WAIT_MS 2000u

struct start_args {
	char *domain, *remote;
	bool copy;
	int64_t blocksize;
	struct jsonspec_ranges ranges;
};
static const struct jsonspec_field start_fields[] = {
	{ "domain", JS_STRING, offsetof(struct start_args, domain) },
	{ "remote", JS_STRING, offsetof(struct start_args, remote) },
	{ "copy", JS_BOOL, offsetof(struct start_args, copy) },
	{ "blocksize", JS_INT64, offsetof(struct start_args, blocksize), .is_optional = true },
	{ "ranges", JS_RANGES, offsetof(struct start_args, ranges), .is_optional = true,
	  .has = offsetof(struct start_args, copy) },
	{ NULL },
};
static const struct jsonspec start_spec = { "mirror.start", sizeof(struct start_args), start_fields };

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

/* --- start */

static int start(struct smapi_call *call, struct start_args *args, const char *tag, char **result, struct failure *f)
{
	CLEANUP_FREE char *path = datapath_image(call->args.uri, f);
	CLEANUP_FREE char *text = jsonspec_encode(&start_spec, args);
	CLEANUP_FREE char *ok = NULL;
	char *operation;
	struct process p;
	struct named started;
	struct error e;

	if (!path)
		return -1;
	if (!text)
		return failure_set(f, FAILURE_MIRROR, ENOMEM, "out of memory");
	if (access(path, F_OK) == -1)
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, errno, "image %s: %s", path, strerror(errno));
	/* A halted guest's disk has no process yet. */
	if (process_by_path(&p, path, &e) == 0)
		ok = process_call(&p, "mirror.start", text, PROCESS_ONCE, 0, &e);
	if (!ok)
		return failure_from(f, FAILURE_MIRROR, &e);
	if (jsonspec_decode(&named_spec, ok, strlen(ok), &started, &e) == -1)
		return failure_from(f, FAILURE_MIRROR, &e);
	records_collect(); /* whoever adds one drops the old ones */
	operation = jsonspec_variant(tag, started.id);
	jsonspec_clear(&named_spec, &started);
	return smapi_result(operation, result, f);
}

int data_mirror(struct smapi_call *call, char **result, struct failure *f)
{
	struct start_args args = { .domain = call->args.domain, .remote = call->args.remote };

	return start(call, &args, "MirrorV1", result, f);
}

int data_copy(struct smapi_call *call, char **result, struct failure *f)
{
	const struct types_blocklist *list = &call->args.blocklist;
	struct start_args args = { .domain = call->args.domain, .remote = call->args.remote, .copy = true,
				   .blocksize = list->blocksize, .ranges = list->ranges };

	if (list->blocksize <= 0)
		return failure_set(f, FAILURE_REQUEST, EINVAL, "blocklist: blocksize %lld is not a number of bytes",
				   (long long)list->blocksize);
	return start(call, &args, "CopyV1", result, f);
}

/* --- stat */

/* path: the image, if it is known: then a process that died is replaced; start: or made. NULL + e: as process_call(). */
static char *ask_about(const char *operation, const char *path, const char *verb, int64_t news_wait_ms,
		       enum process_start start, struct error *e)
{
	struct named named = { .id = (char *)(uintptr_t)operation, .wait_ms = news_wait_ms };
	CLEANUP_FREE char *args = jsonspec_encode(&named_spec, &named);
	char id[VDI_ID_MAX];
	struct process p;

	if (!args) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	if (!vdi_id_of_operation(operation, id)) {
		error_set(e, ENOENT, "%s is not the name of an operation", operation);
		return NULL;
	}
	if (process_by_id(&p, id, e) == -1)
		return NULL;
	p.path = path;
	return process_call(&p, verb, args, start, news_wait_ms ? STAT_WAIT_MS : 0, e);
}

/* False + e: no process says. */
static bool ask_status(const char *operation, const char *path, struct types_status *status, struct error *e)
{
	CLEANUP_FREE char *ok = ask_about(operation, path, "mirror.stat", NEWS_WAIT_MS, PROCESS_RESTART, e);

	if (ok && jsonspec_decode(&types_status, ok, strlen(ok), status, e) == 0)
		return true;
	*status = (struct types_status) { 0 };
	return !ok && e->err == ETIMEDOUT; /* slow is not failed */
}

/* The record's image belongs to the process of that name: a record is not trusted with anything else. */
static bool is_image_of(const char *operation, const char *path)
{
	char id[VDI_ID_MAX], own[VDI_ID_MAX];

	return path && *path == '/' && vdi_id_of_operation(operation, id) && strcmp(vdi_id_of_path(path, own), id) == 0;
}

static void say_recorded(const struct record *r, struct types_status *status)
{
	const struct timespec pause = { .tv_sec = NEWS_WAIT_MS / 1000 };

	*status = (struct types_status) { .failed = r->failed, .complete = r->complete };
	if (r->ended)
		return;
	if (!records_is_suspended(r)) {
		log_warn("operation %s ended with its process, and cannot be gone on with: it has failed", r->id);
		*status = (struct types_status) { .failed = true };
	} else if (!r->complete) {
		nanosleep(&pause, NULL); /* xapi asks again at once */
	}
}

static void find_status(const char *operation, struct types_status *status)
{
	struct record r;
	struct error e;

	if (ask_status(operation, NULL, status, &e))
		return;
	if (records_read(operation, &r)) {
		bool is_answered = !r.ended && is_image_of(operation, r.path) && ask_status(operation, r.path, status, &e);

		jsonspec_clear(&records_spec, &r);
		if (is_answered)
			return;
	}
	if (records_read(operation, &r)) { /* it may have ended meanwhile */
		say_recorded(&r, status);
		jsonspec_clear(&records_spec, &r);
		return;
	}
	log_warn("operation %s: nothing is known of it (%s), so it counts as failed", operation, e.text);
	*status = (struct types_status) { .failed = true };
}

int data_stat(struct smapi_call *call, char **result, struct failure *f)
{
	struct types_status status;

	find_status(call->args.operation.arg, &status);
	if (status.failed)
		status.complete = false; /* xapi looks at complete first */
	return smapi_result(jsonspec_encode(&types_status, &status), result, f);
}

/* --- cancel, destroy */

static int end_operation(const char *operation, const char *verb, struct error *e)
{
	CLEANUP_FREE char *ok = ask_about(operation, NULL, verb, 0, PROCESS_RESTART, e);

	return ok || e->err == ENOENT || e->err == ESRCH ? 0 : -1;
}

/* One that is suspended would be gone on with: a process of its disk sees to it that it is not. */
static int end_suspended(const char *operation, struct error *e)
{
	struct record r;
	int err = 0;

	if (!records_read(operation, &r))
		return 0;
	if (records_is_suspended(&r) && is_image_of(operation, r.path)) {
		CLEANUP_FREE char *ok = ask_about(operation, r.path, "mirror.destroy", 0, PROCESS_START, e);

		if (!ok || records_fail(&r, "it was cancelled", e) == -1)
			err = -1;
	}
	jsonspec_clear(&records_spec, &r);
	return err;
}

/* Its process is gone, and the image's own record may still owe something for it: a process of its disk settles that. */
static int settle_ended(const char *operation, struct error *e)
{
	struct record r;
	int err = 0;

	if (!records_read(operation, &r))
		return 0;
	if (r.ended && is_image_of(operation, r.path) && datapath_owes(r.path)) {
		CLEANUP_FREE char *ok = ask_about(operation, r.path, "mirror.destroy", 0, PROCESS_START, e);

		err = ok ? 0 : -1;
	}
	jsonspec_clear(&records_spec, &r);
	return err;
}

int data_cancel(struct smapi_call *call, char **result, struct failure *f)
{
	const char *operation = call->args.operation.arg;
	struct error e;

	if (end_operation(operation, "mirror.cancel", &e) == -1 || end_suspended(operation, &e) == -1)
		return failure_from(f, FAILURE_MIRROR, &e);
	return smapi_unit(result, f);
}

int data_destroy(struct smapi_call *call, char **result, struct failure *f)
{
	const char *operation = call->args.operation.arg;
	struct error e;

	if (end_operation(operation, "mirror.destroy", &e) == -1 || end_suspended(operation, &e) == -1 ||
	    settle_ended(operation, &e) == -1 || records_remove(operation, &e) == -1)
		return failure_from(f, FAILURE_MIRROR, &e);
	return smapi_unit(result, f);
}

/* --- ls */

struct listed {
	char *id;
	bool copy;
};
static const struct jsonspec_field live_fields[] = {
	{ "id", JS_STRING, offsetof(struct listed, id) },
	{ "copy", JS_BOOL, offsetof(struct listed, copy) },
	{ NULL },
};
static const struct jsonspec live_spec = { "operation", sizeof(struct listed), live_fields };
struct operations {
	struct jsonspec_records operations;
};
static const struct jsonspec_field operations_fields[] = {
	{ "operations", JS_RECORDS, offsetof(struct operations, operations), .sub = &live_spec },
	{ NULL },
};
static const struct jsonspec operations_spec = { "operations", sizeof(struct operations), operations_fields };

/* The list as it grows: the text, and which are in it. */
struct listing {
	FILE *to;
	struct jsonspec_list seen;
};

static bool is_listed(const struct listing *l, const char *id)
{
	for (size_t i = 0; i < l->seen.count; i++)
		if (strcmp(l->seen.item[i], id) == 0)
			return true;
	return false;
}

static void list_one(struct listing *l, const char *id, bool is_copy)
{
	CLEANUP_FREE char *text = jsonspec_variant(is_copy ? "CopyV1" : "MirrorV1", id);

	if (!text || is_listed(l, id))
		return;
	fprintf(l->to, "%s%s", l->seen.count ? "," : "", text);
	jsonspec_list_add(&l->seen, id);
}

static void list_process(const char *id, void *arg)
{
	struct operations found;
	struct process p;
	struct error e;
	CLEANUP_FREE char *ok = process_by_id(&p, id, &e) == 0 ? process_ask(&p, "mirror.list", NULL, LIST_WAIT_MS, &e) : NULL;
	const struct listed *item;

	if (!ok || jsonspec_decode(&operations_spec, ok, strlen(ok), &found, &e) == -1)
		return;
	item = found.operations.item;
	for (size_t i = 0; i < found.operations.count; i++)
		list_one(arg, item[i].id, item[i].copy);
	jsonspec_clear(&operations_spec, &found);
}

static void list_record(const struct record *r, void *arg)
{
	list_one(arg, r->id, strcasecmp(r->kind, "copy") == 0);
}

int data_ls(struct smapi_call *call UNUSED, char **result, struct failure *f)
{
	CLEANUP_FREE char *text = NULL;
	struct listing l = { 0 };
	size_t bytes;

	l.to = open_memstream(&text, &bytes);
	if (!l.to)
		return smapi_result(NULL, result, f);
	records_collect();
	fputc('[', l.to);
	process_each(list_process, &l);
	records_each(list_record, &l);
	fputc(']', l.to);
	meta_list_clear(&l.seen);
	return smapi_result(fclose(l.to) == 0 ? take_ptr(&text) : NULL, result, f);
}
