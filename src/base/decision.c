/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * decision - see decision.h
 *
 *      {"group":"g1700000000000-4711","decision":"commit","time":1700000000}
 *
 *      make:   temporary, fsync -> link() to its name: done -> fsync of the directory -> ours
 *                                          '-- EEXIST ------> fsync of the directory -> read it
 *      read:   there -> fsync of the directory -> that
 *
 * link() does not replace: of two who decide in the same moment one is told so.  The reader's fsync is for a maker who is between
 * his last two steps: a power loss must not take back what somebody has acted on.
 *
 * After a day a "cancel" may go: whoever has not followed it yet and finds nothing decides the same again.
 *
 * Can fail: the medium, a file that says nothing sensible. Then nothing is decided for whoever asks, and he may ask again.
 */
#include "base/decision.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/proc.h"

#define FILE_MAX 4096u
#define SUFFIX ".json"
#define LOOKED_AT_MAX 4096u /* files, in one go */

struct record {
	char *group, *decision; /* borrowed when encoding, owned after decoding */
	int64_t time_s;
};
static const struct jsonspec_field fields[] = {
	{ .name = "group", .type = JS_STRING, .offset = offsetof(struct record, group) },
	{ .name = "decision", .type = JS_STRING, .offset = offsetof(struct record, decision) },
	{ .name = "time", .type = JS_INT64, .offset = offsetof(struct record, time_s), .is_optional = true },
	{ .name = NULL },
};
static const struct jsonspec spec = { "decision", sizeof(struct record), fields };

static const char *const names[] = {
	[DECISION_NONE] = "none", [DECISION_COMMIT] = "commit", [DECISION_CANCEL] = "cancel",
};

const char *decision_name(enum decision d)
{
	return names[d];
}

static bool is_group_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool decision_group_is_valid(const char *group)
{
	size_t n = strnlen(group, DECISION_GROUP_MAX);

	if (n == 0 || n == DECISION_GROUP_MAX || group[0] == '.')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_group_char(group[i]))
			return false;
	return true;
}

/* Heap; NULL + e. */
static char *find_file(const char *group, struct error *e)
{
	char *path;

	if (!decision_group_is_valid(group)) {
		error_set(e, EINVAL, "%.80s is no name of a group: 1 to %d of A-Z a-z 0-9 . _ -, no leading dot", group,
			  DECISION_GROUP_MAX - 1);
		return NULL;
	}
	if (asprintf(&path, "%s/groups/%s" SUFFIX, proc_state_dir(), group) == -1) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	return path;
}

static enum decision load(const char *path, const char *group, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	enum decision d = DECISION_NONE;
	struct error why = { 0 };
	struct record r;
	size_t bytes = 0;

	text = proc_read_file(path, FILE_MAX, &bytes, &why);
	if (!text && why.err == ENOENT)
		return DECISION_NONE;
	if (!text || jsonspec_decode(&spec, text, bytes, &r, &why) == -1) {
		error_set(e, why.err, "what is decided for group %s cannot be read: %s", group, why.text);
		return DECISION_NONE;
	}
	if (strcmp(r.group, group) == 0)
		d = strcmp(r.decision, "commit") == 0 ? DECISION_COMMIT :
		    strcmp(r.decision, "cancel") == 0 ? DECISION_CANCEL : DECISION_NONE;
	if (d == DECISION_NONE)
		error_set(e, EBADMSG, "%s does not say what is decided for group %s", path, group);
	jsonspec_clear(&spec, &r);
	return d;
}

static int make_dir(struct error *e)
{
	CLEANUP_FREE char *dir = NULL;

	if (asprintf(&dir, "%s/groups", proc_state_dir()) == -1) {
		dir = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	return proc_make_dir(proc_state_dir(), e) == -1 || proc_make_dir(dir, e) == -1 ? -1 : 0;
}

enum decision decision_read(const char *group, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	enum decision d;

	error_clear(e);
	path = find_file(group, e);
	d = path ? load(path, group, e) : DECISION_NONE;
	if (d != DECISION_NONE && proc_sync_dir(path, e) == -1)
		return DECISION_NONE;
	return d;
}

enum decision decision_make(const char *group, enum decision want, struct error *e)
{
	struct record r = {
		.group = (char *)(uintptr_t)group, .decision = (char *)(uintptr_t)names[want], .time_s = (int64_t)time(NULL),
	};
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;

	error_clear(e);
	path = find_file(group, e);
	if (!path || make_dir(e) == -1)
		return DECISION_NONE;
	text = jsonspec_encode(&spec, &r);
	if (!text) {
		error_set(e, ENOMEM, "out of memory");
		return DECISION_NONE;
	}
	if (proc_create_file(path, text, strlen(text), 0600, e) == 0)
		return want;
	if (e->err != EEXIST)
		return DECISION_NONE;
	error_clear(e);
	return load(path, group, e);
}

int decision_forget(const char *group, struct error *e)
{
	CLEANUP_FREE char *path = NULL;

	path = find_file(group, e);
	if (!path)
		return -1;
	return unlink(path) == -1 && errno != ENOENT ? error_errno(e, errno, "remove %s", path) : 0;
}

/* --- a day later */

/* Of a file's name: "g1.json" a decision, "g1.json.4711.tmp" one that was being made. */
static bool is_over(const char *path, const char *name)
{
	CLEANUP_FREE char *group = strdup(name);
	char *end = group ? strstr(group, SUFFIX) : NULL;
	struct error e = { 0 };

	for (char *next = end; next; next = strstr(next + 1, SUFFIX))
		end = next;
	if (!end)
		return false;
	if (strcmp(end, SUFFIX) != 0)
		return strcmp(end + strlen(end) - MIN(strlen(end), sizeof(".tmp") - 1), ".tmp") == 0;
	*end = '\0';
	return decision_group_is_valid(group) && load(path, group, &e) == DECISION_CANCEL;
}

static void collect(const char *path, const char *name, int64_t kept_s)
{
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) && (int64_t)time(NULL) - (int64_t)st.st_mtime > kept_s &&
	    is_over(path, name))
		unlink(path);
}

void decision_collect(int64_t kept_s)
{
	CLEANUP_FREE char *dir = NULL;
	unsigned left = LOOKED_AT_MAX;
	struct dirent *entry;
	DIR *d;

	if (asprintf(&dir, "%s/groups", proc_state_dir()) == -1) {
		dir = NULL;
		return;
	}
	d = opendir(dir);
	while (d && left-- && (entry = readdir(d))) {
		CLEANUP_FREE char *path = NULL;

		if (asprintf(&path, "%s/%s", dir, entry->d_name) == -1)
			path = NULL;
		else
			collect(path, entry->d_name, kept_s);
	}
	if (d)
		closedir(d);
}
