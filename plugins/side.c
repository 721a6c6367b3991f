/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * side - see side.h
 *
 * That the lock is to be had does not say that nobody has the image: while its files are changed it is closed, and its guests
 * wait (vdi/pause). So its process is asked, too: they would wait for us.
 *
 * Of a raw file the file system knows where its data is: holes, and the blocks of the medium, which two files may share.
 */
#include "plugins/datapath.h"
#include "plugins/side.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

void side_close(struct side *s)
{
	if (s->fd >= 0)
		close(s->fd);
	free(s->block);
	side_map_free(s->map);
}

int side_open(struct side *s, const struct image *i, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);
	struct stat st;

	*s = (struct side) { .fd = -1, .block = malloc(SIDE_BLOCK_BYTES) };
	if (!path || !s->block)
		return error_set(e, ENOMEM, "out of memory");
	if (datapath_merge(path, e) == -1)
		return -1;
	s->fd = image_claim_shared(i, e);
	if (s->fd < 0 ? e->err == EBUSY : datapath_has_writer(path))
		return error_set(e, EBUSY, "volume %s is active for writing; compare a snapshot of it", i->key);
	if (s->fd < 0)
		return -1;
	/* What is still on its way has no place on the medium, or its old one. */
	if (fsync(s->fd) == -1 || fstat(s->fd, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	s->bytes = st.st_size;
	if (i->ops == &image_raw)
		return 0;
	s->map = side_map_new(i, path, s->fd, &s->bytes, e);
	return s->map ? 0 : -1;
}

off_t side_next_data(const struct side *s, off_t at, off_t end)
{
	off_t data;

	if (s->map)
		return side_map_next_data(s->map, at, end);
	data = at < s->bytes ? lseek(s->fd, at, SEEK_DATA) : end;
	return data >= 0 ? MIN(data, end) : errno == ENXIO ? end : at;
}

bool side_find(const struct side *s, off_t at, struct side_place *place, off_t *end)
{
	struct {
		struct fiemap head;
		struct fiemap_extent extent;
	} map = { .head = { .fm_start = (uint64_t)at, .fm_length = SIDE_BLOCK_BYTES, .fm_extent_count = 1 } };
	const uint32_t odd = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_NOT_ALIGNED;

	if (s->map)
		return side_map_find(s->map, at, place, end);
	if (ioctl(s->fd, FS_IOC_FIEMAP, &map.head) == -1 || map.head.fm_mapped_extents != 1 || (map.extent.fe_flags & odd) ||
	    map.extent.fe_logical > (uint64_t)at)
		return false;
	*place = (struct side_place) { .offset = map.extent.fe_physical + ((uint64_t)at - map.extent.fe_logical) };
	*end = (off_t)(map.extent.fe_logical + map.extent.fe_length);
	return true;
}

int side_read(struct side *s, off_t at, struct error *e)
{
	size_t done = 0;

	if (s->map)
		return side_map_read(s->map, at, s->block, e);
	while (done < SIDE_BLOCK_BYTES) {
		ssize_t n = pread(s->fd, s->block + done, SIDE_BLOCK_BYTES - done, at + (off_t)done);

		if (n < 0 && errno != EINTR)
			return error_errno(e, errno, "read");
		if (n == 0)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	memset(s->block + done, 0, SIDE_BLOCK_BYTES - done);
	return 0;
}
