/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * joint - see joint.h
 *
 *      in the first SR                    in the others
 *      "pending"                          "pending", decided there        no volume of the group is shown
 *      "committed" (replaced, durable)    the same                        all are
 *      "committed"                        gone                            they need it no more
 *      gone                               gone
 *
 *      killed before "committed":  volumes of the group are removed, SR by SR, each SR's file after them
 *      killed after it:            only the files are; the first SR's when none of the others has one
 *
 * A group of one SR is committed by the removal of its file.  That the others' file decides nothing by being there, and the first
 * one's decides "never" by being gone, is what lets SRs be swept in any order.
 */
#include "plugins/joint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "plugins/image.h"
#include "plugins/volume.h"

#define FILE_MAX_BYTES (64u << 10)

struct file {
	char *sr, *dir;              /* owned: the one that decides: its uuid, and where it was */
	bool is_committed;
	struct jsonspec_list others; /* owned: in that one: the directories of the others */
};
static const struct jsonspec_field file_fields[] = {
	{ "sr", JS_STRING, offsetof(struct file, sr) },
	{ "directory", JS_STRING, offsetof(struct file, dir) },
	{ "committed", JS_BOOL, offsetof(struct file, is_committed), .is_optional = true },
	{ "others", JS_LIST, offsetof(struct file, others), .is_optional = true },
	{ NULL },
};
static const struct jsonspec file_spec = { "group", sizeof(struct file), file_fields };

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static char *join(const char *dir, const char *id)
{
	char *path;

	return asprintf(&path, "%s/" JOINT_PREFIX "%s", dir, id) < 0 ? NULL : path;
}

static bool is_id(const char *text)
{
	return strlen(text) == VOLUME_UUID_TEXT - 1 && strspn(text, "0123456789abcdef-") == VOLUME_UUID_TEXT - 1;
}

/* ENOENT: it is not there. EBADMSG: it cannot be understood. */
static int read_file(const char *path, struct file *f, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	size_t bytes;

	text = proc_read_own_file(path, FILE_MAX_BYTES, &bytes, e);
	if (!text)
		return -1;
	if (jsonspec_decode(&file_spec, text, bytes, f, e) == 0)
		return 0;
	error_prefix(e, "%s is damaged", path);
	e->err = EBADMSG;
	return -1;
}

static int write_file(const char *dir, const char *id, const struct file *f, struct error *e)
{
	CLEANUP_FREE char *path = join(dir, id);
	CLEANUP_FREE char *text = jsonspec_encode(&file_spec, f);

	return path && text ? proc_replace_file(path, text, strlen(text), 0600, e) : out_of_memory(e);
}

/* 0 or an errno. */
static int remove_file(const char *dir, const char *id)
{
	CLEANUP_FREE char *path = join(dir, id);

	if (!path)
		return ENOMEM;
	return unlink(path) == -1 && errno != ENOENT ? errno : image_sync_dir(dir);
}

/* --- made, and decided */

/* Of the first of them. others: of the caller's. */
static int describe(const char *const *dirs, size_t count, struct file *f, struct error *e)
{
	struct meta_sr m;

	if (meta_sr_read(dirs[0], &m, e) == -1)
		return -1;
	*f = (struct file) { .sr = take_ptr(&m.uuid), .dir = strdup(dirs[0]) };
	meta_sr_clear(&m);
	for (size_t i = 1; i < count; i++)
		if (jsonspec_list_add(&f->others, dirs[i]) == -1)
			free(take_ptr(&f->dir));
	if (f->sr && f->dir)
		return 0;
	jsonspec_clear(&file_spec, f);
	return out_of_memory(e);
}

static int write_all(const char *const *dirs, size_t count, const char *id, const struct file *f, struct error *e)
{
	const struct file other = { .sr = f->sr, .dir = f->dir };

	for (size_t i = 0; i < count; i++)
		if (write_file(dirs[i], id, i ? &other : f, e) == -1)
			return -1;
	return 0;
}

int joint_begin(const char *const *dirs, size_t count, const char *id, struct error *e)
{
	struct file f;
	int r;

	if (describe(dirs, count, &f, e) == -1)
		return -1;
	r = write_all(dirs, count, id, &f, e);
	jsonspec_clear(&file_spec, &f);
	if (r == -1)
		joint_abandon(dirs, count, id);
	return r;
}

static int commit_in_first(const char *const *dirs, size_t count, const char *id, struct error *e)
{
	struct file f;
	int r;

	if (describe(dirs, count, &f, e) == -1)
		return -1;
	f.is_committed = true;
	r = write_file(dirs[0], id, &f, e);
	jsonspec_clear(&file_spec, &f);
	return r;
}

int joint_commit(const char *const *dirs, size_t count, const char *id, struct error *e)
{
	int err = 0;

	if (count > 1 && commit_in_first(dirs, count, id, e) == -1)
		return -1;
	for (size_t i = count; i-- > 1;) {
		int r = remove_file(dirs[i], id);

		err = err ? err : r;
	}
	if (!err)
		err = remove_file(dirs[0], id);
	if (!err)
		return 0;
	if (count == 1)
		return error_errno(e, err, "make the group durable in %s", dirs[0]);
	log_warn("%s/" JOINT_PREFIX "%s and its like are left to the next SR.attach: %s", dirs[0], id, strerror(err));
	return 0;
}

