/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sim - a world for the mirror's core: two disks of version numbers, a clock that is turned by hand, and an oracle
 *
 * Each call below is one thing that happens; it steps the core, does what the core asks for (nothing completes by itself), and
 * then the oracle looks at everything. The first law found broken stands in `broken`; nothing happens after that.
 */
#ifndef SXM_TESTS_SIM_H
#define SXM_TESTS_SIM_H

#include "mirror/core.h"

#define SIM_SECTOR 512u
#define SIM_CHUNKS_MAX 64u
#define SIM_SECTORS_MAX (SIM_CHUNKS_MAX * 8)
#define SIM_GUESTS_MAX 32u
#define SIM_ZOMBIES_MAX 16u
#define SIM_MARKS_MAX 128u
#define SIM_TRACE_BYTES 65536u

struct sim_params {
	struct core_spec spec;
	struct core_far far;
	uint64_t seed;            /* of what the disks hold at the start */
	unsigned dirty_percent;   /* chunks that differ at the start; the rest are equal, or pristine and zero */
	unsigned pristine_percent;
	bool has_map;             /* the debt survives a kill and a power loss */
	bool has_zombies;         /* a far side that does not shut out the older generation (I12): a bug of its own */
	bool is_traced;
};

enum sim_guest_state { SIM_FREE, SIM_ARRIVED, SIM_SUBMITTED, SIM_ANSWERED };
struct sim_guest {
	struct core_op op;
	enum sim_guest_state state;
	uint32_t version;         /* what its sectors will be; 0: zeros */
	bool is_waiting;          /* in sync: its disk has it, and it was not answered */
	uint64_t waits_ns;
	uint64_t generation;      /* FLUSH: of the link when it arrived */
	unsigned bad_flushes;     /* FLUSH: far flushes that had failed by then */
	uint32_t promised[SIM_SECTORS_MAX]; /* FLUSH: what its answer promises to be on the far medium; SIM_NOTHING: nothing */
};
#define SIM_NOTHING UINT32_MAX

/* A far leg of a lost link, still on its way. */
struct sim_zombie {
	unsigned first, count;
	uint32_t data[CORE_COPY_CHUNKS * 8];
};

struct sim_copy {
	uint32_t data[CORE_COPY_CHUNKS * 8]; /* what was read, from op->range.start on */
	bool is_reading;
};

struct sim {
	struct sim_params params;
	struct core *core;
	uint64_t now_ns;
	uint64_t random;          /* the dice of whatever happens now */
	unsigned sectors, chunks;

	uint32_t local[SIM_SECTORS_MAX];
	uint32_t home[SIM_SECTORS_MAX];    /* what its medium has */
	uint32_t home_snap[SIM_SECTORS_MAX]; /* `local` when the flush of our own began */
	uint32_t far[SIM_SECTORS_MAX];     /* what a read there gives */
	uint32_t durable[SIM_SECTORS_MAX]; /* what its medium has; a failed flush drops the rest */
	uint32_t snap[SIM_SECTORS_MAX];    /* `far` when the flush began */
	uint32_t at_cut[SIM_SECTORS_MAX];  /* a copy's instant */
	bool is_cut, is_cut_exact;
	bool is_clean[SIM_CHUNKS_MAX];     /* pristine at the start, never to hold anything but zeros, never written to there */

	bool was_sent[SIM_CHUNKS_MAX];     /* something was enqueued for it */
	bool may_be_left[SIM_CHUNKS_MAX];  /* in this step, to the pass */

	struct sim_guest guests[SIM_GUESTS_MAX];
	struct sim_copy *copies;           /* CORE_COPIES_MAX, by the core's own order of first use */
	unsigned copies_used;
	uint32_t last_version;

	struct core_op *at_home[SIM_GUESTS_MAX];  /* local legs in flight */
	struct core_op *reads[CORE_COPIES_MAX];
	struct core_op *away[SIM_GUESTS_MAX + CORE_COPIES_MAX]; /* far legs in flight */
	bool is_applied[SIM_GUESTS_MAX + CORE_COPIES_MAX];
	unsigned home_count, read_count, away_count;
	bool is_flushing, is_flushing_home, is_linked, was_dropped, had_link;

