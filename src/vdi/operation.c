/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * operation - a mirror or a copy, from mirror.start to its record
 *
 *      JOB_MIRROR   begin.c; the starter hears when the far side was reached, or could not be, or after VDI_START_WAIT_MS
 *      on_change    takes notes and queues:  in sync -> JOB_SETTLE     failed, or a copy is over -> JOB_REMOVE
 *      JOB_SETTLE   settle.c
 *      JOB_REMOVE   abort -> hold, drain -> mirror out -> wake -> record -> save -> close the disk where nobody needs it
 *
 * Can fail: everything about the far side; then nothing of the operation is left in the stack, its record says why, and where
 * complete=true had been answered the disk owes the orchestrator an error at its next deactivation (v->owed).
 * Invariants: v->op has a mirror under the gate, and only it has one.  complete=true is never said of one that failed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/gate.h"
#include "mirror/remote.h"
#include "vdi/vdi-private.h"

/* --- the starter's answer */

static void answer(struct operation *op, const struct error *e)
{
	vdi_done_fn *started = take_ptr(&op->started);

	if (!started)
		return;
	op->is_answered = !e;
	started(op->started_arg, e);
}

static void queue_remove(struct operation *op)
{
	struct job *j;

	if (op->is_removing || op->is_ended)
		return;
	j = job_add(op->vdi, JOB_REMOVE, "", NULL, NULL);
	if (!j)
		return; /* out of memory: the next change asks again; stopping: JOB_STOP removes it */
	op->is_removing = true;
	j->number = op->number;
}

void operation_look(struct vdi *v)
{
	struct operation *op = v->op;
	struct mirror_status s;
	struct job *j;

	if (op && op->is_remembered && !vdi_has_writer(v, NULL, false))
		queue_remove(op); /* nobody is left whose writes are to be recorded */
	if (!op || op->is_remembered || op->is_copy || op->is_told || op->is_given || op->is_settling || op->is_removing)
		return;
	mirror_status(op->mirror, &s);
	if (!s.core.was_synced || s.core.state == CORE_FAILED || (op->was_resumed && s.core.state != CORE_SYNCED))
		return;
	j = job_add(v, JOB_SETTLE, "", NULL, NULL);
	if (!j)
		return;
	op->is_settling = true;
	j->number = op->number;
}

void operation_on_timer(void *arg)
{
	struct operation *op = arg;

	if (op->is_remembered) {
		queue_remove(op); /* for long enough */
		return;
	}
	if (op->started) {
		log_info("%s: the far side has not answered yet; going on", op->id);
		answer(op, NULL);
	}
	operation_look(op->vdi);
}

static void note_failure(struct operation *op, const struct error *why)
{
	if (op->is_failed)
		return;
	op->is_failed = true;
	op->why = *why;
	if (!op->why.err)
		error_set(&op->why, EIO, "the mirror ended without a reason");
}

void operation_on_change(void *arg)
{
	struct operation *op = arg;
	struct mirror_status s;

	if (!op->mirror)
		return;
	mirror_status(op->mirror, &s);
	if (op->is_remembered && s.core.state != CORE_FAILED)
		return;
	if (s.core.state == CORE_FAILED || s.is_remembering) {
		note_failure(op, &s.why);
		queue_remove(op);
	} else if (s.core.state == CORE_FINISHED && op->is_copy) {
		queue_remove(op);
	} else if (s.is_connected && op->started) {
		log_info("%s %s to %s began, %llu MiB to send", op->is_copy ? "copy" : "mirror", op->id, s.remote,
			 (unsigned long long)(s.core.total_bytes / MiB));
		answer(op, NULL);
	}
	if (s.core.was_synced && !op->is_synced_logged && !op->is_copy) {
		op->is_synced_logged = true;
		log_info("mirror %s in sync after %.1f s", op->id, (double)(loop_now_ns() - s.started_ns) / (double)NS_PER_S);
	}
	source_look(op);
	operation_look(op->vdi);
	record_news(op->vdi, op->id);
}

/* --- the end of one */

