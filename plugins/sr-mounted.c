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
struct hello {
	char *path;
};
static const struct jsonspec_field hello_fields[] = {
	{ "path", JS_STRING, offsetof(struct hello, path), .is_optional = true },
	{ NULL },
};
static const struct jsonspec hello_spec = { "hello", sizeof(struct hello), hello_fields };

static void note_served(const char *id, void *arg)
{
	struct served *s = arg;
	size_t bytes = strlen(s->dir), used = strlen(s->names);
	CLEANUP_FREE char *text = NULL;
	struct process p;
	struct hello hello;
	struct error e;

	if (process_by_id(&p, id, &e) == -1)
		return;
	text = process_ask(&p, "hello", NULL, ASK_MS, &e);
	if (!text || jsonspec_decode(&hello_spec, text, strlen(text), &hello, &e) == -1)
		return;
	if (hello.path && strncmp(hello.path, s->dir, bytes) == 0 && hello.path[bytes] == '/' && s->count++ < NAMED_MAX)
		snprintf(s->names + used, sizeof(s->names) - used, "%s%.60s", used ? ", " : "", strrchr(hello.path, '/') + 1);
	jsonspec_clear(&hello_spec, &hello);
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
