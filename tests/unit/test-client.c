/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The control socket's client: each way a question can end is told apart, and none takes for ever when a bound was given.
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
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "control/client.h"

static char path[64];
static pid_t server;

/* One connection: reads a line, checks it, sends the answer in two pieces, hangs up or (hold) waits to be killed. */
static void serve(int fd, const char *answer, bool hold)
{
	int conn = accept(fd, NULL, NULL);
	char line[256] = "";
	size_t used = 0;

	while (used < sizeof(line) - 1 && !memchr(line, '\n', used)) {
		ssize_t n = read(conn, line + used, sizeof(line) - 1 - used);

		if (n <= 0)
			_exit(1);
		used += (size_t)n;
	}
	if (answer) {
		(void)!write(conn, answer, strlen(answer) / 2);
		(void)!write(conn, answer + strlen(answer) / 2, strlen(answer) - strlen(answer) / 2);
	}
	if (hold)
		pause();
	_exit(strcmp(line, "{\"id\":1,\"verb\":\"ask\",\"args\":{\"a\":1}}\n") == 0 ? 0 : 1);
}

static int listen_there(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(path, sizeof(path), "/tmp/sxm-client.%d", getpid());
	strcpy(addr.sun_path, path);
	unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static enum client_outcome ask(const char *answer, bool hold, unsigned wait_ms, char **ok, struct error *e)
{
	int fd = listen_there(), status;
	enum client_outcome outcome;

	*ok = NULL;
	server = fork();
	if (!server)
		serve(fd, answer, hold);
	close(fd);
	outcome = client_ask(path, "ask", "{\"a\":1}", wait_ms, ok, e);
	if (hold)
		kill(server, SIGKILL);
	assert_int_equal(waitpid(server, &status, 0), server);
	if (!hold)
		assert_int_equal(status, 0);
	unlink(path);
	return outcome;
}

static void an_answer_is_the_text_of_its_ok(void **state UNUSED)
{
	struct error e;
	char *ok;

	assert_int_equal(ask("{\"id\":1,\"ok\":{\"x\":[1,2]}}\n", false, 0, &ok, &e), CLIENT_ANSWERED);
	assert_string_equal(ok, "{\"x\":[1,2]}");
	free(ok);
}

static void the_process_own_error_keeps_its_code_and_sentence(void **state UNUSED)
{
	struct error e;
	char *ok;

	assert_int_equal(ask("{\"id\":1,\"error\":{\"code\":\"ECONNREFUSED\",\"text\":\"the far side\"}}\n", false, 0, &ok, &e), CLIENT_REFUSED);
	assert_int_equal(e.err, ECONNREFUSED);
	assert_string_equal(e.text, "the far side");
}

static void hanging_up_without_an_answer_is_lost(void **state UNUSED)
{
	struct error e;
	char *ok;

	assert_int_equal(ask(NULL, false, 0, &ok, &e), CLIENT_LOST);
	assert_int_equal(e.err, ECONNRESET);
	assert_int_equal(ask("{\"id\":1,\"ok\"", false, 0, &ok, &e), CLIENT_LOST);
}

static void silence_is_late_when_a_bound_was_given(void **state UNUSED)
{
	struct error e;
	char *ok;

	assert_int_equal(ask(NULL, true, 50, &ok, &e), CLIENT_LATE);
	assert_int_equal(e.err, ETIMEDOUT);
	assert_int_equal(ask("{\"id\"", true, 50, &ok, &e), CLIENT_LATE);
}

static void nonsense_is_broken(void **state UNUSED)
{
	struct error e;
	char *ok;

	assert_int_equal(ask("hello\n", false, 0, &ok, &e), CLIENT_BROKEN);
	assert_int_equal(ask("{\"id\":1}\n", false, 0, &ok, &e), CLIENT_BROKEN);
}

static void nobody_there_is_absent_with_or_without_a_socket_file(void **state UNUSED)
{
	struct error e;
	char *ok;

	close(listen_there());
	assert_int_equal(client_ask(path, "ask", NULL, 0, &ok, &e), CLIENT_ABSENT);
	unlink(path);
	assert_int_equal(client_ask(path, "ask", NULL, 0, &ok, &e), CLIENT_ABSENT);
	assert_int_equal(client_ask("/nowhere/at/all", "ask", NULL, 0, &ok, &e), CLIENT_ABSENT);
	assert_null(client_call(path, "ask", NULL, 0, &e));
	assert_int_equal(e.err, ECONNREFUSED);
}

static void a_path_too_long_for_a_socket_is_said(void **state UNUSED)
{
	char far[200];
	struct error e;
	char *ok;

	memset(far, 'x', sizeof(far) - 1);
	far[0] = '/';
	far[sizeof(far) - 1] = '\0';
	assert_int_equal(client_ask(far, "ask", NULL, 0, &ok, &e), CLIENT_BROKEN);
	assert_int_equal(e.err, ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_is_the_text_of_its_ok),
		cmocka_unit_test(the_process_own_error_keeps_its_code_and_sentence),
		cmocka_unit_test(hanging_up_without_an_answer_is_lost),
		cmocka_unit_test(silence_is_late_when_a_bound_was_given),
		cmocka_unit_test(nonsense_is_broken),
		cmocka_unit_test(nobody_there_is_absent_with_or_without_a_socket_file),
		cmocka_unit_test(a_path_too_long_for_a_socket_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
