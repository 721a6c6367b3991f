/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-rig - a disk over a temporary file for the disk room's tests, and an engine that the test itself drives
 */
#ifndef SXM_TESTS_UNIT_DISK_RIG_H
#define SXM_TESTS_UNIT_DISK_RIG_H

#include "block/extents.h"
#include "disk/disk-raw.h"

#define RIG_DATA_BYTES (1024 * 1024u)

struct rig {
	struct loop *loop;
	struct iobuf_pool *pool;
	struct layer *disk;
	char path[128];
};

/* A file of so many bytes, all zero (a hole); fails the test when it cannot. In $TMPDIR, /var/tmp otherwise. */
void rig_file(char path[static 128], uint64_t bytes);
/* Loop and pool; no disk yet. */
void rig_init(struct rig *rig);
/* Opens rig->path, which fails the test when it does not work; adjust() (may be NULL) changes what was learnt. */
void rig_open(struct rig *rig, const struct disk_spec *spec, void (*adjust)(struct disk_file *f));
/* Closes the disk, removes the file. */
void rig_fini(struct rig *rig);

/* A request with its buffer (bytes at data->data[data_offset]); is_done says when. */
struct rig_io {
	struct rig *rig;
	struct req *req;
	bool is_done;
	int err;
	void (*on_done)(struct rig_io *io); /* may be NULL */
};
void rig_submit(struct rig *rig, struct rig_io *io, enum req_op op, uint64_t offset, uint64_t length, uint8_t fill);
uint8_t *rig_data(struct rig_io *io);
/* Runs the loop until *flag. */
void rig_wait(struct rig *rig, const bool *flag);
/* Runs what is deferred, waits for nothing. */
void rig_settle(struct rig *rig);
/* Gives the request back. */
void rig_release(struct rig_io *io);
/* Submit, wait, release: the error. A WRITE is full of fill; a READ must be. */
int rig_do(struct rig *rig, enum req_op op, uint64_t offset, uint64_t length, uint8_t fill);

/* An engine that keeps what it is given until the test lets it go. */
struct fake_engine {
	struct engine engine;
	STAILQ_HEAD(, engine_op) held;
	unsigned count;
};
void fake_init(struct fake_engine *fake);
void rig_open_fake(struct rig *rig, struct fake_engine *fake, void (*adjust)(struct disk_file *f));
/* The i-th held, oldest first; NULL: none. */
struct engine_op *fake_op(struct fake_engine *fake, unsigned i);
/* Does it to the file and ends it; with err it is not done, and ends so. */
void fake_finish(struct fake_engine *fake, struct engine_op *op, int err);

#endif
