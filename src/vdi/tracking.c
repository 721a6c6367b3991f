/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tracking - which blocks of the disk change is noted, or not any more
 *
 *      open for writing, and <volume>.cbt is there: its layer stands on the disk from the beginning
 *      JOB_TRACK   wanted:      make the log -> hold, drain -> the layer in, under a mirror that runs -> wake
 *                  not wanted:  remove the log, durable -> hold, drain -> the layer out -> wake -> drain it -> close it
 *                  save:        a copy of the log as it is
 *
 * A log is there only as long as everything that is written is noted in it: so it goes before the layer does, and it is made by
 * who has the image locked. Who has it open for reading only leaves all this to the verbs.
 *
 * Can fail: making the log (a full SR), removing it; then all is as before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/gate.h"
#include "vdi/vdi-private.h"

int tracking_open(struct vdi *v, struct error *e)
{
	CLEANUP_FREE char *path = v->open_read_only ? NULL : cbt_log_path_of_image(v->path, CBT_SUFFIX);

	if (!path)
		return 0;
	v->tracked = cbt_live_open(path, v->run_dir, disk_file_size(v->opened), e);
	return v->tracked || !e->err ? 0 : error_prefix(e, "the log of its changes");
}

int tracking_put(struct vdi *v, struct error *e)
{
	if (!v->tracked)
		return 0;
	v->cbt = cbt_new(v->loop, import_base(v), take_ptr(&v->tracked));
	if (v->cbt)
		return 0;
	import_drop(v);
	layer_close(take_ptr(&v->disk));
	return error_set(e, ENOMEM, "out of memory");
}

/* --- at rest */

static void on_rested(void *arg)
{
	stack_step_end(arg);
}

void tracking_rest(struct vdi *v, step_fn *next)
{
	stack_step_begin(v, next);
	if (v->cbt)
		cbt_rest(v->cbt, on_rested, v);
	else
		stack_step_end(v);
}

/* --- closed */

static void seal(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, offload);
	struct error e = { 0 };

	if (cbt_seal(v->cbt, &e) == -1)
		log_error("%s: more than was written will be reported as changed", e.text);
}

static void on_sealed(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, offload);

	layer_close(take_ptr(&v->cbt));
	v->untracked(v);
}

static void on_closing_rested(void *arg)
{
	struct vdi *v = arg;

	v->offload.work = seal;
	v->offload.done = on_sealed;
	if (offload_submit(v->loop, &v->offload) == -1)
		on_sealed(&v->offload);
}

void tracking_close(struct vdi *v, step_fn *next)
{
	v->untracked = next;
	if (v->cbt)
		cbt_rest(v->cbt, on_closing_rested, v);
	else
		next(v);
}

/* --- JOB_TRACK */

static void ended(struct vdi *v)
{
	if (v->step.err)
		v->job->error = v->step;
	stack_release(v, job_end);
}

static void save(struct vdi *v)
{
	cbt_save(v->cbt, v->job->save, &v->step);
}

/* A mirror is not drained: what it has in flight goes on to where it was sent. */
static void set_base(struct vdi *v)
{
	if (v->op && v->gate->below == v->op->mirror)
		v->op->mirror->below = stack_base(v);
	else
		gate_set_below(v->gate, stack_base(v));
}

static void make(struct vdi *v)
{
	CLEANUP_FREE char *path = cbt_log_path_of_image(v->path, CBT_SUFFIX);

	if (!path)
		error_set(&v->step, EOPNOTSUPP, "changes of %s cannot be tracked: it is no volume's image", v->path);
	else
		v->tracked = cbt_live_make(path, v->run_dir, v->disk->geometry.size_bytes, "", NULL, &v->step);
}

static void quiet_to_begin(struct vdi *v)
{
	v->cbt = cbt_new(v->loop, import_base(v), take_ptr(&v->tracked));
	if (!v->cbt)
		error_set(&v->job->error, ENOMEM, "out of memory");
	else
		set_base(v);
	stack_wake(v);
	error_clear(&v->step);
	ended(v);
}

