/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-record - what is known of a move when nobody drives it
 *
 *      SXM_STATE_DIR/journeys/<id>.json      the record, replaced whole and durable
 *                             <id>.lock      flock: who drives it
 *                             all.lock       flock: a move begins; no two take one disk
 *      SXM_RUN_DIR/journeys/<id>/            sockets; "bandwidth" and "go": what others tell who drives it; "key" (move-key)
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/decision.h"
#include "base/proc.h"
#include "migrate/journey-private.h"

#define RECORD_MAX_BYTES (1u << 20)
#define FORMAT 1
#define LOOKS_MAX 20
#define LOOK_MS 5u

#define DISK(member, kind) { #member, kind, offsetof(struct journey_disk, member) }
static const struct jsonspec_field disk_fields[] = {
	DISK(name, JS_STRING), DISK(description, JS_STRING), DISK(uri, JS_STRING), DISK(id, JS_STRING), DISK(sr, JS_STRING),
	DISK(key, JS_STRING),
	DISK(domain, JS_STRING), { "ours", JS_BOOL, offsetof(struct journey_disk, is_ours) }, DISK(size_bytes, JS_INT64),
	DISK(base, JS_STRING), DISK(log, JS_STRING), { "tracked", JS_BOOL, offsetof(struct journey_disk, is_tracked) },
	{ "stays", JS_BOOL, offsetof(struct journey_disk, stays), .is_optional = true },
	DISK(far_key, JS_STRING), DISK(far_uri, JS_STRING), DISK(far_id, JS_STRING), DISK(operation, JS_STRING),
	{ "port", JS_INT64, offsetof(struct journey_disk, port), .is_optional = true },
	{ "vm_device", JS_STRING, offsetof(struct journey_disk, vm_device), .is_optional = true },
	{ "vm_content", JS_STRING, offsetof(struct journey_disk, vm_content), .is_optional = true }, { NULL },
};
static const struct jsonspec disk_spec = { "disk", sizeof(struct journey_disk), disk_fields };

#define RECORD(member, kind) { #member, kind, offsetof(struct journey_record, member) }
/* Older records have none. */
#define LATER(member) { #member, JS_STRING, offsetof(struct journey_record, member), .is_optional = true }
static const struct jsonspec_field record_fields[] = {
	RECORD(format, JS_INT64), RECORD(id, JS_STRING), RECORD(step, JS_STRING), RECORD(why, JS_STRING),
	RECORD(started_ms, JS_INT64), RECORD(host, JS_STRING), RECORD(kind, JS_STRING), RECORD(argv, JS_LIST),
	RECORD(user, JS_STRING), RECORD(config, JS_STRING), RECORD(port, JS_INT64), LATER(transport), LATER(address),
	{ "compress", JS_BOOL, offsetof(struct journey_record, is_squeezed), .is_optional = true },
	LATER(certificates), RECORD(far_sr, JS_STRING),
	RECORD(far_domain, JS_STRING), RECORD(receiver, JS_STRING), RECORD(group, JS_STRING), RECORD(attempt, JS_INT64),
	RECORD(switchover, JS_STRING), RECORD(at_s, JS_INT64), RECORD(on_pause, JS_LIST), RECORD(on_resume, JS_LIST),
	{ "paused", JS_BOOL, offsetof(struct journey_record, is_paused) }, RECORD(bandwidth_bytes_s, JS_INT64),
	RECORD(keep_s, JS_INT64), RECORD(until_s, JS_INT64),
	{ "verify", JS_BOOL, offsetof(struct journey_record, will_verify) },
	{ "unverified", JS_BOOL, offsetof(struct journey_record, is_unverified) },
	{ "vm_here", JS_STRING, offsetof(struct journey_record, vm_here), .is_optional = true },
	{ "vm_there", JS_STRING, offsetof(struct journey_record, vm_there), .is_optional = true },
	{ "vm_ran", JS_BOOL, offsetof(struct journey_record, vm_ran), .is_optional = true },
	{ "vm_lost", JS_BOOL, offsetof(struct journey_record, is_vm_lost), .is_optional = true },
	{ "disks", JS_RECORDS, offsetof(struct journey_record, disks), .sub = &disk_spec }, { NULL },
};
const struct jsonspec journey_record_spec = { "journey", sizeof(struct journey_record), record_fields };

