/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover - the barrier: after it the far side has every write a guest was told is done
 *
 *                       .- this disk flushed -----.
 *      hold -> drain --+-- mirror_finish ----------+--good--> commit (an sxm) -> refuse -> cut the domain's clients -> wake
 *                       '- offered on record (sxm) '  |       part (foreign)  -> refuse -> cut -> mirror out -> wake
 *                                                     '-bad-> withdraw -> abort -> mirror out -> wake (guests go on)
 *
 * Three media, or as many ways to one, are waited for at once: guests are held, and each takes its time.  So what `given` says
 * is here is on this disk's medium by then, whatever becomes of the host.  That the disk is offered while last writes are still
 * sent costs a barrier that fails an epoch; where it could not be written down, the commit tries again.
 *
 * Requests that wait at the gate during a good barrier are refused, never let through: they would change this disk after the
 * other side took over.  A bad barrier leaves the guest as it was, without a mirror; the deactivation raises, once.  After a
 * commit the mirror stays, with its link, until the far side was taken or given back (source.c); this disk is read only.
 *
 * Can fail: mirror_finish() (link lost, no progress), the commit, a cancellation meanwhile: before the commit it aborts the
 * mirror, in its midst it is heard between two steps, and once `given` is on record it is too late.
 * Invariant: a good answer means that nothing was submitted to the disk after the far side's flush began, and that the record
 * says so where the far side has one.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

static void done(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->handed_over);

	v->step = v->job->barrier;
	next(v);
}

static void out_after_good(struct vdi *v)
{
	if (v->step.err)
		log_error("after a good barrier: %s", v->step.text);
	done(v);
}

static void out_after_bad(struct vdi *v)
{
	if (v->step.err)
		log_error("after a failed barrier: %s", v->step.text);
	done(v);
}

static void given(struct vdi *v)
{
	if (v->step.err)
		log_error("after a good barrier: %s", v->step.text);
	stack_wake(v); /* for readers: the record lets nobody write */
	error_clear(&v->step);
	done(v);
}

static void cut(struct vdi *v)
{
	struct operation *op = v->op;

	if (!op->is_given)
		operation_take_out(v, out_after_good);
	else if (v->job->d)
		given(v); /* the operation's own record may trail: vdi.c writes it when the guest's domain is gone */
	else
		operation_record(v, given);
}

static void give_up(struct vdi *v)
{
	operation_give_up(v, &v->job->barrier, out_after_bad);
}

static void fail(struct vdi *v, const struct error *why)
{
	v->job->barrier = *why;
	v->job->is_flushed = false; /* guests go on */
	source_withdraw(v, give_up);
}

void handover_committed(struct vdi *v)
{
	struct job *j = v->job;
	unsigned long long ms = (loop_now_ns() - j->started_ns) / NS_PER_MS;
	struct mirror_status s;
	const char *means;

	if (v->step.err) {
		log_warn("barrier of %s failed after %llu ms: %s", v->op->id, ms, v->step.text);
		fail(v, &v->step);
		return;
	}
	mirror_status(v->op->mirror, &s);
	means = mirror_barrier_means(&s);
	log_info("barrier of %s took %llu ms%s%s", v->op->id, ms, *means ? "; " : "", means);
	v->op->is_complete = true;
	j->will_save = j->kind == JOB_DEACTIVATE;
	stack_refuse(v);
	if (j->d)
		stack_cut(v, j->d, cut);
	else
		cut(v);
}

static void parted(struct vdi *v)
{
	if (v->step.err) /* the far side has everything, and that is the answer */
		log_error("after a good barrier: %s", v->step.text);
	error_clear(&v->step);
	handover_committed(v);
}

static void part(struct vdi *v)
{
	source_log_stays(v, "the far side is no sxm");
	source_part(v, parted);
}

static void finished(struct vdi *v)
{
	struct mirror_status s;

	mirror_status(v->op->mirror, &s);
	if (v->step.err)
		handover_committed(v);
	else if (s.is_sxm)
		source_commit(v, handover_committed);
	else
		part(v);
}

/* --- what is done at once */

static void one_is_over(struct vdi *v)
{
	if (--v->job->under_way)
		return;
	v->step = v->job->barrier;
	finished(v);
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

static void offered(struct vdi *v)
{
	if (v->step.err)
		log_warn("%s: %s", v->op->id, v->step.text);
	one_is_over(v);
}

/* Not where the far side may not have heard yet that an older offer was withdrawn: what it says then would contradict the
 * record. There the commit offers it, when the far side has answered. */
static void offer(struct vdi *v)
{
	struct commit_verdict verdict = commit_source_offer(&v->owner.record);
	struct mirror_status s;

	mirror_status(v->op->mirror, &s);
	if (s.is_sxm && s.is_up && !v->op->has_gone_on && verdict.does == COMMIT_ALLOW && verdict.is_changed)
		stack_own(v, &verdict.next, offered);
	else
		one_is_over(v);
}

static void quiet(struct vdi *v)
{
	v->job->under_way = 3;
	error_clear(&v->job->barrier);
	stack_flush_beside(v, flushed);
	mirror_finish(v->op->mirror, on_finished, v);
	offer(v);
}

static void has_failed_already(struct vdi *v)
{
	struct error why = v->op->why;

	if (!why.err)
		error_set(&why, ECANCELED, "it was cancelled");
	fail(v, &why);
}

void handover_begin(struct vdi *v, struct domain *d, step_fn *next)
{
	v->job->handed_over = next;
	v->job->d = d;
	if (v->op->is_failed || v->op->is_aborting)
		has_failed_already(v);
	else
		stack_quiet(v, quiet);
}