static void made(struct vdi *v)
{
	if (v->step.err)
		ended(v);
	else
		stack_quiet(v, quiet_to_begin);
}

static void drained(struct vdi *v)
{
	layer_close(take_ptr(&v->job->untracked));
	error_clear(&v->step);
	if (v->job->is_wanted)
		stack_work(v, make, made);
	else
		ended(v);
}

static void on_drained(struct layer *l UNUSED, void *arg)
{
	stack_step_end(arg);
}

static void quiet_to_end(struct vdi *v)
{
	v->job->untracked = take_ptr(&v->cbt);
	cbt_lose(v->job->untracked);
	set_base(v);
	stack_wake(v);
	stack_step_begin(v, drained);
	layer_drain(v->job->untracked, on_drained, v);
}

static void rested_to_end(struct vdi *v)
{
	stack_quiet(v, quiet_to_end);
}

static void removed(struct vdi *v)
{
	if (v->step.err)
		ended(v);
	else
		tracking_rest(v, rested_to_end);
}

static void remove_log(struct vdi *v)
{
	cbt_live_void(cbt_path(v->cbt), &v->step);
}

void tracking_begin(struct vdi *v)
{
	struct job *j = v->job;
	bool is_tracked = v->cbt && !cbt_is_lost(v->cbt);

	if (!v->disk || v->is_read_only)
		error_set(&j->error, EAGAIN, "%s is not open for writing here", v->path);
	else if (j->save && !is_tracked)
		error_set(&j->error, ENOENT, "changes of %s are not tracked", v->path);
	else if (v->is_refusing || (v->op && v->op->is_inserting))
		error_set(&j->error, EBUSY, "%s was handed over, or a mirror of it is just being made; try again then", v->path);
	if (j->error.err || (!j->save && j->is_wanted == is_tracked && !(v->cbt && !is_tracked)))
		job_end(v);
	else if (j->save)
		stack_work(v, save, ended);
	else if (v->cbt) /* not wanted, or lost, and begun anew then */
		stack_work(v, remove_log, removed);
	else
		stack_work(v, make, made);
}

/* --- another log in its place */

static void swap_over(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->swapped);

	next(v);
}

static void swapped(struct vdi *v)
{
	if (v->tracked && !(v->cbt = cbt_new(v->loop, v->disk, take_ptr(&v->tracked))))
		error_set(&v->step, ENOMEM, "out of memory");
	set_base(v);
	swap_over(v);
}

static void open_anew(struct vdi *v)
{
	CLEANUP_FREE char *path = cbt_log_path_of_image(v->path, CBT_SUFFIX);

	if (path)
		v->tracked = cbt_live_open(path, v->run_dir, v->disk->geometry.size_bytes, &v->step);
	if (path && !v->tracked) {
		struct error e = { 0 };

		if (!v->step.err)
			error_set(&v->step, ENOENT, "%s is not there", path);
		if (cbt_live_void(path, &e) == -1)
			log_error("%s", e.text);
	}
}

static void rested_to_swap(struct vdi *v)
{
	if (v->cbt) {
		struct layer *old = take_ptr(&v->cbt);

		cbt_lose(old);
		set_base(v);
		layer_close(old);
	}
	stack_work(v, open_anew, swapped);
}

void tracking_swap(struct vdi *v, step_fn *next)
{
	v->job->swapped = next;
	tracking_rest(v, rested_to_swap);
}

void vdi_track(struct vdi *v, bool is_wanted, vdi_done_fn *done, void *arg)
{
	struct job *j = job_add(v, JOB_TRACK, "", done, arg);

	if (j)
		j->is_wanted = is_wanted;
}

void vdi_track_save(struct vdi *v, const char *path, vdi_done_fn *done, void *arg)
{
	struct job *j = job_add(v, JOB_TRACK, "", done, arg);

	if (j && !(j->save = strdup(path)))
		error_set(&j->error, ENOMEM, "out of memory");
}
