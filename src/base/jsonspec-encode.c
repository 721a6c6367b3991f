/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * jsonspec-encode - record to text, by the table; json-c writes it
 *
 * Every build_x() returns a json-c object the caller owns, or NULL when memory is out; attach() and append() pass ownership
 * on, also when they fail.  finish() turns the tree into one compact line, UTF-8 as it is, '/' as it is.
 *
 * Ranges can be many, and text kept as it came must stay as it came: both go in as one node that prints prepared text.
 * Bytes that are no UTF-8 (a file's name may hold any) come out as U+FFFD: a strict reader would refuse the whole reply.
 */
#include <json-c/json.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec-private.h"
#include "base/jsonspec-scan.h"

static struct json_object *build_record(const struct jsonspec *spec, const void *record);

static int attach(struct json_object *to, const char *name, struct json_object *node)
{
	if (node && json_object_object_add(to, name, node) == 0)
		return 0;
	json_object_put(node);
	return -1;
}

static int append(struct json_object *to, struct json_object *node)
{
	if (node && json_object_array_add(to, node) == 0)
		return 0;
	json_object_put(node);
	return -1;
}

/* Gives the object when all went into it, and up otherwise. */
static struct json_object *keep_if(bool is_good, struct json_object *node)
{
	if (is_good)
		return node;
	json_object_put(node);
	return NULL;
}

/* The text with U+FFFD where it is no UTF-8; heap. */
static char *mend_utf8(const char *text)
{
	static const char stand_in[] = "\xef\xbf\xbd";
	size_t bytes = strlen(text);
	const char *end = text + bytes;
	char *mended = malloc(3 * bytes + 1);
	char *to = mended;

	while (mended && text < end) {
		size_t length = jsonspec_scan_utf8(text, end);

		to = length ? mempcpy(to, text, length) : mempcpy(to, stand_in, 3);
		text += length ? length : 1;
	}
	if (mended)
		*to = '\0';
	return mended;
}

static struct json_object *build_string(const char *text)
{
	CLEANUP_FREE char *mended = NULL;

	assert(text);
	mended = mend_utf8(text);
	return mended ? json_object_new_string(mended) : NULL;
}

static int print_prepared(struct json_object *node, struct printbuf *out, UNUSED int level, UNUSED int flags)
{
	const char *text = json_object_get_userdata(node);

	return printbuf_memappend(out, text, (int)strlen(text));
}

static void free_prepared(UNUSED struct json_object *node, void *text)
{
	free(text);
}

/* Takes the text, which is JSON already; NULL is out of memory. */
static struct json_object *build_prepared(char *text)
{
	struct json_object *node = text ? json_object_new_boolean(false) : NULL;

	if (node)
		json_object_set_serializer(node, print_prepared, text, free_prepared);
	else
		free(text);
	return node;
}

static struct json_object *build_float(double value)
{
	assert(isfinite(value));
	return json_object_new_double(value);
}

static int attach_entry(struct json_object *to, const char *key, const char *value)
{
	CLEANUP_FREE char *name = mend_utf8(key);

	return name ? attach(to, name, build_string(value)) : -1;
}

static struct json_object *build_map(const struct jsonspec_map *m)
{
	struct json_object *node = json_object_new_object();
	bool is_good = node;

	for (size_t i = 0; is_good && i < m->count; i++)
		is_good = attach_entry(node, m->key[i], m->value[i]) == 0;
	return keep_if(is_good, node);
}

static struct json_object *build_strings(const char *const *items, size_t count)
{
	struct json_object *node = json_object_new_array();
	bool is_good = node;

	for (size_t i = 0; is_good && i < count; i++)
		is_good = append(node, build_string(items[i])) == 0;
	return keep_if(is_good, node);
}

static struct json_object *build_ranges(const struct jsonspec_ranges *r)
{
	char *text = NULL;
	size_t bytes;
	FILE *f = open_memstream(&text, &bytes);

	if (!f)
		return NULL;
	fputc('[', f);
	for (size_t i = 0; i < r->count; i++)
		fprintf(f, "%s[%jd,%jd]", i ? "," : "", (intmax_t)r->item[i].start, (intmax_t)r->item[i].length);
	fputc(']', f);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return build_prepared(text);
}

/* [tag, arg]; takes arg. */
static struct json_object *build_pair(const char *tag, struct json_object *arg)
{
	struct json_object *node = json_object_new_array();
	bool is_good = node && append(node, build_string(tag)) == 0;

	if (!is_good)
		json_object_put(arg);
	return keep_if(is_good && append(node, arg) == 0, node);
}

static struct json_object *build_variant(const char *tag, const char *arg)
{
	return arg ? build_pair(tag, build_string(arg)) : build_string(tag);
}

static struct json_object *build_records(const struct jsonspec *spec, const void *records, size_t count)
{
	struct json_object *node = json_object_new_array();
	bool is_good = node;

	for (size_t i = 0; is_good && i < count; i++)
		is_good = append(node, build_record(spec, (const char *)records + i * spec->size)) == 0;
	return keep_if(is_good, node);
}

static struct json_object *build_member(const struct jsonspec_field *field, const void *member)
{
	const struct jsonspec_list *list = member;
	const struct jsonspec_variant *variant = member;
	const struct jsonspec_records *records = member;

	switch (field->type) {
	case JS_STRING: return build_string(*(char *const *)member);
	case JS_INT64: return json_object_new_int64(*(const int64_t *)member);
	case JS_BOOL: return json_object_new_boolean(*(const bool *)member);
	case JS_FLOAT: return build_float(*(const double *)member);
	case JS_MAP: return build_map(member);
	case JS_LIST: return build_strings((const char *const *)list->item, list->count);
	case JS_RANGES: return build_ranges(member);
	case JS_VARIANT: return build_variant(variant->tag, variant->arg);
	case JS_RECORD: return build_record(field->sub, member);
	case JS_RECORDS: return build_records(field->sub, records->item, records->count);
	case JS_TEXT: return build_prepared(strdup(*(char *const *)member));
	}
	assert(!"a type of the enum");
	return NULL;
}

static size_t member_bytes(const struct jsonspec_field *field)
{
	switch (field->type) {
	case JS_STRING:
	case JS_TEXT: return sizeof(char *);
	case JS_INT64: return sizeof(int64_t);
	case JS_BOOL: return sizeof(bool);
	case JS_FLOAT: return sizeof(double);
	case JS_MAP: return offsetof(struct jsonspec_map, key);
	case JS_LIST: return offsetof(struct jsonspec_list, item);
	case JS_RANGES: return offsetof(struct jsonspec_ranges, item);
	case JS_VARIANT: return sizeof(struct jsonspec_variant);
	case JS_RECORD: return field->sub->size;
	case JS_RECORDS: return offsetof(struct jsonspec_records, item);
	}
	assert(!"a type of the enum");
	return 0;
}

/* An optional member is left out when its "has" says no; without one, when it is zero, NULL or empty. */
static bool is_left_out(const struct jsonspec_field *field, const void *record)
{
	const uint8_t *member = jsonspec_member(field, record);
	const bool *has = jsonspec_has(field, record);
	size_t bytes = member_bytes(field);

	if (!field->is_optional)
		return false;
	if (has)
		return !*has;
	while (bytes && !member[bytes - 1])
		bytes--;
	return bytes == 0;
}

static struct json_object *build_record(const struct jsonspec *spec, const void *record)
{
	struct json_object *node = json_object_new_object();
	bool is_good = node;

	for (const struct jsonspec_field *field = spec->fields; is_good && field->name; field++) {
		if (!is_left_out(field, record))
			is_good = attach(node, field->name, build_member(field, jsonspec_member(field, record))) == 0;
	}
	return keep_if(is_good, node);
}

/* Takes the tree; NULL is out of memory. */
static char *finish(struct json_object *node)
{
	const int flags = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE;
	const char *text = node ? json_object_to_json_string_ext(node, flags) : NULL;
	char *copy = text ? strdup(text) : NULL;

	json_object_put(node);
	return copy;
}

char *jsonspec_encode(const struct jsonspec *spec, const void *record)
{
	return finish(build_record(spec, record));
}

char *jsonspec_string(const char *text)
{
	return finish(build_string(text));
}

char *jsonspec_array(const struct jsonspec *spec, const void *records, size_t count)
{
	return finish(build_records(spec, records, count));
}

char *jsonspec_object(const struct jsonspec_map *m)
{
	return finish(build_map(m));
}

char *jsonspec_strings(const char *const *items, size_t count)
{
	return finish(build_strings(items, count));
}

char *jsonspec_variant(const char *tag, const char *arg)
{
	return finish(build_variant(tag, arg));
}

char *jsonspec_variant_text(const char *tag, const char *json)
{
	return finish(build_pair(tag, build_prepared(strdup(json))));
}
