/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * overlay-file - see overlay-file.h
 *
 *      map:   header, one sector: magic, state, size of the disk, the image's inode, number of records, checksum
 *             records of 16 bytes: first sector, count, checksum; those of the seal, then those that took sectors away
 *
 * Sealed, the header says how many records there must be.  Those that follow were appended: what is torn at the end is not there,
 * and its sectors are still here, which is so.
 * Can fail: a full SR, a medium that errs, a map that somebody else wrote (it is checked as what comes from outside is).
 */
#include "overlay/overlay-file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/proc.h"

#define MAGIC UINT64_C(0x53584d4f5645524c) /* "SXMOVERL" */
#define VERSION 1u
#define HEADER_BYTES 512u
#define RECORD_BYTES 16u
#define BATCH_RECORDS 4096u
#define CLEARS (UINT64_C(1) << 63)
#define SIZE_MAX_BYTES (UINT64_C(1) << 48)

enum { STATE_OPEN = 1, STATE_SEALED = 2 };

struct header {
	uint32_t state;
	uint64_t size_bytes, inode, records;
};

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static char *beside(const char *image, const char *suffix)
{
	char *path;

	return asprintf(&path, "%s%s", image, suffix) < 0 ? NULL : path;
}

static uint64_t hash(const uint8_t *bytes, size_t count)
{
	uint64_t h = UINT64_C(14695981039346656037);

	for (size_t i = 0; i < count; i++)
		h = (h ^ bytes[i]) * UINT64_C(1099511628211);
	return h;
}

/* --- header */

