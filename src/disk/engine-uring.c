/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * engine-uring - io_uring as one more descriptor of the loop
 *
 *      submit -> queue --before-sleep hook--> SQ --one io_uring_submit--> kernel --> CQ -> reap -> done()
 *                  ^                                                                  |
 *                  '------------ short, EAGAIN, EINTR: the rest of it ----------------'
 *
 * reap() runs when the ring's descriptor is readable, or when the loop, spinning, asks the poller: that looks at the CQ in
 * shared memory and costs no system call.  Completions are put there by our own task, on its way out of the kernel
 * (COOP_TASKRUN): the spinning loop is in and out of it all the time, asking sockets, so interrupting it would be paid for
 * nothing.  If it is not, the ring says that something waits (TASKRUN), and reap() goes and gets it.  Kernels before 5.19
 * interrupt us.  DEFER_TASKRUN is not used: there the ring's descriptor does not become readable before we have been in the
 * kernel to get what is done, so whoever sleeps on it sleeps for ever.
 *
 * No more than the CQ holds is ever in the kernel's hands, so it cannot overflow; what is over waits in the queue.
 * Fails: the kernel cannot take more now (EAGAIN, EBUSY): completions free room and the hook tries again; with none under
 * way, a timer does.  Nothing is lost: what was not taken stays in the SQ.
 */
#include "disk/engine.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include <errno.h>

#ifdef HAVE_URING

#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/log.h"

#define SQ_ENTRIES 128u
#define RETRY_MS 1
#define PIECE_MAX_BYTES GiB /* an SQE's length has 32 bits */

struct engine_uring {
	struct engine engine;
	struct loop *loop;                   /* borrowed */
	struct io_uring ring;
	struct loop_watch *watch;            /* owned */
	struct loop_timer *retry;            /* owned */
	struct loop_hook hook;
	struct loop_poller poller;
	STAILQ_HEAD(, engine_op) queue;      /* not yet in the SQ */
	unsigned in_ring;                    /* in the SQ, the kernel, or the CQ */
	unsigned ring_max;
};

static void prepare(struct io_uring_sqe *sqe, struct engine_op *op)
{
	void *rest = (char *)op->buffer + op->moved;
	unsigned length = (unsigned)MIN(op->length - op->moved, PIECE_MAX_BYTES);

	switch (op->opcode) {
	case ENGINE_READ:
		io_uring_prep_read(sqe, op->fd, rest, length, op->offset + op->moved);
		break;
	case ENGINE_WRITE:
		io_uring_prep_write(sqe, op->fd, rest, length, op->offset + op->moved);
		sqe->rw_flags = op->is_fua ? RWF_DSYNC : 0;
		break;
	case ENGINE_FLUSH:
		io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
		break;
	case ENGINE_FALLOCATE:
		io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, op->fd, NULL, (unsigned)op->mode, op->offset);
		sqe->addr = op->length;
		break;
	}
	io_uring_sqe_set_data(sqe, op);
}

static void fill(struct engine_uring *u)
{
	struct engine_op *op;
	struct io_uring_sqe *sqe;

	while (u->in_ring < u->ring_max && (op = STAILQ_FIRST(&u->queue)) && (sqe = io_uring_get_sqe(&u->ring))) {
		STAILQ_REMOVE_HEAD(&u->queue, link);
		prepare(sqe, op);
		u->in_ring++;
	}
}

static void note_refusal(struct engine_uring *u, int err)
{
	static struct log_limit limit = LOG_LIMIT(3);

	if (err != EAGAIN && err != EBUSY && log_allowed(&limit))
		log_error("io_uring does not take requests: %s; trying again", strerror(err));
	/* With something under way its completion brings us back here. */
	if (io_uring_sq_ready(&u->ring) == u->in_ring || (err != EAGAIN && err != EBUSY))
		loop_timer_set(u->retry, RETRY_MS);
}

/* The whole batch of a turn: one system call, more only when it is longer than the SQ. */
static void send_batch(struct loop_hook *h)
{
	struct engine_uring *u = container_of(h, struct engine_uring, hook);
	int rc;

	for (fill(u); io_uring_sq_ready(&u->ring); fill(u)) {
		rc = io_uring_submit(&u->ring);
		if (rc == -EINTR)
			continue;
		if (rc <= 0) {
			note_refusal(u, rc < 0 ? -rc : EAGAIN);
			return;
		}
	}
}

/* True: not finished, goes back into the queue. */
static bool is_unfinished(struct engine_op *op, int res, int *err)
{
	*err = 0;
	if (res == -EAGAIN || res == -EINTR)
		return true;
	if (res < 0) {
		*err = -res;
		return false;
	}
	if (op->opcode != ENGINE_READ && op->opcode != ENGINE_WRITE)
		return false;
	/* A read met the end of the file inside what was its size: it shrank under us. Zeroes would be made up. */
	if (res == 0) {
		*err = EIO;
		return false;
	}
	op->moved += (uint64_t)res;
	return op->moved < op->length;
}

