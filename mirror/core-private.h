/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-private - what the core's own files share
 *
 *      core.c         events, states, barrier
 *      core-status.c  what can be asked
 *      core-write.c   guests' operations: where they go
 *      core-copy.c    copies: DIRTY becomes COPYING becomes CLEAN
 *      core-reading.c how much they read at once
 *      core-debt.c    what is owed as time, and when "complete" may be said
 *      core-far.c     the far side's queue, its bounds, its flushes, its end
 *      core-map.c     bits
 *
 * An event changes state and puts operations on lists; core.c then works the lists off while the caller's array has room.
 */
#ifndef SXM_MIRROR_CORE_PRIVATE_H
#define SXM_MIRROR_CORE_PRIVATE_H

#include "mirror/core-map.h"
#include "mirror/core.h"
#include "mirror/pace.h"

/* Planted bugs: each breaks one law, and the simulation must find it (tests/sim/sim-planted.c, built with -DPLANT). */
#define CORE_BUGS(X) \
	X(FAR_UNORDERED)          /* I2: overlapping far legs leave together */ \
	X(ROUTE_AT_ARRIVAL)       /* I3: not at the grant */ \
	X(ANY_DIRTY_IS_LOCAL)     /* I3: a write over DIRTY and CLEAN chunks goes to the local disk only */ \
	X(GUEST_ACK_CLEANS)       /* I4: the acknowledgement of a guest's write */ \
	X(READ_UNCLAIMED)         /* I4: a copy's claim is dropped before its far leg is enqueued */ \
	X(OVERFLOW_KEEPS_MASKS)   /* I4: what goes DIRTY stays COPYING too */ \
	X(ACK_CLEANS_RANGE)       /* I4: not only what is still COPYING by that copy */ \
	X(COPY_FAILURE_IS_CLEAN)  /* I4 */ \
	X(COPY_FAILURE_IS_MINE)   /* I4: dirties only what is still COPYING by it, not the CLEAN chunks it bridged */ \
	X(GUEST_FAILURE_IS_CLEAN) /* I4 */ \
	X(LINK_DOWN_FORGETS)      /* I4: what was still queued */ \
	X(OVERFLOW_ALWAYS)        /* I4: the dirty count grows though the bound holds */ \
	X(LEAVES_WHAT_WAS_SENT)   /* I4: a write is left to the pass though its chunk was sent before */ \
	X(PRISTINE_STAYS)         /* I6: in spite of an enqueue */ \
	X(ZERO_ALWAYS_SKIPPED)    /* I6: pristine or not */ \
	X(TRIM_AFTER_ERROR)       /* I6: the far leg goes though the local leg failed */ \
	X(TRIM_READS_ZERO)        /* I6: of a disk where it does not */ \
	X(LOCAL_ERROR_IS_CLEAN)   /* I7 */ \
	X(UNREADABLE_IS_ZERO)     /* I7 */ \
	X(STALL_HOLDS_GUESTS)     /* I8 */ \
	X(SYNC_ANSWERS_EARLY)     /* sync: when the local leg is done */ \
	X(SYNC_STALL_IS_CLEAN)    /* I8: a write answered after the stall is not owed */ \
	X(SYNC_OLD_FLUSH)         /* I10: a guest's flush takes a far flush that began before it */ \
	X(BREAK_FORGETS_SENT)     /* I12: what was in flight when the link was lost */ \
	X(LOSS_FORGOTTEN)         /* I11: the far side may have lost what was not flushed */ \
	X(MARK_NOT_AWAITED)       /* I11: a write is submitted before its region's mark is durable */ \
	X(RETIRE_TOUCHED)         /* I11: a mark goes though its region was touched since the flushes began */ \
	X(RETIRE_PENDING)         /* I11: ... though something of its region was in flight when they began */ \
	X(RETIRE_DIRTY)           /* I11: ... though something of its region is owed */ \
	X(RETIRE_BEFORE_FAR)      /* I11: ... when this disk was flushed, before the far one */ \
	X(RETIRE_BEFORE_HOME)     /* I11: ... when the far disk was flushed, before this one */ \
	X(OWING_NOT_IN_FLIGHT)    /* I11: what is in flight is not in the map */ \
	X(OWING_NOT_AT_HOME)      /* I11: what the far side has and this disk may not have yet is taken out of the map */ \
	X(OWING_SETTLED_EARLY)    /* I11: an acknowledgement takes a chunk out of the map though another leg is queued for it */ \
	X(UNFLUSHED_NOT_KEPT)     /* I11: what was not flushed there is not in the map */ \
	X(END_UNMARKED)           /* I11: after FAILED or ENDED writes wait for no mark, while the files are believed */ \
	X(END_NOT_OWED)           /* I11: ... and are not in the map */ \
	X(FLUSH_FAILURE_FORGOTTEN)/* I10 */ \
	X(FLUSH_COVERS_PENDING)   /* I10: what is in flight when it begins */ \
	X(BARRIER_TAKES_OLD_FLUSH)/* I10: one that began before the last acknowledgement */ \
	X(BARRIER_FORGETS_QUEUE)  /* I10: does not wait for guests' far legs */ \
	X(BARRIER_IS_FLUSH)       /* I10: what PREPARE is to flush is taken for flushed at once */
