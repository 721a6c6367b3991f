/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-nbd - a far side that speaks NBD: libnbd on the loop
 *
 *      CONNECTING --on_up--> UP --on_down--> DOWN
 *           |                 '--close(polite)--> PARTING --peer closed, or 1 s--> DOWN
 *           '--on_failed, close--> DOWN                     close()'s done comes when DOWN and nothing is left
 *
 * One operation:   submit -> nbd_aio_pwrite ... socket ... notify_read -> on_completion: `done` list -> task: op->done()
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
 * Several connections, where the far side says it may be done: the first one carries the link, the others are made after
 * on_up, one at a time (a pool thread each, and the disk may need the pool), with a short deadline, and whoever does not greet
 * is left out: behind a relay that takes one client there is nobody.  An operation goes to the connection with the fewest in
 * flight.  Once it carries, the death of any of them is the death of the link.
 *
 * Progress is an answer, or bytes that a full socket began to take again.  dead_ms without, and with something in flight: cut.
 */
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "loop/offload.h"
#include "mirror/remote-connect.h"
#include "mirror/remote-uri.h"
#include "mirror/remote.h"

#define CONNECTIONS_MAX 4
#define FURTHER_HANDSHAKE_MS 2000
#define PARTING_MS 1000
#define SEND_BUFFER_BYTES (1 << 20)
#define ZERO_MAX_BYTES (UINT64_C(1) << 30) /* the length on the wire has 32 bits, and a server should not vanish for long */

enum state { CONNECTING, UP, PARTING, DOWN };

TAILQ_HEAD(op_list, remote_op);

struct conn {
	struct remote_nbd *owner;
	struct nbd_handle *nbd;   /* owned */
	int fd;                   /* owned: a duplicate of libnbd's */
	struct loop_watch *watch; /* owned */
	struct op_list ops;       /* in flight */
	unsigned in_flight;
	bool is_touched;          /* its direction may have changed */
};

struct remote_nbd {
	struct remote base;
	struct remote_spec spec;      /* uri and holes: see below */
	char *uri;                    /* owned; normalized */
	struct extents holes;         /* owned */
	enum state state;

	struct conn conn[CONNECTIONS_MAX];
	unsigned connections;
	unsigned in_flight;
	struct op_list done;          /* ended, done() not yet called */
	struct loop_task task;
	struct loop_hook hook;
	struct loop_timer *timer;     /* owned: dead_ms, or while PARTING its end */
	bool is_timing;
	uint64_t progress_ns;

	struct offload offload;
	struct remote_connect connect;
	struct error connect_error;
	bool is_connecting;           /* the offload is under way */

	int down_err;                 /* on_down is owed */
	void (*on_closed)(void *arg); /* close() was called */
	void *on_closed_arg;
};

static void set_state(struct remote_nbd *r, enum state state)
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
	c->in_flight--;
	r->in_flight--;
	op->err = err;
	TAILQ_INSERT_TAIL(&r->done, op, link);
	loop_defer(r->spec.loop, &r->task);
}

/* libnbd's lock is held. Errors travel as one of a few numbers, ENOTCONN not among them: that one is libnbd's own word for
 * a command whose connection died. ESHUTDOWN is among them, and means something else to our callers. */
static int on_completion(void *arg, int *error)
{
	struct remote_op *op = arg;
	struct conn *c = op->private_;
	int err = *error;

	c->owner->progress_ns = loop_now_ns();
	end_op(c, op, err == ENOTCONN ? ESHUTDOWN : err == ESHUTDOWN ? EIO : err);
	return 1;
}

