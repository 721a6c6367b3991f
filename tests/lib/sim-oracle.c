/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sim-oracle - the laws of mirror/THEORY, looked at from outside after every step
 *
 * It knows both disks and what is in flight, which the core does not; of the core it asks only what a chunk is and whether a
 * far leg stands on a range.
 */
#include "tests/lib/sim.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "mirror/pace.h"

void sim_break(struct sim *w, const char *fmt, ...)
{
	va_list args;

	if (w->broken[0])
		return;
	va_start(args, fmt);
	vsnprintf(w->broken, sizeof w->broken, fmt, args);
	va_end(args);
}

void sim_say(struct sim *w, const char *fmt, ...)
{
	size_t room = SIM_TRACE_BYTES - w->trace_used;
	va_list args;
	int n;

	if (!w->params.is_traced || room < 256)
		return;
	n = snprintf(w->trace + w->trace_used, room, "[%4u] ", (unsigned)(w->now_ns / NS_PER_MS - 1000));
	va_start(args, fmt);
	n += vsnprintf(w->trace + w->trace_used + n, room - (size_t)n, fmt, args);
	va_end(args);
	w->trace_used += MIN((size_t)n, room - 2);
	w->trace[w->trace_used++] = '\n';
	w->trace[w->trace_used] = '\0';
}

static struct sim_guest *guest_of(struct core_op *op)
{
	return container_of(op, struct sim_guest, op);
}

static void say_range(struct sim *w, const char *what, struct range r)
{
	sim_say(w, "  -> %s %u+%u", what, (unsigned)(r.start / SIM_SECTOR), (unsigned)(range_length(r) / SIM_SECTOR));
}

static void check_apart(struct sim *w, struct core_op *const *list, unsigned count, struct range r, bool is_far)
{
	for (unsigned i = 0; i < count; i++)
		if (range_overlaps(is_far ? list[i]->far_range : list[i]->range, r))
			sim_break(w, "I2: two %s legs on one range", is_far ? "far" : "local");
}

static bool is_payload_zero(const struct core_op *op)
{
	const struct sim_copy *copy = op->driver;
	uint64_t first = (op->far_range.start - op->range.start) / SIM_SECTOR, count = range_length(op->far_range) / SIM_SECTOR;
	uint32_t any = 0;

	if (op->kind != CORE_COPY)
		return container_of(op, struct sim_guest, op)->version == 0;
	for (uint64_t s = first; s < first + count; s++)
		any |= copy->data[s];
	return any == 0;
}

/* Whether all these chunks never held anything but zeros, here and there; that ends for all of them where it has for one. */
bool sim_stays_clean(struct sim *w, struct range r, bool is_zero)
{
	uint64_t first = r.start / CORE_CHUNK_BYTES, end = (r.end - 1) / CORE_CHUNK_BYTES + 1;
	bool is_clean = is_zero;

	for (uint64_t c = first; c < end; c++)
		is_clean = is_clean && w->is_clean[c];
	for (uint64_t c = first; c < end; c++)
		w->is_clean[c] = is_clean;
	return is_clean;
}

static void check_zero_sent(struct sim *w, const struct core_op *op)
{
	if (op->far_kind == CORE_FAR_ZERO && !is_payload_zero(op))
		sim_break(w, "I6: data sent as zeros");
	if (sim_stays_clean(w, op->far_range, is_payload_zero(op)))
		sim_break(w, "I6: zeros sent to a target known to be zero");
}

static void check_far_submit(struct sim *w, struct core_op *op)
{
	const struct core_far *far = &w->params.far;
	bool is_copy = op->kind == CORE_COPY;

	for (uint64_t c = op->far_range.start / CORE_CHUNK_BYTES; c * CORE_CHUNK_BYTES < op->far_range.end; c++)
		w->was_sent[c] = true;
	say_range(w, op->far_kind == CORE_FAR_ZERO ? "far zero" : is_copy ? "far copy" : "far write", op->far_range);
	check_apart(w, w->away, w->away_count, op->far_range, true);
	check_zero_sent(w, op);
	if (!range_contains(op->range, op->far_range) ||
	    (op->kind != CORE_COPY && !range_contains(op->far_range, op->range)))
		sim_break(w, "far leg of other bytes than the operation's");
	if (!w->is_linked || w->was_dropped)
		sim_break(w, "far leg without a link");
	if (w->away_count >= far->window_ops)
		sim_break(w, "more in flight than the window");
	if (!range_is_aligned(op->far_range, far->min_block_bytes))
		sim_break(w, "not a multiple of the far side's blocks");
	if (op->far_kind == CORE_FAR_WRITE && range_length(op->far_range) > far->max_bytes)
		sim_break(w, "longer than the far side takes");
	if (op->far_kind == CORE_FAR_ZERO && !far->can_zero)
		sim_break(w, "zeros to a far side that has none");
	if (op->far_kind == CORE_FAR_WRITE && op->kind != CORE_WRITE && op->kind != CORE_COPY)
		sim_break(w, "a write without data");
}

