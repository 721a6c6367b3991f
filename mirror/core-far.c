/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-far - the far side's queue: who may enter, in what order they go, and what becomes of them
 *
 *                    far claim not yet granted
 *      enqueue ----> blocked --------------.
 *         '--------> ready <---------------'        guests' first, but a quarter of the window is the copies' if they want it
 *                      |  window
 *                      v
 *                    sent ----> acknowledged or failed: claim dropped, those behind it become ready
 *
 * Bounds (a guest's write never waits for them, its chunks go DIRTY instead):
 * - bytes: all that is queued, in flight or being read by copies stays within a budget. The budget is what the far side takes
 *   in lag_ms and twice its own latency, at the measured rate, and never more than lag_bytes. (Without the latency, a far side
 *   100 ms away would be given little, measured slow, and given less; twice, since copies may have only half of it.) Copies
 *   have at most half of it while guests write; guests leave them a quarter while anything is DIRTY. One copy is always let in,
 *   so that the pass goes on. While nobody writes, nobody's lag grows, and copies fill a far and fast link: they may have what it
 *   takes in a quarter of a second more than twice its latency, which is how soon it is there for a guest that comes back. Before
 *   the rate is known the link is taken for a fast one, and for as long as nothing was heard from it: the later the first answer,
 *   the more goes out.
 * - time: no guest's leg enters while one has waited lag_ms for the window. Nor, on a range that is taken, while one has
 *   waited so for another's claim: a sector rewritten all the time is merged by the map instead of queueing a version each.
 *
 * Can fail:    a failed leg dirties its whole range, then its claim is dropped (I4). After many the operation fails.
 * Invariant:   every live leg is on exactly one of the three lists, and holds a far claim.
 */
#include "mirror/core-private.h"

#include <errno.h>

#define BUDGET_UNKNOWN_BYTES MiB       /* while the rate is not known */
#define BUDGET_FLOOR_BYTES (256 * KiB)
#define BUDGET_IDLE_MS 250u
#define COPY_USUAL_BYTES (256 * KiB)
#define COPY_MOST_BYTES ((uint64_t)CORE_COPY_CHUNKS * CORE_CHUNK_BYTES)
#define FAST_BYTES UINT64_C(1000000000)
#define COPIES_FAR 128u
#define ZERO_COST_BYTES (64 * KiB)     /* a long zero is no long message, but not nothing either */
#define ZERO_MAX_BYTES (2 * GiB)
#define ERRORS_MAX 16u
#define FLUSH_FAILURES_MAX 3u
#define FLUSH_EVERY_MIN_NS (100 * NS_PER_MS)
#define FLUSH_EVERY_MAX_NS NS_PER_S
#define FLUSH_SHARE 3u                 /* of its time the far side's disk flushes one part in so many, at most */

/* In that time, and twice its own latency. */
static uint64_t taken_in(const struct core *c, unsigned ms)
{
	uint64_t ns = ms * NS_PER_MS + 2 * pace_latency_ns(&c->pace);

	return MAX(c->pace.rate_bytes / 1000 * (ns / 1000) / 1000, BUDGET_FLOOR_BYTES);
}

uint64_t core_far_budget(const struct core *c)
{
	uint64_t bytes = c->pace.rate_bytes ? taken_in(c, c->spec.lag_ms) : BUDGET_UNKNOWN_BYTES;

	return MIN(bytes, c->spec.lag_bytes);
}

/* The way there and back; while no rate is known, as long as the first answer is awaited, if that is longer. */
static uint64_t round_trip_ns(const struct core *c)
{
	uint64_t awaited_ns = c->pace.rate_bytes || !c->far_count ? 0 : c->now_ns - c->answer_ns;

	return MAX(pace_latency_ns(&c->pace), awaited_ns);
}

/* What a link of FAST_BYTES takes in that time. */
static uint64_t fast_bytes_in(uint64_t ns)
{
	return ns / 1000 * (FAST_BYTES / 1000 / 1000);
}

/* What goes there in four round trips at the rate seen, as reading and sending take their part of it; half of the lag's own bound
 * where they are short, four times that at most, as no guest writes. What is under way is what a lost link makes go twice. */
static uint64_t idle_budget(const struct core *c)
{
	uint64_t least = c->spec.lag_bytes / 2, most = 4 * c->spec.lag_bytes, bytes;

	if (!c->pace.rate_bytes) {
		bytes = least + fast_bytes_in(round_trip_ns(c));
		return MIN(bytes, most);
	}
	bytes = c->pace.rate_bytes / 1000 * (4 * round_trip_ns(c) / 1000) / 1000;
	bytes = MIN(MAX(bytes, least), most);
	return MIN(bytes, taken_in(c, BUDGET_IDLE_MS));
}

/* Far sides have few threads, or a queue each, and what one of these has takes a round trip: the longer that is, the longer
 * copies are, so that COPIES_FAR of them fill a link of FAST_BYTES a second. Not while guests use this disk: long reads hold them
 * up. */
uint64_t core_far_copy_bytes(const struct core *c, bool is_disk_shared)
{
	uint64_t bytes = fast_bytes_in(round_trip_ns(c)) / COPIES_FAR, most = COPY_USUAL_BYTES;

	if (is_disk_shared)
		return most;
	bytes = MIN(bytes, idle_budget(c) / 8);
	while (most < bytes && most < COPY_MOST_BYTES)
		most *= 2;
	return most;
}

uint64_t core_far_cost(enum core_far_kind kind, struct range r)
{
	return kind == CORE_FAR_ZERO ? MIN(range_length(r), ZERO_COST_BYTES) : range_length(r);
}

bool core_far_is_sendable(const struct core *c, enum core_op_kind kind, struct range r)
{
	if (!range_is_aligned(r, c->far.min_block_bytes))
		return false;
	if (kind == CORE_WRITE || kind == CORE_COPY)
		return range_length(r) <= c->far.max_bytes;
	return c->far.can_zero && range_length(r) <= ZERO_MAX_BYTES;
}

static bool is_older(const struct core *c, const struct core_op *op, uint64_t ns)
{
	return op && c->now_ns - op->queued_ns > ns;
}

static bool is_older_than_lag(const struct core *c, const struct core_op *op)
{
	return is_older(c, op, c->spec.lag_ms * NS_PER_MS);
}

/* What copies have, or are always left while there is something for them. */
static uint64_t copies_part(const struct core *c, uint64_t budget)
{
	return bitmap_count(c->map.dirty) ? MAX(c->copy_charge, budget / 4) : c->copy_charge;
}

bool core_far_has_room(const struct core *c, uint64_t cost)
{
	uint64_t budget = core_far_budget(c), copies = copies_part(c, budget);

	if (PLANTED(BUG_OVERFLOW_ALWAYS) && c->far_count)
		return false;
	if (!c->far_count && !c->copy_charge)
		return true;
	return c->guest_charge + copies + cost <= budget && !is_older_than_lag(c, TAILQ_FIRST(&c->ready));
}

bool core_far_has_copy_room(const struct core *c, uint64_t cost, bool is_guest_active)
{
	uint64_t budget = is_guest_active ? core_far_budget(c) : idle_budget(c), share = is_guest_active ? budget / 2 : budget;

	if (!c->copy_charge)
		return true;
	return c->copy_charge + cost <= share && c->copy_charge + c->guest_charge + cost <= budget &&
	       !is_older_than_lag(c, TAILQ_FIRST(&c->ready_copies));
}

static unsigned percent_of(const struct core *c, uint64_t charge, uint64_t room)
{
	const struct core_op *oldest = TAILQ_FIRST(&c->ready);
	uint64_t lag_ns = MAX(c->spec.lag_ms, 1u) * NS_PER_MS;
	uint64_t by_time = oldest ? (c->now_ns - oldest->queued_ns) * 100 / lag_ns : 0;

	return (unsigned)MIN(MAX(by_time, charge * 100 / room), UINT64_C(1000));
}

bool core_far_is_silent(const struct core *c)
{
	return c->is_linked && c->sent_count && c->now_ns - c->answer_ns > c->spec.stall_ms * NS_PER_MS;
}

unsigned core_far_fill_percent(const struct core *c)
{
	uint64_t budget = core_far_budget(c), copies = copies_part(c, budget);

	return percent_of(c, c->guest_charge, MAX(budget - MIN(budget, copies), budget / 4));
}

unsigned core_far_load_percent(const struct core *c)
{
	return percent_of(c, c->guest_charge + c->copy_charge, MAX(core_far_budget(c), UINT64_C(1)));
}

/* Whoever would stand behind another leg, while those that already do have stood so for long. */
static bool is_crowded(const struct core *c, const struct core_op *op)
{
	return op->kind != CORE_COPY &&
	       is_older(c, TAILQ_FIRST(&c->blocked), c->spec.lag_ms * NS_PER_MS + 2 * pace_latency_ns(&c->pace));
}

static struct core_ops *ready_list(struct core *c, const struct core_op *op)
{
	return op->kind == CORE_COPY ? &c->ready_copies : &c->ready;
}

static void give_back_claim(struct core *c, struct core_op *op)
{
	struct claim_wake wake = TAILQ_HEAD_INITIALIZER(wake);
	struct claim *claim;

	claim_drop(c->far_claims, &op->far, &wake);
	TAILQ_FOREACH(claim, &wake, wake) {
		struct core_op *woken = claim->owner;

		assert(woken->far_leg == CORE_FAR_BLOCKED);
		TAILQ_REMOVE(&c->blocked, woken, link);
		TAILQ_INSERT_TAIL(ready_list(c, woken), woken, link);
		woken->far_leg = CORE_FAR_READY;
		woken->queued_ns = c->now_ns;
	}
}

static void charge(struct core *c, struct core_op *op)
{
	uint64_t cost = core_far_cost(op->far_kind, op->far_range);

	if (op->kind == CORE_COPY)
		c->copy_charge += cost - op->charge_bytes;
	else
		c->guest_charge += cost;
	op->charge_bytes = cost;
	c->queued_bytes += cost;
}

bool core_far_enqueue(struct core *c, struct core_op *op)
{
	struct range claimed = op->far_range;
	bool is_free;

	if (PLANTED(BUG_FAR_UNORDERED))
		claimed.end = claimed.start + 1;
	is_free = claim_take(c->far_claims, &op->far, claimed, op);
	if (!is_free && is_crowded(c, op)) {
		give_back_claim(c, op); /* the last in line: nobody wakes */
		return false;
	}
	if (!PLANTED(BUG_PRISTINE_STAYS))
		core_map_enqueued(&c->map, op->far_range);
	if (!PLANTED(BUG_OWING_NOT_IN_FLIGHT))
		core_shadow_owe(c, core_map_span(&c->map, op->far_range));
	core_shadow_touch(c, core_map_span(&c->map, op->far_range));
	if (!c->far_count)
		c->answer_ns = c->now_ns;
	op->queued_ns = c->now_ns;
	op->far_leg = is_free ? CORE_FAR_READY : CORE_FAR_BLOCKED;
	TAILQ_INSERT_TAIL(is_free ? ready_list(c, op) : &c->blocked, op, link);
	c->far_count++;
	charge(c, op);
	core_limit_guest(c, op);
	if (!PLANTED(BUG_BARRIER_TAKES_OLD_FLUSH))
		c->last_flush = CORE_FLUSH_IDLE;
	pace_busy(&c->pace, c->now_ns, true);
	return true;
}

static struct core_op *next_to_send(const struct core *c)
{
	unsigned guests = c->sent_count - c->sent_copies, reserved = (c->far.window_ops + 3) / 4;
	struct core_op *guest = TAILQ_FIRST(&c->ready), *copy = TAILQ_FIRST(&c->ready_copies);

	if (!c->is_linked || c->sent_count >= c->far.window_ops)
		return NULL;
	return guest && (!copy || guests + reserved < c->far.window_ops) ? guest : copy;
}

void core_far_send(struct core *c, struct core_actions *out)
{
	struct core_op *op;

	while ((op = next_to_send(c)) && core_has_room(out, 1)) {
		if (!c->sent_count)
			c->answer_ns = c->now_ns;
		TAILQ_REMOVE(ready_list(c, op), op, link);
		TAILQ_INSERT_TAIL(&c->sent, op, link);
		op->far_leg = CORE_FAR_SENT;
		op->sent_ns = c->now_ns;
		c->sent_count++;
		c->sent_copies += op->kind == CORE_COPY;
		core_push(out, CORE_DO_REMOTE_SUBMIT, op, 0, 0);
	}
}

static struct core_ops *list_of(struct core *c, const struct core_op *op)
{
	switch (op->far_leg) {
	case CORE_FAR_BLOCKED:
		return &c->blocked;
	case CORE_FAR_READY:
		return ready_list(c, op);
	case CORE_FAR_SENT:
		return &c->sent;
	case CORE_FAR_IDLE:
		break;
	}
	assert(!"a far leg that is not alive");
	return NULL;
}

/* The whole range, whatever its chunks are by now: a failed write leaves anything, in the CLEAN chunks a copy bridged too. */
static void dirty_failed(struct core *c, struct core_op *op)
{
	struct core_span s = core_map_span(&c->map, op->range);
	struct core_mask mine = op->mine;

	if (PLANTED(BUG_COPY_FAILURE_IS_MINE) && op->kind == CORE_COPY) {
		for (uint64_t i = s.first; i < s.end; i++)
			if (core_mask_test(&mine, i - s.first))
				core_dirty(c, core_map_bytes(&c->map, (struct core_span){ i, i + 1 }));
		return;
	}
	if (PLANTED(BUG_GUEST_FAILURE_IS_CLEAN) && op->kind != CORE_COPY)
		return;
	if (PLANTED(BUG_COPY_FAILURE_IS_CLEAN) && op->kind == CORE_COPY)
		return;
	core_dirty(c, op->range);
}

/* The leg's end: bits first, then the claim, then the buffer (I4). */
static void end_leg(struct core *c, struct core_op *op, bool is_good)
{
	struct range range = op->range;

	TAILQ_REMOVE(list_of(c, op), op, link);
	if (op->far_leg == CORE_FAR_SENT) {
		c->sent_count--;
		c->sent_copies -= op->kind == CORE_COPY;
	}
	c->far_count--;
	c->queued_bytes -= op->charge_bytes;
	if (op->kind == CORE_COPY)
		c->copy_charge -= op->charge_bytes;
	else
		c->guest_charge -= op->charge_bytes;
	op->far_leg = CORE_FAR_IDLE;
	pace_busy(&c->pace, c->now_ns, c->far_count > 0);

	if (!is_good)
		dirty_failed(c, op);
	give_back_claim(c, op);
	if (op->kind == CORE_COPY)
		core_copy_far_done(c, op, is_good);
	else
		core_write_far_done(c, op, is_good);
	core_shadow_settle(c, range);
}

static void count_ack(struct core *c, const struct core_op *op)
{
	pace_acked(&c->pace, c->now_ns, op->charge_bytes, c->now_ns - op->sent_ns, op->kind != CORE_COPY);
	c->unflushed_bytes += op->charge_bytes;
	c->answer_ns = c->now_ns;
	if (op->far_kind == CORE_FAR_ZERO)
		c->sum.zero_bytes += range_length(op->far_range);
	else
		c->sum.sent_bytes += range_length(op->far_range);
}

void core_far_done(struct core *c, struct core_op *op, int err)
{
	assert(op->far_leg == CORE_FAR_SENT);
	if (!err)
		count_ack(c, op);
	end_leg(c, op, !err && core_is_mirroring(c));
	if (!err || !core_is_mirroring(c))
		return;
	c->is_cut = false;
	if (err == ESHUTDOWN)
		c->is_linked = false; /* LINK_DOWN is on its way */
	else if (++c->far_errors >= ERRORS_MAX)
		core_fail(c, err);
}

void core_far_flush(struct core *c, struct core_actions *out)
{
	const struct core_ops *pending[] = { &c->blocked, &c->ready, &c->ready_copies, &c->sent };
	struct core_op *op;

	assert(!c->is_flushing);
	c->is_flushing = true;
	c->flushes_begun++;
	c->unflushed_bytes = 0;
	c->flushed_ns = c->now_ns;
	core_map_flush_begins(&c->map);
	for (unsigned i = 0; i < ARRAY_LEN(pending) && !PLANTED(BUG_FLUSH_COVERS_PENDING); i++)
		TAILQ_FOREACH(op, pending[i], link)
			core_map_enqueued(&c->map, op->far_range);
	core_push(out, CORE_DO_FLUSH_FAR, NULL, 0, 0);
}

/* What a barrier has to flush is what was written since: little. The share is a large one, as waiting makes the next flush
 * longer: where writes alone keep the far side's disk busy a tenth of its time, a smaller share would be an ever longer pause. */
bool core_far_is_flush_time(const struct core *c)
{
	uint64_t every_ns = MIN(MAX(c->flush_took_ns * FLUSH_SHARE, FLUSH_EVERY_MIN_NS), FLUSH_EVERY_MAX_NS);

	return !c->flushed_ns || c->now_ns - c->flushed_ns >= every_ns;
}

/* All that was written there since the last good flush, whether this one covered it or not. */
static void dirty_unflushed(struct core *c)
{
	const struct bitmap *touched = c->map.touched;
	uint64_t bits = bitmap_bits(touched), first = bitmap_next(touched, 0);

	while (first < bits) {
		uint64_t end = bitmap_next_clear(touched, first);

		core_dirty(c, core_map_bytes(&c->map, (struct core_span){ first, end }));
		first = bitmap_next(touched, end);
	}
}

void core_far_flushed(struct core *c, int err)
{
	if (!c->is_flushing)
		return;
	c->is_flushing = false;
	c->flush_took_ns = c->now_ns - c->flushed_ns;
	c->answer_ns = c->now_ns;
	if (!err)
		core_shadow_flushed(c);
	core_map_flush_ends(&c->map, !err);
	core_marks_far_flushed(c, !err);
	core_sync_flushed(c);
	if (!err) {
		c->flush_failures = 0;
		if (c->last_flush == CORE_FLUSH_BUSY)
			c->last_flush = CORE_FLUSH_GOOD;
		return;
	}
	c->last_flush = CORE_FLUSH_IDLE;
	c->is_cut = false;
	if (err == ESHUTDOWN) {
		c->is_linked = false; /* LINK_DOWN is on its way; what was lost is asked at the next LINK_UP */
		return;
	}
	if (!PLANTED(BUG_FLUSH_FAILURE_FORGOTTEN))
		dirty_unflushed(c);
	if (core_is_mirroring(c) && ++c->flush_failures >= FLUSH_FAILURES_MAX)
		core_fail(c, err);
}

static void end_all(struct core *c, struct core_ops *list)
{
	struct core_op *op;

	if (!PLANTED(BUG_LINK_DOWN_FORGETS))
		TAILQ_FOREACH(op, list, link)
			core_dirty(c, op->range);
	while ((op = TAILQ_FIRST(list)))
		end_leg(c, op, PLANTED(BUG_LINK_DOWN_FORGETS));
}

void core_far_forget_queued(struct core *c)
{
	struct core_op *op;

	TAILQ_FOREACH(op, &c->sent, link)
		if (!PLANTED(BUG_BREAK_FORGETS_SENT))
			core_dirty(c, op->range);
	end_all(c, &c->blocked); /* before those they wait for: nobody becomes ready meanwhile */
	end_all(c, &c->ready);
	end_all(c, &c->ready_copies);
}

void core_far_forget_sent(struct core *c)
{
	if (PLANTED(BUG_BREAK_FORGETS_SENT) && c->state == CORE_BROKEN) {
		struct core_op *op;

		while ((op = TAILQ_FIRST(&c->sent)))
			end_leg(c, op, true);
	}
	end_all(c, &c->sent);
	if (c->is_flushing)
		core_map_flush_ends(&c->map, false);
	c->is_flushing = false;
}

void core_far_lost_unflushed(struct core *c)
{
	dirty_unflushed(c);
}