/* What the kernel has done, but our task has not yet put into the CQ. */
static void collect(struct engine_uring *u)
{
#ifdef IORING_SETUP_TASKRUN_FLAG
	if (UNLIKELY(IO_URING_READ_ONCE(*u->ring.sq.kflags) & IORING_SQ_TASKRUN))
		io_uring_get_events(&u->ring);
#else
	(void)u;
#endif
}

static bool reap(struct engine_uring *u)
{
	struct io_uring_cqe *cqe;
	bool is_found = false;

	collect(u);
	while (io_uring_cq_ready(&u->ring) && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
		struct engine_op *op = io_uring_cqe_get_data(cqe);
		int err, res = cqe->res;

		io_uring_cqe_seen(&u->ring, cqe);
		u->in_ring--;
		is_found = true;
		if (is_unfinished(op, res, &err))
			STAILQ_INSERT_TAIL(&u->queue, op, link);
		else
			op->done(op, err);
	}
	return is_found;
}

static bool poll_ring(struct loop_poller *p)
{
	struct engine_uring *u = container_of(p, struct engine_uring, poller);

	return u->in_ring && reap(u);
}

static void on_readable(void *arg, int events)
{
	(void)events;
	reap(arg);
}

static void on_retry(void *arg)
{
	(void)arg; /* the turn this woke ends in send_batch() */
}

static void submit(struct engine *g, struct engine_op *op)
{
	struct engine_uring *u = container_of(g, struct engine_uring, engine);

	op->moved = 0;
	STAILQ_INSERT_TAIL(&u->queue, op, link);
}

static void release(struct engine *g)
{
	struct engine_uring *u = container_of(g, struct engine_uring, engine);

	assert(u->in_ring == 0 && STAILQ_EMPTY(&u->queue));
	loop_poller_remove(u->loop, &u->poller);
	loop_hook_remove(u->loop, &u->hook);
	loop_timer_free(u->retry);
	loop_watch_free(u->watch);
	io_uring_queue_exit(&u->ring);
	free(u);
}

static const struct engine_ops uring_ops = { .name = "io_uring", .submit = submit, .free = release };

static bool has_opcodes(struct io_uring *ring)
{
	static const int needed[] = { IORING_OP_READ, IORING_OP_WRITE, IORING_OP_FSYNC, IORING_OP_FALLOCATE };
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool has_all = probe != NULL;

	for (size_t i = 0; has_all && i < ARRAY_LEN(needed); i++)
		has_all = io_uring_opcode_supported(probe, needed[i]);
	io_uring_free_probe(probe);
	return has_all;
}

/* Kernels refuse flags that they do not know. */
static int set_ring_up(struct io_uring *ring, struct io_uring_params *params)
{
#ifdef IORING_SETUP_TASKRUN_FLAG
	int rc;

	*params = (struct io_uring_params){ .flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG };
	rc = io_uring_queue_init_params(SQ_ENTRIES, ring, params);
	if (rc != -EINVAL)
		return rc;
#endif
	*params = (struct io_uring_params){ 0 };
	return io_uring_queue_init_params(SQ_ENTRIES, ring, params);
}

static int open_ring(struct engine_uring *u, struct error *e)
{
	struct io_uring_params params;
	int rc = set_ring_up(&u->ring, &params);

	if (rc < 0)
		return error_errno(e, -rc, "the kernel gives no io_uring");
	if (!has_opcodes(&u->ring)) {
		io_uring_queue_exit(&u->ring);
		return error_set(e, ENOSYS, "the kernel's io_uring is too old (5.6 or later is needed)");
	}
	u->ring_max = params.cq_entries;
	return 0;
}

struct engine *engine_uring_new(struct loop *l, struct error *e)
{
	struct engine_uring *u = calloc(1, sizeof(*u));

	if (!u) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	if (open_ring(u, e) == -1) {
		free(u);
		return NULL;
	}
	u->engine.ops = &uring_ops;
	u->loop = l;
	STAILQ_INIT(&u->queue);
	u->hook.run = send_batch;
	u->poller.poll = poll_ring;
	u->retry = loop_timer_new(l, on_retry, u);
	u->watch = loop_watch_new(l, u->ring.ring_fd, LOOP_IN, on_readable, u);
	if (!u->retry || !u->watch) {
		loop_timer_free(u->retry);
		loop_watch_free(u->watch);
		io_uring_queue_exit(&u->ring);
		free(u);
		error_set(e, ENOMEM, "out of memory for an io_uring");
		return NULL;
	}
	loop_hook_add(l, &u->hook);
	loop_poller_add(l, &u->poller);
	return &u->engine;
}

#else

struct engine *engine_uring_new(struct loop *l, struct error *e)
{
	(void)l;
	error_set(e, ENOSYS, "this build has no io_uring");
	return NULL;
}

#endif
