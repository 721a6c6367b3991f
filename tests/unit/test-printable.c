/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * printable: what is shown on a terminal says nothing to it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/printable.h"

#define TEXT_MAX 64

static void check(const char *in, const char *want)
{
	char text[TEXT_MAX];

	snprintf(text, sizeof(text), "%s", in);
	printable_make(text, '?');
	assert_string_equal(text, want);
}

static void good_text_stays_as_it_is(void **state)
{
	(void)state;
	check("", "");
	check("plain ~", "plain ~");
	check("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
	check("\xc2\xa0", "\xc2\xa0"); /* the first that is no C1 control */
}

static void what_controls_a_terminal_goes(void **state)
{
	(void)state;
	check("a\x1b[2Jb\n\r\x7f", "a?[2Jb???");
	check("\xc2\x9b""2J", "??2J");         /* a C1 control */
	check("\x9b""2J", "?2J");              /* the same for a terminal without UTF-8 */
	check("\xe2\x80\xae""abc", "???abc");  /* right to left */
	check("\xe2\x80\xa8""abc", "???abc");  /* a line's end */
}

static void what_is_no_utf8_goes(void **state)
{
	(void)state;
	check("cut off \xe2\x82", "cut off ??");
	check("\xc0\xaf", "??");               /* a longer form of / */
	check("\xed\xa0\x80", "???");          /* half of a pair */
	check("\xff\xfe", "??");
	check("\xf4\x90\x80\x80", "????");     /* past the last one */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_text_stays_as_it_is),
		cmocka_unit_test(what_controls_a_terminal_goes),
		cmocka_unit_test(what_is_no_utf8_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
