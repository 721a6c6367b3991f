/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-status - sxm status: every mirror and copy of this host, once or until Ctrl-C
 *
 *      mirrors_look() -> one JSON object, a line
 *                     -> a bar for each (migrate/bar), what it waits for, where it goes
 *      --watch: each second; on a terminal in place, else what has changed (migrate/progress)
 *
 * Nothing is changed, and nobody has to be asked for leave: whoever may read SXM_RUN_DIR sees what there is. Processes may come,
 * die and be silent meanwhile.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "cmd/cmd.h"
#include "cmd/mirrors.h"
#include "cmd/say.h"
#include "migrate/bar.h"
#include "migrate/progress.h"
#include "migrate/screen.h"
#include "migrate/view-json.h"

enum status { WELL = 0, FAILED = 1, USAGE = 2, NONE = 3, UNDER_WAY = 4 };
enum option_value { WATCH = 1, JSON };

#define LOOK_MS 1000
#define LINES_PER_ROW 3u
#define WIDE 132u /* where it is no terminal that limits it */

struct wish {
	bool is_watch, is_json;
	const char *wanted; /* borrowed; NULL: all */
};

static int64_t unix_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- what it comes to */

static enum status judge(const struct mirrors *m, const char *wanted)
{
	enum status worst = m->view.disks || !wanted ? WELL : NONE;

	for (unsigned i = 0; i < m->view.disks; i++) {
		const struct move_disk *d = &m->view.disk[i];

		if (d->is_failed || strcmp(d->state, "lost") == 0)
			return FAILED;
		if (!d->is_complete && !m->row[i].is_receiver)
			worst = UNDER_WAY;
	}
	return worst;
}

/* --- JSON */

struct shown {
	char *id, *path, *mirror;
	bool is_receiver, is_recorded;
	int64_t ended;
};
#define SHOWN(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct shown, field) }
static const struct jsonspec_field shown_fields[] = {
	SHOWN("disk", JS_STRING, id),
	{ .name = "path", .type = JS_STRING, .offset = offsetof(struct shown, path), .is_optional = true },
	SHOWN("receives", JS_BOOL, is_receiver), SHOWN("recorded", JS_BOOL, is_recorded), SHOWN("ended", JS_INT64, ended),
	SHOWN("mirror", JS_TEXT, mirror), { .name = NULL },
};
static const struct jsonspec shown_spec = { "mirror", sizeof(struct shown), shown_fields };

static char *encode(const struct mirrors *m)
{
	CLEANUP_FREE struct shown *shown = calloc(m->view.disks + 1, sizeof(*shown));
	CLEANUP_FREE char *list = NULL;
	bool has_failed = !shown;
	char *text = NULL;

	for (unsigned i = 0; i < m->view.disks && !has_failed; i++) {
		const struct mirrors_row *r = &m->row[i];

		shown[i] = (struct shown){ .id = (char *)(uintptr_t)r->id, .path = r->path, .is_receiver = r->is_receiver,
					   .is_recorded = r->is_recorded, .ended = r->ended_s,
					   .mirror = view_encode_disk(&m->view.disk[i]) };
		has_failed = !shown[i].mirror;
	}
	list = has_failed ? NULL : jsonspec_array(&shown_spec, shown, m->view.disks);
	for (unsigned i = 0; shown && i < m->view.disks; i++)
		free(shown[i].mirror);
	if (!list || asprintf(&text, "{\"time\":%" PRId64 ",\"mirrors\":%s}", m->view.now_ms, list) < 0)
		return NULL;
	return text;
}

static int print_json(const struct mirrors *m)
{
	CLEANUP_FREE char *text = encode(m);
	int r = say_json(text);

	fflush(stdout);
	return r;
}

/* --- for people */

static int64_t ago_ms(const struct mirrors *m, unsigned i)
{
	return MAX(m->view.now_ms - m->row[i].ended_s * 1000, INT64_C(0));
}

static void put_place(struct columns *c, const struct mirrors *m, unsigned i, const struct bar_style *style)
{
	const struct move_disk *d = &m->view.disk[i];
	char ago[COLUMNS_TIME_MAX];

	columns_begin(c, style->columns, style->has_colours);
	columns_to(c, 2);
	columns_colour(c, COLUMNS_DIM);
	columns_add(c, *d->operation ? d->operation : m->row[i].id, COLUMNS_MAX);
	if (m->row[i].ended_s)
		columns_format(c, ", ended %s ago", columns_time(ago_ms(m, i), ago));
	if (*d->remote) {
		columns_put(c, d->is_copy ? ", a copy to " : ", to ");
		columns_add(c, d->remote, COLUMNS_MAX);
	}
	columns_colour(c, COLUMNS_PLAIN);
}

static struct bar_style style_of(const struct mirrors *m, const struct screen *s)
{
	struct bar_style style = { .columns = s ? s->columns : WIDE, .has_colours = s && s->has_colours,
				   .is_unicode = s && s->is_unicode };
	CLEANUP_FREE const char **names = calloc(m->view.disks + 1, sizeof(*names));

	for (unsigned i = 0; names && i < m->view.disks; i++)
		names[i] = m->view.disk[i].name;
	style.name_columns = names ? bar_name_columns(names, m->view.disks, style.columns) : 8;
	return style;
}

