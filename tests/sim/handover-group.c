/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover-group - two disks of A, handed over together: one decision, and who makes it
 *
 *      coordinator   prepare each -> all said yes: "commit", else "cancel" -> each is told -> when all followed it is removed
 *                    may die at any time; another one may be run with the same name
 *      disk          offered, with the name -> PREPARE -> yes, guests held -> told, or impatient: the decision
 *                        | commit: COMMIT -> given        | cancel: owned, e+2, the mirror goes on
 *                    its process may die at any time; the next one, or whatever verb comes, follows the decision
 *
 * The decision is a file on A: made by whoever comes first; seen at once by all, durable when one of them has synced it.  Each
 * disk has its own B and its own orchestrator, who does what he likes between; A's host dies with both disks and the coordinator.
 *
 * Besides what must hold for each disk: none goes back and none is given without the decision that says so, and never one of the
 * two by each.
 */
#include <stdio.h>
#include <string.h>

#include "base/decision.h"
#include "tests/sim/handover.h"

enum coordinator { COORDINATOR_NONE, COORDINATOR_PREPARES, COORDINATOR_HAS_DECIDED };

struct group {
	struct world disk[2];
	uint64_t random;
	char name[COMMIT_GROUP_MAX];
	unsigned names;
	enum decision visible, durable;
	enum coordinator coordinator;
	bool was_asked[2], has_said_yes[2], was_refused;
	bool has_gone[2], has_stayed[2]; /* the oracle's */
	bool is_told_about;        /* traced */
};

static struct group group;

static uint64_t roll(struct group *g, uint64_t n)
{
	return world_dice(&g->random, n);
}

static void trace(const struct group *g, const struct world *w, const char *what)
{
	static const char *const words[] = { "undecided", "commit", "cancel" };

	if (g->is_told_about)
		printf("  [%s %s: disk %d] %s\n", g->name, words[g->visible], w ? (int)(w - g->disk) : -1, what);
}

/* --- the decision */

static void make(struct group *g, enum decision want)
{
	if (g->visible == DECISION_NONE || PLANTED(BUG_CALLER_GROUP_OVERRULED))
		g->visible = want;
	trace(g, NULL, "decided");
}

/* Whoever acts on it has made it durable. */
static enum decision hear(struct group *g)
{
	if (!PLANTED(BUG_CALLER_GROUP_LATE))
		g->durable = g->visible;
	return g->visible;
}

bool group_is_committed(const struct world *w)
{
	return w->group && w->group->visible == DECISION_COMMIT;
}

/* --- a disk */

static void over(struct world *w)
{
	w->is_prepared = w->is_decided = w->must_look = w->must_fail = w->is_held = w->is_called_off = false;
	source_go_on(w);
	w->call = CALL_NONE;
	w->phase = PHASE_BEGIN;
}

static void refuse(struct world *w)
{
	struct group *g = w->group;

	g->was_refused = true;
	g->has_stayed[w - g->disk] |= g->visible == DECISION_NONE;
}

/* A mirror that failed says no END: the next deactivation is to raise, and would not if the far side said that it has ended. */
static void went_on(struct world *w)
{
	bool is_called_off = w->is_called_off;
	struct commit_verdict v;

	if (!w->was_prepared)
		refuse(w);
	w->is_live = w->is_live && !w->must_fail && !commit_is_over(&w->a.rec);
	over(w);
	if (!is_called_off)
		return;
	w->tally[TALLY_CANCELLED]++;
	v = commit_source_settle(&w->a.rec);
	world_decide(w, &w->a, &v, source_settled, BUG_NONE);
}

static void withdraw(struct world *w, then_fn *then)
{
	struct commit_verdict v = commit_source_withdraw(&w->a.rec);

	trace(w->group, w, "withdraws");
	world_decide(w, &w->a, &v, then, BUG_NONE);
}

static void offered(struct world *w)
{
	source_offered(w);
	w->is_in_group = true;
	w->was_prepared = false;
	w->offered_base = w->base;
}

static void begin(struct world *w)
{
	const struct commit_record *r = &w->a.rec;

	if (!w->a.is_guest_active || !w->is_live || r->state != COMMIT_OWNED || !r->is_told || commit_is_over(r) ||
	    w->group->visible != DECISION_NONE) {
		refuse(w);
		over(w);
		return;
	}
	w->is_held = true;
	w->phase = PHASE_SYNC;
}

static void prepare(struct world *w, unsigned link)
{
	struct commit_verdict v;

	w->is_finished |= source_is_synced(w);
	source_prepare_early(w);
	if (w->must_fail || w->is_called_off || commit_is_over(&w->a.rec) || !world_roll(w, w->primary == NO_LINK ? 10 : 200)) {
		withdraw(w, went_on);
	} else if (source_is_asking(w) || link == NO_LINK || !source_is_synced(w)) {
		return;
	} else if (w->a.rec.state == COMMIT_OFFERED) {
		source_prepare(w);
	} else {
		v = commit_source_offer_in(&w->a.rec, w->group->name);
		if (v.does == COMMIT_ALLOW)
			world_decide(w, &w->a, &v, offered, BUG_NONE);
		else
			w->must_fail = true;
	}
}

