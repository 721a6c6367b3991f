/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * picture - see picture.h
 *
 *      what, how much, how long, how it ended
 *      a row for each disk
 *      | phase | phase           | phase  |#| phase |      # the guest was held
 *      throughput      to the far side, what guests wrote
 *      still owed      what is to be copied
 *      lag             written here, on its way to there
 *      guest           how long its writes took: the mean, and 99 in 100
 *      0 s        10 s        20 s                         one time for all of them
 *
 * Of several disks what is drawn is their sum; of latencies the worst.
 */
#include "migrate/picture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "migrate/chart.h"

#define WIDTH 960.0
#define LEFT 96.0
#define RIGHT 28.0
#define TOP 84.0
#define DISK_ROW 20.0
#define DISKS_SHOWN 12u
#define BAND 22.0
#define CHART_HEIGHT 128.0
#define CHART_GAP 46.0
#define FOOT 48.0
#define PHASES_MAX 64u
#define WORD_MAX 48u
#define BAND_CHAR 6.4
#define HELD_LEAST 2.0
#define GAP_LEAST_S 15.0

enum series { RATE, WRITTEN, OWED, LAG, MEAN, P99, SERIES };

struct phase {
	char name[WORD_MAX];
	double from_s, until_s;
};
struct shown_disk {
	char name[VIEW_NAME_MAX];
	uint64_t size_bytes, sent_bytes;
	bool is_complete, is_failed, is_verified;
};
struct picture {
	char id[VIEW_NAME_MAX];
	int64_t started_ms, last_ms, held_ms, released_ms;
	double *second;        /* owned */
	double *value[SERIES]; /* owned */
	size_t count, room;
	struct phase phase[PHASES_MAX];
	unsigned phases;
	struct shown_disk *disk; /* owned */
	unsigned disks;
	bool is_failed, is_complete, has_failed; /* has_failed: memory */
};

struct picture *picture_new(void)
{
	return calloc(1, sizeof(struct picture));
}

void picture_free(struct picture *r)
{
	if (!r)
		return;
	free(r->second);
	for (unsigned i = 0; i < SERIES; i++)
		free(r->value[i]);
	free(r->disk);
	free(r);
}

/* --- what is added */

static bool make_room(struct picture *r)
{
	size_t room = r->room ? 2 * r->room : 256;
	double *grown;

	if (r->count < r->room)
		return true;
	grown = reallocarray(r->second, room, sizeof(*grown));
	if (!grown)
		return false;
	r->second = grown;
	for (unsigned i = 0; i < SERIES; i++) {
		grown = reallocarray(r->value[i], room, sizeof(*grown));
		if (!grown)
			return false;
		r->value[i] = grown;
	}
	r->room = room;
	return true;
}

static void add_up(const struct move_view *v, double sum[static SERIES])
{
	for (unsigned i = 0; i < SERIES; i++)
		sum[i] = i == MEAN || i == P99 ? CHART_NONE : 0;
	for (unsigned i = 0; i < v->disks; i++) {
		const struct move_disk *d = &v->disk[i];

		sum[RATE] += (double)d->rate_bytes;
		sum[WRITTEN] += (double)d->guest_rate_bytes;
		sum[OWED] += (double)d->dirty_bytes;
		sum[LAG] += (double)d->lag_bytes;
		sum[MEAN] = MAX(sum[MEAN], (double)d->guest_latency_us);
		sum[P99] = MAX(sum[P99], (double)d->guest_p99_us);
	}
}

static void note_phase(struct picture *r, const char *name, double s)
{
	struct phase *last = r->phases ? &r->phase[r->phases - 1] : NULL;

	if (last)
		last->until_s = s;
	if ((last && strncmp(last->name, name, WORD_MAX - 1) == 0) || r->phases == PHASES_MAX)
		return;
	r->phase[r->phases] = (struct phase){ .from_s = s, .until_s = s };
	snprintf(r->phase[r->phases++].name, WORD_MAX, "%s", name);
}

