/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qemu-img - see qemu-img.h
 *
 * What it writes is in the page cache when it ends: what was made is made durable here.
 *
 * Images that are made have clusters of 128 KiB in 32 parts ("extended" tables): a guest's write of 4 KiB is one part, so nothing
 * around it is copied from the base, and it takes 4 KiB of room, not 64. A qemu-img that knows no such images makes the usual
 * ones. And their files are as long as they may become, with holes: qemu lets a write that makes a file longer wait for all
 * that is under way behind the place, and as others come all the while, it waited for a second and more.
 */
#include "plugins/qemu-img.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "plugins/child.h"
#include "plugins/image.h"

#define SHORT_MS 60000u      /* a header is written */
#define LONG_MS 2000000000u  /* data is: three weeks */
#define MAP_MAX_BYTES (8u << 20)
#define OPTIONS "extended_l2=on,cluster_size=128k"
#define PLAIN "cluster_size=64k"
#define TABLES_BYTES(bytes) ((bytes) / 4096 + (16 << 20)) /* more than an image's tables take */
#define TAIL_BYTES (1 << 20)
#define SIZE_TEXT 24

static int run(const char *const *argv, unsigned wait_ms, char **output, struct error *e)
{
	if (child_read(argv, wait_ms, output ? MAP_MAX_BYTES : CHILD_OUTPUT_BYTES, output, e) == 0)
		return 0;
	if (strstr(e->text, strerror(ENOSPC)))
		e->err = ENOSPC;
	return -1;
}

bool qemu_img_is_there(void)
{
	const char *path = getenv("PATH");
	CLEANUP_FREE char *places = strdup(path ? path : "/usr/bin:/bin");
	char *rest = NULL;

	for (char *place = places ? strtok_r(places, ":", &rest) : NULL; place; place = strtok_r(NULL, ":", &rest)) {
		CLEANUP_FREE char *file = NULL;

		if (asprintf(&file, "%s/qemu-img", place) < 0)
			file = NULL;
		if (file && access(file, X_OK) == 0)
			return true;
	}
	return false;
}

/* --- files are made */

/* Where it cannot be had (a file system's longest file is shorter) it does without. */
static void lengthen(int fd, int64_t bytes)
{
	struct stat st;
	int64_t whole_bytes = (bytes + TABLES_BYTES(bytes)) / TAIL_BYTES * TAIL_BYTES;

	if (fstat(fd, &st) == 0 && st.st_size < whole_bytes && ftruncate(fd, whole_bytes) == -1)
		log_debug("an image cannot be made %lld bytes long: %s", (long long)whole_bytes, strerror(errno));
}

/* options: of argv's. */
static int run_with_options(const char *const *argv, const char **options, unsigned wait_ms, struct error *e)
{
	*options = OPTIONS;
	if (run(argv, wait_ms, NULL, e) == 0)
		return 0;
	if (!strstr(e->text, "extended_l2"))
		return -1;
	error_clear(e);
	*options = PLAIN;
	return run(argv, wait_ms, NULL, e);
}

/* options: of argv's; NULL: it has none. bytes: of the disk of a qcow2 image; else 0. */
static int make(const char *const *argv, const char **options, const char *path, int64_t bytes, unsigned wait_ms,
		struct error *e)
{
	CLEANUP_CLOSE int fd = image_open_new(path, e);

	if (fd < 0)
		return -1;
	if ((options ? run_with_options(argv, options, wait_ms, e) : run(argv, wait_ms, NULL, e)) == 0) {
		if (bytes)
			lengthen(fd, bytes);
		if (fsync(fd) == 0)
			return 0;
		error_errno(e, errno, "make %s durable", path);
	}
	unlink(path);
	return error_prefix(e, "make %s", path);
}

int qemu_img_make(const char *path, int64_t bytes, struct error *e)
{
	char size[SIZE_TEXT];
	const char *argv[] = { "qemu-img", "create", "-q", "-f", "qcow2", "-o", "", path, size, NULL };

	snprintf(size, sizeof(size), "%lld", (long long)bytes);
	return make(argv, &argv[6], path, bytes, SHORT_MS, e);
}

int qemu_img_overlay(const char *path, const char *backing, int64_t bytes, struct error *e)
{
	char size[SIZE_TEXT];
	const char *argv[] = { "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", "-o", "", path,
			       size, NULL };

	snprintf(size, sizeof(size), "%lld", (long long)bytes);
	return make(argv, &argv[11], path, bytes, SHORT_MS, e);
}

int qemu_img_convert(const char *from, const char *path, const char *format, int64_t bytes, struct error *e)
{
	const char *argv[] = { "qemu-img", "convert", "-q", "-O", format, "-o", "", from, path, NULL };
	const char *to_raw[] = { "qemu-img", "convert", "-q", "-O", format, from, path, NULL };

	if (strcmp(format, "qcow2") == 0)
		return make(argv, &argv[6], path, bytes, LONG_MS, e);
	return make(to_raw, NULL, path, 0, LONG_MS, e);
}

void qemu_img_lengthen(const char *path, int64_t bytes)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0)
		lengthen(fd, bytes);
}

/* --- files are changed */

int qemu_img_resize(const char *described, int64_t bytes, struct error *e)
{
	char size[SIZE_TEXT];

	snprintf(size, sizeof(size), "%lld", (long long)bytes);
	return run((const char *const[]) { "qemu-img", "resize", "-q", described, size, NULL }, SHORT_MS, NULL, e);
}

int qemu_img_rebase(const char *described, const char *backing, struct error *e)
{
	return run((const char *const[]) { "qemu-img", "rebase", "-q", "-u", "-b", backing, "-F", "qcow2", described, NULL },
		   SHORT_MS, NULL, e);
}

int qemu_img_commit(const char *described, struct error *e)
{
	return run((const char *const[]) { "qemu-img", "commit", "-q", "-d", described, NULL }, LONG_MS, NULL, e);
}

char *qemu_img_map(const char *described, struct error *e)
{
	char *text = NULL;

	return run((const char *const[]) { "qemu-img", "map", "--output=json", described, NULL }, LONG_MS, &text, e) == 0 ? text :
	       NULL;
}
