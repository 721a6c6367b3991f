/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * jsonspec-decode - text to record, by the table
 *
 * decode() checks the text once, then fills the record slice by slice.  Each level that fails puts its own name before the
 * sentence on the way out:
 *
 *      Data.copy: blocklist: ranges: item 3: a whole number is wanted, this is null
 *
 * Can fail: on text that is not what the table says, and on memory; the record is cleared then.
 * Invariant: of equal names the first wins, so a member or key once seen is not looked at again.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/jsonspec-private.h"
#include "base/jsonspec-scan.h"

#define FIELDS_MAX 64 /* in one table */

static int decode_record(const struct jsonspec *spec, struct jsonspec_value v, void *record, struct error *e);

static int fail_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static int want(struct jsonspec_value v, const char *wanted, struct error *e)
{
	return error_set(e, EINVAL, "%s is wanted, this is %s", wanted, jsonspec_scan_kind_name(v));
}

static int decode_string(struct jsonspec_value v, char **out, struct error *e)
{
	if (jsonspec_scan_kind(v) != JS_KIND_STRING)
		return want(v, "a string", e);
	*out = jsonspec_scan_string(v);
	return *out ? 0 : fail_memory(e);
}

static int decode_int64(struct jsonspec_value v, int64_t *out, struct error *e)
{
	switch (jsonspec_scan_int64(v, out)) {
	case 0:
		return 0;
	case ENOMEM:
		return fail_memory(e);
	case ERANGE:
		return error_set(e, ERANGE, "the number does not fit 64 bits");
	default:
		if (jsonspec_scan_kind(v) == JS_KIND_NUMBER)
			return error_set(e, EINVAL, "a whole number is wanted, without fraction or exponent");
		return want(v, "a whole number", e);
	}
}

static int decode_float(struct jsonspec_value v, double *out, struct error *e)
{
	switch (jsonspec_scan_double(v, out)) {
	case 0:
		return 0;
	case ENOMEM:
		return fail_memory(e);
	case ERANGE:
		return error_set(e, ERANGE, "the number is too large");
	default:
		return want(v, "a number", e);
	}
}

static int decode_bool(struct jsonspec_value v, bool *out, struct error *e)
{
	if (jsonspec_scan_kind(v) != JS_KIND_BOOL)
		return want(v, "true or false", e);
	*out = *v.at == 't';
	return 0;
}

/* seen: json-c's object as the set of keys so far, which keeps a map of a million keys from costing their square. */
static int decode_entry(struct jsonspec_value name, struct jsonspec_value item, struct json_object *seen, struct jsonspec_map *m,
			struct error *e)
{
	CLEANUP_FREE char *key = NULL;
	CLEANUP_FREE char *value = NULL;

	if (decode_string(name, &key, e) == -1)
		return -1;
	if (json_object_object_get_ex(seen, key, NULL))
		return 0;
	if (decode_string(item, &value, e) == -1)
		return error_prefix(e, "\"%.80s\"", key);
	if (json_object_object_add(seen, key, NULL) != 0 || jsonspec_map_append(m, &key, &value) == -1)
		return fail_memory(e);
	return 0;
}

static int decode_map(struct jsonspec_value v, struct jsonspec_map *m, struct error *e)
{
	struct jsonspec_value name, item;
	struct jsonspec_walk walk;
	struct json_object *seen;
	int rc = 0;

	if (jsonspec_scan_kind(v) != JS_KIND_OBJECT)
		return want(v, "an object of strings", e);
	seen = json_object_new_object();
	if (!seen)
		return fail_memory(e);
	walk = jsonspec_scan_walk(v);
	while (rc == 0 && jsonspec_scan_next(&walk, &name, &item))
		rc = decode_entry(name, item, seen, m, e);
	json_object_put(seen);
	return rc;
}

static int decode_list(struct jsonspec_value v, struct jsonspec_list *l, struct error *e)
{
	struct jsonspec_value name, item;
	struct jsonspec_walk walk;

	if (jsonspec_scan_kind(v) != JS_KIND_ARRAY)
		return want(v, "an array of strings", e);
	walk = jsonspec_scan_walk(v);
	while (jsonspec_scan_next(&walk, &name, &item)) {
		CLEANUP_FREE char *text = NULL;

		if (decode_string(item, &text, e) == -1)
			return error_prefix(e, "item %zu", l->count);
		if (jsonspec_list_append(l, &text) == -1)
			return fail_memory(e);
	}
	return 0;
}

/* Exactly two items, whatever they are. */
static int split_pair(struct jsonspec_value v, struct jsonspec_value pair[2], const char *wanted, struct error *e)
{
	struct jsonspec_value name, more;
	struct jsonspec_walk walk;

	if (jsonspec_scan_kind(v) != JS_KIND_ARRAY)
		return want(v, wanted, e);
	walk = jsonspec_scan_walk(v);
	if (!jsonspec_scan_next(&walk, &name, &pair[0]) || !jsonspec_scan_next(&walk, &name, &pair[1]) ||
	    jsonspec_scan_next(&walk, &name, &more))
		return error_set(e, EINVAL, "%s is wanted, of exactly two items", wanted);
	return 0;
}

static int decode_range(struct jsonspec_value v, struct jsonspec_range *range, struct error *e)
{
	struct jsonspec_value pair[2];

	if (split_pair(v, pair, "[start, length]", e) == -1)
		return -1;
	return decode_int64(pair[0], &range->start, e) == -1 ? -1 : decode_int64(pair[1], &range->length, e);
}