static void out_saved(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->taken_out);

	record_trim(v);
	next(v);
}

static void save(struct vdi *v)
{
	error_clear(&v->step);
	if (v->job->will_save)
		out_saved(v);
	else
		stack_save(v, out_saved);
}

static void journal_gone(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text); /* its record says that it has ended */
	save(v);
}

/* In this order: a journal without a record is taken up again. */
static void recorded(struct vdi *v)
{
	char *journal = take_ptr(&v->job->journal);

	if (v->step.err)
		log_error("record of an operation: %s", v->step.text);
	if (journal)
		stack_write(v, journal, NULL, journal_gone);
	else
		save(v);
}

/* A start that failed leaves no record: it was an error, not an operation. */
static void end(struct vdi *v, struct operation *op)
{
	char *text;

	op->is_ended = true;
	loop_timer_clear(op->timer);
	record_news(v, op->id);
	if (op->is_suspended) {
		record_free(v, op);
		out_saved(v); /* domains.json and the journal speak of it as before */
		return;
	}
	if (op->started) {
		v->job->starter = op->started;
		v->job->starter_arg = op->started_arg;
		v->job->start_error = op->why;
		op->started = NULL;
		v->job->journal = take_ptr(&op->debt.journal);
		text = record_path(op->id);
		record_free(v, op);
		stack_write(v, text, NULL, recorded);
		return;
	}
	log_info("%s %s ended, %s", op->is_copy ? "copy" : "mirror", op->id, op->is_complete ? "complete" : op->why.text);
	text = record_encode(op);
	v->job->journal = take_ptr(&op->debt.journal);
	stack_write(v, text ? record_path(op->id) : NULL, text, recorded);
}

static void saved(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->saved);

	next(v);
}

void operation_record(struct vdi *v, step_fn *next)
{
	char *text = record_encode(v->op);

	v->job->saved = next;
	stack_write(v, text ? record_path(v->op->id) : NULL, text, saved);
}

static void take_out(struct vdi *v)
{
	struct operation *op = take_ptr(&v->op);

	loop_timer_clear(op->reach);
	mirror_status(op->mirror, &op->last);
	gate_set_below(v->gate, stack_base(v));
	layer_close(take_ptr(&op->mirror));
	if (v->disk) /* else it could not be opened after a pause, and the process goes */
		stack_wake(v);
	end(v, op);
}

static void on_aborted(void *arg)
{
	struct operation *op = arg;
	struct vdi *v = op->vdi;

	op->is_aborted = true;
	if (v->is_waiting_abort) {
		v->is_waiting_abort = false;
		stack_step_end(v);
	}
}

static void abort_mirror(struct operation *op)
{
	if (op->is_aborting)
		return;
	op->is_aborting = true;
	mirror_abort(op->mirror, on_aborted, op);
}

/* A mirror that has finished is aborted, too: only then is nothing of it under way and it may be closed. */
static void wait_aborted(struct vdi *v, step_fn *next)
{
	abort_mirror(v->op);
	stack_step_begin(v, next);
	if (v->op->is_aborted)
		stack_step_end(v);
	else
		v->is_waiting_abort = true;
}

static void drained_disk(struct vdi *v)
{
	stack_drain_gate(v, take_out);
}

static void drain_disk(struct vdi *v)
{
	stack_drain_disk(v, drained_disk);
}

void operation_take_out(struct vdi *v, step_fn *next)
{
	v->job->taken_out = next;
	wait_aborted(v, drain_disk);
}

static void given_up(struct vdi *v)
{
	operation_take_out(v, take_ptr(&v->job->given_up));
}

static void aborted(struct vdi *v)
{
	stack_quiet(v, given_up);
}

/* What was told and cannot be kept: the next deactivation of a writing guest says so. A barrier says it itself. */
void operation_owe(struct vdi *v, const struct operation *op)
{
	char *text;

	if (!op->is_told || op->is_cancelled || v->owed || v->job->kind == JOB_DEACTIVATE || v->owner.record.is_ended)
		return;
	if (asprintf(&text, "the mirror %s had been complete and has failed since: %s", op->id, op->why.text) == -1)
		return;
	v->owed = text;
	snprintf(v->owed_by, sizeof(v->owed_by), "%s", op->id);
	v->owed_since = (int64_t)time(NULL);
}

