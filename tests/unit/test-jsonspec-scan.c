/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Which text is JSON, to the letter; and that walking good text finds its values.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonspec-scan.h"

/* The scanner sees exactly the text, without a NUL after it. */
static int check(const char *text, size_t bytes, struct error *e)
{
	struct jsonspec_value v;
	char *exact = malloc(bytes ? bytes : 1);
	int rc;

	assert_non_null(exact);
	memcpy(exact, text, bytes);
	rc = jsonspec_scan_check(exact, bytes, &v, e);
	free(exact);
	return rc;
}

static void take(const char *text)
{
	struct error e = { 0 };

	if (check(text, strlen(text), &e) == -1)
		fail_msg("%s: %s", text, e.text);
}

static void refuse_bytes(const char *text, size_t bytes, const char *why)
{
	struct error e = { 0 };

	if (check(text, bytes, &e) == 0)
		fail_msg("taken: %s", text);
	assert_int_equal(e.err, EINVAL);
	if (!strstr(e.text, why))
		fail_msg("%s: \"%s\" does not say \"%s\"", text, e.text, why);
}

static void refuse(const char *text, const char *why)
{
	refuse_bytes(text, strlen(text), why);
}

static void text_by_the_letter_is_taken(void **state)
{
	static const char *const good[] = {
		"null", "true", "false", "0", "-0", "10", "-1.5", "1e3", "1E+30", "0.5e-7", "\"\"", "[]", "{}", " [ ] ",
		"\n{\t}\r", "[[],{}]", "{\"\":0}", "{\"a\":1,\"a\":1}", "[1,\"2\",null,true]",
		"\"\\u0001\\ud800\\udc00\\udbff\\udfff\"",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		take(good[i]);
}

static void text_with_a_slip_in_it_is_refused(void **state)
{
	static const char *const bad[] = {
		"{", "}", "{\"t\"}", "{\"t\":}", "{\"t\":1,}", "{,}", "{\"t\":1 \"s\":\"\"}", "{t:1}", "{'t':1}",
		"{\"t\":[1,]}", "{\"t\":[,1]}", "{\"t\":[1 2]}", "{\"t\":[1}", "{\"t\":{\"a\":1]}", "{\"t\":tru}",
		"{\"t\":True}", "{\"t\":NULL}", "{\"t\":nan}", "{\"t\":NaN}", "{\"t\":Infinity}", "{\"t\":-Infinity}",
		"{\"t\":-}", "{\"t\":+5}", "{\"t\":00012}", "{\"t\":-01}", "{\"t\":.5}", "{\"t\":5.}", "{\"t\":1e}",
		"{\"t\":1e+}", "{\"t\":0x10}", "{\"t\":/* */1}", "{\"t\":1}//", "{\"t\":'a'}", "{\"t\":nullx}", "{\"t\" 1}",
		"{\"t\":\"a}", "{\"t\":\"a\\\"}", "{\"t", "{\"t\":\"\\x41\"}", "{\"t\":\"\\u12\"}", "{\"t\":\"\\u12g4\"}",
		"{\"t\":\"\\", "{\"t\":\"\\u00", "{\"s\":\"a\nb\"}", "{\"s\":\"a\tb\"}", "{\"a\nb\":1}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		refuse(bad[i], "not good JSON");
}

static void every_end_too_soon_is_refused(void **state)
{
	static const char text[] = "{\"sub\":{\"name\":\"\\u00e9\xc3\xa9\"},\"r\":[[1,-2]],\"t\":[true,null,1.5e+3],"
				   "\"v\":[\"T\",\"a\"]}";

	(void)state;
	take(text);
	for (size_t bytes = 0; bytes < sizeof(text) - 1; bytes++)
		refuse_bytes(text, bytes, "not good JSON");
}

static void nest(char *text, size_t levels)
{
	sprintf(text, "%.*s%.*s", (int)levels, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", (int)levels,
		"]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]");
}

static void levels_end_at_32(void **state)
{
	char text[128];

	(void)state;
	nest(text, 32);
	take(text);
	nest(text, 33);
	refuse(text, "levels");
}

static void a_string_with_NUL_is_refused(void **state)
{
	(void)state;
	refuse("{\"s\":\"a\\u0000b\"}", "NUL");
	refuse("{\"zz\":\"\\u0000\"}", "NUL");
	refuse("{\"s\\u0000\":1}", "NUL");
	refuse_bytes("{\"s\":\"a\0b\"}", 11, "control character");
}

static void strings_are_valid_UTF8(void **state)
{
	static const char *const bad[] = {
		"\x80", "\xc3", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
		"\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe2\x82",
	};
	char text[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		sprintf(text, "{\"zz\":\"%s\"}", bad[i]);
		refuse(text, "UTF-8");
	}
}

static void half_a_surrogate_pair_is_refused(void **state)
{
	(void)state;
	refuse("{\"s\":\"\\ud83d\"}", "surrogate");
	refuse("{\"s\":\"\\ud83dx\"}", "surrogate");
	refuse("{\"s\":\"\\ud83d\\n\"}", "surrogate");
	refuse("{\"s\":\"\\ud83d\\u0041\"}", "surrogate");
	refuse("{\"s\":\"\\ud83d\\ud83d\"}", "surrogate");
	refuse("{\"s\":\"\\ude00\"}", "surrogate");
}

static void a_walk_finds_every_value(void **state)
{
	static const char text[] = " { \"a\" : 1 ,\"b\":[ \"}\\\"]\" , {} ],\n\"c\":\"\\\\\",\"d\":null } ";
	static const struct {
		const char *name, *item;
		enum jsonspec_kind kind;
	} wanted[] = {
		{ "a", "1", JS_KIND_NUMBER }, { "b", "[\"}\\\"]\",{}]", JS_KIND_ARRAY },
		{ "c", "\"\\\\\"", JS_KIND_STRING }, { "d", "null", JS_KIND_NULL },
	};
	struct jsonspec_value v, name, item;
	struct jsonspec_walk walk;

	(void)state;
	assert_int_equal(jsonspec_scan_check(text, sizeof(text) - 1, &v, NULL), 0);
	walk = jsonspec_scan_walk(v);
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		char *name_text, *item_text;

		assert_true(jsonspec_scan_next(&walk, &name, &item));
		name_text = jsonspec_scan_string(name);
		item_text = jsonspec_scan_text(item);
		assert_string_equal(name_text, wanted[i].name);
		assert_string_equal(item_text, wanted[i].item);
		assert_int_equal(jsonspec_scan_kind(item), wanted[i].kind);
		free(name_text);
		free(item_text);
	}
	assert_false(jsonspec_scan_next(&walk, &name, &item));
	assert_false(jsonspec_scan_next(&walk, &name, &item));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_by_the_letter_is_taken),
		cmocka_unit_test(text_with_a_slip_in_it_is_refused),
		cmocka_unit_test(every_end_too_soon_is_refused),
		cmocka_unit_test(levels_end_at_32),
		cmocka_unit_test(a_string_with_NUL_is_refused),
		cmocka_unit_test(strings_are_valid_UTF8),
		cmocka_unit_test(half_a_surrogate_pair_is_refused),
		cmocka_unit_test(a_walk_finds_every_value),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
