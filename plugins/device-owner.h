/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * device-owner - which host has a device attached whose file system cannot tell by itself
 *
 * ext4 has this in the kernel (mmp); XFS, mounted twice, destroys itself.  So one block of the device, behind the file system's
 * end, says which host has it attached, and in which boot.  It does not grow old: the host that is named there, and nobody else,
 * takes it away; its own next boot may, for then nothing of it is mounted any more.  Of a host that is gone for good only a
 * person can know that it is (force).
 *
 * What is enforced: two sxm never attach it at once.  What is not: that nobody else mounts the device.
 */
#ifndef SXM_PLUGINS_DEVICE_OWNER_H
#define SXM_PLUGINS_DEVICE_OWNER_H

#include "plugins/device.h"

/* at: where the block lies, from the superblock. EFBIG: the file system has grown over the place. */
int device_owner_find(const struct device *d, int64_t *at, struct error *e);

/* After mkfs: nobody's. */
int device_owner_make(const struct device *d, const char *sr_uuid, struct error *e);
/* Before the mount. Takes about a second, unless it is ours already. EBUSY: another host has it; EBADMSG: nothing is written
 * there that could be understood. With is_forced either is overruled. */
int device_owner_take(const struct device *d, const char *sr_uuid, bool is_forced, struct error *e);
/* Only looks. EBUSY: another host has it. */
int device_owner_check(const struct device *d, const char *sr_uuid, struct error *e);
/* After the unmount. Good when it is another's or nobody's. */
int device_owner_release(const struct device *d, const char *sr_uuid, struct error *e);

#endif
