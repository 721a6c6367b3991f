/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vdi-private - what the files of this room share: the disk, its queue of jobs, its operations
 *
 * One change of state at a time: a verb becomes a job; the job at the head runs as a chain of steps, each of which ends by
 * calling the step it was given.  So between two steps nothing else changes domains, stack or files.  What may happen at
 * any time are requests of clients, the mirror's on_change() and a cancellation: they only take notes or queue jobs.
 */
#ifndef SXM_VDI_VDI_PRIVATE_H
#define SXM_VDI_VDI_PRIVATE_H

#include "base/decision.h"
#include "base/iobuf.h"
#include "block/layer.h"
#include "cbt/cbt-layer.h"
#include "disk/disk.h"
#include "loop/offload.h"
#include "mirror/remote.h"
#include "nbdsrv/nbdsrv.h"
#include "vdi/debt.h"
#include "vdi/domains.h"
#include "vdi/journal.h"
#include "vdi/moved-log.h"
#include "vdi/owner.h"
#include "vdi/tenancy.h"
#include "vdi/vdi.h"

#define VDI_ID_MAX 48                  /* bytes; an operation's id is it, a dot and 14 digits */
#define VDI_POOL_BYTES (8u << 20)      /* frontends' buffers */
#define VDI_LOCK_WAIT_MS 10000u        /* how long a dead predecessor's I/O may take to end */
#define VDI_START_WAIT_MS 10000u       /* mirror.start answers by then, greeted or not */
#define VDI_RESUME_AGAIN_MS 1000u
#define VDI_OPERATIONS_KEPT 16u        /* ended ones, in memory */
#define VDI_VERIFICATIONS_KEPT 4u      /* the living one among them */
#define VDI_OWED_S (24 * 60 * 60)      /* how long a dead mirror may still raise */
#define VDI_LINGER_MS 300000u          /* vdi_spec.linger_ms, where it is not given */
#define VDI_ENVOY_MS 10000u            /* vdi_spec.envoy_ms, likewise */

struct listener {
	char host[64];
	uint16_t port;
};

/* Attached: it is in the list. */
struct domain {
	char name[DOMAINS_NAME_MAX];
	char socket[108];
	bool is_active, is_read_only;
	struct nbdsrv *server; /* owned; while active and served */
	struct listener listener[DOMAINS_LISTEN_MAX];
	size_t listeners;
	bool is_lingering;     /* inactive, and served all the same, links only: linger.c */
	bool is_detached;      /* ... and forgotten as soon as that ends; nobody is told of it */
	TAILQ_ENTRY(domain) link;
};

/* The source's end of a link, until it is gone and none of its questions is open. */
struct far_link {
	struct vdi *vdi;           /* borrowed */
	struct nbdsrv_link *link;  /* borrowed; NULL: gone */
	unsigned version;          /* of x-sxm */
	struct commit_link name;   /* its epoch moves with HELLO and RECLAIM */
	bool is_admitted;          /* HELLO was answered with OK */
	struct nbdsrv_ask *wait;   /* owned: to be answered when there is news */
	unsigned refs;
	TAILQ_ENTRY(far_link) entry;
};

/* One that takes a job to answer. */
struct question {
	struct far_link *l;
	struct nbdsrv_ask *ask; /* owned */
	uint32_t field[XSXM_FIELDS_MAX];
	unsigned fields;
};

/* This disk as the far side of a mirror. */
struct far {
	TAILQ_HEAD(, far_link) links;
	struct digest digest;      /* of what links of the record's generation have written */
	struct digest flushed;     /* ... as it was when the last good flush for them began */
	uint64_t boot, process;    /* this machine's life, and this process's */
	int64_t unlinked_s;        /* since when there is no link; 0: the record's file tells */
	struct loop_timer *linger; /* owned */
	unsigned linger_ms;
	bool is_linger_over;
	struct far_log log;
};

