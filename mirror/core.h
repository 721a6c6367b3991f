/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core - the mirror's brain: events in, actions out, nothing else
 *
 * No socket, no clock, no disk, no allocation after core_new(): what can race is decided here, in one thread of steps that a
 * simulation replays by the million.  mirror/THEORY argues why the laws below hold; the driver is mirror-layer.c.
 *
 *      guest write:   WRITE_ARRIVED -> (local claim) -> LOCAL_SUBMIT [+ REMOTE_SUBMIT] -> LOCAL_DONE -> COMPLETE_GUEST
 *                                                           REMOTE_DONE -> RELEASE
 *      ... in sync:   the guest is answered when both are done, or the far leg is later than stall_ms
 *      copy:          (pick DIRTY chunks, local claim) -> COPY_READ -> COPY_READ_DONE -> REMOTE_SUBMIT -> REMOTE_DONE
 *
 * The driver performs a step's actions in their order, posts completions (never from within an action), and passes a step's
 * MORE on before any other event.
 *
 *                       LINK_UP             pass over, debt in bound              BARRIER, all sent and flushed
 *        CONNECTING ---------------> SYNCING --------------------> SYNCED ------> FINISHING ------> FINISHED
 *            |                        ^ | '-- debt out of bound ------'  ^            |                 |
 *            |            LINK_UP,    | | LINK_DOWN where it can be made |            |                 |
 *            |        a new generation| v anew                           '------------+---- GO_ON ------'
 *            |                       BROKEN <-----------------------------------------'
 *            '------------------ LINK_DOWN that is final, give up, ABORT: from anywhere ----> FAILED / ENDED
 *
 * In CONNECTING and BROKEN the guest runs on its own disk and the map records the debt.  FINISHED is the commit's place: with
 * keeps_link the link stays, and GO_ON (the far side gave the disk back) takes the mirror up again.
 *
 * The laws, I1 to I13, are those of mirror/THEORY; the oracle in tests/lib/sim.c checks them after every step.
 */
#ifndef SXM_MIRROR_CORE_H
#define SXM_MIRROR_CORE_H

#include "base/error.h"
#include "base/range.h"
#include "mirror/claim.h"
#include "mirror/core-mask.h"

#define CORE_CHUNK_BYTES 4096u
#define CORE_COPIES_MAX 128u  /* copies alive at once, at most */

enum core_state {
	CORE_CONNECTING, CORE_SYNCING, CORE_SYNCED, CORE_BROKEN, CORE_FINISHING, CORE_FINISHED, CORE_FAILED, CORE_ENDED
};

enum core_op_kind { CORE_WRITE, CORE_ZERO, CORE_TRIM, CORE_FLUSH, CORE_COPY };
enum core_far_kind { CORE_FAR_NONE, CORE_FAR_WRITE, CORE_FAR_ZERO };

enum core_local_leg { CORE_LOCAL_IDLE, CORE_LOCAL_WAITING, CORE_LOCAL_BUSY, CORE_LOCAL_OVER };
enum core_far_leg { CORE_FAR_IDLE, CORE_FAR_BLOCKED, CORE_FAR_READY, CORE_FAR_SENT };

/* One operation: a guest's (memory from the driver, given with WRITE_ARRIVED, back with RELEASE) or a copy (the core's own,
 * from a fixed array; `driver` keeps its value from life to life, so a buffer may stay attached).
 * The driver fills the first group of a guest's operation before WRITE_ARRIVED and sets `zeros` before COPY_READ_DONE; it reads
 * kind, range and the second group; everything else is the core's. */
struct core_op {
	enum core_op_kind kind;
	struct range range;          /* bytes, not empty (FLUSH: empty); COPY: whole chunks (the disk's last may be short) */
	bool may_trim;               /* ZERO: holes allowed */
	bool is_zero;                /* WRITE: all bytes are zero */
	struct core_mask zeros;      /* COPY: bit i = the chunk at range.start + i * CORE_CHUNK_BYTES was read as zero */
	void *driver;                /* the driver's, untouched */

	/* valid in REMOTE_SUBMIT, until REMOTE_DONE */
	enum core_far_kind far_kind;
	struct range far_range;      /* == range, or (COPY) the part of it that must go over */
	bool far_may_trim;           /* FAR_ZERO: holes allowed */

	/* the core's */
	enum core_local_leg local_leg;
	enum core_far_leg far_leg;
	struct claim local, far;
	struct core_mask mine;       /* COPY: chunks still COPYING by this copy, bits as in zeros */
	unsigned mine_count;         /* ... and how many they are */
	uint64_t charge_bytes;       /* what it takes of the lag budget */
	uint64_t queued_ns, sent_ns;
	uint64_t asked_ns;           /* COPY: when its read was submitted */
	unsigned attempts;           /* COPY: reads of a single chunk that failed */
	bool is_paced;               /* made work for the far side */
	bool is_pinned;              /* counted in the regions it touches */
	enum { CORE_ANSWER_NONE, CORE_ANSWER_WAITS, CORE_ANSWER_DUE } answer_state; /* in sync: of the guest's answer */
	uint64_t waits_ns;           /* ... since when it waits for the far side */
	uint64_t flush_number;       /* FLUSH: of the first far flush that covers it; 0: none has to */
	int err;                     /* of the local leg, while waiting */
	TAILQ_ENTRY(core_op) answer; /* waiting, or to be answered */
	TAILQ_ENTRY(core_op) link;
};

