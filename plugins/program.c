/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * program - see program.h
 *
 *      /usr/libexec/sxm: sxm-smapi, sxm-handover, sxm-datapath      /usr/sbin: sxm, which starts them, too
 */
#include "plugins/program.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int find_beside(const char *name, char path[static PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - strlen(name) - 1);
	char *slash;

	if (n < 0)
		return -1;
	path[n] = '\0';
	slash = strrchr(path, '/');
	strcpy(slash ? slash + 1 : path, name);
	return access(path, X_OK);
}

int program_find(const char *name, char path[static PATH_MAX], struct error *e)
{
	if (find_beside(name, path) == 0)
		return 0;
	snprintf(path, PATH_MAX, "%s/%s", SXM_LIBEXECDIR, name);
	return access(path, X_OK) == 0 ? 0 : error_errno(e, errno, "run %s", path);
}
