/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-nbd - a far side that speaks NBD: libnbd on the loop
 *
 *      CONNECTING --on_up--> UP --on_down--> DOWN
 *           |                 '--close(polite)--> PARTING --DISC is sent, or 1 s--> DOWN
 *           '--on_failed, close--> DOWN                     close()'s done comes when DOWN and nothing is left
 *
 * One operation:   submit -> unsent ==hook==> nbd_aio_pwrite ... socket ... notify_read -> on_completion: `done` list
 *                                                                                                    -> task: op->done()
 *
 * What is submitted leaves before the loop sleeps: libnbd's system calls (two for a write) and the peer that they wake would
 * otherwise stand between a guest's write and this disk, whose engine submits in a hook that is older than ours.
 *
 * What libnbd asks of us:
 *   - A completion callback runs with the handle's lock held, and may run inside nbd_aio_pwrite() itself: it moves the operation
 *     from its connection's list to `done` and posts the task, nothing else.
 *   - The direction (wait for reading, for writing) may change with every call: a hook reads it before the loop sleeps, for
 *     the connections that were touched in this turn, and sees there whether one has died.
 *   - libnbd closes its descriptor when it dies, inside any call: the loop watches a duplicate, which is ours to close.
 *   - nbd_close() on a live handle forgets the commands in flight without a word: they stand on our own list, and are failed
 *     after the handle is gone, when nothing of theirs is touched any more.
 *   - No libnbd call that blocks is ever made here; what connects runs in the thread pool (remote-connect.c).
 *
 * Of several connections (remote-up.c) an operation goes to the one with the fewest in flight.  Once it carries, the death of
 * any of them is the death of the link.
 *
 * Progress is an answer, or bytes that a full socket began to take again.  dead_ms without, and with something in flight: cut.
 * A link that is quiet is asked something from time to time, so that there is something in flight when its peer dies.
 */
#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "mirror/remote-private.h"

#define PARTING_MS 1000
#define LAST_WORDS 64u
#define ANSWERS_AT_ONCE 64u
#define ZERO_MAX_BYTES (UINT64_C(1) << 30) /* the length on the wire has 32 bits, and a server should not vanish for long */

void remote_nbd_set_state(struct remote_nbd *r, enum link_state state)
{
	static const char *const name[] = { "connecting", "up", "parting", "down" };
	static const bool is_drawn[4][4] = {
		[CONNECTING] = { [UP] = true, [DOWN] = true },
		[UP] = { [PARTING] = true, [DOWN] = true },
		[PARTING] = { [DOWN] = true },
	};

	assert(is_drawn[r->state][state]);
	log_debug("link to %s: %s -> %s", r->spec.uri, name[r->state], name[state]);
	r->state = state;
}

/* --- operations */

static void end_op(struct conn *c, struct remote_op *op, int err)
{
	struct remote_nbd *r = c->owner;

	TAILQ_REMOVE(&c->ops, op, link);
	if (!remote_ask_is_wait(op)) {
		c->in_flight--;
		r->in_flight--;
	}
	op->err = err;
	TAILQ_INSERT_TAIL(&r->done, op, link);
	loop_defer(r->spec.loop, &r->task);
}

/* libnbd's lock is held. Errors travel as one of a few numbers, ENOTCONN not among them: that one is libnbd's own word for
 * a command whose connection died. ESHUTDOWN is among them, and means something else to our callers. */
int remote_nbd_on_completion(void *arg, int *error)
{
	struct remote_op *op = arg;
	struct conn *c = op->private_;
	int err = *error;

	c->owner->progress_ns = loop_now_ns();
	end_op(c, op, err == ENOTCONN ? ESHUTDOWN : err == ESHUTDOWN ? EIO : err);
	return 1;
}

/* One context's descriptors, in order; what does not fit any more is not told. libnbd's lock is held. */
static int on_extents(void *arg, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error UNUSED)
{
	struct remote_op *op = arg;
	uint64_t at = op->range.start;

	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || offset != at || op->extents->count)
		return 0;
	for (size_t i = 0; i + 1 < count && at < op->range.end; i += 2) {
		struct range r = { at, MIN(at + entries[i], op->range.end) };

		if (extents_add(op->extents, r, entries[i + 1] & LIBNBD_STATE_ZERO ? EXTENT_ZERO : 0) != 0)
			return 0;
		at = r.end;
	}
	return 0;
}