struct core_spec {
	uint64_t size_bytes;
	uint64_t lag_bytes;       /* bound of what is queued or in flight for the far side, guests' and copies' (0: 16 MiB) */
	uint32_t lag_ms;          /* ... and in time at the measured rate (default 50) */
	uint32_t debt_ms;         /* SYNCED only while (dirty + lag) / rate is under this (default 1000) */
	bool trim_reads_zero;     /* of the local disk */
	/* Data.copy: a mirror that ends by itself. When the pass is over it is cut off at one instant: what guests wrote before
	 * goes along, what they write after is not owed; then FINISHING, flushed, FINISHED. So the copy is as of one instant. */
	bool is_copy;
	uint32_t no_progress_ms;  /* a barrier fails after so long without an acknowledgement (default 30000) */
	bool is_sync;             /* a guest hears when both sides have its write (CORE_SET_MODE changes it) */
	uint32_t stall_ms;        /* ... or after so long on the local result alone (default 250) */
	bool keeps_link;          /* FINISHED does not part: the commit goes over it; see GO_ON */
	uint64_t region_bytes;    /* of one mark, a multiple of the chunk (default 16 MiB) */
	uint32_t keep_mark_ms;    /* a guest's mark is kept so long after its last write there (default 30000) */
	uint32_t mark_ahead_after; /* writes in a second that waited for a mark: then neighbours are marked, too (default 32) */
};

/* What the far side is; learnt before LINK_UP. */
struct core_far {
	uint64_t generation;      /* of the link, > 0, growing */
	uint32_t min_block_bytes; /* requests must be multiples of it (1: any) */
	uint32_t max_bytes;       /* longest write */
	bool can_zero;            /* WRITE_ZEROES, with holes allowed */
	bool can_flush;
	bool flushes_last;        /* with keeps_link: what is asked after the barrier flushes it; FINISHED waits for no flush */
	unsigned window_ops;      /* requests in flight, at most */
	bool can_reconnect;       /* a link that is lost may be made anew: BROKEN, not FAILED */
	bool may_have_lost;       /* since the last link, what it had acknowledged and not flushed: it is owed again (I11) */
};

enum core_event_type {
	CORE_WRITE_ARRIVED,  /* op: a guest's WRITE, ZERO, TRIM or FLUSH */
	CORE_LOCAL_DONE,     /* op, err: the local leg of a guest's operation */
	CORE_COPY_READ_DONE, /* op, err, op->is_zero set */
	CORE_REMOTE_DONE,    /* op, err, generation: the far leg of either kind. ESHUTDOWN is not the far side's answer but the
	                        link's end: LINK_DOWN is on its way. op is not looked at if the generation is an old one */
	CORE_FLUSHED,        /* err, generation: the answer to FLUSH_FAR */
	CORE_LINK_UP,        /* far */
	CORE_LINK_DOWN,      /* err, generation (0 while CONNECTING or BROKEN: could not connect, will not); the driver has made
	                        sure that nothing of that link is still touched: every far leg in flight counts as failed by
	                        this event alone, a REMOTE_DONE that follows for it is ignored */
	CORE_TICK,           /* time passes; at least every 10 ms while anything is owed or queued */
	CORE_BARRIER,        /* the frontends are held and drained: send all, flush, FINISHED; or a REPORT with err: backed out */
	CORE_UNBARRIER,      /* the barrier is given up; guests go on */
	CORE_SET_MODE,       /* is_sync: from now on */
	CORE_SET_LIMIT,      /* limit_bytes: so many a second; guests' writes are counted, and do not wait. 0: no limit */
	CORE_MAP_ON,         /* owing, unflushed: from here on the debt survives (I11). Once, in CONNECTING, when all that the
	                        disk holds was marked dirty; the first link waits until the status says is_map_ready */
	CORE_MARKED,         /* region, count, has_map: the answer to MARK; err: it is not on the medium, and map and marks are
	                        void, FAILED */
	CORE_VOIDED,         /* FAILED or ENDED: map and marks are gone, and nobody will believe them. Until then writes are owed
	                        and wait for marks as ever */
	CORE_HOME_FLUSHED,   /* err: the answer to FLUSH_HOME; an error is the operation's end */
	CORE_GO_ON,          /* FINISHED with keeps_link only: the disk is the source's again, mirroring goes on */
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
	bool is_sync;
	uint64_t limit_bytes;
	uint64_t region, count;        /* MARKED: regions */
	bool has_map;                  /* MARKED: their bits may be written */
	uint64_t *owing, *unflushed;   /* MAP_ON: a bit a chunk, as far as has_map says; borrowed; NULL: there is none */
};

