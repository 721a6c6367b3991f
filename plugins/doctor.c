/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * doctor - see doctor.h
 *
 *      SRs that are attached, and answer -> their volumes -> ids of processes
 *      rounds:  processes -> host -> each SR -> each volume
 *
 * Processes come first: one that died is started again, and then answers for its disk itself, so the later rounds find nothing
 * there that is its own.  An SR whose server does not answer is left out, as a look at it would never end.
 */
#include "plugins/bounded.h"
#include "plugins/child.h"
#include "plugins/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/uri.h"
#include "plugins/doctor-private.h"
#include "plugins/image.h"
#include "plugins/mount.h"
#include "plugins/sr.h"

#define LOOK_MS 5000u
#define FILE_MAX_BYTES 65536u

/* --- findings */

bool doctor_found(struct doctor *d, const struct doctor_finding *finding)
{
	struct error subject, what, why; /* one line each, whatever was in them */
	struct doctor_finding shown = *finding;
	bool is_wanted;

	error_set(&subject, EUCLEAN, "%s", finding->subject);
	error_set(&what, EUCLEAN, "%s", finding->what);
	error_set(&why, EUCLEAN, "%s", finding->why);
	shown.subject = subject.text;
	shown.what = what.text;
	shown.why = why.text;
	d->findings++;
	is_wanted = d->found(d->arg, &shown) && finding->remedy && !d->is_only_report;
	if (is_wanted)
		return true;
	if (finding->remedy || finding->advice)
		d->left++;
	else
		d->told++;
	return false;
}

void doctor_done(struct doctor *d, int r, const struct error *e)
{
	if (r == 0)
		d->repaired++;
	else
		d->left++;
	d->result(d->arg, r == 0 ? "done" : e->text, r == 0);
}

/* --- files */

bool doctor_read(const char *path, const struct jsonspec *spec, void *out)
{
	struct error e;
	size_t bytes;
	CLEANUP_FREE char *text = proc_read_own_file(path, FILE_MAX_BYTES, &bytes, &e);

	return text && jsonspec_decode(spec, text, bytes, out, &e) == 0;
}

unsigned doctor_age_s(const char *dir, const char *name)
{
	CLEANUP_FREE char *path = NULL;
	struct stat st;
	time_t age;

	if (asprintf(&path, "%s/%s", dir, name) < 0) {
		path = NULL;
		return 0;
	}
	if (lstat(path, &st) == -1)
		return 0;
	age = time(NULL) - st.st_mtime;
	return age < 0 ? 0 : (unsigned)age;
}

/* --- domains */

bool doctor_is_guest(const char *domain)
{
	return *domain >= '1' && *domain <= '9' && domain[strspn(domain, "0123456789")] == '\0';
}

/* Xen's own list, where there is one. */
void doctor_find_domains(struct doctor_domains *n, const struct jsonspec_list *alive)
{
	const char *const argv[] = { "xenstore-list", "/local/domain", NULL };
	CLEANUP_FREE char *text = NULL;
	struct error e;
	char *rest, *line;

	*n = (struct doctor_domains) { .alive = alive, .is_known = alive != NULL };
	if (alive || child_run(argv, LOOK_MS, &text, &e) == -1)
		return;
	for (rest = text; (line = strsep(&rest, "\n"));)
		if (*line && jsonspec_list_add(&n->list, line) == -1)
			return;
	n->alive = &n->list;
	n->is_known = n->list.count > 0; /* dom0 at least */
}

void doctor_clear_domains(struct doctor_domains *n)
{
	meta_list_clear(&n->list);
}

bool doctor_is_alive(const struct doctor_domains *n, const char *domain)
{
	for (size_t i = 0; n->is_known && i < n->alive->count; i++)
		if (strcmp(n->alive->item[i], domain) == 0)
			return true;
	return !n->is_known;
}

/* --- a process' status */

