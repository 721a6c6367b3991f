/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * guest-device - a domain that is a Xen guest has the disk as a device, served over its ring
 *
 *      vbd verb --active, served?--> vbd_new() --> domains.json          with its NBD server it goes (stack_cut), and comes
 *      vbd.drop --of that device?--> vbd_stop() --> domains.json
 *      a successor of a killed process: domains.json --> its server is made --> guest_device_serve()
 *
 * The book of its ring, ring-XXXXXXXX beside the control socket, stays until the domain is detached: a guest that is activated
 * again, or whose process was killed, goes on with what it had asked for.
 * Can fail: a name that is no backend's, a build without Xen. That its guest is not there yet, or offers rubbish, is no failure.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/uri.h"
#include "vbd/vbd.h"
#include "vdi/vdi-private.h"

/* Beside its socket, nbd-XXXXXXXX. */
static void name_book(const struct domain *d, char *out, size_t bytes)
{
	const char *name = strrchr(d->socket, '/');

	snprintf(out, bytes, "%.*s/ring-%s", (int)(name - d->socket), d->socket, name + strlen("/nbd-"));
}

/* By the same rule as Datapath.attach, so that it does not matter how a configuration spells it. */
static int is_volume(void *arg, const char *uri, struct error *e)
{
	const struct domain *d = arg;

	return uri_names(uri, "sxm", d->vdi->path, e);
}

static int begin(struct vdi *v, struct domain *d, struct error *e)
{
	char book[sizeof(d->socket) + 8], params[XENBUS_VALUE_MAX];
	const struct vbd_spec spec = {
		.loop = v->loop, .top = v->gate, .pool = v->pool, .backend = d->backend, .book = book, .params = params,
		.is_read_only = d->is_read_only, .is_eager = d->is_eager, .is_volume = is_volume, .on_whose = figures_found,
		.arg = d,
	};

	name_book(d, book, sizeof(book));
	snprintf(params, sizeof(params), "nbd:unix:%s:exportname=%s", d->socket, v->id); /* as Datapath.attach says it */
	d->vbd = vbd_new(&spec, e);
	return d->vbd ? 0 : -1;
}

/* --- the verb */

static void saved(struct vdi *v)
{
	v->job->error = v->step;
	job_end(v);
}

static void dropped(struct vdi *v)
{
	struct domain *d = v->job->cut;

	log_info("domain %s is not served at %s any more", d->name, d->backend);
	memcpy(d->had, d->backend, sizeof(d->had));
	*d->backend = '\0';
	guest_device_drop_book(d);
	stack_save(v, saved);
}

static void drop(struct vdi *v, struct domain *d)
{
	if (!d || !*d->backend || strcmp(d->backend, v->job->backend) != 0) {
		job_end(v);
		return;
	}
	v->job->cut = d;
	guest_device_stop(v, dropped);
}

void guest_device_begin(struct vdi *v)
{
	struct job *j = v->job;
	struct domain *d = vdi_find(v, j->domain);
	bool is_same = d && d->vbd && strcmp(d->backend, j->backend) == 0;

	if (j->is_unplugged) {
		drop(v, d);
		return;
	}
	if (!d || !d->server || !d->is_active)
		error_set(&j->error, ENOTCONN, "domain %s has not activated this disk: activate it before its ring is served",
			  j->domain);
	else if (d->vbd && !is_same)
		error_set(&j->error, EBUSY, "domain %s has this disk as %s already; deactivate it first", j->domain, d->backend);
	if (is_same || j->error.err) {
		job_end(v);
		return;
	}
	snprintf(d->backend, sizeof(d->backend), "%s", j->backend);
	d->is_eager = j->is_eager;
	if (begin(v, d, &j->error) == -1) {
		*d->backend = '\0';
		job_end(v);
		return;
	}
	*d->had = '\0';
	log_info("domain %s is served at %s", d->name, d->backend);
	stack_save(v, saved);
}

static struct job *add(struct vdi *v, const char *domain, const char *backend, vdi_done_fn *done, void *arg)
{
	struct error e = { 0 };
	struct job *j;