	/* what outlives the process, and the host */
	uint64_t owing[SIM_CHUNKS_MAX / 64], unflushed[SIM_CHUNKS_MAX / 64];
	uint64_t mapped, marked;  /* bits of regions; marked: on the medium */
	struct { uint64_t region, count; } asked[SIM_MARKS_MAX];
	unsigned asked_count;
	bool is_map_on, is_map_vouched, are_marks_vouched;
	bool is_void;             /* ... and nobody believes them any more */
	unsigned lives;
	uint64_t generation;      /* of the link, or the last one */
	unsigned bad_flushes;
	bool is_far_suspect;      /* it lost what it had not flushed, and the core has not heard yet */
	struct sim_zombie *zombies;
	unsigned zombie_count;

	struct core_status status;
	uint64_t most_queued_bytes; /* what the lag bound could have to hold after this step */
	bool has_unsendable;      /* a guest's operation is about that the far side cannot take as it is */
	unsigned steps;
	char broken[256];         /* the law, and how; empty: none */
	char trace[SIM_TRACE_BYTES];
	size_t trace_used;
};

/* Memory is kept from one sim_start() to the next. */
struct sim *sim_new(void);
void sim_free(struct sim *w);
void sim_start(struct sim *w, const struct sim_params *p);

uint64_t sim_dice(struct sim *w, uint64_t sides); /* 0 .. sides-1, from w->random */
bool sim_is_fine(const struct sim *w);

/* A guest's operation; NULL: no slot is free. is_zero: of a WRITE. FLUSH: an empty range. */
struct core_op *sim_guest(struct sim *w, enum core_op_kind kind, struct range r, bool is_zero);
void sim_local_done(struct sim *w, unsigned i, int err);  /* at_home[i] */
void sim_read_done(struct sim *w, unsigned i, int err);   /* reads[i] */
void sim_far_applies(struct sim *w, unsigned i);          /* away[i]: its disk has it, nobody was told */
void sim_far_done(struct sim *w, unsigned i, int err);    /* away[i] */
void sim_flushed(struct sim *w, int err);
void sim_link_up(struct sim *w);
void sim_link_down(struct sim *w, int err);
void sim_link_never(struct sim *w, int err);              /* it will not be made, or not again */
void sim_far_crashes(struct sim *w);                      /* without a link: any of what it had not flushed is gone */
void sim_zombie_lands(struct sim *w, unsigned i);
void sim_guest_reads(struct sim *w);
void sim_set_mode(struct sim *w, bool is_sync);
void sim_map_on(struct sim *w);
void sim_marked(struct sim *w, unsigned i, int err, bool has_map); /* asked[i] */
void sim_voided(struct sim *w); /* FAILED or ENDED: map and marks are removed for good */
void sim_home_flushed(struct sim *w, int err);
/* kill -9: files and the kernel live on; power: the tmpfs is gone and the disk has what it flushed, and any of the rest. Then
 * the next process takes up what is there, up to MAP_ON. The far side's requests of the dead one are zombies. */
void sim_dies(struct sim *w, bool is_power);
void sim_tick(struct sim *w, unsigned ms);
void sim_event(struct sim *w, enum core_event_type type, int err); /* BARRIER, UNBARRIER, ABORT, GO_ON */

/* sim-oracle.c */
bool sim_is_same(const struct sim *w); /* both disks */
/* Ends it: aborts, answers everything; every operation must come back. */
void sim_end(struct sim *w);
void sim_break(struct sim *w, const char *fmt, ...) PRINTF_LIKE(2, 3);
void sim_say(struct sim *w, const char *fmt, ...) PRINTF_LIKE(2, 3); /* a line of the trace, with the time */
bool sim_stays_clean(struct sim *w, struct range r, bool is_zero);
void sim_note_promise(struct sim *w, struct sim_guest *g); /* a FLUSH arrives */
/* Around a step; and at what the core asks for. */
void sim_check_before(struct sim *w);
void sim_check_action(struct sim *w, const struct core_action *a);
void sim_check_step(struct sim *w, const struct core_event *ev, const struct core_status *before);

#endif
