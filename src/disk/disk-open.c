/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-open - the blocking half: open, lock, learn
 *
 *      stat -> open -> fstat -> flock -> alignment -> size and tail -> probe
 *
 * What the page cache keeps is one more copy of the guest's bytes, which costs memory, time and a guess about when it is
 * durable: so O_DIRECT where the file allows it.  Where it does not (tmpfs, some FUSE), buffered, and one line says so.
 *
 * The tail.  O_DIRECT moves whole blocks, but an image may end inside one.  Writing that last block whole would make the
 * image longer, and cutting it again is not atomic.  So the last, partial page goes through a second description of the
 * same file without O_DIRECT:
 *
 *      0                                     tail_start       size
 *      |  fd, O_DIRECT, blocks of `align`        | tail_fd, bytes |
 *
 * No page is ever moved both ways, as tail_start lies on a page; read-ahead is off there, so that the page cache does not
 * take neighbours in.  flush covers both: it is one inode.
 *
 * An image called *.nbd names an export of an NBD server instead: disk-nbd-open.c.  One called *.qcow2 is served by a qemu of its
 * own: disk-qcow2.c.  The name decides, never the contents: a guest could write into a raw image what looks like qcow2.
 *
 * The lock sits on the description that does the I/O: the kernel drops it only when requests of a killed process no longer
 * hold that description, so whoever gets the lock next cannot be overtaken by a dead process' writes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "disk/disk-file.h"
#include "disk/disk-nbd.h"
#include "disk/disk-qcow2.h"

#define LOCK_POLL_MS 3
#define REPLACED_MAX 100u
#define ALIGN_MAX 65536u
#define OPTIMAL_MIN 4096u
#define OPTIMAL_MAX (4u * 1024 * 1024)

static int refuse_type(const char *path, mode_t mode, struct error *e)
{
	const char *what = "a special file";

	if (S_ISREG(mode) || S_ISBLK(mode))
		return 0;
	if (S_ISDIR(mode))
		what = "a directory";
	else if (S_ISFIFO(mode))
		what = "a fifo";
	else if (S_ISSOCK(mode))
		what = "a socket";
	else if (S_ISCHR(mode))
		what = "a character device";
	return error_set(e, EINVAL, "%s is %s; a disk is a regular file or a block device", path, what);
}

/* Looks before it opens: opening alone does things to some devices and waits for ever on a fifo.  The path may change in
 * between, so O_NONBLOCK, and fstat() looks again.  Symbolic links are followed: /dev/mapper is made of them. */
static int open_descriptor(struct disk_file *f, const struct disk_spec *spec, struct stat *st, struct error *e)
{
	int flags = (spec->is_read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	const char *direct = getenv("SXM_DIRECT");

	if (stat(spec->path, st) != 0)
		return error_errno(e, errno, "cannot open %s", spec->path);
	if (refuse_type(spec->path, st->st_mode, e) == -1)
		return -1;
	f->is_direct = !spec->no_direct && !(direct && strcmp(direct, "0") == 0);
	f->fd = open(spec->path, flags | (f->is_direct ? O_DIRECT : 0));
	if (f->fd < 0 && f->is_direct && errno == EINVAL) {
		f->is_direct = false;
		f->fd = open(spec->path, flags);
		if (f->fd >= 0)
			log_info("%s does not take O_DIRECT: the page cache is used", spec->path);
	}
	if (f->fd < 0 || fstat(f->fd, st) != 0)
		return error_errno(e, errno, "cannot open %s", spec->path);
	if (refuse_type(spec->path, st->st_mode, e) == -1)
		return -1;
	/* Left on, io_uring would answer EAGAIN instead of waiting for the disk. */
	if (fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) & ~O_NONBLOCK) != 0)
		return error_errno(e, errno, "cannot open %s", spec->path);
	return 0;
}

/* The kernel has no flock() with a time limit, and a signal aimed at a pool thread to interrupt one is worse than asking
 * again every few milliseconds.  udev takes the same lock for a moment when it looks at a block device. */
