/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pump - carries bytes both ways between two connected sockets, as xapi's relay does: pump FD FD [--cut BYTES] [--hold BYTES]
 *        [--rate BYTES]
 *
 *      FD --read--> 64 KiB --write--> FD        and the same the other way round; one poll loop
 *
 * A side that ends is passed on when what it said is, and the other direction goes on: also where it ends with something unread.
 *
 * Counted from the first FD to the second: --cut: both are closed after so many bytes; --hold: after so many bytes nothing is
 * carried any more, and nobody hears of it; --rate: at most so many bytes a second.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/size.h"

#define BUFFER_BYTES 65536u

struct way {
	int from, to;
	size_t used, sent;        /* of the buffer: read, written */
	uint64_t carried, cut_after, hold_after, rate; /* bytes; 0: never, not bounded */
	uint64_t due_ns;          /* not before, by its rate */
	bool is_over;
	char buffer[BUFFER_BYTES];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static bool is_again(ssize_t n)
{
	return n == -1 && (errno == EAGAIN || errno == EINTR);
}

static size_t room(const struct way *w)
{
	size_t bytes = BUFFER_BYTES;

	if (w->cut_after)
		bytes = (size_t)MIN((uint64_t)bytes, w->cut_after - w->carried);
	if (w->hold_after)
		bytes = (size_t)MIN((uint64_t)bytes, w->hold_after - w->carried);
	return bytes;
}

/* What it waits for; nothing: for ever held, or for its time. */
static short wanted(const struct way *w, uint64_t now, int *timeout_ms)
{
	if (w->is_over)
		return 0;
	if (w->used)
		return POLLOUT;
	if (!room(w))
		return 0;
	if (w->due_ns <= now)
		return POLLIN;
	*timeout_ms = MIN(*timeout_ms, (int)((w->due_ns - now) / NS_PER_MS) + 1);
	return 0;
}

/* An end of this direction is gone; what comes back is still carried: there may be a last word in it. */
static void end_way(struct way *w)
{
	w->is_over = true;
	w->used = 0;
	shutdown(w->to, SHUT_WR);
}

static void take(struct way *w, uint64_t now)
{
	const ssize_t n = read(w->from, w->buffer, room(w));

	if (is_again(n))
		return;
	if (n <= 0) {
		end_way(w);
		return;
	}
	w->used = (size_t)n;
	w->sent = 0;
	if (w->rate)
		w->due_ns = MAX(w->due_ns, now) + (uint64_t)n * NS_PER_S / w->rate;
}

/* False: all of it is to be cut. */
static bool give(struct way *w)
{
	const ssize_t n = write(w->to, w->buffer + w->sent, w->used - w->sent);

	if (is_again(n))
		return true;
	if (n <= 0) {
		end_way(w);
		return true;
	}
	w->sent += (size_t)n;
	if (w->sent < w->used)
		return true;
	w->carried += w->used;
	w->used = 0;
	return !w->cut_after || w->carried < w->cut_after;
}

static bool carry(struct way *w, uint64_t now)
{
	if (!w->used)
		take(w, now);
	return !w->used || give(w); /* what was read is mostly taken at once */
}

static void pump(struct way *there, struct way *back)
{
	struct way *const ways[] = { there, back };

	while (!there->is_over || !back->is_over) {
		const uint64_t now = now_ns();
		struct pollfd fd[2];
		int timeout_ms = 60000;

		for (int i = 0; i < 2; i++) {
			const short events = wanted(ways[i], now, &timeout_ms);

			fd[i] = (struct pollfd){ .fd = events == POLLIN ? ways[i]->from : ways[i]->to, .events = events };
			if (!events)
				fd[i].fd = -1;
		}
		if (poll(fd, 2, timeout_ms) == -1 && errno != EINTR)
			return;
		for (int i = 0; i < 2; i++)
			if (fd[i].fd >= 0 && fd[i].revents && !carry(ways[i], now))
				return;
	}
}

static int socket_number(const char *text)
{
	uint64_t fd;

	if (!size_parse(text, &fd) || fd > 1u << 20 || fcntl((int)fd, F_SETFL, O_NONBLOCK) == -1) {
		fprintf(stderr, "pump: %s is not the number of an open socket\n", text);
		exit(2);
	}
	return (int)fd;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "cut", required_argument, NULL, 'c' }, { "hold", required_argument, NULL, 'h' },
		{ "rate", required_argument, NULL, 'r' }, { NULL, 0, NULL, 0 },
	};
	static struct way there, back;
	bool is_good = true;
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		uint64_t *limit = c == 'c' ? &there.cut_after : c == 'h' ? &there.hold_after : &there.rate;

		is_good = is_good && c != '?' && size_parse(optarg, limit);
	}
	if (!is_good || argc - optind != 2) {
		fprintf(stderr, "usage: pump FD FD [--cut BYTES] [--hold BYTES] [--rate BYTES]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	there.from = back.to = socket_number(argv[optind]);
	there.to = back.from = socket_number(argv[optind + 1]);
	pump(&there, &back);
	return 0;
}