/* A mirror or a copy.
 *
 *      inserted --reached--> answered --in sync--> told (mirror under a writing guest) --barrier--> ended, complete
 *         '-- could not be: gone     '---- failed, cancelled: taken out ----------------------> ended, failed
 *                                    '---- copy over, or in sync with no writer left: barrier --> ended, complete
 */
struct operation {
	struct vdi *vdi;      /* borrowed */
	uint64_t number;      /* ms of its creation; unique among all processes of this disk */
	char id[64];
	char domain[DOMAINS_NAME_MAX];
	bool is_copy;
	bool is_answered;     /* the starter has heard */
	bool is_told;         /* complete=true may be, or may have been, answered: for domains.json */
	bool is_said;         /* ... and it is in domains.json: it may be answered */
	bool is_failed, is_complete, is_ended;
	bool is_aborting, is_aborted;  /* mirror_abort() was called; has ended */
	bool is_cancelled;
	bool is_sync;         /* as it was asked for last */
	struct debt debt;     /* owned; where its files are; a copy has none */
	struct mirror_peer peer; /* for the journal: the far side as it was met last */
	bool is_noting;       /* a JOB_JOURNAL is queued */
	bool is_suspended;    /* it ends with this process only */
	bool is_remembered;   /* it has failed by its link, and its mirror stays to record what is written: remember.c */
	bool was_resumed;     /* since: it is in sync when it is so now */
	bool is_settling;     /* a JOB_SETTLE is queued */
	bool is_removing;     /* a JOB_REMOVE is queued */
	struct error why;     /* is_failed */
	bool is_verified;     /* the digests of the link were equal */
	bool is_given;        /* committed: the far side has the disk, and the link stays until it was taken or given back */
	uint64_t taken_epoch; /* in this epoch a guest runs there, as was heard; 0: not since the last commit */
	struct remote_ask ask, wait; /* of a step; the one that is always open where the far side is an sxm */
	bool is_waiting_news; /* wait is open */
	bool was_up;          /* the link, when it was looked at last */
	unsigned links_met;   /* the number of the link that was asked last */
	struct loop_timer *reach; /* owned: how long a step waits for a link */
	struct outgoing *outgoing; /* owned: source-log.c's; NULL: nothing of it was sent */
	struct layer *mirror; /* owned; NULL once ended */
	struct mirror_status last; /* as it was when it ended */
	bool is_inserting;    /* the mirror is not under the gate yet */
	bool is_synced_logged;
	struct loop_timer *timer; /* owned; the starter's patience, later: try again to write "told" */
	vdi_done_fn *started;
	void *started_arg;
	TAILQ_ENTRY(operation) link;
};
TAILQ_HEAD(operation_list, operation);

struct news {
	char id[64];
	struct vdi *vdi;
	struct loop_timer *timer;   /* owned */
	struct loop_task task;
	void (*done)(void *arg);
	void *arg;
	TAILQ_ENTRY(news) link;
};

enum job_kind {
	JOB_RESUME,     /* serve what was active */
	JOB_ATTACH,
	JOB_ACTIVATE,
	JOB_DEACTIVATE,
	JOB_DETACH,
	JOB_MIRROR,     /* put a mirror in */
	JOB_SETTLE,     /* it is in sync: tell, or finish where nobody writes */
	JOB_REMOVE,     /* take a mirror that is over out */
	JOB_JOURNAL,    /* write a mirror's journal anew */
	JOB_LISTEN,     /* TCP for a domain */
	JOB_FORGET,     /* drop an ended operation */
	JOB_VERIFY,     /* begin to compare with a copy */
	JOB_VERIFIED,   /* that is over */
	JOB_STOP,       /* the process is asked to go */
	JOB_LINK,       /* a question of a link */
	JOB_FOREIGN,    /* somebody without x-sxm is about to write to what a mirror's far end is for */
	JOB_UNLINGER,   /* what lingers, and need not any more */
	JOB_DESTROY,    /* the volume is to go */
	JOB_HEARD,      /* the far side said something of its record */
	JOB_LINKED,     /* the link to it came or went */
	JOB_TAKE,       /* an admin says that the disk is owned here */
	JOB_PREPARE,    /* hand it over with a group: up to PREPARE, and on when that is decided */
	JOB_SNAPSHOT,   /* a clone of the disk as it is at one moment */
	JOB_RESIZE,     /* it grows */
	JOB_TRACK,      /* which blocks change is noted from now on, or not any more; or that is to be saved */
	JOB_PAUSE,      /* it is closed for a moment, under its guests */
	JOB_FOLLOW,     /* a group's commit or cancel, and no JOB_PREPARE has it */
};

