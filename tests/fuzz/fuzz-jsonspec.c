/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Any bytes to the JSON decoder: it refuses them with a sentence and leaves nothing behind, or takes them; what it took it
 * writes as text that it takes again and writes the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonspec.h"

struct inner {
	char *name;
	double rate;
	struct jsonspec_map keys;
};
static const struct jsonspec_field inner_fields[] = {
	{ "name", JS_STRING, offsetof(struct inner, name) },
	{ "rate", JS_FLOAT, offsetof(struct inner, rate), .is_optional = true },
	{ "keys", JS_MAP, offsetof(struct inner, keys), .is_optional = true },
	{ NULL },
};
static const struct jsonspec inner_spec = { "inner", sizeof(struct inner), inner_fields };

struct outer {
	int64_t size;
	bool has_size, is_good;
	struct jsonspec_list list;
	struct jsonspec_ranges ranges;
	struct jsonspec_variant health;
	struct inner inner;
	bool has_inner;
	struct jsonspec_records many;
	char *text;
};
static const struct jsonspec_field outer_fields[] = {
	{ "size", JS_INT64, offsetof(struct outer, size), .is_optional = true, .has = offsetof(struct outer, has_size) },
	{ "good", JS_BOOL, offsetof(struct outer, is_good), .is_optional = true },
	{ "list", JS_LIST, offsetof(struct outer, list), .is_optional = true },
	{ "ranges", JS_RANGES, offsetof(struct outer, ranges), .is_optional = true },
	{ "health", JS_VARIANT, offsetof(struct outer, health), .is_optional = true },
	{ "inner", JS_RECORD, offsetof(struct outer, inner), .is_optional = true, .has = offsetof(struct outer, has_inner),
	  .sub = &inner_spec },
	{ "many", JS_RECORDS, offsetof(struct outer, many), .is_optional = true, .sub = &inner_spec },
	{ "text", JS_TEXT, offsetof(struct outer, text), .is_optional = true },
	{ NULL },
};
static const struct jsonspec outer_spec = { "outer", sizeof(struct outer), outer_fields };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
extern const char *const fuzz_words[];

const char *const fuzz_words[] = {
	"{", "}", "[", "]", ",", ":", "\"", "\\", "\\u0000", "\\ud83d", "\\ude00", "\\u00e9", "null", "true", "false", "0",
	"-1", "1e3", "1.0", "9223372036854775808", "-9223372036854775808", "\"0x7f\"", "\"size\":", "\"SIZE\":",
	"\"good\":true", "\"list\":[\"a\"]", "\"ranges\":[[0,1]]", "\"health\":[\"Tag\",\"x\"]",
	"\"inner\":{\"name\":\"n\"}", "\"many\":[", "{\"name\":\"n\",\"keys\":{", "\"text\":", " ", "\n",
	"[[[[[[[[[[[[[[[[", "\xef\xbf\xbd", "\xf0\x9f\x98\x80", NULL,
};

static char *write_out(const struct outer *record)
{
	char *text = jsonspec_encode(&outer_spec, record);

	assert(text);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static const struct outer nothing;
	struct error e = { 0 };
	struct outer record;
	char *first, *second;

	memset(&record, 0xa5, sizeof(record));
	if (jsonspec_decode(&outer_spec, (const char *)data, bytes, &record, &e) == -1) {
		assert(e.err && e.text[0]);
		assert(memcmp(&record, &nothing, sizeof(record)) == 0);
		return 0;
	}
	first = write_out(&record);
	jsonspec_clear(&outer_spec, &record);
	assert(!strchr(first, '\n'));
	assert(jsonspec_decode(&outer_spec, first, strlen(first), &record, &e) == 0);
	second = write_out(&record);
	jsonspec_clear(&outer_spec, &record);
	assert(strcmp(first, second) == 0);
	free(first);
	free(second);
	return 0;
}
