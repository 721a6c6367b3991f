/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * driver - see driver.h
 *
 *      events of the store ---.                        .--> the store, on a pool thread, one question at a time
 *      processes' records ----+--> broker --> step() --+--> processes' control sockets, from the loop
 *      ends of all that ------'                        '--> verbs, as children
 *
 * Everything that was reported is taken at once, a bounded number a turn, and only marks whom it is about; what is done about it
 * comes in turns (broker.c).  So it matters little how much of it there is, or from whom.
 *
 * Can fail: the store.  It is opened again each second, and after some failures in a row, and then everything is looked at.
 */
#include "broker/driver-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "broker/running.h"

#define EVENTS_PER_TURN 512u
#define OPEN_AGAIN_MS 1000u
#define LOST_MAX 3u
#define ASKS_MAX 256u
#define ERRANDS_MAX 8u

uint64_t driver_now_ms(void)
{
	return loop_now_ns() / NS_PER_MS;
}

void driver_step(struct driver *d)
{
	loop_defer(d->spec.loop, &d->task);
}

/* --- the store's events */

static void on_event(void *arg, int events UNUSED)
{
	struct driver *d = arg;
	char path[STORE_EVENT_MAX];
	struct broker_key key;

	for (unsigned n = 0; n < EVENTS_PER_TURN && d->ops->event(d->store, path); n++) {
		if (!*path) {
			broker_look(d->broker);
			continue;
		}
		if (strcmp(path, "@releaseDomain") == 0) {
			broker_released(d->broker);
			continue;
		}
		switch (facts_of_path(&d->root, path, &key)) {
		case FACTS_ALL: broker_look(d->broker); break;
		case FACTS_DOMAIN: broker_changed_domain(d->broker, key.domain); break;
		case FACTS_DEVICE: broker_changed(d->broker, key); break;
		case FACTS_NOTHING: break;
		}
	}
	driver_step(d);
}

static void drop_store(struct driver *d)
{
	loop_watch_free(take_ptr(&d->watch));
	if (d->store)
		d->ops->close(take_ptr(&d->store));
}

/* --- questions to the store */

static void work(struct offload *o)
{
	struct driver_job *j = container_of(o, struct driver_job, offload);
	struct driver *d = j->driver;
	const struct broker_action *a = &j->action;
	char path[FACTS_PATH_MAX];

	if (j->is_open) {
		j->store = d->ops->open(&d->root, &j->error);
		return;
	}
	switch (a->what) {
	case BROKER_LIST:
		facts_root_path(&d->root, path);
		d->ops->numbers(d->store, path, j->number, BROKER_LIST_MAX, &j->count, &j->error);
		break;
	case BROKER_LOOK:
		facts_domain_path(&d->root, a->key.domain, path);
		if (d->ops->numbers(d->store, path, j->number, BROKER_LIST_MAX, &j->count, &j->error) == 0)
			j->is_alive = d->ops->is_alive(d->store, a->key.domain);
		break;
	case BROKER_READ:
		d->ops->read(d->store, &d->root, a->key, j->value, &j->is_alive, &j->error);
		break;
	default:
		j->err = d->ops->settle(d->store, &d->root, a->key);
		break;
	}
}

static void opened(struct driver *d)
{
	struct driver_job *j = &d->job;
	static struct log_limit limit = LOG_LIMIT(2);

	d->store = take_ptr(&j->store);
	if (d->store)
		d->watch = loop_watch_new(d->spec.loop, d->ops->fd(d->store), LOOP_IN, on_event, d);
	if (!d->watch) {
		if (log_allowed(&limit))
			log_warn("xenstore cannot be reached yet: %s", j->error.err ? j->error.text : "out of memory");
		drop_store(d);
		d->open_ms = driver_now_ms() + OPEN_AGAIN_MS;
		return;
	}
	d->lost = 0;
	broker_look(d->broker);
	if (d->was_ready)
		return;
	d->was_ready = true;
	driver_recall_taken(d);
	watching_recall_all(d);
	d->spec.on_ready(d->spec.arg);
}

static void end_read(struct driver *d)
{
	struct driver_job *j = &d->job;
	struct broker_facts facts;

	if (j->error.err) {
		broker_not_read(d->broker, j->action.key, driver_now_ms());
		return;
	}
	facts_read(&facts, &d->root, j->action.key, j->value);
	facts.is_alive = j->is_alive;
	broker_read_is(d->broker, j->action.key, &facts, driver_now_ms());
}

static void end_job(struct driver *d)
{
	struct driver_job *j = &d->job;
	const struct broker_action *a = &j->action;

	switch (a->what) {
	case BROKER_LIST:
		if (j->error.err)
			broker_not_listed(d->broker, 0, false, driver_now_ms());
		else
			broker_listed(d->broker, j->number, j->count);
		break;
	case BROKER_LOOK:
		if (j->error.err)
			broker_not_listed(d->broker, a->key.domain, true, driver_now_ms());
		else
			broker_looked(d->broker, a->key.domain, j->number, j->count, j->is_alive);
		break;
	case BROKER_READ:
		end_read(d);
		break;
	default:
		if (!j->err)
			log_info("%u/%u: nobody serves it and its guest is gone: it is closed", a->key.domain, a->key.device);
		broker_ended(d->broker, a->key, j->err == EAGAIN ? 0 : j->err, driver_now_ms());
		break;
	}
}

