/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover-source - A: the guest's host
 *
 * Knows its record, its links' names and what was answered on them.  One verb at a time; one question at a time: writes go on
 * while a PREPARE that was asked early is unanswered, and other questions wait for it.
 */
#include <stdio.h>
#include <string.h>

#include "tests/sim/handover.h"

bool source_is_asking(const struct world *w)
{
	return w->asking != NO_LINK || w->early != NO_LINK;
}

void source_ask(struct world *w, unsigned link, enum ask what)
{
	struct message m = { .ask = what };

	w->asking = link;
	world_put(&w->links[link].to_b, &m);
}

unsigned source_link(const struct world *w)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (w->links[i].is_open_at_a && w->links[i].is_helloed)
			return i;
	return NO_LINK;
}

/* --- the operation and its links */

static bool is_barrier(enum call c)
{
	return c == CALL_DEACTIVATE || c == CALL_SETTLE || c == CALL_PREPARE;
}

/* Only CALL_PREPARE's barrier goes on with a disk that is in doubt; other verbs look at it anew. */
static enum phase between_questions(const struct world *w)
{
	bool is_over = w->call != CALL_PREPARE && commit_is_in_doubt(&w->a.rec);

	return is_barrier(w->call) && !is_over ? PHASE_SYNC : PHASE_BEGIN;
}

static void link_gone(struct world *w, unsigned link)
{
	if (w->primary == link)
		w->primary = NO_LINK;
	if (w->early == link)
		w->early = NO_LINK;
	if (w->asking != link)
		return;
	w->asking = NO_LINK;
	if (w->phase == PHASE_PREPARE || w->phase == PHASE_COMMIT)
		w->phase = between_questions(w);
	if (w->phase == PHASE_RECLAIM)
		w->phase = PHASE_BEGIN;
}

void source_close(struct world *w, unsigned link)
{
	if (!w->links[link].is_open_at_a)
		return;
	w->links[link].is_open_at_a = false;
	w->links[link].to_a.count = 0;
	w->must_tell = false;
	link_gone(w, link);
}

static void begun(struct world *w)
{
	for (unsigned i = 0; i < LINKS; i++) /* an older operation's */
		source_close(w, i);
	w->is_live = true;
	w->has_forgotten = false;
}

void source_begin(struct world *w)
{
	char mirror[COMMIT_MIRROR_MAX];
	struct commit_verdict v;

	snprintf(mirror, sizeof(mirror), "m%u", ++w->mirrors);
	v = commit_source_begin(&w->a.rec, mirror);
	if (v.does != COMMIT_ALLOW)
		return;
	w->is_complete = w->is_cancelled = w->is_off = w->was_raised = w->is_success = w->wants_end = w->must_fail = false;
	w->is_called_off = w->must_tell = false;
	w->acked = w->base = 0;
	w->is_based = false;
	w->target = w->volumes;
	world_decide(w, &w->a, &v, begun, BUG_NONE);
}

static unsigned free_link(const struct world *w)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (!w->links[i].is_open_at_a && !w->links[i].is_open_at_b && !(w->b.is_busy && w->b.link == i))
			return i;
	return NO_LINK;
}

static void open_link(struct world *w, unsigned i, const struct commit_link *name, bool is_twin)
{
	static const struct message hello = { .ask = ASK_HELLO };

	w->links[i] = (struct link){ .is_open_at_a = true, .is_open_at_b = true, .name = *name, .name_at_b = *name,
				     .is_twin = is_twin };
	world_put(&w->links[i].to_b, &hello);
	w->asking = i;
	if (!is_twin)
		w->primary = i;
}

static void connected(struct world *w)
{
	unsigned i = free_link(w);
	struct commit_link name;

	commit_source_connect(&w->a.rec, &name);
	name.generation = w->a.rec.generation;
	if (w->has_lied) /* the digest is of one generation: it cannot say what an older one lost */
		w->acked = 0;
	w->has_lied = false;
	if (i != NO_LINK && w->b.exists && w->target == w->volumes)
		open_link(w, i, &name, false);
}

void source_connect(struct world *w, bool is_twin)
{
	unsigned i = free_link(w);
	struct commit_link name;
	struct commit_verdict v;

	if (i == NO_LINK || !w->b.exists || w->target != w->volumes || !commit_is_source(&w->a.rec))
		return;
	if (is_twin) {
		if (w->primary != NO_LINK && w->links[w->primary].is_helloed && !source_is_asking(w))
			open_link(w, i, &w->links[w->primary].name, true);
		return;
	}
	for (i = 0; i < LINKS; i++)
		source_close(w, i);
	v = commit_source_connect(&w->a.rec, &name);
	if (v.does == COMMIT_ALLOW)
		world_decide(w, &w->a, &v, connected, BUG_NONE);
}

