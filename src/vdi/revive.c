/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * revive - a mirror whose process, or whose host, has died goes on
 *
 *      disk open for writing -> journal read (pool) -> its mirror made, what is owed taken up (pool) -> hold, drain
 *          -> mirror under the gate -> wake -> guests are served -> the next link
 *
 * After a kill domains.json says that it ran; after a reboot only the journal beside the image does, when somebody activates
 * the disk for writing.  Both ways the mirror is in the stack before anybody writes.
 *
 * One to a far side that is no sxm is taken up as failed and remembered (remember.c): it records what is written, and makes a
 * link when that is asked for.
 *
 * Offered with a group, it waits for what was decided.
 *
 * Not taken up again: a copy (Data.copy; its caller starts anew); one whose end is on record; one of which the disk's record says
 * that it is over (its files go), or that the disk was handed over; one without a journal.  It is buried, if it ran: a failed
 * operation, and a debt where complete was told.
 *
 * Can fail: the files, memory.  Then it is buried as well, and the guest goes on without.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/gate.h"
#include "vdi/vdi-private.h"

void revive_note(struct vdi *v, const struct domains_record *r)
{
	struct remains *o = &v->remains;

	*o = (struct remains){ .is_there = true, .is_copy = r->is_copy, .is_told = r->is_told };
	snprintf(o->id, sizeof(o->id), "%s", r->operation);
	snprintf(o->domain, sizeof(o->domain), "%s", r->operation_domain ? r->operation_domain : "");
}

static void over(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->revived);

	journal_clear(&v->journal);
	debt_clear(&v->debt);
	v->remains.is_there = false;
	record_news(v, v->remains.id);
	error_clear(&v->step);
	next(v);
}

/* After a reboot nothing but its journal says that it ran. */
static void note_journal(struct vdi *v)
{
	struct remains *o = &v->remains;

	*o = (struct remains){ .is_there = true, .is_told = v->owner.record.is_told };
	snprintf(o->id, sizeof(o->id), "%s", v->journal.id);
	snprintf(o->domain, sizeof(o->domain), "%s", v->journal.domain);
}

static void bury(struct vdi *v)
{
	if (v->journal.id && !v->remains.is_there)
		note_journal(v);
	if (v->remains.is_there)
		operation_bury(v, &v->remains, over);
	else
		over(v);
}

/* --- is there anything */

static bool can_go_on(const struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;

	return r->role == COMMIT_ROLE_SOURCE && r->state == COMMIT_OWNED && r->mirror[0] && !r->is_ended && !r->is_raised;
}

/* Files of a mirror that is over, as the disk's record says, whatever else could not be written down when it ended. */
static bool is_stale(const struct vdi *v)
{
	const struct commit_record *r = &v->owner.record;

	if (can_go_on(v) || r->state == COMMIT_OFFERED)
		return false;
	return r->state != COMMIT_GIVEN || r->is_taken; /* who was given the disk, and does not run from it, can be asked */
}

static void forget(struct vdi *v)
{
	debt_forget(v->run_dir, v->path);
}

/* That it was complete was written down when the disk was given. It is owned again: it was asked back, and the process died
 * before it could write that down as well. */
static void read_journal(struct vdi *v)
{
	struct error e = { 0 };
	bool is_ended = false, is_complete;

	if (debt_find(v->run_dir, v->path, &v->debt, &e) == 0 && journal_load(v->debt.journal, &v->journal, &e) == 0)
		is_ended = record_says_ended(v->journal.id, &is_complete) && !is_complete;
	if (e.err && e.err != ENOENT)
		log_error("the mirror of this disk is not gone on with: %s", e.text);
	is_ended &= !v->journal.is_remembered;
	if (is_ended || (v->journal.id && strcmp(v->journal.id, v->owner.record.mirror) != 0)) {
		log_debug("%s is over: its journal goes", v->journal.id);
		debt_forget(v->run_dir, v->path);
		journal_clear(&v->journal);
	}
}

/* --- the mirror, once more */

static struct operation *make(struct vdi *v, struct error *e)
{
	struct journal *j = &v->journal;
	struct operation *op = record_new(v, j->domain, false);
	struct mirror_peer peer = j->peer;
	const char *dot = strrchr(j->id, '.');

	if (!op) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	snprintf(op->id, sizeof(op->id), "%s", j->id);
	op->number = dot ? strtoull(dot + 1, NULL, 10) : op->number;
	op->debt = v->debt;
	v->debt = (struct debt){ 0 };
	op->is_sync = j->is_sync;
	op->is_answered = true;
	op->is_told = op->is_said = !j->is_remembered && (v->remains.is_told || v->owner.record.is_told);
	if (j->is_remembered)
		remember_found(op, "the link to the far side was lost");
	else if (j->peer.is_foreign || v->owner.record.is_unfenced)
		remember_found(op, "the datapath process died, and to a far side that is no sxm no link is made anew unasked");
	op->peer = j->peer;
	peer.generation = source_next_links(v);
	if (operation_make_mirror(op, j->remote, NULL, &peer, e) == 0)
		return op;
	record_free(v, op);
	return NULL;
}

static void drop(struct vdi *v, const struct error *why)
{
	struct operation *op = take_ptr(&v->op);

	log_error("mirror %s cannot be gone on with: %s", op->id, why->text);
	v->job->journal = take_ptr(&op->debt.journal);
	layer_close(take_ptr(&op->mirror));
	record_free(v, op);
	bury(v);
}

static void insert(struct vdi *v)
{
	struct operation *op = v->op;

	gate_set_below(v->gate, op->mirror);
	stack_wake(v);
	op->is_inserting = false;
	mirror_start(op->mirror);
	budget_begin(v);
	log_info("mirror %s goes on", op->id);
	over(v);
}

/* What is there may say that it was over: it was, until the disk was asked back. */
static void recorded(struct vdi *v)
{
	if (v->step.err)
		log_warn("record of %s: %s", v->op->id, v->step.text);
	stack_quiet(v, insert);
}

static void restored(struct vdi *v)
{
	if (v->step.err)
		drop(v, &v->step);
	else if (v->op->is_remembered)
		remember_anew(v, recorded);
	else
		operation_record(v, recorded);
}

static void on_restored(void *arg, const struct error *e)
{
	struct vdi *v = arg;

	if (e)
		v->step = *e;
	stack_step_end(v);
}

static void numbered(struct vdi *v)
{
	struct error e = { 0 };

	if (v->step.err) {
		log_error("mirror %s cannot be gone on with: %s", v->journal.id, v->step.text);
		v->job->journal = take_ptr(&v->debt.journal);
		bury(v);
		return;
	}
	v->op = make(v, &e);
	if (!v->op) {
		log_error("mirror %s cannot be gone on with: %s", v->journal.id, e.text);
		bury(v);
		return;
	}
	stack_step_begin(v, restored);
	mirror_restore(v->op->mirror, on_restored, v);
}

static void looked(struct vdi *v)
{
	if (v->journal.id)
		source_reserve(v, numbered);
	else
		bury(v);
}

void revive(struct vdi *v, step_fn *next)
{
	const struct commit_record *r = &v->owner.record;

	v->job->revived = next;
	if (r->state == COMMIT_OFFERED && r->group[0])
		next(v); /* what becomes of it was decided, or is to be: group-doubt.c */
	else if (v->op || !v->disk || v->is_read_only || (v->remains.is_there && v->remains.is_copy))
		bury(v);
	else if (is_stale(v))
		stack_work(v, forget, bury);
	else if (!can_go_on(v))
		bury(v);
	else
		stack_work(v, read_journal, looked);
}
