/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * coalesce - chains of images do not grow for ever: a process of its own makes one base of two, in the background
 *
 *      leaf -> B1.base -> B0.base        where nothing but B1 stands on B0:        leaf -> B1.base
 *
 * One at a time in a directory, on whatever host. It is started by whoever left something to merge, and ends when nothing is, or
 * when what there is could not be merged for ten minutes. Then, and when it is killed, whatever verb comes starts it again.
 */
#ifndef SXM_PLUGINS_COALESCE_H
#define SXM_PLUGINS_COALESCE_H

#include <stdio.h>

#include "base/error.h"

#define COALESCE_SR_LOCK "sxm-sr.coalesce" /* in the directory: of whoever merges there, on whatever host; has a line of text */

/* Sees to it that it runs. Does not wait for it. */
void coalesce_start(const char *dir);
/* If something was left to merge on this host, and nobody does it: as coalesce_start(). Asks no file of the directory. */
void coalesce_resume(const char *dir);
/* The SR is not attached here any more: what was left, the next SR.attach finds. */
void coalesce_forget(const char *dir);
/* It uses no file of the directory any more. -1 + e: ETIMEDOUT. */
int coalesce_stop(const char *dir, struct error *e);
struct coalesce_state {
	size_t bases, pairs, childless; /* there are; of them can be merged; can be removed */
	bool is_running;                /* somebody does, here or on another host */
	char last[256];                 /* what was noted last; "": it never ran */
};
/* -1 + e: it is not known what stands on what. */
int coalesce_look(const char *dir, struct coalesce_state *s, struct error *e);
/* What is there to merge, and what is being done: lines of text. */
void coalesce_report(const char *dir, FILE *to);

/* The process. dir: absolute; lock: -1, or a descriptor by which whoever started it holds the directory's lock of this host. Its
 * exit status. */
int coalesce_main(const char *dir, int lock);

#endif