void joint_abandon(const char *const *dirs, size_t count, const char *id)
{
	for (size_t i = count; i--;) {
		int err = remove_file(dirs[i], id);

		if (err)
			log_warn("remove %s/" JOINT_PREFIX "%s: %s", dirs[i], id, strerror(err));
	}
}

/* --- what was decided */

enum verdict { COMMITTED, NEVER, UNKNOWN };

static bool is_sr(const char *dir, const char *uuid)
{
	struct meta_sr m;
	struct error e;
	bool is;

	if (meta_sr_read(dir, &m, &e) == -1)
		return false;
	is = strcmp(m.uuid, uuid) == 0;
	meta_sr_clear(&m);
	return is;
}

/* There, of the first SR. */
static enum verdict judge_first(const char *dir, const char *id)
{
	CLEANUP_FREE char *path = join(dir, id);
	enum verdict v;
	struct file f;
	struct error e;

	if (!path)
		return UNKNOWN;
	if (read_file(path, &f, &e) == -1)
		return e.err == ENOENT || e.err == EBADMSG ? NEVER : UNKNOWN;
	v = f.is_committed ? COMMITTED : NEVER;
	jsonspec_clear(&file_spec, &f);
	return v;
}

/* f: the file that is here. */
static enum verdict judge(const char *dir, const struct file *f, const char *id)
{
	if (is_sr(dir, f->sr))
		return f->is_committed ? COMMITTED : NEVER;
	return is_sr(f->dir, f->sr) ? judge_first(f->dir, id) : UNKNOWN;
}

bool joint_is_pending(const char *dir, const struct jsonspec_map *keys)
{
	const char *id = jsonspec_map_get(keys, JOINT_KEY);
	CLEANUP_FREE char *path = id && is_id(id) ? join(dir, id) : NULL;
	bool is_pending;
	struct file f;
	struct error e;

	if (!path)
		return false;
	if (read_file(path, &f, &e) == -1)
		return e.err != ENOENT; /* damaged: before it was durable no record was made */
	is_pending = judge(dir, &f, id) != COMMITTED;
	jsonspec_clear(&file_spec, &f);
	return is_pending;
}

/* --- swept */

static int remove_member(const char *dir, const char *key, const struct meta_volume *m, struct error *e)
{
	const struct image image = image_of(dir, key, m->format);
	CLEANUP_FREE char *record = meta_volume_path(dir, key);

	if (!record)
		return out_of_memory(e);
	log_warn("volume %s in %s is removed: whoever made the group it is of was killed", key, dir);
	image_retire(&image);
	if (unlink(record) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove %s", record);
	return image_unlink(&image, e);
}

static int remove_members(const char *dir, const char *id, struct error *e)
{
	struct jsonspec_list keys;
	int r = 0;

	if (meta_list(dir, &keys, e) == -1)
		return -1;
	for (size_t i = 0; r == 0 && i < keys.count; i++) {
		struct meta_volume m;
		const char *of;

		if (meta_volume_read(dir, keys.item[i], &m, e) == -1)
			continue; /* not one of these: they were written whole */
		of = jsonspec_map_get(&m.keys, JOINT_KEY);
		if (of && strcmp(of, id) == 0)
			r = remove_member(dir, keys.item[i], &m, e);
		meta_volume_clear(&m);
	}
	meta_list_clear(&keys);
	return r;
}

/* Whether one of the others may still ask. */
static bool is_needed(const struct file *f, const char *id)
{
	for (size_t i = 0; i < f->others.count; i++) {
		CLEANUP_FREE char *path = join(f->others.item[i], id);
		CLEANUP_FREE char *record = meta_sr_path(f->others.item[i]);

		if (!path || !record || access(record, F_OK) == -1 || access(path, F_OK) == 0 || errno != ENOENT)
			return true;
	}
	return false;
}

bool joint_is_file(const char *name)
{
	return strncmp(name, JOINT_PREFIX, strlen(JOINT_PREFIX)) == 0 && is_id(name + strlen(JOINT_PREFIX));
}

void joint_sweep(const char *dir, const char *name)
{
	const char *id = name + strlen(JOINT_PREFIX);
	CLEANUP_FREE char *path = join(dir, id);
	struct error e = { 0 };
	struct file f = { 0 };
	enum verdict v;

	if (!path)
		return;
	v = read_file(path, &f, &e) == 0 ? judge(dir, &f, id) : e.err == EBADMSG ? NEVER : UNKNOWN;
	if (v == UNKNOWN)
		log_warn("%s: volumes of a group stay unseen until SR %s is attached here, too", path, f.sr ? f.sr : "?");
	else if (v == NEVER && remove_members(dir, id, &e) == -1)
		log_warn("%s: %s", path, e.text);
	else if (v == NEVER || !is_sr(dir, f.sr) || !is_needed(&f, id))
		remove_file(dir, id);
	jsonspec_clear(&file_spec, &f);
}
