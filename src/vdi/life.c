/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * life - a disk's process begins, takes up what a killed one left, and goes
 *
 *      vdi_new -> vdi_resume -> verbs ... -> [vdi_stop] -> vdi_free
 *
 * A predecessor that was killed may still have I/O in flight in the kernel: opening waits for its lock (VDI_LOCK_WAIT_MS), so
 * nothing of the dead can land over something of the living.  An image that cannot be opened yet is tried again every
 * second, and whoever activates or deactivates meanwhile gets his own answer.
 *
 * Can fail: directories, memory; a domains.json that says nothing sensible is set aside, and nobody is served by it.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "vdi/debt.h"
#include "vdi/vdi-private.h"

#define POOL_IDLE_MS 2000u /* what of the buffers' memory nobody needed for so long is given back */

/* --- new and free */

static void on_excess(void *arg)
{
	struct vdi *v = arg;

	loop_timer_set(v->pool_timer, POOL_IDLE_MS);
}

static void trim(void *arg)
{
	struct vdi *v = arg;

	if (iobuf_pool_trim(v->pool))
		loop_timer_set(v->pool_timer, POOL_IDLE_MS);
}

static int fill(struct vdi *v, const struct vdi_spec *spec, struct error *e)
{
	char socket[108];

	v->id = strdup(spec->id);
	v->path = strdup(spec->path);
	v->run_dir = strdup(spec->run_dir);
	v->pool = iobuf_pool_new(VDI_POOL_BYTES);
	v->pool_timer = loop_timer_new(v->loop, trim, v);
	if (!v->id || !v->path || !v->run_dir || !v->pool || !v->pool_timer || tenancy_init(v) == -1)
		return error_set(e, ENOMEM, "out of memory");
	iobuf_pool_on_excess(v->pool, on_excess, v);
	if (strlen(v->id) > VDI_ID_MAX || !*v->id || strchr(v->id, '/') || *v->id == '.')
		return error_set(e, EINVAL, "%.60s is no id: 1 to %d bytes, no slash, no leading dot", v->id, VDI_ID_MAX);
	return domains_socket(v->run_dir, "", socket, sizeof(socket), e);
}

struct vdi *vdi_new(const struct vdi_spec *spec, struct error *e)
{
	struct vdi *v = calloc(1, sizeof(*v));
	struct error no_dir = { 0 };

	if (!v) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	if (record_make_dir(&no_dir) == -1) /* early in a boot it may be read-only */
		log_warn("no place yet for records of operations that end: %s", no_dir.text);
	v->loop = spec->loop;
	v->on_empty = spec->on_empty;
	v->on_lost = spec->on_lost;
	v->on_closed = spec->on_closed;
	v->arg = spec->arg;
	TAILQ_INIT(&v->domains);
	TAILQ_INIT(&v->operations);
	TAILQ_INIT(&v->news);
	TAILQ_INIT(&v->verifications);
	TAILQ_INIT(&v->import.merge_waiters);
	jobs_init(v);
	budget_init(v);
	far_init(v);
	v->envoy_ms = spec->envoy_ms ? spec->envoy_ms : VDI_ENVOY_MS;
	v->far.linger_ms = spec->linger_ms ? spec->linger_ms : VDI_LINGER_MS;
	v->import.expect_ms = spec->expect_ms ? spec->expect_ms : VDI_EXPECT_MS;
	if (fill(v, spec, e) == 0)
		return v;
	vdi_free(v);
	return NULL;
}

void vdi_free(struct vdi *v)
{
	struct operation *op;
	struct domain *d;

	if (!v)
		return;
	jobs_drop(v);
	assert(!v->gate && !v->op && TAILQ_EMPTY(&v->far.links));
	record_drop_news(v);
	verification_drop_all(v);
	loop_timer_free(v->resume_timer);
	loop_timer_free(v->figures_timer);
	loop_timer_free(v->pool_timer);
	loop_timer_free(v->import.patience);
	loop_timer_free(v->far.linger);
	far_log_forget(v, true);
	tenancy_fini(v);
	budget_fini(v);
	owner_clear(&v->owner);
	while ((op = TAILQ_FIRST(&v->operations)))
		record_free(v, op);
	while ((d = TAILQ_FIRST(&v->domains))) {
		assert(!d->server);
		TAILQ_REMOVE(&v->domains, d, link);
		figures_free(d->figures);
		free(d);
	}
	if (v->pool)
		iobuf_pool_free(v->pool);
	debt_clear(&v->debt);
	journal_clear(&v->journal);
	free(v->owed);
	free(v->id);
	free(v->path);
	free(v->run_dir);
	free(v);
}

