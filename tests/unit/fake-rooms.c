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
	fake.clone_granules = 16;
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
	fake.was_sharable = spec->is_sharable;
	fake.was_leased = spec->is_leased;
	fake.could_skip_lock = spec->may_skip_lock;
	return f;
}

uint64_t disk_file_size(const struct disk_file *f)
{
	(void)f;
	return MiB;
}

void disk_abandon(const char *run_dir UNUSED)
{
}

int disk_settle(const char *run_dir, struct error *e)
{
	(void)run_dir;
	(void)e;
	return 0;
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
	struct layer *d = fake.layer_err ? NULL : calloc(1, sizeof(*d));
	const struct geometry g = { .size_bytes = fake.size_bytes ? fake.size_bytes : MiB, .block_bytes = 4096, .is_read_only = f->is_read_only };

	(void)l;
	if (!d) {
		free(f);
		error_set(e, fake.layer_err, "the fake makes no layer");
		return NULL;
	}
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

int disk_clone(const struct layer *disk, int to, struct range r, uint64_t align, uint64_t *end)
{
	(void)disk;
	(void)to;
	if (++fake.clones >= fake.clone_err_at && fake.clone_err_at)
		return fake.clone_err;
	*end = MIN(r.end, r.start + fake.clone_granules * align);
	return 0;
}

void disk_set_lease(struct layer *disk, uint64_t until_ns)
{
	(void)disk;
	fake.lease_until_ns = until_ns;
}

int disk_refresh_size(struct layer *disk, struct error *e)
{
	(void)e;
	fake_trace("refresh");
	disk->geometry.size_bytes = fake.size_bytes;
	return 0;
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

int nbdsrv_receive_unix(struct nbdsrv *s UNUSED, const char *path UNUSED, struct error *e)
{
	return fake.listen_err ? error_set(e, fake.listen_err, "no socket") : 0;
}

struct nbdsrv_keys {
	unsigned refs;
	struct nbdsrv_tls spec;
};

struct nbdsrv_keys *nbdsrv_keys_load(const struct nbdsrv_tls *spec, struct error *e)
{
	struct nbdsrv_keys *k = calloc(1, sizeof(*k));

	assert(k);
	*k = (struct nbdsrv_keys){ .refs = 1, .spec = *spec };
	k->spec.psk_username = spec->psk_username ? strdup(spec->psk_username) : NULL;
	k->spec.psk_file = spec->psk_file ? strdup(spec->psk_file) : NULL;
	k->spec.certificates = spec->certificates ? strdup(spec->certificates) : NULL;
	if (!fake.keys_err)
		return k;
	nbdsrv_keys_unref(k);
	error_set(e, fake.keys_err, "the fake has no keys");
	return NULL;
}

void nbdsrv_keys_unref(struct nbdsrv_keys *k)
{
	if (!k || --k->refs)
		return;
	free(k->spec.psk_username);
	free(k->spec.psk_file);
	free(k->spec.certificates);
	free(k);
}

const struct nbdsrv_tls *nbdsrv_keys_spec(const struct nbdsrv_keys *k)
{
	return &k->spec;
}

int nbdsrv_listen_tcp(struct nbdsrv *s UNUSED, const char *host UNUSED, uint16_t port, struct nbdsrv_keys *keys, uint16_t *bound,
		      struct error *e UNUSED)
{
	fake_trace(keys ? "tls" : "tcp");
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

	l->link.name = (struct xsxm_name){
		.version = fake.xsxm_version ? fake.xsxm_version : XSXM_NEWEST, .epoch = epoch, .generation = generation
	};
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

void nbdsrv_replace_keys(struct nbdsrv *s, const struct nbdsrv_keys *old, struct nbdsrv_keys *keys)
{
	(void)s, (void)old, (void)keys;
	fake_trace("keys");
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

void nbdsrv_time(struct nbdsrv *s)
{
	(void)s;
}

void nbdsrv_stats(const struct nbdsrv *s, struct nbdsrv_stats *out)
{
	(void)s;
	memset(out, 0, sizeof(*out));
}

/* --- verify */

struct verify {
	struct verify_spec spec;
	struct verify_status status;
	struct loop_task over;
};

static void run_over(struct loop_task *t)
{
	struct verify *v = container_of(t, struct verify, over);

	v->spec.on_over(v->spec.arg);
}

struct verify *verify_new(const struct verify_spec *spec, struct error *e)
{
	struct verify *v = calloc(1, sizeof(*v));

	(void)e;
	fake_trace("verify+");
	v->spec = *spec;
	v->over.run = run_over;
	snprintf(v->status.remote, sizeof(v->status.remote), "%s", spec->uri);
	fake.verify = v;
	return v;
}

void verify_start(struct verify *v)
{
	(void)v;
	fake_trace("compare");
}

static void end_verify(struct verify *v, enum verify_state s)
{
	v->status.state = s;
	v->spec.on_change(v->spec.arg);
	if (!fake.is_verify_slow)
		loop_defer(fake.loop, &v->over);
}

void verify_cancel(struct verify *v, const struct error *why)
{
	if (v->status.state >= VERIFY_COMPLETE)
		return;
	fake_trace("stop");
	if (why)
		v->status.why = *why;
	end_verify(v, why ? VERIFY_FAILED : VERIFY_CANCELLED);
}

void verify_free(struct verify *v)
{
	fake_trace("verify-");
	fake.verify = NULL;
	free(v);
}

void verify_status(const struct verify *v, struct verify_status *out)
{
	*out = v->status;
}

void fake_verified(void)
{
	end_verify(fake.verify, VERIFY_COMPLETE);
}

void fake_verify_over(void)
{
	loop_defer(fake.loop, &fake.verify->over);
}

bool fake_ask_settled(struct range r)
{
	return fake.verify->spec.is_settled(fake.verify->spec.arg, r);
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
