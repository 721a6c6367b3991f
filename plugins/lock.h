/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * lock - one verb at a time, across processes (and, on a shared file system, across hosts)
 *
 * xapi runs verbs concurrently, on the same volume too.  A lock is flock() on a file; it goes with the process that holds it.
 * The file may be one that is replaced by rename or unlinked by its holder: whoever waited looks again at what the name means
 * now, so the metadata file of a volume is its own lock and nothing is left over.
 *
 *      CLEANUP_LOCK int lock = lock_take(path, LOCK_EXCLUSIVE, &e);
 */
#ifndef SXM_PLUGINS_LOCK_H
#define SXM_PLUGINS_LOCK_H

#include "base/cleanup.h"
#include "base/error.h"

enum lock_mode {
	LOCK_SHARED,
	LOCK_EXCLUSIVE,
};

/* Waits. A descriptor: closing it gives the lock back. -1 + e: ENOENT when the file is not there. */
int lock_take(const char *path, enum lock_mode mode, struct error *e);
/* The same, making an empty file (mode 0600) when it is not there. */
int lock_make(const char *path, enum lock_mode mode, struct error *e);
/* Does not wait, takes the file itself as it is: -1 with EBUSY in e when somebody holds it. */
int lock_try(const char *path, struct error *e);
/* The same, shared, with a descriptor for reading. */
int lock_try_shared(const char *path, struct error *e);

#define CLEANUP_LOCK CLEANUP_CLOSE

#endif
