/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * begin - a mirror or a copy begins
 *
 *      JOB_MIRROR   open for writing -> the disk on record as ours -> the operation's record -> journal -> hold, drain
 *                   -> mirror under the gate -> wake -> mirror_start -> save
 *      JOB_JOURNAL  the journal anew, when what it says has changed
 *
 * The journal is there before the first write is recorded, so that whoever comes after a kill knows of all that is owed.
 *
 * Can fail: memory, the medium, a disk that is not ours to mirror; then nothing of it is left.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/gate.h"
#include "mirror/remote.h"
#include "vdi/vdi-private.h"

int operation_make_mirror(struct operation *op, const char *remote, const struct extents *only, const struct mirror_peer *peer,
			  struct error *e)
{
	struct vdi *v = op->vdi;
	struct mirror_spec spec = {
		.loop = v->loop,
		.below = stack_base(v),
		.uri = remote,
		.is_copy = op->is_copy,
		.is_sync = op->is_sync,
		.can_remember = !op->is_copy,
		.is_remembering = op->is_remembered,
		.only = only,
		.on_change = operation_on_change,
		.arg = op,
	};

	op->is_inserting = true;
	op->timer = loop_timer_new(v->loop, operation_on_timer, op);
	op->reach = loop_timer_new(v->loop, source_reach_is_over, op);
	if (!op->timer || !op->reach)
		return error_set(e, ENOMEM, "out of memory");
	if (peer)
		spec.peer = *peer;
	if (!op->is_copy) {
		source_fill(op, &spec);
		spec.map_path = op->debt.map;
		spec.marks_path = op->debt.marks;
		spec.source_name = v->id;
	}
	op->mirror = mirror_new(&spec, e);
	return op->mirror ? 0 : -1;
}

static struct operation *make(struct vdi *v, struct error *e)
{
	struct job *j = v->job;
	struct operation *op = record_new(v, j->domain, j->is_copy);

	if (!op) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	op->debt = v->debt;
	op->is_sync = j->is_sync;
	v->debt = (struct debt){ 0 };
	if (operation_make_mirror(op, j->remote, j->has_only ? &j->only : NULL, NULL, e) == 0)
		return op;
	record_free(v, op);
	return NULL;
}

/* --- the journal */

static char *encode_journal(const struct operation *op)
{
	const struct journal j = {
		.id = (char *)(uintptr_t)op->id, .remote = (char *)(uintptr_t)mirror_uri(op->mirror),
		.domain = (char *)(uintptr_t)op->domain, .is_sync = op->is_sync,
		.is_remembered = op->is_remembered, .peer = op->peer,
	};

	return journal_encode(&j);
}

void operation_write_journal(struct vdi *v, step_fn *next)
{
	char *text = encode_journal(v->op);

	stack_write(v, text ? strdup(v->op->debt.journal) : NULL, text, next);
}

static void journal_written(struct vdi *v)
{
	v->job->error = v->step;
	job_end(v);
}

void operation_begin_journal(struct vdi *v)
{
	if (!v->op || !v->op->debt.journal || v->op->is_aborting) {
		job_end(v);
		return;
	}
	v->op->is_noting = false;
	operation_write_journal(v, journal_written);
}

void operation_note(struct operation *op)
{
	if (op->is_noting || !op->debt.journal || op->is_ended)
		return;
	op->is_noting = job_add(op->vdi, JOB_JOURNAL, "", NULL, NULL) != NULL;
}

/* --- JOB_MIRROR */

static void refuse(struct vdi *v, const struct error *e)
{
	v->job->error = *e;
	stack_release(v, job_end);
}

static void begun(struct vdi *v)
{
	if (v->step.err)
		log_error("%s: %s", v->op->id, v->step.text);
	job_end(v);
}

/* The job's waiter becomes the operation's: it hears when the far side was reached. */
void operation_hand_starter(struct job *j, struct operation *op)
{
	struct job_waiter *w = TAILQ_FIRST(&j->waiters);

	snprintf(j->out_id, j->out_bytes, "%s", op->id);
	TAILQ_REMOVE(&j->waiters, w, link);
	op->started = w->done;
	op->started_arg = w->arg;
	free(w);
}

/* What was written since the base, as of this moment: from now on the mirror sees what is. Where it is not to be had any more all
 * is copied. */
static void begin_from_base(struct vdi *v)
{
	struct extents changed;

	extents_init(&changed, 0);
	if (cbt_changed(v->cbt, v->job->base, &changed) == -1 || mirror_limit(v->op->mirror, &changed) == -1)
		log_warn("%s: what changed since the base is not known any more: everything is copied", v->op->id);
	extents_fini(&changed);
}

static void insert(struct vdi *v)
{
	if (v->job->base)
		begin_from_base(v);
	gate_set_below(v->gate, v->op->mirror);
	stack_wake(v);
	v->op->is_inserting = false;
	mirror_start(v->op->mirror);
	budget_begin(v);
	loop_timer_set(v->op->timer, VDI_START_WAIT_MS);
	operation_hand_starter(v->job, v->op);
	stack_save(v, begun);
}

