/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mount - the file systems that the verbs mount, each with a mark that says whose it is
 *
 *      SXM_RUN_DIR/mnt/<name>          where it is mounted
 *      SXM_RUN_DIR/mnt/<name>.json     the mark: what belongs there. Written before the mount, gone after the unmount
 *      SXM_RUN_DIR/mnt/<name>.lock     held while one of the two changes
 *
 * A verb that was killed leaves a mark without a mount, or both: the next one goes on from there.  What is mounted there and is
 * not what the mark says is somebody else's: it is not covered, not taken away, not used.
 */
#ifndef SXM_PLUGINS_MOUNT_H
#define SXM_PLUGINS_MOUNT_H

#include <sys/types.h>

#include "base/error.h"

struct mount_what {
	const char *fstype; /* as the kernel calls it */
	const char *source; /* the device's path; server:/path for a network file system */
	const char *options; /* the file system's own; NULL: none */
	dev_t device; /* of the source; 0: none, and mount(8) mounts it, with the helper of that fstype */
	unsigned wait_ms;
};

/* May this be a mount's name? */
bool mount_is_name(const char *name);
/* Its directory, heap, with symbolic links resolved; whether or not it is there. NULL + e. */
char *mount_dir(const char *name, struct error *e);
/* Of that directory, until the descriptor is closed. -1 + e. */
int mount_lock(const char *dir, struct error *e);

/* With the lock held. *was_up: it was mounted already. -1 + e (EBUSY: something else is there): nothing was changed. It is
 * mounted without device nodes, set-user-ID, programs and, where the kernel can, symbolic links. */
int mount_up(const char *dir, const struct mount_what *what, bool *was_up, struct error *e);
/* With the lock held. Nothing to do where nothing is mounted. EBUSY: it is in use, e says by whom, or somebody else's. The mark
 * stays when has_more says so: something besides the mount is to be let go of, and mount_forget() comes after that. */
int mount_down(const char *dir, unsigned wait_ms, bool has_more, struct error *e);
void mount_forget(const char *dir);
/* With the lock held, as the last thing: nothing is left of it where nothing is marked. */
void mount_drop_lock(const char *dir);

/* What the mark says: where it was mounted from, heap. NULL + e; ENOENT: there is no mark. */
char *mount_source(const char *dir, struct error *e);
/* Is it mounted, and ours? */
bool mount_is_up(const char *dir);
/* Is dir one of mount_dir()'s? */
bool mount_is_dir(const char *dir);
/* The one of them that path is in, heap; NULL: none. Nothing below SXM_RUN_DIR/mnt is touched. */
char *mount_above(const char *path);

#endif
