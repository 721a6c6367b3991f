/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey - a move of one or several disks, all of them or none, that whoever drives it may die of at any moment
 *
 *      planned - made - receiving - mirrored - synced - verified - switching - moved - started - kept - done
 *          '------ undone by --abort -----------------------'         |          '---- only forward ----'
 *                                                       the decision, on record (base/decision.h)
 *
 * What stands in SXM_STATE_DIR/journeys/<id>.json is the last step that is done, before it is said and before the next is begun.
 * Each step may be done again. A journey is driven by one program at a time (flock), a disk is in one journey at a time.
 */
#ifndef SXM_MIGRATE_JOURNEY_H
#define SXM_MIGRATE_JOURNEY_H

#include <signal.h>

#include "base/compiler.h"
#include "base/error.h"
#include "base/jsonspec.h"
#include "migrate/carrier.h"
#include "migrate/deadline.h"
#include "migrate/peer.h"
#include "migrate/plan.h"
#include "migrate/tunnel.h"
#include "migrate/view.h"

enum journey_step {
	JOURNEY_PLANNED, JOURNEY_MADE, JOURNEY_RECEIVING, JOURNEY_MIRRORED, JOURNEY_SYNCED, JOURNEY_VERIFIED, JOURNEY_SWITCHING,
	JOURNEY_MOVED, JOURNEY_STARTED, JOURNEY_KEPT, JOURNEY_DONE, JOURNEY_ABORTING, JOURNEY_ABORTED,
};
const char *journey_step_name(enum journey_step step);

/* --- the record; strings are owned, never NULL once it was made or read */

struct journey_disk {
	char *name, *description, *uri, *id, *sr, *key;
	char *domain;    /* who writes to it here */
	bool is_ours;    /* that domain is the journey's own: no guest had the disk */
	char *base;      /* "": the mark of the move that brought it here, whose kept source is there */
	char *log;       /* of base: the log of what changed since; "": all is sent */
	bool is_tracked; /* its changes are noted for others: the way back sends all */
	bool stays;      /* it was decided that it moves, and it is owned here: taken back */
	int64_t size_bytes;
	char *far_key, *far_uri, *far_id; /* "": not made yet */
	char *operation; /* "": none yet */
	int64_t port;    /* where it listens there; 0: nowhere, or not yet */
	char *vm_device; /* which of the VM's devices has it; NULL: no VM goes with it */
	char *vm_content; /* the volume's content_id while that VM has it; NULL: not known */
};

struct journey_record {
	int64_t format;     /* of this record: 1 */
	char *id, *step, *why;
	int64_t started_ms;
	char *host;         /* as people say it */
	char *kind;         /* of the carrier */
	struct jsonspec_list argv;
	char *user, *config;
	int64_t port;
	char *transport;    /* of the disks' bytes: ssh, tcp, tcp+tls */
	char *address;      /* of the far host, numeric; "": not tcp, or not found yet */
	bool is_squeezed;   /* over ssh: they are made shorter on their way */
	char *certificates; /* for tcp+tls: their directory, on both hosts; "": a key that is made for this move */
	char *far_sr, *far_domain; /* the domain to be started there; "": none */
	char *receiver;     /* the domain that receives */
	char *group;        /* "": no handover was begun */
	int64_t attempt;
	char *switchover;   /* auto, manual, at */
	int64_t at_s;       /* of at, and finish-by */
	struct jsonspec_list on_pause, on_resume;
	bool is_paused;     /* on_pause was run, and on_resume not; or the VM may stand still, or be in two places */
	char *vm_here, *vm_there; /* the QMP sockets of its QEMUs; NULL: no VM goes with the disks */
	bool vm_ran;        /* before it was paused */
	bool is_vm_lost;    /* wherever the disks are, the VM runs nowhere, and will not */
	int64_t bandwidth_bytes_s, keep_s, until_s;
	bool will_verify, is_unverified; /* verification was asked for; it left something open */
	struct jsonspec_records disks; /* struct journey_disk */
};
extern const struct jsonspec journey_record_spec;

#define JOURNEY_ID_MAX 20
#define JOURNEY_DISKS_MAX 64u

