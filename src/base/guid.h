/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * guid - what a uuid's text is, as xapi and xl write them: 8-4-4-4-12 digits of hexadecimal, in lower case
 */
#ifndef SXM_BASE_GUID_H
#define SXM_BASE_GUID_H

#include "base/compiler.h"

#define GUID_MAX 37 /* bytes with the NUL */

/* That, and nothing besides: it may be part of a path. */
static inline bool guid_is(const char *text)
{
	unsigned at = 0;

	for (; text[at]; at++) {
		char c = text[at];
		bool is_dash = at == 8 || at == 13 || at == 18 || at == 23;
		bool is_digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');

		if (at >= GUID_MAX - 1 || (is_dash ? c != '-' : !is_digit))
			return false;
	}
	return at == GUID_MAX - 1;
}

#endif
