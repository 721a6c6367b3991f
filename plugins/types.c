/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * types - see types.h
 *
 * volume_type is left out of a volume: absent means Data to every reader, while the readers disagree about the present form.
 */
#include "plugins/types.h"

#include <stdio.h>

#include "base/cleanup.h"

#define AT(record, member) offsetof(struct types_##record, member)

static const struct jsonspec_field backtrace_fields[] = {
	{ "error", JS_STRING, AT(backtrace, error) },
	{ "files", JS_LIST, AT(backtrace, files) },
	{ "lines", JS_LIST, AT(backtrace, lines) },
	{ NULL },
};
static const struct jsonspec backtrace = { "backtrace", sizeof(struct types_backtrace), backtrace_fields };

static const struct jsonspec_field error_report_fields[] = {
	{ "code", JS_STRING, AT(error_report, code) },
	{ "params", JS_LIST, AT(error_report, params) },
	{ "backtrace", JS_RECORD, AT(error_report, backtrace), .sub = &backtrace },
	{ NULL },
};
const struct jsonspec types_error_report = { "error report", sizeof(struct types_error_report), error_report_fields };

static const struct jsonspec_field query_result_fields[] = {
	{ "plugin", JS_STRING, AT(query_result, plugin) },
	{ "name", JS_STRING, AT(query_result, name) },
	{ "description", JS_STRING, AT(query_result, description) },
	{ "vendor", JS_STRING, AT(query_result, vendor) },
	{ "copyright", JS_STRING, AT(query_result, copyright) },
	{ "version", JS_STRING, AT(query_result, version) },
	{ "required_api_version", JS_STRING, AT(query_result, required_api_version) },
	{ "features", JS_LIST, AT(query_result, features) },
	{ "configuration", JS_MAP, AT(query_result, configuration) },
	{ "required_cluster_stack", JS_LIST, AT(query_result, required_cluster_stack) },
	{ NULL },
};
const struct jsonspec types_query_result = { "query result", sizeof(struct types_query_result), query_result_fields };

static const struct jsonspec_field sr_stat_fields[] = {
	{ "sr", JS_STRING, AT(sr_stat, sr) },
	{ "name", JS_STRING, AT(sr_stat, name) },
	{ "uuid", JS_STRING, AT(sr_stat, uuid), .is_optional = true },
	{ "description", JS_STRING, AT(sr_stat, description) },
	{ "free_space", JS_INT64, AT(sr_stat, free_space) },
	{ "total_space", JS_INT64, AT(sr_stat, total_space) },
	{ "datasources", JS_LIST, AT(sr_stat, datasources) },
	{ "clustered", JS_BOOL, AT(sr_stat, clustered) },
	{ "health", JS_VARIANT, AT(sr_stat, health) },
	{ NULL },
};
const struct jsonspec types_sr_stat = { "SR", sizeof(struct types_sr_stat), sr_stat_fields };

static const struct jsonspec_field probe_result_fields[] = {
	{ "configuration", JS_MAP, AT(probe_result, configuration) },
	{ "complete", JS_BOOL, AT(probe_result, complete) },
	{ "sr", JS_RECORD, AT(probe_result, sr), .is_optional = true, .has = AT(probe_result, has_sr), .sub = &types_sr_stat },
	{ "extra_info", JS_MAP, AT(probe_result, extra_info) },
	{ NULL },
};
const struct jsonspec types_probe_result = { "probe result", sizeof(struct types_probe_result), probe_result_fields };

static const struct jsonspec_field volume_fields[] = {
	{ "key", JS_STRING, AT(volume, key) },
	{ "uuid", JS_STRING, AT(volume, uuid), .is_optional = true },
	{ "name", JS_STRING, AT(volume, name) },
	{ "description", JS_STRING, AT(volume, description) },
	{ "read_write", JS_BOOL, AT(volume, read_write) },
	{ "sharable", JS_BOOL, AT(volume, sharable) },
	{ "virtual_size", JS_INT64, AT(volume, virtual_size) },
	{ "physical_utilisation", JS_INT64, AT(volume, physical_utilisation) },
	{ "uri", JS_LIST, AT(volume, uri) },
	{ "keys", JS_MAP, AT(volume, keys) },
	{ "cbt_enabled", JS_BOOL, AT(volume, cbt_enabled), .is_optional = true, .has = AT(volume, has_cbt_enabled) },
	{ NULL },
};
const struct jsonspec types_volume = { "volume", sizeof(struct types_volume), volume_fields };

static const struct jsonspec_field xendisk_fields[] = {
	{ "params", JS_STRING, AT(xendisk, params) },
	{ "extra", JS_MAP, AT(xendisk, extra) },
	{ "backend_type", JS_STRING, AT(xendisk, backend_type) },
	{ NULL },
};
const struct jsonspec types_xendisk = { "XenDisk", sizeof(struct types_xendisk), xendisk_fields };

static const struct jsonspec_field nbd_fields[] = {
	{ "uri", JS_STRING, AT(nbd, uri) },
	{ NULL },
};
const struct jsonspec types_nbd = { "Nbd", sizeof(struct types_nbd), nbd_fields };

static const struct jsonspec_field status_fields[] = {
	{ "failed", JS_BOOL, AT(status, failed) },
	{ "complete", JS_BOOL, AT(status, complete) },
	{ "progress", JS_FLOAT, AT(status, progress), .is_optional = true, .has = AT(status, has_progress) },
	{ NULL },
};
const struct jsonspec types_status = { "status", sizeof(struct types_status), status_fields };

static const struct jsonspec_field blocklist_fields[] = {
	{ "blocksize", JS_INT64, AT(blocklist, blocksize) },
	{ "ranges", JS_RANGES, AT(blocklist, ranges) },
	{ NULL },
};
const struct jsonspec types_blocklist = { "blocklist", sizeof(struct types_blocklist), blocklist_fields };

static const struct jsonspec_field changed_blocks_fields[] = {
	{ "granularity", JS_INT64, AT(changed_blocks, granularity) },
	{ "bitmap", JS_STRING, AT(changed_blocks, bitmap) },
	{ NULL },
};
const struct jsonspec types_changed_blocks = { "changed blocks", sizeof(struct types_changed_blocks), changed_blocks_fields };

char *types_backend(const char *nbd_uri, const char *kind)
{
	char *uri = (char *)(uintptr_t)nbd_uri; /* only read */
	struct types_xendisk xendisk = { .params = uri, .backend_type = (char *)(uintptr_t)kind };
	struct types_nbd nbd = { .uri = uri };
	CLEANUP_FREE char *xendisk_json = jsonspec_encode(&types_xendisk, &xendisk);
	CLEANUP_FREE char *nbd_json = jsonspec_encode(&types_nbd, &nbd);
	CLEANUP_FREE char *first = xendisk_json ? jsonspec_variant_text("XenDisk", xendisk_json) : NULL;
	CLEANUP_FREE char *last = nbd_json ? jsonspec_variant_text("Nbd", nbd_json) : NULL;
	char *backend;

	if (!first || !last || asprintf(&backend, "{\"implementations\":[%s,%s]}", first, last) < 0)
		return NULL;
	return backend;
}
