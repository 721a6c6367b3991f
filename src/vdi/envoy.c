/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * envoy - a disk that was given away is asked back when the process that gave it is no more, or given when the one that had
 * offered it is no more
 *
 *      journal read (pool) -> numbers of links on record -> a link, without a mirror -> RECLAIM -> link closed -> on record
 *                                                              '--refused: HELLO's answer said why--'
 *
 * Whoever activates the disk waits for it.  If it is given back, revive.c takes the mirror up again: nothing is owed but what is
 * written from now on.  If a guest was started there, that is on record now, too.  If nobody can be reached the record
 * stays as it is.  The same way COMMIT is asked for, where that was decided (group-doubt.c); of a volume that began to receive
 * anew since (far_since) nothing is known, and it is not asked.
 *
 * Can fail: everything; it is a question.  Never: a disk is owned here before the answer is on record.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

#define CONNECT_MS 2000u
#define ANSWER_MS 5000u

static void over(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->committed);
	const struct error step = v->step;

	journal_clear(&v->journal);
	debt_clear(&v->debt);
	error_clear(&v->step);
	if (v->envoy.question == REMOTE_ASK_COMMIT)
		v->step = step;
	next(v);
}

static void settled(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	if (v->owner.record.state == COMMIT_OWNED && !v->owner.record.is_ended)
		stack_write(v, record_path(v->journal.id), NULL, over); /* it said complete: it goes on now */
	else
		over(v);
}

static void answered(struct vdi *v)
{
	const struct envoy *n = &v->envoy;
	enum commit_meaning meaning;
	struct commit_verdict verdict;

	if (v->step.err)
		log_warn("the far side of %s cannot be asked: %s", v->owner.record.mirror, v->step.text);
	if (!n->has_heard) {
		over(v);
		return;
	}
	verdict = commit_source_heard(&v->owner.record, n->status, n->state, n->epoch, &meaning);
	if (meaning == COMMIT_MEANS_ELIGIBLE && n->question == REMOTE_ASK_COMMIT)
		verdict = commit_source_give(&v->owner.record, n->epoch);
	if (meaning == COMMIT_MEANS_CONFLICT)
		log_error("the far side of %s says %s, epoch %llu: this cannot be", v->owner.record.mirror,
			  remote_state_name(n->state), (unsigned long long)n->epoch);
	source_decide(v, &verdict, settled);
}

/* --- the link */

static void on_closed(void *arg)
{
	struct vdi *v = arg;

	v->envoy.remote = NULL;
	stack_step_end(v);
}

static void hang_up(struct vdi *v, bool is_polite)
{
	v->envoy.remote->ops->close(v->envoy.remote, is_polite, on_closed, v);
}

static void on_heard(void *arg, uint32_t status, uint32_t state, uint64_t epoch)
{
	struct envoy *n = &((struct vdi *)arg)->envoy;

	n->has_heard = true;
	n->status = status;
	n->state = state;
	n->epoch = epoch;
}

static void on_asked(struct remote_ask *a, int err)
{
	struct vdi *v = container_of(a, struct vdi, envoy.ask);

	remote_ask_check(a, err, &v->step);
	if (!err)
		on_heard(v, a->field[0], a->field[1], remote_ask_u64(a, 2));
	v->envoy.is_over = true;
	hang_up(v, true);
}

static void on_up(void *arg, const struct remote_info *info)
{
	struct vdi *v = arg;
	struct envoy *n = &v->envoy;

	if (info->is_sxm && (n->question == REMOTE_ASK_RECLAIM || info->since == v->journal.peer.far_since)) {
		n->ask = (struct remote_ask){ .question = n->question, .done = on_asked };
		v->envoy.remote->ops->ask(v->envoy.remote, &v->envoy.ask);
		return;
	}
	error_set(&v->step, EPROTO, "%s %s", info->is_sxm ? "something else was received in between at" : "there is no sxm at",
		  v->journal.remote);
	n->has_heard = false;
	v->envoy.is_over = true;
	hang_up(v, true);
}

static void on_failed(void *arg, const struct error *e)
{
	struct vdi *v = arg;

	v->step = *e;
	v->envoy.is_over = true;
	hang_up(v, false);
}

static void on_down(void *arg, int err)
{
	struct vdi *v = arg;

	(void)err; /* the question has been answered with it before, and hangs up */
	assert(v->envoy.is_over);
}

static void reach(struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;
	const struct remote_spec spec = {
		.loop = v->loop,
		.uri = v->journal.remote,
		.min_size_bytes = v->disk->geometry.size_bytes,
		.handshake_ms = ANSWER_MS,
		.connect_wait_ms = CONNECT_MS,
		.dead_ms = ANSWER_MS,
		.mirror_id = r->mirror,
		.epoch = r->epoch - 1,
		.generation = source_next_links(v) + 1,
		.on_heard = on_heard,
		.on_up = on_up,
		.on_failed = on_failed,
		.on_down = on_down,
		.arg = v,
	};

	if (v->step.err) {
		log_error("%s", v->step.text);
		over(v);
		return;
	}
	stack_step_begin(v, answered);
	v->envoy = (struct envoy){ .question = v->envoy.question };
	v->envoy.remote = remote_nbd_new(&spec, &v->step);
	if (!v->envoy.remote)
		stack_step_end(v);
}

/* --- whom to ask */

static void looked(struct vdi *v)
{
	if (v->journal.id && strcmp(v->journal.id, v->owner.record.mirror) == 0)
		source_reserve(v, reach);
	else
		over(v);
}

static void read_journal(struct vdi *v)
{
	struct error e = { 0 };

	if (debt_find(v->run_dir, v->path, &v->debt, &e) == -1 || journal_load(v->debt.journal, &v->journal, &e) == -1)
		log_warn("where %s was moved to is not known: %s", v->path, e.text);
}

static void send_envoy(struct vdi *v, enum remote_question question, step_fn *next)
{
	assert(!v->op);
	v->envoy.question = question;
	v->job->committed = next;
	stack_work(v, read_journal, looked);
}

void envoy_reclaim(struct vdi *v, step_fn *next)
{
	send_envoy(v, REMOTE_ASK_RECLAIM, next);
}

void envoy_commit(struct vdi *v, step_fn *next)
{
	send_envoy(v, REMOTE_ASK_COMMIT, next);
}
