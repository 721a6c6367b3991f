/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * stack - opens, changes and closes the pile of layers, step by step
 *
 *      clients -> gate -> [mirror] -> [cbt] -> [overlay] -> disk -> the image's descriptor, locked while it is open, and leased
 *
 * The only file that calls disk and gate constructors and that makes and frees NBD servers.  Each function is one step of
 * the running job: it starts something and ends in `next`, with v->step saying how it went.
 *
 * Upgrade (opened read-only, now somebody writes): hold, drain, close the disk, open it anew for writing, put it under the
 * same gate, release.  Where that fails the disk is opened read-only again; where that fails too the gate refuses.
 *
 * Can fail: opening (no file, a lock or a lease held elsewhere), flushing (the medium), writing a record (disk full).
 * Invariant: gate and disk are both open or both closed, except inside an upgrade, where the gate is held.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/slots.h"
#include "block/gate.h"
#include "vdi/vdi-private.h"

#define LEASE_TRIES 5u

/* --- steps */

void stack_step_begin(struct vdi *v, step_fn *next)
{
	assert(!v->next && v->job);
	v->next = next;
	error_clear(&v->step);
}

void stack_step_end(struct vdi *v)
{
	step_fn *next = take_ptr(&v->next);

	next(v);
}

/* --- what blocks */

static void on_work(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, offload);

	v->work(v);
}

/* after: on the loop, ends the step. */
static void offload(struct vdi *v, void (*work)(struct vdi *v), void (*after)(struct offload *o))
{
	v->work = work;
	v->offload.work = on_work;
	v->offload.done = after;
	if (offload_submit(v->loop, &v->offload) == -1) {
		error_set(&v->step, ENOMEM, "out of memory");
		after(&v->offload);
	}
}

static void on_worked(struct offload *o)
{
	stack_step_end(container_of(o, struct vdi, offload));
}

void stack_work(struct vdi *v, void (*work)(struct vdi *v), step_fn *next)
{
	stack_step_begin(v, next);
	offload(v, work, on_worked);
}

/* --- open */

/* The lock before the lease: what a killed process of this host had under way is over then. */
static bool try_to_open(struct vdi *v, struct error *e)
{
	struct disk_spec spec = {
		.path = v->path,
		.run_dir = v->run_dir,
		.is_read_only = v->open_read_only,
		.lock_wait_ms = VDI_LOCK_WAIT_MS,
	};

	error_clear(e);
	if (tenancy_wait(&v->tenancy, v->path, &spec, e) == -1)
		return false;
	v->opened = disk_open(&spec, e);
	if (!v->opened)
		return false;
	if (tenancy_take(&v->tenancy, v->path, &spec, e) == 0 && tracking_open(v, e) == 0 &&
	    import_open(v, &spec, e) == 0 && owner_load(v->path, &v->loaded, e) == 0)
		return true;
	cbt_live_free(take_ptr(&v->tracked)); /* its file says that it was not closed, no more */
	import_drop_opened(v);
	disk_file_close(take_ptr(&v->opened));
	disk_settle(v->run_dir, NULL);
	tenancy_undo(&v->tenancy, v->path);
	return false;
}

static void open_image(struct vdi *v)
{
	struct error e = { .err = ESTALE };

	for (unsigned tries = 0; e.err == ESTALE && tries < LEASE_TRIES; tries++) /* somebody changed the lease under us */
		if (try_to_open(v, &e))
			return;
	v->step = e;
}

/* v->disk of what open_image() brought. */
static void make_disk(struct vdi *v)
{
	struct disk_file *f = take_ptr(&v->opened);

	if (!f) {
		if (!v->step.err) /* the work never ran */
			error_set(&v->step, ENOMEM, "out of memory");
		return;
	}
	v->disk = disk_layer(v->loop, f, &v->step);
	if (!v->disk || import_put(v, &v->step) == -1 || tracking_put(v, &v->step) == -1) {
		import_drop_opened(v);
		cbt_live_free(take_ptr(&v->tracked));
		owner_clear(&v->loaded);
		return;
	}
	v->is_read_only = v->open_read_only;
	owner_clear(&v->owner);
	v->owner = v->loaded;
	v->loaded = (struct owner){ 0 };
	tenancy_begin(v);
}

