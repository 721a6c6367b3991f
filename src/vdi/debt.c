/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * debt - see debt.h
 *
 * Marks lie beside the image, since whoever takes the SR elsewhere takes them along, and Volume.destroy removes them with it.
 */
#include "vdi/debt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/beside.h"

static char *map_path(const char *run_dir)
{
	char *path;

	return asprintf(&path, "%s/" DEBT_MAP_FILE, run_dir) == -1 ? NULL : path;
}

int debt_find(const char *run_dir, const char *image, struct debt *d, struct error *e)
{
	*d = (struct debt){ map_path(run_dir), beside_path(image, DEBT_MARKS_SUFFIX),
			    beside_path(image, DEBT_JOURNAL_SUFFIX) };
	if (!d->map || !d->marks || !d->journal)
		return error_set(e, ENOMEM, "out of memory");
	return beside_is_file(image) ? 0 : proc_make_dir(proc_state_dir(), e);
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
	CLEANUP_FREE char *marks = beside_path(image, DEBT_MARKS_SUFFIX);
	CLEANUP_FREE char *journal = beside_path(image, DEBT_JOURNAL_SUFFIX);

	drop(journal);
	drop(marks);
	debt_forget_map(run_dir);
}
