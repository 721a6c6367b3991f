/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * jsonspec-scan - two passes over JSON text, and no tree
 *
 *      check   one strict walk by the grammar; afterwards every quote, bracket and number is known to be in its place
 *      walk    finds the members of one object (items of one array) by counting brackets, and so may trust the text
 *
 *      {"key":"k", "keys": {"a":"b"} }
 *       ^name ^item  ^name ^-------^ item: a slice of the text, walked in its turn when somebody wants it
 *
 * Why not json-c's parser, when json-c does the writing: of two equal members it keeps the last and we owe the first; it
 * clamps large integers, ends a name at \u0000, mends half surrogates, and how strict it is depends on its version; and a
 * tree costs some 80 bytes for a `0,` from outside (a long list of ranges: more than a gigabyte).  Slices cost nothing.
 *
 * Can fail: check() only, on bad text; what copies, on memory.
 * Invariant: nothing here reads at or past the end it was given; recursion ends at JSONSPEC_SCAN_DEPTH_MAX.
 */
#include "base/jsonspec-scan.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/cleanup.h"

struct scan {
	const char *start;
	const char *at;
	const char *end;
	struct error *e; /* borrowed */
};

static int fail(const struct scan *s, const char *why)
{
	return error_set(s->e, EINVAL, "not good JSON: %s at byte %zu", why, (size_t)(s->at - s->start));
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static const char *skip_space(const char *at, const char *end)
{
	while (at < end && is_space(*at))
		at++;
	return at;
}

/* ---- check ---- */

static bool eat(struct scan *s, char c)
{
	if (s->at == s->end || *s->at != c)
		return false;
	s->at++;
	return true;
}

size_t jsonspec_scan_utf8(const char *at, const char *end)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const uint8_t *p = (const uint8_t *)at;
	size_t room = (size_t)(end - at);
	size_t length;
	uint32_t code;

	if (room == 0 || *p < 0x80)
		return room ? 1 : 0;
	length = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2;
	if (*p < 0xc0 || *p > 0xf4 || length > room)
		return 0;
	code = *p & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3f);
	}
	if (code < least[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return length;
}

/* The four digits after \u; -1: fewer than four. */
static int32_t read_hex4(const char *at, const char *end)
{
	int32_t code = 0;

	if (end - at < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = at[i];

		if (is_digit(c))
			code = code << 4 | (c - '0');
		else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
			code = code << 4 | ((c | 0x20) - 'a' + 10);
		else
			return -1;
	}
	return code;
}

static bool is_high_surrogate(int32_t code)
{
	return code >= 0xd800 && code <= 0xdbff;
}

static bool is_low_surrogate(int32_t code)
{
	return code >= 0xdc00 && code <= 0xdfff;
}

/* After the backslash. */
static int check_escape(struct scan *s)
{
	int32_t code;

	if (s->at < s->end && *s->at && strchr("\"\\/bfnrt", *s->at)) {
		s->at++;
		return 0;
	}
	if (!eat(s, 'u'))
		return fail(s, "an unknown escape");
	code = read_hex4(s->at, s->end);
	if (code < 0)
		return fail(s, "\\u without four hexadecimal digits");
	if (code == 0)
		return fail(s, "a string with NUL (\\u0000), which cannot be kept,");
	if (is_low_surrogate(code))
		return fail(s, "half a surrogate pair");
	s->at += 4;
	if (!is_high_surrogate(code))
		return 0;
	if (s->end - s->at < 6 || s->at[0] != '\\' || s->at[1] != 'u' || !is_low_surrogate(read_hex4(s->at + 2, s->end)))
		return fail(s, "half a surrogate pair");
	s->at += 6;
	return 0;
}

/* After the opening quote. */
static int check_string(struct scan *s)
{
	while (s->at < s->end) {
		size_t length;

		if (eat(s, '"'))
			return 0;
		if (eat(s, '\\')) {
			if (check_escape(s) == -1)
				return -1;
			continue;
		}
		if ((uint8_t)*s->at < 0x20)
			return fail(s, "a raw control character in a string");
		length = jsonspec_scan_utf8(s->at, s->end);
		if (!length)
			return fail(s, "invalid UTF-8");
		s->at += length;
	}
	return fail(s, "a string without its end");
}

static bool eat_digits(struct scan *s)
{
	const char *first = s->at;

	while (s->at < s->end && is_digit(*s->at))
		s->at++;
	return s->at > first;
}

static bool eat_number(struct scan *s)
{
	eat(s, '-');
	if (!eat(s, '0') && !eat_digits(s))
		return false;
	if (eat(s, '.') && !eat_digits(s))
		return false;
	if (!eat(s, 'e') && !eat(s, 'E'))
		return true;
	if (!eat(s, '+'))
		eat(s, '-');
	return eat_digits(s);
}

static int check_scalar(struct scan *s)
{
	static const char *const words[] = { "null", "true", "false" };

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		size_t length = strlen(words[i]);

		if ((size_t)(s->end - s->at) >= length && memcmp(s->at, words[i], length) == 0) {
			s->at += length;
			return 0;
		}
	}
	return eat_number(s) ? 0 : fail(s, "no value where one belongs");
}

