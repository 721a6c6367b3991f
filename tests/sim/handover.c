/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover - the world: records becoming durable, links, faults, one random step
 *
 * A step picks one of the things that can happen now and lets it happen whole: a record becomes durable, a message arrives, a
 * verb goes on, a process dies.  So every interleaving of whole steps can come up, and a crash can come between any two.
 */
#include <stdio.h>
#include <string.h>

#include "tests/sim/handover.h"

#ifdef PLANT
enum commit_bug commit_planted;
#endif

uint64_t world_dice(uint64_t *state, uint64_t n)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (z ^ (z >> 31)) % n;
}

uint64_t world_roll(struct world *w, uint64_t n)
{
	return world_dice(&w->random, n);
}

void world_break(struct world *w, const char *why)
{
	if (!w->broken)
		w->broken = why;
}

/* One line for each step that changed what is told. */
void world_trace(const struct world *w, const char *what)
{
	static char last[400];
	const struct commit_record *a = &w->a.rec, *b = &w->b.rec;
	char text[400];

	if (!w->is_traced)
		return;
	snprintf(text, sizeof(text),
		 "A %-9s %llu g%llu%s%s%s%s%s disk %llu verb %d/%d | B %-10s %llu g%llu%s%s disk %llu/%llu | %llu%s%s%s",
		 w->a.exists ? commit_state_name(a->state) : "gone", (unsigned long long)a->epoch,
		 (unsigned long long)a->generation, w->a.is_guest_active ? " guest" : "", w->a.is_busy ? " busy" : "",
		 a->is_told ? " told" : "", a->is_raised ? " raised" : "", a->is_ended ? " ended" : "",
		 (unsigned long long)w->disk_a, w->call, w->phase, w->b.exists ? commit_state_name(b->state) : "gone",
		 (unsigned long long)b->epoch, (unsigned long long)b->generation, w->b.is_guest_active ? " guest" : "",
		 w->b.is_busy ? " busy" : "", (unsigned long long)w->cache_b, (unsigned long long)w->disk_b,
		 (unsigned long long)w->truth, w->is_complete ? " complete" : "", w->is_success ? " success" : "",
		 w->is_off ? " off" : "");
	if (strcmp(last, text) != 0)
		printf("%-12s %s\n", what, text);
	strcpy(last, text);
}

void world_put(struct queue *q, const struct message *m)
{
	assert(q->count < QUEUE);
	q->m[q->count++] = *m;
}

struct message world_take(struct queue *q)
{
	struct message m = q->m[0];

	memmove(q->m, q->m + 1, --q->count * sizeof(m));
	return m;
}

/* --- records */

void world_decide(struct world *w, struct volume *x, const struct commit_verdict *v, then_fn *then, enum commit_bug late)
{
	assert(!x->is_busy);
	x->verdict = *v;
	if (!v->is_changed) {
		then(w);
		return;
	}
	x->next = v->next;
	x->then = then;
	x->is_late = late != BUG_NONE && PLANTED(late);
	x->is_busy = !x->is_late;
	if (x->is_late) {
		x->rec = v->next;
		then(w);
	}
}

void world_persist(struct world *w, struct volume *x)
{
	x->rec = x->durable = x->next;
	x->is_busy = false;
	x->then(w);
}

static void persist_late(struct world *w, struct volume *x)
{
	if (!x->is_late || world_roll(w, 100))
		return;
	x->durable = x->next;
	x->is_late = false;
}

/* What was being written may have got there. */
static void crash(struct world *w, struct volume *x)
{
	if (x->is_busy && world_roll(w, 2))
		x->durable = x->next;
	x->is_busy = x->is_late = false;
}

/* --- the orchestrator */

/* It ignores errors, and even so does not do the one thing that nobody could make safe. */
static bool may_try_b(const struct world *w)
{
	return w->b.exists && w->b.rec.role == COMMIT_ROLE_FAR && !w->is_promised &&
	       !(w->b.rec.state == COMMIT_ELIGIBLE && w->b.rec.epoch <= w->offered) && !w->b.is_busy;
}