static void worked(struct offload *o)
{
	struct driver_job *j = container_of(o, struct driver_job, offload);
	struct driver *d = j->driver;
	static struct log_limit limit = LOG_LIMIT(3);

	d->is_busy = false;
	if (j->is_open) {
		opened(d);
	} else {
		if (j->error.err && log_allowed(&limit))
			log_warn("xenstore: %s", j->error.text);
		d->lost = j->error.err ? d->lost + 1 : 0;
		end_job(d);
		if (d->lost >= LOST_MAX)
			drop_store(d);
	}
	driver_step(d);
}

static void submit(struct driver *d)
{
	struct driver_job *j = &d->job;

	error_clear(&j->error);
	j->err = 0;
	d->is_busy = true;
	if (offload_submit(d->spec.loop, &j->offload) == -1) { /* no memory for that: here, then */
		work(&j->offload);
		worked(&j->offload);
	}
}

static void step_store(struct driver *d, uint64_t now_ms, uint64_t *wait_ms)
{
	uint64_t ms;

	if (d->is_busy)
		return;
	d->job.is_open = !d->store;
	if (d->job.is_open && now_ms < d->open_ms) {
		*wait_ms = MIN(*wait_ms, d->open_ms - now_ms);
		return;
	}
	if (!d->job.is_open) {
		d->job.action = broker_next(d->broker, BROKER_STORE, now_ms, &ms);
		*wait_ms = MIN(*wait_ms, ms);
		if (d->job.action.what == BROKER_NOTHING)
			return;
	}
	submit(d);
}

static void on_task(struct loop_task *t)
{
	struct driver *d = container_of(t, struct driver, task);
	uint64_t now_ms = driver_now_ms(), wait_ms = UINT64_MAX, ms;
	struct broker_action a;

	if (d->is_stopping) {
		if (!d->is_busy && d->must_end) {
			d->must_end = false;
			d->spec.on_stopped(d->spec.arg);
		}
		return;
	}
	step_store(d, now_ms, &wait_ms);
	ms = UINT64_MAX;
	while (d->asking < ASKS_MAX && (a = broker_next(d->broker, BROKER_ASK, now_ms, &ms)).what != BROKER_NOTHING)
		driver_ask(d, &a);
	wait_ms = MIN(wait_ms, ms);
	ms = UINT64_MAX;
	while (d->running < ERRANDS_MAX && (a = broker_next(d->broker, BROKER_VERB, now_ms, &ms)).what != BROKER_NOTHING)
		driver_run(d, &a);
	wait_ms = MIN(wait_ms, ms);
	if (wait_ms != UINT64_MAX)
		loop_timer_set(d->timer, wait_ms);
	else
		loop_timer_clear(d->timer);
}

static void on_timer(void *arg)
{
	driver_step(arg);
}

/* --- the beginning and the end */

/* One at a time for each kind: whether one is there is whether somebody has this lock. */
static int take_lock(struct driver *d, struct error *e)
{
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *path = NULL;

	if (asprintf(&dir, "%s/" DRIVER_DIR, d->spec.run_dir) < 0)
		dir = NULL;
	if (!dir || asprintf(&path, "%s/%s.lock", dir, d->root.kind) < 0)
		return error_set(e, ENOMEM, "out of memory");
	if (proc_make_dir(d->spec.run_dir, e) == -1 || proc_make_dir(dir, e) == -1)
		return -1;
	d->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (d->lock < 0)
		return error_errno(e, errno, "%s", path);
	if (flock(d->lock, LOCK_EX | LOCK_NB) == -1)
		return error_set(e, EBUSY, "another sxm-xenbus is at work on the backends of kind %s", d->root.kind);
	return 0;
}

static int begin(struct driver *d, struct error *e)
{
	if (!d->ops)
		return error_set(e, ENOTSUP, "this sxm was built without Xen's libraries (libxenstore, libxengnttab, "
				 "libxenevtchn)");
	if (!facts_kind_is_valid(d->spec.kind))
		return error_set(e, EINVAL, "%.40s is no kind of backends: a name of a-z 0-9 - _, of at most %d", d->spec.kind,
				 FACTS_KIND_MAX - 1);
	snprintf(d->root.kind, sizeof(d->root.kind), "%s", d->spec.kind);
	d->root.run_dir = d->spec.run_dir;
	if (take_lock(d, e) == -1)
		return -1;
	d->broker = broker_new(d->spec.order);
	d->timer = loop_timer_new(d->spec.loop, on_timer, d);
	if (!d->broker || !d->timer)
		return error_set(e, ENOMEM, "out of memory");
	d->watching = watching_new(d, e);
	return d->watching ? 0 : -1;
}

struct driver *driver_new(const struct driver_spec *spec, struct error *e)
{
	struct driver *d = calloc(1, sizeof(*d));

	if (!d) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	d->spec = *spec;
	d->lock = -1;
	d->ops = store_ops();
	d->job.driver = d;
	d->job.offload = (struct offload){ .work = work, .done = worked };
	d->task.run = on_task;
	if (begin(d, e) == -1) {
		driver_free(d);
		return NULL;
	}
	driver_step(d);
	return d;
}

void driver_reap(struct driver *d)
{
	running_reap();
	driver_step(d);
}

void driver_stop(struct driver *d)
{
	d->is_stopping = d->must_end = true;
	driver_step(d);
}

void driver_free(struct driver *d)
{
	if (!d)
		return;
	assert(!d->is_busy);
	loop_defer_cancel(d->spec.loop, &d->task);
	driver_cancel_asks(d);
	driver_drop_errands(d);
	drop_store(d);
	watching_free(d->watching);
	loop_timer_free(d->timer);
	broker_free(d->broker);
	if (d->lock >= 0)
		close(d->lock);
	free(d);
}
