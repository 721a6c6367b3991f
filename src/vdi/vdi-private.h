/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vdi-private - what the files of this room share: the disk, its queue of jobs, its operations; what they do is vdi-steps.h's
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
#include "vdi/budget.h"
#include "vdi/debt.h"
#include "vdi/domains.h"
#include "vdi/figures-guest.h"
#include "vdi/import.h"
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
#define VDI_EXPECT_MS 10000u           /* vdi_spec.expect_ms, likewise */
#define VDI_ENVOY_MS 10000u            /* vdi_spec.envoy_ms, likewise */

struct vbd;

struct listener {
	char host[64];
	uint16_t port;
	struct nbdsrv_keys *keys; /* a reference; NULL: plain */
};

/* Attached: it is in the list. */
struct domain {
	struct vdi *vdi;       /* borrowed */
	char name[DOMAINS_NAME_MAX];
	char socket[108];
	bool is_active, is_read_only;
	struct nbdsrv *server; /* owned; while active and served */
	struct listener listener[DOMAINS_LISTEN_MAX];
	size_t listeners;
	bool is_lingering;     /* inactive, and served all the same, links only: linger.c */
	char backend[VDI_BACKEND_MAX]; /* in xenstore, of its device that is served over a ring; else "" */
	char had[VDI_BACKEND_MAX]; /* ... the one that it had, active as it is, till that was dropped; else "" */
	bool is_eager;         /* ... without a hotplug script */
	struct vbd *vbd;       /* owned; with its server */
	char import[108];      /* while its server takes connections that are passed: where; else "" */
	struct figures *figures; /* owned; NULL: nobody said whose they are */
	bool are_figures_told; /* ... by the verb, and not by xenstore */
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
	bool has_gone_on;     /* after the disk was taken back: a link may have been made in an older epoch than the record's */
	uint64_t taken_epoch; /* in this epoch a guest runs there, as was heard; 0: not since the last commit */
	struct remote_ask ask, wait; /* of a step; the one that is always open where the far side is an sxm */
	struct remote_ask early;     /* source-prepare.c's: PREPARE before its turn */
	bool is_early_open, is_early_good, is_early_bad; /* asked; what it said counts if it is about all; it could not flush */
	void (*after_early)(struct vdi *v);              /* what waits for its answer */
	unsigned early_link;         /* links that were lost before the one it went over */
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
	JOB_IMPORT,     /* it is the leaf of a mirror from SMAPIv1, whose connections are passed here */
	JOB_MERGE,      /* somebody waits until what was mirrored so is merged into it */
	JOB_MERGED,     /* it is */
	JOB_EXPECT,     /* it was composed, and will be activated soon: it is opened; or that is not waited for any more */
	JOB_DEVICE,     /* a domain has it as a Xen device, over a ring, from now on */
	JOB_FIGURES,    /* a domain's figures are for xcp-rrdd from now on */
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

struct job {
	enum job_kind kind;
	uint64_t serial;       /* no other job of this process has it; not 0 */
	char domain[DOMAINS_NAME_MAX];
	bool is_read_only, is_forced, is_drop;
	char recalled[COMMIT_MIRROR_MAX]; /* TAKE: ""; or the mirror whose source owns the disk in that epoch */
	uint64_t recalled_epoch;
	uint64_t number;       /* REMOVE, SETTLE: the operation */
	char id[64];           /* FORGET; REMOVE that was asked for */
	struct domain *d;      /* of a running job */
	uint64_t started_ns;
	struct error error;    /* the answer; err 0: good */
	step_fn *after;        /* of a step made of steps: stack.c's, handover.c's and operation.c's, one each */
	step_fn *revived;
	bool was_revived;      /* ACTIVATE: it was looked for one */
	char *journal;         /* owned: to be removed */
	step_fn *handed_over, *taken_out, *given_up, *owned, *left, *committed, *saved, *forgiven, *logged, *swapped;
	struct commit_verdict verdict;
	struct commit_record record; /* to be durable: stack_own()'s */
	struct domain *cut;    /* whose server is being shut down */
	struct error barrier;  /* its outcome */
	unsigned under_way;    /* of what a barrier does at once */
	void (*flushed_beside)(struct vdi *v, int err);
	bool barrier_was_good;
	bool is_flushed;       /* this disk, and nobody has written since */
	bool will_save;        /* DEACTIVATE: it writes domains.json last; nobody before it needs to */

