/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-mirror - the mirror of fake-rooms.h
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mirror/remote.h"
#include "tests/unit/fake-rooms.h"

struct mirror {
	struct layer layer;
	void (*on_change)(void *arg);
	void *arg;
	struct loop_task change, finish, abort;
	void (*finished)(void *arg, const struct error *e);
	void *finished_arg;
	bool is_aborted;
	struct remote_ask *ask;
	struct loop_task asked;
	void (*aborted)(void *arg);
	void *aborted_arg;
};

static struct mirror *mirror_of(struct layer *l)
{
	return container_of(l, struct mirror, layer);
}

static void forward(struct layer *l, struct req *r)
{
	layer_forward(l->below, r);
}

static void close_mirror(struct layer *l)
{
	assert(mirror_of(l)->is_aborted || !fake.status.started_ns);
	fake_trace("mirror-");
	loop_defer_cancel(fake.loop, &mirror_of(l)->change);
	fake.mirror = NULL;
	free(mirror_of(l));
}

static const struct layer_ops mirror_ops = { .name = "fake mirror", .submit = forward, .close = close_mirror };

static void run_change(struct loop_task *t)
{
	struct mirror *m = container_of(t, struct mirror, change);

	m->on_change(m->arg);
}

static void run_finish(struct loop_task *t)
{
	struct mirror *m = container_of(t, struct mirror, finish);
	void (*finished)(void *, const struct error *) = m->finished;
	struct error e = { 0 };

	m->finished = NULL;
	if (!finished)
		return;
	if (fake.finish_err)
		error_set(&e, fake.finish_err, "the fake does not finish");
	else
		fake.status.core.state = CORE_FINISHED;
	finished(m->finished_arg, fake.finish_err ? &e : NULL);
}

/* --- a link without a mirror: fake.envoy */

static struct {
	struct remote base;
	struct remote_spec spec;
	struct remote_ask *ask;
	struct loop_task task;
	void (*closed)(void *arg);
	void *closed_arg;
} envoy;

static void run_envoy(struct loop_task *t)
{
	const struct fake_says *hello = &fake.says[REMOTE_ASK_HELLO], *s;
	bool is_released = fake.is_envoy_released;
	struct remote_info info = { .is_sxm = true, .state = is_released ? REMOTE_IS_RELEASED : REMOTE_IS_ELIGIBLE };
	struct error e = { 0 };

	(void)t;
	if (envoy.closed) {
		void (*closed)(void *) = envoy.closed;

		envoy.closed = NULL;
		closed(envoy.closed_arg);
	} else if (envoy.ask) {
		struct remote_ask *a = envoy.ask;

		envoy.ask = NULL;
		s = &fake.says[a->question];
		memcpy(a->field, s->field, sizeof(s->field));
		a->done(a, s->err);
	} else if (fake.envoy_err) {
		if (hello->field[0])
			envoy.spec.on_heard(envoy.spec.arg, hello->field[0], hello->field[1], hello->field[3]);
		error_set(&e, fake.envoy_err, "the fake is not reached");
		envoy.spec.on_failed(envoy.spec.arg, &e);
	} else {
		envoy.spec.on_heard(envoy.spec.arg, 0, info.state, envoy.spec.epoch + 1 + is_released);
		envoy.spec.on_up(envoy.spec.arg, &info);
	}
}

static void ask_envoy(struct remote *r, struct remote_ask *a)
{
	(void)r;
	fake_trace(a->question == REMOTE_ASK_RECLAIM ? "envoy-reclaim" :
		   a->question == REMOTE_ASK_RELEASED ? "envoy-released" : "envoy-commit");
	envoy.ask = a;
	loop_defer(fake.loop, &envoy.task);
}

static void close_envoy(struct remote *r, bool is_polite, void (*done)(void *arg), void *arg)
{
	(void)r;
	(void)is_polite;
	envoy.closed = done;
	envoy.closed_arg = arg;
	loop_defer(fake.loop, &envoy.task);
}

