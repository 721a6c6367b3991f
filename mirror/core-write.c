/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-write - a guest's write, zero or trim: where it goes
 *
 *      WRITE_ARRIVED -> local claim -> granted: route + far enqueue + LOCAL_SUBMIT, one instant (I3)
 *                                        |                        LOCAL_DONE -> claim dropped, COMPLETE_GUEST
 *                                        '-> far leg              REMOTE_DONE        | both over: RELEASE
 *
 * Where it goes, first match:
 *      a region is not marked            it waits for the mark (core-marks.c), then from the top
 *      no mirror now                       local; DIRTY, if it will be owed
 *      every chunk DIRTY                   local: the copy is still to come and will read it
 *      zeros over pristine chunks          local: both sides read as zero already (I6)
 *      the far side cannot take it as is   local; DIRTY
 *      beside what the first pass is to    local; DIRTY: no copy more, only a longer one
 *        come to, and never sent
 *      the lag bound is reached            local; DIRTY: the copy resends it, merged with what follows
 *      else                                both; DIRTY chunks among them stay DIRTY
 * A trim is routed the same way when its local leg has ended, before its claim is dropped: only then is it known what the
 * range reads as.
 *
 * Can fail:    a local error is the guest's to hear; its chunks go DIRTY, since the disk may hold anything now (I7).
 */
#include "mirror/core-private.h"

static bool is_zero_op(const struct core_op *op)
{
	return op->kind != CORE_WRITE || op->is_zero;
}

static enum core_far_kind far_kind(const struct core *c, const struct core_op *op)
{
	return is_zero_op(op) && c->far.can_zero ? CORE_FAR_ZERO : CORE_FAR_WRITE;
}

static void owe(struct core *c, struct core_op *op)
{
	op->is_paced = true;
	core_dirty(c, op->range);
}

static void leave(struct core *c, struct core_op *op)
{
	c->sum.left_bytes += range_length(op->range);
	owe(c, op);
}

static bool has_known_result(const struct core *c, const struct core_op *op)
{
	return op->kind != CORE_TRIM || c->spec.trim_reads_zero || PLANTED(BUG_TRIM_READS_ZERO);
}

static void go_both(struct core *c, struct core_op *op)
{
	op->far_kind = far_kind(c, op);
	op->far_range = op->range;
	op->far_may_trim = op->kind == CORE_TRIM || (op->kind == CORE_ZERO && op->may_trim);
	op->is_paced = true;
	if (core_far_has_room(c, core_far_cost(op->far_kind, op->far_range)) && core_far_enqueue(c, op))
		return;
	c->sum.overflow_bytes += range_length(op->range);
	owe(c, op);
}

static bool is_covered_by_copy(const struct core *c, struct core_span s)
{
	if (PLANTED(BUG_ANY_DIRTY_IS_LOCAL))
		return bitmap_test_any(c->map.dirty, s.first, s.end);
	return bitmap_test_all(c->map.dirty, s.first, s.end);
}

/* The pass is to come there, for chunks that a copy reads with these in one (core-copy.c). What is left to it goes once, however
 * often it is written until then. Only what is pristine: else the pass might find more to send than there ever was, and never
 * what it has gone by: so it ends. In sync both sides have what they can. */
static bool is_left_to_pass(const struct core *c, struct core_span s)
{
	uint64_t reach = CORE_BRIDGED_CHUNKS + 1, first = s.first - MIN(s.first, reach), end = MIN(s.end + reach, c->map.chunks);

	if (c->passes || c->state != CORE_SYNCING || c->is_sync || s.first < c->cursor)
		return false;
	if (!core_map_is_pristine(&c->map, s) && !PLANTED(BUG_LEAVES_WHAT_WAS_SENT))
		return false;
	return bitmap_test_any(c->map.dirty, MAX(first, c->cursor), end);
}

/* Runs under the local claim. */
static void route(struct core *c, struct core_op *op)
{
	struct core_span s = core_map_span(&c->map, op->range);

	if (bitmap_count(c->map.unreadable))
		bitmap_clear(c->map.unreadable, s.first, s.end);
	if ((c->state == CORE_FINISHED && !c->spec.keeps_link) || (core_is_over(c) && PLANTED(BUG_END_NOT_OWED)))
		return;
	if (!core_is_mirroring(c) || c->is_cut) {
		core_dirty(c, op->range);
		return;
	}
	if (is_covered_by_copy(c, s)) {
		c->merged_bytes += range_length(op->range);
		return;
	}
	if (!has_known_result(c, op))
		owe(c, op);
	else if (is_zero_op(op) && (core_map_is_pristine(&c->map, s) || PLANTED(BUG_ZERO_ALWAYS_SKIPPED)))
		return;
	else if (!core_far_is_sendable(c, op->kind, op->range))
		owe(c, op);
	else if (is_left_to_pass(c, s))
		leave(c, op);
	else
		go_both(c, op);
}

