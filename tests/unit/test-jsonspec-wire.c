/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The plugin interface's own examples: what its client takes for a volume, an SR's state, a list of probe results... we take,
 * what it refuses we refuse, and what we took we write so that it means the same.
 *
 * The client is lenient where a member has a default (volume_type, cbt_enabled take anything); as JS_TEXT they are here too.
 * What is no record by itself stands in one, as "v".
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/jsonspec.h"

#define FIELD(record, type, member) { #member, type, offsetof(struct record, member) }
#define OPTIONAL(record, type, member) { #member, type, offsetof(struct record, member), .is_optional = true }
#define SPEC(record) static const struct jsonspec record##_spec = { #record, sizeof(struct record), record##_fields }

struct volume {
	char *key, *uuid, *name, *description, *volume_type, *cbt_enabled;
	bool read_write, sharable;
	int64_t virtual_size, physical_utilisation;
	struct jsonspec_list uri;
	struct jsonspec_map keys;
};
static const struct jsonspec_field volume_fields[] = {
	FIELD(volume, JS_STRING, key), OPTIONAL(volume, JS_STRING, uuid), FIELD(volume, JS_STRING, name),
	FIELD(volume, JS_STRING, description), FIELD(volume, JS_BOOL, read_write), FIELD(volume, JS_BOOL, sharable),
	FIELD(volume, JS_INT64, virtual_size), FIELD(volume, JS_INT64, physical_utilisation), FIELD(volume, JS_LIST, uri),
	FIELD(volume, JS_MAP, keys), OPTIONAL(volume, JS_TEXT, volume_type), OPTIONAL(volume, JS_TEXT, cbt_enabled), { NULL },
};
SPEC(volume);

struct sr_stat {
	char *sr, *name, *uuid, *description;
	int64_t free_space, total_space;
	struct jsonspec_list datasources;
	bool clustered;
	struct jsonspec_variant health;
};
static const struct jsonspec_field sr_stat_fields[] = {
	FIELD(sr_stat, JS_STRING, sr), FIELD(sr_stat, JS_STRING, name), OPTIONAL(sr_stat, JS_STRING, uuid),
	FIELD(sr_stat, JS_STRING, description), FIELD(sr_stat, JS_INT64, free_space), FIELD(sr_stat, JS_INT64, total_space),
	FIELD(sr_stat, JS_LIST, datasources), FIELD(sr_stat, JS_BOOL, clustered), FIELD(sr_stat, JS_VARIANT, health), { NULL },
};
SPEC(sr_stat);

struct probe_result {
	struct jsonspec_map configuration, extra_info;
	bool complete, has_sr;
	struct sr_stat sr;
};
static const struct jsonspec_field probe_result_fields[] = {
	FIELD(probe_result, JS_MAP, configuration),
	FIELD(probe_result, JS_BOOL, complete),
	{ "sr", JS_RECORD, offsetof(struct probe_result, sr), true, offsetof(struct probe_result, has_sr), &sr_stat_spec },
	FIELD(probe_result, JS_MAP, extra_info),
	{ NULL },
};
SPEC(probe_result);

struct probe_results {
	struct jsonspec_records v;
};
static const struct jsonspec_field probe_results_fields[] = {
	{ "v", JS_RECORDS, offsetof(struct probe_results, v), .sub = &probe_result_spec }, { NULL },
};
SPEC(probe_results);

struct backend {
	char *implementations; /* variants of records: taken apart by whoever cares */
};
static const struct jsonspec_field backend_fields[] = { FIELD(backend, JS_TEXT, implementations), { NULL } };
SPEC(backend);

struct status {
	bool failed, complete, has_progress;
	double progress;
};
static const struct jsonspec_field status_fields[] = {
	FIELD(status, JS_BOOL, failed),
	FIELD(status, JS_BOOL, complete),
	{ "progress", JS_FLOAT, offsetof(struct status, progress), true, offsetof(struct status, has_progress) },
	{ NULL },
};
SPEC(status);

struct changed_blocks {
	int64_t granularity;
	char *bitmap;
};
static const struct jsonspec_field changed_blocks_fields[] = {
	FIELD(changed_blocks, JS_INT64, granularity), FIELD(changed_blocks, JS_STRING, bitmap), { NULL },
};
SPEC(changed_blocks);

