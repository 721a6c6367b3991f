/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * I9 in virtual time: guests that write as fast as they can against far sides of several speeds. The pass always ends, the
 * debt after "complete" stays within its bound, nobody is held longer than 20 ms, and a guest the far side can keep up with is
 * not held at all.
 *
 *      guest (depth writes in flight) --local 80 us--> answered after its delay --> next write
 *      far side: requests are served one after another at `rate`, each takes `latency` more, `per_op` is the least each costs
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mirror/core.h"

#define DISK (256 * MiB)
#define US UINT64_C(1000)
#define ITEMS_MAX 4096u
#define OPS_MAX 16384u
#define LOCAL_US 80u
#define LATENCY_MAX_US 20100u
#define LATENCY_STEP_US 10u

struct scene {
	const char *name;
	uint64_t rate, latency_us, per_op_us; /* of the far side */
	unsigned depth, write_kib;            /* of the guest; depth 0: there is none */
	unsigned think_us;                    /* between an answer and the next write */
	uint64_t hot_bytes;                   /* where it writes */
	double most_s;                        /* until "complete" */
	bool may_hold;                        /* is pacing to be expected? */
	unsigned most_debt_ms;                /* the worst after "complete" */
	unsigned least_iops;                  /* from a second after it on; a guest like this is smoothly served, too */
};

enum item_kind { LOCAL, READ, FAR_LEG, FLUSHED_FAR, NEXT_WRITE, TICKS };
struct item {
	uint64_t at_ns;
	enum item_kind kind;
	struct core_op *op;
};

struct world {
	const struct scene *scene;
	struct core *core;
	uint64_t now_ns, far_free_ns, dice;
	struct item heap[ITEMS_MAX];
	unsigned count;
	struct core_op ops[OPS_MAX], *idle[OPS_MAX];
	unsigned idle_count;
	struct core_status status;
	uint64_t written, held_us, synced_ns;
	uint32_t worst_us;
	uint64_t worst_debt_ms;
	unsigned took[LATENCY_MAX_US / LATENCY_STEP_US + 1]; /* so many writes, from a second after "complete" on */
};

static void put(struct world *w, uint64_t at_ns, enum item_kind kind, struct core_op *op)
{
	unsigned i = w->count++;

	assert(w->count < ITEMS_MAX);
	for (; i && w->heap[(i - 1) / 2].at_ns > at_ns; i = (i - 1) / 2)
		w->heap[i] = w->heap[(i - 1) / 2];
	w->heap[i] = (struct item){ at_ns, kind, op };
}

