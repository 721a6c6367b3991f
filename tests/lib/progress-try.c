/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * progress-try - shows a move whose moments come on standard input, for tests on a terminal of their own
 *
 *      a line of view-json   it is shown          say TEXT   a line that stays
 *      An answer to each on descriptor 3: "done". A signal that redraws is answered with "drawn".
 *
 * progress-try [--lines|--json]
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/progress.h"
#include "migrate/view-json.h"

#define LINE_MAX_BYTES 65536
#define LOOK_MS 20

static void answer(const char *text)
{
	if (write(3, text, strlen(text)) < 0)
		exit(3);
}

/* One line, without stdio's buffer, so that poll tells what is left. False: the end. */
static bool take_line(struct progress *p, const struct move_view *v, char *line)
{
	size_t bytes = 0;

	while (bytes < LINE_MAX_BYTES - 1) {
		struct pollfd fd = { .fd = 0, .events = POLLIN };

		if (poll(&fd, 1, LOOK_MS) <= 0) { /* the signal may come just before */
			if (progress_is_stale(p)) {
				progress_show(p, v);
				answer("drawn\n");
			}
			continue;
		}
		if (read(0, line + bytes, 1) != 1)
			return false;
		if (line[bytes] == '\n')
			break;
		bytes++;
	}
	line[bytes] = '\0';
	return true;
}

int main(int argc, char **argv)
{
	static char line[LINE_MAX_BYTES];
	enum progress_kind kind = argc < 2 ? PROGRESS_AUTO : strcmp(argv[1], "--json") == 0 ? PROGRESS_JSON : PROGRESS_LINES;
	struct move_view v = { .disks = 0 };
	char phase[VIEW_PHASE_MAX];
	struct error e;
	struct progress *p = progress_new(1, kind, &e);

	while (p && take_line(p, &v, line)) {
		if (strncmp(line, "say ", 4) == 0) {
			progress_say(p, "%s", line + 4);
		} else {
			view_clear(&v);
			if (view_decode(line, strlen(line), &v, phase, &e) == -1) {
				fprintf(stderr, "%s\n", e.text);
				return 1;
			}
			progress_show(p, &v);
		}
		answer("done\n");
	}
	view_clear(&v);
	progress_free(p);
	return 0;
}