/* Heap, with a line for each; NULL: memory is out. */
static struct columns *describe(const struct mirrors *m, const struct screen *s, unsigned *count)
{
	struct columns *line = calloc(m->view.disks * LINES_PER_ROW + 1, sizeof(*line));
	struct bar_style style = style_of(m, s);

	*count = 0;
	for (unsigned i = 0; line && i < m->view.disks; i++) {
		bar_disk(&line[(*count)++], &m->view.disk[i], &style);
		if (bar_reason(&line[*count], &m->view.disk[i], &style))
			(*count)++;
		put_place(&line[(*count)++], m, i, &style);
	}
	if (line && !m->view.disks) {
		columns_begin(&line[0], style.columns, false);
		columns_put(&line[(*count)++], "no mirror runs here, and none is on record");
	}
	return line;
}

static void print_all(const struct mirrors *m)
{
	struct screen screen;
	bool is_terminal = screen_open(&screen, STDOUT_FILENO);
	unsigned count;
	CLEANUP_FREE struct columns *line = describe(m, is_terminal ? &screen : NULL, &count);

	for (unsigned i = 0; line && i < count; i++)
		puts(line[i].text);
}

static void draw_all(const struct mirrors *m, struct screen *s)
{
	CLEANUP_FREE struct columns *line = NULL;
	CLEANUP_FREE const char **text = NULL;
	unsigned count;

	screen_measure(s);
	line = describe(m, s, &count);
	text = calloc(m->view.disks * LINES_PER_ROW + 1, sizeof(*text));
	for (unsigned i = 0; line && text && i < count; i++)
		text[i] = line[i].text;
	if (line && text)
		screen_draw(s, text, count);
}

/* --- until Ctrl-C */

static volatile sig_atomic_t is_over;

static void on_end(int number UNUSED)
{
	is_over = 1;
}

static void catch_end(void)
{
	struct sigaction action = { .sa_handler = on_end };

	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

/* Until it is time to look again. Drawn anew where the terminal has another size. */
static void wait_for_next(const struct mirrors *m, struct screen *s, int64_t until_ms)
{
	while (!is_over) {
		int64_t left = until_ms - unix_ms();

		if (left <= 0 || left > LOOK_MS)
			return;
		if (poll(NULL, 0, (int)left) == 0)
			return;
		if (s && screen_was_resized())
			draw_all(m, s);
	}
}

static int watch(const struct wish *w, struct mirrors *m)
{
	struct screen screen, *s = !w->is_json && screen_open(&screen, STDOUT_FILENO) ? &screen : NULL;
	struct error e;
	struct progress *p = s || w->is_json ? NULL : progress_new(STDOUT_FILENO, PROGRESS_LINES, &e);

	catch_end();
	while (!is_over) {
		int64_t now = unix_ms();

		mirrors_look(m, w->wanted, now);
		if (w->is_json && print_json(m) == -1)
			break;
		if (s)
			draw_all(m, s);
		if (p)
			progress_show(p, &m->view);
		if (ferror(stdout))
			break;
		wait_for_next(m, s, now + LOOK_MS);
	}
	progress_free(p);
	return judge(m, w->wanted);
}

/* --- the command */

static int show(const struct wish *w)
{
	struct mirrors m = { .row = NULL };
	int status;

	if (w->is_watch) {
		status = watch(w, &m);
	} else {
		mirrors_look(&m, w->wanted, unix_ms());
		status = judge(&m, w->wanted);
		if (w->is_json && print_json(&m) == -1)
			status = FAILED;
		else if (!w->is_json && status != NONE)
			print_all(&m);
	}
	if (status == NONE) {
		fprintf(stderr, "sxm status: nothing is known here of ");
		say_text(stderr, w->wanted);
		fprintf(stderr, "; sxm status without a name shows what there is\n");
	}
	mirrors_clear(&m);
	return status;
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "watch", no_argument, NULL, WATCH }, { "json", no_argument, NULL, JSON }, { NULL, 0, NULL, 0 },
	};
	CLEANUP_FREE char *path = NULL;
	struct wish w = { .wanted = NULL };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case WATCH: w.is_watch = true; break;
		case JSON: w.is_json = true; break;
		default: return CMD_USAGE;
		}
	}
	if (argc - optind > 1)
		return CMD_USAGE;
	if (optind < argc) {
		path = strchr(argv[optind], '/') ? realpath(argv[optind], NULL) : NULL;
		w.wanted = path ? path : argv[optind];
	}
	return show(&w);
}

const struct cmd cmd_status = {
	.name = "status",
	.summary = "show every mirror and copy of this host, once or until Ctrl-C",
	.usage = "sxm status [--watch] [--json] [ID]\n"
		 "  --watch  look again each second, until Ctrl-C\n"
		 "  --json   one JSON object, a line; with --watch one each second\n"
		 "  ID       only this one: a disk's id, a mirror's, or the path of an image\n"
		 "exit status: 0 all of them have everything, or there is none, 1 one has failed, or its process is silent,\n"
		 "             2 usage, 3 nothing is known of that ID, 4 one is under way",
	.run = run,
	.usage_status = USAGE,
};