static void flush_arrived(struct core *c, struct core_op *op, struct core_actions *out)
{
	op->local_leg = CORE_LOCAL_BUSY;
	core_sync_flush_arrived(c, op);
	core_push(out, CORE_DO_LOCAL_SUBMIT, op, 0, 0);
}

void core_write_arrived(struct core *c, struct core_op *op, struct core_actions *out)
{
	op->far_leg = CORE_FAR_IDLE;
	op->far_kind = CORE_FAR_NONE;
	op->charge_bytes = 0;
	op->is_paced = false;
	op->is_pinned = false;
	op->answer_state = CORE_ANSWER_NONE;
	if (op->kind == CORE_FLUSH) {
		flush_arrived(c, op, out);
		return;
	}
	assert(op->kind != CORE_COPY && !range_is_empty(op->range) && op->range.end <= c->spec.size_bytes);
	c->guest_ns = c->now_ns;
	op->local_leg = CORE_LOCAL_WAITING;
	if (PLANTED(BUG_ROUTE_AT_ARRIVAL) && op->kind != CORE_TRIM)
		route(c, op);
	if (claim_take(c->local_claims, &op->local, op->range, op))
		TAILQ_INSERT_TAIL(&c->granted, &op->local, wake);
}

void core_write_granted(struct core *c, struct core_op *op, struct core_actions *out)
{
	if (!core_marks_let_in(c, op))
		return;
	op->local_leg = CORE_LOCAL_BUSY;
	if (!PLANTED(BUG_OWING_NOT_IN_FLIGHT))
		core_shadow_owe(c, core_map_span(&c->map, op->range));
	if (op->kind != CORE_TRIM && !PLANTED(BUG_ROUTE_AT_ARRIVAL))
		route(c, op);
	core_push(out, CORE_DO_LOCAL_SUBMIT, op, 0, 0);
}

static uint32_t delay_us(struct core *c, const struct core_op *op)
{
	if (!op->is_paced || core_far_is_silent(c) || (c->state != CORE_SYNCING && c->state != CORE_SYNCED))
		return 0;
	return pace_delay_us(&c->pace, c->now_ns);
}

static void answer(struct core *c, struct core_op *op, int err, struct core_actions *out)
{
	if (!err && core_sync_must_wait(c, op)) {
		core_sync_wait(c, op, err);
		return;
	}
	core_push(out, CORE_DO_COMPLETE_GUEST, op, err, delay_us(c, op));
	if (op->far_leg == CORE_FAR_IDLE)
		core_release(c, op);
}

static void flush_done(struct core *c, struct core_op *op, int err, struct core_actions *out)
{
	op->local_leg = CORE_LOCAL_OVER;
	if (err)
		core_fail(c, err); /* nothing is certain of this disk any more (I10) */
	answer(c, op, err, out);
}

void core_write_local_done(struct core *c, struct core_op *op, int err, struct core_actions *out)
{
	assert(op->local_leg == CORE_LOCAL_BUSY);
	if (op->kind == CORE_FLUSH) {
		flush_done(c, op, err, out);
		return;
	}
	if (err && !PLANTED(BUG_LOCAL_ERROR_IS_CLEAN) && !(PLANTED(BUG_TRIM_AFTER_ERROR) && op->kind == CORE_TRIM))
		core_dirty(c, op->range);
	else if (op->kind == CORE_TRIM)
		route(c, op);
	op->local_leg = CORE_LOCAL_OVER;
	core_drop_local(c, op);
	core_shadow_settle(c, op->range);
	answer(c, op, err, out);
}

void core_write_far_done(struct core *c, struct core_op *op, bool is_good)
{
	if (PLANTED(BUG_GUEST_ACK_CLEANS) && is_good) {
		struct core_span s = core_map_span(&c->map, op->range);

		bitmap_clear(c->map.dirty, s.first, s.end);
	}
	if (op->answer_state != CORE_ANSWER_NONE)
		core_sync_far_done(c, op);
	else if (op->local_leg == CORE_LOCAL_OVER)
		core_release(c, op);
}
