/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * commit - who owns a disk, and how it is handed over
 *
 * One record a volume, durable, says whose the disk is.  Everything here is a decision about it: (record, event) -> verdict and
 * next record.  Pure: no I/O, no clock, no memory.  The caller's part, the same for every function here:
 *
 *      1. one decision at a time for each volume: from the call until its next record is durable nothing else is decided on it;
 *      2. verdict.is_changed: `next` is durable (written to another file, fsync, rename, fsync of the directory) before the
 *         answer is sent, the verb answered, or anything done that the verdict allows;
 *      3. could it not be made durable: the old record stays in force, COMMIT_STATUS_FAILED, or an error to the verb.  What is
 *         on disk may then be either; both are safe after a crash, and the next good write settles it.
 *
 * What it rests on, and cannot see: *the orchestrator activates the destination only when the source's deactivation succeeded;
 * one that raised, or whose answer never came, is the end of that move*.  (Where nobody has the disk active: only after
 * complete=true, which is then said only in state given.)
 *
 * COMMIT, RECLAIM and the like are carried out in the order in which they came on a connection, one at a time.  The source asks
 * the next (HELLO of one more connection is one, too) when the last was answered or its connection is closed: an answer that
 * waited behind others on another connection would be old news.
 *
 * A volume without a record: commit_record_init().  Both roles are drawn in commit.c; THEORY section 5 argues; PROTOCOL.x-sxm is
 * the wire.
 */
#ifndef SXM_MIRROR_COMMIT_H
#define SXM_MIRROR_COMMIT_H

#include "base/compiler.h"

#define COMMIT_MIRROR_MAX 64           /* bytes of an id with its NUL */
#define COMMIT_GROUP_MAX 64            /* the same, of a group's */
#define COMMIT_LOST_RAISES_S 3600      /* how long after the loss of its link an operation still raises, with an sxm far side */
#define COMMIT_LOST_RAISES_FOREIGN_S 86400
#define COMMIT_UNLINKED_DESTROY_S 86400 /* how long what may be the only copy is kept, without a link to ask over */

enum commit_state { /* numbers as on the wire; 0 is none */
	COMMIT_OWNED = 1,              /* here; guests write */
	COMMIT_OFFERED,                /* source: COMMIT may have been sent. Writes are held */
	COMMIT_GIVEN,                  /* source: the far side may be started. Writes are refused */
	COMMIT_RECEIVING,              /* far: the link writes, nobody else */
	COMMIT_ELIGIBLE,               /* far: complete; the first activation takes it */
	COMMIT_INCOMPLETE,             /* far: the operation ended before COMMIT */
	COMMIT_RELEASED,               /* far: given back, will never be started; until the source says that it has it */
};

enum commit_status { /* of an answer, numbers as on the wire */
	COMMIT_STATUS_OK = 0,
	COMMIT_STATUS_STALE,
	COMMIT_STATUS_NOT_YOURS,
	COMMIT_STATUS_FAILED,
	COMMIT_STATUS_BAD_STATE,
	COMMIT_STATUS_UNKNOWN,
};

enum commit_news { /* of WAIT, numbers as on the wire */
	COMMIT_NEWS_NONE = 0,
	COMMIT_NEWS_ENDED,
	COMMIT_NEWS_TAKEN,
	COMMIT_NEWS_RELEASED,
};

enum commit_role { COMMIT_ROLE_NONE = 0, COMMIT_ROLE_SOURCE, COMMIT_ROLE_FAR }; /* which end of `mirror` it is, or was last */

struct commit_record {
	enum commit_state state;
	enum commit_role role;
	uint64_t epoch;                /* owned, receiving: the owner's; offered, given, eligible: the one to be taken */
	char mirror[COMMIT_MIRROR_MAX]; /* "": none */
	uint64_t generation;           /* the newest: source: made for a link; far: admitted */
	bool was_written;              /* anyone but a mirror's far end had it active for writing, or its owner took it */

	/* far */
	uint64_t volume;               /* its id, for sources: random, made when it first receives, for good; 0: none */
	uint64_t since;                /* the generation in which this mirror began here: all older ones left nothing here */
	bool is_acknowledged;          /* released: the source has it */
	bool is_unverified;            /* a source without x-sxm wrote here */

