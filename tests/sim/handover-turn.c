/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover-turn - the way back: the move is over, A's disk, which was given, may receive again, and only what changed goes there
 *
 *      B eligible     a log of its changes begins                       too late where a guest has it already
 *      B's guest runs, A given      commit_drop(A), durable -> the world is turned round: B is A now, and A is B
 *
 * What the log does not know of is taken for what the base has. Whoever asks for the drop has read that the move is over at some
 * moment, and comes when he comes; nobody else sends to the base before the mirror has its first link.
 */
#include <string.h>

#include "tests/sim/handover.h"

void turn_track(struct world *w)
{
	const struct commit_record *r = &w->b.rec;

	if (!w->b.exists || w->b.is_busy || r->role != COMMIT_ROLE_FAR || strcmp(w->logged, r->mirror) == 0)
		return;
	if (r->state != COMMIT_ELIGIBLE && !(PLANTED(BUG_CALLER_LOG_LATE) && r->state == COMMIT_OWNED))
		return;
	memcpy(w->logged, r->mirror, sizeof(w->logged));
	w->logged_value = w->cache_b;
}

/* A log that began late says nothing of what was written before. */
static bool has_log(const struct world *w)
{
	bool is_clean = w->logged_value == w->cache_b || PLANTED(BUG_CALLER_LOG_LATE);

	return strcmp(w->logged, w->b.rec.mirror) == 0 && is_clean;
}

/* What is between them, and what was asked of either, is of the move that is over. */
static void forget_move(struct world *w)
{
	for (unsigned i = 0; i < LINKS; i++) {
		source_close(w, i);
		far_close(w, i);
		w->links[i].has_pending = false;
	}
	w->call = CALL_NONE;
	w->phase = PHASE_BEGIN;
	w->is_waiting = w->is_starting = w->is_destroying = w->is_moved = w->is_right = w->is_try = false;
	w->is_recalling = w->is_promised = w->has_forgotten = w->has_lied = w->is_deleted = w->is_held = false;
	w->offered = 0;
	w->dropping[0] = '\0';
}

static void turned(struct world *w)
{
	const uint64_t value = w->disk_a;
	struct volume source;
	bool is_based;

	if (w->b.is_busy)
		world_persist(w, &w->b);
	if (!w->b.exists)
		return;
	source = w->a;
	is_based = has_log(w);
	w->tally[TALLY_TURNED]++;
	forget_move(w);
	w->a = w->b;
	w->b = source;
	w->disk_a = w->cache_b;
	w->cache_b = w->disk_b = value;
	w->boot_b++;
	w->volumes++;
	source_begin(w);
	w->is_still = w->is_idle;
	w->is_based = is_based;
	w->acked = is_based ? w->disk_a : 0;
	w->tally[TALLY_BASED] += is_based;
}

static bool is_over(const struct world *w)
{
	return w->a.exists && w->b.exists && w->a.rec.state == COMMIT_GIVEN && w->b.is_guest_active &&
	       w->b.rec.role == COMMIT_ROLE_FAR && strcmp(w->a.rec.mirror, w->b.rec.mirror) == 0;
}

/* He was told, and comes later: it may be another disk by then. */
void turn_act(struct world *w)
{
	struct commit_verdict v;

	if (is_over(w) && !w->dropping[0])
		memcpy(w->dropping, w->a.rec.mirror, sizeof(w->dropping));
	if (!w->dropping[0] || !w->a.exists || w->a.is_busy || w->call != CALL_NONE)
		return;
	v = commit_drop(&w->a.rec);
	if (v.does != COMMIT_ALLOW || strcmp(w->dropping, w->a.rec.mirror) != 0)
		w->dropping[0] = '\0';
	else if (is_over(w) && !w->b.is_busy)
		world_decide(w, &w->a, &v, turned, BUG_NONE);
}
