/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * claim - who may touch which bytes now
 *
 * A claim is a promise that nobody else has I/O in flight on a range.  Claims are granted in arrival order: a later claim
 * waits behind an earlier one it overlaps, granted or not, so neither the guest nor the copy can starve.
 *
 *      arrival:   A [0,8)    B [4,12)    C [8,10)
 *      granted:   A          -           -          C waits for B though A does not touch it
 *
 * The caller owns the memory of the claim. No callbacks: claim_drop() lists who is free to go now.
 */
#ifndef SXM_MIRROR_CLAIM_H
#define SXM_MIRROR_CLAIM_H

#include <sys/queue.h>

#include "base/range.h"

/* How finely claims are indexed; a claim over more than two cells sits in a list of its own. Longer ranges cost more to take. */
#define CLAIM_CELL_BYTES (UINT64_C(256) * 1024)

struct claim {
	struct range range;      /* bytes; not empty */
	uint64_t sequence;       /* arrival order */
	unsigned blockers;       /* earlier live claims it overlaps; 0: granted */
	bool is_live;
	void *owner;             /* the caller's */
	TAILQ_ENTRY(claim) first, second; /* in its first and second cell; wide: `first` alone */
	TAILQ_ENTRY(claim) wake;
};
TAILQ_HEAD(claim_wake, claim);

struct claims;
struct claims *claims_new(void); /* NULL: out of memory */
void claims_free(struct claims *t); /* no claim is live */

/* True: granted at once. False: it will stand on a later drop's wake list. */
bool claim_take(struct claims *t, struct claim *c, struct range r, void *owner);
/* Gives up a claim, granted or waiting. Claims that became granted are appended to wake, in arrival order among themselves. */
void claim_drop(struct claims *t, struct claim *c, struct claim_wake *wake);
/* Does a live claim, granted or waiting, overlap r (not empty)? counts: only those it says yes to; NULL: any. */
bool claims_overlap(const struct claims *t, struct range r, bool (*counts)(const struct claim *c));
/* Live claims, granted or waiting. */
unsigned claims_count(const struct claims *t);

#endif
