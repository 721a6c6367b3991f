/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * jsonspec - the records themselves: freeing them, and their maps and lists
 *
 *      text --- jsonspec-scan ---> slices --- jsonspec-decode ---> record --- jsonspec-encode ---> text
 *                 strict                        the table            |           the table
 *                                                                    '- here
 *
 * A map or list remembers no capacity: jsonspec_grow() makes room whenever the count is a power of two, for as many again.
 * What was taken out only makes it ask sooner.
 *
 * Can fail: on memory only, and then nothing has changed.
 */
#include "base/jsonspec.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec-private.h"

void *jsonspec_member(const struct jsonspec_field *field, const void *record)
{
	return (char *)(uintptr_t)record + field->offset;
}

bool *jsonspec_has(const struct jsonspec_field *field, const void *record)
{
	return field->has ? (bool *)((char *)(uintptr_t)record + field->has) : NULL;
}

void *jsonspec_grow(void *array, size_t count, size_t item_bytes)
{
	if (count & (count - 1))
		return array;
	return reallocarray(array, count ? 2 * count : 1, item_bytes);
}

static void clear_map(struct jsonspec_map *m)
{
	for (size_t i = 0; i < m->count; i++) {
		free(m->key[i]);
		free(m->value[i]);
	}
	free(m->key);
	free(m->value);
}

static void clear_list(struct jsonspec_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->item[i]);
	free(l->item);
}

static void clear_records(const struct jsonspec *spec, struct jsonspec_records *r)
{
	for (size_t i = 0; i < r->count; i++)
		jsonspec_clear(spec, (char *)r->item + i * spec->size);
	free(r->item);
}

static void clear_member(const struct jsonspec_field *field, void *member)
{
	switch (field->type) {
	case JS_STRING:
	case JS_TEXT:
		free(*(char **)member);
		break;
	case JS_MAP:
		clear_map(member);
		break;
	case JS_LIST:
		clear_list(member);
		break;
	case JS_RANGES:
		free(((struct jsonspec_ranges *)member)->item);
		break;
	case JS_VARIANT:
		free(((struct jsonspec_variant *)member)->tag);
		free(((struct jsonspec_variant *)member)->arg);
		break;
	case JS_RECORD:
		jsonspec_clear(field->sub, member);
		break;
	case JS_RECORDS:
		clear_records(field->sub, member);
		break;
	case JS_INT64:
	case JS_BOOL:
	case JS_FLOAT:
		break;
	}
}

void jsonspec_clear(const struct jsonspec *spec, void *record)
{
	for (const struct jsonspec_field *field = spec->fields; field->name; field++)
		clear_member(field, jsonspec_member(field, record));
	memset(record, 0, spec->size);
}

static bool find_key(const struct jsonspec_map *m, const char *key, size_t *index)
{
	for (size_t i = 0; i < m->count; i++) {
		if (strcmp(m->key[i], key) == 0) {
			*index = i;
			return true;
		}
	}
	return false;
}

const char *jsonspec_map_get(const struct jsonspec_map *m, const char *key)
{
	size_t i;

	return find_key(m, key, &i) ? m->value[i] : NULL;
}

int jsonspec_map_append(struct jsonspec_map *m, char **key, char **value)
{
	char **grown = jsonspec_grow(m->key, m->count, sizeof(*m->key));

	if (!grown)
		return -1;
	m->key = grown;
	grown = jsonspec_grow(m->value, m->count, sizeof(*m->value));
	if (!grown)
		return -1;
	m->value = grown;
	m->key[m->count] = take_ptr(key);
	m->value[m->count++] = take_ptr(value);
	return 0;
}

int jsonspec_map_set(struct jsonspec_map *m, const char *key, const char *value)
{
	CLEANUP_FREE char *key_copy = NULL;
	CLEANUP_FREE char *value_copy = strdup(value);
	size_t i;

	if (!value_copy)
		return -1;
	if (find_key(m, key, &i)) {
		free(m->value[i]);
		m->value[i] = take_ptr(&value_copy);
		return 0;
	}
	key_copy = strdup(key);
	return key_copy ? jsonspec_map_append(m, &key_copy, &value_copy) : -1;
}

bool jsonspec_map_unset(struct jsonspec_map *m, const char *key)
{
	size_t i;

	if (!find_key(m, key, &i))
		return false;
	free(m->key[i]);
	free(m->value[i]);
	m->count--;
	memmove(&m->key[i], &m->key[i + 1], (m->count - i) * sizeof(*m->key));
	memmove(&m->value[i], &m->value[i + 1], (m->count - i) * sizeof(*m->value));
	return true;
}

int jsonspec_list_append(struct jsonspec_list *l, char **item)
{
	char **grown = jsonspec_grow(l->item, l->count, sizeof(*l->item));

	if (!grown)
		return -1;
	l->item = grown;
	l->item[l->count++] = take_ptr(item);
	return 0;
}

int jsonspec_list_add(struct jsonspec_list *l, const char *item)
{
	CLEANUP_FREE char *copy = strdup(item);

	return copy ? jsonspec_list_append(l, &copy) : -1;
}
