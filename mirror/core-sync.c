/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-sync - in sync mode a guest hears when both sides have its write
 *
 *      local leg over --far leg alive?--> waiting --far leg over, either way-----> answered on the local result
 *             '--no--> answered              |---- stall_ms: LAGGING, its chunks DIRTY --^
 *                                            '---- link lost, mode changed --------------'
 *
 * LAGGING ends when all is there again: nothing owed, nothing late. Until then nobody waits: a far side that stands still costs
 * the guests in flight one stall, once.  A leg that came too late stays in flight with its claim and its buffer; its chunks
 * are DIRTY, so that whatever becomes of it a copy follows (I2 puts it behind).
 *
 * A guest's FLUSH waits for a far flush that began after it arrived: what the guest was told is done was acknowledged by
 * the far side then.  A far flush that fails is no error of the guest's; what it did not keep is owed (I10).
 *
 * Invariant: who is waiting has its local leg over, is in no other list of answers, and is answered within stall_ms of that
 * as long as time is told.
 */
#include "mirror/core-private.h"

static bool is_far_useful(const struct core *c)
{
	return c->is_sync && !c->is_lagging && c->is_linked && core_is_mirroring(c) && !PLANTED(BUG_SYNC_ANSWERS_EARLY);
}

static bool is_flushed(const struct core *c, const struct core_op *op)
{
	return op->flush_number <= c->flushes_begun - c->is_flushing;
}

bool core_sync_must_wait(const struct core *c, const struct core_op *op)
{
	if (!is_far_useful(c))
		return false;
	return op->kind == CORE_FLUSH ? !is_flushed(c, op) : op->far_leg != CORE_FAR_IDLE;
}

void core_sync_wait(struct core *c, struct core_op *op, int err)
{
	op->answer_state = CORE_ANSWER_WAITS;
	op->waits_ns = c->now_ns;
	op->err = err;
	TAILQ_INSERT_TAIL(&c->waiting, op, answer);
}

static void stop_waiting(struct core *c, struct core_op *op)
{
	TAILQ_REMOVE(&c->waiting, op, answer);
	op->answer_state = CORE_ANSWER_DUE;
	TAILQ_INSERT_TAIL(&c->answers, op, answer);
}

void core_sync_far_done(struct core *c, struct core_op *op)
{
	if (op->answer_state == CORE_ANSWER_WAITS)
		stop_waiting(c, op);
}

/* The far flush may begin while the local one still runs. */
void core_sync_flush_arrived(struct core *c, struct core_op *op)
{
	op->flush_number = 0;
	if (!is_far_useful(c) || !c->far.can_flush || core_map_is_flushed(&c->map))
		return;
	op->flush_number = c->flushes_begun + !PLANTED(BUG_SYNC_OLD_FLUSH);
	c->flush_wanted = MAX(c->flush_wanted, op->flush_number);
}

bool core_sync_wants_flush(const struct core *c)
{
	return c->flush_wanted > c->flushes_begun;
}

void core_sync_flushed(struct core *c)
{
	struct core_op *op, *next;

	for (op = TAILQ_FIRST(&c->waiting); op; op = next) {
		next = TAILQ_NEXT(op, answer);
		if (op->kind == CORE_FLUSH && is_flushed(c, op))
			stop_waiting(c, op);
	}
}

void core_sync_release_all(struct core *c)
{
	struct core_op *op;

	while ((op = TAILQ_FIRST(&c->waiting)))
		stop_waiting(c, op);
}

static void lag(struct core *c)
{
	struct core_op *op;

	c->is_lagging = true;
	c->has_news = true;
	TAILQ_FOREACH(op, &c->waiting, answer)
		if (op->kind != CORE_FLUSH && !PLANTED(BUG_SYNC_STALL_IS_CLEAN))
			core_dirty(c, op->range);
	core_sync_release_all(c);
}

void core_sync_watch(struct core *c)
{
	const struct core_op *first = TAILQ_FIRST(&c->waiting), *oldest = TAILQ_FIRST(&c->sent);
	uint64_t stall_ns = c->spec.stall_ms * NS_PER_MS;

	if (first && c->now_ns - first->waits_ns >= stall_ns)
		lag(c);
	if (!c->is_lagging || core_owed_bytes(c) || c->is_stalled || c->is_flushing)
		return;
	if (c->is_linked && (!oldest || c->now_ns - oldest->sent_ns < stall_ns / 2)) {
		c->is_lagging = false;
		c->has_news = true;
	}
}

bool core_sync_answer(struct core *c, struct core_actions *out)
{
	struct core_op *op;

	while ((op = TAILQ_FIRST(&c->answers))) {
		if (!core_has_room(out, 1))
			return false;
		TAILQ_REMOVE(&c->answers, op, answer);
		op->answer_state = CORE_ANSWER_NONE;
		core_push(out, CORE_DO_COMPLETE_GUEST, op, op->err, 0);
		if (op->far_leg == CORE_FAR_IDLE)
			core_release(c, op);
	}
	return true;
}
