/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core - the mirror's brain: events in, actions out
 *
 *      one step:   event -> state and lists -> granted claims -> new copies -> far queue -> late answers -> releases
 *                  -> states -> flush -> news
 *
 * The event itself makes two actions at most; all that may be many (waiters set free, legs of a lost link) waits on lists and
 * is worked off while the caller's array has room. If it has none, MORE goes on where this stopped.
 *
 * States move here and nowhere else:
 *
 *      CONNECTING -> SYNCING <-> SYNCED        SYNCED while the debt is small; "complete" once it was
 *                       '----+----'
 *                            v   ^ back out: UNBARRIER, no progress, something unreadable; a copy cut off while an error came
 *                        FINISHING -> FINISHED -> (GO_ON) SYNCED
 *      SYNCING SYNCED FINISHING -> BROKEN (link down) -> SYNCING (link up)
 *      any of these -> FAILED (a link that is not made again, too many errors), ENDED (ABORT)
 *
 * Can fail:    everything the far side does; then FAILED, what was not known to be there is DIRTY, guests go on.
 * Invariants:  I1 to I10 of THEORY, after every step.
 */
#include "mirror/core-private.h"

#include <errno.h>
#include <stdlib.h>

#define FLUSH_EVERY_BYTES (8 * MiB)       /* written out in one go there, while others who use that disk wait */
#define FLUSH_LAST_BYTES (4 * MiB)        /* SYNCING: towards the end of the pass, as the barrier's guest would */

#define TO(state) (1u << (state))
static const unsigned moves[] = {
	[CORE_CONNECTING] = TO(CORE_SYNCING) | TO(CORE_FAILED) | TO(CORE_ENDED),
	[CORE_SYNCING] = TO(CORE_SYNCED) | TO(CORE_BROKEN) | TO(CORE_FINISHING) | TO(CORE_FAILED) | TO(CORE_ENDED),
	[CORE_SYNCED] = TO(CORE_SYNCING) | TO(CORE_BROKEN) | TO(CORE_FINISHING) | TO(CORE_FAILED) | TO(CORE_ENDED),
	[CORE_BROKEN] = TO(CORE_SYNCING) | TO(CORE_FAILED) | TO(CORE_ENDED),
	[CORE_FINISHING] = TO(CORE_SYNCING) | TO(CORE_BROKEN) | TO(CORE_FINISHED) | TO(CORE_FAILED) | TO(CORE_ENDED),
	[CORE_FINISHED] = TO(CORE_SYNCED) | TO(CORE_BROKEN), /* GO_ON */
	[CORE_FAILED] = 0,
	[CORE_ENDED] = 0,
};

static void set_state(struct core *c, enum core_state next)
{
	assert(moves[c->state] & TO(next));
	c->state = next;
	c->has_news = true;
	if (next != CORE_SYNCED)
		return;
	if (!c->was_synced && !c->promise_flush)
		c->flushed_ns = 0; /* at once: a barrier that comes a little later may find it done */
	c->was_synced = true;
}

struct core *core_new(const struct core_spec *spec)
{
	struct core *c = calloc(1, sizeof *c);

	if (!c)
		return NULL;
	c->spec = *spec;
	c->spec.lag_bytes = spec->lag_bytes ? spec->lag_bytes : 16 * MiB;
	c->spec.lag_ms = spec->lag_ms ? spec->lag_ms : 50;
	c->spec.debt_ms = spec->debt_ms ? spec->debt_ms : 1000;
	c->spec.no_progress_ms = spec->no_progress_ms ? spec->no_progress_ms : 30000;
	c->spec.stall_ms = spec->stall_ms ? spec->stall_ms : 250;
	c->spec.region_bytes = spec->region_bytes ? spec->region_bytes : 16 * MiB;
	c->spec.keep_mark_ms = spec->keep_mark_ms ? spec->keep_mark_ms : 30000;
	c->spec.mark_ahead_after = spec->mark_ahead_after ? spec->mark_ahead_after : 32;
	c->is_sync = spec->is_sync;
	TAILQ_INIT(&c->granted);
	TAILQ_INIT(&c->blocked);
	TAILQ_INIT(&c->ready);
	TAILQ_INIT(&c->ready_copies);
	TAILQ_INIT(&c->sent);
	TAILQ_INIT(&c->released);
	TAILQ_INIT(&c->waiting);
	TAILQ_INIT(&c->answers);
	pace_stop(&c->pace, 0);

