/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vdi - one disk's whole life: the verbs, each a chain of steps
 *
 *      activate    open (or upgrade) -> may it (commit.h)? -> own, on record -> write down -> serve
 *      deactivate  raise what is owed | barrier -> flush -> write down -> close | cut -> flush -> write down -> close
 *      detach      cut and flush, where still active -> forget -> write down -> close
 *      resume      read domains.json -> bury the operation -> open -> serve; again every second until it works
 *      stop        cut everybody -> mirror out, its files kept -> flush and close; domains.json stays
 *
 * Knows who is attached and who is active.  How a step works is stack.c's, what a barrier is handover.c's.
 * Can fail: opening, listening, flushing, the barrier.  A deactivation that raised leaves its domain active; the next one
 * is ordinary.
 * Invariants: "active" is on file before a client is served; a domain is served only while it is active; a raise is on file
 * before it is answered.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

/* --- who */

struct domain *vdi_find(const struct vdi *v, const char *name)
{
	struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (strcmp(d->name, name) == 0)
			return d;
	return NULL;
}

struct domain *vdi_add_domain(struct vdi *v, const char *name, struct error *e)
{
	struct domain *d = vdi_find(v, name);

	if (d) {
		d->is_detached = false;
		return d;
	}
	if (v->domain_count >= DOMAINS_MAX || strlen(name) >= DOMAINS_NAME_MAX) {
		error_set(e, ENOSPC, "domain %.40s: too long a name, or %d domains have this disk attached already", name,
			  DOMAINS_MAX);
		return NULL;
	}
	d = calloc(1, sizeof(*d));
	if (!d) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	if (domains_socket(v->run_dir, name, d->socket, sizeof(d->socket), e) == -1) {
		free(d);
		return NULL;
	}
	snprintf(d->name, sizeof(d->name), "%s", name);
	d->vdi = v;
	TAILQ_INSERT_TAIL(&v->domains, d, link);
	v->domain_count++;
	return d;
}

void vdi_remove_domain(struct vdi *v, struct domain *d)
{
	assert(!d->server && !d->is_active);
	unlink(d->socket); /* a killed predecessor's */
	guest_device_drop_book(d);
	figures_end(d);
	listening_forget(d);
	TAILQ_REMOVE(&v->domains, d, link);
	v->domain_count--;
	free(d);
}

bool vdi_counts_as_guest(const struct vdi *v, const struct domain *d)
{
	return domains_is_guest(d->name) || (v->op && strcmp(v->op->domain, d->name) == 0);
}

bool vdi_has_writer(const struct vdi *v, const struct domain *but, bool is_guest_only)
{
	const struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d != but && d->is_active && !d->is_read_only && (!is_guest_only || vdi_counts_as_guest(v, d)))
			return true;
	return false;
}

bool vdi_has_active(const struct vdi *v)
{
	const struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d->is_active)
			return true;
	return false;
}

bool vdi_is_empty(const struct vdi *v)
{
	return TAILQ_EMPTY(&v->domains) && !v->op && !import_is_merging(v) && !v->import.expects && !v->verification && !v->job &&
	       TAILQ_EMPTY(&v->jobs) && !v->budget.is_asking && v->budget.fd < 0;
}

/* --- attach: only a name, and a place in the record.
 * Two names may share a hash: the second is refused, for it would cut the first one off. */

static void attached(struct vdi *v)
{
	v->job->error = v->step;
	job_end(v);
}

void vdi_begin_attach(struct vdi *v)
{
	struct job *j = v->job;
	bool is_new = !vdi_find(v, j->domain);
	struct domain *d = vdi_add_domain(v, j->domain, &j->error), *other;

	if (!d) {
		job_end(v);
		return;
	}
	TAILQ_FOREACH(other, &v->domains, link)
		if (other != d && strcmp(other->socket, d->socket) == 0)
			error_set(&j->error, EADDRINUSE, "domains %s and %s would have the same socket", other->name, d->name);
	if (j->error.err) {
		vdi_remove_domain(v, d);
		job_end(v);
		return;
	}
	snprintf(j->socket, j->socket_bytes, "%s", d->socket);
	if (is_new)
		stack_save(v, attached);
	else
		job_end(v);
}

