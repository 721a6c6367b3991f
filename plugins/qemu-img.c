/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qemu-img - see qemu-img.h
 *
 * What it writes is in the page cache when it ends: what was made is made durable here.
 */
#include "plugins/qemu-img.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "plugins/child.h"
#include "plugins/image.h"

#define SHORT_MS 60000u      /* a header is written */
#define LONG_MS 2000000000u  /* data is: three weeks */
#define MAP_MAX_BYTES (8u << 20)
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

/* argv's last one is path. */
static int make(const char *const *argv, const char *path, unsigned wait_ms, struct error *e)
{
	CLEANUP_CLOSE int fd = image_open_new(path, e);

	if (fd < 0)
		return -1;
	if (run(argv, wait_ms, NULL, e) == 0) {
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

	snprintf(size, sizeof(size), "%lld", (long long)bytes);
	return make((const char *const[]) { "qemu-img", "create", "-q", "-f", "qcow2", path, size, NULL }, path, SHORT_MS, e);
}

int qemu_img_overlay(const char *path, const char *backing, int64_t bytes, struct error *e)
{
	char size[SIZE_TEXT];

	snprintf(size, sizeof(size), "%lld", (long long)bytes);
	return make((const char *const[]) { "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", path,
					    size, NULL }, path, SHORT_MS, e);
}

int qemu_img_convert(const char *from, const char *path, const char *format, struct error *e)
{
	return make((const char *const[]) { "qemu-img", "convert", "-q", "-O", format, from, path, NULL }, path, LONG_MS, e);
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