	/* source: of the operation `mirror` */
	bool is_unfenced;              /* the far side is no sxm: nothing but owned ever */
	bool is_told;                  /* complete=true was, or may have been, answered, and nothing has settled it since */
	bool is_raised;                /* a deactivation raised, or may have: the operation is over */
	bool is_ended;                 /* the far side gave it up or back: the operation is over */
	bool is_taken;                 /* given: the far side runs a guest */
	int64_t lost_s;                /* when its link was lost, seconds of the epoch of the clock; 0: it is not */
	char group[COMMIT_GROUP_MAX];  /* offered, given: with the other disks of this group, or not at all; "": alone */
};

/* A connection as its context's name says it (PROTOCOL.x-sxm, 1), and how far RECLAIM has carried it since. */
struct commit_link {
	char mirror[COMMIT_MIRROR_MAX];
	uint64_t epoch;                /* the connection's own: at an OK of HELLO or RECLAIM on it, verdict.link_epoch */
	uint64_t generation;
};

enum commit_does {
	COMMIT_ALLOW,                  /* go on; an answer's status is OK */
	COMMIT_REFUSE,                 /* `why` says why */
	COMMIT_ASK_GROUP,              /* offered with a group: make its decision final, then commit_source_withdraw() or COMMIT
	                                  and commit_source_give(), then call again */
	COMMIT_ASK_RECLAIM,            /* ask RECLAIM over a link (make one), tell commit_source_heard(), then call again */
	COMMIT_WAIT,                   /* for what is under way (`why`), then call again */
	COMMIT_RAISE,                  /* deactivation: raises */
	COMMIT_BARRIER,                /* deactivation: hold, drain, send, flush, offer, PREPARE, COMMIT */
};

enum commit_why {
	COMMIT_WHY_NONE,
	COMMIT_WHY_RECEIVING,          /* it receives a mirror */
	COMMIT_WHY_INCOMPLETE,         /* a mirror into it ended before it was complete */
	COMMIT_WHY_RELEASED,           /* it was given back to its source */
	COMMIT_WHY_TAKEN,              /* it was moved away and runs there */
	COMMIT_WHY_GIVEN,              /* it was moved away, and nobody there can be asked */
	COMMIT_WHY_PENDING,            /* a COMMIT is under way: it ends within seconds */
	COMMIT_WHY_OFFERED,            /* a handover is in between */
	COMMIT_WHY_NOT_OWNED,          /* only its owner may mirror it */
	COMMIT_WHY_UNRESOLVED,         /* a mirror of it had been complete and was never settled: it may be the only good copy */
	COMMIT_WHY_ONLY_COPY,          /* eligible or released, and no link to ask over: it may be the only copy */
	COMMIT_WHY_UNACKNOWLEDGED,     /* released, and its source has not said yet that it has it */
	COMMIT_WHY_OWNED,              /* it is owned here: there is nothing to take */
	COMMIT_WHY_STARTED,            /* it cannot be called back: a guest has it */
	COMMIT_WHY_NOT_GIVEN,          /* it was not given away: there is nothing to drop */
	COMMIT_WHY_NO_OPERATION,       /* no mirror of this name, or it does not fit its state */
	COMMIT_WHY_UNVERIFIED,         /* allowed, to be logged: a foreign source wrote it; whether all of it, nobody knows */
	COMMIT_WHY_FORCED,             /* allowed, to be logged: by force only */
	COMMIT_WHY_GROUP,              /* offered with other disks, and what was decided for them has to be followed first */
	COMMIT_WHY_WITHDRAWN,          /* allowed, to be logged: the far side may be eligible and was not told */
	COMMIT_WHY_COUNT,
};

struct commit_verdict {
	enum commit_does does;
	enum commit_why why;
	enum commit_status status;     /* far: of the answer; its fields state and epoch are next.state and next.epoch */
	bool is_changed;               /* next is to be durable first */
	bool shuts_out;                /* all connections but those of next.mirror's next.generation are to be shut out, what
	                                  they had submitted drained and flushed, before the answer */
	uint64_t link_epoch;           /* HELLO, RECLAIM: what the link's epoch is from now on */
	struct commit_record next;     /* in force from now on; equal to the old one unless is_changed */
};

void commit_record_init(struct commit_record *r); /* as a volume without a record: owned, epoch 1, not written */
/* What was read from a file may be anything: false: no record the functions below could have made. */
bool commit_record_is_valid(const struct commit_record *r);
bool commit_mirror_is_valid(const char *id); /* 1 to 63 of [A-Za-z0-9._-], no leading dot */
const char *commit_state_name(enum commit_state s);
bool commit_state_by_name(const char *name, enum commit_state *s);
const char *commit_why_text(enum commit_why why); /* half a sentence, after "disk X: " */

