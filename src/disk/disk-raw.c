/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-raw - a file or block device as the bottom layer
 *
 *      submit -> begin -> [wait: disk-order] -> step -> engine -> on_moved -> step ... -> finish
 *                                                '----- one piece at a time -----'
 *
 * Requests name bytes, O_DIRECT moves blocks.  An aligned request in aligned memory is one piece, straight between the
 * submitter's buffer and the file: no copy, no allocation.  Any other falls into pieces:
 *
 *      bytes     |  . . [x x x x x x x x x x x] . .  |
 *      blocks    |-------|-------|-------|-------|
 *      write       RMW      straight      RMW          RMW: read the block, change it, write it back (see disk-order)
 *      read        whole blocks through a bounce
 *
 * Memory the kernel does not take is copied through a bounce as well.  There are DISK_BOUNCES of them; a piece that finds
 * none waits for one, holding nothing that another piece needs.  What lies in the tail (disk-open.c) goes through tail_fd.
 *
 * Fails: an error of the engine ends the request with it; what its earlier pieces wrote stays written, as with any disk.
 * Flush.  After a failed fdatasync the kernel forgets: the pages it could not write count as clean and the next fdatasync
 * says "good" ("fsyncgate").  A guest that tries again would believe it.  So where the page cache stands between us and the
 * medium such an error is kept and every later flush ends with it, until the image is opened anew; there also FUA is a write
 * and a sync, so that a write's own error (ENOSPC) is not taken for a loss.  With O_DIRECT nothing was cached and each
 * sync's own answer is the truth.  Where nothing was written since a good one began there is nothing to flush, and nothing is:
 * at the end of a move the same disk is flushed for the barrier, for PREPARE and when its domain goes.
 * Invariant: no two writers under way clash (disk-order); every op is free, in the engine, waiting in order, or waiting for
 * a bounce.
 */
#include "disk/disk-raw.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "disk/disk-cache.h"
#include "disk/disk-extents.h"
#include "disk/disk-nbd.h"
#include "disk/disk-zero.h"

#define OPS_PER_STEP 64
#define ZERO_GRAIN 4096u /* file systems zero the rest of such a block through the page cache */

struct disk_step {
	SLIST_ENTRY(disk_step) link;
	struct disk_op op[OPS_PER_STEP];
};

static void step(struct disk_op *op);

/* Grows to the deepest queue ever seen, and stays. */
static bool add_ops(struct disk *d)
{
	struct disk_step *s = calloc(1, sizeof(*s));

	if (!s)
		return false;
	SLIST_INSERT_HEAD(&d->steps, s, link);
	for (size_t i = 0; i < OPS_PER_STEP; i++) {
		s->op[i].disk = d;
		TAILQ_INSERT_TAIL(&d->free, &s->op[i], link);
	}
	return true;
}

static struct disk_op *take_op(struct disk *d)
{
	struct disk_op *op;

	if (UNLIKELY(TAILQ_EMPTY(&d->free)) && !add_ops(d))
		return NULL;
	op = TAILQ_FIRST(&d->free);
	TAILQ_REMOVE(&d->free, op, link);
	return op;
}

static void give_bounce_back(struct disk_op *op)
{
	struct disk *d = op->disk;
	struct disk_op *next = TAILQ_FIRST(&d->wants_bounce);

	d->bounce[d->bounces++] = op->bounce;
	op->bounce = NULL;
	if (next) {
		TAILQ_REMOVE(&d->wants_bounce, next, link);
		step(next);
	}
}

static void finish(struct disk_op *op, int err)
{
	struct disk *d = op->disk;
	struct req *r = op->req;
	struct disk_slot *slot;

	if (op->is_writer) {
		d->writers--;
		disk_order_leave(&d->order, &op->slot);
	}
	if (op->bounce)
		give_bounce_back(op);
	TAILQ_INSERT_HEAD(&d->free, op, link);
	if (UNLIKELY(err == ENGINE_LATE))
		disk_lease_park(d, r);
	else
		req_complete(r, err);
	if (LIKELY(TAILQ_EMPTY(&d->order.waiting)))
		return;
	while ((slot = disk_order_next(&d->order)))
		step(container_of(slot, struct disk_op, slot));
}

