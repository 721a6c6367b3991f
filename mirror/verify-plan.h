/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * verify-plan - which bytes of two disks are compared next, and what is known of the rest
 *
 *      verify_plan_new() -> { verify_plan_next() -> ASK   -> verify_plan_asked()
 *                                                   READ  -> verify_plan_read()     until OVER } -> verify_plan_free()
 *                                                   WAIT  -> later
 *
 * Pure: what was read is handed in, and so is the time.
 */
#ifndef SXM_MIRROR_VERIFY_PLAN_H
#define SXM_MIRROR_VERIFY_PLAN_H

#include "base/error.h"
#include "base/range.h"
#include "block/extents.h"

#define VERIFY_CHUNK_BYTES 4096u
#define VERIFY_PIECE_CHUNKS 64u      /* read at once, at most: a mask of it is one word */
#define VERIFY_PIECE_BYTES (VERIFY_PIECE_CHUNKS * VERIFY_CHUNK_BYTES)
#define VERIFY_PIECES_MAX 8u         /* being read at the same time */
#define VERIFY_DIFFERENT_MAX 64u     /* ranges told, the first ones */
#define VERIFY_UNSETTLED_MAX 8u

struct verify_plan_spec {
	uint64_t size_bytes;
	const struct extents *only; /* what is wanted, in order, within the disk; NULL: all. Copied; widened to chunks */
	uint32_t piece_bytes;       /* a multiple of a chunk, at most VERIFY_PIECE_BYTES (0: that) */
	uint64_t rate_bytes;        /* a second; 0: as fast as it goes */
	/* A chunk that differs is read again up to `tries` times (0: 12), first after pause_ms (0: 100), then twice that ... */
	unsigned tries;
	unsigned pause_ms;
	unsigned pause_max_ms;      /* ... up to this (0: 2000) */
};

enum verify_want {
	VERIFY_ASK,  /* range: what of it reads as zero, on both sides */
	VERIFY_READ, /* piece */
	VERIFY_WAIT, /* nothing now: ask again in wait_ns, or when something under way has ended */
	VERIFY_OVER, /* all is known */
};

struct verify_piece {
	struct range range;    /* bytes, from the start of a chunk on */
	uint64_t suspects;     /* bit i: the i-th chunk has differed before; only these count now. 0: the first reading */
	/* the plan's */
	struct verify_group *group;
	bool is_busy;
};

struct verify_step {
	enum verify_want want;
	struct range range;         /* ASK */
	struct verify_piece *piece; /* READ: the plan's, the caller's to read until verify_plan_read() */
	uint64_t wait_ns;           /* WAIT; UINT64_MAX: only what is under way can change anything */
};

struct verify_plan;
struct verify_plan *verify_plan_new(const struct verify_plan_spec *spec); /* NULL: out of memory */
void verify_plan_free(struct verify_plan *p); /* NULL allowed */

/* From now on new pieces are no longer than so many bytes (a chunk at least); what is read again is as long as it was. */
void verify_plan_limit(struct verify_plan *p, uint32_t piece_bytes);

/* What to do now. pieces_max: how many may be under way (1 to VERIFY_PIECES_MAX). An ASK or READ is taken by this call. */
void verify_plan_next(struct verify_plan *p, uint64_t now_ns, unsigned pieces_max, struct verify_step *out);
/* The answer to ASK: extents from the range's start on, without gaps, both of which may stop early; only EXTENT_ZERO counts.
 * NULL: that side does not tell. */
void verify_plan_asked(struct verify_plan *p, const struct extents *here, const struct extents *there);
/* The piece was read on both sides. quiet: of its suspects, those that nobody was changing, on either side, from before the
 * reading began until after it ended: only such a reading counts against a chunk. */
void verify_plan_read(struct verify_plan *p, struct verify_piece *piece, const uint8_t *here, const uint8_t *there,
		      uint64_t quiet, uint64_t now_ns);

struct verify_list {
	size_t count, max;
	struct range item[VERIFY_DIFFERENT_MAX]; /* in order, not touching one another */
	bool is_cut;                             /* there were more */
};
struct verify_result {
	uint64_t total_bytes;
	uint64_t done_bytes;      /* equal, skipped, different or unsettled */
	uint64_t skipped_bytes;   /* both sides say that it reads as zero: not read */
	uint64_t read_bytes;      /* of each side; again counts again */
	uint64_t suspect_bytes;   /* differed and will be read again */
	uint64_t different_bytes;
	uint64_t unsettled_bytes; /* never twice the same, or always being changed */
	struct verify_list different, unsettled;
};
const struct verify_result *verify_plan_result(const struct verify_plan *p);

#endif