/* --- the guest and its data */

void source_write(struct world *w)
{
	if (!w->a.exists || !w->a.is_guest_active || w->is_held || commit_write(&w->a.rec, COMMIT_LOCAL, NULL) != COMMIT_ALLOW)
		return;
	w->disk_a = w->truth = ++w->clock;
}

bool source_is_usable(const struct world *w, unsigned link)
{
	const struct link *l = &w->links[link];
	uint64_t epoch = w->a.rec.state == COMMIT_OWNED ? w->a.rec.epoch : w->a.rec.epoch - 1;

	return link != NO_LINK && l->is_open_at_a && l->is_helloed && l->heard_state == COMMIT_RECEIVING &&
	       l->heard_epoch == l->name.epoch && l->name.epoch == epoch && w->a.rec.state != COMMIT_GIVEN;
}

bool source_is_synced(const struct world *w)
{
	return source_is_usable(w, w->primary) && w->acked == w->disk_a && !w->links[w->primary].is_sending;
}

void source_send(struct world *w)
{
	struct message m = { .ask = ASK_WRITE, .number = w->disk_a };

	if (!w->a.exists || !source_is_usable(w, w->primary) || w->acked == w->disk_a || w->links[w->primary].is_sending ||
	    w->asking != NO_LINK)
		return;
	w->links[w->primary].is_sending = true;
	world_put(&w->links[w->primary].to_b, &m);
}

static void told(struct world *w)
{
	w->is_complete = true;
}

void source_tell(struct world *w)
{
	struct commit_verdict v;

	if (!w->is_live || w->call != CALL_NONE || (w->a.is_guest_active ? !source_is_synced(w) : w->a.rec.state != COMMIT_GIVEN))
		return;
	v = commit_source_tell(&w->a.rec);
	if (v.does == COMMIT_ALLOW)
		world_decide(w, &w->a, &v, told, BUG_NONE);
}

/* --- answers */

static void hello_answered(struct world *w, unsigned link, const struct message *m)
{
	struct link *l = &w->links[link];

	if (m->status != COMMIT_STATUS_OK) {
		source_close(w, link);
		far_close(w, link);
		return;
	}
	l->is_helloed = true;
	if (!l->is_twin)
		source_meet(w, l, m);
	if (m->state == COMMIT_RECEIVING && m->epoch != l->name.epoch && !source_is_asking(w))
		source_ask(w, link, ASK_RECLAIM);
	else if (w->has_twins && !l->is_twin && !source_is_asking(w))
		source_connect(w, true);
}

static void question_answered(struct world *w, unsigned link, const struct message *m)
{
	bool is_good = m->status == COMMIT_STATUS_OK;

	if (m->ask == ASK_RECLAIM) {
		if (is_good)
			w->links[link].name.epoch = m->epoch;
		if (w->phase == PHASE_RECLAIM)
			w->phase = PHASE_BEGIN;
	} else if (m->ask == ASK_PREPARE && w->phase == PHASE_PREPARE) {
		w->phase = PHASE_SYNC;
		source_prepare_answered(w, link, is_good && m->count == w->links[link].acked);
	} else if (m->ask == ASK_COMMIT && w->phase == PHASE_COMMIT) {
		w->phase = between_questions(w);
		w->must_fail = w->must_fail || w->a.rec.state != COMMIT_GIVEN;
	}
}

static void heard(struct world *w)
{
	const struct message m = w->a.message;
	unsigned link = w->a.link;

	if (w->meaning == COMMIT_MEANS_CONFLICT && !(w->has_forgotten && w->a.rec.state == COMMIT_GIVEN))
		world_break(w, "the far side said what it never can");
	w->tally[TALLY_RECLAIMED] += w->meaning == COMMIT_MEANS_RECLAIMED;
	w->tally[TALLY_RELEASED] += w->meaning == COMMIT_MEANS_RELEASED;
	w->tally[TALLY_ENDED] += w->meaning == COMMIT_MEANS_ENDED;
	if (w->meaning == COMMIT_MEANS_ENDED || w->meaning == COMMIT_MEANS_RELEASED)
		w->must_fail = true;
	if (!w->links[link].is_open_at_a)
		return;
	if (m.ask == ASK_HELLO)
		hello_answered(w, link, &m);
	else
		question_answered(w, link, &m);
	if (w->meaning == COMMIT_MEANS_RELEASED && w->links[link].is_open_at_a && !source_is_asking(w))
		source_ask(w, link, ASK_RELEASED);
}

