/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * link - a connection that chose x-sxm, as whoever owns the disk sees it
 *
 *      chosen --first question--> known: ask(), ask() ... --socket closed, nothing of it in flight any more--> gone()
 *
 * The server carries questions and answers, refuses writes until the link is admitted, and folds what it wrote into a digest.
 * What the questions mean is not its business.
 */
#ifndef SXM_NBDSRV_LINK_H
#define SXM_NBDSRV_LINK_H

#include <sys/queue.h>

#include "block/digest.h"
#include "nbdsrv/wire-xsxm.h"

struct nbdsrv;

struct nbdsrv_link {
	struct xsxm_name name;
	void *owner;           /* free for the room that answers; NULL at first */
	/* the server's */
	struct digest *digest; /* borrowed; NULL: not admitted */
	bool is_known;         /* has asked something: gone() will come */
};

/* One question; answered once, whatever became of the link. */
struct nbdsrv_ask {
	struct nbdsrv_link *link; /* until gone() */
	uint64_t opcode;          /* enum xsxm_opcode, or something we do not know */
	/* the server's */
	struct command *cmd;      /* NULL: nobody waits for the answer any more */
	TAILQ_ENTRY(nbdsrv_ask) entry;
};

struct nbdsrv_link_ops {
	/* From the loop; may answer at once. */
	void (*ask)(void *arg, struct nbdsrv_ask *ask);
	/* From the loop: a piece of the logs of changes, `at` from their beginning. 0, or the errno to answer with. NULL: none is
	 * taken. */
	int (*log)(void *arg, struct nbdsrv_link *link, uint64_t at, const uint8_t *data, size_t bytes);
	/* From the deferred queue: the link is closed, what it had submitted has ended, and the link is freed after this. Its
	 * asks that were not answered still have to be. */
	void (*gone)(void *arg, struct nbdsrv_link *link);
	/* From the loop: somebody without x-sxm wants to write under NBDSRV_PLAIN_ASKS; once, until the rule is set anew. */
	void (*plain)(void *arg);
};

/* field: at most XSXM_FIELDS_MAX; the first is the status. Frees the ask. From the loop. */
void nbdsrv_answer(struct nbdsrv_ask *ask, const uint32_t *field, unsigned count);

/* It may write from now on; what it wrote without error is folded into *digest, which lives until the next call for this link
 * or its gone(). NULL: it may not write (any more); what is in flight is not folded. */
void nbdsrv_link_admit(struct nbdsrv_link *link, struct digest *digest);
/* Closes its socket now; what it has submitted goes on, and gone() follows it. */
void nbdsrv_link_shut(struct nbdsrv_link *link);
/* It is not closed, nor closing. */
bool nbdsrv_link_is_open(const struct nbdsrv_link *link);

/* Whether connections without x-sxm may write. At first they may. ASKS: their first write is held until this is called again. */
enum nbdsrv_plain { NBDSRV_PLAIN_WRITES, NBDSRV_PLAIN_READS, NBDSRV_PLAIN_ASKS };
void nbdsrv_set_plain(struct nbdsrv *s, enum nbdsrv_plain rule);
/* From now on links only: ends connections without x-sxm, those that are there and those to come. */
void nbdsrv_end_plain(struct nbdsrv *s);

#endif