#define CORE_BUG(name) BUG_##name,
enum core_bug { BUG_NONE, CORE_BUGS(CORE_BUG) BUG_COUNT };
#ifdef PLANT
extern enum core_bug core_planted;
#define PLANTED(bug) ((bug) == core_planted)
#else
#define PLANTED(bug) false
#endif

TAILQ_HEAD(core_ops, core_op);

struct core_region {
	uint32_t pins;               /* operations and copies alive that touch it */
	uint32_t guest_ms;           /* a guest's last write, of now_ns / 1e6, cut off */
};

/* core-marks.c: which regions are marked on the medium, and which may lose their mark; bits that survive a kill. */
struct core_marks {
	bool is_on, is_ready;
	bool is_void;                /* nobody believes map and marks any more */
	uint64_t region_bytes, regions;
	struct core_region *region;  /* owned */
	struct bitmap *marked;       /* owned: its mark is on the medium */
	struct bitmap *wanted;       /* owned: must be asked for */
	struct bitmap *asked;        /* owned: MARK was sent */
	struct bitmap *mapped;       /* owned: its bits may be written */
	struct bitmap *retiring;     /* owned: the flushes under way will have settled it, unless it is touched again */
	struct bitmap *retired;      /* owned: RETIRE is due */
	uint64_t *owing, *unflushed; /* borrowed */
	struct core_ops parked;      /* guests' operations that wait for a mark, with their local claim */
	bool is_flushing_home, is_far_of_pair, is_home_good, is_far_good;
	uint64_t pair_ns;            /* when the last pair of flushes began */
	uint64_t firsts_from_ns;     /* a second, and how many operations */
	unsigned firsts;             /* ... had to wait for a mark in it */
};

enum core_flush { CORE_FLUSH_IDLE, CORE_FLUSH_BUSY, CORE_FLUSH_GOOD };

struct core {
	struct core_spec spec;
	struct core_far far;
	struct core_map map;
	struct core_marks marks;
	struct pace pace;

	enum core_state state;
	uint64_t now_ns;
	int err;                     /* FAILED: why */
	int barrier_err;             /* a barrier was backed out: to be reported */
	bool has_news;               /* REPORT is due */
	bool must_drop_link;         /* DROP_LINK is due */
	bool is_linked;              /* far legs may be sent */
	bool was_synced;
	bool is_stalled;
	bool is_sync, is_lagging;
	bool is_barrier;             /* wanted, or FINISHING by it */
	bool is_cut;                 /* a copy's instant has passed: what is written now is not owed */
	bool is_open;                /* between LINK_UP and LINK_DOWN: REMOTE_DONE is listened to */
	uint64_t barrier_ns;         /* when it began */
	uint64_t broken_ns;          /* when the link was lost */
	uint64_t answer_ns;          /* the far side's last answer, or the first request after idleness */
	uint64_t read_ns;            /* the last copy's read */
	uint64_t guest_ns;           /* a guest's last write */
	uint64_t total_bytes;

	struct claims *local_claims, *far_claims; /* owned */
	struct claim_wake granted;   /* local claims nobody has acted on */