static int64_t issue(struct conn *c, struct remote_op *op)
{
	nbd_completion_callback completion = { .callback = remote_nbd_on_completion, .user_data = op };
	nbd_extent_callback extent = { .callback = on_extents, .user_data = op };
	struct range r = op->range;
	uint64_t bytes;

	switch (op->opcode) {
	case REMOTE_WRITE:
		return nbd_aio_pwrite(c->nbd, op->data, range_length(r), r.start, completion, 0);
	case REMOTE_ZERO:
		bytes = MIN(range_length(op->rest), ZERO_MAX_BYTES);
		r.start = op->rest.start;
		op->rest.start += bytes;
		op->part = (struct range){ r.start, op->rest.start };
		return nbd_aio_zero(c->nbd, bytes, r.start, completion, op->may_trim ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
	case REMOTE_FLUSH:
		return nbd_aio_flush(c->nbd, completion, 0);
	case REMOTE_READ:
		return nbd_aio_pread(c->nbd, op->buffer, range_length(r), r.start, completion, 0);
	case REMOTE_EXTENTS:
		return nbd_aio_block_status(c->nbd, range_length(r), r.start, extent, completion, 0);
	case REMOTE_OTHER:
		return remote_ask_issue(c, op);
	}
	abort();
}

/* What is asked goes to the first, for a WAIT is one of a connection. */
static struct conn *choose(struct remote_nbd *r, const struct remote_op *op)
{
	struct conn *best = &r->conn[0];

	if (op->opcode == REMOTE_OTHER)
		return best;
	for (unsigned i = 1; i < r->connections; i++)
		if (r->conn[i].in_flight < best->in_flight)
			best = &r->conn[i];
	return best;
}

static void start_timing(struct remote_nbd *r)
{
	if (r->is_timing)
		return;
	r->is_timing = true;
	r->progress_ns = loop_now_ns();
	loop_timer_set(r->timer, r->spec.dead_ms);
}

static void send_op(struct remote_nbd *r, struct remote_op *op)
{
	struct conn *c = choose(r, op);

	op->private_ = c;
	TAILQ_INSERT_TAIL(&c->ops, op, link);
	if (!c->unsent)
		c->unsent = op;
	c->is_touched = true;
	if (!remote_ask_is_wait(op)) {
		c->in_flight++;
		if (r->in_flight++ == 0)
			r->progress_ns = loop_now_ns();
		start_timing(r);
	}
}

static bool is_gone(const struct conn *c)
{
	return nbd_aio_is_closed(c->nbd) || nbd_aio_is_dead(c->nbd);
}

/* Out of `unsent` before libnbd knows it: it may be over when the call returns. */
static void issue_unsent(struct conn *c)
{
	struct remote_op *op;
	int err;

	while ((op = c->unsent)) {
		c->unsent = TAILQ_NEXT(op, link);
		if (issue(c, op) != -1)
			continue;
		err = nbd_get_errno();
		if (is_gone(c))
			err = ESHUTDOWN;
		end_op(c, op, err ? err : EIO);
	}
}

void remote_nbd_submit(struct remote *base, struct remote_op *op)
{
	struct remote_nbd *r = remote_nbd_of(base);

	assert(op->done && r->state != CONNECTING && r->state != PARTING && !r->on_closed);
	assert(op->opcode != REMOTE_WRITE || (op->data && range_length(op->range) > 0));
	assert(op->opcode != REMOTE_READ || (op->buffer && range_length(op->range) > 0));
	assert(op->opcode != REMOTE_EXTENTS || (op->extents && op->extents->count == 0));
	op->rest = op->opcode == REMOTE_ZERO ? op->range : (struct range){ 0, 0 };
	op->err = 0;
	if (r->state == UP) {
		send_op(r, op);
		return;
	}
	/* The link died in this very turn; on_down is on its way. */
	op->err = ESHUTDOWN;
	TAILQ_INSERT_TAIL(&r->done, op, link);
	loop_defer(r->spec.loop, &r->task);
}

/* --- the link's end */

void remote_nbd_close_conn(struct conn *c)
{
	struct remote_op *op;

	loop_watch_free(c->watch);
	if (c->fd >= 0)
		close(c->fd);
	nbd_close(c->nbd);
	*c = (struct conn){ .owner = c->owner, .fd = -1, .ops = c->ops, .in_flight = c->in_flight };
	while ((op = TAILQ_FIRST(&c->ops)))
		end_op(c, op, ESHUTDOWN);
}

/* What the far side answered before another of its connections ended: its last word, perhaps, why it parts. */
static void hear_out(struct conn *c)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };

	for (unsigned i = 0; i < LAST_WORDS && !is_gone(c); i++) {
		if (!(nbd_aio_get_direction(c->nbd) & LIBNBD_AIO_DIRECTION_READ) || poll(&p, 1, 0) != 1 || !(p.revents & POLLIN))
			return;
		nbd_aio_notify_read(c->nbd);
	}
}

