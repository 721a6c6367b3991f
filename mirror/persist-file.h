/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-file - what the marks' file stands on: a few calls, so that tests can pull the plug
 *
 * All of them block, and are made by one thread at a time.
 */
#ifndef SXM_MIRROR_PERSIST_FILE_H
#define SXM_MIRROR_PERSIST_FILE_H

#include <sys/types.h>

#include "base/error.h"

struct persist_ops {
	void *arg;
	/* All of a file's bytes, if there are `bytes` of them exactly. -1 + e: ENOENT; EUCLEAN, another size; EPERM, it is no
	 * plain file of ours. */
	int (*load)(void *arg, const char *path, void *into, size_t bytes, struct error *e);
	/* A new file with that content, on the medium, in the place of what was there. A descriptor for the rest, -1 + e. */
	int (*make)(void *arg, const char *path, const void *content, size_t bytes, struct error *e);
	ssize_t (*pwrite)(void *arg, int fd, const void *from, size_t bytes, off_t at); /* errno */
	int (*fdatasync)(void *arg, int fd);                                            /* errno */
	void (*close)(void *arg, int fd);
	void (*unlink)(void *arg, const char *path);
	/* What was made or removed in the directory that path is in is so on the medium. -1 + e. */
	int (*sync_dir)(void *arg, const char *path, struct error *e);
};

extern const struct persist_ops persist_file_ops; /* the system's */

/* Opens what is there for reading and writing, if it is a plain file of ours; no symbolic link is followed. -1 + e. */
int persist_file_open(const char *path, uint64_t *bytes, struct error *e);
/* 0 or an errno. EUCLEAN: the file ends before. */
int persist_file_read(int fd, void *into, size_t bytes, uint64_t at);

#endif