/* ... under the gate. */
static void put_under(struct vdi *v)
{
	make_disk(v);
	if (!v->disk)
		return;
	if (v->gate) {
		gate_set_below(v->gate, stack_base(v));
		stack_wake(v);
		return;
	}
	v->gate = gate_new(stack_base(v));
	if (!v->gate) {
		if (v->cbt)
			layer_close(take_ptr(&v->cbt));
		import_drop(v);
		layer_close(take_ptr(&v->disk));
		error_set(&v->step, ENOMEM, "out of memory");
	}
}

static void on_opened(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, offload);

	put_under(v);
	if (!v->disk)
		error_prefix(&v->step, "open %s", v->path);
	stack_step_end(v);
}

static void on_reopened(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, offload);
	struct error first = v->step;

	put_under(v);
	if (!v->disk) {
		log_error("%s could not be opened again read-only: %s: its readers are refused", v->path, v->step.text);
		stack_refuse(v);
	}
	if (first.err)
		v->step = first;
	stack_step_end(v);
}

static void on_upgraded(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, offload);

	put_under(v);
	if (v->disk) {
		stack_step_end(v);
		return;
	}
	error_prefix(&v->step, "open %s for writing", v->path);
	v->open_read_only = true;
	offload(v, open_image, on_reopened);
}

static void on_upgrade_drained(struct layer *gate, void *arg)
{
	struct vdi *v = arg;

	gate_set_below(gate, NULL);
	import_drop(v);
	layer_close(take_ptr(&v->disk));
	v->open_read_only = false;
	offload(v, open_image, on_upgraded);
}

void stack_open(struct vdi *v, bool is_read_only, step_fn *next)
{
	stack_step_begin(v, next);
	if (v->disk && (is_read_only || !v->is_read_only)) {
		stack_step_end(v);
		return;
	}
	if (!v->gate) {
		v->open_read_only = is_read_only;
		offload(v, open_image, on_opened);
		return;
	}
	assert(!v->op); /* an operation's disk is open for writing */
	gate_hold(v->gate);
	if (v->disk) {
		layer_drain(v->gate, on_upgrade_drained, v);
		return;
	}
	v->open_read_only = is_read_only; /* refusing since a reopening failed: once more */
	offload(v, open_image, on_upgraded);
}

struct layer *stack_base(const struct vdi *v)
{
	return v->cbt ? v->cbt : import_base(v);
}

static void on_made(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, offload);

	make_disk(v);
	if (!v->disk)
		error_prefix(&v->step, "open %s", v->path);
	stack_step_end(v);
}

void stack_reopen(struct vdi *v, step_fn *next)
{
	assert(!v->disk);
	stack_step_begin(v, next);
	offload(v, open_image, on_made);
}

/* --- hold and drain */

static void on_quiet(struct layer *l UNUSED, void *arg)
{
	stack_step_end(arg);
}

void stack_quiet(struct vdi *v, step_fn *next)
{
	stack_step_begin(v, next);
	gate_hold(v->gate);
	layer_drain(v->gate, on_quiet, v);
}

void stack_drain_gate(struct vdi *v, step_fn *next)
{
	stack_step_begin(v, next);
	layer_drain(v->gate, on_quiet, v);
}

void stack_drain_disk(struct vdi *v, step_fn *next)
{
	stack_step_begin(v, next);
	if (v->disk)
		layer_drain(v->disk, on_quiet, v);
	else
		stack_step_end(v); /* it could not be opened after a pause, and the process goes */
}

void stack_wake(struct vdi *v)
{
	gate_release(v->gate);
	v->is_refusing = false;
}

void stack_refuse(struct vdi *v)
{
	gate_refuse(v->gate, ESHUTDOWN);
	v->is_refusing = true;
}

/* --- flush and close */

static void on_flushed_beside(struct req *r)
{
	struct vdi *v = r->arg;
	void (*done)(struct vdi *v, int err) = take_ptr(&v->job->flushed_beside);
	int err = r->err;

	req_put(r);
	done(v, err);
}

void stack_flush_beside(struct vdi *v, void (*done)(struct vdi *v, int err))
{
	struct req *r = v->disk && !v->is_read_only ? req_get() : NULL;

	assert(!v->job->flushed_beside);
	if (!r) {
		done(v, v->disk && !v->is_read_only ? ENOMEM : 0);
		return;
	}
	v->job->flushed_beside = done;
	r->op = REQ_FLUSH;
	r->done = on_flushed_beside;
	r->arg = v;
	layer_submit(import_base(v), r);
}