	struct core_ops blocked;     /* far legs behind another's claim */
	struct core_ops ready, ready_copies; /* ... behind the window: guests', copies' */
	struct core_ops sent;        /* ... in flight */
	struct core_ops released;    /* guests' operations that are over */
	struct core_ops waiting;     /* in sync: done here, not there; by waits_ns. `answer` links them */
	struct core_ops answers;     /* ... and whoever of them is to be answered now */
	unsigned far_count, sent_count, sent_copies;
	uint64_t guest_charge, copy_charge; /* of the lag budget; copies' from the moment they are chosen */
	uint64_t queued_bytes;       /* queued and in flight for the far side */
	unsigned far_errors;         /* since nothing was owed */

	bool is_flushing;
	uint64_t flushes_begun;      /* the last one's number */
	uint64_t flush_wanted;       /* ... and of the one that a guest's FLUSH asked for */
	enum core_flush last_flush;  /* the barrier's own: begun when nothing was pending */
	unsigned flush_failures;     /* in a row */
	uint64_t flushed_ns, flush_took_ns; /* when the last one began, how long it took */
	uint64_t unflushed_bytes;

	struct core_op *copies;      /* owned: CORE_COPIES_MAX */
	struct core_op *idle[CORE_COPIES_MAX], *live[CORE_COPIES_MAX];
	unsigned idle_count, live_count;
	uint64_t merged_bytes;       /* guests wrote to what was DIRTY: sent once for all of it */
	uint64_t bridged_bytes;      /* copies sent to pristine chunks because they lay between */
	uint64_t copying_chunks, cursor, passes;
	uint64_t pass_over_ns;       /* on this link: when the first one was over */
	uint64_t promise_flush;      /* ... and the number of the flush that has to end before "complete" */
	struct core_span careful;    /* a read failed here: one chunk at a time */

	struct core_reading {
		unsigned count;
		uint64_t bytes;
		uint64_t window_bytes;   /* beside guests; 0: nothing was learnt yet */
		struct least least;      /* that a read of the usual length took */
		uint64_t guest_ns;       /* a guest's last read */
	} reading;                   /* copies' reads of this disk */

	struct core_limit {
		uint64_t rate_bytes;     /* a second; 0: there is none */
		int64_t left_bytes;      /* that may be copied now */
		int64_t guest_bytes;     /* guests' writes took, and no time has paid for yet */
		uint64_t from_ns;
	} limit;

	struct core_status sum;      /* its counters */
};

/* core.c */
void core_push(struct core_actions *out, enum core_action_type type, struct core_op *op, int err, uint32_t delay_us);
bool core_has_room(struct core_actions *out, unsigned actions); /* else marks it full */
bool core_is_mirroring(const struct core *c); /* SYNCING, SYNCED, FINISHING with a link */
bool core_is_over(const struct core *c);      /* FINISHED, FAILED, ENDED */
void core_fail(struct core *c, int err);
void core_dirty(struct core *c, struct range r); /* every chunk touched is DIRTY, and no copy's any more */
uint64_t core_owed_bytes(const struct core *c);
void core_drop_local(struct core *c, struct core_op *op);
void core_release(struct core *c, struct core_op *op);

/* core-debt.c */
unsigned core_debt_percent(const struct core *c); /* of its bound; 0: nothing is owed */
bool core_can_promise(struct core *c);            /* SYNCED may be said, "complete" if for the first time */

/* core-write.c */
void core_write_arrived(struct core *c, struct core_op *op, struct core_actions *out);
void core_write_granted(struct core *c, struct core_op *op, struct core_actions *out); /* one action */
void core_write_local_done(struct core *c, struct core_op *op, int err, struct core_actions *out);
void core_write_far_done(struct core *c, struct core_op *op, bool is_good);

/* core-marks.c */
bool core_marks_init(struct core *c);
void core_marks_fini(struct core *c);
void core_marks_on(struct core *c, const struct core_event *ev);
/* False: it has to wait for a mark, and is parked. */
bool core_marks_let_in(struct core *c, struct core_op *op);
void core_marks_pin(struct core *c, struct core_op *op);
void core_marks_unpin(struct core *c, struct core_op *op);
void core_marks_marked(struct core *c, const struct core_event *ev);
void core_marks_ask(struct core *c, struct core_actions *out); /* MARK and RETIRE, as far as there is room */
void core_marks_voided(struct core *c);       /* nobody waits for marks any more */
void core_marks_stop(struct core *c);         /* the operation is over: nothing retires */
bool core_marks_begin_pair(struct core *c, struct core_actions *out); /* one action; true: a far flush is to follow */
bool core_marks_covers(const struct core *c, uint64_t chunk); /* its region is marked, or marks are not wanted */
void core_marks_home_flushed(struct core *c, int err);
void core_marks_far_flushed(struct core *c, bool is_good);
void core_marks_void_pair(struct core *c);    /* the link is gone */

