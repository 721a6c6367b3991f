/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * printable - see printable.h
 *
 * Names of volumes, of domains and of files are chosen by others, and end in sentences that an administrator reads on a
 * terminal.  A C1 control is two bytes of good UTF-8, and to some terminals one byte of bad; so both go.
 */
#include "base/printable.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* How many bytes the character that begins there has. 0: it is no UTF-8. */
static size_t measure(const uint8_t *p, uint32_t *code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = *p < 0x80 ? 1 : *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;

	*code = *p;
	if (length == 1)
		return 1;
	if (*p < 0xc0 || *p > 0xf4)
		return 0;
	*code = *p & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((p[i] & 0xc0) != 0x80) /* also the NUL */
			return 0;
		*code = *code << 6 | (p[i] & 0x3f);
	}
	return *code < least[length] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff) ? 0 : length;
}

static bool is_harmless(uint32_t code)
{
	return code >= 0x20 && !(code >= 0x7f && code < 0xa0) && !(code >= 0x2028 && code <= 0x202e) &&
	       !(code >= 0x2066 && code <= 0x2069);
}

void printable_make(char *text, char substitute)
{
	while (*text) {
		uint32_t code;
		size_t length = measure((const uint8_t *)text, &code);

		if (length == 0 || !is_harmless(code))
			memset(text, substitute, length ? length : 1);
		text += length ? length : 1;
	}
}