/* Asks for a disk back without a mirror. */
struct envoy {
	struct remote *remote;     /* owned, until its close is done */
	enum remote_question question; /* RECLAIM or COMMIT */
	struct remote_ask ask;
	struct loop_timer *timer;  /* owned: the pause between two attempts; NULL, out of memory: there is one attempt */
	unsigned tries;
	uint64_t began_ns;
	bool is_over;              /* the link: it is only to be closed */
	bool is_released;          /* the far side gave the disk back: it is to hear that this is known */
	bool is_final;             /* an answer, or that there is none to be had */
	bool has_heard;            /* what the far side said last of its record */
	enum commit_status status;
	enum commit_state state;
	uint64_t epoch;
};

/* What domains.json says of an operation of a dead process. */
struct remains {
	bool is_none; /* ... that none ran, and speaks of this boot */
	bool is_there, is_copy, is_told;
	char id[64], domain[DOMAINS_NAME_MAX];
};

struct job_waiter {
	vdi_done_fn *done;
	void *arg;
	TAILQ_ENTRY(job_waiter) link;
};

struct job {
	enum job_kind kind;
	uint64_t serial;       /* no other job of this process has it; not 0 */
	char domain[DOMAINS_NAME_MAX];
	bool is_read_only, is_forced;
	uint64_t number;       /* REMOVE, SETTLE: the operation */
	char id[64];           /* FORGET */
	struct domain *d;      /* of a running job */
	uint64_t started_ns;
	struct error error;    /* the answer; err 0: good */
	step_fn *after;        /* of a step made of steps: stack.c's, handover.c's and operation.c's, one each */
	step_fn *revived;
	bool was_revived;      /* ACTIVATE: it was looked for one */
	char *journal;         /* owned: to be removed */
	step_fn *handed_over, *taken_out, *given_up, *owned, *left, *committed, *saved, *logged, *swapped;
	struct commit_verdict verdict;
	struct commit_record record; /* to be durable: stack_own()'s */
	struct domain *cut;    /* whose server is being shut down */
	struct error barrier;  /* its outcome */
	bool barrier_was_good;
	bool is_flushed;       /* this disk, and nobody has written since */
	bool will_save;        /* DEACTIVATE: it writes domains.json last; nobody before it needs to */

	/* JOB_MIRROR: until its start. The operation answers, not the job. JOB_VERIFY. */
	char *remote;          /* owned */
	bool is_copy, is_sync, is_resume, has_only;
	struct extents only;
	vdi_done_fn *starter;  /* REMOVE of one that never began: who hears */
	void *starter_arg;
	struct error start_error;
	char *out_id;          /* the caller's, until answered */
	size_t out_bytes;
	uint64_t rate_bytes;   /* VERIFY */

	/* JOB_ATTACH */
	char *socket;          /* the caller's, until done */
	size_t socket_bytes;

	/* JOB_HEARD */
	enum commit_status heard_status;
	enum commit_state heard_state;
	uint64_t heard_epoch;
	enum commit_meaning meaning;

	/* the commit */
	unsigned tries, asked_link; /* asked_link: links lost before the one that was asked */
	bool is_prepared, was_offered, was_asked_back;

