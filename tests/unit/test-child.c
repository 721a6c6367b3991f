/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Children with a deadline: what they say comes back whole, what hangs is given up, what they started goes with them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "plugins/child.h"

#define LONG_MS 20000u

static void a_program_is_run_with_its_arguments_as_they_are(void **state UNUSED)
{
	const char *const argv[] = { "printf", "%s|", "a b", "$(id)", "-o", NULL };
	CLEANUP_FREE char *output = NULL;
	struct error e;

	assert_int_equal(child_run(argv, LONG_MS, &output, &e), 0);
	assert_string_equal(output, "a b|$(id)|-o|");
}

static void what_a_program_says_last_is_in_the_error(void **state UNUSED)
{
	const char *const talks[] = { "sh", "-c", "echo first; echo 'the\treason' >&2; exit 3", NULL };
	const char *const silent[] = { "false", NULL };
	const char *const absent[] = { "sxm-no-such-program", NULL };
	const char *const killed[] = { "sh", "-c", "kill -9 $$", NULL };
	struct error e;

	assert_int_equal(child_run(talks, LONG_MS, NULL, &e), -1);
	assert_string_equal(e.text, "sh failed: the reason");
	assert_int_equal(child_run(silent, LONG_MS, NULL, &e), -1);
	assert_string_equal(e.text, "false failed with status 1 and says nothing");
	assert_int_equal(child_run(absent, LONG_MS, NULL, &e), -1);
	assert_int_equal(e.err, ENOENT);
	assert_int_equal(child_run(killed, LONG_MS, NULL, &e), -1);
	assert_non_null(strstr(e.text, "signal 9"));
}

static void more_than_is_kept_does_not_stop_it(void **state UNUSED)
{
	const char *const argv[] = { "sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; exit 0", NULL };
	CLEANUP_FREE char *output = NULL;
	struct error e;

	assert_int_equal(child_run(argv, LONG_MS, &output, &e), 0);
	assert_int_equal(strlen(output), 65536);
}

static void what_hangs_is_ended_with_all_it_started(void **state UNUSED)
{
	int fds[2];
	char byte, script[64];
	struct error e;
	const char *const argv[] = { "sh", "-c", script, NULL }, *const talks[] = { "yes", NULL };

	assert_int_equal(child_run(talks, 100, NULL, &e), -1);
	assert_int_equal(e.err, ETIMEDOUT);
	assert_int_equal(pipe(fds), 0);
	snprintf(script, sizeof(script), "sleep 1000 & exec sleep 1000");
	assert_int_equal(child_run(argv, 100, NULL, &e), -1);
	assert_int_equal(e.err, ETIMEDOUT);
	close(fds[1]);
	assert_int_equal(read(fds[0], &byte, 1), 0); /* nobody has the other end any more: it was the sleeps' as well */
	close(fds[0]);
}

static void a_daemon_that_keeps_the_output_is_not_waited_for(void **state UNUSED)
{
	const char *const argv[] = { "sh", "-c", "sleep 3 & echo $!", NULL };
	CLEANUP_FREE char *output = NULL;
	struct error e;

	assert_int_equal(child_run(argv, 2000, &output, &e), 0);
	kill((pid_t)atoi(output), SIGKILL);
}

static int answer(void *arg, int fd, struct error *e UNUSED)
{
	return child_write(fd, arg, strlen(arg));
}

static int refuse(void *arg, int fd, struct error *e)
{
	child_write(fd, "half an answer", 14);
	return error_set(e, EDOM, "%s", (const char *)arg);
}

static int die(void *arg UNUSED, int fd UNUSED, struct error *e UNUSED)
{
	raise(SIGKILL);
	return 0;
}

static int hang(void *arg UNUSED, int fd UNUSED, struct error *e UNUSED)
{
	while (pause() == -1)
		;
	return 0;
}

static void a_function_s_answer_and_error_come_back(void **state UNUSED)
{
	CLEANUP_FREE char *text = NULL;
	char word[] = "an answer", why[] = "why not";
	struct error e;

	assert_int_equal(child_call(answer, word, LONG_MS, 100, &text, &e), 0);
	assert_string_equal(text, word);
	assert_int_equal(child_call(answer, word, LONG_MS, 4, NULL, &e), -1);
	assert_int_equal(child_call(refuse, why, LONG_MS, 100, NULL, &e), -1);
	assert_int_equal(e.err, EDOM);
	assert_string_equal(e.text, why);
	assert_int_equal(child_call(die, NULL, LONG_MS, 100, NULL, &e), -1);
	assert_int_equal(e.err, EIO);
	assert_int_equal(child_call(hang, NULL, 100, 100, NULL, &e), -1);
	assert_int_equal(e.err, ETIMEDOUT);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left, dead or alive */
}

static int complain(void *arg, int fd UNUSED, struct error *e UNUSED)
{
	log_warn("%s", (const char *)arg);
	fprintf(stdout, "not to be seen\n");
	return 0;
}

/* Takes what goes to stderr meanwhile. */
static void call_and_read_log(char text[static 256])
{
	char word[] = "a warning";
	int fds[2], old = dup(2);
	struct error e;
	ssize_t n;

	assert_int_equal(pipe(fds), 0);
	dup2(fds[1], 2);
	close(fds[1]);
	log_init("test-child");
	assert_int_equal(child_call(complain, word, LONG_MS, 100, NULL, &e), 0);
	dup2(old, 2);
	close(old);
	n = read(fds[0], text, 255);
	assert_true(n >= 0);
	text[n] = '\0';
	close(fds[0]);
}

static void what_a_function_logs_goes_where_ours_goes(void **state UNUSED)
{
	char text[256];

	setenv("SXM_LOG", "stderr", 1);
	call_and_read_log(text);
	assert_non_null(strstr(text, "a warning"));
	assert_null(strstr(text, "seen"));
	unsetenv("SXM_LOG");
	call_and_read_log(text);
	assert_string_equal(text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_program_is_run_with_its_arguments_as_they_are),
		cmocka_unit_test(what_a_program_says_last_is_in_the_error),
		cmocka_unit_test(more_than_is_kept_does_not_stop_it),
		cmocka_unit_test(what_hangs_is_ended_with_all_it_started),
		cmocka_unit_test(a_daemon_that_keeps_the_output_is_not_waited_for),
		cmocka_unit_test(a_function_s_answer_and_error_come_back),
		cmocka_unit_test(what_a_function_logs_goes_where_ours_goes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
