/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * source - this disk as the source of a mirror: its record, and what the far side is asked and says (mirror/commit.h decides)
 *
 *      begin    on record: this mirror's, and the numbers of its links
 *      told     on record before complete=true is in any answer
 *      commit   offered on record -> source-log.c -> PREPARE, the digests compared -> COMMIT -> given on record
 *                   '---- link lost: wait for the next, ask again ----'                                  (sent and flushed)
 *      withdraw owned again on record, two epochs on -> RECLAIM, END, where there is a link              (no barrier)
 *               so it is, too, when it is cancelled before given is on its way to the record
 *      reclaim  RECLAIM -> owned again on record -> the mirror goes on                                   (a guest is back)
 *
 * What is here is the order: nothing is asked, answered or allowed that the record does not allow, and the record is durable
 * first.  What the far side says unasked is source-news.c's.
 *
 * Numbers of links are reserved in bulk: the record is ahead of what was used, so that a link can be made anew in the middle
 * of a job, a barrier's above all, without writing.
 *
 * Can fail: the medium, the link, the far side, a digest that differs.  Then the source owns the disk, or, where it is given,
 * nobody writes here.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

#define LINKS_RESERVED (UINT64_C(1) << 20) /* with a second between them, twelve days of attempts */
#define REACH_MS 15000u                    /* how long a step waits for the next link */
#define NO_LINK UINT_MAX
#define TRIES 3u                           /* links on which the commit, or RECLAIM, is asked for */

static const struct commit_record *record(const struct vdi *v)
{
	return &v->owner.record;
}

static void fail_step(struct vdi *v, int err, const char *text)
{
	error_set(&v->step, err, "%s", text);
}

/* Makes a verdict's record durable, or goes on at once. */
void source_decide(struct vdi *v, const struct commit_verdict *verdict, step_fn *next)
{
	error_clear(&v->step);
	if (verdict->is_changed)
		stack_own(v, &verdict->next, next);
	else
		next(v);
}

/* --- steps: a question, and the next link */

static void on_asked(struct remote_ask *a, int err)
{
	struct operation *op = container_of(a, struct operation, ask);

	remote_ask_check(a, err, &op->vdi->step);
	stack_step_end(op->vdi);
}

static void send(struct vdi *v)
{
	struct mirror_status s;

	mirror_status(v->op->mirror, &s);
	v->job->asked_link = s.is_up ? s.links_lost : NO_LINK;
	if (mirror_ask(v->op->mirror, &v->op->ask))
		return;
	fail_step(v, ESHUTDOWN, "there is no link to the far side");
	stack_step_end(v);
}

void source_send(struct vdi *v, const struct remote_ask *ask, step_fn *next)
{
	stack_step_begin(v, next);
	v->op->ask = *ask;
	v->op->ask.done = on_asked;
	source_after_early(v, send);
}

static bool is_called_off(const struct vdi *v)
{
	return v->op->is_cancelled || v->op->is_aborting;
}

void source_ask(struct vdi *v, enum remote_question question, step_fn *next)
{
	source_send(v, &(struct remote_ask){ .question = question }, next);
}

/* The next link may tell what became of it. Who cancels does not wait for one: guests are held. */
static bool was_cut_off(const struct vdi *v)
{
	return v->step.err == ESHUTDOWN && !is_called_off(v);
}

static void end_reaching(struct vdi *v)
{
	v->is_waiting_link = false;
	loop_timer_clear(v->op->reach);
	stack_step_end(v);
}

void source_look_for_link(struct vdi *v)
{
	struct mirror_status s;

	mirror_status(v->op->mirror, &s);
	if (s.links_lost == v->job->asked_link && !is_called_off(v))
		return; /* its end was told by the question; the mirror hears of it in this very turn */
	if (s.is_up || !s.is_reaching || is_called_off(v))
		end_reaching(v);
}

void source_reach_is_over(void *arg)
{
	struct operation *op = arg;

	if (op->vdi->is_waiting_link && op->vdi->op == op)
		end_reaching(op->vdi);
}

/* Ends when there is a link, or none is to be had. */
static void reach(struct vdi *v, step_fn *next)
{
	stack_step_begin(v, next);
	mirror_reach(v->op->mirror);
	v->is_waiting_link = true;
	loop_timer_set(v->op->reach, REACH_MS);
	source_look_for_link(v);
}

/* --- begin */