	/* JOB_PREPARE, JOB_FOLLOW */
	char group[COMMIT_GROUP_MAX]; /* "": the commit is this disk's alone */
	struct loop_timer *patience;  /* owned */
	unsigned patience_ms;
	uint64_t held_ns;             /* since when guests are */
	bool wants_commit, wants_cancel; /* by who waits */
	bool is_waiting_group;        /* for a reason to look */
	bool must_look, is_impatient, is_decided;
	bool is_mirror_lost;          /* the far side has not got what was sent */
	bool was_resolved;            /* ACTIVATE, DEACTIVATE, TAKE: group_resolve() was called */
	step_fn *resolved;

	struct snapshot *snapshot; /* owned: SNAPSHOT */
	struct pause *pause;   /* owned: PAUSE */
	uint64_t bytes;        /* RESIZE */

	/* JOB_TRACK */
	bool is_wanted, is_final; /* final: source_log()'s */
	char *save;            /* owned: only save it there */
	struct layer *untracked; /* owned: taken out, and to be drained */

	/* JOB_LINK */
	struct question *question; /* borrowed */

	/* JOB_LISTEN */
	struct listener listener;
	uint16_t *bound;       /* the caller's, until done */

	TAILQ_HEAD(, job_waiter) waiters;
	TAILQ_ENTRY(job) link;
};
TAILQ_HEAD(job_list, job);

struct vdi {
	struct loop *loop;     /* borrowed */
	char *id, *path, *run_dir; /* owned */
	void (*on_empty)(void *arg), (*on_lost)(void *arg);
	void *arg;

	TAILQ_HEAD(, domain) domains;
	size_t domain_count;

	struct owner owner;        /* whose the disk is; as it was when it was open last */
	struct envoy envoy;
	unsigned envoy_ms;         /* how long it tries */
	struct far far;

	/* the stack: gate -> [op->mirror] -> [cbt] -> disk; all or nothing is open */
	struct layer *gate, *disk; /* owned */
	struct layer *cbt;         /* owned; NULL: changes are not tracked */
	struct layer *lower;       /* owned: a gate under op's mirror, while the disk is paused */
	bool is_read_only;         /* the disk is open so */
	struct tenancy tenancy;
	bool is_refusing;          /* the gate, after a handover */
	struct iobuf_pool *pool;   /* owned */

	struct operation *op;      /* the live one; in operations too */
	struct operation_list operations; /* oldest first */
	uint64_t last_number;
	TAILQ_HEAD(, news) news;
	struct verification *verification; /* the living one; in verifications too */
	TAILQ_HEAD(, verification) verifications; /* owned; oldest first */
	char *owed;                /* owned: the sentence the next last deactivation raises */
	int64_t owed_since;

	struct job_list jobs;
	struct job *job;           /* the running one, not in jobs */
	struct loop_task run;
	bool is_stopping, has_resumed;
	struct remains remains;
	struct loop_timer *resume_timer; /* owned */

	/* the running step */
	step_fn *next;
	struct error step;         /* its outcome, err 0: good */
	bool is_waiting_abort;     /* it waits for op's mirror_abort() */
	bool is_waiting_link;      /* ... for the next link, or that there will be none */
	bool is_waiting_verification; /* ... for the verification's end */
	struct offload offload;
	void (*work)(struct vdi *v); /* on a pool thread; touches only what follows */
	bool open_read_only;
	struct disk_file *opened;  /* owned between work and done */
	struct cbt_live *tracked;  /* likewise; NULL: changes are not tracked */
	step_fn *untracked;        /* tracking_close()'s */
	struct owner loaded;       /* likewise */
	char group[DECISION_GROUP_MAX];
	bool is_final;             /* cancel it, if nothing is decided */
	enum decision decided;
	struct debt debt;          /* likewise, and the next */
	struct journal journal;
	char *file, *text;         /* owned: what to replace, with what; text NULL: unlink */
	bool is_for_host;          /* ... and it need not outlive the host */
};

