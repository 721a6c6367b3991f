/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-status - sxm status: every move, mirror and copy of this host, once or until Ctrl-C
 *
 *      moves_look(), mirrors_look() -> one JSON object, a line
 *                                   -> how far a move came, and what is next; a bar for each mirror (migrate/bar), what it waits
 *                                      for, where it goes
 *      of a move that is asked for: it, and the mirrors of its disks
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
#include "cmd/moves.h"
#include "cmd/say.h"
#include "migrate/bar.h"
#include "migrate/progress.h"
#include "migrate/screen.h"
#include "migrate/view-json.h"

enum status { WELL = 0, FAILED = 1, USAGE = 2, NONE = 3, UNDER_WAY = 4 };
enum option_value { WATCH = 1, JSON };

#define LOOK_MS 1000
#define LINES_PER_ROW 3u
#define LINES_PER_MOVE 50u
#define WIDE 132u /* where it is no terminal that limits it */

struct wish {
	bool is_watch, is_json;
	bool is_move;       /* what is wanted is one */
	const char *wanted; /* borrowed; NULL: all */
};

/* What is seen in one look. */
struct seen {
	struct moves moves;
	struct mirrors mirrors;
};

static int64_t unix_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* --- a look */

/* As people call them, and not by their files. */
static void name_disks(struct mirrors *m, const struct journey_record *r)
{
	const struct journey_disk *d = r->disks.item;

	for (unsigned i = 0; i < m->view.disks; i++)
		for (size_t k = 0; k < r->disks.count; k++)
			if (strcmp(m->row[i].id, d[k].id) == 0)
				snprintf(m->view.disk[i].name, sizeof(m->view.disk[i].name), "%s", d[k].name);
}

static void look_at_move(struct seen *s, const struct moves_row *move, int64_t now_ms)
{
	const struct journey_disk *d = move->r.disks.item;
	CLEANUP_FREE const char **ids = calloc(move->r.disks.count + 1, sizeof(*ids));

	if (!ids)
		return;
	for (size_t i = 0; i < move->r.disks.count; i++)
		ids[i] = d[i].id;
	mirrors_look(&s->mirrors, ids, now_ms);
	name_disks(&s->mirrors, &move->r);
	s->mirrors.view.started_ms = move->r.started_ms;
	s->mirrors.view.phase = move->state; /* until the next look */
	snprintf(s->mirrors.view.why, sizeof(s->mirrors.view.why), "%.200s", move->is_over ? "" : move->next);
}

static void look(const struct wish *w, struct seen *s, int64_t now_ms)
{
	const char *const wanted[] = { w->wanted, NULL };

	s->mirrors.view.phase = NULL;
	if (!w->wanted || w->is_move)
		moves_look(&s->moves, w->wanted, now_ms);
	if (w->is_move && s->moves.count)
		look_at_move(s, &s->moves.row[0], now_ms);
	else if (!w->is_move)
		mirrors_look(&s->mirrors, w->wanted ? wanted : NULL, now_ms);
}

/* --- what it comes to */

static enum status judge_move(const struct moves_row *m)
{
	if (m->is_over)
		return journey_step_of(&m->r) == JOURNEY_DONE ? WELL : FAILED;
	return m->is_driven ? UNDER_WAY : FAILED;
}

static enum status judge_mirrors(const struct mirrors *m, enum status worst)
{
	for (unsigned i = 0; i < m->view.disks; i++) {
		const struct move_disk *d = &m->view.disk[i];

		if (d->is_failed || strcmp(d->state, "lost") == 0)
			return FAILED;
		if (!d->is_complete && !m->row[i].is_receiver)
			worst = UNDER_WAY;
	}
	return worst;
}

static enum status judge(const struct wish *w, const struct seen *s)
{
	enum status worst = WELL;

	if (w->is_move)
		return s->moves.count ? judge_move(&s->moves.row[0]) : NONE;
	if (w->wanted && !s->mirrors.view.disks)
		return NONE;
	for (size_t i = 0; i < s->moves.count; i++) {
		enum status one = judge_move(&s->moves.row[i]);

		worst = one == FAILED || worst == FAILED ? FAILED : one;
	}
	return worst == FAILED ? FAILED : judge_mirrors(&s->mirrors, worst);
}

/* --- JSON */

struct shown {
	char *id, *path, *move, *mirror;
	bool is_receiver, is_recorded;
	int64_t ended;
};
#define SHOWN(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct shown, field) }
static const struct jsonspec_field shown_fields[] = {
	SHOWN("disk", JS_STRING, id),
	{ .name = "path", .type = JS_STRING, .offset = offsetof(struct shown, path), .is_optional = true },
	{ .name = "move", .type = JS_STRING, .offset = offsetof(struct shown, move), .is_optional = true },
	SHOWN("receives", JS_BOOL, is_receiver), SHOWN("recorded", JS_BOOL, is_recorded), SHOWN("ended", JS_INT64, ended),
	SHOWN("mirror", JS_TEXT, mirror), { .name = NULL },
};
static const struct jsonspec shown_spec = { "mirror", sizeof(struct shown), shown_fields };

