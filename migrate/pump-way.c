/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pump-way - see pump-way.h
 *
 * A way goes on until it would block; so at full speed poll() is asked once for many pieces. Where splice() would, FIONREAD says
 * on which end: is something there to be read, then there is no room for it. Whoever sends too fast waits: nothing is read for
 * which there is no room. What is squeezed is flushed when nothing more is there to be read: nobody waits for what is kept in it.
 * Can fail: memory; an end that breaks; what comes squeezed and is not, or is cut off.
 */
#include "migrate/pump-way.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES ((size_t)256 * 1024)
#define PIPE_BYTES (1 << 20) /* what anybody may have */

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

static bool make_bytes(struct pump_way_bytes *b, const void *first, size_t first_bytes)
{
	b->room = MAX(BUFFER_BYTES, first_bytes);
	b->at = malloc(b->room);
	if (b->at && first_bytes)
		memcpy(b->at, first, first_bytes);
	b->used = first_bytes;
	return b->at;
}

static void choose(struct pump_way *w)
{
	if (is_kind(w->from, S_IFIFO) || is_kind(w->to, S_IFIFO))
		w->how = WAY_DIRECT;
	else if (is_kind(w->from, S_IFSOCK) && is_kind(w->to, S_IFSOCK) && pipe2(w->pipe, O_CLOEXEC | O_NONBLOCK) == 0)
		w->how = WAY_THROUGH;
	if (w->how == WAY_THROUGH)
		widen(w->pipe[0]);
}

void pump_way_init(struct pump_way *w, int from, int to)
{
	*w = (struct pump_way) { .from = from, .to = to, .pipe = { -1, -1 } };
}

int pump_way_open(struct pump_way *w, const void *first, size_t first_bytes, bool is_coded, enum squeeze_way coding,
		  struct error *e)
{
	if (!make_bytes(is_coded ? &w->raw : &w->ready, first, first_bytes) || (is_coded && !make_bytes(&w->ready, NULL, 0)))
		return error_set(e, ENOMEM, "out of memory");
	if (set_nonblocking(w->from, e) == -1 || set_nonblocking(w->to, e) == -1)
		return -1;
	widen(w->from);
	widen(w->to);
	if (!is_coded) {
		choose(w);
		return 0;
	}
	w->how = WAY_CODED;
	w->coding = coding;
	w->squeeze = squeeze_new(coding, e);
	return w->squeeze ? 0 : -1;
}

void pump_way_close(struct pump_way *w)
{
	for (int i = 0; i < 2; i++)
		if (w->pipe[i] >= 0)
			close(w->pipe[i]);
	squeeze_free(w->squeeze);
	free(w->raw.at);
	free(w->ready.at);
}

/* --- one step of each kind: 1: something moved, or the end came. 0: nothing does now. -1 + e: broken */

