/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * jobs - one change of state at a time
 *
 *      verb --job_add--> [ waiting ... ] --run--> steps of the job --job_end--> everyone who waited for it hears
 *                            ^ job_join: a parallel call for the same thing waits with the first
 *
 * Knows the queue and who waits; what a job does stands with its begin function.
 * Can fail: memory, and a process that is being stopped: then done() is called at once with the reason.
 * Invariant: at most one job runs; a job is in the list or running, never both; job_end() comes exactly once for each.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

static const char *const names[] = {
	[JOB_RESUME] = "resume", [JOB_ATTACH] = "attach", [JOB_ACTIVATE] = "activate", [JOB_DEACTIVATE] = "deactivate",
	[JOB_DETACH] = "detach", [JOB_MIRROR] = "mirror", [JOB_SETTLE] = "settle", [JOB_REMOVE] = "remove",
	[JOB_JOURNAL] = "journal",
	[JOB_LINK] = "link", [JOB_FOREIGN] = "foreign", [JOB_UNLINGER] = "unlinger", [JOB_DESTROY] = "destroy",
	[JOB_HEARD] = "heard", [JOB_LINKED] = "linked", [JOB_TAKE] = "take",
	[JOB_LISTEN] = "listen", [JOB_FORGET] = "forget", [JOB_VERIFY] = "verify", [JOB_VERIFIED] = "end of verification",
	[JOB_PREPARE] = "prepare", [JOB_FOLLOW] = "follow a group", [JOB_STOP] = "stop",
	[JOB_SNAPSHOT] = "snapshot", [JOB_RESIZE] = "resize", [JOB_TRACK] = "track", [JOB_PAUSE] = "pause",
	[JOB_IMPORT] = "import", [JOB_MERGE] = "merge", [JOB_MERGED] = "end of merging",
	[JOB_EXPECT] = "expect", [JOB_FIGURES] = "figures", [JOB_DEVICE] = "device",
};

static void (*const begin[])(struct vdi *v) = {
	[JOB_RESUME] = vdi_begin_resume,
	[JOB_ATTACH] = vdi_begin_attach,
	[JOB_ACTIVATE] = vdi_begin_activate,
	[JOB_DEACTIVATE] = vdi_begin_deactivate,
	[JOB_DETACH] = vdi_begin_detach,
	[JOB_MIRROR] = operation_begin,
	[JOB_SETTLE] = operation_settle,
	[JOB_REMOVE] = operation_remove,
	[JOB_JOURNAL] = operation_begin_journal,
	[JOB_LISTEN] = vdi_begin_listen,
	[JOB_FORGET] = operation_drop,
	[JOB_VERIFY] = verification_begin,
	[JOB_VERIFIED] = verification_ended,
	[JOB_STOP] = vdi_begin_stop,
	[JOB_LINK] = far_begin_link,
	[JOB_FOREIGN] = far_begin_foreign,
	[JOB_UNLINGER] = linger_begin_end,
	[JOB_DESTROY] = linger_begin_destroy,
	[JOB_HEARD] = source_begin_heard,
	[JOB_LINKED] = source_begin_linked,
	[JOB_TAKE] = take_begin,
	[JOB_PREPARE] = group_begin_prepare,
	[JOB_FOLLOW] = group_begin_follow,
	[JOB_SNAPSHOT] = snapshot_begin,
	[JOB_RESIZE] = resize_begin,
	[JOB_TRACK] = tracking_begin,
	[JOB_PAUSE] = pause_begin,
	[JOB_IMPORT] = import_begin,
	[JOB_MERGE] = import_begin_merge,
	[JOB_MERGED] = import_begin_end,
	[JOB_EXPECT] = import_begin_expect,
	[JOB_FIGURES] = figures_begin_job,
	[JOB_DEVICE] = guest_device_begin,
};

static void run(struct loop_task *t)
{
	struct vdi *v = container_of(t, struct vdi, run);
	struct job *j = TAILQ_FIRST(&v->jobs);

	if (v->job || !j)
		return;
	TAILQ_REMOVE(&v->jobs, j, link);
	v->job = j;
	j->started_ns = loop_now_ns();
	log_debug("%s %s begins", names[j->kind], j->domain);
	begin[j->kind](v);
}

void jobs_init(struct vdi *v)
{
	TAILQ_INIT(&v->jobs);
	v->run.run = run;
}

