/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fsck-salvage - what can still be read in a record that cannot be
 *
 * A record that was cut off, or that a person edited, often has most of its members whole.  One member is looked for by its
 * name and read by the same strict reader as ever: what comes out is well formed or is not there.  Pure.
 *
 *      ..."name":"web disk","descr      ->  name is known, description is not
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "plugins/fsck-private.h"

struct one {
	char *text;
	struct jsonspec_map map;
};
static const struct jsonspec_field string_fields[] = { { "v", JS_STRING, offsetof(struct one, text) }, { NULL } };
static const struct jsonspec string_spec = { "member", sizeof(struct one), string_fields };
static const struct jsonspec_field map_fields[] = { { "v", JS_MAP, offsetof(struct one, map) }, { NULL } };
static const struct jsonspec map_spec = { "member", sizeof(struct one), map_fields };

/* Where the value of "member": begins. NULL: nowhere. */
static const char *find_value(const char *text, const char *member)
{
	CLEANUP_FREE char *wanted = NULL;
	const char *at;

	if (asprintf(&wanted, "\"%s\"", member) < 0) {
		wanted = NULL;
		return NULL;
	}
	at = strstr(text, wanted);
	if (!at)
		return NULL;
	at += strlen(wanted);
	at += strspn(at, " \t\r\n");
	if (*at++ != ':')
		return NULL;
	return at + strspn(at, " \t\r\n");
}

/* Behind the string that begins there. NULL: it does not end. */
static const char *skip_string(const char *at)
{
	for (at++; *at && *at != '"'; at++)
		if (*at == '\\' && !*++at)
			return NULL;
	return *at ? at + 1 : NULL;
}

/* Behind the map of strings that begins there. */
static const char *skip_map(const char *at)
{
	while (at && *at && *at != '}')
		at = *at == '"' ? skip_string(at) : at + 1;
	return at && *at ? at + 1 : NULL;
}

static bool decode(const struct jsonspec *spec, const char *from, const char *to, struct one *one)
{
	CLEANUP_FREE char *text = NULL;
	struct error e;
	int bytes = asprintf(&text, "{\"v\":%.*s}", (int)(to - from), from);

	if (bytes < 0)
		text = NULL;
	*one = (struct one) { 0 };
	return text && jsonspec_decode(spec, text, (size_t)bytes, one, &e) == 0;
}

char *fsck_salvage_string(const char *text, const char *member)
{
	const char *from = find_value(text, member);
	const char *to = from && *from == '"' ? skip_string(from) : NULL;
	struct one one;

	return to && decode(&string_spec, from, to, &one) ? one.text : NULL;
}

static void salvage_keys(const char *text, struct meta_volume *m)
{
	const char *from = find_value(text, "keys");
	const char *to = from && *from == '{' ? skip_map(from) : NULL;
	const char *content_id;
	struct one one;

	if (!to || !decode(&map_spec, from, to, &one))
		return;
	content_id = jsonspec_map_get(&one.map, "content_id");
	for (size_t i = 0; i < one.map.count; i++)
		if (content_id && *content_id)
			jsonspec_map_set(&m->keys, one.map.key[i], one.map.value[i]);
	one.text = NULL;
	jsonspec_clear(&map_spec, &one);
}

static bool says(const char *text, const char *member, const char *word)
{
	const char *value = find_value(text, member);

	return value && strncmp(value, word, strlen(word)) == 0;
}

static void take_over(char **to, char *found)
{
	if (!found)
		return;
	free(*to);
	*to = found;
}

int fsck_salvage_volume(const char *text, const char *key, const char *format, struct meta_volume *m)
{
	if (meta_volume_guess(key, format, m) == -1)
		return -1;
	take_over(&m->name, fsck_salvage_string(text, "name"));
	take_over(&m->description, fsck_salvage_string(text, "description"));
	take_over(&m->family, fsck_salvage_string(text, "family"));
	salvage_keys(text, m);
	m->sharable = says(text, "sharable", "true");
	m->read_write = !says(text, "read_write", "false") && !says(text, "is_a_snapshot", "\"true\"");
	return 0;
}
