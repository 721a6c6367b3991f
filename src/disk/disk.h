/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk - local storage as the bottom layer of a stack: a raw file, a block device, an export of an NBD server on this host, or a
 * qcow2 image, through a server of its own
 */
#ifndef SXM_DISK_DISK_H
#define SXM_DISK_DISK_H

#include "base/error.h"
#include "block/layer.h"
#include "loop/loop.h"

enum disk_engine { DISK_ENGINE_AUTO, DISK_ENGINE_URING, DISK_ENGINE_POOL };

struct disk_spec {
	const char *path;         /* of a file or device; of a file *.nbd: one line, nbd+unix:///EXPORT?socket=PATH; *.qcow2 */
	const char *run_dir;      /* *.qcow2 only: where its server's socket and record are */
	bool is_read_only;
	enum disk_engine engine;  /* AUTO: what SXM_ENGINE=pool|uring says; else io_uring where the kernel, asked now, has it */
	bool no_direct;           /* do not use O_DIRECT though the file allows it. SXM_DIRECT=0 too */
	unsigned lock_wait_ms;    /* how long another holder of the image may take to let go */
	bool is_sharable;         /* several hosts are meant to write to it: the lock is a shared one */
	bool is_leased;           /* nothing is read or written but while disk_set_lease() says so; O_DIRECT, or EINVAL */
	bool may_skip_lock;       /* who holds it after lock_wait_ms is dead, as the lease says: it is opened all the same */
};

/* Opens, locks (flock LOCK_EX, or LOCK_SH when read-only, on the very description that does the I/O, for life), returns the
 * layer; blocks at most lock_wait_ms (+ what open takes): call it from offload. -1 + e: EBUSY names the lock.
 * disk_open() makes what blocks; disk_layer() turns it into a layer on the loop. */
struct disk_file;
struct disk_file *disk_open(const struct disk_spec *spec, struct error *e);
void disk_file_close(struct disk_file *f); /* only when it never became a layer */
uint64_t disk_file_size(const struct disk_file *f); /* of the disk, bytes */
struct layer *disk_layer(struct loop *l, struct disk_file *f, struct error *e); /* takes f, also when it fails */

/* A *.qcow2: after its layer was closed, or its process died and none will follow: ends its server, which is clean, and waits for
 * that. Of any other disk there is nothing to do. Blocks. */
int disk_settle(const char *run_dir, struct error *e);

/* Of a *.qcow2: its server is killed, with all that it has not written yet; its record stays, so that the next one knows. For
 * an image that is another host's now. Does not block for long: one small file of SXM_RUN_DIR is read. */
void disk_abandon(const char *run_dir);

/* "io_uring", "threads" or "nbd"; whether no page cache is known to be between us and the medium. */
const char *disk_engine_name(const struct layer *disk);
bool disk_is_direct(const struct layer *disk);
/* Shares the blocks of r, or of its beginning up to *end (a multiple of align, or r's end), with the same place in `to`, a
 * file of the same file system. A positive errno: EOPNOTSUPP, EXDEV, EINVAL: they cannot be shared. Blocks: it is for the pool,
 * and the disk must stay open. */
int disk_clone(const struct layer *disk, int to, struct range r, uint64_t align, uint64_t *end);
/* is_leased: requests go to the image until then, by lease_now_ns(); those that come later, or are still on their way in this
 * process, wait for the next call. */
void disk_set_lease(struct layer *disk, uint64_t until_ns);
/* The image grew: takes the new size from the file. */
int disk_refresh_size(struct layer *disk, struct error *e);

#endif
