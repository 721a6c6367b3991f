/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The interface's types: what its reader takes our tables take, what it refuses they refuse, and what they write they take
 * again unchanged. The rows are in decode-vectors.json.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "plugins/failure.h"
#include "plugins/types.h"

/* A value of any type, as the one member of a record. */
union value {
	struct types_volume volume;
	struct types_sr_stat sr_stat;
	struct types_status status;
	struct types_blocklist blocklist;
	struct types_query_result query_result;
	struct jsonspec_records records;
	struct jsonspec_map map;
	struct jsonspec_variant variant;
	char *text;
	int64_t number;
	struct {
		int64_t granularity;
		char *bitmap;
	} changed_blocks;
};

static const struct jsonspec_field changed_blocks_fields[] = {
	{ "granularity", JS_INT64, offsetof(union value, changed_blocks.granularity) },
	{ "bitmap", JS_STRING, offsetof(union value, changed_blocks.bitmap) },
	{ NULL },
};
static const struct jsonspec changed_blocks = { "changed blocks", sizeof(union value), changed_blocks_fields };

static const struct jsonspec_field backend_fields[] = { { "implementations", JS_TEXT, 0 }, { NULL } };
static const struct jsonspec backend = { "backend", sizeof(char *), backend_fields };

static const struct type {
	const char *name;
	struct jsonspec_field field[2];
} types[] = {
	{ "volume", { { "value", JS_RECORD, 0, .sub = &types_volume }, { NULL } } },
	{ "sr_stat", { { "value", JS_RECORD, 0, .sub = &types_sr_stat }, { NULL } } },
	{ "status", { { "value", JS_RECORD, 0, .sub = &types_status }, { NULL } } },
	{ "blocklist", { { "value", JS_RECORD, 0, .sub = &types_blocklist }, { NULL } } },
	{ "query_result", { { "value", JS_RECORD, 0, .sub = &types_query_result }, { NULL } } },
	{ "changed_blocks", { { "value", JS_RECORD, 0, .sub = &changed_blocks }, { NULL } } },
	{ "backend", { { "value", JS_RECORD, 0, .sub = &backend }, { NULL } } },
	{ "list<probe_result>", { { "value", JS_RECORDS, 0, .sub = &types_probe_result }, { NULL } } },
	{ "configuration", { { "value", JS_MAP, 0 }, { NULL } } },
	{ "operation", { { "value", JS_VARIANT, 0 }, { NULL } } },
	{ "exns", { { "value", JS_VARIANT, 0 }, { NULL } } },
	{ "int64", { { "value", JS_INT64, 0 }, { NULL } } },
	{ "unit", { { "value", JS_TEXT, 0 }, { NULL } } },
};

struct row {
	char *type, *input, *decoded;
	bool accepted, strict;
};
static const struct jsonspec_field row_fields[] = {
	{ "type", JS_STRING, offsetof(struct row, type) },
	{ "input", JS_STRING, offsetof(struct row, input) },
	{ "accepted", JS_BOOL, offsetof(struct row, accepted) },
	{ "strict", JS_BOOL, offsetof(struct row, strict), .is_optional = true },
	{ "decoded", JS_TEXT, offsetof(struct row, decoded), .is_optional = true },
	{ NULL },
};
static const struct jsonspec row_spec = { "row", sizeof(struct row), row_fields };
struct rows {
	struct jsonspec_records vectors;
};
static const struct jsonspec_field rows_fields[] = {
	{ "vectors", JS_RECORDS, offsetof(struct rows, vectors), .sub = &row_spec },
	{ NULL },
};
static const struct jsonspec rows_spec = { "decode vectors", sizeof(struct rows), rows_fields };

/* Text to record to text: heap; NULL when it is refused. */
static char *pass_through(const char *type, const char *input)
{
	CLEANUP_FREE char *wrapped = NULL;
	char *text = NULL;
	union value value;
	struct error e;

	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		const struct jsonspec spec = { types[i].name, sizeof(value), types[i].field };

		if (strcmp(types[i].name, type) != 0)
			continue;
		assert_true(asprintf(&wrapped, "{\"value\":%s}", input) > 0);
		if (jsonspec_decode(&spec, wrapped, strlen(wrapped), &value, &e) == -1)
			return NULL;
		if (strcmp(type, "unit") != 0 || strcmp(value.text, "null") == 0)
			text = jsonspec_encode(&spec, &value);
		jsonspec_clear(&spec, &value);
		return text;
	}
	fail_msg("a row has type %s", type);
	return NULL;
}