/* --- the verbs, either role: the record knows which */

enum commit_domain { COMMIT_GUEST, COMMIT_DOM0, COMMIT_MIRROR }; /* a guest's; u0_*, CP*; MIR* */
struct commit_activation {
	enum commit_domain domain;
	bool is_read_only;
	bool is_forced;                /* an admin's word: starts what is receiving, incomplete or released */
	bool is_linked;                /* source: a link of the operation is up, or has just been made for this */
	bool is_pending;               /* source: COMMIT was sent and not answered, and its link is up */
};
/* ALLOW, REFUSE, ASK_RECLAIM or WAIT. ALLOW of a writer on an eligible volume takes it: news TAKEN. */
struct commit_verdict commit_activate(const struct commit_record *r, const struct commit_activation *a);

enum commit_writer {
	COMMIT_LOCAL,                  /* a domain that has it active, not MIR* */
	COMMIT_LINKED,                 /* a connection whose HELLO was answered with OK */
	COMMIT_FOREIGN,                /* any other connection of a MIR* domain; before its first write: commit_far_foreign() */
};
/* ALLOW; WAIT: held until the record changes; REFUSE: EIO for LOCAL, EPERM for the others. link is for LINKED only. */
enum commit_does commit_write(const struct commit_record *r, enum commit_writer who, const struct commit_link *link);

struct commit_destruction {
	bool is_linked;                /* far: a link of the mirror is up. source: ignored */
	bool is_forced;                /* an admin's word */
	int64_t unlinked_s;            /* how long there has been no link; not known: since the record was written */
};
/* ALLOW: the volume may go (receiving: end its links with ENDED first; next is durable first as ever).
 * WAIT: it is now released: the news goes out, the source's RELEASED comes as commit_far_acknowledged(), then call again. */
struct commit_verdict commit_destroy(const struct commit_record *r, const struct commit_destruction *d);

/* `sxm epoch take`: ALLOW: it is owned here. is_forced: what is not complete, or known to run elsewhere. */
struct commit_verdict commit_take(const struct commit_record *r, bool is_forced);

/* What was given away, and is kept, may receive once more: as a far side that ended half way, so it starts nobody. Who asks knows
 * that the disk is owned on the other host. REFUSE: it was not given. */
struct commit_verdict commit_drop(const struct commit_record *r);

/* What may have been handed over by that mirror is called back: its source owns the disk in `epoch`, on record, and has given the
 * mirror up. RECLAIM and END in one, by who has no link: compare and set, too. ALLOW: it starts nobody. REFUSE: TAKEN; of another
 * mirror, or of a later epoch. */
struct commit_verdict commit_recall(const struct commit_record *r, const char *mirror, uint64_t epoch);

/* --- the far role. status, next.state and next.epoch are the answer; link is the connection that asks */

/* other_is_linked: a connection of another mirror is admitted here now. */
struct commit_verdict commit_far_hello(const struct commit_record *r, const struct commit_link *link, bool other_is_linked);
/* Before the flush, and again before its answer: OK, or what to answer instead. */
struct commit_verdict commit_far_prepare(const struct commit_record *r, const struct commit_link *link);
/* is_flushed: writes are shut out since before, none is under way, and a flush that began after the last of them was good. */
struct commit_verdict commit_far_commit(const struct commit_record *r, const struct commit_link *link, bool is_flushed);
struct commit_verdict commit_far_reclaim(const struct commit_record *r, const struct commit_link *link);
struct commit_verdict commit_far_end(const struct commit_record *r, const struct commit_link *link);
struct commit_verdict commit_far_ping(const struct commit_record *r, const struct commit_link *link);
struct commit_verdict commit_far_acknowledged(const struct commit_record *r, const struct commit_link *link); /* RELEASED */
/* What an outstanding WAIT is answered with now; NONE: nothing yet. The epoch is r->epoch. */
enum commit_news commit_far_news(const struct commit_record *r, const struct commit_link *link);
/* A link went without END: the volume stays as it is, so that the source can come back. */
struct commit_verdict commit_far_lost(const struct commit_record *r);
/* MIR* was deactivated, or the operation was cancelled here: receiving becomes incomplete; after COMMIT nothing changes. */
struct commit_verdict commit_far_give_up(const struct commit_record *r);
/* A connection without x-sxm is about to write through a MIR* domain. */
struct commit_verdict commit_far_foreign(const struct commit_record *r);

