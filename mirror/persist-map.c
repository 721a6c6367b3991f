/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-map - see persist-map.h
 *
 *      | header, 16 KiB | fallen | reserved |        owing        |      unflushed      |
 *      '--- allocated when it is made ------'  '-- 512 bytes a region each, allocated with reserve() --'
 *
 * The file is as long as the disk wants it (128 MiB for 2 TiB) and almost all hole. A store into a hole of a shared mapping
 * makes the page, and where the tmpfs is full it is a SIGBUS. So a region's bits are touched only after fallocate() gave it its
 * pages, which is an error where it cannot; and nothing else, not even a load, goes to a hole through the mapping, for that
 * makes the page just as well. Whoever reads what a predecessor left asks `reserved`, and reads the file, not the mapping.
 *
 * Order, for a kill at any instant: pages, then `reserved`; not `reserved`, then the pages go. So what is reserved has memory.
 * The arrays are in the host's own byte order: they are for this boot only.
 */
#include "mirror/persist-map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "mirror/persist-file.h"
#include "mirror/persist.h"

#define REGION_CHUNKS ((uint64_t)(PERSIST_REGION_BYTES / PERSIST_CHUNK_BYTES))
#define REGION_WORDS (REGION_CHUNKS / 64)
#define REGION_BITS_BYTES (REGION_CHUNKS / 8)
#define PAGE_BYTES 4096u

static_assert(REGION_BITS_BYTES * PERSIST_GROUP == PAGE_BYTES, "a group is a page");

