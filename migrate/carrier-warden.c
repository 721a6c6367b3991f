/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-warden - see carrier-warden.h
 *
 *      caller --fork--> warden (own session) --fork, exec--> program <=== stream
 *                         ^ reads its standard error <-------'
 *                         '-- waits for it, tells, ends
 *
 * A process of its own, because the caller blocks wherever he likes and reads no pipe meanwhile.
 */
#include "migrate/carrier-warden.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"

static pid_t program = -1; /* the warden's */

static void on_term(int number UNUSED)
{
	if (program > 0)
		kill(program, SIGTERM);
}

static void become_program(char *const argv[], int stream, int report)
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	signal(SIGTERM, SIG_DFL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(stream, STDIN_FILENO) >= 0 && dup2(stream, STDOUT_FILENO) >= 0 && dup2(report, STDERR_FILENO) >= 0)
		execvp(argv[0], argv);
	dprintf(report, "run %s: %s\n", argv[0], strerror(errno));
	_exit(125);
}

static void read_lines(int from, struct carrier_lines *lines)
{
	char buffer[1024];
	ssize_t n;

	while ((n = read(from, buffer, sizeof(buffer))) > 0 || (n == -1 && errno == EINTR))
		carrier_lines_add(lines, buffer, n > 0 ? (size_t)n : 0);
	carrier_lines_end(lines);
}

static void judge(int status, int lost_status, struct carrier_said *said)
{
	if (WIFSIGNALED(status)) {
		*said = (struct carrier_said){ .end = CARRIER_END_LOST };
		return;
	}
	said->status = WEXITSTATUS(status);
	said->end = said->status == 125 ? CARRIER_END_RUN : said->status == lost_status ? CARRIER_END_LOST : CARRIER_END_EXIT;
}

static void run_warden(char *const argv[], int stream, int tell, const char *name, int lost_status)
{
	const struct sigaction term = { .sa_handler = on_term };
	const int keep[] = { stream, tell };
	struct carrier_lines lines = { .name = name };
	struct carrier_said said = { .end = CARRIER_END_RUN };
	sigset_t none;
	int report[2], status = 0;

	setsid();
	sigemptyset(&none);
	sigaction(SIGTERM, &term, NULL);
	signal(SIGHUP, SIG_IGN);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (carrier_close_others(keep, ARRAY_LEN(keep)) == -1 || pipe2(report, O_CLOEXEC) == -1)
		_exit(1);
	program = fork();
	if (program == 0)
		become_program(argv, stream, report[1]);
	close(stream);
	close(report[1]);
	if (program < 0)
		_exit(1);
	read_lines(report[0], &lines);
	while (waitpid(program, &status, 0) == -1 && errno == EINTR)
		;
	judge(status, lost_status, &said);
	memcpy(said.line, lines.last, sizeof(said.line));
	(void)!write(tell, &said, sizeof(said));
	_exit(0);
}

pid_t carrier_warden_start(char *const argv[], int stream, int tell, const char *name, int lost_status, struct error *e)
{
	pid_t pid = fork();

	if (pid == 0)
		run_warden(argv, stream, tell, name, lost_status);
	return pid > 0 ? pid : error_errno(e, errno, "fork");
}
