/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volume-compose - Volume.compose: a volume on top of another
 *
 *      child:   a . . d .        what was written to it, since it was made or snapshotted; the rest is what it stood on
 *      parent:  A B C D E
 *      child:   a B C d E        from now on; parent is consumed
 *
 * Asked for at the end of a move from a SMAPIv1 host while a guest waits, so no data is touched:
 *
 *      a leaf that was mirrored to (Datapath.import_activate) has what was written in its overlay, and nothing in its image:
 *              parent's image takes its name, and is what the overlay is merged into when the disk is used (overlay/)
 *      nothing was written to it at all:            parent's image takes its name
 *      a qcow2 leaf that was written to directly:   it stands on parent from then on. To 4 KiB (where qemu-img is older than
 *              5.2, 64): where less than that was written the rest of it is what the leaf stood on. Who mirrors in sectors comes
 *              by Datapath.import_activate, and sxm's own mirror writes whole 4 KiB
 *      a raw leaf that was written to directly:     refused, as nobody knows where
 *
 * Stopped in between, it is done or not, and may be asked for again: the name is taken in one step.  From before that step until
 * parent's record is gone its image has a passing name as well (image.h), by which the next call, and the next SR.attach
 * (meta.c), know what became of it.  Child's content_id is a new one before its content is.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "overlay/overlay-file.h"
#include "plugins/datapath.h"
#include "plugins/volume.h"

static int say_why_not(const struct image *i, struct failure *f)
{
	return failure_set(f, FAILURE_VDI_UNAVAILABLE, EOPNOTSUPP,
			   "volume %s cannot be composed: it was written to directly, and a %s image does not say where; what is "
			   "mirrored to it after Datapath.import_activate can be composed", i->key, i->ops->format);
}

static int renew_record(const struct image *i, struct failure *f)
{
	struct meta_volume m;
	struct error e;
	int r = volume_read(i->dir, i->key, &m, f);

	if (r == -1)
		return -1;
	r = volume_renew(&m) == 1 ? meta_volume_write(i->dir, i->key, &m, &e) : error_set(&e, ENOMEM, "out of memory");
	meta_volume_clear(&m);
	return r == 0 ? 0 : failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
}

/* --- parent's image takes child's name */

static bool is_missing(const struct image *i)
{
	CLEANUP_FREE char *path = image_path(i);

	return path && access(path, F_OK) == -1 && errno == ENOENT;
}

static int fit_parent(const struct image *child, const struct image *parent, struct error *e)
{
	struct image_info upper, lower;

	if (image_look(child, &upper, e) == -1 || image_look(parent, &lower, e) == -1)
		return -1;
	if (lower.virtual_bytes > upper.virtual_bytes)
		return error_set(e, ERANGE, "it has %lld bytes, less than the %lld of what it is to be composed with",
				 (long long)upper.virtual_bytes, (long long)lower.virtual_bytes);
	return lower.virtual_bytes == upper.virtual_bytes ? 0 : parent->ops->grow(parent, upper.virtual_bytes, e);
}

/* Nobody has either of them open: who comes meanwhile waits for the locks, and sees then what has the name. */
static int take_place(const struct image *child, const struct image *parent, struct error *e)
{
	CLEANUP_LOCK int upper = fit_parent(child, parent, e) == -1 ? -1 : image_claim(child, e);
	CLEANUP_LOCK int lower = upper < 0 ? -1 : image_claim(parent, e);

	if (lower < 0)
		return -1;
	image_retire(parent);
	if (image_take_place(child, parent, e) == 0)
		return 0;
	if (!is_missing(parent))
		image_settle(parent);
	return -1;
}

/* By a call that was killed then, or could not make it durable: it has another name of parent's. */
static bool was_taken(const struct image *child, const struct image *parent)
{
	CLEANUP_FREE char *path = image_path(child);
	CLEANUP_FREE char *passing = image_passing_path(parent);
	struct stat a, b;

	return path && passing && is_missing(parent) && lstat(path, &a) == 0 && lstat(passing, &b) == 0 && a.st_ino == b.st_ino &&
	       a.st_dev == b.st_dev;
}

static int check_parent(const struct image *parent, struct error *e)
{
	CLEANUP_FREE char *path = image_path(parent);

	return path ? datapath_merge(path, e) : error_set(e, ENOMEM, "out of memory");
}

enum way { IS_DONE, BY_NAME, BY_BASE };

