/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror-private - what the driver's files share
 *
 *      mirror-layer.c  requests from above <-> the core's events and actions
 *      mirror-sweep.c  what the copy starts from
 *      mirror-link.c   the far side's coming and going
 *      mirror-map.c    what outlives the process
 *      mirror-end.c    finish, abort, status
 */
#ifndef SXM_MIRROR_MIRROR_PRIVATE_H
#define SXM_MIRROR_MIRROR_PRIVATE_H

#include "loop/offload.h"
#include "mirror/copy-memory.h"
#include "mirror/mirror.h"
#include "mirror/persist.h"
#include "mirror/remote.h"

/* One guest's WRITE, ZERO, TRIM or FLUSH. Two lives end it: the guest was answered, and the core gave it back. */
struct guest {
	struct core_op op;
	struct mirror *m;
	struct req *req;       /* the guest's; NULL: answered */
	struct req *local;     /* owned: the local leg */
	struct iobuf *data;    /* WRITE: a reference of ours, until RELEASE */
	uint32_t data_offset;
	struct remote_op far;
	bool is_far_busy;
	bool is_released;
	int err;               /* while delayed: what the guest will hear, */
	uint64_t due_ns;       /* ... and when */
	TAILQ_ENTRY(guest) link; /* free, or delayed */
};
TAILQ_HEAD(guest_list, guest);

/* The driver's half of one of the core's copies: tied to it at its first use, for good. */
struct copy {
	struct core_op *op;    /* the core's */
	struct mirror *m;
	struct req *read;      /* owned, while reading */
	struct copy_bytes bytes; /* from the read until the far leg's end, or the next life */
	struct remote_op far;
	bool is_far_busy;
	TAILQ_ENTRY(copy) link; /* starved */
};
TAILQ_HEAD(copy_list, copy);

/* Whoever waits for mirror_abort(). */
struct abort_waiter {
	void (*done)(void *arg);
	void *arg;
	STAILQ_ENTRY(abort_waiter) link;
};

struct mirror {
	struct layer layer;
	struct mirror_spec spec;        /* uri: ours; only: see below */
	char *uri;                      /* owned */
	struct core *core;              /* owned */
	struct core_actions actions;    /* of the running step */
	bool is_stepping;
	enum core_state state;          /* the core's, after its last REPORT */

	struct guest_list free_guests;  /* owned */
	struct guest_list delayed;      /* by due_ns */
	struct loop_timer *pacer;       /* owned: answers the delayed */
	struct loop_timer *tick;        /* owned */
	bool is_ticking;
	struct copy_memory *memory;     /* owned */
	struct copy *copies;            /* owned: CORE_COPIES_MAX */
	unsigned copies_used;
	struct copy_list starved;       /* had no memory to read into: the next tick tries again */

	/* mirror-sweep.c */
	struct req *sweep;              /* owned, while asking for extents */
	struct extents batch;           /* its answer */
	struct extents only;            /* owned: what is wanted */
	struct extents holes;           /* owned: of the source, EXTENT_ZERO */
	size_t sweep_item;              /* of only */
	uint64_t sweep_at;
	uint64_t allocated_bytes;

	/* mirror-link.c */
	char *mirror_id;                /* owned; NULL: no x-sxm is spoken */
	struct mirror_peer peer;        /* generation: of the link, or of the one being made */
	struct remote *remote;          /* owned, until its close is done */
	struct remote_op flush;
	bool is_closing;                /* remote's close is under way */
	bool is_cut;                    /* ... and was no goodbye: the core waits for the link's end */
	bool is_ending;                 /* END was said, and is not answered yet: then the link is closed */
	struct remote_ask end;
	bool is_up;
	bool was_up;                    /* once, in this process's life or in one before it: things were sent */
	bool is_connected;              /* once, in this process's life */
	bool is_sxm;                    /* the far side, as it was last met */
	unsigned version;               /* ... of x-sxm */
	struct core_event up;           /* of the link that stands: the core hears of it when it wants one */
	bool has_lost_since;            /* FINISHED: the far side of a link made since may have; the core has not heard */
	bool is_numbering;              /* save_peer is under way for the next link */
	bool is_waiting;                /* the back-off runs */
	bool is_remembering;            /* no link is wanted */
	bool is_resuming;               /* ... nor will be, if this attempt fails */
	struct loop_timer *retry;       /* owned */
	unsigned attempts, links_lost;
	uint64_t lost_ns, dice;

