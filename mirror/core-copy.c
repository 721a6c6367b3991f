/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-copy - what is DIRTY becomes COPYING becomes CLEAN
 *
 * A copy takes the next run of DIRTY chunks in disk order, at most 64 (twice that where the far side is far away), round and
 * round. What is COPYING is not a map: it is the union of the live copies' masks, `mine`. Whatever makes a chunk DIRTY takes it
 * out of every mask, so an acknowledgement cleans what nobody touched since, and nothing else (I4).
 *
 *      choose           granted            read done                      acknowledged
 *      local claim ---> run of DIRTY ----> far enqueue, claim dropped --> mine: CLEAN
 *                       mine: COPYING          |                          failed: the whole range DIRTY
 *                                              '--> zeros on pristine chunks: CLEAN, nothing is sent (I6)
 *
 * A copy is cut where pristine chunks end: then all of it is one or the other, and zeros need no splitting. It bridges gaps:
 * guests leave chunks scattered, and a request each costs more than some bytes sent for nothing. (CLEAN bytes read under the
 * local claim, and in order by the far claim, do no harm.) Where nothing is pristine, as long as half of it is DIRTY. Among
 * pristine chunks the bytes are zeros that the far side has, and may have to find room for: there only narrow gaps, and all of
 * them together cost what guests saved by writing to DIRTY chunks, and a little of what was copied.
 *
 * A write to pristine chunks so near to DIRTY ones that the pass has not come to yet is left to it (core-write.c), too.
 *
 * Can fail:    a read: its chunks one by one, each three times; then `unreadable`, DIRTY for good, and before "complete" that
 *              is the operation's end (I7).
 * Invariant:   a chunk is in at most one mask, and then not in the DIRTY map.
 */
#include "mirror/core-private.h"

#include <errno.h>
#include <string.h>

#define BRIDGED_SHARE 32u              /* of what was copied, one part in so many may be zeros that bridge */
#define READ_ATTEMPTS 3u

static uint64_t length_of(struct core_span s)
{
	return s.end - s.first;
}

static bool can_choose(struct core *c)
{
	if (!core_is_mirroring(c) || !c->is_linked || c->is_cut || !c->idle_count)
		return false;
	if (bitmap_count(c->map.dirty) == bitmap_count(c->map.unreadable) || !core_limit_allows_copy(c))
		return false;
	return core_reading_has_room(c);
}

/* A copy that waits for its claim has this already. */
static bool is_awaited(const struct core *c, uint64_t chunk, uint64_t *end)
{
	for (unsigned i = 0; i < c->live_count; i++) {
		const struct core_op *op = c->live[i];
		struct core_span s;

		if (op->local_leg != CORE_LOCAL_WAITING)
			continue;
		s = core_map_span(&c->map, op->range);
		if (s.first <= chunk && chunk < s.end) {
			*end = s.end;
			return true;
		}
	}
	return false;
}

static bool find_start(struct core *c, uint64_t *first)
{
	uint64_t chunk, end;

	for (unsigned tries = 0; tries < 2 * CORE_COPIES_MAX; tries++) {
		chunk = bitmap_next(c->map.dirty, c->cursor);
		if (chunk >= c->map.chunks) {
			c->passes++;
			if (c->cursor == 0)
				return false;
			c->cursor = 0;
			continue;
		}
		if (bitmap_test(c->map.unreadable, chunk)) {
			c->cursor = bitmap_next_clear(c->map.unreadable, chunk);
		} else if (is_awaited(c, chunk, &end)) {
			c->cursor = end;
		} else {
			*first = chunk;
			return true;
		}
	}
	return false;
}

static uint64_t chunks_allowed(const struct core *c, uint64_t first)
{
	uint64_t most = core_far_copy_bytes(c, core_is_disk_shared(c)) / CORE_CHUNK_BYTES;

	most = MIN(most, MAX(c->far.max_bytes / CORE_CHUNK_BYTES, 1u));
	most = MIN(most, MAX(c->spec.lag_bytes / 2 / CORE_CHUNK_BYTES, 1u));
	if (first >= c->careful.first && first < c->careful.end)
		return 1;
	return first < c->careful.first ? MIN(most, c->careful.first - first) : most;
}

static bool is_pristine_chunk(const struct core *c, uint64_t chunk)
{
	return core_map_is_pristine(&c->map, (struct core_span){ chunk, chunk + 1 });
}

/* Between DIRTY chunks that are pristine as it is: `wide` in a row so far, `gaps` in all. */
static bool may_bridge_pristine(const struct core *c, uint64_t wide, uint64_t gaps)
{
	uint64_t spared = c->merged_bytes + c->sum.copied_bytes / BRIDGED_SHARE;

	return wide <= CORE_BRIDGED_CHUNKS && c->bridged_bytes + gaps * CORE_CHUNK_BYTES <= spared;
}

/* From `first`, which is DIRTY and readable, no further than `end`: all pristine, with narrow gaps; or none of it pristine, and
 * at least half of it DIRTY. */