struct remote *remote_nbd_new(const struct remote_spec *spec, struct error *e)
{
	static const struct remote_ops ops = { .ask = ask_envoy, .close = close_envoy };

	(void)e;
	fake_trace("envoy");
	fake.envoy_epoch = spec->epoch;
	memset(&envoy, 0, sizeof(envoy));
	envoy.base.ops = &ops;
	envoy.spec = *spec;
	envoy.task.run = run_envoy;
	loop_defer(fake.loop, &envoy.task);
	return &envoy.base;
}

static void end_wait(int err)
{
	struct remote_ask *a = fake.wait;

	fake.wait = NULL;
	if (a)
		a->done(a, err);
}

static void end_question(struct mirror *m, int err)
{
	struct remote_ask *a = m->ask;

	m->ask = NULL;
	if (a)
		a->done(a, err);
}

/* The link goes with it. */
static void run_abort(struct loop_task *t)
{
	struct mirror *m = container_of(t, struct mirror, abort);

	m->is_aborted = true;
	fake.status.is_up = false;
	end_wait(ESHUTDOWN);
	end_question(m, ESHUTDOWN);
	m->aborted(m->aborted_arg);
}

static void run_asked(struct loop_task *t)
{
	struct mirror *m = container_of(t, struct mirror, asked);
	struct remote_ask *a = m->ask;
	const struct fake_says *s;

	if (!a)
		return;
	s = &fake.says[a->question];
	memcpy(a->field, s->field, sizeof(s->field));
	a->count = ARRAY_LEN(s->field);
	end_question(m, s->err); /* ESHUTDOWN: before the mirror knows; fake_link_down() follows */
}

bool fake_is_asked(enum remote_question q)
{
	return fake.mirror && mirror_of(fake.mirror)->ask && mirror_of(fake.mirror)->ask->question == q;
}

void fake_say(void)
{
	loop_defer(fake.loop, &mirror_of(fake.mirror)->asked);
}

bool mirror_ask(struct layer *l, struct remote_ask *a)
{
	static const char *const words[] = { "hello", "wait", "prepare", "commit", "reclaim", "released", "end", "ping",
		"log-begin", "log-keep", "log-end", "log" };
	struct mirror *m = mirror_of(l);

	if (!fake.status.is_up || fake.status.core.state == CORE_ENDED || fake.status.core.state == CORE_FAILED)
		return false;
	fake_trace(words[a->question]);
	if (a->question == REMOTE_ASK_WAIT) {
		assert(!fake.wait);
		fake.wait = a;
		return true;
	}
	assert(!m->ask);
	m->ask = a;
	if (!fake.says[a->question].is_slow)
		fake_say();
	return true;
}

bool mirror_digest(const struct layer *l, struct digest *out)
{
	(void)l;
	*out = fake.digest;
	return !fake.is_digest_void;
}

void mirror_reach(struct layer *l)
{
	(void)l;
	fake_trace("reach");
}

void mirror_go_on(struct layer *l, uint64_t epoch)
{
	(void)l;
	fake_trace("go-on");
	fake.epoch = epoch;
	fake.status.core.state = CORE_SYNCED;
}

void mirror_resume(struct layer *l)
{
	(void)l;
	fake_trace("resume");
	fake.status.is_remembering = false;
}

void fake_link_up(void)
{
	fake.status.is_sxm = fake.status.is_up = true;
	fake.status.is_reaching = false;
	loop_defer(fake.loop, &mirror_of(fake.mirror)->change);
}

void fake_link_down(bool is_reaching)
{
	fake.status.is_up = false;
	fake.status.is_reaching = is_reaching;
	fake.status.links_lost++;
	end_wait(ESHUTDOWN);
	loop_defer(fake.loop, &mirror_of(fake.mirror)->change);
}