static void start_b(struct world *w, bool is_right)
{
	if (w->is_starting || !w->b.exists)
		return;
	w->is_starting = true;
	w->is_right = is_right;
	w->is_try = !is_right;
}

static void cancel(struct world *w)
{
	if ((w->is_starting && w->is_right) || !w->b.exists || w->b.rec.role != COMMIT_ROLE_FAR ||
	    w->b.rec.state == COMMIT_OWNED || !w->a.exists || w->call == CALL_DESTROY)
		return;
	w->is_cancelled = true;
	w->is_success = false;
	w->is_destroying = true;
}

static void stop_waiting(struct world *w)
{
	if (w->is_waiting && w->call == CALL_DEACTIVATE)
		w->is_off = true;
	w->is_waiting = false;
	w->is_right = false;
	w->is_success = w->is_success && !w->is_starting;
}

static void make_new(struct world *w)
{
	if (!w->b.exists && w->a.rec.state == COMMIT_OWNED) {
		w->b = (struct volume){ .exists = true };
		w->volumes++;
		commit_record_init(&w->b.rec);
		w->b.durable = w->b.rec;
		w->cache_b = w->disk_b = 0;
	}
	if (w->call == CALL_NONE && w->a.is_guest_active && !w->b.is_guest_active && commit_is_over(&w->a.rec))
		source_begin(w);
}

static void verb_on_a(struct world *w)
{
	if (!w->a.exists || w->call != CALL_NONE || w->is_moved)
		return;
	switch (world_roll(w, 4)) {
	case 0:
	case 1:
		if (!w->a.is_guest_active || (w->is_starting && w->is_right))
			break;
		w->is_starting = false; /* of an older move */
		source_call(w, CALL_DEACTIVATE);
		break;
	case 2:
		if (w->a.is_guest_active || (w->is_starting && w->is_right))
			break;
		source_call(w, CALL_ACTIVATE);
		break;
	default:
		if (!w->a.is_guest_active && w->a.rec.state == COMMIT_OWNED && !w->a.rec.is_told && w->is_live)
			source_call(w, CALL_SETTLE);
	}
}

/* Data.cancel. Of what is given it does nothing, and whoever asks does not hear that. */
static void data_cancel(struct world *w)
{
	if (w->call == CALL_NONE ? world_roll(w, w->mood == 2 ? 4 : 40) : world_roll(w, 3))
		return;
	if (w->a.rec.state != COMMIT_GIVEN && !(w->is_starting && w->is_right)) {
		w->is_cancelled = true;
		w->is_success = false;
	}
	source_cancel(w);
}

/* The move is done, or is thought to be. */
static void destroy_a(struct world *w)
{
	bool is_thought_done = w->is_success || (w->is_off && w->is_complete && w->was_raised);

	if (w->a.exists && !w->a.is_busy && w->call == CALL_NONE && (is_thought_done || w->b.is_guest_active) &&
	    !w->is_destroying && !w->dropping[0] && (w->b.exists || !w->is_success))
		source_call(w, CALL_DESTROY);
}

/* After a success it is xapi's finalise; before one it is the end of the move. */
static void deactivate_mir(struct world *w)
{
	if (!w->b.exists || w->b.is_busy || (!w->is_success && world_roll(w, 200)))
		return;
	w->is_cancelled = w->is_cancelled || !w->is_success;
	far_give_up(w);
}

/* The guest was to be started on B, that took too long, now it shall run on A again. */
static void be_impatient(struct world *w)
{
	if (w->is_starting && w->is_right)
		stop_waiting(w);
	else if (w->is_starting && !world_roll(w, 4))
		cancel(w);
	else if (w->is_success)
		start_b(w, true);
	else if (w->a.exists && w->call == CALL_NONE && !w->is_moved && !w->a.is_guest_active && w->is_starting)
		source_call(w, CALL_ACTIVATE);
}

