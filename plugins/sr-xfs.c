/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-xfs - an SR that is an XFS
 *
 *      crc=1               damage of its own structures is seen
 *      reflink=1           a snapshot of a volume shares its blocks
 *      -K                  nothing is discarded at the create: of a large thin LUN that takes minutes
 *      -d size             the last MiB of the device is left out: there it is written which host has it (device-owner.h)
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "plugins/device-owner.h"
#include "plugins/sr-device.h"

#define TAIL_BYTES (INT64_C(1) << 20)

static const struct sr_option options[] = { SR_DEVICE_OPTIONS, { NULL, NULL } };

static void xfs_mkfs(const struct device *d, const char *uuid, const char *argv[static SR_DEVICE_ARGS_MAX],
		     char texts[static 256])
{
	const char *const words[] = { "mkfs.xfs", "-q", "-f", "-K", "-L", SR_DEVICE_LABEL, "-m", texts, "-d", texts + 128,
				     d->real, NULL };

	snprintf(texts, 128, "crc=1,reflink=1,uuid=%s", uuid);
	snprintf(texts + 128, 128, "size=%lldm", (long long)(d->bytes / TAIL_BYTES - 1));
	memcpy(argv, words, sizeof(words));
}

static bool xfs_space(const struct device *d, int64_t *total_bytes, int64_t *free_bytes)
{
	unsigned char sb[512];
	int64_t block_bytes;

	if (pread(d->fd, sb, sizeof(sb), 0) != sizeof(sb))
		return false;
	block_bytes = sr_device_number(sb + 4, 4, true);
	if (block_bytes > 65536)
		return false;
	*total_bytes = sr_device_number(sb + 8, 8, true) * block_bytes;
	*free_bytes = sr_device_number(sb + 144, 8, true) * block_bytes;
	return true;
}

static bool xfs_is_unfinished(const struct device *d)
{
	unsigned char sb[512];

	return pread(d->fd, sb, sizeof(sb), 0) == sizeof(sb) && sb[126] != 0; /* sb_inprogress */
}

static const struct sr_device device = {
	.fstype = "xfs",
	.mkfs = xfs_mkfs,
	.space = xfs_space,
	.check_others = device_owner_check,
	.is_unfinished = xfs_is_unfinished,
	.init_owner = device_owner_make,
	.take = device_owner_take,
	.release = device_owner_release,
};

const struct sr_ops sr_xfs = {
	.type = "xfs-ng",
	.name = "Volumes in an XFS on a block device",
	.description = "Each volume is a sparse file in an XFS made on a device of this host's or a LUN; one host at a time "
		       "has it attached",
	.options = options,
	.device = &device,
	SR_DEVICE_OPS,
};
