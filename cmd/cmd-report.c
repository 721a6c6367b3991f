/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-report - sxm report: a move that is over, or under way, as a picture
 *
 *      ID -> SXM_STATE_DIR/journeys/ID.history -> migrate/picture -> SVG, into a file or to standard output
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "cmd/cmd.h"
#include "cmd/say.h"
#include "migrate/history.h"
#include "migrate/picture.h"

enum status { DRAWN = 0, NOT_DRAWN = 1, USAGE = 2 };

static int refuse(const char *text)
{
	fprintf(stderr, "sxm report: ");
	say_text(stderr, text);
	fputc('\n', stderr);
	return NOT_DRAWN;
}

static void add(const struct move_view *v, void *arg)
{
	picture_add(arg, v);
}

/* Heap; NULL + e. */
static char *draw(const char *path, struct error *e)
{
	struct picture *r = picture_new();
	char *svg = NULL;

	if (!r)
		error_set(e, ENOMEM, "out of memory");
	else if (history_read(path, add, r, e) == 0 && !(svg = picture_svg(r)))
		error_set(e, ENOMEM, "out of memory");
	picture_free(r);
	return svg;
}

static int put(const char *svg, const char *to)
{
	struct error e;

	if (to && strcmp(to, "-") != 0) {
		if (proc_replace_file(to, svg, strlen(svg), 0644, &e) == -1)
			return refuse(e.text);
		return DRAWN;
	}
	if (!to && isatty(STDOUT_FILENO))
		return refuse("a picture is no text for a terminal; give it a file, -o FILE, or -o - for standard output");
	if (fputs(svg, stdout) < 0 || fflush(stdout) != 0)
		return refuse("standard output does not take it");
	return DRAWN;
}

static int report(const char *name, const char *to)
{
	bool is_file = strchr(name, '/') || access(name, R_OK) == 0;
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *svg = NULL;
	struct error e;

	if (!is_file && !history_is_id(name))
		return refuse("that is neither a move's id nor a file");
	path = is_file ? strdup(name) : history_path(name);
	if (!path)
		return refuse("out of memory");
	svg = draw(path, &e);
	if (!svg && e.err == ENOENT && !is_file)
		error_set(&e, ENOENT, "there is no history of a move %s on this host: %s is not there", name, path);
	return svg ? put(svg, to) : refuse(e.text);
}

static int run(int argc, char **argv)
{
	static const struct option options[] = { { "output", required_argument, NULL, 'o' }, { NULL, 0, NULL, 0 } };
	const char *to = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "o:", options, NULL)) != -1) {
		if (c != 'o')
			return CMD_USAGE;
		to = optarg;
	}
	return argc - optind != 1 ? CMD_USAGE : report(argv[optind], to);
}

const struct cmd cmd_report = {
	.name = "report",
	.summary = "draw a move: how fast, what was owed, how long the guest's writes took, its phases, the downtime",
	.usage = "sxm report ID|FILE [-o FILE.svg]\n"
		 "  -o, --output FILE  where the SVG goes; -, and without it, to standard output, if that is no terminal\n"
		 "  ID                 of a move of this host\n"
		 "  FILE               a history, as it is in SXM_STATE_DIR/journeys/ID.history\n"
		 "exit status: 0 it is drawn, 1 it could not be, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
