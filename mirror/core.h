/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core - the mirror's brain: events in, actions out, nothing else
 *
 * No socket, no clock, no disk, no allocation after core_new(): what can race is decided here, in one thread of steps that a
 * simulation replays by the million.  mirror/THEORY argues why the laws below hold; the driver is mirror-layer.c.
 *
 *      guest write:   WRITE_ARRIVED -> (local claim) -> LOCAL_SUBMIT [+ REMOTE_SUBMIT] -> LOCAL_DONE -> COMPLETE_GUEST
 *                                                           REMOTE_DONE -> RELEASE
 *      copy:          (pick DIRTY chunks, local claim) -> COPY_READ -> COPY_READ_DONE -> REMOTE_SUBMIT -> REMOTE_DONE
 *
 *                       LINK_UP             pass over, debt in bound              BARRIER, all sent and flushed
 *        CONNECTING ---------------> SYNCING --------------------> SYNCED ------> FINISHING ------> FINISHED
 *            |                          ^ '---- debt out of bound ---'               |
 *            '--------------------------+------- LINK_DOWN, give up, ABORT ----------+-----> FAILED / ENDED
 *
 * (BROKEN with reconnection, COMMITTED and the commit's events stand in mirror-laws and have their place in the enum's
 * order; the events of this page are those that exist.)
 *
 * The laws, I1 to I13, are those of mirror/THEORY; the oracle in tests/lib/sim.c checks them after every step.
 */
#ifndef SXM_MIRROR_CORE_H
#define SXM_MIRROR_CORE_H

#include "base/error.h"
#include "base/range.h"
#include "mirror/claim.h"

#define CORE_CHUNK_BYTES 4096u
#define CORE_COPY_CHUNKS 64u /* chunks in one copy, at most: its mask is one word */
#define CORE_COPIES_MAX 128u  /* copies alive at once, at most */

enum core_state { CORE_CONNECTING, CORE_SYNCING, CORE_SYNCED, CORE_FINISHING, CORE_FINISHED, CORE_FAILED, CORE_ENDED };

enum core_op_kind { CORE_WRITE, CORE_ZERO, CORE_TRIM, CORE_COPY };
enum core_far_kind { CORE_FAR_NONE, CORE_FAR_WRITE, CORE_FAR_ZERO };

/* One operation: a guest's (memory from the driver, given with WRITE_ARRIVED, back with RELEASE) or a copy (the core's own,
 * from a fixed array).  The driver reads kind, range, far_range, far_kind, may_trim; everything else is the core's. */
struct core_op {
	enum core_op_kind kind;
	struct range range;          /* bytes */
	bool may_trim;               /* ZERO: holes allowed (a trim's far leg always may) */
	bool is_zero;                /* WRITE: all bytes are zero (driver, at arrival); COPY: what was read is (COPY_READ_DONE) */
	void *driver;                /* the driver's, untouched */

	enum core_far_kind far_kind; /* valid in REMOTE_SUBMIT */
	struct range far_range;      /* COPY: what of the read range goes over, one REMOTE_SUBMIT: the hull of its chunks */

	/* the core's */
	struct claim local, far;
	uint64_t mine;               /* COPY: chunks still COPYING by this copy, bit i = chunk range.start / CHUNK + i */
	uint64_t generation;
	unsigned state;
	int err;
	TAILQ_ENTRY(core_op) link;
};

struct core_spec {
	uint64_t size_bytes;
	uint64_t lag_bytes;       /* bound of what is queued or in flight for the far side, guests' and copies' (default 16 MiB) */
	uint32_t lag_ms;          /* ... and in time at the measured rate (default 50) */
	uint32_t debt_ms;         /* SYNCED only while (dirty + lag) / rate is under this (default 1000) */
	bool trim_reads_zero;     /* of the local disk */
	bool is_copy;             /* Data.copy: FINISHING by itself when the pass is over; guest writes after the start are not owed */
	uint32_t no_progress_ms;  /* FINISHING fails after so long without an acknowledgement (default 30000) */
};

/* What the far side is; learnt before LINK_UP. */
struct core_far {
	uint64_t generation;      /* of the link, > 0, growing */
	uint32_t min_block_bytes; /* requests must be multiples of it (1: any) */
	uint32_t max_bytes;       /* longest write */
	bool can_zero;            /* WRITE_ZEROES, with holes allowed */
	bool can_flush;
	unsigned window_ops;      /* requests in flight, at most */
};

