/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-format - the format of an SR's new volumes: what may be asked for, and what that means in a directory
 *
 * The configuration keeps what was asked for; what it means is decided once, when the SR is made, and is in the SR's record.
 */
#include <errno.h>
#include <string.h>

#include "plugins/image.h"
#include "plugins/qemu-img.h"
#include "plugins/sr.h"

int sr_check_format(struct jsonspec_map *configuration, struct failure *f)
{
	const char *format = jsonspec_map_get(configuration, "format");

	if (format && strcmp(format, "auto") != 0 && !image_by_format(format))
		return failure_set(f, FAILURE_CONFIGURATION, EINVAL, "format %s is not known; choose auto, raw or qcow2", format);
	if (format && strcmp(format, image_qcow2.format) == 0 && !qemu_img_is_there())
		return failure_set(f, FAILURE_CONFIGURATION, ENOENT, "format qcow2 needs qemu-img, which is not installed");
	if (format || jsonspec_map_set(configuration, "format", "auto") == 0)
		return 0;
	return failure_set(f, FAILURE_SR_UNAVAILABLE, ENOMEM, "out of memory");
}

const struct image_ops *sr_choose_format(const struct jsonspec_map *configuration, const char *dir)
{
	const struct image_ops *ops = image_by_format(jsonspec_map_get(configuration, "format"));

	if (ops)
		return ops;
	return image_can_share(dir) || !qemu_img_is_there() ? &image_raw : &image_qcow2;
}
