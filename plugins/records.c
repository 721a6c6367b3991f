/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * records - see records.h
 *
 *      <id>.<number>.json --a day after it was written last--> ended, or no record? -> removed
 *                                                              runs?                -> kept while its journal, or a
 *                                                                                      process of its disk, is there
 *
 * What was decided for groups of disks goes likewise (base/decision.h).
 *
 * A file is as old as its modification: a clock that is set back makes it younger than now, and then its day begins anew.
 * Can fail: all of it; what cannot be read is no record, what cannot be removed is tried again the next time.
 */
#include "plugins/records.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/decision.h"
#include "base/log.h"
#include "base/proc.h"
#include "plugins/vdi-id.h"

#define RECORD_MAX_BYTES 65536u
#define KEPT_S (24 * 60 * 60)
#define LOOKED_AT_MAX 4096u /* files, in one go */
#define SUFFIX ".json"
#define SUFFIX_BYTES 5u

static const struct jsonspec_field fields[] = {
	{ "id", JS_STRING, offsetof(struct record, id) },
	{ "kind", JS_STRING, offsetof(struct record, kind) },
	{ "text", JS_STRING, offsetof(struct record, text) },
	{ "failed", JS_BOOL, offsetof(struct record, failed) },
	{ "complete", JS_BOOL, offsetof(struct record, complete) },
	{ "ended", JS_INT64, offsetof(struct record, ended) },
	{ "domain", JS_STRING, offsetof(struct record, domain), .is_optional = true },
	{ "remote", JS_STRING, offsetof(struct record, remote), .is_optional = true },
	{ "path", JS_STRING, offsetof(struct record, path), .is_optional = true },
	{ "journal", JS_STRING, offsetof(struct record, journal), .is_optional = true },
	{ NULL },
};
const struct jsonspec records_spec = { "record", sizeof(struct record), fields };

/* Of a journal: src/vdi/journal.c's. */
struct named {
	char *id;
};
static const struct jsonspec_field named_fields[] = {
	{ "id", JS_STRING, offsetof(struct named, id) },
	{ NULL },
};
static const struct jsonspec named_spec = { "mirror", sizeof(struct named), named_fields };

static char *path_of(const char *operation)
{
	char *path;

	return asprintf(&path, "%s/operations/%s" SUFFIX, proc_state_dir(), operation) < 0 ? NULL : path;
}

static bool read_at(const char *path, struct record *r)
{
	CLEANUP_FREE char *text = NULL;
	struct error e;
	size_t bytes;

	text = proc_read_file(path, RECORD_MAX_BYTES, &bytes, &e);
	if (text && jsonspec_decode(&records_spec, text, bytes, r, &e) == 0)
		return true;
	if (e.err != ENOENT)
		log_debug("no record: %s: %s", path, e.text);
	return false;
}

bool records_read(const char *operation, struct record *r)
{
	CLEANUP_FREE char *path = NULL;
	char id[VDI_ID_MAX];

	if (!vdi_id_of_operation(operation, id))
		return false;
	path = path_of(operation);
	return path && read_at(path, r);
}

bool records_is_suspended(const struct record *r)
{
	CLEANUP_FREE char *text = NULL;
	struct named journal;
	struct error e;
	size_t bytes;
	bool is_its;

	if (r->ended || !r->journal || !r->path || access(r->path, F_OK) == -1)
		return false;
	text = proc_read_file(r->journal, RECORD_MAX_BYTES, &bytes, &e);
	if (!text || jsonspec_decode(&named_spec, text, bytes, &journal, &e) == -1)
		return false;
	is_its = strcmp(journal.id, r->id) == 0;
	jsonspec_clear(&named_spec, &journal);
	return is_its;
}

int records_fail(const struct record *r, const char *text, struct error *e)
{
	struct record failed = *r;
	CLEANUP_FREE char *path = path_of(r->id);
	CLEANUP_FREE char *json = NULL;

	failed.failed = true;
	failed.complete = false;
	failed.text = (char *)(uintptr_t)text;
	failed.journal = NULL;
	failed.ended = (int64_t)time(NULL);
	json = jsonspec_encode(&records_spec, &failed);
	if (!path || !json)
		return error_set(e, ENOMEM, "out of memory");
	return proc_replace_file(path, json, strlen(json), 0600, e);
}

