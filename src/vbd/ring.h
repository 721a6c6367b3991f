/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ring - a blkif ring, which a guest shares with us and may write to at any moment
 *
 *      ring_open -> { ring_take ~ ring_judge ~> ring_answer } ... -> ring_publish -> notify?     ring_arm before one sleeps
 *                               '- ring_misses: the caller copies the rest of it -> ring_complete -^
 *
 * A request is copied out of the shared pages once, word by word; what is judged and done is the copy, and nothing of it is
 * ever read again.  What only we know, how far we have read and which requests are not answered, is the ring's book.  It is in
 * memory that the caller gives: in a file it outlives the process, and who comes next goes on with it (ring_open).
 * Pure: no grant, no event channel, no I/O.  One thread.
 */
#ifndef SXM_VBD_RING_H
#define SXM_VBD_RING_H

#include "base/compiler.h"
#include "base/range.h"

#define RING_PAGE_BYTES 4096u
#define RING_SECTOR_BYTES 512u
#define RING_ORDER_MAX 4u      /* 16 pages */
#define RING_PAGES_MAX (1u << RING_ORDER_MAX)
#define RING_ENTRIES_MAX 512u
#define RING_SEGMENTS_MAX 11u  /* in a slot */
#define RING_INDIRECT_MAX 32u  /* in a page of the guest's, which the slot names */
#define RING_REQUEST_BYTES_MAX (RING_INDIRECT_MAX * RING_PAGE_BYTES)

/* How the guest lays out what it shares: its compiler's alignment of 64 bits. */
enum ring_abi { RING_X86_64, RING_X86_32 };

enum ring_op {
	RING_READ = 0,
	RING_WRITE = 1,
	RING_BARRIER = 2,
	RING_FLUSH = 3,
	RING_RESERVED = 4,
	RING_DISCARD = 5,
	RING_INDIRECT = 6,
};

enum ring_status { RING_OKAY = 0, RING_ERROR = -1, RING_NOT_SUPPORTED = -2 };

/* As it is in a guest's page, too. */
struct ring_segment {
	uint32_t gref;
	uint8_t first, last; /* sectors in the page, both included */
	uint16_t reserved;
};
_Static_assert(sizeof(struct ring_segment) == 8, "it is the guest's layout");
_Static_assert(RING_INDIRECT_MAX * sizeof(struct ring_segment) <= RING_PAGE_BYTES, "one page has them all");

/* As the guest wrote it: any value is possible until it is judged. */
struct ring_request {
	uint64_t id;      /* the guest's, and nothing to us */
	uint64_t sector;
	uint64_t sectors; /* DISCARD's */
	uint8_t op;       /* of an indirect one what is inside: that its response names, too */
	uint8_t segments; /* as counted by the guest, or 255; of a DISCARD its flags */
	struct ring_segment segment[RING_SEGMENTS_MAX]; /* of an indirect one see ring_segments() */
};

/* One request that was taken. */
enum ring_stage { RING_FREE, RING_TAKEN, RING_ANSWERED };
enum ring_form { RING_DIRECT, RING_UNREAD, RING_WHOLE }; /* UNREAD: its segments are in the guest's page segment[0].gref */
struct ring_entry {
	uint32_t stage;    /* enum ring_stage; written last */
	uint32_t at;       /* TAKEN: its number in the ring; ANSWERED: its response's */
	int32_t status;    /* ANSWERED */
	uint32_t form;     /* enum ring_form; 0 in a book from before there were others */
	struct ring_request request;
};

/* What must be found again after a kill -9. Zeroed, it is a new one. */
struct ring_book {
	uint64_t magic;    /* RING_BOOK_MAGIC; 0: new */
	uint32_t identity; /* of the ring this is about: the caller's number */
	uint32_t taken;    /* how many requests were taken: the next one's number */
	uint32_t answered; /* how many responses were made */
	uint32_t reserved;
	struct ring_entry entry[RING_ENTRIES_MAX];
	struct ring_segment indirect[RING_ENTRIES_MAX][RING_INDIRECT_MAX]; /* of WHOLE ones; an older book ends before it */
};
#define RING_BOOK_MAGIC UINT64_C(0x73786d72696e6731)

struct ring {
	uint8_t *shared;        /* borrowed: the guest's pages, one after the other */
	struct ring_book *book; /* borrowed */
	enum ring_abi abi;
	uint32_t entries;       /* a power of two; fixed when it was opened */
	uint32_t published;     /* responses the guest was shown */
	bool is_broken;         /* for good: the guest's numbers made no sense */
	uint16_t spare[RING_ENTRIES_MAX]; /* free entries of the book */
	uint32_t spares;
	uint16_t hidden[RING_ENTRIES_MAX]; /* answered, and not yet shown to the guest */
	uint32_t hiddens;
};

/* How many requests a ring of so many pages holds: 32 for one page, 512 for 16. order <= RING_ORDER_MAX. */
uint32_t ring_entries(unsigned order);

/* identity: which ring this is. A book of the same identity is gone on with: what was answered and not yet shown is answered
 * again, and what was taken and not answered is left to ring_next_left(). Any other book is begun anew: what the guest has
 * been answered is taken for what it has asked. false: the guest's numbers contradict the book, and the ring is broken. */
bool ring_open(struct ring *r, void *shared, unsigned order, enum ring_abi abi, struct ring_book *book, uint32_t identity);

/* After ring_open(): the next entry, from *at on, that an earlier process had taken and not answered. -1: no more. */
int ring_next_left(const struct ring *r, unsigned *at);

/* The next request: its entry's number. RING_NONE: there is none. RING_BROKEN: the guest's numbers make no sense, now and for
 * ever. */
enum { RING_NONE = -1, RING_BROKEN = -2 };
int ring_take(struct ring *r);
static inline const struct ring_request *ring_request(const struct ring *r, int entry)
{
	return &r->book->entry[entry].request;
}
/* As many as it counts, once ring_judge() has found it good. */
static inline const struct ring_segment *ring_segments(const struct ring *r, int entry)
{
	return r->book->entry[entry].form == RING_WHOLE ? r->book->indirect[entry] : r->book->entry[entry].request.segment;
}

/* True: so many bytes, from the beginning of that page, are still to be copied to memory, once; then ring_complete(). Until
 * then it is not good. */
struct ring_rest {
	uint32_t gref;
	uint16_t bytes;
	void *memory; /* borrowed: the book's */
};
bool ring_misses(struct ring *r, int entry, struct ring_rest *out);
void ring_complete(struct ring *r, int entry);

/* Something is there to be taken, at a glance; may be wrong, either way, for a moment. */
bool ring_has_more(const struct ring *r);

struct ring_terms {
	uint64_t size_bytes;
	bool is_read_only;
	bool can_discard;
};
/* What is to be answered to a request that cannot be done; RING_OKAY: it is good, and *range is inside the disk: of READ and
 * WRITE as many bytes as its segments have, which all lie in their pages. Of FLUSH it is empty. */
enum ring_status ring_judge(const struct ring *r, int entry, const struct ring_terms *t, struct range *range);

/* Ends an entry. The guest is shown it by the next ring_publish(). */
void ring_answer(struct ring *r, int entry, enum ring_status status);
/* True: the guest wants to be notified. */
bool ring_publish(struct ring *r);
/* The guest is to notify us of the next request. True: there is one already. */
bool ring_arm(struct ring *r);
/* Taken and not answered. */
uint32_t ring_open_requests(const struct ring *r);

#endif
