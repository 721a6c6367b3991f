/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * blk-front - the guest's end of a blkif ring, for tests; written from the protocol, and not from src/vbd/ring.c
 */
#ifndef SXM_TESTS_BLK_FRONT_H
#define SXM_TESTS_BLK_FRONT_H

#include "base/compiler.h"

struct front {
	uint8_t *shared;  /* borrowed: the ring's pages */
	bool is_32;
	uint32_t entries;
	uint32_t asked;   /* our req_prod, shown by front_push() */
	uint32_t heard;   /* our rsp_cons */
};

struct front_segment {
	uint32_t gref;
	uint8_t first, last;
};

struct front_request {
	uint8_t op, segments;
	uint64_t id, sector, sectors; /* sectors: DISCARD's */
	struct front_segment segment[11];
	/* op 6, an indirect one: so many segments are in that page; `op` is 6, and this is what is inside. */
	uint8_t inner;
	uint16_t many;
	uint32_t page;
};

struct front_response {
	uint64_t id;
	uint8_t op;
	int16_t status;
};

/* A new, empty ring. */
void front_init(struct front *f, void *shared, unsigned order, bool is_32);
void front_put(struct front *f, const struct front_request *q);
/* True: the backend wants to be notified. */
bool front_push(struct front *f);
/* False: there is none yet; the backend is to notify of the next one. */
bool front_take(struct front *f, struct front_response *out);
/* One word of the header, at 0 (req_prod), 4, 8 (rsp_prod), 12. */
uint32_t *front_word(struct front *f, unsigned at);
/* Slot number n, as bytes. */
uint8_t *front_slot(struct front *f, uint32_t n);
/* Segment number n of an indirect request, in its page. */
void front_put_segment(void *page, unsigned n, struct front_segment s);
struct front_request front_indirect(uint8_t inner, uint64_t id, uint64_t sector, uint32_t page, uint16_t many);
/* Shorthands: one whole page, or some sectors of it. */
struct front_request front_one(uint8_t op, uint64_t id, uint64_t sector, uint32_t gref, uint8_t first, uint8_t last);

#endif
