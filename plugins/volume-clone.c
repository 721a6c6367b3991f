/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volume-clone - volumes made of other volumes: snapshot, clone, copy; and the way back, revert
 *
 *      image_take -> a file under a passing name: the origin at one moment, whoever writes to it
 *
 *      snapshot   read-only, on record whose it is and of when       both want shared data, and say so where there is none:
 *      clone      like its origin, its own from now on               a copy may take hours, and is asked for by its name
 *      copy       a clone, in another SR perhaps, of copied data where nothing can be shared
 *      revert     the image is replaced, in one step, by what a snapshot holds; halted volumes only
 *
 * A snapshot has nothing of what lies beside an image (image.h).  Volumes of one origin are a family, which similar_content
 * asks for.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "plugins/chain.h"
#include "plugins/coalesce.h"
#include "plugins/datapath.h"
#include "plugins/joint.h"
#include "plugins/image.h"
#include "plugins/tree.h"
#include "plugins/unfinished.h"
#include "plugins/volume.h"

/* --- the record */

static int put(char **to, const char *text)
{
	free(*to);
	*to = strdup(text);
	return *to ? 0 : -1;
}

static int set_content_id(struct jsonspec_map *keys, bool is_same)
{
	const char *old = jsonspec_map_get(keys, "content_id");
	char fresh[VOLUME_UUID_TEXT];

	if (is_same && old && *old)
		return 0;
	volume_make_uuid(fresh);
	return jsonspec_map_set(keys, "content_id", fresh);
}

void volume_make_time(char text[static VOLUME_TIME_TEXT])
{
	time_t now = time(NULL);
	struct tm tm;

	strftime(text, VOLUME_TIME_TEXT, "%Y%m%dT%H:%M:%SZ", gmtime_r(&now, &tm));
}

/* What was said of the origin as a snapshot, as what is started anew at boot, and as an end of a move, is not so of this one. */
static int set_keys(struct jsonspec_map *keys, const struct image_taking *t, bool is_snapshot)
{
	static const char *const not_inherited[] = { "clone-on-boot", "snapshot_time", "is_a_snapshot", "snapshot_of",
						     "_sm_config_base_mirror", CHAIN_COPY_OF, JOINT_KEY,
						     UNFINISHED_KEY, NULL };
	char when[VOLUME_TIME_TEXT];

	for (const char *const *key = not_inherited; *key; key++)
		jsonspec_map_unset(keys, *key);
	if (set_content_id(keys, !t->was_written) == -1)
		return -1;
	if (!is_snapshot)
		return 0;
	volume_make_time(when);
	return jsonspec_map_set(keys, "is_a_snapshot", "true") == 0 && jsonspec_map_set(keys, "snapshot_of", t->from.key) == 0 ?
	       jsonspec_map_set(keys, "snapshot_time", when) : -1;
}

int volume_derive(struct meta_volume *m, const struct image_taking *t, bool is_snapshot, struct error *e)
{
	CLEANUP_FREE char *passing = image_passing_path(&t->to);
	struct image_info info;

	if (!passing || (!m->family && put(&m->family, t->from.key) == -1) || put(&m->uuid, t->to.key) == -1 ||
	    put(&m->format, t->to.ops->format) == -1 || set_keys(&m->keys, t, is_snapshot) == -1)
		return error_set(e, ENOMEM, "out of memory");
	if (t->to.ops->look(&t->to, passing, &info, e) == -1)
		return -1;
	m->virtual_size = info.virtual_bytes;
	m->read_write = !is_snapshot;
	if (is_snapshot)
		m->sharable = false;
	return 0;
}

/* k: a key it has from its first moment on; NULL: none. */
static int finish(struct image_taking *t, struct meta_volume *m, bool is_snapshot, const char *k, const char *v, struct error *e)
{
	int r = volume_derive(m, t, is_snapshot, e);

	if (r == 0 && k && jsonspec_map_set(&m->keys, k, v) == -1)
		r = error_set(e, ENOMEM, "out of memory");
	if (r == -1) {
		image_settle(&t->to);
		return -1;
	}
	if (image_publish(&t->to, e) == -1)
		return -1;
	return volume_add(&t->to, m, e);
}

