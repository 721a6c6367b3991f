/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fsck-chain - what is wrong between the files of several volumes: what a qcow2 image stands on, and logs of changes
 *
 *      LEAF.qcow2 -> A.base.qcow2 -> B.base.qcow2          not there, a circle, shorter than its base, a volume's image itself
 *      KEY.cbt                                             damaged
 *
 * Which bytes a base should have nobody knows any more, so what is in the files is not judged, and no chain is made another one.
 * A base that is not there and is in sxm-lost+found goes back. A log that says nothing goes: its volume's changes are not known
 * then, which whoever asks for them is told, and a full copy is right again.
 * A base that nothing stands on is not found here: SR.attach removes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "cbt/cbt-log.h"
#include "plugins/fsck-private.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "qcow2/qcow2-chain.h"

static int open_dir(const struct fsck *f, const char *name)
{
	CLEANUP_FREE char *path = fsck_path(f, name);

	return path ? open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
}

/* --- a base that is not there */

static bool is_aside(const struct fsck *f, const char *base)
{
	CLEANUP_CLOSE int aside = open_dir(f, FSCK_ASIDE);
	CLEANUP_CLOSE int fd = -1;
	struct qcow2_header h;
	struct error e = { 0 };

	if (aside >= 0)
		fd = qcow2_open(aside, base, O_RDONLY, &e);
	return fd >= 0 && qcow2_read_header(fd, base, &h, &e) == 0;
}

static int put_back(const struct fsck *f, const char *base, struct error *e)
{
	CLEANUP_CLOSE int dir = open_dir(f, ".");
	CLEANUP_CLOSE int aside = open_dir(f, FSCK_ASIDE);
	int err;

	if (dir < 0 || aside < 0)
		return error_errno(e, errno, "open %s", f->dir);
	if (renameat(aside, base, dir, base) == -1)
		return error_errno(e, errno, "move %s back", base);
	err = fsync(aside) == -1 ? errno : image_sync_dir(f->dir);
	return err ? error_errno(e, err, "make the move of %s durable", base) : 0;
}

static void missing(struct fsck *f, const char *leaf, const char *upper, const char *base)
{
	bool can_be_put_back = is_aside(f, base);
	struct error e;

	if (fsck_found(f, can_be_put_back ? "put it back from " FSCK_ASIDE : NULL,
		       "%s cannot be read: %s stands on %s, which is not there%s", leaf, upper, base,
		       can_be_put_back ? "" : "; put it back from a backup, or destroy the volume"))
		fsck_done(f, put_back(f, base, &e), &e);
}

/* --- a chain */

/* The volume whose image that file is; "": none. */
static void find_leaf(const struct fsck *f, ino_t inode, char leaf[static QCOW2_NAME_MAX + 1])
{
	struct jsonspec_list names;
	struct error e;
	struct stat st;

	*leaf = '\0';
	if (fsck_list(f, &names, &e) == -1)
		return;
	for (size_t i = 0; i < names.count && !*leaf; i++) {
		const char *name = names.item[i];

		if (*name != '.' && qcow2_is_named(name) && !qcow2_is_base_name(name) && fsck_look(f, name, &st) &&
		    st.st_ino == inode)
			snprintf(leaf, QCOW2_NAME_MAX + 1, "%s", name);
	}
	meta_list_clear(&names);
}

/* A base whose file has several names: is one of them a volume's image? */
static void check_names(struct fsck *f, const char *leaf, const char *base, const struct stat *st)
{
	char other[QCOW2_NAME_MAX + 1];

	if (st->st_nlink < 2)
		return;
	find_leaf(f, st->st_ino, other);
	if (*other)
		fsck_found(f, NULL, "%s stands on %s, which is one file with %s: what is written there changes it; copy %s by "
			   "Volume.copy, and destroy it", leaf, base, other, other);
}

struct walk {
	const char *leaf;
	char upper[QCOW2_NAME_MAX + 1], name[QCOW2_NAME_MAX + 1];
	uint64_t upper_bytes;
	size_t files;
};

/* One file further. False: that was the last one, or there is a finding. */
static bool step(struct fsck *f, int dir, struct walk *w)
{
	struct error e = { 0 };
	CLEANUP_CLOSE int fd = qcow2_open(dir, w->name, O_RDONLY, &e);
	struct qcow2_header h;
	struct stat st;

	if (fd < 0 && e.err == ENOENT && w->files) {
		missing(f, w->leaf, w->upper, w->name);
		return false;
	}
	if (fd < 0 || fstat(fd, &st) == -1 || qcow2_read_header(fd, w->name, &h, &e) == -1) {
		if (w->files)
			fsck_found(f, NULL, "%s cannot be read: %s", w->leaf, e.text);
		else if (fd >= 0)
			fsck_found(f, NULL, "%s", e.text);
		return false;
	}
	if (w->files && h.size_bytes > w->upper_bytes)
		fsck_found(f, NULL, "%s has %llu bytes, less than %s, which it stands on and which has %llu: what is behind them "
			   "cannot be seen", w->upper, (unsigned long long)w->upper_bytes, w->name,
			   (unsigned long long)h.size_bytes);
	if (w->files)
		check_names(f, w->leaf, w->name, &st);
	w->upper_bytes = h.size_bytes;
	memcpy(w->upper, w->name, sizeof(w->upper));
	memcpy(w->name, h.backing, sizeof(w->name));
	w->files++;
	return *w->name != '\0';
}

void fsck_chain(struct fsck *f, const char *name)
{
	CLEANUP_CLOSE int dir = open_dir(f, ".");
	struct walk w = { .leaf = name };

	if (dir < 0 || *name == '.' || !qcow2_is_named(name) || qcow2_is_base_name(name) || strlen(name) > QCOW2_NAME_MAX)
		return;
	strcpy(w.name, name);
	while (step(f, dir, &w))
		if (w.files > QCOW2_CHAIN_MAX) {
			fsck_found(f, NULL, "%s cannot be read: it stands on more than %u files, or they stand on each other, "
				   "like %s and %s", name, QCOW2_CHAIN_MAX, w.upper, w.name);
			return;
		}
}

/* --- logs of changes */

/* Whoever has the image open may be writing the log. */
static int lock_image(const struct fsck *f, const char *key, struct error *e)
{
	static const char *const formats[] = { "raw", "qcow2" };

	for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
		CLEANUP_FREE char *image = NULL;

		if (asprintf(&image, "%s.%s", key, formats[i]) < 0)
			image = NULL;
		if (image && fsck_is_file(f, image))
			return fsck_lock(f, image, e);
	}
	return open("/dev/null", O_RDONLY | O_CLOEXEC); /* nobody's any more */
}

void fsck_log(struct fsck *f, const char *name)
{
	char key[META_KEY_MAX + 1];
	CLEANUP_FREE char *path = NULL;
	CLEANUP_LOCK int lock = -1;
	struct cbt_log log;
	struct error e = { 0 };
	struct stat st;

	if (!meta_split_name(name, CBT_SUFFIX, key) || !fsck_look(f, name, &st))
		return;
	if (!S_ISREG(st.st_mode)) {
		fsck_aside(f, name, "%s is %s, not a log of changes", name, fsck_type(st.st_mode));
		return;
	}
	fsck_check_access(f, name, &st);
	path = fsck_path(f, name);
	lock = lock_image(f, key, &e);
	if (!path || lock < 0)
		return;
	if (cbt_log_load(path, &log, &e) == 0)
		cbt_log_clear(&log);
	else if (e.err == EBADMSG)
		fsck_aside(f, name, "%s: which blocks of %s changed is not known any more", e.text, key);
}