/* A move by hand: its command, and who wants something of it. */
static void by_hand(struct world *w)
{
	if (w->is_moved)
		turn_act(w);
	else if (world_roll(w, 2))
		turn_track(w);
	else
		person_act(w);
}

static void orchestrate(struct world *w)
{
	if (w->mood == 1 && world_roll(w, 2)) {
		be_impatient(w);
		return;
	}
	switch (world_roll(w, 15)) {
	case 0: case 1: case 2: case 3:
		if (w->group && w->a.is_guest_active && world_roll(w, 8))
			break; /* it is to go with the others */
		if (w->is_complete || !w->a.is_guest_active || !world_roll(w, 60))
			verb_on_a(w);
		break;
	case 4: case 5:
		if (w->is_success)
			start_b(w, true);
		break;
	case 6:
		if (may_try_b(w))
			start_b(w, false);
		break;
	case 7:
		if (!world_roll(w, w->mood == 2 ? 3 : 40))
			cancel(w);
		break;
	case 8:
		destroy_a(w);
		break;
	case 9:
		if (w->is_starting || !world_roll(w, 3))
			stop_waiting(w);
		break;
	case 10:
		deactivate_mir(w);
		break;
	case 11:
		data_cancel(w);
		break;
	case 12:
	case 13:
		if (!w->group)
			by_hand(w);
		break;
	default:
		if (!w->a.is_busy && w->a.exists)
			make_new(w);
	}
}

static unsigned pick_link(struct world *w)
{
	unsigned i = (unsigned)world_roll(w, LINKS), n = 0;

	while (!w->links[i].is_open_at_a && !w->links[i].is_open_at_b && n++ < LINKS)
		i = (i + 1) % LINKS;
	return i;
}

/* --- faults */

static void cut(struct world *w, unsigned link)
{
	uint64_t who = world_roll(w, 3);

	if (who != 0)
		source_close(w, link);
	if (who != 1 && w->links[link].is_open_at_b && !w->links[link].has_pending)
		far_close(w, link);
	if (w->b.exists && !w->b.is_busy && who != 1) {
		struct commit_verdict v = commit_far_lost(&w->b.rec);

		if (v.is_changed)
			w->b.rec = w->b.durable = v.next;
	}
}

/* One fault in how many chances: most where a record and an answer are under way. */
static uint64_t rarity(const struct world *w)
{
	if (w->phase == PHASE_COMMIT || w->phase == PHASE_RECLAIM)
		return 2;
	if (w->is_finished && !w->is_prepared)
		return 3;
	if (w->call != CALL_NONE || w->is_destroying || w->a.is_late || w->b.is_late || w->is_starting ||
	    w->a.rec.state != COMMIT_OWNED || w->b.rec.state == COMMIT_ELIGIBLE || w->b.rec.state == COMMIT_RELEASED)
		return w->calm;
	return w->calm * 4;
}

static void network(struct world *w)
{
	if (w->is_down) {
		w->is_down = world_roll(w, 3) != 0;
	} else if (!world_roll(w, 6)) {
		w->is_down = true;
		for (unsigned i = 0; i < LINKS; i++)
			cut(w, i);
	} else if (w->asking != NO_LINK && world_roll(w, 2)) {
		source_close(w, w->asking); /* B has not noticed yet */
	} else if (w->primary != NO_LINK && w->links[w->primary].is_sending && world_roll(w, 2)) {
		source_close(w, w->primary);
	} else {
		cut(w, pick_link(w));
	}
}

static void other(struct world *w)
{
	if (w->is_other_linked)
		w->is_other_linked = false;
	else if (w->b.exists && !w->b.is_busy && !w->is_based)
		far_other(w);
}

