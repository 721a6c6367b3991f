/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-private - what persist-open.c makes and persist.c runs
 */
#ifndef SXM_MIRROR_PERSIST_PRIVATE_H
#define SXM_MIRROR_PERSIST_PRIVATE_H

#include "loop/offload.h"
#include "mirror/persist.h"
#include "mirror/persist-map.h"
#include "mirror/persist-marks.h"

TAILQ_HEAD(mark_list, persist_mark);

struct persist {
	struct loop *loop; /* borrowed */
	struct persist_map map;
	struct persist_marks marks;
	struct mark_list waiting, going, over;
	struct bitmap *spare;      /* owned: groups that lost a mark, perhaps their last */
	bool is_due;               /* a group must go, with or without marks */

	struct loop_hook hook;
	bool is_set_up;            /* the hook is in, the timer is there */
	struct loop_task deliver;
	struct loop_timer *tidy;   /* owned */
	bool is_tidy_set;

	/* the group on its way: the pool's while is_busy */
	bool is_busy;
	struct offload offload;
	struct bitmap *wanted;     /* owned: regions that are to get memory in the map */
	struct bitmap *refused;    /* owned: ... and did not */
	struct bitmap *given_back; /* owned: groups */
	bool must_last;            /* has more in it than memory for the map */
	int err;

	bool is_void;              /* nothing is marked any more; what waits for it: */
	bool is_voided;            /* the files have gone, voided is to be told */
	struct error void_error;
	void (*voided)(void *arg, const struct error *e);
	void *voided_arg;

	bool is_closing, is_closed;
	enum persist_end end;
	void (*closed)(void *arg);
	void *arg;
};

/* persist.c, called by persist-open.c: what of p needs no memory. */
void persist_init(struct persist *p, struct loop *loop);
void persist_free(struct persist *p); /* neither a group nor a mark is left */

#endif