static void write_answered(struct world *w, struct link *l, const struct message *m)
{
	l->is_sending = false;
	if (m->status != COMMIT_STATUS_OK)
		return;
	l->acked++;
	w->acked = m->number;
}

static void given(struct world *w)
{
	w->phase = between_questions(w);
	if (w->a.rec.group[0]) /* whoever wrote here has been moved */
		w->a.is_guest_active = false;
}

void source_receive(struct world *w, unsigned link)
{
	struct link *l = &w->links[link];
	struct message m = world_take(&l->to_a);
	struct commit_verdict v;

	if (m.ask == ASK_WRITE) {
		write_answered(w, l, &m);
		return;
	}
	if (m.is_early) {
		source_early_answered(w, l, &m);
		return;
	}
	if (m.ask != ASK_NEWS && w->asking == link)
		w->asking = NO_LINK;
	l->heard_state = m.state;
	l->heard_epoch = m.epoch;
	w->a.message = m;
	w->a.link = link;
	if (m.ask == ASK_COMMIT && m.status == COMMIT_STATUS_OK && w->phase == PHASE_COMMIT && !w->is_called_off) {
		v = commit_source_give(&w->a.rec, m.epoch);
		if (v.does == COMMIT_ALLOW) {
			world_decide(w, &w->a, &v, given, BUG_CALLER_GIVEN_LATE);
			return;
		}
	}
	v = commit_source_heard(&w->a.rec, m.status, m.state, m.epoch, &w->meaning);
	world_decide(w, &w->a, &v, heard, w->meaning == COMMIT_MEANS_RELEASED ? BUG_CALLER_TAKEN_LATE : BUG_NONE);
}

/* --- verbs */

static void finish(struct world *w, enum outcome outcome)
{
	enum call call = w->call;

	w->call = CALL_NONE;
	w->phase = PHASE_BEGIN;
	w->must_fail = w->is_held = w->is_called_off = false;
	source_go_on(w);
	w->must_tell = w->must_tell && w->a.rec.state != COMMIT_GIVEN; /* too late */
	if (!w->is_waiting || call == CALL_SETTLE)
		return;
	w->is_waiting = false;
	if (call == CALL_ACTIVATE && outcome == OUTCOME_GOOD) {
		w->is_off = w->is_success = w->was_raised = false;
	} else if (call == CALL_DEACTIVATE && outcome == OUTCOME_GOOD) {
		w->is_success = w->is_complete && !w->is_off && !w->is_cancelled;
	} else if (call == CALL_DEACTIVATE) {
		if (outcome == OUTCOME_RAISED && w->was_raised)
			world_break(w, "a deactivation begun after one that raised raised again");
		w->was_raised |= outcome == OUTCOME_RAISED;
		w->is_off = true;
		w->is_success = false;
	}
}

void source_call(struct world *w, enum call call)
{
	w->call = call;
	w->phase = PHASE_BEGIN;
	w->must_fail = false;
	w->is_waiting = call != CALL_SETTLE;
	if (call == CALL_ACTIVATE) /* whatever was thought of the move: the guest is to run here */
		w->is_success = w->was_raised = false;
}

static void deactivated(struct world *w)
{
	w->a.is_guest_active = false;
	finish(w, OUTCOME_GOOD);
}

static void raised(struct world *w)
{
	w->tally[TALLY_RAISED]++;
	w->is_live = false;
	w->wants_end = true;
	finish(w, OUTCOME_RAISED);
}

static void withdrawn(struct world *w)
{
	w->is_live = false;
	w->wants_end = true;
	if (w->call == CALL_DEACTIVATE)
		deactivated(w);
	else
		finish(w, OUTCOME_GOOD);
}

static void fail_barrier(struct world *w)
{
	struct commit_verdict v = commit_source_barrier_failed(&w->a.rec);

	w->tally[TALLY_WITHDRAWN] += w->a.rec.state == COMMIT_OFFERED;
	w->tally[TALLY_CANCELLED] += w->is_called_off;
	world_decide(w, &w->a, &v, v.does == COMMIT_RAISE ? raised : withdrawn, BUG_CALLER_RAISED_LATE);
}

