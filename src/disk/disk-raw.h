/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-raw - the disk layer and its requests under way (private to this room)
 */
#ifndef SXM_DISK_DISK_RAW_H
#define SXM_DISK_DISK_RAW_H

#include <sys/queue.h>

#include "block/layer.h"
#include "disk/disk-file.h"
#include "disk/disk-order.h"
#include "disk/engine.h"

#define DISK_BOUNCE_BYTES (128 * 1024u)
#define DISK_BOUNCES 8

/* What is in the engine's hands now. */
enum disk_move {
	DISK_MOVE_DIRECT,    /* between the submitter's memory and the file */
	DISK_MOVE_BOUNCE_IN, /* whole blocks into the bounce, for a read */
	DISK_MOVE_RMW_IN,    /* the one block a write changes a part of */
	DISK_MOVE_BOUNCE_OUT,
	DISK_MOVE_FALLOCATE,
	DISK_MOVE_SYNC,      /* a FLUSH, or the durable end of a FUA request */
};

/* One request under way: it moves piece by piece, cursor is where the next one begins. */
struct disk_op {
	struct engine_op io;
	struct disk *disk;     /* borrowed */
	struct req *req;
	struct disk_slot slot; /* writers */
	struct range piece;
	uint64_t cursor;
	uint8_t *bounce;       /* one of the disk's, while a piece needs it */
	enum disk_move move;
	bool is_writer;
	bool must_sync;        /* FUA that the write itself does not bring */
	uint64_t covers;       /* a flush: of the disk's changes */
	TAILQ_ENTRY(disk_op) link; /* free, or waiting for a bounce */
};
TAILQ_HEAD(disk_op_list, disk_op);

struct disk_step; /* one allocation of ops */

struct disk {
	struct layer layer;
	struct loop *loop;        /* borrowed */
	struct disk_file *file;   /* owned */
	struct engine *engine;    /* owned */
	struct disk_order order;
	struct disk_op_list free; /* in the steps */
	struct disk_op_list wants_bounce;
	SLIST_HEAD(, disk_step) steps; /* owned */
	uint8_t *bounce_memory;   /* owned; NULL where nothing is ever unaligned */
	uint8_t *bounce[DISK_BOUNCES]; /* free ones, in bounce_memory */
	unsigned bounces;
	bool no_punch, no_zero_range; /* the kernel said so */
	bool is_cached;           /* the page cache may hold bytes of ours */
	int lost_err;             /* see disk-raw.c: what a failed sync lost is lost */
	uint64_t changes, flushed; /* begun by writers so far; ... of them a good flush covers all */
	unsigned writers;         /* under way */
	struct req_list parked;   /* the lease is over: until it is renewed */
};

static inline struct disk *disk_of(const struct layer *l)
{
	return container_of(l, struct disk, layer);
}

/* Makes the layer over this engine. Takes f and g, also when it fails. */
struct layer *disk_layer_over(struct loop *l, struct disk_file *f, struct engine *g, struct error *e);

/* disk-lease.c. True: r waits for the lease. */
bool disk_lease_parks(struct disk *d, struct req *r);
void disk_lease_park(struct disk *d, struct req *r);
/* disk-raw.c: as layer_forward() does. */
void disk_submit(struct layer *l, struct req *r);

/* For disk-zero.c: a piece from the cursor on, at most to end; memory is where the byte at the cursor lies. */
void disk_op_move(struct disk_op *op, void *memory, uint64_t end);
void disk_op_issue(struct disk_op *op, enum disk_move move, int fd, struct range where, void *memory);

#endif
