/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-cache - reads that shall see the medium, not the page cache (private to this room)
 */
#ifndef SXM_DISK_DISK_CACHE_H
#define SXM_DISK_DISK_CACHE_H

#include "disk/disk-raw.h"

/* Whether the page cache stands between this read and the medium. */
bool disk_cache_is_between(const struct disk *d, struct range r);
/* Writes the read's range back and forgets it, then then(op, err), from the loop or at once. err: what could not be written. */
void disk_cache_drop(struct disk_op *op, void (*then)(struct disk_op *op, int err));

#endif
