/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * screen - see screen.h
 *
 *      line that stays
 *      line 1 of 3        <---.
 *      line 2 of 3            |  up, as many rows as they take by now; each is written over, the rest of the screen is cleared
 *      line 3 of 3            |
 *      _ cursor           ----'
 *
 * One write for all of it, so that another's output is before or after it. The terminal is left as it is found after each: the
 * cursor is at the start of a line, nothing is hidden, so whoever is killed leaves nothing to put right. While it is drawn lines
 * are not wrapped, whatever the terminal thinks of a character's width. A terminal that was made narrower has wrapped what was
 * there, and it takes more rows.
 */
#include "migrate/screen.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "migrate/columns.h"

#define ROWS_USUAL 24u
#define COLUMNS_USUAL 80u
#define NO_WRAP "\033[?7l"
#define WRAP "\033[?7h"
#define END_LINE "\033[K\n"
#define CLEAR_REST "\033[J"

static volatile sig_atomic_t was_resized;

static void on_resize(int signal_number UNUSED)
{
	was_resized = 1;
}

bool screen_was_resized(void)
{
	bool was = was_resized;

	was_resized = 0;
	return was;
}

static bool is_utf8(void)
{
	static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const char *value = getenv(names[i]);

		if (value && *value)
			return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
	}
	return false;
}

bool screen_measure(struct screen *s)
{
	unsigned rows = s->rows, columns = s->columns;
	struct winsize size;

	s->rows = ROWS_USUAL;
	s->columns = COLUMNS_USUAL;
	if (ioctl(s->fd, TIOCGWINSZ, &size) == 0) {
		s->rows = size.ws_row ? size.ws_row : ROWS_USUAL;
		s->columns = size.ws_col ? MIN((unsigned)size.ws_col, COLUMNS_MAX) : COLUMNS_USUAL;
	}
	return rows != s->rows || columns != s->columns;
}

bool screen_open(struct screen *s, int fd)
{
	const char *terminal = getenv("TERM"), *none = getenv("NO_COLOR");
	struct sigaction action = { .sa_handler = on_resize };

	if (!isatty(fd) || !terminal || strcmp(terminal, "dumb") == 0)
		return false;
	*s = (struct screen){ .fd = fd, .has_colours = !none || !*none, .is_unicode = is_utf8() };
	screen_measure(s);
	sigemptyset(&action.sa_mask);
	sigaction(SIGWINCH, &action, NULL);
	return true;
}

static void write_all(int fd, const char *text, size_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, text, bytes);

		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* whoever looks does not look any more */
		text += n;
		bytes -= (size_t)n;
	}
}

static unsigned rows_taken(const struct screen *s)
{
	unsigned rows = 0;

	for (unsigned i = 0; i < s->lines; i++)
		rows += s->width[i] ? (s->width[i] + s->columns - 1) / s->columns : 1;
	return rows;
}

static void begin(const struct screen *s, FILE *to)
{
	unsigned up = rows_taken(s);

	fputs("\r" NO_WRAP, to);
	if (up)
		fprintf(to, "\033[%uA", up);
}

static void finish(const struct screen *s, FILE *to, char **text, size_t *bytes)
{
	fputs(CLEAR_REST WRAP, to);
	if (fclose(to) == 0)
		write_all(s->fd, *text, *bytes);
	free(*text);
}

void screen_draw(struct screen *s, const char *const *lines, unsigned count)
{
	unsigned most = MIN(s->rows > 1 ? s->rows - 1 : 1, SCREEN_LINES_MAX), shown = MIN(count, most);
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);

	if (!to)
		return;
	begin(s, to);
	s->lines = 0;
	for (unsigned i = 0; i < shown; i++) {
		bool is_cut = i == shown - 1 && shown < count;
		char more[64];

		snprintf(more, sizeof(more), "... and %u lines more", count - shown + 1);
		fprintf(to, "%s" END_LINE, is_cut ? more : lines[i]);
		s->width[s->lines++] = (unsigned short)MIN(columns_of(is_cut ? more : lines[i]), s->columns);
	}
	finish(s, to, &text, &bytes);
}

void screen_say(struct screen *s, const char *line)
{
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);

	if (!to)
		return;
	begin(s, to);
	fprintf(to, WRAP "%s" END_LINE, line);
	s->lines = 0;
	finish(s, to, &text, &bytes);
}