static int check_value(struct scan *s, int depth);

static int check_name(struct scan *s)
{
	s->at = skip_space(s->at, s->end);
	if (!eat(s, '"'))
		return fail(s, "no member name where one belongs");
	if (check_string(s) == -1)
		return -1;
	s->at = skip_space(s->at, s->end);
	return eat(s, ':') ? 0 : fail(s, "no ':' after a member name");
}

/* After the opening bracket. */
static int check_container(struct scan *s, char closing, int depth)
{
	if (depth > JSONSPEC_SCAN_DEPTH_MAX)
		return fail(s, "more levels than anyone needs");
	s->at = skip_space(s->at, s->end);
	if (eat(s, closing))
		return 0;
	do {
		if (closing == '}' && check_name(s) == -1)
			return -1;
		if (check_value(s, depth) == -1)
			return -1;
	} while (eat(s, ','));
	return eat(s, closing) ? 0 : fail(s, closing == '}' ? "no ',' or '}' in an object" : "no ',' or ']' in an array");
}

static int check_value(struct scan *s, int depth)
{
	int rc;

	s->at = skip_space(s->at, s->end);
	if (eat(s, '{'))
		rc = check_container(s, '}', depth + 1);
	else if (eat(s, '['))
		rc = check_container(s, ']', depth + 1);
	else if (eat(s, '"'))
		rc = check_string(s);
	else
		rc = check_scalar(s);
	s->at = skip_space(s->at, s->end);
	return rc;
}

int jsonspec_scan_check(const char *text, size_t bytes, struct jsonspec_value *value, struct error *e)
{
	struct scan s = { .start = text, .at = text, .end = text + bytes, .e = e };

	if (check_value(&s, 0) == -1)
		return -1;
	if (s.at != s.end)
		return fail(&s, "something after the value");
	while (is_space(s.end[-1]))
		s.end--;
	*value = (struct jsonspec_value){ skip_space(text, s.end), s.end };
	return 0;
}

/* ---- walk: the text is known to be good ---- */

enum jsonspec_kind jsonspec_scan_kind(struct jsonspec_value v)
{
	switch (*v.at) {
	case 'n': return JS_KIND_NULL;
	case 't':
	case 'f': return JS_KIND_BOOL;
	case '"': return JS_KIND_STRING;
	case '[': return JS_KIND_ARRAY;
	case '{': return JS_KIND_OBJECT;
	default: return JS_KIND_NUMBER;
	}
}

const char *jsonspec_scan_kind_name(struct jsonspec_value v)
{
	static const char *const names[] = { "null", "true or false", "a number", "a string", "an array", "an object" };

	return names[jsonspec_scan_kind(v)];
}

/* at: the opening quote. */
static const char *skip_string(const char *at)
{
	for (at++; *at != '"'; at++) {
		if (*at == '\\')
			at++;
	}
	return at + 1;
}

static const char *skip_container(const char *at)
{
	int depth = 0;

	do {
		if (*at == '"') {
			at = skip_string(at);
			continue;
		}
		if (*at == '{' || *at == '[')
			depth++;
		else if (*at == '}' || *at == ']')
			depth--;
		at++;
	} while (depth > 0);
	return at;
}

static const char *skip_value(const char *at, const char *end)
{
	if (*at == '"')
		return skip_string(at);
	if (*at == '{' || *at == '[')
		return skip_container(at);
	while (at < end && *at != ',' && !is_space(*at))
		at++;
	return at;
}

struct jsonspec_walk jsonspec_scan_walk(struct jsonspec_value container)
{
	assert(*container.at == '{' || *container.at == '[');
	return (struct jsonspec_walk){ container.at + 1, container.end - 1, *container.at == '{' };
}

bool jsonspec_scan_next(struct jsonspec_walk *w, struct jsonspec_value *name, struct jsonspec_value *item)
{
	w->at = skip_space(w->at, w->end);
	if (w->at == w->end)
		return false;
	if (w->is_object) {
		*name = (struct jsonspec_value){ w->at, skip_string(w->at) };
		w->at = skip_space(name->end, w->end) + 1; /* the colon */
		w->at = skip_space(w->at, w->end);
	}
	*item = (struct jsonspec_value){ w->at, skip_value(w->at, w->end) };
	w->at = skip_space(item->end, w->end);
	if (w->at < w->end)
		w->at++; /* the comma */
	return true;
}

