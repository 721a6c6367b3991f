/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volume-compose - Volume.compose: a volume on top of another
 *
 *      child:   a . . d .        what was written to it, since it was made or snapshotted; the rest is what it stood on
 *      parent:  A B C D E
 *      child:   a B C d E        from now on; parent is consumed
 *
 * Asked for at the end of a move while a guest waits, so no data is touched: only an image that knows what was written to it can
 * be composed. Stopped in between, parent is still there, and may be used for the same again.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "plugins/datapath.h"
#include "plugins/volume.h"

static int say_why_not(const struct image *i, struct failure *f)
{
	return failure_set(f, FAILURE_VDI_UNAVAILABLE, EOPNOTSUPP,
			   "volume %s cannot be composed: a %s image does not say what was written to it and what was not; an SR "
			   "of format qcow2 can", i->key, i->ops->format);
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

static int compose_locked(const struct image *child, const struct image *parent, struct failure *f)
{
	CLEANUP_FREE char *path = image_path(parent);
	CLEANUP_FREE char *record = meta_volume_path(parent->dir, parent->key);
	struct error e;

	if (!path || !record)
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, ENOMEM, "out of memory");
	if (child->ops != parent->ops || !child->ops->compose)
		return say_why_not(child->ops->compose ? parent : child, f);
	if (datapath_check_idle(path, f) == -1)
		return -1;
	if (child->ops->compose(child, parent, &e) == -1) {
		error_prefix(&e, "compose volume %s with %s", child->key, parent->key);
		return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	}
	if (renew_record(child, f) == -1 || volume_remove(parent, record, f) == -1)
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
