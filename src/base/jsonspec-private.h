/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * jsonspec-private - what jsonspec's own files share
 */
#ifndef SXM_BASE_JSONSPEC_PRIVATE_H
#define SXM_BASE_JSONSPEC_PRIVATE_H

#include "base/jsonspec.h"

/* Where the field lies in the record; where its "was there" does, or NULL. */
void *jsonspec_member(const struct jsonspec_field *field, const void *record);
bool *jsonspec_has(const struct jsonspec_field *field, const void *record);

/* The array with room for one item more than count, moved perhaps; NULL: out of memory, and the old one is still good. */
void *jsonspec_grow(void *array, size_t count, size_t item_bytes);

/* Take over the strings, or return -1: out of memory, and they are still the caller's. No look for an equal key. */
int jsonspec_map_append(struct jsonspec_map *m, char **key, char **value);
int jsonspec_list_append(struct jsonspec_list *l, char **item);

#endif
