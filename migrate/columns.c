/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * columns - see columns.h
 *
 * How wide a character is the terminal decides; what is known here is what all of them agree on: East Asian characters and
 * pictures are two columns, marks that are put on others none. Where that is wrong a line is short, or the terminal cuts it
 * (screen.c).
 * Invariant:   the text is whole characters, and ends in plain colours.
 */
#include "migrate/columns.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/printable.h"

#define ESCAPE '\033'
#define PLAIN "\033[0m"
#define PLAIN_BYTES 4u
#define HALF_DAY_MS INT64_C(43200000)

static const char *const colours[] = {
	[COLUMNS_PLAIN] = PLAIN,      [COLUMNS_RED] = "\033[31m",  [COLUMNS_GREEN] = "\033[32m", [COLUMNS_YELLOW] = "\033[33m",
	[COLUMNS_BLUE] = "\033[36m", [COLUMNS_BOLD] = "\033[1m", [COLUMNS_DIM] = "\033[2m",
};

/* Of good UTF-8: its length, and what it is. */
static size_t take_character(const char *text, uint32_t *code)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t length = *p < 0x80 ? 1 : *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : *p >= 0xc0 ? 2 : 1;

	*code = length == 1 ? *p : *p & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 1;
		*code = *code << 6 | (p[i] & 0x3f);
	}
	return length;
}

static unsigned width_of(uint32_t code)
{
	static const struct {
		uint32_t first, last;
		unsigned width;
	} ranges[] = {
		{ 0x300, 0x36f, 0 },     { 0x1100, 0x115f, 2 },   { 0x200b, 0x200f, 0 },   { 0x20d0, 0x20ff, 0 },
		{ 0x2e80, 0xa4cf, 2 },   { 0xac00, 0xd7a3, 2 },   { 0xf900, 0xfaff, 2 },   { 0xfe00, 0xfe0f, 0 },
		{ 0xfe20, 0xfe2f, 0 },   { 0xfe30, 0xfe6f, 2 },   { 0xff00, 0xff60, 2 },   { 0xffe0, 0xffe6, 2 },
		{ 0x1f300, 0x1faff, 2 }, { 0x20000, 0x3fffd, 2 }, { 0xe0100, 0xe01ef, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(ranges); i++)
		if (code >= ranges[i].first && code <= ranges[i].last)
			return ranges[i].width;
	return 1;
}

void columns_begin(struct columns *c, unsigned most, bool has_colours)
{
	c->bytes = 0;
	c->text[0] = '\0';
	c->used = 0;
	c->most = MIN(most, COLUMNS_MAX);
	c->has_colours = has_colours;
}

static void append(struct columns *c, const char *text, size_t bytes)
{
	memcpy(c->text + c->bytes, text, bytes);
	c->bytes += bytes;
	c->text[c->bytes] = '\0';
}

static bool put_character(struct columns *c, const char *text, size_t bytes, unsigned width)
{
	if (c->used + width > c->most || c->bytes + bytes + PLAIN_BYTES >= COLUMNS_BYTES)
		return false;
	append(c, text, bytes);
	c->used += width;
	return true;
}

void columns_put(struct columns *c, const char *text)
{
	uint32_t code;

	for (size_t length; *text; text += length) {
		length = take_character(text, &code);
		if (!put_character(c, text, length, width_of(code)))
			return;
	}
}

void columns_format(struct columns *c, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	columns_put(c, text);
}

void columns_add(struct columns *c, const char *text, unsigned most)
{
	CLEANUP_FREE char *fit = strdup(text);
	unsigned room = MIN(most, c->most - c->used), taken = 0;
	uint32_t code;

	if (!fit)
		return;
	printable_make(fit, '?');
	if (columns_of(fit) <= room) {
		columns_put(c, fit);
		return;
	}
	for (const char *p = fit; *p;) {
		size_t length = take_character(p, &code);

		if (taken + width_of(code) + 1 > room || !put_character(c, p, length, width_of(code)))
			break;
		taken += width_of(code);
		p += length;
	}
	if (room)
		put_character(c, "~", 1, 1);
}

void columns_to(struct columns *c, unsigned column)
{
	while (c->used < column && put_character(c, " ", 1, 1))
		;
}

void columns_colour(struct columns *c, enum columns_colour colour)
{
	size_t bytes = strlen(colours[colour]);
	size_t left = colour == COLUMNS_PLAIN ? 0 : PLAIN_BYTES;

	if (c->has_colours && c->bytes + bytes + left < COLUMNS_BYTES)
		append(c, colours[colour], bytes);
}

unsigned columns_of(const char *text)
{
	unsigned columns = 0;
	uint32_t code;

	while (*text) {
		if (*text == ESCAPE) {
			text += strcspn(text, "m");
			text += *text == 'm';
			continue;
		}
		text += take_character(text, &code);
		columns += width_of(code);
	}
	return columns;
}

char *columns_time(int64_t ms, char out[static COLUMNS_TIME_MAX])
{
	int64_t s = (ms + 500) / 1000;

	if (ms < 0)
		snprintf(out, COLUMNS_TIME_MAX, "--");
	else if (s < 60)
		snprintf(out, COLUMNS_TIME_MAX, "%" PRId64 "s", s);
	else if (s < 3600)
		snprintf(out, COLUMNS_TIME_MAX, "%" PRId64 "m%02" PRId64 "s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out, COLUMNS_TIME_MAX, "%" PRId64 "h%02" PRId64 "m", s / 3600, s / 60 % 60);
	else
		snprintf(out, COLUMNS_TIME_MAX, "%" PRId64 "d%02" PRId64 "h", MIN(s / 86400, INT64_C(9999)), s / 3600 % 24);
	return out;
}

char *columns_clock(int64_t ms, int64_t now_ms, char out[static COLUMNS_TIME_MAX])
{
	bool is_near = ms - now_ms < HALF_DAY_MS && now_ms - ms < HALF_DAY_MS;
	time_t at = (time_t)(ms / 1000);
	struct tm tm;

	if (!localtime_r(&at, &tm) || !strftime(out, COLUMNS_TIME_MAX, is_near ? "%H:%M:%S" : "%m-%d %H:%M", &tm))
		strcpy(out, "--");
	return out;
}