static struct item take(struct world *w)
{
	struct item first = w->heap[0], last = w->heap[--w->count];
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

static void send(struct world *w, struct core_op *op)
{
	uint64_t cost_ns = range_length(op->far_range) * NS_PER_S / w->scene->rate;

	w->far_free_ns = MAX(w->far_free_ns, w->now_ns) + MAX(cost_ns, w->scene->per_op_us * US);
	put(w, w->far_free_ns + w->scene->latency_us * US, FAR_LEG, op);
}

static void answer(struct world *w, const struct core_action *a)
{
	w->written++;
	w->held_us += a->delay_us;
	w->worst_us = MAX(w->worst_us, a->delay_us);
	if (w->synced_ns && w->now_ns > w->synced_ns + NS_PER_S)
		w->took[MIN(a->delay_us + LOCAL_US, LATENCY_MAX_US) / LATENCY_STEP_US]++;
	put(w, w->now_ns + (a->delay_us + w->scene->think_us) * US, NEXT_WRITE, NULL);
}

static void perform(struct world *w, const struct core_action *a)
{
	switch (a->type) {
	case CORE_DO_LOCAL_SUBMIT:
		put(w, w->now_ns + LOCAL_US * US, LOCAL, a->op);
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

static void step(struct world *w, struct core_event ev)
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

static void write_next(struct world *w)
{
	uint64_t size = w->scene->write_kib * KiB, at;
	struct core_op *op;

	assert(w->idle_count);
	op = w->idle[--w->idle_count];
	w->dice = w->dice * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	at = (w->dice >> 20) % (w->scene->hot_bytes / size) * size;
	*op = (struct core_op){ .kind = CORE_WRITE, .range = { at, at + size } };
	step(w, (struct core_event){ .type = CORE_WRITE_ARRIVED, .op = op });
}

static void happen(struct world *w)
{
	struct item item = take(w);
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

static void set_up(struct world *w, const struct scene *scene)
{
	struct core_spec spec = { .size_bytes = DISK };
	struct core_far far = { .generation = 1, .min_block_bytes = 1, .max_bytes = 32 * MiB, .can_zero = true,
				.can_flush = true, .window_ops = 128 };

	memset(w, 0, sizeof *w);
	w->scene = scene;
	w->core = core_new(&spec);
	assert(w->core);
	w->now_ns = w->far_free_ns = NS_PER_S;
	w->dice = 1;
	while (w->idle_count < OPS_MAX) {
		w->idle[w->idle_count] = &w->ops[w->idle_count];
		w->idle_count++;
	}
	core_mark_dirty(w->core, (struct range){ 0, DISK });
	step(w, (struct core_event){ .type = CORE_LINK_UP, .far = far });
	put(w, w->now_ns, TICKS, NULL);
	for (unsigned i = 0; i < scene->depth; i++)
		put(w, w->now_ns, NEXT_WRITE, NULL);
}

/* The link is cut; what runs at home ends, nothing new begins. */
static void tear_down(struct world *w)
{
	step(w, (struct core_event){ .type = CORE_LINK_DOWN, .err = 1 });
	while (w->count) {
		struct item item = take(w);

		if (item.kind == LOCAL)
			step(w, (struct core_event){ .type = CORE_LOCAL_DONE, .op = item.op });
		else if (item.kind == READ)
			step(w, (struct core_event){ .type = CORE_COPY_READ_DONE, .op = item.op });
	}
	core_free(w->core);
}

static unsigned latency_us(const struct world *w, unsigned percent)
{
	uint64_t all = 0, below = 0;
	unsigned i;

	for (i = 0; i < ARRAY_LEN(w->took); i++)
		all += w->took[i];
	for (i = 0; i < ARRAY_LEN(w->took) - 1; i++)
		if ((below += w->took[i]) * 100 >= all * percent)
			break;
	return (i + 1) * LATENCY_STEP_US;
}

static bool is_smooth(const struct world *w)
{
	uint64_t writes = 0;

	if (!w->scene->least_iops)
		return true;
	for (unsigned i = 0; i < ARRAY_LEN(w->took); i++)
		writes += w->took[i];
	return writes >= w->scene->least_iops * UINT64_C(4) && latency_us(w, 99) <= 3 * latency_us(w, 50);
}

static bool run(struct world *w, const struct scene *scene)
{
	double to_synced, iops_before, iops_after, held_ms;
	uint64_t held_before, written_before;
	bool is_good;

	set_up(w, scene);
	while (!w->synced_ns && w->now_ns < 200 * NS_PER_S)
		happen(w);
	to_synced = (double)(w->now_ns - NS_PER_S) / 1e9;
	written_before = w->written;
	held_before = w->held_us;
	while (w->synced_ns && w->now_ns < w->synced_ns + 5 * NS_PER_S)
		happen(w);

	iops_before = (double)written_before / to_synced;
	iops_after = (double)(w->written - written_before) / 5;
	held_ms = (double)w->held_us / 1000;
	is_good = w->synced_ns && to_synced <= scene->most_s && w->worst_us <= 20000 && w->worst_debt_ms <= scene->most_debt_ms &&
		  (scene->may_hold || !w->held_us) && (!scene->depth || iops_after >= 450) && is_smooth(w);
	printf("%s %-34s complete after %6.2f s; writes/s %7.0f before, %7.0f after; held %8.0f ms before, %8.0f after; "
	       "p50 %5u us, p99 %5u us; worst debt %4llu ms, overflow %llu MiB\n",
	       is_good ? "ok  " : "FAIL", scene->name, to_synced, iops_before, iops_after, (double)held_before / 1000,
	       held_ms - (double)held_before / 1000, latency_us(w, 50), latency_us(w, 99), (unsigned long long)w->worst_debt_ms,
	       (unsigned long long)(w->status.overflow_bytes / MiB));
	tear_down(w);
	return is_good;
}

static const struct scene scenes[] = {
	{ "nobody writes, 1 GB/s", 1000000000, 200, 5, 0, 4, 0, DISK, 0.5, false, 1000 },
	{ "nobody writes, 1 GB/s, 50 ms away", 1000000000, 50000, 5, 0, 4, 0, DISK, 0.45, false, 1000 },
	{ "nobody writes, 100 MB/s, 40 ms away", 100000000, 40000, 5, 0, 4, 0, DISK, 5, false, 1000 },
	{ "2000 writes/s, 400 MB/s", 400000000, 500, 5, 4, 4, 2000, DISK, 1.5, false, 1000 },
	{ "saturating, 1 GB/s", 1000000000, 200, 5, 16, 4, 0, DISK, 1.2, true, 1000 },
	{ "saturating, 1 GB/s, 2 ms away", 1000000000, 2000, 5, 16, 4, 0, DISK, 2, true, 1000 },
	{ "saturating, 100 MB/s", 100000000, 500, 10, 16, 4, 0, DISK, 10, true, 1000 },
	{ "saturating, 100 MB/s, 40 ms away", 100000000, 40000, 10, 16, 4, 0, DISK, 15, true, 1000 },
	{ "saturating, 64 KiB, 100 MB/s", 100000000, 500, 10, 16, 64, 0, DISK, 12, true, 1500 },
	{ "saturating, 10 MB/s", 10000000, 500, 10, 16, 4, 0, DISK, 90, true, 1000 },
	{ "hot 8 MiB, 100 MB/s", 100000000, 500, 10, 16, 4, 0, 8 * MiB, 10, true, 1000 },
	{ "one at a time, 100 MB/s", 100000000, 500, 10, 1, 4, 0, DISK, 8, true, 1000 },
	{ "op-bound far side, 5000/s", 1000000000, 500, 200, 16, 4, 0, DISK, 10, true, 1000, 4500 },
	{ "8000/s, 2 ms away", 1000000000, 2000, 125, 16, 4, 0, DISK, 10, true, 1000, 7200 },
	{ "8000/s, 2 ms away, 64 in flight", 1000000000, 2000, 125, 64, 4, 0, DISK, 10, true, 1000, 7200 },
	{ "8000/s, 2 ms away, one at a time", 1000000000, 2000, 125, 1, 4, 0, DISK, 10, true, 1000, 6000 },
};

int main(void)
{
	struct world *w = calloc(1, sizeof *w);
	int bad = 0;

	for (unsigned i = 0; i < ARRAY_LEN(scenes); i++)
		bad += !run(w, &scenes[i]);
	free(w);
	return bad != 0;
}