/* --- snapshot, clone */

static int say_why_not(const struct image_taking *t, bool is_snapshot, struct error *e)
{
	if (e->err != EOPNOTSUPP || t->from.ops != &image_raw)
		return error_prefix(e, "%s volume %s", is_snapshot ? "snapshot" : "clone", t->from.key);
	return error_set(e, EOPNOTSUPP,
			 "volume %s cannot be %s: its image is a raw file, and the file system of %s cannot let two files share "
			 "blocks (XFS with reflink can); copy it instead", t->from.key,
			 is_snapshot ? "snapshotted" : "cloned without a copy of all its data", t->from.dir);
}

static int clone_in(struct sr *sr, const struct smapi_args *a, const char *new_key, bool is_snapshot, struct failure *f)
{
	const char *key = a->key;
	CLEANUP_LOCK int making = volume_check_here(sr->dir, key, f) == -1 ? -1 : volume_hold_sr(sr, f);
	CLEANUP_LOCK int lock = making < 0 ? -1 : volume_lock(sr->dir, key, LOCK_SHARED, f);
	struct image_taking t = { .is_snapshot = is_snapshot };
	struct meta_volume m;
	struct error e;
	int r;

	if (lock < 0 || volume_read_whole(sr->dir, key, &m, f) == -1)
		return -1;
	t.from = image_of(sr->dir, key, m.format);
	t.to = (struct image) { sr->dir, new_key, t.from.ops };
	t.was_written = volume_is_doubted(sr->dir, key, &m);
	r = image_take(&t, &e);
	if (r == -1)
		say_why_not(&t, is_snapshot, &e);
	else
		r = finish(&t, &m, is_snapshot, a->k, a->v, &e);
	meta_volume_clear(&m);
	if (r == -1 && t.from.ops->collect) /* what it was to stand on may be a base too many */
		t.from.ops->collect(sr->dir);
	return r == 0 ? 0 : failure_from(f, is_snapshot ? FAILURE_VDI_SNAPSHOT : FAILURE_VDI_CLONE, &e);
}

static int clone(struct smapi_call *call, bool is_snapshot, char **result, struct failure *f)
{
	char new_key[VOLUME_UUID_TEXT];
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	volume_make_uuid(new_key);
	r = clone_in(&sr, &call->args, new_key, is_snapshot, f);
	if (r == 0)
		r = volume_answer(sr.dir, new_key, result, f);
	/* What it stands on may have been left by another host, as it is in use on this one. */
	if (r == 0 && sr.meta.is_shared && tree_has_bases(sr.dir))
		coalesce_start(sr.dir);
	sr_close(&sr);
	return r;
}

int volume_snapshot(struct smapi_call *call, char **result, struct failure *f)
{
	return clone(call, true, result, f);
}

int volume_clone(struct smapi_call *call, char **result, struct failure *f)
{
	return clone(call, false, result, f);
}

/* --- copy */

/* Since its record was read somebody may have begun to write, and have ended before the image was locked. */
static void look_again(struct image_taking *t, const struct meta_volume *m)
{
	const char *was = jsonspec_map_get(&m->keys, "content_id"), *is;
	struct meta_volume now;
	struct error e;

	if (meta_volume_read(t->from.dir, t->from.key, &now, &e) == -1) {
		t->was_written = true;
		return;
	}
	is = jsonspec_map_get(&now.keys, "content_id");
	t->was_written |= !was || !is || strcmp(was, is) != 0;
	meta_volume_clear(&now);
}