/* --- jobs.c */
/* Queues a job; NULL + done called with ENOMEM or ESHUTDOWN. done may be NULL. */
struct job *job_add(struct vdi *v, enum job_kind kind, const char *domain, vdi_done_fn *done, void *arg);
int job_join(struct job *j, vdi_done_fn *done, void *arg); /* -1: out of memory */
/* The last job queued or running for the domain; NULL: none. */
struct job *job_last(struct vdi *v, const char *domain);
/* Everybody who waits hears job->error; the job goes on. */
void job_answer(struct job *j);
/* Ends the running job with job->error. */
void job_end(struct vdi *v);
/* ... with what the last step left. */
void job_fail(struct vdi *v, const struct error *e);
void jobs_drop(struct vdi *v);
void jobs_init(struct vdi *v);

/* --- stack.c: the steps; v->step says how they ended, next is called from the loop or at once */
void stack_step_begin(struct vdi *v, step_fn *next); /* for steps made elsewhere */
void stack_step_end(struct vdi *v);
void stack_open(struct vdi *v, bool is_read_only, step_fn *next);  /* at least so: opens, or upgrades */
void stack_close(struct vdi *v, step_fn *next);   /* flush, then close */
void stack_release(struct vdi *v, step_fn *next); /* stack_close() when nobody needs the disk */
void stack_reopen(struct vdi *v, step_fn *next);  /* the disk alone, under nothing; v->open_read_only says how */
void stack_quiet(struct vdi *v, step_fn *next);   /* hold the gate, drain what went past it */
void stack_wake(struct vdi *v);                   /* the reverse */
void stack_refuse(struct vdi *v);                 /* what is held and what comes ends with ESHUTDOWN; stack_wake() reverses */
void stack_drain_gate(struct vdi *v, step_fn *next); /* it does not stop new ones: held or refusing */
void stack_drain_disk(struct vdi *v, step_fn *next);
struct layer *stack_base(const struct vdi *v);    /* what stands under a mirror, or the gate */
void stack_flush(struct vdi *v, step_fn *next);
void stack_cut(struct vdi *v, struct domain *d, step_fn *next); /* its server: answered, closed, freed */
int stack_serve(struct vdi *v, struct domain *d, struct error *e);
void stack_work(struct vdi *v, void (*work)(struct vdi *v), step_fn *next); /* on a pool thread */
void stack_save(struct vdi *v, step_fn *next);    /* domains.json as things are now; outlives this process, not the host */
void stack_write(struct vdi *v, char *file, char *text, step_fn *next); /* takes both; text NULL: unlink file */
/* Makes it durable that the disk is so owned; then it is in force, and everybody whom it concerns hears. */
void stack_own(struct vdi *v, const struct commit_record *next, step_fn *after);

/* --- tenancy.c; -1: out of memory */
int tenancy_init(struct vdi *v);
void tenancy_fini(struct vdi *v);
void tenancy_begin(struct vdi *v); /* v->disk is there */
void tenancy_end(struct vdi *v);   /* ... no more: ends the running step */

/* --- vdi.c */
void vdi_begin_resume(struct vdi *v);
void vdi_begin_attach(struct vdi *v);
void vdi_begin_activate(struct vdi *v);
void vdi_begin_deactivate(struct vdi *v);
void vdi_begin_detach(struct vdi *v);
void vdi_begin_listen(struct vdi *v);
void vdi_begin_stop(struct vdi *v);
/* After the barrier, v->step says how it went: the running deactivation's domain goes, or raises. */
void vdi_handed_over(struct vdi *v);
void vdi_resume_later(struct vdi *v); /* life.c: who is not served is looked for again */
/* Found or made; NULL + e. */
struct domain *vdi_add_domain(struct vdi *v, const char *name, struct error *e);
struct domain *vdi_find(const struct vdi *v, const char *name);
void vdi_remove_domain(struct vdi *v, struct domain *d);
/* Whether somebody other than `but` (NULL: anybody) has it active for writing; is_guest_only: guests of the operation. */
bool vdi_has_writer(const struct vdi *v, const struct domain *but, bool is_guest_only);
bool vdi_counts_as_guest(const struct vdi *v, const struct domain *d);

