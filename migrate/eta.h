/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * eta - when a mirror will have everything, and how long a switchover would take: a model, from what was seen so far
 *
 * Pure: numbers in, numbers out. One struct eta for each disk; all zero is a new one.
 */
#ifndef SXM_MIGRATE_ETA_H
#define SXM_MIGRATE_ETA_H

#include "base/compiler.h"

#define ETA_UNKNOWN (-1)

/* What is known at one moment; amounts are since the operation began. */
struct eta_sample {
	int64_t at_ms;
	uint64_t total_bytes, owed_bytes;  /* of the pass; still to come */
	uint64_t sent_bytes;               /* all that the far side acknowledged */
	uint64_t guest_bytes;              /* what guests wrote */
	bool is_moving;                    /* there is a link, and it answers */
	bool is_paced;                     /* guests are held */
	bool is_done;                      /* the sides are the same */
};

struct eta_fit {
	double seconds, p, y, yy, py, pp;  /* weighted sums */
};
struct eta {
	struct eta_sample last;
	bool has_last, is_moving, is_done;
	unsigned samples;

	/* bytes a second */
	double capacity;                   /* what the far side takes, if all of it were the copy's */
	double guest;                      /* what guests write */
	double progress;                   /* how fast what is owed grows less, over some seconds */
	double cost, cost_before;          /* of a byte that a guest writes, in bytes of the copy */
	struct eta_fit fit;
	unsigned odd;                      /* so many samples in a row were far from what was expected, on one side of it */
	bool is_odd_more;
	unsigned guest_odd;
	double paced;                      /* which part of the time guests were held */

	/* what of guests' writes went to the far side, too */
	double through, written, expected; /* weighted sums: went; were written; would have gone, were they all over the disk */
	double owed, total;
};

/* In the order of time. What comes too soon after the last one is left out. */
void eta_note(struct eta *m, const struct eta_sample *s);
/* From the last sample on. 0: it is done. ETA_UNKNOWN: nothing is known yet, or nothing moves. */
int64_t eta_left_ms(const struct eta *m);
/* To have all in left_ms: of so many bytes a second at most (as the mirror's limit counts them: copies, and what guests' writes
 * take) it may take before it is slowed. Never so few that guests would be held for it. owed_bytes: now. 0: nothing is owed.
 * UINT64_MAX: not in any time, as none is left. */
uint64_t eta_rate_for(const struct eta *m, uint64_t owed_bytes, int64_t left_ms);
/* What goes to the far side a second, as it goes now: copies, and what guests' writes take of the same. */
double eta_taken_bytes(const struct eta *m);
/* Of the pass, as it goes now. */
double eta_progress_bytes(const struct eta *m);

/* Several disks on one link: what one no longer needs the others get. left_ms, progress of each; with ETA_UNKNOWN among them
 * that is the answer. */
int64_t eta_together_ms(const int64_t *left_ms, const double *progress, unsigned count);

/* A switchover now: what is owed and under way is sent and flushed, then it is asked and answered twice. rate_bytes a second;
 * ETA_UNKNOWN without it. */
int64_t eta_downtime_ms(uint64_t owed_bytes, uint64_t rate_bytes, uint64_t round_trip_us, uint64_t flush_us);

#endif
