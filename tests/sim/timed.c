/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * timed - see timed.h
 *
 *      heap of what will happen, by time --> core_step() --> what it asks for happens later: into the heap
 */
#include "tests/sim/timed.h"

#include <string.h>

#define US UINT64_C(1000)

static void put(struct timed *w, uint64_t at_ns, enum timed_kind kind, struct core_op *op)
{
	unsigned i = w->count++;

	assert(w->count < TIMED_ITEMS_MAX);
	for (; i && w->heap[(i - 1) / 2].at_ns > at_ns; i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = (struct timed_item){ at_ns, kind, op };
}

static struct timed_item take(struct timed *w)
{
	struct timed_item first = w->heap[0], last = w->heap[--w->count];
	unsigned i = 0, child;

	while ((child = 2 * i + 1) < w->count) {
		if (child + 1 < w->count && w->heap[child + 1].at_ns < w->heap[child].at_ns)
			child++;
		if (w->heap[child].at_ns >= last.at_ns)
			break;
		w->heap[i] = w->heap[child];
		i = child;
	}
	w->heap[i] = last;
	return first;
}

static void send(struct timed *w, struct core_op *op)
{
	uint64_t cost_ns = range_length(op->far_range) * NS_PER_S / w->rate;

	w->far_free_ns = MAX(w->far_free_ns, w->now_ns) + MAX(cost_ns, w->scene->per_op_us * US);
	put(w, w->far_free_ns + w->scene->latency_us * US, FAR_LEG, op);
}

static void answer(struct timed *w, const struct core_action *a)
{
	w->written++;
	w->held_us += a->delay_us;
	w->worst_us = MAX(w->worst_us, a->delay_us);
	if (w->synced_ns && w->now_ns > w->synced_ns + NS_PER_S)
		w->took[MIN(a->delay_us + TIMED_LOCAL_US, TIMED_TOOK_MAX_US) / TIMED_TOOK_STEP_US]++;
	put(w, w->now_ns + (a->delay_us + w->think_us) * US, NEXT_WRITE, NULL);
}

static void perform(struct timed *w, const struct core_action *a)
{
	switch (a->type) {
	case CORE_DO_LOCAL_SUBMIT:
		put(w, w->now_ns + TIMED_LOCAL_US * US, LOCAL, a->op);
		break;
	case CORE_DO_COPY_READ:
		put(w, w->now_ns + 300 * US, READ, a->op);
		break;
	case CORE_DO_REMOTE_SUBMIT:
		send(w, a->op);
		break;
	case CORE_DO_COMPLETE_GUEST:
		answer(w, a);
		break;
	case CORE_DO_RELEASE:
		w->idle[w->idle_count++] = a->op;
		break;
	case CORE_DO_FLUSH_FAR:
		put(w, w->now_ns + (w->scene->latency_us + 2000) * US, FLUSHED_FAR, NULL);
		break;
	case CORE_DO_FLUSH_HOME: /* of the map, which nobody turned on */
	case CORE_DO_MARK:
	case CORE_DO_RETIRE:
	case CORE_DO_REPORT:
	case CORE_DO_DROP_LINK:
		break;
	}
}

static void step(struct timed *w, struct core_event ev)
{
	struct core_actions out;

	ev.now_ns = w->now_ns;
	ev.generation = 1;
	do {
		core_step(w->core, &ev, &out);
		for (unsigned i = 0; i < out.count; i++)
			perform(w, &out.item[i]);
		ev.type = CORE_MORE;
	} while (out.is_full);
}

static void write_next(struct timed *w)
{
	uint64_t size = w->scene->write_kib * KiB, at;
	struct core_op *op;

	if (w->writing > w->depth) {
		w->writing--;
		return;
	}
	assert(w->idle_count);
	op = w->idle[--w->idle_count];
	w->dice = w->dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	at = w->scene->hot_from + (w->dice >> 20) % (w->scene->hot_bytes / size) * size;
	*op = (struct core_op){ .kind = CORE_WRITE, .range = { at, at + size } };
	step(w, (struct core_event){ .type = CORE_WRITE_ARRIVED, .op = op });
}

void timed_happen(struct timed *w)
{
	struct timed_item item = take(w);
	uint64_t debt_bytes;

	w->now_ns = item.at_ns;
	switch (item.kind) {
	case LOCAL:
		step(w, (struct core_event){ .type = CORE_LOCAL_DONE, .op = item.op });
		break;
	case READ:
		step(w, (struct core_event){ .type = CORE_COPY_READ_DONE, .op = item.op });
		break;
	case FAR_LEG:
		step(w, (struct core_event){ .type = CORE_REMOTE_DONE, .op = item.op });
		break;
	case FLUSHED_FAR:
		step(w, (struct core_event){ .type = CORE_FLUSHED });
		break;
	case NEXT_WRITE:
		write_next(w);
		break;
	case TICKS:
		put(w, w->now_ns + 10 * NS_PER_MS, TICKS, NULL);
		step(w, (struct core_event){ .type = CORE_TICK });
		break;
	}
	core_status(w->core, &w->status);
	debt_bytes = w->status.dirty_bytes + w->status.lag_bytes;
	if (w->status.was_synced && !w->synced_ns)
		w->synced_ns = w->now_ns;
	if (w->synced_ns && w->status.rate_bytes)
		w->worst_debt_ms = MAX(w->worst_debt_ms, debt_bytes * 1000 / w->status.rate_bytes);
}

void timed_set_depth(struct timed *w, unsigned depth)
{
	for (w->depth = depth; w->writing < depth; w->writing++)
		put(w, w->now_ns, NEXT_WRITE, NULL);
}

void timed_set_limit(struct timed *w, uint64_t bytes_s)
{
	step(w, (struct core_event){ .type = CORE_SET_LIMIT, .limit_bytes = bytes_s });
}

void timed_start(struct timed *w, const struct timed_scene *scene)
{
	uint64_t size = scene->size_bytes ? scene->size_bytes : TIMED_DISK;
	struct core_spec spec = { .size_bytes = size };
	struct core_far far = { .generation = 1, .min_block_bytes = 1, .max_bytes = 32 * MiB, .can_zero = true,
				.can_flush = true, .window_ops = 128 };

	memset(w, 0, sizeof *w);
	w->scene = scene;
	w->rate = scene->rate;
	w->think_us = scene->think_us;
	w->core = core_new(&spec);
	assert(w->core);
	w->now_ns = w->far_free_ns = NS_PER_S;
	w->dice = 1;
	while (w->idle_count < TIMED_OPS_MAX) {
		w->idle[w->idle_count] = &w->ops[w->idle_count];
		w->idle_count++;
	}
	core_mark_dirty(w->core, (struct range){ 0, size });
	step(w, (struct core_event){ .type = CORE_LINK_UP, .far = far });
	put(w, w->now_ns, TICKS, NULL);
	timed_set_depth(w, scene->depth);
}

/* The link is cut; what runs at home ends, nothing new begins. */
void timed_stop(struct timed *w)
{
	step(w, (struct core_event){ .type = CORE_LINK_DOWN, .err = 1 });
	while (w->count) {
		struct timed_item item = take(w);

		if (item.kind == LOCAL)
			step(w, (struct core_event){ .type = CORE_LOCAL_DONE, .op = item.op });
		else if (item.kind == READ)
			step(w, (struct core_event){ .type = CORE_COPY_READ_DONE, .op = item.op });
	}
	core_free(w->core);
}
