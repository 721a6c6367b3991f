/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * jsonspec-scan - JSON text: is it good, and where are its values? For jsonspec's own files only
 */
#ifndef SXM_BASE_JSONSPEC_SCAN_H
#define SXM_BASE_JSONSPEC_SCAN_H

#include "base/compiler.h"
#include "base/error.h"

#define JSONSPEC_SCAN_DEPTH_MAX 32

/* One value's text without the space around it; for a string, the quotes belong to it. Borrowed from the checked text. */
struct jsonspec_value {
	const char *at;
	const char *end;
};

enum jsonspec_kind { JS_KIND_NULL, JS_KIND_BOOL, JS_KIND_NUMBER, JS_KIND_STRING, JS_KIND_ARRAY, JS_KIND_OBJECT };

/* A walk over the members of an object or the items of an array. */
struct jsonspec_walk {
	const char *at;
	const char *end;
	bool is_object;
};

/* One value, whole, strict (RFC 8259), no deeper than JSONSPEC_SCAN_DEPTH_MAX, strings of valid UTF-8 without NUL or half
 * surrogates. -1 and e otherwise. Everything below may be asked only about text that passed. */
int jsonspec_scan_check(const char *text, size_t bytes, struct jsonspec_value *value, struct error *e);

enum jsonspec_kind jsonspec_scan_kind(struct jsonspec_value v);
/* "an array", for error texts. */
const char *jsonspec_scan_kind_name(struct jsonspec_value v);

struct jsonspec_walk jsonspec_scan_walk(struct jsonspec_value container);
/* False at the end. name: where the member's name goes, set for objects only. */
bool jsonspec_scan_next(struct jsonspec_walk *w, struct jsonspec_value *name, struct jsonspec_value *item);

/* Without quotes and escapes; heap; NULL: out of memory. v: a string. */
char *jsonspec_scan_string(struct jsonspec_value v);
/* Without space between the values; heap; NULL: out of memory. */
char *jsonspec_scan_text(struct jsonspec_value v);
/* 0, or EINVAL (not such a number), ERANGE, ENOMEM. Numbers, or strings with one in them. */
int jsonspec_scan_int64(struct jsonspec_value v, int64_t *number);
int jsonspec_scan_double(struct jsonspec_value v, double *number);

/* The length of the valid UTF-8 character at `at`; 0 when there is none. */
size_t jsonspec_scan_utf8(const char *at, const char *end);

#endif