static char *encode(const struct seen *s)
{
	const struct mirrors *m = &s->mirrors;
	CLEANUP_FREE char *moves = moves_encode(&s->moves);
	CLEANUP_FREE struct shown *shown = calloc(m->view.disks + 1, sizeof(*shown));
	CLEANUP_FREE char *list = NULL;
	bool has_failed = !shown;
	char *text = NULL;

	for (unsigned i = 0; i < m->view.disks && !has_failed; i++) {
		const struct mirrors_row *r = &m->row[i];

		shown[i] = (struct shown){ .id = (char *)(uintptr_t)r->id, .path = r->path, .move = r->move,
					   .is_receiver = r->is_receiver, .is_recorded = r->is_recorded, .ended = r->ended_s,
					   .mirror = view_encode_disk(&m->view.disk[i]) };
		has_failed = !shown[i].mirror;
	}
	list = has_failed ? NULL : jsonspec_array(&shown_spec, shown, m->view.disks);
	for (unsigned i = 0; shown && i < m->view.disks; i++)
		free(shown[i].mirror);
	if (!list || !moves ||
	    asprintf(&text, "{\"time\":%" PRId64 ",\"moves\":%s,\"mirrors\":%s}", m->view.now_ms, moves, list) < 0)
		return NULL;
	return text;
}

