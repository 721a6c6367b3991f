/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * commit-private - what the commit's own files share
 *
 *      commit.c         the record, and the verbs of both roles: activate, write, deactivate, destroy, take
 *      commit-far.c     the far role: what a link may ask
 *      commit-source.c  the source role: begin, offer, give, withdraw, and what the far side's answers mean
 */
#ifndef SXM_MIRROR_COMMIT_PRIVATE_H
#define SXM_MIRROR_COMMIT_PRIVATE_H

#include "mirror/commit.h"

#define COMMIT_EPOCH_MAX (UINT64_MAX / 2) /* far from wrapping round, whatever a peer says */

/* Planted bugs: each breaks one rule, and tests/sim/sim-commit (built with -DPLANT) must find it.  CALLER_: what commit.h asks of
 * its caller; the simulation's own driver has them. */
#define COMMIT_BUGS(X) \
	X(COMMIT_UNFLUSHED)       /* eligible, and what was received not flushed */ \
	X(COMMIT_ANY_EPOCH)       /* no compare-and-set: a COMMIT from before a RECLAIM counts */ \
	X(DISC_IS_COMMIT)         /* a link that ends makes its volume eligible */ \
	X(HELLO_TAKES_OLDER)      /* an older generation is admitted */ \
	X(HELLO_TAKES_ELIGIBLE)   /* another mirror takes over what is complete */ \
	X(HELLO_KEEPS_SINCE)      /* ... takes over, and the source hears nothing of it */ \
	X(HELLO_TAKES_WRITTEN)    /* a mirror takes over a guest's disk */ \
	X(HELLO_REOPENS)          /* ... whose COMMIT was not answered: eligible becomes receiving, the epoch unchanged */ \
	X(RECLAIM_OF_TAKEN)       /* no compare-and-set: activation came first */ \
	X(RECLAIM_KEEPS_EPOCH)    /* receiving again, in the old epoch */ \
	X(GIVE_UP_OF_ELIGIBLE)    /* ... so does the deactivation of MIR* */ \
	X(RECEIVING_ACTIVATES) \
	X(INCOMPLETE_ACTIVATES) \
	X(RELEASED_ACTIVATES) \
	X(GIVEN_ACTIVATES)        /* without RECLAIM */ \
	X(WITHDRAW_FORGOTTEN)     /* an offered disk is activated as it is */ \
	X(WITHDRAW_KEEPS_EPOCH)   /* ... e again, not e + 2 */ \
	X(OFFERED_WRITES)         /* writes are not held after the offer */ \
	X(GIVEN_WRITES) \
	X(DESTROY_WITHOUT_RELEASE)/* an eligible volume is destroyed at once */ \
	X(DESTROY_UNACKNOWLEDGED) /* a released one, before the source has it */ \
	X(DESTROY_UNRESOLVED)     /* a source whose mirror was complete and failed */ \
	X(RAISE_AGAIN)            /* what was raised is raised again: the guest can never stop */ \
	X(RAISE_NEVER)            /* a dead mirror's deactivation succeeds, and the orchestrator goes on */ \
	X(CALLER_OFFERED_LATE)    /* COMMIT is sent before `offered` is durable */ \
	X(CALLER_ELIGIBLE_LATE)   /* COMMIT is answered before `eligible` is durable */ \
	X(CALLER_GIVEN_LATE)      /* the verb is answered before `given` is durable */ \
	X(CALLER_RAISED_LATE)     /* the verb raises before `raised` is durable */ \
	X(CALLER_WITHDRAWN_LATE)  /* guests go on before `withdrawn` is durable */ \
	X(CALLER_RECLAIMED_LATE)  /* RECLAIM is answered before it is durable */ \
	X(CALLER_RELEASED_LATE)   /* the news is sent before `released` is durable */ \
	X(CALLER_TAKEN_LATE)      /* RELEASED is said before the source's record is durable */ \
	X(CALLER_RACES)           /* activation is decided while RECLAIM's record is being written */ \
	X(CALLER_SHUTS_NOBODY_OUT)/* an older generation's writes land after HELLO was answered */ \
	X(CALLER_ASKS_EARLY)      /* COMMIT is sent before PREPARE's digest was compared */ \
	X(CALLER_CANCEL_CUTS)     /* a cancel in between drops the link, and nothing is said over it */ \
	X(CALLER_CANCELS_GIVEN)   /* ... takes a disk back that is given, without asking */ \
	X(RECALL_ANY_EPOCH)       /* no compare-and-set: what was handed over since is called back */ \
	X(DROP_OWNS)              /* what may receive again may be started, too */ \
	X(CALLER_LOG_LATE)        /* the log that the way back rests on began when a guest had written */ \
	X(CALLER_EARLY_NOT_ALL)   /* PREPARE's early answer counts, whatever it is about */ \
	X(CALLER_EARLY_ANY_LINK)  /* ... although another link has come since */ \
	X(CALLER_LOSS_UNHEARD)    /* PREPARE is asked of a host that lost what it had not flushed since the barrier */ \
	X(CALLER_LOSS_NOTED)      /* ... that is in the journal before it is in the map, and the process dies */ \
	X(DOUBT_FORGOTTEN)        /* from here on a group's: a disk offered with a group goes by itself */ \
	X(GROUP_UNNAMED)          /* ... is offered, and its record does not say with which group */ \
	X(CALLER_GROUP_UNPREPARED)/* "commit" is decided before every disk is prepared */ \
	X(CALLER_GROUP_UNDECIDED) /* COMMIT is sent as soon as a disk is prepared */ \
	X(CALLER_GROUP_ABSENCE)   /* no decision is taken for "cancel", and not made one */ \
	X(CALLER_GROUP_OVERRULED) /* a decision replaces another */ \
	X(CALLER_GROUP_LATE)      /* a decision is followed before it is durable */ \
	X(CALLER_GROUP_REMOVED)   /* a decision goes when the first disk has followed it */
#define COMMIT_BUG(name) BUG_##name,
enum commit_bug { BUG_NONE, COMMIT_BUGS(COMMIT_BUG) BUG_COUNT };
#ifdef PLANT
extern enum commit_bug commit_planted;
#define PLANTED(bug) ((bug) == commit_planted)
#else
#define PLANTED(bug) false
#endif

struct commit_verdict commit_verdict(const struct commit_record *r, enum commit_does does, enum commit_why why); /* unchanged */
struct commit_verdict commit_changed(struct commit_verdict v, const struct commit_record *r); /* compares v.next with r */
void commit_own(struct commit_record *next, uint64_t epoch); /* the source has it again */
void commit_settle(struct commit_record *next);              /* nothing of the operation is owed any more */
bool commit_is_source(const struct commit_record *r);
bool commit_is_in_doubt(const struct commit_record *r);      /* offered with a group */
bool commit_is_over(const struct commit_record *r);          /* the source's operation */
bool commit_is_of(const struct commit_record *r, const struct commit_link *link); /* the far end of this very mirror */

#endif
