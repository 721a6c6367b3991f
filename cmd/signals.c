/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * signals - see signals.h
 */
#include "cmd/signals.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "base/compiler.h"

static void fill(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

void signals_hold(void)
{
	sigset_t set;

	fill(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

bool signals_came(unsigned wait_ms)
{
	const struct timespec wait = { .tv_sec = (time_t)(wait_ms / 1000), .tv_nsec = (long)(wait_ms % 1000 * NS_PER_MS) };
	sigset_t set;
	int r;

	fill(&set);
	do {
		r = sigtimedwait(&set, NULL, &wait);
	} while (r == -1 && errno == EINTR);
	return r > 0;
}

void signals_release(void)
{
	sigset_t set;

	fill(&set);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}
