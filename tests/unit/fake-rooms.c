/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-rooms - see fake-rooms.h
 */
#include "tests/unit/fake-rooms.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mirror/remote.h"

struct fake fake;

void fake_trace(const char *word)
{
	size_t used = strlen(fake.trace);

	snprintf(fake.trace + used, sizeof(fake.trace) - used, "%s ", word);
}

bool fake_traced(const char *words)
{
	bool is_same = strcmp(fake.trace, words) == 0;

	if (!is_same)
		fprintf(stderr, "trace: %s\nwant:  %s\n", fake.trace, words);
	fake.trace[0] = '\0';
	return is_same;
}

void fake_reset(struct loop *l)
{
	memset(&fake, 0, sizeof(fake));
	fake.loop = l;
}

/* --- disk */

struct disk_file {
	bool is_read_only;
};

struct disk_file *disk_open(const struct disk_spec *spec, struct error *e)
{
	struct disk_file *f = calloc(1, sizeof(*f));

	if (fake.open_err) {
		free(f);
		error_set(e, fake.open_err, "the fake does not open");
		return NULL;
	}
	f->is_read_only = spec->is_read_only;
	return f;
}

void disk_file_close(struct disk_file *f)
{
	free(f);
}

static void submit(struct layer *l, struct req *r)
{
	(void)l;
	if (r->op == REQ_FLUSH)
		fake_trace("flush");
	req_complete(r, r->op == REQ_FLUSH ? fake.flush_err : 0);
}

static void close_disk(struct layer *l)
{
	fake_trace("close");
	free(l);
}

static const struct layer_ops disk_ops = { .name = "fake disk", .submit = submit, .close = close_disk };

struct layer *disk_layer(struct loop *l, struct disk_file *f, struct error *e)
{
	struct layer *d = calloc(1, sizeof(*d));
	const struct geometry g = { .size_bytes = MiB, .block_bytes = 4096, .is_read_only = f->is_read_only };

	(void)l;
	(void)e;
	fake_trace(f->is_read_only ? "open:ro" : "open:rw");
	layer_init(d, &disk_ops, NULL, &g);
	free(f);
	return d;
}

const char *disk_engine_name(const struct layer *disk)
{
	(void)disk;
	return "fake";
}

bool disk_is_direct(const struct layer *disk)
{
	(void)disk;
	return false;
}

/* --- nbdsrv */

struct nbdsrv {
	bool is_read_only;
	struct loop_task task;
	void (*done)(void *arg);
	void *arg;
};

struct nbdsrv *nbdsrv_new(const struct nbdsrv_spec *spec, struct error *e)
{
	struct nbdsrv *s = calloc(1, sizeof(*s));

	(void)e;
	s->is_read_only = spec->is_read_only;
	if (spec->links) {
		fake.links = spec->links;
		fake.links_arg = spec->links_arg;
		fake.server = s;
	}
	return s;
}

int nbdsrv_listen_unix(struct nbdsrv *s, const char *path, struct error *e)
{
	(void)path;
	if (fake.listen_err)
		return error_set(e, fake.listen_err, "the fake does not listen");
	fake_trace(s->is_read_only ? "serve:ro" : "serve:rw");
	return 0;
}

int nbdsrv_listen_tcp(struct nbdsrv *s, const char *host, uint16_t port, uint16_t *bound, struct error *e)
{
	(void)s;
	(void)host;
	(void)e;
	fake_trace("tcp");
	*bound = port ? port : 1234;
	return 0;
}

static void on_shut(struct loop_task *t)
{
	struct nbdsrv *s = container_of(t, struct nbdsrv, task);

	s->done(s->arg);
}

/* --- links */

struct link {
	struct nbdsrv_link link;
	struct nbdsrv *server;
	bool is_open;
	struct loop_task gone;
	TAILQ_ENTRY(link) entry;
};
static TAILQ_HEAD(, link) links = TAILQ_HEAD_INITIALIZER(links);

static struct link *link_of(const struct nbdsrv_link *l)
{
	return container_of((struct nbdsrv_link *)(uintptr_t)l, struct link, link);
}

static void run_gone(struct loop_task *t)
{
	struct link *l = container_of(t, struct link, gone);

	if (l->link.is_known)
		fake.links->gone(fake.links_arg, &l->link);
	free(l);
}

struct nbdsrv_link *fake_link(const char *mirror, uint64_t epoch, uint64_t generation)
{
	struct link *l = calloc(1, sizeof(*l));