/* core-shadow.c: the map's bits, written through */
void core_shadow_region(struct core *c, uint64_t region); /* it is mapped from now on */
void core_shadow_owe(struct core *c, struct core_span s);
void core_shadow_settle(struct core *c, struct range r);  /* clears what is CLEAN with nothing queued or in flight */
void core_shadow_touch(struct core *c, struct core_span s);
void core_shadow_flushed(struct core *c);                 /* before a good flush's `flushing` is forgotten */

/* core-sync.c */
bool core_sync_must_wait(const struct core *c, const struct core_op *op);
void core_sync_wait(struct core *c, struct core_op *op, int err); /* its local leg is over */
void core_sync_far_done(struct core *c, struct core_op *op);      /* its far leg is over, well or not */
void core_sync_flush_arrived(struct core *c, struct core_op *op);
void core_sync_flushed(struct core *c);       /* a far flush ended, well or not */
bool core_sync_wants_flush(const struct core *c);
void core_sync_release_all(struct core *c);   /* nobody waits any more: the link is gone, or the mode is another */
void core_sync_watch(struct core *c);         /* as time passes */
bool core_sync_answer(struct core *c, struct core_actions *out); /* false: no room */

#define CORE_BRIDGED_CHUNKS 2u /* between two chunks that are DIRTY and pristine: so many go along */

/* core-copy.c */
bool core_copy_choose(struct core *c); /* takes the next copy's local claim; false: nothing to choose now */
void core_copy_granted(struct core *c, struct core_op *op, struct core_actions *out); /* one action */
void core_copy_read_done(struct core *c, struct core_op *op, int err, struct core_actions *out);
void core_copy_far_done(struct core *c, struct core_op *op, bool is_good);

/* core-reading.c */
bool core_is_guest_active(const struct core *c); /* wrote a moment ago, and is not held */
bool core_is_disk_shared(const struct core *c);  /* ... or read */
bool core_reading_has_room(const struct core *c);
void core_reading_took(struct core *c, const struct core_op *op); /* it ended well, now */

/* core-limit.c */
void core_limit_set(struct core *c, uint64_t rate_bytes); /* 0: none */
bool core_limit_allows_copy(struct core *c);
void core_limit_copy(struct core *c, uint64_t bytes);      /* a copy of so many is chosen */
void core_limit_give_back(struct core *c, uint64_t bytes); /* ... and so many of them are not sent */
void core_limit_guest(struct core *c, const struct core_op *op); /* a far leg begins */

/* core-far.c */
uint64_t core_far_budget(const struct core *c);
bool core_far_is_sendable(const struct core *c, enum core_op_kind kind, struct range r);
uint64_t core_far_cost(enum core_far_kind kind, struct range r);
bool core_far_has_room(const struct core *c, uint64_t cost); /* for a guest's */
bool core_far_has_copy_room(const struct core *c, uint64_t cost, bool is_guest_active);
uint64_t core_far_copy_bytes(const struct core *c, bool is_disk_shared); /* of one copy, at most */
unsigned core_far_fill_percent(const struct core *c); /* of guests' room there */
bool core_far_is_silent(const struct core *c);        /* something is in flight, and nothing has been answered for stall_ms */
unsigned core_far_load_percent(const struct core *c); /* of all of it */
/* op->far_kind, far_range and far_may_trim are set. False: it would wait too long behind others on its range. */
bool core_far_enqueue(struct core *c, struct core_op *op);
void core_far_send(struct core *c, struct core_actions *out);
void core_far_done(struct core *c, struct core_op *op, int err);
void core_far_flush(struct core *c, struct core_actions *out); /* begins one */
bool core_far_is_flush_time(const struct core *c); /* after "complete" */
void core_far_flushed(struct core *c, int err);
void core_far_forget_queued(struct core *c); /* the link will not be used any more */
void core_far_forget_sent(struct core *c);   /* ... and nothing of it is touched any more */
void core_far_lost_unflushed(struct core *c); /* the far side may have lost what was not flushed */

#endif