void source_offered(struct world *w)
{
	w->offered = MAX(w->offered, w->a.rec.epoch);
}

static void ask_commit(struct world *w, unsigned link)
{
	source_ask(w, link, ASK_COMMIT);
	w->phase = PHASE_COMMIT;
}

static void offer(struct world *w)
{
	struct commit_verdict v = commit_source_offer(&w->a.rec);

	w->must_fail |= v.does != COMMIT_ALLOW;
	if (v.does == COMMIT_ALLOW)
		world_decide(w, &w->a, &v, source_offered, BUG_CALLER_OFFERED_LATE);
}

/* Offered also while the last is sent, if the far side says that it receives in this epoch: an older word contradicts that. */
static void work_barrier(struct world *w)
{
	bool may_offer = source_is_synced(w) || (source_is_usable(w, w->primary) && world_roll(w, 2));
	unsigned link = source_link(w);

	if (w->a.rec.state == COMMIT_GIVEN) {
		w->call == CALL_DEACTIVATE ? deactivated(w) : finish(w, OUTCOME_GOOD);
		return;
	}
	if (w->must_fail || w->is_called_off || commit_is_over(&w->a.rec) || !world_roll(w, w->primary == NO_LINK ? 10 : 40)) {
		fail_barrier(w);
		return;
	}
	w->is_finished |= source_is_synced(w);
	source_prepare_early(w);
	if (w->a.rec.state == COMMIT_OWNED && may_offer)
		offer(w);
	else if (source_is_asking(w) || link == NO_LINK || w->a.rec.state != COMMIT_OFFERED)
		return;
	else if (w->links[link].heard_state == COMMIT_ELIGIBLE)
		ask_commit(w, link);
	else if (source_is_synced(w) && PLANTED(BUG_CALLER_ASKS_EARLY))
		ask_commit(w, w->primary);
	else if (source_is_synced(w))
		source_prepare(w);
}

/* The group's decision first; the verb looks again, or is not patient enough. */
static void resolve(struct world *w)
{
	if (world_roll(w, 4))
		group_doubt(w);
	else
		finish(w, OUTCOME_REFUSED);
}

static void work_deactivate(struct world *w)
{
	struct commit_verdict v = commit_deactivate(&w->a.rec, w->is_live, 1);

	if (v.does == COMMIT_BARRIER) {
		w->is_held = true;
		w->phase = PHASE_SYNC;
	} else if (v.does == COMMIT_ASK_GROUP) {
		resolve(w);
	} else {
		world_decide(w, &w->a, &v, v.does == COMMIT_RAISE ? raised : deactivated, BUG_CALLER_RAISED_LATE);
	}
}

static void activated(struct world *w)
{
	w->a.is_guest_active = true;
	if (commit_is_over(&w->a.rec)) /* settled by this: who starts the guest here knows that the move is off */
		w->is_complete = false;
	oracle_started(w, &w->a);
	finish(w, OUTCOME_GOOD);
}

static void work_activate(struct world *w)
{
	unsigned link = source_link(w);
	const struct commit_activation a = { .domain = COMMIT_GUEST, .is_linked = link != NO_LINK };
	struct commit_verdict v = commit_activate(&w->a.rec, &a);

	if (v.does == COMMIT_ASK_RECLAIM && !source_is_asking(w)) {
		source_ask(w, link, ASK_RECLAIM);
		w->phase = PHASE_RECLAIM;
	} else if (v.does == COMMIT_ASK_GROUP) {
		resolve(w);
	} else if (v.does == COMMIT_REFUSE) {
		finish(w, OUTCOME_REFUSED);
	} else if (v.does == COMMIT_ALLOW) {
		if (w->a.rec.state == COMMIT_OFFERED)
			w->tally[TALLY_WITHDRAWN]++;
		world_decide(w, &w->a, &v, activated, BUG_CALLER_WITHDRAWN_LATE);
	}
}

static void destroyed(struct world *w)
{
	w->a.exists = false;
	w->is_live = false;
	for (unsigned i = 0; i < LINKS; i++)
		source_close(w, i);
	finish(w, OUTCOME_GOOD);
}

