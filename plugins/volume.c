/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volume - the Volume.* verbs
 *
 * A volume is a record and an image (meta.h).  Verbs that change a record hold flock() on it, so they go one after the other;
 * those that only read take no lock, for a record is replaced whole.  The image itself is guarded by the lock of whoever does
 * I/O on it (image.h): nothing here waits for a mirror.
 *
 *      create:  image -> record             a verb killed in between leaves an image without a record: no volume
 *      destroy: ask the datapath, claim the image, passing name, record, image
 *      resize:  new content_id -> image, or its datapath where it is in use -> record
 *
 * What is made of another volume is volume-clone.c's; that somebody is about to write to one, volume-writer.c's.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uuid.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/uri.h"
#include "plugins/chain.h"
#include "plugins/datapath.h"
#include "plugins/joint.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/ownership.h"
#include "plugins/smapi.h"
#include "plugins/volume.h"

void volume_make_uuid(char text[static VOLUME_UUID_TEXT])
{
	uuid_t uuid;

	uuid_generate_random(uuid);
	uuid_unparse_lower(uuid, text);
}

static int out_of_memory(struct failure *f)
{
	return failure_set(f, FAILURE_VDI_UNAVAILABLE, ENOMEM, "out of memory");
}

int volume_raise_missing(const char *key, struct failure *f)
{
	return failure_raise(f, FAILURE_VOLUME_DOES_NOT_EXIST, key, "there is no volume %s in the SR", key);
}

/* --- describe */

/* Takes m's strings over. */
static int fill(const char *dir, const char *key, struct meta_volume *m, struct types_volume *v, struct error *e)
{
	struct image_info info = { .virtual_bytes = m->virtual_size };
	const struct image image = image_of(dir, key, m->format);
	CLEANUP_FREE char *path = image_path(&image);
	CLEANUP_FREE char *uri = path ? uri_of_path("sxm", path) : NULL;
	const char *content_id;
	struct error why;

	if (!m->is_data_destroyed && image_look(&image, &info, &why) == -1)
		log_warn("volume %s: %s", key, why.text);
	*v = (struct types_volume){
		.key = strdup(key),
		.uuid = take_ptr(&m->uuid),
		.name = take_ptr(&m->name),
		.description = take_ptr(&m->description),
		.read_write = m->read_write,
		.sharable = m->sharable,
		.virtual_size = info.virtual_bytes,
		.physical_utilisation = info.allocated_bytes,
		.keys = m->keys,
		.has_cbt_enabled = true,
		.cbt_enabled = chain_has(dir, key),
	};
	m->keys = (struct jsonspec_map) { 0 };
	/* Some identity, and always the same one: "" would match other disks. */
	content_id = jsonspec_map_get(&v->keys, "content_id");
	if ((!content_id || !*content_id) && jsonspec_map_set(&v->keys, "content_id", key) == -1)
		free(take_ptr(&v->key));
	if (v->key && uri && jsonspec_list_add(&v->uri, uri) == 0)
		return 0;
	jsonspec_clear(&types_volume, v);
	return error_set(e, ENOMEM, "out of memory");
}

int volume_describe(const char *dir, const char *key, struct types_volume *v, struct error *e)
{
	const struct image image = image_of(dir, key, NULL);
	struct image_info info;
	struct meta_volume m;
	struct error why, no_image;
	int r;

	if (meta_volume_read(dir, key, &m, &why) == -1) {
		if (why.err == ENOENT)
			return 1;
		if (image_look(&image, &info, &no_image) == -1 && no_image.err == ENOENT && why.err == EBADMSG) {
			log_warn("left out of the SR: %s, and there is no image", why.text);
			return 1; /* somebody else's file */
		}
		log_error("volume %s is shown without its name and keys: %s", key, why.text);
		if (meta_volume_guess(key, image.ops->format, &m) == -1)
			return error_set(e, ENOMEM, "out of memory");
	}
	r = joint_is_pending(dir, &m.keys) ? 1 : fill(dir, key, &m, v, e);
	meta_volume_clear(&m);
	return r;
}

int volume_answer(const char *dir, const char *key, char **result, struct failure *f)
{
	struct types_volume v;
	struct error e;
	char *text;
	int r = volume_describe(dir, key, &v, &e);

	if (r == 1)
		return volume_raise_missing(key, f);
	if (r == -1)
		return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	text = jsonspec_encode(&types_volume, &v);
	jsonspec_clear(&types_volume, &v);
	return smapi_result(text, result, f);
}

