/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-file - an opened, locked image and what was learnt about it (private to this room)
 */
#ifndef SXM_DISK_DISK_FILE_H
#define SXM_DISK_DISK_FILE_H

#include <stdatomic.h>

#include "disk/disk.h"

struct disk_file {
	char *path;                /* owned; for people */
	int fd;                    /* owned; carries the lock */
	int tail_fd;               /* owned; a buffered description of the same file, -1 while there is no tail */
	uint64_t size_bytes;
	uint64_t tail_start;       /* from here on through tail_fd; size_bytes when there is no tail */
	uint32_t align;            /* of offsets and lengths on fd: a power of two, 1 when buffered */
	uint32_t memory_align;     /* of buffers on fd */
	uint32_t fallocate_align;  /* what fallocate() takes: 1 on files, the logical block on devices */
	uint32_t block_bytes;      /* smallest unit written without a read */
	uint32_t optimal_bytes;
	bool is_read_only;
	bool is_direct;
	bool is_block_device;      /* is_nbd too: it behaves like one */
	bool is_nbd;               /* fd is the file that names the export, and carries the lock */
	struct disk_nbd *nbd;      /* owned; the engine's, once there is one */
	bool is_leased;
	_Atomic uint64_t lease_until_ns;
	bool can_punch;            /* PUNCH_HOLE is there: bytes can be given back, and read as zero then */
	enum disk_engine engine;   /* as the spec asked */
};

/* Takes the size from the file, and opens or closes the tail as it asks for. Blocks as long as fstat() and open() do. */
int disk_file_measure(struct disk_file *f, struct error *e);
/* flock(), for at most wait_ms. -1 + e: EBUSY names the path. */
int disk_file_lock(int fd, const char *path, bool is_shared, unsigned wait_ms, struct error *e);

#endif