/* --- resume */

static void again(void *arg)
{
	job_add(arg, JOB_RESUME, "", NULL, NULL);
}

static struct domain *next_unserved(const struct vdi *v)
{
	struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if ((d->is_active || d->is_lingering) && !d->server)
			return d;
	return NULL;
}

void vdi_resume_later(struct vdi *v)
{
	if (!v->resume_timer)
		v->resume_timer = loop_timer_new(v->loop, again, v);
	if (v->resume_timer)
		loop_timer_set(v->resume_timer, VDI_RESUME_AGAIN_MS);
}

static void resumed_badly(struct vdi *v)
{
	vdi_resume_later(v);
	job_end(v);
}

/* A handover was under way: the guest goes on here, and that is on record before it is served. */
static bool has_to_withdraw(struct vdi *v, struct commit_verdict *verdict)
{
	const struct commit_activation a = { .domain = COMMIT_GUEST };

	if (v->step.err || v->owner.record.state != COMMIT_OFFERED || !vdi_has_writer(v, NULL, false))
		return false;
	*verdict = commit_activate(&v->owner.record, &a);
	if (verdict->does == COMMIT_ASK_GROUP)
		return true;
	log_warn("%s: %s", v->path, commit_why_text(verdict->why));
	return verdict->does == COMMIT_ALLOW && verdict->is_changed;
}

static void forget(struct vdi *v)
{
	debt_forget(v->run_dir, v->path);
}

static void buried(struct vdi *v)
{
	v->remains.is_there = false;
	job_end(v);
}

static void resumed(struct vdi *v);

static void resolved(struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;

	if (v->step.err || (r->state == COMMIT_OFFERED && r->group[0])) {
		v->job->error = v->step;
		resumed_badly(v);
	} else {
		resumed(v);
	}
}

static void resumed(struct vdi *v)
{
	struct job *j = v->job;
	struct commit_verdict verdict;

	if (has_to_withdraw(v, &verdict)) {
		if (verdict.does == COMMIT_ASK_GROUP)
			group_resolve(v, resolved);
		else
			stack_own(v, &verdict.next, resumed);
		return;
	}
	if (!v->step.err && group_leave(v)) {
		stack_save(v, resumed);
		return;
	}
	if (v->step.err && v->remains.is_there && !next_unserved(v)) {
		log_error("%s", v->step.text);
		operation_bury(v, &v->remains, buried);
		return;
	}
	if (!v->step.err && v->remains.is_there) {
		revive(v, resumed);
		return;
	}
	if (!v->step.err && v->remains.is_none) {
		v->remains.is_none = false;
		stack_work(v, forget, resumed);
		return;
	}
	if (v->step.err)
		j->error = v->step;
	while (!j->error.err && (j->d = next_unserved(v)))
		if (stack_serve(v, j->d, &j->error) == -1) {
			stack_cut(v, j->d, resumed_badly);
			return;
		}
	if (j->error.err) {
		resumed_badly(v);
		return;
	}
	linger_look(v);
	stack_release(v, job_end); /* what was looked for may not have been there, and nobody else needs the disk */
}

static bool has_lingering(const struct vdi *v)
{
	const struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d->is_lingering)
			return true;
	return false;
}

static void open_again(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	if (v->remains.is_there)
		stack_open(v, false, resumed);
	else if (next_unserved(v))
		stack_open(v, !vdi_has_writer(v, NULL, false) && !has_lingering(v), resumed);
	else
		job_end(v);
}