static struct core_span run_from(const struct core *c, uint64_t first, uint64_t end)
{
	bool is_pristine = is_pristine_chunk(c, first);
	struct core_span run = { first, first };
	uint64_t next = first, gaps = 0;

	end = MIN(end, first + chunks_allowed(c, first));
	end = MIN(end, bitmap_next(c->map.unreadable, first));
	while (next < end && is_pristine_chunk(c, next) == is_pristine) {
		if (bitmap_test(c->map.dirty, next++)) {
			run.end = next;
			continue;
		}
		gaps++;
		if (is_pristine ? !may_bridge_pristine(c, next - run.end, gaps) : gaps > length_of(run) / 2)
			break;
		if (!core_marks_covers(c, next - 1))
			break;
	}
	return run;
}

static struct core_op *revive(struct core *c)
{
	struct core_op *op = c->idle[--c->idle_count];

	*op = (struct core_op){ .kind = CORE_COPY, .driver = op->driver };
	c->live[c->live_count++] = op;
	c->reading.count++;
	return op;
}

static void retire(struct core *c, struct core_op *op)
{
	unsigned i = 0;

	assert(!op->mine_count && !op->local.is_live && op->far_leg == CORE_FAR_IDLE);
	core_marks_unpin(c, op);
	while (c->live[i] != op)
		i++;
	c->live[i] = c->live[--c->live_count];
	c->idle[c->idle_count++] = op;
}

/* Of its local disk; until it is over, the charge is what it reads. */
static void charge(struct core *c, struct core_op *op)
{
	uint64_t bytes = range_length(op->range);

	core_limit_give_back(c, op->charge_bytes);
	core_limit_copy(c, bytes);
	c->copy_charge += bytes - op->charge_bytes;
	c->reading.bytes += bytes - op->charge_bytes;
	op->charge_bytes = bytes;
}

static void end_reading(struct core *c, struct core_op *op)
{
	c->reading.count--;
	c->reading.bytes -= op->charge_bytes;
}

/* The reading half is over: nothing is on its way to the far side, the copy's charge and claim go. */
static void give_up(struct core *c, struct core_op *op)
{
	end_reading(c, op);
	c->copy_charge -= op->charge_bytes;
	core_limit_give_back(c, op->charge_bytes);
	op->local_leg = CORE_LOCAL_OVER;
	if (op->local.is_live)
		core_drop_local(c, op);
	retire(c, op);
}

bool core_copy_choose(struct core *c)
{
	struct core_span run;
	struct core_op *op;
	uint64_t first;

	if (!can_choose(c) || !core_far_has_copy_room(c, CORE_CHUNK_BYTES, core_is_guest_active(c)) || !find_start(c, &first))
		return false;
	run = run_from(c, first, c->map.chunks);
	if (!core_far_has_copy_room(c, range_length(core_map_bytes(&c->map, run)), core_is_guest_active(c)))
		return false;

	op = revive(c);
	c->cursor = run.end;
	op->range = core_map_bytes(&c->map, run);
	charge(c, op);
	op->local_leg = CORE_LOCAL_WAITING;
	if (claim_take(c->local_claims, &op->local, op->range, op))
		TAILQ_INSERT_TAIL(&c->granted, &op->local, wake);
	return true;
}

/* What of the claimed range is still to be copied. */
static struct core_span run_within(const struct core *c, struct core_span claimed)
{
	uint64_t first = bitmap_next(c->map.dirty, claimed.first);

	while (first < claimed.end && bitmap_test(c->map.unreadable, first))
		first = bitmap_next(c->map.dirty, first + 1);
	return first < claimed.end ? run_from(c, first, claimed.end) : (struct core_span){ 0, 0 };
}

static void make_copying(struct core *c, struct core_op *op, struct core_span run)
{
	uint64_t chunk = bitmap_next(c->map.dirty, run.first);

	for (; chunk < run.end; chunk = bitmap_next(c->map.dirty, chunk + 1))
		core_mask_set(&op->mine, chunk - run.first);
	op->mine_count = (unsigned)bitmap_clear(c->map.dirty, run.first, run.end);
	c->copying_chunks += op->mine_count;
}

void core_copy_granted(struct core *c, struct core_op *op, struct core_actions *out)
{
	struct core_span run = { 0, 0 };

	if (core_is_mirroring(c) && c->is_linked && !c->is_cut)
		run = run_within(c, core_map_span(&c->map, op->range));
	if (length_of(run) == 0) {
		give_up(c, op);
		return;
	}
	op->range = core_map_bytes(&c->map, run);
	charge(c, op);
	core_marks_pin(c, op);
	make_copying(c, op, run);
	if (is_pristine_chunk(c, run.first))
		c->bridged_bytes += (length_of(run) - op->mine_count) * CORE_CHUNK_BYTES;
	op->local_leg = CORE_LOCAL_BUSY;
	op->asked_ns = c->now_ns;
	core_push(out, CORE_DO_COPY_READ, op, 0, 0);
	if (PLANTED(BUG_READ_UNCLAIMED))
		core_drop_local(c, op);
}

