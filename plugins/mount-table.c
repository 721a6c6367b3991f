/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mount-table - see mount-table.h
 *
 *      36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
 *            |    |     |                           |    source
 *            |    |     dir                         fstype
 *            |    root
 *            device
 *
 * Fields are separated by one space; in them \040 and the like stand for what would disturb.
 */
#include "plugins/mount-table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/proc.h"

#define TABLE_MAX_BYTES (16u << 20)
#define FIELDS 5u /* before those that differ in number */

static bool is_octal(char c)
{
	return c >= '0' && c <= '7';
}

/* In place. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
			*to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

static bool parse_device(const char *text, dev_t *device)
{
	unsigned major, minor;
	char rest;

	if (sscanf(text, "%u:%u%c", &major, &minor, &rest) != 2)
		return false;
	*device = makedev(major, minor);
	return true;
}

/* line is taken apart. False: no line of a mount table. */
static bool split_line(char *line, char *field[static FIELDS], char **fstype, char **source)
{
	char *rest = line, *word;
	size_t n = 0;

	while ((word = strsep(&rest, " "))) {
		if (n < FIELDS)
			field[n] = word;
		else if (strcmp(word, "-") == 0)
			break;
		n++;
	}
	*fstype = strsep(&rest, " ");
	*source = strsep(&rest, " ");
	return word && *source;
}

static void clear_entry(struct mount_entry *m)
{
	free(m->dir);
	free(m->root);
	free(m->fstype);
	free(m->source);
}

/* 1: added; 0: not understood; -1: out of memory. */
static int add_line(struct mount_table *t, char *line)
{
	char *field[FIELDS], *fstype, *source;
	struct mount_entry m = { 0 }, *more;

	if (!split_line(line, field, &fstype, &source) || !parse_device(field[2], &m.device))
		return 0;
	unescape(field[3]);
	unescape(field[4]);
	unescape(fstype);
	unescape(source);
	m.root = strdup(field[3]);
	m.dir = strdup(field[4]);
	m.fstype = strdup(fstype);
	m.source = strdup(source);
	more = realloc(t->item, (t->count + 1) * sizeof(*t->item));
	if (more)
		t->item = more;
	if (!more || !m.root || !m.dir || !m.fstype || !m.source) {
		clear_entry(&m);
		return -1;
	}
	t->item[t->count++] = m;
	return 1;
}

int mount_table_parse(struct mount_table *t, const char *text)
{
	CLEANUP_FREE char *copy = strdup(text);
	char *rest = copy, *line;
	int r = copy ? 0 : -1;

	*t = (struct mount_table) { 0 };
	while (r != -1 && (line = strsep(&rest, "\n")))
		r = add_line(t, line);
	if (r != -1)
		return 0;
	mount_table_fini(t);
	return -1;
}

int mount_table_read(struct mount_table *t, struct error *e)
{
	CLEANUP_FREE char *text = proc_read_file("/proc/self/mountinfo", TABLE_MAX_BYTES, NULL, e);

	*t = (struct mount_table) { 0 };
	if (!text)
		return -1;
	return mount_table_parse(t, text) == 0 ? 0 : error_set(e, ENOMEM, "out of memory");
}

void mount_table_fini(struct mount_table *t)
{
	for (size_t i = 0; i < t->count; i++)
		clear_entry(&t->item[i]);
	free(t->item);
	*t = (struct mount_table) { 0 };
}

const struct mount_entry *mount_table_at(const struct mount_table *t, const char *dir, size_t *count)
{
	const struct mount_entry *found = NULL;
	size_t n = 0;

	for (size_t i = 0; i < t->count; i++)
		if (strcmp(t->item[i].dir, dir) == 0) {
			found = &t->item[i];
			n++;
		}
	if (count)
		*count = n;
	return found;
}

const struct mount_entry *mount_table_of(const struct mount_table *t, dev_t device)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->item[i].device == device)
			return &t->item[i];
	return NULL;
}