/* --- the source role */

/* Data.mirror; is_unfenced is not known yet: commit_source_unfenced(). */
struct commit_verdict commit_source_begin(const struct commit_record *r, const char *mirror);
/* Before each connection attempt: a new generation. *link: what the context's name says. Also in offered and given. */
struct commit_verdict commit_source_connect(const struct commit_record *r, struct commit_link *link);
/* The far side turned out to be no sxm; a link of the operation was lost for good or for now; is there again. */
struct commit_verdict commit_source_unfenced(const struct commit_record *r);
struct commit_verdict commit_source_lost(const struct commit_record *r, int64_t now_s);
struct commit_verdict commit_source_linked(const struct commit_record *r);
/* Before complete=true is answered. With nobody active and an sxm far side: only in state given. */
struct commit_verdict commit_source_tell(const struct commit_record *r);

/* The barrier: everything was sent and acknowledged, guests are held. Before COMMIT, and again when it is repeated. */
struct commit_verdict commit_source_offer(const struct commit_record *r);
/* The same for a disk of a group. From here on nothing but these changes the record, until the group's decision is final:
 * commit_source_withdraw(), _give() and _heard(), and an admin by force; all else is answered COMMIT_ASK_GROUP. */
struct commit_verdict commit_source_offer_in(const struct commit_record *r, const char *group);
/* The group is not handed over: the disk is owned here, e+2, and the operation goes on. Where there is a link: then RECLAIM. */
struct commit_verdict commit_source_withdraw(const struct commit_record *r);
/* COMMIT was answered OK with this epoch. ALLOW: given, the deactivation may succeed. */
struct commit_verdict commit_source_give(const struct commit_record *r, uint64_t epoch);
/* ... to a far side that is no sxm: all was acknowledged (and flushed where it can be). Settled; the disk stays owned. */
struct commit_verdict commit_source_give_unfenced(const struct commit_record *r);
/* A barrier was given up, for whatever reason (ENDED while it ran is one). RAISE, or ALLOW where complete=true was never
 * answered: no error. From offered it is withdrawn, e+2. Where there is a link: then RECLAIM and END. */
struct commit_verdict commit_source_barrier_failed(const struct commit_record *r);

enum commit_meaning {
	COMMIT_MEANS_NOTHING,          /* STALE, FAILED, UNKNOWN, NOT_YOURS: no word about the owner */
	COMMIT_MEANS_RECEIVING,        /* it receives: mirror on, or go on with the barrier */
	COMMIT_MEANS_ELIGIBLE,         /* COMMIT is durable there: in offered a barrier goes on with commit_source_give(); in
	                                  owned, where it was withdrawn: say RECLAIM */
	COMMIT_MEANS_RECLAIMED,        /* the disk is owned here: guests may go on, so may the mirror */
	COMMIT_MEANS_TAKEN,            /* a guest was activated there. In offered that is the barrier's success */
	COMMIT_MEANS_RELEASED,         /* the disk is owned here; say RELEASED to the far side, the operation is over */
	COMMIT_MEANS_ENDED,            /* the far side gave up; the disk is owned here, the operation over */
	COMMIT_MEANS_CONFLICT,         /* impossible under the assumption above: log an error, drop the link */
};
/* Whatever the far side says of its record, on a link of r->mirror: the answers to HELLO, COMMIT, RECLAIM, END and PING (status,
 * state, epoch), and WAIT's news as commit_news_state(). Only verdict.is_changed and next count. */
struct commit_verdict commit_source_heard(const struct commit_record *r, enum commit_status status, enum commit_state state,
					  uint64_t epoch, enum commit_meaning *meaning);
enum commit_state commit_news_state(enum commit_news news); /* of WAIT; 0: unknown */
/* The operation goes by its own decision (failed, Data.destroy, cancelled) and had nothing told, or is settled by an admin or
 * by a day: nothing is owed any more. From offered it is withdrawn. given stays given. */
struct commit_verdict commit_source_settle(const struct commit_record *r);

/* The last writing guest is being deactivated. is_live: the operation still runs and may finish its barrier.
 * ALLOW: flush here and succeed. BARRIER. RAISE: next is durable, then raise. */
struct commit_verdict commit_deactivate(const struct commit_record *r, bool is_live, int64_t now_s);

#endif
