/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * far-log - the logs of changes that come with a disk, at the far side (PROTOCOL.x-sxm, 4; cbt/cbt-moved.h)
 *
 *      LOG_BEGIN --> pieces, pieces ... --> LOG_KEEP --> pieces ... --> LOG_END --> COMMIT
 *                    memory                 the older    what is new    they are    the disk's own stored, then `eligible`
 *                                           ones stored                 whole       durable, then it is kept here
 *
 * What the mirror writes here is no change of the disk: the source's log says what is, and takes the place of this side's, if
 * there is one. That one stays where it tells the changes since a snapshot made here.
 *
 * What has come whole is good for a COMMIT in the epoch in which it came, whichever link that comes over: the source writes
 * nothing in between (it is `offered`). Of a link that was lost in the middle nothing is kept.
 *
 * Can fail: the medium, or memory. Then the disk comes without its log: a backup has to be a full one, and that is said.
 * Never: a log here that lacks something.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "nbdsrv/wire.h"
#include "vdi/vdi-private.h"

void far_log_forget(struct vdi *v, bool is_all)
{
	struct far_log *f = &v->far.log;

	f->generation = 0;
	if (!is_all && f->epoch)
		return;
	f->epoch = 0;
	cbt_moved_clear(&f->moved);
}

int far_log_take(void *arg, struct nbdsrv_link *link, uint64_t at, const uint8_t *data, size_t bytes)
{
	struct vdi *v = arg;
	const struct far_link *l = link->owner;
	struct far_log *f = &v->far.log;

	if (!l || !l->is_admitted || !v->disk || !f->generation || l->name.generation != f->generation)
		return EPERM;
	f->epoch = 0;
	return cbt_moved_take(&f->moved, v->disk->geometry.size_bytes, at, data, bytes);
}

/* --- LOG_BEGIN */

static char *log_path(const struct vdi *v)
{
	return cbt_log_path_of_image(v->path, CBT_SUFFIX);
}

/* A log of our own tells the changes since a snapshot that was made here. */
static bool has_own(const char *path)
{
	CLEANUP_FREE char *dir = strndup(path, (size_t)(strrchr(path, '/') - path));
	CLEANUP_FREE char *parent = NULL;
	struct cbt_header h;
	struct error e;

	if (cbt_log_read_header(path, &h, &e) == -1 || !h.parent[0])
		return false;
	parent = dir ? cbt_log_path(dir, h.parent, CBT_SUFFIX) : NULL;
	return !parent || cbt_log_read_header(parent, &h, &e) == -1 || !h.origin[0];
}

static void look(struct vdi *v)
{
	CLEANUP_FREE char *path = log_path(v);

	if (!path)
		error_set(&v->step, ENOTSUP, "%s is no volume's image", v->path);
	else if (has_own(path))
		error_set(&v->step, ENOTSUP, "%s tells the changes since a snapshot made here", path);
}

static void looked(struct vdi *v)
{
	struct question *q = v->job->question;

	if (v->step.err) {
		log_warn("mirror %s: the log of changes that comes with the disk is not taken: %s", q->l->name.mirror,
			 v->step.text);
		far_say_failed(q, ENOTSUP);
	} else {
		far_log_forget(v, true);
		v->far.log.generation = q->l->name.generation;
		far_say(q, &v->owner.record, COMMIT_STATUS_OK);
	}
	job_end(v);
}

/* --- LOG_KEEP, LOG_END */

static void store_past(struct vdi *v)
{
	CLEANUP_FREE char *path = log_path(v);

	if (!path)
		error_set(&v->step, ENOMEM, "out of memory");
	else
		cbt_moved_store_past(&v->far.log.moved, path, &v->step);
}

static void past_stored(struct vdi *v)
{
	struct question *q = v->job->question;

	if (v->step.err) {
		log_warn("mirror %s: the log of changes that came with the disk cannot be kept: %s", q->l->name.mirror,
			 v->step.text);
		far_log_forget(v, true);
		far_say_failed(q, v->step.err);
	} else {
		v->far.log.generation = q->l->name.generation;
		v->far.log.epoch = q->ask->opcode == XSXM_LOG_END ? q->l->name.epoch : 0;
		far_say(q, &v->owner.record, COMMIT_STATUS_OK);
	}
	job_end(v);
}

void far_log_begin(struct vdi *v)
{
	struct question *q = v->job->question;
	struct commit_verdict verdict = commit_far_prepare(&v->owner.record, &q->l->name);
	bool is_begin = q->ask->opcode == XSXM_LOG_BEGIN;

	if (verdict.status == COMMIT_STATUS_OK && !is_begin && (!v->far.log.generation || !v->far.log.moved.count))
		verdict.status = COMMIT_STATUS_BAD_STATE;
	if (verdict.status != COMMIT_STATUS_OK) {
		far_say(q, &v->owner.record, verdict.status);
		job_end(v);
	} else if (is_begin) {
		stack_work(v, look, looked);
	} else {
		v->far.log.generation = 0; /* no pieces while it is stored */
		stack_work(v, store_past, past_stored);
	}
}

/* --- COMMIT */

static void store(struct vdi *v)
{
	CLEANUP_FREE char *path = log_path(v);

	if (!path)
		error_set(&v->step, ENOMEM, "out of memory");
	else
		cbt_moved_store(&v->far.log.moved, path, &v->step);
}

static void stored(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->logged);

	if (v->step.err)
		log_warn("the log of changes that came with the disk cannot be kept: %s; a backup has to be a full one",
			 v->step.text);
	else
		v->job->is_wanted = true;
	far_log_forget(v, true);
	error_clear(&v->step);
	next(v);
}

void far_log_store(struct vdi *v, step_fn *next)
{
	v->job->logged = next;
	v->job->is_wanted = false;
	if (v->far.log.epoch && v->far.log.epoch == v->job->question->l->name.epoch) {
		v->far.log.generation = 0;
		stack_work(v, store, stored);
	} else {
		far_log_forget(v, true);
		take_ptr(&v->job->logged)(v);
	}
}

static void used(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->logged);

	if (v->step.err)
		log_warn("the log of changes that came with the disk cannot be used: %s; a backup has to be a full one",
			 v->step.text);
	error_clear(&v->step);
	next(v);
}

void far_log_use(struct vdi *v, step_fn *next)
{
	v->job->logged = next;
	error_clear(&v->step);
	if (v->job->is_wanted)
		tracking_swap(v, used);
	else
		used(v);
}
