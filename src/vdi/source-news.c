/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * source-news - what comes by itself from the far side: WAIT's answer, what HELLO was answered with, a link that came or went
 *
 *      WAIT outstanding --TAKEN-----> on record -> the operation ends, complete
 *                       --RELEASED--> owned again on record -> RELEASED is said -> it ends, failed: given back
 *                       --ENDED-----> on record -> it ends, failed
 *
 * Each becomes a job, so that it finds the record at rest.  One WAIT is open on each link.
 * Can fail: the record.  Then nothing is done; the next link's HELLO says it again.
 */
#include <errno.h>
#include <inttypes.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

static const struct commit_record *record(const struct vdi *v)
{
	return &v->owner.record;
}

void source_queue_heard(struct operation *op, enum commit_status status, enum commit_state state, uint64_t epoch)
{
	struct job *j = job_add(op->vdi, JOB_HEARD, "", NULL, NULL);

	if (!j)
		return;
	j->number = op->number;
	j->heard_status = status;
	j->heard_state = state;
	j->heard_epoch = epoch;
}

static void on_news(struct remote_ask *a, int err)
{
	struct operation *op = container_of(a, struct operation, wait);

	op->is_waiting_news = false;
	if (!err && a->field[0] == REMOTE_SAYS_OK)
		source_queue_heard(op, COMMIT_STATUS_OK, commit_news_state(a->field[1]), remote_ask_u64(a, 2));
	else if (!err)
		log_debug("%s: WAIT was answered with status %u", op->id, a->field[0]);
}

/* From on_change(). */
void source_look(struct operation *op)
{
	struct vdi *v = op->vdi;
	struct mirror_status s;
	struct job *j;

	mirror_status(op->mirror, &s);
	if (v->is_waiting_link && v->op == op)
		source_look_for_link(v);
	if (op->is_copy || op->is_removing)
		return;
	if (s.is_up && s.is_sxm && !op->is_waiting_news && op->links_met != s.links_lost + 1) {
		op->links_met = s.links_lost + 1;
		op->wait = (struct remote_ask){ .question = REMOTE_ASK_WAIT, .done = on_news };
		op->is_waiting_news = mirror_ask(op->mirror, &op->wait);
	}
	if (op->is_told && s.is_up != op->was_up) {
		j = job_add(v, JOB_LINKED, "", NULL, NULL);
		if (j)
			j->number = op->number;
	}
	op->was_up = s.is_up;
}

static void linked(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	job_end(v);
}

void source_begin_linked(struct vdi *v)
{
	struct commit_verdict verdict;

	if (!v->op || v->op->number != v->job->number || !v->gate) {
		job_end(v);
		return;
	}
	verdict = v->op->was_up ? commit_source_linked(record(v)) : commit_source_lost(record(v), (int64_t)time(NULL));
	source_decide(v, &verdict, linked);
}

static void heard_over(struct vdi *v)
{
	stack_release(v, job_end);
}

static void take_out(struct vdi *v)
{
	operation_take_out(v, heard_over);
}

static void give_up_heard(struct vdi *v)
{
	operation_give_up(v, &v->job->barrier, heard_over);
}

static void end_heard(struct vdi *v, const char *text)
{
	v->op->is_given = false;
	error_set(&v->job->barrier, ECANCELED, "%s", text);
	give_up_heard(v);
}

static void released_said(struct vdi *v)
{
	if (v->step.err)
		log_warn("%s: the far side was not told that this disk is owned here: %s", v->op->id, v->step.text);
	end_heard(v, "the far side gave the disk back: it is owned here again");
}

static void heard(struct vdi *v)
{
	if (v->step.err) {
		log_error("%s: %s", v->op->id, v->step.text);
		job_end(v);
		return;
	}
	switch (v->job->meaning) {
	case COMMIT_MEANS_TAKEN:
		log_info("%s: a guest was started from the far side: the move is over", v->op->id);
		v->op->is_complete = true;
		stack_quiet(v, take_out);
		break;
	case COMMIT_MEANS_RELEASED:
		source_ask(v, REMOTE_ASK_RELEASED, released_said);
		break;
	case COMMIT_MEANS_ENDED:
		end_heard(v, "the far side gave the mirror up");
		break;
	case COMMIT_MEANS_RECLAIMED:
		v->job->committed = job_end;
		source_back(v);
		break;
	case COMMIT_MEANS_CONFLICT:
		log_error("%s: the far side says that it is %s in epoch %" PRIu64 ", this disk is %s in epoch %" PRIu64
			  ": this cannot be", v->op->id, commit_state_name(v->job->heard_state), v->job->heard_epoch,
			  commit_state_name(record(v)->state), record(v)->epoch);
		end_heard(v, "the two sides do not agree whose the disk is");
		break;
	case COMMIT_MEANS_NOTHING:
	case COMMIT_MEANS_RECEIVING:
	case COMMIT_MEANS_ELIGIBLE:
		job_end(v);
		break;
	}
}

void source_begin_heard(struct vdi *v)
{
	struct job *j = v->job;
	struct commit_verdict verdict;

	if (!v->op || v->op->number != j->number || !v->gate) {
		job_end(v);
		return;
	}
	verdict = commit_source_heard(record(v), j->heard_status, j->heard_state, j->heard_epoch, &j->meaning);
	source_decide(v, &verdict, heard);
}

static void let_go(struct vdi *v)
{
	operation_take_out(v, take_ptr(&v->job->committed));
}

void source_let_go(struct vdi *v, step_fn *next)
{
	assert(v->op->is_given);
	v->job->committed = next;
	stack_quiet(v, let_go);
}
