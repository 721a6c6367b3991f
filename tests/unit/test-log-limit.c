/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Log lines are one line each whatever is in them, and what a guest can cause is said a few times and then counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static int saved_stderr, from_stderr;
static char said[4096];

/* Standard error goes into a pipe between start_listening() and heard(); nothing that fails the test may stand between them. */
static void start_listening(void)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	saved_stderr = dup(STDERR_FILENO);
	from_stderr = ends[0];
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
}

static const char *heard(void)
{
	ssize_t bytes = read(from_stderr, said, sizeof(said) - 1);

	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(from_stderr);
	said[MAX(bytes, (ssize_t)0)] = '\0';
	return said;
}

static void a_line_says_who_and_about_what(void **state)
{
	char wanted[128];

	(void)state;
	snprintf(wanted, sizeof(wanted), "<3>test: [%d] [vdi-1] broken: 7\n<6>test: [%d] fine\n", (int)getpid(), (int)getpid());
	start_listening();
	log_vdi("vdi-1");
	log_error("broken: %d", 7);
	log_vdi(NULL);
	log_info("fine");
	log_debug("not asked for");
	assert_string_equal(heard(), wanted);
}

static void text_from_outside_cannot_make_a_line_of_its_own(void **state)
{
	const char *line;

	(void)state;
	start_listening();
	log_warn("dbg %s", "task\n<0>sxm: [1] forged\x1b[2J\x7f \xc3\xa9");
	line = heard();
	assert_non_null(strstr(line, "dbg task?<0>sxm: [1] forged?[2J? \xc3\xa9\n"));
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void a_line_too_long_is_cut_and_still_ends(void **state)
{
	char lengthy[3000];
	const char *line;

	(void)state;
	memset(lengthy, 'x', sizeof(lengthy) - 1);
	lengthy[sizeof(lengthy) - 1] = '\0';
	start_listening();
	log_error("%s", lengthy);
	line = heard();
	assert_true(strlen(line) < 1200);
	assert_int_equal(line[strlen(line) - 1], '\n');
}

static void a_burst_is_let_through_and_the_rest_is_counted(void **state)
{
	struct log_limit limit = LOG_LIMIT(3);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_true(log_allowed(&limit));
	for (int i = 0; i < 1000; i++)
		assert_false(log_allowed(&limit));
	assert_int_equal(limit.dropped, 1000);
}

static void when_the_time_is_over_the_count_is_said_once(void **state)
{
	struct log_limit limit = LOG_LIMIT(1);
	bool is_first, is_second, is_third;
	const char *text, *more;

	(void)state;
	assert_true(log_allowed(&limit));
	assert_false(log_allowed(&limit));
	assert_false(log_allowed(&limit));
	limit.window_start_ns -= 11 * NS_PER_S; /* as if it had begun then */
	start_listening();
	is_first = log_allowed(&limit);
	is_second = log_allowed(&limit);
	limit.window_start_ns -= 9 * NS_PER_S;
	is_third = log_allowed(&limit);
	text = heard();
	assert_true(is_first);
	assert_false(is_second);
	assert_false(is_third);
	more = strstr(text, "2 more lines");
	assert_non_null(more);
	assert_null(strstr(more + strlen("2 more lines"), "more lines"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_says_who_and_about_what),
		cmocka_unit_test(text_from_outside_cannot_make_a_line_of_its_own),
		cmocka_unit_test(a_line_too_long_is_cut_and_still_ends),
		cmocka_unit_test(a_burst_is_let_through_and_the_rest_is_counted),
		cmocka_unit_test(when_the_time_is_over_the_count_is_said_once),
	};

	setenv("SXM_LOG", "stderr", 1);
	unsetenv("SXM_DEBUG");
	log_init("test");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
