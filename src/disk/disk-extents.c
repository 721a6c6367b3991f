/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-extents - SEEK_DATA and SEEK_HOLE, on the thread pool
 *
 *      file     |####      ####          |
 *      answer    data|hole |data|hole
 *
 * On a file with many fragments each lseek() may read metadata from the disk, so the loop does not wait for them, and one
 * request gets at most EXTENTS_MAX of them: the asker comes again from where the answer stops.  A block device cannot tell:
 * all data, which is always a right answer, and the one for a file system that refuses to say, too.
 * lseek() moves the position of the shared description, which nobody uses.
 */
#include "disk/disk-extents.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/extents.h"
#include "loop/offload.h"

#define EXTENTS_MAX 512

struct job {
	struct offload offload;
	struct req *req;
	int fd;
	struct range range;
	struct extents found;
	int err;
};

/* The next change after position, at most end; *type: what lies in between. */
static uint64_t next_change(int fd, uint64_t position, uint64_t end, unsigned *type)
{
	off_t data = lseek(fd, (off_t)position, SEEK_DATA), hole;

	*type = EXTENT_HOLE | EXTENT_ZERO;
	if (data < 0 && errno == ENXIO)
		return end;
	if (data > (off_t)position)
		return MIN((uint64_t)data, end);
	*type = 0;
	if (data < 0)
		return end;
	hole = lseek(fd, (off_t)position, SEEK_HOLE);
	return hole > (off_t)position ? MIN((uint64_t)hole, end) : end;
}

static void on_work(struct offload *o)
{
	struct job *job = container_of(o, struct job, offload);
	uint64_t position = job->range.start;
	int rc = 0;

	while (rc == 0 && position < job->range.end) {
		unsigned type;
		uint64_t end = next_change(job->fd, position, job->range.end, &type);

		rc = extents_add(&job->found, (struct range){ position, end }, type);
		position = end;
	}
	if (job->found.count == 0)
		job->err = ENOMEM;
}

static void on_done(struct offload *o)
{
	struct job *job = container_of(o, struct job, offload);
	int err = job->err, rc = 0;

	for (size_t i = 0; rc == 0 && i < job->found.count; i++)
		rc = extents_add(job->req->extents, job->found.item[i].range, job->found.item[i].type);
	if (rc == -1 && job->req->extents->count == 0)
		err = ENOMEM;
	req_complete(job->req, err);
	extents_fini(&job->found);
	free(job);
}

void disk_extents(struct disk *d, struct req *r)
{
	size_t max = r->flags & REQ_ONE ? 1 : EXTENTS_MAX;
	struct job *job;

	if (d->engine->ops->extents) {
		d->engine->ops->extents(d->engine, r);
		return;
	}
	if (d->file->is_block_device) {
		req_complete(r, extents_add(r->extents, r->range, 0) == -1 ? ENOMEM : 0);
		return;
	}
	if (r->extents->max)
		max = MIN(max, r->extents->max);
	job = calloc(1, sizeof(*job));
	if (!job) {
		req_complete(r, ENOMEM);
		return;
	}
	*job = (struct job){ .offload = { on_work, on_done, NULL }, .req = r, .fd = d->file->fd, .range = r->range };
	extents_init(&job->found, max);
	if (offload_submit(d->loop, &job->offload) == -1) {
		free(job);
		req_complete(r, ENOMEM);
	}
}
