/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * import - this disk as the leaf of a mirror from a SMAPIv1 host (Datapath.import_activate), and what becomes of that
 *
 *      JOB_IMPORT    the overlay's files -> hold, drain -> the overlay over the disk -> wake -> a socket over which tapdisk's
 *                    connection is passed (nbdsrv/receive.c)
 *      deactivation  clients cut -> data flushed -> the overlay sealed: the leaf is whole, and is not a disk yet
 *      Volume.compose   gives the leaf's name to the image of its parent (plugins/): from then on it is one
 *      JOB_EXPECT    ... and says so: the image is opened, and nothing is merged yet
 *      next opening  the overlay is found, and merged into the disk while guests use it
 *      JOB_MERGED    the overlay out
 *
 * A guest waits from the deactivation until it is served. So the process stays for that, though nobody has the disk attached, and
 * the image is opened while the orchestrator is at other verbs:
 *
 *      NOBODY --sealed--> COMPOSE, image closed --JOB_EXPECT--> GUEST, image open --activated, or merge asked--> NOBODY
 *                            '-- 10 s: the process ends            '-- 10 s: closed, not merged; the process ends
 *
 * Between seal and JOB_EXPECT nothing of image or overlay is kept: both are read when it is opened, under the image's lock,
 * which Volume.compose has let go of by then.  So what is opened is what has the name, and it makes no difference who is killed:
 * a verb after its rename (nobody says "expect": the activation opens it), this process before it has heard of it (the verb
 * finds nobody, the next attach starts one) or with the image open (the lock ends with its I/O; nothing was merged, nothing
 * written).  A second Volume.compose finds it composed, and says "expect" once more, which changes nothing.
 *
 * tapdisk writes and never flushes; a write is promised to last when the deactivation has returned.
 * A leaf that is not composed starts no guest: it has only what was mirrored.  One whose process died in the middle never will be
 * whole: nobody can say what was under way.
 *
 * Can fail: files that cannot be made, a disk that is no file, a mirror that runs.
 * Invariant: a disk with an overlay that is not merged is read through it, by everybody.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/gate.h"
#include "vdi/vdi-private.h"

#define AGAIN_MS 1000u

struct layer *import_base(const struct vdi *v)
{
	return v->import.overlay ? v->import.overlay : v->disk;
}

bool import_is_merging(const struct vdi *v)
{
	return v->import.overlay && !v->is_read_only && overlay_mode(v->import.overlay) == OVERLAY_MERGING &&
	       !overlay_is_held(v->import.overlay);
}

bool import_is_collecting(const struct vdi *v)
{
	return v->import.overlay && overlay_mode(v->import.overlay) < OVERLAY_MERGING;
}

/* --- opened with the disk */

int import_open(struct vdi *v, const struct disk_spec *disk, struct error *e)
{
	struct disk_spec spec = *disk;
	enum overlay_state state;

	if (overlay_state(v->path, &state, e) == -1)
		return -1;
	error_clear(e);
	v->import.opened_leaf = state == OVERLAY_OPEN || state == OVERLAY_SEALED;
	if (state != OVERLAY_COMPOSED)
		return 0;
	v->import.file = overlay_file_load(v->path, e);
	if (v->import.file && v->import.file->size_bytes > disk_file_size(v->opened))
		return error_set(e, EINVAL, "what was mirrored to %s is of a disk of %llu bytes, more than it has", v->path,
				 (unsigned long long)v->import.file->size_bytes);
	if (!v->import.file)
		return -1;
	spec.path = v->import.file->data_path;
	v->import.data = disk_open(&spec, e);
	return v->import.data ? 0 : -1;
}

void import_drop_opened(struct vdi *v)
{
	if (v->import.data)
		disk_file_close(take_ptr(&v->import.data));
	overlay_file_free(take_ptr(&v->import.file));
}

static void on_merged(void *arg)
{
	job_add(arg, JOB_MERGED, "", NULL, NULL);
}