	if (strlen(backend) >= sizeof(j->backend) || vbd_check(backend, &e) == -1) {
		if (!e.err)
			error_set(&e, EINVAL, "%.60s... is no backend's directory", backend);
		done(arg, &e);
		return NULL;
	}
	j = job_add(v, JOB_DEVICE, domain, done, arg);
	if (j)
		snprintf(j->backend, sizeof(j->backend), "%s", backend);
	return j;
}

void vdi_device(struct vdi *v, const char *domain, const char *backend, bool is_eager, vdi_done_fn *done, void *arg)
{
	struct job *j = add(v, domain, backend, done, arg);

	if (j)
		j->is_eager = is_eager;
}

void vdi_device_drop(struct vdi *v, const char *domain, const char *backend, vdi_done_fn *done, void *arg)
{
	struct job *j = add(v, domain, backend, done, arg);

	if (j)
		j->is_unplugged = true;
}

/* --- with its server */

void guest_device_serve(struct vdi *v, struct domain *d)
{
	struct error why = { 0 };

	if (*d->backend && d->is_active && begin(v, d, &why) == -1)
		log_error("domain %s: %s is not served again: %s", d->name, d->backend, why.text);
}

static void on_stopped(void *arg)
{
	struct vdi *v = arg;
	step_fn *next = take_ptr(&v->job->unplugged);
	struct nbdsrv_stats counted = { 0 };

	guest_device_count(v->job->cut, &counted);
	figures_cut(v->job->cut, &counted);
	vbd_free(take_ptr(&v->job->cut->vbd));
	next(v);
}

void guest_device_stop(struct vdi *v, step_fn *next)
{
	struct domain *d = v->job->cut;

	if (!d->vbd) {
		next(v);
		return;
	}
	v->job->unplugged = next;
	vbd_stop(d->vbd, on_stopped, v);
}

void guest_device_forget(struct domain *d)
{
	assert(!d->vbd);
	*d->backend = *d->had = '\0';
}

void guest_device_drop_book(const struct domain *d)
{
	char book[sizeof(d->socket) + 8];

	name_book(d, book, sizeof(book));
	unlink(book);
}

void guest_device_resized(struct vdi *v)
{
	struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d->vbd)
			vbd_resized(d->vbd);
}

/* --- what is so now, and what was */

void guest_device_count(const struct domain *d, struct nbdsrv_stats *s)
{
	struct vbd_stats ring;

	if (!d->vbd)
		return;
	vbd_stats(d->vbd, &ring);
	s->reads += ring.reads;
	s->writes += ring.writes;
	s->flushes += ring.flushes;
	s->trims += ring.discards;
	s->bytes_read += ring.bytes_read;
	s->bytes_written += ring.bytes_written;
	s->read_ns += ring.read_ns;
	s->write_ns += ring.write_ns;
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		s->writes_us.count[i] += ring.writes_us.count[i];
	s->in_flight += ring.in_flight;
}

void guest_device_status(const struct domain *d, struct vdi_domain_status *out)
{
	struct vbd_stats stats;

	memcpy(out->backend, d->backend, sizeof(out->backend));
	memcpy(out->had, d->had, sizeof(out->had));
	if (!d->vbd)
		return;
	vbd_stats(d->vbd, &stats);
	out->is_connected = vbd_is_connected(d->vbd);
	out->ring_errors = stats.errors;
	out->ring_left = stats.left;
	guest_device_count(d, &out->nbd);
}

void guest_device_note(struct domain *d, struct domains_entry *out)
{
	out->backend = *d->backend ? d->backend : NULL;
	out->had = *d->had ? d->had : NULL;
	out->is_eager = d->is_eager;
}

void guest_device_take_up(struct domain *d, const struct domains_entry *entry)
{
	struct error why = { 0 };

	if (entry->had)
		snprintf(d->had, sizeof(d->had), "%s", entry->had);
	if (!entry->backend)
		return;
	if (strlen(entry->backend) >= sizeof(d->backend) || vbd_check(entry->backend, &why) == -1) {
		log_error("domain %s is not served over a ring again: %s", d->name, why.err ? why.text : "its name is too long");
		return;
	}
	snprintf(d->backend, sizeof(d->backend), "%s", entry->backend);
	d->is_eager = entry->is_eager;
}
