/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * unfinished - see unfinished.h
 *
 * A process' number may be another's by now: it is the same one only if it was started at the same instant of the same boot.
 */
#include "plugins/unfinished.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/host-id.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "plugins/vdi-id.h"

#define RECORD_MAX_BYTES 16384u
#define STAT_MAX_BYTES 4096u
#define STARTED_FIELD 20 /* of /proc/PID/stat, counted from the one after the name */

struct record {
	char *path, *command;
};
static const struct jsonspec_field record_fields[] = {
	{ "path", JS_STRING, offsetof(struct record, path) },
	{ "command", JS_STRING, offsetof(struct record, command) },
	{ NULL },
};
static const struct jsonspec record_spec = { "unfinished file", sizeof(struct record), record_fields };

/* --- the command */

/* When it was started, in ticks since this boot. False + e: ENOENT, there is no such process. */
static bool find_started(long pid, unsigned long long *started, struct error *e)
{
	char path[32];
	CLEANUP_FREE char *text = NULL;
	const char *at;

	snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
	text = proc_read_file(path, STAT_MAX_BYTES, NULL, e);
	at = text ? strrchr(text, ')') : NULL; /* the name may have anything in it */
	for (int i = 0; at && i < STARTED_FIELD; i++)
		at = strchr(at + 1, ' ');
	if (text && (!at || sscanf(at, "%llu", started) != 1))
		error_set(e, EPROTO, "%s is not understood", path);
	return text && at && e->err != EPROTO;
}

/* One host alone is never asked for its name: "-" is as good. */
static void find_host(char host[static HOST_ID_MAX])
{
	struct error e;

	if (host_id(host, &e) == -1)
		strcpy(host, "-");
}

int unfinished_command(char text[static UNFINISHED_TEXT], struct error *e)
{
	char host[HOST_ID_MAX], boot[HOST_ID_MAX];
	unsigned long long started;

	error_clear(e);
	find_host(host);
	if (host_boot(boot, e) == -1 || !find_started(getpid(), &started, e))
		return -1;
	snprintf(text, UNFINISHED_TEXT, "%s %s %ld %llu", host, boot, (long)getpid(), started);
	return 0;
}

bool unfinished_is_gone(const char *command)
{
	char host[HOST_ID_MAX], boot[HOST_ID_MAX], its_host[HOST_ID_MAX], its_boot[HOST_ID_MAX];
	unsigned long long started, its_start;
	struct error e = { 0 };
	long pid;

	find_host(host);
	if (sscanf(command, "%64s %64s %ld %llu", its_host, its_boot, &pid, &its_start) != 4 || host_boot(boot, &e) == -1 ||
	    strcmp(host, its_host) != 0)
		return false;
	if (strcmp(boot, its_boot) != 0)
		return true;
	if (find_started(pid, &started, &e))
		return started != its_start;
	return e.err == ENOENT || e.err == ESRCH;
}

/* --- files */

static char *record_path(const char *path)
{
	char id[VDI_ID_MAX], *record;

	vdi_id_of_path(path, id);
	return asprintf(&record, "%s/" UNFINISHED_DIR "/%s.json", proc_state_dir(), id) < 0 ? NULL : record;
}

int unfinished_note(const char *path, struct error *e)
{
	CLEANUP_FREE char *record = record_path(path);
	CLEANUP_FREE char *dir = record ? strndup(record, (size_t)(strrchr(record, '/') - record)) : NULL;
	char command[UNFINISHED_TEXT];
	const struct record r = { (char *)(uintptr_t)path, command };
	CLEANUP_FREE char *text = NULL;

	if (unfinished_command(command, e) == -1)
		return -1;
	text = jsonspec_encode(&record_spec, &r);
	if (!dir || !text)
		return error_set(e, ENOMEM, "out of memory");
	if (proc_make_dir(proc_state_dir(), e) == -1 || proc_make_dir(dir, e) == -1)
		return -1;
	return proc_replace_file(record, text, strlen(text), 0600, e);
}

void unfinished_forget(const char *path)
{
	CLEANUP_FREE char *record = record_path(path);

	if (record)
		unlink(record);
}

char *unfinished_path(const char *record)
{
	CLEANUP_FREE char *file = NULL;
	CLEANUP_FREE char *text = NULL;
	struct error e;
	struct record r;
	size_t bytes;
	char *path = NULL;

	if (asprintf(&file, "%s/" UNFINISHED_DIR "/%s.json", proc_state_dir(), record) < 0) {
		file = NULL;
		return NULL;
	}
	text = proc_read_own_file(file, RECORD_MAX_BYTES, &bytes, &e);
	if (!text || jsonspec_decode(&record_spec, text, bytes, &r, &e) == -1)
		return NULL;
	if (unfinished_is_gone(r.command))
		path = take_ptr(&r.path);
	jsonspec_clear(&record_spec, &r);
	return path;
}
