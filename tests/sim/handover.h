/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover - two hosts, their records, a network and an orchestrator, at random: what mirror/commit is tried with
 *
 *      handover.c         the world: records becoming durable, links, faults, one random step
 *      handover-source.c  A: the guest's host, its verbs, its questions
 *      handover-prepare.c A's barrier: is all there?
 *      handover-far.c     B: the other
 *      handover-person.c  who gives a move up, with a word to B and without a link, or takes A's disk back by force
 *      handover-turn.c    the way back: A's disk receives from B, what changed there since
 *      handover-group.c   two such disks, handed over together: their decision, and who makes it
 *      handover-oracle.c  what must hold, after each step and at the end
 *
 * A disk is one number, its last write.  The guest's last acknowledged write, wherever it runs, is `truth`.
 *
 * An address names one volume: one that is made when B's was destroyed is reached by the next operation only.
 *
 * What is assumed of the orchestrator, and nothing more: it starts the guest on B only after a deactivation on A that succeeded,
 * none before it in this move having raised or been lost; and one that ignores errors may try to start B at any other time,
 * except while B is eligible and A's offer of it was not kept (the one known way to two writers).
 */
#ifndef SXM_TESTS_HANDOVER_H
#define SXM_TESTS_HANDOVER_H

#include "mirror/commit-private.h"

#define LINKS 8u
#define QUEUE 16u
#define NO_LINK LINKS

enum ask { ASK_HELLO, ASK_WRITE, ASK_PREPARE, ASK_COMMIT, ASK_RECLAIM, ASK_RELEASED, ASK_END, ASK_NEWS };

struct message {
	enum ask ask;
	enum commit_status status;
	enum commit_state state;
	uint64_t epoch, count, since, boot, number;
	bool is_early;               /* PREPARE, before its turn */
};

struct queue {
	unsigned count;
	struct message m[QUEUE];
};

/* A connection: what A knows of it, what B knows of it, and what is between them. Either may have closed it alone. */
struct link {
	bool is_open_at_a, is_open_at_b;
	struct queue to_a, to_b;

	bool is_twin;                /* of the same generation as the primary; carries no data */
	bool is_helloed;
	struct commit_link name;
	enum commit_state heard_state;
	uint64_t heard_epoch, acked; /* writes */
	bool is_sending;             /* a write is in flight */

	bool is_admitted, is_told;   /* the news went out */
	struct commit_link name_at_b;
	uint64_t arrived;            /* writes */
	bool has_pending;            /* a write was submitted to B's disk and has not ended */
	uint64_t pending;
};

struct world;
typedef void then_fn(struct world *w);

/* A volume: its record in memory and on disk, and the one that is being written. */
struct volume {
	bool exists, is_busy, is_late; /* late, planted: next is in force, and will be durable some time */
	struct commit_record rec, durable, next;
	struct commit_verdict verdict;
	then_fn *then;
	unsigned link;
	struct message message;
	bool is_guest_active;
};

enum call { CALL_NONE, CALL_DEACTIVATE, CALL_ACTIVATE, CALL_DESTROY, CALL_SETTLE, CALL_PREPARE };
enum phase { PHASE_BEGIN, PHASE_SYNC, PHASE_PREPARE, PHASE_COMMIT, PHASE_RECLAIM };
enum outcome { OUTCOME_GOOD, OUTCOME_RAISED, OUTCOME_REFUSED, OUTCOME_LOST };

enum tally { TALLY_MOVED, TALLY_RECLAIMED, TALLY_RELEASED, TALLY_RAISED, TALLY_ENDED, TALLY_WITHDRAWN, TALLY_ADMIN_GIVEN,
	     TALLY_ADMIN_RELEASED, TALLY_ADMIN_RECLAIMED, TALLY_EITHER, TALLY_CANCELLED, TALLY_RECALLED, TALLY_TAKEN_BACK,
	     TALLY_TURNED, TALLY_BASED, TALLY_ALONE,
	     /* of groups */
	     TALLY_GONE = TALLY_ALONE, TALLY_STAYED, TALLY_TORN, TALLY_DOUBT, TALLY_COUNT };

struct group;

struct world {
	uint64_t random, clock, truth;
	uint64_t calm, mood, faults; /* how rare faults are; what the orchestrator likes to do; what likes to fail */
	const char *broken;
	bool is_traced;
	uint64_t tally[TALLY_COUNT];

	struct volume a, b;
	uint64_t disk_a;
	uint64_t cache_b, disk_b, boot_b; /* B's cache is lost with its power */
	struct link links[LINKS];

	/* A's process */
	enum call call;
	enum phase phase;
	bool is_live;                /* the operation runs */
	bool must_fail;              /* the barrier */
	bool is_held, wants_end;
	bool is_called_off;          /* the operation was cancelled, and the barrier has not heard of it */
	bool must_tell;              /* cancelled, and since then there was a link over which that can be said */
	unsigned primary, asking;    /* links; asking: on which a question is unanswered */
	uint64_t acked, base;        /* what B has, and since which generation */
	uint64_t boot_seen;          /* in its journal */
	unsigned early;              /* link on which PREPARE was asked before its turn, and is unanswered */
	bool is_early_good;
	uint64_t early_count, early_generation;
	bool is_finished;            /* held, and B acknowledged it all: nothing is sent any more, nor was flushed for it */
	bool has_lost;               /* ... and since then B's host went */
	uint64_t offered;            /* the highest epoch that was durably offered */
	unsigned mirrors, target;    /* the operation's volume on B: an address names one for good */
	char seen_mirror[COMMIT_MIRROR_MAX]; /* the oracle's: generations of one mirror never go back */
	uint64_t seen_generation;
	enum commit_meaning meaning;

