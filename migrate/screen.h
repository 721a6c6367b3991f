/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * screen - some lines at the end of a terminal that are drawn anew in place
 */
#ifndef SXM_MIGRATE_SCREEN_H
#define SXM_MIGRATE_SCREEN_H

#include "base/compiler.h"

#define SCREEN_LINES_MAX 512u

struct screen {
	int fd; /* borrowed */
	unsigned rows, columns;
	bool has_colours, is_unicode;
	unsigned lines;                     /* that were drawn, and stand above the cursor */
	unsigned short width[SCREEN_LINES_MAX];
};

/* False: it is no terminal, or a dumb one. Colours: unless NO_COLOR is set. From here on SIGWINCH interrupts what waits. */
bool screen_open(struct screen *s, int fd);
/* Looks how large it is now; true: it was of another size when it was looked at last. */
bool screen_measure(struct screen *s);
/* SIGWINCH came since this was asked last. */
bool screen_was_resized(void);
/* Instead of what was drawn: lines of at most s->columns columns. Those that do not fit below one another are left out. */
void screen_draw(struct screen *s, const char *const *lines, unsigned count);
/* A line that stays, above what is drawn next; it takes its place. */
void screen_say(struct screen *s, const char *line);

#endif
