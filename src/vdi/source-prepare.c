/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * source-prepare - PREPARE: what its answer proves, and how it is asked a round trip earlier
 *
 *      hold --asked early--> what guests had under way lands, here and there --> offered on record -> the answer is there
 *              the digest is that of all that went over the link:  prepared, and nobody waited for it
 *              it is another, or no good answer, or another link:  asked again, when it is its turn
 *
 * PREPARE changes no record, so it may be asked before the offer is on record.  What counts is what its answer says: the far side
 * had received what this digest is of, and flushed after that.  Is it the digest of everything that this link has carried, now
 * that writes are held and all is acknowledged, then nothing is missing, whenever it was asked.
 *
 * Over a link that was made since the barrier, to a host that was started anew meanwhile, PREPARE would be answered well although
 * what came over the one before is lost: then it is not asked.
 * Can fail: that; a digest that differs.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/digest.h"
#include "vdi/vdi-private.h"

static struct digest digest_of(const struct remote_ask *a)
{
	return (struct digest){ .count = remote_ask_u64(a, 4), .high = remote_ask_u64(a, 6), .low = remote_ask_u64(a, 8) };
}

int source_compare(struct vdi *v)
{
	const struct remote_ask *a = &v->op->ask;
	struct digest there = digest_of(a), here;

	if (!mirror_digest(v->op->mirror, &here)) {
		log_info("%s: an operation failed on this link and was repeated: digests are not compared", v->op->id);
		return 0;
	}
	if (digest_equal(&here, &there)) {
		v->op->is_verified = true;
		log_info("%s: link verified, %" PRIu64 " operations", v->op->id, here.count);
		return 0;
	}
	log_error("%s: THE FAR SIDE DOES NOT HAVE WHAT WAS SENT: %" PRIu64 " operations acknowledged to this side, digest %016"
		  PRIx64 "%016" PRIx64 "; %" PRIu64 " arrived there, digest %016" PRIx64 "%016" PRIx64, v->op->id, here.count,
		  here.high, here.low, there.count, there.high, there.low);
	return error_set(&v->step, EBADMSG, "the far side does not have what was sent: %" PRIu64 " operations here, %" PRIu64
			 " there, or other bytes", here.count, there.count);
}

/* --- early */

/* A far side that was not asked after all, since its process ends, says FAILED, too, with that errno. */
static void on_early(struct remote_ask *a, int err)
{
	struct operation *op = container_of(a, struct operation, early);
	step_fn *then = take_ptr(&op->after_early);
	struct error e = { 0 };

	remote_ask_check(a, err, &e);
	op->is_early_open = false;
	op->is_early_good = !e.err;
	op->is_early_bad |= !err && a->field[0] == REMOTE_SAYS_FAILED && e.err != ESHUTDOWN;
	if (then)
		then(op->vdi);
}

void source_prepare_early(struct vdi *v)
{
	struct operation *op = v->op;
	struct mirror_status s;

	if (op->is_early_open)
		return; /* of an attempt that was given up */
	mirror_status(op->mirror, &s);
	op->is_early_good = false;
	op->early_link = s.links_lost;
	op->early = (struct remote_ask){ .question = REMOTE_ASK_PREPARE, .done = on_early };
	op->is_early_open = s.is_sxm && mirror_ask(op->mirror, &op->early);
}

void source_after_early(struct vdi *v, step_fn *then)
{
	assert(!v->op->after_early);
	if (v->op->is_early_open)
		v->op->after_early = then;
	else
		then(v);
}

void source_await_prepare(struct vdi *v, step_fn *next)
{
	stack_step_begin(v, next);
	source_after_early(v, stack_step_end);
}

static bool is_about_all(struct operation *op)
{
	struct digest here, there = digest_of(&op->early);
	struct mirror_status s;

	mirror_status(op->mirror, &s);
	return op->is_early_good && s.is_up && s.links_lost == op->early_link && mirror_digest(op->mirror, &here) &&
	       digest_equal(&here, &there);
}

bool source_was_prepared(struct vdi *v)
{
	struct operation *op = v->op;
	bool is_answer = op->is_early_bad || is_about_all(op);

	error_clear(&v->step);
	if (is_answer)
		op->ask = op->early;
	if (op->is_early_bad)
		remote_ask_check(&op->ask, 0, &v->step);
	op->is_early_good = op->is_early_bad = false;
	return is_answer;
}

/* The barrier has flushed nothing, and a new link's digest begins with nothing. */
bool source_may_lack(struct vdi *v)
{
	struct mirror_status s;

	mirror_status(v->op->mirror, &s);
	if (s.has_lost)
		error_set(&v->step, ESHUTDOWN, "the far side was started anew in the middle of it, and may have lost what it had "
			  "not flushed yet");
	return s.has_lost;
}
