/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay-find - which SR and which volume a person means, and what can be said of them
 *
 *      SR        a directory, its file:// URI, the uuid or the name of one that is attached here
 *      volume    SR/KEY (or the volume's name in it), an image's path, its sxm:// URI, the id of a disk that is served here
 *
 * An image that is no volume's can be found, too: whoever serves one by hand may move it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "base/uri.h"
#include "cmd/find.h"
#include "cmd/relay-verbs.h"
#include "plugins/image.h"
#include "plugins/mount.h"
#include "plugins/process.h"
#include "plugins/sr.h"
#include "plugins/types.h"
#include "plugins/verb.h"
#include "plugins/volume.h"

#define NFS_MAGIC 0x6969
#define XFS_MAGIC 0x58465342
#define EXT4_MAGIC 0xef53
#define STATUS_WAIT_MS 10000u
#define TEXT(s) ((char *)(uintptr_t)(s)) /* lent to be encoded */

/* --- SRs */

const char *relay_sr_type(const char *dir)
{
	struct statfs fs;

	if (!mount_is_dir(dir) || statfs(dir, &fs) == -1)
		return sr_filebased.type;
	switch ((unsigned long)fs.f_type) {
	case NFS_MAGIC: return sr_nfs.type;
	case XFS_MAGIC: return sr_xfs.type;
	case EXT4_MAGIC: return sr_ext4.type;
	default: return sr_filebased.type;
	}
}

/* Of the SRs that are attached here, the one of that name: heap; NULL + e. */
static char *find_named(const char *name, struct error *e)
{
	struct jsonspec_list handles;
	char *found = NULL;
	size_t count = 0;

	if (sr_attached(&handles, e) == -1)
		return NULL;
	for (size_t i = 0; i < handles.count; i++) {
		struct error why;
		CLEANUP_FREE char *dir = uri_path(handles.item[i], "file", &why);
		struct meta_sr m;

		if (!dir || meta_sr_read(dir, &m, &why) == -1)
			continue;
		if (strcmp(m.name, name) == 0 && count++ == 0)
			found = take_ptr(&dir);
		meta_sr_clear(&m);
	}
	meta_list_clear(&handles);
	if (count == 1)
		return found;
	free(found);
	if (count)
		error_set(e, EEXIST, "%zu SRs are called %.100s; say which one by its uuid or directory", count, name);
	return NULL;
}

/* Heap; NULL + e. */
static char *find_dir(const char *name, struct error *e)
{
	struct error by_name = { 0 };
	char *dir;

	if (!*name) {
		error_set(e, EINVAL, "no SR is named");
		return NULL;
	}
	dir = find_sr_dir(name, e);
	if (dir || strchr(name, '/'))
		return dir;
	dir = find_named(name, &by_name);
	if (!dir && by_name.err)
		*e = by_name;
	else if (!dir)
		error_set(e, ENOENT, "no SR with the name or uuid %.100s is attached there; attach it, or give its directory",
			  name);
	return dir;
}

struct sr_answer {
	char *sr, *dir, *uuid, *name, *type, *format, *health;
	int64_t free_bytes, total_bytes;
	bool shared;
};
#define SR(member, kind) { #member, kind, offsetof(struct sr_answer, member) }
static const struct jsonspec_field sr_fields[] = {
	SR(sr, JS_STRING), SR(dir, JS_STRING), SR(uuid, JS_STRING), SR(name, JS_STRING), SR(type, JS_STRING),
	SR(format, JS_STRING), SR(free_bytes, JS_INT64), SR(total_bytes, JS_INT64), SR(shared, JS_BOOL), SR(health, JS_STRING),
	{ NULL },
};
static const struct jsonspec sr_answer_spec = { "SR", sizeof(struct sr_answer), sr_fields };

/* What SR.stat says of it, under its patience. */
static int stat_sr(const char *dir, const char *handle, struct types_sr_stat *stat, struct error *e)
{
	CLEANUP_FREE char *quoted = jsonspec_string(handle);
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *result = NULL;
	struct failure f;

	if (!quoted || asprintf(&args, "{\"dbg\":\"relay\",\"sr\":%s}", quoted) < 0) {
		args = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (verb_call(relay_sr_type(dir), "SR.stat", args, &result, &f) == -1) {
		*e = f.e;
		return -1;
	}
	return jsonspec_decode(&types_sr_stat, result, strlen(result), stat, e);
}

static int answer_sr(const char *dir, struct relay_reply *r, struct error *e)
{
	CLEANUP_FREE char *handle = uri_of_path("file", dir);
	struct types_sr_stat stat;
	struct sr sr;
	struct failure f;
	int result;

	if (!handle)
		return error_set(e, ENOMEM, "out of memory");
	if (sr_open(&sr, handle, &f) == -1) {
		*e = f.e;
		return -1;
	}
	result = stat_sr(dir, handle, &stat, e);
	if (result == 0) {
		const struct sr_answer a = {
			.sr = handle, .dir = TEXT(dir), .uuid = sr.meta.uuid, .name = sr.meta.name,
			.type = TEXT(relay_sr_type(dir)), .format = sr.meta.format, .health = stat.health.tag,
			.free_bytes = stat.free_space, .total_bytes = stat.total_space, .shared = stat.clustered,
		};

		result = relay_say(jsonspec_encode(&sr_answer_spec, &a), r, e);
		jsonspec_clear(&types_sr_stat, &stat);
	}
	sr_close(&sr);
	return result;
}

struct sr_args {
	char *sr;
};
static const struct jsonspec_field sr_args_fields[] = { { "sr", JS_STRING, offsetof(struct sr_args, sr) }, { NULL } };
static const struct jsonspec sr_args_spec = { "sr.find", sizeof(struct sr_args), sr_args_fields };

int relay_sr_find(const char *args, struct relay_reply *r, struct error *e)
{
	CLEANUP_FREE char *dir = NULL;
	struct sr_args a;

	if (jsonspec_decode(&sr_args_spec, args, strlen(args), &a, e) == -1)
		return -1;
	dir = find_dir(a.sr, e);
	jsonspec_clear(&sr_args_spec, &a);
	return dir ? answer_sr(dir, r, e) : -1;
}

/* --- what is known of an image */

struct user {
	char *domain;
	bool active, read_only;
};
static const struct jsonspec_field user_fields[] = {
	{ "domain", JS_STRING, offsetof(struct user, domain) },
	{ "active", JS_BOOL, offsetof(struct user, active) },
	{ "read_only", JS_BOOL, offsetof(struct user, read_only), .is_optional = true },
	{ NULL },
};
static const struct jsonspec user_spec = { "domain", sizeof(struct user), user_fields };
struct operation {
	char *id;
	bool copy, failed, ended, remembered;
};
static const struct jsonspec_field operation_fields[] = {
	{ "id", JS_STRING, offsetof(struct operation, id) },
	{ "copy", JS_BOOL, offsetof(struct operation, copy), .is_optional = true },
	{ "failed", JS_BOOL, offsetof(struct operation, failed), .is_optional = true },
	{ "ended", JS_BOOL, offsetof(struct operation, ended), .is_optional = true },
	{ "remembered", JS_BOOL, offsetof(struct operation, remembered), .is_optional = true },
	{ NULL },
};
static const struct jsonspec operation_spec = { "operation", sizeof(struct operation), operation_fields };
struct owner {
	char *state;
};
static const struct jsonspec_field owner_fields[] = { { "state", JS_STRING, offsetof(struct owner, state) }, { NULL } };
static const struct jsonspec owner_spec = { "owner", sizeof(struct owner), owner_fields };
struct status {
	struct owner owner;
	struct jsonspec_records domains, operations;
	int64_t size_bytes;
};
static const struct jsonspec_field status_fields[] = {
	{ "owner", JS_RECORD, offsetof(struct status, owner), .sub = &owner_spec },
	{ "domains", JS_RECORDS, offsetof(struct status, domains), .sub = &user_spec },
	{ "operations", JS_RECORDS, offsetof(struct status, operations), .sub = &operation_spec },
	{ "size_bytes", JS_INT64, offsetof(struct status, size_bytes), .is_optional = true },
	{ NULL },
};
static const struct jsonspec status_spec = { "status", sizeof(struct status), status_fields };

static int ask_status(const struct process *p, struct status *s, struct error *e)
{
	CLEANUP_FREE char *ok = process_call(p, "status", NULL, PROCESS_RESTART, STATUS_WAIT_MS, e);

	if (ok && jsonspec_decode(&status_spec, ok, strlen(ok), s, e) == -1)
		return -1;
	if (!ok && e->err != ESRCH)
		return -1;
	if (!ok)
		*s = (struct status) { 0 };
	if (s->owner.state && *s->owner.state)
		return 0;
	free(s->owner.state); /* it has not opened the disk yet, and knows nothing */
	s->owner.state = relay_state_on_record(p->path, e);
	if (s->owner.state)
		return 0;
	jsonspec_clear(&status_spec, s);
	return -1;
}

struct volume_answer {
	char *sr, *key, *name, *description, *uri, *path, *id, *format, *owner, *operation;
	int64_t size_bytes, allocated_bytes;
	bool read_write, sharable, cbt, operation_failed;
	struct jsonspec_map keys;
	struct jsonspec_records domains;
};
#define VOLUME(member, kind) { #member, kind, offsetof(struct volume_answer, member) }
static const struct jsonspec_field volume_fields[] = {
	VOLUME(sr, JS_STRING), VOLUME(key, JS_STRING), VOLUME(name, JS_STRING), VOLUME(description, JS_STRING),
	VOLUME(uri, JS_STRING), VOLUME(path, JS_STRING), VOLUME(id, JS_STRING), VOLUME(format, JS_STRING),
	VOLUME(owner, JS_STRING), VOLUME(operation, JS_STRING), VOLUME(size_bytes, JS_INT64), VOLUME(allocated_bytes, JS_INT64),
	VOLUME(read_write, JS_BOOL), VOLUME(sharable, JS_BOOL), VOLUME(cbt, JS_BOOL), VOLUME(operation_failed, JS_BOOL),
	VOLUME(keys, JS_MAP), { "domains", JS_RECORDS, offsetof(struct volume_answer, domains), .sub = &user_spec }, { NULL },
};
static const struct jsonspec volume_answer_spec = { "volume", sizeof(struct volume_answer), volume_fields };

static void add_status(struct volume_answer *a, const struct status *s)
{
	const struct operation *o = s->operations.item;

	a->owner = s->owner.state;
	a->domains = s->domains;
	a->operation = TEXT("");
	for (size_t i = 0; i < s->operations.count; i++) {
		if (o[i].ended && !o[i].remembered)
			continue;
		a->operation = o[i].id;
		a->operation_failed = o[i].failed;
	}
	if (s->size_bytes)
		a->size_bytes = s->size_bytes;
}

/* The volume that an image is of: its key, or "". */
static void split_path(const char *path, char **dir, char key[static META_KEY_MAX + 1])
{
	static const char *const suffixes[] = { ".raw", ".qcow2" };
	const char *slash = strrchr(path, '/');

	*dir = strndup(path, (size_t)(slash - path) + (slash == path));
	*key = '\0';
	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++)
		if (meta_split_name(slash + 1, suffixes[i], key))
			return;
	*key = '\0';
}

char *relay_move_of(const char *path)
{
	char key[META_KEY_MAX + 1];
	CLEANUP_FREE char *dir = NULL;
	char *mark = NULL, *dash;

	split_path(path, &dir, key);
	mark = dir && *key ? relay_mark_of(dir, key) : NULL;
	dash = mark ? strrchr(mark, '-') : NULL; /* MOVE-NUMBER, of each disk */
	if (dash)
		*dash = '\0';
	return mark;
}

static char *encode(struct volume_answer *a, const char *path, struct error *e)
{
	CLEANUP_FREE char *uri = uri_of_path("sxm", path);
	struct process p;
	struct status s;
	char *text;

	if (process_by_path(&p, path, e) == -1 || ask_status(&p, &s, e) == -1)
		return NULL;
	a->uri = uri;
	a->path = TEXT(path);
	a->id = p.id;
	add_status(a, &s);
	text = uri ? jsonspec_encode(&volume_answer_spec, a) : NULL;
	jsonspec_clear(&status_spec, &s);
	if (!text)
		error_set(e, ENOMEM, "out of memory");
	return text;
}

static char *describe_bare(const char *path, struct error *e)
{
	const char *name = strrchr(path, '/') + 1;
	struct volume_answer a = { .sr = TEXT(""), .key = TEXT(""), .name = TEXT(name), .description = TEXT(""),
				   .format = TEXT("raw"), .read_write = true };
	struct stat st;

	if (stat(path, &st) == -1) {
		error_errno(e, errno, "look at %s", path);
		return NULL;
	}
	a.size_bytes = st.st_size;
	a.allocated_bytes = (int64_t)st.st_blocks * 512;
	return encode(&a, path, e);
}

static char *describe_volume(const char *dir, const char *key, const char *path, struct types_volume *v, struct error *e)
{
	CLEANUP_FREE char *handle = uri_of_path("file", dir);
	struct volume_answer a = {
		.sr = handle, .key = TEXT(key), .name = v->name, .description = v->description,
		.format = TEXT(strrchr(path, '.') + 1), .size_bytes = v->virtual_size, .allocated_bytes = v->physical_utilisation,
		.read_write = v->read_write, .sharable = v->sharable, .cbt = v->cbt_enabled, .keys = v->keys,
	};

	if (handle)
		return encode(&a, path, e);
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

char *relay_describe(const char *path, struct error *e)
{
	char key[META_KEY_MAX + 1];
	CLEANUP_FREE char *dir = NULL;
	struct types_volume v;
	char *text;
	int r;

	split_path(path, &dir, key);
	if (!dir) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	r = *key ? volume_describe(dir, key, &v, e) : 1;
	if (r == -1)
		return NULL;
	if (r == 1)
		return describe_bare(path, e);
	text = describe_volume(dir, key, path, &v, e);
	jsonspec_clear(&types_volume, &v);
	return text;
}

/* --- which one is meant */

/* By its name, where that is only one's. Heap; NULL + e. */
static char *find_key(const char *dir, const char *name, struct error *e)
{
	struct jsonspec_list keys;
	char *found = NULL;
	size_t count = 0;

	if (meta_list(dir, &keys, e) == -1)
		return NULL;
	for (size_t i = 0; i < keys.count; i++) {
		struct meta_volume m;
		struct error why;

		if (meta_volume_read(dir, keys.item[i], &m, &why) == -1)
			continue;
		if (strcmp(keys.item[i], name) == 0 || strcmp(m.name, name) == 0) {
			count++;
			free(found);
			found = strdup(keys.item[i]);
		}
		meta_volume_clear(&m);
	}
	meta_list_clear(&keys);
	if (count == 1 && found)
		return found;
	free(found);
	error_set(e, count ? EEXIST : ENOENT, count ? "several volumes in %s are called %.100s; say which one by its key"
						    : "in %s there is no volume %.100s", dir, name);
	return NULL;
}

static char *find_in_sr(const char *source, const char *slash, struct error *e)
{
	CLEANUP_FREE char *sr_name = strndup(source, (size_t)(slash - source));
	CLEANUP_FREE char *dir = sr_name ? find_dir(sr_name, e) : NULL;
	CLEANUP_FREE char *key = dir ? find_key(dir, slash + 1, e) : NULL;
	struct meta_volume m;
	struct image image;
	char *path;

	if (!key || meta_volume_read(dir, key, &m, e) == -1)
		return NULL;
	image = image_of(dir, key, m.format);
	meta_volume_clear(&m);
	path = image_path(&image);
	if (!path)
		error_set(e, ENOMEM, "out of memory");
	return path;
}

struct served {
	char *path;
};
static const struct jsonspec_field served_fields[] = { { "path", JS_STRING, offsetof(struct served, path) }, { NULL } };
static const struct jsonspec served_spec = { "hello", sizeof(struct served), served_fields };

static char *find_served(const char *id, struct error *e)
{
	struct process p;
	CLEANUP_FREE char *ok = process_by_id(&p, id, e) == 0 ? process_ask(&p, "hello", NULL, STATUS_WAIT_MS, e) : NULL;
	struct served s;

	return ok && jsonspec_decode(&served_spec, ok, strlen(ok), &s, e) == 0 ? s.path : NULL;
}

/* The image's canonical path, heap; NULL + e. */
static char *find_image(const char *source, struct error *e)
{
	const char *slash = strrchr(source, '/');
	CLEANUP_FREE char *path = NULL;
	struct stat st;

	if (strncasecmp(source, "sxm:", 4) == 0)
		path = uri_path(source, "sxm", e);
	else if (!slash && vdi_id_is_valid(source))
		path = find_served(source, e);
	else if (strncasecmp(source, "file:", 5) != 0 && stat(source, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		path = realpath(source, NULL);
	else if (slash && slash[1])
		path = find_in_sr(source, slash, e);
	else
		error_set(e, EINVAL, "%.200s names no disk: give SR/KEY, the path of an image, or the id of a disk in use",
			  source);
	return path ? uri_canonical(path, e) : NULL;
}

struct find_args {
	char *source;
};
static const struct jsonspec_field find_fields[] = { { "source", JS_STRING, offsetof(struct find_args, source) }, { NULL } };
static const struct jsonspec find_spec = { "volume.find", sizeof(struct find_args), find_fields };

int relay_volume_find(const char *args, struct relay_reply *r, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	struct find_args a;

	if (jsonspec_decode(&find_spec, args, strlen(args), &a, e) == -1)
		return -1;
	path = find_image(a.source, e);
	jsonspec_clear(&find_spec, &a);
	if (!path)
		return -1;
	r->ok = relay_describe(path, e);
	return r->ok ? 0 : -1;
}