/* From the loop only, never from a libnbd callback. err: for on_down, unless closing. */
static void go_down(struct remote_nbd *r, int err)
{
	remote_nbd_set_state(r, DOWN);
	for (unsigned i = 0; err && i < r->connections; i++)
		hear_out(&r->conn[i]);
	atomic_store(&r->connect.is_cancelled, true);
	for (unsigned i = 0; i < r->connections; i++)
		remote_nbd_close_conn(&r->conn[i]);
	r->connections = 0;
	loop_timer_clear(r->timer);
	loop_timer_clear(r->idle);
	r->down_err = err;
	loop_defer(r->spec.loop, &r->task);
}

/* The goodbye is said. The peer's own close is not awaited: there is nothing in it for us, and it may take its time (one that
 * ends a hundred threads for each connection was seen to take 40 ms, in which the guest stood still). */
static bool has_parted(const struct remote_nbd *r)
{
	for (unsigned i = 0; i < r->connections; i++)
		if (!is_gone(&r->conn[i]) && (nbd_aio_get_direction(r->conn[i].nbd) & LIBNBD_AIO_DIRECTION_WRITE))
			return false;
	return true;
}

void remote_nbd_on_timer(void *arg)
{
	struct remote_nbd *r = arg;
	uint64_t quiet_ns = loop_now_ns() - r->progress_ns, dead_ns = r->spec.dead_ms * NS_PER_MS;

	r->is_timing = false;
	if (r->state == PARTING) {
		go_down(r, 0);
	} else if (r->state == UP && r->in_flight && quiet_ns >= dead_ns) {
		log_warn("%s: no answer and no progress for %u ms with %u requests in flight: the link is cut", r->spec.uri,
		         r->spec.dead_ms, r->in_flight);
		go_down(r, ETIMEDOUT);
	} else if (r->state == UP && r->in_flight) {
		r->is_timing = true;
		loop_timer_set(r->timer, (dead_ns - MIN(quiet_ns, dead_ns)) / NS_PER_MS + 1);
	}
}

/* --- the loop */

/* libnbd takes one answer at each call, and a turn may be long while guests write: all that has come is taken, or a far side
 * that is quick looks slow, and guests are paced for it. */
static void take_answers(struct conn *c)
{
	int bytes;

	nbd_aio_notify_read(c->nbd);
	for (unsigned i = 1; i < ANSWERS_AT_ONCE && !is_gone(c); i++) {
		if (!(nbd_aio_get_direction(c->nbd) & LIBNBD_AIO_DIRECTION_READ))
			return;
		if (ioctl(c->fd, FIONREAD, &bytes) != 0 || bytes <= 0)
			return;
		nbd_aio_notify_read(c->nbd);
	}
}

