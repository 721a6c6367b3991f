/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * question - see question.h
 */
#include "migrate/question.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"

static bool add(FILE *to, const char *key, const char *value, const char **comma)
{
	CLEANUP_FREE char *quoted = jsonspec_string(value);

	if (!quoted || fprintf(to, "%s\"%s\":%s", *comma, key, quoted) < 0)
		return false;
	*comma = ",";
	return true;
}

char *question_new(const char *raw, ...)
{
	const char *key, *value, *comma = "";
	char *text = NULL;
	size_t bytes;
	FILE *to = open_memstream(&text, &bytes);
	bool is_good = to && fputc('{', to) != EOF;
	va_list list;

	va_start(list, raw);
	while (is_good && (key = va_arg(list, const char *))) {
		value = va_arg(list, const char *);
		is_good = !value || add(to, key, value, &comma);
	}
	va_end(list);
	if (is_good && raw)
		is_good = fprintf(to, "%s%s", comma, raw) >= 0;
	if (is_good)
		is_good = fputc('}', to) != EOF;
	if (to && fclose(to) != 0)
		is_good = false;
	if (is_good)
		return text;
	free(text);
	return NULL;
}
