/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-undo - what ends a journey: it is given up, or its source goes
 *
 *      abort     the handover, if one is under way, is settled -> what was handed over without a decision is asked back
 *                -> our mirror and our domain here -> what received there, and its volume
 *      release   the far disk is asked for -> the source that was kept goes
 *
 * Can fail: everything, and may be done again. Nothing here decides whose a disk is: what is there goes only where the record
 * here says owned, and a guest was never started from it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/decision.h"
#include "migrate/journey-private.h"
#include "migrate/question.h"
#include "migrate/vm.h"

/* --- abort */

static char *datapath_args(const char *uri, const char *domain)
{
	return question_new(NULL, "dbg", "sxm migrate", "uri", uri, "domain", domain, NULL);
}

static int end_operation(struct journey *j, size_t i, const char *operation, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "id", operation, NULL);
	CLEANUP_FREE char *cancelled = args ? journey_control(j, i, "mirror.cancel", args, e) : NULL;
	CLEANUP_FREE char *destroyed = NULL;

	if (!cancelled && e->err != ENOENT)
		return -1;
	destroyed = journey_control(j, i, "mirror.destroy", args, e);
	return destroyed || e->err == ENOENT ? 0 : -1;
}

int journey_undo_here(struct journey *j, size_t i, struct error *e)
{
	const struct journey_disk *d = journey_disk(j, i);
	const char *operation;
	struct journey_look l;

	if (journey_look(j, i, &l, e) == -1)
		return -1;
	operation = *l.operation ? l.operation : d->operation; /* one that ended with its process is still owed for */
	if (*operation && end_operation(j, i, operation, e) == -1)
		return -1;
	if (!d->is_ours)
		return 0;
	return journey_call_here(j, "Datapath.deactivate", datapath_args(d->uri, d->domain), e) == 0 &&
	       journey_call_here(j, "Datapath.detach", datapath_args(d->uri, d->domain), e) == 0 ? 0 : -1;
}

/* Owned here, which is on record: then what was handed over there, and never started, is worth nothing. */
static char *undo_args(struct journey *j, size_t i, struct error *e)
{
	struct journey_owner o;
	bool is_owned;
	char mark[64];
	char *args;

	if (journey_ask_owner(j, i, &o, e) == -1)
		return NULL;
	is_owned = strcmp(o.state, "owned") == 0 && *o.mirror;
	snprintf(mark, sizeof(mark), "%s-%zu", j->r.id, i);
	args = question_new(NULL, "sr", j->r.far_sr, "mark", mark, "mirror", is_owned ? o.mirror : NULL, "epoch",
			    is_owned ? o.epoch : NULL, NULL);
	if (!args)
		error_set(e, ENOMEM, "out of memory");
	return args;
}

int journey_undo_there(struct journey *j, size_t i, struct error *e)
{
	const struct journey_disk *d = journey_disk(j, i);
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *ok = NULL;

	if (*d->far_uri && (journey_call_there(j, "Datapath.deactivate", datapath_args(d->far_uri, j->r.receiver), e) == -1 ||
			    journey_call_there(j, "Datapath.detach", datapath_args(d->far_uri, j->r.receiver), e) == -1) &&
	    j->there.is_lost)
		return -1;
	args = undo_args(j, i, e);
	ok = args ? journey_ask_there(j, "volume.undo", args, e) : NULL;
	return ok ? 0 : -1;
}

/* left: what is there and not ours to remove. */
static int undo(struct journey *j, struct error *left, struct error *e)
{
	for (size_t i = 0; i < j->r.disks.count; i++)
		if (journey_undo_here(j, i, e) == -1)
			return error_prefix(e, "end the mirror of %s", journey_disk(j, i)->name);
	for (size_t i = 0; i < j->r.disks.count; i++) {
		if (journey_undo_there(j, i, e) == 0)
			continue;
		error_prefix(e, "undo what was made of %s there", journey_disk(j, i)->name);
		if (e->err != EPERM || j->there.is_lost)
			return -1;
		*left = *e;
	}
	journey_close_way(j);
	return 0;
}

/* What was decided to be handed over, or was without a decision, needs its way; what was not is withdrawn without one. */
static int settle(struct journey *j, enum journey_step at, struct error *e)
{
	struct error why;

	if (*j->r.group && decision_read(j->r.group, &why) == DECISION_COMMIT && journey_prepare(j, at, &why) == -1)
		journey_say(j, "%s", why.text);
	return journey_settle(j, e);
}

enum journey_outcome journey_abort(struct journey *j, struct error *e)
{
	enum journey_step at = journey_step_of(&j->r);
	struct error left = { 0 };
	int r;

