/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * meta - see meta.h
 *
 * A volume comes to be in this order: image under a passing name, under its own besides, record, no passing name.  It goes in
 * this: passing name, record, image, no passing name.  So a verb killed at any point leaves either a whole volume or a file
 * without a record, which is no volume and which Plugin.diagnostics reports.  What has a passing name is swept away when the SR
 * is attached; an image that has none may be somebody's data, and stays.  Beside an image there may be files of the datapath's:
 * whose the disk is (<key>.raw.owner), what a mirror of it may owe (<key>.raw.marks).  What images stand on is tree.h's.
 */
#include "plugins/meta.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lease.h"
#include "base/log.h"
#include "base/proc.h"
#include "plugins/chain.h"
#include "plugins/doubt.h"
#include "plugins/joint.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/tree.h"

#define RECORD_MAX_BYTES (1u << 20)
#define SR_STEM "sxm-sr"
#define HALF_WRITTEN_S 3600

static const struct jsonspec_field sr_fields[] = {
	{ "uuid", JS_STRING, offsetof(struct meta_sr, uuid) },
	{ "name", JS_STRING, offsetof(struct meta_sr, name) },
	{ "description", JS_STRING, offsetof(struct meta_sr, description) },
	{ "format", JS_STRING, offsetof(struct meta_sr, format) },
	{ "shared", JS_BOOL, offsetof(struct meta_sr, is_shared), .is_optional = true },
	{ NULL },
};
static const struct jsonspec sr_spec = { "SR record", sizeof(struct meta_sr), sr_fields };

static const struct jsonspec_field volume_fields[] = {
	{ "uuid", JS_STRING, offsetof(struct meta_volume, uuid) },
	{ "name", JS_STRING, offsetof(struct meta_volume, name) },
	{ "description", JS_STRING, offsetof(struct meta_volume, description) },
	{ "read_write", JS_BOOL, offsetof(struct meta_volume, read_write) },
	{ "sharable", JS_BOOL, offsetof(struct meta_volume, sharable) },
	{ "virtual_size", JS_INT64, offsetof(struct meta_volume, virtual_size) },
	{ "format", JS_STRING, offsetof(struct meta_volume, format) },
	{ "data_destroyed", JS_BOOL, offsetof(struct meta_volume, is_data_destroyed), .is_optional = true },
	{ "family", JS_STRING, offsetof(struct meta_volume, family), .is_optional = true },
	{ "keys", JS_MAP, offsetof(struct meta_volume, keys) },
	{ NULL },
};
static const struct jsonspec volume_spec = { "volume record", sizeof(struct meta_volume), volume_fields };

static char *join(const char *dir, const char *stem, const char *suffix)
{
	char *path;

	return asprintf(&path, "%s/%s%s", dir, stem, suffix) < 0 ? NULL : path;
}

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static int read_record(const char *path, const struct jsonspec *spec, void *record, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	size_t bytes;

	if (!path)
		return out_of_memory(e);
	text = proc_read_own_file(path, RECORD_MAX_BYTES, &bytes, e);
	if (!text)
		return -1;
	if (jsonspec_decode(spec, text, bytes, record, e) == 0)
		return 0;
	error_prefix(e, "%s is damaged", path);
	e->err = EBADMSG;
	return -1;
}

/* lock: see proc_replace_locked_file(); NULL: none is held on. */
static int write_record(const char *path, const struct jsonspec *spec, const void *record, int *lock, struct error *e)
{
	CLEANUP_FREE char *text = jsonspec_encode(spec, record);

	if (!path || !text)
		return out_of_memory(e);
	if (strlen(text) > RECORD_MAX_BYTES)
		return error_set(e, EFBIG, "%s would have %zu bytes, and more than %u are not read: a name, a description or the "
				 "keys are too long", path, strlen(text), RECORD_MAX_BYTES);
	if (lock)
		return proc_replace_locked_file(path, text, strlen(text), 0600, lock, e);
	return proc_replace_file(path, text, strlen(text), 0600, e);
}

char *meta_sr_path(const char *dir)
{
	return join(dir, SR_STEM, ".json");
}

char *meta_sr_lock_path(const char *dir)
{
	return join(dir, SR_STEM, ".lock");
}

int meta_sr_read(const char *dir, struct meta_sr *m, struct error *e)
{
	CLEANUP_FREE char *path = meta_sr_path(dir);

	return read_record(path, &sr_spec, m, e);
}

