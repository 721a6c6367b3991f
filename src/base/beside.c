/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * beside - see beside.h
 *
 * Of what is no file the whole path is the name: devices of two volume groups, or two exports, may have the same last part. '/'
 * and '%' are escaped. A name longer than a directory's entry may be goes on in another directory,
 *
 *      SXM_STATE_DIR/%2Fdev%2F...(200 bytes)...+/...the rest.owner
 *
 * whose name ends in '+', as no file's here does. So the path can be read off, whatever is in it.
 */
#include "base/beside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/proc.h"

#define PIECE_BYTES 200u /* of 255: suffix and the temporary's one come after it */

bool beside_is_file(const char *image)
{
	struct stat st;

	return *image == '/' && (stat(image, &st) == -1 || S_ISREG(st.st_mode)); /* nor is it a server's export */
}

static char *escape(const char *image)
{
	char *name = malloc(3 * strlen(image) + 2 * (3 * strlen(image) / PIECE_BYTES) + 1);
	char *to = name, *piece = name;

	for (; name && *image; image++) {
		if (to - piece >= (ptrdiff_t)PIECE_BYTES) {
			to += sprintf(to, "+/");
			piece = to;
		}
		to += sprintf(to, *image == '/' || *image == '%' ? "%%%02X" : "%c", *image);
	}
	if (name)
		*to = '\0';
	return name;
}

/* Of a long name: where it goes on. What cannot be made here is said by whoever writes there. */
static void make_dirs(const char *path)
{
	CLEANUP_FREE char *dir = strndup(path, (size_t)(strrchr(path, '/') - path));
	struct error e;

	if (dir)
		proc_make_dir(dir, &e);
}

char *beside_path(const char *image, const char *suffix)
{
	CLEANUP_FREE char *name = NULL;
	char *path;

	if (beside_is_file(image))
		return asprintf(&path, "%s%s", image, suffix) == -1 ? NULL : path;
	name = escape(image);
	if (!name || asprintf(&path, "%s/%s%s", proc_state_dir(), name, suffix) == -1)
		return NULL;
	if (strchr(name, '/'))
		make_dirs(path);
	return path;
}
