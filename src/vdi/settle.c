/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * settle - a mirror is in sync: that is said, or it ends
 *
 *      a guest writes     the log of changes sent; "told" on record, twice, and into domains.json -> complete=true is said; the
 *                         barrier is its deactivation's
 *      nobody writes      the barrier, now.  With an sxm far side that is the commit: complete=true is said in state given only
 *      only dom0 writes   later: its deactivation looks again
 *
 * Can fail: the writing down.  Then it is not said, and tried again in a second.
 */
#include "base/log.h"
#include "vdi/vdi-private.h"

static void settled(struct vdi *v)
{
	stack_release(v, job_end);
}

static void said(struct vdi *v)
{
	if (v->step.err)
		log_error("%s: %s", v->op->id, v->step.text);
	v->op->is_told = v->op->is_said = true;
	record_news(v, v->op->id);
	stack_release(v, job_end);
}

/* Nobody writes: with an sxm far side it is complete only now, when the disk is given. */
static void handed_over(struct vdi *v)
{
	if (v->op)
		v->op->is_settling = false;
	if (v->op && v->op->is_given)
		source_tell(v, said);
	else
		settled(v);
}

static void told(struct vdi *v)
{
	struct operation *op = v->op;

	op->is_settling = false;
	if (v->step.err) {
		op->is_told = false;
		log_error("%s is in sync, and cannot say so before it is written down: %s", op->id, v->step.text);
		loop_timer_set(op->timer, VDI_RESUME_AGAIN_MS);
	} else {
		op->is_said = true;
		record_news(v, op->id);
	}
	job_end(v);
}

static void recorded(struct vdi *v)
{
	if (v->step.err)
		log_warn("record of %s: %s", v->op->id, v->step.text);
	stack_save(v, told);
}

static void noted(struct vdi *v)
{
	if (v->step.err) {
		told(v);
		return;
	}
	v->op->is_told = true;
	operation_record(v, recorded);
}

static void tell(struct vdi *v)
{
	if (!v->op->is_failed && !v->op->is_aborting) {
		source_tell(v, noted);
		return;
	}
	v->op->is_settling = false;
	job_end(v);
}

void operation_settle(struct vdi *v)
{
	struct operation *op = v->op;

	if (!op || op->number != v->job->number || op->is_failed || op->is_aborting) {
		job_end(v);
	} else if (vdi_has_writer(v, NULL, true)) {
		source_log(v, false, tell);
	} else if (vdi_has_writer(v, NULL, false)) {
		op->is_settling = false; /* dom0's: the next deactivation looks again */
		job_end(v);
	} else {
		handover_begin(v, NULL, handed_over);
	}
}
