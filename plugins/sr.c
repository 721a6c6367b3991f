/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr - the SR.* verbs, for every type of SR
 *
 *      SR.create -> configuration, kept by xapi -> SR.attach -> handle -> everything else
 *
 * The handle is the directory as a file URI, so it needs no table of ours and stays valid over restarts.  Which SRs are
 * attached is noted in SXM_RUN_DIR/srs for Plugin.ls and diagnostics; nothing depends on it.
 *
 * Invariant: SR.ls gives every volume or fails, for xapi forgets the disks it does not see.
 */
#include "plugins/sr.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/uri.h"
#include "plugins/bounded.h"
#include "plugins/child.h"
#include "plugins/coalesce.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/ownership.h"
#include "plugins/smapi.h"
#include "plugins/vdi-id.h"

#define TEXT(s) ((char *)(uintptr_t)(s)) /* lent to be encoded */
#define STAT_PATIENCE_MS 10000u

static const struct sr_ops *const types[] = { &sr_filebased, &sr_ext4, &sr_xfs, &sr_nfs };

const struct sr_ops *sr_type(const char *type)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (strcmp(types[i]->type, type) == 0)
			return types[i];
	return NULL;
}

static int out_of_memory(struct failure *f)
{
	return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
}

/* --- the handle */

/* A damaged record takes the SR's name away, not its volumes. */
static int read_meta(const char *dir, struct meta_sr *meta, struct error *e)
{
	if (meta_sr_read(dir, meta, e) == 0)
		return 0;
	if (e->err != EBADMSG)
		return -1;
	log_warn("%s", e->text);
	*meta = (struct meta_sr){
		.uuid = strdup(""), .name = strdup(""), .description = strdup(e->text), .format = strdup("raw")
	};
	if (meta->uuid && meta->name && meta->description && meta->format)
		return 0;
	meta_sr_clear(meta);
	return error_set(e, ENOMEM, "out of memory");
}

int sr_open(struct sr *sr, const char *handle, struct failure *f)
{
	struct error e;

	*sr = (struct sr) { .handle = handle };
	sr->dir = uri_path(handle, "file", &e);
	if (!sr->dir)
		return failure_raise(f, FAILURE_SR_NOT_ATTACHED, handle, "%s is not what SR.attach returned: %s", handle, e.text);
	if (read_meta(sr->dir, &sr->meta, &e) == 0)
		return 0;
	if (e.err == ENOENT || e.err == ENOTDIR)
		failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, handle, "there is no SR in %s; is its file system mounted?", sr->dir);
	else
		failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	free(take_ptr(&sr->dir));
	return -1;
}

void sr_close(struct sr *sr)
{
	meta_sr_clear(&sr->meta);
	free(take_ptr(&sr->dir));
}

/* --- what is attached */

static char *note_path(const char *handle)
{
	char id[VDI_ID_MAX];
	char *path;

	vdi_id_of_path(handle, id);
	return asprintf(&path, "%s/srs/%s", proc_run_dir(), id) < 0 ? NULL : path;
}

static void note_attached(const char *handle)
{
	CLEANUP_FREE char *path = note_path(handle);
	CLEANUP_FREE char *dir = path ? strndup(path, (size_t)(strrchr(path, '/') - path)) : NULL;
	struct error e;

	if (!dir)
		return;
	if (access(path, F_OK) == 0)
		return;
	if (proc_make_dir(proc_run_dir(), &e) == -1 || proc_make_dir(dir, &e) == -1 ||
	    proc_replace_file(path, handle, strlen(handle), 0600, &e) == -1)
		log_warn("%s is attached, but Plugin.ls will not show it: %s", handle, e.text);
}

static void note_detached(const char *handle)
{
	CLEANUP_FREE char *path = note_path(handle);

	if (path)
		unlink(path);
}

