/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * schedule - a random history of one mirror, and the shortest one that still breaks a law
 *
 *      the world's seed --> disks, bounds, what the far side can, how often things fail
 *      event, event ... --> guests write, legs end in any order, time passes, the link comes and goes, barriers
 *      then, always:        the far side stands still, and every guest must be answered by the local disk alone;
 *                           all is well again, and a barrier must bring both disks together;
 *                           the end, and every operation must come back.
 */
#include "tests/sim/schedule.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum mishap { LOCAL_FAILS, READ_FAILS, FAR_FAILS, FLUSH_FAILS, MARK_FAILS, HOME_FLUSH_FAILS, MISHAPS };

/* What the schedule knows of its world beyond the disks. */
struct weather {
	unsigned one_in[MISHAPS]; /* 0: never */
	unsigned far_weight, guest_weight;
	unsigned deaths_one_in;   /* the process is killed, or the host: one event of so many of its kind; 0: never */
	unsigned hot_chunks;      /* guests write to this many, mostly */
	bool is_early;            /* the link is there from the start */
	unsigned flaps_one_in;    /* the link is lost: one event of so many of its kind */
	bool is_slow;             /* time passes in seconds: many flushes */
	bool is_held;             /* a barrier: guests are held */
	bool had_read_error;
};

bool schedule_has_zombies;

static uint64_t mix(uint64_t seed, uint64_t n)
{
	struct sim dice = { .random = seed * UINT64_C(0x2545f4914f6cdd1d) + n };

	return sim_dice(&dice, UINT64_MAX);
}

void schedule_make(struct schedule *s, uint64_t seed)
{
	s->seed = seed;
	s->count = 20 + (unsigned)(mix(seed, 1) % 140);
	for (unsigned i = 0; i < s->count; i++)
		s->events[i] = mix(seed, 1000 + i);
}

#define PICK(w, ...) ({ static const uint64_t of_[] = { __VA_ARGS__ }; of_[sim_dice(w, ARRAY_LEN(of_))]; })

static void make_world(struct sim_params *p, struct weather *weather, uint64_t seed)
{
	static struct sim dice;
	struct sim *w = &dice;

	w->random = mix(seed, 2);
	*p = (struct sim_params){ .seed = mix(seed, 3) };
	p->far = (struct core_far){
		.generation = 1 + sim_dice(w, 3),
		.min_block_bytes = (uint32_t)PICK(w, 1, 1, 512, 4096),
		.max_bytes = (uint32_t)PICK(w, 4096, 16384, 1048576),
		.can_zero = sim_dice(w, 4) != 0,
		.can_flush = sim_dice(w, 4) != 0,
		.can_reconnect = sim_dice(w, 3) != 0,
		.window_ops = (unsigned)PICK(w, 1, 2, 3, 8, 64),
	};
	p->spec = (struct core_spec){
		.size_bytes = (1 + sim_dice(w, sim_dice(w, 4) ? 8 : 40)) * CORE_CHUNK_BYTES,
		.lag_bytes = PICK(w, 4096, 8192, 32768, 262144, 16777216),
		.lag_ms = (uint32_t)PICK(w, 1, 50, 1000000, 1000000),
		.debt_ms = (uint32_t)PICK(w, 1, 1000),
		.trim_reads_zero = sim_dice(w, 2),
		.is_copy = sim_dice(w, 6) == 0,
		.no_progress_ms = 2000,
		.is_sync = sim_dice(w, 3) == 0,
		.keeps_link = sim_dice(w, 2),
		.region_bytes = PICK(w, 4096, 8192, 16384),
		.keep_mark_ms = (uint32_t)PICK(w, 1, 1, 1500),
		.mark_ahead_after = (uint32_t)PICK(w, 1, 3, 32),
	};
	p->has_map = !p->spec.is_copy && sim_dice(w, 3);
	p->spec.keeps_link = p->spec.keeps_link && !p->spec.is_copy;
	if (p->far.min_block_bytes < 4096 && sim_dice(w, 4) == 0)
		p->spec.size_bytes -= SIM_SECTOR * sim_dice(w, 8);
	p->dirty_percent = (unsigned)PICK(w, 0, 30, 70, 100);
	p->pristine_percent = (unsigned)PICK(w, 0, 50, 100);

	*weather = (struct weather){
		.far_weight = (unsigned)PICK(w, 3, 12, 30, 30),
		.guest_weight = (unsigned)PICK(w, 10, 30, 30, 50),
		.hot_chunks = (unsigned)PICK(w, 1, 2, 4, 64),
		.is_early = sim_dice(w, 4) != 0,
		.flaps_one_in = (unsigned)PICK(w, 2, 6, 20),
		.deaths_one_in = p->has_map ? (unsigned)PICK(w, 0, 2, 5) : 0,
		.is_slow = sim_dice(w, 3) == 0,
	};
	for (unsigned i = 0; i < MISHAPS; i++)
		weather->one_in[i] = sim_dice(w, i == FLUSH_FAILS && weather->is_slow ? 2 : 4) ? 0 : (unsigned)PICK(w, 3, 10, 30);
	if (sim_dice(w, 4)) /* either is an operation's end */
		weather->one_in[MARK_FAILS] = weather->one_in[HOME_FLUSH_FAILS] = 0;
	p->far.flushes_last = sim_dice(w, 2);
}

