/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-zero - three ways to make zeroes
 *
 *      TRIM, ZERO that may trim:  PUNCH_HOLE --unsupported--> ZERO_RANGE --unsupported--> zeroes written
 *      ZERO:                                                  ZERO_RANGE --unsupported--> zeroes written
 *
 * What the kernel does not support is remembered.  PUNCH_HOLE gives the space back and reads as zero, on files and on block
 * devices alike (there it is a WRITE ZEROES that may unmap); a discard that promises nothing is not used.  ZERO_RANGE keeps
 * the space allocated: a guest that asked for zeroes and not for a trim must not find the disk full later.
 *
 * A device takes whole logical blocks only, so the edges of a range are written there.  A file takes any bytes: the kernel
 * zeroes partial blocks through the page cache, holding off direct I/O to the file while it does, and a later direct write
 * or read of that block writes the cached page out first.
 *
 * Long ranges go in pieces, as the kernel holds the inode while it works and the guest's writes wait meanwhile.
 * If the medium promised trim_reads_zero at open but then refuses, zeroes are written: slow, but the promise is kept.
 */
#include "disk/disk-zero.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "base/log.h"

#define FALLOCATE_MAX_BYTES (256 * MiB)
#define ZEROES_BYTES (256 * 1024u)

/* Never written: every page of it is the kernel's one page of zeroes. */
static uint8_t zeroes[ZEROES_BYTES] __attribute__((aligned(4096)));

/* 0: by hand. */
static int choose_mode(const struct disk_op *op)
{
	const struct disk *d = op->disk;
	bool may_trim = op->req->op == REQ_TRIM || (op->req->flags & REQ_MAY_TRIM);

	if (may_trim && d->file->can_punch && !d->no_punch)
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	if (!d->no_zero_range)
		return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
	return 0;
}

void disk_zero_step(struct disk_op *op)
{
	uint64_t unit = op->disk->file->fallocate_align, end = op->req->range.end;
	uint64_t whole = end & ~(unit - 1);
	int mode = choose_mode(op);

	if (mode && (op->cursor & (unit - 1)) == 0 && op->cursor < whole) {
		op->io.mode = mode;
		op->piece = (struct range){ op->cursor, MIN(whole, op->cursor + FALLOCATE_MAX_BYTES) };
		disk_op_issue(op, DISK_MOVE_FALLOCATE, op->disk->file->fd, op->piece, NULL);
		return;
	}
	if (mode && (op->cursor & (unit - 1)))
		end = MIN(end, (op->cursor | (unit - 1)) + 1);
	disk_op_move(op, zeroes, MIN(end, op->cursor + ZEROES_BYTES));
}

bool disk_zero_learn(struct disk_op *op, int err)
{
	struct disk *d = op->disk;
	bool is_punch = op->io.mode & FALLOC_FL_PUNCH_HOLE;
	bool *no = is_punch ? &d->no_punch : &d->no_zero_range;

	if (err != EOPNOTSUPP && err != ENOSYS)
		return false;
	if (!*no)
		log_info("%s cannot %s: the next best way is taken from now on", d->file->path,
			 is_punch ? "punch holes" : "zero a range");
	*no = true;
	return true;
}
