/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * group - this disk is handed over together with others, or not at all (base/decision.h)
 *
 *                        .- this disk flushed -.
 *      prepare   hold -> drain -- mirror_finish --> offered, with the group's name -> prepared, compared -> answered
 *                  '- PREPARE, asked early --------------------------------------------'                        |
 *                  .------ guests stay held, the job stays; commit, cancel or patience's end wakes it ----------'
 *                  v
 *                the decision, read or made (pool)
 *                  | commit: COMMIT -> given -> clients cut -> inactive, as after a good deactivation
 *                  | cancel: owned again, two epochs on -> guests go on -> RECLAIM; the mirror goes on
 *                  '- nothing: said so to who asked, and waited on
 *
 * The verbs say nothing about the decision: they make this process look.  When patience is over it makes the decision itself,
 * "cancel", and hears what it is if somebody was faster.
 *
 * Can fail: everything before the answer, then guests go on at once and the mirror, too, unless the far side has not got what was
 * sent. After "commit" nothing is withdrawn: where COMMIT cannot be had, this disk is not served until it can (group-doubt.c).
 * Invariant: from the answer on nothing but the decision lets guests go on.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

#define LOOK_AGAIN_MS 1000u

static const struct commit_record *record(const struct vdi *v)
{
	return &v->owner.record;
}

static unsigned long long held_ms(const struct job *j)
{
	return (loop_now_ns() - j->held_ns) / NS_PER_MS;
}

/* --- the decision, in the pool */

static void decide(struct vdi *v)
{
	v->decided = v->is_final ? decision_make(v->group, DECISION_CANCEL, &v->step) : decision_read(v->group, &v->step);
}

void group_ask(struct vdi *v, const char *group, bool is_final, step_fn *next)
{
	snprintf(v->group, sizeof(v->group), "%s", group);
	v->is_final = is_final;
	v->decided = DECISION_NONE;
	stack_work(v, decide, next);
}

/* --- not handed over: guests go on */

static void given_up(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	job_end(v);
}

static void reclaimed(struct vdi *v)
{
	bool is_cut_off = v->step.err == ESHUTDOWN; /* the next link's name says it */
	const struct error why = v->step;

	if (v->step.err && !is_cut_off)
		operation_give_up(v, &why, given_up);
	else
		job_end(v);
}

static void give_up(struct vdi *v)
{
	operation_give_up(v, &v->job->error, given_up);
}

/* Who cancelled knows. Else the next deactivation is to raise, and after a crash would not, had the far side ended. */
static void say_end(struct vdi *v)
{
	source_say_end(v, give_up);
}

static void withdrawn(struct vdi *v)
{
	struct job *j = v->job;

	if (v->step.err) {
		log_error("%s: its handover could not be withdrawn on record: this disk is not written to: %s", v->op->id,
			  v->step.text);
		far_refuse_plain(v);
		j->error = v->step;
		give_up(v);
		return;
	}
	if (v->op->is_cancelled && j->is_mirror_lost) {
		source_settle(v, v->op->id, say_end);
		return;
	}
	if (j->is_mirror_lost || v->op->is_aborting) {
		give_up(v);
		return;
	}
	v->op->has_gone_on = true;
	mirror_go_on(v->op->mirror, record(v)->epoch);
	stack_wake(v);
	log_info("%s: not handed over with group %s; guests were held for %llu ms and go on, and so does the mirror", v->op->id,
		 j->group, held_ms(j));
	if (j->was_offered)
		source_ask(v, REMOTE_ASK_RECLAIM, reclaimed);
	else
		job_end(v);
}

static void withdraw(struct vdi *v)
{
	struct commit_verdict verdict = commit_source_withdraw(record(v));

	v->job->was_offered = verdict.does == COMMIT_ALLOW;
	v->job->is_flushed = false; /* guests go on */
	source_decide(v, &verdict, withdrawn);
}

/* --- handed over */

/* As if the process had died: the next one to look finds the record, and the decision. */
static void suspended(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	vdi_resume_later(v);
	job_end(v);
}

static void left_cut(struct vdi *v)
{
	const struct domains_record r = { .operation = v->op->id, .operation_domain = v->op->domain, .is_told = v->op->is_told };

	revive_note(v, &r);
	operation_suspend(v, suspended);
}

static void leave_in_doubt(struct vdi *v)
{
	struct job *j = v->job;

	j->error = v->step;
	error_prefix(&j->error, "group %s was decided to be handed over, and this disk could not follow yet; it is not served "
		     "until it can", j->group);
	stack_refuse(v);
	stack_cut(v, j->d, left_cut);
}