/* SXM_STATE_DIR/journeys/<id><suffix>: heap; NULL: out of memory. */
char *journey_path(const char *id, const char *suffix);
bool journey_id_is_valid(const char *id);
void journey_make_id(char id[static JOURNEY_ID_MAX]);
/* SXM_RUN_DIR/journeys/<id>: its sockets, and what others tell who drives it. Heap; NULL: out of memory. */
char *journey_run_path(const char *id, const char *name);

int journey_read(const char *id, struct journey_record *r, struct error *e);
/* Durable. */
int journey_write(const struct journey_record *r, struct error *e);
void journey_forget(const char *id);
/* A descriptor; -1 + e: EBUSY: somebody drives it just now. */
int journey_lock(const char *id, struct error *e);
/* Somebody does. To be looked at for people: it may be otherwise in the next moment. */
bool journey_is_driven(const char *id);
/* A descriptor: while it is held no other move begins. */
int journey_lock_all(struct error *e);
/* All there are, by id; jsonspec_list. */
int journey_list(struct jsonspec_list *ids, struct error *e);
/* The one that has this disk and is not over: its id, heap; NULL: none has. */
char *journey_of_disk(const char *uri);
enum journey_step journey_step_of(const struct journey_record *r);
/* It is over: done or aborted. */
bool journey_is_over(const struct journey_record *r);

/* --- driving it */

/* What whoever drives it hears, and says. */
struct journey_watch {
	void (*show)(void *arg, const struct move_view *v);  /* each interval; may be NULL */
	void (*say)(void *arg, const char *text);            /* a line; may be NULL */
	bool (*is_wanted_now)(void *arg);                    /* manual switchover: now; may be NULL */
	void *arg;
	const volatile sig_atomic_t *interrupts;             /* how often Ctrl-C was pressed */
	int64_t patience_s;                                  /* how long the far host may be away */
	bool is_forced;                                      /* release: the far host is gone for good, and is not asked */
};

struct journey {
	struct journey_record r; /* owned */
	int lock;                /* owned */
	const struct journey_watch *watch; /* borrowed */
	struct carrier *local;   /* owned */
	struct tunnel *tunnel;   /* owned; NULL: the far host was not reached yet */
	struct peer here, there;
	struct peer *disk_here;  /* owned: one for each disk, to ask all at once */
	struct move_view view;
	char limit[24];          /* as the disks were told last */
	struct deadline deadline;
	int memory;              /* owned: the way of a VM's memory that we began; its QEMU has it, too. 0: none */
};

enum journey_outcome {
	JOURNEY_OK = 0,
	JOURNEY_UNDONE = 1,      /* it was refused, or failed and is undone */
	JOURNEY_INTERRUPTED = 3, /* it can be resumed */
	JOURNEY_LEFT = 4,        /* moved; something was left, and said */
};

/* A journey of that record, which becomes its own; lock too. -1 + e: as for peers; nothing is reached yet. */
int journey_open(struct journey *j, struct journey_record *r, int lock, const struct journey_watch *watch, struct error *e);
void journey_close(struct journey *j);
/* The far host, by the record's carrier, or that one, which becomes the journey's. */
int journey_reach(struct journey *j, struct carrier *carrier, struct error *e);
/* A new one: its disks, which are as many as the record's and have no names yet, are those. The plan says whether it may begin;
 * it is the caller's to clear. -1 + e. */
int journey_plan(struct journey *j, const char *const *sources, bool will_probe, struct plan *p, struct error *e);
/* It may: on record. */
int journey_begin(struct journey *j, struct error *e);
/* From where it is to its end. e says why not. */
enum journey_outcome journey_run(struct journey *j, struct error *e);
/* Back to its beginning. EALREADY: it is decided; only forward. */
enum journey_outcome journey_abort(struct journey *j, struct error *e);
/* The kept source goes, when the far host has said that it has the disk. */
enum journey_outcome journey_release(struct journey *j, struct error *e);

/* The rate of one that runs: whoever drives it looks each interval. */
int journey_tell_bandwidth(const char *id, uint64_t bytes_s, struct error *e);
/* The manual switchover is wanted now. */
int journey_tell_go(const char *id, struct error *e);

#endif