static void look(struct world *w)
{
	struct group *g = w->group;
	bool is_impatient = w->is_quiet || !world_roll(w, 100);

	if (!w->must_look && !is_impatient)
		return;
	w->must_look = false;
	if (is_impatient && PLANTED(BUG_CALLER_GROUP_ABSENCE) && g->visible == DECISION_NONE) {
		withdraw(w, went_on);
		return;
	}
	if (is_impatient)
		make(g, DECISION_CANCEL);
	if (hear(g) == DECISION_CANCEL)
		withdraw(w, went_on);
	else
		w->is_decided = g->visible == DECISION_COMMIT;
}

static void ask_commit(struct world *w, unsigned link)
{
	source_ask(w, link, ASK_COMMIT);
	w->phase = PHASE_COMMIT;
}

/* Where COMMIT cannot be had, it is left: nobody is served. */
static void follow(struct world *w, unsigned link)
{
	if (w->must_fail || (link == NO_LINK && !world_roll(w, 10)))
		over(w);
	else if (link != NO_LINK && !source_is_asking(w) && w->base == w->offered_base) /* else something came in between */
		ask_commit(w, link);
}

void group_work(struct world *w)
{
	unsigned link = source_link(w);

	if (w->phase == PHASE_BEGIN) {
		begin(w);
	} else if (w->phase != PHASE_SYNC) {
		return;
	} else if (w->a.rec.state == COMMIT_GIVEN) {
		w->a.is_guest_active = false;
		w->is_success = w->is_complete && !w->is_off && !w->is_cancelled;
		over(w);
	} else if (!w->is_prepared) {
		prepare(w, link);
	} else if (w->a.rec.state == COMMIT_OWNED) { /* the far side ended it */
		went_on(w);
	} else if (!w->is_decided) {
		look(w);
	} else {
		follow(w, link);
	}
}

static void taken_up(struct world *w)
{
	w->is_live = !commit_is_over(&w->a.rec);
}

void group_doubt(struct world *w)
{
	struct group *g = w->group;
	unsigned link = source_link(w);

	if (PLANTED(BUG_CALLER_GROUP_ABSENCE) && g->visible == DECISION_NONE) {
		withdraw(w, taken_up);
		return;
	}
	make(g, DECISION_CANCEL);
	if (hear(g) == DECISION_CANCEL)
		withdraw(w, taken_up);
	else if (link != NO_LINK && !source_is_asking(w) && w->base == w->offered_base)
		ask_commit(w, link);
}

/* --- the coordinator */

static bool is_prepared_by_all(const struct group *g)
{
	const bool *yes = g->has_said_yes;

	return PLANTED(BUG_CALLER_GROUP_UNPREPARED) ? yes[0] || yes[1] : yes[0] && yes[1];
}

static bool is_free(const struct world *w)
{
	return w->a.exists && w->call == CALL_NONE && !w->a.is_busy && !w->is_in_group;
}

static bool may_begin(const struct group *g)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct world *w = &g->disk[i];

		if (!is_free(w) || w->is_quiet || (w->is_starting && w->is_right) || w->is_moved)
			return false;
	}
	return true;
}

static void begin_asking(struct group *g)
{
	g->was_asked[0] = g->was_asked[1] = g->was_refused = false;
	g->has_said_yes[0] = g->has_said_yes[1] = false;
	g->coordinator = COORDINATOR_PREPARES;
}

static void new_name(struct group *g)
{
	snprintf(g->name, sizeof(g->name), "g%u", ++g->names);
	g->visible = g->durable = DECISION_NONE;
	begin_asking(g);
	memset(g->has_gone, 0, sizeof(g->has_gone));
	memset(g->has_stayed, 0, sizeof(g->has_stayed));
	trace(g, NULL, "begins");
}

static void ask_disk(struct group *g, unsigned i)
{
	struct world *w = &g->disk[i];

	if (w->is_prepared || g->was_asked[i] || !is_free(w) || (w->is_starting && w->is_right))
		return;
	w->is_starting = false;
	w->was_prepared = false;
	w->call = CALL_PREPARE;
	w->phase = PHASE_BEGIN;
	w->must_fail = w->is_waiting = false;
	g->was_asked[i] = true;
	trace(g, w, "is asked to prepare");
}