static uint8_t *memory_at(const struct req *r, uint64_t position)
{
	return r->data->data + r->data_offset + (position - r->range.start);
}

/* The piece arrived in the bounce: RMW changes it and sends it back, a read is done with it. */
static void use_bounce(struct disk_op *op)
{
	const struct disk_file *f = op->disk->file;
	struct req *r = op->req;
	struct range blocks = range_widen(op->piece, f->align);
	uint8_t *part = op->bounce + (op->piece.start - blocks.start);
	size_t bytes = range_length(op->piece);

	if (op->move == DISK_MOVE_BOUNCE_IN) {
		memcpy(memory_at(r, op->piece.start), part, bytes);
		return;
	}
	if (r->op == REQ_WRITE)
		memcpy(part, memory_at(r, op->piece.start), bytes);
	else
		memset(part, 0, bytes);
}

static void keep_sync_error(struct disk *d, int err)
{
	log_error("%s: what was written could not be made durable: %s", d->file->path, strerror(err));
	if (d->is_cached)
		d->lost_err = err;
}

static void on_failed(struct disk_op *op, int err)
{
	if (err == ENGINE_LATE) {
		finish(op, err);
		return;
	}
	if (op->move == DISK_MOVE_FALLOCATE && disk_zero_learn(op, err)) {
		step(op);
		return;
	}
	if (op->move == DISK_MOVE_SYNC)
		keep_sync_error(op->disk, err);
	finish(op, err);
}

static void on_moved(struct engine_op *io, int err)
{
	struct disk_op *op = container_of(io, struct disk_op, io);

	if (UNLIKELY(err)) {
		on_failed(op, err);
		return;
	}
	switch (op->move) {
	case DISK_MOVE_SYNC:
		if (!op->is_writer)
			op->disk->flushed = MAX(op->disk->flushed, op->covers);
		finish(op, op->disk->lost_err);
		return;
	case DISK_MOVE_RMW_IN:
		use_bounce(op);
		disk_op_issue(op, DISK_MOVE_BOUNCE_OUT, op->disk->file->fd, range_widen(op->piece, op->disk->file->align),
			      op->bounce);
		return;
	case DISK_MOVE_BOUNCE_IN:
		use_bounce(op);
		give_bounce_back(op);
		break;
	case DISK_MOVE_BOUNCE_OUT:
		give_bounce_back(op);
		break;
	case DISK_MOVE_DIRECT:
	case DISK_MOVE_FALLOCATE:
		break;
	}
	op->cursor = op->piece.end;
	step(op);
}

void disk_op_issue(struct disk_op *op, enum disk_move move, int fd, struct range where, void *memory)
{
	struct disk *d = op->disk;
	static const enum engine_opcode opcode[] = {
		[DISK_MOVE_BOUNCE_IN] = ENGINE_READ, [DISK_MOVE_RMW_IN] = ENGINE_READ, [DISK_MOVE_BOUNCE_OUT] = ENGINE_WRITE,
		[DISK_MOVE_FALLOCATE] = ENGINE_FALLOCATE, [DISK_MOVE_SYNC] = ENGINE_FLUSH,
	};

	op->move = move;
	op->io.opcode = move == DISK_MOVE_DIRECT ? (op->req->op == REQ_READ ? ENGINE_READ : ENGINE_WRITE) : opcode[move];
	op->io.fd = fd;
	op->io.offset = where.start;
	op->io.length = range_length(where);
	op->io.buffer = memory;
	op->io.is_fua = op->io.opcode == ENGINE_WRITE && (op->req->flags & REQ_FUA) && !op->must_sync;
	op->io.done = on_moved;
	d->engine->ops->submit(d->engine, &op->io);
}