void operation_give_up(struct vdi *v, const struct error *why, step_fn *next)
{
	note_failure(v->op, why);
	operation_owe(v, v->op);
	v->job->given_up = next;
	wait_aborted(v, aborted); /* guests go on until it is over */
}

void operation_suspend(struct vdi *v, step_fn *next)
{
	v->op->is_suspended = true;
	mirror_keep_debt(v->op->mirror);
	v->job->given_up = next;
	wait_aborted(v, aborted);
}

/* --- forgiven: who cancels or destroys an operation knows that it is off; no deactivation has to tell him */

static void forget_owed(struct vdi *v, const char *id)
{
	if (!v->owed || strcmp(v->owed_by, id) != 0)
		return;
	log_info("%s was given up: what was owed is settled (%s)", id, v->owed);
	free(take_ptr(&v->owed));
}

static void forgiven_saved(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->forgiven);

	if (v->step.err)
		log_error("%s", v->step.text);
	next(v);
}

static void forgiven(struct vdi *v)
{
	stack_save(v, forgiven_saved);
}

static void open_to_forgive(struct vdi *v)
{
	if (v->step.err) /* the image may be gone */
		forgiven(v);
	else
		source_settle(v, v->job->id, forgiven);
}

/* What has ended. The disk's record is of the one that lives, if there is one: that is settled by its own end. */
static void forgive(struct vdi *v, step_fn *next)
{
	v->job->forgiven = next;
	forget_owed(v, v->job->id);
	if (v->op)
		forgiven(v);
	else
		stack_open(v, true, open_to_forgive);
}

/* --- JOB_REMOVE */

static void removed(struct vdi *v)
{
	if (v->step.err)
		log_error("after the end of an operation: %s", v->step.text);
	stack_release(v, job_end);
}

static void copy_quiet(struct vdi *v)
{
	operation_take_out(v, removed);
}

static void remove_failed(struct vdi *v)
{
	struct error why = { 0 };

	error_set(&why, ECANCELED, "it was cancelled");
	operation_give_up(v, &why, removed);
}

/* Whether it failed a moment before it was cancelled, or after that, makes no difference to what is owed. */
static void remove_past(struct vdi *v)
{
	const struct operation *past = record_by_number(v, v->job->number);

	if (*v->job->id && past && past->is_ended && past->is_failed && !past->is_copy)
		forgive(v, removed);
	else
		job_end(v);
}

void operation_remove(struct vdi *v)
{
	struct operation *op = v->op;

	if (!op || op->number != v->job->number || op->is_given) { /* a barrier was faster */
		remove_past(v);
		return;
	}
	if (!op->is_copy && !op->is_failed)
		op->is_cancelled = true; /* it may have been complete when that was asked for, and asked back since */
	if (op->is_cancelled && !op->is_copy) {
		forget_owed(v, op->id); /* it may be one that has failed and is remembered */
		source_settle(v, op->id, remove_failed);
		return;
	}
	if (op->is_failed && remember_begin(v) == 0)
		return;
	if (op->is_failed || op->is_cancelled) {
		remove_failed(v);
		return;
	}
	assert(op->is_copy);
	op->is_complete = true;
	stack_quiet(v, copy_quiet);
}

/* --- cancel, forget */

/* At once: a barrier or a connection attempt must not make it wait. But where it is being committed the link is needed, to tell
 * the far side that it is off, and the record says whether it still can be: there the commit's own steps hear of it. */
static void stop_mirror(struct operation *op)
{
	struct vdi *v = op->vdi;
	struct mirror_status s;

	mirror_status(op->mirror, &s);
	if (!s.is_sxm || s.core.state != CORE_FINISHED)
		abort_mirror(op);
	else if (v->is_waiting_link)
		source_look_for_link(v);
}

