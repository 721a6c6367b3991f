/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * loop - see loop.h
 *
 *      uv_run: timers -> prepare ----------------------------> poll -> callbacks -> timers ...
 *                           |  tasks, hooks, until quiet         ^
 *                           |  spin: pollers, tasks, hooks      |
 *                           |  pollers hear that it sleeps -----'
 *
 * libuv runs the prepare handle right before it sleeps: all of a turn's work is settled there.  If a hook deferred more work
 * the turn goes on; only when nothing is left may the loop sleep.
 *
 * Spinning.  A sleep and a wake-up cost 10 to 50 us on a virtual machine, as much as a disk write.  While a guest is being
 * served (loop_expect_work) the pollers are asked for up to SPIN_NS before sleeping: as long as a write into a hole of a file
 * takes, which the kernel hands to a worker.  Whether that pays is measured: a spin that found work adds to the credit, one
 * that did not takes from it, and without credit the loop sleeps at once, trying again now and then.
 * After each question without an answer the processor is offered to whoever waits for it: the client, a worker of the
 * kernel.  Often they are who has the answer.  If it is gone for long somebody else has work to do with it; then sleeping is
 * better also for us, as a sleeper that is woken goes before those who compute, and the credit falls fast.
 */
#include "loop/loop.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "loop/uv-loop.h"

#define SPIN_NS 150000u
#define CROWDED_NS 500000u /* one question took so long: the processor was given to somebody who needs it */
#define SPIN_PATIENCE_NS (2 * NS_PER_MS) /* after the last request nobody is expected any more */
#define CREDIT_MAX 64
#define CREDIT_RETRY 256 /* sleeps without credit before another try */

TAILQ_HEAD(task_list, loop_task);
TAILQ_HEAD(hook_list, loop_hook);
TAILQ_HEAD(poller_list, loop_poller);
SLIST_HEAD(signal_list, loop_signal);

struct loop {
	uv_loop_t uv;
	uv_prepare_t prepare;
	struct task_list tasks;
	struct hook_list hooks;
	struct poller_list pollers;
	struct loop_hook *next_hook;     /* of the running round: removal-safe */
	struct loop_poller *next_poller;
	struct signal_list signals;      /* owned; closed by loop_free */
	uint64_t expected_ns;            /* when loop_expect_work() was last called */
	int credit;
	unsigned skipped;
	bool is_stopping;
};

struct loop_watch {
	uv_poll_t uv;
	loop_watch_fn *fn;
	void *arg;
	int events;
	bool is_closing;
};

struct loop_timer {
	uv_timer_t uv;
	loop_timer_fn *fn;
	void *arg;
};

struct loop_signal {
	uv_signal_t uv;
	void (*fn)(void *arg);
	void *arg;
	SLIST_ENTRY(loop_signal) link;
};

uint64_t loop_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uv_loop_t *loop_uv(struct loop *l)
{
	return &l->uv;
}

void loop_run_tasks(struct loop *l)
{
	struct loop_task *t;

	while ((t = TAILQ_FIRST(&l->tasks))) {
		TAILQ_REMOVE(&l->tasks, t, link);
		t->is_posted = false;
		t->run(t);
	}
}

/* Tasks, hooks, and again while a hook deferred more. */
static void settle(struct loop *l)
{
	do {
		loop_run_tasks(l);
		for (struct loop_hook *h = TAILQ_FIRST(&l->hooks); h; h = l->next_hook) {
			l->next_hook = TAILQ_NEXT(h, link);
			h->run(h);
		}
		l->next_hook = NULL;
	} while (!TAILQ_EMPTY(&l->tasks));
}

static bool ask_pollers(struct loop *l)
{
	bool is_found = false;

	for (struct loop_poller *p = TAILQ_FIRST(&l->pollers); p; p = l->next_poller) {
		l->next_poller = TAILQ_NEXT(p, link);
		is_found |= p->poll(p);
	}
	l->next_poller = NULL;
	return is_found;
}

static void tell_pollers(struct loop *l)
{
	for (struct loop_poller *p = TAILQ_FIRST(&l->pollers); p; p = TAILQ_NEXT(p, link))
		if (p->sleep)
			p->sleep(p);
}

