/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * far-ask - what the questions of a link do to this disk: each is a JOB_LINK
 *
 *      HELLO      older links' sockets closed -> gate held and drained: what they had submitted has landed -> flushed
 *                 -> on record -> digest from zero, the link may write -> gate open -> answered
 *      PREPARE    gate held and drained -> gate open, flushed -> answered, with the digest as it was when the flush began
 *      COMMIT     nobody may write -> held and drained -> flushed, where anything came since PREPARE -> the log of changes that
 *                 came stored -> on record -> answered -> that log in use -> gate open
 *      LOG_*      far-log.c
 *      RECLAIM, RELEASED, END       on record -> answered
 *
 * The decisions are commit.h's; what is here is their order: nothing is answered that is not durable.
 * Can fail: flush, writing the record: FAILED, and the old record stays in force.  A question whose link is gone when its turn
 * comes is not acted on.
 * Beyond commit.h: a link of the generation on record is let in only beside a living one.  What earlier ones wrote is in no
 * digest any more, if they ended or this process is another.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "vdi/vdi-private.h"

/* Ends the job; the answer is in the question. */
static void answered(struct vdi *v)
{
	job_end(v);
}

/* Ends it as decided; where that was a change, it is in force. */
static void answered_by(struct vdi *v, const struct commit_verdict *verdict)
{
	far_say(v->job->question, &v->owner.record, verdict->status);
	answered(v);
}

static bool has_failed(struct vdi *v)
{
	if (!v->step.err)
		return false;
	log_error("mirror %s: %s", v->job->question->l->name.mirror, v->step.text);
	far_say_failed(v->job->question, v->step.err);
	return true;
}

/* --- HELLO */

static bool is_other_linked(const struct vdi *v, const struct far_link *l)
{
	const struct far_link *other;

	TAILQ_FOREACH(other, &v->far.links, entry)
		if (other->is_admitted && far_is_open(other) && strcmp(other->name.mirror, l->name.mirror) != 0)
			return true;
	return false;
}

static const struct far_link *living_twin(const struct vdi *v, const struct far_link *l)
{
	const struct far_link *other;

	TAILQ_FOREACH(other, &v->far.links, entry)
		if (other != l && other->is_admitted && far_is_open(other) && far_is_of_generation(other, &l->name))
			return other;
	return NULL;
}

/* What RECLAIM made of a generation's epoch holds for a connection that comes later, too: its name was given before. */
static uint64_t epoch_of(const struct vdi *v, const struct far_link *l)
{
	const struct far_link *twin = living_twin(v, l);

	return twin ? MAX(twin->name.epoch, v->job->verdict.link_epoch) : v->job->verdict.link_epoch;
}

/* Of another process below nobody knows what it keeps in its memory. */
static bool may_cache(const struct vdi *v)
{
	return strcmp(disk_engine_name(v->disk), "nbd") == 0;
}

static void admit(struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;
	struct question *q = v->job->question;

	q->l->name.epoch = epoch_of(v, q->l);
	q->l->is_admitted = true;
	far_apply(v);
	linger_look(v);
	log_info("mirror %s: a link of generation %llu is let in", r->mirror, (unsigned long long)r->generation);
	far_say(q, r, COMMIT_STATUS_OK);
	far_put_u64(q, r->generation);
	far_put_u64(q, v->far.boot);
	far_put_u64(q, v->far.process);
	far_put(q, may_cache(v));
	far_put_u64(q, r->since);
	if (q->l->version > 1)
		far_put_u64(q, r->volume);
	answered(v);
}

static void hello_saved(struct vdi *v)
{
	bool is_bad = has_failed(v);

	if (!is_bad) {
		digest_reset(&v->far.digest);
		digest_reset(&v->far.flushed);
	}
	stack_wake(v);
	if (is_bad) {
		far_apply(v);
		answered(v);
	} else {
		admit(v);
	}
}

/* The first mirror of a volume gives it its id: one that is made anew in its place gets another. */
static void hello_flushed(struct vdi *v)
{
	if (v->job->verdict.is_changed && !v->job->verdict.next.volume)
		v->job->verdict.next.volume = cbt_random();
	if (v->step.err || !v->job->verdict.is_changed)
		hello_saved(v);
	else
		stack_own(v, &v->job->verdict.next, hello_saved);
}

static void hello_quiet(struct vdi *v)
{
	stack_flush(v, hello_flushed);
}

static void begin_hello(struct vdi *v)
{
	struct far_link *l = v->job->question->l;
	struct commit_verdict *verdict = &v->job->verdict;

	*verdict = commit_far_hello(&v->owner.record, &l->name, is_other_linked(v, l));
	if (verdict->status == COMMIT_STATUS_OK && (v->op || v->is_read_only))
		verdict->status = COMMIT_STATUS_NOT_YOURS;
	if (verdict->status == COMMIT_STATUS_OK && !verdict->shuts_out && !living_twin(v, l))
		verdict->status = COMMIT_STATUS_STALE;
	if (verdict->status != COMMIT_STATUS_OK) {
		log_warn("mirror %s, generation %llu: not let in; this disk is %s, epoch %llu, mirror %s, generation %llu",
			 l->name.mirror, (unsigned long long)l->name.generation, commit_state_name(v->owner.record.state),
			 (unsigned long long)v->owner.record.epoch, v->owner.record.mirror,
			 (unsigned long long)v->owner.record.generation);
		answered_by(v, verdict);
	} else if (!verdict->shuts_out) {
		admit(v);
	} else {
		far_log_forget(v, verdict->next.epoch != v->owner.record.epoch ||
				  strcmp(verdict->next.mirror, v->owner.record.mirror) != 0);
		far_shut_out(v, &l->name);
		far_refuse_plain(v);
		stack_quiet(v, hello_quiet);
	}
}

