/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-clone - a part of the image becomes a part of another file of its file system, sharing the blocks
 *
 * The kernel keeps the image locked while it shares a range, some 15 us for each extent (XFS), and writes wait for it.  So the
 * range is cut where a few dozen extents end: where they do is asked for first (FIEMAP), and where that cannot be asked, a
 * part is small.
 */
#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "disk/disk-raw.h"

#define EXTENTS 96u
#define BLIND_BYTES (4 * MiB)

struct map {
	struct fiemap head;
	struct fiemap_extent extent[EXTENTS];
};

/* Where the first EXTENTS extents of r end, or r does. */
static uint64_t find_end(int fd, struct range r, uint64_t align)
{
	struct map map = { .head = { .fm_start = r.start, .fm_length = range_length(r), .fm_extent_count = EXTENTS } };
	const struct fiemap_extent *last;
	uint64_t end;

	if (ioctl(fd, FS_IOC_FIEMAP, &map.head) != 0)
		return MIN(r.end, r.start + BLIND_BYTES);
	if (map.head.fm_mapped_extents < EXTENTS)
		return r.end;
	last = &map.extent[EXTENTS - 1];
	end = (last->fe_logical + last->fe_length) / align * align;
	return end <= r.start ? MIN(r.end, r.start + align) : MIN(r.end, end);
}

int disk_clone(const struct layer *disk, int to, struct range r, uint64_t align, uint64_t *end)
{
	const struct disk_file *f = disk_of(disk)->file;
	struct file_clone_range part = { .src_fd = f->fd, .src_offset = r.start, .dest_offset = r.start };

	if (f->is_block_device)
		return EOPNOTSUPP;
	*end = find_end(f->fd, r, align);
	part.src_length = *end - r.start;
	if (!part.src_length) /* would mean: to the end of the file */
		return 0;
	return ioctl(to, FICLONERANGE, &part) == 0 ? 0 : errno;
}
