/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remember - a mirror whose link is lost for good: it has failed, and can be resumed when that is asked for
 *
 *      link lost, foreign far side  --JOB_REMOVE--> failed on record, owed as ever; the mirror stays under the gate and
 *      or none for long                             records what is written, in map and marks; its journal says so
 *
 *      its process died       --revive.c----> the same
 *
 *      mirror.start, "resume", same remote          -> the disk's record -> its own -> journal -> a link: it goes on
 *      the last writer leaves, another mirror begins, cancelled, destroyed, a day -> taken out, files and all
 *
 * It must be asked for since only who asks can know that the far volume is still the one it was, and that nothing of the lost
 * link is still on its way to it.
 *
 * Can fail: the link, once more: then it is remembered as before.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

#define KEPT_MS (24u * 60 * 60 * 1000)

/* --- begin */

static void saved(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	operation_look(v);
	job_end(v);
}

static void journaled(struct vdi *v)
{
	if (v->step.err)
		log_warn("%s: it is remembered by this process only: %s", v->op->id, v->step.text);
	stack_save(v, saved);
}

/* In this order: a journal that does not say so, without the record, is gone on with by the next process. */
static void recorded(struct vdi *v)
{
	if (v->step.err)
		log_error("record of an operation: %s", v->step.text);
	if (v->op->debt.journal)
		operation_write_journal(v, journaled);
	else
		stack_save(v, saved);
}

int remember_begin(struct vdi *v)
{
	struct operation *op = v->op;
	struct mirror_status s;

	mirror_status(op->mirror, &s);
	if (!s.is_remembering || op->is_remembered || op->is_cancelled || op->is_aborting || !vdi_has_writer(v, NULL, false) ||
	    (op->started && !op->was_resumed))
		return -1;
	if (op->started) {
		v->job->starter = take_ptr(&op->started);
		v->job->starter_arg = op->started_arg;
		v->job->start_error = op->why;
	}
	operation_owe(v, op);
	op->is_told = op->is_said = false;
	op->is_remembered = true;
	op->is_removing = false;
	loop_timer_set(op->timer, KEPT_MS);
	record_news(v, op->id);
	operation_record(v, recorded);
	return 0;
}

/* --- begun by a process that is no more */

void remember_found(struct operation *op, const char *why)
{
	op->is_remembered = op->is_failed = true;
	error_set(&op->why, ENOTCONN, "%s", why);
	operation_owe(op->vdi, op);
	op->is_told = op->is_said = false;
}

static void found_saved(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->committed);

	if (v->step.err)
		log_error("%s", v->step.text);
	if (v->job->kind == JOB_RESUME)
		operation_look(v); /* who activates it now is about to write */
	next(v);
}

static void found_recorded(struct vdi *v)
{
	if (v->step.err)
		log_warn("record of %s: %s", v->op->id, v->step.text);
	stack_save(v, found_saved);
}

/* In this order: a journal that says so is believed, whatever the record says. */
static void found_journaled(struct vdi *v)
{
	if (v->step.err)
		log_warn("%s: %s", v->op->id, v->step.text);
	operation_record(v, found_recorded);
}

static void found_lost(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	operation_write_journal(v, found_journaled);
}

void remember_anew(struct vdi *v, step_fn *next)
{
	struct commit_verdict verdict = commit_source_lost(&v->owner.record, (int64_t)time(NULL));

	loop_timer_set(v->op->timer, KEPT_MS);
	v->job->committed = next;
	source_decide(v, &verdict, found_lost);
}

/* --- resume */

static void resumed(struct vdi *v)
{
	if (v->step.err)
		log_error("%s: %s", v->op->id, v->step.text);
	job_end(v);
}

static void go_on(struct vdi *v)
{
	struct operation *op = v->op;

	log_info("mirror %s is resumed", op->id);
	mirror_set_sync(op->mirror, op->is_sync);
	loop_timer_set(op->timer, VDI_START_WAIT_MS);
	operation_hand_starter(v->job, op);
	mirror_resume(op->mirror);
	budget_begin(v);
	stack_save(v, resumed);
}

static void remember_again(struct vdi *v)
{
	v->job->error = v->step;
	v->op->is_failed = v->op->is_remembered = true;
	v->op->why = v->step;
	loop_timer_set(v->op->timer, KEPT_MS);
	job_end(v);
}

static void journal_says_so(struct vdi *v)
{
	if (v->step.err)
		remember_again(v);
	else
		go_on(v);
}

static void record_says_so(struct vdi *v)
{
	if (v->step.err)
		log_warn("record of %s: %s", v->op->id, v->step.text);
	error_clear(&v->step);
	if (v->op->debt.journal)
		operation_write_journal(v, journal_says_so);
	else
		go_on(v);
}

static void owned(struct vdi *v)
{
	if (v->step.err)
		remember_again(v);
	else
		operation_record(v, record_says_so);
}

void remember_resume(struct vdi *v)
{
	struct operation *op = v->op;
	struct job *j = v->job;
	struct error e = { 0 };

	if (!op)
		error_set(&e, ENOENT, "no mirror of this disk is remembered: start one without \"resume\"");
	else if (strcmp(mirror_uri(op->mirror), j->remote) != 0)
		error_set(&e, ENOENT, "the mirror that is remembered went to another place, %.200s", mirror_uri(op->mirror));
	else
		source_check(v, &e);
	if (e.err) {
		job_fail(v, &e);
		return;
	}
	loop_timer_clear(op->timer);
	op->is_failed = op->is_remembered = false;
	error_clear(&op->why);
	op->was_resumed = true;
	op->is_sync = j->is_sync;
	memcpy(op->domain, j->domain, sizeof(op->domain));
	source_begin(v, owned);
}

/* --- not any more */

void remember_drop(struct vdi *v, step_fn *next)
{
	const struct error why = v->op->why;

	log_info("%s is not remembered any more", v->op->id);
	operation_give_up(v, &why, next);
}