static const char *const step_names[] = {
	[JOURNEY_PLANNED] = "planned", [JOURNEY_MADE] = "made", [JOURNEY_RECEIVING] = "receiving",
	[JOURNEY_MIRRORED] = "mirrored",
	[JOURNEY_SYNCED] = "synced", [JOURNEY_VERIFIED] = "verified", [JOURNEY_SWITCHING] = "switching",
	[JOURNEY_MOVED] = "moved",
	[JOURNEY_STARTED] = "started", [JOURNEY_KEPT] = "kept", [JOURNEY_DONE] = "done", [JOURNEY_ABORTING] = "aborting",
	[JOURNEY_ABORTED] = "aborted",
};

const char *journey_step_name(enum journey_step step)
{
	return step_names[step];
}

enum journey_step journey_step_of(const struct journey_record *r)
{
	for (size_t i = 0; i < ARRAY_LEN(step_names); i++)
		if (strcmp(step_names[i], r->step) == 0)
			return (enum journey_step)i;
	return JOURNEY_ABORTED; /* journey_read() has seen to it */
}

bool journey_is_over(const struct journey_record *r)
{
	enum journey_step step = journey_step_of(r);

	return step == JOURNEY_DONE || step == JOURNEY_ABORTED;
}

bool journey_id_is_valid(const char *id)
{
	return strlen(id) < JOURNEY_ID_MAX && *id == 'm' && decision_group_is_valid(id) &&
	       strspn(id + 1, "0123456789abcdef") == strlen(id + 1);
}

void journey_make_id(char id[static JOURNEY_ID_MAX])
{
	uint32_t number = (uint32_t)getpid();

	(void)!getrandom(&number, sizeof(number), 0);
	snprintf(id, JOURNEY_ID_MAX, "m%08" PRIx32, number);
}

char *journey_path(const char *id, const char *suffix)
{
	char *path;

	return asprintf(&path, "%s/journeys/%s%s", proc_state_dir(), id, suffix) < 0 ? NULL : path;
}

char *journey_run_path(const char *id, const char *name)
{
	char *path;

	return asprintf(&path, "%s/journeys/%s%s%s", proc_run_dir(), id, *name ? "/" : "", name) < 0 ? NULL : path;
}

static int make_dir(struct error *e)
{
	CLEANUP_FREE char *dir = journey_path("", "");

	return dir ? proc_make_dir(dir, e) : error_set(e, ENOMEM, "out of memory");
}

/* --- reading, writing */

static int check(const struct journey_record *r, const char *id, struct error *e)
{
	if (r->format != FORMAT)
		return error_set(e, ENOTSUP, "move %s was begun by another version of sxm, which writes format %" PRId64, id,
				 r->format);
	for (size_t i = 0; i < ARRAY_LEN(step_names); i++)
		if (strcmp(step_names[i], r->step) == 0 && strcmp(r->id, id) == 0 && r->disks.count)
			return 0;
	return error_set(e, EBADMSG, "the record of move %s is damaged", id);
}

/* As it was meant by who wrote it before there was a choice. */
static int complete(struct journey_record *r, struct error *e)
{
	if (!r->transport)
		r->transport = strdup("ssh");
	if (!r->address)
		r->address = strdup("");
	if (!r->certificates)
		r->certificates = strdup("");
	return r->transport && r->address && r->certificates ? 0 : error_set(e, ENOMEM, "out of memory");
}

int journey_read(const char *id, struct journey_record *r, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;
	size_t bytes;

	*r = (struct journey_record) { 0 };
	if (!journey_id_is_valid(id))
		return error_set(e, EINVAL, "%.60s is no name of a move", id);
	path = journey_path(id, ".json");
	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	text = proc_read_own_file(path, RECORD_MAX_BYTES, &bytes, e);
	if (!text && e->err == ENOENT)
		return error_set(e, ENOENT, "there is no move %s on this host", id);
	if (!text || jsonspec_decode(&journey_record_spec, text, bytes, r, e) == -1)
		return error_prefix(e, "the record of move %s", id);
	if (check(r, id, e) == 0 && complete(r, e) == 0)
		return 0;
	jsonspec_clear(&journey_record_spec, r);
	return -1;
}

int journey_write(const struct journey_record *r, struct error *e)
{
	CLEANUP_FREE char *text = jsonspec_encode(&journey_record_spec, r);
	CLEANUP_FREE char *path = journey_path(r->id, ".json");

	if (!text || !path)
		return error_set(e, ENOMEM, "out of memory");
	if (make_dir(e) == -1 || proc_replace_file(path, text, strlen(text), 0600, e) == -1)
		return error_prefix(e, "the record of move %s", r->id);
	return 0;
}