int records_remove(const char *operation, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	char id[VDI_ID_MAX];

	if (!vdi_id_of_operation(operation, id))
		return 0;
	path = path_of(operation);
	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	return unlink(path) == -1 && errno != ENOENT && errno != ENOTDIR ? error_errno(e, errno, "remove %s", path) : 0;
}

/* --- all of them */

/* Cuts "<operation>.json" and "<operation>.json.<pid>.tmp" down to the operation. False: it is neither. */
static bool cut_to_operation(char *name)
{
	char *end = NULL, *dot;

	for (char *next = name; (next = strstr(next, SUFFIX)); next++)
		end = next;
	if (!end)
		return false;
	*end = '\0';
	dot = strrchr(name, '.');
	return dot && dot[1] && dot[1 + strspn(dot + 1, "0123456789")] == '\0';
}

/* fn(file's path, the operation it is named for) until that says false. */
static void each_file(bool (*fn)(const char *path, const char *operation, void *arg), void *arg)
{
	CLEANUP_FREE char *dir = NULL;
	struct dirent *entry;
	DIR *d;

	if (asprintf(&dir, "%s/operations", proc_state_dir()) < 0) {
		dir = NULL;
		return;
	}
	d = opendir(dir);
	while (d && (entry = readdir(d))) {
		CLEANUP_FREE char *operation = strdup(entry->d_name);
		CLEANUP_FREE char *path = NULL;

		if (!operation || !cut_to_operation(operation))
			continue;
		if (asprintf(&path, "%s/%s", dir, entry->d_name) < 0) {
			path = NULL;
			continue;
		}
		if (!fn(path, operation, arg))
			break;
	}
	if (d)
		closedir(d);
}

struct walk {
	void (*fn)(const struct record *r, void *arg);
	void *arg;
};

static bool show(const char *path, const char *operation, void *arg)
{
	struct walk *w = arg;
	struct record r;

	if (strcmp(path + strlen(path) - SUFFIX_BYTES, SUFFIX) != 0 || !read_at(path, &r))
		return true;
	if (strcmp(r.id, operation) == 0)
		w->fn(&r, w->arg);
	jsonspec_clear(&records_spec, &r);
	return true;
}

void records_each(void (*fn)(const struct record *r, void *arg), void *arg)
{
	struct walk w = { fn, arg };

	each_file(show, &w);
}

/* --- a day later */

static bool has_process(const char *operation)
{
	const char *dot = strrchr(operation, '.');
	CLEANUP_FREE char *path = NULL;

	if (!dot || asprintf(&path, "%s/%.*s/control", proc_run_dir(), (int)(dot - operation), operation) < 0) {
		path = NULL;
		return true;
	}
	return access(path, F_OK) == 0;
}

static bool is_needed(const char *path, const char *operation)
{
	struct record r;
	bool is_needed;

	if (!read_at(path, &r))
		return false;
	is_needed = !r.ended && (has_process(operation) || records_is_suspended(&r));
	jsonspec_clear(&records_spec, &r);
	return is_needed;
}

static bool collect(const char *path, const char *operation, void *arg)
{
	unsigned *left = arg;
	time_t now = time(NULL);
	struct stat st;

	if (--*left == 0)
		return false;
	if (lstat(path, &st) == -1)
		return true;
	if (st.st_mtime > now + 1) /* the clock was set back */
		utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW);
	else if (now - st.st_mtime > KEPT_S && !is_needed(path, operation) && unlink(path) == -1)
		log_debug("remove the old record %s: %s", path, strerror(errno));
	return true;
}

void records_collect(void)
{
	unsigned left = LOOKED_AT_MAX;

	each_file(collect, &left);
	decision_collect(KEPT_S);
}