/* Of v->import.file and _data; -1 + e: they are gone. */
static int put_overlay(struct vdi *v, enum overlay_mode mode, struct error *e)
{
	struct overlay_spec spec = {
		.loop = v->loop, .below = v->disk, .image = v->path, .mode = mode, .on_merged = on_merged, .arg = v,
		.is_held = mode == OVERLAY_MERGING && v->import.expects == IMPORT_GUEST,
	};

	spec.data = disk_layer(v->loop, take_ptr(&v->import.data), e);
	spec.file = take_ptr(&v->import.file);
	if (!spec.data) {
		overlay_file_free(spec.file);
		return -1;
	}
	v->import.overlay = overlay_new(&spec);
	if (!v->import.overlay)
		return error_set(e, ENOMEM, "out of memory");
	if (v->tenancy.is_taken)
		disk_set_lease(overlay_data(v->import.overlay), v->tenancy.until_ns);
	return 0;
}

int import_put(struct vdi *v, struct error *e)
{
	v->import.is_leaf = v->import.opened_leaf;
	if (!v->import.file)
		return 0;
	if (put_overlay(v, OVERLAY_MERGING, e) == 0) {
		log_info("%s: %llu bytes that were mirrored to it are to be merged", v->path,
			 (unsigned long long)overlay_bytes(v->import.overlay));
		return 0;
	}
	layer_close(take_ptr(&v->disk));
	return -1;
}

/* --- closed */

void import_drop(struct vdi *v)
{
	if (v->import.overlay)
		layer_close(take_ptr(&v->import.overlay));
}

static void answer_waiters(struct vdi *v, const struct error *e)
{
	struct job_waiter *w;

	while ((w = TAILQ_FIRST(&v->import.merge_waiters))) {
		TAILQ_REMOVE(&v->import.merge_waiters, w, link);
		w->done(w->arg, e);
		free(w);
	}
}

static void on_rested(void *arg)
{
	struct vdi *v = arg;
	struct error e = { 0 };

	import_drop(v);
	error_set(&e, EAGAIN, "%s was closed before all was merged; ask again", v->path);
	if (!v->job->pause)
		answer_waiters(v, &e);
	take_ptr(&v->import.closed)(v);
}

void import_close(struct vdi *v, step_fn *next)
{
	v->import.closed = next;
	if (v->import.overlay)
		overlay_rest(v->import.overlay, on_rested, v);
	else
		take_ptr(&v->import.closed)(v);
}

/* --- who may use it */

bool import_refuses(const struct vdi *v, const char *domain, struct error *e)
{
	if ((!v->import.is_leaf && !import_is_collecting(v)) || domains_is_mirror(domain))
		return false;
	error_set(e, EPERM, "%s has only what was mirrored to it: it starts a guest when Volume.compose has put it on its parent",
		  v->path);
	return true;
}

int import_check_merged(const struct vdi *v, struct error *e)
{
	if (!v->import.is_leaf && (!v->import.overlay || overlay_mode(v->import.overlay) == OVERLAY_MERGED))
		return 0;
	return error_set(e, v->import.is_leaf || import_is_collecting(v) ? EPERM : EAGAIN,
			 "what was mirrored to %s is not merged into it yet", v->path);
}

/* --- JOB_IMPORT */

static void receive(struct vdi *v)
{
	struct job *j = v->job;
	struct domain *d = vdi_find(v, j->domain);
	int n = snprintf(d->import, sizeof(d->import), "%s", d->socket);
	char *name = strrchr(d->import, '/');

	assert(n > 0 && name && strncmp(name, "/nbd-", 5) == 0);
	memcpy(name, "/fds-", 5); /* not a name that says NBD server to xapi */
	if (nbdsrv_receive_unix(d->server, d->import, &j->error) == -1) {
		*d->import = '\0';
	} else {
		snprintf(j->socket, j->socket_bytes, "%s", d->import);
		log_info("domain %s: connections are taken at %s", d->name, d->import);
	}
	job_end(v);
}

/* Nothing was mirrored yet: without its files it is the disk that it was. */
static void unmake(struct vdi *v)
{
	if (tenancy_check(&v->tenancy, &v->step) == 0)
		overlay_remove(v->path, &v->step);
}

static void unmade(struct vdi *v)
{
	if (v->step.err)
		log_error("%s starts no guest, and is to be made anew: %s", v->path, v->step.text);
	job_end(v);
}