	c->local_claims = claims_new();
	c->far_claims = claims_new();
	c->copies = calloc(CORE_COPIES_MAX, sizeof *c->copies);
	if (!core_map_init(&c->map, spec->size_bytes) || !core_marks_init(c) || !c->local_claims || !c->far_claims ||
	    !c->copies) {
		core_free(c);
		return NULL;
	}
	while (c->idle_count < CORE_COPIES_MAX) {
		c->idle[c->idle_count] = &c->copies[CORE_COPIES_MAX - 1 - c->idle_count];
		c->idle_count++;
	}
	return c;
}

void core_abandon(struct core *c)
{
	claims_free(c->local_claims);
	claims_free(c->far_claims);
	core_map_fini(&c->map);
	core_marks_fini(c);
	free(c->copies);
	free(c);
}

void core_free(struct core *c)
{
	if (!c)
		return;
	assert(c->live_count == 0 && c->far_count == 0);
	assert(!c->local_claims || claims_count(c->local_claims) == 0);
	core_abandon(c);
}

void core_mark_dirty(struct core *c, struct range r)
{
	assert(c->state == CORE_CONNECTING);
	core_dirty(c, range_clip(r, (struct range){ 0, c->spec.size_bytes }));
}

void core_mark_pristine(struct core *c, struct range r)
{
	assert(c->state == CORE_CONNECTING);
	core_map_add_pristine(&c->map, range_clip(r, (struct range){ 0, c->spec.size_bytes }));
}

void core_mark_unflushed(struct core *c, struct range r)
{
	assert(c->state == CORE_CONNECTING);
	core_map_enqueued(&c->map, range_clip(r, (struct range){ 0, c->spec.size_bytes }));
}

void core_push(struct core_actions *out, enum core_action_type type, struct core_op *op, int err, uint32_t delay_us)
{
	assert(out->count < CORE_ACTIONS_MAX);
	out->item[out->count++] = (struct core_action){ .type = type, .op = op, .err = err, .delay_us = delay_us };
}

bool core_has_room(struct core_actions *out, unsigned actions)
{
	if (out->count + actions > CORE_ACTIONS_MAX)
		out->is_full = true;
	return !out->is_full;
}

bool core_is_mirroring(const struct core *c)
{
	return c->state == CORE_SYNCING || c->state == CORE_SYNCED || c->state == CORE_FINISHING;
}

bool core_is_over(const struct core *c)
{
	return c->state == CORE_FINISHED || c->state == CORE_FAILED || c->state == CORE_ENDED;
}

uint64_t core_owed_bytes(const struct core *c)
{
	return (bitmap_count(c->map.dirty) + c->copying_chunks) * CORE_CHUNK_BYTES;
}

static void strip_mask(struct core *c, struct core_op *op, struct core_span s)
{
	struct core_span own = core_map_span(&c->map, op->range), both = { MAX(s.first, own.first), MIN(s.end, own.end) };

	for (uint64_t i = both.first; i < both.end; i++) {
		if (!core_mask_test(&op->mine, i - own.first))
			continue;
		core_mask_clear(&op->mine, i - own.first);
		op->mine_count--;
		c->copying_chunks--;
	}
}

void core_dirty(struct core *c, struct range r)
{
	struct core_span s = core_map_span(&c->map, r);

	core_shadow_owe(c, s);
	if (PLANTED(BUG_OVERFLOW_KEEPS_MASKS) && core_is_mirroring(c)) {
		bitmap_set(c->map.dirty, s.first, s.end);
		return;
	}
	for (unsigned i = 0; c->copying_chunks && i < c->live_count; i++)
		if (c->live[i]->mine_count)
			strip_mask(c, c->live[i], s);
	bitmap_set(c->map.dirty, s.first, s.end);
}

void core_drop_local(struct core *c, struct core_op *op)
{
	claim_drop(c->local_claims, &op->local, &c->granted);
}

void core_release(struct core *c, struct core_op *op)
{
	core_marks_unpin(c, op);
	TAILQ_INSERT_TAIL(&c->released, op, link);
}

