/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * image - see image.h
 *
 * Whoever does I/O on an image holds flock() on it; taking the same lock here is what keeps a resize or a removal off a disk
 * in use, on this host and, where the file system carries locks, on the others.
 *
 *      image-raw    a sparse file; two of them may share blocks            image-clone   how
 *      image-qcow2  a leaf that stands on others (tree.h)
 *
 * From one format or directory to another data is copied: by qemu-img, unless both are raw.
 */
#include "overlay/overlay-file.h"
#include "plugins/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lease.h"
#include "base/log.h"
#include "plugins/datapath.h"
#include "plugins/lock.h"
#include "plugins/qemu-img.h"

#define MAX_BYTES (INT64_C(1) << 62)
#define PAUSE_MS 20u

const char *const image_beside[] = { IMAGE_OWNER_SUFFIX, IMAGE_MARKS_SUFFIX, IMAGE_JOURNAL_SUFFIX, OVERLAY_SUFFIX,
					   OVERLAY_MAP_SUFFIX, NULL };
static const struct image_ops *const formats[] = { &image_raw, &image_qcow2 };

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

void image_pause(void)
{
	const struct timespec pause = { .tv_nsec = PAUSE_MS * (long)NS_PER_MS };

	nanosleep(&pause, NULL);
}

/* --- which */

const struct image_ops *image_format_at(unsigned number)
{
	return number < ARRAY_LEN(formats) ? formats[number] : NULL;
}

const struct image_ops *image_by_format(const char *format)
{
	for (size_t i = 0; i < ARRAY_LEN(formats); i++)
		if (strcmp(formats[i]->format, format) == 0)
			return formats[i];
	return NULL;
}

struct image image_of(const char *dir, const char *key, const char *format)
{
	struct image i = { dir, key, format ? image_by_format(format) : NULL };

	for (size_t n = ARRAY_LEN(formats); !i.ops && n--;) {
		CLEANUP_FREE char *path = NULL;

		i.ops = formats[n];
		path = image_path(&i);
		if (n && path && access(path, F_OK) == -1)
			i.ops = NULL;
	}
	return i;
}

char *image_path(const struct image *i)
{
	char *path;

	return asprintf(&path, "%s/%s.%s", i->dir, i->key, i->ops->format) < 0 ? NULL : path;
}

char *image_passing_path(const struct image *i)
{
	char *path;

	return asprintf(&path, "%s/.%s.%s.new", i->dir, i->key, i->ops->format) < 0 ? NULL : path;
}

int image_round(int64_t bytes, int64_t *rounded, struct error *e)
{
	if (bytes < 0)
		return error_set(e, EINVAL, "a size of %lld bytes is negative", (long long)bytes);
	if (bytes > MAX_BYTES)
		return error_set(e, EFBIG, "a size of %lld bytes is more than any disk can have", (long long)bytes);
	*rounded = (bytes + IMAGE_ALIGNMENT - 1) / IMAGE_ALIGNMENT * IMAGE_ALIGNMENT;
	return 0;
}

/* --- made, and removed */

int image_sync_dir(const char *dir)
{
	CLEANUP_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) == -1 ? errno : 0;
}

int image_open_new(const char *path, struct error *e)
{
	int fd;

	if (unlink(path) == -1 && errno != ENOENT)
		return error_errno(e, errno, "replace %s", path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 ? error_errno(e, errno, "make %s", path) : fd;
}

int image_create(const struct image *i, int64_t bytes, struct error *e)
{
	CLEANUP_FREE char *passing = image_passing_path(i);

	if (!passing)
		return out_of_memory(e);
	return i->ops->make(passing, bytes, e) == 0 ? image_publish(i, e) : -1;
}

/* *lock: -1 where none is needed. */
static int lock_names(const struct image *i, int *lock, struct error *e)
{
	*lock = i->ops->lock ? i->ops->lock(i->dir, e) : -1;
	return i->ops->lock && *lock < 0 ? -1 : 0;
}

/* Those who hold an image for an instant, to give others names, do that under the names' lock. */
static int claim(const struct image *i, int (*try_lock)(const char *path, struct error *e), struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);
	CLEANUP_LOCK int names = -1;
	int lock;

	if (!path)
		return out_of_memory(e);
	lock = try_lock(path, e);
	if (lock >= 0 || e->err != EBUSY || !i->ops->lock)
		return lock;
	return lock_names(i, &names, e) == 0 ? try_lock(path, e) : -1;
}

int image_claim(const struct image *i, struct error *e)
{
	return claim(i, lock_try, e);
}

int image_claim_shared(const struct image *i, struct error *e)
{
	return claim(i, lock_try_shared, e);
}

static int unlink_beside(const char *path, const char *suffix, struct error *e)
{
	CLEANUP_FREE char *file = NULL;

	if (asprintf(&file, "%s%s", path, suffix) < 0) {
		file = NULL;
		return out_of_memory(e);
	}
	return unlink(file) == -1 && errno != ENOENT ? error_errno(e, errno, "remove %s", file) : 0;
}

void image_retire(const struct image *i)
{
	CLEANUP_FREE char *path = image_path(i);
	CLEANUP_FREE char *passing = image_passing_path(i);

	if (path && passing && link(path, passing) == -1 && errno != EEXIST && errno != ENOENT)
		log_debug("no second name for %s: %s", path, strerror(errno)); /* there are file systems without */
}