/* Only the image is locked while data is copied: it may take long, and the volume's name may be changed meanwhile. */
static int copy_in(const struct sr *from, const char *key, const struct sr *to, const char *new_key, struct failure *f)
{
	/* What passes there is not swept. */
	CLEANUP_LOCK int taking = volume_check_here(from->dir, key, f) == -1 ? -1 : volume_hold_sr(from, f);
	CLEANUP_LOCK int making = taking < 0 ? -1 : volume_hold_sr(to, f);
	struct image_taking t = { .may_copy = true };
	struct meta_volume m;
	struct error e;
	int r;

	if (making < 0 || volume_read_whole(from->dir, key, &m, f) == -1)
		return -1;
	t.from = image_of(from->dir, key, m.format);
	t.to = (struct image) { to->dir, new_key, strcmp(from->dir, to->dir) == 0 ? t.from.ops : volume_format(to, m.sharable) };
	t.was_written = volume_is_doubted(from->dir, key, &m);
	r = image_take(&t, &e);
	if (r == 0)
		look_again(&t, &m);
	if (r == -1 && e.err == EOPNOTSUPP)
		error_set(&e, EBUSY,
			  "volume %s is active, and the file system of %s cannot let two files share blocks, so its data cannot "
			  "be copied as it is at one moment; deactivate it, and copy it then", key, from->dir);
	if (r == 0)
		r = finish(&t, &m, false, NULL, NULL, &e);
	meta_volume_clear(&m);
	return r == 0 ? 0 : failure_from(f, FAILURE_VDI_CLONE, &e);
}

int volume_copy(struct smapi_call *call, char **result, struct failure *f)
{
	char new_key[VOLUME_UUID_TEXT];
	struct sr from, to;
	int r;

	if (volume_open_sr(call, &from, f) == -1)
		return -1;
	if (sr_open(&to, call->args.dest_sr, f) == -1) {
		sr_close(&from);
		return -1;
	}
	volume_make_uuid(new_key);
	r = copy_in(&from, call->args.key, &to, new_key, f);
	if (r == 0)
		r = volume_answer(to.dir, new_key, result, f);
	sr_close(&from);
	sr_close(&to);
	return r;
}

/* --- revert */

/* The mirror that was suspended has the old bytes to send: it is not taken up again. */
static int forget_mirror(const char *image, struct error *e)
{
	static const char *const suffix[] = { IMAGE_JOURNAL_SUFFIX, IMAGE_MARKS_SUFFIX, NULL };

	for (const char *const *s = suffix; *s; s++) {
		CLEANUP_FREE char *file = NULL;

		if (asprintf(&file, "%s%s", image, *s) < 0) {
			file = NULL;
			return error_set(e, ENOMEM, "out of memory");
		}
		if (unlink(file) == -1 && errno != ENOENT)
			return error_errno(e, errno, "remove %s", file);
	}
	return 0;
}

/* Nobody has the old image open: its lock is ours until the new one has its name. */
static int replace(struct image_taking *t, struct error *e)
{
	CLEANUP_FREE char *image = image_path(&t->to);
	CLEANUP_LOCK int claim = -1;

	if (!image)
		return error_set(e, ENOMEM, "out of memory");
	if (datapath_merge(image, e) == -1)
		return -1;
	claim = image_claim(&t->to, e);
	if (claim < 0 && e->err == EBUSY)
		return error_set(e, EBUSY, "volume %s is in use, here or on another host; deactivate it there first", t->to.key);
	if ((claim < 0 && e->err != ENOENT) || image_take(t, e) == -1)
		return -1;
	/* Its log knows nothing until it has the snapshot's content. */
	if (forget_mirror(image, e) == -1 || chain_restart(t->to.dir, t->to.key, "", e) == -1) {
		image_settle(&t->to);
		return -1;
	}
	if (image_replace(&t->to, e) == -1)
		return -1;
	if (t->was_written || !chain_is_sealed(t->from.dir, t->from.key))
		return 0;
	return chain_restart(t->to.dir, t->to.key, t->from.key, e);
}

/* Before it has other bytes: whoever is killed in between leaves no two contents of one name. */
static int renew_content_id(const struct image_taking *t, struct meta_volume *m, int *lock, struct error *e)
{
	if (set_content_id(&m->keys, false) == -1)
		return error_set(e, ENOMEM, "out of memory");
	return meta_volume_rewrite(t->to.dir, t->to.key, m, lock, e);
}

static int write_reverted(const struct image_taking *t, const struct meta_volume *snapshot, struct meta_volume *m,
			  struct error *e)
{
	const char *content_id = jsonspec_map_get(&snapshot->keys, "content_id");
	struct image_info info = { .virtual_bytes = m->virtual_size };