int sr_attached(struct jsonspec_list *handles, struct error *e)
{
	CLEANUP_FREE char *dir = NULL;
	struct dirent *entry;
	DIR *d;

	*handles = (struct jsonspec_list) { 0 };
	if (asprintf(&dir, "%s/srs", proc_run_dir()) < 0) {
		dir = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	d = opendir(dir);
	if (!d)
		return errno == ENOENT ? 0 : error_errno(e, errno, "list %s", dir);
	while ((entry = readdir(d))) {
		CLEANUP_FREE char *path = NULL;
		CLEANUP_FREE char *handle = NULL;
		struct error why;

		if (!vdi_id_is_valid(entry->d_name))
			continue;
		if (asprintf(&path, "%s/%s", dir, entry->d_name) < 0) {
			path = NULL;
			continue;
		}
		handle = proc_read_file(path, 4 * PATH_MAX, NULL, &why);
		if (handle)
			jsonspec_list_add(handles, handle);
	}
	closedir(d);
	return 0;
}

/* --- create, attach */

/* With the lock held: the record, unless one is there. */
static int write_first_record(struct smapi_call *call, const char *dir, struct failure *f)
{
	struct smapi_args *a = &call->args;
	struct meta_sr meta;
	struct error e;
	int r;

	if (meta_sr_read(dir, &meta, &e) == 0) {
		r = strcmp(meta.uuid, a->uuid) == 0 ? 0 : failure_set(f, FAILURE_SR_IN_USE, EEXIST,
			"directory %s already holds SR %s; attach that one, or choose another directory", dir, meta.uuid);
		meta_sr_clear(&meta);
		return r;
	}
	if (e.err != ENOENT)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	meta = (struct meta_sr) { .uuid = a->uuid, .name = a->name, .description = a->description,
				  .format = TEXT(sr_choose_format(&a->configuration, dir)->format),
				  .is_shared = ownership_is_shared(call->sr_type->is_shared, &a->configuration) };
	return meta_sr_write(dir, &meta, &e) == 0 ? 0 : failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
}

static int create_in(struct smapi_call *call, const struct sr_place *place, struct failure *f)
{
	CLEANUP_FREE char *lock_path = meta_sr_lock_path(place->dir);
	CLEANUP_FREE char *record = meta_sr_path(place->dir);
	CLEANUP_LOCK int lock = -1;
	struct error e;

	if (!lock_path)
		return out_of_memory(f);
	lock = lock_make(lock_path, LOCK_EXCLUSIVE, &e);
	if (lock < 0)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	if (write_first_record(call, place->dir, f) == 0)
		return 0;
	if (record && access(record, F_OK) == -1 && errno == ENOENT)
		unlink(lock_path); /* it is held, and there is no SR */
	return -1;
}

int sr_create(struct smapi_call *call, char **result, struct failure *f)
{
	struct jsonspec_map *configuration = &call->args.configuration;
	const struct sr_ops *type = call->sr_type;
	struct sr_place place = { .lock = -1 };
	struct failure second;
	int r;

	if (!*call->args.uuid)
		return failure_set(f, FAILURE_REQUEST, EINVAL, "uuid is empty; an SR needs one");
	if (type->check(configuration, f) == -1)
		return -1;
	if (jsonspec_map_set(configuration, "sr_uuid", call->args.uuid) == -1)
		return out_of_memory(f);
	if (type->make(type, configuration, &place, f) == -1)
		return -1;
	jsonspec_map_unset(configuration, "force");
	r = create_in(call, &place, f);
	if (type->leave && type->leave(type, configuration, &place, r == -1, &second) == -1 && r == 0) {
		*f = second;
		r = -1;
	}
	free(place.dir);
	return r == 0 ? smapi_result(jsonspec_object(configuration), result, f) : -1;
}

/* The SR this configuration asks for and no other. */
static int check_identity(const struct jsonspec_map *configuration, const char *dir, struct failure *f)
{
	const char *wanted = jsonspec_map_get(configuration, "sr_uuid");
	const char *uri = jsonspec_map_get(configuration, "uri");
	struct meta_sr meta;
	struct error e;
	int r = 0;

	if (!uri)
		uri = dir;
	if (read_meta(dir, &meta, &e) == -1)
		return e.err == ENOENT ? failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, uri,
						       "there is no SR in %s; SR.create makes one", dir)
				       : failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	if (wanted && *meta.uuid && strcmp(wanted, meta.uuid) != 0)
		r = failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, uri, "%s holds SR %s, not %s", dir, meta.uuid, wanted);
	meta_sr_clear(&meta);
	return r;
}

int sr_attach(struct smapi_call *call, char **result, struct failure *f)
{
	struct jsonspec_map *configuration = &call->args.configuration;
	const struct sr_ops *type = call->sr_type;
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *handle = NULL;
	struct failure ignored;

	if (type->check(configuration, f) == -1)
		return -1;
	dir = type->find(configuration, f);
	if (!dir)
		return -1;
	if (type->attach && type->attach(type, configuration, dir, f) == -1)
		return -1;
	if (check_identity(configuration, dir, f) == -1 || ownership_share(dir, type->is_shared, configuration, f) == -1) {
		if (type->detach)
			type->detach(type, dir, &ignored);
		return -1;
	}
	handle = uri_of_path("file", dir);
	if (!handle)
		return out_of_memory(f);
	note_attached(handle);
	meta_sweep(dir);
	return smapi_result(jsonspec_string(handle), result, f);
}

