/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-status - what can be asked of the core: figures for people, chunks for whoever checks the laws
 */
#include "mirror/core-private.h"

static const char *const state_names[] = {
	[CORE_CONNECTING] = "connecting", [CORE_SYNCING] = "syncing",   [CORE_SYNCED] = "synced", [CORE_FINISHING] = "finishing",
	[CORE_BROKEN] = "broken",
	[CORE_FINISHED] = "finished",     [CORE_FAILED] = "failed",     [CORE_ENDED] = "ended",
};

static const char *const pace_reasons[] = {
	[PACE_FREE] = "",
	[PACE_FAR_IS_SLOWER] = "the far side takes fewer writes than guests make",
	[PACE_DEBT_IS_HIGH] = "what is owed would take the far side too long",
	[PACE_PASS_IS_BEHIND] = "the copy would not end: guests write as fast as it goes",
};

const char *core_state_name(enum core_state s)
{
	return state_names[s];
}

void core_status(const struct core *c, struct core_status *out)
{
	uint64_t owed = core_owed_bytes(c), rate = c->pace.rate_bytes;

	*out = c->sum;
	out->state = c->state;
	out->was_synced = c->was_synced;
	out->is_stalled = c->is_stalled;
	out->is_sync = c->is_sync;
	out->is_lagging = c->is_lagging;
	out->generation = c->far.generation;
	out->is_map_ready = c->marks.is_ready;
	out->marked_regions = bitmap_count(c->marks.marked);
	out->is_idle = c->live_count == 0 && c->far_count == 0;
	out->err = c->err;
	out->dirty_bytes = c->state == CORE_FINISHED ? 0 : MIN(owed, c->spec.size_bytes);
	out->lag_bytes = c->queued_bytes;
	out->lag_ops = c->far_count;
	out->unflushed_bytes = c->far.can_flush ? c->unflushed_bytes : 0;
	out->rate_bytes = rate;
	out->limit_bytes = c->limit.rate_bytes;
	out->total_bytes = MIN(c->total_bytes, c->spec.size_bytes);
	out->pace_us = c->pace.delay_us;
	out->pace_ops = pace_ops(&c->pace);
	out->is_pace_at_limit = pace_is_at_limit(&c->pace);
	out->pace_why = pace_reasons[pace_reason(&c->pace)];
	out->eta_ms = owed == 0 ? 0 : rate ? (owed + c->guest_charge) / MAX(rate / 1000, UINT64_C(1)) : UINT64_MAX;
}

enum core_chunk core_chunk(const struct core *c, uint64_t chunk)
{
	if (bitmap_test(c->map.dirty, chunk))
		return CORE_DIRTY;
	for (unsigned i = 0; i < c->live_count; i++) {
		uint64_t first = c->live[i]->range.start / CORE_CHUNK_BYTES;

		if (chunk >= first && chunk - first < CORE_COPY_CHUNKS && core_mask_test(&c->live[i]->mine, chunk - first))
			return CORE_COPYING;
	}
	return CORE_CLEAN;
}

bool core_chunk_is_pristine(const struct core *c, uint64_t chunk)
{
	return core_map_is_pristine(&c->map, (struct core_span){ chunk, chunk + 1 });
}

bool core_has_far_leg(const struct core *c, struct range r)
{
	const struct core_ops *lists[] = { &c->blocked, &c->ready, &c->ready_copies, &c->sent };
	const struct core_op *op;

	for (unsigned i = 0; i < ARRAY_LEN(lists); i++)
		TAILQ_FOREACH(op, lists[i], link)
			if (range_overlaps(op->far_range, r))
				return true;
	return false;
}