int volume_open_sr(struct smapi_call *call, struct sr *sr, struct failure *f)
{
	if (sr_open(sr, call->args.sr, f) == -1)
		return -1;
	if (meta_is_key(call->args.key))
		return 0;
	sr_close(sr);
	return volume_raise_missing(call->args.key, f);
}

int volume_stat(struct smapi_call *call, char **result, struct failure *f)
{
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	r = volume_answer(sr.dir, call->args.key, result, f);
	sr_close(&sr);
	return r;
}

/* --- create */

int volume_add(const struct image *i, const struct meta_volume *m, struct error *e)
{
	CLEANUP_FREE char *record = meta_volume_path(i->dir, i->key);

	if (meta_volume_write(i->dir, i->key, m, e) == 0) {
		image_settle(i);
		return 0;
	}
	if (record)
		unlink(record); /* it may be there, and only not durable */
	image_unlink(i, &(struct error) { 0 });
	return -1;
}

static int write_new(const struct image *i, struct smapi_args *a, int64_t bytes, struct failure *f)
{
	char content_id[VOLUME_UUID_TEXT], uuid[VOLUME_UUID_TEXT];
	struct meta_volume m = { .uuid = uuid, .name = a->name, .description = a->description, .read_write = true,
				 .sharable = a->sharable, .virtual_size = bytes, .format = (char *)(uintptr_t)i->ops->format };
	char name[] = "content_id", *key_of[] = { name }, *value_of[] = { content_id };
	struct error e;

	snprintf(uuid, sizeof(uuid), "%s", i->key);
	volume_make_uuid(content_id);
	m.keys = (struct jsonspec_map) { .count = 1, .key = key_of, .value = value_of };
	if (image_create(i, bytes, &e) == -1)
		return failure_from(f, e.err == EFBIG ? FAILURE_VDI_SIZE : FAILURE_VDI_CREATE, &e);
	return volume_add(i, &m, &e) == 0 ? 0 : failure_from(f, FAILURE_VDI_CREATE, &e);
}

int volume_hold_sr(const struct sr *sr, struct failure *f)
{
	CLEANUP_FREE char *lock_path = meta_sr_lock_path(sr->dir);
	CLEANUP_FREE char *record = meta_sr_path(sr->dir);
	CLEANUP_LOCK int lock = -1;
	struct error e;

	if (!lock_path || !record)
		return out_of_memory(f);
	lock = lock_make(lock_path, LOCK_SHARED, &e);
	if (lock < 0)
		return failure_from(f, FAILURE_VDI_CREATE, &e);
	if (access(record, F_OK) == -1)
		return failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, sr->handle, "SR %s has just been destroyed", sr->handle);
	return take_fd(&lock);
}

/* Two hosts cannot both write to a qcow2 image. */
const struct image_ops *volume_format(const struct sr *sr, bool is_sharable)
{
	const struct image_ops *ops = image_by_format(sr->meta.format);

	return is_sharable || !ops ? &image_raw : ops;
}

static int create_in(struct smapi_call *call, struct sr *sr, int64_t bytes, char **result, struct failure *f)
{
	CLEANUP_LOCK int lock = volume_hold_sr(sr, f);
	char key[VOLUME_UUID_TEXT];
	struct image image = { sr->dir, key, volume_format(sr, call->args.sharable) };

	if (lock < 0)
		return -1;
	volume_make_uuid(key);
	if (write_new(&image, &call->args, bytes, f) == -1)
		return -1;
	return volume_answer(sr->dir, key, result, f);
}

int volume_create(struct smapi_call *call, char **result, struct failure *f)
{
	struct error e;
	struct sr sr;
	int64_t bytes;
	int r;

	if (sr_open(&sr, call->args.sr, f) == -1)
		return -1;
	r = image_round(call->args.size, &bytes, &e) == 0 ? create_in(call, &sr, bytes, result, f)
							  : failure_from(f, FAILURE_VDI_SIZE, &e);
	sr_close(&sr);
	return r;
}

/* --- destroy, resize */

/* In the order in which they may go: who is stopped in between leaves no volume without its data. */
int volume_remove(const struct image *i, const char *record, struct failure *f)
{
	struct error e;
	CLEANUP_LOCK int claim = image_claim(i, &e);

	if (claim < 0 && e.err == EBUSY)
		return failure_set(f, FAILURE_VDI_IN_USE, EBUSY,
				   "volume %s is in use, here or on another host; deactivate it there first", i->key);
	if (claim < 0 && e.err != ENOENT)
		return failure_from(f, FAILURE_VDI_DELETE, &e);
	image_retire(i);
	if (record && unlink(record) == -1 && errno != ENOENT) {
		failure_set(f, FAILURE_VDI_DELETE, errno, "remove %s: %s", record, strerror(errno));
		if (claim >= 0)
			image_settle(i);
		return -1;
	}
	return image_unlink(i, &e) == 0 ? 0 : failure_from(f, FAILURE_VDI_DELETE, &e);
}

