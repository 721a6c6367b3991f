/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * An error's sentence: whole, on one line, within its room, and grown at the front on its way up.
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

#include "base/error.h"

static void a_code_and_a_sentence(void **state)
{
	struct error e = { 0 };

	(void)state;
	assert_int_equal(error_set(&e, EBUSY, "disk %d is busy", 7), -1);
	assert_int_equal(e.err, EBUSY);
	assert_string_equal(e.text, "disk 7 is busy");
	assert_int_equal(error_set(&e, 0, "no code"), -1);
	assert_int_equal(e.err, EIO);
	error_clear(&e);
	assert_int_equal(e.err, 0);
	assert_string_equal(e.text, "");
}

static void the_systems_own_words_come_last(void **state)
{
	struct error e = { 0 };

	(void)state;
	assert_int_equal(error_errno(&e, ENOENT, "/srv/%s", "x"), -1);
	assert_int_equal(e.err, ENOENT);
	assert_string_equal(e.text, "/srv/x: No such file or directory");
}

static void a_prefix_goes_before_and_keeps_the_code(void **state)
{
	struct error e = { 0 };

	(void)state;
	error_set(&e, ENOSPC, "disk full");
	assert_int_equal(error_prefix(&e, "VDI %s", "a%sb"), -1);
	assert_int_equal(error_prefix(&e, "attach"), -1);
	assert_int_equal(e.err, ENOSPC);
	assert_string_equal(e.text, "attach: VDI a%sb: disk full");
}

static void a_sentence_is_one_line(void **state)
{
	struct error e = { 0 };

	(void)state;
	error_set(&e, EINVAL, "a\nb\tc\x1b[0m\x7f \xc3\xa9");
	error_prefix(&e, "x\r");
	assert_string_equal(e.text, "x : a b c [0m  \xc3\xa9");
}

static void what_does_not_fit_is_cut(void **state)
{
	char lengthy[2000];
	struct error e = { 0 };

	(void)state;
	memset(lengthy, 'x', sizeof(lengthy) - 1);
	lengthy[sizeof(lengthy) - 1] = '\0';
	error_set(&e, EINVAL, "%s", lengthy);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
	error_prefix(&e, "who");
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
	assert_memory_equal(e.text, "who: xxx", 8);
	error_errno(&e, EINVAL, "%s", lengthy);
	error_prefix(&e, "%s", lengthy);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
}

static void nobody_needs_to_listen(void **state)
{
	(void)state;
	assert_int_equal(error_set(NULL, EINVAL, "x"), -1);
	assert_int_equal(error_errno(NULL, EINVAL, "x"), -1);
	assert_int_equal(error_prefix(NULL, "x"), -1);
	error_clear(NULL);
}

static void names_and_numbers_are_each_others_reverse(void **state)
{
	static const int numbers[] = {
		EPERM, ENOENT, EIO, EBUSY, EINVAL, ENOSPC, EROFS, EPIPE, ETIMEDOUT, ECONNREFUSED, ENOLINK, ECANCELED,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		assert_int_equal(error_number(error_name(numbers[i])), numbers[i]);
	assert_string_equal(error_name(ENOSPC), "ENOSPC");
	assert_string_equal(error_name(99999), "EIO");
	assert_int_equal(error_number("EWHATEVER"), EIO);
	assert_int_equal(error_number(""), EIO);
}

/* Nothing but EIO is said for a number without a name: a promise in a PROTOCOL would be broken in silence. */
static void what_a_protocol_promises_has_a_name(void **state UNUSED)
{
	static const char *const files[] = { "src/PROTOCOL.control", "migrate/PROTOCOL.relay" };
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
	static char text[1 << 20], path[4096];

	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		FILE *f;

		snprintf(path, sizeof(path), "%s/%s", getenv("SXM_SRCDIR"), files[i]);
		f = fopen(path, "r");
		assert_non_null(f);
		text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
		fclose(f);
		for (char *word = text; (word += strcspn(word, letters), *word);) {
			size_t bytes = strspn(word, letters);
			char after = word[bytes];

			word[bytes] = '\0';
			if (*word == 'E' && bytes > 3 && strcmp(word, "EPOCH") != 0 && strcmp(word, "ENDED") != 0)
				assert_string_equal(error_name(error_number(word)), word);
			word[bytes] = after;
			word += bytes;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_code_and_a_sentence),
		cmocka_unit_test(the_systems_own_words_come_last),
		cmocka_unit_test(a_prefix_goes_before_and_keeps_the_code),
		cmocka_unit_test(a_sentence_is_one_line),
		cmocka_unit_test(what_does_not_fit_is_cut),
		cmocka_unit_test(nobody_needs_to_listen),
		cmocka_unit_test(names_and_numbers_are_each_others_reverse),
		cmocka_unit_test(what_a_protocol_promises_has_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