int meta_sr_write(const char *dir, const struct meta_sr *m, struct error *e)
{
	CLEANUP_FREE char *path = meta_sr_path(dir);

	return write_record(path, &sr_spec, m, NULL, e);
}

void meta_sr_clear(struct meta_sr *m)
{
	jsonspec_clear(&sr_spec, m);
}

char *meta_volume_path(const char *dir, const char *key)
{
	return join(dir, key, ".json");
}

/* Whoever writes the record from here on makes it so. */
static int correct(const char *dir, const char *key, struct meta_volume *m, struct error *e)
{
	CLEANUP_FREE char *content_id = doubt_content_id(dir, key);

	if (!content_id || jsonspec_map_set(&m->keys, "content_id", content_id) == 0)
		return 0;
	meta_volume_clear(m);
	return out_of_memory(e);
}

int meta_volume_read(const char *dir, const char *key, struct meta_volume *m, struct error *e)
{
	CLEANUP_FREE char *path = meta_volume_path(dir, key);

	return read_record(path, &volume_spec, m, e) == 0 ? correct(dir, key, m, e) : -1;
}

int meta_volume_write(const char *dir, const char *key, const struct meta_volume *m, struct error *e)
{
	return meta_volume_rewrite(dir, key, m, NULL, e);
}

int meta_volume_rewrite(const char *dir, const char *key, const struct meta_volume *m, int *lock, struct error *e)
{
	CLEANUP_FREE char *path = meta_volume_path(dir, key);
	CLEANUP_FREE char *damaged = join(dir, key, ".json.damaged");
	struct meta_volume old;
	struct error why;

	if (!path || !damaged)
		return out_of_memory(e);
	if (read_record(path, &volume_spec, &old, &why) == 0)
		meta_volume_clear(&old);
	else if (why.err == EBADMSG && link(path, damaged) == -1 && errno != EEXIST)
		return error_errno(e, errno, "keep the damaged record of volume %s", key);
	if (write_record(path, &volume_spec, m, lock, e) == -1)
		return -1;
	doubt_settle(dir, key);
	return 0;
}

int meta_volume_guess(const char *key, const char *format, struct meta_volume *m)
{
	*m = (struct meta_volume) { .read_write = true };
	m->uuid = strdup(key);
	m->name = strdup(key);
	m->description = strdup("The record of this volume is damaged; its data is as it was.");
	m->format = strdup(format);
	/* Some identity, and always the same one: "" would match other disks. */
	if (m->uuid && m->name && m->description && m->format && jsonspec_map_set(&m->keys, "content_id", key) == 0)
		return 0;
	meta_volume_clear(m);
	return -1;
}

void meta_volume_clear(struct meta_volume *m)
{
	jsonspec_clear(&volume_spec, m);
}

bool meta_is_key(const char *text)
{
	size_t bytes = strnlen(text, META_KEY_MAX + 1);

	if (!bytes || bytes > META_KEY_MAX || *text == '.' || strcmp(text, SR_STEM) == 0)
		return false;
	if (bytes >= 5 && strcmp(text + bytes - 5, ".base") == 0)
		return false; /* what volumes stand on */
	for (const char *c = text; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("._-", *c)))
			return false;
	return true;
}