static void flushed(struct vdi *v, int err)
{
	if (err)
		error_errno(&v->step, err, "flush of %s", v->path);
	stack_step_end(v);
}

void stack_flush(struct vdi *v, step_fn *next)
{
	stack_step_begin(v, next);
	stack_flush_beside(v, flushed);
}

static void close_layers(struct vdi *v)
{
	assert(!v->op || !v->op->mirror);
	layer_close(take_ptr(&v->gate));
	if (v->lower)
		layer_close(take_ptr(&v->lower));
	if (v->disk)
		layer_close(take_ptr(&v->disk));
	v->is_refusing = false;
	log_info("closed %s", v->path);
}

static void settle(struct vdi *v)
{
	struct error e = { 0 };

	if (disk_settle(v->run_dir, &e) == -1)
		log_error("after closing: %s", e.text);
}

static void on_settled(struct offload *o)
{
	tenancy_end(container_of(o, struct vdi, offload));
}

static void unmerged(struct vdi *v)
{
	close_layers(v);
	offload(v, settle, on_settled);
}

static void untracked(struct vdi *v)
{
	import_close(v, unmerged);
}

static void on_close_quiet(struct layer *gate UNUSED, void *arg)
{
	tracking_close(arg, untracked);
}

static void close_after_flush(struct vdi *v)
{
	struct error flushed = v->step;
	step_fn *next = take_ptr(&v->job->after);

	if (flushed.err)
		log_error("before closing: %s", flushed.text);
	stack_step_begin(v, next);
	v->step = flushed;
	if (!v->gate) {
		stack_step_end(v);
		return;
	}
	gate_hold(v->gate);
	layer_drain(v->gate, on_close_quiet, v);
}

void stack_close(struct vdi *v, step_fn *next)
{
	v->job->after = next;
	verification_close(v);
	error_clear(&v->step);
	if (v->job->is_flushed)
		close_after_flush(v);
	else
		stack_flush(v, close_after_flush);
}

void stack_release(struct vdi *v, step_fn *next)
{
	struct domain *d;

	TAILQ_FOREACH(d, &v->domains, link)
		if (d->is_active || d->is_lingering) {
			next(v);
			return;
		}
	if (v->op || !v->gate || import_is_merging(v) || v->import.expects == IMPORT_GUEST)
		next(v);
	else
		stack_close(v, next);
}

/* --- servers */

static int start_server(struct vdi *v, struct domain *d, struct error *e)
{
	const struct nbdsrv_spec spec = {
		.loop = v->loop,
		.top = v->gate,
		.pool = v->pool,
		.export_name = v->id,
		.is_read_only = d->is_read_only,
		.links = d->is_read_only ? NULL : &far_links,
		.links_arg = v,
	};

	d->server = nbdsrv_new(&spec, e);
	return d->server ? nbdsrv_listen_unix(d->server, d->socket, e) : -1;
}

int stack_serve(struct vdi *v, struct domain *d, struct error *e)
{
	assert(v->gate && !d->server);
	if (start_server(v, d, e) == -1)
		return error_prefix(e, "serve %s to domain %s", v->path, d->name);
	figures_serve(v, d);
	listening_again(d);
	guest_device_serve(v, d);
	if (d->is_lingering)
		nbdsrv_end_plain(d->server);
	far_apply(v);
	log_info("serving domain %s%s%s at %s", d->name, d->is_lingering ? ", links only" : "",
		 d->is_read_only ? ", read-only" : "", d->socket);
	return 0;
}

static void on_cut(void *arg)
{
	struct vdi *v = arg;

	figures_cut(v->job->cut, NULL);
	nbdsrv_free(take_ptr(&v->job->cut->server));
	stack_step_end(v);
}

static void shut_down(struct vdi *v)
{
	nbdsrv_shutdown(v->job->cut->server, on_cut, v);
}

void stack_cut(struct vdi *v, struct domain *d, step_fn *next)
{
	stack_step_begin(v, next);
	if (!d->server) {
		stack_step_end(v);
		return;
	}
	v->job->cut = d;
	guest_device_stop(v, shut_down);
}

/* --- files */