/* *moved: bytes. What cannot be spliced is copied from now on. */
static int splice_some(struct pump_way *w, int from, int to, size_t most, ssize_t *moved, struct error *e)
{
	*moved = splice(from, NULL, to, NULL, most, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	if (*moved >= 0)
		return 1;
	if (errno == EINVAL && from == w->from) {
		w->how = WAY_COPIED;
		return 1;
	}
	return is_no_error() ? 0 : error_errno(e, errno, "pass on a stream");
}

/* From where it comes, into a pipe or out of one. */
static int splice_in(struct pump_way *w, int to, struct error *e)
{
	ssize_t n;
	int r = splice_some(w, w->from, to, PIPE_BYTES, &n, e);

	if (r == 1 && n == 0)
		w->is_at_end = true;
	if (r == 1 && n > 0 && to != w->to)
		w->piped += (size_t)n;
	w->is_full = r == 0 && (to == w->to || w->piped) && has_something(w->from);
	return r;
}

static int splice_out(struct pump_way *w, struct error *e)
{
	ssize_t n;
	int r = splice_some(w, w->pipe[0], w->to, w->piped, &n, e);

	if (r == 1) {
		w->piped -= (size_t)n;
		w->is_full = false;
	}
	return r;
}

static int fill(struct pump_way *w, struct pump_way_bytes *b, struct error *e)
{
	ssize_t n;

	if (b->used == b->room)
		return 0;
	n = read(w->from, b->at + b->used, b->room - b->used);
	if (n < 0)
		return is_no_error() ? 0 : error_errno(e, errno, "read from a stream");
	b->used += (size_t)n;
	w->is_at_end = n == 0;
	return 1;
}

static void took(struct pump_way_bytes *b, size_t bytes)
{
	b->head += bytes;
	if (b->head == b->used)
		b->head = b->used = 0;
}

static int drain(struct pump_way *w, struct error *e)
{
	struct pump_way_bytes *b = &w->ready;
	ssize_t n;

	if (b->head == b->used)
		return 0;
	n = send(w->to, b->at + b->head, b->used - b->head, MSG_NOSIGNAL);
	if (n < 0 && errno == ENOTSOCK)
		n = write(w->to, b->at + b->head, b->used - b->head);
	if (n < 0)
		return is_no_error() ? 0 : error_errno(e, errno, "write to a stream");
	took(b, (size_t)n);
	return 1;
}

static bool has_to_code(const struct pump_way *w, bool is_idle)
{
	if (w->is_coded || w->ready.used == w->ready.room)
		return false;
	if (w->raw.head < w->raw.used || w->is_pending)
		return true;
	return w->is_at_end || (is_idle && w->is_unflushed && w->coding == SQUEEZE_SHORTER);
}

/* is_idle: nothing more is there just now. */
static int code(struct pump_way *w, bool is_idle, struct error *e)
{
	struct squeeze_piece p = { w->raw.at + w->raw.head, w->raw.used - w->raw.head, w->ready.at + w->ready.used,
				   w->ready.room - w->ready.used };
	enum squeeze_want want = w->is_at_end ? SQUEEZE_END : is_idle ? SQUEEZE_FLUSH : SQUEEZE_MORE;
	bool has_input = p.in_bytes;
	int r = 0;

	if (!has_to_code(w, is_idle))
		return 0;
	if (has_input || w->is_pending || w->coding == SQUEEZE_SHORTER)
		r = squeeze_run(w->squeeze, &p, want, e);
	else
		p.in_bytes = p.out_bytes = 0;
	if (r == -1)
		return -1;
	took(&w->raw, p.in_bytes);
	w->ready.used += p.out_bytes;
	w->is_pending = r == 1;
	w->is_unflushed = (want == SQUEEZE_MORE || r == 1) && (has_input || w->is_unflushed);
	w->is_coded = w->is_at_end && !w->is_pending && w->raw.head == w->raw.used;
	if (w->is_coded && w->coding == SQUEEZE_LONGER && !squeeze_is_whole(w->squeeze))
		return error_set(e, EPIPE, "what came was cut off");
	return 1;
}

/* --- all of it */

/* A pipe is not a socket: its end is its closing. */
static void pass_end(struct pump_way *w)
{
	if (w->is_over || !w->is_at_end || w->ready.head < w->ready.used || w->piped || (w->how == WAY_CODED && !w->is_coded))
		return;
	w->is_over = true;
	if (shutdown(w->to, SHUT_WR) == -1 && errno == ENOTSOCK)
		close(w->to);
}

static int take_in(struct pump_way *w, struct error *e)
{
	bool is_clear = w->ready.head == w->ready.used;

	if (w->is_at_end)
		return 0;
	switch (w->how) {
	case WAY_COPIED: return w->piped ? 0 : fill(w, &w->ready, e);
	case WAY_CODED: return fill(w, &w->raw, e);
	case WAY_DIRECT: return is_clear ? splice_in(w, w->to, e) : 0;
	case WAY_THROUGH: return is_clear ? splice_in(w, w->pipe[1], e) : 0;
	}
	abort();
}

int pump_way_move(struct pump_way *w, struct error *e)
{
	int in, coded, out;

	do {
		in = take_in(w, e);
		coded = in != -1 && w->how == WAY_CODED ? code(w, in == 0 && w->raw.used < w->raw.room, e) : 0;
		if (in == -1 || coded == -1)
			return -1;
		out = w->piped ? splice_out(w, e) : drain(w, e);
		if (out == -1)
			return -1;
	} while (in || coded || out);
	pass_end(w);
	return 0;
}

void pump_way_watch(const struct pump_way *w, struct pollfd *from, struct pollfd *to)
{
	const struct pump_way_bytes *b = w->how == WAY_CODED ? &w->raw : &w->ready;
	bool is_waiting = w->ready.head < w->ready.used || w->piped || w->is_full;
	bool is_buffered = w->how == WAY_COPIED || w->how == WAY_CODED;
	bool has_room = is_buffered ? b->used < b->room : w->ready.head == w->ready.used && !w->is_full;

	*from = (struct pollfd) { .fd = has_room && !w->is_at_end ? w->from : -1, .events = POLLIN };
	*to = (struct pollfd) { .fd = is_waiting ? w->to : -1, .events = POLLOUT };
}