	if (at == JOURNEY_ABORTED)
		return JOURNEY_UNDONE;
	if (journey_open_view(j, e) == -1)
		return JOURNEY_INTERRUPTED;
	if (at >= JOURNEY_MOVED && at <= JOURNEY_DONE) {
		error_set(e, EALREADY, "the disks have moved: nothing goes back; --resume finishes it");
		return JOURNEY_LEFT;
	}
	if (journey_unpause(j, e) == -1)
		return JOURNEY_INTERRUPTED;
	r = settle(j, at, e);
	if (r == 1)
		error_set(e, EALREADY, "it was decided that the disks move, and they have: --resume finishes it");
	if (r)
		return r == 1 ? JOURNEY_LEFT : JOURNEY_INTERRUPTED;
	if (journey_take_back(j, e) == -1)
		return e->err == EALREADY ? JOURNEY_LEFT : JOURNEY_INTERRUPTED;
	journey_set_limit(j, 0);
	if (journey_set_step(j, JOURNEY_ABORTING, e) == -1 || undo(j, &left, e) == -1 ||
	    journey_set_step(j, JOURNEY_ABORTED, e) == -1)
		return JOURNEY_INTERRUPTED;
	if (j->r.is_vm_lost)
		error_set(&left, ESTALE, "%s", vm_why_text(VM_WHY_OTHER_TIME));
	*e = left;
	return left.err ? JOURNEY_LEFT : JOURNEY_UNDONE;
}

/* --- release */

static bool is_kept(const struct journey *j, size_t i)
{
	return *journey_disk(j, i)->key && !journey_disk(j, i)->stays;
}

/* What is to be the only one was handed over whole, and is there still: the far host says so. It may have handed it on,
 *
 *      here: given --> there: given --> a third host: eligible, or owned
 *
 * Then what it has is whole, too, and newer than what is here, and it lets go of that only when the third one says the same. But
 * not when it has done so: what is known there of that goes with its source, and who has the disk now could be anybody.
 */
static bool has_it(const struct plan_volume *v)
{
	return strcmp(v->owner, "owned") == 0 || strcmp(v->owner, "eligible") == 0 || strcmp(v->owner, "given") == 0;
}

static int find_there(struct journey *j, size_t i, struct error *e)
{
	const struct journey_disk *d = journey_disk(j, i);
	CLEANUP_FREE char *args = question_new(NULL, "source", d->far_uri, NULL);
	CLEANUP_FREE char *ok = args ? peer_ask(&j->there, "volume.find", args, JOURNEY_ASK_MS, e) : NULL;
	struct plan_volume v;
	int r = 0;

	if (!ok && e->err == ENOENT)
		return error_prefix(e, "if it was moved on from there, and released: only the host that it went to knows that "
				    "it has it; look there, and then --force; else");
	if (!ok || jsonspec_decode(&plan_volume_spec, ok, strlen(ok), &v, e) == -1)
		return -1;
	if (!has_it(&v))
		r = error_set(e, EPERM, "%s: the disk is not that host's, it is %s there", j->r.host, v.owner);
	else if (v.size_bytes < d->size_bytes)
		r = error_set(e, EPERM, "%s: the disk has %" PRId64 " bytes there, and had %" PRId64 " here", j->r.host,
			      v.size_bytes, d->size_bytes);
	jsonspec_clear(&plan_volume_spec, &v);
	return r;
}

static int check_release(struct journey *j, struct error *e)
{
	for (size_t i = 0; i < j->r.disks.count; i++)
		if (is_kept(j, i) && find_there(j, i, e) == -1)
			return error_prefix(e, "the source of %s stays (--force, where the other host is gone for good)",
					    journey_disk(j, i)->name);
	return 0;
}

static int release_one(struct journey *j, size_t i, struct error *e)
{
	const struct journey_disk *d = journey_disk(j, i);
	char mark[64];
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *ok = NULL;

	if (!is_kept(j, i))
		return 0;
	snprintf(mark, sizeof(mark), "%s-%zu", j->r.id, i);
	args = question_new(NULL, "sr", d->sr, "key", d->key, "mark", mark, NULL);
	ok = args ? peer_ask(&j->here, "volume.release", args, JOURNEY_LONG_MS, e) : NULL;
	return ok ? 0 : error_prefix(e, "release the source of %s", d->name);
}

enum journey_outcome journey_release(struct journey *j, struct error *e)
{
	error_clear(e);
	if (journey_step_of(&j->r) != JOURNEY_DONE) {
		error_set(e, EBUSY, "move %s is not done (%s)", j->r.id, j->r.step);
		return JOURNEY_UNDONE;
	}
	if (!j->watch->is_forced && check_release(j, e) == -1)
		return JOURNEY_UNDONE;
	for (size_t i = 0; i < j->r.disks.count; i++)
		if (release_one(j, i, e) == -1)
			return JOURNEY_UNDONE;
	journey_forget(j->r.id);
	return JOURNEY_OK;
}