void fake_news(uint32_t news, uint64_t epoch)
{
	struct remote_ask *a = fake.wait;

	assert(a);
	a->field[1] = news;
	a->field[2] = (uint32_t)(epoch >> 32);
	a->field[3] = (uint32_t)epoch;
	a->count = 4;
	end_wait(0);
}

struct layer *mirror_new(const struct mirror_spec *spec, struct error *e)
{
	struct mirror *m = calloc(1, sizeof(*m));

	(void)e;
	fake_trace("mirror+");
	layer_init(&m->layer, &mirror_ops, spec->below, &spec->below->geometry);
	m->on_change = spec->on_change;
	m->arg = spec->arg;
	m->change.run = run_change;
	m->finish.run = run_finish;
	m->abort.run = run_abort;
	m->asked.run = run_asked;
	fake.on_heard = spec->on_heard;
	fake.heard_arg = spec->arg;
	fake.epoch = spec->epoch;
	memset(&fake.status, 0, sizeof(fake.status));
	fake.mirror = &m->layer;
	return fake.mirror;
}

void mirror_start(struct layer *mirror)
{
	(void)mirror;
	fake_trace("start");
	fake.status.started_ns = loop_now_ns();
}

void mirror_status(const struct layer *mirror, struct mirror_status *out)
{
	(void)mirror;
	*out = fake.status;
}

int mirror_limit(struct layer *mirror, const struct extents *changed)
{
	(void)mirror;
	(void)changed;
	return 0;
}

const char *mirror_barrier_means(const struct mirror_status *status)
{
	(void)status;
	return "";
}

void mirror_finish(struct layer *mirror, void (*done)(void *arg, const struct error *e), void *arg)
{
	fake_trace("finish");
	mirror_of(mirror)->finished = done;
	mirror_of(mirror)->finished_arg = arg;
	if (!fake.is_finish_slow)
		loop_defer(fake.loop, &mirror_of(mirror)->finish);
}

void mirror_abort(struct layer *mirror, void (*done)(void *arg), void *arg)
{
	fake_trace("abort");
	mirror_of(mirror)->aborted = done;
	mirror_of(mirror)->aborted_arg = arg;
	if (fake.status.core.state < CORE_FINISHED)
		fake.status.core.state = CORE_ENDED;
	if (mirror_of(mirror)->finished)
		fake_finish(ECANCELED);
	loop_defer(fake.loop, &mirror_of(mirror)->abort);
}

void fake_change(enum core_state s, bool is_connected, bool was_synced)
{
	fake.status.core.state = s;
	fake.status.is_connected = is_connected;
	fake.status.core.was_synced = was_synced;
	loop_defer(fake.loop, &mirror_of(fake.mirror)->change);
}

void fake_fail(const char *why)
{
	error_set(&fake.status.why, ENOLINK, "%s", why);
	fake_change(CORE_FAILED, fake.status.is_connected, fake.status.core.was_synced);
}

void fake_finish(int err)
{
	fake.finish_err = err;
	loop_defer(fake.loop, &mirror_of(fake.mirror)->finish);
}

void mirror_set_sync(struct layer *mirror, bool is_sync)
{
	(void)mirror;
	fake_trace(is_sync ? "sync" : "lag");
}

void mirror_set_limit(struct layer *mirror, uint64_t bytes)
{
	(void)mirror;
	(void)bytes;
}

void mirror_keep_debt(struct layer *mirror)
{
	(void)mirror;
	fake_trace("keep");
}

void mirror_restore(struct layer *mirror, void (*done)(void *arg, const struct error *e), void *arg)
{
	struct error e = { 0 };

	(void)mirror;
	fake_trace("restore");
	if (fake.restore_err)
		error_set(&e, fake.restore_err, "the map is not there");
	done(arg, e.err ? &e : NULL);
}

const char *mirror_uri(const struct layer *mirror)
{
	(void)mirror;
	return fake.uri ? fake.uri : "nbd://far/mirror";
}

bool mirror_is_settled(const struct layer *mirror, struct range r)
{
	(void)mirror;
	(void)r;
	return fake.is_settled;
}
