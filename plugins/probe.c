/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * probe - SR.probe: what is, or could be, where a configuration points
 *
 *      something is missing        -> [for each choice there is: the configuration with it, not complete]
 *      an SR is there              -> [configuration with its sr_uuid, complete, the SR]
 *      nothing there, could be     -> [configuration, complete]
 *      could not be                -> []
 *
 * Each type knows how to look (sr.h); nothing it does changes anything.
 */
#include "plugins/probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "base/uri.h"
#include "plugins/smapi.h"

#define TEXT(s) ((char *)(uintptr_t)(s)) /* lent to be encoded */

static int out_of_memory(struct failure *f)
{
	return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
}

static int copy_map(struct jsonspec_map *to, const struct jsonspec_map *from)
{
	int r = 0;

	for (size_t i = 0; from && r == 0 && i < from->count; i++)
		r = jsonspec_map_set(to, from->key[i], from->value[i]);
	return r;
}

static struct types_probe_result *add(struct probe *p, const struct jsonspec_map *configuration, const struct jsonspec_map *info)
{
	struct types_probe_result *more = realloc(p->item, (p->count + 1) * sizeof(*p->item));
	struct types_probe_result *new;

	if (!more)
		return NULL;
	p->item = more;
	new = &p->item[p->count++];
	*new = (struct types_probe_result) { 0 };
	return copy_map(&new->configuration, configuration) == 0 && copy_map(&new->extra_info, info) == 0 ? new : NULL;
}

int probe_add(struct probe *p, enum probe_kind kind, const struct jsonspec_map *configuration, const struct jsonspec_map *info,
	      struct failure *f)
{
	struct types_probe_result *new = add(p, configuration, info);

	if (!new)
		return out_of_memory(f);
	jsonspec_map_unset(&new->configuration, "sr_uuid");
	new->complete = kind == PROBE_FREE;
	return 0;
}

int probe_add_sr(struct probe *p, const struct jsonspec_map *configuration, const char *sr_uuid, const struct types_sr_stat *stat,
		 struct failure *f)
{
	struct types_probe_result *new = add(p, configuration, NULL);
	CLEANUP_FREE char *text = jsonspec_encode(&types_sr_stat, stat);
	struct error e;

	if (!new || !text || jsonspec_map_set(&new->configuration, "sr_uuid", sr_uuid) == -1)
		return out_of_memory(f);
	jsonspec_map_unset(&new->configuration, "force");
	if (jsonspec_decode(&types_sr_stat, text, strlen(text), &new->sr, &e) == -1)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	new->has_sr = new->complete = true;
	return 0;
}

int probe_look(struct probe *p, const struct jsonspec_map *configuration, const char *dir, bool is_shared, struct failure *f)
{
	const char *wanted = jsonspec_map_get(configuration, "sr_uuid");
	CLEANUP_FREE char *handle = uri_of_path("file", dir);
	struct types_sr_stat stat;
	struct meta_sr meta;
	struct statvfs fs;
	struct error e;
	int r;

	if (!handle)
		return out_of_memory(f);
	if (meta_sr_read(dir, &meta, &e) == -1)
		return e.err == ENOENT ? 0 : failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	stat = (struct types_sr_stat) { .sr = handle, .name = meta.name, .description = meta.description, .uuid = meta.uuid,
					.clustered = is_shared, .health = { .tag = TEXT("Healthy"), .arg = TEXT("") } };
	if (statvfs(dir, &fs) == 0) {
		stat.total_space = (int64_t)(fs.f_blocks * fs.f_frsize);
		stat.free_space = (int64_t)(fs.f_bavail * fs.f_frsize);
	}
	if (wanted && strcmp(wanted, meta.uuid) != 0)
		r = failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, wanted, "%s holds SR %s, not %s", dir, meta.uuid, wanted);
	else
		r = probe_add_sr(p, configuration, meta.uuid, &stat, f) == 0 ? 1 : -1;
	meta_sr_clear(&meta);
	return r;
}

void probe_fini(struct probe *p)
{
	for (size_t i = 0; i < p->count; i++)
		jsonspec_clear(&types_probe_result, &p->item[i]);
	free(p->item);
	*p = (struct probe) { 0 };
}

int sr_probe(struct smapi_call *call, char **result, struct failure *f)
{
	struct probe p = { 0 };
	char *text;

	if (call->sr_type->probe(call->sr_type, &call->args.configuration, &p, f) == -1) {
		probe_fini(&p);
		return -1;
	}
	text = jsonspec_array(&types_probe_result, p.item, p.count);
	probe_fini(&p);
	return smapi_result(text, result, f);
}