static struct range chunk_bytes(const struct sim *w, unsigned chunk)
{
	return (struct range){ (uint64_t)chunk * CORE_CHUNK_BYTES,
			       MIN((uint64_t)(chunk + 1) * CORE_CHUNK_BYTES, w->params.spec.size_bytes) };
}

static bool is_mirroring(enum core_state s)
{
	return s == CORE_SYNCING || s == CORE_SYNCED || s == CORE_FINISHING;
}

static bool is_sync_now(const struct sim *w)
{
	return w->is_linked && w->status.is_sync && !w->status.is_lagging && is_mirroring(w->status.state);
}

/* What the far side has and a flush that begins now must keep. (Zeros tell no one version from another.) */
void sim_note_promise(struct sim *w, struct sim_guest *g)
{
	g->generation = w->generation;
	g->bad_flushes = w->bad_flushes;
	for (unsigned s = 0; s < w->sectors; s++) {
		bool is_there = core_chunk(w->core, s / 8) == CORE_CLEAN && !core_has_far_leg(w->core, chunk_bytes(w, s / 8));

		g->promised[s] = is_sync_now(w) && is_there && w->far[s] ? w->far[s] : SIM_NOTHING;
	}
}

static void check_promise(struct sim *w, const struct sim_guest *g)
{
	if (g->generation != w->generation || g->bad_flushes != w->bad_flushes || !w->params.far.can_flush)
		return;
	for (unsigned s = 0; s < w->sectors; s++)
		if (g->promised[s] != SIM_NOTHING && w->far[s] == g->promised[s] && w->durable[s] != w->far[s] &&
		    core_chunk(w->core, s / 8) == CORE_CLEAN)
			sim_break(w, "I10: in sync, a guest's flush was answered, and sector %u is not on the far medium", s);
}

/* In sync the answer says that both sides have it; after a stall, that it is owed. */
static void check_sync(struct sim *w, const struct core_op *op)
{
	struct sim_guest *g = guest_of((struct core_op *)(uintptr_t)op);

	if (op->kind == CORE_FLUSH) {
		if (is_sync_now(w))
			check_promise(w, g);
		return;
	}
	if (op->far_leg == CORE_FAR_IDLE || !w->status.is_sync)
		return;
	if (is_sync_now(w))
		sim_break(w, "sync: answered before the far side had it");
	for (uint64_t c = op->range.start / CORE_CHUNK_BYTES; g->is_waiting && c * CORE_CHUNK_BYTES < op->range.end; c++)
		if (core_chunk(w->core, c) == CORE_CLEAN)
			sim_break(w, "I8: chunk %u was too late for the guest, and is not owed", (unsigned)c);
}

static void check_answer(struct sim *w, const struct core_action *a)
{
	sim_say(w, "  -> guest hears%s%s", a->err ? " the error" : "", a->delay_us ? ", later" : "");
	if (guest_of(a->op)->state != SIM_SUBMITTED)
		sim_break(w, "a guest's write answered twice, or before its disk was asked");
	if (!a->err)
		check_sync(w, a->op);
	if (a->delay_us > PACE_DELAY_MAX_US)
		sim_break(w, "I9: held %u us", a->delay_us);
	if (a->delay_us && (w->status.is_stalled || (w->status.state != CORE_SYNCING && w->status.state != CORE_SYNCED)))
		sim_break(w, "I9: paced while nothing is acknowledged");
}

static void check_release(struct sim *w, struct core_op *op)
{
	if (guest_of(op)->state != SIM_ANSWERED)
		sim_break(w, "released before the guest was answered");
	for (unsigned i = 0; i < w->away_count; i++)
		if (w->away[i] == op)
			sim_break(w, "I5: released while its far leg was in flight");
}

/* FINISHED: nothing owed, nothing on its way, all of it on the far side's medium, or about to be asked for. */
static void check_finished(struct sim *w)
{
	bool is_flushed = w->params.far.can_flush && (!w->params.far.flushes_last || !w->params.spec.keeps_link || w->is_cut);
	const uint32_t *there = is_flushed ? w->durable : w->far, *want = w->is_cut ? w->at_cut : w->local;

	if (w->away_count || w->is_flushing)
		sim_break(w, "I10: finished with something in flight");
	if (!w->is_cut && w->home_count)
		sim_break(w, "finished before the guests' disk was");
	if (w->is_cut && !w->is_cut_exact)
		return;
	for (unsigned s = 0; s < w->sectors; s++)
		if (want[s] != there[s])
			sim_break(w, "lost: sector %u is %u there, not %u", s, there[s], want[s]);
}

