/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * target - see target.h
 *
 *      NBD URI -> as it is
 *      an SR   -> Volume.create "NAME (incomplete)"    is_made: Volume.destroy undoes it    whole: Volume.set_name NAME
 *      a path or volume that is there -> does nobody have it, is nothing in it?
 *      a path that is not -> on record, then PATH.partial: a sparse file, or a qcow2 image where it is called so
 *                                                      is_made: unlink undoes it            whole: renamed, if PATH is still free
 */
#include "cmd/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/uri.h"
#include "cmd/find.h"
#include "plugins/image.h"
#include "plugins/qemu-img.h"
#include "plugins/smapi.h"
#include "plugins/unfinished.h"

#define PARTIAL ".partial"
#define QCOW2 ".qcow2"

static char *text_of(const char *text)
{
	return (char *)(uintptr_t)text;
}

/* --- a new volume */

/* The directory of the SR that name is, heap; NULL: it is none. */
static char *sr_of(const char *name)
{
	struct error e;
	CLEANUP_FREE char *dir = find_sr_dir(name, &e);
	struct meta_sr m;

	if (!dir || meta_sr_read(dir, &m, &e) == -1)
		return NULL;
	meta_sr_clear(&m);
	return take_ptr(&dir);
}

static int call(smapi_fn *fn, const char *verb, struct smapi_args *args, char **result, struct error *e)
{
	struct smapi_call c = { .verb = verb };
	struct failure f = { 0 };

	args->dbg = text_of("");
	c.args = *args;
	if (fn(&c, result, &f) == 0)
		return 0;
	*e = f.e;
	return -1;
}

/* The verb may keep the name. */
static int call_set_name(const struct target *t, const char *volume_name, struct error *e)
{
	struct smapi_call c = { .verb = "Volume.set_name" };
	CLEANUP_FREE char *result = NULL;
	struct failure f = { 0 };
	int r;

	c.args = (struct smapi_args) { .dbg = text_of(""), .sr = t->sr, .key = t->place.key, .new_name = strdup(volume_name) };
	if (!c.args.new_name)
		return error_set(e, ENOMEM, "out of memory");
	r = volume_set_name(&c, &result, &f);
	free(c.args.new_name);
	if (r == -1)
		*e = f.e;
	return r;
}