/* ---- values ---- */

static char *put_utf8(char *to, int32_t code)
{
	if (code < 0x80) {
		*to++ = (char)code;
		return to;
	}
	if (code < 0x800) {
		*to++ = (char)(0xc0 | code >> 6);
	} else {
		if (code < 0x10000) {
			*to++ = (char)(0xe0 | code >> 12);
		} else {
			*to++ = (char)(0xf0 | code >> 18);
			*to++ = (char)(0x80 | (code >> 12 & 0x3f));
		}
		*to++ = (char)(0x80 | (code >> 6 & 0x3f));
	}
	*to++ = (char)(0x80 | (code & 0x3f));
	return to;
}

/* *at: the character after the backslash; moved past the escape. */
static char *put_escaped(char *to, const char **at, const char *end)
{
	static const char letters[] = "bfnrt";
	static const char meanings[] = "\b\f\n\r\t";
	const char *letter = strchr(letters, **at);
	int32_t code;

	if (**at != 'u') {
		*to++ = letter ? meanings[letter - letters] : **at;
		*at += 1;
		return to;
	}
	code = read_hex4(*at + 1, end);
	*at += 5;
	if (is_high_surrogate(code)) {
		code = 0x10000 + ((code - 0xd800) << 10) + (read_hex4(*at + 2, end) - 0xdc00);
		*at += 6;
	}
	return put_utf8(to, code);
}

char *jsonspec_scan_string(struct jsonspec_value v)
{
	const char *at = v.at + 1;
	const char *end = v.end - 1;
	char *text = malloc((size_t)(v.end - v.at)); /* no escape is shorter than what it stands for */
	char *to = text;

	assert(*v.at == '"');
	if (!text)
		return NULL;
	while (at < end) {
		if (*at != '\\') {
			*to++ = *at++;
			continue;
		}
		at++;
		to = put_escaped(to, &at, end);
	}
	*to = '\0';
	return text;
}

char *jsonspec_scan_text(struct jsonspec_value v)
{
	char *text = malloc((size_t)(v.end - v.at) + 1);
	char *to = text;

	if (!text)
		return NULL;
	for (const char *at = v.at; at < v.end;) {
		const char *next = *at == '"' ? skip_string(at) : at + 1;

		if (!is_space(*at))
			to = mempcpy(to, at, (size_t)(next - at));
		at = next;
	}
	*to = '\0';
	return text;
}

/* The number's characters with NUL after them: those of a string for a string. */
static char *copy_digits(struct jsonspec_value v)
{
	return *v.at == '"' ? jsonspec_scan_string(v) : strndup(v.at, (size_t)(v.end - v.at));
}

static int digit_value(char c, int base)
{
	int value = is_digit(c) ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : base;

	return value < base ? value : -1;
}

int jsonspec_scan_int64(struct jsonspec_value v, int64_t *number)
{
	CLEANUP_FREE char *text = NULL;
	enum jsonspec_kind kind = jsonspec_scan_kind(v);
	const char *at;
	bool is_negative;
	int base = 10;
	int64_t sum = 0;

	if (kind != JS_KIND_NUMBER && kind != JS_KIND_STRING)
		return EINVAL;
	at = text = copy_digits(v);
	if (!text)
		return ENOMEM;
	is_negative = *at == '-';
	at += is_negative;
	if (kind == JS_KIND_STRING && at[0] == '0' && (at[1] == 'x' || at[1] == 'X')) {
		base = 16;
		at += 2;
	}
	if (!*at)
		return EINVAL;
	for (; *at; at++) {
		int digit = digit_value(*at, base);

		if (digit < 0)
			return EINVAL;
		/* Downwards for negative ones: there is one more of them. */
		if (__builtin_mul_overflow(sum, base, &sum) || __builtin_add_overflow(sum, is_negative ? -digit : digit, &sum))
			return ERANGE;
	}
	*number = sum;
	return 0;
}

int jsonspec_scan_double(struct jsonspec_value v, double *number)
{
	CLEANUP_FREE char *text = NULL;
	enum jsonspec_kind kind = jsonspec_scan_kind(v);
	struct scan s;
	double result;

	if (kind != JS_KIND_NUMBER && kind != JS_KIND_STRING)
		return EINVAL;
	text = copy_digits(v);
	if (!text)
		return ENOMEM;
	s = (struct scan){ .at = text, .end = text + strlen(text) };
	if (!eat_number(&s) || s.at != s.end)
		return EINVAL;
	result = strtod(text, NULL);
	if (!isfinite(result))
		return ERANGE;
	*number = result;
	return 0;
}