/* Chooses the piece and starts it. The bounce is there. */
static void move_bounced(struct disk_op *op, const uint8_t *memory, uint64_t end)
{
	const struct disk_file *f = op->disk->file;
	uint64_t mask = f->align - 1, start = op->cursor, whole = end & ~mask;
	struct range blocks;

	if (op->req->op == REQ_READ) {
		op->piece = (struct range){ start, MIN(end, (start & ~mask) + DISK_BOUNCE_BYTES) };
		disk_op_issue(op, DISK_MOVE_BOUNCE_IN, f->fd, range_widen(op->piece, f->align), op->bounce);
		return;
	}
	if ((start & mask) == 0 && start < whole) {
		op->piece = (struct range){ start, MIN(whole, start + DISK_BOUNCE_BYTES) };
		memcpy(op->bounce, memory, range_length(op->piece));
		disk_op_issue(op, DISK_MOVE_BOUNCE_OUT, f->fd, op->piece, op->bounce);
		return;
	}
	op->piece = (struct range){ start, MIN(end, (start | mask) + 1) };
	blocks = range_widen(op->piece, f->align);
	assert(range_contains(op->slot.touched, blocks) && op->slot.is_exclusive);
	disk_op_issue(op, DISK_MOVE_RMW_IN, f->fd, blocks, op->bounce);
}

void disk_op_move(struct disk_op *op, void *memory, uint64_t end)
{
	struct disk *d = op->disk;
	const struct disk_file *f = d->file;
	uint64_t mask = f->align - 1, whole;

	if (UNLIKELY(op->cursor >= f->tail_start)) {
		op->piece = (struct range){ op->cursor, end };
		disk_op_issue(op, DISK_MOVE_DIRECT, f->tail_fd >= 0 ? f->tail_fd : f->fd, op->piece, memory);
		return;
	}
	end = MIN(end, f->tail_start);
	whole = end & ~mask;
	if (LIKELY((op->cursor & mask) == 0 && op->cursor < whole && ((uintptr_t)memory & (f->memory_align - 1)) == 0 &&
		   (whole == end || op->req->op != REQ_READ || whole - op->cursor > DISK_BOUNCE_BYTES))) {
		op->piece = (struct range){ op->cursor, whole };
		disk_op_issue(op, DISK_MOVE_DIRECT, f->fd, op->piece, memory);
		return;
	}
	if (d->bounces == 0) {
		TAILQ_INSERT_TAIL(&d->wants_bounce, op, link);
		return;
	}
	op->bounce = d->bounce[--d->bounces];
	move_bounced(op, memory, end);
}

static void step(struct disk_op *op)
{
	struct req *r = op->req;

	if (op->cursor == r->range.end) {
		if (UNLIKELY(op->must_sync))
			disk_op_issue(op, DISK_MOVE_SYNC, op->disk->file->fd, (struct range){ 0, 0 }, NULL);
		else
			finish(op, 0);
	} else if (r->op == REQ_READ || r->op == REQ_WRITE) {
		disk_op_move(op, memory_at(r, op->cursor), r->range.end);
	} else {
		disk_zero_step(op);
	}
}

/* What a writer touches beyond its own bytes decides whether it must be alone there. The tail is written by bytes. */
static bool enter_order(struct disk_op *op)
{
	struct disk *d = op->disk;
	const struct disk_file *f = d->file;
	struct range all = op->req->range, part = all, blocks;
	uint64_t grain = MAX(f->align, f->fallocate_align);

	if (op->req->op == REQ_WRITE) {
		grain = f->align;
		part = range_clip(all, (struct range){ 0, f->tail_start });
	} else if (!f->is_block_device) {
		grain = MAX(grain, ZERO_GRAIN);
	}
	op->slot.is_exclusive = !range_is_empty(part) && !range_is_aligned(part, grain);
	op->slot.touched = all;
	if (UNLIKELY(op->slot.is_exclusive)) {
		blocks = range_widen(part, grain);
		op->slot.touched = (struct range){ blocks.start, MAX(blocks.end, all.end) };
		d->is_cached |= op->req->op != REQ_WRITE && !f->is_block_device;
	}
	return disk_order_enter(&d->order, &op->slot);
}

static void on_dropped(struct disk_op *op, int err)
{
	if (err && err != ENOMEM)
		keep_sync_error(op->disk, err);
	if (err)
		finish(op, err);
	else
		step(op);
}