static int write_header(int fd, const struct header *h, struct error *e)
{
	uint8_t bytes[HEADER_BYTES] = { 0 };
	struct bytes_writer w = bytes_writer(bytes, sizeof(bytes));

	bytes_put_u64(&w, MAGIC);
	bytes_put_u32(&w, VERSION);
	bytes_put_u32(&w, h->state);
	bytes_put_u64(&w, h->size_bytes);
	bytes_put_u64(&w, h->inode);
	bytes_put_u64(&w, h->records);
	bytes_put_u64(&w, hash(bytes, bytes_written(&w)));
	if (pwrite(fd, bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return error_errno(e, errno ? errno : EIO, "write the map");
	return 0;
}

static int read_header(int fd, struct header *h, struct error *e)
{
	uint8_t bytes[HEADER_BYTES] = { 0 };
	struct bytes_reader r = bytes_reader(bytes, sizeof(bytes));
	uint64_t magic, sum;
	uint32_t version;
	ssize_t n = pread(fd, bytes, sizeof(bytes), 0);

	if (n < 0)
		return error_errno(e, errno, "read the map");
	magic = bytes_get_u64(&r);
	version = bytes_get_u32(&r);
	h->state = bytes_get_u32(&r);
	h->size_bytes = bytes_get_u64(&r);
	h->inode = bytes_get_u64(&r);
	h->records = bytes_get_u64(&r);
	sum = hash(bytes, 40);
	if (n != (ssize_t)sizeof(bytes) || magic != MAGIC || bytes_get_u64(&r) != sum)
		return error_set(e, EBADMSG, "the map is damaged, or none");
	if (version != VERSION || (h->state != STATE_OPEN && h->state != STATE_SEALED))
		return error_set(e, EBADMSG, "the map is of another version of sxm");
	if (h->size_bytes > SIZE_MAX_BYTES || h->size_bytes % OVERLAY_SECTOR_BYTES)
		return error_set(e, EBADMSG, "the map is for a disk of %" PRIu64 " bytes, which no disk has", h->size_bytes);
	return 0;
}

static uint64_t inode_of(const char *image)
{
	struct stat st;

	return stat(image, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static enum overlay_state state_of(const struct header *h, const char *image)
{
	if (h->state == STATE_OPEN)
		return OVERLAY_OPEN;
	return inode_of(image) == h->inode ? OVERLAY_SEALED : OVERLAY_COMPOSED;
}

/* -1 + e; ENOENT. */
static int open_map(const char *image, int flags, struct error *e)
{
	CLEANUP_FREE char *path = beside(image, OVERLAY_MAP_SUFFIX);
	struct stat st;
	int fd;

	if (!path)
		return out_of_memory(e);
	fd = open(path, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return error_errno(e, errno, "open %s", path);
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return error_set(e, EBADMSG, "%s is no file", path);
}

int overlay_state(const char *image, enum overlay_state *state, struct error *e)
{
	CLEANUP_CLOSE int fd = open_map(image, O_RDONLY, e);
	struct header h;

	*state = OVERLAY_NONE;
	if (fd < 0)
		return e->err == ENOENT || e->err == ENOTDIR ? 0 : -1;
	if (read_header(fd, &h, e) == -1)
		return error_prefix(e, "%s" OVERLAY_MAP_SUFFIX, image);
	*state = state_of(&h, image);
	return 0;
}

/* --- made, removed */

void overlay_file_free(struct overlay_file *f)
{
	if (!f)
		return;
	if (f->fd >= 0)
		close(f->fd);
	bitmap_free(f->sectors);
	free(f->data_path);
	free(f);
}

static struct overlay_file *new_file(const char *image, uint64_t size_bytes, struct error *e)
{
	struct overlay_file *f = calloc(1, sizeof(*f));

	if (f) {
		*f = (struct overlay_file){ .fd = -1, .size_bytes = size_bytes, .end_bytes = HEADER_BYTES };
		f->sectors = bitmap_new(size_bytes / OVERLAY_SECTOR_BYTES);
		f->data_path = beside(image, OVERLAY_SUFFIX);
	}
	if (f && f->sectors && f->data_path)
		return f;
	overlay_file_free(f);
	out_of_memory(e);
	return NULL;
}

static int make_data(const char *path, uint64_t size_bytes, struct error *e)
{
	CLEANUP_CLOSE int fd = -1;

	if (unlink(path) == -1 && errno != ENOENT) /* of one that has no map */
		return error_errno(e, errno, "replace %s", path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)size_bytes) == -1 || fsync(fd) == -1)
		return error_errno(e, errno, "make %s", path);
	return 0;
}

static int make_map(struct overlay_file *f, const char *image, struct error *e)
{
	CLEANUP_FREE char *path = beside(image, OVERLAY_MAP_SUFFIX);
	const struct header h = { STATE_OPEN, f->size_bytes, inode_of(image), 0 };

	if (!path)
		return out_of_memory(e);
	f->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (f->fd < 0)
		return error_errno(e, errno, "make %s", path);
	if (write_header(f->fd, &h, e) == 0 && fsync(f->fd) == 0)
		return proc_sync_dir(path, e);
	if (!e->err)
		error_errno(e, errno, "make %s durable", path);
	unlink(path);
	return -1;
}

struct overlay_file *overlay_file_make(const char *image, uint64_t size_bytes, struct error *e)
{
	enum overlay_state state;
	struct overlay_file *f;

	error_clear(e);
	if (overlay_state(image, &state, e) == -1)
		return NULL;
	if (state != OVERLAY_NONE) {
		error_set(e, EEXIST, "%s has an overlay already", image);
		return NULL;
	}
	error_clear(e);
	f = new_file(image, size_bytes, e);
	if (f && (make_data(f->data_path, size_bytes, e) == -1 || make_map(f, image, e) == -1)) {
		unlink(f->data_path);
		overlay_file_free(f);
		return NULL;
	}
	return f;
}

int overlay_remove(const char *image, struct error *e)
{
	static const char *const suffixes[] = { OVERLAY_SUFFIX, OVERLAY_MAP_SUFFIX };

	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		CLEANUP_FREE char *path = beside(image, suffixes[i]);

		if (!path)
			return out_of_memory(e);
		if (unlink(path) == -1 && errno != ENOENT)
			return error_errno(e, errno, "remove %s", path);
	}
	return 0;
}

/* --- records */

static void encode(uint8_t out[RECORD_BYTES], uint64_t first, uint32_t count)
{
	struct bytes_writer w = bytes_writer(out, RECORD_BYTES);

	bytes_put_u64(&w, first);
	bytes_put_u32(&w, count);
	bytes_put_u32(&w, (uint32_t)hash(out, 12));
}

static bool decode(const uint8_t in[RECORD_BYTES], uint64_t *first, uint32_t *count)
{
	struct bytes_reader r = bytes_reader(in, RECORD_BYTES);

	*first = bytes_get_u64(&r);
	*count = bytes_get_u32(&r);
	return bytes_get_u32(&r) == (uint32_t)hash(in, 12);
}

static int append(struct overlay_file *f, const uint8_t *bytes, size_t count, struct error *e)
{
	ssize_t n = pwrite(f->fd, bytes, count * RECORD_BYTES, (off_t)f->end_bytes);

	if (n != (ssize_t)(count * RECORD_BYTES))
		return error_errno(e, n < 0 ? errno : ENOSPC, "write the map of %s", f->data_path);
	f->end_bytes += count * RECORD_BYTES;
	return 0;
}

int overlay_file_seal(struct overlay_file *f, struct error *e)
{
	CLEANUP_FREE uint8_t *batch = malloc(BATCH_RECORDS * RECORD_BYTES);
	uint64_t bits = bitmap_bits(f->sectors), records = 0, end;
	struct header h;
	size_t count = 0;

	if (!batch)
		return out_of_memory(e);
	if (read_header(f->fd, &h, e) == -1)
		return error_prefix(e, "%s", f->data_path);
	for (uint64_t bit = bitmap_next(f->sectors, 0); bit < bits; bit = bitmap_next(f->sectors, end)) {
		end = MIN(bitmap_next_clear(f->sectors, bit), bit + UINT32_MAX);
		encode(batch + count * RECORD_BYTES, bit, (uint32_t)(end - bit));
		records++;
		if (++count < BATCH_RECORDS)
			continue;
		if (append(f, batch, count, e) == -1)
			return -1;
		count = 0;
	}
	if (append(f, batch, count, e) == -1)
		return -1;
	h.state = STATE_SEALED;
	h.records = records;
	/* One fsync: where the header is there and the records are not, their checksums say so. */
	if (write_header(f->fd, &h, e) == -1)
		return -1;
	return fsync(f->fd) == 0 ? 0 : error_errno(e, errno, "make the map of %s durable", f->data_path);
}

int overlay_file_clear(struct overlay_file *f, const struct range *r, size_t count, struct error *e)
{
	CLEANUP_FREE uint8_t *bytes = malloc(count * RECORD_BYTES + 1);

	if (!bytes)
		return out_of_memory(e);
	for (size_t i = 0; i < count; i++)
		encode(bytes + i * RECORD_BYTES, CLEARS | r[i].start / OVERLAY_SECTOR_BYTES,
		       (uint32_t)(range_length(r[i]) / OVERLAY_SECTOR_BYTES));
	if (append(f, bytes, count, e) == -1)
		return -1;
	return fdatasync(f->fd) == 0 ? 0 : error_errno(e, errno, "make the map of %s durable", f->data_path);
}

/* False: no such record is ours. */
static bool take_record(struct overlay_file *f, const uint8_t *at)
{
	uint64_t first, sector, bits = bitmap_bits(f->sectors);
	uint32_t count;

	if (!decode(at, &first, &count))
		return false;
	sector = first & ~CLEARS;
	if (sector >= bits || count > bits - sector || !count)
		return false;
	if (first & CLEARS)
		bitmap_clear(f->sectors, sector, sector + count);
	else
		bitmap_set(f->sectors, sector, sector + count);
	return true;
}

static int load_records(struct overlay_file *f, uint64_t sealed, struct error *e)
{
	CLEANUP_FREE uint8_t *batch = malloc(BATCH_RECORDS * RECORD_BYTES);
	uint64_t taken = 0;

	if (!batch)
		return out_of_memory(e);
	for (;;) {
		ssize_t n = pread(f->fd, batch, BATCH_RECORDS * RECORD_BYTES, (off_t)f->end_bytes);

		if (n < 0)
			return error_errno(e, errno, "read the map of %s", f->data_path);
		for (size_t at = 0; at + RECORD_BYTES <= (size_t)n; at += RECORD_BYTES, taken++) {
			if (!take_record(f, batch + at)) {
				n = 0;
				break;
			}
			f->end_bytes += RECORD_BYTES;
		}
		if (n < (ssize_t)(BATCH_RECORDS * RECORD_BYTES))
			break;
	}
	if (taken < sealed)
		return error_set(e, EBADMSG, "the map of %s is damaged: %" PRIu64 " records of %" PRIu64 " are good",
				 f->data_path, taken, sealed);
	/* What a torn append left must not follow what is appended now: it would take away what is written here from now on. */
	if (ftruncate(f->fd, (off_t)f->end_bytes) == -1)
		return error_errno(e, errno, "cut the map of %s", f->data_path);
	return 0;
}

struct overlay_file *overlay_file_load(const char *image, struct error *e)
{
	CLEANUP_CLOSE int fd = open_map(image, O_RDWR, e);
	struct overlay_file *f;
	struct header h;

	if (fd < 0)
		return NULL;
	if (read_header(fd, &h, e) == -1) {
		error_prefix(e, "%s" OVERLAY_MAP_SUFFIX, image);
		return NULL;
	}
	if (h.state != STATE_SEALED) {
		error_set(e, EBADMSG, "the overlay of %s is not complete", image);
		return NULL;
	}
	f = new_file(image, h.size_bytes, e);
	if (!f)
		return NULL;
	f->fd = take_fd(&fd);
	if (load_records(f, h.records, e) == 0)
		return f;
	overlay_file_free(f);
	return NULL;
}