int disk_file_lock(int fd, const char *path, bool is_shared, unsigned wait_ms, struct error *e)
{
	uint64_t until_ns = loop_now_ns() + wait_ms * NS_PER_MS;
	const struct timespec pause = { .tv_nsec = LOCK_POLL_MS * (long)NS_PER_MS };
	int how = (is_shared ? LOCK_SH : LOCK_EX) | LOCK_NB;

	while (flock(fd, how) != 0) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return error_errno(e, errno, "cannot lock %s", path);
		if (loop_now_ns() >= until_ns)
			return error_set(e, EBUSY, "%s is in use by another process, which still holds its lock after %u ms; "
					 "stop that one first (`fuser -v %s` names it)", path, wait_ms, path);
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* Whoever waited for the lock may have got that of a file that was replaced, or removed, meanwhile. */
static bool is_current(const struct disk_file *f, const struct stat *st)
{
	struct stat named;

	return f->is_block_device || (stat(f->path, &named) == 0 && named.st_ino == st->st_ino && named.st_dev == st->st_dev);
}

/* The lock is a dead host's, which its server has not taken away, or a stopped process', which will not write any more. */
static bool skip_lock(const struct disk_file *f, struct error *e)
{
	log_error("%s: its lock is held by somebody whose lease is over; it is used without the lock", f->path);
	error_clear(e);
	return true;
}

static int open_and_lock(struct disk_file *f, const struct disk_spec *spec, struct stat *st, struct error *e)
{
	for (unsigned tries = 0; tries < REPLACED_MAX; tries++) {
		if (open_descriptor(f, spec, st, e) == -1)
			return -1;
		f->is_block_device = S_ISBLK(st->st_mode);
		if (disk_file_lock(f->fd, f->path, f->is_read_only || spec->is_sharable, spec->lock_wait_ms, e) == -1 &&
		    !(e->err == EBUSY && spec->may_skip_lock && skip_lock(f, e)))
			return -1;
		if (is_current(f, st))
			return 0;
		close(f->fd);
		f->fd = -1;
	}
	return error_set(e, EBUSY, "%s is replaced again and again", f->path);
}

static bool is_alignment(uint32_t n)
{
	return n != 0 && n <= ALIGN_MAX && (n & (n - 1)) == 0;
}

/* Kernels before 6.1 do not tell: the smallest block that a read takes is it. */
static uint32_t try_alignment(const struct disk_file *f)
{
	uint32_t align = 512;
	CLEANUP_FREE void *page = aligned_alloc(4096, 4096);

	if (!page || f->size_bytes < 4096)
		return 4096;
	while (align < 4096 && pread(f->fd, page, align, align) < 0 && errno == EINVAL)
		align *= 2;
	return align;
}

/* Where a file's blocks may be shared (they may be at any time), XFS writes a part of one through its page cache, which then gets
 * into the way of what is written past it: "direct" I/O would end in EIO at the next flush. So whole blocks there. */
static uint32_t ask_shared_block(const struct disk_file *f)
{
	struct statfs fs;

	return !f->is_block_device && fstatfs(f->fd, &fs) == 0 && fs.f_type == XFS_SUPER_MAGIC ? (uint32_t)fs.f_bsize : 1;
}

/* False: not for O_DIRECT. */
static bool ask_alignment(struct disk_file *f)
{
	int block_bytes = 0;

#ifdef STATX_DIOALIGN
	struct statx sx;

	if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 && (sx.stx_mask & STATX_DIOALIGN)) {
		f->align = MAX(sx.stx_dio_offset_align, ask_shared_block(f));
		f->memory_align = sx.stx_dio_mem_align;
		return is_alignment(f->align) && is_alignment(f->memory_align);
	}
#endif
	f->memory_align = 4096;
	if (!f->is_block_device)
		f->align = MAX(try_alignment(f), ask_shared_block(f));
	else if (ioctl(f->fd, BLKSSZGET, &block_bytes) == 0)
		f->align = (uint32_t)block_bytes;
	return is_alignment(f->align);
}

static void go_buffered(struct disk_file *f)
{
	int flags = fcntl(f->fd, F_GETFL);

	if (flags & O_DIRECT)
		fcntl(f->fd, F_SETFL, flags & ~O_DIRECT);
	f->is_direct = false;
	f->align = 1;
	f->memory_align = 1;
}

static int ask_size(struct disk_file *f, struct error *e)
{
	struct stat st;

	if (f->is_block_device) {
		if (ioctl(f->fd, BLKGETSIZE64, &f->size_bytes) != 0)
			return error_errno(e, errno, "cannot ask for the size of %s", f->path);
		return 0;
	}
	if (fstat(f->fd, &st) != 0)
		return error_errno(e, errno, "cannot ask for the size of %s", f->path);
	f->size_bytes = (uint64_t)st.st_size;
	return 0;
}

