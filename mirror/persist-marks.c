/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-marks - see persist-marks.h
 *
 *      file:    | header, 16 KiB | one bit a region, one more for "everything"; whole blocks of 4 KiB |
 *
 *      loop:    set, clear --> now --begin--> file --write--> page cache --fdatasync--> medium      : pool
 *                               '- changed      '- writing
 *
 * A block is written in place. A plug pulled meanwhile leaves each of its sectors old or new, and they differ only in bits that
 * were to be set (nobody was told yet) or cleared (nobody needs to know): either is good. So there is neither a journal nor a
 * checksum over the bits. The header was written when the file was made and is not touched again.
 *
 * A failed fdatasync leaves everything open: the kernel has dropped what it could not write and forgets the failure, so that a
 * second fdatasync succeeds over the hole. Then the file is suspect, and the next write makes it anew, beside and by rename, on
 * other blocks and with all that should be in it. Likewise at the start: the bits that are read there may be a dead process's
 * which never got further than the page cache, so whoever takes them up makes the file anew before trusting one.
 */
#include "mirror/persist-marks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mirror/persist.h"

#define BLOCK_BYTES 4096u
#define BLOCK_BITS (8u * BLOCK_BYTES)

static size_t bits_bytes(const struct persist_marks *m)
{
	return m->blocks * BLOCK_BYTES;
}

static size_t file_bytes(const struct persist_marks *m)
{
	return PERSIST_HEADER_BYTES + bits_bytes(m);
}

static uint8_t *file_bits(const struct persist_marks *m)
{
	return m->file + PERSIST_HEADER_BYTES;
}

static bool has_bit(const struct persist_marks *m, uint64_t bit)
{
	return m->now[bit / 8] >> bit % 8 & 1;
}

static void change_bit(struct persist_marks *m, uint64_t bit, bool is_set)
{
	if (has_bit(m, bit) == is_set)
		return;
	m->now[bit / 8] = (uint8_t)(m->now[bit / 8] ^ 1u << bit % 8);
	bitmap_set(m->changed, bit / BLOCK_BITS, bit / BLOCK_BITS + 1);
}

/* --- made and opened */

int persist_marks_init(struct persist_marks *m, const struct persist_ops *ops, const char *path, const struct persist_header *h,
		       struct error *e)
{
	*m = (struct persist_marks){ .ops = ops, .fd = -1 };
	m->regions = (h->size_bytes + PERSIST_REGION_BYTES - 1) / PERSIST_REGION_BYTES;
	m->blocks = (size_t)(m->regions / BLOCK_BITS + 1);
	m->path = strdup(path);
	m->marked = bitmap_new(m->regions);
	m->changed = bitmap_new(m->blocks);
	m->writing = bitmap_new(m->blocks);
	m->now = calloc(1, bits_bytes(m));
	m->file = calloc(1, file_bytes(m));
	if (!m->path || !m->marked || !m->changed || !m->writing || !m->now || !m->file)
		return error_set(e, ENOMEM, "out of memory");
	change_bit(m, m->regions, true);
	return persist_header_encode(h, m->file, e);
}

void persist_marks_fini(struct persist_marks *m)
{
	if (m->fd >= 0)
		m->ops->close(m->ops->arg, m->fd);
	free(m->path);
	bitmap_free(m->marked);
	bitmap_free(m->changed);
	bitmap_free(m->writing);
	free(m->now);
	free(m->file);
}

/* Bits past the last are nobody's: not taken. */
static void take_bits(struct persist_marks *m, const uint8_t *bits)
{
	for (uint64_t bit = 0; bit <= m->regions; bit++) {
		bool is_set = bits[bit / 8] >> bit % 8 & 1;

		change_bit(m, bit, is_set);
		if (is_set && bit < m->regions)
			bitmap_set(m->marked, bit, bit + 1);
	}
}