#define USER(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct doctor_user, field) }
static const struct jsonspec_field user_fields[] = {
	USER("domain", JS_STRING, domain), USER("active", JS_BOOL, is_active), USER("read_only", JS_BOOL, is_read_only),
	USER("clients", JS_INT64, clients), { .name = NULL },
};
static const struct jsonspec user_spec = { "domain", sizeof(struct doctor_user), user_fields };
#define OPERATION(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct doctor_operation, field) }
static const struct jsonspec_field operation_fields[] = {
	OPERATION("id", JS_STRING, id), OPERATION("state", JS_STRING, state), OPERATION("why", JS_STRING, why),
	OPERATION("copy", JS_BOOL, is_copy), OPERATION("failed", JS_BOOL, is_failed),
	OPERATION("complete", JS_BOOL, is_complete), OPERATION("ended", JS_BOOL, is_ended),
	OPERATION("linked", JS_BOOL, is_linked), OPERATION("given", JS_BOOL, is_given),
	OPERATION("remembered", JS_BOOL, is_remembered), OPERATION("links_lost", JS_INT64, links_lost), { .name = NULL },
};
static const struct jsonspec operation_spec = { "operation", sizeof(struct doctor_operation), operation_fields };
static const struct jsonspec_field owner_fields[] = {
	{ .name = "state", .type = JS_STRING, .offset = offsetof(struct doctor_owner, state) },
	{ .name = "links", .type = JS_INT64, .offset = offsetof(struct doctor_owner, links) }, { .name = NULL },
};
static const struct jsonspec owner_spec = { "owner", sizeof(struct doctor_owner), owner_fields };
#define STATUS(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct doctor_status, field) }
static const struct jsonspec_field status_fields[] = {
	STATUS("path", JS_STRING, path), STATUS("owed", JS_STRING, owed), STATUS("lease", JS_STRING, lease),
	STATUS("pid", JS_INT64, pid), STATUS("lease_left_ms", JS_INT64, lease_left_ms), STATUS("open", JS_BOOL, is_open),
	{ .name = "owner", .type = JS_RECORD, .offset = offsetof(struct doctor_status, owner), .sub = &owner_spec },
	{ .name = "domains", .type = JS_RECORDS, .offset = offsetof(struct doctor_status, users), .sub = &user_spec },
	{ .name = "operations", .type = JS_RECORDS, .offset = offsetof(struct doctor_status, operations),
	  .sub = &operation_spec },
	{ .name = NULL },
};
const struct jsonspec doctor_status_spec = { "status", sizeof(struct doctor_status), status_fields };

int doctor_ask(const struct process *p, struct doctor_status *s, struct error *e)
{
	CLEANUP_FREE char *ok = process_ask(p, "status", NULL, DOCTOR_ASK_MS, e);

	return ok ? jsonspec_decode(&doctor_status_spec, ok, strlen(ok), s, e) : -1;
}

bool doctor_has_live_operation(const struct doctor_status *s)
{
	const struct doctor_operation *o = s->operations.item;

	for (size_t i = 0; i < s->operations.count; i++)
		if (!o[i].is_ended)
			return true;
	return false;
}

bool doctor_is_unserved(const char *path)
{
	CLEANUP_FREE char *ok = NULL;
	struct process p;
	struct error e;

	if (process_by_path(&p, path, &e) == -1)
		return false;
	ok = process_ask(&p, "hello", NULL, DOCTOR_ASK_MS, &e);
	return !ok && e.err == ESRCH;
}

struct domain_walk {
	struct doctor_domains domains;
	void (*fn)(const struct doctor_domain *domain, void *arg);
	void *arg;
};

static void show_domains(const char *id, void *arg)
{
	struct domain_walk *w = arg;
	const struct doctor_user *u;
	struct doctor_status s;
	struct process p;
	struct error e;

	if (process_by_id(&p, id, &e) == -1 || doctor_ask(&p, &s, &e) == -1)
		return;
	u = s.users.item;
	for (size_t i = 0; i < s.users.count; i++) {
		const struct doctor_domain one = {
			.domain = u[i].domain, .path = s.path, .is_active = u[i].is_active, .is_read_only = u[i].is_read_only,
			.clients = u[i].clients, .is_guest = doctor_is_guest(u[i].domain),
			.is_alive = !doctor_is_guest(u[i].domain) || doctor_is_alive(&w->domains, u[i].domain),
		};

		w->fn(&one, w->arg);
	}
	jsonspec_clear(&doctor_status_spec, &s);
}

void doctor_each_domain(const struct jsonspec_list *alive, void (*fn)(const struct doctor_domain *domain, void *arg), void *arg)
{
	struct domain_walk w = { .fn = fn, .arg = arg };

	doctor_find_domains(&w.domains, alive);
	process_each(show_domains, &w);
	doctor_clear_domains(&w.domains);
}

/* --- the view */

const struct doctor_volume *doctor_volume_of(const struct doctor_view *v, const char *id)
{
	for (size_t i = 0; i < v->volumes; i++)
		if (strcmp(v->volume[i].id, id) == 0)
			return &v->volume[i];
	return NULL;
}

