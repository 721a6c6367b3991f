/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volume-cbt - the verbs of changed block tracking: on, off, what changed, and a snapshot that keeps no more than that
 *
 *      the image's lock, shared, to be had?   its log is a file, and is handled here (chain.h)
 *                               taken?        its process has it open, and the log
 *                               no process?   opened or closed just now: again; else another host has it
 *
 *      enable_cbt, disable_cbt     of disks that can be written; a snapshot keeps what it has until it goes
 *      list_changed_blocks         the union of the logs from `to` up to, not with, `from`; what the disk grew by, too
 *      data_destroy                of a snapshot whose changes are known: on record, then its image goes
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "plugins/chain.h"
#include "plugins/datapath.h"
#include "plugins/image.h"
#include "plugins/volume.h"

/* --- on and off */

static int switch_idle(const char *dir, const char *key, bool is_wanted, struct error *e)
{
	const struct image image = image_of(dir, key, NULL);
	struct image_info info;

	if (!is_wanted)
		return chain_disable(dir, key, e);
	return image_look(&image, &info, e) == 0 ? chain_enable(dir, key, (uint64_t)info.virtual_bytes, e) : -1;
}

static int switch_cbt(const char *dir, const char *key, bool is_wanted, struct error *e)
{
	const struct image i = image_of(dir, key, NULL);
	CLEANUP_FREE char *image = image_path(&i);

	if (!image)
		return error_set(e, ENOMEM, "out of memory");
	for (unsigned tries = 0; tries < IMAGE_TRIES; tries++) {
		CLEANUP_LOCK int fd = lock_try_shared(image, e);
		int r;

		if (fd >= 0)
			return switch_idle(dir, key, is_wanted, e);
		if (e->err != EBUSY)
			return -1;
		r = datapath_track(image, is_wanted, e);
		if (r != 1)
			return r;
		image_pause();
	}
	return error_set(e, EBUSY, "%s is in use on another host, or by a program that is none of ours; do this there", image);
}

static int switch_in(const struct sr *sr, const char *key, bool is_wanted, struct failure *f)
{
	CLEANUP_LOCK int making = volume_check_here(sr->dir, key, f) == -1 ? -1 : volume_hold_sr(sr, f);
	CLEANUP_LOCK int lock = making < 0 ? -1 : volume_lock(sr->dir, key, LOCK_EXCLUSIVE, f);
	struct meta_volume m;
	bool is_writable;
	struct error e;

	if (lock < 0 || volume_read(sr->dir, key, &m, f) == -1)
		return -1;
	is_writable = m.read_write && !m.is_data_destroyed;
	meta_volume_clear(&m);
	if (is_wanted == chain_has(sr->dir, key) && !(is_wanted && is_writable))
		return 0;
	if (!is_writable)
		return failure_set(f, FAILURE_VDI_UNAVAILABLE, EPERM,
				   "volume %s is a snapshot, which does not change: tracking is switched on or off for the disk "
				   "it was made of", key);
	if (switch_cbt(sr->dir, key, is_wanted, &e) == 0)
		return 0;
	error_prefix(&e, "%s changed block tracking of volume %s", is_wanted ? "enable" : "disable", key);
	return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
}

static int switch_of(struct smapi_call *call, bool is_wanted, char **result, struct failure *f)
{
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	r = switch_in(&sr, call->args.key, is_wanted, f);
	sr_close(&sr);
	return r == 0 ? smapi_unit(result, f) : -1;
}

int volume_enable_cbt(struct smapi_call *call, char **result, struct failure *f)
{
	return switch_of(call, true, result, f);
}

int volume_disable_cbt(struct smapi_call *call, char **result, struct failure *f)
{
	return switch_of(call, false, result, f);
}

/* --- data_destroy */

static int drop_data(const char *dir, const char *key, struct meta_volume *m, struct failure *f)
{
	const struct image i = image_of(dir, key, m->format);
	CLEANUP_FREE char *path = image_path(&i);
	CLEANUP_LOCK int image = -1;
	struct image_info info;
	struct error e;

	if (!path)
		return failure_set(f, FAILURE_VDI_DELETE, ENOMEM, "out of memory");
	if (datapath_check_idle(path, f) == -1)
		return -1;
	image = image_claim(&i, &e);
	if (image < 0 && e.err != ENOENT)
		return failure_from(f, FAILURE_VDI_DELETE, &e);
	if (image_look(&i, &info, &e) == 0)
		m->virtual_size = info.virtual_bytes;
	m->is_data_destroyed = true;
	image_retire(&i);
	if (meta_volume_write(dir, key, m, &e) == -1) {
		image_settle(&i);
		return failure_from(f, FAILURE_VDI_DELETE, &e);
	}
	if (image_unlink(&i, &e) == -1)
		return failure_from(f, FAILURE_VDI_DELETE, &e);
	if (i.ops->collect)
		i.ops->collect(dir);
	return 0;
}

