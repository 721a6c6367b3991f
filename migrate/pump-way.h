/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pump-way - one direction of a pump
 *
 *      DIRECT   from ==> to             one of them is a pipe: splice() moves its pages
 *      THROUGH  from ==> pipe ==> to    two sockets, with a pipe of ours in the middle
 *      COPIED   from --> ready --> to   what was read before, and whatever splice() does not take
 *      CODED    from --> raw --squeeze--> ready --> to
 */
#ifndef SXM_MIGRATE_PUMP_WAY_H
#define SXM_MIGRATE_PUMP_WAY_H

#include <poll.h>

#include "base/compiler.h"
#include "base/error.h"
#include "migrate/squeeze.h"

enum pump_way_how { WAY_COPIED, WAY_THROUGH, WAY_DIRECT, WAY_CODED };
struct pump_way_bytes {
	char *at;                /* owned */
	size_t room, head, used; /* [head, used) is there */
};
struct pump_way {
	int from, to;            /* borrowed */
	enum pump_way_how how;
	struct pump_way_bytes raw, ready;
	struct squeeze *squeeze; /* owned; NULL: not CODED */
	enum squeeze_way coding;
	bool is_pending, is_unflushed, is_coded; /* more is to come out; something may be kept in it; its end has come out */
	int pipe[2];             /* owned; -1: none */
	size_t piped;
	bool is_full;            /* there was no room for what is there to be read */
	bool is_at_end, is_over; /* nothing more comes; and all of it was written and the end passed on */
};

/* w: pump_way_init()ed. first: comes before what is read. -1 + e; pump_way_close() in any case. */
void pump_way_init(struct pump_way *w, int from, int to);
int pump_way_open(struct pump_way *w, const void *first, size_t first_bytes, bool is_coded, enum squeeze_way coding,
		  struct error *e);
void pump_way_close(struct pump_way *w);
/* Until it would block. -1 + e: broken. */
int pump_way_move(struct pump_way *w, struct error *e);
/* What it waits for. */
void pump_way_watch(const struct pump_way *w, struct pollfd *from, struct pollfd *to);

#endif
