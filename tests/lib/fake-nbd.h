/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-nbd - a far side that misbehaves to order
 *
 * A small NBD server on threads of its own, over a unix socket in a directory of its own, or TCP on the loopback. It speaks the
 * plain fixed newstyle without structured replies; what is to go wrong stands in the plan.
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
	bool is_read_only, can_zero, can_multi_conn, can_fua, is_tcp;
	uint32_t min_block, max_block; /* 0 and 0: none stated */
	uint32_t write_error;       /* NBD's number, for every write */
	uint32_t read_error;        /* ... for every read */
	uint32_t flush_error;       /* ... for every flush. These may be changed while the server runs */
	unsigned hang_after;        /* requests answered on a connection, then none any more; 0: no bound */
	unsigned die_after;         /* ... then the connection is cut */
	unsigned read_hangs;        /* no read is answered */
	const struct fake_sxm *sxm; /* borrowed; NULL: a foreign server */
};

/* What an x-sxm far side answers. */
struct fake_sxm_answer {
	uint32_t field[20];
	unsigned count;             /* of fields; 0: that context has no chunk in the answer */
	uint32_t length;            /* of each descriptor, where it is not 1 */
	uint32_t error;             /* NBD's number, instead */
	unsigned late_ms;
	bool is_twice;              /* the chunk comes twice */
	bool is_silent;             /* no answer at all */
};

struct fake_sxm {
	struct fake_sxm_answer answer[8]; /* by opcode. WAIT is answered only when END was asked, before that one's own answer */
	unsigned chosen_max;              /* connections that choose the context; 0: all */
	unsigned version;                 /* that is chosen; 0: the first that is asked for */
	const struct fake_sxm_answer *second_hello; /* borrowed: to all but the first; NULL: they are answered alike */
};

struct fake_nbd {
	struct fake_nbd_plan plan;
	char socket[108], uri[160];
	uint8_t *disk;              /* size_bytes; written by WRITE and WRITE_ZEROES */
	atomic_uint accepted, greeted, writes, fuas, zeroes, no_holes, flushes, goodbyes;
	atomic_bool keeps_dead;     /* a connection whose client is gone is not closed as long as this is true */
	atomic_ullong longest;      /* request, bytes */
	atomic_uint reads, asked[8], written_early; /* early: before HELLO, where x-sxm is spoken */
	char context[512];          /* the last x-sxm context that was asked for */
	struct fake_nbd_private *own;
};

/* delay_ms: the socket appears only then. */
void fake_nbd_start(struct fake_nbd *f, const struct fake_nbd_plan *plan, unsigned delay_ms);
/* The clients have closed, or are about to: waits until all they sent is taken in. Nobody may connect any more. */
void fake_nbd_await_end(struct fake_nbd *f);
void fake_nbd_stop(struct fake_nbd *f);
/* Connections count from 0, as they were accepted. Both are done when they return. */
void fake_nbd_cut(struct fake_nbd *f, unsigned connection);
void fake_nbd_answer_wait(struct fake_nbd *f, unsigned connection); /* the WAIT that is open on it, as the plan says */

#endif
