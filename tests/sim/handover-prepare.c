/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover-prepare - A's barrier: is all there, and on B's medium?
 *
 *      held --PREPARE, early--> the last is sent, finished: nothing more is --> the answer was about all of it? Else asked again
 *
 * What B's host loses between finished and PREPARE nobody sends again before the barrier is over.
 */
#include "tests/sim/handover.h"

/* Of a host that went, what it had not flushed. Once finished, that is not heard before the barrier is over, nor noted. */
void source_meet(struct world *w, const struct link *l, const struct message *m)
{
	bool is_gone = m->boot != w->boot_seen, is_other = m->since > w->base;

	w->has_lost |= w->is_finished && (is_gone || is_other);
	if (!w->is_finished && (is_gone || is_other)) {
		w->acked = w->is_based ? w->acked : 0;
		w->is_based = false;
	}
	if (is_other)
		w->base = l->name.generation;
	if (!w->has_lost || PLANTED(BUG_CALLER_LOSS_NOTED))
		w->boot_seen = m->boot;
}

void source_prepare_answered(struct world *w, unsigned link, bool is_good)
{
	if (!is_good || w->a.rec.state != COMMIT_OFFERED || w->is_called_off) {
		w->must_fail = true;
	} else if (w->call == CALL_PREPARE) {
		w->is_prepared = w->was_prepared = true;
		w->is_decided = PLANTED(BUG_CALLER_GROUP_UNDECIDED);
	} else {
		source_ask(w, link, ASK_COMMIT);
		w->phase = PHASE_COMMIT;
	}
}

void source_early_answered(struct world *w, const struct link *l, const struct message *m)
{
	w->early = NO_LINK;
	w->is_early_good = m->status == COMMIT_STATUS_OK;
	w->early_count = m->count;
	w->early_generation = l->name.generation;
}

void source_prepare_early(struct world *w)
{
	static const struct message m = { .ask = ASK_PREPARE, .is_early = true };

	if (w->is_finished || source_is_asking(w) || !source_is_usable(w, w->primary) || world_roll(w, 2))
		return;
	w->is_early_good = false;
	w->early = w->primary;
	world_put(&w->links[w->primary].to_b, &m);
}

static bool was_prepared(const struct world *w)
{
	const struct link *l = &w->links[w->primary];

	if (!w->is_early_good)
		return false;
	if (w->early_generation != l->name.generation)
		return PLANTED(BUG_CALLER_EARLY_ANY_LINK);
	return w->early_count == l->acked || PLANTED(BUG_CALLER_EARLY_NOT_ALL);
}

void source_prepare(struct world *w)
{
	bool is_known = was_prepared(w);

	w->is_early_good = false;
	if (is_known) {
		source_prepare_answered(w, w->primary, true);
	} else if (w->has_lost && !PLANTED(BUG_CALLER_LOSS_UNHEARD)) {
		w->must_fail = true;
	} else {
		source_ask(w, w->primary, ASK_PREPARE);
		w->phase = PHASE_PREPARE;
	}
}

/* What the host that went had not flushed is sent again. */
void source_go_on(struct world *w)
{
	w->acked = w->has_lost ? 0 : w->acked;
	w->is_finished = w->has_lost = false;
}