void world_crash_a(struct world *w, bool is_host)
{
	crash(w, &w->a);
	source_crash(w, is_host);
	w->is_down |= is_host && world_roll(w, 2);
}

static void fault(struct world *w)
{
	uint64_t what = w->faults && world_roll(w, 2) ? w->faults : 1 + world_roll(w, 4);

	if ((w->a.is_late || w->b.is_late) && !world_roll(w, 4)) /* planted: this is what it is about */
		what = w->a.is_late ? 2 : 3;
	if (w->is_finished && !w->is_prepared && world_roll(w, 2)) /* what goes now is not sent again */
		what = w->has_lost ? 2 : 3;
	if (what == 1) {
		network(w);
	} else if (what == 2) {
		bool is_host = !world_roll(w, 3);

		if (is_host && w->group)
			group_host_dies(w->group);
		else
			world_crash_a(w, is_host);
	} else if (what == 3) {
		crash(w, &w->b);
		far_crash(w, !world_roll(w, w->is_finished ? 2 : 3));
	} else {
		other(w);
	}
}

/* --- one step */

static bool is_receiving(const struct volume *x, bool is_open, const struct queue *q)
{
	return x->exists && is_open && q->count && !x->is_busy;
}

static void move_link(struct world *w, unsigned i)
{
	struct link *l = &w->links[i];

	if (!l->is_open_at_a && world_roll(w, 40)) /* nobody waits for it: it may take its time */
		return;
	if (l->has_pending && world_roll(w, 2))
		far_settle(w, i);
	else if (is_receiving(&w->a, l->is_open_at_a, &l->to_a) && world_roll(w, 2))
		source_receive(w, i);
	else if (is_receiving(&w->b, l->is_open_at_b, &l->to_b) && !l->has_pending)
		far_receive(w, i);
	else if (l->is_open_at_b && w->b.exists && !w->b.is_busy && world_roll(w, 2))
		far_news(w, i);
	else if (l->is_open_at_a && !l->is_open_at_b && !l->to_a.count)
		source_close(w, i);
	else if (l->is_open_at_b && !l->is_open_at_a && !l->to_b.count && !l->has_pending)
		far_close(w, i);
}

static void work_a(struct world *w)
{
	if (!w->a.exists || w->a.is_busy)
		return;
	switch (world_roll(w, 8)) {
	case 0:
		if (!w->is_still || !world_roll(w, 50))
			source_write(w);
		break;
	case 1: case 2:
		source_send(w);
		break;
	case 3:
		source_tell(w);
		break;
	case 4:
		source_end(w);
		break;
	default:
		if (w->call != CALL_NONE)
			source_work(w);
		else if (w->a.rec.state == COMMIT_OFFERED && w->a.rec.group[0])
			group_doubt(w);
	}
}

static void work_b(struct world *w)
{
	bool may_start = !w->b.is_busy || PLANTED(BUG_CALLER_RACES);

	if (!w->b.exists) {
		w->is_recalling = w->is_promised = false;
		return;
	}
	if (w->is_starting && w->is_try && !may_try_b(w))
		w->is_starting = false;
	else if (w->is_recalling && !w->b.is_busy && !world_roll(w, 4))
		person_recall(w);
	else if (w->is_starting && may_start && !world_roll(w, w->is_right || w->is_try ? 4 : 20))
		far_start(w);
	else if (w->is_destroying && !w->b.is_busy)
		far_destroy(w);
	else if (w->b.is_guest_active && w->b.rec.state == COMMIT_OWNED && (!w->is_idle || !world_roll(w, 50)))
		w->cache_b = w->disk_b = w->truth = ++w->clock;
}

/* While one connection is left, it is used for questions; a new generation comes when none is, or at random. */
static void connect(struct world *w)
{
	bool is_linked = w->primary != NO_LINK || (source_link(w) != NO_LINK && !w->is_quiet);

	if (w->a.is_busy || !w->a.exists || w->is_down || (is_linked && (w->is_quiet || world_roll(w, w->calm))))
		return;
	source_connect(w, w->primary != NO_LINK && world_roll(w, 3));
}