static int open_tail(struct disk_file *f)
{
	char self[32];

	/* Not by path: that may name another file by now. */
	snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
	f->tail_fd = open(self, (f->is_read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (f->tail_fd < 0)
		return -1;
	posix_fadvise(f->tail_fd, 0, 0, POSIX_FADV_RANDOM);
	return 0;
}

int disk_file_measure(struct disk_file *f, struct error *e)
{
	uint64_t page_bytes = MAX((uint64_t)sysconf(_SC_PAGESIZE), (uint64_t)f->align);

	if (f->is_nbd)
		return 0; /* it has the size it had when it was opened */
	if (ask_size(f, e) == -1)
		return -1;
	f->tail_start = f->size_bytes;
	if (f->size_bytes % f->align == 0)
		return 0;
	if (f->tail_fd < 0 && open_tail(f) == -1)
		return error_errno(e, errno, "cannot open the last block of %s", f->path);
	f->tail_start = f->size_bytes / page_bytes * page_bytes;
	return 0;
}

static uint64_t read_queue_limit(dev_t dev, const char *name)
{
	static const char *const form[] = { "/sys/dev/block/%u:%u/queue/%s", "/sys/dev/block/%u:%u/../queue/%s" };

	for (size_t i = 0; i < ARRAY_LEN(form); i++) {
		unsigned long long limit = 0;
		char path[128];
		CLEANUP_FCLOSE FILE *file = NULL;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(path, sizeof(path), form[i], major(dev), minor(dev), name);
#pragma GCC diagnostic pop
		file = fopen(path, "re");
		if (file && fscanf(file, "%llu", &limit) == 1)
			return limit;
	}
	return 0;
}

/* A file is asked by punching behind its end, where nothing is.  A device cannot be asked that way; its queue's limits tell
 * (a partition's are its parent's). */
static bool probe_punch(const struct disk_file *f, const struct stat *st)
{
	uint64_t behind = (f->size_bytes + MiB) & ~(MiB - 1);

	if (f->is_read_only)
		return false;
	if (f->is_block_device)
		return read_queue_limit(st->st_rdev, "write_zeroes_max_bytes") > 0;
	if (behind > INT64_MAX - MiB)
		return false;
	return fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)behind, (off_t)(64 * KiB)) == 0;
}

static int learn(struct disk_file *f, const struct stat *st, struct error *e)
{
	int block_bytes = 0;
	uint32_t optimal = (uint32_t)MIN(MAX((unsigned long)st->st_blksize, 1ul * OPTIMAL_MIN), 1ul * OPTIMAL_MAX);

	if (ask_size(f, e) == -1)
		return -1;
	if (f->is_direct && !ask_alignment(f)) {
		log_info("%s does not take O_DIRECT: the page cache is used", f->path);
		f->is_direct = false;
	}
	if (!f->is_direct)
		go_buffered(f);
	if (disk_file_measure(f, e) == -1) {
		if (!f->is_direct)
			return -1;
		log_warn("%s: %s: the page cache is used", f->path, e->text);
		error_clear(e);
		go_buffered(f);
		if (disk_file_measure(f, e) == -1)
			return -1;
	}
	f->fallocate_align = 1;
	if (f->is_block_device) {
		if (ioctl(f->fd, BLKSSZGET, &block_bytes) != 0)
			return error_errno(e, errno, "cannot ask for the block size of %s", f->path);
		f->fallocate_align = (uint32_t)block_bytes;
	}
	f->block_bytes = f->is_direct ? MAX(f->align, 512u) : 4096u;
	f->optimal_bytes = MAX(f->block_bytes, (optimal & (optimal - 1)) ? OPTIMAL_MIN : optimal);
	f->can_punch = probe_punch(f, st);
	return 0;
}

struct disk_file *disk_open(const struct disk_spec *spec, struct error *e)
{
	struct disk_file *f = calloc(1, sizeof(*f));
	struct error own = { 0 };
	struct stat st;

	if (!e)
		e = &own;
	if (!f || !(f->path = strdup(spec->path))) {
		free(f);
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	f->fd = f->tail_fd = -1;
	f->is_read_only = spec->is_read_only;
	f->is_leased = spec->is_leased;
	f->engine = spec->engine;
	if (disk_nbd_is_named(f->path)) {
		if (disk_nbd_open(f, spec, e) == -1)
			goto fail;
		return f;
	}
	if (disk_qcow2_is_named(f->path)) {
		if (disk_qcow2_open(f, spec, e) == -1)
			goto fail;
		return f;
	}
	if (open_and_lock(f, spec, &st, e) == -1 || learn(f, &st, e) == -1)
		goto fail;
	if (f->is_leased && !f->is_direct) {
		error_set(e, EINVAL, "%s is on storage that several hosts share, and does not take O_DIRECT (or is told not to): "
			  "what the page cache keeps would be written when another host has the disk", f->path);
		goto fail;
	}
	return f;
fail:
	disk_file_close(f);
	return NULL;
}

uint64_t disk_file_size(const struct disk_file *f)
{
	return f->size_bytes;
}

void disk_file_close(struct disk_file *f)
{
	if (!f)
		return;
	disk_nbd_close(f->nbd);
	/* The lock goes with fd: last. */
	if (f->tail_fd >= 0)
		close(f->tail_fd);
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}
