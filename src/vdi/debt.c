/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * debt - see debt.h
 *
 * Marks lie beside the image, since whoever takes the SR elsewhere takes them along, and Volume.destroy removes them with it. Of
 * a block device "beside" is /dev, which forgets; there the id names them, which is unique where a device's last name is not.
 */
#include "vdi/debt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"

static char *map_path(const char *run_dir)
{
	char *path;

	return asprintf(&path, "%s/" DEBT_MAP_FILE, run_dir) == -1 ? NULL : path;
}

static bool is_beside(const char *image)
{
	struct stat st;

	return *image == '/' && (stat(image, &st) == -1 || S_ISREG(st.st_mode)); /* nor is it a server's export */
}

static char *path_beside(const char *run_dir, const char *image, const char *suffix)
{
	const char *slash = strrchr(run_dir, '/');
	char *path;
	int n;

	if (is_beside(image))
		n = asprintf(&path, "%s%s", image, suffix);
	else
		n = asprintf(&path, "%s/%s%s", proc_state_dir(), slash ? slash + 1 : run_dir, suffix);
	return n == -1 ? NULL : path;
}

int debt_find(const char *run_dir, const char *image, struct debt *d, struct error *e)
{
	*d = (struct debt){ map_path(run_dir), path_beside(run_dir, image, DEBT_MARKS_SUFFIX),
			    path_beside(run_dir, image, DEBT_JOURNAL_SUFFIX) };
	if (!d->map || !d->marks || !d->journal)
		return error_set(e, ENOMEM, "out of memory");
	return is_beside(image) ? 0 : proc_make_dir(proc_state_dir(), e);
}

void debt_clear(struct debt *d)
{
	free(d->map);
	free(d->marks);
	free(d->journal);
	*d = (struct debt){ 0 };
}

static void drop(const char *path)
{
	if (path && unlink(path) == 0)
		log_debug("removed %s: no mirror is resumed from it", path);
	else if (path && errno != ENOENT && errno != ENOTDIR)
		log_warn("remove %s: %s", path, strerror(errno));
}

void debt_forget_map(const char *run_dir)
{
	CLEANUP_FREE char *path = map_path(run_dir);

	drop(path);
}

void debt_forget(const char *run_dir, const char *image)
{
	CLEANUP_FREE char *marks = path_beside(run_dir, image, DEBT_MARKS_SUFFIX);
	CLEANUP_FREE char *journal = path_beside(run_dir, image, DEBT_JOURNAL_SUFFIX);

	drop(journal);
	drop(marks);
	debt_forget_map(run_dir);
}