/* All that is still its own, but for `kept`. */
static void clean(struct core *c, struct core_op *op, const struct core_mask *kept)
{
	unsigned count = op->mine_count;

	if (kept) {
		struct core_mask gone = core_mask_without(op->mine, kept);

		op->mine = core_mask_without(op->mine, &gone);
		op->mine_count = core_mask_count(&op->mine);
	} else {
		op->mine = (struct core_mask){ 0 };
		op->mine_count = 0;
	}
	count -= op->mine_count;
	c->copying_chunks -= count;
	c->sum.copied_bytes += (uint64_t)count * CORE_CHUNK_BYTES;
}

static void read_failed(struct core *c, struct core_op *op, int err, struct core_actions *out)
{
	struct core_span s = core_map_span(&c->map, op->range);

	if (length_of(s) == 1 && ++op->attempts < READ_ATTEMPTS) {
		core_push(out, CORE_DO_COPY_READ, op, 0, 0);
		return;
	}
	core_dirty(c, op->range);
	if (length_of(s) == 1) {
		bitmap_set(c->map.unreadable, s.first, s.end);
	} else {
		bool is_new = c->careful.first == c->careful.end;

		c->careful.first = is_new ? s.first : MIN(s.first, c->careful.first);
		c->careful.end = is_new ? s.end : MAX(s.end, c->careful.end);
		c->cursor = s.first;
	}
	give_up(c, op);
	if (length_of(s) == 1 && !c->was_synced)
		core_fail(c, err);
}

/* From here it is the far side's. The far leg stands in line before the local claim goes (I4). */
static void hand_over(struct core *c, struct core_op *op, struct core_span hull, bool is_zero)
{
	op->far_kind = is_zero && c->far.can_zero ? CORE_FAR_ZERO : CORE_FAR_WRITE;
	op->far_may_trim = true;
	op->far_range = core_map_bytes(&c->map, hull);
	core_limit_give_back(c, op->charge_bytes - (op->far_kind == CORE_FAR_WRITE ? range_length(op->far_range) : 0));
	end_reading(c, op);
	op->local_leg = CORE_LOCAL_OVER;
	core_far_enqueue(c, op);
	if (op->local.is_live)
		core_drop_local(c, op);
}

/* Bridged chunks too: they go over with the others. */
static bool is_zero_between(const struct core_op *op, unsigned first, unsigned last)
{
	for (unsigned i = first; i <= last; i++)
		if (!core_mask_test(&op->zeros, i))
			return false;
	return true;
}

static void read_good(struct core *c, struct core_op *op)
{
	struct core_span s = core_map_span(&c->map, op->range);
	bool is_pristine = core_map_is_pristine(&c->map, s);
	bool has_skips = is_pristine || PLANTED(BUG_ZERO_ALWAYS_SKIPPED);
	struct core_mask data = has_skips ? core_mask_without(op->mine, &op->zeros) : op->mine, outside, kept;
	unsigned first, last, owed = op->mine_count;

	if (core_mask_is_empty(&data)) {
		c->sum.skipped_bytes += (uint64_t)owed * CORE_CHUNK_BYTES;
		clean(c, op, NULL);
		give_up(c, op);
		core_shadow_settle(c, op->range);
		return;
	}
	first = core_mask_first(&data);
	last = core_mask_last(&data);
	outside = core_mask_outside(op->mine, first, last);
	kept = core_mask_without(op->mine, &outside);
	clean(c, op, &kept);
	if (is_pristine)
		c->sum.skipped_bytes += (uint64_t)(owed - op->mine_count) * CORE_CHUNK_BYTES;
	hand_over(c, op, (struct core_span){ s.first + first, s.first + last + 1 }, is_zero_between(op, first, last));
}

void core_copy_read_done(struct core *c, struct core_op *op, int err, struct core_actions *out)
{
	assert(op->local_leg == CORE_LOCAL_BUSY);
	c->read_ns = c->now_ns;
	if (err && PLANTED(BUG_UNREADABLE_IS_ZERO)) {
		memset(&op->zeros, 0xff, sizeof op->zeros);
		err = 0;
	}
	if (!core_is_mirroring(c) || !c->is_linked || c->is_cut) {
		core_dirty(c, op->range);
		give_up(c, op);
	} else if (err) {
		read_failed(c, op, err, out);
	} else {
		core_reading_took(c, op);
		read_good(c, op);
	}
}

void core_copy_far_done(struct core *c, struct core_op *op, bool is_good)
{
	if (is_good && PLANTED(BUG_ACK_CLEANS_RANGE)) {
		struct core_span s = core_map_span(&c->map, op->range);

		bitmap_clear(c->map.dirty, s.first, s.end);
	}
	if (is_good || PLANTED(BUG_COPY_FAILURE_IS_CLEAN))
		clean(c, op, NULL);
	retire(c, op);
}
