/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * eta - see eta.h
 *
 * The copy goes once over the disk. What a guest writes before it costs nothing, what it writes behind it goes to both sides at
 * once and takes from what the link has for the copy. So the copy slows down while it goes:
 *
 *      progress a second  ^ C ---.___                          f: which part is copied
 *                         |          '---.___                  p(f) = C - cost * W * q(f)
 *                         |                  '---.___
 *                         '---------------------------> f      time left = owed x the mean of 1/p from here to f = 1
 *
 *      C     what the far side would take of the copy alone: progress seen + cost x what went through besides
 *      W     what guests write
 *      q(f)  which part of that is behind the copy. Written all over the disk it is f. What is seen tells: less went through than
 *            that (they write where the copy comes last): it stays as much less, q = r f. More (they write where it began): that
 *            part is behind it already, and stays; the rest grows
 *      cost  a small write takes the far side longer than as many bytes of a long one. 1 unless what was seen says more: how
 *            much slower the copy was when more went through, by least squares over the last seconds, against the doubt that
 *            what is seen scatters by itself
 *
 * Guests that would let the copy not end are held by the mirror (I9): of what the far side takes at least a third is progress,
 * and as that brake is let go slowly it is half of it and more on average, so p is never less; while they are held, it is most of
 * what it was lately, whatever they would write.
 *
 * A load or a link that changes: W is taken as it is now, so its step is in the next answer but one; C is an average, which two
 * samples in a row far off on one side begin anew (one alone is left out: it may be half of one and half of the other).
 *
 * What it cannot know: what guests will do. And what was too much for the link for so long that it was left for another round,
 * in single chunks, is slower than anything that was seen before.
 *
 * No libm: averages are of the kind 1/(1+t).
 */
#include "migrate/eta.h"

#define FIRST_MS 200
#define LEAST_MS 700
#define FIRST_SAMPLES 4u   /* so many come quickly, */
#define BEGINNING 2u       /* and the first is not worth more than the second: a mirror begins slowly */
#define ODD_SHARE 0.15
#define ODD_GUEST_SHARE 0.25
#define AVERAGE_S 4.0
#define LONG_S 8.0
#define FIT_S 12.0
#define FIT_LEAST_S 1.5
#define COST_MAX 40.0
#define COST_DOUBT 8.0     /* how far from what it was it may well be */
#define SCATTER 0.02       /* of the capacity: nothing is measured better than that */
#define WRITES_SHARE 0.02  /* guests that write less are nobody */
#define STEPS 64
#define HELD_SHARE 0.95
#define LIMIT_LEAVES 4.0   /* of its limit the mirror leaves a part of so many for copies, whatever guests write */
#define RATE_MAX 1e15
#define RATE_STEPS 60

static double fade(double seconds, double span_s)
{
	return 1.0 / (1.0 + seconds / span_s);
}

static double clamp(double x, double least, double most)
{
	return x < least ? least : x > most ? most : x;
}

static void blend(double *average, double x, double seconds, double span_s)
{
	*average += (x - *average) * (1.0 - fade(seconds, span_s));
}

static double difference(double a, double b)
{
	return a > b ? a - b : b - a;
}

/* --- what a guest's byte costs */

static void fit_add(struct eta_fit *f, double p, double y, double seconds)
{
	double kept = fade(seconds, FIT_S);

	f->seconds = f->seconds * kept + seconds;
	f->p = f->p * kept + p * seconds;
	f->y = f->y * kept + y * seconds;
	f->yy = f->yy * kept + y * y * seconds;
	f->py = f->py * kept + p * y * seconds;
	f->pp = f->pp * kept + p * p * seconds;
}

/* The slope of p over y; the less the one follows from the other the nearer to what was believed before. */
static void learn_cost(struct eta *m)
{
	const struct eta_fit *f = &m->fit;
	double p = f->p / f->seconds, y = f->y / f->seconds, yy, pp, py, scatter, doubt, cost;

	yy = f->yy / f->seconds - y * y;
	pp = f->pp / f->seconds - p * p;
	py = f->py / f->seconds - p * y;
	if (yy < 0)
		yy = 0;
	scatter = yy > 0 ? pp - py * py / yy : pp;
	scatter = clamp(scatter, SCATTER * m->capacity * (SCATTER * m->capacity), pp + m->capacity * m->capacity);
	doubt = scatter / (f->seconds * COST_DOUBT * COST_DOUBT);
	if (yy + doubt <= 0)
		return;
	cost = clamp((doubt * m->cost_before - py) / (yy + doubt), 1, COST_MAX);
	m->capacity += (cost - m->cost) * y;
	m->cost = cost;
}

