/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote - what a far side is
 *
 * Operations complete later, once, from the loop, with an errno; operations of a link that is gone are failed by the
 * remote itself after the link touches no buffer any more.  Implementations: remote-nbd.c, tests/lib/sim.c.
 */
#ifndef SXM_MIRROR_REMOTE_H
#define SXM_MIRROR_REMOTE_H

#include <sys/queue.h>

#include "base/error.h"
#include "base/range.h"
#include "block/digest.h"
#include "block/extents.h"
#include "loop/loop.h"

enum remote_opcode {
	REMOTE_WRITE,
	REMOTE_ZERO,
	REMOTE_FLUSH,
	REMOTE_READ,    /* a multiple of min_block_bytes, no longer than max_bytes */
	REMOTE_EXTENTS, /* what is zero there: may stop early; ENOTSUP or EINVAL where the far side does not tell */
	REMOTE_OTHER,   /* the remote's own */
};

struct remote_op {
	enum remote_opcode opcode;
	struct range range;       /* bytes; a multiple of min_block_bytes, no longer than max_bytes for WRITE */
	const void *data;         /* WRITE: stable until done() */
	bool may_trim;            /* ZERO: holes allowed */
	void *buffer;             /* READ: the submitter's, touched until done() */
	struct extents *extents;  /* EXTENTS: the submitter's, appended to until done(); from range.start on, without gaps */
	/* From the deferred queue. ESHUTDOWN is never the far side's answer but the link's end: on_down or close's done comes. */
	void (*done)(struct remote_op *op, int err);
	/* the remote's */
	void *private_;
	bool is_question;         /* OTHER: it stands in a remote_ask */
	struct range part, rest;  /* ZERO: what of range is being asked for, what is still to be */
	int err;
	TAILQ_ENTRY(remote_op) link;
};

/* What is asked of an sxm far side besides (PROTOCOL.x-sxm); the numbers are the wire's. HELLO was said before on_up. */
enum remote_question {
	REMOTE_ASK_HELLO, REMOTE_ASK_WAIT, REMOTE_ASK_PREPARE, REMOTE_ASK_COMMIT, REMOTE_ASK_RECLAIM, REMOTE_ASK_RELEASED,
	REMOTE_ASK_END, REMOTE_ASK_PING, REMOTE_ASK_LOG_BEGIN, REMOTE_ASK_LOG_KEEP, REMOTE_ASK_LOG_END,
	REMOTE_SEND_LOG /* no question: piece, piece_at, piece_bytes; done()'s err is all that is answered */
};
enum remote_status {
	REMOTE_SAYS_OK, REMOTE_SAYS_STALE, REMOTE_SAYS_NOT_YOURS, REMOTE_SAYS_FAILED, REMOTE_SAYS_BAD_STATE, REMOTE_SAYS_UNKNOWN
};
enum remote_news { REMOTE_NEWS_ENDED = 1, REMOTE_NEWS_TAKEN, REMOTE_NEWS_RELEASED };
enum remote_state {
	REMOTE_IS_OWNED = 1, REMOTE_IS_OFFERED, REMOTE_IS_GIVEN, REMOTE_IS_RECEIVING, REMOTE_IS_ELIGIBLE, REMOTE_IS_INCOMPLETE,
	REMOTE_IS_RELEASED
};

#define REMOTE_VERSION_NEWEST 2u /* of x-sxm, that is spoken; and so many in all */
#define REMOTE_VERSIONS 2u
#define REMOTE_FIELDS_MAX 16u /* of an answer; what a later version adds beyond them is not kept */

/* One question. Like an operation, it ends once, from the deferred queue; a WAIT may take for ever and is no request in flight
 * as dead_ms counts them. */
struct remote_ask {
	enum remote_question question;
	/* err 0: answered, field[0] says how. ESHUTDOWN: the link is over. EPROTO: nothing that could be read as an answer.
	 * ENOTSUP: the far side does not speak it. Else: its errno. */
	void (*done)(struct remote_ask *a, int err);
	uint32_t field[REMOTE_FIELDS_MAX]; /* what was missing is 0 */
	unsigned count;                    /* of fields that came */
	const void *piece;                 /* SEND_LOG: stable until done(); at most 1 MiB */
	uint64_t piece_at;
	size_t piece_bytes;
	/* the remote's */
	struct remote_op op;
	bool is_garbled;
};

/* Two fields, from `at` on. */
static inline uint64_t remote_ask_u64(const struct remote_ask *a, unsigned at)
{
	return (uint64_t)a->field[at] << 32 | a->field[at + 1];
}

