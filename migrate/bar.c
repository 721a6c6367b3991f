/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * bar - see bar.h
 *
 *      root   52% [=========>        ]   5.2 GiB/10.0 GiB  112.0 MiB/s 1m12s left   write 310 us   lag 1.2 MiB
 *             waits: the copy would not end: guests write as fast as it goes
 *
 * What does not fit is left out, the least important first; what is there stands in the same columns for all disks.
 */
#include "migrate/bar.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/size.h"

#define NAME_LEAST 6u
#define NAME_MOST 24u
#define BAR_LEAST 8u
#define BAR_GOOD 20u
#define BAR_MOST 42u
#define REASON_INDENT 2u

enum item { PERCENT, BAR, AMOUNT, RATE, LEFT, WRITES, LAG, WIDER, ITEMS };
/* With the space before it. WIDER: a bar that can be read. */
static const unsigned widths[] = { [PERCENT] = 5, [BAR] = BAR_LEAST + 1, [AMOUNT] = 20, [RATE] = 14, [LEFT] = 13, [WRITES] = 16,
				   [LAG] = 16, [WIDER] = BAR_GOOD - BAR_LEAST };
static const enum item by_importance[] = { PERCENT, LEFT, BAR, RATE, AMOUNT, WIDER, WRITES, LAG };

unsigned bar_name_columns(const char *const *names, unsigned count, unsigned columns)
{
	unsigned widest = 0, share = MIN(NAME_MOST, columns / 5), most = MAX(NAME_LEAST, share);

	for (unsigned i = 0; i < count; i++)
		widest = MAX(widest, columns_of(names[i]));
	return MIN(widest, most);
}

unsigned bar_percent(const struct move_disk *d)
{
	if (d->is_complete)
		return 100;
	return d->total_bytes ? MIN((unsigned)((double)d->done_bytes * 100 / (double)d->total_bytes), 99u) : 0;
}

const char *bar_state(const struct move_disk *d)
{
	static const struct {
		const char *state, *word;
	} words[] = { { "connecting", "connecting" }, { "syncing", "copying" }, { "synced", "in sync" },
		      { "finishing", "handing over" }, { "broken", "link lost" }, { "finished", "done" }, { "ended", "over" },
		      { "lost", "no answer" }, { "suspended", "suspended" },
		      { "receiving", "receiving" }, { "eligible", "received" } };

	if (d->is_given)
		return "moved";
	if (d->is_failed)
		return d->is_remembered ? "can resume" : "failed";
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(d->state, words[i].state) == 0)
			return d->is_stalled && i == 1 ? "stalled" : words[i].word;
	return *d->state ? "?" : "-"; /* no word of theirs */
}

static enum columns_colour colour_of(const struct move_disk *d)
{
	if (d->is_failed)
		return COLUMNS_RED;
	if (d->is_complete || d->is_given)
		return COLUMNS_GREEN;
	return *d->why ? COLUMNS_YELLOW : COLUMNS_BLUE;
}

/* --- its items */

static void put_bar(struct columns *c, const struct move_disk *d, const struct bar_style *s, unsigned width)
{
	static const char *const eighths[] = { "", "\u258f", "\u258e", "\u258d", "\u258c", "\u258b", "\u258a", "\u2589" };
	unsigned inner = width - 3, units = s->is_unicode ? 8 : 1, filled, end;
	double part = d->is_complete ? 1 : d->total_bytes ? (double)d->done_bytes / (double)d->total_bytes : 0;

	filled = (unsigned)(part * inner * units);
	columns_put(c, s->is_unicode ? " \u2595" : " [");
	end = c->used + inner;
	columns_colour(c, colour_of(d));
	for (unsigned i = 0; i < filled / units; i++)
		columns_put(c, s->is_unicode ? "\u2588" : "=");
	if (s->is_unicode)
		columns_put(c, eighths[filled % units]);
	else if (filled < inner)
		columns_put(c, ">");
	columns_to(c, end);
	columns_colour(c, COLUMNS_PLAIN);
	columns_put(c, s->is_unicode ? "\u258f" : "]");
}

/* "5.2/10.0 GiB" where both are of one unit. */
static void put_amount(struct columns *c, const struct move_disk *d)
{
	char done[SIZE_TEXT_MAX], total[SIZE_TEXT_MAX], both[2 * SIZE_TEXT_MAX + 2];
	const char *unit, *other;

	size_format(d->done_bytes, done);
	size_format(d->total_bytes, total);
	unit = strchr(done, ' ');
	other = strchr(total, ' ');
	if (unit && other && strcmp(unit, other) == 0)
		snprintf(both, sizeof(both), "%.*s/%s", (int)(unit - done), done, total);
	else
		snprintf(both, sizeof(both), "%s/%s", done, total);
	columns_format(c, " %19s", both);
}

static void put_rate(struct columns *c, const struct move_disk *d)
{
	char rate[SIZE_TEXT_MAX];

	columns_format(c, " %11s/s", size_format(d->rate_bytes, rate));
}