/* --- one interval: p progress, y what the far side took besides, w what guests wrote; a second */

static bool is_odd(struct eta *m, double seen)
{
	bool is_more = seen > m->capacity;

	if (difference(seen, m->capacity) <= ODD_SHARE * m->capacity) {
		m->odd = 0;
		return false;
	}
	m->odd = m->odd && is_more == m->is_odd_more ? m->odd + 1 : 1;
	m->is_odd_more = is_more;
	return true;
}

static void learn_capacity(struct eta *m, double p, double y, double seconds)
{
	double seen = p + m->cost * y;

	if (m->samples <= BEGINNING) {
		m->capacity = seen;
	} else if (is_odd(m, seen)) {
		if (m->odd < 2)
			return;
		m->odd = 0;
		m->fit = (struct eta_fit){ 0 };
		m->cost_before = m->cost;
		m->capacity = seen;
	}
	blend(&m->capacity, seen, seconds, AVERAGE_S);
	fit_add(&m->fit, p, y, seconds);
	if (m->fit.seconds > FIT_LEAST_S)
		learn_cost(m);
}

static void learn_guest(struct eta *m, double w, double seconds)
{
	bool is_far = difference(w, m->guest) > ODD_GUEST_SHARE * (w > m->guest ? w : m->guest);

	m->guest_odd = is_far ? m->guest_odd + 1 : 0;
	if (m->samples == 1 || m->guest_odd >= 2)
		m->guest = w;
	else
		blend(&m->guest, w, seconds, 3);
}

static void learn_place(struct eta *m, double f, double y, double w, double seconds)
{
	double kept = fade(seconds, LONG_S);

	m->through = m->through * kept + y * seconds;
	m->written = m->written * kept + w * seconds;
	m->expected = m->expected * kept + w * f * seconds;
}

static double amount(uint64_t before, uint64_t now)
{
	return now > before ? (double)(now - before) : 0;
}

static void learn(struct eta *m, const struct eta_sample *s)
{
	const struct eta_sample *l = &m->last;
	double seconds = (double)(s->at_ms - l->at_ms) / 1000, span = m->samples ? LONG_S : 0.001;
	double p = ((double)l->owed_bytes - (double)s->owed_bytes) / seconds;
	double sent = amount(l->sent_bytes, s->sent_bytes) / seconds;
	double w = amount(l->guest_bytes, s->guest_bytes) / seconds, y = sent > p ? sent - p : 0;
	double f = 1 - ((double)l->owed_bytes + (double)s->owed_bytes) / 2 / (double)s->total_bytes;

	m->samples++;
	learn_capacity(m, p, y, seconds);
	learn_guest(m, w, seconds);
	learn_place(m, clamp(f, 0, 1), y, w, seconds);
	blend(&m->paced, s->is_paced, seconds, span);
	blend(&m->progress, p, seconds, span);
}

static bool is_anew(const struct eta_sample *l, const struct eta_sample *s)
{
	return s->sent_bytes < l->sent_bytes || s->total_bytes != l->total_bytes || s->at_ms < l->at_ms;
}

void eta_note(struct eta *m, const struct eta_sample *s)
{
	m->is_done = s->is_done;
	m->is_moving = s->is_moving;
	m->owed = (double)s->owed_bytes;
	m->total = (double)s->total_bytes;
	if (!s->is_moving || !s->total_bytes) {
		m->has_last = false;
		return;
	}
	if (!m->has_last || is_anew(&m->last, s)) {
		m->last = *s;
		m->has_last = true;
		return;
	}
	if (s->at_ms - m->last.at_ms < (m->samples < FIRST_SAMPLES ? FIRST_MS : LEAST_MS))
		return;
	if (!m->samples)
		m->cost = m->cost_before = 1;
	learn(m, s);
	m->last = *s;
}

/* --- from here on */

struct course {
	double f, q;    /* now */
	double r;       /* what went through, over what would have, were writes all over the disk */
};

static struct course course_of(const struct eta *m)
{
	double little = WRITES_SHARE * m->capacity, f = clamp(1 - m->owed / m->total, 0, 1);
	struct course c = { .f = f, .q = f, .r = 1 };

