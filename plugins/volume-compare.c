/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volume-compare - where two volumes differ, and which are like one another
 *
 *      both a hole -> the next data of either      both the same blocks of the medium -> their end      else read and compare
 *
 * A disk that is shorter is as one that reads as zeros from its end on.
 * Only what nobody writes can be compared: of a disk in use, a snapshot.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "plugins/image.h"
#include "plugins/volume.h"

#define BLOCK_BYTES 65536

struct side {
	int fd;      /* owned; holds the lock */
	off_t bytes;
	char *block; /* owned */
};

static void close_side(struct side *s)
{
	if (s->fd >= 0)
		close(s->fd);
	free(s->block);
}

static int open_side(struct side *s, const char *dir, const char *key, struct error *e)
{
	CLEANUP_FREE char *path = image_path(dir, key);
	struct stat st;

	*s = (struct side) { .fd = -1, .block = malloc(BLOCK_BYTES) };
	if (!path || !s->block)
		return error_set(e, ENOMEM, "out of memory");
	s->fd = lock_try_shared(path, e);
	if (s->fd < 0 && e->err == EBUSY)
		return error_set(e, EBUSY, "volume %s is active for writing; compare a snapshot of it", key);
	if (s->fd < 0)
		return -1;
	/* What is still on its way has no place on the medium, or its old one. */
	if (fsync(s->fd) == -1 || fstat(s->fd, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	s->bytes = st.st_size;
	return 0;
}

/* The first byte of data at or after `at`; the end where there is none. */
static off_t next_data(const struct side *s, off_t at, off_t end)
{
	off_t data = at < s->bytes ? lseek(s->fd, at, SEEK_DATA) : end;

	return data >= 0 ? MIN(data, end) : errno == ENXIO ? end : at;
}

/* The extent at `at`. False: not known, or not of plain blocks. */
static bool find_extent(const struct side *s, off_t at, uint64_t *physical, uint64_t *end)
{
	struct {
		struct fiemap head;
		struct fiemap_extent extent;
	} map = { .head = { .fm_start = (uint64_t)at, .fm_length = BLOCK_BYTES, .fm_extent_count = 1 } };
	const uint32_t odd = FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED | FIEMAP_EXTENT_NOT_ALIGNED;

	if (ioctl(s->fd, FS_IOC_FIEMAP, &map.head) == -1 || map.head.fm_mapped_extents != 1 || (map.extent.fe_flags & odd) ||
	    map.extent.fe_logical > (uint64_t)at)
		return false;
	*physical = map.extent.fe_physical + ((uint64_t)at - map.extent.fe_logical);
	*end = map.extent.fe_logical + map.extent.fe_length;
	return true;
}

/* How far both are the same blocks of the medium, from `at` on; `at`: not at all, or not known. */
static off_t shared_end(const struct side *a, const struct side *b, off_t at)
{
	uint64_t a_physical, b_physical, a_end, b_end;

	if (!find_extent(a, at, &a_physical, &a_end) || !find_extent(b, at, &b_physical, &b_end) || a_physical != b_physical)
		return at;
	return (off_t)MIN(a_end, b_end);
}

static int read_block(struct side *s, off_t at, struct error *e)
{
	size_t done = 0;

	while (done < BLOCK_BYTES) {
		ssize_t n = pread(s->fd, s->block + done, BLOCK_BYTES - done, at + (off_t)done);

		if (n < 0 && errno != EINTR)
			return error_errno(e, errno, "read");
		if (n == 0)
			break;
		done += n > 0 ? (size_t)n : 0;
	}
	memset(s->block + done, 0, BLOCK_BYTES - done);
	return 0;
}

static int note(struct jsonspec_ranges *list, int64_t block, struct error *e)
{
	struct jsonspec_range *last = list->count ? &list->item[list->count - 1] : NULL, *more;

	if (last && last->start + last->length == block) {
		last->length++;
		return 0;
	}
	if ((list->count & (list->count - 1)) == 0) {
		more = realloc(list->item, MAX(list->count * 2, (size_t)1) * sizeof(*more));
		if (!more)
			return error_set(e, ENOMEM, "out of memory");
		list->item = more;
	}
	list->item[list->count++] = (struct jsonspec_range) { block, 1 };
	return 0;
}

static int compare(struct side *a, struct side *b, struct jsonspec_ranges *list, struct error *e)
{
	off_t end = MAX(a->bytes, b->bytes), at = 0;

	for (;;) {
		off_t data = MIN(next_data(a, at, end), next_data(b, at, end)), shared;

		if (data >= end)
			return 0;
		at = data / BLOCK_BYTES * BLOCK_BYTES;
		shared = data == at ? shared_end(a, b, at) : at;
		if (shared - at >= BLOCK_BYTES) {
			at = shared / BLOCK_BYTES * BLOCK_BYTES;
			continue;
		}
		if (read_block(a, at, e) == -1 || read_block(b, at, e) == -1)
			return -1;
		if (memcmp(a->block, b->block, BLOCK_BYTES) != 0 && note(list, at / BLOCK_BYTES, e) == -1)
			return -1;
		at += BLOCK_BYTES;
	}
}

int volume_compare(struct smapi_call *call, char **result, struct failure *f)
{
	struct types_blocklist list = { .blocksize = BLOCK_BYTES };
	struct side a = { .fd = -1 }, b = { .fd = -1 };
	struct meta_volume m;
	struct error e;
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	r = meta_is_key(call->args.key2) ? volume_read_whole(sr.dir, call->args.key, &m, f)
					 : volume_raise_missing(call->args.key2, f);
	if (r == 0)
		meta_volume_clear(&m);
	if (r == 0 && (r = volume_read_whole(sr.dir, call->args.key2, &m, f)) == 0)
		meta_volume_clear(&m);
	if (r == 0) {
		r = open_side(&a, sr.dir, call->args.key, &e) == 0 && open_side(&b, sr.dir, call->args.key2, &e) == 0 ?
		    compare(&a, &b, &list.ranges, &e) : -1;
		r = r == 0 ? smapi_result(jsonspec_encode(&types_blocklist, &list), result, f)
			   : failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	}
	close_side(&a);
	close_side(&b);
	free(list.ranges.item);
	sr_close(&sr);
	return r;
}

/* --- similar content */

static const char *family_of(const struct meta_volume *m, const char *key)
{
	return m->family ? m->family : key;
}

static bool has_same_content(const struct meta_volume *a, const struct meta_volume *b)
{
	const char *x = jsonspec_map_get(&a->keys, "content_id"), *y = jsonspec_map_get(&b->keys, "content_id");

	return x && y && *x && strcmp(x, y) == 0;
}

/* Of those in the SR: with the same content_id, or else (is_same false) of the same family. */
static int add_alike(const char *dir, const char *key, const struct meta_volume *m, const struct jsonspec_list *keys,
		     bool is_same, struct jsonspec_list *found)
{
	for (size_t i = 0; i < keys->count; i++) {
		struct meta_volume other;
		struct error e;
		bool is_alike;

		if (strcmp(keys->item[i], key) == 0 || meta_volume_read(dir, keys->item[i], &other, &e) == -1)
			continue;
		is_alike = has_same_content(m, &other) ? is_same
				: !is_same && strcmp(family_of(m, key), family_of(&other, keys->item[i])) == 0;
		meta_volume_clear(&other);
		if (is_alike && jsonspec_list_add(found, keys->item[i]) == -1)
			return -1;
	}
	return 0;
}

static int find_alike(const char *dir, const char *key, char **result, struct failure *f)
{
	struct jsonspec_list keys, found = { 0 };
	struct meta_volume m;
	struct error e;
	int r;

	if (volume_read(dir, key, &m, f) == -1)
		return -1;
	if (meta_list(dir, &keys, &e) == -1) {
		meta_volume_clear(&m);
		return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	}
	r = add_alike(dir, key, &m, &keys, true, &found) == 0 && add_alike(dir, key, &m, &keys, false, &found) == 0 ? 0 : -1;
	r = smapi_result(r == 0 ? jsonspec_strings((const char *const *)found.item, found.count) : NULL, result, f);
	meta_volume_clear(&m);
	meta_list_clear(&keys);
	meta_list_clear(&found);
	return r;
}

int volume_similar_content(struct smapi_call *call, char **result, struct failure *f)
{
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	r = find_alike(sr.dir, call->args.key, result, f);
	sr_close(&sr);
	return r;
}