static void note_disks(struct picture *r, const struct move_view *v)
{
	if (v->disks > r->disks) {
		struct shown_disk *grown = reallocarray(r->disk, v->disks, sizeof(*grown));

		if (!grown) {
			r->has_failed = true;
			return;
		}
		memset(&grown[r->disks], 0, (v->disks - r->disks) * sizeof(*grown));
		r->disk = grown;
		r->disks = v->disks;
	}
	for (unsigned i = 0; i < v->disks; i++) {
		const struct move_disk *d = &v->disk[i];
		struct shown_disk *s = &r->disk[i];

		memcpy(s->name, d->name, sizeof(s->name));
		s->size_bytes = MAX(s->size_bytes, d->size_bytes);
		s->size_bytes = MAX(s->size_bytes, d->total_bytes);
		s->sent_bytes = MAX(s->sent_bytes, d->figures.sent_bytes);
		s->is_complete = d->is_complete || d->is_given;
		s->is_failed = d->is_failed;
		s->is_verified = d->is_verified;
	}
}

static void note_end(struct picture *r, const struct move_view *v)
{
	r->is_failed = v->is_failed;
	r->is_complete = v->disks;
	for (unsigned i = 0; i < v->disks; i++) {
		r->is_failed |= v->disk[i].is_failed;
		r->is_complete &= v->disk[i].is_complete || v->disk[i].is_given;
	}
	r->held_ms = v->held_ms ? v->held_ms : r->held_ms;
	r->released_ms = v->released_ms ? v->released_ms : r->released_ms;
}

void picture_add(struct picture *r, const struct move_view *v)
{
	double sum[SERIES], s;

	if (r->count && v->now_ms <= r->last_ms)
		return;
	if (!make_room(r)) {
		r->has_failed = true;
		return;
	}
	if (!r->count) {
		memcpy(r->id, v->id, sizeof(r->id));
		r->started_ms = v->started_ms && v->started_ms <= v->now_ms ? v->started_ms : v->now_ms;
	}
	s = (double)(v->now_ms - r->started_ms) / 1000;
	add_up(v, sum);
	r->second[r->count] = s;
	for (unsigned i = 0; i < SERIES; i++)
		r->value[i][r->count] = sum[i];
	r->count++;
	r->last_ms = v->now_ms;
	note_phase(r, v->phase ? v->phase : "", s);
	note_disks(r, v);
	note_end(r, v);
}

/* --- its head */

static double until_s(const struct picture *r)
{
	return r->count && r->second[r->count - 1] > 0 ? r->second[r->count - 1] : 1;
}

static bool was_held(const struct picture *r)
{
	return r->held_ms && r->released_ms >= r->held_ms;
}

static void draw_head(FILE *to, const struct picture *r)
{
	char took[CHART_VALUE_MAX], sent[SIZE_TEXT_MAX], size[SIZE_TEXT_MAX], paused[CHART_VALUE_MAX], started[32] = "";
	time_t at = (time_t)(r->started_ms / 1000);
	uint64_t sent_bytes = 0, size_bytes = 0;
	struct tm tm;

	for (unsigned i = 0; i < r->disks; i++) {
		sent_bytes += r->disk[i].sent_bytes;
		size_bytes += r->disk[i].size_bytes;
	}
	if (gmtime_r(&at, &tm))
		strftime(started, sizeof(started), "%Y-%m-%d %H:%M:%S", &tm);
	fputs("<text x=\"28\" y=\"38\" class=\"t\">Move ", to);
	chart_text(to, r->id);
	fprintf(to, "</text>\n<text x=\"28\" y=\"60\" class=\"s\">%u disk%s, %s; begun %s UTC, %s; sent %s", r->disks,
		r->disks == 1 ? "" : "s", size_format(size_bytes, size), started, chart_duration(until_s(r), took),
		size_format(sent_bytes, sent));
	if (was_held(r))
		fprintf(to, "; the guest was held for <tspan class=\"d\">%s</tspan>",
			chart_duration((double)(r->released_ms - r->held_ms) / 1000, paused));
	fputs("</text>\n", to);
	fprintf(to, "<text x=\"%.0f\" y=\"38\" class=\"r\" text-anchor=\"end\" style=\"fill:%s\">%s</text>\n", WIDTH - RIGHT,
		r->is_failed ? "#b42318" : r->is_complete ? "#067647" : "#b54708",
		r->is_failed ? "failed" : r->is_complete ? "complete" : "not complete");
}

