/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * find - see find.h
 */
#include "cmd/find.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/uri.h"
#include "plugins/mount.h"
#include "plugins/sr.h"

/* Of the SRs that are attached here. Heap; NULL + e. */
static char *find_attached(const char *uuid, struct error *e)
{
	struct jsonspec_list handles;
	char *found = NULL;

	if (sr_attached(&handles, e) == -1)
		return NULL;
	for (size_t i = 0; i < handles.count && !found; i++) {
		struct error why;
		CLEANUP_FREE char *dir = uri_path(handles.item[i], "file", &why);
		const char *last = dir ? strrchr(dir, '/') : NULL;
		struct meta_sr m;

		if (!dir)
			continue;
		if (meta_sr_read(dir, &m, &why) == 0) {
			if (strcmp(m.uuid, uuid) == 0)
				found = take_ptr(&dir);
			meta_sr_clear(&m);
		} else if (last && mount_is_dir(dir) && strcmp(last + 1, uuid) == 0) {
			found = take_ptr(&dir);
		}
	}
	meta_list_clear(&handles);
	if (!found)
		error_set(e, ENOENT, "no SR %s is attached here; attach it, or give its directory", uuid);
	return found;
}

char *find_sr_dir(const char *name, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	struct stat st;
	char *dir;

	if (strncasecmp(name, "file:", 5) == 0)
		path = uri_path(name, "file", e);
	else if (!strchr(name, '/') && stat(name, &st) == -1)
		return find_attached(name, e);
	else
		path = strdup(name);
	if (!path)
		return NULL;
	dir = realpath(path, NULL);
	if (!dir)
		error_errno(e, errno, "look at %s", path);
	return dir;
}
