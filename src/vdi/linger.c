/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * linger - after COMMIT the link stays, though the far end's domain was deactivated and detached
 *
 *      MIR1 active --deactivate--> lingering: no domain, but its server with its links only --end--> cut, gone
 *                                        (eligible, or receiving again after RECLAIM)
 *      end: a guest took the disk | it is incomplete | the source has it back | no link for VDI_LINGER_MS
 *
 * So the source hears TAKEN, and can RECLAIM for a guest that came back.  It takes no write before that.  The socket, and TCP
 * where it listened, stay open for a link that is made anew; what lingers is in domains.json, and a successor of a killed
 * process takes it up.
 *
 * Destroying an eligible volume: released (on record) -> the link hears -> the source says that it has it -> the volume may go.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

bool linger_is_wanted(const struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;

	if (!v->gate)
		return false;
	return r->state == COMMIT_ELIGIBLE || r->state == COMMIT_RECEIVING ||
	       (r->state == COMMIT_RELEASED && !r->is_acknowledged);
}

static struct domain *next_lingering(const struct vdi *v)
{
	struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d->is_lingering)
			return d;
	return NULL;
}

static void on_time(void *arg)
{
	struct vdi *v = arg;

	v->far.is_linger_over = true;
	linger_look(v);
}

void linger_look(struct vdi *v)
{
	if (!next_lingering(v) || v->is_stopping)
		return;
	if (far_is_linked(v)) {
		v->far.is_linger_over = false;
		loop_timer_free(take_ptr(&v->far.linger));
	} else if (!v->far.linger && !v->far.is_linger_over) {
		v->far.linger = loop_timer_new(v->loop, on_time, v);
		if (v->far.linger)
			loop_timer_set(v->far.linger, v->far.linger_ms);
	}
	if (!linger_is_wanted(v) || v->far.is_linger_over)
		job_add(v, JOB_UNLINGER, "", NULL, NULL);
}

/* --- JOB_UNLINGER */

static void ended(struct vdi *v)
{
	if (v->step.err)
		log_error("after the end of a link: %s", v->step.text);
	stack_release(v, job_end);
}

static void cut_next(struct vdi *v);

static void was_cut(struct vdi *v)
{
	struct domain *d = v->job->cut;

	d->is_lingering = false;
	listening_forget(d);
	if (d->is_detached)
		vdi_remove_domain(v, d);
	cut_next(v);
}

static void cut_next(struct vdi *v)
{
	struct domain *d = next_lingering(v);

	v->job->cut = d;
	if (d)
		stack_cut(v, d, was_cut);
	else
		stack_save(v, ended);
}

void linger_begin_end(struct vdi *v)
{
	if (!next_lingering(v) || (linger_is_wanted(v) && !v->far.is_linger_over)) {
		job_end(v);
		return;
	}
	log_info("nobody needs the mirror's link to this disk any more");
	cut_next(v);
}

/* --- JOB_DESTROY */

static void refused(struct vdi *v)
{
	job_end(v); /* job->error says why */
}

static void may_go(struct vdi *v)
{
	if (!v->step.err && v->op) {
		source_let_go(v, may_go);
		return;
	}
	if (v->step.err) {
		v->job->error = v->step;
		stack_release(v, refused);
		return;
	}
	if (next_lingering(v))
		cut_next(v);
	else
		stack_release(v, job_end);
}

static void released(struct vdi *v)
{
	v->job->error = v->step;
	if (!v->step.err)
		error_set(&v->job->error, EAGAIN, "%s: its source was told that it is given back, and has not answered yet",
			  v->path);
	stack_release(v, refused);
}

static void refuse(struct vdi *v, enum commit_why why)
{
	error_set(&v->job->error, EPERM, "%s: %s", v->path, commit_why_text(why));
	stack_release(v, refused);
}

static void judge(struct vdi *v)
{
	int64_t since_s = v->far.unlinked_s ? v->far.unlinked_s : v->owner.written_s;
	const struct commit_destruction d = {
		.is_linked = far_is_linked(v), .is_forced = v->job->is_forced, .unlinked_s = (int64_t)time(NULL) - since_s,
	};
	struct commit_verdict verdict;

	if (v->step.err) {
		v->job->error = v->step;
		stack_release(v, refused);
		return;
	}
	if (v->owner.record.role == COMMIT_ROLE_SOURCE && d.unlinked_s >= COMMIT_UNLINKED_DESTROY_S)
		verdict = commit_source_settle(&v->owner.record); /* unresolved for a day: nobody asks for it any more */
	else
		verdict.next = v->owner.record;
	verdict = commit_destroy(&verdict.next, &d);
	if (verdict.does != COMMIT_ALLOW && verdict.does != COMMIT_WAIT)
		refuse(v, verdict.why);
	else if (verdict.is_changed)
		stack_own(v, &verdict.next, verdict.does == COMMIT_WAIT ? released : may_go);
	else if (verdict.does == COMMIT_WAIT)
		released(v);
	else
		may_go(v);
}

void linger_begin_destroy(struct vdi *v)
{
	const struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (!d->is_detached)
			error_set(&v->job->error, EBUSY, "%s is attached for domain %s; detach it first", v->path, d->name);
	if (v->op && !v->op->is_given)
		error_set(&v->job->error, EBUSY, "%s: %s %s of it is running; cancel it first", v->path,
			  v->op->is_copy ? "copy" : "mirror", v->op->id);
	if (v->job->error.err)
		job_end(v);
	else
		stack_open(v, true, judge);
}

void vdi_destroy(struct vdi *v, bool is_forced, vdi_done_fn *done, void *arg)
{
	struct job *j = job_add(v, JOB_DESTROY, "", done, arg);

	if (j)
		j->is_forced = is_forced;
}