void vdi_attach(struct vdi *v, const char *domain, char *socket, size_t bytes, vdi_done_fn *done, void *arg)
{
	struct job *j = job_add(v, JOB_ATTACH, domain, done, arg);

	if (j) {
		j->socket = socket;
		j->socket_bytes = bytes;
	}
}

/* --- activate */

static void undone(struct vdi *v)
{
	job_end(v); /* job->error says why */
}

static void undo_close(struct vdi *v)
{
	stack_release(v, undone);
}

static void undo_save(struct vdi *v)
{
	v->job->d->is_active = false;
	stack_save(v, undo_close);
}

/* Whoever moved the disk here may never say that this is over: its guest was halted meanwhile. When it was taken, it is over. */
static void end_far(struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;
	const struct domain *d;

	if (v->job->is_read_only || domains_is_mirror(v->job->domain) || r->role != COMMIT_ROLE_FAR || r->state != COMMIT_OWNED ||
	    r->is_unverified)
		return;
	TAILQ_FOREACH(d, &v->domains, link)
		if (domains_is_mirror(d->name) && !d->is_lingering && !d->is_detached) {
			log_info("domain %s is let go of: a guest has taken what it received", d->name);
			vdi_detach(v, d->name, NULL, NULL);
		}
}

static void activated(struct vdi *v)
{
	struct job *j = v->job;

	j->error = v->step;
	if (j->error.err || stack_serve(v, j->d, &j->error) == -1) {
		stack_cut(v, j->d, undo_save);
		return;
	}
	end_far(v);
	import_go(v);
	job_end(v);
}

/* It starts here, and no other guest has been writing, who is yet to be deactivated: what a mirror that is no more still owed
 * him is settled. */
static bool is_new_guest(const struct vdi *v)
{
	const struct job *j = v->job;

	return domains_is_guest(j->domain) && !j->is_read_only && !j->d->is_active && !vdi_has_writer(v, j->d, true);
}

static void write_down(struct vdi *v)
{
	struct domain *d = v->job->d;

	if (v->owed && is_new_guest(v)) {
		log_info("a new guest starts here: what was owed is settled (%s)", v->owed);
		free(take_ptr(&v->owed));
	}
	d->is_active = true;
	d->is_lingering = false;
	d->is_read_only = v->job->is_read_only;
	stack_save(v, activated);
}

static void cut_before(struct vdi *v)
{
	stack_cut(v, v->job->d, write_down); /* served read-only so far, or its links: its clients come again */
}

static void awake(struct vdi *v)
{
	stack_wake(v);
	cut_before(v);
}

/* A disk that nobody wrote so far may be written though that cannot be written down: else a full SR would start no guest. */
static void owned(struct vdi *v)
{
	const struct commit_verdict *verdict = &v->job->verdict;

	if (v->step.err && v->owner.record.state == COMMIT_OWNED) {
		log_error("going on all the same: %s", v->step.text);
	} else if (v->step.err) {
		v->job->error = v->step;
		stack_release(v, undone);
		return;
	}
	if (verdict->shuts_out) {
		far_shut_out(v, NULL);
		stack_quiet(v, awake);
	} else {
		cut_before(v);
	}
}

static enum commit_domain kind_of(const char *domain)
{
	if (domains_is_mirror(domain))
		return COMMIT_MIRROR;
	return domains_is_guest(domain) ? COMMIT_GUEST : COMMIT_DOM0;
}

static struct commit_verdict judge(const struct vdi *v, bool is_linked)
{
	const struct job *j = v->job;
	const struct commit_activation a = {
		.domain = kind_of(j->domain), .is_read_only = j->is_read_only, .is_forced = j->is_forced, .is_linked = is_linked,
	};
	struct commit_verdict settled = { .next = v->owner.record }, verdict;

	if (is_new_guest(v) && (!v->op || v->op->is_remembered) && v->owner.record.is_told)
		settled = commit_source_settle(&v->owner.record);
	verdict = commit_activate(&settled.next, &a);
	verdict.is_changed |= settled.is_changed;
	return verdict;
}

static void opened(struct vdi *v);

