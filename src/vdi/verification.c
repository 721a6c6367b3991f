/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * verification - a disk and a copy of it are compared while the disk is in use
 *
 *      JOB_VERIFY   open, read-only where nobody has it open -> verify_start -> answered: the rest is news
 *      on_over      its outcome is kept, a few of them, in memory -> JOB_VERIFIED   close the disk where nobody needs it
 *
 * A verification never keeps the disk from anybody: when it is handed over, or closed as its last domain deactivates, the
 * verification fails with that reason.  One that is begun on a disk nobody has active opens it read-only, and holds its lock so.
 *
 * Can fail: no far side named and no mirror running, a mirror that is not in sync yet, ranges outside of the disk, opening.
 * Invariant: at most one lives; it touches the gate only while there is one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "mirror/remote.h"
#include "vdi/vdi-private.h"

struct verification {
	struct vdi *vdi;           /* borrowed */
	char id[64];
	struct verify *verify;     /* owned; NULL once over */
	struct verify_status last; /* as it was then */
	TAILQ_ENTRY(verification) link;
};

/* --- those that are over */

static void trim(struct vdi *v)
{
	struct verification *n, *next;
	unsigned count = 0;

	TAILQ_FOREACH(n, &v->verifications, link)
		count++;
	for (n = TAILQ_FIRST(&v->verifications); n && count > VDI_VERIFICATIONS_KEPT; n = next) {
		next = TAILQ_NEXT(n, link);
		if (n == v->verification)
			continue;
		TAILQ_REMOVE(&v->verifications, n, link);
		free(n);
		count--;
	}
}

void verification_drop_all(struct vdi *v)
{
	struct verification *n;

	assert(!v->verification);
	while ((n = TAILQ_FIRST(&v->verifications))) {
		TAILQ_REMOVE(&v->verifications, n, link);
		free(n);
	}
}

static struct verification *find(const struct vdi *v, const char *id)
{
	struct verification *n;

	TAILQ_FOREACH(n, &v->verifications, link)
		if (strcmp(n->id, id) == 0)
			return n;
	return NULL;
}

/* --- the living one */

static bool is_settled(void *arg, struct range r)
{
	const struct verification *n = arg;
	const struct operation *op = n->vdi->op;

	return !op || !op->mirror || mirror_is_settled(op->mirror, r);
}

static void on_change(void *arg)
{
	struct verification *n = arg;

	record_news(n->vdi, n->id);
}

static void on_over(void *arg)
{
	struct verification *n = arg;
	struct vdi *v = n->vdi;

	verify_status(n->verify, &n->last);
	verify_free(take_ptr(&n->verify));
	v->verification = NULL;
	record_news(v, n->id);
	trim(v);
	if (v->is_waiting_verification) {
		v->is_waiting_verification = false;
		stack_step_end(v);
	} else {
		job_add(v, JOB_VERIFIED, "", NULL, NULL);
	}
}

void verification_close(struct vdi *v)
{
	struct error why = { 0 };

	if (!v->verification)
		return;
	error_set(&why, ESHUTDOWN, "the disk was closed, as nobody has it active any more");
	verify_cancel(v->verification->verify, &why);
}

void verification_wait(struct vdi *v, step_fn *next)
{
	stack_step_begin(v, next);
	v->is_waiting_verification = v->verification != NULL;
	if (!v->verification)
		stack_step_end(v);
}

/* --- JOB_VERIFY */

static void refuse(struct vdi *v, const struct error *e)
{
	v->job->error = *e;
	stack_release(v, job_end);
}

static int start(struct vdi *v, const struct job *j, struct error *e)
{
	struct verification *n = calloc(1, sizeof(*n));
	const struct verify_spec spec = {
		.loop = v->loop,
		.top = v->gate,
		.uri = j->remote,
		.only = j->has_only ? &j->only : NULL,
		.rate_bytes = j->rate_bytes,
		.is_settled = is_settled,
		.on_change = on_change,
		.on_over = on_over,
		.arg = n,
	};

	if (!n)
		return error_set(e, ENOMEM, "out of memory");
	n->vdi = v;
	snprintf(n->id, sizeof(n->id), "%s.v%" PRIu64, v->id, record_number(v));
	n->verify = verify_new(&spec, e);
	if (!n->verify) {
		free(n);
		return -1;
	}
	log_info("verification %s against %s begins", n->id, j->remote);
	TAILQ_INSERT_TAIL(&v->verifications, n, link);
	v->verification = n;
	snprintf(j->out_id, j->out_bytes, "%s", n->id);
	verify_start(n->verify);
	return 0;
}