	/* JOB_MIRROR: until its start. The operation answers, not the job. JOB_VERIFY. */
	char *remote;          /* owned */
	bool is_copy, is_sync, is_resume, has_only;
	struct extents only;
	uint64_t base;         /* the log's id, or 0 */
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

	/* JOB_TRACK, JOB_EXPECT */
	bool is_wanted, is_final; /* final: source_log()'s */
	char *save;            /* owned: only save it there */
	struct layer *untracked; /* owned: taken out, and to be drained */

	/* JOB_DEVICE */
	char backend[VDI_BACKEND_MAX];
	bool is_eager, is_unplugged;
	step_fn *unplugged;    /* of any job: guest_device_stop()'s */

	/* JOB_FIGURES */
	char vm[FIGURES_VM_MAX], device[FIGURES_DEVICE_MAX];

	/* JOB_LINK */
	struct question *question; /* borrowed */

	/* JOB_LISTEN */
	struct listener listener; /* its keys: once they are loaded */
	const struct nbdsrv_tls *tls; /* the caller's, until done; NULL: plain */
	uint16_t *bound;       /* likewise */

	TAILQ_HEAD(, job_waiter) waiters;
	TAILQ_ENTRY(job) link;
};
TAILQ_HEAD(job_list, job);

/* How a file is written: for this host's life; whole or not at all, durable; the same, in place. */
enum file_kind { FILE_FOR_HOST, FILE_REPLACED, FILE_IN_SLOTS };

struct vdi {
	struct loop *loop;     /* borrowed */
	char *id, *path, *run_dir; /* owned */
	void (*on_empty)(void *arg), (*on_lost)(void *arg), (*on_closed)(void *arg);
	void *arg;

	TAILQ_HEAD(, domain) domains;
	size_t domain_count;

	struct owner owner;        /* whose the disk is; as it was when it was open last */
	struct envoy envoy;
	unsigned envoy_ms;         /* how long it tries */
	struct far far;

	/* the stack: gate -> [op->mirror] -> [cbt] -> [overlay] -> disk; all or nothing is open */
	struct layer *gate, *disk; /* owned */
	struct layer *cbt;         /* owned; NULL: changes are not tracked */
	struct import import;
	struct layer *lower;       /* owned: a gate under op's mirror, while the disk is paused */
	bool is_read_only;         /* the disk is open so */
	struct tenancy tenancy;
	struct budget budget;
	bool is_refusing;          /* the gate, after a handover */
	bool is_watched;           /* vdi_watch() */
	struct iobuf_pool *pool;   /* owned */
	struct loop_timer *pool_timer; /* owned: it is to be trimmed */

	struct operation *op;      /* the live one; in operations too */
	struct operation_list operations; /* oldest first */
	uint64_t last_number;
	TAILQ_HEAD(, news) news;
	struct verification *verification; /* the living one; in verifications too */
	TAILQ_HEAD(, verification) verifications; /* owned; oldest first */
	char *owed;                /* owned: the sentence the next last deactivation raises */
	char owed_by[64];          /* ... of this operation */
	int64_t owed_since;

	struct job_list jobs;
	struct job *job;           /* the running one, not in jobs */
	struct loop_task run;
	bool is_stopping, has_resumed;
	struct remains remains;
	struct loop_timer *resume_timer; /* owned */
	struct loop_timer *figures_timer; /* owned; NULL: nobody asked yet */

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
	enum file_kind file_kind;
};

#include "vdi/vdi-steps.h"

#endif
