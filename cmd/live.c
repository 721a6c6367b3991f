/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * live - see live.h
 *
 *      image -> its process -> status -> the few members that are shown      no process: its record
 */
#include "cmd/live.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "plugins/owner-file.h"
#include "plugins/process.h"


#define USER(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct live_user, field) }
static const struct jsonspec_field user_fields[] = {
	USER("domain", JS_STRING, domain), USER("socket", JS_STRING, socket), USER("active", JS_BOOL, is_active),
	USER("read_only", JS_BOOL, is_read_only), USER("clients", JS_INT64, clients),
	{ .name = "backend", .type = JS_STRING, .offset = offsetof(struct live_user, backend), .is_optional = true },
	{ .name = "had", .type = JS_STRING, .offset = offsetof(struct live_user, had), .is_optional = true },
	{ .name = "connected", .type = JS_BOOL, .offset = offsetof(struct live_user, is_connected), .is_optional = true },
	{ .name = NULL },
};
static const struct jsonspec user_spec = { "domain", sizeof(struct live_user), user_fields };

#define OPERATION(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct live_operation, field) }
static const struct jsonspec_field operation_fields[] = {
	OPERATION("id", JS_STRING, id), OPERATION("state", JS_STRING, state), OPERATION("why", JS_STRING, why),
	OPERATION("remote", JS_STRING, remote), OPERATION("copy", JS_BOOL, is_copy), OPERATION("failed", JS_BOOL, is_failed),
	OPERATION("complete", JS_BOOL, is_complete), OPERATION("ended", JS_BOOL, is_ended),
	OPERATION("progress", JS_FLOAT, progress), OPERATION("total_bytes", JS_INT64, total_bytes),
	OPERATION("dirty_bytes", JS_INT64, dirty_bytes), OPERATION("copied_bytes", JS_INT64, copied_bytes),
	OPERATION("sent_bytes", JS_INT64, sent_bytes), OPERATION("rate_bytes", JS_INT64, rate_bytes),
	OPERATION("eta_ms", JS_INT64, eta_ms), OPERATION("source_allocated_bytes", JS_INT64, allocated_bytes), { .name = NULL },
};
static const struct jsonspec operation_spec = { "operation", sizeof(struct live_operation), operation_fields };

struct owner {
	char *state;
};
static const struct jsonspec_field state_fields[] = { { "state", JS_STRING, offsetof(struct owner, state) }, { NULL } };
static const struct jsonspec state_spec = { "owner", sizeof(char *), state_fields };

#define LIVE(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct live, field) }
static const struct jsonspec_field live_fields[] = {
	LIVE("id", JS_STRING, id), LIVE("path", JS_STRING, path), LIVE("pid", JS_INT64, pid),
	LIVE("size_bytes", JS_INT64, size_bytes), LIVE("open", JS_BOOL, is_open),
	{ .name = "owner", .type = JS_RECORD, .offset = offsetof(struct live, owner), .sub = &state_spec },
	{ .name = "domains", .type = JS_RECORDS, .offset = offsetof(struct live, users), .sub = &user_spec },
	{ .name = "operations", .type = JS_RECORDS, .offset = offsetof(struct live, operations), .sub = &operation_spec },
	{ .name = NULL },
};
static const struct jsonspec live_spec = { "status", sizeof(struct live), live_fields };

static int ask(const struct process *p, unsigned wait_ms, struct live *l, struct error *e)
{
	CLEANUP_FREE char *ok = process_ask(p, "status", NULL, wait_ms, e);

	return ok ? jsonspec_decode(&live_spec, ok, strlen(ok), l, e) : -1;
}

int live_ask(const char *image, unsigned wait_ms, struct live *l, struct error *e)
{
	struct process p;

	return process_by_path(&p, image, e) == 0 ? ask(&p, wait_ms, l, e) : -1;
}

int live_ask_id(const char *id, unsigned wait_ms, struct live *l, struct error *e)
{
	struct process p;

	return process_by_id(&p, id, e) == 0 ? ask(&p, wait_ms, l, e) : -1;
}

void live_clear(struct live *l)
{
	jsonspec_clear(&live_spec, l);
}

const struct live_operation *live_current(const struct live *l)
{
	const struct live_operation *o = l->operations.item;
	const size_t count = l->operations.count;

	for (size_t i = 0; i < count; i++)
		if (!o[i].is_ended)
			return &o[i];
	return count && o[count - 1].is_failed ? &o[count - 1] : NULL;
}

char *live_owner_on_record(const char *image)
{
	CLEANUP_FREE char *path = owner_file_path(image);
	struct owner_file owner;
	struct error e;
	char *state;

	if (!path || access(path, F_OK) == -1 || owner_file_read(image, &owner, &e) == -1)
		return NULL;
	state = take_ptr(&owner.state);
	owner_file_clear(&owner);
	return state;
}

void live_drop_owner(const char *image)
{
	CLEANUP_FREE char *path = owner_file_path(image);
	struct owner_file owner;
	struct error e;

	if (!path || owner_file_read(image, &owner, &e) == -1)
		return;
	if (owner_file_is(&owner, "owned") && owner.role && strcmp(owner.role, "none") == 0 && owner.mirror && !*owner.mirror)
		unlink(path);
	owner_file_clear(&owner);
}
