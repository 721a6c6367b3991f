/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * watch - whether anybody is writing to a part of a disk, or has since
 *
 * For whoever reads two sides that should be equal and finds that they are not: did somebody write in between?
 * It may say yes where the answer is no (chunks share counters), never the reverse.
 */
#ifndef SXM_BLOCK_WATCH_H
#define SXM_BLOCK_WATCH_H

#include "block/layer.h"

struct watch;
/* Watches what is submitted to the top layer of a stack; one watch at a time. NULL: out of memory. */
struct watch *watch_new(struct layer *top);
/* The layer may be gone already, if has_layer is false. */
void watch_free(struct watch *w, bool has_layer);

/* No write, zeroing or trim of the range is under way. Requests from before watch_new() count as writes of everything. */
bool watch_is_quiet(const struct watch *w, struct range r);
/* Another number whenever one has begun in the range since the last. */
uint64_t watch_stamp(const struct watch *w, struct range r);

#endif
