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
 * When: after "complete" was said, once a queue stands (for a whole window it was never less than half full) or the debt is
 * over half its bound. Before, only if the pass would not end: of what the far side acknowledged, less than a third made the
 * debt smaller. A burst that the queue swallows is not paced, since it does not stand; overwrites of what is DIRTY are not, as
 * they cost nothing.
 *
 * How much, after "complete": what the far side was seen to do. While a queue stands, guests' writes acknowledged a second are
 * what it has left for them beside the copies; the gap is that, a little less while the queue is short of half full, and more
 * while it is longer, so it settles there and nobody sees it swing:
 *
 *      queue, % of full     0      50      100    150 ...
 *      gap * capacity      0.85    1       1.25   1.5
 *
 * With more than half of the bound of the debt owed the gap is wider, three times at the bound. Beyond that it grows by a quarter
 * each window. When no queue stands, the far side is faster than it was seen to be, or guests want less: the gap shrinks by a
 * sixteenth each window.
 *
 * Before "complete" guests get half of what the far side does in the first place, and a quarter less each time that the pass is
 * still found behind; an eighth more when it is not.
 *
 * Why it ends: while it is needed the gap goes to 2 ms, where guests make new work at 500 writes a second (or, with more than
 * ten in flight, at in-flight / 20 ms). If the far side does a third more than that, the debt shrinks; if not, no pacing
 * within I9's limits could help.
 *
 * The rate is bytes acknowledged over time with something to do. It falls only on samples in which the queue was half full:
 * a far side that was given little to do has shown nothing. The first sample is a short one if much came in it: until there is
 * a rate, a fast far side is given little. And it begins when the first answer came: before that passed a round trip, in which
 * as much was sent as was given, and a far side that is far away would look slow for it.
 */
#include "mirror/pace.h"

#define SAMPLE_NS (100 * NS_PER_MS)
#define FIRST_SAMPLE_NS (10 * NS_PER_MS)
#define FIRST_SAMPLE_BYTES (4 * MiB)
#define WINDOW_NS (20 * NS_PER_MS)
#define PASS_NS (100 * NS_PER_MS)
#define FORGOTTEN_NS NS_PER_S
#define QUEUE_STANDS_PERCENT 25u
#define QUEUE_AIM_PERCENT 50u
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

static void begin_first_sample(struct pace *p)
{
	p->has_answered = true;
	p->sample_busy_ns = 0;
	p->sample_acked_bytes = 0;
}

void pace_acked(struct pace *p, uint64_t now_ns, uint64_t bytes, uint64_t latency_ns, bool is_guest)
{
	least_note(&p->latency, now_ns, latency_ns);
	p->window_acks++;
	p->window_guest_acks += is_guest;
	count_busy(p, now_ns);
	p->sample_acked_bytes += bytes;
	p->pass_acked_bytes += bytes;
	if (!p->rate_bytes && !p->has_answered)
		begin_first_sample(p);
	else if (is_sample_over(p))
		close_sample(p);
}

uint64_t pace_latency_ns(const struct pace *p)
{
	return least_ns(&p->latency);
}

static uint64_t clamp_gap(uint64_t gap_ns)
{
	return MIN(MAX(gap_ns, GAP_MIN_NS), GAP_MAX_NS);
}

/* Was a third of what arrived there progress? True when there is a verdict. */
static bool judge_pass(struct pace *p, uint64_t now_ns, uint64_t owed_bytes)
{
	uint64_t progress = p->pass_owed_bytes > owed_bytes ? p->pass_owed_bytes - owed_bytes : 0;

	if (now_ns - p->pass_from_ns < PASS_NS)
		return false;
	if (p->pass_acked_bytes && p->pass_owed_bytes != UINT64_MAX) {
		uint64_t beside = p->pass_acked_bytes - MIN(progress, p->pass_acked_bytes);

		p->beside_permille = (p->beside_permille * 7 + (unsigned)(beside * 1000 / p->pass_acked_bytes)) / 8;
	}
	p->is_behind = owed_bytes && p->pass_acked_bytes && progress < p->pass_acked_bytes / 3;
	p->pass_from_ns = now_ns;
	p->pass_owed_bytes = owed_bytes;
	p->pass_acked_bytes = 0;
	return true;
}

