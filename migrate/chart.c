/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * chart - see chart.h
 *
 *      title                         - mean  - 99 in 100        legend
 *      200 MiB/s |------------------------------------------
 *                |        ____/\
 *      100 MiB/s |-------/------\------------------------      grid: three to six lines, at numbers that can be read
 *                |______/        \____
 *              0 +------------------------------------------
 *
 * Bytes go by powers of two, so their grid does, too. Latencies are of four orders of magnitude: their axis is of logarithms, by
 * decades. No libm: logarithms are of whole decades, and between them a polynomial that is right to a pixel.
 * Invariant:   what is written depends on nothing but the arguments: numbers have fixed digits, the locale is C's.
 */
#include "migrate/chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/printable.h"

#define GRID_MOST 5
#define TIME_TICKS_MOST 10
#define LEGEND_CHAR 5.6
#define GRID_COLOUR "#e4e7ec"
#define TEXT_COLOUR "#475467"

/* --- texts */

void chart_text(FILE *to, const char *text)
{
	CLEANUP_FREE char *fit = strdup(text);

	if (!fit)
		return;
	printable_make(fit, '?');
	for (const char *p = fit; *p; p++) {
		switch (*p) {
		case '&': fputs("&amp;", to); break;
		case '<': fputs("&lt;", to); break;
		case '>': fputs("&gt;", to); break;
		case '"': fputs("&quot;", to); break;
		case '\'': fputs("&#39;", to); break;
		default: putc(*p, to);
		}
	}
}