static size_t round_up(uint64_t bytes)
{
	return (size_t)((bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
}

static bool has_bit(const uint64_t *words, uint64_t bit)
{
	return words[bit / 64] >> bit % 64 & 1;
}

static void set_bit(uint64_t *words, uint64_t bit)
{
	words[bit / 64] |= UINT64_C(1) << bit % 64;
}

static void clear_bit(uint64_t *words, uint64_t bit)
{
	words[bit / 64] &= ~(UINT64_C(1) << bit % 64);
}

/* --- made and opened */

static int init(struct persist_map *m, const char *path, uint64_t size_bytes, struct error *e)
{
	*m = (struct persist_map){ .fd = -1, .size_bytes = size_bytes, .path = strdup(path) };
	m->chunks = (size_bytes + PERSIST_CHUNK_BYTES - 1) / PERSIST_CHUNK_BYTES;
	m->regions = (size_bytes + PERSIST_REGION_BYTES - 1) / PERSIST_REGION_BYTES;
	m->owing_at = PERSIST_HEADER_BYTES + 2 * round_up(m->regions / 8 + 1);
	m->unflushed_at = m->owing_at + round_up(m->regions * REGION_BITS_BYTES);
	m->bytes = m->unflushed_at + round_up(m->regions * REGION_BITS_BYTES);
	return m->path ? 0 : error_set(e, ENOMEM, "out of memory");
}

static int give_memory(int fd, size_t at, size_t bytes)
{
	int result;

	do
		result = fallocate(fd, 0, (off_t)at, (off_t)bytes);
	while (result == -1 && errno == EINTR);
	return result == -1 ? errno : 0;
}

/* m takes the descriptor, or leaves it. */
static int map_file(struct persist_map *m, int *fd, struct error *e)
{
	void *base = mmap(NULL, m->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);

	if (base == MAP_FAILED)
		return error_errno(e, errno, "map %s", m->path);
	m->base = base;
	m->fallen = (void *)(m->base + PERSIST_HEADER_BYTES);
	m->reserved = (void *)((uint8_t *)m->fallen + round_up(m->regions / 8 + 1));
	m->owing = (void *)(m->base + m->owing_at);
	m->unflushed = (void *)(m->base + m->unflushed_at);
	m->fd = take_fd(fd);
	return 0;
}

static int fill_new(struct persist_map *m, int *fd, const uint8_t *header, const char *passing, struct error *e)
{
	int err = ftruncate(*fd, (off_t)m->bytes) == -1 ? errno : give_memory(*fd, 0, m->owing_at);

	if (err)
		return error_errno(e, err, "give %s its memory", m->path);
	if (map_file(m, fd, e) == -1)
		return -1;
	memcpy(m->base, header, PERSIST_HEADER_BYTES);
	set_bit(m->fallen, m->regions);
	if (rename(passing, m->path) == -1)
		return error_errno(e, errno, "make %s", m->path);
	return 0;
}

/* There is no map after all. */
static void unmap(struct persist_map *m)
{
	if (m->base)
		munmap(m->base, m->bytes);
	if (m->fd >= 0)
		close(m->fd);
	m->base = NULL;
	m->fallen = m->reserved = m->owing = m->unflushed = NULL;
	m->fd = -1;
}

int persist_map_new(struct persist_map *m, const char *path, const struct persist_header *h, struct error *e)
{
	CLEANUP_FREE uint8_t *header = malloc(PERSIST_HEADER_BYTES);
	CLEANUP_FREE char *passing = NULL;
	CLEANUP_CLOSE int fd = -1;

	if (init(m, path, h->size_bytes, e) == -1)
		return -1;
	if (!header || asprintf(&passing, "%s.new", path) < 0) {
		passing = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	if (persist_header_encode(h, header, e) == -1)
		return -1;
	unlink(passing); /* of one that died here */
	fd = open(passing, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(e, errno, "make %s", passing);
	if (fill_new(m, &fd, header, passing, e) == -1) {
		unlink(passing);
		unmap(m);
		return -1;
	}
	return 0;
}

/* What it says is reserved must be so, whoever had the file in his hands meanwhile. */
static int check_memory(struct persist_map *m, struct error *why)
{
	int err = give_memory(m->fd, 0, m->owing_at);

	for (uint64_t r = 0; r < m->regions && !err; r++)
		if (has_bit(m->reserved, r)) {
			uint64_t end = r + 1;

			while (end < m->regions && has_bit(m->reserved, end))
				end++;
			err = persist_map_reserve(m, r, end);
			r = end;
		}
	return err ? error_errno(why, err, "give %s its memory", m->path) : 0;
}

static int take_up(struct persist_map *m, const struct persist_header *h, bool *is_same_boot, struct error *why)
{
	CLEANUP_FREE uint8_t *header = malloc(PERSIST_HEADER_BYTES);
	uint64_t bytes;
	CLEANUP_CLOSE int fd = persist_file_open(m->path, &bytes, why);

	if (fd < 0)
		return -1;
	if (!header)
		return error_set(why, ENOMEM, "out of memory");
	if (persist_file_read(fd, header, PERSIST_HEADER_BYTES, 0) != 0)
		return error_set(why, EUCLEAN, "%s has %llu bytes: not even a header", m->path, (unsigned long long)bytes);
	if (persist_header_check(h, header, PERSIST_HEADER_BYTES, is_same_boot, why) == -1)
		return error_prefix(why, "%s", m->path);
	if (bytes != m->bytes)
		return error_set(why, EUCLEAN, "%s has %llu bytes instead of %zu", m->path, (unsigned long long)bytes, m->bytes);
	return map_file(m, &fd, why) == -1 ? -1 : check_memory(m, why);
}

int persist_map_open(struct persist_map *m, const char *path, const struct persist_header *h, bool *is_same_boot,
		     struct error *why)
{
	if (init(m, path, h->size_bytes, why) == -1)
		return -1;
	if (take_up(m, h, is_same_boot, why) == 0)
		return 0;
	unmap(m);
	return -1;
}

void persist_map_fini(struct persist_map *m)
{
	unmap(m);
	free(m->path);
}

/* --- regions */

bool persist_map_is_decided(const struct persist_map *m, uint64_t region)
{
	return !m->base || has_bit(m->reserved, region) || has_bit(m->fallen, region);
}

bool persist_map_is_reserved(const struct persist_map *m, uint64_t region)
{
	return m->base && has_bit(m->reserved, region);
}

void persist_map_take(struct persist_map *m, uint64_t region, bool has_memory)
{
	set_bit(has_memory ? m->reserved : m->fallen, region);
}

void persist_map_drop(struct persist_map *m, uint64_t region)
{
	if (m->base)
		clear_bit(m->fallen, region);
}

void persist_map_unreserve(struct persist_map *m, uint64_t region)
{
	clear_bit(m->reserved, region);
}

void persist_map_vouch(struct persist_map *m)
{
	if (m->base)
		clear_bit(m->fallen, m->regions);
}

int persist_map_reserve(const struct persist_map *m, uint64_t first, uint64_t end)
{
	size_t at = (size_t)(first * REGION_BITS_BYTES), bytes = (size_t)((end - first) * REGION_BITS_BYTES);
	int err = give_memory(m->fd, m->owing_at + at, bytes);

	return err ? err : give_memory(m->fd, m->unflushed_at + at, bytes);
}

void persist_map_release(const struct persist_map *m, uint64_t first, uint64_t end)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	off_t at = (off_t)(first * REGION_BITS_BYTES), bytes = (off_t)((end - first) * REGION_BITS_BYTES);

	/* Where it cannot, the memory stays with the file, and the bits are clear anyway. */
	(void)!fallocate(m->fd, mode, (off_t)m->owing_at + at, bytes);
	(void)!fallocate(m->fd, mode, (off_t)m->unflushed_at + at, bytes);
}

/* --- what is owed */

/* Joins what is adjacent. */
struct joiner {
	void (*fn)(void *arg, struct range r);
	void *arg;
	uint64_t size_bytes;
	struct range r; /* not told yet */
};

static void tell(struct joiner *j)
{
	j->r.end = MIN(j->r.end, j->size_bytes);
	if (!range_is_empty(j->r))
		j->fn(j->arg, j->r);
}

static void join(struct joiner *j, uint64_t start, uint64_t end)
{
	if (j->r.end == start && !range_is_empty(j->r)) {
		j->r.end = end;
		return;
	}
	tell(j);
	j->r = (struct range){ start, end };
}

static void join_word(struct joiner *j, uint64_t word, uint64_t first_chunk)
{
	while (word) {
		unsigned start = (unsigned)__builtin_ctzll(word);
		uint64_t rest = ~(word >> start);
		unsigned count = rest ? (unsigned)__builtin_ctzll(rest) : 64; /* start is 0 then */

		join(j, (first_chunk + start) * PERSIST_CHUNK_BYTES, (first_chunk + start + count) * PERSIST_CHUNK_BYTES);
		word &= start + count == 64 ? 0 : ~UINT64_C(0) << (start + count);
	}
}

static int join_region(const struct persist_map *m, struct joiner *j, unsigned which, uint64_t region)
{
	uint64_t words[2][REGION_WORDS] = { 0 };
	uint64_t at = region * REGION_BITS_BYTES;
	int err = 0;

	if (which & PERSIST_OWING)
		err = persist_file_read(m->fd, words[0], REGION_BITS_BYTES, m->owing_at + at);
	if (!err && which & PERSIST_UNFLUSHED)
		err = persist_file_read(m->fd, words[1], REGION_BITS_BYTES, m->unflushed_at + at);
	for (size_t i = 0; i < REGION_WORDS && !err; i++)
		join_word(j, words[0][i] | words[1][i], region * REGION_CHUNKS + i * 64);
	return err;
}

int persist_map_each(const struct persist_map *m, unsigned which, void (*fn)(void *arg, struct range r), void *arg)
{
	struct joiner j = { .fn = fn, .arg = arg, .size_bytes = m->size_bytes };
	int err = 0;

	if (!m->base || has_bit(m->fallen, m->regions)) {
		fn(arg, (struct range){ 0, m->size_bytes });
		return 0;
	}
	for (uint64_t r = 0; r < m->regions && !err; r++)
		if (has_bit(m->fallen, r))
			join(&j, r * PERSIST_REGION_BYTES, (r + 1) * PERSIST_REGION_BYTES);
		else if (has_bit(m->reserved, r))
			err = join_region(m, &j, which, r);
	tell(&j);
	return err;
}