/* Nothing more goes out. What was sent stays claimed until it is answered or the link is down. */
static void end_mirroring(struct core *c, enum core_state how)
{
	set_state(c, how);
	c->is_linked = false;
	c->is_stalled = false;
	c->is_cut = false;
	c->last_flush = CORE_FLUSH_IDLE;
	pace_stop(&c->pace, c->now_ns);
	core_far_forget_queued(c);
	for (unsigned i = 0; i < c->live_count; i++)
		if (c->live[i]->mine_count)
			core_dirty(c, c->live[i]->range);
	core_sync_release_all(c);
	core_marks_void_pair(c);
	if (core_is_over(c))
		core_marks_stop(c);
}

void core_fail(struct core *c, int err)
{
	if (core_is_over(c))
		return;
	c->err = err ? err : EIO;
	c->must_drop_link = true;
	end_mirroring(c, CORE_FAILED);
}

static bool is_far_usable(const struct core *c, const struct core_far *far)
{
	uint32_t block = far->min_block_bytes;

	return block && block <= CORE_CHUNK_BYTES && (block & (block - 1)) == 0 && c->spec.size_bytes % block == 0 &&
	       far->max_bytes >= CORE_CHUNK_BYTES && far->window_ops;
}

static void link_up(struct core *c, const struct core_far *far)
{
	if (c->state != CORE_CONNECTING && c->state != CORE_BROKEN)
		return;
	assert(far->generation > c->far.generation);
	c->far = *far;
	if (far->may_have_lost && !PLANTED(BUG_LOSS_FORGOTTEN))
		core_far_lost_unflushed(c);
	c->is_open = true;
	if (!is_far_usable(c, far)) {
		core_fail(c, ENOTSUP);
		return;
	}
	c->is_linked = true;
	c->answer_ns = c->read_ns = c->now_ns;
	if (c->state == CORE_CONNECTING)
		c->total_bytes = core_owed_bytes(c);
	c->is_lagging = false;
	c->far_errors = c->flush_failures = 0;
	c->pass_over_ns = c->promise_flush = 0;
	pace_stop(&c->pace, c->now_ns);
	set_state(c, CORE_SYNCING);
}

static void link_down(struct core *c, const struct core_event *ev)
{
	bool is_final = ev->generation == 0 && (c->state == CORE_CONNECTING || c->state == CORE_BROKEN);

	if (!is_final && (!c->is_open || ev->generation != c->far.generation))
		return;
	if (core_is_mirroring(c) && c->far.can_reconnect) {
		c->broken_ns = c->now_ns;
		end_mirroring(c, CORE_BROKEN);
	} else {
		core_fail(c, ev->err ? ev->err : ENOTCONN);
	}
	c->must_drop_link = false;
	c->is_linked = c->is_open = false;
	core_far_forget_sent(c);
}

static void abort_all(struct core *c)
{
	if (c->state == CORE_FINISHED && c->is_linked) {
		c->is_linked = false;
		c->must_drop_link = true;
	}
	if (core_is_over(c))
		return;
	c->must_drop_link = true;
	end_mirroring(c, CORE_ENDED);
}

static void go_on(struct core *c)
{
	if (c->state != CORE_FINISHED || !c->spec.keeps_link)
		return;
	c->broken_ns = c->now_ns;
	c->last_flush = CORE_FLUSH_IDLE;
	set_state(c, c->is_linked ? CORE_SYNCED : CORE_BROKEN);
}

static void set_mode(struct core *c, bool is_sync)
{
	if (c->is_sync == is_sync)
		return;
	c->is_sync = is_sync;
	c->is_lagging = false;
	c->has_news = true;
	core_sync_release_all(c);
}

static void begin_barrier(struct core *c)
{
	if (core_is_over(c) || c->is_barrier)
		return;
	c->is_barrier = true;
	c->barrier_ns = c->now_ns;
}

