/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * size - see size.h
 */
#include "base/size.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char units[] = "BKMGTPE";

/* "", "B", "K", "KB", "KiB": how many powers of 1024; -1: none of these. */
static int power_of(const char *suffix)
{
	const char *unit;

	if (*suffix == '\0' || strcasecmp(suffix, "B") == 0)
		return 0;
	unit = strchr(units, *suffix >= 'a' && *suffix <= 'z' ? *suffix - 'a' + 'A' : *suffix);
	if (!unit || unit == units)
		return -1;
	suffix++;
	if (*suffix != '\0' && strcasecmp(suffix, "B") != 0 && strcasecmp(suffix, "iB") != 0)
		return -1;
	return (int)(unit - units);
}

bool size_parse(const char *text, uint64_t *bytes)
{
	char *end;
	double number;
	int power;

	/* strtod would take signs, white space, hexadecimals, exponents and infinity. */
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	if (strspn(text, "0123456789") == strlen(text)) { /* exact, without a detour over doubles */
		unsigned long long exact = strtoull(text, &end, 10);

		if (errno || exact > INT64_MAX)
			return false;
		*bytes = exact;
		return true;
	}
	number = strtod(text, &end);
	power = power_of(end);
	if (power < 0 || errno || end != text + strspn(text, "0123456789."))
		return false;
	for (int i = 0; i < power; i++)
		number *= 1024;
	if (number >= (double)INT64_MAX)
		return false;
	*bytes = (uint64_t)number;
	return true;
}

char *size_format(uint64_t bytes, char out[static SIZE_TEXT_MAX])
{
	double number = (double)bytes;
	size_t power = 0;

	while (number >= 1024 && power + 1 < sizeof(units) - 1) {
		number /= 1024;
		power++;
	}
	if (power == 0)
		snprintf(out, SIZE_TEXT_MAX, "%u B", (unsigned)bytes);
	else
		snprintf(out, SIZE_TEXT_MAX, "%.1f %ciB", number, units[power]);
	return out;
}
