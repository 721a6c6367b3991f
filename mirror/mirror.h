/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror - the layer that makes a far copy of the disk below it while the guest writes
 *
 *      mirror_new() -> put under the gate -> mirror_start() ... on_change() ... mirror_finish() or mirror_abort()
 *                                                                      -> take out from under the gate -> layer_close()
 */
#ifndef SXM_MIRROR_MIRROR_H
#define SXM_MIRROR_MIRROR_H

#include "base/error.h"
#include "block/extents.h"
#include "block/layer.h"
#include "loop/loop.h"
#include "mirror/core.h"

struct digest;
struct remote_ask;

/* What a mirror must find again to go on with its links after its process has died (I12). */
struct mirror_peer {
	uint64_t generation;             /* of the last link that was made, or begun */
	uint64_t far_boot, far_process;  /* of the far side as it was last met; 0: not known */
	uint64_t far_since;              /* the generation with which it began to receive; 0: not known */
	uint64_t far_volume;             /* its id; 0: not known */
	bool is_foreign;                 /* it was met, and is no sxm */
};

struct mirror_spec {
	struct loop *loop;         /* borrowed */
	struct layer *below;       /* borrowed: the disk */
	const char *uri;           /* copied */
	bool is_copy;              /* Data.copy: ends by itself, flushed */
	const struct extents *only;/* COPY: its items of type 0, nothing else (copied); NULL: all */
	uint64_t lag_bytes;        /* 0: 16 MiB */
	uint32_t lag_ms;           /* 0: 50 */
	unsigned connect_wait_ms;  /* 0: 5000 */
	unsigned handshake_ms;     /* 0: 20000; for the far side to greet, and for each answer while connecting; 5000 at most
	                              where there was a link before */
	unsigned dead_ms;          /* 0: 30000; no progress for so long with requests in flight: the link is lost (an sxm far
	                              side, where it can be made anew: 5000 at most) */
	unsigned give_up_ms;       /* 0: 120000, for a unix socket 10000: so long without a link, and the operation fails */
	bool is_sync;              /* see mirror_set_sync() */
	bool can_remember;         /* a link that was there and is lost for good does not end it: status says is_remembering */
	bool is_remembering;       /* ... begins so: mirror_start() makes no link */
	const char *mirror_id;     /* copied; how we are called to an sxm far side; NULL: none is spoken to as such */
	uint64_t epoch;            /* in which the disk is ours */
	struct mirror_peer peer;   /* 0, or what was saved last */
	/* What is owed outlives the process and the host in these files (I11; copied); NULL: it does not. source_name and
	 * content_generation tell the source and its contents from all others. */
	const char *map_path, *marks_path, *source_name;
	uint64_t content_generation;
	/* Makes it durable, then calls done(done_arg, err) from the loop, if there is a done. NULL: nothing is kept. */
	void (*save_peer)(void *arg, const struct mirror_peer *p, void (*done)(void *done_arg, int err), void *done_arg);
	/* What an sxm far side said of its volume when a link was made or refused: status, state and epoch of HELLO's answer.
	 * NULL: nobody wants to know. It must not call back into the mirror. */
	void (*on_heard)(void *arg, uint32_t status, uint32_t state, uint64_t epoch);
	/* The state changed, or the link came or went; from the deferred queue. Ask mirror_status(). */
	void (*on_change)(void *arg);
	void *arg;
};

/* NULL + e: bad URI, no memory. Until mirror_start() it only records what is written. layer_close() wants mirror_abort()'s done
 * before, or that mirror_start() was never called; and, as always, that nothing is in flight. */
struct layer *mirror_new(const struct mirror_spec *spec, struct error *e);
/* Instead of a sweep: takes up what the files of an earlier process owe; before mirror_start(), before anything is written.
 * Guests may be let in when done(arg, NULL) comes, from the loop. An error: it cannot be taken up, and was not. */