int image_unlink(const struct image *i, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);
	int err;

	if (!path)
		return out_of_memory(e);
	if (unlink(path) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove %s", path);
	for (const char *const *suffix = image_beside; *suffix; suffix++)
		if (unlink_beside(path, *suffix, e) == -1)
			return -1;
	if (lease_remove(path, e) == -1)
		return -1;
	image_settle(i);
	err = image_sync_dir(i->dir);
	return err ? error_errno(e, err, "make the removal of %s durable", path) : 0;
}

int image_look(const struct image *i, struct image_info *out, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);

	return path ? i->ops->look(i, path, out, e) : out_of_memory(e);
}

int image_grow(const struct image *i, int64_t bytes, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);

	if (!path)
		return out_of_memory(e);
	return datapath_merge(path, e) == -1 ? -1 : i->ops->grow(i, bytes, e);
}

int image_publish(const struct image *i, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);
	CLEANUP_FREE char *passing = image_passing_path(i);
	CLEANUP_LOCK int lock = -1;
	int err;

	if (!path || !passing)
		return out_of_memory(e);
	if (lock_names(i, &lock, e) == -1)
		return -1;
	/* Some file systems have no second names. */
	if (link(passing, path) == -1 && (errno == EEXIST || rename(passing, path) == -1)) {
		err = errno;
		unlink(passing);
		return error_errno(e, err, "make %s", path);
	}
	err = image_sync_dir(i->dir);
	if (!err)
		return 0;
	unlink(path);
	unlink(passing);
	return error_errno(e, err, "make %s durable", path);
}

void image_settle(const struct image *i)
{
	CLEANUP_FREE char *passing = image_passing_path(i);
	CLEANUP_LOCK int lock = -1;
	struct error e;

	if (passing && lock_names(i, &lock, &e) == 0)
		unlink(passing);
}

int image_replace(const struct image *i, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);
	CLEANUP_FREE char *passing = image_passing_path(i);
	CLEANUP_LOCK int lock = -1;
	int err;

	if (!path || !passing)
		return out_of_memory(e);
	if (lock_names(i, &lock, e) == -1)
		return -1;
	if (rename(passing, path) == -1) {
		err = errno;
		unlink(passing);
		return error_errno(e, err, "replace %s", path);
	}
	err = image_sync_dir(i->dir);
	return err ? error_errno(e, err, "make the new %s durable", path) : 0;
}

int image_take_place(const struct image *i, const struct image *other, struct error *e)
{
	CLEANUP_FREE char *path = image_path(i);
	CLEANUP_FREE char *from = image_path(other);
	CLEANUP_LOCK int lock = -1;
	int err;

	if (!path || !from)
		return out_of_memory(e);
	if (lock_names(i, &lock, e) == -1)
		return -1;
	if (rename(from, path) == -1)
		return error_errno(e, errno, "rename %s to %s", from, path);
	err = image_sync_dir(i->dir);
	return err ? error_errno(e, err, "make the new %s durable", path) : 0;
}

/* --- one is made of another */

/* path: from's, by whatever name; nobody writes to it. */
static int copy_still(struct image_taking *t, const char *path, struct error *e)
{
	CLEANUP_FREE char *to = image_passing_path(&t->to);
	CLEANUP_FREE char *from = NULL;
	CLEANUP_CLOSE int fd = -1;
	struct image_info info;

	if (!to)
		return out_of_memory(e);
	if (t->from.ops == &image_raw && t->to.ops == &image_raw) {
		fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		return fd < 0 ? error_errno(e, errno, "open %s", path) : image_clone(fd, path, to, t->may_copy, e);
	}
	if (t->from.ops->look(&t->from, path, &info, e) == -1)
		return -1;
	from = t->from.ops->describe(&t->from, path, e);
	return from ? qemu_img_convert(from, to, t->to.ops->format, info.virtual_bytes, e) : -1;
}

/* In use: what it was at one moment gets a name beside it, and is copied from there. */
static int copy_live(struct image_taking *t, struct error *e)
{
	struct image_taking beside = { .from = t->from, .to = { t->from.dir, t->to.key, t->from.ops }, .may_copy = t->may_copy };
	CLEANUP_FREE char *path = image_passing_path(&beside.to);
	int r;

	if (!path)
		return out_of_memory(e);
	if (t->from.ops->take(&beside, e) == -1)
		return -1;
	t->was_written |= beside.was_written;
	r = copy_still(t, path, e);
	unlink(path);
	if (t->from.ops->collect)
		t->from.ops->collect(t->from.dir);
	return r;
}

int image_take(struct image_taking *t, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_LOCK int lock = -1;

	path = image_path(&t->from);
	if (!path)
		return out_of_memory(e);
	if (datapath_merge(path, e) == -1)
		return -1;
	if (t->from.ops == t->to.ops && strcmp(t->from.dir, t->to.dir) == 0)
		return t->from.ops->take(t, e);
	lock = image_claim_shared(&t->from, e);
	if (lock < 0)
		return e->err == EBUSY ? copy_live(t, e) : -1;
	if (!datapath_has_writer(path))
		return datapath_check_whole(path, e) == 0 ? copy_still(t, path, e) : -1;
	close(take_fd(&lock)); /* it was closed for a moment only: its guests would wait for all of the copy */
	return copy_live(t, e);
}