static void save_peer(void *arg, const struct mirror_peer *p, void (*done)(void *done_arg, int err), void *done_arg)
{
	struct operation *op = arg;

	if (p->far_boot != op->peer.far_boot || p->far_process != op->peer.far_process || p->far_since != op->peer.far_since ||
	    p->far_volume != op->peer.far_volume || p->is_foreign != op->peer.is_foreign) {
		op->peer = *p;
		operation_note(op);
	}
	if (done)
		done(done_arg, p->generation <= record(op->vdi)->generation ? 0 : ENOSPC);
}

/* A commit that runs must know before it fails and is withdrawn: then there would be two owners. */
static void note_taken(struct operation *op, enum commit_meaning meaning, uint64_t epoch)
{
	if (meaning == COMMIT_MEANS_TAKEN)
		op->taken_epoch = epoch;
}

static void on_heard(void *arg, uint32_t status, uint32_t state, uint64_t epoch)
{
	struct operation *op = arg;
	enum commit_meaning meaning;

	commit_source_heard(record(op->vdi), status, state, epoch, &meaning);
	note_taken(op, meaning, epoch);
	if (meaning > COMMIT_MEANS_ELIGIBLE)
		source_queue_heard(op, status, state, epoch);
}

void source_fill(struct operation *op, struct mirror_spec *spec)
{
	spec->mirror_id = op->id;
	spec->epoch = record(op->vdi)->epoch;
	spec->save_peer = save_peer;
	spec->on_heard = on_heard;
}

int source_check(const struct vdi *v, struct error *e)
{
	struct commit_verdict verdict;

	verdict = commit_source_begin(record(v), "x");
	if (verdict.does == COMMIT_ALLOW)
		return 0;
	return error_set(e, EPERM, "%s: %s", v->path, commit_why_text(verdict.why));
}

void source_begin(struct vdi *v, step_fn *next)
{
	struct commit_verdict verdict = commit_source_begin(record(v), v->op->id);

	assert(verdict.does == COMMIT_ALLOW); /* source_check() */
	verdict.next.generation = LINKS_RESERVED + (v->op->was_resumed ? record(v)->generation : 0);
	if (verdict.shuts_out)
		far_shut_out(v, NULL);
	source_decide(v, &verdict, next);
}

/* A dead process may have used any of those that were reserved. */
void source_reserve(struct vdi *v, step_fn *next)
{
	struct commit_verdict verdict = { .is_changed = true, .next = *record(v) };

	verdict.next.generation += LINKS_RESERVED;
	source_decide(v, &verdict, next);
}

uint64_t source_next_links(const struct vdi *v)
{
	return record(v)->generation - LINKS_RESERVED;
}

/* --- told */

void source_tell(struct vdi *v, step_fn *next)
{
	struct commit_record r = *record(v);
	struct commit_verdict verdict;
	struct mirror_status s;

	mirror_status(v->op->mirror, &s);
	if (!s.is_sxm && r.state == COMMIT_OWNED)
		r = commit_source_unfenced(&r).next;
	verdict = commit_source_tell(&r);
	if (verdict.does != COMMIT_ALLOW) {
		error_set(&v->step, EPERM, "%s", commit_why_text(verdict.why));
		next(v);
	} else {
		verdict.is_changed |= r.is_unfenced != record(v)->is_unfenced;
		source_decide(v, &verdict, next);
	}
}

/* --- commit */

static void commit_over(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->committed);

	next(v);
}

static void given(struct vdi *v);

/* A guest runs there already: an admin said so, or an orchestrator that did not wait. The disk is given, whatever failed. */
static bool was_taken(struct vdi *v, struct commit_verdict *verdict)
{
	uint64_t epoch = v->op->taken_epoch;
	enum commit_meaning meaning;

	v->op->taken_epoch = 0;
	*verdict = commit_source_heard(record(v), COMMIT_STATUS_OK, COMMIT_OWNED, epoch, &meaning);
	return epoch && meaning == COMMIT_MEANS_TAKEN;
}

/* The answer to a question of the commit, where it is no OK. */
static void hear_refusal(struct vdi *v)
{
	const struct remote_ask *a = &v->op->ask;
	enum commit_meaning meaning;

	if (v->step.err != EPROTO || a->is_garbled)
		return;
	commit_source_heard(record(v), a->field[0], a->field[1], remote_ask_u64(a, 2), &meaning);
	note_taken(v->op, meaning, remote_ask_u64(a, 2));
}