void mirror_restore(struct layer *mirror, void (*done)(void *arg, const struct error *e), void *arg);
/* Its files stay when it is closed, for one that is restored, as long as they are true. Else they go. */
void mirror_keep_debt(struct layer *mirror);
/* Before mirror_start(): the far side has all else already. -1: no memory, and all is copied. */
int mirror_limit(struct layer *mirror, const struct extents *changed);
/* Once it stands under the gate and every request that went past it has ended. */
void mirror_start(struct layer *mirror);

struct mirror_status {
	struct core_status core;
	bool is_connected;     /* LINK_UP was reached */
	struct error why;      /* core.state FAILED: the sentence */
	char remote[256];      /* the URI, for people */
	uint64_t started_ns, ready_ns, ended_ns; /* loop_now_ns(); 0: not yet */
	uint64_t source_allocated_bytes; /* data extents at start */
	unsigned links_lost;
	bool is_sxm;           /* the far side, as it was last met */
	bool can_flush;        /* likewise: it offers FLUSH */
	unsigned version;      /* ... of x-sxm */
	bool is_up;            /* there is a link */
	bool is_reaching;      /* there is none, and one is being made */
	bool has_lost;         /* since the barrier there was one to a far side that may have lost what it had not flushed */
	bool is_remembering;   /* there is none until mirror_resume(); what is written is recorded. why: the reason */
};
void mirror_status(const struct layer *mirror, struct mirror_status *out);
/* What a good barrier says of a far side that is no sxm, and what not: a sentence. "": it is one, or was not met yet. */
const char *mirror_barrier_means(const struct mirror_status *status);

/* In sync a guest hears when both sides have its write; from now on, or no longer. */
void mirror_set_sync(struct layer *mirror, bool is_sync);

/* So many bytes a second, at most; 0: no limit. Guests' writes are counted, and do not wait for it. */
void mirror_set_limit(struct layer *mirror, uint64_t bytes);

/* It is remembering: a link is made once more. What the far side may not have is sent, if it is the one that it was: of a foreign
 * one nobody can know that. Comes to nothing: remembering again. */
void mirror_resume(struct layer *mirror);

/* The far side's URI, whole; borrowed. */
const char *mirror_uri(const struct layer *mirror);
/* Whether both sides should hold the same bytes in the range: nothing of it is owed, queued or in flight. Also when nothing will
 * be sent any more. */
bool mirror_is_settled(const struct layer *mirror, struct range r);

/* The barrier, one at a time. The gate is held and nothing is in flight above. Sends what is owed, flushes a foreign far side and
 * says goodbye to it; done(arg, NULL) then, or done(arg, error) and the mirror is as it was (or FAILED). From the deferred queue.
 * An sxm is flushed by PREPARE, which has to follow. To it the link stays, and is made anew where it is lost: the commit goes
 * over it. */
void mirror_finish(struct layer *mirror, void (*done)(void *arg, const struct error *e), void *arg);
/* The commit's half of it, for whoever owns the disk; each of these only where status says is_sxm. */
/* Asks over the link. False: there is none, done() is not called. */
bool mirror_ask(struct layer *mirror, struct remote_ask *a);
/* Of what was acknowledged on the link. False: not known (remote.h). */
bool mirror_digest(const struct layer *mirror, struct digest *out);
/* Finished: a link that was given up is made anew, if none is up or being made. */
void mirror_reach(struct layer *mirror);
/* Finished, and the far side gave the disk back: mirroring goes on, in the epoch in which the disk is ours again. */
void mirror_go_on(struct layer *mirror, uint64_t epoch);
/* Ends the operation where it stands, or does nothing to one that has ended; done() when the far side touches nothing any more.
 * Idempotent, also while one is under way (each done() is called); guests go on. A finish under way ends first, with an error. */
void mirror_abort(struct layer *mirror, void (*done)(void *arg), void *arg);

#endif
