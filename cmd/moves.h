/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * moves - how far the moves of this host came (`sxm migrate`), by their records; and what a person does next
 */
#ifndef SXM_CMD_MOVES_H
#define SXM_CMD_MOVES_H

#include "migrate/journey.h"

#define MOVES_TEXT_MAX 400u

struct moves_row {
	struct journey_record r; /* owned */
	bool is_driven;          /* a `sxm migrate` of this host has it in hand */
	bool is_over;
	char state[MOVES_TEXT_MAX]; /* a sentence's beginning: "in sync; ..." */
	char next[MOVES_TEXT_MAX];  /* what is to be done by whoever looks; "": nothing */
};
struct moves {
	struct moves_row *row; /* owned */
	size_t count;
};

/* Of that move, whatever became of it; NULL: all that are not over. Made anew each time. */
void moves_look(struct moves *m, const char *id, int64_t now_ms);
void moves_clear(struct moves *m);
/* A move's id, which is on record here. */
bool moves_is_id(const char *id);
/* An array of JSON, heap; NULL: out of memory. */
char *moves_encode(const struct moves *m);

#endif
