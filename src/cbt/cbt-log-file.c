/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cbt-log-file - logs are read and written whole: for those that nobody has open
 *
 *      V.cbt                         the disk's log
 *      V.cbt, V.cbt.next             a snapshot S was under way: what was written since its moment is in .next, whose parent is S
 *          S.cbt is there            the snapshot's log is whole: .next takes V.cbt's place
 *          S.cbt is not              it did not come to that: what .next has goes into V.cbt
 *          V.cbt's parent is S, too  S is tried again, and S.cbt may be of the first time, without what V.cbt has: likewise
 *
 * Either way nothing that was written is missing in what the chain says. S.cbt whose volume never came to be is merged some day.
 * They lie in a directory that others may write to: no symbolic link is followed, and a size is not believed before it was
 * compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "cbt/cbt-log.h"

#define PAGES_AT_ONCE 64u

uint64_t cbt_random(void)
{
	uint64_t number = 0;

	while (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number) || !number)
		;
	return number;
}

char *cbt_log_path(const char *dir, const char *key, const char *suffix)
{
	char *path;

	return asprintf(&path, "%s/%s%s", dir, key, suffix) < 0 ? NULL : path;
}

char *cbt_log_path_with(const char *path, const char *suffix)
{
	char *with;

	return asprintf(&with, "%s%s", path, suffix) < 0 ? NULL : with;
}

char *cbt_log_path_of_image(const char *image, const char *suffix)
{
	const char *slash = strrchr(image, '/'), *dot = strrchr(image, '.');
	char *path;

	if (!slash || !dot || dot <= slash + 1)
		return NULL;
	return asprintf(&path, "%.*s%s", (int)(dot - image), image, suffix) < 0 ? NULL : path;
}

static int read_whole(int fd, void *into, size_t bytes, uint64_t at)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = pread(fd, (char *)into + done, bytes - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EBADMSG;
		done += (size_t)n;
	}
	return 0;
}

static int open_log(const char *path, struct cbt_header *h, struct error *e)
{
	CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint8_t page[CBT_PAGE_BYTES];
	struct stat st;

	if (fd < 0)
		return error_errno(e, errno == ELOOP ? EBADMSG : errno, "open %s", path);
	if (fstat(fd, &st) == -1)
		return error_errno(e, errno, "look at %s", path);
	if (!S_ISREG(st.st_mode) || read_whole(fd, page, sizeof(page), 0) != 0)
		return error_set(e, EBADMSG, "%s is damaged: it has not even a header", path);
	if (cbt_header_decode(page, sizeof(page), h, e) == -1)
		return error_prefix(e, "%s is damaged", path);
	if ((uint64_t)st.st_size < cbt_file_bytes(h->size_bytes))
		return error_set(e, EBADMSG, "%s is damaged: it has %lld bytes instead of %llu", path, (long long)st.st_size,
				 (unsigned long long)cbt_file_bytes(h->size_bytes));
	return take_fd(&fd);
}

int cbt_log_read_header(const char *path, struct cbt_header *h, struct error *e)
{
	int fd = open_log(path, h, e);

	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

static int read_pages(int fd, struct cbt_log *l, uint8_t *buffer)
{
	uint64_t pages = cbt_pages(l->header.size_bytes);

	for (uint64_t n = 0; n < pages;) {
		uint64_t count = MIN(pages - n, (uint64_t)PAGES_AT_ONCE);
		int err = read_whole(fd, buffer, count * CBT_PAGE_BYTES, (1 + n) * CBT_PAGE_BYTES);

		if (err)
			return err;
		for (uint64_t i = 0; i < count; i++, n++)
			cbt_page_decode(buffer + i * CBT_PAGE_BYTES, n, l->regions, l->bits, l->marks);
	}
	return 0;
}

int cbt_log_load(const char *path, struct cbt_log *l, struct error *e)
{
	CLEANUP_FREE uint8_t *buffer = malloc(PAGES_AT_ONCE * CBT_PAGE_BYTES);
	struct cbt_header h;
	CLEANUP_CLOSE int fd = open_log(path, &h, e);
	int err;

	if (fd < 0)
		return -1;
	if (!buffer)
		return error_set(e, ENOMEM, "out of memory");
	if (cbt_log_init(l, h.size_bytes, e) == -1)
		return -1;
	l->header = h;
	err = read_pages(fd, l, buffer);
	if (!err)
		return 0;
	cbt_log_clear(l);
	return error_errno(e, err, "read %s", path);
}

/* --- written */

static bool is_zero(const uint8_t *page)
{
	static const uint8_t none[CBT_PAGE_BYTES];

	return memcmp(page, none, CBT_PAGE_BYTES) == 0;
}

static int write_page(int fd, const uint8_t *page, uint64_t at)
{
	ssize_t n;

	do
		n = pwrite(fd, page, CBT_PAGE_BYTES, (off_t)at);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)CBT_PAGE_BYTES ? 0 : n < 0 ? errno : ENOSPC;
}