static int destroy_data_in(const struct sr *sr, const char *key, struct failure *f)
{
	CLEANUP_LOCK int lock = volume_check_here(sr->dir, key, f) == -1 ? -1 : volume_lock(sr->dir, key, LOCK_EXCLUSIVE, f);
	struct meta_volume m;
	struct image i;
	struct error e;
	int r = 0;

	if (lock < 0 || volume_read(sr->dir, key, &m, f) == -1)
		return -1;
	i = image_of(sr->dir, key, m.format);
	if (m.is_data_destroyed) { /* again: somebody was killed before it was gone, perhaps */
		if (image_unlink(&i, &e) == -1)
			r = failure_from(f, FAILURE_VDI_DELETE, &e);
	} else if (m.read_write || !chain_is_sealed(sr->dir, key)) {
		r = failure_set(f, FAILURE_VDI_UNAVAILABLE, EPERM,
				"volume %s is %s; its data is destroyed with it (Volume.destroy), not apart", key,
				m.read_write ? "no snapshot" : "a snapshot of which it is not known what changed");
	} else {
		r = drop_data(sr->dir, key, &m, f);
	}
	meta_volume_clear(&m);
	return r;
}

int volume_data_destroy(struct smapi_call *call, char **result, struct failure *f)
{
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	r = destroy_data_in(&sr, call->args.key, f);
	sr_close(&sr);
	return r == 0 ? smapi_unit(result, f) : -1;
}

/* --- what changed */

static int size_of(const char *dir, const char *key, uint64_t *bytes, struct failure *f)
{
	struct image_info info;
	struct meta_volume m;
	struct image i;
	struct error e;

	if (volume_read(dir, key, &m, f) == -1)
		return -1;
	i = image_of(dir, key, m.format);
	info.virtual_bytes = m.virtual_size;
	if (!m.is_data_destroyed)
		image_look(&i, &info, &e);
	*bytes = (uint64_t)info.virtual_bytes;
	meta_volume_clear(&m);
	return 0;
}

/* A copy of the log that its process has. 1: it has none, or not so. */
static int load_live(const char *dir, const char *key, const char *image, struct cbt_log *log, struct error *e)
{
	CLEANUP_FREE char *copy = NULL;
	int r;

	if (asprintf(&copy, "%s/%s.cbt.%ld.tmp", dir, key, (long)getpid()) < 0) {
		copy = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	r = datapath_save_log(image, copy, e);
	if (r == 0)
		r = cbt_log_load(copy, log, e);
	unlink(copy);
	return r;
}

static int load_log(const char *dir, const char *key, struct cbt_log *log, struct error *e)
{
	const struct image i = image_of(dir, key, NULL);
	CLEANUP_FREE char *image = image_path(&i);

	if (!image)
		return error_set(e, ENOMEM, "out of memory");
	for (unsigned tries = 0; tries < IMAGE_TRIES; tries++) {
		CLEANUP_LOCK int fd = lock_try_shared(image, e);
		int r;

		if (fd >= 0 || e->err == ENOENT)
			return chain_load(dir, key, log, e);
		if (e->err != EBUSY)
			return -1;
		r = load_live(dir, key, image, log, e);
		if (r != 1)
			return r;
		image_pause();
	}
	return error_set(e, EBUSY, "%s is in use on another host; ask there", image);
}

/* The bytes that are asked for, as far as the disk has them. */
static int take_range(const struct smapi_args *a, uint64_t size_bytes, struct range *r, struct failure *f)
{
	uint64_t offset = (uint64_t)a->offset;

	if (a->offset < 0 || offset > size_bytes)
		return failure_set(f, FAILURE_REQUEST, EINVAL, "offset %lld is not in volume %s, which has %llu bytes",
				   (long long)a->offset, a->key2, (unsigned long long)size_bytes);
	*r = (struct range) { offset, size_bytes };
	if (a->length >= 0 && (uint64_t)a->length < size_bytes - offset)
		r->end = offset + (uint64_t)a->length;
	return 0;
}

static char *tell(struct cbt_log *log, struct range asked)
{
	CLEANUP_FREE char *bitmap = cbt_log_base64(log, asked);
	struct types_changed_blocks blocks = { .granularity = CBT_BLOCK_BYTES, .bitmap = bitmap };

	return bitmap ? jsonspec_encode(&types_changed_blocks, &blocks) : NULL;
}

static int list_changed(const char *dir, const struct smapi_args *a, char **result, struct failure *f)
{
	uint64_t from_bytes, to_bytes;
	struct range asked;
	struct cbt_log log;
	struct error e;
	int r;

	if (size_of(dir, a->key, &from_bytes, f) == -1 || size_of(dir, a->key2, &to_bytes, f) == -1 ||
	    take_range(a, to_bytes, &asked, f) == -1)
		return -1;
	if (load_log(dir, a->key2, &log, &e) == -1) {
		if (e.err == ENOENT)
			error_set(&e, ENODATA, "changes of volume %s are not tracked (Volume.enable_cbt)", a->key2);
		return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	}
	r = chain_walk(dir, a->key, a->key2, &log, &e);
	if (r == 0 && log.header.size_bytes < to_bytes)
		r = cbt_log_grow(&log, to_bytes, &e);
	if (r == 0 && from_bytes < to_bytes)
		cbt_log_set(&log, (struct range) { from_bytes, to_bytes });
	r = r == 0 ? smapi_result(tell(&log, asked), result, f) : failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	cbt_log_clear(&log);
	return r;
}

int volume_list_changed_blocks(struct smapi_call *call, char **result, struct failure *f)
{
	struct sr sr;
	int making, r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	making = meta_is_key(call->args.key2) ? volume_hold_sr(&sr, f) : volume_raise_missing(call->args.key2, f);
	r = making < 0 ? -1 : list_changed(sr.dir, &call->args, result, f);
	if (making >= 0)
		close(making);
	sr_close(&sr);
	return r;
}