struct blocklist {
	int64_t blocksize;
	struct jsonspec_ranges ranges;
};
static const struct jsonspec_field blocklist_fields[] = {
	FIELD(blocklist, JS_INT64, blocksize), FIELD(blocklist, JS_RANGES, ranges), { NULL },
};
SPEC(blocklist);

struct query_result {
	char *plugin, *name, *description, *vendor, *copyright, *version, *required_api_version;
	struct jsonspec_list features, required_cluster_stack;
	struct jsonspec_map configuration;
};
static const struct jsonspec_field query_result_fields[] = {
	FIELD(query_result, JS_STRING, plugin), FIELD(query_result, JS_STRING, name), FIELD(query_result, JS_STRING, description),
	FIELD(query_result, JS_STRING, vendor), FIELD(query_result, JS_STRING, copyright),
	FIELD(query_result, JS_STRING, version), FIELD(query_result, JS_STRING, required_api_version),
	FIELD(query_result, JS_LIST, features), FIELD(query_result, JS_MAP, configuration),
	FIELD(query_result, JS_LIST, required_cluster_stack), { NULL },
};
SPEC(query_result);

struct variant {
	struct jsonspec_variant v;
};
static const struct jsonspec_field variant_fields[] = { FIELD(variant, JS_VARIANT, v), { NULL } };
SPEC(variant);

struct configuration {
	struct jsonspec_map v;
};
static const struct jsonspec_field configuration_fields[] = { FIELD(configuration, JS_MAP, v), { NULL } };
SPEC(configuration);

struct int64 {
	int64_t v;
};
static const struct jsonspec_field int64_fields[] = { FIELD(int64, JS_INT64, v), { NULL } };
SPEC(int64);

#define SAME "" /* written as it was read */

