/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * resize - the image grows while guests use it
 *
 *      JOB_RESIZE   open -> hold, drain -> grow the log of changes, the file -> the layers learn its size -> wake -> fsync
 *                   -> answer
 *
 * NBD clients see the size when they connect the next time: the protocol has no way to tell them.  A Xen guest's frontend can
 * be told: where vbd backends are served here, that is done when the layers know the size, before the answer.
 *
 * Can fail: a full file system, one that holds no file so large, a disk that is not a file.  Refused while a mirror or a copy
 * runs or may be resumed: its map, and the far side, have the old size.
 * Invariant: the layers never say more than the file has.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/gate.h"
#include "vdi/vdi-private.h"

static void failed(struct vdi *v, const struct error *e)
{
	v->job->error = *e;
	error_prefix(&v->job->error, "resize of %s", v->path);
	stack_release(v, job_end);
}

/* By its name, as the descriptor that is locked may be read-only; nobody replaces a file whose lock we hold. */
static int open_file(const struct vdi *v, struct error *e)
{
	int fd = open(v->path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? error_errno(e, errno, "open") : fd;
}

static void grow_file(struct vdi *v)
{
	CLEANUP_CLOSE int fd = open_file(v, &v->step);
	uint64_t bytes = v->job->bytes;

	if (fd < 0 || tenancy_check(&v->tenancy, &v->step) == -1 ||
	    (v->cbt && cbt_grow(v->cbt, bytes, &v->step) == -1) || ftruncate(fd, (off_t)bytes) == 0)
		return;
	if (errno == EFBIG || errno == EINVAL)
		error_set(&v->step, EFBIG, "its file system cannot hold a file of %llu bytes", (unsigned long long)bytes);
	else
		error_errno(&v->step, errno, "grow it to %llu bytes", (unsigned long long)bytes);
}

static void sync_file(struct vdi *v)
{
	CLEANUP_CLOSE int fd = open_file(v, &v->step);

	if (fd >= 0 && fsync(fd) == -1)
		error_errno(&v->step, errno, "make its size durable");
}

static void synced(struct vdi *v)
{
	if (v->step.err) {
		failed(v, &v->step);
		return;
	}
	log_info("%s has %llu bytes now", v->path, (unsigned long long)v->disk->geometry.size_bytes);
	stack_release(v, job_end);
}

static void grown(struct vdi *v)
{
	struct error e = v->step;

	if (v->cbt)
		cbt_go_on(v->cbt);
	if (!e.err && disk_refresh_size(v->disk, &e) == 0) {
		if (v->cbt)
			v->cbt->geometry = v->disk->geometry;
		gate_set_below(v->gate, stack_base(v));
	}
	stack_wake(v);
	guest_device_resized(v);
	if (e.err)
		failed(v, &e);
	else
		stack_work(v, sync_file, synced);
}

static void rested(struct vdi *v)
{
	stack_work(v, grow_file, grown);
}

static void quiet(struct vdi *v)
{
	tracking_rest(v, rested);
}

/* Of a mirror that goes on when the disk is active the next time. */
void resize_look_for_journal(struct vdi *v)
{
	CLEANUP_FREE char *journal = NULL;
	struct stat st;

	if (asprintf(&journal, "%s.mirror", v->path) < 0) {
		journal = NULL;
		error_set(&v->step, ENOMEM, "out of memory");
	} else if (lstat(journal, &st) == 0 || errno != ENOENT) {
		error_set(&v->step, EBUSY, "a mirror of it is suspended; end that first (Data.destroy)");
	} else if (stat(v->path, &st) == 0 && !S_ISREG(st.st_mode)) {
		error_set(&v->step, EOPNOTSUPP, "it is a device; it is grown where it is made");
	}
}

static void looked(struct vdi *v)
{
	if (v->step.err)
		failed(v, &v->step);
	else
		stack_quiet(v, quiet);
}

int resize_check(const struct vdi *v, struct error *e)
{
	const enum commit_state state = v->owner.record.state;

	if (v->op)
		return error_set(e, EBUSY, "%s %s of it is running; wait for it, or cancel it, and resize then",
				 v->op->is_copy ? "copy" : "mirror", v->op->id);
	if (state == COMMIT_RECEIVING || state == COMMIT_ELIGIBLE || far_is_linked(v))
		return error_set(e, EBUSY, "it is the far side of a mirror; it can be resized when a guest has taken it");
	return import_check_merged(v, e);
}

static void opened(struct vdi *v)
{
	uint64_t bytes = v->job->bytes, now_bytes;
	struct error e = v->step;

	if (!e.err && (!v->disk || v->is_refusing))
		error_set(&e, ENXIO, "the disk is not served");
	if (e.err) {
		failed(v, &e);
		return;
	}
	now_bytes = v->disk->geometry.size_bytes;
	if (bytes == now_bytes) {
		stack_release(v, job_end);
		return;
	}
	if (bytes < now_bytes)
		error_set(&e, ERANGE, "it has %llu bytes, and a disk can only grow: making it %llu bytes would cut data off",
			  (unsigned long long)now_bytes, (unsigned long long)bytes);
	else if (strcmp(disk_engine_name(v->disk), "nbd") == 0)
		error_set(&e, EOPNOTSUPP, "another server has its bytes: it is grown there (a qcow2 image while paused)");
	else
		resize_check(v, &e);
	if (e.err)
		failed(v, &e);
	else
		stack_work(v, resize_look_for_journal, looked);
}

void resize_begin(struct vdi *v)
{
	struct error e = { 0 };

	if (v->op) {
		resize_check(v, &e);
		error_prefix(&e, "resize of %s", v->path);
		job_fail(v, &e);
		return;
	}
	stack_open(v, true, opened);
}

void vdi_resize(struct vdi *v, uint64_t bytes, vdi_done_fn *done, void *arg)
{
	struct job *j = job_add(v, JOB_RESIZE, "", done, arg);

	if (j)
		j->bytes = bytes;
}