static int mishap(struct sim *w, struct weather *weather, enum mishap which)
{
	bool is_so = weather->one_in[which] && sim_dice(w, weather->one_in[which]) == 0;

	if (is_so && which == READ_FAILS)
		weather->had_read_error = true;
	return is_so ? EIO : 0;
}

static void guest(struct sim *w, const struct weather *weather)
{
	uint64_t align = sim_dice(w, 8) ? MAX(w->params.far.min_block_bytes, SIM_SECTOR) : SIM_SECTOR;
	uint64_t size = w->params.spec.size_bytes, hot = MIN(size, weather->hot_chunks * (uint64_t)CORE_CHUNK_BYTES);
	struct range r;
	enum core_op_kind kind = (enum core_op_kind)PICK(w, CORE_WRITE, CORE_WRITE, CORE_WRITE, CORE_WRITE, CORE_ZERO, CORE_TRIM);
	bool is_zero = sim_dice(w, 5) == 0;

	if (sim_dice(w, 12) == 0) {
		sim_guest(w, CORE_FLUSH, (struct range){ 0, 0 }, false);
		return;
	}
	if (sim_dice(w, 20) == 0) {
		sim_guest_reads(w);
		return;
	}
	if (sim_dice(w, 3) == 0)
		align = CORE_CHUNK_BYTES;
	r.start = sim_dice(w, sim_dice(w, 5) ? hot : size) & ~(align - 1);
	r.end = r.start + PICK(w, 1, 1, 1, 2, 3, 8, 9, 24) * align;
	r = range_clip(r, (struct range){ 0, size });
	sim_guest(w, kind, r, kind == CORE_WRITE && is_zero);
}

static void link_event(struct sim *w, const struct weather *weather)
{
	enum core_state state = w->status.state;

	if (state == CORE_CONNECTING && w->params.has_map && !w->is_map_on) {
		sim_map_on(w);
	} else if ((state == CORE_CONNECTING || state == CORE_BROKEN) && (!w->params.has_map || w->status.is_map_ready)) {
		if (sim_dice(w, 20) == 0)
			sim_link_never(w, ECONNREFUSED);
		else if (state == CORE_BROKEN && sim_dice(w, 3) == 0)
			sim_far_crashes(w);
		else if (w->zombie_count && sim_dice(w, 2))
			sim_zombie_lands(w, (unsigned)sim_dice(w, w->zombie_count));
		else
			sim_link_up(w);
	} else if ((state == CORE_FAILED || state == CORE_ENDED) && w->is_map_on && !w->is_void && sim_dice(w, 4) == 0) {
		sim_voided(w);
	} else if (w->is_linked && w->zombie_count && w->params.has_zombies) {
		sim_zombie_lands(w, (unsigned)sim_dice(w, w->zombie_count));
	} else if (w->is_linked && sim_dice(w, weather->flaps_one_in) == 0) {
		while (w->away_count && sim_dice(w, 2) && sim_is_fine(w))
			sim_far_done(w, (unsigned)sim_dice(w, w->away_count), ESHUTDOWN);
		sim_link_down(w, ENOTCONN);
	}
}