enum core_action_type {
	CORE_DO_LOCAL_SUBMIT,  /* op: its local leg, now */
	CORE_DO_COPY_READ,     /* op: read op->range of the local disk */
	CORE_DO_REMOTE_SUBMIT, /* op, far_kind over far_range (a copy's bytes start at range.start in its buffer) */
	CORE_DO_COMPLETE_GUEST,/* op, err, delay_us: the guest hears; not before delay_us from now (pacing) */
	CORE_DO_RELEASE,       /* op: both legs over, memory and buffer are the driver's again */
	CORE_DO_FLUSH_FAR,     /* one at a time; FLUSHED answers, or LINK_DOWN */
	CORE_DO_FLUSH_HOME,    /* this disk; one at a time; HOME_FLUSHED answers */
	CORE_DO_MARK,          /* region, count: make their marks durable; MARKED answers, of all or of parts of them */
	CORE_DO_RETIRE,        /* region, count: their marks may go, whenever it suits */
	CORE_DO_REPORT,        /* the state changed, or became worth telling; err: a barrier was backed out (ETIMEDOUT, EIO) */
	CORE_DO_DROP_LINK,     /* err 0: say goodbye, nothing is in flight (FINISHED). Else cut (FAILED, ENDED): each far leg in
	                          flight is then answered by its REMOTE_DONE (any err) or all of them by one LINK_DOWN */
};

struct core_action {
	enum core_action_type type;
	struct core_op *op;
	int err;
	uint32_t delay_us;
	uint64_t region, count;
};

#ifndef CORE_ACTIONS_MAX
#define CORE_ACTIONS_MAX 64 /* at least 4 */
#endif
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
/* As a crash does it, whatever is alive: for the simulation. */
void core_abandon(struct core *c);

/* In CONNECTING only, before LINK_UP. */
void core_mark_dirty(struct core *c, struct range r);    /* owed: what the disk holds */
/* Proved to read as zero at the far side, and nothing sent since. What is CLEAN and pristine must read as zero here too.
 * Cheapest in ascending order; out of memory it is forgotten, which is safe. */
void core_mark_pristine(struct core *c, struct range r);
/* What an earlier process left: the far side has it, but no flush of it was seen; regions that are marked, with bits in the map
 * perhaps. Before MAP_ON. */
void core_mark_unflushed(struct core *c, struct range r);
void core_mark_marked(struct core *c, struct range r, bool has_map);

void core_step(struct core *c, const struct core_event *ev, struct core_actions *out);
/* A guest reads: that passes the core by, but copies leave the disk to it. */
void core_guest_reads(struct core *c, uint64_t now_ns);

struct core_status {
	enum core_state state;
	bool was_synced;        /* SYNCED was reached once: "complete" */
	bool is_stalled;        /* LAGGING */
	bool is_sync;
	bool is_lagging;        /* in sync: somebody waited stall_ms, nobody waits until all is there again */
	uint64_t generation;    /* of the link, or the last one */
	bool is_map_ready;      /* all that was owed at MAP_ON is marked, and in the map */
	uint64_t marked_regions;
	bool is_idle;           /* no copy and no far leg is alive: core_free() may follow once guests' operations are RELEASEd */
	int err;                /* FAILED: why */
	uint64_t dirty_bytes;   /* DIRTY and COPYING */
	uint64_t lag_bytes;     /* queued and in flight for the far side */
	uint64_t lag_ops;
	uint64_t unflushed_bytes; /* there, but in no flush that has begun; 0 where the far side has none */
	uint64_t rate_bytes;    /* acknowledged a second */
	uint64_t limit_bytes;   /* SET_LIMIT's */
	uint64_t sent_bytes;    /* acknowledged writes, all; bytes on the wire */
	uint64_t zero_bytes, skipped_bytes; /* sent as WRITE_ZEROES; not sent because pristine */
	uint64_t copied_bytes;  /* chunks cleaned by copies */
	uint64_t overflow_bytes;/* guest writes that went DIRTY because the lag bound was reached */
	uint64_t left_bytes;    /* guest writes that went DIRTY because the first pass was to come there anyway */
	uint64_t total_bytes;   /* owed at the first LINK_UP */
	uint32_t pace_us;       /* what the last write was held */
	uint64_t pace_ops;      /* writes a second that are let through; 0: as many as guests make */
	bool is_pace_at_limit;  /* ... and no fewer can be (I9) */
	const char *pace_why;   /* static; "": nobody is held */
	uint64_t eta_ms;        /* to SYNCED, if guests go on as they do; UINT64_MAX: unknown */
	uint64_t latency_ns;    /* the least that a request took there lately; 0: not known */
	uint64_t flush_ns;      /* what the last flush there took */
};
void core_status(const struct core *c, struct core_status *out);
const char *core_state_name(enum core_state s);

/* For whoever checks the laws: one chunk, and whether a far leg is queued or in flight on a range. */
enum core_chunk { CORE_CLEAN, CORE_DIRTY, CORE_COPYING };
enum core_chunk core_chunk(const struct core *c, uint64_t chunk);
bool core_chunk_is_pristine(const struct core *c, uint64_t chunk);
bool core_has_far_leg(const struct core *c, struct range r);

#endif