bool meta_split_name(const char *name, const char *suffix, char key[static META_KEY_MAX + 1])
{
	size_t bytes = strlen(name), tail = strlen(suffix);

	if (bytes <= tail || bytes - tail > META_KEY_MAX || strcmp(name + bytes - tail, suffix) != 0)
		return false;
	memcpy(key, name, bytes - tail);
	key[bytes - tail] = '\0';
	return meta_is_key(key);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list_names(const char *dir, struct jsonspec_list *found,
		      bool (*is_wanted)(const char *dir, const char *name, char *key), struct error *e)
{
	DIR *d = opendir(dir);
	int err = 0;

	*found = (struct jsonspec_list) { 0 };
	if (!d)
		return error_errno(e, errno, "list %s", dir);
	for (;;) {
		char key[NAME_MAX + 1];
		struct dirent *entry;

		errno = 0;
		entry = readdir(d);
		if (!entry) {
			err = errno;
			break;
		}
		if (is_wanted(dir, entry->d_name, key) && jsonspec_list_add(found, key) == -1) {
			err = ENOMEM;
			break;
		}
	}
	closedir(d);
	if (err) {
		meta_list_clear(found);
		return error_errno(e, err, "list %s", dir);
	}
	if (found->count)
		qsort(found->item, found->count, sizeof(*found->item), compare);
	return 0;
}

static bool is_record(const char *dir UNUSED, const char *name, char *key)
{
	return meta_split_name(name, ".json", key);
}

/* Has it, in its middle, the name of what is replaced by rename? */
static bool is_half_written(const char *name)
{
	size_t bytes = strlen(name);

	if (bytes <= 4 || strcmp(name + bytes - 4, ".tmp") != 0)
		return false;
	if (strstr(name, ".json.") || strstr(name, ".cbt.") || strstr(name, LEASE_SUFFIX ".") || strstr(name, JOINT_PREFIX))
		return true;
	for (const char *const *suffix = image_beside; *suffix; suffix++) {
		const char *at = strstr(name, *suffix);

		if (at && at[strlen(*suffix)] == '.')
			return true;
	}
	return false;
}

/* Is name that of an image and the suffix after it, in any format? Then i is the image, of the key in `key`. */
static bool split_image(const char *dir, const char *name, const char *suffix, char key[static META_KEY_MAX + 1], struct image *i)
{
	*i = (struct image) { dir, key, NULL };
	for (unsigned n = 0; (i->ops = image_format_at(n)); n++) {
		char tail[32];

		snprintf(tail, sizeof(tail), ".%s%s", i->ops->format, suffix);
		if (meta_split_name(name, tail, key))
			return true;
	}
	return false;
}

/* Is name that of a file beside an image? */
static bool split_beside(const char *dir, const char *name, char key[static META_KEY_MAX + 1], struct image *i)
{
	for (const char *const *suffix = image_beside; *suffix; suffix++)
		if (split_image(dir, name, *suffix, key, i))
			return true;
	return split_image(dir, name, LEASE_SUFFIX, key, i);
}

static bool is_missing(char *taken_path)
{
	CLEANUP_FREE char *path = taken_path;

	return path && access(path, F_OK) == -1 && errno == ENOENT;
}

static bool is_leftover(const char *dir, const char *name, char *key)
{
	char stem[META_KEY_MAX + 1];
	struct image i;

	snprintf(key, NAME_MAX + 1, "%s", name);
	if (is_half_written(name))
		return true;
	if (joint_is_file(name))
		return true;
	if (*name == '.' && split_image(dir, name + 1, ".new", stem, &i))
		return true;
	if (split_beside(dir, name, stem, &i))
		return is_missing(image_path(&i));
	return split_image(dir, name, "", stem, &i) && is_missing(meta_volume_path(dir, stem));
}

int meta_list(const char *dir, struct jsonspec_list *keys, struct error *e)
{
	return list_names(dir, keys, is_record, e);
}

int meta_leftovers(const char *dir, struct jsonspec_list *names, struct error *e)
{
	return list_names(dir, names, is_leftover, e);
}

/* --- sweep */

static bool is_old(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && time(NULL) - st.st_mtime > HALF_WRITTEN_S;
}

/* Where it cannot be known, it does. */
static bool has_image(const char *dir, const char *key)
{
	struct meta_volume m;
	struct error e;
	bool has_data;

	if (meta_volume_read(dir, key, &m, &e) == -1)
		return e.err != ENOENT;
	has_data = !m.is_data_destroyed;
	meta_volume_clear(&m);
	return has_data;
}

/* Has another volume's image that inode? */
static bool is_another_s(const struct image *i, const struct stat *st)
{
	DIR *d = opendir(i->dir);
	struct dirent *entry;
	bool is = false;

	while (d && !is && (entry = readdir(d))) {
		char key[META_KEY_MAX + 1];
		struct image other;
		struct stat found;

		is = split_image(i->dir, entry->d_name, "", key, &other) && strcmp(key, i->key) != 0 &&
		     fstatat(dirfd(d), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0 && found.st_ino == st->st_ino &&
		     has_image(i->dir, key);
	}
	if (d)
		closedir(d);
	return is;
}

/* Its image took another volume's place (volume-compose.c), and whoever did that was killed. */
static void remove_composed(const struct image *i)
{
	CLEANUP_FREE char *record = meta_volume_path(i->dir, i->key);
	struct error e;

	log_warn("volume %s in %s is removed: another one was composed with it, and whoever did that was killed", i->key, i->dir);
	if (!record || (unlink(record) == -1 && errno != ENOENT))
		log_warn("remove the record of volume %s: %s", i->key, strerror(errno));
	else if (image_unlink(i, &e) == -1)
		log_warn("%s", e.text);
}

/* The image it is another name of, or was: that one goes, too, with what lies beside it, when no record says that it is there. */
static void sweep_image(const struct image *i, const char *passing)
{
	CLEANUP_FREE char *image = image_path(i);
	struct stat a, b;
	struct error e;
	bool is_gone;

	if (!image)
		return;
	is_gone = lstat(image, &b) == -1 && errno == ENOENT;
	if (lstat(passing, &a) == 0 && (is_gone || a.st_ino == b.st_ino) && !has_image(i->dir, i->key)) {
		log_warn("%s has no record: whoever made or destroyed it was killed; it is removed", image);
		if (image_unlink(i, &e) == -1)
			log_warn("%s", e.text);
		return;
	}
	if (is_gone && lstat(passing, &a) == 0 && is_another_s(i, &a)) {
		remove_composed(i);
		return;
	}
	log_info("%s is removed", passing);
	unlink(passing);
}

static void remove_half_written(const char *path)
{
	log_info("%s is removed", path);
	if (unlink(path) == -1 && errno == EISDIR)
		lease_drop(path);
}

static void sweep_one(const char *dir, const char *name)
{
	CLEANUP_FREE char *path = join(dir, name, "");
	char stem[META_KEY_MAX + 1];
	struct image i;

	if (!path)
		return;
	if (joint_is_file(name)) {
		joint_sweep(dir, name);
	} else if (*name == '.' && split_image(dir, name + 1, ".new", stem, &i)) {
		sweep_image(&i, path);
	} else if (is_half_written(name) && is_old(path)) {
		remove_half_written(path);
	}
}

void meta_sweep(const char *dir)
{
	CLEANUP_FREE char *lock_path = meta_sr_lock_path(dir);
	CLEANUP_LOCK int lock = -1;
	struct jsonspec_list names;
	struct error e;

	if (!lock_path || meta_leftovers(dir, &names, &e) == -1)
		return;
	if (names.count)
		lock = lock_try(lock_path, &e);
	for (size_t i = 0; lock >= 0 && i < names.count; i++)
		sweep_one(dir, names.item[i]);
	meta_list_clear(&names);
	if (lock >= 0)
		close(take_fd(&lock));
	chain_collect(dir);
	for (unsigned n = 0; image_format_at(n); n++)
		if (image_format_at(n)->collect)
			image_format_at(n)->collect(dir);
}

/* However new: nobody makes a volume, and there is none to be written to. A slow server makes a file when the verb that asked for
 * it was given up long ago. */
static void remove_all_half_written(const char *dir)
{
	struct jsonspec_list names;
	struct error e;

	if (meta_leftovers(dir, &names, &e) == -1)
		return;
	for (size_t i = 0; i < names.count; i++) {
		CLEANUP_FREE char *path = is_half_written(names.item[i]) ? join(dir, names.item[i], "") : NULL;

		if (path)
			remove_half_written(path);
	}
	meta_list_clear(&names);
}

/* The lock is the last to go: while it is there, who was killed is known to have left something (sr.c, is_destroyed). */
int meta_sr_remove(const char *dir, struct error *e)
{
	CLEANUP_FREE char *record = meta_sr_path(dir);
	CLEANUP_FREE char *lock = meta_sr_lock_path(dir);
	static const char *const other[] = { "/" TREE_LISTING_NAME, "/" SR_STEM ".chains", "/" SR_STEM ".coalesce" };

	if (!record || !lock)
		return out_of_memory(e);
	if (unlink(record) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove %s", record);
	remove_all_half_written(dir);
	for (size_t i = 0; i < ARRAY_LEN(other); i++) {
		CLEANUP_FREE char *path = join(dir, other[i], "");

		if (path)
			unlink(path);
	}
	unlink(lock);
	return 0;
}

void meta_list_clear(struct jsonspec_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->item[i]);
	free(l->item);
	*l = (struct jsonspec_list) { 0 };
}
