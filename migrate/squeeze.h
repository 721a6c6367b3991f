/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * squeeze - a stream of bytes made shorter, or long again: zstd, piece by piece; no descriptors here
 *
 *      SHORTER --bytes--> anything between --bytes--> LONGER        what has been flushed can be had at the other end at once
 *
 * What a LONGER is given may be anything at all: one frame of zstd's present format is taken, and nothing else. It keeps at most
 * SQUEEZE_WINDOW_BYTES of what was before, and gives no more at a time than there is room for.
 */
#ifndef SXM_MIGRATE_SQUEEZE_H
#define SXM_MIGRATE_SQUEEZE_H

#include "base/compiler.h"
#include "base/error.h"

#define SQUEEZE_NAME "zstd"
#define SQUEEZE_WINDOW_BYTES (1u << 20)

enum squeeze_way { SQUEEZE_SHORTER, SQUEEZE_LONGER };
enum squeeze_want {
	SQUEEZE_MORE,  /* more may come: it may be kept for a while */
	SQUEEZE_FLUSH, /* all that was given is to come out */
	SQUEEZE_END,   /* and nothing comes after it */
};

/* Was it built with zstd? */
bool squeeze_is_there(void);

struct squeeze;
/* NULL + e: ENOTSUP, ENOMEM. */
struct squeeze *squeeze_new(enum squeeze_way way, struct error *e);
/* NULL is good. */
void squeeze_free(struct squeeze *s);

struct squeeze_piece {
	const char *in;
	size_t in_bytes;  /* of it; then: how many were taken */
	char *out;
	size_t out_bytes; /* room; then: how many were given */
};
/* 0: all of `in` was taken, and what was wanted of it has come. 1: there was too little room: again, with what is left of `in`.
 * -1 + e: EBADMSG, what came is no such stream. want does not matter to LONGER. */
int squeeze_run(struct squeeze *s, struct squeeze_piece *p, enum squeeze_want want, struct error *e);
/* LONGER: nothing has come, or all. */
bool squeeze_is_whole(const struct squeeze *s);

#endif
