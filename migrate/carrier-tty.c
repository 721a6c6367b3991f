/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-tty - see carrier-tty.h
 *
 *      /dev/tty -> echo off -> text -> one line, byte by byte -> echo as it was -> a signal that came meanwhile, again
 *
 * Byte by byte: what is typed ahead is the next reader's, and no buffer of the C library's keeps a password.
 */
#include "migrate/carrier-tty.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <termios.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/printable.h"

#define TEXT_MAX 2048u

static const int watched[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP };
static volatile sig_atomic_t came;

static void on_signal(int number)
{
	came = number;
}

struct terminal {
	int fd;
	bool has_changed;
	struct termios before;
	struct sigaction actions[ARRAY_LEN(watched)];
	sigset_t mask; /* as it was: signals come only while we wait */
};

static int open_tty(struct error *e)
{
	int fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);

	return fd >= 0 ? fd : error_set(e, ENXIO, "there is no terminal to ask at");
}

bool carrier_tty_is_there(void)
{
	CLEANUP_CLOSE int fd = open_tty(NULL);

	return fd >= 0;
}

static void begin(struct terminal *t, bool has_echo)
{
	const struct sigaction action = { .sa_handler = on_signal }; /* no SA_RESTART: the wait is to end */
	struct termios quiet;
	sigset_t set;

	came = 0;
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_LEN(watched); i++)
		sigaddset(&set, watched[i]);
	sigprocmask(SIG_BLOCK, &set, &t->mask);
	for (size_t i = 0; i < ARRAY_LEN(watched); i++)
		sigaction(watched[i], &action, &t->actions[i]);
	t->has_changed = !has_echo && tcgetattr(t->fd, &t->before) == 0;
	if (!t->has_changed)
		return;
	quiet = t->before;
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	tcsetattr(t->fd, TCSAFLUSH, &quiet);
}

static void end(struct terminal *t)
{
	if (t->has_changed) {
		tcsetattr(t->fd, TCSAFLUSH, &t->before);
		(void)!write(t->fd, "\n", 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(watched); i++)
		sigaction(watched[i], &t->actions[i], NULL);
	sigprocmask(SIG_SETMASK, &t->mask, NULL);
	if (came)
		raise(came);
}

static void show(int fd, const char *text)
{
	char line[TEXT_MAX];

	while (*text) {
		size_t n = strcspn(text, "\n");

		snprintf(line, sizeof(line), "%.*s", (int)MIN(n, sizeof(line) - 1), text);
		printable_make(line, '?');
		if (write(fd, line, strlen(line)) < 0)
			return;
		text += n;
		if (*text == '\n' && write(fd, text++, 1) < 0)
			return;
	}
}

static int read_line(const struct terminal *t, char *answer, size_t max, struct error *e)
{
	size_t used = 0;

	for (;;) {
		struct pollfd p = { .fd = t->fd, .events = POLLIN };
		char c;

		if (ppoll(&p, 1, NULL, &t->mask) <= 0 || read(t->fd, &c, 1) <= 0) {
			explicit_bzero(answer, max);
			return error_set(e, ECANCELED, "nobody answered");
		}
		if (c == '\n' || c == '\r')
			break;
		if (used < max)
			answer[used++] = c;
	}
	if (used == max) {
		explicit_bzero(answer, max);
		return error_set(e, E2BIG, "the answer is longer than %zu bytes", max - 1);
	}
	answer[used] = '\0';
	return 0;
}

int carrier_tty_ask(const char *text, bool has_echo, char *answer, size_t max, struct error *e)
{
	CLEANUP_CLOSE int fd = open_tty(e);
	struct terminal t = { .fd = fd };
	int r;

	if (fd < 0)
		return -1;
	begin(&t, has_echo);
	show(fd, text);
	r = read_line(&t, answer, max, e);
	end(&t);
	return r;
}

int carrier_tty_confirm(const char *text, struct error *e)
{
	char answer[16];

	for (;;) {
		struct error why = { 0 };

		if (carrier_tty_ask(text, true, answer, sizeof(answer), &why) == -1 && why.err != E2BIG)
			return error_set(e, why.err, "%s", why.text);
		if (why.err != E2BIG && strcasecmp(answer, "yes") == 0)
			return 1;
		if (why.err != E2BIG && strcasecmp(answer, "no") == 0)
			return 0;
		text = "Please answer yes or no: ";
	}
}
