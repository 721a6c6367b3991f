/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover-person - who gives a move up and has no link: what he read of A's record he tells B, whenever he gets there
 *
 *      A: owned, epoch n, of mirror m --read--> ... anything ... --commit_recall(m, n)--> B
 *
 * He may have taken A's disk by force before, where it was offered or given; then he promises that nobody is started on B before
 * B has heard, as nobody could make that safe. His word may be lost on the way.
 */
#include <string.h>

#include "tests/sim/handover.h"

static void give_up(struct world *w)
{
	const struct commit_record *r = &w->a.rec;

	if (r->state != COMMIT_OWNED || !commit_is_source(r) || (w->is_starting && w->is_right))
		return;
	w->is_recalling = true;
	memcpy(w->recalled, r->mirror, sizeof(w->recalled));
	w->recalled_epoch = r->epoch;
	w->is_cancelled = true;
	w->is_success = false;
}

static void taken(struct world *w)
{
	for (unsigned i = 0; i < LINKS; i++)
		source_close(w, i);
	w->is_live = w->wants_end = w->is_complete = false;
	w->is_off = true;
	w->tally[TALLY_TAKEN_BACK]++;
}

static void take_back(struct world *w)
{
	const struct commit_record *r = &w->a.rec;
	struct commit_verdict v;

	if ((r->state != COMMIT_OFFERED && r->state != COMMIT_GIVEN) || r->is_taken || w->call != CALL_NONE || w->is_starting ||
	    !w->b.exists || w->b.is_busy || w->b.rec.state == COMMIT_OWNED || world_roll(w, 4))
		return;
	v = commit_take(r, true);
	if (v.does != COMMIT_ALLOW)
		return;
	w->is_cancelled = w->is_promised = true;
	w->is_success = false;
	world_decide(w, &w->a, &v, taken, BUG_NONE);
}

void person_act(struct world *w)
{
	if (!w->a.exists || w->a.is_busy || (!w->is_promised && world_roll(w, 4)))
		return;
	if (w->a.rec.state != COMMIT_OWNED)
		take_back(w);
	else if (!w->is_recalling)
		give_up(w);
}

static void recalled(struct world *w)
{
	for (unsigned i = 0; i < LINKS; i++) {
		far_settle(w, i);
		far_close(w, i);
	}
	w->is_promised = false;
	w->tally[TALLY_RECALLED]++;
}

void person_recall(struct world *w)
{
	struct commit_verdict v = commit_recall(&w->b.rec, w->recalled, w->recalled_epoch);

	w->is_recalling = false;
	if (!world_roll(w, 4))
		return;
	if (v.does == COMMIT_ALLOW)
		world_decide(w, &w->b, &v, recalled, BUG_NONE);
	else
		w->is_promised = w->is_promised && w->b.rec.state == COMMIT_ELIGIBLE; /* that word was older */
}