/* A copy of a live disk is cut off: from here on, this is what the far side must become. */
static void note_cut(struct sim *w)
{
	w->is_cut = true;
	w->is_cut_exact = true;
	memcpy(w->at_cut, w->local, sizeof w->at_cut);
	for (unsigned i = 0; i < w->home_count; i++) {
		const struct core_op *op = w->at_home[i];

		for (uint64_t s = op->range.start / SIM_SECTOR; s < op->range.end / SIM_SECTOR && op->kind != CORE_TRIM; s++)
			w->at_cut[s] = guest_of(w->at_home[i])->version;
	}
}

void sim_check_action(struct sim *w, const struct core_action *a)
{
	switch (a->type) {
	case CORE_DO_LOCAL_SUBMIT:
		say_range(w, "local", a->op->range);
		if (guest_of(a->op)->state != SIM_ARRIVED)
			sim_break(w, "submitted twice");
		check_apart(w, w->at_home, w->home_count, a->op->range, false);
		check_apart(w, w->reads, w->read_count, a->op->range, false);
		break;
	case CORE_DO_COPY_READ:
		say_range(w, "read", a->op->range);
		check_apart(w, w->at_home, w->home_count, a->op->range, false);
		break;
	case CORE_DO_REMOTE_SUBMIT:
		check_far_submit(w, a->op);
		break;
	case CORE_DO_COMPLETE_GUEST:
		check_answer(w, a);
		break;
	case CORE_DO_RELEASE:
		check_release(w, a->op);
		break;
	case CORE_DO_FLUSH_FAR:
		sim_say(w, "  -> flush");
		if (w->is_flushing || !w->params.far.can_flush)
			sim_break(w, "I10: a flush too many");
		break;
	case CORE_DO_REPORT:
		sim_say(w, "  -> %s%s%s", core_state_name(w->status.state), w->status.is_stalled ? ", stalled" : "",
			a->err ? ", backed out" : "");
		if (w->status.state == CORE_FINISHED && w->params.spec.is_copy && !w->is_cut)
			note_cut(w);
		if (w->status.state == CORE_FINISHED)
			check_finished(w);
		break;
	case CORE_DO_FLUSH_HOME:
		sim_say(w, "  -> flush at home");
		if (w->is_flushing_home)
			sim_break(w, "I11: a flush at home too many");
		break;
	case CORE_DO_MARK:
		sim_say(w, "  -> mark %u+%u", (unsigned)a->region, (unsigned)a->count);
		break;
	case CORE_DO_RETIRE:
		sim_say(w, "  -> retire %u+%u", (unsigned)a->region, (unsigned)a->count);
		break;
	case CORE_DO_DROP_LINK:
		break;
	}
}

static bool is_local_busy(const struct sim *w, struct range r)
{
	for (unsigned i = 0; i < w->home_count; i++)
		if (range_overlaps(w->at_home[i]->range, r))
			return true;
	return false;
}

/* I1: a CLEAN chunk with nothing queued or in flight for it is the same on both sides. */
static void check_same(struct sim *w)
{
	for (unsigned chunk = 0; chunk < w->chunks; chunk++) {
		unsigned first = chunk * 8, count = MIN(8u, w->sectors - first);
		struct range r = chunk_bytes(w, chunk);

		if (memcmp(&w->local[first], &w->far[first], count * sizeof w->far[0]) == 0)
			continue;
		if (core_chunk(w->core, chunk) == CORE_CLEAN && !core_has_far_leg(w->core, r) && !is_local_busy(w, r))
			sim_break(w, "I1: chunk %u is CLEAN, and differs", chunk);
	}
}

/* I6: pristine means that it reads as zero there. */
static void check_pristine(struct sim *w)
{
	for (unsigned s = 0; s < w->sectors; s++)
		if (w->far[s] && core_chunk_is_pristine(w->core, s / 8))
			sim_break(w, "I6: chunk %u is called pristine, and is not", s / 8);
}

static bool is_sendable(const struct sim *w, const struct core_op *op)
{
	const struct core_far *far = &w->params.far;

	if (op->kind == CORE_FLUSH)
		return true;
	if (op->kind == CORE_TRIM && !w->params.spec.trim_reads_zero)
		return false;
	if (!range_is_aligned(op->range, far->min_block_bytes))
		return false;
	return op->kind == CORE_WRITE ? range_length(op->range) <= far->max_bytes : far->can_zero;
}