static void barrier_event(struct sim *w, struct weather *weather)
{
	bool is_busy = false;

	for (unsigned i = 0; i < SIM_GUESTS_MAX; i++)
		is_busy = is_busy || w->guests[i].state == SIM_ARRIVED || w->guests[i].state == SIM_SUBMITTED;
	if (w->status.state == CORE_FINISHED && w->params.spec.keeps_link) {
		weather->is_held = false;
		sim_event(w, CORE_GO_ON, 0);
	} else if (sim_dice(w, 6) == 0) {
		sim_set_mode(w, !w->status.is_sync);
	} else if (weather->is_held && sim_dice(w, 4) == 0) {
		weather->is_held = false;
		sim_event(w, CORE_UNBARRIER, 0);
	} else if (!weather->is_held && !is_busy && sim_dice(w, 2)) {
		weather->is_held = true;
		sim_event(w, CORE_BARRIER, 0);
	} else if (sim_dice(w, 30) == 0) {
		sim_event(w, CORE_ABORT, 0);
	}
}

static void far_event(struct sim *w, struct weather *weather)
{
	unsigned i = (unsigned)sim_dice(w, w->away_count);

	if (sim_dice(w, 4) == 0)
		sim_far_applies(w, i);
	else
		sim_far_done(w, i, mishap(w, weather, FAR_FAILS));
}

static void death_event(struct sim *w, struct weather *weather)
{
	if (!weather->deaths_one_in || sim_dice(w, weather->deaths_one_in) ||
	    (w->status.state == CORE_FINISHED && !w->params.spec.keeps_link))
		return;
	weather->is_held = false;
	sim_dies(w, sim_dice(w, 2));
	if (sim_dice(w, 3) == 0)
		sim_far_crashes(w); /* one rack, one fuse */
}

/* What can happen, by weight; what cannot just now is time passing. */
static void happen(struct sim *w, struct weather *weather)
{
	struct { unsigned weight; bool can; } what[] = {
		{ weather->guest_weight, !weather->is_held && w->status.state != CORE_FINISHED },
		{ 25, w->home_count > 0 },
		{ 20, w->read_count > 0 },
		{ weather->far_weight, w->away_count > 0 },
		{ weather->far_weight / 3 + 1, w->is_flushing },
		{ 3, true }, { 3, true }, { 3, weather->deaths_one_in > 0 },
		{ 20, w->asked_count > 0 }, { 4, w->is_flushing_home }, { 8, true },
	};
	unsigned total = 0, i;
	uint64_t at;

	for (i = 0; i < ARRAY_LEN(what); i++)
		total += what[i].can ? what[i].weight : 0;
	at = sim_dice(w, total);
	for (i = 0; !what[i].can || at >= what[i].weight; i++)
		at -= what[i].can ? what[i].weight : 0;

	w->now_ns += sim_dice(w, 2 * NS_PER_MS);
	switch (i) {
	case 0: guest(w, weather); break;
	case 1: sim_local_done(w, (unsigned)sim_dice(w, w->home_count), mishap(w, weather, LOCAL_FAILS)); break;
	case 2: sim_read_done(w, (unsigned)sim_dice(w, w->read_count), mishap(w, weather, READ_FAILS)); break;
	case 3: far_event(w, weather); break;
	case 4: sim_flushed(w, mishap(w, weather, FLUSH_FAILS)); break;
	case 5: link_event(w, weather); break;
	case 6: barrier_event(w, weather); break;
	case 7: death_event(w, weather); break;
	case 8: sim_marked(w, (unsigned)sim_dice(w, w->asked_count), mishap(w, weather, MARK_FAILS), sim_dice(w, 8)); break;
	case 9: sim_home_flushed(w, mishap(w, weather, HOME_FLUSH_FAILS)); break;
	default: sim_tick(w, weather->is_slow ? 1100 : (unsigned)PICK(w, 1, 5, 10, 20, 100, 300, 1100)); break;
	}
}

/* I8: whatever the far side does, or does not, a guest is answered by its own disk. */
static void check_guests_alone(struct sim *w)
{
	for (unsigned n = 0; n < 5 * SIM_GUESTS_MAX + 8 * CORE_COPIES_MAX && sim_is_fine(w); n++) {
		if (w->home_count)
			sim_local_done(w, 0, 0);
		else if (w->asked_count)
			sim_marked(w, 0, 0, true);
		else if (w->read_count)
			sim_read_done(w, 0, 0);
	}
	if (w->status.is_sync && sim_is_fine(w))
		sim_tick(w, 250);
	for (unsigned i = 0; i < SIM_GUESTS_MAX && sim_is_fine(w); i++)
		if (w->guests[i].state == SIM_ARRIVED || w->guests[i].state == SIM_SUBMITTED)
			sim_break(w, "I8: a guest waits for the far side");
}

