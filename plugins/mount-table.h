/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mount-table - what is mounted where, as the kernel says it
 */
#ifndef SXM_PLUGINS_MOUNT_TABLE_H
#define SXM_PLUGINS_MOUNT_TABLE_H

#include <sys/types.h>

#include "base/error.h"

struct mount_entry {
	dev_t device;
	char *dir, *root, *fstype, *source; /* owned; root: which part of the file system is seen */
};
struct mount_table {
	struct mount_entry *item; /* owned; in the order in which they were mounted: a later one hides an earlier */
	size_t count;
};

/* Pure: text is that of /proc/self/mountinfo. -1: out of memory. A line that cannot be understood is left out. */
int mount_table_parse(struct mount_table *t, const char *text);
int mount_table_read(struct mount_table *t, struct error *e);
void mount_table_fini(struct mount_table *t);

/* The topmost at dir, and how many there are. NULL: none. */
const struct mount_entry *mount_table_at(const struct mount_table *t, const char *dir, size_t *count);
/* The first that shows that device. */
const struct mount_entry *mount_table_of(const struct mount_table *t, dev_t device);

#endif
