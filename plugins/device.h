/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * device - a block device an SR is to be made on, or is on: is it one, what does it hold, who uses it
 */
#ifndef SXM_PLUGINS_DEVICE_H
#define SXM_PLUGINS_DEVICE_H

#include <sys/types.h>

#include "base/error.h"

struct device {
	char *path;    /* owned: as it was named, /dev/disk/by-id/... */
	char *real;    /* owned: where that leads, /dev/sdb */
	dev_t number;
	int64_t bytes;
	int fd;        /* for reading */
};

/* path: absolute, in /dev, and so is where its links lead. -1 + e: ENOTBLK, ENOENT, EINVAL ... */
int device_open(struct device *d, const char *path, struct error *e);
void device_close(struct device *d);

struct device_content {
	char *what;  /* owned: for people: "an ext4 file system labelled x", "a gpt partition table"; NULL: nothing */
	char *type;  /* owned: blkid's, "ext4"; of a partition table "" */
	char *label, *uuid; /* owned; "" when there is none */
};
/* By the signatures, nothing is mounted. */
int device_look(const struct device *d, struct device_content *c, struct error *e);
void device_content_fini(struct device_content *c);

/* EBUSY: mounted, part of something else, or open by somebody who wants it alone; e says what is known. */
int device_check_unused(const struct device *d, struct error *e);
/* Every signature there is, durable: it holds nothing afterwards. Only of an unused one. */
int device_wipe(const struct device *d, struct error *e);
/* Until the descriptor is closed, no other verb of this host, and no udev, touches it. */
int device_lock(const struct device *d, struct error *e);

/* fn for the path of each block device of this host that could hold something; the shortest lasting name there is. */
void device_each(void (*fn)(const char *path, void *arg), void *arg);

#endif
