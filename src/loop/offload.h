/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * offload - calls that block, on libuv's thread pool
 *
 * work() runs on a pool thread and must touch nothing but its own struct; done() runs from the loop afterwards, exactly once.
 */
#ifndef SXM_LOOP_OFFLOAD_H
#define SXM_LOOP_OFFLOAD_H

#include "loop/loop.h"

struct offload {
	void (*work)(struct offload *o); /* on a pool thread */
	void (*done)(struct offload *o); /* on the loop */
	void *private_;                  /* offload.c's; owned by it from submit to done */
};

/* -1 (ENOMEM) and done() is never called. o stays the caller's and must live until done(). */
int offload_submit(struct loop *l, struct offload *o);

#endif