static void put_left(struct columns *c, const struct move_disk *d)
{
	char left[COLUMNS_TIME_MAX];

	if (d->is_failed || d->is_complete || d->is_ended || d->eta_ms < 0 || !*d->state)
		columns_format(c, " %12s", bar_state(d));
	else
		columns_format(c, " %7s left", columns_time(d->eta_ms, left));
}

static void put_writes(struct columns *c, const struct move_disk *d)
{
	if (d->is_stream)
		return;
	if (d->guest_latency_us < 0)
		columns_format(c, " %15s", "");
	else if (d->guest_latency_us < 10000)
		columns_format(c, "  write %5" PRId64 " us", d->guest_latency_us);
	else
		columns_format(c, "  write %5" PRId64 " ms", MIN(d->guest_latency_us / 1000, INT64_C(99999)));
}

static void put_lag(struct columns *c, const struct move_disk *d)
{
	char lag[SIZE_TEXT_MAX];

	if (!d->is_stream)
		columns_format(c, "  lag %10s", size_format(d->lag_bytes, lag));
}

static void put_item(struct columns *c, enum item item, const struct move_disk *d, const struct bar_style *s, unsigned bar)
{
	switch (item) {
	case PERCENT:
		columns_format(c, " %3u%%", bar_percent(d));
		break;
	case BAR:
		put_bar(c, d, s, bar);
		break;
	case AMOUNT:
		put_amount(c, d);
		break;
	case RATE:
		put_rate(c, d);
		break;
	case LEFT:
		put_left(c, d);
		break;
	case WRITES:
		put_writes(c, d);
		break;
	default:
		put_lag(c, d);
	}
}

/* --- lines */

void bar_disk(struct columns *c, const struct move_disk *d, const struct bar_style *s)
{
	unsigned left = s->columns > s->name_columns ? s->columns - s->name_columns : 0, bar = widths[BAR];
	bool is_shown[ITEMS] = { false };

	for (unsigned i = 0; i < ARRAY_LEN(by_importance); i++) {
		enum item item = by_importance[i];

		if (widths[item] > left)
			break;
		is_shown[item] = true;
		left -= widths[item];
	}
	bar += is_shown[WIDER] ? widths[WIDER] : 0;
	bar += MIN(left, BAR_MOST - BAR_GOOD);
	columns_begin(c, s->columns, s->has_colours);
	columns_add(c, d->name, s->name_columns);
	columns_to(c, s->name_columns);
	for (unsigned i = 0; i < WIDER; i++)
		if (is_shown[i])
			put_item(c, (enum item)i, d, s, bar);
}

bool bar_reason(struct columns *c, const struct move_disk *d, const struct bar_style *s)
{
	if (!*d->why)
		return false;
	columns_begin(c, s->columns, s->has_colours);
	columns_to(c, REASON_INDENT);
	columns_colour(c, colour_of(d));
	columns_put(c, d->is_failed ? "failed: " : "waits: ");
	columns_add(c, d->why, COLUMNS_MAX);
	columns_colour(c, COLUMNS_PLAIN);
	return true;
}

static unsigned count_done(const struct move_view *v)
{
	unsigned done = 0;

	for (unsigned i = 0; i < v->disks; i++)
		done += v->disk[i].is_complete;
	return done;
}

static void put_deadline(struct columns *c, const struct move_view *v)
{
	char at[COLUMNS_TIME_MAX];

	if (!v->finish_by_ms || v->ended_ms)
		return;
	columns_colour(c, v->is_late ? COLUMNS_YELLOW : COLUMNS_PLAIN);
	columns_format(c, ", %s %s", v->is_late ? "later than" : "to be done by", columns_clock(v->finish_by_ms, v->now_ms, at));
	columns_colour(c, COLUMNS_PLAIN);
}

void bar_move(struct columns *c, const struct move_view *v, const struct bar_style *s)
{
	char time[COLUMNS_TIME_MAX];

	columns_begin(c, s->columns, s->has_colours);
	columns_colour(c, COLUMNS_BOLD);
	columns_add(c, v->phase && *v->phase ? v->phase : "moving", 40);
	columns_colour(c, COLUMNS_PLAIN);
	if (v->started_ms && v->now_ms >= v->started_ms)
		columns_format(c, ", %s so far", columns_time(v->now_ms - v->started_ms, time));
	if (v->disks > 1)
		columns_format(c, ", %u of %u disks in sync", count_done(v), v->disks);
	if (v->eta_ms > 0)
		columns_format(c, ", %s left", columns_time(v->eta_ms, time));
	put_deadline(c, v);
	if (v->downtime_ms >= 0 && v->eta_ms == 0)
		columns_format(c, ", a switchover would pause the guest for about %" PRId64 " ms", v->downtime_ms);
	if (*v->why) {
		columns_colour(c, COLUMNS_YELLOW);
		columns_put(c, "; waits: ");
		columns_add(c, v->why, COLUMNS_MAX);
		columns_colour(c, COLUMNS_PLAIN);
	}
}
