/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * branch - see branch.h
 *
 *      leaf  A            leaf, base  A          leaf  N --> base  A
 *                         next        N
 *
 * Once it was swapped guests write to N alone, so A's name as the leaf must be gone from the medium as well: if the directory
 * cannot be made durable the names are put back before anybody goes on.
 */
#include "plugins/branch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "plugins/qemu-img.h"
#include "plugins/volume.h"

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static int check_length(const struct branch *b, struct error *e)
{
	struct image_info info;
	unsigned files;

	if (tree_look(b->dir, b->leaf, &info, &files, e) == -1)
		return -1;
	if (files < TREE_MAX)
		return 0;
	return error_set(e, EMLINK,
			 "it consists of %u files already, so often was it snapshotted or cloned; destroy some, and wait "
			 "until their data was merged (Plugin.diagnostics tells), or copy it", files);
}

static int read_header(struct branch *b, struct error *e)
{
	CLEANUP_CLOSE int fd = qcow2_open(AT_FDCWD, b->leaf, O_RDONLY, e);

	return fd < 0 ? -1 : qcow2_read_header(fd, b->leaf, &b->header, e);
}

int branch_init(struct branch *b, const char *dir, const char *leaf, struct error *e)
{
	char uuid[VOLUME_UUID_TEXT];

	*b = (struct branch) { .dir = dir, .leaf = leaf, .hold = { .lock = -1, .client.fd = -1 } };
	if (check_length(b, e) == -1 || read_header(b, e) == -1)
		return -1;
	volume_make_uuid(uuid);
	snprintf(b->base_name, sizeof(b->base_name), "%s" QCOW2_BASE_SUFFIX, uuid);
	if (asprintf(&b->base, "%s/%s", dir, b->base_name) < 0)
		b->base = NULL;
	if (asprintf(&b->next, "%s/.%s" QCOW2_SUFFIX ".new", dir, uuid) < 0)
		b->next = NULL;
	return b->base && b->next ? 0 : out_of_memory(e);
}

void branch_fini(struct branch *b)
{
	free(b->base);
	free(b->next);
}

int branch_make(struct branch *b, struct error *e)
{
	return qemu_img_overlay(b->next, b->base_name, (int64_t)b->header.size_bytes, e);
}

int branch_link(struct branch *b, struct error *e)
{
	int err;

	if (link(b->leaf, b->base) == -1)
		return error_errno(e, errno, "give %s another name", b->leaf);
	err = image_sync_dir(b->dir);
	return err ? error_errno(e, err, "make %s durable", b->base) : 0;
}

/* Is the leaf that is held now the one that has the base's name, and of the size it had? */
static int check_held(const struct branch *b, struct error *e)
{
	struct qcow2_header now;
	struct stat held, linked;

	if (fstat(b->hold.lock, &held) == -1 || stat(b->base, &linked) == -1)
		return error_errno(e, errno, "look at %s", b->leaf);
	if (qcow2_read_header(b->hold.lock, b->leaf, &now, e) == -1)
		return -1;
	if (held.st_ino == linked.st_ino && held.st_dev == linked.st_dev && now.size_bytes == b->header.size_bytes)
		return 0;
	return error_set(e, EAGAIN, "%s was changed by another call meanwhile; ask again", b->leaf);
}

int branch_swap(struct branch *b, struct error *e)
{
	if (check_held(b, e) == -1)
		return -1;
	if (rename(b->next, b->leaf) == -1)
		return error_errno(e, errno, "replace %s", b->leaf);
	b->is_swapped = true;
	return 0;
}

void branch_swap_back(struct branch *b)
{
	if (b->is_swapped && rename(b->base, b->leaf) == -1)
		log_error("%s cannot be put back: %s", b->leaf, strerror(errno));
	b->is_swapped = false;
}

int branch_off(struct branch *b, struct error *e)
{
	struct error why;
	int err = 0, r;

	if (branch_link(b, e) == -1 || hold_take(&b->hold, b->leaf, false, e) == -1)
		return -1;
	r = branch_swap(b, e);
	if (r == 0)
		err = image_sync_dir(b->dir);
	if (err) {
		branch_swap_back(b);
		r = error_errno(e, err, "make the new %s durable", b->leaf);
	}
	hold_end(&b->hold, &why);
	return r;
}

void branch_undo(struct branch *b)
{
	struct stat leaf, base;

	if (!b->base || !b->next)
		return;
	unlink(b->next);
	if (stat(b->leaf, &leaf) == 0 && stat(b->base, &base) == 0 && leaf.st_ino == base.st_ino)
		unlink(b->base);
}