/* --- far-ask.c */
void far_begin_link(struct vdi *v); /* JOB_LINK */

/* --- far.c */
extern const struct nbdsrv_link_ops far_links; /* arg: the vdi */
void far_init(struct vdi *v);
void far_begin_foreign(struct vdi *v); /* JOB_FOREIGN */
bool far_is_open(const struct far_link *l);
bool far_is_of_generation(const struct far_link *l, const struct commit_link *name);
void far_refuse_plain(struct vdi *v); /* until far_apply() */
/* Fields of an answer; far_say() starts anew with the status and what the disk is now, far_say_failed() is all of it. */
void far_put(struct question *q, uint32_t field);
void far_put_u64(struct question *q, uint64_t value);
void far_say(struct question *q, const struct commit_record *r, enum commit_status status);
void far_say_failed(struct question *q, int err);
/* Who may write by what the record says: to be said to servers and links anew after each change of either. */
void far_apply(struct vdi *v);
/* v->owner.record has changed: applies it, answers WAITs. */
void far_on_change(struct vdi *v);
bool far_is_linked(const struct vdi *v);
/* Closes every admitted link but those of the generation of `but` (NULL: every one). What they submitted goes on. */
void far_shut_out(struct vdi *v, const struct commit_link *but);
/* The running job's domain, which is active, goes: its clients are cut, what it received is given up; or its server lingers. */
void far_leave(struct vdi *v, step_fn *next);

/* --- linger.c */
void linger_begin_end(struct vdi *v);     /* JOB_UNLINGER */
void linger_begin_destroy(struct vdi *v); /* JOB_DESTROY */
bool linger_is_wanted(const struct vdi *v);
/* After a change of the record, of links or of what lingers. */
void linger_look(struct vdi *v);

/* --- source-news.c */
void source_queue_heard(struct operation *op, enum commit_status status, enum commit_state state, uint64_t epoch);
/* From on_change(): asks for news, notes that the link came or went. */
void source_look(struct operation *op);
void source_begin_heard(struct vdi *v);  /* JOB_HEARD */
void source_begin_linked(struct vdi *v); /* JOB_LINKED */
/* On record: more numbers for links than were ever used; the last that may have been used before. */
void source_reserve(struct vdi *v, step_fn *next);
uint64_t source_next_links(const struct vdi *v);
void source_let_go(struct vdi *v, step_fn *next);   /* a given disk's operation ends here */

/* --- source.c */
/* Makes a verdict's record durable, or goes on at once. */
void source_decide(struct vdi *v, const struct commit_verdict *verdict, step_fn *next);
/* Asks over the link; what remote_ask_check() says is the step's error, the answer in v->op->ask. */
void source_ask(struct vdi *v, enum remote_question question, step_fn *next);
void source_send(struct vdi *v, const struct remote_ask *ask, step_fn *next); /* likewise; ask->done is set here */
void source_look_for_link(struct vdi *v); /* a step waits for one: is it there? */
void source_back(struct vdi *v);          /* the record says that the disk is owned again: the mirror goes on; then committed() */
/* Whether a mirror of this disk may begin. -1 + e. */
int source_check(const struct vdi *v, struct error *e);
void source_fill(struct operation *op, struct mirror_spec *spec);
void source_reach_is_over(void *op); /* its timer's */
bool source_is_linked(const struct vdi *v);
/* Steps; v->step says how they ended. */
void source_begin(struct vdi *v, step_fn *next);    /* on record: v->op is this disk's mirror */
void source_tell(struct vdi *v, step_fn *next);     /* on record: complete=true may be answered */
/* All was sent and flushed: the far side, an sxm, gets the disk; v->op->is_given then. */
void source_commit(struct vdi *v, step_fn *next);
void source_part(struct vdi *v, step_fn *next);     /* ... a foreign one: nothing is owed any more */
/* The barrier has failed: on record, and the far side hears where it can. v->step means nothing afterwards. */
void source_withdraw(struct vdi *v, step_fn *next);
/* ... that half of it: the disk is owned here, job->was_offered says from what. */
void source_say_end(struct vdi *v, step_fn *next);
/* Nothing is owed any more for the mirror of this name. */
void source_settle(struct vdi *v, const char *id, step_fn *next);
/* Asks for the disk back. Whether it was given: the record says. */
void source_reclaim(struct vdi *v, step_fn *next);

