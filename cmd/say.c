/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * say - see say.h
 *
 * Which bytes are harmless base/printable knows: it marks the others in a copy.
 */
#include "cmd/say.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/printable.h"

#define MARK '\1' /* harmless text has none */

void say_text(FILE *to, const char *text)
{
	CLEANUP_FREE char *marked = strdup(text);

	if (!marked)
		return;
	printable_make(marked, MARK);
	for (size_t i = 0; text[i]; i++) {
		if (marked[i] == MARK)
			fprintf(to, "\\x%02x", (unsigned char)text[i]);
		else if (text[i] == '\\')
			fputs("\\\\", to);
		else
			putc(text[i], to);
	}
}

int say_json(const char *text)
{
	if (!text) {
		fprintf(stderr, "sxm: out of memory\n");
		return -1;
	}
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (*p == 0x7f)
			fputs("\\u007f", stdout);
		else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
			printf("\\u%04x", *++p);
		else
			putchar(*p);
	}
	putchar('\n');
	return 0;
}