static void open_window(struct pace *p, uint64_t now_ns, unsigned fill_percent)
{
	p->window_from_ns = now_ns;
	p->least_fill_percent = fill_percent;
	p->window_acks = p->window_guest_acks = 0;
}

static void learn(uint64_t *ops, unsigned acks, uint64_t ns)
{
	uint64_t sample = acks * NS_PER_S / ns;

	*ops = *ops ? (*ops * 3 + sample + 3) / 4 : sample;
}

static uint64_t gap_of(uint64_t ops, uint64_t percent)
{
	return ops ? NS_PER_S / ops * percent / 100 : 0;
}

/* The far side owes nothing but time: as fast as it goes, so that the queue stays half full. */
static void follow(struct pace *p, const struct pace_view *v, bool does_stand)
{
	bool is_crowded = p->least_fill_percent >= QUEUE_AIM_PERCENT || v->debt_percent >= 50;
	uint64_t percent = v->fill_percent >= QUEUE_AIM_PERCENT ? 100 + MIN(v->fill_percent - QUEUE_AIM_PERCENT, 100u) / 2 :
	                                                          100 - (QUEUE_AIM_PERCENT - v->fill_percent) * 3 / 10;

	if (v->debt_percent >= 50)
		percent += (MIN(v->debt_percent, 100u) - 50) * 4;
	if (is_crowded || does_stand)
		p->reason = v->debt_percent >= 50 ? PACE_DEBT_IS_HIGH : PACE_FAR_IS_SLOWER;
	if (v->debt_percent >= 100 || (is_crowded && !p->guest_ops))
		p->gap_ns = clamp_gap(MAX(p->gap_ns + p->gap_ns / 4, gap_of(p->guest_ops, percent)));
	else if (is_crowded || (p->gap_ns && does_stand))
		p->gap_ns = clamp_gap(gap_of(p->guest_ops, percent));
	else
		p->gap_ns = p->gap_ns > GAP_MIN_NS ? p->gap_ns - p->gap_ns / 16 : 0;
}

/* There is a pass to end. */
static void yield(struct pace *p)
{
	if (p->is_behind) {
		p->reason = PACE_PASS_IS_BEHIND;
		p->gap_ns = clamp_gap(MAX(p->gap_ns + p->gap_ns / 4, gap_of(p->all_ops, 200)));
	} else {
		p->gap_ns = p->gap_ns > GAP_MIN_NS ? p->gap_ns - p->gap_ns / 8 : 0;
	}
}

void pace_observe(struct pace *p, uint64_t now_ns, const struct pace_view *v)
{
	bool has_verdict, does_stand;

	if (v->load_percent >= 50)
		p->was_loaded = true;
	p->least_fill_percent = MIN(p->least_fill_percent, v->fill_percent);
	has_verdict = judge_pass(p, now_ns, v->owed_bytes);
	if (now_ns - p->window_from_ns > FORGOTTEN_NS)
		p->gap_ns = 0;
	else if (has_verdict && !v->is_promised)
		yield(p);
	if (now_ns - p->window_from_ns < WINDOW_NS)
		return;

	does_stand = p->least_fill_percent >= QUEUE_STANDS_PERCENT && now_ns - p->window_from_ns <= FORGOTTEN_NS;
	if (does_stand) {
		learn(&p->guest_ops, p->window_guest_acks, now_ns - p->window_from_ns);
		learn(&p->all_ops, p->window_acks, now_ns - p->window_from_ns);
	}
	if (v->is_promised)
		follow(p, v, does_stand);
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
	p->has_answered = false;
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

enum pace_reason pace_reason(const struct pace *p)
{
	return p->gap_ns ? p->reason : PACE_FREE;
}

uint64_t pace_ops(const struct pace *p)
{
	return p->gap_ns ? NS_PER_S / p->gap_ns : 0;
}

bool pace_is_at_limit(const struct pace *p)
{
	return p->gap_ns >= GAP_MAX_NS;
}
