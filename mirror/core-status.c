/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-status - what can be asked of the core: figures for people, chunks for whoever checks the laws
 */
#include "mirror/core-private.h"

#define ETA_STEPS 8u

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

/* The way through what is owed gets slower: what a guest writes behind the copy takes part of the rate, and ever more of it is
 * behind. It is taken to be spread over the disk; the brake (I9) leaves the copy half of the rate and more. */
static uint64_t left_ms(const struct core *c, uint64_t owed)
{
	uint64_t rate = c->limit.rate_bytes ? MIN(c->pace.rate_bytes, c->limit.rate_bytes) : c->pace.rate_bytes;
	uint64_t all = MAX(c->total_bytes, owed), done = all - owed, beside = rate / 1000 * c->pace.beside_permille, ms = 0;

	if (!owed)
		return 0;
	if (rate < 1000)
		return UINT64_MAX;
	for (unsigned i = 1; i < ETA_STEPS * 2; i += 2) {
		double grown = done && !c->was_synced ? ((double)done + (double)owed * i / (ETA_STEPS * 2)) / (double)done : 1;
		double taken = (double)beside * grown, most = (double)rate / 2;

		ms += owed / ETA_STEPS / ((rate - (uint64_t)MIN(taken, most)) / 1000 + 1);
	}
	return ms + c->guest_charge / (rate / 1000);
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
	out->eta_ms = left_ms(c, owed);
	out->latency_ns = pace_latency_ns(&c->pace);
	out->flush_ns = c->flush_took_ns;
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
