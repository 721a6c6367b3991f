/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * child - what may take for ever is done by a child with a deadline
 *
 * A server that does not answer holds whoever asks it, in the kernel, and not every wait there can be ended. The child is what
 * hangs; the verb goes on with a sentence.  The same for programs of others: mkfs, mount.
 *
 * A child keeps nothing of the verb's but what is said here, for xapi waits for the end of the verb's output: its log only, which
 * is stderr where somebody asked for that (base/log.h). It is killed, with all that it started, when its time is over, and by the
 * kernel when the verb is killed.
 */
#ifndef SXM_PLUGINS_CHILD_H
#define SXM_PLUGINS_CHILD_H

#include <stddef.h>

#include "base/error.h"

/* Runs argv[0], which is looked for in PATH; no shell. argv ends with NULL. *output: what it wrote to both its outputs (the first
 * 64 KiB), heap; may be NULL. -1 + e: ENOENT (there is no such program), ETIMEDOUT, or what it said, with EIO. */
#define CHILD_OUTPUT_BYTES 65536u
int child_run(const char *const *argv, unsigned wait_ms, char **output, struct error *e);
/* The same with more of it: EFBIG where it says max bytes or more. */
int child_read(const char *const *argv, unsigned wait_ms, size_t max, char **output, struct error *e);

/* In the child. What it writes to fd is the answer. Its result becomes that of child_call(), its error too. */
typedef int child_fn(void *arg, int fd, struct error *e);

/* fn in a forked copy of this process; memory it changes is its own. *answer, at most max bytes and a NUL, heap; may be NULL.
 * -1 + e: fn's own, or ETIMEDOUT. */
int child_call(child_fn *fn, void *arg, unsigned wait_ms, size_t max, char **answer, struct error *e);

/* All of it to a descriptor. -1: errno says why. */
int child_write(int fd, const void *data, size_t bytes);

#endif