static int choose_way(const struct image *child, const struct image *parent, enum way *way, struct error *e)
{
	CLEANUP_FREE char *path = image_path(child);
	enum overlay_state state;
	bool is_blank = false;

	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	if (overlay_state(path, &state, e) == -1)
		return -1;
	*way = IS_DONE;
	if (was_taken(child, parent) || (state == OVERLAY_COMPOSED && is_missing(parent)))
		return 0;
	if (state == OVERLAY_COMPOSED)
		return error_set(e, EBUSY, "it was composed before, and that is not merged yet");
	if (state == OVERLAY_OPEN)
		return error_set(e, EPERM, "its mirror is active, or ended with the process that had it: then it is not whole");
	if (child->ops->is_blank(child, &is_blank, e) == -1)
		return -1;
	if (!is_blank && state == OVERLAY_SEALED)
		return error_set(e, EINVAL, "it was written to directly, besides what was mirrored to it");
	*way = is_blank ? BY_NAME : BY_BASE;
	return 0;
}

/* Before the records are written: a qcow2 image takes its time to open. */
static void expect_guest(const struct image *child)
{
	CLEANUP_FREE char *path = image_path(child);
	enum overlay_state state;
	struct error e;

	if (path && overlay_state(path, &state, &e) == 0 && state == OVERLAY_COMPOSED)
		datapath_expect(path);
}

static int compose(const struct image *child, const struct image *parent, struct failure *f)
{
	struct error e;
	enum way way = IS_DONE;
	int r = choose_way(child, parent, &way, &e);

	if (r == 0 && way == BY_BASE && !child->ops->compose)
		return say_why_not(child, f);
	if (r == 0 && way != IS_DONE && renew_record(child, f) == -1)
		return -1;
	if (r == 0 && way == BY_NAME)
		r = take_place(child, parent, &e);
	else if (r == 0 && way == BY_BASE)
		r = child->ops->compose(child, parent, &e);
	if (r == 0) {
		expect_guest(child);
		return 0;
	}
	error_prefix(&e, "compose volume %s with %s", child->key, parent->key);
	return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
}

static int compose_locked(const struct image *child, const struct image *parent, struct failure *f)
{
	CLEANUP_FREE char *path = image_path(parent);
	CLEANUP_FREE char *record = meta_volume_path(parent->dir, parent->key);
	struct error e;

	if (!path || !record)
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, ENOMEM, "out of memory");
	if (child->ops != parent->ops)
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, EOPNOTSUPP,
				   "volume %s cannot be composed with %s: one is %s, the other %s",
				   child->key, parent->key, child->ops->format, parent->ops->format);
	if (datapath_check_idle(path, f) == -1)
		return -1;
	if (check_parent(parent, &e) == -1)
		return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	if (compose(child, parent, f) == -1 || volume_remove(parent, record, f) == -1)
		return -1;
	if (parent->ops->collect)
		parent->ops->collect(parent->dir);
	return 0;
}

/* In the order of their keys, as two calls may be the wrong way round to one another. */
static int compose_in(const struct sr *sr, const char *key, const char *parent_key, struct failure *f)
{
	bool is_first = strcmp(key, parent_key) < 0;
	bool is_here = volume_check_here(sr->dir, key, f) == 0 && volume_check_here(sr->dir, parent_key, f) == 0;
	CLEANUP_LOCK int making = is_here ? volume_hold_sr(sr, f) : -1;
	CLEANUP_LOCK int one = making < 0 ? -1 : volume_lock(sr->dir, is_first ? key : parent_key, LOCK_EXCLUSIVE, f);
	CLEANUP_LOCK int other = one < 0 ? -1 : volume_lock(sr->dir, is_first ? parent_key : key, LOCK_EXCLUSIVE, f);
	struct image child, parent;

	if (other < 0 || volume_image(sr, key, &child, f) == -1 || volume_image(sr, parent_key, &parent, f) == -1)
		return -1;
	return compose_locked(&child, &parent, f);
}

int volume_compose(struct smapi_call *call, char **result, struct failure *f)
{
	struct smapi_args *a = &call->args;
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	if (!meta_is_key(a->key2))
		r = volume_raise_missing(a->key2, f);
	else if (strcmp(a->key, a->key2) == 0)
		r = failure_set(f, FAILURE_REQUEST, EINVAL, "volume %s cannot be composed with itself", a->key);
	else
		r = compose_in(&sr, a->key, a->key2, f);
	sr_close(&sr);
	return r == 0 ? smapi_unit(result, f) : -1;
}