static void check_row(const struct row *row)
{
	CLEANUP_FREE char *text = pass_through(row->type, row->input);
	CLEANUP_FREE char *canonical = NULL;

	if ((text != NULL) != (row->accepted && !row->strict))
		fail_msg("%s: %s is %s", row->type, row->input, text ? "taken" : "refused");
	if (!text || strcmp(row->type, "backend") == 0) /* its tags are written, never read, by us */
		return;
	canonical = pass_through(row->type, row->decoded);
	if (!canonical || strcasecmp(text, canonical) != 0) /* tags are told apart without regard to case */
		fail_msg("%s: %s became %s, not %s", row->type, row->input, text, canonical ? canonical : "(nothing)");
}

static void every_row_of_the_interface_is_taken_or_refused_as_its_reader_does(void **state UNUSED)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;
	struct rows rows;
	struct error e = { 0 };
	size_t bytes;

	assert_true(asprintf(&path, "%s/tests/unit/decode-vectors.json", getenv("SXM_SRCDIR") ? getenv("SXM_SRCDIR") : ".") > 0);
	text = proc_read_file(path, 1u << 20, &bytes, &e);
	if (!text || jsonspec_decode(&rows_spec, text, bytes, &rows, &e) == -1)
		fail_msg("%s", e.text);
	assert_true(rows.vectors.count > 40);
	for (size_t i = 0; i < rows.vectors.count; i++)
		check_row((struct row *)rows.vectors.item + i);
	jsonspec_clear(&rows_spec, &rows);
}

static void backend_names_xen_first_and_nbd_last_with_one_uri(void **state UNUSED)
{
	CLEANUP_FREE char *text = types_backend("nbd:unix:/s:exportname=e", "qdisk");

	assert_string_equal(text, "{\"implementations\":[[\"XenDisk\",{\"params\":\"nbd:unix:/s:exportname=e\",\"extra\":{},"
				  "\"backend_type\":\"qdisk\"}],[\"Nbd\",{\"uri\":\"nbd:unix:/s:exportname=e\"}]]}");
}

static void absent_options_are_left_out_and_never_null(void **state UNUSED)
{
	char none[] = "", tag[] = "Healthy";
	struct types_sr_stat stat = { .sr = none, .name = none, .description = none, .health = { .tag = tag, .arg = none } };
	struct types_status status = { .complete = true };
	CLEANUP_FREE char *stat_text = jsonspec_encode(&types_sr_stat, &stat);
	CLEANUP_FREE char *status_text = jsonspec_encode(&types_status, &status);

	assert_string_equal(stat_text, "{\"sr\":\"\",\"name\":\"\",\"description\":\"\",\"free_space\":0,\"total_space\":0,"
				       "\"datasources\":[],\"clustered\":false,\"health\":[\"Healthy\",\"\"]}");
	assert_string_equal(status_text, "{\"failed\":false,\"complete\":true}");
}

static void reports_of_exceptions_have_two_params_and_others_three(void **state UNUSED)
{
	CLEANUP_FREE char *exception = NULL;
	CLEANUP_FREE char *other = NULL;
	struct failure f;

	assert_int_equal(failure_raise(&f, FAILURE_VOLUME_DOES_NOT_EXIST, "k", "why"), -1);
	exception = failure_report(&f);
	assert_string_equal(exception, "{\"code\":\"SR_BACKEND_FAILURE\",\"params\":[\"Volume_does_not_exist\",\"k\"],"
				       "\"backtrace\":{\"error\":\"why\",\"files\":[],\"lines\":[]}}");
	assert_int_equal(failure_set(&f, FAILURE_VDI_UNAVAILABLE, 5, "why"), -1);
	other = failure_report(&f);
	assert_string_equal(other, "{\"code\":\"SR_BACKEND_FAILURE_46\",\"params\":[\"\",\"The VDI is not available\",\"why\"],"
				   "\"backtrace\":{\"error\":\"why\",\"files\":[],\"lines\":[]}}");
}

static void a_full_disk_stays_a_full_disk_whatever_failed(void **state UNUSED)
{
	struct error e;
	struct failure f;

	error_set(&e, 28 /* ENOSPC */, "why");
	assert_int_equal(failure_from(&f, FAILURE_VDI_CREATE, &e), -1);
	assert_int_equal(f.kind, FAILURE_NO_SPACE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_of_the_interface_is_taken_or_refused_as_its_reader_does),
		cmocka_unit_test(backend_names_xen_first_and_nbd_last_with_one_uri),
		cmocka_unit_test(absent_options_are_left_out_and_never_null),
		cmocka_unit_test(reports_of_exceptions_have_two_params_and_others_three),
		cmocka_unit_test(a_full_disk_stays_a_full_disk_whatever_failed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
