/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * doubt - see doubt.h
 *
 *      SXM_STATE_DIR/doubted/ID    the content_id; ID as of the image's process (vdi-id)
 *
 * There is hardly ever one: so the directory goes with the last, and who reads records looks for that alone.
 */
#include "plugins/doubt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/uri.h"
#include "plugins/image.h"
#include "plugins/vdi-id.h"

#define ID_BYTES_MAX 256u

static char *dir_path(void)
{
	char *path;

	return asprintf(&path, "%s/doubted", proc_state_dir()) < 0 ? NULL : path;
}

static char *path_of(const char *image)
{
	char id[VDI_ID_MAX], *path;

	vdi_id_of_path(image, id);
	return asprintf(&path, "%s/doubted/%s", proc_state_dir(), id) < 0 ? NULL : path;
}

int doubt_begin(const char *image, const char *content_id, struct error *e)
{
	CLEANUP_FREE char *dir = dir_path();
	CLEANUP_FREE char *path = path_of(image);

	if (!dir || !path)
		return error_set(e, ENOMEM, "out of memory");
	if (proc_make_dir(proc_state_dir(), e) == -1 || proc_make_dir(dir, e) == -1)
		return -1;
	return proc_replace_file(path, content_id, strlen(content_id), 0600, e);
}

void doubt_end(const char *image)
{
	CLEANUP_FREE char *dir = dir_path();
	CLEANUP_FREE char *path = path_of(image);

	if (dir && path && unlink(path) == 0)
		rmdir(dir);
}

bool doubt_is_there(const char *image)
{
	CLEANUP_FREE char *path = path_of(image);

	return !path || access(path, F_OK) == 0;
}

/* Heap; NULL: none is doubted. */
static char *doubted_image(const char *dir, const char *key)
{
	CLEANUP_FREE char *doubts = dir_path();
	CLEANUP_FREE char *path = NULL;
	struct image i;
	struct error e;

	if (!doubts || access(doubts, F_OK) == -1)
		return NULL;
	i = image_of(dir, key, NULL);
	path = image_path(&i);
	return path ? uri_canonical(path, &e) : NULL;
}

char *doubt_content_id(const char *dir, const char *key)
{
	CLEANUP_FREE char *image = doubted_image(dir, key);
	CLEANUP_FREE char *path = image ? path_of(image) : NULL;
	struct error e;
	CLEANUP_FREE char *text = path ? proc_read_own_file(path, ID_BYTES_MAX, NULL, &e) : NULL;

	return text && *text ? take_ptr(&text) : NULL;
}

void doubt_settle(const char *dir, const char *key)
{
	CLEANUP_FREE char *image = doubted_image(dir, key);

	if (image)
		doubt_end(image);
}