static void take_event(struct core *c, const struct core_event *ev, struct core_actions *out)
{
	bool is_current = c->is_open && ev->generation == c->far.generation;

	switch (ev->type) {
	case CORE_WRITE_ARRIVED:
		core_write_arrived(c, ev->op, out);
		break;
	case CORE_LOCAL_DONE:
		core_write_local_done(c, ev->op, ev->err, out);
		break;
	case CORE_COPY_READ_DONE:
		core_copy_read_done(c, ev->op, ev->err, out);
		break;
	case CORE_REMOTE_DONE:
		if (is_current)
			core_far_done(c, ev->op, ev->err);
		break;
	case CORE_FLUSHED:
		if (is_current)
			core_far_flushed(c, ev->err);
		break;
	case CORE_LINK_UP:
		link_up(c, &ev->far);
		break;
	case CORE_LINK_DOWN:
		link_down(c, ev);
		break;
	case CORE_BARRIER:
		begin_barrier(c);
		break;
	case CORE_UNBARRIER:
		c->is_barrier = false;
		break;
	case CORE_SET_LIMIT:
		core_limit_set(c, ev->limit_bytes);
		break;
	case CORE_SET_MODE:
		set_mode(c, ev->is_sync);
		break;
	case CORE_MAP_ON:
		core_marks_on(c, ev);
		break;
	case CORE_MARKED:
		core_marks_marked(c, ev);
		break;
	case CORE_VOIDED:
		core_marks_voided(c);
		break;
	case CORE_HOME_FLUSHED:
		core_marks_home_flushed(c, ev->err);
		break;
	case CORE_GO_ON:
		go_on(c);
		break;
	case CORE_ABORT:
		abort_all(c);
		break;
	case CORE_TICK:
	case CORE_MORE:
		break;
	}
}

static bool act_on_granted(struct core *c, struct core_actions *out)
{
	struct claim *claim;

	while ((claim = TAILQ_FIRST(&c->granted))) {
		struct core_op *op = claim->owner;

		if (!core_has_room(out, 1) || (PLANTED(BUG_STALL_HOLDS_GUESTS) && c->is_stalled))
			return false;
		TAILQ_REMOVE(&c->granted, claim, wake);
		if (op->kind == CORE_COPY)
			core_copy_granted(c, op, out);
		else
			core_write_granted(c, op, out);
	}
	return true;
}

static void release_all(struct core *c, struct core_actions *out)
{
	struct core_op *op;

	while ((op = TAILQ_FIRST(&c->released)) && core_has_room(out, 1)) {
		TAILQ_REMOVE(&c->released, op, link);
		core_push(out, CORE_DO_RELEASE, op, 0, 0);
	}
}

/* Stalled: something is in flight and nothing has been answered for a while. Then nobody is paced, and the rate is not judged. */
static void watch_far(struct core *c)
{
	bool is_stalled = core_far_is_silent(c);
	struct pace_view view = {
		.is_promised = c->was_synced,
		.fill_percent = core_far_fill_percent(c),
		.load_percent = core_far_load_percent(c),
		.debt_percent = core_debt_percent(c),
		.owed_bytes = core_owed_bytes(c),
	};

	if (is_stalled != c->is_stalled)
		c->has_news = true;
	c->is_stalled = is_stalled;
	if (is_stalled || (c->state != CORE_SYNCING && c->state != CORE_SYNCED))
		pace_stop(&c->pace, c->now_ns);
	else
		pace_observe(&c->pace, c->now_ns, &view);
}

/* A barrier's own. */
static bool wants_last_flush(const struct core *c)
{
	return c->far.can_flush && !(c->far.flushes_last && c->spec.keeps_link && !c->is_cut);
}

/* Nothing is owed, nothing is on its way: what the far side has is what it should have. */
static bool is_drained(const struct core *c)
{
	if (c->far_count && !PLANTED(BUG_BARRIER_FORGETS_QUEUE))
		return false;
	return c->is_cut ? c->live_count == 0 : core_owed_bytes(c) == 0 && claims_count(c->local_claims) == 0;
}

static bool is_flush_due(const struct core *c)
{
	if (!c->far.can_flush || c->is_flushing || !c->is_linked || !core_is_mirroring(c))
		return false;
	if (c->state == CORE_FINISHING && is_drained(c))
		return wants_last_flush(c) && c->last_flush == CORE_FLUSH_IDLE;
	if (core_sync_wants_flush(c))
		return true;
	if (!c->unflushed_bytes)
		return false;
	if (c->unflushed_bytes >= FLUSH_EVERY_BYTES)
		return true;
	if (c->state == CORE_SYNCING && c->unflushed_bytes >= MAX(core_owed_bytes(c), FLUSH_LAST_BYTES))
		return true;
	if (c->state == CORE_SYNCED)
		return core_far_is_flush_time(c);
	return c->state == CORE_SYNCING && !c->was_synced && c->promise_flush > c->flushes_begun;
}