static void refuse(vdi_done_fn *done, void *arg, int err, const char *text)
{
	struct error e = { 0 };

	error_set(&e, err, "%s", text);
	if (done)
		done(arg, &e);
}

struct job *job_add(struct vdi *v, enum job_kind kind, const char *domain, vdi_done_fn *done, void *arg)
{
	static uint64_t last_serial;
	struct job *j;

	if (v->is_stopping) {
		refuse(done, arg, ESHUTDOWN, "the datapath process is stopping");
		return NULL;
	}
	j = calloc(1, sizeof(*j));
	if (!j) {
		refuse(done, arg, ENOMEM, "out of memory");
		return NULL;
	}
	TAILQ_INIT(&j->waiters);
	extents_init(&j->only, 0);
	j->kind = kind;
	j->serial = ++last_serial;
	snprintf(j->domain, sizeof(j->domain), "%s", domain);
	if (done && job_join(j, done, arg) == -1) {
		free(j);
		refuse(done, arg, ENOMEM, "out of memory");
		return NULL;
	}
	TAILQ_INSERT_TAIL(&v->jobs, j, link);
	loop_defer(v->loop, &v->run);
	return j;
}

int job_join(struct job *j, vdi_done_fn *done, void *arg)
{
	struct job_waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return -1;
	w->done = done;
	w->arg = arg;
	TAILQ_INSERT_TAIL(&j->waiters, w, link);
	return 0;
}

static void end_hold(struct job *j, uint64_t serial)
{
	if (j->serial != serial)
		return;
	if (j->pause)
		pause_is_over(j->pause);
	if (j->snapshot)
		snapshot_is_over(j->snapshot);
}

void vdi_hold_is_over(struct vdi *v, uint64_t number)
{
	struct job *j;

	TAILQ_FOREACH(j, &v->jobs, link)
		end_hold(j, number);
	if (v->job)
		end_hold(v->job, number);
}

struct job *job_last(struct vdi *v, const char *domain)
{
	struct job *j;

	TAILQ_FOREACH_REVERSE(j, &v->jobs, job_list, link)
		if (strcmp(j->domain, domain) == 0)
			return j;
	return v->job && strcmp(v->job->domain, domain) == 0 ? v->job : NULL;
}

static void job_free(struct job *j)
{
	struct job_waiter *w;

	while ((w = TAILQ_FIRST(&j->waiters))) {
		TAILQ_REMOVE(&j->waiters, w, link);
		free(w);
	}
	extents_fini(&j->only);
	free(j->remote);
	free(j->journal);
	free(j->save);
	loop_timer_free(j->patience);
	snapshot_free(j->snapshot);
	pause_free(j->pause);
	nbdsrv_keys_unref(j->listener.keys);
	free(j);
}

void job_answer(struct job *j)
{
	struct job_waiter *w;

	while ((w = TAILQ_FIRST(&j->waiters))) {
		TAILQ_REMOVE(&j->waiters, w, link);
		w->done(w->arg, j->error.err ? &j->error : NULL);
		free(w);
	}
}

static void answer(struct job *j)
{
	job_answer(j);
	if (j->starter)
		j->starter(j->starter_arg, &j->start_error);
}

void job_end(struct vdi *v)
{
	struct job *j = take_ptr(&v->job);

	assert(j && !v->next);
	if (j->error.err)
		log_warn("%s %s: %s", names[j->kind], j->domain, j->error.text);
	else
		log_debug("%s %s ended", names[j->kind], j->domain);
	answer(j);
	if (j->kind != JOB_RESUME && !v->is_stopping && vdi_is_empty(v) && v->on_empty)
		v->on_empty(v->arg);
	job_free(j);
	loop_defer(v->loop, &v->run);
}

void job_fail(struct vdi *v, const struct error *e)
{
	v->job->error = *e;
	job_end(v);
}

void jobs_drop(struct vdi *v)
{
	struct job *j;

	assert(!v->job);
	loop_defer_cancel(v->loop, &v->run);
	while ((j = TAILQ_FIRST(&v->jobs))) {
		TAILQ_REMOVE(&v->jobs, j, link);
		error_set(&j->error, ESHUTDOWN, "the datapath process is stopping");
		answer(j);
		job_free(j);
	}
}