static void refused(struct vdi *v)
{
	struct operation *op = take_ptr(&v->op);

	layer_close(take_ptr(&op->mirror));
	record_free(v, op);
	stack_release(v, job_end);
}

/* v->op has a mirror that was never started. */
static void journaled(struct vdi *v)
{
	struct operation *op = v->op;

	if (!v->step.err || op->is_copy) {
		stack_quiet(v, insert);
		return;
	}
	v->job->error = v->step;
	stack_write(v, record_path(op->id), NULL, refused);
}

/* Without a record nobody hears of it when this process is gone; that is no reason to have no mirror. */
static void recorded(struct vdi *v)
{
	if (v->step.err)
		log_warn("record of %s: %s", v->op->id, v->step.text);
	error_clear(&v->step);
	if (v->op->debt.journal)
		operation_write_journal(v, journaled);
	else
		journaled(v);
}

static void owned(struct vdi *v)
{
	if (v->step.err)
		journaled(v);
	else
		operation_record(v, recorded);
}

static void find_debt(struct vdi *v)
{
	struct error e = { 0 };

	if (debt_find(v->run_dir, v->path, &v->debt, &e) == 0)
		return;
	log_warn("%s; a mirror of this disk will not outlive its process", e.text);
	debt_clear(&v->debt);
}

static void found_debt(struct vdi *v);

static void opened(struct vdi *v)
{
	if (v->step.err)
		refuse(v, &v->step);
	else if (v->job->is_copy)
		found_debt(v);
	else
		stack_work(v, find_debt, found_debt);
}

static void found_debt(struct vdi *v)
{
	struct error e = { 0 };

	if (v->job->base && (!v->cbt || cbt_id(v->cbt) != v->job->base)) {
		error_set(&e, ENOENT, "the log of this disk's changes is not the one that began at the base: mirror it without");
		refuse(v, &e);
		return;
	}
	if (!v->job->is_copy && source_check(v, &e) == -1) {
		refuse(v, &e);
		return;
	}
	v->op = make(v, &e);
	if (!v->op)
		refuse(v, &e);
	else if (v->op->is_copy)
		owned(v);
	else
		source_begin(v, owned);
}

static int check(const struct vdi *v, const struct job *j, struct error *e)
{
	const struct domain *d;
	unsigned guests = 0;

	if (v->op && !v->op->is_remembered)
		return error_set(e, EBUSY, "%s %s of this disk is running: one at a time; wait for it or cancel it",
				 v->op->is_copy ? "copy" : "mirror", v->op->id);
	TAILQ_FOREACH(d, &v->domains, link)
		guests += d->is_active && !d->is_read_only && domains_is_guest(d->name);
	if (guests > 1 && !j->is_copy)
		return error_set(e, EBUSY, "%u guests have this disk active for writing: a mirror follows one only", guests);
	return 0;
}

void operation_begin(struct vdi *v)
{
	struct error e = { 0 };

	if (check(v, v->job, &e) == -1)
		job_fail(v, &e);
	else if (v->job->is_resume)
		remember_resume(v);
	else if (v->op)
		remember_drop(v, operation_begin); /* another one begins: it is not asked for any more */
	else
		stack_open(v, false, opened);
}

void vdi_mirror(struct vdi *v, const struct vdi_mirror_args *args, char *id, size_t bytes, vdi_done_fn *done, void *arg)
{
	struct error e = { 0 };
	struct job *j;

	if (remote_nbd_check_uri(args->remote, &e) == -1) {
		done(arg, &e);
		return;
	}
	j = job_add(v, JOB_MIRROR, args->domain, done, arg);
	if (!j)
		return;
	j->is_copy = args->is_copy;
	j->is_sync = args->is_sync;
	j->is_resume = args->is_resume;
	j->base = args->base;
	j->remote = strdup(args->remote);
	j->has_only = args->only != NULL;
	for (size_t i = 0; args->only && i < args->only->count; i++)
		if (extents_add(&j->only, args->only->item[i].range, args->only->item[i].type) == -1)
			error_set(&j->error, ENOMEM, "out of memory");
	if (!j->remote)
		error_set(&j->error, ENOMEM, "out of memory");
	j->out_id = id;
	j->out_bytes = bytes;
}

void vdi_set_sync(struct vdi *v, const char *id, bool is_sync, vdi_done_fn *done, void *arg)
{
	struct operation *op = record_find(v, id);
	struct error e = { 0 };

	if (!op || op != v->op || op->is_copy || !op->mirror || op->is_aborting)
		error_set(&e, ENOENT, "no mirror %s of this disk is running", id);
	if (e.err) {
		done(arg, &e);
		return;
	}
	log_info("mirror %s: %s", id, is_sync ? "sync: guests wait for both sides" : "lag: guests wait for this disk only");
	op->is_sync = is_sync;
	mirror_set_sync(op->mirror, is_sync);
	operation_note(op);
	done(arg, NULL);
}