int sr_detach(struct smapi_call *call, char **result, struct failure *f)
{
	const char *handle = call->args.sr;
	const struct sr_ops *type = call->sr_type;
	struct error e;
	CLEANUP_FREE char *dir = uri_path(handle, "file", &e);

	if (dir && coalesce_stop(dir, &e) == -1)
		return failure_from(f, FAILURE_SR_IN_USE, &e);
	if (dir && type->detach && type->detach(type, dir, f) == -1)
		return -1;
	if (dir)
		coalesce_forget(dir);
	note_detached(handle);
	return smapi_unit(result, f);
}

/* --- destroy */

static int destroy_in(struct sr *sr, struct failure *f)
{
	CLEANUP_FREE char *lock_path = meta_sr_lock_path(sr->dir);
	CLEANUP_LOCK int lock = -1;
	struct jsonspec_list keys;
	struct error e;
	size_t volumes = 0;

	if (!lock_path)
		return out_of_memory(f);
	lock = lock_make(lock_path, LOCK_EXCLUSIVE, &e);
	if (lock < 0 || meta_list(sr->dir, &keys, &e) == -1)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	for (size_t i = 0; i < keys.count; i++) {
		struct types_volume v;
		int r = volume_describe(sr->dir, keys.item[i], &v, &e);

		if (r == 0)
			jsonspec_clear(&types_volume, &v);
		volumes += r != 1;
	}
	meta_list_clear(&keys);
	if (!volumes && coalesce_stop(sr->dir, &e) == -1)
		return failure_from(f, FAILURE_SR_IN_USE, &e);
	if (volumes)
		return failure_set(f, FAILURE_SR_IN_USE, ENOTEMPTY, "SR %s in %s still has %zu volume%s; destroy %s first",
				   sr->meta.uuid, sr->dir, volumes, volumes == 1 ? "" : "s", volumes == 1 ? "it" : "them");
	return meta_sr_remove(sr->dir, &e) == 0 ? 0 : failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
}

/* The place is there and holds neither an SR nor a volume. */
static bool is_empty(const char *dir)
{
	CLEANUP_FREE char *record = meta_sr_path(dir);
	struct jsonspec_list keys;
	struct error e;
	bool has_none;

	if (!record || access(record, F_OK) == 0 || errno != ENOENT || meta_list(dir, &keys, &e) == -1)
		return false;
	has_none = keys.count == 0;
	meta_list_clear(&keys);
	return has_none;
}

/* False: it was not. A repeated call, or after one that was killed: its lock is still there then. */
static bool is_destroyed(const char *dir)
{
	CLEANUP_FREE char *lock_path = meta_sr_lock_path(dir);
	CLEANUP_LOCK int lock = -1;
	struct error e;

	if (!lock_path || !is_empty(dir))
		return false;
	if ((lock = lock_take(lock_path, LOCK_EXCLUSIVE, &e)) < 0)
		return e.err == ENOENT;
	return is_empty(dir) && meta_sr_remove(dir, &e) == 0; /* nobody has made one meanwhile */
}

int sr_destroy(struct smapi_call *call, char **result, struct failure *f)
{
	const char *handle = call->args.sr;
	const struct sr_ops *type = call->sr_type;
	struct error e;
	CLEANUP_FREE char *dir = uri_path(handle, "file", &e);
	struct sr sr;

	if (sr_open(&sr, handle, f) == 0) {
		int r;

		meta_sweep(dir);
		r = destroy_in(&sr, f);

		sr_close(&sr);
		if (r == -1)
			return -1;
	} else if (f->kind != FAILURE_SR_DOES_NOT_EXIST || !dir || !is_destroyed(dir)) {
		return -1;
	}
	if (type->destroy && type->destroy(type, dir, f) == -1) /* no SR.detach will follow */
		return -1;
	coalesce_forget(dir);
	note_detached(handle);
	return smapi_unit(result, f);
}

/* --- stat, names */

static void fill_stat(const struct sr *sr, bool is_shared, struct types_sr_stat *stat)
{
	struct statvfs fs;

	*stat = (struct types_sr_stat) {
		.sr = TEXT(sr->handle),
		.name = sr->meta.name, .description = sr->meta.description,
		.uuid = *sr->meta.uuid ? sr->meta.uuid : NULL,
		.clustered = is_shared,
		.health = { .tag = TEXT("Healthy"), .arg = TEXT("") },
	};
	if (statvfs(sr->dir, &fs) == -1) {
		stat->health.tag = TEXT("Unreachable");
		stat->health.arg = strerror(errno);
		return;
	}
	stat->total_space = (int64_t)(fs.f_blocks * fs.f_frsize);
	stat->free_space = (int64_t)(fs.f_bavail * fs.f_frsize);
	if (fs.f_flag & ST_RDONLY) {
		stat->health.tag = TEXT("Unavailable");
		stat->health.arg = TEXT("the file system can only be read; the kernel's log tells why");
	}
}