	l->link.name = (struct xsxm_name){ .version = 1, .epoch = epoch, .generation = generation };
	snprintf(l->link.name.mirror, sizeof(l->link.name.mirror), "%s", mirror);
	l->server = fake.server;
	l->is_open = true;
	l->gone.run = run_gone;
	TAILQ_INSERT_TAIL(&links, l, entry);
	return &l->link;
}

void fake_ask(struct nbdsrv_link *l, uint64_t opcode, struct fake_answer *answer)
{
	struct nbdsrv_ask *a = calloc(1, sizeof(*a));

	*a = (struct nbdsrv_ask){ .link = l, .opcode = opcode, .cmd = (struct command *)answer };
	l->is_known = true;
	fake.links->ask(fake.links_arg, a);
}

void nbdsrv_answer(struct nbdsrv_ask *a, const uint32_t *field, unsigned count)
{
	struct fake_answer *answer = (struct fake_answer *)a->cmd;

	memcpy(answer->field, field, count * sizeof(*field));
	answer->count = count;
	free(a);
}

void fake_hang_up(struct nbdsrv_link *l)
{
	if (!link_of(l)->is_open)
		return;
	link_of(l)->is_open = false;
	TAILQ_REMOVE(&links, link_of(l), entry);
	loop_defer(fake.loop, &link_of(l)->gone);
}

void nbdsrv_link_shut(struct nbdsrv_link *l)
{
	fake_trace("shut");
	fake_hang_up(l);
}

bool nbdsrv_link_is_open(const struct nbdsrv_link *l)
{
	return link_of(l)->is_open;
}

void nbdsrv_link_admit(struct nbdsrv_link *l, struct digest *digest)
{
	l->digest = digest;
}

void nbdsrv_set_plain(struct nbdsrv *s, enum nbdsrv_plain rule)
{
	(void)s;
	fake.plain = rule;
}

void nbdsrv_end_plain(struct nbdsrv *s)
{
	(void)s;
	fake_trace("links-only");
}

void nbdsrv_shutdown(struct nbdsrv *s, void (*done)(void *arg), void *arg)
{
	struct link *l, *next;

	fake_trace("cut");
	for (l = TAILQ_FIRST(&links); l; l = next) {
		next = TAILQ_NEXT(l, entry);
		if (l->server == s)
			fake_hang_up(&l->link);
	}
	s->done = done;
	s->arg = arg;
	s->task.run = on_shut;
	loop_defer(fake.loop, &s->task);
}

void nbdsrv_free(struct nbdsrv *s)
{
	free(s);
}

void nbdsrv_stats(const struct nbdsrv *s, struct nbdsrv_stats *out)
{
	(void)s;
	memset(out, 0, sizeof(*out));
}

/* --- mirror */

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
	assert(mirror_of(l)->is_aborted);
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

static void end_wait(int err)
{
	struct remote_ask *a = fake.wait;

	fake.wait = NULL;
	if (a)
		a->done(a, err);
}

static void run_abort(struct loop_task *t)
{
	struct mirror *m = container_of(t, struct mirror, abort);

	m->is_aborted = true;
	end_wait(ESHUTDOWN);
	m->aborted(m->aborted_arg);
}

static void run_asked(struct loop_task *t)
{
	struct mirror *m = container_of(t, struct mirror, asked);
	struct remote_ask *a = m->ask;
	const struct fake_says *s = &fake.says[a->question];

	m->ask = NULL;
	memcpy(a->field, s->field, sizeof(s->field));
	a->count = ARRAY_LEN(s->field);
	a->done(a, s->err); /* ESHUTDOWN: before the mirror knows; fake_link_down() follows */
}

bool mirror_ask(struct layer *l, struct remote_ask *a)
{
	static const char *const words[] = { "hello", "wait", "prepare", "commit", "reclaim", "released", "end", "ping" };
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
	m->asked.run = run_asked;
	loop_defer(fake.loop, &m->asked);
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
	return "nbd://far/mirror";
}

bool mirror_is_settled(const struct layer *mirror, struct range r)
{
	(void)mirror;
	(void)r;
	return fake.is_settled;
}

const char *core_state_name(enum core_state s)
{
	(void)s;
	return "fake";
}

int remote_nbd_check_uri(const char *uri, struct error *e)
{
	return strncmp(uri, "nbd", 3) == 0 ? 0 : error_set(e, EINVAL, "%s is no NBD URI", uri);
}
