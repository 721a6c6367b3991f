/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pump - see pump.h
 *
 *      a.in ==> b.out               DIRECT   one of them is a pipe: one splice() moves its pages
 *      a.in ==> pipe ==> b.out      THROUGH  two sockets, with a pipe of ours in the middle
 *      a.in --> buffer --> b.out    COPIED   what was read before, and whatever splice() does not take
 *
 * Two of these, one thread, one poll(). A way goes on until it would block; so at full speed poll() is asked once for many
 * pieces. When it would, FIONREAD says on which end: is something there to be read, then there is no room for it.
 * Whoever sends too fast waits: nothing is read for which there is no room.
 * Can fail: memory; an end that breaks, which ends both ways: half a connection is of no use to anybody here.
 */
#include "migrate/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES (256u * 1024)
#define PIPE_BYTES (1 << 20) /* what anybody may have */
#define PIECE_BYTES ((size_t)PIPE_BYTES)

enum how { COPIED, THROUGH, DIRECT };
struct way {
	int from, to;
	enum how how;
	char *buffer;      /* owned */
	size_t room, head, used; /* [head, used) is to be written */
	int pipe[2];       /* owned; -1: none */
	size_t piped;
	bool is_full;      /* there was no room for what is there to be read */
	bool is_at_end, is_over; /* nothing more comes; and all of it was written and the end passed on */
};

static bool is_no_error(void)
{
	return errno == EAGAIN || errno == EINTR;
}

static bool has_something(int fd)
{
	int bytes = 0;

	return ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0;
}

/* --- setting up */

static int set_nonblocking(int fd, struct error *e)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? error_errno(e, errno, "look at a stream") : 0;
}

static bool is_kind(int fd, mode_t kind)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == kind;
}

/* A larger one is a wish. */
static void widen(int fd)
{
	if (is_kind(fd, S_IFIFO))
		fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
}

static int open_way(struct way *w, const void *first, size_t first_bytes, struct error *e)
{
	w->room = MAX((size_t)BUFFER_BYTES, first_bytes);
	w->buffer = malloc(w->room);
	if (w->buffer && first_bytes)
		memcpy(w->buffer, first, first_bytes);
	w->used = first_bytes;
	if (!w->buffer)
		return error_set(e, ENOMEM, "out of memory");
	if (set_nonblocking(w->from, e) == -1 || set_nonblocking(w->to, e) == -1)
		return -1;
	widen(w->from);
	widen(w->to);
	if (is_kind(w->from, S_IFIFO) || is_kind(w->to, S_IFIFO))
		w->how = DIRECT;
	else if (is_kind(w->from, S_IFSOCK) && is_kind(w->to, S_IFSOCK) && pipe2(w->pipe, O_CLOEXEC | O_NONBLOCK) == 0)
		w->how = THROUGH;
	if (w->how == THROUGH)
		widen(w->pipe[0]);
	return 0;
}

static void close_way(struct way *w)
{
	for (int i = 0; i < 2; i++)
		if (w->pipe[i] >= 0)
			close(w->pipe[i]);
	free(w->buffer);
}

/* --- one step of each kind: 1: something moved, or the end came. 0: nothing does now. -1 + e: broken */

/* *moved: bytes. What cannot be spliced is copied from now on. */
static int splice_some(struct way *w, int from, int to, size_t most, ssize_t *moved, struct error *e)
{
	*moved = splice(from, NULL, to, NULL, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (*moved >= 0)
		return 1;
	if (errno == EINVAL && from == w->from) {
		w->how = COPIED;
		return 1;
	}
	return is_no_error() ? 0 : error_errno(e, errno, "pass on a stream");
}

static int pass(struct way *w, struct error *e)
{
	ssize_t n;
	int r = splice_some(w, w->from, w->to, PIECE_BYTES, &n, e);

	if (r == 1 && n == 0)
		w->is_at_end = true;
	w->is_full = r == 0 && has_something(w->from);
	return r;
}

static int fill_pipe(struct way *w, struct error *e)
{
	ssize_t n;
	int r = splice_some(w, w->from, w->pipe[1], PIECE_BYTES, &n, e);

	if (r == 1 && n >= 0)
		w->piped += (size_t)n;
	if (r == 1 && n == 0)
		w->is_at_end = true;
	w->is_full = r == 0 && w->piped && has_something(w->from);
	return r;
}

static int drain_pipe(struct way *w, struct error *e)
{
	ssize_t n;
	int r = w->piped ? splice_some(w, w->pipe[0], w->to, w->piped, &n, e) : 0;

	if (r == 1) {
		w->piped -= (size_t)n;
		w->is_full = false;
	}
	return r;
}

static int fill(struct way *w, struct error *e)
{
	ssize_t n;

	if (w->used == w->room)
		return 0;
	n = read(w->from, w->buffer + w->used, w->room - w->used);
	if (n < 0)
		return is_no_error() ? 0 : error_errno(e, errno, "read from a stream");
	w->used += (size_t)n;
	w->is_at_end = n == 0;
	return 1;
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

/* --- both ways */

/* A pipe is not a socket: its end is its closing. */
static void pass_end(struct way *w)
{
	if (w->is_over || !w->is_at_end || w->head < w->used || w->piped)
		return;
	w->is_over = true;
	if (shutdown(w->to, SHUT_WR) == -1 && errno == ENOTSOCK)
		close(w->to);
}

static int take_in(struct way *w, struct error *e)
{
	if (w->is_at_end)
		return 0;
	if (w->how == COPIED)
		return w->piped ? 0 : fill(w, e);
	if (w->head < w->used)
		return 0;
	return w->how == DIRECT ? pass(w, e) : fill_pipe(w, e);
}

static int give_out(struct way *w, struct error *e)
{
	return w->piped ? drain_pipe(w, e) : drain(w, e);
}

static int move(struct way *w, struct error *e)
{
	int in, out;

	do {
		in = take_in(w, e);
		out = in == -1 ? -1 : give_out(w, e);
	} while (out != -1 && (in || out));
	if (out != -1)
		pass_end(w);
	return out;
}

static void watch(const struct way *w, struct pollfd *from, struct pollfd *to)
{
	bool is_waiting_out = w->head < w->used || w->piped || w->is_full;
	bool has_room = w->how == COPIED ? w->used < w->room : w->head == w->used && !w->is_full;

	*from = (struct pollfd) { .fd = has_room && !w->is_at_end ? w->from : -1, .events = POLLIN };
	*to = (struct pollfd) { .fd = is_waiting_out ? w->to : -1, .events = POLLOUT };
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
	struct way way[2] = {
		{ .from = a->in, .to = b->out, .pipe = { -1, -1 } },
		{ .from = b->in, .to = a->out, .pipe = { -1, -1 } },
	};
	int r = open_way(&way[0], first, first_bytes, e);

	if (r == 0)
		r = open_way(&way[1], NULL, 0, e);
	if (r == 0)
		r = run(way, e);
	for (int i = 0; i < 2; i++)
		close_way(&way[i]);
	return r;
}