static int stat_now(struct smapi_call *call, char **result, struct failure *f)
{
	struct types_sr_stat stat;
	struct sr sr;
	char *text;

	if (sr_open(&sr, call->args.sr, f) == -1)
		return -1;
	fill_stat(&sr, call->sr_type->is_shared || sr.meta.is_shared, &stat);
	text = jsonspec_encode(&types_sr_stat, &stat);
	sr_close(&sr);
	return smapi_result(text, result, f);
}

int sr_stat(struct smapi_call *call, char **result, struct failure *f)
{
	struct types_sr_stat stat;

	if (bounded_call(stat_now, call, STAT_PATIENCE_MS, result, f) == 0)
		return 0;
	if (f->kind == FAILURE_SR_NOT_ATTACHED)
		return -1;
	stat = (struct types_sr_stat) { .sr = call->args.sr, .name = TEXT(""), .description = TEXT(""),
					.clustered = call->sr_type->is_shared,
					.health = { .tag = TEXT("Unreachable"), .arg = f->e.text } };
	return smapi_result(jsonspec_encode(&types_sr_stat, &stat), result, f);
}

/* Replaces one of the record's strings. member: of a struct meta_sr. */
static int rename_sr(struct smapi_call *call, size_t member, char **text, char **result, struct failure *f)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_LOCK int lock = -1;
	struct error e;
	struct sr sr;
	char **old;
	int r;

	if (sr_open(&sr, call->args.sr, f) == -1)
		return -1;
	path = meta_sr_path(sr.dir);
	lock = path ? lock_take(path, LOCK_EXCLUSIVE, &e) : error_set(&e, ENOMEM, "out of memory");
	r = lock < 0 ? -1 : 0;
	if (r == 0) {
		meta_sr_clear(&sr.meta);
		sr.meta = (struct meta_sr) { 0 };
		r = meta_sr_read(sr.dir, &sr.meta, &e);
	}
	if (r == 0) {
		old = (char **)(void *)((char *)&sr.meta + member);
		free(*old);
		*old = take_ptr(text);
		r = meta_sr_write(sr.dir, &sr.meta, &e);
	}
	sr_close(&sr);
	return r == 0 ? smapi_unit(result, f) : failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
}

int sr_set_name(struct smapi_call *call, char **result, struct failure *f)
{
	return rename_sr(call, offsetof(struct meta_sr, name), &call->args.new_name, result, f);
}

int sr_set_description(struct smapi_call *call, char **result, struct failure *f)
{
	return rename_sr(call, offsetof(struct meta_sr, description), &call->args.new_description, result, f);
}

/* --- ls */

static int describe_all(const char *dir, const struct jsonspec_list *keys, struct types_volume *volumes, size_t *count,
			struct error *e)
{
	for (size_t i = 0; i < keys->count; i++) {
		int r = volume_describe(dir, keys->item[i], &volumes[*count], e);

		if (r == -1)
			return -1;
		*count += r == 0;
	}
	return 0;
}

static int list_volumes(const char *dir, char **text, struct error *e)
{
	struct types_volume *volumes;
	struct jsonspec_list keys;
	size_t count = 0;
	int r;

	if (meta_list(dir, &keys, e) == -1)
		return -1;
	volumes = calloc(keys.count + 1, sizeof(*volumes));
	r = volumes ? describe_all(dir, &keys, volumes, &count, e) : error_set(e, ENOMEM, "out of memory");
	if (r == 0) {
		*text = jsonspec_array(&types_volume, volumes, count);
		r = *text ? 0 : error_set(e, ENOMEM, "out of memory");
	}
	while (count)
		jsonspec_clear(&types_volume, &volumes[--count]);
	free(volumes);
	meta_list_clear(&keys);
	return r;
}

int sr_ls(struct smapi_call *call, char **result, struct failure *f)
{
	struct error e;
	struct sr sr;
	int r;

	if (sr_open(&sr, call->args.sr, f) == -1)
		return -1;
	r = list_volumes(sr.dir, result, &e);
	sr_close(&sr);
	return r == 0 ? 0 : failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
}