/* What the far side says of its record, where that is why COMMIT was refused. */
static void committed(struct vdi *v)
{
	const struct remote_ask *a = &v->op->ask;
	struct job *j = v->job;
	struct commit_verdict verdict = { 0 };
	enum commit_meaning meaning = COMMIT_MEANS_NOTHING;

	if (!v->step.err) {
		j->handed_over = vdi_handed_over;
		handover_committed(v);
		return;
	}
	if (v->step.err == EPROTO && !a->is_garbled)
		verdict = commit_source_heard(record(v), a->field[0], a->field[1], remote_ask_u64(a, 2), &meaning);
	if (meaning != COMMIT_MEANS_ENDED && meaning != COMMIT_MEANS_RELEASED) {
		leave_in_doubt(v);
		return;
	}
	j->error = v->step;
	log_error("%s: GROUP %s IS TORN: it was decided to be handed over, and the far side of this disk has ended the mirror: "
		  "it stays here", v->op->id, j->group);
	j->is_mirror_lost = true;
	source_decide(v, &verdict, withdrawn);
}

/* --- between */

static void look(struct vdi *v);

static void woken(struct vdi *v)
{
	look(v);
}

static void wait(struct vdi *v)
{
	struct job *j = v->job;

	if (j->must_look) {
		look(v);
		return;
	}
	stack_step_begin(v, woken);
	j->is_waiting_group = true;
}

static void undecided(struct vdi *v)
{
	struct job *j = v->job;
	struct error e = v->step;

	if (!e.err)
		error_set(&e, ENOENT, "nothing is decided for group %s yet: it stays prepared", j->group);
	else
		log_error("%s", e.text);
	j->error = e;
	job_answer(j);
	error_clear(&j->error);
	j->wants_commit = j->wants_cancel = false; /* who wanted has heard */
	if (j->is_impatient)
		loop_timer_set(j->patience, LOOK_AGAIN_MS);
	wait(v);
}

static void looked(struct vdi *v)
{
	struct job *j = v->job;

	if (v->decided == DECISION_NONE) {
		undecided(v);
		return;
	}
	loop_timer_clear(j->patience);
	j->is_decided = true;
	log_info("%s: group %s: %s", v->op->id, j->group, decision_name(v->decided));
	if (v->decided == DECISION_COMMIT) {
		if (j->wants_cancel)
			error_set(&j->error, EALREADY, "group %s was decided to be handed over", j->group);
		j->tries = 0;
		source_commit(v, committed);
		return;
	}
	if (j->wants_commit)
		error_set(&j->error, ECANCELED, "group %s was cancelled", j->group);
	withdraw(v);
}

static void look(struct vdi *v)
{
	bool is_final = v->job->is_impatient || v->job->wants_cancel;

	v->job->must_look = false;
	group_ask(v, v->job->group, is_final, looked);
}

static void wake(struct vdi *v)
{
	struct job *j = v->job;

	j->must_look = true;
	if (!j->is_waiting_group)
		return;
	j->is_waiting_group = false;
	stack_step_end(v);
}

static void on_patience(void *arg)
{
	struct vdi *v = arg;

	if (!v->job->is_impatient)
		log_warn("group %s: nobody has decided for too long", v->job->group);
	v->job->is_impatient = true;
	wake(v);
}

bool group_is_prepared(const struct vdi *v)
{
	return v->job && v->job->kind == JOB_PREPARE && v->job->is_prepared;
}

void group_hurry(struct vdi *v)
{
	if (!v->job || v->job->kind != JOB_PREPARE)
		return;
	v->job->is_impatient = true;
	wake(v);
}

/* --- prepare */

static void prepared(struct vdi *v)
{
	struct job *j = v->job;

	if (!v->step.err) {
		log_info("%s: prepared with group %s after %llu ms; guests are held", v->op->id, j->group, held_ms(j));
		job_answer(j);
		if (!j->is_impatient)
			loop_timer_set(j->patience, j->patience_ms);
		wait(v);
		return;
	}
	j->error = v->step;
	/* But for a link that went, which comes again, and for what could not even be offered. */
	j->is_mirror_lost = v->step.err != ESHUTDOWN && record(v)->state == COMMIT_OFFERED;
	withdraw(v);
}

static void finished(struct vdi *v)
{
	if (!v->step.err) {
		source_commit(v, prepared);
		return;
	}
	v->job->is_flushed = false; /* guests go on */
	stack_wake(v);
	job_fail(v, &v->step);
}

static void one_is_over(struct vdi *v)
{
	if (--v->job->under_way)
		return;
	v->step = v->job->barrier;
	stack_step_end(v);
}

static void on_finished(void *arg, const struct error *e)
{
	struct vdi *v = arg;

	if (e)
		v->job->barrier = *e;
	one_is_over(v);
}

static void flushed(struct vdi *v, int err)
{
	if (err)
		log_error("before %s is handed over: flush of this disk: %s", v->op->id, strerror(err));
	v->job->is_flushed = !err;
	one_is_over(v);
}