enum core_event_type {
	CORE_WRITE_ARRIVED,  /* op: a guest's WRITE, ZERO or TRIM */
	CORE_LOCAL_DONE,     /* op, err: the local leg of a guest's operation */
	CORE_COPY_READ_DONE, /* op, err, op->is_zero set */
	CORE_REMOTE_DONE,    /* op, err, generation: the far leg of either kind */
	CORE_FLUSHED,        /* err, generation: the answer to FLUSH_FAR */
	CORE_LINK_UP,        /* far */
	CORE_LINK_DOWN,      /* err, generation; the driver has made sure nothing of that link is still touched: every far leg in
	                        flight counts as failed by this event alone, no REMOTE_DONE follows for it */
	CORE_TICK,           /* time passes; at least every 10 ms while anything is owed or queued */
	CORE_BARRIER,        /* the frontends are held and drained: send all, flush, FINISHED */
	CORE_UNBARRIER,      /* the barrier is given up; guests go on */
	CORE_ABORT,          /* the operation ends here; the far side is left as it is */
	CORE_MORE,           /* the last step's array was full: go on */
};

struct core_event {
	enum core_event_type type;
	uint64_t now_ns;
	struct core_op *op;
	int err;               /* positive errno; 0 good */
	uint64_t generation;
	struct core_far far;
};

enum core_action_type {
	CORE_DO_LOCAL_SUBMIT,  /* op: its local leg, now */
	CORE_DO_COPY_READ,     /* op: read op->range of the local disk */
	CORE_DO_REMOTE_SUBMIT, /* op, far_kind over far_range (a copy's bytes start at range.start in its buffer) */
	CORE_DO_COMPLETE_GUEST,/* op, err, delay_us: the guest hears; not before delay_us from now (pacing) */
	CORE_DO_RELEASE,       /* op: both legs over, memory and buffer are the driver's again */
	CORE_DO_FLUSH_FAR,     /* one at a time */
	CORE_DO_REPORT,        /* the state changed, or became worth telling */
	CORE_DO_DROP_LINK,     /* say goodbye (FINISHED, ENDED) or cut (FAILED); LINK_DOWN need not follow */
};

struct core_action {
	enum core_action_type type;
	struct core_op *op;
	int err;
	uint32_t delay_us;
};

#define CORE_ACTIONS_MAX 64
struct core_actions {
	unsigned count;
	bool is_full;          /* step again with CORE_MORE after doing these */
	struct core_action item[CORE_ACTIONS_MAX];
};

struct core;
/* Everything is CLEAN and nothing is known of the far side (nothing is pristine). NULL: out of memory. */
struct core *core_new(const struct core_spec *spec);
/* Not before every guest operation was RELEASEd. */
void core_free(struct core *c);

/* In CONNECTING only, before LINK_UP. */
void core_mark_dirty(struct core *c, struct range r);    /* owed: what the disk holds */
void core_mark_pristine(struct core *c, struct range r); /* proved to read as zero at the far side, and nothing sent since */

void core_step(struct core *c, const struct core_event *ev, struct core_actions *out);

struct core_status {
	enum core_state state;
	bool was_synced;        /* SYNCED was reached once: "complete" */
	bool is_stalled;        /* LAGGING */
	int err;                /* FAILED: why */
	uint64_t dirty_bytes;   /* DIRTY and COPYING */
	uint64_t lag_bytes;     /* queued and in flight for the far side */
	uint64_t lag_ops;
	uint64_t rate_bytes;    /* acknowledged a second */
	uint64_t sent_bytes;    /* acknowledged writes, all */
	uint64_t zero_bytes, skipped_bytes; /* sent as WRITE_ZEROES; not sent because pristine */
	uint64_t copied_bytes;  /* chunks cleaned by copies */
	uint64_t overflow_bytes;/* guest writes that went DIRTY because the lag bound was reached */
	uint64_t total_bytes;   /* owed at LINK_UP */
	uint32_t pace_us;       /* what the last write was held */
	uint64_t eta_ms;        /* to SYNCED at the present rate; UINT64_MAX: unknown */
};
void core_status(const struct core *c, struct core_status *out);
const char *core_state_name(enum core_state s);

#endif