void remote_nbd_on_ready(void *arg, int events)
{
	struct conn *c = arg;
	unsigned direction = nbd_aio_get_direction(c->nbd);

	c->is_touched = true;
	if ((direction & LIBNBD_AIO_DIRECTION_READ) && (events & (LOOP_IN | LOOP_HUP))) {
		take_answers(c);
	} else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (events & LOOP_OUT)) {
		c->owner->progress_ns = loop_now_ns();
		nbd_aio_notify_write(c->nbd);
	} else if ((events & LOOP_HUP) && c->owner->state == UP) {
		go_down(c->owner, ECONNRESET);
	}
}

static void rearm(struct conn *c)
{
	unsigned direction = nbd_aio_get_direction(c->nbd);
	int events = 0;

	if (direction & LIBNBD_AIO_DIRECTION_READ)
		events |= LOOP_IN;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE)
		events |= LOOP_OUT;
	loop_watch_set(c->watch, events);
	c->is_touched = false;
}

static void before_sleep(struct loop_hook *h)
{
	struct remote_nbd *r = container_of(h, struct remote_nbd, hook);

	for (unsigned i = 0; i < r->connections; i++) {
		struct conn *c = &r->conn[i];

		if (!c->is_touched)
			continue;
		issue_unsent(c);
		if (!is_gone(c)) {
			rearm(c);
		} else if (r->state == UP) {
			go_down(r, nbd_aio_is_closed(c->nbd) ? ECONNRESET : ENOTCONN);
			return;
		} else {
			loop_watch_set(c->watch, 0);
		}
	}
	if (r->state == PARTING && has_parted(r))
		go_down(r, 0);
}

void remote_nbd_free(struct remote_nbd *r)
{
	loop_hook_remove(r->spec.loop, &r->hook);
	loop_defer_cancel(r->spec.loop, &r->task);
	loop_timer_free(r->timer);
	loop_timer_free(r->idle);
	extents_fini(&r->holes);
	for (unsigned i = 0; i < REMOTE_VERSIONS; i++)
		free(r->context[i]);
	free(r->uri);
	free(r);
}

/* Ended operations are told, a ZERO that was too long for one request goes on; then what is owed about the link itself. */
static void settle(struct loop_task *t)
{
	struct remote_nbd *r = container_of(t, struct remote_nbd, task);
	struct remote_op *op;
	int err = r->down_err;

	while ((op = TAILQ_FIRST(&r->done))) {
		TAILQ_REMOVE(&r->done, op, link);
		remote_ask_fold(r, op);
		if (op->err == 0 && !range_is_empty(op->rest) && r->state == UP)
			send_op(r, op);
		else
			op->done(op, op->err == 0 && !range_is_empty(op->rest) ? ESHUTDOWN : op->err);
	}
	if (r->on_closed) {
		void (*on_closed)(void *) = r->on_closed;
		void *arg = r->on_closed_arg;

		if (r->state != DOWN || r->is_connecting || r->in_flight)
			return;
		remote_nbd_free(r);
		on_closed(arg);
	} else if (err) {
		r->down_err = 0;
		r->spec.on_down(r->spec.arg, err);
	}
}

void remote_nbd_close(struct remote *base, bool is_polite, void (*done)(void *arg), void *arg)
{
	struct remote_nbd *r = remote_nbd_of(base);

	assert(done && !r->on_closed);
	r->on_closed = done;
	r->on_closed_arg = arg;
	atomic_store(&r->connect.is_cancelled, true);
	loop_timer_clear(r->idle);
	if (r->state == UP && is_polite && r->in_flight == r->is_asking_idly) {
		remote_nbd_set_state(r, PARTING);
		for (unsigned i = 0; i < r->connections; i++) {
			issue_unsent(&r->conn[i]);
			nbd_aio_disconnect(r->conn[i].nbd, 0);
			r->conn[i].is_touched = true;
		}
		r->is_timing = true;
		loop_timer_set(r->timer, PARTING_MS);
	} else if (r->state != DOWN) {
		go_down(r, 0);
	}
	loop_defer(r->spec.loop, &r->task);
}

void remote_nbd_init(struct remote_nbd *r)
{
	r->task.run = settle;
	r->hook.run = before_sleep;
	TAILQ_INIT(&r->done);
	loop_hook_add(r->spec.loop, &r->hook);
}
