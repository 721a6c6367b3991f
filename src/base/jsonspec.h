/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * jsonspec - a table says what a JSON record is; the table is the schema, the decoder and the error text
 *
 *      struct args { char *uri; char *domain; int64_t size; bool has_size; };
 *      static const struct jsonspec_field fields[] = {
 *              { "uri",    JS_STRING, offsetof(struct args, uri) },
 *              { "domain", JS_STRING, offsetof(struct args, domain) },
 *              { "size",   JS_INT64,  offsetof(struct args, size), .has = offsetof(struct args, has_size), .is_optional = true },
 *              { NULL } };
 *      static const struct jsonspec args_spec = { "Volume.create", sizeof(struct args), fields };
 *
 * The only files that know json-c.  Rules of decoding and encoding: the SMAPIv3 interface's (member names without regard to
 * case, unknown members ignored, the first of two equal members wins, null is not "absent", 64-bit integers exact and without
 * fraction, a decimal string accepted for a number, maps are objects of strings, variants are ["Tag", arg]).
 * Input is hostile: at most JSONSPEC_MAX_BYTES, 32 levels, valid UTF-8, one value and nothing after it.
 */
#ifndef SXM_BASE_JSONSPEC_H
#define SXM_BASE_JSONSPEC_H

#include "base/compiler.h"
#include "base/error.h"

#define JSONSPEC_MAX_BYTES (16u << 20)

enum jsonspec_type {
	JS_STRING,  /* char *: heap */
	JS_INT64,   /* int64_t */
	JS_BOOL,    /* bool */
	JS_FLOAT,   /* double */
	JS_MAP,     /* struct jsonspec_map */
	JS_LIST,    /* struct jsonspec_list: strings */
	JS_RANGES,  /* struct jsonspec_ranges: [[start, length], ...] */
	JS_VARIANT, /* struct jsonspec_variant: ["Tag", "arg"] */
	JS_RECORD,  /* the sub-record, embedded at the offset; .sub says what it is */
	JS_RECORDS, /* struct jsonspec_records: a list of sub-records */
	JS_TEXT,    /* char *: heap; any JSON value, kept as its text, the space between values left out: always one line */
};

struct jsonspec_map {
	size_t count;
	char **key;   /* owned */
	char **value; /* owned */
};
struct jsonspec_list {
	size_t count;
	char **item; /* owned */
};
struct jsonspec_ranges {
	size_t count;
	struct jsonspec_range {
		int64_t start, length;
	} *item; /* owned */
};
struct jsonspec_variant {
	char *tag; /* owned */
	char *arg; /* owned; never NULL when decoded; encoded without one, the variant is the bare "Tag" */
};
struct jsonspec_records {
	size_t count;
	void *item; /* owned: count x sub->size bytes */
};

struct jsonspec;
struct jsonspec_field {
	const char *name;
	enum jsonspec_type type;
	size_t offset;
	bool is_optional;
	/* Of a bool that says "was there"; 0: none (an absent optional field stays zero and is not encoded when zero/NULL). */
	size_t has;
	const struct jsonspec *sub;
};
struct jsonspec {
	const char *name; /* for error texts */
	size_t size;      /* of the struct */
	const struct jsonspec_field *fields; /* ends with a NULL name */
};

/* Fills the struct at out (zeroed first). On error -1, *out is clear and e says which member and why. jsonspec_clear() frees. */
int jsonspec_decode(const struct jsonspec *spec, const char *text, size_t bytes, void *out, struct error *e);
void jsonspec_clear(const struct jsonspec *spec, void *record);

/* One line of JSON, heap; NULL only when out of memory. */
char *jsonspec_encode(const struct jsonspec *spec, const void *record);

/* Single values, for verbs whose whole result is one: heap. */
char *jsonspec_string(const char *text);                     /* "..." */
char *jsonspec_array(const struct jsonspec *spec, const void *records, size_t count); /* [{...}, ...] */
char *jsonspec_object(const struct jsonspec_map *m);          /* {"key":"value", ...} */
char *jsonspec_strings(const char *const *items, size_t count); /* ["...", ...] */
char *jsonspec_variant(const char *tag, const char *arg);    /* ["Tag","arg"] */
/* ["Tag", <json>]: json is put in as it stands. */
char *jsonspec_variant_text(const char *tag, const char *json);

const char *jsonspec_map_get(const struct jsonspec_map *m, const char *key); /* NULL: not there */
/* Adds or replaces; -1 when out of memory. */
int jsonspec_map_set(struct jsonspec_map *m, const char *key, const char *value);
bool jsonspec_map_unset(struct jsonspec_map *m, const char *key);
int jsonspec_list_add(struct jsonspec_list *l, const char *item);

#endif