	/* ... with a group */
	struct group *group;         /* NULL: alone */
	bool is_prepared, is_decided, must_look;
	uint64_t offered_base;       /* base, when it was offered */
	bool is_in_group, was_prepared; /* the oracle's: offered with it, and nothing has become of it yet */

	/* who gives it up */
	bool is_recalling;           /* he has read A's record, and B has not heard yet */
	char recalled[COMMIT_MIRROR_MAX];
	uint64_t recalled_epoch;
	char logged[COMMIT_MIRROR_MAX]; /* the mirror that brought B what is logged from logged_value on */
	uint64_t logged_value;
	char dropping[COMMIT_MIRROR_MAX]; /* the move of that mirror is over, and A's disk is to receive again */
	bool is_idle, is_still;      /* B's guest hardly writes; and goes on so when its host is A */
	bool is_based;               /* A mirrors what changed only, and has had no link yet */
	bool is_promised;            /* he took A's disk by force: nobody is started on B before that has heard */

	/* B's process */
	unsigned volumes;            /* made so far */
	bool is_starting;            /* an activation of B is under way: */
	bool is_right, is_try;       /* it may; it ignores errors; neither: nobody waits for it any more */
	bool is_destroying;
	bool is_other_linked;        /* another mirror's link */
	bool has_twins;              /* each generation has two connections */
	bool is_down;                /* the network: no connection is made */
	bool is_deleted;             /* B had taken the disk, and then it was destroyed: by its owner, so there is none */
	bool has_forgotten;          /* B's volume went, or went to another mirror, while A's record said given */
	bool has_lied;               /* what is between the hosts: a write was answered and not passed on */

	/* the orchestrator */
	bool is_waiting;             /* for A's verb */
	bool was_raised;             /* a deactivation of this operation raised, and it heard */
	bool is_complete, is_success, is_moved;
	bool is_off, is_cancelled;   /* this move; this operation */
	bool is_quiet;               /* the end: no more faults, nothing new */
	bool is_asked;               /* ... with links, and over one of them A was to have the disk back */
};

/* handover.c */
void world_run(struct world *w, uint64_t seed, unsigned steps);
uint64_t world_roll(struct world *w, uint64_t n); /* 0 .. n-1 */
uint64_t world_dice(uint64_t *state, uint64_t n);
void world_break(struct world *w, const char *why);
/* world_run(), in pieces. */
void world_begin(struct world *w, uint64_t seed);
void world_step(struct world *w);
void world_end(struct world *w);
void world_crash_a(struct world *w, bool is_host);
void world_trace(const struct world *w, const char *what);
/* The rules of commit.h: durable, then `then`. */
void world_decide(struct world *w, struct volume *x, const struct commit_verdict *v, then_fn *then, enum commit_bug late);
void world_persist(struct world *w, struct volume *x);
void world_put(struct queue *q, const struct message *m);
struct message world_take(struct queue *q);

/* handover-source.c */
void source_connect(struct world *w, bool is_twin);
void source_receive(struct world *w, unsigned link);
void source_send(struct world *w);
void source_write(struct world *w);
void source_tell(struct world *w);
void source_call(struct world *w, enum call call);
void source_cancel(struct world *w);
void source_work(struct world *w); /* the verb that runs */
void source_end(struct world *w);
void source_close(struct world *w, unsigned link);
void source_crash(struct world *w, bool is_host);
void source_begin(struct world *w);
unsigned source_link(const struct world *w); /* one that questions may be asked on */
bool source_is_asking(const struct world *w);
bool source_is_synced(const struct world *w);
bool source_is_usable(const struct world *w, unsigned link);
void source_ask(struct world *w, unsigned link, enum ask what);
void source_offered(struct world *w);
void source_settled(struct world *w);

/* handover-prepare.c */
void source_meet(struct world *w, const struct link *l, const struct message *m); /* HELLO's answer: is all still there? */
void source_prepare(struct world *w); /* nothing is under way: it is known that all is there, and flushed; or PHASE_PREPARE */
void source_prepare_early(struct world *w);
void source_prepare_answered(struct world *w, unsigned link, bool is_good);
void source_early_answered(struct world *w, const struct link *l, const struct message *m);
void source_go_on(struct world *w);   /* the barrier is over */

/* handover-far.c */
void far_receive(struct world *w, unsigned link);
void far_settle(struct world *w, unsigned link); /* a pending write ends */
void far_news(struct world *w, unsigned link);
void far_start(struct world *w);
void far_destroy(struct world *w);
void far_give_up(struct world *w);
void far_other(struct world *w);
void far_crash(struct world *w, bool is_host);
void far_close(struct world *w, unsigned link);
bool far_is_linked(const struct world *w);

/* handover-person.c */
void person_act(struct world *w);
void person_recall(struct world *w); /* B hears */

/* handover-turn.c */
void turn_track(struct world *w);
void turn_act(struct world *w);

/* handover-group.c */
/* Two disks; *tally as of a world's. NULL: no law was broken. */
const char *group_run(uint64_t seed, unsigned steps, bool is_traced);
const uint64_t *group_tally(void);
void group_work(struct world *w);  /* CALL_PREPARE goes on */
void group_doubt(struct world *w); /* offered with a group, and no CALL_PREPARE runs */
void group_host_dies(struct group *g);
void group_check(struct group *g); /* what must hold for the two */
bool group_is_committed(const struct world *w); /* its decision, as anybody finds it */

/* handover-oracle.c */
void oracle_started(struct world *w, const struct volume *x);
void oracle_step(struct world *w);
void oracle_end(struct world *w);
void oracle_destroyed(struct world *w);

#endif
