/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-device - an SR that is one file system on one block device; what ext4-ng and xfs-ng share
 *
 *      device = /dev/disk/by-id/...    kept as it was given
 *      force = true                    SR.create: over what the device holds; SR.attach: although another host has it
 *
 * The file system's UUID is the SR's, its label says that it is an SR of ours: SR.probe needs no mount to find it.
 */
#ifndef SXM_PLUGINS_SR_DEVICE_H
#define SXM_PLUGINS_SR_DEVICE_H

#include "plugins/device.h"
#include "plugins/sr.h"

#define SR_DEVICE_LABEL "sxm-sr" /* XFS has room for 12 bytes */
#define SR_DEVICE_ARGS_MAX 24

struct sr_device {
	const char *fstype;
	const char *options; /* of the mount */
	/* mkfs's arguments, ended by NULL; texts: room for those that are made here. */
	void (*mkfs)(const struct device *d, const char *uuid, const char *argv[static SR_DEVICE_ARGS_MAX],
		     char texts[static 256]);
	/* From its superblock, as of the last unmount. False: it is not there. */
	bool (*space)(const struct device *d, int64_t *total_bytes, int64_t *free_bytes);
	/* EBUSY: another host may have it attached, as the device says. */
	int (*check_others)(const struct device *d, const char *uuid, struct error *e);
	/* Was mkfs killed before its end? NULL: mkfs writes what makes it one as the last thing. */
	bool (*is_unfinished)(const struct device *d);
	/* Of a file system that does not see by itself that another host has it; NULL: it does. */
	int (*init_owner)(const struct device *d, const char *uuid, struct error *e);
	int (*take)(const struct device *d, const char *uuid, bool is_forced, struct error *e);
	int (*release)(const struct device *d, const char *uuid, struct error *e);
};

#define SR_DEVICE_OPTIONS \
	{ "device", "path of a block device, best /dev/disk/by-id/...; the whole of it becomes the SR" }, \
	{ "force", "true: SR.create destroys what the device holds; SR.attach takes it from another host; not kept" }, \
	SR_OPTION_FORMAT

int sr_device_check(struct jsonspec_map *configuration, struct failure *f);
char *sr_device_find(const struct jsonspec_map *configuration, struct failure *f);
int sr_device_make(const struct sr_ops *type, struct jsonspec_map *configuration, struct sr_place *place, struct failure *f);
int sr_device_leave(const struct sr_ops *type, const struct jsonspec_map *configuration, const struct sr_place *place,
		    bool has_failed, struct failure *f);
int sr_device_probe(const struct sr_ops *type, struct jsonspec_map *configuration, struct probe *p, struct failure *f);
int sr_device_attach(const struct sr_ops *type, const struct jsonspec_map *configuration, const char *dir, struct failure *f);
int sr_device_detach(const struct sr_ops *type, const char *dir, struct failure *f);
int sr_device_destroy(const struct sr_ops *type, const char *dir, struct failure *f);

/* Of a struct sr_ops: all that sr.h asks for; what differs is in its device. */
#define SR_DEVICE_OPS \
	.check = sr_device_check, .find = sr_device_find, .make = sr_device_make, .leave = sr_device_leave, \
	.probe = sr_device_probe, .attach = sr_device_attach, .detach = sr_device_detach, .destroy = sr_device_destroy

/* A little- or big-endian number of a superblock. */
int64_t sr_device_number(const unsigned char *at, size_t bytes, bool is_big_endian);

#endif