/* result: of a verb that made a volume of t->sr, in dir. */
static int take_made(struct target *t, const char *dir, const char *result, struct error *e)
{
	struct types_volume v;
	int r;

	if (jsonspec_decode(&types_volume, result, strlen(result), &v, e) == -1)
		return -1;
	t->is_made = true;
	r = asprintf(&t->made_name, "%s/%s", dir, v.key);
	jsonspec_clear(&types_volume, &v);
	if (r < 0) {
		t->made_name = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	return place_find(&t->place, t->made_name, NULL, e);
}

/* shown: what it is called until it is whole; heap. */
static int take_names(struct target *t, const char *dir, const char *volume_name, char **shown, struct error *e)
{
	t->sr = uri_of_path("file", dir);
	t->whole_name = strdup(volume_name);
	if (asprintf(shown, "%s" UNFINISHED_SUFFIX, volume_name) < 0)
		*shown = NULL;
	return t->sr && t->whole_name && *shown ? 0 : error_set(e, ENOMEM, "out of memory");
}

static int make_volume(struct target *t, const char *dir, const struct target_wish *wish, struct error *e)
{
	CLEANUP_FREE char *result = NULL;
	CLEANUP_FREE char *shown = NULL;
	struct smapi_args a;

	if (take_names(t, dir, wish->volume_name, &shown, e) == -1)
		return -1;
	a = (struct smapi_args) { .sr = t->sr, .name = shown, .description = text_of(""),
				  .size = wish->bytes };
	return call(volume_create, "Volume.create", &a, &result, e) == 0 ? take_made(t, dir, result, e) : -1;
}

static int clone(struct target *t, const char *dir, const char *base_key, struct error *e)
{
	CLEANUP_FREE char *result = NULL;
	struct smapi_args a = { .sr = t->sr, .key = text_of(base_key), .dest_sr = t->sr };

	if (call(volume_clone, "Volume.clone", &a, &result, e) == -1 &&
	    (e->err != EOPNOTSUPP || call(volume_copy, "Volume.copy", &a, &result, e) == -1))
		return -1;
	return take_made(t, dir, result, e);
}

int target_clone(struct target *t, const char *dir, const char *base_key, const char *volume_name, int64_t bytes, struct error *e)
{
	CLEANUP_FREE char *result = NULL;
	CLEANUP_FREE char *shown = NULL;
	struct smapi_args a;
	int r;

	*t = (struct target) { 0 };
	r = take_names(t, dir, volume_name, &shown, e);
	if (r == 0)
		r = clone(t, dir, base_key, e);
	if (r == 0)
		r = call_set_name(t, shown, e);
	if (r == 0) {
		a = (struct smapi_args) { .sr = t->sr, .key = t->place.key, .new_size = bytes };
		r = call(volume_resize, "Volume.resize", &a, &result, e);
	}
	if (r == -1)
		target_close(t, false);
	return r;
}

static int finish_volume(const struct target *t, const char *k, const char *v, struct error *e)
{
	CLEANUP_FREE char *result = NULL;
	struct smapi_args a = { .sr = t->sr, .key = t->place.key, .k = text_of(k), .v = text_of(v) };

	if (k && call(volume_set, "Volume.set", &a, &result, e) == -1)
		return -1;
	return call_set_name(t, t->whole_name, e);
}

/* --- a new file */

static bool is_qcow2_named(const char *path)
{
	size_t bytes = strlen(path), tail = strlen(QCOW2);

	return bytes > tail && strcmp(path + bytes - tail, QCOW2) == 0;
}

/* A qcow2 image is called so also before it is whole. Heap. */
static char *partial_name(const char *path, bool is_qcow2)
{
	size_t stem = strlen(path) - (is_qcow2 ? strlen(QCOW2) : 0);
	char *name;

	return asprintf(&name, "%.*s" PARTIAL "%s", (int)stem, path, path + stem) < 0 ? NULL : name;
}

static int make_raw(const char *path, int64_t bytes, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return error_errno(e, errno, "make %s", path);
	if (ftruncate(fd, bytes) == 0)
		return 0;
	error_errno(e, errno, "make %s of %lld bytes", path, (long long)bytes);
	unlink(path);
	return -1;
}

/* It is on record before it is there. */
static int make_partial(const char *path, bool is_qcow2, int64_t bytes, struct error *e)
{
	struct stat st;

	if (lstat(path, &st) == 0)
		return error_set(e, EEXIST, "%s is there: another copy makes it, or left it when it was killed; remove it then",
				 path);
	if (unfinished_note(path, e) == -1)
		return -1;
	if ((is_qcow2 ? qemu_img_make(path, bytes, e) : make_raw(path, bytes, e)) == 0)
		return 0;
	if (e->err != EEXIST)
		unfinished_forget(path);
	return -1;
}

static int make_file(struct target *t, const struct target_wish *wish, struct error *e)
{
	CLEANUP_FREE char *path = place_absolute(wish->name, e);
	const bool is_qcow2 = is_qcow2_named(wish->name) && !(wish->format && strcmp(wish->format, "raw") == 0);
	CLEANUP_FREE char *partial = path ? partial_name(path, is_qcow2) : NULL;

	if (!path)
		return -1;
	if (!partial)
		return error_set(e, ENOMEM, "out of memory");
	if (wish->format && strcmp(wish->format, "qcow2") == 0 && !is_qcow2)
		return error_set(e, EINVAL, "%s is to be a qcow2 image: call it *.qcow2", wish->name);
	if (make_partial(partial, is_qcow2, wish->bytes, e) == -1)
		return -1;
	t->is_made = true;
	t->made_name = take_ptr(&partial);
	t->whole_name = take_ptr(&path);
	return place_find(&t->place, t->made_name, wish->format, e);
}

/* What somebody else has put there meanwhile stays. */
static int rename_new(const char *from, const char *to)
{
	if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL || link(from, to) == -1) /* NFS knows no such rename */
		return errno;
	unlink(from);
	return 0;
}

