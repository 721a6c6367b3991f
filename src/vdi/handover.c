/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover - the barrier: after it the far side has every write a guest was told is done
 *
 *      hold the gate -> drain -> mirror_finish --good--> refuse -> cut the domain's clients -> mirror out -> wake
 *                                      '-------bad----> abort -> mirror out -> wake (guests go on)
 *
 * Requests that wait at the gate during a good barrier are refused, never let through: they would change this disk after the
 * other side took over.  A bad barrier leaves the guest as it was, without a mirror; the deactivation raises, once.
 *
 * Can fail: mirror_finish() (link lost, no progress), a cancellation meanwhile.
 * Invariant: a good answer means that nothing was submitted to the disk after the far side's flush began.
 */
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

static void cut(struct vdi *v)
{
	operation_take_out(v, out_after_good);
}

static void finished(struct vdi *v)
{
	struct job *j = v->job;
	unsigned long long ms = (loop_now_ns() - j->started_ns) / NS_PER_MS;

	j->barrier = v->step;
	if (j->barrier.err) {
		log_warn("barrier of %s failed after %llu ms: %s", v->op->id, ms, j->barrier.text);
		operation_give_up(v, &j->barrier, out_after_bad);
		return;
	}
	log_info("barrier of %s took %llu ms", v->op->id, ms);
	v->op->is_complete = true;
	stack_refuse(v);
	if (j->d)
		stack_cut(v, j->d, cut);
	else
		cut(v);
}

static void on_finished(void *arg, const struct error *e)
{
	struct vdi *v = arg;

	if (e)
		v->step = *e;
	stack_step_end(v);
}

static void quiet(struct vdi *v)
{
	stack_step_begin(v, finished);
	mirror_finish(v->op->mirror, on_finished, v);
}

static void has_failed_already(struct vdi *v)
{
	v->job->barrier = v->op->why;
	operation_give_up(v, &v->job->barrier, out_after_bad);
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