/* What an answer to an ask amounts to: 0: OK. -1 + e: a sentence. */
int remote_ask_check(const struct remote_ask *a, int err, struct error *e);
const char *remote_state_name(uint32_t state); /* for people: "being received" */

struct remote_info {
	uint64_t size_bytes;
	uint32_t min_block_bytes; /* 1: any */
	uint32_t max_bytes;
	bool can_zero, can_flush, can_multi_conn;
	unsigned connections;     /* when on_up was called; more may follow */
	/* What is known to read as zero, from block status at connection and from zeroes written then; empty: nothing known. */
	struct extents zero;      /* items of type EXTENT_ZERO, what lies between is not known; the remote's, while on_up runs */
	/* The far side is an sxm that said HELLO; else all this is 0. */
	bool is_sxm;
	bool is_caching;          /* what it acknowledged is in a process's memory until a flush */
	enum remote_state state;  /* IS_RECEIVING; IS_ELIGIBLE: committed to, no write before RECLAIM; IS_RELEASED: no write */
	uint64_t epoch, generation;
	uint64_t since;           /* the generation with which this mirror began there: nothing of older ones is there */
	uint64_t boot, process;   /* of that machine's life, that process's: as at an earlier link, nothing was lost there */
	unsigned version;         /* of x-sxm, as it was agreed on */
	uint64_t volume;          /* the far volume's id; 0: not told, by version 1 */
};

struct remote_spec {
	struct loop *loop;             /* borrowed */
	const char *uri;               /* copied: any NBD URI, or xapi's nbd:unix:PATH:exportname=NAME */
	uint64_t min_size_bytes;       /* a smaller far side is refused */
	/* Ranges that should read as zero at the far side (the source's holes): zeroed during connection where the far side
	 * does not say they do already. Copied. */
	const struct extents *holes;   /* NULL: none; only items that have EXTENT_ZERO count */
	/* For whoever only reads: a read-only far side will do, nothing is asked or zeroed while connecting, one connection.
	 * Speaks no x-sxm: mirror_id is NULL. */
	bool is_reader;
	unsigned connect_wait_ms;      /* how long a socket that is not there or refuses is tried again (xapi's appears late) */
	unsigned handshake_ms;         /* how long the peer may take to greet and answer */
	unsigned dead_ms;              /* no progress for so long with requests in flight: link down */
	unsigned idle_ms;              /* a link that is quiet for so long is asked something; 0: 5000 */
	/* Who we are, to an sxm far side: the operation's id (copied), the epoch in which we own the disk, the number of this
	 * link, durable before it is made. NULL: no x-sxm is spoken. A link that is refused ends in on_failed: ESTALE, a newer
	 * link of this mirror was made; EBUSY, the far volume is somebody's; EPROTO, no sense in the answer. */
	const char *mirror_id;
	uint64_t epoch, generation;
	uint64_t volume;               /* the far volume's id as it was told first; 0: not known. Another is refused: EBUSY */
	/* Exactly one of these ends the connecting; then link_down at most once, after link_up. From the loop. */
	/* Before it, HELLO's answer, if one came: what the far side said of its volume. NULL: nobody wants to know. */
	void (*on_heard)(void *arg, uint32_t status, uint32_t state, uint64_t epoch);
	void (*on_up)(void *arg, const struct remote_info *info);
	void (*on_failed)(void *arg, const struct error *e);
	void (*on_down)(void *arg, int err); /* all operations have been failed before */
	void *arg;
};

struct remote;
struct remote_ops {
	void (*submit)(struct remote *r, struct remote_op *op); /* between on_up and on_down */
	void (*ask)(struct remote *r, struct remote_ask *a);    /* likewise; one WAIT at a time. NULL: speaks no x-sxm */
	/* Of all that was acknowledged on this link, the zeroes written while it was made included (PROTOCOL.x-sxm, 3). False: an
	 * operation failed, so that nobody knows what arrived, or the far side is no sxm. */
	bool (*digest)(struct remote *r, struct digest *out);
	/* Once. is_polite: everything but a WAIT was answered, say DISC (bounded); else cut at once:
	 * operations in flight end with ESHUTDOWN first. done(), from the deferred queue, is the last callback, and r is gone
	 * then; on_down is not called any more. Works while connecting, and is the only way out after on_failed or on_down. */
	void (*close)(struct remote *r, bool is_polite, void (*done)(void *arg), void *arg);
};
struct remote {
	const struct remote_ops *ops;
};

/* Starts connecting (on the thread pool, never on the loop). NULL + e: a URI that cannot be one, or no memory. */
struct remote *remote_nbd_new(const struct remote_spec *spec, struct error *e);
/* Only the form, for an early and clear answer. */
int remote_nbd_check_uri(const char *uri, struct error *e);

#endif
