/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vdi-id - see vdi-id.h
 */
#include "plugins/vdi-id.h"

#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES 36 /* a UUID's */
#define HASH_DIGITS 8
#define NUMBER_MAX_DIGITS 17 /* an operation's name stays below 64 bytes */

static bool is_clean(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

static uint32_t hash_fnv1a(const char *text)
{
	uint32_t hash = 2166136261u;

	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		hash = (hash ^ *p) * 16777619u;
	return hash;
}

char *vdi_id_of_path(const char *path, char id[static VDI_ID_MAX])
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	size_t bytes = strlen(base);
	char name[NAME_MAX_BYTES + 1];

	if (bytes > 4 && strcmp(base + bytes - 4, ".raw") == 0)
		bytes -= 4;
	else if (bytes > 6 && strcmp(base + bytes - 6, ".qcow2") == 0)
		bytes -= 6;
	if (bytes > NAME_MAX_BYTES)
		bytes = NAME_MAX_BYTES;
	memcpy(name, base, bytes);
	name[bytes] = '\0';
	for (char *c = name; *c; c++)
		if (!is_clean(*c))
			*c = '_';
	if (name[0] == '.')
		name[0] = '_';
	snprintf(id, VDI_ID_MAX, "%s-%08x", name[0] ? name : "vdi", hash_fnv1a(path));
	return id;
}

bool vdi_id_is_valid(const char *text)
{
	size_t bytes = strnlen(text, VDI_ID_MAX);
	const char *hash;

	if (bytes < HASH_DIGITS + 2 || bytes >= VDI_ID_MAX || *text == '.')
		return false;
	for (const char *c = text; *c; c++)
		if (!is_clean(*c))
			return false;
	hash = text + bytes - HASH_DIGITS;
	return hash[-1] == '-' && strspn(hash, "0123456789abcdef") == HASH_DIGITS;
}

bool vdi_id_of_operation(const char *operation, char id[static VDI_ID_MAX])
{
	const char *dot = strrchr(operation, '.');
	size_t digits = dot ? strspn(dot + 1, "0123456789") : 0;

	if (!digits || digits > NUMBER_MAX_DIGITS || dot[1 + digits] || dot - operation >= VDI_ID_MAX)
		return false;
	memcpy(id, operation, (size_t)(dot - operation));
	id[dot - operation] = '\0';
	return vdi_id_is_valid(id);
}
