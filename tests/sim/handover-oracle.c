/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover-oracle - what must hold
 *
 *      always      guests write on one host at most; whoever is started finds every write that was acknowledged; a guest that
 *                  runs on B is B's owner; generations never go back
 *      cancelled   with a link: the far side knows, when all is said
 *      destroyed   B's volume goes only when the guest can be started on A without it, or was reclaimed, or A has gone
 *      at the end  somebody can be started, or the admin's documented word makes it so, one word, without force; and what is
 *                  started then has every write
 */
#include <string.h>

#include "tests/sim/handover.h"

static const struct commit_activation guest = { .domain = COMMIT_GUEST };

static bool is_writing(const struct volume *x)
{
	return x->exists && x->is_guest_active && commit_write(&x->rec, COMMIT_LOCAL, NULL) == COMMIT_ALLOW;
}

void oracle_started(struct world *w, const struct volume *x)
{
	if ((x == &w->a ? w->disk_a : w->cache_b) != w->truth)
		world_break(w, "a guest was started on a disk that lacks an acknowledged write");
	if (commit_write(&x->rec, COMMIT_LOCAL, NULL) != COMMIT_ALLOW)
		world_break(w, "a guest was started that cannot write");
}

void oracle_destroyed(struct world *w)
{
	const struct commit_record *r = &w->a.durable;

	bool was_reclaimed = w->b.rec.state == COMMIT_INCOMPLETE && w->b.rec.epoch == r->epoch + 1;

	w->is_deleted |= w->b.rec.state == COMMIT_OWNED;
	if (w->is_deleted)
		return;
	if (w->a.exists && r->state == COMMIT_GIVEN && !was_reclaimed && !w->has_forgotten &&
	    strcmp(r->mirror, w->b.rec.mirror) == 0)
		world_break(w, "the far volume was destroyed before the source had the disk back");
	if (!w->a.exists && w->truth == w->disk_b)
		world_break(w, "the last copy was destroyed");
}

static void check_generation(struct world *w)
{
	const struct commit_record *r = &w->b.durable;

	if (strcmp(w->seen_mirror, r->mirror) == 0 && r->generation < w->seen_generation)
		world_break(w, "a generation came back");
	memcpy(w->seen_mirror, r->mirror, sizeof(w->seen_mirror));
	w->seen_generation = r->generation;
}

/* Cancelled, and all is said that will be. */
static void check_told(struct world *w)
{
	const struct volume *b = &w->b;

	if (w->must_tell && w->call == CALL_NONE && !w->wants_end && w->asking == NO_LINK && !w->a.is_busy && b->exists &&
	    !b->is_busy && strcmp(b->rec.mirror, w->a.rec.mirror) == 0 && w->a.rec.state == COMMIT_OWNED &&
	    (b->rec.state == COMMIT_ELIGIBLE || b->rec.state == COMMIT_RECEIVING))
		world_break(w, "a mirror was cancelled, and its far side not told, though there was a link");
}

void oracle_step(struct world *w)
{
	check_generation(w);
	check_told(w);
	if (w->a.rec.state == COMMIT_GIVEN && (!w->b.exists || strcmp(w->b.durable.mirror, w->a.rec.mirror) != 0))
		w->has_forgotten = true;
	if (is_writing(&w->a) && is_writing(&w->b) && !w->is_held)
		world_break(w, "two guests may write");
	if (w->a.exists && w->b.exists && w->a.rec.state == COMMIT_OWNED && w->b.rec.state == COMMIT_OWNED &&
	    w->b.rec.role == COMMIT_ROLE_FAR && w->a.rec.epoch == w->b.rec.epoch)
		world_break(w, "two owners of one epoch");
	if (w->b.exists && w->b.is_guest_active && w->b.rec.state != COMMIT_OWNED)
		world_break(w, "a guest runs on a disk that is not its host's");
	if (!commit_record_is_valid(&w->a.rec) || !commit_record_is_valid(&w->b.rec))
		world_break(w, "a record is not valid");
}

/* Nobody can be started: the three ends without an owner. B must not be what the admin's word without force gives. */
static void judge_ownerless(struct world *w)
{
	struct commit_verdict take = commit_take(&w->a.rec, false);

	if (!w->a.exists || take.does != COMMIT_ALLOW) {
		world_break(w, "nobody owns the disk, and no word of an admin helps");
		return;
	}
	if (w->is_asked && w->call == CALL_NONE && w->b.exists && !w->has_forgotten)
		world_break(w, "an admin was needed, and a link could have told");
	if (w->disk_a != w->truth)
		world_break(w, "the admin's word gives a disk that lacks an acknowledged write");
	if (w->b.exists && w->b.rec.role == COMMIT_ROLE_FAR && commit_take(&w->b.rec, false).does == COMMIT_ALLOW)
		world_break(w, "the admin's word is ambiguous");
	if (!w->b.exists)
		w->tally[TALLY_ADMIN_GIVEN]++;
	else if (w->b.rec.state == COMMIT_RELEASED)
		w->tally[TALLY_ADMIN_RELEASED]++;
	else
		w->tally[TALLY_ADMIN_RECLAIMED]++;
}

/* Offered with a group: what is decided is to be done, and needs no word. Nothing decided is "cancel". */
static void judge_doubt(struct world *w)
{
	bool is_linked = source_link(w) != NO_LINK && !source_is_asking(w) && w->call == CALL_NONE;

	w->tally[TALLY_DOUBT]++;
	if (w->disk_a != w->truth || (w->b.exists && w->b.rec.state == COMMIT_ELIGIBLE && w->cache_b != w->truth))
		world_break(w, "a disk in doubt is not whole");
	if (is_linked && w->b.exists && strcmp(w->b.rec.mirror, w->a.rec.mirror) == 0 && w->base == w->offered_base)
		world_break(w, "a disk stays in doubt, and a link could have told");
}

/* given here, eligible there: both are whole, and either may be taken. */
static void judge_either(struct world *w)
{
	w->tally[TALLY_EITHER]++;
	if (commit_take(&w->a.rec, false).does != COMMIT_ALLOW || commit_take(&w->b.rec, false).does != COMMIT_ALLOW)
		world_break(w, "one of the two cannot be taken");
	if (w->disk_a != w->truth || w->cache_b != w->truth)
		world_break(w, "one of the two is not whole");
}

void oracle_end(struct world *w)
{
	bool can_a = w->a.exists && (w->a.is_guest_active ? w->a.rec.state == COMMIT_OWNED
							  : commit_activate(&w->a.rec, &guest).does == COMMIT_ALLOW);
	bool can_b = w->b.exists && w->b.rec.role == COMMIT_ROLE_FAR && commit_activate(&w->b.rec, &guest).does == COMMIT_ALLOW;

	if (w->a.exists && w->a.rec.state == COMMIT_OFFERED && w->a.rec.group[0] && group_is_committed(w)) {
		judge_doubt(w);
		return;
	}
	if (w->a.exists && w->a.rec.state == COMMIT_OFFERED && w->a.rec.group[0])
		can_a = true;
	if (can_a && w->disk_a != w->truth && !(can_b && w->b.is_guest_active))
		world_break(w, "the source may be started and lacks an acknowledged write");
	if (can_b && !can_a && w->cache_b != w->truth)
		world_break(w, "the far side may be started and lacks an acknowledged write");
	if (!can_a && !can_b && w->is_deleted)
		return;
	if (!can_a && !can_b)
		judge_ownerless(w);
	else if (!can_a && w->a.exists && w->b.rec.state == COMMIT_ELIGIBLE)
		judge_either(w);
}