/* --- envoy.c */
/* The disk was given by a process that is no more: asks it back. What came of it: the record says. */
void envoy_reclaim(struct vdi *v, step_fn *next);
/* The disk was offered by a process that is no more, and is to be given: likewise. v->step: why it could not be. */
void envoy_commit(struct vdi *v, step_fn *next);

/* --- group.c */
void group_begin_prepare(struct vdi *v);  /* JOB_PREPARE */
bool group_is_prepared(const struct vdi *v); /* guests are held until the decision */
void group_hurry(struct vdi *v);          /* patience is over now */
/* v->decided: what is; final: cancelled if nothing was. DECISION_NONE and v->step: it cannot be known. */
void group_ask(struct vdi *v, const char *group, bool is_final, step_fn *next);

/* --- group-doubt.c */
void group_begin_follow(struct vdi *v);   /* JOB_FOLLOW */
/* The record is offered with a group: follows its decision, made final first. v->step, or a record as before: not yet. */
void group_resolve(struct vdi *v, step_fn *next);
/* Given with a group: who wrote here is inactive now (to be saved: true). */
bool group_leave(struct vdi *v);

/* --- snapshot.c */
struct snapshot;
void snapshot_begin(struct vdi *v); /* JOB_SNAPSHOT */
void snapshot_free(struct snapshot *s); /* NULL is allowed */
void snapshot_is_over(struct snapshot *s); /* nobody wants it any more */

/* --- resize.c */
void resize_begin(struct vdi *v); /* JOB_RESIZE */
int resize_check(const struct vdi *v, struct error *e); /* whether the open disk may change its size; -1 + e */
void resize_look_for_journal(struct vdi *v);            /* ... as to a mirror that is suspended: on a pool thread, in v->step */

/* --- pause.c */
void pause_begin(struct vdi *v); /* JOB_PAUSE */
void pause_free(struct pause *p); /* NULL is allowed */
void pause_hurry(struct vdi *v); /* it is over now */
void pause_is_over(struct pause *p); /* nobody needs an answer */

/* --- tracking.c */
int tracking_open(struct vdi *v, struct error *e); /* on the pool: v->opened is open for writing; v->tracked then */
int tracking_put(struct vdi *v, struct error *e);  /* v->cbt over v->disk, where it is tracked */
void tracking_close(struct vdi *v, step_fn *next); /* drained; v->step stays. v->cbt is gone then */
void tracking_rest(struct vdi *v, step_fn *next);  /* a step: it is, until cbt_go_on(); at once, where nothing is tracked */
void tracking_begin(struct vdi *v); /* JOB_TRACK */

/* --- take.c */
void take_begin(struct vdi *v); /* JOB_TAKE */

/* --- operation.c: its steps */
void operation_begin(struct vdi *v);        /* JOB_MIRROR */
void operation_settle(struct vdi *v);       /* JOB_SETTLE: settle.c */
void operation_remove(struct vdi *v);       /* JOB_REMOVE */
void operation_drop(struct vdi *v);         /* JOB_FORGET */
/* After a change of who writes: an operation in sync may be told, or finish. */
void operation_look(struct vdi *v);
/* Ends v->op. The gate is held or refusing, the mirror finished or aborted: drains, takes the mirror out, wakes the gate,
 * writes the record and domains.json. v->step says how the writing went. */
