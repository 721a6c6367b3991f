/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * probe - SR.probe: what is, or could be, where a configuration points
 *
 *      no place named              -> [the configuration, not complete]
 *      an SR is there              -> [configuration with its sr_uuid, complete, the SR]
 *      nothing there, could be     -> [configuration, complete]
 *      could not be                -> []
 *
 * sr_uuid stands in a configuration exactly where the SR is told too: everything else makes xapi refuse the whole answer.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "plugins/smapi.h"
#include "plugins/uri.h"

/* 1: an SR; 0: none; -1 + f. */
static int look(struct smapi_call *call, const char *dir, struct types_probe_result *found, char **stat, struct failure *f)
{
	struct jsonspec_map *configuration = &call->args.configuration;
	const char *wanted = jsonspec_map_get(configuration, "sr_uuid");
	CLEANUP_FREE char *handle = uri_of_path("file", dir);
	struct smapi_call ask = { .verb = "SR.stat", .sr_type = call->sr_type, .args.sr = handle };
	struct error e;
	struct meta_sr meta;

	if (!handle)
		return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
	if (meta_sr_read(dir, &meta, &e) == -1)
		return e.err == ENOENT ? 0 : failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	if (wanted && strcmp(wanted, meta.uuid) != 0) {
		failure_raise(f, FAILURE_SR_DOES_NOT_EXIST, wanted, "%s holds SR %s, not %s", dir, meta.uuid, wanted);
		meta_sr_clear(&meta);
		return -1;
	}
	if (jsonspec_map_set(configuration, "sr_uuid", meta.uuid) == -1 || jsonspec_map_set(configuration, "uri", handle) == -1) {
		meta_sr_clear(&meta);
		return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
	}
	meta_sr_clear(&meta);
	if (sr_stat(&ask, stat, f) == -1)
		return -1;
	if (jsonspec_decode(&types_sr_stat, *stat, strlen(*stat), &found->sr, &e) == -1)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	found->has_sr = true;
	return 1;
}

static int answer(struct smapi_call *call, struct types_probe_result *found, char **result, struct failure *f)
{
	char *text;

	found->configuration = call->args.configuration; /* lent */
	text = jsonspec_array(&types_probe_result, found, 1);
	if (found->has_sr)
		jsonspec_clear(&types_sr_stat, &found->sr);
	return smapi_result(text, result, f);
}

int sr_probe(struct smapi_call *call, char **result, struct failure *f)
{
	struct jsonspec_map *configuration = &call->args.configuration;
	struct types_probe_result found = { 0 };
	CLEANUP_FREE char *stat = NULL;
	CLEANUP_FREE char *dir = NULL;
	int r = 0;

	if (!jsonspec_map_get(configuration, "uri") && !jsonspec_map_get(configuration, "file-uri")) {
		jsonspec_map_unset(configuration, "sr_uuid");
		return answer(call, &found, result, f);
	}
	if (call->sr_type->check(configuration, f) == -1)
		return -1;
	dir = call->sr_type->find(configuration, f);
	if (dir)
		r = look(call, dir, &found, &stat, f);
	if (r == -1)
		return -1;
	if (r == 0) {
		if (!call->sr_type->can_make(configuration))
			return smapi_result(strdup("[]"), result, f);
		jsonspec_map_unset(configuration, "sr_uuid");
	}
	found.complete = true;
	return answer(call, &found, result, f);
}
