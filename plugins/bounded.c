/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bounded - see bounded.h
 *
 *      verb -> child: fn -> { failure, text } -> here
 *                        '- nothing, and the time is over: it is killed, the verb fails with a sentence
 *
 * A verb that is given up is one that was killed: what it changed is the old state or the new one, and the next one goes on.
 * A look asks the file system for its free space, the one question that is not answered from a cache.
 */
#include "plugins/bounded.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/uri.h"
#include "plugins/child.h"
#include "plugins/meta.h"
#include "plugins/mount.h"
#include "plugins/sr.h"

#define LOOK_MS 10000u

struct ask {
	smapi_fn *fn;
	struct smapi_call *call;
};

/* In the child. The answer: a failure, and the text of the result. */
static int answer_in_child(void *arg, int fd, struct error *e)
{
	const struct ask *ask = arg;
	CLEANUP_FREE char *text = NULL;
	struct failure f = { 0 };
	bool is_good = ask->fn(ask->call, &text, &f) == 0;

	if (is_good)
		f.e.err = 0;
	if (child_write(fd, &f, sizeof(f)) == 0 && (!is_good || child_write(fd, text, strlen(text) + 1) == 0))
		return 0;
	return error_errno(e, errno, "answer");
}

int bounded_call(smapi_fn *fn, struct smapi_call *call, unsigned wait_ms, char **result, struct failure *f)
{
	struct ask ask = { fn, call };
	CLEANUP_FREE char *answer = NULL;
	struct error e;

	if (!call->sr_type || !call->sr_type->patience_ms)
		return fn(call, result, f);
	if (child_call(answer_in_child, &ask, wait_ms, sizeof(*f) + JSONSPEC_MAX_BYTES, &answer, &e) == 0) {
		memcpy(f, answer, sizeof(*f));
		return f->e.err ? -1 : smapi_result(strdup(answer + sizeof(*f)), result, f);
	}
	if (e.err != ETIMEDOUT)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	return failure_set(f, FAILURE_SR_UNAVAILABLE, ETIMEDOUT, "%s was given up after %u s: the server does not answer",
			   call->verb, wait_ms / 1000);
}

/* --- looks */

static int look_in_child(void *arg, int fd UNUSED, struct error *e UNUSED)
{
	struct statvfs fs;

	statvfs(arg, &fs);
	return 0;
}

static int look(char *dir, struct failure *f)
{
	struct error e;

	if (child_call(look_in_child, dir, LOOK_MS, 0, NULL, &e) == 0 || e.err != ETIMEDOUT)
		return 0;
	return failure_set(f, FAILURE_SR_UNAVAILABLE, ETIMEDOUT, "the server behind %s has not answered for %u s", dir,
			   LOOK_MS / 1000);
}

int bounded_look(const char *uri, const char *scheme, struct failure *f)
{
	struct error e;
	CLEANUP_FREE char *path = uri_path(uri, scheme, &e);
	CLEANUP_FREE char *dir = path ? mount_above(path) : NULL;

	return dir ? look(dir, f) : 0;
}

/* In the child. */
static int look_at_sr(void *arg, int fd UNUSED, struct error *e)
{
	struct jsonspec_list keys;
	struct meta_sr m;

	if (meta_sr_read(arg, &m, e) == -1 && e->err != EBADMSG)
		return -1;
	return meta_list(arg, &keys, e);
}

int bounded_look_at_sr(const char *dir, unsigned wait_ms, struct error *e)
{
	return child_call(look_at_sr, (void *)(uintptr_t)dir, wait_ms, 1, NULL, e);
}