static void begin(struct disk *d, struct req *r)
{
	bool is_fua = r->op != REQ_READ && (r->flags & REQ_FUA);
	struct disk_op *op;

	if (UNLIKELY(is_fua && d->lost_err)) {
		req_complete(r, d->lost_err);
		return;
	}
	op = take_op(d);
	if (UNLIKELY(!op)) {
		req_complete(r, ENOMEM);
		return;
	}
	op->req = r;
	op->cursor = r->range.start;
	op->is_writer = r->op != REQ_READ;
	op->must_sync = is_fua && (r->op != REQ_WRITE || d->is_cached);
	if (op->is_writer) {
		d->changes++;
		d->writers++;
		if (!enter_order(op))
			return;
	}
	if (UNLIKELY((r->flags & REQ_UNCACHED) && !op->is_writer && disk_cache_is_between(d, r->range)))
		disk_cache_drop(op, on_dropped);
	else
		step(op);
}

/* Others' words about what they keep are asked for each time: a server may have died since. */
static bool is_flushed(const struct disk *d)
{
	return !d->lost_err && !d->file->is_nbd && d->writers == 0 && d->flushed == d->changes;
}

static void flush(struct disk *d, struct req *r)
{
	struct disk_op *op = d->lost_err || is_flushed(d) ? NULL : take_op(d);

	if (!op) {
		req_complete(r, d->lost_err || is_flushed(d) ? d->lost_err : ENOMEM);
		return;
	}
	op->req = r;
	op->is_writer = false;
	op->must_sync = false;
	op->covers = d->writers ? 0 : d->changes;
	disk_op_issue(op, DISK_MOVE_SYNC, d->file->fd, (struct range){ 0, 0 }, NULL);
}

void disk_submit(struct layer *l, struct req *r)
{
	struct disk *d = disk_of(l);

	if (UNLIKELY(d->file->is_leased) && disk_lease_parks(d, r))
		return;
	switch (r->op) {
	case REQ_READ:
	case REQ_WRITE:
	case REQ_ZERO:
		begin(d, r);
		break;
	case REQ_TRIM:
		/* Nothing to give back to: what is there stays, which TRIM allows. */
		if (!l->geometry.trim_reads_zero)
			req_complete(r, 0);
		else
			begin(d, r);
		break;
	case REQ_FLUSH:
		flush(d, r);
		break;
	case REQ_EXTENTS:
		disk_extents(d, r);
		break;
	case REQ_CACHE:
		req_complete(r, 0);
		break;
	}
}

static void release(struct layer *l)
{
	struct disk *d = disk_of(l);
	struct disk_step *s;

	assert(TAILQ_EMPTY(&d->parked));
	d->engine->ops->free(d->engine);
	disk_file_close(d->file);
	while ((s = SLIST_FIRST(&d->steps))) {
		SLIST_REMOVE_HEAD(&d->steps, link);
		free(s);
	}
	free(d->bounce_memory);
	free(d);
}

static const struct layer_ops raw_ops = { .name = "disk", .submit = disk_submit, .close = release };

static bool make_bounces(struct disk *d)
{
	uint32_t align = MAX(d->file->align, d->file->memory_align);

	if (align == 1)
		return true;
	d->bounce_memory = aligned_alloc(MAX(4096u, align), (size_t)DISK_BOUNCES * DISK_BOUNCE_BYTES);
	if (!d->bounce_memory)
		return false;
	for (; d->bounces < DISK_BOUNCES; d->bounces++)
		d->bounce[d->bounces] = d->bounce_memory + (size_t)d->bounces * DISK_BOUNCE_BYTES;
	return true;
}

struct layer *disk_layer_over(struct loop *l, struct disk_file *f, struct engine *g, struct error *e)
{
	struct disk *d = calloc(1, sizeof(*d));
	struct geometry geometry = {
		.size_bytes = f->size_bytes, .block_bytes = f->block_bytes, .optimal_bytes = f->optimal_bytes,
		.is_read_only = f->is_read_only, .can_trim = f->can_punch, .can_zero = !f->is_read_only,
		.trim_reads_zero = f->can_punch,
	};

