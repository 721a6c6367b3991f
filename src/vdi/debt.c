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

	return stat(image, &st) == -1 || S_ISREG(st.st_mode);
}

static char *marks_path(const char *run_dir, const char *image)
{
	const char *slash = strrchr(run_dir, '/');
	char *path;
	int n;

	if (is_beside(image))
		n = asprintf(&path, "%s" DEBT_MARKS_SUFFIX, image);
	else
		n = asprintf(&path, "%s/%s" DEBT_MARKS_SUFFIX, proc_state_dir(), slash ? slash + 1 : run_dir);
	return n == -1 ? NULL : path;
}

int debt_find(const char *run_dir, const char *image, struct debt *d, struct error *e)
{
	*d = (struct debt){ map_path(run_dir), marks_path(run_dir, image) };
	if (!d->map || !d->marks)
		return error_set(e, ENOMEM, "out of memory");
	return is_beside(image) ? 0 : proc_make_dir(proc_state_dir(), e);
}

void debt_clear(struct debt *d)
{
	free(d->map);
	free(d->marks);
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
	CLEANUP_FREE char *path = marks_path(run_dir, image);

	drop(path);
	debt_forget_map(run_dir);
}