static const char *step_one(struct world *w)
{
	uint64_t what = world_roll(w, 20);

	persist_late(w, &w->a);
	persist_late(w, &w->b);
	if (what < 4) {
		work_a(w);
		return "A";
	}
	if (what < 6) {
		work_b(w);
		return "B";
	}
	if (what < 9 && w->a.is_busy) {
		world_persist(w, &w->a);
		return "A durable";
	}
	if (what < 12 && w->b.is_busy) {
		world_persist(w, &w->b);
		return "B durable";
	}
	if (what == 15) {
		connect(w);
		return "connect";
	}
	if (what == 16 || what == 17) {
		if (!w->is_quiet)
			orchestrate(w);
		return "orchestrator";
	}
	if (what == 18) {
		if (!w->is_quiet && !world_roll(w, rarity(w)))
			fault(w);
		return "fault";
	}
	move_link(w, pick_link(w));
	return "link";
}

void world_step(struct world *w)
{
	const char *what = step_one(w);

	oracle_step(w);
	if (w->group)
		group_check(w->group);
	world_trace(w, what);
}

/* With links: they say what there is to say, and the guest is to run on A if it does not run anywhere. */
static void end_linked(struct world *w)
{
	for (unsigned i = 0; i < 900 && !w->broken; i++) {
		if (i >= 300 && i < 600 && !w->is_asked && w->a.exists && w->call == CALL_NONE && !w->a.is_busy &&
		    !w->a.is_guest_active && !w->b.is_guest_active && !w->is_starting && !w->is_destroying) {
			w->is_asked = true;
			source_call(w, CALL_ACTIVATE);
		}
		world_step(w);
	}
}

static void end_alone(struct world *w)
{
	if (w->a.is_busy)
		world_persist(w, &w->a);
	if (w->b.is_busy)
		world_persist(w, &w->b);
	crash(w, &w->a);
	source_crash(w, false);
}

/* Nothing breaks any more, nobody wants anything new; what is under way ends, with links or without. */
void world_end(struct world *w)
{
	w->is_quiet = true;
	w->is_down = false;
	for (unsigned i = 0; i < LINKS; i++) {
		far_settle(w, i);
		source_close(w, i);
		far_close(w, i);
	}
	if (world_roll(w, 2))
		end_linked(w);
	else
		end_alone(w);
	world_trace(w, "the end");
	if (!w->broken)
		oracle_end(w);
}

void world_begin(struct world *w, uint64_t seed)
{
	bool is_traced = w->is_traced;

	memset(w, 0, offsetof(struct world, tally));
	memset((char *)w + offsetof(struct world, a), 0, sizeof(*w) - offsetof(struct world, a));
	w->is_traced = is_traced;
	w->random = seed * UINT64_C(0x2545f4914f6cdd1d) + 7;
	w->primary = w->asking = w->early = NO_LINK;
	w->a.exists = w->b.exists = true;
	commit_record_init(&w->a.rec);
	commit_record_init(&w->b.rec);
	w->a.rec.epoch = 1 + world_roll(w, 3);
	w->a.rec.was_written = w->a.is_guest_active = true;
	w->a.durable = w->a.rec;
	w->b.durable = w->b.rec;
	w->disk_a = w->truth = ++w->clock;
	w->boot_b = 1;
	w->calm = 3 + world_roll(w, 3) * 6;
	w->mood = world_roll(w, 3);
	w->faults = world_roll(w, 5);
	w->has_twins = world_roll(w, 2);
	w->is_idle = world_roll(w, 2);
	source_begin(w);
}

void world_run(struct world *w, uint64_t seed, unsigned steps)
{
	world_begin(w, seed);
	for (unsigned i = 0; i < steps && !w->broken; i++)
		world_step(w);
	if (!w->broken)
		world_end(w);
}
