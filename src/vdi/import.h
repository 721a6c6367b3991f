/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * import - this disk as the leaf of a mirror from a SMAPIv1 host: what vdi-private.h's files know of it
 */
#ifndef SXM_VDI_IMPORT_H
#define SXM_VDI_IMPORT_H

#include <sys/queue.h>

#include "disk/disk.h"
#include "overlay/overlay-layer.h"
#include "vdi/vdi.h"

typedef void step_fn(struct vdi *v);

struct job_waiter {
	vdi_done_fn *done;
	void *arg;
	TAILQ_ENTRY(job_waiter) link;
};

/* Who will be there soon, so that the process stays for him, for a while. */
enum import_expects {
	IMPORT_NOBODY,
	IMPORT_COMPOSE,            /* what was mirrored is sealed, and the image is closed */
	IMPORT_GUEST,              /* the image was composed and is open, and nothing is merged yet */
};

struct import {
	enum import_expects expects;
	struct loop_timer *patience; /* owned */
	unsigned expect_ms;
	struct layer *overlay;     /* owned; over the disk. NULL: there is none, or it is merged */
	bool is_leaf;              /* its overlay is of another process, and it is not composed */
	TAILQ_HEAD(, job_waiter) merge_waiters;
	step_fn *closed, *sealed;  /* import_close()'s, import_seal()'s */
	/* between work on a pool thread and the loop */
	struct overlay_file *file; /* owned */
	struct disk_file *data;    /* owned */
	bool opened_leaf;
};

struct layer *import_base(const struct vdi *v); /* the disk, or what is over it */
bool import_is_merging(const struct vdi *v);
bool import_is_collecting(const struct vdi *v);
int import_open(struct vdi *v, const struct disk_spec *disk, struct error *e); /* on the pool: v->opened is open */
void import_drop_opened(struct vdi *v);
int import_put(struct vdi *v, struct error *e);   /* v->overlay over v->disk, where there is one; -1 + e: that is closed, too */
void import_drop(struct vdi *v);                  /* nothing is in flight */
void import_close(struct vdi *v, step_fn *next);  /* drained; v->step stays. v->overlay is gone then */
void import_seal(struct vdi *v, step_fn *next);   /* a step: v->job->d, perhaps the last importer, was cut; all is flushed */
/* Whether the domain may not have it yet: + e. */
bool import_refuses(const struct vdi *v, const char *domain, struct error *e);
int import_check_merged(const struct vdi *v, struct error *e); /* the image has everything; -1 + e: EAGAIN, EPERM */
void import_met(struct vdi *v);         /* whoever is expected is here, or need not be waited for: the running job has the disk */
void import_go(struct vdi *v);          /* ... and it is served: merging may begin */
void import_begin(struct vdi *v);       /* JOB_IMPORT */
void import_begin_expect(struct vdi *v); /* JOB_EXPECT */
void import_begin_merge(struct vdi *v); /* JOB_MERGE */
void import_begin_end(struct vdi *v);   /* JOB_MERGED */

#endif
