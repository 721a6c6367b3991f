/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * envoy - a disk that was given away is asked back when the process that gave it is no more, or given when the one that had
 * offered it is no more
 *
 *      journal read (pool) -> numbers of links on record -> a link, without a mirror -> RECLAIM -> on record -> link closed
 *                                                              '--refused: HELLO's answer said why--'
 *                                                              '--released: on record -> RELEASED---'
 *
 *      nobody answers, RECLAIM: once more after a pause, doubled each time, for vdi_spec.envoy_ms in all; a third of that where
 *      nobody even listens at a unix socket
 *
 * The far side may just be being started again, so RECLAIM is asked for some seconds; each link has its own number, and a link
 * that was lost after the question may have been heard: it is asked again, and answered as before.  COMMIT is asked once: who
 * waits for a group comes again.
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
#define CONNECT_SOCKET_MS 1000u
#define ANSWER_MS 5000u
#define PAUSE_FIRST_MS 100u
#define PAUSE_LAST_MS 1600u

static void over(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->committed);
	const struct error step = v->step;

	loop_timer_free(take_ptr(&v->envoy.timer));
	journal_clear(&v->journal);
	debt_clear(&v->debt);
	error_clear(&v->step);
	if (v->envoy.question == REMOTE_ASK_COMMIT)
		v->step = step;
	next(v);
}

static void hang_up(struct vdi *v, bool is_polite);

static void on_released(struct remote_ask *a, int err)
{
	struct vdi *v = container_of(a, struct vdi, envoy.ask);

	if (remote_ask_check(a, err, &v->step) == -1)
		log_warn("%s: the far side was not told that this disk is owned here: %s", v->owner.record.mirror, v->step.text);
	v->envoy.is_over = true;
	hang_up(v, true);
}

/* The link may be there still. */
static void part(struct vdi *v)
{
	struct envoy *n = &v->envoy;

	stack_step_begin(v, over);
	if (!n->remote) {
		stack_step_end(v);
	} else if (!n->is_over && n->is_released && v->owner.record.state == COMMIT_OWNED) {
		n->ask = (struct remote_ask){ .question = REMOTE_ASK_RELEASED, .done = on_released };
		n->remote->ops->ask(n->remote, &n->ask);
	} else {
		hang_up(v, !n->is_over);
	}
}

static void settled(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	if (v->owner.record.state == COMMIT_OWNED && !v->owner.record.is_ended)
		stack_write(v, record_path(v->journal.id), NULL, part); /* it said complete: it goes on now */
	else
		part(v);
}

static void reach(struct vdi *v);

/* What is at a unix socket is on this host: its keeper starts a datapath again in less, and a relay that is gone, of xapi's or of
 * a move by hand, comes again only when somebody goes on with the move. To give up is safe: the disk stays given. */
static bool is_at_socket(const struct vdi *v)
{
	return strstr(v->journal.remote, "unix");
}

static unsigned patience_ms(const struct vdi *v)
{
	bool is_nobody_there = v->step.err == ENOENT || v->step.err == ECONNREFUSED;

	return is_nobody_there && is_at_socket(v) ? v->envoy_ms / 3 : v->envoy_ms;
}

static bool may_ask_again(const struct vdi *v)
{
	const struct envoy *n = &v->envoy;

	return n->question == REMOTE_ASK_RECLAIM && n->timer && !n->is_final && !v->is_stopping &&
	       loop_now_ns() - n->began_ns < patience_ms(v) * NS_PER_MS;
}

static void on_pause_over(void *arg)
{
	struct vdi *v = arg;

	stack_step_end(v);
}

static void pause_then_reach(struct vdi *v)
{
	struct envoy *n = &v->envoy;
	unsigned pause_ms = n->tries < 4 ? PAUSE_FIRST_MS << n->tries : PAUSE_LAST_MS;

	log_debug("the far side of %s does not answer yet: %s", v->owner.record.mirror, v->step.text);
	n->tries++;
	stack_step_begin(v, reach);
	loop_timer_set(n->timer, pause_ms);
}

static void answered(struct vdi *v)
{
	const struct envoy *n = &v->envoy;
	enum commit_meaning meaning;
	struct commit_verdict verdict;

	if (v->step.err && may_ask_again(v)) {
		pause_then_reach(v);
		return;
	}
	if (v->step.err)
		log_warn("the far side of %s cannot be asked: %s", v->owner.record.mirror, v->step.text);
	if (!n->has_heard) {
		over(v);
		return;
	}
	verdict = commit_source_heard(&v->owner.record, n->status, n->state, n->epoch, &meaning);
	if (meaning == COMMIT_MEANS_ELIGIBLE && n->question == REMOTE_ASK_COMMIT)
		verdict = commit_source_give(&v->owner.record, n->epoch);
	v->envoy.is_released = meaning == COMMIT_MEANS_RELEASED;
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
	v->envoy.is_final = err != ESHUTDOWN;
	if (!err) {
		on_heard(v, a->field[0], a->field[1], remote_ask_u64(a, 2));
		stack_step_end(v);
		return;
	}
	v->envoy.is_over = true;
	hang_up(v, true);
}

static void on_up(void *arg, const struct remote_info *info)
{
	struct vdi *v = arg;
	struct envoy *n = &v->envoy;

	if (info->is_sxm && info->state == REMOTE_IS_RELEASED) { /* there is nothing to ask: HELLO's answer has said it */
		stack_step_end(v);
		return;
	}
	if (info->is_sxm && (n->question == REMOTE_ASK_RECLAIM || info->since == v->journal.peer.far_since)) {
		n->ask = (struct remote_ask){ .question = n->question, .done = on_asked };
		v->envoy.remote->ops->ask(v->envoy.remote, &v->envoy.ask);
		return;
	}
	error_set(&v->step, EPROTO, "%s %s", info->is_sxm ? "something else was received in between at" : "there is no sxm at",
		  v->journal.remote);
	n->has_heard = false;
	n->is_final = true;
	v->envoy.is_over = true;
	hang_up(v, true);
}

static void on_failed(void *arg, const struct error *e)
{
	struct vdi *v = arg;

	v->step = *e;
	v->envoy.is_final = v->envoy.has_heard; /* HELLO was refused, and that is the answer */
	v->envoy.is_over = true;
	hang_up(v, false);
}

static void on_down(void *arg, int err)
{
	struct vdi *v = arg;

	(void)err; /* a question has been answered with it before, and hangs up; between two, part() does */
	v->envoy.is_over = true;
}

static void reach(struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;
	const struct remote_spec spec = {
		.loop = v->loop,
		.uri = v->journal.remote,
		.min_size_bytes = v->disk->geometry.size_bytes,
		.handshake_ms = ANSWER_MS,
		.connect_wait_ms = is_at_socket(v) ? CONNECT_SOCKET_MS : CONNECT_MS,
		.dead_ms = ANSWER_MS,
		.mirror_id = r->mirror,
		.epoch = r->epoch - 1,
		.generation = source_next_links(v) + 1 + v->envoy.tries,
		.volume = v->journal.peer.far_volume,
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
	v->envoy = (struct envoy){
		.question = v->envoy.question, .timer = v->envoy.timer, .tries = v->envoy.tries, .began_ns = v->envoy.began_ns
	};
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
	v->envoy = (struct envoy){
		.question = question, .timer = loop_timer_new(v->loop, on_pause_over, v), .began_ns = loop_now_ns()
	};
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