/* --- PREPARE */

static void prepared(struct vdi *v)
{
	struct question *q = v->job->question;
	struct commit_verdict verdict = commit_far_prepare(&v->owner.record, &q->l->name);

	if (has_failed(v)) {
		digest_reset(&v->far.flushed);
		answered(v);
		return;
	}
	far_say(q, &v->owner.record, verdict.status);
	if (verdict.status == COMMIT_STATUS_OK) {
		far_put_u64(q, v->far.flushed.count);
		far_put_u64(q, v->far.flushed.high);
		far_put_u64(q, v->far.flushed.low);
	}
	answered(v);
}

/* What came before the question has landed: it may be asked while its writes are still on their way. */
static void prepare_quiet(struct vdi *v)
{
	v->far.flushed = v->far.digest;
	stack_wake(v);
	stack_flush(v, prepared);
}

static void begin_prepare(struct vdi *v)
{
	struct commit_verdict verdict = commit_far_prepare(&v->owner.record, &v->job->question->l->name);

	if (verdict.status != COMMIT_STATUS_OK) {
		answered_by(v, &verdict);
		return;
	}
	stack_quiet(v, prepare_quiet);
}

/* --- COMMIT */

static void commit_over(struct vdi *v)
{
	stack_wake(v);
	far_apply(v);
	answered(v);
}

static void commit_saved(struct vdi *v)
{
	if (!has_failed(v))
		far_say(v->job->question, &v->owner.record, v->job->verdict.status);
	job_answer(v->job); /* what follows nobody has to wait for who does not write */
	far_log_use(v, commit_over);
}

static void commit_logged(struct vdi *v)
{
	stack_own(v, &v->job->verdict.next, commit_saved);
}

static void commit_flushed(struct vdi *v)
{
	struct commit_verdict *verdict = &v->job->verdict;

	*verdict = commit_far_commit(&v->owner.record, &v->job->question->l->name, !v->step.err);
	if (!v->step.err && verdict->is_changed)
		far_log_store(v, commit_logged);
	else
		commit_saved(v);
}

/* What had been in flight when the writes were refused is in no digest. */
static void commit_quiet(struct vdi *v)
{
	if (v->job->is_forced || !digest_equal(&v->far.digest, &v->far.flushed) || v->far.flushed.count == 0)
		stack_flush(v, commit_flushed);
	else
		commit_flushed(v);
}

static void begin_commit(struct vdi *v)
{
	struct commit_verdict *verdict = &v->job->verdict;
	struct far_link *l;

	*verdict = commit_far_commit(&v->owner.record, &v->job->question->l->name, true);
	if (verdict->status != COMMIT_STATUS_OK || !verdict->is_changed) {
		answered_by(v, verdict);
		return;
	}
	v->job->is_forced = v->gate->in_flight > 0;
	TAILQ_FOREACH(l, &v->far.links, entry)
		if (l->link)
			nbdsrv_link_admit(l->link, NULL);
	stack_quiet(v, commit_quiet);
}

/* --- RECLAIM, RELEASED, END: a decision, made durable */

static void decided(struct vdi *v)
{
	const struct commit_verdict *verdict = &v->job->verdict;

	if (has_failed(v)) {
		answered(v);
		return;
	}
	far_log_forget(v, true);
	if (verdict->link_epoch) { /* of this connection: a COMMIT that is late on another must find another epoch */
		v->job->question->l->name.epoch = verdict->link_epoch;
		far_apply(v);
	}
	answered_by(v, verdict);
}

static void decide(struct vdi *v, const struct commit_verdict *verdict)
{
	v->job->verdict = *verdict;
	error_clear(&v->step);
	if (verdict->status != COMMIT_STATUS_OK)
		answered_by(v, verdict);
	else if (verdict->is_changed)
		stack_own(v, &verdict->next, decided);
	else
		decided(v);
}

static void begin_decision(struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;
	const struct commit_link *name = &v->job->question->l->name;
	struct commit_verdict verdict;

	switch (v->job->question->ask->opcode) {
	case XSXM_RECLAIM:
		verdict = commit_far_reclaim(r, name);
		break;
	case XSXM_RELEASED:
		verdict = commit_far_acknowledged(r, name);
		break;
	default:
		verdict = commit_far_end(r, name);
	}
	decide(v, &verdict);
}

/* --- JOB_LINK */

void far_begin_link(struct vdi *v)
{
	struct question *q = v->job->question;

	if (!far_is_open(q->l) || !v->gate) {
		answered(v); /* as though it had been lost on the way */
		return;
	}
	if (q->ask->opcode != XSXM_HELLO && !q->l->is_admitted) {
		far_say(q, &v->owner.record, COMMIT_STATUS_BAD_STATE);
		answered(v);
		return;
	}
	switch (q->ask->opcode) {
	case XSXM_HELLO:
		begin_hello(v);
		break;
	case XSXM_PREPARE:
		begin_prepare(v);
		break;
	case XSXM_COMMIT:
		begin_commit(v);
		break;
	case XSXM_LOG_BEGIN:
	case XSXM_LOG_KEEP:
	case XSXM_LOG_END:
		far_log_begin(v);
		break;
	default:
		begin_decision(v);
	}
}