static void flush(struct core *c, struct core_actions *out)
{
	bool is_due = is_flush_due(c), can_pair = (c->state == CORE_SYNCING || c->state == CORE_SYNCED) && !c->is_flushing;

	if (can_pair && c->is_linked && core_marks_begin_pair(c, out))
		is_due = true;
	if (!is_due)
		return;
	if (is_drained(c) || PLANTED(BUG_BARRIER_TAKES_OLD_FLUSH))
		c->last_flush = CORE_FLUSH_BUSY;
	core_far_flush(c, out);
}

static void back_out(struct core *c, int err)
{
	c->is_barrier = false;
	c->is_cut = false;
	c->barrier_err = err;
	c->has_news = true;
	set_state(c, CORE_SYNCING);
}

static void judge_finishing(struct core *c)
{
	uint64_t far_ns = MAX(c->answer_ns, c->barrier_ns), heard_ns = MAX(far_ns, c->read_ns);

	if (!c->is_barrier && !c->is_cut) {
		set_state(c, CORE_SYNCING);
	} else if (bitmap_count(c->map.unreadable) && !c->is_cut) {
		back_out(c, EIO);
	} else if (is_drained(c) && !c->is_flushing && (!wants_last_flush(c) || c->last_flush == CORE_FLUSH_GOOD)) {
		c->is_barrier = false;
		c->is_linked = c->spec.keeps_link;
		c->must_drop_link = !c->spec.keeps_link;
		core_sync_release_all(c);
		if (PLANTED(BUG_BARRIER_IS_FLUSH)) {
			core_map_flush_begins(&c->map);
			core_map_flush_ends(&c->map, true);
		}
		set_state(c, CORE_FINISHED);
		core_marks_stop(c);
	} else if (c->is_barrier && c->now_ns - heard_ns > c->spec.no_progress_ms * NS_PER_MS) {
		back_out(c, ETIMEDOUT);
	}
}

static void judge_mirroring(struct core *c)
{
	bool is_all_there = core_owed_bytes(c) == 0;

	if (is_all_there)
		c->far_errors = 0;
	if (c->is_barrier) {
		set_state(c, CORE_FINISHING);
	} else if (c->spec.is_copy) {
		if (!is_all_there)
			return;
		c->is_cut = true;
		set_state(c, CORE_FINISHING);
	} else if (c->state == CORE_SYNCING && core_can_promise(c)) {
		set_state(c, CORE_SYNCED);
	} else if (c->state == CORE_SYNCED && core_debt_percent(c) > 100) {
		set_state(c, CORE_SYNCING);
	}
}

/* The barrier outlives a link, but not for ever. */
static void judge_broken(struct core *c)
{
	if (!c->is_barrier || c->now_ns - MAX(c->barrier_ns, c->broken_ns) <= c->spec.no_progress_ms * NS_PER_MS)
		return;
	c->is_barrier = false;
	c->barrier_err = ETIMEDOUT;
	c->has_news = true;
}

static void judge(struct core *c)
{
	if (c->state == CORE_BROKEN)
		judge_broken(c);
	if (c->state == CORE_SYNCING || c->state == CORE_SYNCED)
		judge_mirroring(c);
	if (c->state == CORE_FINISHING)
		judge_finishing(c);
}

static void tell(struct core *c, struct core_actions *out)
{
	if (c->must_drop_link)
		core_push(out, CORE_DO_DROP_LINK, NULL, c->state == CORE_FINISHED ? 0 : c->err ? c->err : ECANCELED, 0);
	if (c->has_news)
		core_push(out, CORE_DO_REPORT, NULL, c->barrier_err, 0);
	c->must_drop_link = false;
	c->has_news = false;
	c->barrier_err = 0;
}

void core_step(struct core *c, const struct core_event *ev, struct core_actions *out)
{
	out->count = 0;
	out->is_full = false;
	c->now_ns = MAX(c->now_ns, ev->now_ns);
	take_event(c, ev, out);

	while (act_on_granted(c, out) && core_copy_choose(c))
		;
	core_far_send(c, out);
	core_marks_ask(c, out);
	watch_far(c);
	core_sync_watch(c);
	if (core_sync_answer(c, out))
		release_all(c, out);
	if (!core_has_room(out, 4))
		return;
	judge(c);
	flush(c, out);
	tell(c, out);
}