	if (!d)
		goto fail;
	*d = (struct disk){ .loop = l, .file = f, .engine = g, .is_cached = (!f->is_direct && !f->is_nbd) || f->tail_fd >= 0,
			    .changes = 1 /* of whoever had it open before */ };
	layer_init(&d->layer, &raw_ops, NULL, &geometry);
	disk_order_init(&d->order);
	TAILQ_INIT(&d->free);
	TAILQ_INIT(&d->wants_bounce);
	TAILQ_INIT(&d->parked);
	g->until_ns = f->is_leased ? &f->lease_until_ns : NULL;
	SLIST_INIT(&d->steps);
	if (!make_bounces(d) || !add_ops(d))
		goto fail;
	return &d->layer;
fail:
	error_set(e, ENOMEM, "out of memory for the disk %s", f->path);
	if (d)
		free(d->bounce_memory);
	free(d);
	g->ops->free(g);
	disk_file_close(f);
	return NULL;
}

static struct engine *choose_engine(struct loop *l, struct disk_file *f, struct error *e)
{
	const char *asked = getenv("SXM_ENGINE");
	enum disk_engine choice = f->engine;
	struct error why = { 0 };
	struct engine *g;

	if (f->is_nbd)
		return engine_nbd_new(l, take_ptr(&f->nbd), e);
	if (choice == DISK_ENGINE_AUTO && asked && strcmp(asked, "pool") == 0)
		choice = DISK_ENGINE_POOL;
	if (choice == DISK_ENGINE_AUTO && asked && strcmp(asked, "uring") == 0)
		choice = DISK_ENGINE_URING;
	if (choice == DISK_ENGINE_POOL || f->is_leased) /* what io_uring has queued cannot be called back */
		return engine_pool_new(l, e);
	g = engine_uring_new(l, &why);
	if (g || choice == DISK_ENGINE_URING) {
		if (!g)
			error_set(e, why.err, "%s", why.text);
		return g;
	}
	log_info("disk I/O goes through threads: %s", why.text);
	return engine_pool_new(l, e);
}

struct layer *disk_layer(struct loop *l, struct disk_file *f, struct error *e)
{
	struct engine *g = choose_engine(l, f, e);
	struct layer *disk;

	if (!g) {
		disk_file_close(f);
		return NULL;
	}
	disk = disk_layer_over(l, f, g, e);
	if (disk)
		log_info("%s: %llu bytes, %s, %s%s", f->path, (unsigned long long)f->size_bytes, disk_engine_name(disk),
			 f->is_nbd ? "local export" : f->is_direct ? "direct" : "buffered", f->is_read_only ? ", read-only" : "");
	return disk;
}

const char *disk_engine_name(const struct layer *disk)
{
	return disk_of(disk)->engine->ops->name;
}

bool disk_is_direct(const struct layer *disk)
{
	return disk_of(disk)->file->is_direct;
}

int disk_refresh_size(struct layer *disk, struct error *e)
{
	struct disk *d = disk_of(disk);
	struct disk_file *f = d->file, was = *f;

	if (disk_file_measure(f, e) == -1)
		goto fail;
	if (f->size_bytes < disk->geometry.size_bytes) {
		error_set(e, EINVAL, "%s shrank from %llu to %llu bytes while it is in use", f->path,
			  (unsigned long long)disk->geometry.size_bytes, (unsigned long long)f->size_bytes);
		goto fail;
	}
	/* Bytes of the old tail may now go the direct way: not while some are under way through the page cache. */
	if (disk->in_flight && f->tail_start != was.tail_start && was.tail_start != was.size_bytes) {
		error_set(e, EBUSY, "%s grew, but its last block is being used", f->path);
		goto fail;
	}
	d->is_cached |= f->tail_fd >= 0;
	disk->geometry.size_bytes = f->size_bytes;
	return 0;
fail:
	f->size_bytes = was.size_bytes;
	f->tail_start = was.tail_start;
	return -1;
}