static void asked_back(struct vdi *v)
{
	v->job->was_asked_back = true;
	v->job->was_revived = v->op != NULL; /* an envoy got it back: its mirror goes on */
	error_clear(&v->step);
	opened(v);
}

static void resolved(struct vdi *v)
{
	v->job->was_revived = false; /* its mirror may go on now */
	error_clear(&v->step);
	opened(v);
}

static void opened(struct vdi *v)
{
	struct job *j = v->job;

	if (v->step.err) {
		j->error = v->step;
		stack_release(v, undone);
		return;
	}
	if (!j->is_read_only && !j->was_revived) {
		j->was_revived = true;
		revive(v, opened);
		return;
	}
	/* Given: it is asked back, where a link is or can be made. */
	j->verdict = judge(v, v->owner.record.state == COMMIT_GIVEN && !j->was_asked_back);
	if (j->verdict.does == COMMIT_ASK_GROUP && !j->was_resolved) {
		j->was_resolved = true;
		group_resolve(v, resolved);
		return;
	}
	if (j->verdict.does == COMMIT_ASK_RECLAIM) {
		if (v->op)
			source_reclaim(v, asked_back);
		else
			envoy_reclaim(v, asked_back);
		return;
	}
	if (!j->is_forced && import_refuses(v, j->domain, &j->error)) {
		stack_release(v, undone);
		return;
	}
	if (j->verdict.does != COMMIT_ALLOW) {
		error_set(&j->error, EPERM, "%s: %s", v->path, commit_why_text(j->verdict.why));
		stack_release(v, undone);
		return;
	}
	if (j->verdict.why != COMMIT_WHY_NONE)
		log_warn("domain %s starts from this disk: %s", j->domain, commit_why_text(j->verdict.why));
	if (j->verdict.is_changed)
		stack_own(v, &j->verdict.next, owned);
	else
		owned(v);
}

void vdi_begin_activate(struct vdi *v)
{
	struct job *j = v->job;

	import_met(v);
	j->d = vdi_add_domain(v, j->domain, &j->error);
	if (!j->d || (j->d->is_active && j->d->server && (j->is_read_only || !j->d->is_read_only))) {
		job_end(v);
		return;
	}
	if (j->d->is_active && !j->d->is_read_only)
		j->is_read_only = false; /* not served since a resume that failed: as it was */
	stack_open(v, j->is_read_only, opened);
}

void vdi_activate(struct vdi *v, const char *domain, bool is_read_only, bool is_forced, vdi_done_fn *done, void *arg)
{
	struct job *j = job_add(v, JOB_ACTIVATE, domain, done, arg);

	if (!j)
		return;
	j->is_read_only = is_read_only;
	j->is_forced = is_forced;
}

/* --- deactivate and detach */

static void gone(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	operation_look(v);
	job_end(v);
}

static void recorded(struct vdi *v)
{
	if (v->step.err)
		log_error("after a good barrier: %s", v->step.text);
	stack_release(v, gone);
}

/* After a barrier a guest waits elsewhere for nothing more of this. */
static void written_off(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text); /* it is so all the same */
	if (v->job->barrier_was_good && v->op) {
		job_answer(v->job);
		operation_record(v, recorded);
	} else {
		stack_release(v, gone);
	}
}

static void forget(struct vdi *v, struct domain *d)
{
	if (d->is_lingering)
		d->is_detached = true;
	else
		vdi_remove_domain(v, d);
}

static void flushed(struct vdi *v)
{
	struct job *j = v->job;

	if (v->step.err && j->barrier_was_good)
		log_error("%s, after the far side has it all", v->step.text);
	else if (v->step.err)
		j->error = v->step;
	j->is_flushed = !v->step.err;
	j->d->is_active = false;
	if (!j->d->is_lingering)
		listening_forget(j->d);
	guest_device_forget(j->d);
	*j->d->import = '\0';
	log_info("domain %s is inactive", j->domain);
	if (j->kind == JOB_DETACH)
		forget(v, take_ptr(&j->d));
	stack_save(v, written_off);
}

static void to_seal(struct vdi *v)
{
	import_seal(v, flushed);
}