/* A log that will be written to has its room. */
static int fill(int fd, const struct cbt_log *l)
{
	uint64_t bytes = cbt_file_bytes(l->header.size_bytes), pages = cbt_pages(l->header.size_bytes);
	struct cbt_header h = l->header;
	uint8_t page[CBT_PAGE_BYTES];
	int err = l->header.is_sealed ? 0 : posix_fallocate(fd, 0, (off_t)bytes);

	if (err && err != EOPNOTSUPP && err != EINVAL)
		return err;
	if (ftruncate(fd, (off_t)bytes) == -1)
		return errno;
	h.session = 0;
	cbt_header_encode(&h, page);
	err = write_page(fd, page, 0);
	for (uint64_t n = 0; n < pages && !err; n++) {
		cbt_page_encode(l->bits, NULL, l->regions, n, page);
		if (!is_zero(page))
			err = write_page(fd, page, (1 + n) * CBT_PAGE_BYTES);
	}
	return err ? err : fsync(fd) == -1 ? errno : 0;
}

int cbt_log_store(const char *path, const struct cbt_log *l, struct error *e)
{
	CLEANUP_FREE char *passing = NULL;
	CLEANUP_CLOSE int fd = -1;
	int err;

	if (asprintf(&passing, "%s.%ld.tmp", path, (long)getpid()) < 0) {
		passing = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	unlink(passing);
	fd = open(passing, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(e, errno, "make %s", passing);
	err = fill(fd, l);
	if (!err && rename(passing, path) == -1)
		err = errno;
	if (!err)
		return proc_sync_dir(path, e);
	unlink(passing);
	return error_errno(e, err, "write %s", path);
}

int cbt_log_seal(const char *path, const char *key, const struct cbt_log *log, struct error *e)
{
	struct cbt_log sealed = *log; /* its arrays are borrowed */
	bool is_again = *key && strcmp(log->header.parent, key) == 0;
	int r;

	if (is_again && cbt_log_load(path, &sealed, e) == -1)
		return -1;
	r = is_again ? cbt_log_merge(&sealed, log, e) : 0;
	sealed.header.is_sealed = true;
	if (r == 0)
		r = cbt_log_store(path, &sealed, e);
	if (is_again)
		cbt_log_clear(&sealed);
	return r;
}

/* --- taken up */

static int merge_next(const char *path, const char *next, struct error *e)
{
	struct cbt_log log, since;
	int r = cbt_log_load(path, &log, e);

	if (r == -1)
		return -1;
	r = cbt_log_load(next, &since, e);
	if (r == 0) {
		cbt_log_settle(&log);
		cbt_log_settle(&since);
		r = cbt_log_merge(&log, &since, e) == 0 ? cbt_log_store(path, &log, e) : -1;
		cbt_log_clear(&since);
	}
	cbt_log_clear(&log);
	if (r == 0 && unlink(next) == -1)
		r = error_errno(e, errno, "remove %s", next);
	return r;
}

/* Its snapshot has all that was written before the moment of .next, whose parent that is. */
static bool is_whole(const char *sealed, const char *path, const char *parent)
{
	struct cbt_header h;
	struct error why;

	if (!*parent || cbt_log_read_header(sealed, &h, &why) == -1)
		return false;
	return cbt_log_read_header(path, &h, &why) == -1 || strcmp(h.parent, parent) != 0;
}

static int finish_next(const char *path, const char *next, struct error *e)
{
	CLEANUP_FREE char *dir = strndup(path, (size_t)(strrchr(path, '/') - path));
	CLEANUP_FREE char *sealed = NULL;
	struct cbt_header h;
	struct error why;

	if (cbt_log_read_header(next, &h, e) == -1)
		return e->err == ENOENT ? 0 : -1;
	sealed = dir ? cbt_log_path(dir, h.parent, CBT_SUFFIX) : NULL;
	if (!sealed)
		return error_set(e, ENOMEM, "out of memory");
	if (is_whole(sealed, path, h.parent)) {
		if (rename(next, path) == -1)
			return error_errno(e, errno, "replace %s", path);
		return proc_sync_dir(path, e);
	}
	if (cbt_log_read_header(path, &h, &why) == -1 && why.err == ENOENT) /* it was disabled just then */
		return unlink(next) == -1 ? error_errno(e, errno, "remove %s", next) : 0;
	return merge_next(path, next, e);
}

int cbt_log_recover(const char *path, struct error *e)
{
	CLEANUP_FREE char *next = cbt_log_path_with(path, ".next");

	if (!next)
		return error_set(e, ENOMEM, "out of memory");
	return finish_next(path, next, e);
}

int cbt_log_take_up(const char *path, struct cbt_log *l, struct error *e)
{
	if (cbt_log_recover(path, e) == -1 || cbt_log_load(path, l, e) == -1)
		return -1;
	cbt_log_settle(l);
	return 0;
}
