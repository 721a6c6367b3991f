/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * content - see content.h
 */
#include "cmd/content.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "plugins/volume.h"

char *content_mark(const char *name, const char *content_id)
{
	char *mark;

	return asprintf(&mark, "%s %s", name, content_id) < 0 ? NULL : mark;
}

/* Whoever writes to it gives it another content_id first. */
static bool take_imported(const struct meta_volume *m, const char *content_id, char name[static QCOW2_STREAM_ID_MAX])
{
	const char *mark = jsonspec_map_get(&m->keys, CONTENT_KEY), *space = mark ? strchr(mark, ' ') : NULL;

	if (!space || strcmp(space + 1, content_id) != 0 || space - mark >= (ptrdiff_t)QCOW2_STREAM_ID_MAX)
		return false;
	snprintf(name, QCOW2_STREAM_ID_MAX, "%.*s", (int)(space - mark), mark);
	return qcow2_stream_is_id(name);
}

static void find_name(const struct meta_volume *m, char name[static QCOW2_STREAM_ID_MAX])
{
	const char *id = jsonspec_map_get(&m->keys, "content_id");

	if (id && take_imported(m, id, name))
		return;
	*name = '\0';
	if (id && qcow2_stream_is_id(id))
		snprintf(name, QCOW2_STREAM_ID_MAX, "%s", id);
}

int content_name(const char *dir, const char *key, char name[static QCOW2_STREAM_ID_MAX], struct error *e)
{
	struct meta_volume m;

	*name = '\0';
	if (meta_volume_read(dir, key, &m, e) == -1)
		return -1;
	if (!volume_is_doubted(dir, key, &m))
		find_name(&m, name);
	meta_volume_clear(&m);
	return 0;
}

static bool is_there(const char *dir, const char *key)
{
	struct meta_volume m;
	struct error e;
	bool is_it;

	if (meta_volume_read(dir, key, &m, &e) == -1)
		return false;
	is_it = !m.is_data_destroyed;
	meta_volume_clear(&m);
	return is_it;
}

bool content_is(const char *dir, const char *key, const char *name)
{
	char its_name[QCOW2_STREAM_ID_MAX];
	struct error e;

	return *name && content_name(dir, key, its_name, &e) == 0 && strcmp(its_name, name) == 0 && is_there(dir, key);
}