void sim_check_before(struct sim *w)
{
	w->has_unsendable = false;
	w->most_queued_bytes = w->status.lag_bytes + 2 * w->params.spec.size_bytes; /* what copies read and wait to read */
	for (unsigned i = 0; i < SIM_GUESTS_MAX; i++) {
		if (w->guests[i].state == SIM_FREE)
			continue;
		w->most_queued_bytes += range_length(w->guests[i].op.range);
		if (!is_sendable(w, &w->guests[i].op))
			w->has_unsendable = true;
	}
	for (unsigned c = 0; w->status.state == CORE_SYNCING && c < w->chunks; c++)
		w->may_be_left[c] = core_chunk(w->core, c) != CORE_CLEAN || !w->was_sent[c];
}

/* I4: what is left to the pass was never sent before. (In the same step another write may go to the rest of its chunk.) */
static void check_left(struct sim *w)
{
	for (unsigned c = 0; c < w->chunks; c++)
		if (!w->may_be_left[c] && core_chunk(w->core, c) != CORE_CLEAN)
			sim_break(w, "I4: chunk %u was sent, and is left to the pass", c);
}

/* I4: what is owed grows only where the bound was reached, the far side could not take the write, something failed, or the first
 * pass has yet to come there. */
static void check_growth(struct sim *w, const struct core_event *ev, const struct core_status *before)
{
	uint64_t overflow = w->status.overflow_bytes - before->overflow_bytes;
	uint64_t bound = MIN(w->params.spec.lag_bytes, 256 * KiB), left = w->status.left_bytes - before->left_bytes;
	bool may_grow = overflow || ev->err || !is_mirroring(w->status.state) || w->is_cut || w->has_unsendable;

	if (ev->type == CORE_LINK_UP || w->status.is_lagging)
		return;
	if (left && before->state != CORE_SYNCING)
		sim_break(w, "I4: left to a pass that is over");
	else if (left && !may_grow)
		check_left(w);
	else if (w->status.dirty_bytes > before->dirty_bytes && !may_grow)
		sim_break(w, "I4: the debt grew for no reason");
	if (overflow && w->params.spec.lag_ms >= 1000000 && w->most_queued_bytes <= bound - bound / 4)
		sim_break(w, "I4: overflow within the bound");
}

/* A guest waits for the far side no longer than stall_ms, as long as time is told. */
static void check_waiting(struct sim *w)
{
	for (unsigned i = 0; i < SIM_GUESTS_MAX; i++) {
		const struct sim_guest *g = &w->guests[i];

		if (g->state == SIM_SUBMITTED && g->is_waiting && w->now_ns - g->waits_ns >= 250 * NS_PER_MS)
			sim_break(w, "I8: a guest has waited for the far side for 250 ms");
	}
}

void sim_check_step(struct sim *w, const struct core_event *ev, const struct core_status *before)
{
	uint64_t one_copy = SIM_CHUNKS_MAX * CORE_CHUNK_BYTES; /* one is always let in, so that the pass goes on */
	enum core_state state = w->status.state;

	if (state == CORE_FINISHING && before->state != CORE_FINISHING && w->params.spec.is_copy)
		note_cut(w);
	if (state != CORE_FINISHING && state != CORE_FINISHED)
		w->is_cut = false;
	if (ev->err)
		w->is_cut_exact = false;
	if (w->status.lag_bytes > MAX(2 * w->params.spec.lag_bytes, w->params.spec.size_bytes) + one_copy)
		sim_break(w, "more queued than the lag bound");
	check_growth(w, ev, before);
	check_waiting(w);
	if (state == CORE_FINISHED && !w->params.spec.keeps_link)
		return;
	if (!w->is_far_suspect)
		check_same(w);
	check_pristine(w);
}

bool sim_is_same(const struct sim *w)
{
	return memcmp(w->local, w->far, w->sectors * sizeof w->local[0]) == 0;
}

void sim_end(struct sim *w)
{
	sim_event(w, CORE_ABORT, 0);
	while (sim_is_fine(w) && w->away_count && sim_dice(w, 2))
		sim_far_done(w, w->away_count - 1, ESHUTDOWN);
	if (w->is_linked)
		sim_link_down(w, ENOTCONN);
	while (sim_is_fine(w) && (w->home_count || w->read_count || w->asked_count))
		if (w->asked_count)
			sim_marked(w, 0, 0, true);
		else if (w->home_count)
			sim_local_done(w, 0, 0);
		else
			sim_read_done(w, 0, 0);
	for (unsigned i = 0; i < SIM_GUESTS_MAX && sim_is_fine(w); i++)
		if (w->guests[i].state != SIM_FREE)
			sim_break(w, "an operation never came back");
	if (sim_is_fine(w) && !w->status.is_idle)
		sim_break(w, "the core is not idle at the end");
	if (sim_is_fine(w))
		core_free(w->core);
	w->core = NULL;
}
