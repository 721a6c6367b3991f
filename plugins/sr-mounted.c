/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-mounted - see sr-mounted.h
 *
 * A disk that is served has its image open, so the kernel would refuse the unmount anyway; who asks first can say which disk
 * it is.
 */
#include "plugins/sr-mounted.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "plugins/process.h"

#define ASK_MS 1000u
#define NAMED_MAX 3

char *sr_mounted_dir(const struct jsonspec_map *configuration, struct failure *f)
{
	const char *uuid = jsonspec_map_get(configuration, "sr_uuid");
	struct error e;
	char *dir;

	if (!uuid) {
		failure_set(f, FAILURE_CONFIGURATION, EINVAL,
			    "sr_uuid is missing: SR.create puts it into the configuration that it answers with");
		return NULL;
	}
	dir = mount_dir(uuid, &e);
	if (!dir)
		failure_from(f, FAILURE_CONFIGURATION, &e);
	return dir;
}

int sr_mounted_failure(struct failure *f, const struct error *e)
{
	return failure_from(f, e->err == EBUSY ? FAILURE_SR_IN_USE : FAILURE_SR_UNAVAILABLE, e);
}

int sr_mounted_lock(const char *dir, struct failure *f)
{
	struct error e;
	int fd = mount_lock(dir, &e);

	return fd < 0 ? failure_from(f, FAILURE_SR_UNAVAILABLE, &e) : fd;
}

int sr_mounted_check_up(const char *dir, struct failure *f)
{
	if (mount_is_up(dir))
		return 0;
	return failure_raise(f, FAILURE_SR_NOT_ATTACHED, dir, "nothing is mounted at %s; attach the SR before it is destroyed",
			     dir);
}

/* --- who serves a disk of it */

struct served {
	const char *dir;
	unsigned count;
	char names[200];
};
struct user {
	char *domain;
};
static const struct jsonspec_field user_fields[] = { { "domain", JS_STRING, offsetof(struct user, domain) }, { NULL } };
static const struct jsonspec user_spec = { "user", sizeof(struct user), user_fields };

struct status {
	char *path;
	bool is_open;
	struct jsonspec_records domains;
};
static const struct jsonspec_field status_fields[] = {
	{ "path", JS_STRING, offsetof(struct status, path), .is_optional = true },
	{ "open", JS_BOOL, offsetof(struct status, is_open), .is_optional = true },
	{ "domains", JS_RECORDS, offsetof(struct status, domains), .sub = &user_spec, .is_optional = true },
	{ NULL },
};
static const struct jsonspec status_spec = { "status", sizeof(struct status), status_fields };

static bool is_below(const char *path, const char *dir)
{
	size_t bytes = strlen(dir);

	return path && strncmp(path, dir, bytes) == 0 && path[bytes] == '/';
}

/* A process that nobody is attached to, and that has closed the image, only waits to see whether it is asked once more. */
static void note_served(const char *id, void *arg)
{
	struct served *s = arg;
	size_t used = strlen(s->names);
	CLEANUP_FREE char *text = NULL;
	struct process p;
	struct status status;
	struct error e;

	if (process_by_id(&p, id, &e) == -1)
		return;
	text = process_ask(&p, "status", NULL, ASK_MS, &e);
	if (!text || jsonspec_decode(&status_spec, text, strlen(text), &status, &e) == -1)
		return;
	if (is_below(status.path, s->dir) && (status.is_open || status.domains.count) && s->count++ < NAMED_MAX)
		snprintf(s->names + used, sizeof(s->names) - used, "%s%.60s", used ? ", " : "", strrchr(status.path, '/') + 1);
	jsonspec_clear(&status_spec, &status);
}

int sr_mounted_down(const char *dir, unsigned wait_ms, bool has_more, struct failure *f)
{
	struct served served = { .dir = dir };
	struct error e;

	process_each(note_served, &served);
	if (served.count)
		return failure_set(f, FAILURE_SR_IN_USE, EBUSY, "%u disk%s of the SR at %s %s served: %s; detach %s first",
				   served.count,
				   served.count == 1 ? "" : "s", dir, served.count == 1 ? "is" : "are", served.names,
				   served.count == 1 ? "it" : "them");
	return mount_down(dir, wait_ms, has_more, &e) == 0 ? 0 : sr_mounted_failure(f, &e);
}
