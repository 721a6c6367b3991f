/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * listening - a domain's TCP listeners, as long as it is active: asked for, written down, and opened again
 *
 *      listen --tls?--> keys are loaded, in the pool --> nbdsrv_listen_tcp() --> domains.json
 *      the same again --> keys are loaded --> nbdsrv_replace_keys()
 *      its server is made anew --> listening_again()
 *      a successor of a killed process: domains.json --> keys are loaded --> listening_again()
 *
 * A successor loads keys before it serves anybody, on the loop.
 * Can fail: keys that are not to be had; where they were before, that listener is given up, and that is logged.
 * Invariant: what was asked for with TLS is never opened without.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

static void drop_keys(struct listener *l)
{
	nbdsrv_keys_unref(l->keys);
	l->keys = NULL;
}

void listening_forget(struct domain *d)
{
	while (d->listeners)
		drop_keys(&d->listener[--d->listeners]);
}

/* --- a new one */

static void listened(struct vdi *v)
{
	v->job->error = v->step;
	job_end(v);
}

static bool are_same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool demands(const struct listener *l, const struct nbdsrv_tls *tls)
{
	const struct nbdsrv_tls *has = l->keys ? nbdsrv_keys_spec(l->keys) : NULL;

	if (!has || !tls)
		return !has && !tls;
	return are_same(has->psk_username, tls->psk_username) && are_same(has->psk_file, tls->psk_file) &&
	       are_same(has->certificates, tls->certificates) &&
	       (!tls->certificates || has->verifies_peer == (tls->verifies_peer || !tls->has_verifies_peer));
}

/* The one that is as it was asked for; NULL: none. */
static struct listener *find_same(struct domain *d, const struct job *j)
{
	for (size_t i = 0; i < d->listeners; i++)
		if (strcmp(d->listener[i].host, j->listener.host) == 0 && demands(&d->listener[i], j->tls) &&
		    (d->listener[i].port == j->listener.port || !j->listener.port))
			return &d->listener[i];
	return NULL;
}

static void open_one(struct vdi *v)
{
	struct job *j = v->job;
	struct domain *d = vdi_find(v, j->domain);
	struct listener *l = &j->listener;

	if (v->step.err) {
		job_fail(v, &v->step);
	} else if (nbdsrv_listen_tcp(d->server, l->host, l->port, l->keys, j->bound, &j->error) == -1) {
		job_end(v);
	} else {
		l->port = *j->bound;
		d->listener[d->listeners++] = *l;
		l->keys = NULL;
		log_info("domain %s listens at %s port %u%s", j->domain, l->host, l->port, j->tls ? ", with TLS" : "");
		stack_save(v, listened);
	}
}

/* It is there: what stands in its files now holds from now on. */
static void renew_one(struct vdi *v)
{
	struct job *j = v->job;
	struct domain *d = vdi_find(v, j->domain);
	struct listener *l = find_same(d, j);

	if (v->step.err) {
		job_fail(v, &v->step);
		return;
	}
	nbdsrv_replace_keys(d->server, l->keys, j->listener.keys);
	drop_keys(l);
	l->keys = take_ptr(&j->listener.keys);
	*j->bound = l->port;
	job_end(v);
}

static void load_keys(struct vdi *v)
{
	v->job->listener.keys = nbdsrv_keys_load(v->job->tls, &v->step);
}

void vdi_begin_listen(struct vdi *v)
{
	struct job *j = v->job;
	struct domain *d = vdi_find(v, j->domain);
	const struct listener *same = d && d->server ? find_same(d, j) : NULL;

	if (!d || !d->server)
		error_set(&j->error, ENOTCONN, "domain %s has not activated this disk: activate it before listening", j->domain);
	else if (same)
		*j->bound = same->port;
	else if (d->listeners == DOMAINS_LISTEN_MAX)
		error_set(&j->error, ENOSPC, "domain %s listens at %d addresses already", j->domain, DOMAINS_LISTEN_MAX);
	if ((same && !j->tls) || j->error.err) {
		job_end(v);
	} else if (j->tls) {
		stack_work(v, load_keys, same ? renew_one : open_one);
	} else {
		error_clear(&v->step);
		open_one(v);
	}
}

void vdi_listen(struct vdi *v, const char *domain, const char *host, uint16_t port, const struct nbdsrv_tls *tls, uint16_t *bound,
		vdi_done_fn *done, void *arg)
{
	struct error e = { 0 };
	struct job *j;

	if (strlen(host) >= sizeof(j->listener.host)) {
		error_set(&e, EINVAL, "%.60s... is no numeric address", host);
		done(arg, &e);
		return;
	}
	j = job_add(v, JOB_LISTEN, domain, done, arg);
	if (!j)
		return;
	snprintf(j->listener.host, sizeof(j->listener.host), "%s", host);
	j->listener.port = port;
	j->tls = tls;
	j->bound = bound;
}

/* --- those there were */

void listening_again(struct domain *d)
{
	for (size_t i = 0; i < d->listeners; i++) {
		const struct listener *l = &d->listener[i];
		struct error why = { 0 };
		uint16_t bound = 0;

		if (nbdsrv_listen_tcp(d->server, l->host, l->port, l->keys, &bound, &why) == -1)
			log_warn("domain %s: %s:%u is not listened on again: %s", d->name, l->host, l->port, why.text);
	}
}

void listening_note(const struct domain *d, struct domains_entry *out, struct domains_listener *item)
{
	for (size_t i = 0; i < d->listeners; i++) {
		const struct listener *l = &d->listener[i];

		item[i] = (struct domains_listener){ .host = (char *)(uintptr_t)l->host, .port = l->port, .has_tls = l->keys };
		if (l->keys)
			item[i].tls = *nbdsrv_keys_spec(l->keys);
	}
	out->listeners.count = d->listeners;
	out->listeners.item = item;
}

void listening_take_up(struct domain *d, const struct domains_entry *entry)
{
	const struct domains_listener *from = entry->listeners.item;

	listening_forget(d);
	for (size_t i = 0; i < entry->listeners.count; i++) {
		struct listener *l = &d->listener[d->listeners];
		struct error why = { 0 };

		*l = (struct listener){ .port = (uint16_t)from[i].port };
		snprintf(l->host, sizeof(l->host), "%s", from[i].host);
		if (from[i].has_tls)
			l->keys = nbdsrv_keys_load(&from[i].tls, &why);
		if (why.err)
			log_error("domain %s: %s:%u is not listened on again: %s", d->name, l->host, l->port, why.text);
		else
			d->listeners++;
	}
}