void operation_take_out(struct vdi *v, step_fn *next);
void operation_record(struct vdi *v, step_fn *next); /* writes its record, as it is now */
/* v->op fails by `why`: aborts it and takes it out, whatever the gate does. */
void operation_give_up(struct vdi *v, const struct error *why, step_fn *next);
/* v->op ends with this process, to be taken up by the next one. */
void operation_suspend(struct vdi *v, step_fn *next);
/* An operation of a dead process becomes a failed record, and a debt where complete may have been told. */
void operation_bury(struct vdi *v, const struct remains *r, step_fn *next);
void operation_on_change(void *op); /* its mirror's */
void operation_on_timer(void *op);

/* --- begin.c */
/* Makes op->mirror; of a mirror op->debt is filled. peer: of an earlier process; NULL: there was none. -1 + e. */
int operation_make_mirror(struct operation *op, const char *remote, const struct extents *only, const struct mirror_peer *peer,
			  struct error *e);
void operation_begin_journal(struct vdi *v); /* JOB_JOURNAL */
void operation_note(struct operation *op);   /* what its journal says has changed */

/* --- remember.c */
/* v->op has failed; -1: it is not one to remember. Else the running job, JOB_REMOVE, goes on there. */
int remember_begin(struct vdi *v);
void remember_resume(struct vdi *v); /* JOB_MIRROR, asked to */
void remember_found(struct operation *op, const char *why); /* an earlier process': its mirror is to begin remembering */
void remember_anew(struct vdi *v, step_fn *next);           /* ... and that is written down */
void remember_drop(struct vdi *v, step_fn *next);
void operation_owe(struct vdi *v, const struct operation *op); /* what was told of it and cannot be kept */
void operation_hand_starter(struct job *j, struct operation *op);
void operation_write_journal(struct vdi *v, step_fn *next);

/* --- revive.c */
void revive_note(struct vdi *v, const struct domains_record *r); /* it says that one ran */
/* The disk is open. Takes up the mirror of a dead process or host, if there is one that can be; buries it else. Never fails. */
void revive(struct vdi *v, step_fn *next);

/* --- record.c: what is kept of operations, and who waits for news of them */
struct operation *record_find(const struct vdi *v, const char *id);
struct operation *record_by_number(const struct vdi *v, uint64_t number);
uint64_t record_number(struct vdi *v); /* ms of now; unique among all processes of this disk */
/* A new operation, not live yet; domain, id and number set. NULL: out of memory. */
struct operation *record_new(struct vdi *v, const char *domain, bool is_copy);
void record_free(struct vdi *v, struct operation *op);
void record_trim(struct vdi *v); /* drops the oldest ended ones */
int record_make_dir(struct error *e); /* where the files are; blocks */
char *record_path(const char *id); /* heap; NULL: out of memory */
char *record_encode(const struct operation *op); /* heap; NULL: out of memory */
/* Whether there is a record of this id and it has ended; and how. Blocks; at start only. */
bool record_says_ended(const char *id, bool *is_complete);
void record_news(struct vdi *v, const char *id);
void record_drop_news(struct vdi *v); /* everybody hears */

/* --- verification.c */
void verification_begin(struct vdi *v);     /* JOB_VERIFY */
void verification_ended(struct vdi *v);     /* JOB_VERIFIED */
void verification_close(struct vdi *v);     /* the gate is about to be closed: nothing more is read */
void verification_wait(struct vdi *v, step_fn *next); /* a step: none is alive */
void verification_drop_all(struct vdi *v);  /* those that are over; none is alive */

/* --- handover.c */
/* The barrier of v->op: v->step says whether the far side has everything; the mirror is out either way. d: whose clients are
 * cut once it has, NULL: nobody's. */
void handover_begin(struct vdi *v, struct domain *d, step_fn *next);
void handover_committed(struct vdi *v); /* its second half: the commit has ended so; then job->handed_over */

#endif