static void write_file(struct vdi *v)
{
	static int (*const write[])(const char *, const char *, size_t, unsigned, struct error *) = {
		[FILE_FOR_HOST] = proc_swap_file, [FILE_REPLACED] = proc_replace_file, [FILE_IN_SLOTS] = slots_write,
	};

	if (v->file_kind != FILE_FOR_HOST && tenancy_check(&v->tenancy, &v->step) == -1)
		return;
	if (write[v->file_kind](v->file, v->text, strlen(v->text), 0600, &v->step) == 0 || v->file_kind == FILE_FOR_HOST)
		return;
	if (v->step.err != ENOENT || record_make_dir(&v->step) == -1) /* the records' directory, see vdi_new() */
		return;
	v->step = (struct error){ 0 };
	write[v->file_kind](v->file, v->text, strlen(v->text), 0600, &v->step);
}

static void work_on_file(struct vdi *v)
{
	if (v->text)
		write_file(v);
	else if (tenancy_check(&v->tenancy, &v->step) == -1)
		return;
	else if (unlink(v->file) == -1 && errno != ENOENT && errno != ENOTDIR)
		error_errno(&v->step, errno, "remove %s", v->file);
}

static void on_file(struct offload *o)
{
	struct vdi *v = container_of(o, struct vdi, offload);

	free(take_ptr(&v->file));
	free(take_ptr(&v->text));
	stack_step_end(v);
}

static void put_file(struct vdi *v, char *file, char *text, enum file_kind kind, step_fn *next)
{
	stack_step_begin(v, next);
	v->file = file;
	v->text = text;
	v->file_kind = kind;
	if (!file) {
		free(take_ptr(&v->text));
		error_set(&v->step, ENOMEM, "out of memory");
		stack_step_end(v);
		return;
	}
	offload(v, work_on_file, on_file);
}

void stack_write(struct vdi *v, char *file, char *text, step_fn *next)
{
	put_file(v, file, text, FILE_REPLACED, next);
}

static void own(struct vdi *v)
{
	step_fn *after = take_ptr(&v->job->owned);

	if (!v->step.err) {
		v->owner.record = v->job->record;
		v->owner.written_s = (int64_t)time(NULL);
		far_on_change(v);
	}
	after(v);
}

void stack_own(struct vdi *v, const struct commit_record *next, step_fn *after)
{
	char *text = owner_encode(next);

	v->job->owned = after;
	v->job->record = *next;
	put_file(v, text ? strdup(v->owner.file) : NULL, text, FILE_IN_SLOTS, own);
}

/* The record borrows everything; nothing of it is cleared. */
static char *encode(const struct vdi *v)
{
	CLEANUP_FREE struct domains_entry *entry = calloc(v->domain_count + 1, sizeof(*entry));
	CLEANUP_FREE struct domains_listener *listener = calloc(v->domain_count + 1, sizeof(*listener) * DOMAINS_LISTEN_MAX);
	struct domains_record r = { .owed = v->owed, .owed_by = v->owed ? (char *)(uintptr_t)v->owed_by : NULL,
				    .owed_since = v->owed_since };
	struct domain *d;

	if (!entry || !listener)
		return NULL;
	TAILQ_FOREACH(d, &v->domains, link) {
		struct domains_entry *out = &entry[r.domains.count];

		*out = (struct domains_entry){ .domain = d->name, .is_active = d->is_active, .is_read_only = d->is_read_only,
					       .is_lingering = d->is_lingering, .is_detached = d->is_detached,
					       .vm = figures_vm(d), .device = figures_device(d) };
		guest_device_note(d, out);
		listening_note(d, out, &listener[r.domains.count * DOMAINS_LISTEN_MAX]);
		r.domains.count++;
	}
	r.domains.item = entry;
	if (v->op) {
		r.operation = v->op->id;
		r.operation_domain = v->op->domain;
		r.is_copy = v->op->is_copy;
		r.is_told = v->op->is_told;
	}
	return jsonspec_encode(&domains_spec, &r);
}

/* For a process that comes after this one: nobody who is in it outlives the host. */
void stack_save(struct vdi *v, step_fn *next)
{
	char *text = encode(v), *file = NULL;

	if (!text || asprintf(&file, "%s/%s", v->run_dir, DOMAINS_FILE) == -1)
		file = NULL;
	put_file(v, file, text, FILE_FOR_HOST, next);
}