static int destroy_in(const char *dir, const char *key, struct failure *f)
{
	CLEANUP_FREE char *record = meta_volume_path(dir, key);
	CLEANUP_FREE char *path = NULL;
	CLEANUP_LOCK int lock = -1;
	struct image image;
	struct meta_volume m;
	struct error e = { 0 };
	bool is_ours;

	if (!record)
		return out_of_memory(f);
	if (volume_check_here(dir, key, f) == -1)
		return -1;
	lock = lock_take(record, LOCK_EXCLUSIVE, &e);
	if (lock < 0 && e.err != ENOENT)
		return failure_from(f, FAILURE_VDI_DELETE, &e);
	if (meta_volume_read(dir, key, &m, &e) == 0) {
		image = image_of(dir, key, m.format);
		meta_volume_clear(&m);
	} else if (e.err == ENOENT || e.err == EBADMSG) {
		image = image_of(dir, key, NULL);
	} else {
		return failure_from(f, FAILURE_VDI_DELETE, &e);
	}
	path = image_path(&image);
	if (!path)
		return out_of_memory(f);
	is_ours = e.err != EBADMSG || access(path, F_OK) == 0;
	if (datapath_release(path, f) == -1 || volume_remove(&image, is_ours ? record : NULL, f) == -1)
		return -1;
	if (image.ops->collect)
		image.ops->collect(dir);
	if (chain_has(dir, key))
		chain_collect(dir);
	return 0;
}

int volume_destroy(struct smapi_call *call, char **result, struct failure *f)
{
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return f->kind == FAILURE_VOLUME_DOES_NOT_EXIST ? smapi_unit(result, f) : -1;
	r = destroy_in(sr.dir, call->args.key, f);
	sr_close(&sr);
	return r == 0 ? smapi_unit(result, f) : -1;
}

int volume_check_here(const char *dir, const char *key, struct failure *f)
{
	const struct image i = image_of(dir, key, NULL);
	CLEANUP_FREE char *path = image_path(&i);

	return path ? ownership_check(path, f) : out_of_memory(f);
}

/* --- changes of the record */

/* 1: changed; 0: it is like that already; -1: out of memory. */
typedef int change_fn(struct smapi_args *a, struct meta_volume *m);

/* With the record's lock, which is held on. */
static int edit_locked(const char *dir, struct smapi_args *a, change_fn *change, int *lock, struct failure *f)
{
	struct meta_volume m;
	struct error e;
	int r = volume_read(dir, a->key, &m, f);

	if (r == -1)
		return -1;
	r = change(a, &m);
	if (r == -1)
		error_set(&e, ENOMEM, "out of memory");
	else if (r == 1)
		r = meta_volume_rewrite(dir, a->key, &m, lock, &e);
	meta_volume_clear(&m);
	return r == -1 ? failure_from(f, FAILURE_VDI_UNAVAILABLE, &e) : 0;
}

int volume_lock(const char *dir, const char *key, enum lock_mode mode, struct failure *f)
{
	CLEANUP_FREE char *record = meta_volume_path(dir, key);
	struct error e;
	int lock;

	if (!record)
		return out_of_memory(f);
	lock = lock_take(record, mode, &e);
	if (lock >= 0)
		return lock;
	return e.err == ENOENT ? volume_raise_missing(key, f) : failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
}

int volume_read(const char *dir, const char *key, struct meta_volume *m, struct failure *f)
{
	struct types_volume v;
	struct error e;
	int r = volume_describe(dir, key, &v, &e);

	if (r)
		return r == 1 ? volume_raise_missing(key, f) : failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	jsonspec_clear(&types_volume, &v);
	if (meta_volume_read(dir, key, m, &e) == 0 ||
	    (e.err == EBADMSG && meta_volume_guess(key, image_of(dir, key, NULL).ops->format, m) == 0))
		return 0;
	return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
}

int volume_read_whole(const char *dir, const char *key, struct meta_volume *m, struct failure *f)
{
	if (volume_read(dir, key, m, f) == -1)
		return -1;
	if (!m->is_data_destroyed)
		return 0;
	meta_volume_clear(m);
	return failure_set(f, FAILURE_VDI_UNAVAILABLE, ENODATA,
			   "the data of volume %s was destroyed (Volume.data_destroy); what changed up to it can still be "
			   "listed, and it can be removed", key);
}