static int64_t issue(struct conn *c, struct remote_op *op)
{
	nbd_completion_callback completion = { .callback = on_completion, .user_data = op };
	struct range r = op->range;
	uint64_t bytes;

	switch (op->opcode) {
	case REMOTE_WRITE:
		return nbd_aio_pwrite(c->nbd, op->data, range_length(r), r.start, completion, 0);
	case REMOTE_ZERO:
		bytes = MIN(range_length(op->rest), ZERO_MAX_BYTES);
		r.start = op->rest.start;
		op->rest.start += bytes;
		return nbd_aio_zero(c->nbd, bytes, r.start, completion, op->may_trim ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
	case REMOTE_FLUSH:
		return nbd_aio_flush(c->nbd, completion, 0);
	}
	abort();
}

static struct conn *least_busy(struct remote_nbd *r)
{
	struct conn *best = &r->conn[0];

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

/* On our list before libnbd knows it: it may be over when the call returns. */
static void send_op(struct remote_nbd *r, struct remote_op *op)
{
	struct conn *c = least_busy(r);
	int err;

	op->private_ = c;
	TAILQ_INSERT_TAIL(&c->ops, op, link);
	c->in_flight++;
	if (r->in_flight++ == 0)
		r->progress_ns = loop_now_ns();
	c->is_touched = true;
	start_timing(r);
	if (issue(c, op) != -1)
		return;
	err = nbd_get_errno();
	if (nbd_aio_is_dead(c->nbd) || nbd_aio_is_closed(c->nbd))
		err = ESHUTDOWN;
	end_op(c, op, err ? err : EIO);
}

static void submit(struct remote *base, struct remote_op *op)
{
	struct remote_nbd *r = container_of(base, struct remote_nbd, base);

	assert(op->done && r->state != CONNECTING && r->state != PARTING && !r->on_closed);
	assert(op->opcode != REMOTE_WRITE || (op->data && range_length(op->range) > 0));
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

static void close_conn(struct conn *c)
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

/* From the loop only, never from a libnbd callback. err: for on_down, unless closing. */
static void go_down(struct remote_nbd *r, int err)
{
	set_state(r, DOWN);
	atomic_store(&r->connect.is_cancelled, true);
	for (unsigned i = 0; i < r->connections; i++)
		close_conn(&r->conn[i]);
	r->connections = 0;
	loop_timer_clear(r->timer);
	r->down_err = err;
	loop_defer(r->spec.loop, &r->task);
}

static bool is_gone(const struct conn *c)
{
	return nbd_aio_is_closed(c->nbd) || nbd_aio_is_dead(c->nbd);
}

static bool are_all_gone(const struct remote_nbd *r)
{
	for (unsigned i = 0; i < r->connections; i++)
		if (!is_gone(&r->conn[i]))
			return false;
	return true;
}

static void on_timer(void *arg)
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

static void on_ready(void *arg, int events)
{
	struct conn *c = arg;
	unsigned direction = nbd_aio_get_direction(c->nbd);

	c->is_touched = true;
	if ((direction & LIBNBD_AIO_DIRECTION_READ) && (events & (LOOP_IN | LOOP_HUP))) {
		nbd_aio_notify_read(c->nbd);
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
		if (!is_gone(c)) {
			rearm(c);
		} else if (r->state == UP) {
			go_down(r, nbd_aio_is_closed(c->nbd) ? ECONNRESET : ENOTCONN);
			return;
		} else {
			loop_watch_set(c->watch, 0);
		}
	}
	if (r->state == PARTING && are_all_gone(r))
		go_down(r, 0);
}

static void free_remote(struct remote_nbd *r)
{
	loop_hook_remove(r->spec.loop, &r->hook);
	loop_defer_cancel(r->spec.loop, &r->task);
	loop_timer_free(r->timer);
	extents_fini(&r->holes);
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
		free_remote(r);
		on_closed(arg);
	} else if (err) {
		r->down_err = 0;
		r->spec.on_down(r->spec.arg, err);
	}
}

/* --- connecting */

static void work(struct offload *o)
{
	struct remote_nbd *r = container_of(o, struct remote_nbd, offload);

	remote_connect(&r->connect, &r->connect_error);
}

/* A unix socket: one copy's message fits at once, and leaves with one call instead of three and their wake-ups. Beyond wmem_max
 * only root may go; whoever may not keeps what the system gives. TCP sizes its own buffer better than anybody who fixes it. */
static void widen_socket(int fd)
{
	int bytes = SEND_BUFFER_BYTES, domain = 0;
	socklen_t length = sizeof(domain);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == -1 || domain != AF_UNIX)
		return;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) == -1)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* Takes the handle. -1: out of memory or descriptors, and it is closed. */
static int adopt(struct remote_nbd *r, struct nbd_handle *nbd)
{
	struct conn *c = &r->conn[r->connections];

	*c = (struct conn){ .owner = r, .nbd = nbd, .is_touched = true };
	TAILQ_INIT(&c->ops);
	c->fd = fcntl(nbd_aio_get_fd(nbd), F_DUPFD_CLOEXEC, 0);
	widen_socket(c->fd);
	c->watch = c->fd >= 0 ? loop_watch_new(r->spec.loop, c->fd, LOOP_IN, on_ready, c) : NULL;
	if (!c->watch) {
		close_conn(c);
		return -1;
	}
	r->connections++;
	return 0;
}

static void start_connecting(struct remote_nbd *r);