void vdi_cancel(struct vdi *v, const char *id, vdi_done_fn *done, void *arg)
{
	struct operation *op = record_find(v, id);
	struct error e = { 0 };
	struct job *j;

	if (op && op == v->op && group_is_prepared(v)) {
		error_set(&e, EBUSY, "%s is prepared to be handed over with group %s: cancel that first", id, v->job->group);
		if (done)
			done(arg, &e);
		return;
	}
	j = job_add(v, JOB_REMOVE, "", done, arg);
	if (!j)
		return;
	if (!op) {
		error_set(&j->error, ENOENT, "no operation %s of this disk", id);
		return;
	}
	j->number = op->number;
	snprintf(j->id, sizeof(j->id), "%s", id);
	if (op->is_ended || op->is_complete)
		return;
	op->is_cancelled = op->is_removing = true;
	if (op->mirror && op == v->op && !op->is_inserting)
		stop_mirror(op);
}

static void dropped(struct vdi *v)
{
	v->job->error = v->step;
	stack_release(v, job_end);
}

static void drop(struct vdi *v)
{
	stack_write(v, record_path(v->job->id), NULL, dropped);
}

/* One that is suspended must not be taken up any more. In the pool. */
static void forget_journal(struct vdi *v)
{
	struct error e = { 0 };

	if (debt_find(v->run_dir, v->path, &v->debt, &e) == 0 && journal_load(v->debt.journal, &v->journal, &e) == 0 &&
	    strcmp(v->journal.id, v->job->id) == 0)
		debt_forget(v->run_dir, v->path);
	journal_clear(&v->journal);
	debt_clear(&v->debt);
}

static void drop_journal(struct vdi *v)
{
	stack_work(v, forget_journal, drop);
}

void operation_drop(struct vdi *v)
{
	struct operation *op = record_find(v, v->job->id);

	if (op && op->is_ended)
		record_free(v, op);
	if (strcmp(v->remains.id, v->job->id) == 0)
		v->remains.is_there = false;
	forgive(v, v->op ? drop : drop_journal);
}

void vdi_forget(struct vdi *v, const char *id, vdi_done_fn *done, void *arg)
{
	struct operation *op = record_find(v, id);
	size_t length = strlen(v->id);
	struct error e = { 0 };
	struct job *j;

	if (strncmp(id, v->id, length) != 0 || id[length] != '.' || strchr(id, '/') || strlen(id) >= sizeof(op->id)) {
		error_set(&e, ENOENT, "%s is no operation of disk %s", id, v->id);
		done(arg, &e);
		return;
	}
	if (op && !op->is_ended)
		vdi_cancel(v, id, NULL, NULL);
	j = job_add(v, JOB_FORGET, "", done, arg);
	if (j)
		snprintf(j->id, sizeof(j->id), "%s", id);
}

/* --- what a dead predecessor left */

/* It died between the record that gave the disk away and the operation's own. */
static bool was_given(const struct vdi *v, const char *id)
{
	const struct commit_record *r = &v->owner.record;

	return r->state == COMMIT_GIVEN && strcmp(r->mirror, id) == 0;
}

static void bury(struct operation *op)
{
	struct error why = { 0 };

	op->is_ended = true;
	op->is_complete = was_given(op->vdi, op->id);
	if (op->is_complete)
		return;
	error_set(&why, EPIPE, "the datapath process died while it ran");
	note_failure(op, &why);
	log_error("%s of a dead predecessor has failed", op->id);
	operation_owe(op->vdi, op);
}

void operation_bury(struct vdi *v, const struct remains *r, step_fn *next)
{
	bool is_complete;
	struct operation *op = NULL;
	char *text;

	v->job->taken_out = next;
	record_says_ended(r->id, &is_complete);
	if (!is_complete)
		op = record_new(v, r->domain, r->is_copy);
	if (!op) {
		stack_save(v, out_saved);
		return;
	}
	snprintf(op->id, sizeof(op->id), "%s", r->id);
	op->is_told = r->is_told;
	bury(op);
	text = record_encode(op);
	stack_write(v, text ? record_path(op->id) : NULL, text, recorded);
}