static int decode_ranges(struct jsonspec_value v, struct jsonspec_ranges *r, struct error *e)
{
	struct jsonspec_value name, item;
	struct jsonspec_walk walk;

	if (jsonspec_scan_kind(v) != JS_KIND_ARRAY)
		return want(v, "an array of [start, length]", e);
	walk = jsonspec_scan_walk(v);
	while (jsonspec_scan_next(&walk, &name, &item)) {
		struct jsonspec_range *grown = jsonspec_grow(r->item, r->count, sizeof(*r->item));

		if (!grown)
			return fail_memory(e);
		r->item = grown;
		if (decode_range(item, &r->item[r->count], e) == -1)
			return error_prefix(e, "item %zu", r->count);
		r->count++;
	}
	return 0;
}

static int decode_variant(struct jsonspec_value v, struct jsonspec_variant *out, struct error *e)
{
	struct jsonspec_value pair[2];

	if (split_pair(v, pair, "[\"Tag\", \"argument\"]", e) == -1)
		return -1;
	return decode_string(pair[0], &out->tag, e) == -1 ? -1 : decode_string(pair[1], &out->arg, e);
}

static int decode_records(const struct jsonspec *spec, struct jsonspec_value v, struct jsonspec_records *r, struct error *e)
{
	struct jsonspec_value name, item;
	struct jsonspec_walk walk;

	if (jsonspec_scan_kind(v) != JS_KIND_ARRAY)
		return want(v, "an array of objects", e);
	walk = jsonspec_scan_walk(v);
	while (jsonspec_scan_next(&walk, &name, &item)) {
		void *grown = jsonspec_grow(r->item, r->count, spec->size);

		if (!grown)
			return fail_memory(e);
		r->item = grown;
		if (decode_record(spec, item, (char *)r->item + r->count * spec->size, e) == -1)
			return error_prefix(e, "item %zu", r->count);
		r->count++;
	}
	return 0;
}

static int decode_text(struct jsonspec_value v, char **out, struct error *e)
{
	*out = jsonspec_scan_text(v);
	return *out ? 0 : fail_memory(e);
}

static int decode_member(const struct jsonspec_field *field, struct jsonspec_value v, void *member, struct error *e)
{
	switch (field->type) {
	case JS_STRING: return decode_string(v, member, e);
	case JS_INT64: return decode_int64(v, member, e);
	case JS_BOOL: return decode_bool(v, member, e);
	case JS_FLOAT: return decode_float(v, member, e);
	case JS_MAP: return decode_map(v, member, e);
	case JS_LIST: return decode_list(v, member, e);
	case JS_RANGES: return decode_ranges(v, member, e);
	case JS_VARIANT: return decode_variant(v, member, e);
	case JS_RECORD: return decode_record(field->sub, v, member, e);
	case JS_RECORDS: return decode_records(field->sub, v, member, e);
	case JS_TEXT: return decode_text(v, member, e);
	}
	assert(!"a type of the enum");
	return -1;
}

/* The field of that name; the table's end when there is none. */
static const struct jsonspec_field *find_field(const struct jsonspec *spec, const char *name)
{
	const struct jsonspec_field *field = spec->fields;

	while (field->name && strcasecmp(field->name, name) != 0)
		field++;
	return field;
}

static int decode_named(const struct jsonspec *spec, struct jsonspec_value name, struct jsonspec_value v, bool seen[FIELDS_MAX],
			void *record, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	const struct jsonspec_field *field;
	size_t index;

	if (decode_string(name, &text, e) == -1)
		return -1;
	field = find_field(spec, text);
	index = (size_t)(field - spec->fields);
	assert(index < FIELDS_MAX);
	if (!field->name || seen[index])
		return 0;
	seen[index] = true;
	if (decode_member(field, v, jsonspec_member(field, record), e) == -1)
		return error_prefix(e, "%s", field->name);
	if (jsonspec_has(field, record))
		*jsonspec_has(field, record) = true;
	return 0;
}

/* On error the record is clear. */
static int decode_record(const struct jsonspec *spec, struct jsonspec_value v, void *record, struct error *e)
{
	struct jsonspec_value name, item;
	struct jsonspec_walk walk;
	bool seen[FIELDS_MAX] = { false };
	int rc = 0;

	memset(record, 0, spec->size);
	if (jsonspec_scan_kind(v) != JS_KIND_OBJECT)
		return want(v, "an object", e);
	walk = jsonspec_scan_walk(v);
	while (rc == 0 && jsonspec_scan_next(&walk, &name, &item))
		rc = decode_named(spec, name, item, seen, record, e);
	for (size_t i = 0; rc == 0 && spec->fields[i].name; i++) {
		if (!seen[i] && !spec->fields[i].is_optional)
			rc = error_set(e, EINVAL, "%s: missing", spec->fields[i].name);
	}
	if (rc == -1)
		jsonspec_clear(spec, record);
	return rc;
}

int jsonspec_decode(const struct jsonspec *spec, const char *text, size_t bytes, void *out, struct error *e)
{
	struct jsonspec_value v;
	int rc;

	memset(out, 0, spec->size);
	if (bytes > JSONSPEC_MAX_BYTES)
		rc = error_set(e, E2BIG, "more than %u bytes of JSON", JSONSPEC_MAX_BYTES);
	else if (jsonspec_scan_check(text, bytes, &v, e) == -1)
		rc = -1;
	else
		rc = decode_record(spec, v, out, e);
	return rc == -1 ? error_prefix(e, "%s", spec->name) : 0;
}
