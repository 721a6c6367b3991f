/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * engine - how bytes get to a file descriptor: io_uring or threads, which differ in nothing else (or to an NBD server)
 *
 * engine_submit() queues; the batch leaves in the loop's before-sleep hook.  done() is called from the loop, never from
 * submit's stack.  Short transfers are continued by the engine: result is 0 or a positive errno.
 */
#ifndef SXM_DISK_ENGINE_H
#define SXM_DISK_ENGINE_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "base/compiler.h"
#include "base/error.h"
#include "loop/loop.h"

enum engine_opcode { ENGINE_READ, ENGINE_WRITE, ENGINE_FLUSH, ENGINE_FALLOCATE };

struct engine_op {
	enum engine_opcode opcode;
	int fd;
	int mode;        /* FALLOCATE */
	uint64_t offset; /* bytes */
	uint64_t length; /* bytes */
	void *buffer;    /* READ, WRITE; the submitter's until done() */
	bool is_fua;     /* WRITE: RWF_DSYNC */
	void (*done)(struct engine_op *op, int err);
	/* the engine's own */
	uint64_t moved;
	void *private_;
	STAILQ_ENTRY(engine_op) link;
};

struct engine;
struct req;
struct engine_ops {
	const char *name;
	void (*submit)(struct engine *g, struct engine_op *op);
	/* Answers a REQ_EXTENTS. NULL: the file itself is asked (disk-extents.c). */
	void (*extents)(struct engine *g, struct req *r);
	void (*free)(struct engine *g); /* nothing in flight */
};
struct engine {
	const struct engine_ops *ops;
	/* Borrowed from disk-file; NULL: no lease. What is not with the kernel by then (lease_now_ns()) ends with ENGINE_LATE. */
	const _Atomic uint64_t *until_ns;
};
#define ENGINE_LATE EOWNERDEAD

/* NULL + e where the kernel or the build has none. */
struct engine *engine_uring_new(struct loop *l, struct error *e);
struct engine *engine_pool_new(struct loop *l, struct error *e);

#endif