/* What is read; what is written then, NULL where reading must fail. */
static const struct row {
	const struct jsonspec *spec;
	const char *text, *wanted;
} rows[] = {
	{ &volume_spec,
	  "{\"key\":\"k\",\"name\":\"n\",\"description\":\"\",\"read_write\":true,\"sharable\":false,\"virtual_size\":1,"
	  "\"physical_utilisation\":0,\"uri\":[\"x:y\"],\"keys\":{}}",
	  SAME },
	{ &volume_spec,
	  "{\"key\":\"k\",\"uuid\":null,\"name\":\"n\",\"description\":\"\",\"read_write\":true,\"sharable\":false,"
	  "\"virtual_size\":1,\"physical_utilisation\":0,\"uri\":[\"x:y\"],\"keys\":{}}",
	  NULL },
	{ &volume_spec,
	  "{\"KEY\":\"k\",\"uuid\":\"u\",\"name\":\"n\",\"description\":\"\",\"read_write\":true,\"sharable\":false,"
	  "\"virtual_size\":\"17\",\"physical_utilisation\":0,\"uri\":[],\"keys\":{\"a\":\"b\"},\"volume_type\":\"Data\","
	  "\"cbt_enabled\":true,\"zz\":1}",
	  "{\"key\":\"k\",\"uuid\":\"u\",\"name\":\"n\",\"description\":\"\",\"read_write\":true,\"sharable\":false,"
	  "\"virtual_size\":17,\"physical_utilisation\":0,\"uri\":[],\"keys\":{\"a\":\"b\"},\"volume_type\":\"Data\","
	  "\"cbt_enabled\":true}" },
	{ &volume_spec,
	  "{\"key\":\"k\",\"name\":\"n\",\"description\":\"\",\"read_write\":true,\"sharable\":false,\"virtual_size\":1,"
	  "\"physical_utilisation\":0,\"uri\":[\"x:y\"],\"keys\":{},\"volume_type\":\"cbt_metadata\",\"cbt_enabled\":false}",
	  SAME },
	{ &volume_spec,
	  "{\"key\":\"k\",\"name\":\"n\",\"description\":\"\",\"read_write\":true,\"sharable\":false,\"virtual_size\":1,"
	  "\"physical_utilisation\":0,\"uri\":[\"x:y\"],\"keys\":{},\"volume_type\":[\"Data\"],\"cbt_enabled\":[true]}",
	  SAME },
	{ &volume_spec,
	  "{\"key\":\"k\",\"name\":\"n\",\"description\":\"\",\"read_write\":true,\"virtual_size\":1,\"physical_utilisation\":0,"
	  "\"uri\":[\"x:y\"],\"keys\":{}}",
	  NULL },
	{ &volume_spec,
	  "{\"key\":\"k\",\"name\":\"n\",\"description\":\"\",\"read_write\":true,\"sharable\":false,\"virtual_size\":1.0,"
	  "\"physical_utilisation\":0,\"uri\":[\"x:y\"],\"keys\":{}}",
	  NULL },
	{ &volume_spec,
	  "{\"key\":\"k\",\"name\":\"n\",\"description\":\"\",\"read_write\":true,\"sharable\":false,\"virtual_size\":1,"
	  "\"physical_utilisation\":0,\"uri\":[\"x:y\"],\"keys\":[]}",
	  NULL },
	{ &volume_spec,
	  "{\"key\":\"k\",\"name\":\"n\",\"description\":\"\",\"read_write\":1,\"sharable\":false,\"virtual_size\":1,"
	  "\"physical_utilisation\":0,\"uri\":[\"x:y\"],\"keys\":{}}",
	  NULL },
	{ &sr_stat_spec,
	  "{\"sr\":\"s\",\"name\":\"n\",\"uuid\":\"u\",\"description\":\"d\",\"free_space\":1,\"total_space\":2,"
	  "\"datasources\":[],\"clustered\":false,\"health\":[\"Healthy\",\"\"]}",
	  SAME },
	{ &sr_stat_spec,
	  "{\"sr\":\"s\",\"name\":\"n\",\"description\":\"d\",\"free_space\":1,\"total_space\":2,\"datasources\":[],"
	  "\"clustered\":false,\"health\":[\"recovering\",\"x\"]}",
	  SAME },
	{ &sr_stat_spec,
	  "{\"sr\":\"s\",\"name\":\"n\",\"description\":\"d\",\"free_space\":1,\"total_space\":2,\"datasources\":[],"
	  "\"clustered\":false,\"health\":\"Healthy\"}",
	  NULL },
	{ &probe_results_spec,
	  "{\"v\":[{\"configuration\":{\"a\":\"b\"},\"complete\":false,\"extra_info\":{}}]}",
	  SAME },
	{ &probe_results_spec,
	  "{\"v\":[{\"configuration\":{},\"complete\":true,\"sr\":{\"sr\":\"s\",\"name\":\"n\",\"description\":\"d\","
	  "\"free_space\":1,\"total_space\":2,\"datasources\":[],\"clustered\":false,\"health\":[\"Healthy\","
	  "\"\"]},\"extra_info\":{}}]}",
	  SAME },
	{ &probe_results_spec,
	  "{\"v\":[{\"configuration\":{},\"complete\":true,\"sr\":null,\"extra_info\":{}}]}",
	  NULL },
	{ &backend_spec,
	  "{\"implementations\":[[\"XenDisk\",{\"params\":\"p\",\"extra\":{\"k\":\"v\"},\"backend_type\":\"qdisk\"}],"
	  "[\"BlockDevice\",{\"path\":\"/dev/x\"}],[\"File\",{\"path\":\"/f\"}],"
	  "[\"Nbd\",{\"uri\":\"nbd:unix:/s:exportname=e\"}]]}",
	  SAME },
	{ &backend_spec,
	  "{\"implementations\":[]}",
	  SAME },
	{ &backend_spec,
	  "{\"implementations\":[[\"xendisk\",{\"params\":\"p\",\"extra\":{},\"backend_type\":\"vbd3\"}]]}",
	  SAME },
	{ &variant_spec,
	  "{\"v\":[\"MirrorV1\",\"k\"]}",
	  SAME },
	{ &variant_spec,
	  "{\"v\":[\"CopyV1\",\"k\"]}",
	  SAME },
	{ &variant_spec,
	  "{\"v\":[\"mirrorv1\",\"k\"]}",
	  SAME },
	{ &variant_spec,
	  "{\"v\":{\"MirrorV1\":\"k\"}}",
	  NULL },
	{ &variant_spec,
	  "{\"v\":\"MirrorV1\"}",
	  NULL },
	{ &status_spec,
	  "{\"failed\":false,\"complete\":true,\"progress\":1.0}",
	  SAME },
	{ &status_spec,
	  "{\"failed\":false,\"complete\":false}",
	  SAME },
	{ &status_spec,
	  "{\"failed\":false,\"complete\":false,\"progress\":null}",
	  NULL },
	{ &status_spec,
	  "{\"failed\":false,\"complete\":false,\"progress\":0}",
	  "{\"failed\":false,\"complete\":false,\"progress\":0.0}" },
	{ &status_spec,
	  "{\"failed\":false,\"complete\":false,\"progress\":\"0.25\"}",
	  "{\"failed\":false,\"complete\":false,\"progress\":0.25}" },
	{ &status_spec,
	  "{\"failed\":false,\"complete\":false,\"progress\":[0.5]}",
	  NULL },
	{ &status_spec,
	  "{\"failed\":false}",
	  NULL },
	{ &changed_blocks_spec,
	  "{\"granularity\":65536,\"bitmap\":\"gAA=\"}",
	  SAME },
	{ &blocklist_spec,
	  "{\"blocksize\":512,\"ranges\":[[0,8],[16,4]]}",
	  SAME },
	{ &blocklist_spec,
	  "{\"blocksize\":512,\"ranges\":[{\"a\":1}]}",
	  NULL },
	{ &query_result_spec,
	  "{\"plugin\":\"p\",\"name\":\"n\",\"description\":\"d\",\"vendor\":\"v\",\"copyright\":\"c\",\"version\":\"1\","
	  "\"required_api_version\":\"5.0\",\"features\":[\"A\"],\"configuration\":{\"x\":\"y\"},\"required_cluster_stack\":[]}",
	  SAME },
	{ &query_result_spec,
	  "{\"plugin\":\"p\",\"name\":\"n\",\"description\":\"d\",\"vendor\":\"v\",\"copyright\":\"c\",\"version\":\"1\","
	  "\"required_api_version\":\"5.0\",\"features\":[\"A\"],\"configuration\":{}}",
	  NULL },
	{ &configuration_spec,
	  "{\"v\":{}}",
	  SAME },
	{ &configuration_spec,
	  "{\"v\":{\"a\":\"b\"}}",
	  SAME },
	{ &configuration_spec,
	  "{\"v\":{\"a\":1}}",
	  NULL },
	{ &configuration_spec,
	  "{\"v\":[]}",
	  NULL },
	{ &variant_spec,
	  "{\"v\":[\"Sr_not_attached\",\"x\"]}",
	  SAME },
	{ &variant_spec,
	  "{\"v\":[\"Activated_on_another_host\",\"uuid\"]}",
	  SAME },
	{ &int64_spec,
	  "{\"v\":9007199254740993}",
	  SAME },
	{ &int64_spec,
	  "{\"v\":-1}",
	  SAME },
	{ &int64_spec,
	  "{\"v\":\"5\"}",
	  "{\"v\":5}" },
	{ &int64_spec,
	  "{\"v\":1e3}",
	  NULL },
	{ &int64_spec,
	  "{\"v\":18446744073709551615}",
	  NULL },
};

static void check_row(const struct row *row)
{
	struct error e = { 0 };
	void *record = malloc(row->spec->size);
	char *out;

	assert_non_null(record);
	if (jsonspec_decode(row->spec, row->text, strlen(row->text), record, &e) == -1) {
		if (row->wanted)
			fail_msg("%s: refused: %s", row->text, e.text);
		assert_memory_equal(e.text, row->spec->name, strlen(row->spec->name));
		free(record);
		return;
	}
	if (!row->wanted)
		fail_msg("%s: taken", row->text);
	out = jsonspec_encode(row->spec, record);
	assert_string_equal(out, strcmp(row->wanted, SAME) ? row->wanted : row->text);
	free(out);
	jsonspec_clear(row->spec, record);
	free(record);
}

static void the_interface_is_spoken_as_its_client_does(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		check_row(&rows[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_interface_is_spoken_as_its_client_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
