/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * backend-kind - see backend-kind.h
 *
 * Whoever serves a guest's device, and who else thinks that it should, goes by the kind: so it is the host's to say, and not the
 * volume's. xenopsd knows vbd, vbd3, qdisk and 9pfs, and no other.
 */
#include "base/backend-kind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"

bool backend_kind_is_one(const char *text)
{
	size_t bytes = strlen(text);

	return bytes >= 1 && bytes < BACKEND_KIND_MAX && text[strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-_")] == '\0';
}

static bool read_in(const char *dir, char out[static BACKEND_KIND_MAX])
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;
	struct error e;

	if (asprintf(&path, "%s/" BACKEND_KIND_FILE, dir) < 0)
		path = NULL;
	text = path ? proc_read_own_file(path, 4 * BACKEND_KIND_MAX, NULL, &e) : NULL;
	if (!text)
		return false;
	text[strcspn(text, " \t\r\n")] = '\0';
	if (backend_kind_is_one(text))
		snprintf(out, BACKEND_KIND_MAX, "%s", text);
	else
		log_warn("%s says no kind of backend: it is " BACKEND_KIND_DEFAULT, path);
	return true;
}

void backend_kind(char out[static BACKEND_KIND_MAX])
{
	snprintf(out, BACKEND_KIND_MAX, BACKEND_KIND_DEFAULT);
	if (!read_in(proc_run_dir(), out))
		read_in(proc_state_dir(), out);
}