static void work_prepares(struct group *g)
{
	for (unsigned i = 0; i < 2; i++) {
		const struct world *w = &g->disk[i];

		if (g->was_asked[i] && !g->has_said_yes[i] && !w->is_prepared && w->call != CALL_PREPARE)
			g->was_refused = true; /* its process died */
		ask_disk(g, i);
		g->has_said_yes[i] |= w->is_prepared;
	}
	if (is_prepared_by_all(g))
		make(g, DECISION_COMMIT);
	else if (g->was_refused || !roll(g, 100))
		make(g, DECISION_CANCEL);
	else
		return;
	g->coordinator = COORDINATOR_HAS_DECIDED;
}

static void work_decided(struct group *g)
{
	unsigned followed = 0;

	hear(g);
	for (unsigned i = 0; i < 2; i++) {
		struct world *w = &g->disk[i];

		w->must_look |= w->is_prepared;
		followed += !w->is_in_group && w->call != CALL_PREPARE;
	}
	if (followed < 2 && !(PLANTED(BUG_CALLER_GROUP_REMOVED) && followed))
		return;
	g->visible = g->durable = DECISION_NONE;
	g->coordinator = COORDINATOR_NONE;
	trace(g, NULL, "is removed");
}

static void coordinate(struct group *g)
{
	if (g->coordinator != COORDINATOR_NONE && !roll(g, 60)) {
		g->coordinator = COORDINATOR_NONE;
		trace(g, NULL, "coordinator dies");
	}
	switch (g->coordinator) {
	case COORDINATOR_NONE:
		if (may_begin(g) && !roll(g, 8)) {
			new_name(g);
		} else if ((g->disk[0].is_in_group || g->disk[1].is_in_group) && !roll(g, 20)) { /* it is run again */
			begin_asking(g);
		}
		break;
	case COORDINATOR_PREPARES:
		work_prepares(g);
		break;
	case COORDINATOR_HAS_DECIDED:
		work_decided(g);
		break;
	}
}

void group_host_dies(struct group *g)
{
	g->visible = g->durable;
	g->coordinator = COORDINATOR_NONE;
	for (unsigned i = 0; i < 2; i++)
		world_crash_a(&g->disk[i], true);
	trace(g, NULL, "host dies");
}

/* --- what must hold */

static void went_back(struct group *g, struct world *w)
{
	if (w->was_prepared && commit_is_over(&w->a.rec)) { /* there, it was given up: torn, and the log says so */
		w->tally[TALLY_TORN]++;
		return;
	}
	if (w->was_prepared && g->visible != DECISION_CANCEL)
		world_break(w, "a disk of a group went back, and no decision says so");
	w->tally[TALLY_STAYED]++;
	g->has_stayed[w - g->disk] = true;
}

static void check_disk(struct group *g, struct world *w)
{
	if (w->is_prepared)
		g->has_stayed[w - g->disk] = false; /* it had failed before, and was asked again */
	if (!w->is_in_group || w->a.is_busy || w->a.rec.state == COMMIT_OFFERED)
		return;
	w->is_in_group = false;
	if (w->a.rec.state == COMMIT_OWNED) {
		went_back(g, w);
		return;
	}
	if (g->visible != DECISION_COMMIT)
		world_break(w, "a disk of a group was given, and no decision says so");
	w->tally[TALLY_GONE]++;
	g->has_gone[w - g->disk] = true;
}

void group_check(struct group *g)
{
	for (unsigned i = 0; i < 2; i++)
		check_disk(g, &g->disk[i]);
	if ((g->has_gone[0] && g->has_stayed[1]) || (g->has_gone[1] && g->has_stayed[0]))
		world_break(&g->disk[0], "one disk of a group moved, and the other did not");
}

static const char *broken(const struct group *g)
{
	return g->disk[0].broken ? g->disk[0].broken : g->disk[1].broken;
}

const uint64_t *group_tally(void)
{
	static uint64_t sum[TALLY_COUNT];

	for (unsigned i = 0; i < TALLY_COUNT; i++)
		sum[i] = group.disk[0].tally[i] + group.disk[1].tally[i];
	return sum;
}

const char *group_run(uint64_t seed, unsigned steps, bool is_traced)
{
	struct group *g = &group;

	for (unsigned i = 0; i < 2; i++) {
		g->disk[i].is_traced = is_traced;
		world_begin(&g->disk[i], seed * 2 + i);
		g->disk[i].group = g;
		g->disk[i].calm *= 1 + seed % 3; /* it takes two */
	}
	g->random = seed;
	g->is_told_about = is_traced;
	g->visible = g->durable = DECISION_NONE;
	g->names = 0;
	g->coordinator = COORDINATOR_NONE;
	new_name(g);
	g->coordinator = COORDINATOR_NONE;
	for (unsigned i = 0; i < steps && !broken(g); i++) {
		if (roll(g, 8))
			world_step(&g->disk[roll(g, 2)]);
		else
			coordinate(g);
		group_check(g);
	}
	g->coordinator = COORDINATOR_NONE;
	for (unsigned i = 0; i < 2 && !broken(g); i++)
		world_end(&g->disk[i]);
	return broken(g);
}
