/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * req - see req.h
 *
 * Completed requests stand in one queue, which one deferred task of the loop works off: done() never runs in the stack of
 * whoever completed, and a burst of completions costs one task.
 */
#include "block/req.h"

#include <stdlib.h>
#include <string.h>

#include "block/layer.h"
#include "loop/loop.h"

#define POOL_STEP 64

static struct {
	struct loop *loop;    /* borrowed */
	struct req_list free; /* owned */
	struct req_list done; /* completed, done() not yet called */
	struct loop_task task;
	struct req **step;    /* owned: what was allocated, for req_fini() */
	size_t steps;
	size_t taken;
} pool;

static void run_done(struct loop_task *t)
{
	struct req *r;

	(void)t;
	while ((r = TAILQ_FIRST(&pool.done))) {
		TAILQ_REMOVE(&pool.done, r, link);
		layer_count_out(r);
		r->done(r);
	}
}

void req_init(struct loop *l)
{
	pool.loop = l;
	TAILQ_INIT(&pool.free);
	TAILQ_INIT(&pool.done);
	pool.task.run = run_done;
}

void req_fini(void)
{
	assert(pool.taken == 0 && TAILQ_EMPTY(&pool.done));
	for (size_t i = 0; i < pool.steps; i++)
		free(pool.step[i]);
	free(pool.step);
	pool.step = NULL;
	pool.steps = 0;
	TAILQ_INIT(&pool.free);
	pool.loop = NULL;
}

static bool grow(void)
{
	struct req **step = reallocarray(pool.step, pool.steps + 1, sizeof(*step));
	struct req *more;

	if (!step)
		return false;
	pool.step = step;
	more = calloc(POOL_STEP, sizeof(*more));
	if (!more)
		return false;
	pool.step[pool.steps++] = more;
	for (size_t i = 0; i < POOL_STEP; i++)
		TAILQ_INSERT_TAIL(&pool.free, &more[i], link);
	return true;
}

struct req *req_get(void)
{
	struct req *r;

	assert(pool.loop);
	if (TAILQ_EMPTY(&pool.free) && !grow())
		return NULL;
	r = TAILQ_FIRST(&pool.free);
	TAILQ_REMOVE(&pool.free, r, link);
	memset(r, 0, sizeof(*r));
	pool.taken++;
	return r;
}

void req_put(struct req *r)
{
	assert(!r->is_in_flight && pool.taken > 0);
	pool.taken--;
	TAILQ_INSERT_HEAD(&pool.free, r, link);
}

void req_complete(struct req *r, int err)
{
	assert(r->is_in_flight && err >= 0);
	r->is_in_flight = false;
	r->err = err;
	TAILQ_INSERT_TAIL(&pool.done, r, link);
	loop_defer(pool.loop, &pool.task);
}

struct loop *req_loop(void)
{
	return pool.loop;
}