/* Until given is on its way to the record a cancellation is heard between any two steps. */
static bool was_cancelled(struct vdi *v)
{
	if (v->op->is_cancelled && !v->step.err)
		fail_step(v, ECANCELED, "it was cancelled");
	return v->op->is_cancelled;
}

static void commit_failed(struct vdi *v, const char *what)
{
	struct commit_verdict verdict;

	if (was_taken(v, &verdict)) {
		source_decide(v, &verdict, given);
		return;
	}
	error_prefix(&v->step, "%s", what);
	commit_over(v);
}

static void not_cancelled(struct operation *op)
{
	log_warn("%s: it was cancelled too late", op->id);
	op->is_cancelled = op->is_removing = false;
	source_look(op);
}

static void given(struct vdi *v)
{
	if (v->step.err) {
		commit_failed(v, "the far side has the disk, and that could not be written down here");
		return;
	}
	v->op->is_given = true;
	if (v->op->is_cancelled)
		not_cancelled(v->op);
	log_info("%s: the far side has this disk, epoch %" PRIu64 "; it is not written here any more", v->op->id,
		 record(v)->epoch);
	commit_over(v);
}

static void prepare(struct vdi *v);
static void commit(struct vdi *v);

static void reached(struct vdi *v)
{
	struct mirror_status s;

	mirror_status(v->op->mirror, &s);
	if (s.is_up && !was_cancelled(v) && ++v->job->tries < TRIES) {
		source_log(v, true, v->job->is_prepared ? commit : prepare);
		return;
	}
	if (!was_cancelled(v))
		fail_step(v, ENOTCONN, "the link to the far side was lost and is not there again");
	commit_failed(v, "commit");
}

static void committed(struct vdi *v)
{
	const struct remote_ask *a = &v->op->ask;
	struct commit_verdict verdict;

	if (was_cut_off(v)) {
		reach(v, reached);
		return;
	}
	hear_refusal(v);
	if (v->step.err || was_cancelled(v)) {
		commit_failed(v, "COMMIT");
		return;
	}
	verdict = commit_source_give(record(v), remote_ask_u64(a, 2));
	if (verdict.does != COMMIT_ALLOW) {
		fail_step(v, EPROTO, "the far side answers with an epoch that it was not offered");
		commit_failed(v, "COMMIT");
		return;
	}
	source_decide(v, &verdict, given);
}

static void commit(struct vdi *v)
{
	source_ask(v, REMOTE_ASK_COMMIT, committed);
}

static void prepared(struct vdi *v)
{
	if (was_cut_off(v) && !v->job->group[0]) { /* a group waits for no link: guests are held */
		reach(v, reached);
		return;
	}
	hear_refusal(v);
	if (v->step.err || was_cancelled(v) || source_compare(v) == -1) {
		commit_failed(v, "PREPARE");
		return;
	}
	v->job->is_prepared = true;
	if (v->job->group[0])
		commit_over(v);
	else
		commit(v);
}

static void prepare(struct vdi *v)
{
	if (source_was_prepared(v))
		prepared(v);
	else if (source_may_lack(v))
		commit_failed(v, "PREPARE");
	else
		source_ask(v, REMOTE_ASK_PREPARE, prepared);
}

static void logged(struct vdi *v)
{
	source_await_prepare(v, prepare);
}

static void offered(struct vdi *v)
{
	if (v->step.err)
		commit_failed(v, "the handover could not be written down");
	else if (was_cancelled(v))
		commit_failed(v, "PREPARE");
	else
		source_log(v, true, logged);
}

void source_commit(struct vdi *v, step_fn *next)
{
	const char *group = v->job->group;
	struct commit_verdict verdict = *group ? commit_source_offer_in(record(v), group) : commit_source_offer(record(v));

	v->job->committed = next;
	if (v->job->is_prepared) {
		commit(v);
		return;
	}
	if (verdict.does != COMMIT_ALLOW)
		fail_step(v, EPERM, commit_why_text(verdict.why));
	if (verdict.does != COMMIT_ALLOW || was_cancelled(v))
		commit_failed(v, "the disk cannot be handed over");
	else
		source_decide(v, &verdict, offered);
}

void source_part(struct vdi *v, step_fn *next)
{
	struct commit_verdict verdict = commit_source_unfenced(record(v));

	verdict = commit_source_give_unfenced(&verdict.next);
	verdict.is_changed = verdict.does == COMMIT_ALLOW;
	source_decide(v, &verdict, next);
}

static void is_settled(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->committed);

	if (v->step.err)
		log_error("%s", v->step.text);
	next(v);
}