int volume_image(const struct sr *sr, const char *key, struct image *i, struct failure *f)
{
	struct meta_volume m;

	if (!meta_is_key(key))
		return volume_raise_missing(key, f);
	if (volume_read_whole(sr->dir, key, &m, f) == -1)
		return -1;
	*i = image_of(sr->dir, key, m.format);
	meta_volume_clear(&m);
	return 0;
}

static int edit_in(const char *dir, struct smapi_args *a, change_fn *change, struct failure *f)
{
	CLEANUP_LOCK int lock = volume_lock(dir, a->key, LOCK_EXCLUSIVE, f);

	return lock < 0 ? -1 : edit_locked(dir, a, change, &lock, f);
}

static int edit(struct smapi_call *call, change_fn *change, char **result, struct failure *f)
{
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	r = edit_in(sr.dir, &call->args, change, f);
	sr_close(&sr);
	return r == 0 ? smapi_unit(result, f) : -1;
}

static int change_key(struct smapi_args *a, struct meta_volume *m)
{
	const char *old = jsonspec_map_get(&m->keys, a->k);

	if (old && strcmp(old, a->v) == 0)
		return 0;
	return jsonspec_map_set(&m->keys, a->k, a->v) == 0 ? 1 : -1;
}

static int remove_key(struct smapi_args *a, struct meta_volume *m)
{
	return jsonspec_map_unset(&m->keys, a->k);
}

static int replace_text(char **old, char **text)
{
	if (strcmp(*old, *text) == 0)
		return 0;
	free(*old);
	*old = take_ptr(text);
	return 1;
}

static int change_name(struct smapi_args *a, struct meta_volume *m)
{
	return replace_text(&m->name, &a->new_name);
}

static int change_description(struct smapi_args *a, struct meta_volume *m)
{
	return replace_text(&m->description, &a->new_description);
}

int volume_set(struct smapi_call *call, char **result, struct failure *f)
{
	return edit(call, change_key, result, f);
}

int volume_unset(struct smapi_call *call, char **result, struct failure *f)
{
	return edit(call, remove_key, result, f);
}

int volume_set_name(struct smapi_call *call, char **result, struct failure *f)
{
	return edit(call, change_name, result, f);
}

int volume_set_description(struct smapi_call *call, char **result, struct failure *f)
{
	return edit(call, change_description, result, f);
}

/* --- resize */

int volume_renew(struct meta_volume *m)
{
	char content_id[VOLUME_UUID_TEXT];

	volume_make_uuid(content_id);
	return jsonspec_map_set(&m->keys, "content_id", content_id) == 0 ? 1 : -1;
}

static int change_content_id(struct smapi_args *a UNUSED, struct meta_volume *m)
{
	return volume_renew(m);
}

static int change_size(struct smapi_args *a, struct meta_volume *m)
{
	int64_t old = m->virtual_size;

	m->virtual_size = a->new_size;
	return old != a->new_size;
}

static int say_resize(const char *key, struct error *e, struct failure *f)
{
	error_prefix(e, "resize volume %s", key);
	return failure_from(f, e->err == ERANGE || e->err == EFBIG ? FAILURE_VDI_SIZE : FAILURE_VDI_UNAVAILABLE, e);
}

/* It gets a new content_id before it is another content: whoever is killed in between leaves no two contents of one name. */
static int resize_in(struct smapi_call *call, const char *dir, struct failure *f)
{
	struct smapi_args *a = &call->args;
	CLEANUP_LOCK int lock = volume_check_here(dir, a->key, f) == -1 ? -1 : volume_lock(dir, a->key, LOCK_EXCLUSIVE, f);
	struct image_info info;
	struct meta_volume m;
	struct image image;
	struct error e;
	int64_t bytes;

	if (lock < 0 || volume_read_whole(dir, a->key, &m, f) == -1)
		return -1;
	image = image_of(dir, a->key, m.format);
	meta_volume_clear(&m);
	if (image_round(a->new_size, &bytes, &e) == -1)
		return failure_from(f, FAILURE_VDI_SIZE, &e);
	a->new_size = bytes;
	if (image_look(&image, &info, &e) == 0 && bytes > info.virtual_bytes &&
	    edit_locked(dir, a, change_content_id, &lock, f) == -1)
		return -1;
	return image_grow(&image, bytes, &e) == 0 ? edit_locked(dir, a, change_size, &lock, f) : say_resize(a->key, &e, f);
}

int volume_resize(struct smapi_call *call, char **result, struct failure *f)
{
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	r = resize_in(call, sr.dir, f);
	sr_close(&sr);
	return r == 0 ? smapi_unit(result, f) : -1;
}