/* No reason not to serve a domain. */
static void take_up_figures(struct vdi *v, struct domain *d, const struct domains_entry *entry)
{
	struct error why = { 0 };

	if (!entry->vm || !entry->device)
		return;
	if (!guid_is(entry->vm) || !figures_is_device(entry->device))
		log_warn("%s names no VM and device whose figures are wanted", DOMAINS_FILE);
	else if (figures_tell(v, d, entry->vm, entry->device, &why) == -1)
		log_warn("domain %s: %s", d->name, why.text);
}

static int take_up(struct vdi *v, const struct domains_record *r, struct error *e)
{
	const struct domains_entry *entry = r->domains.item;

	for (size_t i = 0; i < r->domains.count; i++) {
		struct domain *d = vdi_add_domain(v, entry[i].domain, e);

		if (!d)
			return -1;
		d->is_active = entry[i].is_active;
		d->is_read_only = entry[i].is_read_only;
		d->is_lingering = entry[i].is_lingering;
		d->is_detached = entry[i].is_detached;
		take_up_figures(v, d, &entry[i]);
		listening_take_up(d, &entry[i]);
		guest_device_take_up(d, &entry[i]);
	}
	if (r->owed && *r->owed) {
		v->owed = strdup(r->owed);
		v->owed_since = r->owed_since;
		snprintf(v->owed_by, sizeof(v->owed_by), "%s", r->owed_by ? r->owed_by : "");
	}
	return 0;
}

/* Nobody is served from a record that cannot be read: who may write is not guessed. */
static void set_aside(const struct vdi *v, const struct error *e)
{
	CLEANUP_FREE char *from = NULL, *to = NULL;

	log_error("%s; it is set aside, and nobody is served until he activates again", e->text);
	if (asprintf(&from, "%s/%s", v->run_dir, DOMAINS_FILE) == -1)
		from = NULL;
	if (asprintf(&to, "%s/%s.bad", v->run_dir, DOMAINS_FILE) == -1)
		to = NULL;
	if (from && to && rename(from, to) == -1)
		log_error("%s cannot be set aside: %s", from, strerror(errno));
}

void vdi_begin_resume(struct vdi *v)
{
	struct domains_record r;
	struct error e = { 0 };

	if (v->has_resumed) {
		open_again(v);
		return;
	}
	v->has_resumed = true;
	if (domains_load(v->run_dir, &r, &e) == -1) {
		set_aside(v, &e);
		job_end(v);
		return;
	}
	if (take_up(v, &r, &v->job->error) == -1)
		job_end(v);
	else {
		if (r.operation && *r.operation)
			revive_note(v, &r);
		else
			debt_forget_map(v->run_dir);
		/* One that began and was not written down yet was not answered either. */
		v->remains.is_none = r.domains.count > 0 && !v->remains.is_there;
		open_again(v);
	}
	domains_clear(&r);
}

void vdi_resume(struct vdi *v, vdi_done_fn *done, void *arg)
{
	job_add(v, JOB_RESUME, "", done, arg);
}

/* --- stop */

static void stopped(struct vdi *v)
{
	job_end(v);
}

static void verified(struct vdi *v)
{
	budget_end(v, stopped);
}

static void closed(struct vdi *v)
{
	v->job->error = v->step;
	verification_wait(v, verified);
}

static void close_stack(struct vdi *v)
{
	stack_close(v, closed);
}

static void cut_all(struct vdi *v)
{
	struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d->server) {
			stack_cut(v, d, cut_all);
			return;
		}
	if (v->op) /* nobody writes any more: what its files say, they say for the next process */
		operation_suspend(v, close_stack);
	else
		close_stack(v);
}

void vdi_begin_stop(struct vdi *v)
{
	struct error why = { 0 };

	log_info("asked to stop");
	error_set(&why, ESHUTDOWN, "the datapath process was asked to stop");
	if (v->op && v->op->debt.journal)
		cut_all(v);
	else if (v->op && v->op->is_given)
		source_let_go(v, cut_all);
	else if (v->op)
		operation_give_up(v, &why, cut_all);
	else
		cut_all(v);
}