void source_settle(struct vdi *v, const char *id, step_fn *next)
{
	const struct commit_record *r = record(v);
	struct commit_verdict verdict = { .next = *r };

	v->job->committed = next;
	if (r->role == COMMIT_ROLE_SOURCE && strcmp(r->mirror, id) == 0)
		verdict = commit_source_settle(r);
	source_decide(v, &verdict, is_settled);
}

/* --- withdraw */

static void withdrawn_over(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->committed);

	if (v->step.err)
		log_info("%s: the far side was not told: %s", v->op->id, v->step.text);
	next(v);
}

static void reclaimed_for_end(struct vdi *v)
{
	if (v->step.err)
		withdrawn_over(v);
	else
		source_ask(v, REMOTE_ASK_END, withdrawn_over);
}

/* It must not stay eligible there, and need not wait for us. */
void source_say_end(struct vdi *v, step_fn *next)
{
	struct mirror_status s;

	v->job->committed = next;
	mirror_status(v->op->mirror, &s);
	if (!s.is_sxm || !s.is_up)
		withdrawn_over(v);
	else if (v->job->was_offered)
		source_ask(v, REMOTE_ASK_RECLAIM, reclaimed_for_end);
	else
		source_ask(v, REMOTE_ASK_END, withdrawn_over);
}

static void withdrawn(struct vdi *v)
{
	if (!v->step.err) {
		source_say_end(v, take_ptr(&v->job->committed));
		return;
	}
	log_error("%s: its handover could not be withdrawn on record: this disk is not written to: %s", v->op->id, v->step.text);
	far_refuse_plain(v);
	error_clear(&v->step);
	withdrawn_over(v);
}

void source_withdraw(struct vdi *v, step_fn *next)
{
	struct commit_verdict verdict = commit_source_barrier_failed(record(v));

	v->job->committed = next;
	v->job->was_offered = record(v)->state == COMMIT_OFFERED;
	if (verdict.why == COMMIT_WHY_WITHDRAWN)
		log_warn("%s: %s", v->op->id, commit_why_text(verdict.why));
	source_decide(v, &verdict, withdrawn);
}

/* --- reclaim: a guest is to start here again */

bool source_is_linked(const struct vdi *v)
{
	struct mirror_status s;

	if (!v->op || !v->op->is_given)
		return false;
	mirror_status(v->op->mirror, &s);
	return s.is_up;
}

static void reclaim_over(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->committed);

	next(v);
}

static void gone_on(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	error_clear(&v->step);
	v->op->has_gone_on = true;
	mirror_go_on(v->op->mirror, record(v)->epoch);
	reclaim_over(v);
}

void source_back(struct vdi *v)
{
	struct operation *op = v->op;

	if (!v->step.err && record(v)->state == COMMIT_OWNED) {
		log_info("%s: this disk is owned here again, epoch %" PRIu64 "; the mirror goes on", op->id, record(v)->epoch);
		op->is_given = op->is_complete = false;
		operation_record(v, gone_on); /* a successor of this process must not find it over */
		return;
	}
	reclaim_over(v);
}

static void ask_back(struct vdi *v);

static void reached_to_reclaim(struct vdi *v)
{
	struct mirror_status s;

	mirror_status(v->op->mirror, &s);
	(s.is_up ? ask_back : reclaim_over)(v);
}

/* It may have been heard, and its answer lost: it is asked again. */
static void reclaimed(struct vdi *v)
{
	const struct remote_ask *a = &v->op->ask;
	enum commit_meaning meaning;
	struct commit_verdict verdict;

	if (was_cut_off(v) && ++v->job->tries < TRIES) {
		reach(v, reached_to_reclaim);
		return;
	}
	if (v->step.err && (v->step.err != EPROTO || a->is_garbled)) {
		reclaim_over(v);
		return;
	}
	verdict = commit_source_heard(record(v), a->field[0], a->field[1], remote_ask_u64(a, 2), &meaning);
	if (meaning == COMMIT_MEANS_RECLAIMED || meaning == COMMIT_MEANS_TAKEN)
		source_decide(v, &verdict, source_back);
	else
		reclaim_over(v);
}

static void ask_back(struct vdi *v)
{
	source_ask(v, REMOTE_ASK_RECLAIM, reclaimed);
}

void source_reclaim(struct vdi *v, step_fn *next)
{
	v->job->committed = next;
	v->job->asked_link = NO_LINK;
	if (source_is_linked(v))
		ask_back(v);
	else
		reach(v, reached_to_reclaim);
}
