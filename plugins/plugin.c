/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * plugin - the Plugin.* verbs: what we are, and what is left lying about
 *
 * Plugin.Query works with nothing attached and nothing made, and says only what is so: xapi offers what is declared here.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/uri.h"
#include "plugins/child.h"
#include "plugins/coalesce.h"
#include "plugins/process.h"
#include "plugins/smapi.h"

#define REPORT_MS 5000u
#define REPORT_MAX_BYTES (4u << 20)
#define TEXT(s) ((char *)(uintptr_t)(s)) /* lent to be encoded */

/* Of every type of SR, as all are directories of volumes; those that xapi cannot derive from the verbs' files. VDI_MIRROR is what
 * tests/two-host plays as a whole: from any of these SRs to any other, and from and to SMAPIv1. */
static const char *const volume_features[] = { "VDI_MIRROR", "VDI_MIRROR_IN", "VDI_COMPOSE", "VDI_ACTIVATE_READONLY",
					       "VDI_REVERT", "VDI_RESIZE_ONLINE", "VDI_CONFIG_CBT", "THIN_PROVISIONING",
					       "LARGE_VDI" };

static int out_of_memory(struct failure *f)
{
	return failure_set(f, FAILURE_REQUEST, ENOMEM, "out of memory");
}

static int answer_query(struct types_query_result *q, char **result, struct failure *f)
{
	q->vendor = TEXT("sxm");
	q->copyright = TEXT("(C) the sxm authors, LGPL-2.1-or-later");
	q->version = TEXT(PACKAGE_VERSION);
	q->required_api_version = TEXT("5.0");
	return smapi_result(jsonspec_encode(&types_query_result, q), result, f);
}

static int query_volumes(const struct sr_ops *type, char **result, struct failure *f)
{
	struct types_query_result q = { .plugin = TEXT(type->type),
					.name = TEXT(type->name),
					.description = TEXT(type->description) };
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_LEN(volume_features); i++)
		r = jsonspec_list_add(&q.features, volume_features[i]);
	for (const struct sr_option *o = type->options; r == 0 && o->key; o++)
		r = jsonspec_map_set(&q.configuration, o->key, o->description);
	r = r == 0 ? answer_query(&q, result, f) : out_of_memory(f);
	q.plugin = q.name = q.description = q.vendor = q.copyright = q.version = q.required_api_version = NULL;
	jsonspec_clear(&types_query_result, &q);
	return r;
}

int plugin_query(struct smapi_call *call, char **result, struct failure *f)
{
	struct types_query_result q = {
		.plugin = TEXT("sxm"),
		.name = TEXT("Disks that move"),
		.description = TEXT("Serves images over NBD, one process each, and mirrors them while they are written")
	};

	int r;

	if (call->sr_type)
		return query_volumes(call->sr_type, result, f);
	r = jsonspec_list_add(&q.features, "VDI_MIRROR_IN"); /* what the datapath needs for that: import_activate */
	r = r == 0 ? answer_query(&q, result, f) : out_of_memory(f);
	q.plugin = q.name = q.description = q.vendor = q.copyright = q.version = q.required_api_version = NULL;
	jsonspec_clear(&types_query_result, &q);
	return r;
}

int plugin_ls(struct smapi_call *call UNUSED, char **result, struct failure *f)
{
	struct jsonspec_list handles;
	struct error e;
	char *text;

	if (sr_attached(&handles, &e) == -1)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	text = jsonspec_strings((const char *const *)handles.item, handles.count);
	meta_list_clear(&handles);
	return smapi_result(text, result, f);
}

/* --- diagnostics */

static void report_sr(const char *handle, FILE *to)
{
	struct jsonspec_list keys, leftovers;
	struct failure f;
	struct error e;
	struct sr sr;

	if (sr_open(&sr, handle, &f) == -1) {
		fprintf(to, "SR %s: %s\n", handle, f.e.text);
		return;
	}
	if (meta_list(sr.dir, &keys, &e) == -1) {
		fprintf(to, "SR %s: %s\n", handle, e.text);
		sr_close(&sr);
		return;
	}
	fprintf(to, "SR %s (%s): %zu volumes\n", handle, sr.meta.uuid, keys.count);
	meta_list_clear(&keys);
	if (meta_leftovers(sr.dir, &leftovers, &e) == 0) {
		for (size_t i = 0; i < leftovers.count; i++)
			fprintf(to,
				"    %s/%s belongs to no volume: left by a verb that was killed, or being made just now\n",
				sr.dir, leftovers.item[i]);
		meta_list_clear(&leftovers);
	}
	coalesce_report(sr.dir, to);
	sr_close(&sr);
}

/* In a child: an SR's server may not answer. */
static int report_in_child(void *arg, int fd, struct error *e UNUSED)
{
	FILE *to = fdopen(fd, "w");

	if (to)
		report_sr(arg, to);
	return to && fclose(to) == 0 ? 0 : -1;
}

static void report_bounded(char *handle, FILE *to)
{
	CLEANUP_FREE char *text = NULL;
	struct error e = { 0 };

	if (child_call(report_in_child, handle, REPORT_MS, REPORT_MAX_BYTES, &text, &e) == 0)
		fputs(text, to);
	else
		fprintf(to, "SR %s: it cannot be looked at: %s\n", handle, e.text);
}

static void report_process(const char *id, void *arg)
{
	struct process p;
	struct error e;
	CLEANUP_FREE char *text = NULL;

	if (process_by_id(&p, id, &e) == 0)
		text = process_ask(&p, "hello", NULL, 1000, &e);
	fprintf(arg, "datapath %s: %s\n", id, text ? text : e.text);
}

int plugin_diagnostics(struct smapi_call *call UNUSED, char **result, struct failure *f)
{
	CLEANUP_FREE char *text = NULL;
	struct jsonspec_list handles;
	struct error e;
	size_t bytes;
	FILE *to;

	if (sr_attached(&handles, &e) == -1)
		return failure_from(f, FAILURE_SR_UNAVAILABLE, &e);
	to = open_memstream(&text, &bytes);
	if (to) {
		fprintf(to, "sxm %s\n", PACKAGE_VERSION);
		for (size_t i = 0; i < handles.count; i++)
			report_bounded(handles.item[i], to);
		process_each(report_process, to);
		if (fclose(to) != 0)
			free(take_ptr(&text));
	}
	meta_list_clear(&handles);
	return text ? smapi_result(jsonspec_string(text), result, f) : out_of_memory(f);
}
