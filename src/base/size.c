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

/* Exact, where a double would round from 2^53 on. */
static bool parse_whole(const char *text, uint64_t *bytes)
{
	char *end;
	unsigned long long number;
	int power;

	errno = 0;
	number = strtoull(text, &end, 10);
	power = power_of(end);
	if (errno || power < 0 || number > (uint64_t)INT64_MAX >> 10 * power)
		return false;
	*bytes = number << 10 * power;
	return true;
}

static bool parse_fraction(const char *text, uint64_t *bytes)
{
	char *end;
	double number;
	int power;

	errno = 0;
	number = strtod(text, &end);
	power = power_of(end);
	/* strtod would take exponents too. */
	if (errno || power < 0 || end != text + strspn(text, "0123456789."))
		return false;
	number *= (double)(UINT64_C(1) << 10 * power);
	if (number >= (double)INT64_MAX)
		return false;
	*bytes = (uint64_t)number;
	return true;
}

bool size_parse(const char *text, uint64_t *bytes)
{
	size_t digits = strspn(text, "0123456789");

	if (!digits)
		return false;
	return text[digits] == '.' ? parse_fraction(text, bytes) : parse_whole(text, bytes);
}

char *size_format(uint64_t bytes, char out[static SIZE_TEXT_MAX])
{
	double number = (double)bytes;
	size_t power = 0;

	/* From 1023.95 on one digit after the point would say 1024.0. */
	while (number >= (power ? 1023.95 : 1024) && power + 1 < sizeof(units) - 1) {
		number /= 1024;
		power++;
	}
	if (power == 0)
		snprintf(out, SIZE_TEXT_MAX, "%u B", (unsigned)bytes);
	else
		snprintf(out, SIZE_TEXT_MAX, "%.1f %ciB", number, units[power]);
	return out;
}
