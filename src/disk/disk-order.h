/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-order - which writes must not be under way together
 */
#ifndef SXM_DISK_DISK_ORDER_H
#define SXM_DISK_DISK_ORDER_H

#include <sys/queue.h>

#include "base/compiler.h"
#include "base/range.h"

/* One write under way or waiting; embedded, the caller fills touched and is_exclusive. */
struct disk_slot {
	struct range touched; /* bytes written, also those written back as they were */
	bool is_exclusive;    /* writes back bytes that are not its own */
	bool is_waiting;
	TAILQ_ENTRY(disk_slot) link;
};
TAILQ_HEAD(disk_slot_list, disk_slot);

struct disk_order {
	struct disk_slot_list flying;
	struct disk_slot_list waiting; /* in order of arrival */
	unsigned exclusive;            /* how many of both lists are exclusive */
};

void disk_order_init(struct disk_order *o);
/* True: it flies. False: it waits, disk_order_next() gives it out. */
bool disk_order_enter(struct disk_order *o, struct disk_slot *s);
/* A flying one landed. */
void disk_order_leave(struct disk_order *o, struct disk_slot *s);
/* Moves the first waiter that may fly to the flying; NULL: none. Ask until NULL after each leave. */
struct disk_slot *disk_order_next(struct disk_order *o);

#endif