static void cut(struct vdi *v)
{
	error_clear(&v->step);
	if (v->job->is_flushed)
		to_seal(v);
	else
		stack_flush(v, to_seal);
}

static void raised(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	job_end(v);
}

void vdi_handed_over(struct vdi *v)
{
	struct job *j = v->job;

	j->barrier_was_good = !v->step.err;
	if (j->barrier_was_good) {
		stack_cut(v, j->d, cut);
		return;
	}
	j->error = v->step;
	error_prefix(&j->error, "the mirror was complete, but its last writes did not reach the far side");
	raised(v);
}

static void save_raised(struct vdi *v)
{
	if (v->step.err)
		log_error("%s", v->step.text);
	stack_save(v, raised);
}

static void raise_owed(struct vdi *v, const struct commit_verdict *verdict)
{
	CLEANUP_FREE char *owed = take_ptr(&v->owed);

	if (owed)
		error_set(&v->job->error, EIO, "%s", owed);
	else
		error_set(&v->job->error, EIO, "the mirror %s had been complete, and was never handed over",
			  v->owner.record.mirror);
	if (verdict->is_changed)
		stack_own(v, &verdict->next, save_raised);
	else
		save_raised(v);
}

static void give_up_shared(struct vdi *v)
{
	operation_give_up(v, &v->job->error, raised);
}

static void shared(struct vdi *v)
{
	error_set(&v->job->error, EBUSY, "the mirror was complete, but another domain still has the disk active for writing");
	source_withdraw(v, give_up_shared);
}

void vdi_begin_deactivate(struct vdi *v)
{
	struct job *j = v->job;
	struct commit_verdict verdict;
	bool is_live;

	j->d = vdi_find(v, j->domain);
	if (!j->d || !j->d->is_active) {
		job_end(v);
		return;
	}
	if (j->d->is_read_only || !vdi_counts_as_guest(v, j->d)) {
		far_leave(v, cut);
		return;
	}
	is_live = v->op && v->op->is_told && !v->op->is_given;
	verdict = commit_deactivate(&v->owner.record, is_live, (int64_t)time(NULL));
	if (v->owed && ((verdict.does == COMMIT_ALLOW && v->owner.record.is_told) ||
			(int64_t)time(NULL) - v->owed_since > VDI_OWED_S))
		free(take_ptr(&v->owed));
	if (verdict.does == COMMIT_ASK_GROUP && !j->was_resolved) {
		j->was_resolved = true;
		group_resolve(v, vdi_begin_deactivate);
	} else if (verdict.does == COMMIT_ASK_GROUP) {
		error_set(&j->error, EAGAIN, "%s: %s", v->path, commit_why_text(verdict.why));
		job_end(v);
	} else if (is_live && verdict.does == COMMIT_BARRIER && vdi_has_writer(v, j->d, false))
		shared(v);
	else if (is_live && verdict.does == COMMIT_BARRIER)
		handover_begin(v, j->d, vdi_handed_over);
	else if (v->owed || verdict.does == COMMIT_RAISE)
		raise_owed(v, &verdict);
	else
		far_leave(v, cut);
}

void vdi_begin_detach(struct vdi *v)
{
	struct job *j = v->job;

	j->d = vdi_find(v, j->domain);
	if (!j->d || j->d->is_detached) {
		job_end(v);
	} else if (j->d->is_active) {
		far_leave(v, cut);
	} else {
		forget(v, take_ptr(&j->d));
		stack_save(v, written_off);
	}
}

static void queue_or_join(struct vdi *v, enum job_kind kind, const char *domain, vdi_done_fn *done, void *arg)
{
	struct job *last = job_last(v, domain);

	if (last && last->kind == kind && job_join(last, done, arg) == 0)
		return;
	job_add(v, kind, domain, done, arg);
}

void vdi_deactivate(struct vdi *v, const char *domain, vdi_done_fn *done, void *arg)
{
	queue_or_join(v, JOB_DEACTIVATE, domain, done, arg);
}

void vdi_detach(struct vdi *v, const char *domain, vdi_done_fn *done, void *arg)
{
	queue_or_join(v, JOB_DETACH, domain, done, arg);
}
