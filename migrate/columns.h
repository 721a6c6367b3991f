/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * columns - a line for a terminal, put together piece by piece, that is never wider than it may be
 *
 * Texts that others chose are made fit: no control character of theirs gets into a line. Colours take no columns.
 */
#ifndef SXM_MIGRATE_COLUMNS_H
#define SXM_MIGRATE_COLUMNS_H

#include "base/compiler.h"

#define COLUMNS_MAX 500u
#define COLUMNS_BYTES 3072u /* of a line: colours, and four bytes each */

enum columns_colour { COLUMNS_PLAIN, COLUMNS_RED, COLUMNS_GREEN, COLUMNS_YELLOW, COLUMNS_BLUE, COLUMNS_BOLD, COLUMNS_DIM };

struct columns {
	char text[COLUMNS_BYTES];
	size_t bytes;
	unsigned used, most;
	bool has_colours;
};

/* most: at most COLUMNS_MAX, more is that. */
void columns_begin(struct columns *c, unsigned most, bool has_colours);
/* As much of it as there is room for. Ours, or made fit by columns_add(). */
void columns_put(struct columns *c, const char *text);
void columns_format(struct columns *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* What others chose, in so many columns at most; where it is cut the last one is '~'. */
void columns_add(struct columns *c, const char *text, unsigned most);
/* Spaces, up to that column. */
void columns_to(struct columns *c, unsigned column);
void columns_colour(struct columns *c, enum columns_colour colour); /* COLUMNS_PLAIN ends it */

/* Columns that a text takes; colours none. */
unsigned columns_of(const char *text);

/* "1.2 s" never: "3s", "1m12s", "2h03m", "4d05h"; "--" where it is negative. */
#define COLUMNS_TIME_MAX 24
char *columns_time(int64_t ms, char out[static COLUMNS_TIME_MAX]);

/* A moment of Unix time in ms: "23:30:05"; "11-27 23:30" where it is not within half a day of now. */
char *columns_clock(int64_t ms, int64_t now_ms, char out[static COLUMNS_TIME_MAX]);

#endif
