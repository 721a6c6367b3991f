/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-zero - ZERO and TRIM, by whatever the medium has for it (private to this room)
 */
#ifndef SXM_DISK_DISK_ZERO_H
#define SXM_DISK_DISK_ZERO_H

#include "disk/disk-raw.h"

/* Issues the next piece of a ZERO or TRIM. */
void disk_zero_step(struct disk_op *op);
/* A FALLOCATE failed with err. True: this way is closed for good, the piece is to be tried another way. */
bool disk_zero_learn(struct disk_op *op, int err);

#endif
