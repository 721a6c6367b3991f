/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pace - how fast the far side is, and how fast guests may write
 */
#ifndef SXM_MIRROR_PACE_H
#define SXM_MIRROR_PACE_H

#include "mirror/least.h"

#define PACE_DELAY_MAX_US 20000u /* a write is never held longer */
#define PACE_FLOOR_GAP_US 2000u  /* 500 writes a second are never refused */

enum pace_reason { PACE_FREE, PACE_FAR_IS_SLOWER, PACE_DEBT_IS_HIGH, PACE_PASS_IS_BEHIND };

struct pace {
	/* the far side's speed, measured while it has something to do */
	uint64_t rate_bytes;       /* acknowledged a second; 0: not known yet */
	bool is_busy, was_loaded;
	bool has_answered;         /* since the first sample began */
	uint64_t sample_from_ns, sample_busy_ns, sample_acked_bytes;
	struct least latency;      /* of a request there, from sent to answered */

	/* guests */
	uint64_t gap_ns;           /* between two paced completions; 0: not paced */
	enum pace_reason reason;   /* why it last grew, or was kept */
	uint64_t guest_ops, all_ops; /* acknowledged a second while a queue stood; 0: not known */
	unsigned window_guest_acks, window_acks;
	uint64_t last_ns;          /* when the last paced write was, or will be, answered */
	uint32_t delay_us;         /* what it was held */
	uint64_t window_from_ns, pass_from_ns, pass_owed_bytes, pass_acked_bytes;
	unsigned least_fill_percent;
	bool is_behind;            /* the pass would not end */
	unsigned beside_permille;  /* of what arrived lately made what is owed no less */
};

/* Requests for the far side are queued or in flight, or no longer. */
void pace_busy(struct pace *p, uint64_t now_ns, bool is_busy);
void pace_acked(struct pace *p, uint64_t now_ns, uint64_t bytes, uint64_t latency_ns, bool is_guest);
/* The shortest time from request to answer in the last few seconds; 0: not known. */
uint64_t pace_latency_ns(const struct pace *p);

struct pace_view {
	bool is_promised;          /* "complete" was said: the debt has a bound (I9) */
	unsigned fill_percent;     /* of what the far queue has for guests, in bytes or in time, whichever is fuller */
	unsigned load_percent;     /* of all of it */
	unsigned debt_percent;     /* of its bound */
	uint64_t owed_bytes;       /* DIRTY and COPYING */
};
/* At every step and tick while the far side answers. */
void pace_observe(struct pace *p, uint64_t now_ns, const struct pace_view *v);
/* No answers come, or no mirror is being made: nobody is held. */
void pace_stop(struct pace *p, uint64_t now_ns);
/* For a guest's write that made work for the far side, when its local leg ended: how long its answer is held. */
uint32_t pace_delay_us(struct pace *p, uint64_t now_ns);

enum pace_reason pace_reason(const struct pace *p);
uint64_t pace_ops(const struct pace *p);    /* so many writes a second are let through; 0: all */
bool pace_is_at_limit(const struct pace *p); /* it may not be less */

#endif
