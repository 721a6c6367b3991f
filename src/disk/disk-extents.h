/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-extents - which parts of the image hold data (private to this room)
 */
#ifndef SXM_DISK_DISK_EXTENTS_H
#define SXM_DISK_DISK_EXTENTS_H

#include "disk/disk-raw.h"

/* Answers a REQ_EXTENTS. */
void disk_extents(struct disk *d, struct req *r);

#endif
