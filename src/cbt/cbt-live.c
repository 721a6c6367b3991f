/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-live - see cbt-live.h
 *
 * Order, for a kill or a power loss at any instant:
 *
 *      open     the map under its new session, then the file's header with that session, durable; then the first write
 *      seal     bits, durable; then header with session 0, and pages without marks, durable; then the map goes
 *
 * So a map whose session is the file's has every bit since that session began, and a file whose session is 0 has all bits. A
 * header that is torn is damaged: a log begun anew, never one that lacks something.
 */
#include "cbt/cbt-live.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_BYTES 36u
#define MAP_PREFIX "cbt."
#define MAP_MAGIC UINT64_C(0x31706d2e746263)
#define MAP_HEADER_BYTES 4096u

/* At the map's beginning, in this host's byte order: it is for this boot only. */
struct map_header {
	uint64_t magic, id, session, size_bytes;
	char boot_id[BOOT_ID_BYTES];
};

static size_t words_of(uint64_t bits)
{
	return (size_t)(bits / 64 + 1);
}

static size_t bits_bytes(uint64_t size_bytes)
{
	return (size_t)cbt_regions(size_bytes) * CBT_REGION_WORDS * sizeof(uint64_t);
}

static bool has_bit(const uint64_t *words, uint64_t bit)
{
	return words[bit / 64] >> bit % 64 & 1;
}

static void set_bit(uint64_t *words, uint64_t bit)
{
	words[bit / 64] |= UINT64_C(1) << bit % 64;
}

void cbt_live_free(struct cbt_live *l)
{
	if (!l)
		return;
	if (l->map)
		munmap(l->map, l->map_bytes);
	if (l->fd >= 0)
		close(l->fd);
	free(l->marks);
	free(l->touched);
	free(l->before);
	free(l->dirty);
	free(l->path);
	free(l->run_dir);
	free(l->map_path);
	free(l);
}

/* --- the map */

static void fill_map_header(const struct cbt_header *h, struct map_header *m)
{
	CLEANUP_FREE char *boot_id = proc_read_file(BOOT_ID_FILE, 64, NULL, NULL);

	*m = (struct map_header){ .magic = MAP_MAGIC, .id = h->id, .session = h->session, .size_bytes = h->size_bytes };
	if (boot_id && strlen(boot_id) >= BOOT_ID_BYTES)
		memcpy(m->boot_id, boot_id, BOOT_ID_BYTES);
}

static char *map_path(const char *run_dir, uint64_t session)
{
	char *path;

	return asprintf(&path, "%s/" MAP_PREFIX "%016" PRIx64, run_dir, session) < 0 ? NULL : path;
}