static int finish_file(struct target *t, struct error *e)
{
	int err = rename_new(t->made_name, t->whole_name);

	if (err)
		return error_errno(e, err, "call %s %s", t->made_name, t->whole_name);
	unfinished_forget(t->made_name);
	free(t->made_name);
	t->made_name = take_ptr(&t->whole_name);
	return proc_sync_dir(t->made_name, e);
}

int target_finish(struct target *t, const char *k, const char *v, struct error *e)
{
	if (!t->is_made)
		return 0;
	return t->sr ? finish_volume(t, k, v, e) : finish_file(t, e);
}

/* --- what is there */

static int check_blank(const struct place *p, struct error *e)
{
	bool is_blank = false;
	struct stat st;

	if (p->kind == PLACE_VOLUME) {
		const struct image i = image_of(p->dir, p->key, p->format);

		if (i.ops->is_blank(&i, &is_blank, e) == -1)
			return -1;
	} else if (!p->is_device && strcmp(p->format, "raw") == 0) {
		if (stat(p->real, &st) == -1)
			return error_errno(e, errno, "look at %s", p->real);
		is_blank = st.st_blocks == 0;
	}
	return is_blank ? 0 : error_set(e, EEXIST, "%s is there already, and may have something in it: --force overwrites it",
					p->name);
}

static int check_writable(const struct place *p, struct error *e)
{
	struct meta_volume m;
	bool is_writable;

	if (p->kind != PLACE_VOLUME)
		return 0;
	if (meta_volume_read(p->dir, p->key, &m, e) == -1)
		return -1;
	is_writable = m.read_write;
	meta_volume_clear(&m);
	return is_writable ? 0 : error_set(e, EROFS, "volume %s is a snapshot, which does not change", p->key);
}

static int take_existing(struct target *t, const struct target_wish *wish, struct error *e)
{
	const struct place *p = &t->place;

	if (p->kind == PLACE_NBD)
		return 0;
	if (wish->not_this && wish->not_this->real && p->real && strcmp(wish->not_this->real, p->real) == 0)
		return error_set(e, EINVAL, "both are %s", p->real);
	if (check_writable(p, e) == -1 || place_check_unused(p, false, e) == -1)
		return -1;
	return wish->may_overwrite ? 0 : check_blank(p, e);
}

int target_find(struct target *t, const struct target_wish *wish, struct error *e)
{
	CLEANUP_FREE char *dir = sr_of(wish->name);
	struct stat st;
	int r;

	*t = (struct target) { 0 };
	if (dir)
		r = make_volume(t, dir, wish, e);
	else if (place_find(&t->place, wish->name, wish->format, e) == 0)
		r = take_existing(t, wish, e);
	else if (e->err == ENOENT && lstat(wish->name, &st) == -1 && errno == ENOENT)
		r = make_file(t, wish, e);
	else
		r = -1;
	if (r == -1)
		target_close(t, false);
	return r;
}

static void unmake(const struct target *t)
{
	struct smapi_call c = { .verb = "Volume.destroy" };
	const char *key = t->made_name ? strrchr(t->made_name, '/') : NULL;
	CLEANUP_FREE char *result = NULL;
	struct failure f = { 0 };

	if (!key)
		return;
	if (!t->sr) {
		unlink(t->made_name);
		unfinished_forget(t->made_name);
		return;
	}
	c.args = (struct smapi_args) { .dbg = text_of(""), .sr = t->sr, .key = text_of(key + 1) };
	if (volume_destroy(&c, &result, &f) == -1)
		fprintf(stderr, "sxm: %s is not whole, and could not be removed: %s\n", t->made_name, f.e.text);
}

void target_close(struct target *t, bool is_whole)
{
	if (t->is_made && !is_whole)
		unmake(t);
	place_clear(&t->place);
	free(t->made_name);
	free(t->whole_name);
	free(t->sr);
	*t = (struct target) { 0 };
}
