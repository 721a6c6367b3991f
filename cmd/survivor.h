/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * survivor - a process that puts right what this one would leave if it were killed
 *
 *      survivor_begin() -> survivor_arm() -> what is to be undone is done -> survivor_disarm() -> survivor_end()
 *                               '-- this process dies: undo(arg), there, in a copy of what this one knew at survivor_begin()
 */
#ifndef SXM_CMD_SURVIVOR_H
#define SXM_CMD_SURVIVOR_H

#include <sys/types.h>

#include "base/error.h"

struct survivor {
	int fd; /* owned; -1: none */
	pid_t pid;
};

typedef void survivor_fn(const void *arg);

/* -1 + e. */
int survivor_begin(struct survivor *s, survivor_fn *undo, const void *arg, struct error *e);
void survivor_arm(const struct survivor *s);
void survivor_disarm(const struct survivor *s);
/* Waits for it, so what it undoes is undone. */
void survivor_end(struct survivor *s);

#endif
