/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sr-mounted - what types of SR that mount something have in common
 */
#ifndef SXM_PLUGINS_SR_MOUNTED_H
#define SXM_PLUGINS_SR_MOUNTED_H

#include "plugins/mount.h"
#include "plugins/sr.h"

/* The mount's directory of the SR that the configuration names by sr_uuid, heap. NULL + f: it names none. */
char *sr_mounted_dir(const struct jsonspec_map *configuration, struct failure *f);
/* mount_lock(), but a failure. */
int sr_mounted_lock(const char *dir, struct failure *f);
/* An error of mount.h's or device.h's: EBUSY is the SR's being in use. */
int sr_mounted_failure(struct failure *f, const struct error *e);

/* Before what is in it is destroyed: is it there to be looked at? An empty directory where nothing is mounted says nothing. */
int sr_mounted_check_up(const char *dir, struct failure *f);
/* With the lock held; mount_down() of an SR: refused while a disk in it is served. */
int sr_mounted_down(const char *dir, unsigned wait_ms, bool has_more, struct failure *f);

#endif