	image_look(&t->to, &info, e);
	m->virtual_size = info.virtual_bytes;
	if (jsonspec_map_set(&m->keys, "content_id", content_id && *content_id ? content_id : t->from.key) == -1 ||
	    set_content_id(&m->keys, !t->was_written) == -1)
		return error_set(e, ENOMEM, "out of memory");
	return meta_volume_write(t->to.dir, t->to.key, m, e);
}

static int check_same_format(const struct image_taking *t, struct error *e)
{
	if (t->from.ops == t->to.ops)
		return 0;
	return error_set(e, EOPNOTSUPP, "it is a %s image, and %s is a %s image", t->to.ops->format, t->from.key,
			 t->from.ops->format);
}

/* lock: of the record of what is reverted. */
static int revert_records(struct image_taking *t, struct meta_volume *snapshot, struct meta_volume *m, int *lock,
			  struct failure *f)
{
	CLEANUP_FREE char *image = NULL;
	struct error e;

	t->from.ops = image_of(t->from.dir, t->from.key, snapshot->format).ops;
	t->to.ops = image_of(t->to.dir, t->to.key, m->format).ops;
	image = image_path(&t->to);
	if (!image)
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, ENOMEM, "out of memory");
	if (datapath_check_idle(image, f) == -1)
		return -1;
	t->was_written = volume_is_doubted(t->from.dir, t->from.key, snapshot);
	if (check_same_format(t, &e) == 0 && renew_content_id(t, m, lock, &e) == 0 && replace(t, &e) == 0 &&
	    write_reverted(t, snapshot, m, &e) == 0) {
		if (t->to.ops->collect)
			t->to.ops->collect(t->to.dir);
		return 0;
	}
	error_prefix(&e, "revert volume %s", t->to.key);
	return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
}

static int revert_locked(struct image_taking *t, int *lock, struct failure *f)
{
	struct meta_volume m, snapshot;
	int r;

	if (volume_read_whole(t->from.dir, t->from.key, &snapshot, f) == -1)
		return -1;
	if (volume_read_whole(t->to.dir, t->to.key, &m, f) == -1) {
		meta_volume_clear(&snapshot);
		return -1;
	}
	r = revert_records(t, &snapshot, &m, lock, f);
	meta_volume_clear(&snapshot);
	meta_volume_clear(&m);
	return r;
}

/* In the order of their keys, as two reverts may be the wrong way round to one another. */
static int revert_in(const struct sr *sr, const char *snapshot, const char *key, struct failure *f)
{
	bool is_first = strcmp(snapshot, key) < 0;
	const char *first = is_first ? snapshot : key, *second = is_first ? key : snapshot;
	CLEANUP_LOCK int making = volume_check_here(sr->dir, key, f) == -1 ? -1 : volume_hold_sr(sr, f);
	CLEANUP_LOCK int one = making < 0 ? -1 : volume_lock(sr->dir, first, is_first ? LOCK_SHARED : LOCK_EXCLUSIVE, f);
	CLEANUP_LOCK int other = one < 0 ? -1 : volume_lock(sr->dir, second, is_first ? LOCK_EXCLUSIVE : LOCK_SHARED, f);
	struct image_taking t = { .from = { sr->dir, snapshot, NULL }, .to = { sr->dir, key, NULL }, .may_copy = true };

	return other < 0 ? -1 : revert_locked(&t, is_first ? &other : &one, f);
}

int volume_revert(struct smapi_call *call, char **result, struct failure *f)
{
	struct smapi_args *a = &call->args;
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	if (!meta_is_key(a->snapshot))
		r = volume_raise_missing(a->snapshot, f);
	else if (strcmp(a->snapshot, a->key) == 0)
		r = failure_set(f, FAILURE_REQUEST, EINVAL, "volume %s cannot be reverted to itself", a->key);
	else
		r = revert_in(&sr, a->snapshot, a->key, f);
	sr_close(&sr);
	return r == 0 ? smapi_unit(result, f) : -1;
}
