/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pump - see pump.h
 *
 *      a.in -> [ buffer ] -> b.out          two of these, one thread, one poll()
 *      b.in -> [ buffer ] -> a.out
 *
 * A way reads as long as it has room and writes as long as it has bytes, each until it would block; so at full speed poll() is
 * asked once for a buffer, not once for a call. A full buffer is not read into: who sends too fast waits.
 * Can fail: memory; an end that breaks, which ends both ways: half a connection is of no use to anybody here.
 */
#include "migrate/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_BYTES (1u << 20)

struct way {
	int from, to;
	char *buffer; /* owned */
	size_t head, used; /* [head, used) is to be written */
	bool is_at_end, is_over; /* nothing more comes; and all of it was written and the end passed on */
};

static int set_nonblocking(int fd, struct error *e)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? error_errno(e, errno, "look at a stream") : 0;
}

static bool is_no_error(void)
{
	return errno == EAGAIN || errno == EINTR;
}

/* 1: something was read, or the end. 0: there is nothing now. */
static int fill(struct way *w, struct error *e)
{
	ssize_t n;

	if (w->is_at_end || w->used == BUFFER_BYTES)
		return 0;
	n = read(w->from, w->buffer + w->used, BUFFER_BYTES - w->used);
	if (n < 0)
		return is_no_error() ? 0 : error_errno(e, errno, "read from a stream");
	w->used += (size_t)n;
	w->is_at_end = n == 0;
	return 1;
}

/* A pipe is not a socket: its end is its closing. */
static void pass_end(struct way *w)
{
	if (w->is_over || !w->is_at_end || w->head < w->used)
		return;
	w->is_over = true;
	if (shutdown(w->to, SHUT_WR) == -1 && errno == ENOTSOCK)
		close(w->to);
}

static int drain(struct way *w, struct error *e)
{
	ssize_t n;

	if (w->head == w->used)
		return 0;
	n = send(w->to, w->buffer + w->head, w->used - w->head, MSG_NOSIGNAL);
	if (n < 0 && errno == ENOTSOCK)
		n = write(w->to, w->buffer + w->head, w->used - w->head);
	if (n < 0)
		return is_no_error() ? 0 : error_errno(e, errno, "write to a stream");
	w->head += (size_t)n;
	if (w->head == w->used)
		w->head = w->used = 0;
	return 1;
}

/* -1 + e: broken. */
static int move(struct way *w, struct error *e)
{
	int filled, drained;

	do {
		filled = fill(w, e);
		drained = filled == -1 ? -1 : drain(w, e);
	} while (drained != -1 && (filled || drained));
	if (drained != -1)
		pass_end(w);
	return drained;
}

static void watch(const struct way *w, struct pollfd *from, struct pollfd *to)
{
	bool has_room = !w->is_at_end && w->used < BUFFER_BYTES;

	*from = (struct pollfd) { .fd = has_room ? w->from : -1, .events = POLLIN };
	*to = (struct pollfd) { .fd = w->head < w->used ? w->to : -1, .events = POLLOUT };
}

static int run(struct way way[static 2], struct error *e)
{
	while (!way[0].is_over || !way[1].is_over) {
		struct pollfd fds[4];

		for (int i = 0; i < 2; i++)
			if (move(&way[i], e) == -1)
				return -1;
		watch(&way[0], &fds[0], &fds[1]);
		watch(&way[1], &fds[2], &fds[3]);
		if ((!way[0].is_over || !way[1].is_over) && poll(fds, ARRAY_LEN(fds), -1) == -1 && errno != EINTR)
			return error_errno(e, errno, "wait for a stream");
	}
	return 0;
}

int pump_run(const struct pump_end *a, const struct pump_end *b, const void *first, size_t first_bytes, struct error *e)
{
	struct way way[2] = { { .from = a->in, .to = b->out }, { .from = b->in, .to = a->out } };
	const int fds[] = { a->in, a->out, b->in, b->out };
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(fds) && r == 0; i++)
		r = set_nonblocking(fds[i], e);
	for (int i = 0; i < 2 && r == 0; i++)
		if (!(way[i].buffer = malloc(BUFFER_BYTES)))
			r = error_set(e, ENOMEM, "out of memory");
	if (r == 0 && first_bytes > BUFFER_BYTES)
		r = error_set(e, EMSGSIZE, "%zu bytes came before anybody could want them", first_bytes);
	if (r == 0 && first_bytes) {
		memcpy(way[0].buffer, first, first_bytes);
		way[0].used = first_bytes;
	}
	if (r == 0)
		r = run(way, e);
	free(way[0].buffer);
	free(way[1].buffer);
	return r;
}
