/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qcow2-chain - see qcow2-chain.h
 *
 * A file that is reached twice is a circle, by whatever names: inodes are compared. (That an image and a base are one inode is
 * what a snapshot that was interrupted leaves, and no circle: neither is below the other.)
 */
#include "qcow2/qcow2-chain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define TABLE_PART_BYTES (64 * KiB)

int qcow2_open(int dir, const char *name, int flags, struct error *e)
{
	CLEANUP_CLOSE int fd = -1;
	struct stat st;

	/* A fifo would make a plain open() wait for its other end. */
	fd = openat(dir, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 && errno == ELOOP)
		return error_set(e, ELOOP, "%s is a symbolic link; an image must be a file of its own", name);
	if (fd < 0 || fstat(fd, &st) == -1)
		return error_errno(e, errno, "open %s", name);
	if (!S_ISREG(st.st_mode))
		return error_set(e, EINVAL, "%s is not a regular file", name);
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) == -1)
		return error_errno(e, errno, "open %s", name);
	return take_fd(&fd);
}

/* How much of it there was, or -1 and errno. */
static ssize_t read_part(int fd, void *memory, size_t bytes, uint64_t offset)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = pread(fd, (uint8_t *)memory + done, bytes - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int qcow2_read_header(int fd, const char *name, struct qcow2_header *out, struct error *e)
{
	CLEANUP_FREE void *head = malloc(QCOW2_HEAD_BYTES);
	ssize_t bytes;

	if (!head)
		return error_set(e, ENOMEM, "out of memory");
	bytes = read_part(fd, head, QCOW2_HEAD_BYTES, 0);
	if (bytes < 0)
		return error_errno(e, errno, "read %s", name);
	if (qcow2_header_parse(head, (size_t)bytes, out, e) == -1)
		return error_prefix(e, "%s", name);
	return 0;
}

static bool was_met(const struct qcow2_chain *c, const struct stat *leaf, const struct stat *st)
{
	if (leaf->st_dev == st->st_dev && leaf->st_ino == st->st_ino)
		return true;
	for (size_t i = 0; i < c->count; i++)
		if (c->base[i].dev == st->st_dev && c->base[i].ino == st->st_ino)
			return true;
	return false;
}

static int add_base(struct qcow2_chain *c, int dir, const char *name, const struct stat *leaf, struct error *e)
{
	struct qcow2_base *b = &c->base[c->count];
	CLEANUP_CLOSE int fd = qcow2_open(dir, name, O_RDONLY, e);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) == -1)
		return error_errno(e, errno, "look at %s", name);
	if (was_met(c, leaf, &st))
		return error_set(e, ELOOP, "%s is a backing file of itself", name);
	if (qcow2_read_header(fd, name, &b->header, e) == -1)
		return -1;
	snprintf(b->name, sizeof(b->name), "%s", name);
	b->dev = st.st_dev;
	b->ino = st.st_ino;
	b->fd = take_fd(&fd);
	c->count++;
	return 0;
}

int qcow2_chain_open(struct qcow2_chain *c, int dir, int fd, const char *name, struct error *e)
{
	const struct qcow2_header *last = &c->leaf;
	struct stat leaf;

	*c = (struct qcow2_chain){ 0 };
	if (fstat(fd, &leaf) == -1)
		return error_errno(e, errno, "look at %s", name);
	if (qcow2_read_header(fd, name, &c->leaf, e) == -1)
		return -1;
	while (*last->backing) {
		if (c->count == ARRAY_LEN(c->base)) {
			error_set(e, EMLINK, "%s stands on more than %u images", name, QCOW2_CHAIN_MAX - 1);
			goto fail;
		}
		if (add_base(c, dir, last->backing, &leaf, e) == -1)
			goto fail;
		last = &c->base[c->count - 1].header;
	}
	return 0;
fail:
	qcow2_chain_close(c);
	return error_prefix(e, "what %s stands on", name);
}

void qcow2_chain_close(struct qcow2_chain *c)
{
	while (c->count)
		close(c->base[--c->count].fd);
}

int qcow2_is_blank(int fd, const struct qcow2_header *h, bool *is_blank, struct error *e)
{
	CLEANUP_FREE uint8_t *part = malloc(TABLE_PART_BYTES);
	uint64_t at = h->l1_offset, end = at + h->l1_count * UINT64_C(8);

	if (!part)
		return error_set(e, ENOMEM, "out of memory");
	for (*is_blank = true; *is_blank && at < end;) {
		ssize_t bytes = read_part(fd, part, (size_t)MIN((uint64_t)TABLE_PART_BYTES, end - at), at);

		if (bytes < 0)
			return error_errno(e, errno, "read the image's first table");
		if (!bytes)
			break; /* behind the end of the file it is zero */
		*is_blank = part[0] == 0 && memcmp(part, part + 1, (size_t)bytes - 1) == 0;
		at += (uint64_t)bytes;
	}
	return 0;
}