	/* mirror-map.c */
	char *map_path, *marks_path, *source_name; /* owned */
	struct persist *persist;        /* owned; NULL: nothing outlives the process */
	struct persist_found found;
	struct offload map_offload;
	struct error map_error;
	bool is_map_busy;               /* map_offload is under way */
	bool is_restored;               /* taken up from files: no sweep */
	bool is_map_on;                 /* the core notes what is owed */
	bool is_vouched;                /* map_task is posted, or was */
	bool keeps_files;               /* they say all that is owed */
	bool wants_files;               /* the mirror is to be taken up again */
	struct loop_task map_task, flush_task;
	unsigned markings;              /* under way */
	TAILQ_HEAD(, marking) unmarked; /* failed: until the files have gone */
	bool is_voiding;                /* ... they are going, */
	bool is_void;                   /* ... gone */
	bool is_flushing_home;
	void (*on_restored)(void *arg, const struct error *e);
	void *on_restored_arg;

	/* mirror-end.c */
	struct error cause;             /* the last thing that went wrong */
	struct error why;               /* FAILED */
	int backed_out;                 /* the barrier was given up: errno */
	struct loop_task news;
	bool has_news;                  /* on_change is owed */
	bool is_lagging;                /* as it was last told */
	void (*on_finished)(void *arg, const struct error *e);
	void *on_finished_arg;
	STAILQ_HEAD(, abort_waiter) aborts; /* owned */
	uint64_t started_ns, ready_ns, ended_ns;
};

static inline struct mirror *mirror_of(const struct layer *l)
{
	return container_of(l, struct mirror, layer);
}

/* mirror-layer.c: one event, and all that follows from it. Not from within an action. */
void mirror_step(struct mirror *m, struct core_event ev);
bool mirror_is_over(const struct mirror *m);

/* mirror-sweep.c */
void mirror_sweep_start(struct mirror *m);
void mirror_sweep_ended(struct mirror *m); /* mirror-link.c's: what follows */
void mirror_sweep_meet(struct mirror *m, const struct extents *zero); /* before the first LINK_UP */

/* mirror-link.c */
void mirror_link_start(struct mirror *m);
void mirror_link_retry(void *m); /* the timer's */
void mirror_link_drop(struct mirror *m, int err);
void mirror_link_submit(struct mirror *m, struct remote_op *op);
void mirror_link_flush(struct mirror *m);
bool mirror_link_is_gone(const struct mirror *m);
void mirror_link_status(const struct mirror *m, struct mirror_status *out);
void mirror_link_fini(struct mirror *m);

/* mirror-map.c */
void mirror_map_start(struct mirror *m); /* swept; ends in mirror_link_start() */
void mirror_map_mark(struct mirror *m, uint64_t region, uint64_t count);
void mirror_map_retire(struct mirror *m, uint64_t region, uint64_t count);
void mirror_map_flush_home(struct mirror *m);
void mirror_map_check(struct mirror *m, const struct core_status *s); /* after a step that had news */
void mirror_map_end(struct mirror *m); /* FAILED or ENDED: the files go, if nobody wants them */
bool mirror_map_is_quiet(const struct mirror *m);
void mirror_map_fini(struct mirror *m); /* after the core's end */

/* mirror-end.c */
void mirror_end_init(struct mirror *m);
void mirror_end_report(struct mirror *m, int err); /* the core's REPORT, after the step */
void mirror_end_check(struct mirror *m);           /* somebody may have been waiting for what just ended */
void mirror_end_news(struct mirror *m);            /* on_change is owed */

#endif