static void quiet(struct vdi *v)
{
	if (put_overlay(v, OVERLAY_COLLECTING, &v->job->error) == 0)
		gate_set_below(v->gate, v->import.overlay);
	stack_wake(v);
	error_clear(&v->step);
	if (v->job->error.err)
		stack_work(v, unmake, unmade);
	else
		receive(v);
}

static void made(struct vdi *v)
{
	if (!v->step.err) {
		stack_quiet(v, quiet);
		return;
	}
	import_drop_opened(v);
	v->job->error = v->step;
	error_prefix(&v->job->error, "import into %s", v->path);
	job_end(v);
}

static void make(struct vdi *v)
{
	struct disk_spec spec = { .lock_wait_ms = VDI_LOCK_WAIT_MS, .is_leased = v->tenancy.is_taken };
	struct error ignored = { 0 };
	struct stat st;

	if (stat(v->path, &st) == 0 && !S_ISREG(st.st_mode)) {
		error_set(&v->step, EOPNOTSUPP, "it is a device, beside which nothing can be kept");
		return;
	}
	v->import.file = overlay_file_make(v->path, v->disk->geometry.size_bytes, &v->step);
	if (!v->import.file)
		return;
	spec.path = v->import.file->data_path;
	v->import.data = disk_open(&spec, &v->step);
	if (!v->import.data)
		overlay_remove(v->path, &ignored);
}

static int check(const struct vdi *v, const struct domain *d, struct error *e)
{
	if (!d || !d->server || d->is_read_only)
		return error_set(e, ENOTCONN, "domain %s has not activated this disk for writing: activate it before",
				 v->job->domain);
	if (!domains_is_mirror(d->name))
		return error_set(e, EINVAL, "domain %s is not the far end of a mirror (MIR...)", d->name);
	if (v->import.is_leaf || (v->import.overlay && overlay_mode(v->import.overlay) != OVERLAY_COLLECTING))
		return error_set(e, EPERM, "%s had been mirrored to before, and that is over: make a new volume", v->path);
	if (v->op || v->cbt || v->is_refusing || v->owner.record.state != COMMIT_OWNED)
		return error_set(e, EBUSY, "%s is mirrored, or its changes are tracked: it cannot be the leaf of another mirror",
				 v->path);
	return 0;
}

void import_begin(struct vdi *v)
{
	struct job *j = v->job;
	struct domain *d = vdi_find(v, j->domain);

	if (d && d->server && *d->import) {
		snprintf(j->socket, j->socket_bytes, "%s", d->import);
		job_end(v);
	} else if (check(v, d, &j->error) == -1) {
		job_end(v);
	} else if (v->import.overlay) {
		receive(v);
	} else {
		stack_work(v, make, made);
	}
}

void vdi_import(struct vdi *v, const char *domain, char *socket, size_t bytes, vdi_done_fn *done, void *arg)
{
	struct job *j = job_add(v, JOB_IMPORT, domain, done, arg);

	if (j) {
		j->socket = socket;
		j->socket_bytes = bytes;
	}
}

/* --- who is expected */

static void on_patience(void *arg)
{
	struct vdi *v = arg;

	if (!job_add(v, JOB_EXPECT, "", NULL, NULL)) /* is_wanted: false */
		loop_timer_set(v->import.patience, AGAIN_MS);
}

/* Where there is no timer nobody is waited for. */
static void expect(struct vdi *v, enum import_expects whom)
{
	if (!v->import.patience)
		v->import.patience = loop_timer_new(v->loop, on_patience, v);
	v->import.expects = v->import.patience ? whom : IMPORT_NOBODY;
	if (v->import.patience)
		loop_timer_set(v->import.patience, v->import.expect_ms);
}

void import_met(struct vdi *v)
{
	if (v->import.patience)
		loop_timer_clear(v->import.patience);
	v->import.expects = IMPORT_NOBODY;
}

void import_go(struct vdi *v)
{
	if (v->import.overlay)
		overlay_go(v->import.overlay);
}

/* Somebody else had it open, and goes on. */
static void unexpected(struct vdi *v)
{
	if (v->gate)
		import_go(v);
	job_end(v);
}

