/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * progress - see progress.h
 *
 *      view --bar.c--> lines --screen.c--> the terminal
 *       '--- what was said of it last? ---> a line, where that is another by now
 *
 * A line is said when a disk's state is another, when it is at another ten percent, and when it waits for another reason than it
 * did; reasons of pacing come and go, so that one is not said more often than each REASON_MS. PROGRESS_STEADY: each STEADY_MS,
 * too.
 * Can fail: memory, at the start.
 */
#include "migrate/progress.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/size.h"
#include "migrate/bar.h"
#include "migrate/screen.h"
#include "migrate/view-json.h"

#define REASON_MS 10000
#define STEADY_MS 10000
#define LINES_PER_DISK 2u

struct said {
	char state[32];
	char why[VIEW_TEXT_MAX];
	int64_t why_ms, said_ms;
	unsigned tenth;
};
struct progress {
	int fd;
	bool has_bar;
	enum progress_kind kind;
	struct screen screen;
	char phase[64];
	struct said said[VIEW_DISKS_MAX];
	struct columns line[VIEW_DISKS_MAX * LINES_PER_DISK + 1];
};

struct progress *progress_new(int fd, enum progress_kind kind, struct error *e)
{
	struct progress *p = calloc(1, sizeof(*p));

	if (!p) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	p->fd = fd;
	p->kind = kind;
	p->has_bar = kind == PROGRESS_AUTO && screen_open(&p->screen, fd);
	return p;
}

void progress_free(struct progress *p)
{
	free(p);
}

bool progress_is_stale(const struct progress *p)
{
	return p->has_bar && screen_was_resized();
}

/* --- a terminal */

static unsigned name_columns(const struct progress *p, const struct move_view *v)
{
	const char *names[VIEW_DISKS_MAX];

	for (unsigned i = 0; i < v->disks; i++)
		names[i] = v->disk[i].name;
	return bar_name_columns(names, v->disks, p->screen.columns);
}

static void draw(struct progress *p, const struct move_view *v)
{
	const char *lines[VIEW_DISKS_MAX * LINES_PER_DISK + 1];
	struct bar_style style;
	unsigned count = 0;

	screen_was_resized();
	screen_measure(&p->screen);
	style = (struct bar_style){ p->screen.columns, p->screen.has_colours, p->screen.is_unicode, name_columns(p, v) };
	for (unsigned i = 0; i < v->disks; i++) {
		bar_disk(&p->line[count++], &v->disk[i], &style);
		if (bar_reason(&p->line[count], &v->disk[i], &style))
			count++;
	}
	bar_move(&p->line[count++], v, &style);
	for (unsigned i = 0; i < count; i++)
		lines[i] = p->line[i].text;
	screen_draw(&p->screen, lines, count);
}

/* --- lines */

static void put_line(const struct progress *p, const char *text)
{
	CLEANUP_FREE char *line = NULL;
	int bytes = asprintf(&line, "%s\n", text);

	if (bytes < 0)
		line = NULL;
	else if (write(p->fd, line, (size_t)bytes) < 0)
		return; /* nobody reads */
}

static void say_line(const struct progress *p, int64_t now_ms, const struct columns *text)
{
	time_t now = (time_t)(now_ms / 1000);
	struct tm tm;
	char line[COLUMNS_BYTES + 16] = "";

	if (localtime_r(&now, &tm))
		strftime(line, sizeof(line), "%H:%M:%S ", &tm);
	strncat(line, text->text, COLUMNS_BYTES);
	put_line(p, line);
}

static void say_disk(const struct progress *p, const struct move_view *v, const struct move_disk *d)
{
	char done[SIZE_TEXT_MAX], total[SIZE_TEXT_MAX], rate[SIZE_TEXT_MAX], left[COLUMNS_TIME_MAX];
	struct columns c;

	columns_begin(&c, COLUMNS_MAX, false);
	columns_add(&c, d->name, 64);
	columns_format(&c, ": %s", bar_state(d));
	if (d->total_bytes)
		columns_format(&c, ", %u %% (%s of %s)", bar_percent(d), size_format(d->done_bytes, done),
			       size_format(d->total_bytes, total));
	if (d->rate_bytes)
		columns_format(&c, ", %s/s", size_format(d->rate_bytes, rate));
	if (d->eta_ms > 0 && !d->is_complete && !d->is_failed)
		columns_format(&c, ", %s left", columns_time(d->eta_ms, left));
	if (*d->why) {
		columns_put(&c, d->is_failed ? ": " : ", waits: ");
		columns_add(&c, d->why, COLUMNS_MAX);
	}
	say_line(p, v->now_ms, &c);
}

static bool is_news(const struct progress *p, struct said *s, const struct move_disk *d, int64_t now_ms)
{
	bool is_due = p->kind == PROGRESS_STEADY && s->said_ms && now_ms - s->said_ms >= STEADY_MS;
	unsigned tenth = bar_percent(d) / 10;
	bool is_other_why = *d->why && strcmp(s->why, d->why) != 0 && (!s->why_ms || now_ms - s->why_ms >= REASON_MS);
	bool is_it = strcmp(s->state, bar_state(d)) != 0 || tenth > s->tenth || is_other_why || is_due;

	if (!is_it)
		return false;
	s->said_ms = now_ms;
	snprintf(s->state, sizeof(s->state), "%s", bar_state(d));
	s->tenth = tenth;
	if (*d->why) {
		snprintf(s->why, sizeof(s->why), "%s", d->why);
		s->why_ms = now_ms;
	}
	return true;
}

static void say_phase(struct progress *p, const struct move_view *v)
{
	struct columns c;

	if (!v->phase || strncmp(p->phase, v->phase, sizeof(p->phase) - 1) == 0)
		return;
	snprintf(p->phase, sizeof(p->phase), "%s", v->phase);
	columns_begin(&c, COLUMNS_MAX, false);
	columns_add(&c, v->phase, COLUMNS_MAX);
	if (*v->why) {
		columns_put(&c, ", waits: ");
		columns_add(&c, v->why, COLUMNS_MAX);
	}
	say_line(p, v->now_ms, &c);
}

static void say_changes(struct progress *p, const struct move_view *v)
{
	say_phase(p, v);
	for (unsigned i = 0; i < v->disks; i++)
		if (is_news(p, &p->said[i], &v->disk[i], v->now_ms))
			say_disk(p, v, &v->disk[i]);
}

/* --- */

static void put_json(const struct progress *p, const struct move_view *v)
{
	CLEANUP_FREE char *text = view_encode(v);

	if (text)
		put_line(p, text);
}

void progress_show(struct progress *p, const struct move_view *v)
{
	if (p->kind == PROGRESS_QUIET)
		return;
	if (p->kind == PROGRESS_JSON)
		put_json(p, v);
	else if (p->has_bar)
		draw(p, v);
	else
		say_changes(p, v);
}

void progress_say(struct progress *p, const char *fmt, ...)
{
	CLEANUP_FREE char *text = NULL;
	struct columns c;
	va_list ap;
	int r;

	if (p->kind == PROGRESS_QUIET || p->kind == PROGRESS_JSON)
		return;
	va_start(ap, fmt);
	r = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (r < 0) {
		text = NULL;
		return;
	}
	columns_begin(&c, COLUMNS_MAX, false);
	columns_add(&c, text, COLUMNS_MAX);
	if (p->has_bar)
		screen_say(&p->screen, c.text);
	else
		put_line(p, c.text);
}
