/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * offload - see offload.h
 */
#include "loop/offload.h"

#include <stdlib.h>

#include "loop/uv-loop.h"

struct job {
	uv_work_t uv;
	struct offload *o; /* the caller's, until done() */
};

static void on_work(uv_work_t *work)
{
	struct job *job = work->data;

	job->o->work(job->o);
}

static void on_done(uv_work_t *work, int status)
{
	struct job *job = work->data;
	struct offload *o = job->o;

	(void)status; /* nothing is ever cancelled */
	o->private_ = NULL;
	free(job);
	o->done(o);
}

int offload_submit(struct loop *l, struct offload *o)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return -1;
	job->o = o;
	job->uv.data = job;
	o->private_ = job;
	if (uv_queue_work(loop_uv(l), &job->uv, on_work, on_done) != 0) {
		o->private_ = NULL;
		free(job);
		return -1;
	}
	return 0;
}
