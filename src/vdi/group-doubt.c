/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * group-doubt - a disk was offered together with others by a process that is no more
 *
 *      offered, with a group's name -> the decision, made if there is none: "cancel" (pool)
 *              | cancel: owned again, two epochs on; its mirror goes on (revive.c)
 *              | commit: an envoy asks COMMIT -> given -> the operation's record says complete
 *              '- COMMIT cannot be had now: the record stays; tried again with every start, activation, deactivation
 *
 * That is all of it: whoever meets such a record (commit.h: COMMIT_ASK_GROUP) comes here first.  That the far side has everything
 * is known: "commit" is decided only when every disk had been prepared, and since the offer nothing was written.
 *
 * Can fail: the decision's medium, the far side.  Never: guests are served before the decision is followed.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

static const struct commit_record *record(const struct vdi *v)
{
	return &v->owner.record;
}

static bool is_in_doubt(const struct vdi *v)
{
	return record(v)->state == COMMIT_OFFERED && record(v)->group[0];
}

static void over(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->resolved);

	next(v);
}

/* --- commit */

static void complete(struct vdi *v)
{
	if (v->step.err)
		log_error("record of %s: %s", record(v)->mirror, v->step.text);
	error_clear(&v->step);
	over(v);
}

static void given(struct vdi *v)
{
	struct operation *op;
	char *text;

	if (is_in_doubt(v)) {
		if (!v->step.err)
			error_set(&v->step, EAGAIN, "%s", commit_why_text(COMMIT_WHY_GROUP));
		over(v);
		return;
	}
	if (record(v)->state != COMMIT_GIVEN) {
		log_error("%s: GROUP IS TORN: it was decided to be handed over, and the far side of this disk has ended the "
			  "mirror: it stays here", record(v)->mirror);
		over(v);
		return;
	}
	log_info("%s: the far side has this disk, epoch %llu, as was decided", record(v)->mirror,
		 (unsigned long long)record(v)->epoch);
	op = record_new(v, "", false);
	if (!op) {
		over(v);
		return;
	}
	memcpy(op->id, record(v)->mirror, sizeof(record(v)->mirror));
	op->is_told = op->is_complete = op->is_ended = true;
	text = record_encode(op);
	stack_write(v, text ? record_path(op->id) : NULL, text, complete);
}

/* --- cancel */

static void withdrawn(struct vdi *v)
{
	if (!v->step.err)
		log_warn("%s: its group was not handed over: this disk is owned here, epoch %llu", record(v)->mirror,
			 (unsigned long long)record(v)->epoch);
	over(v);
}

static void decided(struct vdi *v)
{
	struct commit_verdict verdict;

	switch (v->decided) {
	case DECISION_COMMIT:
		envoy_commit(v, given);
		break;
	case DECISION_CANCEL:
		verdict = commit_source_withdraw(record(v));
		source_decide(v, &verdict, withdrawn);
		break;
	case DECISION_NONE:
		over(v);
		break;
	}
}

void group_resolve(struct vdi *v, step_fn *next)
{
	char group[COMMIT_GROUP_MAX];

	assert(is_in_doubt(v));
	v->job->resolved = next;
	memcpy(group, record(v)->group, sizeof(group));
	group_ask(v, group, true, decided);
}

/* Whoever wrote here has been moved. */
bool group_leave(struct vdi *v)
{
	struct domain *d;
	bool has_left = false;

	if (record(v)->state != COMMIT_GIVEN || !record(v)->group[0])
		return false;
	TAILQ_FOREACH(d, &v->domains, link)
		if (d->is_active && !d->is_read_only && !d->server && !domains_is_mirror(d->name)) {
			log_info("domain %s is inactive: its disk was handed over", d->name);
			d->is_active = false;
			has_left = true;
		}
	return has_left;
}

/* --- JOB_FOLLOW: the group's commit or cancel, and no job has it prepared */

static void followed_end(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	stack_release(v, job_end);
}

static void followed(struct vdi *v)
{
	struct job *j = v->job;
	bool is_ours = strcmp(record(v)->group, j->group) == 0;

	if (is_ours && is_in_doubt(v))
		j->error = v->step;
	else if (is_ours && !j->wants_commit)
		error_set(&j->error, EALREADY, "group %s was decided to be handed over", j->group);
	else if (!is_ours && j->wants_commit)
		error_set(&j->error, ENOENT, "%s is %s, and not prepared with group %s", v->path,
			  commit_state_name(record(v)->state), j->group);
	if (is_ours && group_leave(v))
		stack_save(v, followed_end);
	else
		stack_release(v, job_end);
}

static void looked(struct vdi *v)
{
	if (v->decided == DECISION_NONE && v->job->wants_commit) {
		v->job->error = v->step;
		if (!v->step.err)
			error_set(&v->job->error, ENOENT, "nothing is decided for group %s yet", v->job->group);
		stack_release(v, job_end);
	} else {
		group_resolve(v, followed);
	}
}

static void opened(struct vdi *v)
{
	if (v->step.err)
		job_fail(v, &v->step);
	else if (is_in_doubt(v) && strcmp(record(v)->group, v->job->group) == 0)
		group_ask(v, v->job->group, false, looked);
	else
		followed(v);
}

void group_begin_follow(struct vdi *v)
{
	stack_open(v, true, opened);
}