/* Those of logs that are none any more. */
static void sweep_maps(const char *run_dir, const char *but)
{
	const char *name = strrchr(but, '/') + 1;
	DIR *d = opendir(run_dir);
	struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (strncmp(entry->d_name, MAP_PREFIX, sizeof(MAP_PREFIX) - 1) == 0 && strcmp(entry->d_name, name) != 0)
			unlinkat(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
}

/* Adds its bits to those of the log. False: there is none of that session. */
static bool read_map(const char *run_dir, struct cbt_log *log)
{
	CLEANUP_FREE char *path = map_path(run_dir, log->header.session);
	size_t bytes = bits_bytes(log->header.size_bytes), done = 0;
	CLEANUP_FREE uint64_t *bits = malloc(bytes + 1);
	CLEANUP_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	struct map_header want, is;

	fill_map_header(&log->header, &want);
	if (fd < 0 || !bits || !want.session || !want.boot_id[0] || pread(fd, &is, sizeof(is), 0) != (ssize_t)sizeof(is) ||
	    memcmp(&is, &want, sizeof(is)) != 0)
		return false;
	while (done < bytes) {
		ssize_t n = pread(fd, (char *)bits + done, bytes - done, (off_t)(MAP_HEADER_BYTES + done));

		if (n <= 0 && !(n < 0 && errno == EINTR))
			return false;
		done += n > 0 ? (size_t)n : 0;
	}
	for (size_t w = 0; w < bytes / sizeof(*bits); w++)
		log->bits[w] |= bits[w];
	return true;
}

/* A mapping whose memory is there; NULL: there is none to be had. */
static void *map_file(const char *path, const char *passing, size_t bytes)
{
	CLEANUP_CLOSE int fd = -1;
	void *map;
	int err;

	unlink(passing);
	fd = open(passing, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return NULL;
	err = posix_fallocate(fd, 0, (off_t)bytes);
	map = err ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		return map;
	log_warn("no memory for %s: %s: after a kill of this process whole regions will be reported as changed", path,
		 strerror(err ? err : errno));
	unlink(passing);
	return NULL;
}

static int make_map(struct cbt_live *l, const uint64_t *bits, struct error *e)
{
	size_t bytes = MAP_HEADER_BYTES + bits_bytes(l->header.size_bytes);
	CLEANUP_FREE char *path = map_path(l->run_dir, l->header.session);
	CLEANUP_FREE char *passing = NULL;
	void *map;

	if (!path || asprintf(&passing, "%s.new", path) < 0) {
		passing = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	map = map_file(path, passing, bytes);
	free(take_ptr(&l->map_path));
	if (map)
		l->map_path = take_ptr(&path);
	else if ((map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) == MAP_FAILED)
		return error_set(e, ENOMEM, "out of memory");
	if (l->map)
		munmap(l->map, l->map_bytes);
	l->map = map;
	l->map_bytes = bytes;
	l->bits = (void *)((char *)map + MAP_HEADER_BYTES);
	memcpy(l->bits, bits, bits_bytes(l->header.size_bytes));
	fill_map_header(&l->header, map);
	if (l->map_path && rename(passing, l->map_path) == -1)
		return error_errno(e, errno, "make %s", l->map_path);
	return 0;
}

void cbt_live_drop_map(struct cbt_live *l)
{
	if (l->map_path)
		unlink(l->map_path);
}

/* --- the file */

static int write_at(int fd, const void *from, size_t bytes, uint64_t at)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = pwrite(fd, (const char *)from + done, bytes - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		done += (size_t)n;
	}
	return 0;
}

int cbt_live_write(int fd, const struct cbt_page *page, size_t count)
{
	int err = 0;

	for (size_t i = 0; i < count && !err; i++)
		err = write_at(fd, page[i].bytes, CBT_PAGE_BYTES, (1 + page[i].n) * CBT_PAGE_BYTES);
	return err ? err : fdatasync(fd) == -1 ? errno : 0;
}

static int write_header(struct cbt_live *l)
{
	uint8_t page[CBT_PAGE_BYTES];

	cbt_header_encode(&l->header, page);
	return write_at(l->fd, page, sizeof(page), 0);
}

static bool page_has_marks(const struct cbt_live *l, uint64_t n)
{
	for (uint64_t r = n * CBT_PAGE_REGIONS; r < MIN((n + 1) * CBT_PAGE_REGIONS, l->regions); r++)
		if (has_bit(l->marks, r))
			return true;
	return false;
}

/* Those that are dirty, as they are; or, with marks, those that have any, without them. */
static int write_pages(struct cbt_live *l, bool is_unmarking)
{
	uint8_t page[CBT_PAGE_BYTES];
	int err = 0;

	for (uint64_t n = 0; n < l->pages && !err; n++) {
		if (!(is_unmarking ? page_has_marks(l, n) : has_bit(l->dirty, n)))
			continue;
		cbt_page_encode(l->bits, is_unmarking ? NULL : l->marks, l->regions, n, page);
		err = write_at(l->fd, page, sizeof(page), (1 + n) * CBT_PAGE_BYTES);
	}
	return err;
}

int cbt_live_seal(struct cbt_live *l, struct error *e)
{
	int err = write_pages(l, false);

	if (!err && fdatasync(l->fd) == -1)
		err = errno;
	if (err)
		return error_errno(e, err, "write %s", l->path);
	l->header.session = 0;
	err = write_header(l);
	err = err ? err : write_pages(l, true);
	if (err || fdatasync(l->fd) == -1)
		return error_errno(e, err ? err : errno, "write %s", l->path);
	cbt_live_drop_map(l);
	return 0;
}

int cbt_live_copy(const struct cbt_live *l, const char *path, const char *key, struct error *e)
{
	const struct cbt_log log = { .header = l->header, .regions = l->regions, .bits = l->bits, .marks = l->marks };

	return cbt_log_seal(path, key, &log, e);
}

int cbt_live_void(const char *path, struct error *e)
{
	CLEANUP_FREE char *next = cbt_log_path_with(path, ".next");

	if (!next)
		return error_set(e, ENOMEM, "out of memory");
	if ((unlink(next) == -1 && errno != ENOENT) || (unlink(path) == -1 && errno != ENOENT))
		return error_errno(e, errno, "remove %s", path);
	return proc_sync_dir(path, e);
}

/* --- opened */

static struct cbt_live *allocate(const char *path, const char *run_dir, const struct cbt_log *log, struct error *e)
{
	struct cbt_live *l = calloc(1, sizeof(*l));

	if (l) {
		l->fd = -1;
		l->header = log->header;
		l->regions = log->regions;
		l->pages = cbt_pages(log->header.size_bytes);
		l->path = strdup(path);
		l->run_dir = strdup(run_dir);
		l->marks = calloc(words_of(l->regions), sizeof(*l->marks));
		l->touched = calloc(words_of(l->regions), sizeof(*l->touched));
		l->before = calloc(words_of(l->regions), sizeof(*l->before));
		l->dirty = calloc(words_of(l->pages), sizeof(*l->dirty));
		if (l->path && l->run_dir && l->marks && l->touched && l->before && l->dirty)
			return l;
	}
	cbt_live_free(l);
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

/* The file is that long, has its room and says whose it is now. is_clean: its marks mean nothing, and go first. */
static int begin_file(struct cbt_live *l, bool is_clean)
{
	uint64_t bytes = cbt_file_bytes(l->header.size_bytes);
	int err = posix_fallocate(l->fd, 0, (off_t)bytes);

	if (err && err != EOPNOTSUPP && err != EINVAL)
		return err;
	if (ftruncate(l->fd, (off_t)bytes) == -1)
		return errno;
	if (is_clean) {
		err = write_pages(l, true);
		memset(l->marks, 0, words_of(l->regions) * sizeof(*l->marks));
		if (err || fdatasync(l->fd) == -1)
			return err ? err : errno;
	}
	err = write_header(l);
	return err ? err : fdatasync(l->fd) == -1 ? errno : 0;
}

/* The log's file is there; its bits are complete, its marks are what the file has. */
static struct cbt_live *begin(const char *path, const char *run_dir, const struct cbt_log *log, bool is_clean, struct error *e)
{
	struct cbt_live *l = allocate(path, run_dir, log, e);
	int err = 0;

	if (!l)
		return NULL;
	memcpy(l->marks, log->marks, words_of(l->regions) * sizeof(*l->marks));
	for (uint64_t n = 0; n < l->pages; n++)
		if (page_has_marks(l, n))
			set_bit(l->dirty, n);
	l->header.session = cbt_random();
	l->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (l->fd < 0)
		error_errno(e, errno, "open %s", path);
	else if (make_map(l, log->bits, e) == 0 && (err = begin_file(l, is_clean)))
		error_errno(e, err, "write %s", path);
	else if (l->bits && !err && !e->err)
		return l;
	cbt_live_drop_map(l);
	cbt_live_free(l);
	return NULL;
}

/* A process was killed in a snapshot, perhaps: what its maps know goes into the files, before the two become one. */
static void keep_maps(const char *path, const char *run_dir)
{
	const char *const suffix[] = { ".next", "", NULL };

	for (const char *const *s = suffix; *s; s++) {
		CLEANUP_FREE char *file = cbt_log_path_with(path, *s);
		struct cbt_log log;
		struct error e;

		if (!file || cbt_log_load(file, &log, &e) == -1)
			return; /* no .next: nothing was under way */
		if (log.header.session && read_map(run_dir, &log) && cbt_log_store(file, &log, &e) == -1)
			log_warn("%s", e.text);
		cbt_log_clear(&log);
	}
}

/* Empty, with nothing before it. */
static int begin_anew(const char *path, uint64_t size_bytes, struct cbt_log *log, struct error *e)
{
	if (cbt_live_void(path, e) == -1 || cbt_log_init(log, size_bytes, e) == -1)
		return -1;
	if (cbt_log_store(path, log, e) == 0)
		return 0;
	cbt_log_clear(log);
	return -1;
}

/* 1: there is none. */
static int load(const char *path, const char *run_dir, uint64_t size_bytes, struct cbt_log *log, struct error *e)
{
	struct error why = { 0 };
	int r;

	keep_maps(path, run_dir);
	r = cbt_log_recover(path, &why) == 0 ? cbt_log_load(path, log, &why) : -1;

	if (r == -1 && why.err == ENOENT)
		return 1;
	if (r == 0 && log->header.is_sealed) {
		log_error("%s is a snapshot's log, and the snapshot is written to: its changes are not tracked any more", path);
		cbt_log_clear(log);
		return cbt_live_void(path, e) == -1 ? -1 : 1;
	}
	if (r == 0)
		return 0;
	if (why.err != EBADMSG) {
		*e = why;
		return -1;
	}
	log_error("%s; changes are tracked anew, from now on", why.text);
	return begin_anew(path, size_bytes, log, e);
}

/* Their marks stay in the file until the bits are there. */
static int settle(struct cbt_log *log, struct error *e)
{
	size_t bytes = words_of(log->regions) * sizeof(*log->marks);
	CLEANUP_FREE uint64_t *marks = malloc(bytes);

	if (!marks)
		return error_set(e, ENOMEM, "out of memory");
	memcpy(marks, log->marks, bytes);
	cbt_log_settle(log);
	memcpy(log->marks, marks, bytes);
	return 0;
}

struct cbt_live *cbt_live_open(const char *path, const char *run_dir, uint64_t size_bytes, struct error *e)
{
	struct cbt_live *l = NULL;
	struct cbt_log log;
	bool is_clean;

	error_clear(e);
	if (load(path, run_dir, size_bytes, &log, e) != 0)
		return NULL;
	is_clean = log.header.session == 0;
	if (!is_clean && !read_map(run_dir, &log)) {
		log_warn("%s was not closed, and there is no map of it: all of its marked regions count as changed", path);
		settle(&log, e);
	}
	if (!e->err && (log.header.size_bytes >= size_bytes || cbt_log_grow(&log, size_bytes, e) == 0))
		l = begin(path, run_dir, &log, is_clean, e);
	cbt_log_clear(&log);
	if (l && l->map_path)
		sweep_maps(run_dir, l->map_path);
	return l;
}

struct cbt_live *cbt_live_make(const char *path, const char *run_dir, uint64_t size_bytes, const char *parent,
			       const uint64_t *marks, struct error *e)
{
	struct cbt_live *l = NULL;
	struct cbt_log log;
	int err;

	error_clear(e);
	if (cbt_log_init(&log, size_bytes, e) == -1)
		return NULL;
	snprintf(log.header.parent, sizeof(log.header.parent), "%s", parent);
	if (cbt_log_store(path, &log, e) == 0)
		l = begin(path, run_dir, &log, false, e);
	cbt_log_clear(&log);
	if (!l || !marks)
		return l;
	memcpy(l->marks, marks, words_of(l->regions) * sizeof(*marks));
	for (uint64_t n = 0; n < l->pages; n++)
		if (page_has_marks(l, n))
			set_bit(l->dirty, n);
	err = write_pages(l, false);
	if (!err && fdatasync(l->fd) == 0)
		return l;
	error_errno(e, err ? err : errno, "write %s", path);
	cbt_live_drop_map(l);
	cbt_live_free(l);
	return NULL;
}

/* A copy of l that can hold more; the file's descriptor is not in it. */
static struct cbt_live *copy_larger(const struct cbt_live *l, uint64_t size_bytes, struct error *e)
{
	struct cbt_log log;
	struct cbt_live *more;

	if (cbt_log_init(&log, size_bytes, e) == -1)
		return NULL;
	log.header = l->header;
	log.header.size_bytes = size_bytes;
	log.header.session = cbt_random();
	memcpy(log.bits, l->bits, bits_bytes(l->header.size_bytes));
	more = allocate(l->path, l->run_dir, &log, e);
	if (more && make_map(more, log.bits, e) == -1) {
		cbt_live_free(more);
		more = NULL;
	}
	cbt_log_clear(&log);
	if (!more)
		return NULL;
	memcpy(more->marks, l->marks, words_of(l->regions) * sizeof(*l->marks));
	memcpy(more->touched, l->touched, words_of(l->regions) * sizeof(*l->touched));
	memcpy(more->before, l->before, words_of(l->regions) * sizeof(*l->before));
	memcpy(more->dirty, l->dirty, words_of(l->pages) * sizeof(*l->dirty));
	return more;
}

int cbt_live_grow(struct cbt_live *l, uint64_t size_bytes, struct error *e)
{
	struct cbt_live *more, old;
	int err;

	if (size_bytes <= l->header.size_bytes)
		return 0;
	more = copy_larger(l, size_bytes, e);
	if (!more)
		return -1;
	more->fd = l->fd;
	err = begin_file(more, false);
	if (err) {
		more->fd = -1;
		cbt_live_drop_map(more);
		cbt_live_free(more);
		return error_errno(e, err, "make %s larger", l->path);
	}
	cbt_live_drop_map(l);
	old = *l;
	*l = *more;
	*more = old;
	more->fd = -1;
	cbt_live_free(more);
	return 0;
}

static bool has_changed(const struct cbt_live *l, uint64_t block)
{
	return l->bits[block / 64] >> block % 64 & 1;
}

int cbt_live_changed(const struct cbt_live *l, uint64_t size_bytes, struct extents *out)
{
	uint64_t blocks = cbt_blocks(size_bytes), end;

	for (uint64_t at = 0; at < blocks; at = end) {
		struct range r;

		for (; at < blocks && !has_changed(l, at); at++)
			;
		for (end = at; end < blocks && has_changed(l, end); end++)
			;
		r = (struct range) { at * CBT_BLOCK_BYTES, MIN(end * CBT_BLOCK_BYTES, size_bytes) };
		if (end > at && extents_add(out, r, 0) != 0)
			return -1;
	}
	return 0;
}
