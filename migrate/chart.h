/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * chart - one diagram over time of an SVG: its axes, its lines, its legend
 */
#ifndef SXM_MIGRATE_CHART_H
#define SXM_MIGRATE_CHART_H

#include <stdio.h>

#include "base/compiler.h"

#define CHART_NONE (-1.0) /* a value that is not known: the line has a gap there */

enum chart_unit { CHART_BYTES, CHART_BYTES_A_SECOND, CHART_TIME_US };

struct chart_box {
	double x, y, width, height;
};
struct chart_line {
	const char *name, *colour; /* ours: they are not escaped */
	const double *value;       /* as many as there are moments; none is negative but CHART_NONE */
	bool is_filled;
};
struct chart {
	struct chart_box box;
	const char *title;
	enum chart_unit unit;
	bool is_log;
	const double *second;      /* the moments, ascending */
	size_t count;
	double from_s, until_s, gap_s; /* longer between two moments: nobody looked */
	const struct chart_line *line;
	unsigned lines;
};

/* Grid, axis, title, legend, lines. */
void chart_draw(FILE *to, const struct chart *c);
/* The time below them all: ticks and words. */
void chart_draw_time(FILE *to, struct chart_box box, double from_s, double until_s);
/* Vertical lines of the time's grid. */
void chart_draw_time_grid(FILE *to, struct chart_box box, double from_s, double until_s);
double chart_x(struct chart_box box, double from_s, double until_s, double s);

/* For text and attributes in XML; what it cannot have is '?'. */
void chart_text(FILE *to, const char *text);
/* "1.5 GiB", "200 MiB/s", "310 \u00b5s", "1.2 ms": short. */
#define CHART_VALUE_MAX 32
char *chart_value(double value, enum chart_unit unit, char out[static CHART_VALUE_MAX]);
char *chart_duration(double s, char out[static CHART_VALUE_MAX]);

#endif