static void on_further(struct remote_nbd *r, struct nbd_handle *nbd)
{
	if (!nbd) {
		log_debug("%s: going on with %u connection(s): %s", r->spec.uri, r->connections, r->connect_error.text);
		return;
	}
	if (r->state != UP || adopt(r, nbd) == -1) {
		if (r->state != UP)
			nbd_close(nbd);
		return;
	}
	log_debug("%s: %u connections", r->spec.uri, r->connections);
	start_connecting(r);
}

static void fail(struct remote_nbd *r)
{
	set_state(r, DOWN);
	error_prefix(&r->connect_error, "%s", r->spec.uri);
	r->spec.on_failed(r->spec.arg, &r->connect_error);
}

static void on_first(struct remote_nbd *r, struct nbd_handle *nbd)
{
	struct remote_info info = r->connect.info;

	r->connect.info = (struct remote_info){ 0 };
	if (nbd && adopt(r, nbd) == -1)
		error_errno(&r->connect_error, ENOMEM, "cannot watch the link");
	if (!r->connections) {
		fail(r);
	} else {
		set_state(r, UP);
		r->spec.on_up(r->spec.arg, &info);
		if (info.can_multi_conn && r->state == UP && !r->on_closed)
			start_connecting(r);
	}
	extents_fini(&info.zero);
}

static void on_connected(struct offload *o)
{
	struct remote_nbd *r = container_of(o, struct remote_nbd, offload);
	struct nbd_handle *nbd = r->connect.nbd;

	r->connect.nbd = NULL;
	r->is_connecting = false;
	if (r->on_closed) {
		nbd_close(nbd);
		extents_fini(&r->connect.info.zero);
		loop_defer(r->spec.loop, &r->task);
	} else if (r->connect.is_further) {
		on_further(r, nbd);
	} else {
		on_first(r, nbd);
	}
}

static void start_connecting(struct remote_nbd *r)
{
	bool is_further = r->connections > 0;

	if (r->connections == CONNECTIONS_MAX)
		return;
	error_clear(&r->connect_error);
	r->connect = (struct remote_connect){
		.uri = r->uri,
		.min_size_bytes = r->spec.min_size_bytes,
		.holes = &r->holes,
		.connect_wait_ms = is_further ? 0 : r->spec.connect_wait_ms,
		.handshake_ms = is_further ? FURTHER_HANDSHAKE_MS : r->spec.handshake_ms,
		.is_further = is_further,
	};
	r->offload = (struct offload){ .work = work, .done = on_connected };
	r->is_connecting = offload_submit(r->spec.loop, &r->offload) == 0;
}

static void close_remote(struct remote *base, bool is_polite, void (*done)(void *arg), void *arg)
{
	struct remote_nbd *r = container_of(base, struct remote_nbd, base);

	assert(done && !r->on_closed);
	r->on_closed = done;
	r->on_closed_arg = arg;
	atomic_store(&r->connect.is_cancelled, true);
	if (r->state == UP && is_polite && r->in_flight == 0) {
		set_state(r, PARTING);
		for (unsigned i = 0; i < r->connections; i++) {
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

static const struct remote_ops ops = { .submit = submit, .close = close_remote };

static int copy_spec(struct remote_nbd *r, struct error *e)
{
	r->uri = remote_uri_normalize(r->spec.uri, e);
	if (!r->uri)
		return -1;
	r->spec.uri = r->uri;
	for (size_t i = 0; r->spec.holes && i < r->spec.holes->count; i++) {
		const struct extent *hole = &r->spec.holes->item[i];

		if ((hole->type & EXTENT_ZERO) && extents_add(&r->holes, hole->range, EXTENT_ZERO) != 0)
			return error_errno(e, ENOMEM, "cannot keep the list of holes");
	}
	r->spec.holes = NULL;
	return 0;
}

struct remote *remote_nbd_new(const struct remote_spec *spec, struct error *e)
{
	struct remote_nbd *r = calloc(1, sizeof(*r));

	assert(spec->dead_ms && spec->handshake_ms);
	if (!r) {
		error_errno(e, ENOMEM, "cannot make a link");
		return NULL;
	}
	*r = (struct remote_nbd){ .base = { .ops = &ops }, .spec = *spec };
	r->task.run = settle;
	r->hook.run = before_sleep;
	TAILQ_INIT(&r->done);
	loop_hook_add(spec->loop, &r->hook);
	r->timer = loop_timer_new(spec->loop, on_timer, r);
	if (!r->timer)
		error_errno(e, ENOMEM, "cannot make a link");
	if (!r->timer || copy_spec(r, e) == -1)
		goto fail;
	start_connecting(r);
	if (!r->is_connecting) {
		error_errno(e, ENOMEM, "cannot make a link");
		goto fail;
	}
	return &r->base;
fail:
	free_remote(r);
	return NULL;
}