static void work_destroy(struct world *w)
{
	const struct commit_destruction d = { .is_linked = source_link(w) != NO_LINK };
	struct commit_verdict v = commit_destroy(&w->a.rec, &d);

	if (v.does == COMMIT_ALLOW)
		world_decide(w, &w->a, &v, destroyed, BUG_NONE);
	else
		finish(w, OUTCOME_REFUSED);
}

void source_work(struct world *w)
{
	if (w->call == CALL_PREPARE)
		group_work(w);
	else if (w->phase == PHASE_SYNC && (w->call == CALL_DEACTIVATE || w->call == CALL_SETTLE))
		work_barrier(w);
	else if (w->phase != PHASE_BEGIN)
		return;
	else if (w->call == CALL_DEACTIVATE)
		work_deactivate(w);
	else if (w->call == CALL_SETTLE)
		w->phase = PHASE_SYNC;
	else if (w->call == CALL_ACTIVATE)
		work_activate(w);
	else if (w->call == CALL_DESTROY)
		work_destroy(w);
}

void source_settled(struct world *w)
{
	w->is_live = false;
	w->wants_end = true;
}

static void taken_back(struct world *w)
{
	(void)w;
}

/* A barrier hears of it between two steps; without one the operation ends. What is given stays so. */
void source_cancel(struct world *w)
{
	struct commit_verdict v = commit_source_settle(&w->a.rec);
	bool is_given = w->a.rec.state == COMMIT_GIVEN;

	if (!w->a.exists || w->is_prepared || (w->call != CALL_NONE && !is_barrier(w->call)))
		return;
	if (is_given && PLANTED(BUG_CALLER_CANCELS_GIVEN) && !w->a.is_busy) {
		commit_own(&v.next, v.next.epoch + 1);
		v.is_changed = true;
		world_decide(w, &w->a, &v, taken_back, BUG_NONE);
	}
	if (is_given || !w->is_live || (w->call != CALL_NONE && w->phase == PHASE_BEGIN))
		return;
	if (w->call == CALL_NONE && (w->a.is_busy || v.does != COMMIT_ALLOW))
		return;
	w->must_tell = source_link(w) != NO_LINK;
	if (w->call == CALL_NONE) {
		world_decide(w, &w->a, &v, source_settled, BUG_NONE);
		return;
	}
	w->is_called_off = true;
	if (!PLANTED(BUG_CALLER_CANCEL_CUTS))
		return;
	for (unsigned i = 0; i < LINKS; i++)
		source_close(w, i);
	w->must_tell = true;
}

/* The operation is over here: say so where there is a link. */
void source_end(struct world *w)
{
	unsigned link = source_link(w);

	if (!w->wants_end && w->is_live && link != NO_LINK && !source_is_asking(w) && w->call == CALL_NONE &&
	    w->a.rec.state == COMMIT_OWNED && w->links[link].name.epoch < w->a.rec.epoch)
		source_ask(w, link, ASK_RECLAIM); /* withdrawn with its group: the mirror goes on */
	if (!w->wants_end || link == NO_LINK || source_is_asking(w) || w->call != CALL_NONE || w->a.rec.state != COMMIT_OWNED)
		return;
	if (w->links[link].heard_state == COMMIT_RECEIVING && w->links[link].name.epoch == w->a.rec.epoch) {
		source_ask(w, link, ASK_END);
		w->wants_end = false;
	} else if (w->links[link].name.epoch < w->a.rec.epoch) {
		source_ask(w, link, ASK_RECLAIM);
	}
}

void source_crash(struct world *w, bool is_host)
{
	bool was_waiting = w->is_waiting && w->call != CALL_SETTLE;

	for (unsigned i = 0; i < LINKS; i++)
		source_close(w, i);
	w->a.rec = w->a.durable;
	w->acked = w->is_based ? 0 : w->acked; /* its successor does not know of it */
	w->is_based = false;
	w->is_live = w->a.exists && commit_is_source(&w->a.rec) && !commit_is_over(&w->a.rec) && !is_host;
	w->offered = MAX(w->offered, w->a.rec.state == COMMIT_OFFERED ? w->a.rec.epoch : 0);
	w->is_early_good = w->is_finished = w->has_lost = false;
	if (w->call != CALL_NONE)
		finish(w, OUTCOME_LOST);
	w->is_off = w->is_off || (was_waiting && w->call == CALL_NONE);
	w->wants_end = w->is_prepared = w->is_decided = w->must_look = false;
	w->a.is_guest_active = w->a.is_guest_active && !is_host;
	w->acked = is_host ? 0 : w->acked;
}