static int add_volume(struct doctor_view *v, const char *dir, const char *key)
{
	const struct image i = image_of(dir, key, NULL);
	CLEANUP_FREE char *path = image_path(&i);
	struct doctor_volume *grown = reallocarray(v->volume, v->volumes + 1, sizeof(*grown)), *new;
	struct error e;

	if (!grown || !path)
		return -1;
	v->volume = grown;
	new = &grown[v->volumes];
	*new = (struct doctor_volume) { .dir = strdup(dir), .key = strdup(key), .path = uri_canonical(path, &e) };
	v->volumes++;
	if (!new->dir || !new->key || !new->path)
		return -1;
	vdi_id_of_path(new->path, new->id);
	return 0;
}

/* Told by its mark (doctor-host.c), with what is to be done. */
static bool is_unmounted(const char *dir)
{
	CLEANUP_FREE char *mark = NULL;

	if (asprintf(&mark, "%s" DOCTOR_MARK_SUFFIX, dir) < 0) {
		mark = NULL;
		return false;
	}
	return mount_is_dir(dir) && access(mark, F_OK) == 0 && !mount_is_up(dir);
}

static void say_sr(struct doctor *d, const char *dir, const struct error *e)
{
	const bool is_gone = e->err == ENOENT || e->err == ENOTDIR;
	struct error what;

	if (is_gone && is_unmounted(dir))
		return;
	error_set(&what, EIO, "SR %s: %.300s", dir, e->text);
	doctor_found(d, &(struct doctor_finding) {
		.kind = is_gone ? "sr-gone" : "sr-silent", .subject = dir, .what = what.text,
		.why = "nothing can be said of its volumes, and its verbs fail or wait",
		.advice = is_gone ? "mount it again, or detach it (xe pbd-unplug)" : "see to its storage; then look again" });
}

static int add_sr(struct doctor_view *v, const char *dir)
{
	CLEANUP_FREE char *real = NULL;
	struct jsonspec_list keys;
	struct error e = { 0 };
	int r = 0;

	if (bounded_look_at_sr(dir, LOOK_MS, &e) == -1) {
		say_sr(v->d, dir, &e);
		return 0;
	}
	real = realpath(dir, NULL);
	for (size_t i = 0; real && i < v->dirs.count; i++)
		if (strcmp(v->dirs.item[i], real) == 0)
			return 0;
	if (!real || meta_list(real, &keys, &e) == -1) {
		say_sr(v->d, dir, &e);
		return 0;
	}
	for (size_t i = 0; r == 0 && i < keys.count; i++)
		r = add_volume(v, real, keys.item[i]);
	meta_list_clear(&keys);
	return r == 0 ? jsonspec_list_add(&v->dirs, real) : -1;
}

static int fill(struct doctor_view *v, struct error *e)
{
	int r = 0;

	if (sr_attached(&v->handles, e) == -1)
		return -1;
	for (size_t i = 0; r == 0 && i < v->handles.count; i++) {
		struct error why;
		CLEANUP_FREE char *dir = uri_path(v->handles.item[i], "file", &why);

		if (dir)
			r = add_sr(v, dir);
	}
	if (r == 0 && v->d->dir)
		r = add_sr(v, v->d->dir);
	return r == 0 ? 0 : error_set(e, ENOMEM, "out of memory");
}

static void clear(struct doctor_view *v)
{
	for (size_t i = 0; i < v->volumes; i++) {
		free(v->volume[i].dir);
		free(v->volume[i].key);
		free(v->volume[i].path);
	}
	free(v->volume);
	meta_list_clear(&v->handles);
	meta_list_clear(&v->dirs);
	doctor_clear_domains(&v->domains);
}

int doctor_run(struct doctor *d, struct error *e)
{
	struct doctor_view v = { .d = d };
	int r;

	d->findings = d->repaired = d->left = d->told = 0;
	doctor_find_domains(&v.domains, d->alive);
	r = fill(&v, e);
	if (r == 0) {
		doctor_check_processes(&v);
		doctor_check_host(&v);
		for (size_t i = 0; i < v.dirs.count; i++)
			doctor_check_sr(&v, v.dirs.item[i]);
		for (size_t i = 0; i < v.volumes; i++)
			doctor_check_volume(&v, &v.volume[i]);
	}
	clear(&v);
	return r;
}
