/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * loop - time, file descriptors and tasks: a thin room over libuv
 *
 * One loop per process, one thread.  A turn:
 *
 *      fd and timer callbacks -> deferred tasks until none is left -> before-sleep hooks -> (spin) -> sleep
 *                                       ^-------------------------------------'  a hook may defer
 *
 * Completions are posted as deferred tasks, never run in the submitter's stack.  The hooks are where a batch leaves: the
 * disk engine submits its queue, a connection sends its replies, libnbd's direction is read again.
 * Spinning: for some microseconds after the last guest request the loop asks its pollers again before it sleeps, because a
 * wake-up costs more than the answer; it stops by itself where that does not pay.
 */
#ifndef SXM_LOOP_LOOP_H
#define SXM_LOOP_LOOP_H

#include <sys/queue.h>

#include "base/compiler.h"

struct loop;

struct loop *loop_new(void);  /* NULL: out of memory or descriptors */
void loop_run(struct loop *l); /* until loop_stop() */
void loop_stop(struct loop *l);
void loop_free(struct loop *l); /* every watch, timer and hook must be gone */

/* Monotonic clock, read now (not cached). */
uint64_t loop_now_ns(void);

/* --- deferred tasks: embedded, owned by the caller, run once per post, in order; posting a posted task does nothing. */
struct loop_task {
	void (*run)(struct loop_task *t);
	bool is_posted;
	TAILQ_ENTRY(loop_task) link;
};
void loop_defer(struct loop *l, struct loop_task *t);
void loop_defer_cancel(struct loop *l, struct loop_task *t);

/* --- file descriptors. events: LOOP_IN | LOOP_OUT (LOOP_HUP is reported unasked). */
enum { LOOP_IN = 1, LOOP_OUT = 2, LOOP_HUP = 4 };
struct loop_watch;
typedef void loop_watch_fn(void *arg, int events);
/* The fd stays the caller's and must outlive the watch. NULL: out of memory, or an fd that cannot be polled. */
struct loop_watch *loop_watch_new(struct loop *l, int fd, int events, loop_watch_fn *fn, void *arg);
void loop_watch_set(struct loop_watch *w, int events); /* 0: silent; cheap when unchanged */
void loop_watch_free(struct loop_watch *w);            /* NULL allowed; from inside its own callback too */

/* --- timers, one shot. */
struct loop_timer;
typedef void loop_timer_fn(void *arg);
struct loop_timer *loop_timer_new(struct loop *l, loop_timer_fn *fn, void *arg);
void loop_timer_set(struct loop_timer *t, uint64_t ms); /* replaces an earlier one */
void loop_timer_clear(struct loop_timer *t);
void loop_timer_free(struct loop_timer *t); /* NULL allowed */

/* --- before-sleep hooks: embedded; run every turn, in the order added. */
struct loop_hook {
	void (*run)(struct loop_hook *h);
	TAILQ_ENTRY(loop_hook) link;
};
void loop_hook_add(struct loop *l, struct loop_hook *h);
void loop_hook_remove(struct loop *l, struct loop_hook *h);

/* --- pollers: asked while the loop spins; true = found work (and did it). Must not block, must be cheap.
 * sleep, which may be NULL: nobody asks any more; from now on a descriptor or a timer has to wake the loop. */
struct loop_poller {
	bool (*poll)(struct loop_poller *p);
	void (*sleep)(struct loop_poller *p);
	TAILQ_ENTRY(loop_poller) link;
};
void loop_poller_add(struct loop *l, struct loop_poller *p);
void loop_poller_remove(struct loop *l, struct loop_poller *p);
/* "A guest's request is under way": spin before the next sleep. Called by frontends per request. */
void loop_expect_work(struct loop *l);

/* --- signals. fn runs from the loop, until loop_free(). -1: out of memory, or a signal that cannot be caught. */
int loop_on_signal(struct loop *l, int signum, void (*fn)(void *arg), void *arg);

#endif