char *chart_value(double value, enum chart_unit unit, char out[static CHART_VALUE_MAX])
{
	static const char *const bytes[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	static const char *const times[] = { "\u00b5s", "ms", "s" };
	const char *const *name = unit == CHART_TIME_US ? times : bytes;
	unsigned most = unit == CHART_TIME_US ? 2 : 5, power = 0;
	double base = unit == CHART_TIME_US ? 1000 : 1024;

	if (value <= 0)
		return strcpy(out, "0");
	while (value >= base && power < most) {
		value /= base;
		power++;
	}
	value = MIN(value, 1e9);
	snprintf(out, CHART_VALUE_MAX, "%.*f %s%s", value < 9.995 && value > (double)(long)value, value, name[power],
		 unit == CHART_BYTES_A_SECOND ? "/s" : "");
	return out;
}

char *chart_duration(double s, char out[static CHART_VALUE_MAX])
{
	long whole = (long)(s + 0.5);

	if (s < 1)
		snprintf(out, CHART_VALUE_MAX, "%.0f ms", s * 1000);
	else if (s < 10)
		snprintf(out, CHART_VALUE_MAX, "%.1f s", s);
	else if (whole < 60)
		snprintf(out, CHART_VALUE_MAX, "%ld s", whole);
	else if (whole < 3600)
		snprintf(out, CHART_VALUE_MAX, "%ld min %02ld s", whole / 60, whole % 60);
	else
		snprintf(out, CHART_VALUE_MAX, "%ld h %02ld min", whole / 3600, whole / 60 % 60);
	return out;
}

/* --- scales */

struct scale {
	double least, most, step; /* step: of the grid; of a logarithmic one it is a factor of ten */
	bool is_log;
};

/* The decimal logarithm, of 1e-6 to 1e18. */
static double log_of(double x)
{
	double t, power = 0;

	for (; x >= 10; x /= 10)
		power++;
	for (; x < 1; x *= 10)
		power--;
	/* ln by its series in (x - 1) / (x + 1), x within half a decade of the root of ten */
	t = (x / 3.16227766 - 1) / (x / 3.16227766 + 1);
	return power + 0.5 + 2 * (t + t * t * t / 3 + t * t * t * t * t / 5 + t * t * t * t * t * t * t / 7) / 2.302585093;
}

static double greatest(const struct chart *c)
{
	double most = 0;

	for (unsigned i = 0; i < c->lines; i++)
		for (size_t k = 0; k < c->count; k++)
			most = MAX(most, c->line[i].value[k]);
	return most;
}

static double least_known(const struct chart *c)
{
	double least = HUGE_VAL;

	for (unsigned i = 0; i < c->lines; i++)
		for (size_t k = 0; k < c->count; k++)
			if (c->line[i].value[k] > 0)
				least = MIN(least, c->line[i].value[k]);
	return least;
}

static struct scale scale_of_log(const struct chart *c)
{
	double least = least_known(c), most = greatest(c);
	struct scale s = { .least = 1, .most = 10, .step = 10, .is_log = true };

	if (most <= 0)
		return (struct scale){ .least = 100, .most = 10000, .step = 10, .is_log = true };
	while (s.least * 10 <= least)
		s.least *= 10;
	for (s.most = s.least * 10; s.most < most && s.most < 1e15;)
		s.most *= 10;
	return s;
}

/* 1, 2, 5 of a power of two's unit; up to five lines. */
static struct scale scale_of(const struct chart *c)
{
	static const double steps[] = { 1, 2, 5, 10, 20, 50, 100, 200, 256, 512 };
	double most = greatest(c), unit = 1;

	if (c->is_log)
		return scale_of_log(c);
	if (most <= 0)
		return (struct scale){ 0, MiB, MiB, false };
	while (most / unit >= 1024 * GRID_MOST)
		unit *= 1024;
	for (;; unit *= 1024)
		for (size_t i = 0; i < ARRAY_LEN(steps); i++)
			if (most <= steps[i] * unit * GRID_MOST) {
				double step = steps[i] * unit;
				double lines = (double)(long)(most / step) + (most > (double)(long)(most / step) * step);

				return (struct scale){ 0, MAX(lines, 1.0) * step, step, false };
			}
}

static double y_of(const struct chart *c, const struct scale *s, double value)
{
	double part = s->is_log ? (log_of(MAX(value, s->least)) - log_of(s->least)) / (log_of(s->most) - log_of(s->least)) :
				  value / s->most;

	return c->box.y + c->box.height - part * c->box.height;
}

double chart_x(struct chart_box box, double from_s, double until_s, double s)
{
	return box.x + (until_s > from_s ? (s - from_s) / (until_s - from_s) : 0) * box.width;
}

static double x_of(const struct chart *c, size_t i)
{
	return chart_x(c->box, c->from_s, c->until_s, c->second[i]);
}

/* --- lines */

static void draw_grid(FILE *to, const struct chart *c, const struct scale *s)
{
	for (double at = s->least; at <= s->most * 1.0001; at = s->is_log ? at * 10 : at + s->step) {
		double y = y_of(c, s, at);
		char text[CHART_VALUE_MAX];

		fprintf(to, "<path d=\"M%.1f %.1fh%.1f\" stroke=\"" GRID_COLOUR "\"/>", c->box.x, y, c->box.width);
		fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" class=\"a\" text-anchor=\"end\">%s</text>\n", c->box.x - 8, y + 4,
			chart_value(at, c->unit, text));
	}
}

/* From there on, as far as it is without a gap; the next moment after it. */
static size_t draw_run(FILE *to, const struct chart *c, const struct scale *s, const struct chart_line *l, size_t from)
{
	size_t end = from + 1;

	while (end < c->count && l->value[end] >= 0 && c->second[end] - c->second[end - 1] <= c->gap_s)
		end++;
	fputs("<path d=\"", to);
	for (size_t i = from; i < end; i++)
		fprintf(to, "%c%.1f %.1f", i == from ? 'M' : 'L', x_of(c, i), y_of(c, s, l->value[i]));
	if (end == from + 1)
		fputs("h0.1", to); /* one moment alone is a dot */
	fprintf(to, "\" fill=\"none\" stroke=\"%s\" class=\"l\"/>\n", l->colour);
	if (!l->is_filled || end == from + 1)
		return end;
	fprintf(to, "<path d=\"M%.1f %.1f", x_of(c, from), c->box.y + c->box.height);
	for (size_t i = from; i < end; i++)
		fprintf(to, "L%.1f %.1f", x_of(c, i), y_of(c, s, l->value[i]));
	fprintf(to, "V%.1fZ\" fill=\"%s\" fill-opacity=\"0.14\"/>\n", c->box.y + c->box.height, l->colour);
	return end;
}