static void opened_ahead(struct vdi *v)
{
	if (v->step.err)
		log_warn("%s is not opened before it is activated: %s", v->path, v->step.text);
	if (!v->step.err && v->import.overlay && overlay_is_held(v->import.overlay) && !vdi_has_active(v)) {
		log_info("%s was composed, and is open for the guest to come", v->path);
		job_end(v);
		return;
	}
	import_met(v);
	stack_release(v, unexpected);
}

void import_begin_expect(struct vdi *v)
{
	if (!v->job->is_wanted) {
		import_met(v);
		stack_release(v, unexpected);
		return;
	}
	expect(v, IMPORT_GUEST); /* so the overlay is held */
	stack_open(v, false, opened_ahead);
}

void vdi_expect(struct vdi *v)
{
	struct job *j = job_add(v, JOB_EXPECT, "", NULL, NULL);

	if (j)
		j->is_wanted = true;
}

/* --- the end of it */

static void sealed(struct vdi *v)
{
	if (!v->step.err)
		expect(v, IMPORT_COMPOSE);
	take_ptr(&v->import.sealed)(v);
}

static void seal(struct vdi *v)
{
	if (tenancy_check(&v->tenancy, &v->step) == 0)
		overlay_seal(v->import.overlay, &v->step);
}

void import_seal(struct vdi *v, step_fn *next)
{
	const struct domain *d = v->job->d, *other;
	bool is_last = domains_is_mirror(d->name) && !d->is_read_only;

	TAILQ_FOREACH(other, &v->domains, link)
		if (other != d && other->is_active && !other->is_read_only)
			is_last = false;
	if (v->step.err || !is_last || !v->import.overlay || overlay_mode(v->import.overlay) != OVERLAY_COLLECTING) {
		next(v);
		return;
	}
	log_info("%s: %llu bytes were mirrored to it", v->path, (unsigned long long)overlay_bytes(v->import.overlay));
	overlay_stop_collecting(v->import.overlay);
	v->import.sealed = next;
	stack_work(v, seal, sealed);
}

/* --- JOB_MERGED */

/* Where nobody else has it the image is let go of before it is said. */
static void released(struct vdi *v)
{
	answer_waiters(v, NULL);
	job_end(v);
}

static void parted(struct vdi *v)
{
	layer_close(take_ptr(&v->job->untracked));
	stack_release(v, released);
}

static void on_drained(struct layer *l UNUSED, void *arg)
{
	stack_step_end(arg);
}

/* A mirror is not drained: what it has in flight goes on to where it was sent. */
static void quiet_to_part(struct vdi *v)
{
	v->job->untracked = take_ptr(&v->import.overlay);
	if (v->cbt)
		v->cbt->below = v->disk;
	else if (v->op && v->gate->below == v->op->mirror)
		v->op->mirror->below = v->disk;
	else
		gate_set_below(v->gate, v->disk);
	stack_wake(v);
	stack_step_begin(v, parted);
	layer_drain(v->job->untracked, on_drained, v);
}

void import_begin_end(struct vdi *v)
{
	if (!v->import.overlay || overlay_mode(v->import.overlay) != OVERLAY_MERGED || v->is_refusing) {
		job_end(v); /* closed meanwhile, or it will be */
		return;
	}
	stack_quiet(v, quiet_to_part);
}

/* --- JOB_MERGE: whoever needs the image itself */

static void refused(struct vdi *v)
{
	job_end(v);
}

static void opened(struct vdi *v)
{
	struct job *j = v->job;

	j->error = v->step;
	import_go(v);
	if (!j->error.err && v->import.is_leaf)
		import_check_merged(v, &j->error);
	if (!j->error.err && import_is_merging(v))
		TAILQ_CONCAT(&v->import.merge_waiters, &j->waiters, link);
	stack_release(v, refused);
}

void import_begin_merge(struct vdi *v)
{
	import_met(v);
	stack_open(v, false, opened);
}

void vdi_merge(struct vdi *v, vdi_done_fn *done, void *arg)
{
	job_add(v, JOB_MERGE, "", done, arg);
}