/* Before `given`, as whatever becomes of the host the way back rests on what is here. Guests wait for the slower of the two. */
static void quiet(struct vdi *v)
{
	v->job->under_way = 2;
	error_clear(&v->job->barrier);
	stack_step_begin(v, finished);
	stack_flush_beside(v, flushed);
	mirror_finish(v->op->mirror, on_finished, v);
}

static int check_mirror(const struct vdi *v, struct error *e)
{
	const struct operation *op = v->op;
	struct mirror_status s;

	if (!op || op->is_copy || op->is_given)
		return error_set(e, ENOENT, "no mirror of this disk runs: there is nothing to hand over");
	if (op->is_failed || op->is_aborting)
		return error_set(e, EIO, "the mirror %s has failed", op->id);
	mirror_status(op->mirror, &s);
	if (!op->is_told)
		return error_set(e, EAGAIN, "the mirror %s is not complete yet", op->id);
	if (!s.is_sxm)
		return error_set(e, EOPNOTSUPP, "the far side of %s is no sxm, and cannot be asked to prepare", op->id);
	if (!s.is_up || s.core.is_stalled)
		return error_set(e, ENOTCONN, "the far side of %s does not answer now", op->id);
	return 0;
}

static int check(struct vdi *v, struct error *e)
{
	struct job *j = v->job;

	j->d = vdi_find(v, j->domain);
	if (!j->d || !j->d->is_active || j->d->is_read_only || !vdi_counts_as_guest(v, j->d))
		return error_set(e, ENOENT, "domain %s has not got this disk active for writing", j->domain);
	if (vdi_has_writer(v, j->d, false))
		return error_set(e, EBUSY, "another domain has this disk active for writing");
	return check_mirror(v, e);
}

static void looked_before(struct vdi *v)
{
	struct job *j = v->job;

	if (v->step.err || check(v, &j->error) == -1) {
		if (v->step.err)
			j->error = v->step;
	} else if (v->decided != DECISION_NONE) {
		error_set(&j->error, EALREADY, "group %s was decided already (%s): take another name", j->group,
			  decision_name(v->decided));
	} else {
		j->held_ns = loop_now_ns();
		source_prepare_early(v);
		stack_quiet(v, quiet);
		return;
	}
	job_end(v);
}

void group_begin_prepare(struct vdi *v)
{
	struct job *j = v->job;

	j->patience = loop_timer_new(v->loop, on_patience, v);
	if (!j->patience)
		error_set(&j->error, ENOMEM, "out of memory");
	if (j->error.err || check(v, &j->error) == -1)
		job_end(v);
	else
		group_ask(v, j->group, false, looked_before);
}

/* --- verbs */

static bool is_running(const struct vdi *v, const char *group)
{
	return v->job && v->job->kind == JOB_PREPARE && strcmp(v->job->group, group) == 0;
}

static int check_name(const char *group, struct error *e)
{
	return decision_group_is_valid(group) ? 0 : error_set(e, EINVAL, "%.80s is no name of a group", group);
}

void vdi_prepare(struct vdi *v, const char *domain, const char *group, unsigned patience_ms, vdi_done_fn *done, void *arg)
{
	struct error e = { 0 };
	struct job *j;

	if (check_name(group, &e) == -1) {
		done(arg, &e);
		return;
	}
	if (is_running(v, group) && v->job->is_prepared && strcmp(v->job->domain, domain) == 0) {
		done(arg, NULL);
		return;
	}
	if (is_running(v, group) && job_join(v->job, done, arg) == 0)
		return;
	j = job_add(v, JOB_PREPARE, domain, done, arg);
	if (!j)
		return;
	snprintf(j->group, sizeof(j->group), "%s", group);
	j->patience_ms = patience_ms;
}

void vdi_follow(struct vdi *v, const char *group, bool is_commit, vdi_done_fn *done, void *arg)
{
	struct error e = { 0 };
	struct job *j;

	if (check_name(group, &e) == -1) {
		done(arg, &e);
		return;
	}
	if (is_running(v, group) && v->job->is_prepared && job_join(v->job, done, arg) == 0) {
		v->job->wants_commit |= is_commit;
		v->job->wants_cancel |= !is_commit;
		if (!v->job->is_decided)
			wake(v);
		return;
	}
	if (is_running(v, group)) { /* not prepared yet: then it looks at once, and this is answered after it */
		v->job->must_look = true;
		v->job->wants_cancel |= !is_commit;
	}
	j = job_add(v, JOB_FOLLOW, "", done, arg);
	if (!j)
		return;
	snprintf(j->group, sizeof(j->group), "%s", group);
	j->wants_commit = is_commit;
}
