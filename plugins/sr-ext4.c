/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-ext4 - an SR that is an ext4
 *
 * Of mkfs.ext4's choices those that matter here:
 *      64bit, metadata_csum    a LUN may grow beyond 16 TiB; damage is seen
 *      mmp                     the kernel writes a block every other second while it is mounted, and looks for one that
 *                              changes before it mounts: a second host is refused, whoever mounts there
 *      lazy_itable_init        a create of seconds, not minutes; the kernel fills the tables when it is mounted
 *      nodiscard               of a large thin LUN it takes minutes
 *      -m 0                    no reserve for root: all who write here are root
 *      -T largefile            one inode per MiB: the files are disks
 *
 * After a crash of the host that had it, the kernel waits (some 20 s) before it believes that nobody has.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "plugins/sr-device.h"

#define SUPERBLOCK_AT 1024
#define FEATURE_MMP 0x100
#define MMP_MAGIC 0x004d4d50
#define MMP_CLEAN 0xff4d4d50

static const struct sr_option options[] = { SR_DEVICE_OPTIONS, { NULL, NULL } };

static void ext4_mkfs(const struct device *d, const char *uuid, const char *argv[static SR_DEVICE_ARGS_MAX],
		      char texts[static 256] UNUSED)
{
	const char *const words[] = { "mkfs.ext4", "-q", "-F", "-O", "64bit,metadata_csum,extent,mmp", "-E",
				      "lazy_itable_init=1,lazy_journal_init=1,nodiscard,mmp_update_interval=2", "-m", "0", "-T",
					      "largefile", "-L",
				      SR_DEVICE_LABEL, "-U", uuid, d->real, NULL };

	memcpy(argv, words, sizeof(words));
}

static bool ext4_space(const struct device *d, int64_t *total_bytes, int64_t *free_bytes)
{
	unsigned char sb[1024];
	int64_t block_bytes;

	if (pread(d->fd, sb, sizeof(sb), SUPERBLOCK_AT) != sizeof(sb) || sb[0x18] > 6)
		return false;
	block_bytes = INT64_C(1024) << sb[0x18];
	*total_bytes = (sr_device_number(sb + 0x04, 4, false) | sr_device_number(sb + 0x150, 2, false) << 32) * block_bytes;
	*free_bytes = (sr_device_number(sb + 0x0c, 4, false) | sr_device_number(sb + 0x158, 2, false) << 32) * block_bytes;
	return true;
}

/* mmp's block says "clean" when nobody has it mounted, or nobody was killed while he had. */
static int ext4_check_others(const struct device *d, const char *uuid UNUSED, struct error *e)
{
	unsigned char sb[1024], mmp[16];
	int64_t at;

	if (pread(d->fd, sb, sizeof(sb), SUPERBLOCK_AT) != sizeof(sb) || sb[0x18] > 6)
		return error_set(e, EIO, "the superblock of %s cannot be read", d->path);
	at = sr_device_number(sb + 0x168, 8, false) * (INT64_C(1024) << sb[0x18]);
	if (!(sr_device_number(sb + 0x60, 4, false) & FEATURE_MMP) || pread(d->fd, mmp, sizeof(mmp), at) != sizeof(mmp) ||
	    sr_device_number(mmp, 4, false) != MMP_MAGIC || sr_device_number(mmp + 4, 4, false) == MMP_CLEAN)
		return 0;
	return error_set(e, EBUSY, "%s is mounted by a host, or was when that host went down; detach it there, or attach it "
			 "here, which finds out, before it is overwritten", d->path);
}

static const struct sr_device device = {
	.fstype = "ext4",
	.options = "errors=remount-ro",
	.mkfs = ext4_mkfs,
	.space = ext4_space,
	.check_others = ext4_check_others,
};

const struct sr_ops sr_ext4 = {
	.type = "ext4-ng",
	.name = "Volumes in an ext4 on a block device",
	.description = "Each volume is a sparse file in an ext4 made on a device of this host's or a LUN; one host at a time "
		       "has it attached",
	.options = options,
	.device = &device,
	SR_DEVICE_OPS,
};
