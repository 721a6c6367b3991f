/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * take - an admin's word: this disk is owned here; or it is the other host's for good, and may be written over; or that host has
 * it again, and it was never started from here
 *
 *      open -> commit_take() -> an operation whose disk was given ends -> on record -> close where nobody needs it
 *
 * For the ends that no link resolves: the far side is gone for good, or was destroyed.  Who says so must know that no guest
 * runs from the other disk; "force" is for what is not complete, or is known to have been started there.
 * Can fail: opening, writing; a disk that is owned here already is refused with that sentence.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "vdi/vdi-private.h"

static void refused(struct vdi *v)
{
	job_end(v); /* job->error says why */
}

static void taken(struct vdi *v)
{
	v->job->error = v->step;
	if (!v->step.err && v->job->recalled[0]) {
		log_info("this disk is its source's, which was said by who gave the move up: it starts nobody");
		far_shut_out(v, NULL);
	} else if (!v->step.err && v->job->is_drop) {
		log_info("this disk, which was given away, may receive a mirror");
	} else if (!v->step.err) {
		log_warn("this disk is owned here by an admin's word");
		far_shut_out(v, NULL);
	}
	stack_release(v, refused);
}

static void let_go(struct vdi *v)
{
	const struct commit_record next = v->job->verdict.next;

	if (v->step.err)
		log_error("%s", v->step.text);
	stack_own(v, &next, taken);
}

static struct commit_verdict judge(const struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;
	const struct job *j = v->job;

	if (j->recalled[0])
		return commit_recall(r, j->recalled, j->recalled_epoch);
	return j->is_drop ? commit_drop(r) : commit_take(r, j->is_forced);
}

static void opened(struct vdi *v);

static void resolved(struct vdi *v)
{
	error_clear(&v->step); /* where it could not be, the verdict says so */
	opened(v);
}

static void opened(struct vdi *v)
{
	struct job *j = v->job;

	if (v->step.err) {
		job_fail(v, &v->step);
		return;
	}
	j->verdict = judge(v);
	if (j->verdict.does == COMMIT_ASK_GROUP && !j->was_resolved) {
		j->was_resolved = true;
		group_resolve(v, resolved);
		return;
	}
	if (j->verdict.does != COMMIT_ALLOW) {
		error_set(&j->error, EPERM, "%s: %s", v->path, commit_why_text(j->verdict.why));
		stack_release(v, refused);
	} else if (v->op && v->op->is_given) {
		source_let_go(v, let_go);
	} else {
		let_go(v);
	}
}

void take_begin(struct vdi *v)
{
	stack_open(v, true, opened);
}

void vdi_take(struct vdi *v, bool is_forced, vdi_done_fn *done, void *arg)
{
	struct job *j = job_add(v, JOB_TAKE, "", done, arg);

	if (j)
		j->is_forced = is_forced;
}

void vdi_recall(struct vdi *v, const char *mirror, uint64_t epoch, vdi_done_fn *done, void *arg)
{
	struct error e = { 0 };
	struct job *j;

	if (!commit_mirror_is_valid(mirror)) {
		error_set(&e, EINVAL, "%.80s is no mirror's name", mirror);
		done(arg, &e);
		return;
	}
	j = job_add(v, JOB_TAKE, "", done, arg);
	if (!j)
		return;
	memcpy(j->recalled, mirror, strlen(mirror));
	j->recalled_epoch = epoch;
}

void vdi_drop(struct vdi *v, vdi_done_fn *done, void *arg)
{
	struct job *j = job_add(v, JOB_TAKE, "", done, arg);

	if (j)
		j->is_drop = true;
}
