/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * served - see served.h
 *
 *      link, where the name needs one -> Datapath.attach -> activate -> where does it listen?
 *      Datapath.deactivate -> detach -> the link goes
 */
#include "cmd/served.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/uri.h"
#include "cmd/live.h"
#include "plugins/smapi.h"

#define ASK_MS 10000u

static int call(smapi_fn *fn, const char *verb, const struct place *p, const char *domain, struct error *e)
{
	struct smapi_call c = { .verb = verb,
				.args = { .uri = p->uri, .domain = (char *)(uintptr_t)domain, .dbg = (char *)(uintptr_t)"" } };
	CLEANUP_FREE char *result = NULL;
	struct failure f = { 0 };

	if (fn(&c, &result, &f) == 0)
		return 0;
	*e = f.e;
	return -1;
}

char *served_escape(const char *text)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *uri = NULL;

	if (asprintf(&path, "/%s", text) < 0) {
		path = NULL;
		return NULL;
	}
	uri = uri_of_path("x", path);
	return uri ? strdup(uri + strlen("x:///")) : NULL;
}

static int fill(struct served *s, const struct live *l, const struct live_user *u, struct error *e)
{
	CLEANUP_FREE char *socket = served_escape(u->socket + (u->socket[0] == '/'));

	s->socket = strdup(u->socket);
	s->export_name = strdup(l->id);
	s->is_read_only = u->is_read_only;
	s->size_bytes = l->size_bytes;
	if (!socket || asprintf(&s->uri, "nbd+unix:///%s?socket=/%s", l->id, socket) < 0)
		s->uri = NULL;
	return s->socket && s->export_name && s->uri ? 0 : error_set(e, ENOMEM, "out of memory");
}

static const struct live_user *user_of(const struct live *l, const char *domain)
{
	const struct live_user *u = l->users.item;

	for (size_t i = 0; i < l->users.count; i++)
		if (strcmp(u[i].domain, domain) == 0)
			return &u[i];
	return NULL;
}

int served_find(struct served *s, const struct place *p, const char *domain, struct error *e)
{
	const struct live_user *u;
	struct live l;
	int r;

	*s = (struct served) { 0 };
	if (live_ask(p->image, ASK_MS, &l, e) == -1)
		return -1;
	u = user_of(&l, domain);
	r = u && u->is_active ? fill(s, &l, u, e) : error_set(e, ESRCH, "%s is not served to %s", p->name, domain);
	live_clear(&l);
	if (r == -1)
		served_clear(s);
	return r;
}

void served_clear(struct served *s)
{
	free(s->socket);
	free(s->export_name);
	free(s->uri);
	*s = (struct served) { 0 };
}

int served_begin(struct served *s, const struct place *p, const char *domain, bool is_read_only, struct error *e)
{
	struct error ignored;

	*s = (struct served) { 0 };
	if (place_name(p, e) == 0 && call(datapath_attach, "Datapath.attach", p, domain, e) == 0 &&
	    call(is_read_only ? datapath_activate_readonly : datapath_activate, "Datapath.activate", p, domain, e) == 0 &&
	    served_find(s, p, domain, e) == 0)
		return 0;
	served_end(p, domain, &ignored);
	return -1;
}

int served_end(const struct place *p, const char *domain, struct error *e)
{
	struct error second;
	int r = call(datapath_deactivate, "Datapath.deactivate", p, domain, e);

	if (r == 0)
		r = call(datapath_detach, "Datapath.detach", p, domain, e);
	else
		call(datapath_detach, "Datapath.detach", p, domain, &second);
	if (r == 0 && p->kind != PLACE_VOLUME)
		live_drop_owner(p->image);
	place_unname(p);
	return r;
}