static void remove_run_dir(const char *id)
{
	CLEANUP_FREE char *dir = journey_run_path(id, "");
	DIR *d = dir ? opendir(dir) : NULL;
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(d), entry->d_name, 0);
	if (d) {
		closedir(d);
		rmdir(dir);
	}
}

void journey_forget(const char *id)
{
	CLEANUP_FREE char *record = journey_path(id, ".json");
	CLEANUP_FREE char *history = journey_path(id, ".history");
	CLEANUP_FREE char *lock = journey_path(id, ".lock");
	struct error e;

	remove_run_dir(id);
	if (!record || !history || !lock)
		return;
	unlink(record);
	unlink(history);
	unlink(lock);
	proc_sync_dir(record, &e);
}

/* --- locks */

static int take_lock(const char *id, int how, struct error *e)
{
	CLEANUP_FREE char *path = journey_path(id, ".lock");
	CLEANUP_CLOSE int fd = -1;

	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	if (make_dir(e) == -1)
		return -1;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(e, errno, "open %s", path);
	for (int looks = 0; flock(fd, how) == -1;) {
		if (errno == EWOULDBLOCK && looks++ < LOOKS_MAX) /* somebody looks whether it is held */
			journey_pause(LOOK_MS);
		else if (errno == EWOULDBLOCK)
			return error_set(e, EBUSY, "move %s is being driven by another `sxm migrate` just now", id);
		else if (errno != EINTR)
			return error_errno(e, errno, "lock %s", path);
	}
	return take_fd(&fd);
}

bool journey_is_driven(const char *id)
{
	CLEANUP_FREE char *path = journey_path(id, ".lock");
	CLEANUP_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;

	return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK;
}

int journey_lock(const char *id, struct error *e)
{
	return take_lock(id, LOCK_EX | LOCK_NB, e);
}

int journey_lock_all(struct error *e)
{
	return take_lock("all", LOCK_EX, e);
}

/* --- all of them */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int journey_list(struct jsonspec_list *ids, struct error *e)
{
	CLEANUP_FREE char *dir = journey_path("", "");
	DIR *d = dir ? opendir(dir) : NULL;
	struct dirent *entry;

	*ids = (struct jsonspec_list) { 0 };
	if (!d)
		return dir && errno == ENOENT ? 0 : error_errno(e, errno, "list the moves of this host");
	while ((entry = readdir(d))) {
		char *dot = strrchr(entry->d_name, '.');

		if (!dot || strcmp(dot, ".json") != 0)
			continue;
		*dot = '\0';
		if (journey_id_is_valid(entry->d_name))
			jsonspec_list_add(ids, entry->d_name);
	}
	closedir(d);
	if (ids->count)
		qsort(ids->item, ids->count, sizeof(*ids->item), by_name);
	return 0;
}

static bool has_disk(const struct journey_record *r, const char *uri)
{
	const struct journey_disk *d = r->disks.item;

	for (size_t i = 0; i < r->disks.count; i++)
		if (strcmp(d[i].uri, uri) == 0)
			return true;
	return false;
}

char *journey_of_disk(const char *uri)
{
	struct jsonspec_list ids;
	struct error e;
	char *found = NULL;

	if (journey_list(&ids, &e) == -1)
		return NULL;
	for (size_t i = 0; i < ids.count && !found; i++) {
		struct journey_record r;

		if (journey_read(ids.item[i], &r, &e) == -1)
			continue;
		if (!journey_is_over(&r) && has_disk(&r, uri))
			found = strdup(r.id);
		jsonspec_clear(&journey_record_spec, &r);
	}
	for (size_t i = 0; i < ids.count; i++)
		free(ids.item[i]);
	free(ids.item);
	return found;
}

/* --- what others tell who drives it */

static int tell(const char *id, const char *name, const char *text, struct error *e)
{
	CLEANUP_FREE char *dir = journey_run_path(id, "");
	CLEANUP_FREE char *path = journey_run_path(id, name);

	if (!dir || !path)
		return error_set(e, ENOMEM, "out of memory");
	return proc_make_dir(dir, e) == 0 ? proc_swap_file(path, text, strlen(text), 0600, e) : -1;
}

int journey_tell_bandwidth(const char *id, uint64_t bytes_s, struct error *e)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64 "\n", bytes_s);
	return tell(id, "bandwidth", text, e);
}

int journey_tell_go(const char *id, struct error *e)
{
	return tell(id, "go", "now\n", e);
}