void vdi_stop(struct vdi *v, vdi_done_fn *done, void *arg)
{
	job_add(v, JOB_STOP, "", done, arg);
	v->is_stopping = true;
	v->tenancy.is_cancelled = true;
	group_hurry(v);
	pause_hurry(v);
}

/* --- without a process */

static bool is_ours(const char *name)
{
	const char *end = name + strlen(name);

	return strncmp(name, DOMAINS_FILE, strlen(DOMAINS_FILE)) == 0 || strncmp(name, "nbd-", 4) == 0 ||
	       strncmp(name, "cbt.", 4) == 0 || strncmp(name, "fds-", 4) == 0 ||
	       strncmp(name, "qcow2.", 6) == 0 || strncmp(name, "ring-", 5) == 0 || strcmp(name, BUDGET_FILE) == 0 ||
	       (end - name > 4 && strcmp(end - 4, ".tmp") == 0) || (end - name > 4 && strcmp(end - 4, ".new") == 0);
}

bool vdi_is_needed(const char *run_dir)
{
	struct domains_record r;
	struct error e = { 0 };
	bool is_needed;

	if (domains_load(run_dir, &r, &e) == -1)
		return true; /* cannot tell: the next process will */
	is_needed = r.domains.count > 0 || (r.operation && *r.operation);
	domains_clear(&r);
	return is_needed;
}

void vdi_sweep(const char *run_dir)
{
	DIR *d = opendir(run_dir);
	struct dirent *entry;
	struct error e = { 0 };

	if (disk_settle(run_dir, &e) == -1)
		log_error("%s", e.text);
	while (d && (entry = readdir(d)))
		if (is_ours(entry->d_name) && unlinkat(dirfd(d), entry->d_name, 0) == -1)
			log_warn("remove %s/%s: %s", run_dir, entry->d_name, strerror(errno));
	if (d)
		closedir(d);
	debt_forget_map(run_dir);
	figures_sweep(strrchr(run_dir, '/') ? strrchr(run_dir, '/') + 1 : run_dir);
}

/* --- what is so now */

void vdi_status(const struct vdi *v, struct vdi_status *out)
{
	const struct far_link *l;

	*out = (struct vdi_status){
		.is_open = v->disk != NULL,
		.engine = v->disk ? disk_engine_name(v->disk) : "",
		.is_direct = v->disk && disk_is_direct(v->disk),
		.is_read_only = v->disk && v->is_read_only,
		.is_tracked = v->cbt && !cbt_is_lost(v->cbt),
		.size_bytes = v->disk ? v->disk->geometry.size_bytes : 0,
		.in_flight = v->gate ? v->gate->in_flight : 0,
		.buffer_bytes = iobuf_pool_used(v->pool),
		.domains = v->domain_count,
		.owed = v->owed,
		.owner = v->owner.file ? v->owner.record : (struct commit_record){ 0 },
	};
	tenancy_status(&v->tenancy, out);
	TAILQ_FOREACH(l, &v->far.links, entry)
		out->links += l->is_admitted;
}

void vdi_watch(struct vdi *v)
{
	struct domain *d;

	if (v->is_watched)
		return;
	v->is_watched = true;
	TAILQ_FOREACH(d, &v->domains, link)
		figures_serve(v, d);
}

size_t vdi_domains(const struct vdi *v, struct vdi_domain_status *out, size_t max)
{
	const struct domain *d;
	size_t n = 0;

	TAILQ_FOREACH(d, &v->domains, link) {
		struct vdi_domain_status *s = &out[n];

		if (n == max)
			break;
		if (d->is_detached)
			continue;
		n++;
		memset(s, 0, sizeof(*s));
		memcpy(s->domain, d->name, sizeof(s->domain));
		memcpy(s->socket, d->socket, sizeof(s->socket));
		s->is_active = d->is_active;
		s->is_read_only = d->is_read_only;
		s->is_served = d->server != NULL;
		if (d->server)
			nbdsrv_stats(d->server, &s->nbd);
		guest_device_status(d, s);
	}
	return n;
}