	if (m->written > little)
		c.q = clamp(m->through / m->written, 0, 1);
	if (m->expected > little / 10)
		c.r = m->through / m->expected;
	return c;
}

static double part_behind(const struct course *c, double f)
{
	double rest, grown, still;

	if (c->r < 1)
		return c->r * f;
	rest = c->f < 1 ? (f - c->f) / (1 - c->f) : 1;
	grown = c->q + (1 - c->q) * rest;
	still = clamp(c->r - 1, 0, 1);
	return (1 - still) * grown + still * c->q;
}

static double least_progress(const struct eta *m)
{
	double half = m->capacity / (m->cost + 1), held = clamp(2 * m->paced, 0, 1) * HELD_SHARE * m->progress;

	return half > held ? half : held;
}

int64_t eta_left_ms(const struct eta *m)
{
	struct course c;
	double least, seconds = 0;

	if (m->is_done)
		return 0;
	if (!m->samples || !m->is_moving || m->capacity < 1 || m->total < 1)
		return ETA_UNKNOWN;
	c = course_of(m);
	least = least_progress(m);
	for (unsigned i = 0; i < STEPS; i++) {
		double f = c.f + (1 - c.f) * ((double)i + 0.5) / STEPS;
		double p = m->capacity - m->cost * m->guest * part_behind(&c, f);

		seconds += m->owed / STEPS / (p > least ? p : least);
	}
	return seconds < 1e12 ? (int64_t)(seconds * 1000) : ETA_UNKNOWN;
}

/* Under a limit a second has of it for the copy what guests' writes leave. Where they leave less than they take, the limit is
 * raised as the copy comes to be there. */
static double limited_seconds(const struct eta *m, const struct course *c, double owed, double rate)
{
	double seconds = 0;

	for (unsigned i = 0; i < STEPS; i++) {
		double y = m->guest * part_behind(c, c->f + (1 - c->f) * ((double)i + 0.5) / STEPS);
		double p = rate - y, least = y > rate / LIMIT_LEAVES ? y : rate / LIMIT_LEAVES;

		seconds += owed / STEPS / (p > least ? p : least);
	}
	return seconds;
}

uint64_t eta_rate_for(const struct eta *m, uint64_t owed_bytes, int64_t left_ms)
{
	struct course c = { .f = 0, .q = 0, .r = 1 };
	double owed = (double)owed_bytes, low = 0, high = RATE_MAX, guests;

	if (!owed_bytes)
		return 0;
	if (left_ms <= 0)
		return UINT64_MAX;
	if (m->samples && m->total >= 1)
		c = course_of(m);
	for (unsigned i = 0; i < RATE_STEPS; i++) {
		double middle = (low + high) / 2;

		if (limited_seconds(m, &c, owed, middle) * 1000 > (double)left_ms)
			low = middle;
		else
			high = middle;
	}
	guests = 2 * m->guest * part_behind(&c, c.f);
	return (uint64_t)(high > guests ? high : guests) + 1;
}

double eta_taken_bytes(const struct eta *m)
{
	return m->samples ? m->capacity : 0;
}

double eta_progress_bytes(const struct eta *m)
{
	return m->progress > 0 ? m->progress : 0;
}

/* Work over what does it: a disk's work is what it would do alone until its end, at the speed it has. */
int64_t eta_together_ms(const int64_t *left_ms, const double *progress, unsigned count)
{
	double work = 0, speed = 0;
	int64_t longest = 0;

	for (unsigned i = 0; i < count; i++) {
		if (left_ms[i] == ETA_UNKNOWN)
			return ETA_UNKNOWN;
		longest = MAX(longest, left_ms[i]);
		if (left_ms[i]) {
			work += (double)left_ms[i] * progress[i];
			speed += progress[i];
		}
	}
	return speed >= 1 ? MIN((int64_t)(work / speed), longest) : longest;
}

int64_t eta_downtime_ms(uint64_t owed_bytes, uint64_t rate_bytes, uint64_t round_trip_us, uint64_t flush_us)
{
	double ms;

	if (owed_bytes && !rate_bytes)
		return ETA_UNKNOWN;
	ms = (owed_bytes ? (double)owed_bytes * 1000 / (double)rate_bytes : 0) + (double)(2 * round_trip_us + flush_us) / 1000;
	return ms < 1e15 ? (int64_t)(ms + 0.5) : ETA_UNKNOWN;
}