static void draw_line(FILE *to, const struct chart *c, const struct scale *s, const struct chart_line *l)
{
	for (size_t i = 0; i < c->count;)
		i = l->value[i] < 0 ? i + 1 : draw_run(to, c, s, l, i);
}

static void draw_legend(FILE *to, const struct chart *c)
{
	double x = c->box.x + c->box.width;

	for (unsigned i = c->lines; i-- > 0;) {
		fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" class=\"a\" text-anchor=\"end\">%s</text>", x, c->box.y - 10,
			c->line[i].name);
		x -= LEGEND_CHAR * (double)strlen(c->line[i].name) + 32;
		fprintf(to, "<path d=\"M%.1f %.1fh16\" stroke=\"%s\" class=\"k\"/>\n", x, c->box.y - 14, c->line[i].colour);
		x -= 16;
	}
}

void chart_draw(FILE *to, const struct chart *c)
{
	struct scale s = scale_of(c);

	fprintf(to, "<g>\n<text x=\"%.1f\" y=\"%.1f\" class=\"h\">%s</text>\n", c->box.x, c->box.y - 10, c->title);
	draw_legend(to, c);
	draw_grid(to, c, &s);
	for (unsigned i = 0; i < c->lines; i++)
		draw_line(to, c, &s, &c->line[i]);
	fputs("</g>\n", to);
}

/* --- the time */

static double time_step(double span_s)
{
	static const double steps[] = { 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400,
					28800, 86400, 172800, 604800 };

	for (size_t i = 0; i < ARRAY_LEN(steps); i++)
		if (span_s / steps[i] <= TIME_TICKS_MOST)
			return steps[i];
	return span_s / TIME_TICKS_MOST;
}

static void put_tick(FILE *to, double s, double step)
{
	long whole = (long)(s + 0.5);

	if (step < 1)
		fprintf(to, "%.1f s", s);
	else if (step < 60 && s < 60)
		fprintf(to, "%ld s", whole);
	else if (whole < 3600)
		fprintf(to, "%ld:%02ld", whole / 60, whole % 60);
	else if (step < 60)
		fprintf(to, "%ld:%02ld:%02ld", whole / 3600, whole / 60 % 60, whole % 60);
	else
		fprintf(to, "%ld:%02ld h", whole / 3600, whole / 60 % 60);
}

void chart_draw_time(FILE *to, struct chart_box box, double from_s, double until_s)
{
	double step = time_step(until_s - from_s);

	for (double s = 0; s <= (until_s - from_s) * 1.0001; s += step) {
		double x = chart_x(box, from_s, until_s, from_s + s);

		fprintf(to, "<path d=\"M%.1f %.1fv5\" stroke=\"" TEXT_COLOUR "\"/>", x, box.y + box.height);
		fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" class=\"a\" text-anchor=\"middle\">", x, box.y + box.height + 20);
		put_tick(to, s, step);
		fputs("</text>\n", to);
	}
	fprintf(to, "<path d=\"M%.1f %.1fh%.1f\" stroke=\"" TEXT_COLOUR "\"/>\n", box.x, box.y + box.height, box.width);
}

void chart_draw_time_grid(FILE *to, struct chart_box box, double from_s, double until_s)
{
	double step = time_step(until_s - from_s);

	for (double s = step; s < (until_s - from_s) * 0.9999; s += step)
		fprintf(to, "<path d=\"M%.1f %.1fv%.1f\" stroke=\"" GRID_COLOUR "\" stroke-opacity=\"0.6\"/>\n",
			chart_x(box, from_s, until_s, from_s + s), box.y, box.height);
}