static void draw_disks(FILE *to, const struct picture *r)
{
	unsigned shown = MIN(r->disks, DISKS_SHOWN);
	double y = TOP;

	for (unsigned i = 0; i < shown; i++, y += DISK_ROW) {
		const struct shown_disk *d = &r->disk[i];
		char size[SIZE_TEXT_MAX], sent[SIZE_TEXT_MAX];

		fprintf(to, "<circle cx=\"33\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/><text x=\"46\" y=\"%.1f\" class=\"n\">", y - 4,
			d->is_failed ? "#d92d20" : d->is_complete ? "#17b26a" : "#f79009", y);
		chart_text(to, d->name);
		fprintf(to, "<tspan class=\"a\" dx=\"10\">%s, %s sent%s</tspan></text>\n", size_format(d->size_bytes, size),
			size_format(d->sent_bytes, sent), d->is_verified ? ", both ends' digests equal" : "");
	}
	if (shown < r->disks) {
		fprintf(to, "<text x=\"46\" y=\"%.1f\" class=\"a\">and %u more</text>\n", y, r->disks - shown);
	}
}

/* --- its time */

static void draw_phases(FILE *to, const struct picture *r, struct chart_box box)
{
	static const char *const tints[] = { "#eef4ff", "#f9fafb" };

	for (unsigned i = 0; i < r->phases; i++) {
		double x = chart_x(box, 0, until_s(r), r->phase[i].from_s);
		double width = chart_x(box, 0, until_s(r), r->phase[i].until_s) - x;
		size_t room = width > 8 ? (size_t)((width - 8) / BAND_CHAR) : 0;

		fprintf(to, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, box.y,
			MAX(width, 0.5), box.height, tints[i % 2]);
		fprintf(to, "<g><title>");
		chart_text(to, r->phase[i].name);
		fprintf(to, "</title><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>", x, box.y,
			MAX(width - 1, 0.5), BAND, i % 2 ? "#98a2b3" : "#6172f3");
		if (room >= strlen(r->phase[i].name)) {
			fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" class=\"p\" text-anchor=\"middle\">", x + width / 2,
				box.y + 15);
			chart_text(to, r->phase[i].name);
			fputs("</text>", to);
		}
		fputs("</g>\n", to);
	}
}

static double x_within(const struct picture *r, struct chart_box box, double s)
{
	return chart_x(box, 0, until_s(r), s < 0 ? 0 : MIN(s, until_s(r)));
}

static void draw_held(FILE *to, const struct picture *r, struct chart_box box)
{
	double from = (double)(r->held_ms - r->started_ms) / 1000, until = (double)(r->released_ms - r->started_ms) / 1000;
	double x, width;
	char text[CHART_VALUE_MAX];
	bool is_right;

	if (!was_held(r))
		return;
	x = x_within(r, box, from);
	width = x_within(r, box, until) - x;
	width = MAX(width, HELD_LEAST);
	is_right = x > box.x + box.width * 0.75;
	fprintf(to, "<g><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#f04438\" fill-opacity=\"0.55\"/>",
		x, box.y, width, box.height);
	fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" class=\"d\" text-anchor=\"%s\">downtime %s</text></g>\n",
		is_right ? x - 5 : x + width + 5, box.y + BAND + 14, is_right ? "end" : "start",
		chart_duration(until - from, text));
}