static int print_json(const struct seen *s)
{
	CLEANUP_FREE char *text = encode(s);
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
	if (m->row[i].move)
		columns_format(c, ", of move %s", m->row[i].move);
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

struct lines {
	struct columns *line; /* owned */
	unsigned count, most;
	struct bar_style style;
};

static struct columns *add_line(struct lines *l, unsigned indent, enum columns_colour colour)
{
	struct columns *c = &l->line[l->count];

	l->count += l->count < l->most - 1; /* the last one takes what is too much */
	columns_begin(c, l->style.columns, l->style.has_colours);
	columns_to(c, indent);
	columns_colour(c, colour);
	return c;
}

/* A line may end here; not in the middle of `sxm migrate --go ID`, which is to be typed, or copied with a mouse. */
static bool can_break(const char *text, size_t at)
{
	size_t from = at;

	if (text[at] != ' ')
		return false;
	while (from && text[from - 1] != ' ' && text[from - 1] != '`')
		from--;
	text += from;
	return strncmp(text, "--", 2) != 0 && strncmp(text, "sxm ", 4) != 0 && strncmp(text, "migrate ", 8) != 0;
}

/* Broken between words. */
static void add_text(struct lines *l, unsigned indent, enum columns_colour colour, const char *text)
{
	while (*text) {
		size_t room = l->style.columns > indent + 10 ? l->style.columns - indent : 10, bytes = strlen(text), cut = bytes;
		struct columns *c = add_line(l, indent, colour);
		char part[MOVES_TEXT_MAX];

		if (bytes > room)
			for (cut = room; cut > 1 && !can_break(text, cut); cut--)
				;
		cut = cut > 1 ? cut : MIN(room, bytes);
		snprintf(part, sizeof(part), "%.*s", (int)cut, text);
		columns_add(c, part, COLUMNS_MAX);
		columns_colour(c, COLUMNS_PLAIN);
		text += cut;
		text += strspn(text, " ");
	}
}

static bool has_row(const struct mirrors *m, const char *id)
{
	for (unsigned i = 0; i < m->view.disks; i++)
		if (strcmp(m->row[i].id, id) == 0)
			return true;
	return false;
}

/* What no bar tells. */
static void add_disks(struct lines *l, const struct moves_row *move, const struct mirrors *mirrors)
{
	const struct journey_disk *d = move->r.disks.item;
	enum journey_step step = journey_step_of(&move->r);
	bool has_moved = step >= JOURNEY_MOVED && step <= JOURNEY_DONE;

	for (size_t i = 0; i < move->r.disks.count; i++) {
		bool is_there = has_moved && !d[i].stays;
		struct columns *c;

		if (!is_there && has_row(mirrors, d[i].id))
			continue;
		c = add_line(l, 2, COLUMNS_DIM);
		columns_add(c, d[i].name, 64);
		columns_put(c, is_there ? ": there it is " : has_moved ? ": it stays here" : ": no mirror of it is known here");
		columns_add(c, is_there ? d[i].far_uri : "", COLUMNS_MAX);
		columns_colour(c, COLUMNS_PLAIN);
	}
}

static void add_move(struct lines *l, const struct moves_row *move, const struct mirrors *mirrors, bool is_alone)
{
	struct columns *c = add_line(l, 0, COLUMNS_BOLD);

	columns_format(c, "move %s", move->r.id);
	columns_colour(c, COLUMNS_PLAIN);
	columns_format(c, ": %zu disk%s to ", move->r.disks.count, move->r.disks.count == 1 ? "" : "s");
	columns_add(c, move->r.host, 64);
	columns_format(c, ", %s", move->state);
	if (!move->is_over && !move->is_driven && *move->r.why) {
		char why[MOVES_TEXT_MAX];

		snprintf(why, sizeof(why), "it stopped: %s", move->r.why);
		add_text(l, 2, COLUMNS_YELLOW, why);
	}
	add_text(l, 2, move->is_over ? COLUMNS_PLAIN : COLUMNS_YELLOW, move->next);
	if (is_alone)
		add_disks(l, move, mirrors);
}

/* l->line NULL: memory is out. */
static void describe(const struct seen *seen, const struct screen *s, bool is_move, struct lines *l)
{
	const struct mirrors *m = &seen->mirrors;

	*l = (struct lines){ .style = style_of(m, s) };
	l->most = m->view.disks * LINES_PER_ROW + 2;
	l->most += (unsigned)seen->moves.count * (LINES_PER_MOVE + (is_move ? JOURNEY_DISKS_MAX : 0));
	l->line = calloc(l->most, sizeof(*l->line));
	if (!l->line)
		return;
	for (size_t i = 0; i < seen->moves.count; i++)
		add_move(l, &seen->moves.row[i], m, is_move);
	for (unsigned i = 0; i < m->view.disks; i++) {
		bar_disk(&l->line[l->count++], &m->view.disk[i], &l->style);
		if (bar_reason(&l->line[l->count], &m->view.disk[i], &l->style))
			l->count++;
		put_place(&l->line[l->count++], m, i, &l->style);
	}
	if (!l->count)
		columns_put(add_line(l, 0, COLUMNS_PLAIN), "no mirror runs here, and none is on record");
}

static void print_all(const struct seen *seen, bool is_move)
{
	struct screen screen;
	bool is_terminal = screen_open(&screen, STDOUT_FILENO);
	struct lines l;

	describe(seen, is_terminal ? &screen : NULL, is_move, &l);
	for (unsigned i = 0; i < l.count; i++)
		puts(l.line[i].text);
	free(l.line);
}

static void draw_all(const struct seen *seen, bool is_move, struct screen *s)
{
	CLEANUP_FREE const char **text = NULL;
	struct lines l;

	screen_measure(s);
	describe(seen, s, is_move, &l);
	text = calloc(l.most, sizeof(*text));
	for (unsigned i = 0; text && i < l.count; i++)
		text[i] = l.line[i].text;
	if (l.line && text)
		screen_draw(s, text, l.count);
	free(l.line);
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
static void wait_for_next(const struct wish *w, const struct seen *seen, struct screen *s, int64_t until_ms)
{
	while (!is_over) {
		int64_t left = until_ms - unix_ms();

		if (left <= 0 || left > LOOK_MS)
			return;
		if (poll(NULL, 0, (int)left) == 0)
			return;
		if (s && screen_was_resized())
			draw_all(seen, w->is_move, s);
	}
}

static int watch(const struct wish *w, struct seen *seen)
{
	struct screen screen, *s = !w->is_json && screen_open(&screen, STDOUT_FILENO) ? &screen : NULL;
	struct error e;
	struct progress *p = s || w->is_json ? NULL : progress_new(STDOUT_FILENO, PROGRESS_LINES, &e);

	catch_end();
	while (!is_over) {
		int64_t now = unix_ms();

		look(w, seen, now);
		if (w->is_json && print_json(seen) == -1)
			break;
		if (s)
			draw_all(seen, w->is_move, s);
		if (p)
			progress_show(p, &seen->mirrors.view);
		if (ferror(stdout))
			break;
		wait_for_next(w, seen, s, now + LOOK_MS);
	}
	progress_free(p);
	return judge(w, seen);
}

/* --- the command */

static int show(const struct wish *w)
{
	struct seen seen = { .mirrors = { .row = NULL } };
	int status;

	if (w->is_watch) {
		status = watch(w, &seen);
	} else {
		look(w, &seen, unix_ms());
		status = judge(w, &seen);
		if (w->is_json && print_json(&seen) == -1)
			status = FAILED;
		else if (!w->is_json && status != NONE)
			print_all(&seen, w->is_move);
	}
	if (status == NONE) {
		fprintf(stderr, "sxm status: nothing is known here of ");
		say_text(stderr, w->wanted);
		fprintf(stderr, "; sxm status without a name shows what there is\n");
	}
	mirrors_clear(&seen.mirrors);
	moves_clear(&seen.moves);
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
		w.is_move = moves_is_id(w.wanted);
	}
	return show(&w);
}

const struct cmd cmd_status = {
	.name = "status",
	.summary = "show every move, mirror and copy of this host, once or until Ctrl-C",
	.usage = "sxm status [--watch] [--json] [ID]\n"
		 "  --watch  look again each second, until Ctrl-C\n"
		 "  --json   one JSON object, a line; with --watch one each second\n"
		 "  ID       only this one: a move's id, a disk's, a mirror's, or the path of an image\n"
		 "exit status: 0 all of them have everything, or there is none, 1 one has failed, its process is silent, or\n"
		 "             nobody drives a move, 2 usage, 3 nothing is known of that ID, 4 one is under way",
	.run = run,
	.usage_status = USAGE,
};
