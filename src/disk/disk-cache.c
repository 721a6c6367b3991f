/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-cache - REQ_UNCACHED where O_DIRECT is not to be had, on the thread pool
 *
 *      cached:  clean, dirty, clean --sync_file_range--> clean, clean, clean --DONTNEED--> nothing: the medium is read
 *
 * DONTNEED alone leaves dirty pages where they are, so they are written back first, these and no others.  Pages that somebody
 * dirties in between stay: the read sees them, as it must.  On tmpfs the cache is the medium, and nothing happens.
 * Fails: an error of the write-back is told here and then not again to a later fdatasync of this descriptor; whoever gets it from
 * us has to keep it (disk-raw.c, keep_sync_error).
 */
#include "disk/disk-cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "loop/offload.h"

struct job {
	struct offload offload;
	struct disk_op *op;
	void (*then)(struct disk_op *op, int err);
	int fd;
	struct range range;
	int err;
};

bool disk_cache_is_between(const struct disk *d, struct range r)
{
	if (d->file->is_nbd)
		return false; /* fd is not what is read, and what stands behind an export is its server's */
	return !d->file->is_direct || r.end > d->file->tail_start;
}

static void on_work(struct offload *o)
{
	struct job *job = container_of(o, struct job, offload);
	off_t start = (off_t)job->range.start, bytes = (off_t)range_length(job->range);
	unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;

	if (sync_file_range(job->fd, start, bytes, all) == -1 && errno != ESPIPE && errno != EINVAL)
		job->err = errno;
	if (!job->err)
		posix_fadvise(job->fd, start, bytes, POSIX_FADV_DONTNEED); /* advice: nothing can be done where it is not taken */
}

static void on_done(struct offload *o)
{
	struct job *job = container_of(o, struct job, offload);
	void (*then)(struct disk_op *, int) = job->then;
	struct disk_op *op = job->op;
	int err = job->err;

	free(job);
	then(op, err);
}

void disk_cache_drop(struct disk_op *op, void (*then)(struct disk_op *op, int err))
{
	const struct disk_file *f = op->disk->file;
	struct job *job = calloc(1, sizeof(*job));

	if (job) {
		*job = (struct job){ .offload = { on_work, on_done, NULL }, .op = op, .then = then, .range = op->req->range };
		job->fd = f->tail_fd >= 0 ? f->tail_fd : f->fd;
		if (offload_submit(op->disk->loop, &job->offload) == 0)
			return;
	}
	free(job);
	then(op, ENOMEM);
}
