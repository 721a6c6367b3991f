/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * side-qcow2 - where the data of a qcow2 image is: in which file of its chain, and where in that
 *
 *      open the chain's files -> ask qemu-img for the map -> are they the same files still? -> it is the map of those
 *                    ^                                                | no: two of them became one meanwhile
 *                    '------------------------------------------------'
 *
 * The files stay as they are where the map points, whatever becomes of their names: what is merged into one of them is written
 * where this image reads another.
 */
#include "plugins/side.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "plugins/tree.h"
#include "plugins/qemu-img.h"
#include "qcow2/qcow2-chain.h"

#define TRIES 5u

struct extent {
	int64_t start, length, depth, offset;
	bool data, has_offset;
};
static const struct jsonspec_field extent_fields[] = {
	{ "start", JS_INT64, offsetof(struct extent, start) },
	{ "length", JS_INT64, offsetof(struct extent, length) },
	{ "depth", JS_INT64, offsetof(struct extent, depth) },
	{ "data", JS_BOOL, offsetof(struct extent, data) },
	{ "offset", JS_INT64, offsetof(struct extent, offset), .is_optional = true, .has = offsetof(struct extent, has_offset) },
	{ NULL },
};
static const struct jsonspec extent_spec = { "extent", sizeof(struct extent), extent_fields };

struct said {
	struct jsonspec_records map;
};
static const struct jsonspec_field said_fields[] = {
	{ "map", JS_RECORDS, offsetof(struct said, map), .sub = &extent_spec },
	{ NULL },
};
static const struct jsonspec said_spec = { "map of qemu-img's", sizeof(struct said), said_fields };

struct side_map {
	struct said said;
	int leaf;                 /* borrowed */
	struct qcow2_chain chain;
};

static const struct extent *extents(const struct side_map *m)
{
	return m->said.map.item;
}

static int file_of(const struct side_map *m, const struct extent *x)
{
	return x->depth ? m->chain.base[x->depth - 1].fd : m->leaf;
}

void side_map_free(struct side_map *m)
{
	if (!m)
		return;
	jsonspec_clear(&said_spec, &m->said);
	qcow2_chain_close(&m->chain);
	free(m);
}

/* --- made */

static int open_chain(struct qcow2_chain *c, const struct image *i, const char *path, int fd, struct error *e)
{
	CLEANUP_CLOSE int dir = open(i->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return error_errno(e, errno, "open %s", i->dir);
	return qcow2_chain_open(c, dir, fd, strrchr(path, '/') + 1, e);
}

static bool is_same(const struct qcow2_chain *a, const struct qcow2_chain *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (a->base[i].ino != b->base[i].ino)
			return false;
	return true;
}

/* In order, without gaps, of files that are there: what is relied on. */
static int check_map(const struct side_map *m, struct error *e)
{
	const struct extent *x = extents(m);
	int64_t at = 0;

	for (size_t i = 0; i < m->said.map.count; i++) {
		if (x[i].start != at || x[i].length <= 0 || x[i].depth < 0 || (uint64_t)x[i].depth > m->chain.count ||
		    x[i].offset < 0)
			return error_set(e, EPROTO, "qemu-img's map of the image cannot be understood");
		if (x[i].data && !x[i].has_offset)
			return error_set(e, EOPNOTSUPP, "the image is compressed; copy it and compare that");
		at += x[i].length;
	}
	return 0;
}

static int ask_for_map(struct side_map *m, const struct image *i, const char *path, struct error *e)
{
	CLEANUP_FREE char *described = tree_describe(i->dir, path, e);
	CLEANUP_FREE char *text = described ? qemu_img_map(described, e) : NULL;
	CLEANUP_FREE char *whole = NULL;
	int bytes;

	if (!text)
		return -1;
	bytes = asprintf(&whole, "{\"map\":%s}", text);
	if (bytes < 0) {
		whole = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	jsonspec_clear(&said_spec, &m->said);
	return jsonspec_decode(&said_spec, whole, (size_t)bytes, &m->said, e);
}

/* 1: its files are others meanwhile. */
static int fill_map(struct side_map *m, const struct image *i, const char *path, struct error *e)
{
	struct qcow2_chain *now;
	int r;

	if (open_chain(&m->chain, i, path, m->leaf, e) == -1 || ask_for_map(m, i, path, e) == -1)
		return -1;
	now = malloc(sizeof(*now));
	if (!now)
		return error_set(e, ENOMEM, "out of memory");
	r = open_chain(now, i, path, m->leaf, e);
	if (r == 0) {
		r = is_same(&m->chain, now) ? check_map(m, e) : 1;
		qcow2_chain_close(now);
	}
	free(now);
	if (r == 1)
		qcow2_chain_close(&m->chain);
	return r;
}

struct side_map *side_map_new(const struct image *i, const char *path, int fd, off_t *bytes, struct error *e)
{
	struct side_map *m = calloc(1, sizeof(*m));
	int r = 1;

	if (!m) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	m->leaf = fd;
	for (unsigned tries = 0; r == 1 && tries < TRIES; tries++)
		r = fill_map(m, i, path, e);
	if (r == 1)
		error_set(e, EAGAIN, "the images that %s stands on are being merged; try again later", path);
	if (r == 0) {
		*bytes = (off_t)m->chain.leaf.size_bytes;
		return m;
	}
	side_map_free(m);
	return NULL;
}

/* --- asked */

/* The extent that `at` is in; the number of extents: it is behind the end. */
static size_t find(const struct side_map *m, off_t at)
{
	size_t low = 0, high = m->said.map.count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct extent *x = &extents(m)[middle];

		if (x->start + x->length <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

off_t side_map_next_data(const struct side_map *m, off_t at, off_t end)
{
	size_t i = find(m, at);

	while (i < m->said.map.count && !extents(m)[i].data)
		i++;
	return i < m->said.map.count ? MIN(MAX((off_t)extents(m)[i].start, at), end) : end;
}

bool side_map_find(const struct side_map *m, off_t at, struct side_place *place, off_t *end)
{
	size_t i = find(m, at);
	const struct extent *x = &extents(m)[i];
	struct stat st;

	if (i == m->said.map.count || !x->data || fstat(file_of(m, x), &st) == -1)
		return false;
	*place = (struct side_place) { st.st_dev, st.st_ino, (uint64_t)(x->offset + (at - x->start)) };
	*end = (off_t)(x->start + x->length);
	return true;
}

static int read_all(int fd, char *to, size_t bytes, off_t at, struct error *e)
{
	while (bytes) {
		ssize_t n = pread(fd, to, bytes, at);

		if (n < 0 && errno != EINTR)
			return error_errno(e, errno, "read");
		if (n == 0) { /* a last cluster may end with the file */
			memset(to, 0, bytes);
			return 0;
		}
		if (n > 0) {
			to += n;
			at += n;
			bytes -= (size_t)n;
		}
	}
	return 0;
}

int side_map_read(const struct side_map *m, off_t at, char *block, struct error *e)
{
	off_t end = at + SIDE_BLOCK_BYTES;

	memset(block, 0, SIDE_BLOCK_BYTES);
	for (size_t i = find(m, at); i < m->said.map.count && extents(m)[i].start < end; i++) {
		const struct extent *x = &extents(m)[i];
		off_t from = MAX((off_t)x->start, at), to = MIN((off_t)(x->start + x->length), end);

		if (x->data && read_all(file_of(m, x), block + (from - at), (size_t)(to - from),
					(off_t)x->offset + (from - (off_t)x->start), e) == -1)
			return -1;
	}
	return 0;
}
