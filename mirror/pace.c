/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pace - how fast the far side is, and how fast guests may write
 *
 * Guests are slowed by spacing the answers to writes that make work for the far side: two of them are at least `gap` apart.
 *
 *      local leg ended   | | |  |   |
 *      answered          |    |    |    |    |          gap between, no answer later than 20 ms
 *                        <gap >
 *
 * A gap, not a delay for each: it is a rate, so it does the same to a guest with one write in flight as to one with a hundred.
 * It is at most 2 ms, so 500 writes a second always pass, and no single answer waits longer than 20 ms.
 *
 * When: after "complete" was said, while a queue stands (for a whole window it was never less than half full) or the debt is
 * over half its bound. Before, only if the pass would not end: of what the far side acknowledged, less than a third made the
 * debt smaller. Then the gap grows by a quarter each window, from 10 us to its end in half a second; else it shrinks by a
 * sixteenth.
 * A burst that the queue swallows is not paced, since it does not stand; overwrites of what is DIRTY are not, as they cost
 * nothing.
 *
 * Why it ends: while it is needed the gap goes to 2 ms, where guests make new work at 500 writes a second (or, with more than
 * ten in flight, at in-flight / 20 ms). If the far side does a third more than that, the debt shrinks; if not, no pacing
 * within I9's limits could help.
 *
 * The rate is bytes acknowledged over time with something to do. It falls only on samples in which the queue was half full:
 * a far side that was given little to do has shown nothing. The first sample is a short one if much came in it: until there is
 * a rate, a fast far side is given little.
 */
#include "mirror/pace.h"

#define SAMPLE_NS (100 * NS_PER_MS)
#define FIRST_SAMPLE_NS (10 * NS_PER_MS)
#define FIRST_SAMPLE_BYTES (4 * MiB)
#define WINDOW_NS (20 * NS_PER_MS)
#define PASS_NS (100 * NS_PER_MS)
#define LATENCY_TURN_NS (5 * NS_PER_S)
#define FORGOTTEN_NS NS_PER_S
#define GAP_MIN_NS UINT64_C(10000)
#define GAP_MAX_NS (PACE_FLOOR_GAP_US * UINT64_C(1000))

static void count_busy(struct pace *p, uint64_t now_ns)
{
	if (p->is_busy)
		p->sample_busy_ns += now_ns - p->sample_from_ns;
	p->sample_from_ns = now_ns;
}

void pace_busy(struct pace *p, uint64_t now_ns, bool is_busy)
{
	if (p->is_busy == is_busy)
		return;
	count_busy(p, now_ns);
	p->is_busy = is_busy;
}

static void close_sample(struct pace *p)
{
	/* 2^64 / 10^9 bytes in one sample would overflow: 18 GB in 0.1 s. */
	uint64_t rate = p->sample_acked_bytes * NS_PER_S / p->sample_busy_ns;

	if (!p->rate_bytes)
		p->rate_bytes = rate;
	else if (rate > p->rate_bytes)
		p->rate_bytes += (rate - p->rate_bytes + 1) / 2;
	else if (p->was_loaded)
		p->rate_bytes -= (p->rate_bytes - rate) / 4;
	p->sample_busy_ns = 0;
	p->sample_acked_bytes = 0;
	p->was_loaded = false;
}

static bool is_sample_over(const struct pace *p)
{
	if (!p->rate_bytes && p->sample_acked_bytes >= FIRST_SAMPLE_BYTES)
		return p->sample_busy_ns >= FIRST_SAMPLE_NS;
	return p->sample_busy_ns >= SAMPLE_NS;
}

static void note_latency(struct pace *p, uint64_t now_ns, uint64_t latency_ns)
{
	latency_ns = MAX(latency_ns, UINT64_C(1));
	if (now_ns - p->latency_turn_ns > LATENCY_TURN_NS) {
		p->latency_turn_ns = now_ns;
		p->latency_ns[1] = p->latency_ns[0];
		p->latency_ns[0] = latency_ns;
	}
	if (!p->latency_ns[0] || latency_ns < p->latency_ns[0])
		p->latency_ns[0] = latency_ns;
}

void pace_acked(struct pace *p, uint64_t now_ns, uint64_t bytes, uint64_t latency_ns)
{
	note_latency(p, now_ns, latency_ns);
	count_busy(p, now_ns);
	p->sample_acked_bytes += bytes;
	p->pass_acked_bytes += bytes;
	if (is_sample_over(p))
		close_sample(p);
}

uint64_t pace_latency_ns(const struct pace *p)
{
	if (!p->latency_ns[0] || !p->latency_ns[1])
		return MAX(p->latency_ns[0], p->latency_ns[1]);
	return MIN(p->latency_ns[0], p->latency_ns[1]);
}

/* Was a third of what arrived there progress? */
static void judge_pass(struct pace *p, uint64_t now_ns, uint64_t owed_bytes)
{
	uint64_t progress = p->pass_owed_bytes > owed_bytes ? p->pass_owed_bytes - owed_bytes : 0;

	if (now_ns - p->pass_from_ns < PASS_NS)
		return;
	p->is_behind = owed_bytes && p->pass_acked_bytes && progress < p->pass_acked_bytes / 3;
	p->pass_from_ns = now_ns;
	p->pass_owed_bytes = owed_bytes;
	p->pass_acked_bytes = 0;
}

static void open_window(struct pace *p, uint64_t now_ns, unsigned fill_percent)
{
	p->window_from_ns = now_ns;
	p->least_fill_percent = fill_percent;
}

void pace_observe(struct pace *p, uint64_t now_ns, const struct pace_view *v)
{
	bool is_needed;

	if (v->fill_percent >= 50)
		p->was_loaded = true;
	p->least_fill_percent = MIN(p->least_fill_percent, v->fill_percent);
	judge_pass(p, now_ns, v->owed_bytes);
	if (now_ns - p->window_from_ns < WINDOW_NS)
		return;

	if (now_ns - p->window_from_ns > FORGOTTEN_NS)
		p->gap_ns = 0;
	is_needed = v->is_promised ? p->least_fill_percent >= 50 || v->debt_percent >= 50 : p->is_behind;
	if (is_needed)
		p->gap_ns = MIN(MAX(p->gap_ns + p->gap_ns / 4, GAP_MIN_NS), GAP_MAX_NS);
	else
		p->gap_ns = p->gap_ns > GAP_MIN_NS ? p->gap_ns - p->gap_ns / 16 : 0;
	open_window(p, now_ns, v->fill_percent);
}

void pace_stop(struct pace *p, uint64_t now_ns)
{
	p->gap_ns = 0;
	p->delay_us = 0;
	p->is_behind = false;
	p->pass_from_ns = now_ns;
	p->pass_owed_bytes = UINT64_MAX;
	p->pass_acked_bytes = 0;
	p->sample_from_ns = now_ns;
	p->sample_busy_ns = 0;
	p->sample_acked_bytes = 0;
	open_window(p, now_ns, 0);
}

uint32_t pace_delay_us(struct pace *p, uint64_t now_ns)
{
	uint64_t at_ns;

	if (!p->gap_ns) {
		p->delay_us = 0;
		return 0;
	}
	at_ns = MAX(now_ns, p->last_ns + p->gap_ns);
	at_ns = MIN(at_ns, now_ns + PACE_DELAY_MAX_US * UINT64_C(1000));
	p->last_ns = at_ns;
	p->delay_us = (uint32_t)((at_ns - now_ns) / 1000);
	return p->delay_us;
}
