/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-nbd - a far side that misbehaves to order
 *
 * A small NBD server on threads of its own, over a unix socket in a directory of its own. It speaks the plain fixed newstyle
 * without structured replies; what is to go wrong stands in the plan.
 */
#ifndef SXM_TESTS_FAKE_NBD_H
#define SXM_TESTS_FAKE_NBD_H

#include <stdatomic.h>

#include "base/compiler.h"

enum fake_nbd_manner {
	FAKE_NBD_SERVES,
	FAKE_NBD_SILENT,  /* accepts, never speaks */
	FAKE_NBD_GARBAGE, /* greets with nonsense */
};

struct fake_nbd_plan {
	enum fake_nbd_manner manner;
	unsigned greet_max;         /* further connections are accepted and left alone; 0: no bound */
	uint64_t size_bytes;
	bool is_read_only, can_zero, can_multi_conn;
	uint32_t min_block, max_block; /* 0 and 0: none stated */
	uint32_t write_error;       /* NBD's number, for every write */
	unsigned hang_after;        /* requests answered on a connection, then none any more; 0: no bound */
	unsigned die_after;         /* ... then the connection is cut */
};

struct fake_nbd {
	struct fake_nbd_plan plan;
	char socket[108], uri[160];
	uint8_t *disk;              /* size_bytes; written by WRITE and WRITE_ZEROES */
	atomic_uint accepted, greeted, writes, zeroes, no_holes, flushes, goodbyes;
	atomic_ullong longest;      /* request, bytes */
	struct fake_nbd_private *own;
};

/* delay_ms: the socket appears only then. */
void fake_nbd_start(struct fake_nbd *f, const struct fake_nbd_plan *plan, unsigned delay_ms);
void fake_nbd_stop(struct fake_nbd *f);

#endif