static void all_is_well(struct sim *w)
{
	while (w->asked_count && sim_is_fine(w))
		sim_marked(w, 0, 0, true);
	while (w->home_count && sim_is_fine(w))
		sim_local_done(w, 0, 0);
	if (w->is_flushing_home && sim_is_fine(w))
		sim_home_flushed(w, 0);
	while (w->away_count && sim_is_fine(w))
		sim_far_done(w, 0, 0);
	for (unsigned n = w->read_count; n && sim_is_fine(w); n--)
		sim_read_done(w, 0, 0);
	if (w->is_flushing && sim_is_fine(w))
		sim_flushed(w, 0);
	if (sim_is_fine(w))
		sim_tick(w, 10);
}

static void connect_at_last(struct sim *w)
{
	if (w->params.has_map && !w->is_map_on && w->status.state == CORE_CONNECTING)
		sim_map_on(w);
	while (w->asked_count && sim_is_fine(w))
		sim_marked(w, 0, 0, true);
	if ((w->status.state == CORE_CONNECTING || w->status.state == CORE_BROKEN) && sim_is_fine(w))
		sim_link_up(w);
}

/* The pass ends, and the barrier after it. */
static void check_arrival(struct sim *w, const struct weather *weather)
{
	enum core_state first = w->status.state;
	bool was_asked = weather->is_held && (first == CORE_CONNECTING || first == CORE_FINISHING || first == CORE_FINISHED);

	if (w->status.state == CORE_BROKEN)
		sim_event(w, CORE_UNBARRIER, 0); /* it may have been given up long ago */
	connect_at_last(w);
	for (unsigned n = 0; n < 400 && sim_is_fine(w); n++) {
		enum core_state state = w->status.state;

		if (state == CORE_FINISHED || state == CORE_FAILED || state == CORE_ENDED || (weather->had_read_error && n > 100))
			return;
		if (n > 200 && !was_asked)
			break;
		if (!was_asked && state == CORE_SYNCED) {
			was_asked = true;
			sim_event(w, CORE_BARRIER, 0);
		}
		all_is_well(w);
	}
	sim_break(w, "the pass, or the barrier after it, does not end");
}

static void play(const struct schedule *s, struct sim *w, bool is_traced)
{
	struct sim_params p;
	struct weather weather;

	make_world(&p, &weather, s->seed);
	p.is_traced = is_traced;
	p.has_zombies = schedule_has_zombies;
	sim_start(w, &p);
	if (weather.is_early)
		connect_at_last(w);
	for (unsigned i = 0; i < s->count && sim_is_fine(w); i++) {
		w->random = s->events[i];
		happen(w, &weather);
		if (w->status.state == CORE_SYNCING || w->status.state == CORE_SYNCED)
			weather.is_held = false; /* backed out */
	}
	check_guests_alone(w);
	check_arrival(w, &weather);
	sim_end(w);
}

static sigjmp_buf on_abort;

static void catch_abort(int sig)
{
	siglongjmp(on_abort, sig);
}

bool schedule_run(const struct schedule *s, struct sim *w, bool is_traced)
{
	struct sigaction catch = { .sa_handler = catch_abort, .sa_flags = SA_NODEFER }, before;

	sigaction(SIGABRT, &catch, &before);
	if (sigsetjmp(on_abort, 1) == 0)
		play(s, w, is_traced);
	else
		sim_break(w, "an assertion failed");
	sigaction(SIGABRT, &before, NULL);
	return sim_is_fine(w);
}

void schedule_shrink(struct schedule *s, struct sim *w)
{
	static struct schedule less;

	for (unsigned piece = s->count; piece > 0; piece /= 2)
		for (unsigned at = 0; at + piece <= s->count;) {
			less = *s;
			less.count -= piece;
			memmove(&less.events[at], &s->events[at + piece], (s->count - at - piece) * sizeof s->events[0]);
			if (!schedule_run(&less, w, false))
				*s = less;
			else
				at += piece;
		}
	schedule_run(s, w, true);
}
