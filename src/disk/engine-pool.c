/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * engine-pool - plain system calls on the loop's thread pool
 *
 *      submit -> job from the free list -> [pool thread: pread, pwrite, fdatasync, fallocate] -> done() on the loop
 *
 * Used where io_uring is absent or switched off (dom0 kernels before 5.6, kernel.io_uring_disabled).  As many operations run
 * at once as the pool has threads (UV_THREADPOOL_SIZE); the others wait inside it in order.
 * Under a lease each call is preceded by a look at the clock, in the thread that makes it: who was stopped, or stood behind
 * calls that hang, does not write late.
 * Fails: out of memory for a job ends that operation with ENOMEM, from the deferred queue.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/lease.h"
#include "base/log.h"
#include "disk/engine.h"
#include "loop/offload.h"

struct job {
	struct offload offload;
	struct engine_pool *pool;
	struct engine_op *op;  /* until done() */
	int err;
	SLIST_ENTRY(job) link; /* in the free list */
};

struct engine_pool {
	struct engine engine;
	struct loop *loop;                     /* borrowed */
	SLIST_HEAD(, job) free;                /* owned */
	STAILQ_HEAD(, engine_op) refused;      /* no memory to run them */
	struct loop_task refuse;
	unsigned in_flight;
};

static ssize_t transfer(const struct engine_op *op)
{
	struct iovec iov = { (char *)op->buffer + op->moved, MIN(op->length - op->moved, GiB) };
	off_t offset = (off_t)(op->offset + op->moved);

	if (op->opcode == ENGINE_READ)
		return preadv(op->fd, &iov, 1, offset);
	return pwritev2(op->fd, &iov, 1, offset, op->is_fua ? RWF_DSYNC : 0);
}

static bool is_late(const struct engine *g)
{
	return UNLIKELY(g->until_ns != NULL) && lease_now_ns() >= atomic_load(g->until_ns);
}

/* Nothing moved: a read met the end of the file inside what was its size, it shrank under us.  To answer zeroes would be to
 * make data up: EIO. */
static int move_all(const struct engine *g, struct engine_op *op)
{
	while (op->moved < op->length) {
		ssize_t n;

		if (is_late(g))
			return ENGINE_LATE;
		n = transfer(op);
		if (n < 0 && errno != EINTR)
			return errno;
		if (n == 0)
			return EIO;
		if (n > 0)
			op->moved += (uint64_t)n;
	}
	return 0;
}

static int run(const struct engine *g, struct engine_op *op)
{
	int rc;

	if (op->opcode == ENGINE_READ || op->opcode == ENGINE_WRITE)
		return move_all(g, op);
	do {
		if (is_late(g))
			return ENGINE_LATE;
		if (op->opcode == ENGINE_FLUSH)
			rc = fdatasync(op->fd);
		else
			rc = fallocate(op->fd, op->mode, (off_t)op->offset, (off_t)op->length);
	} while (rc != 0 && errno == EINTR);
	return rc == 0 ? 0 : errno;
}

static void on_work(struct offload *o)
{
	struct job *job = container_of(o, struct job, offload);

	job->err = run(&job->pool->engine, job->op);
}

static void on_done(struct offload *o)
{
	struct job *job = container_of(o, struct job, offload);
	struct engine_pool *p = job->pool;
	struct engine_op *op = job->op;

	job->op = NULL;
	p->in_flight--;
	SLIST_INSERT_HEAD(&p->free, job, link);
	op->done(op, job->err);
}

static struct job *take_job(struct engine_pool *p)
{
	struct job *job = SLIST_FIRST(&p->free);

	if (job) {
		SLIST_REMOVE_HEAD(&p->free, link);
		return job;
	}
	job = calloc(1, sizeof(*job));
	if (job) {
		job->offload.work = on_work;
		job->offload.done = on_done;
		job->pool = p;
	}
	return job;
}

static void run_refused(struct loop_task *t)
{
	struct engine_pool *p = container_of(t, struct engine_pool, refuse);
	struct engine_op *op;

	while ((op = STAILQ_FIRST(&p->refused))) {
		STAILQ_REMOVE_HEAD(&p->refused, link);
		p->in_flight--;
		op->done(op, ENOMEM);
	}
}

static void submit(struct engine *g, struct engine_op *op)
{
	struct engine_pool *p = container_of(g, struct engine_pool, engine);
	struct job *job = take_job(p);

	op->moved = 0;
	p->in_flight++;
	if (job) {
		job->op = op;
		job->err = 0;
		if (offload_submit(p->loop, &job->offload) == 0)
			return;
		SLIST_INSERT_HEAD(&p->free, job, link);
	}
	STAILQ_INSERT_TAIL(&p->refused, op, link);
	loop_defer(p->loop, &p->refuse);
}

static void release(struct engine *g)
{
	struct engine_pool *p = container_of(g, struct engine_pool, engine);
	struct job *job;

	assert(p->in_flight == 0);
	while ((job = SLIST_FIRST(&p->free))) {
		SLIST_REMOVE_HEAD(&p->free, link);
		free(job);
	}
	free(p);
}

static const struct engine_ops pool_ops = { .name = "threads", .submit = submit, .free = release };

struct engine *engine_pool_new(struct loop *l, struct error *e)
{
	struct engine_pool *p = calloc(1, sizeof(*p));

	if (!p) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	p->engine.ops = &pool_ops;
	p->loop = l;
	SLIST_INIT(&p->free);
	STAILQ_INIT(&p->refused);
	p->refuse.run = run_refused;
	return &p->engine;
}