/* Asks until SPIN_NS passed without an answer. Found work is done at once and starts the time anew, but now and then the
 * loop must see its other descriptors and timers. */
static void spin(struct loop *l)
{
	uint64_t start_ns = loop_now_ns(), last_ns = start_ns, now_ns = start_ns;

	while (now_ns - last_ns < SPIN_NS && now_ns - start_ns < NS_PER_MS && !l->is_stopping) {
		uint64_t asked_ns = now_ns;

		if (ask_pollers(l)) {
			settle(l);
			last_ns = now_ns = loop_now_ns();
			l->credit = MIN(l->credit + 1, CREDIT_MAX);
			continue;
		}
		sched_yield();
		now_ns = loop_now_ns();
		if (now_ns - asked_ns >= CROWDED_NS) {
			l->credit /= 2;
			return;
		}
	}
	if (now_ns - last_ns >= SPIN_NS)
		l->credit = MAX(l->credit - 2, 0);
}

static bool should_spin(struct loop *l)
{
	if (TAILQ_EMPTY(&l->pollers) || l->expected_ns == 0 || l->is_stopping)
		return false;
	if (loop_now_ns() - l->expected_ns > SPIN_PATIENCE_NS)
		return false;
	if (l->credit > 0)
		return true;
	if (++l->skipped < CREDIT_RETRY)
		return false;
	l->skipped = 0;
	return true;
}

static void on_prepare(uv_prepare_t *prepare)
{
	struct loop *l = prepare->data;

	settle(l);
	if (should_spin(l))
		spin(l);
	tell_pollers(l);
}

struct loop *loop_new(void)
{
	struct loop *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	if (uv_loop_init(&l->uv) != 0) {
		free(l);
		return NULL;
	}
	TAILQ_INIT(&l->tasks);
	TAILQ_INIT(&l->hooks);
	TAILQ_INIT(&l->pollers);
	SLIST_INIT(&l->signals);
	l->credit = CREDIT_MAX / 2;
	l->prepare.data = l;
	uv_prepare_init(&l->uv, &l->prepare);
	uv_prepare_start(&l->prepare, on_prepare);
	return l;
}

void loop_run(struct loop *l)
{
	while (!l->is_stopping)
		uv_run(&l->uv, UV_RUN_ONCE);
	l->is_stopping = false;
}

void loop_stop(struct loop *l)
{
	l->is_stopping = true;
	uv_stop(&l->uv);
}

static void free_handle(uv_handle_t *handle)
{
	free(handle->data);
}

void loop_free(struct loop *l)
{
	struct loop_signal *s;

	if (!l)
		return;
	loop_run_tasks(l);
	assert(TAILQ_EMPTY(&l->hooks) && TAILQ_EMPTY(&l->pollers));
	uv_close((uv_handle_t *)&l->prepare, NULL);
	while ((s = SLIST_FIRST(&l->signals))) {
		SLIST_REMOVE_HEAD(&l->signals, link);
		uv_close((uv_handle_t *)&s->uv, free_handle);
	}
	/* Closing handles (freed watches and timers) need turns to finish; so does what is in the pool, and what that posts. */
	do {
		uv_run(&l->uv, UV_RUN_DEFAULT);
		loop_run_tasks(l);
	} while (uv_loop_alive(&l->uv));
	if (uv_loop_close(&l->uv) != 0)
		log_error("the event loop was freed with handles still open: this is a bug in sxm");
	free(l);
}

void loop_defer(struct loop *l, struct loop_task *t)
{
	if (t->is_posted)
		return;
	t->is_posted = true;
	TAILQ_INSERT_TAIL(&l->tasks, t, link);
}

void loop_defer_cancel(struct loop *l, struct loop_task *t)
{
	if (!t->is_posted)
		return;
	TAILQ_REMOVE(&l->tasks, t, link);
	t->is_posted = false;
}

static int start_watch(struct loop_watch *w);

/* A socket with an error pending (its peer left and had not read everything) is an error to libuv, which stops watching it. It
 * may still have bytes to be read, and the error goes with the next call that returns it: so it is watched on. */