static int check_ranges(const struct job *j, uint64_t size_bytes, struct error *e)
{
	if (j->has_only && !j->only.count)
		return error_set(e, EINVAL, "the list of ranges is empty");
	if (j->has_only && j->only.item[j->only.count - 1].range.end > size_bytes)
		return error_set(e, EINVAL, "a range ends at %" PRIu64 ", this disk at %" PRIu64,
		                 j->only.item[j->only.count - 1].range.end, size_bytes);
	return 0;
}

static void opened(struct vdi *v)
{
	struct job *j = v->job;
	struct error e = { 0 };

	if (v->step.err)
		refuse(v, &v->step);
	else if (check_ranges(j, v->gate->geometry.size_bytes, &e) == -1 || start(v, j, &e) == -1)
		refuse(v, &e);
	else
		job_end(v);
}

/* Against the running mirror's far side, where none is named. */
static int choose_remote(const struct vdi *v, struct job *j, struct error *e)
{
	struct mirror_status s;

	if (j->remote)
		return 0;
	if (!v->op || v->op->is_remembered)
		return error_set(e, EINVAL, "no mirror of this disk is running: \"remote\" has to say what to compare it with");
	mirror_status(v->op->mirror, &s);
	if (!s.core.was_synced)
		return error_set(e, EBUSY, "the mirror %s is not in sync yet: wait for that, then verify", v->op->id);
	j->remote = strdup(mirror_uri(v->op->mirror));
	return j->remote ? 0 : error_set(e, ENOMEM, "out of memory");
}

void verification_begin(struct vdi *v)
{
	struct error e = { 0 };

	if (v->verification)
		error_set(&e, EBUSY, "verification %s of this disk is running: one at a time; wait for it or cancel it",
		          v->verification->id);
	if (e.err || v->job->error.err || choose_remote(v, v->job, &e) == -1)
		job_fail(v, v->job->error.err ? &v->job->error : &e);
	else
		stack_open(v, true, opened);
}

void verification_ended(struct vdi *v)
{
	stack_release(v, job_end);
}

/* --- the verbs */

void vdi_verify(struct vdi *v, const struct vdi_verify_args *args, char *id, size_t bytes, vdi_done_fn *done, void *arg)
{
	struct error e = { 0 };
	struct job *j;

	if (args->remote && remote_nbd_check_uri(args->remote, &e) == -1) {
		done(arg, &e);
		return;
	}
	j = job_add(v, JOB_VERIFY, "", done, arg);
	if (!j)
		return;
	j->remote = args->remote ? strdup(args->remote) : NULL;
	j->rate_bytes = args->rate_bytes;
	j->has_only = args->only != NULL;
	for (size_t i = 0; args->only && i < args->only->count; i++)
		if (extents_add(&j->only, args->only->item[i].range, 0) == -1)
			error_set(&j->error, ENOMEM, "out of memory");
	if (args->remote && !j->remote)
		error_set(&j->error, ENOMEM, "out of memory");
	j->out_id = id;
	j->out_bytes = bytes;
}

void vdi_verify_cancel(struct vdi *v, const char *id, vdi_done_fn *done, void *arg)
{
	struct verification *n = find(v, id);
	struct error e = { 0 };

	if (!n) {
		error_set(&e, ENOENT, "this process knows no verification %.60s", id);
		done(arg, &e);
		return;
	}
	if (n->verify)
		verify_cancel(n->verify, NULL);
	done(arg, NULL);
}

static void describe(const struct verification *n, struct vdi_verification_status *out)
{
	memcpy(out->id, n->id, sizeof(out->id));
	if (n->verify)
		verify_status(n->verify, &out->verify);
	else
		out->verify = n->last;
}

int vdi_verification(const struct vdi *v, const char *id, struct vdi_verification_status *out)
{
	const struct verification *n = find(v, id);

	if (!n)
		return -1;
	describe(n, out);
	return 0;
}

size_t vdi_verifications(const struct vdi *v, struct vdi_verification_status *out, size_t max)
{
	const struct verification *n;
	size_t count = 0;

	TAILQ_FOREACH(n, &v->verifications, link)
		if (count < max)
			describe(n, &out[count++]);
	return count;
}