static double gap_of(const struct picture *r)
{
	double mean = r->count > 1 ? until_s(r) / (double)(r->count - 1) : 0;

	return MAX(GAP_LEAST_S, 6 * mean);
}

static void draw_charts(FILE *to, const struct picture *r, struct chart_box box)
{
	const struct chart_line line[][2] = {
		{ { "to the far side", "#1570ef", r->value[RATE], true },
		  { "written by the guest", "#e69f00", r->value[WRITTEN], false } },
		{ { "owed", "#7a5af8", r->value[OWED], true } },
		{ { "under way", "#009e73", r->value[LAG], true } },
		{ { "mean", "#1570ef", r->value[MEAN], false }, { "99 in 100 at most", "#d55e00", r->value[P99], false } },
	};
	struct chart chart[] = {
		{ .title = "Throughput", .unit = CHART_BYTES_A_SECOND, .lines = 2 },
		{ .title = "Still to be copied", .unit = CHART_BYTES, .lines = 1 },
		{ .title = "Lag: written here, not there yet", .unit = CHART_BYTES, .lines = 1 },
		{ .title = "How long the guest's writes took", .unit = CHART_TIME_US, .is_log = true, .lines = 2 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(chart); i++) {
		chart[i].box = (struct chart_box){ box.x, box.y, box.width, CHART_HEIGHT };
		chart[i].second = r->second;
		chart[i].count = r->count;
		chart[i].until_s = until_s(r);
		chart[i].gap_s = gap_of(r);
		chart[i].line = line[i];
		chart_draw(to, &chart[i]);
		box.y += CHART_HEIGHT + CHART_GAP;
	}
}

static const char style[] =
	"<style>text{font-family:Inter,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;fill:#344054}"
	".t{font-size:22px;font-weight:600;fill:#101828}.s{font-size:13px}.r{font-size:16px;font-weight:600}"
	".n{font-size:13px;fill:#101828}.h{font-size:13px;font-weight:600;fill:#101828}.a{font-size:11px;fill:#475467}"
	".p{font-size:11px;fill:#ffffff}.d{font-size:12px;font-weight:600;fill:#b42318}"
	".l{stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}.k{stroke-width:3;stroke-linecap:round}</style>\n";

static void draw(FILE *to, const struct picture *r)
{
	double head = TOP + DISK_ROW * (MIN(r->disks, DISKS_SHOWN) + (r->disks > DISKS_SHOWN)) + 6;
	double charts = 4 * CHART_HEIGHT + 3 * CHART_GAP, height = head + BAND + CHART_GAP + charts + FOOT;
	struct chart_box box = { LEFT, head, WIDTH - LEFT - RIGHT, BAND + CHART_GAP + charts };

	fprintf(to, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\">\n"
		    "<title>Move ", WIDTH, height, WIDTH, height);
	chart_text(to, r->id);
	fprintf(to, "</title>\n%s<rect width=\"%.0f\" height=\"%.0f\" fill=\"#ffffff\"/>\n", style, WIDTH, height);
	draw_head(to, r);
	draw_disks(to, r);
	draw_phases(to, r, box);
	chart_draw_time_grid(to, (struct chart_box){ box.x, box.y + BAND, box.width, box.height - BAND }, 0, until_s(r));
	draw_charts(to, r, (struct chart_box){ box.x, box.y + BAND + CHART_GAP, box.width, 0 });
	draw_held(to, r, box);
	chart_draw_time(to, box, 0, until_s(r));
	fprintf(to, "<text x=\"%.1f\" y=\"%.1f\" class=\"a\" text-anchor=\"end\">since it began</text>\n</svg>\n", WIDTH - RIGHT,
		box.y + box.height + 38);
}

char *picture_svg(const struct picture *r)
{
	char *text = NULL;
	size_t bytes;
	FILE *to = r->has_failed ? NULL : open_memstream(&text, &bytes);

	if (!to)
		return NULL;
	draw(to, r);
	if (fclose(to) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