static void on_poll(uv_poll_t *poll, int status, int uv_events)
{
	struct loop_watch *w = poll->data;
	int events = 0;

	if (uv_events & UV_READABLE)
		events |= LOOP_IN;
	if (uv_events & UV_WRITABLE)
		events |= LOOP_OUT;
	if (status < 0 || (uv_events & UV_DISCONNECT))
		events |= LOOP_HUP;
	if (UNLIKELY(status < 0) && w->events)
		start_watch(w);
	w->fn(w->arg, events);
}

static int start_watch(struct loop_watch *w)
{
	int uv_events = UV_DISCONNECT;

	if (w->events & LOOP_IN)
		uv_events |= UV_READABLE;
	if (w->events & LOOP_OUT)
		uv_events |= UV_WRITABLE;
	return uv_poll_start(&w->uv, uv_events, on_poll);
}

struct loop_watch *loop_watch_new(struct loop *l, int fd, int events, loop_watch_fn *fn, void *arg)
{
	struct loop_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	*w = (struct loop_watch){ .fn = fn, .arg = arg, .events = events };
	if (uv_poll_init(&l->uv, &w->uv, fd) != 0) {
		free(w);
		return NULL;
	}
	w->uv.data = w;
	if (events && start_watch(w) != 0) {
		loop_watch_free(w);
		return NULL;
	}
	return w;
}

void loop_watch_set(struct loop_watch *w, int events)
{
	if (w->events == events || w->is_closing)
		return;
	w->events = events;
	if (events)
		start_watch(w);
	else
		uv_poll_stop(&w->uv);
}

void loop_watch_free(struct loop_watch *w)
{
	if (!w)
		return;
	assert(!w->is_closing);
	w->is_closing = true;
	uv_poll_stop(&w->uv);
	uv_close((uv_handle_t *)&w->uv, free_handle);
}

static void on_timer(uv_timer_t *timer)
{
	struct loop_timer *t = timer->data;

	t->fn(t->arg);
}

struct loop_timer *loop_timer_new(struct loop *l, loop_timer_fn *fn, void *arg)
{
	struct loop_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->fn = fn;
	t->arg = arg;
	uv_timer_init(&l->uv, &t->uv);
	t->uv.data = t;
	return t;
}

void loop_timer_set(struct loop_timer *t, uint64_t ms)
{
	/* libuv counts from the time it cached at the start of the turn. */
	uv_update_time(t->uv.loop);
	uv_timer_start(&t->uv, on_timer, ms, 0);
}

void loop_timer_clear(struct loop_timer *t)
{
	uv_timer_stop(&t->uv);
}

void loop_timer_free(struct loop_timer *t)
{
	if (!t)
		return;
	uv_timer_stop(&t->uv);
	uv_close((uv_handle_t *)&t->uv, free_handle);
}

void loop_hook_add(struct loop *l, struct loop_hook *h)
{
	TAILQ_INSERT_TAIL(&l->hooks, h, link);
}

void loop_hook_remove(struct loop *l, struct loop_hook *h)
{
	if (l->next_hook == h)
		l->next_hook = TAILQ_NEXT(h, link);
	TAILQ_REMOVE(&l->hooks, h, link);
}

void loop_poller_add(struct loop *l, struct loop_poller *p)
{
	TAILQ_INSERT_TAIL(&l->pollers, p, link);
}

void loop_poller_remove(struct loop *l, struct loop_poller *p)
{
	if (l->next_poller == p)
		l->next_poller = TAILQ_NEXT(p, link);
	TAILQ_REMOVE(&l->pollers, p, link);
}

void loop_expect_work(struct loop *l)
{
	l->expected_ns = loop_now_ns();
}

static void on_signal(uv_signal_t *handle, int signum)
{
	struct loop_signal *s = handle->data;

	(void)signum;
	s->fn(s->arg);
}

int loop_on_signal(struct loop *l, int signum, void (*fn)(void *arg), void *arg)
{
	struct loop_signal *s = calloc(1, sizeof(*s));

	if (!s)
		return -1;
	s->fn = fn;
	s->arg = arg;
	uv_signal_init(&l->uv, &s->uv);
	s->uv.data = s;
	SLIST_INSERT_HEAD(&l->signals, s, link);
	return uv_signal_start(&s->uv, on_signal, signum) == 0 ? 0 : -1;
}