int persist_marks_load(struct persist_marks *m, const struct persist_header *h, struct error *why)
{
	uint8_t *there = calloc(1, file_bytes(m));
	bool is_same_boot;
	int result;

	if (!there)
		return error_set(why, ENOMEM, "out of memory");
	result = m->ops->load(m->ops->arg, m->path, there, file_bytes(m), why);
	if (result == 0 && persist_header_check(h, there, file_bytes(m), &is_same_boot, why) == -1)
		result = error_prefix(why, "%s", m->path);
	if (result == 0)
		take_bits(m, there + PERSIST_HEADER_BYTES);
	free(there);
	return result;
}

static int make_file(struct persist_marks *m, struct error *e)
{
	int fd = m->ops->make(m->ops->arg, m->path, m->file, file_bytes(m), e);

	if (fd < 0)
		return -1;
	if (m->fd >= 0)
		m->ops->close(m->ops->arg, m->fd);
	m->fd = fd;
	m->is_suspect = false;
	return 0;
}

int persist_marks_make(struct persist_marks *m, struct error *e)
{
	persist_marks_begin(m);
	bitmap_clear(m->writing, 0, m->blocks);
	return make_file(m, e);
}

/* --- the loop's */

void persist_marks_set(struct persist_marks *m, uint64_t region)
{
	change_bit(m, region, true);
}

void persist_marks_clear(struct persist_marks *m, uint64_t region)
{
	bitmap_clear(m->marked, region, region + 1);
	change_bit(m, region, false);
}

void persist_marks_vouch(struct persist_marks *m)
{
	change_bit(m, m->regions, false);
}

bool persist_marks_is_vouched(const struct persist_marks *m)
{
	return !has_bit(m, m->regions);
}

bool persist_marks_has_changed(const struct persist_marks *m)
{
	return bitmap_count(m->changed) > 0;
}

void persist_marks_begin(struct persist_marks *m)
{
	for (uint64_t b = bitmap_next(m->changed, 0); b < m->blocks; b = bitmap_next(m->changed, b)) {
		memcpy(file_bits(m) + b * BLOCK_BYTES, m->now + b * BLOCK_BYTES, BLOCK_BYTES);
		bitmap_set(m->writing, b, b + 1);
		bitmap_clear(m->changed, b, b + 1);
	}
}

/* --- the pool's */

static int write_block(struct persist_marks *m, uint64_t b)
{
	for (size_t done = 0; done < BLOCK_BYTES;) {
		off_t at = (off_t)(PERSIST_HEADER_BYTES + b * BLOCK_BYTES + done);
		ssize_t n = m->ops->pwrite(m->ops->arg, m->fd, file_bits(m) + b * BLOCK_BYTES + done, BLOCK_BYTES - done, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : ENOSPC;
		done += (size_t)n;
	}
	return 0;
}

static int write_in_place(struct persist_marks *m, bool must_last)
{
	for (uint64_t b = bitmap_next(m->writing, 0); b < m->blocks; b = bitmap_next(m->writing, b + 1)) {
		int err = write_block(m, b);

		if (err)
			return err;
	}
	return must_last && m->ops->fdatasync(m->ops->arg, m->fd) == -1 ? errno : 0;
}

int persist_marks_write(struct persist_marks *m, bool must_last)
{
	static struct log_limit limit = LOG_LIMIT(5);
	struct error e = { 0 };

	if (m->is_suspect) {
		make_file(m, &e);
	} else {
		int err = write_in_place(m, must_last);

		if (err)
			error_errno(&e, err, "write the marks %s", m->path);
	}
	bitmap_clear(m->writing, 0, m->blocks);
	if (!e.err)
		return 0;
	m->is_suspect = true;
	if (log_allowed(&limit))
		log_error("%s; the next mark is tried on a new file", e.text);
	return e.err;
}

int persist_marks_void(struct persist_marks *m, struct error *e)
{
	m->ops->unlink(m->ops->arg, m->path);
	return m->ops->sync_dir(m->ops->arg, m->path, e);
}
