/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * source-log - the log of a disk's changes, and those that lead to it, go to the far side (PROTOCOL.x-sxm, 4; cbt/cbt-moved.h)
 *
 *      in sync, guests write:  gather (pool) -> LOG_BEGIN -> pieces -> LOG_KEEP
 *      the barrier, offered:   gather (pool) -> pieces with what is new -> LOG_END
 *                              '-- other logs than before, another link: all of it
 *
 * What was sent is remembered, so that guests wait for little at the barrier: 4 MiB at most are the log of 2 TiB.
 *
 * Can fail: the link (whoever asks next hears of it), memory, a far side that is older or has its reasons. Then the disk moves
 * without its log, and that is said, once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vdi/vdi-private.h"

struct outgoing {
	struct cbt_moved now, sent;      /* owned; sent.count 0: nothing */
	unsigned link;                   /* links that were lost before the one it went over */
	bool is_refused, is_said;        /* is_said: that it stays */
	uint64_t cursor;
	uint8_t buffer[CBT_MOVED_PART_BYTES];
};

void source_log_free(struct outgoing *o)
{
	if (!o)
		return;
	cbt_moved_clear(&o->now);
	cbt_moved_clear(&o->sent);
	free(o);
}

static bool is_tracked(const struct vdi *v)
{
	return v->cbt && !cbt_is_lost(v->cbt);
}

void source_log_stays(const struct vdi *v, const char *why)
{
	if (is_tracked(v))
		log_warn("%s: the log of this disk's changes does not move with it: %s; the first backup there has to be a full "
			 "one", v->op->id, why);
}

static void over(struct vdi *v)
{
	step_fn *next = take_ptr(&v->job->logged);

	cbt_moved_clear(&v->op->outgoing->now);
	error_clear(&v->step);
	next(v);
}

/* A link that was lost is the next question's to tell. */
static void give_up(struct vdi *v)
{
	struct outgoing *o = v->op->outgoing;

	cbt_moved_clear(&o->sent);
	if (v->step.err != ESHUTDOWN) {
		o->is_refused = true;
		if (!o->is_said)
			source_log_stays(v, v->step.text);
		o->is_said = true;
	}
	over(v);
}

static void ended(struct vdi *v)
{
	struct outgoing *o = v->op->outgoing;

	if (v->step.err) {
		give_up(v);
		return;
	}
	cbt_moved_clear(&o->sent);
	o->sent = o->now;
	o->now = (struct cbt_moved){ 0 };
	if (v->job->is_final)
		log_info("%s: the log of this disk's changes moves with it", v->op->id);
	over(v);
}

static void send_next(struct vdi *v);

static void piece_sent(struct vdi *v)
{
	if (v->step.err)
		give_up(v);
	else
		send_next(v);
}

static void send_next(struct vdi *v)
{
	struct outgoing *o = v->op->outgoing;
	struct remote_ask piece = { .question = REMOTE_SEND_LOG, .piece = o->buffer };

	piece.piece_bytes = cbt_moved_part(&o->now, o->sent.count ? &o->sent : NULL, &o->cursor, o->buffer, &piece.piece_at);
	if (piece.piece_bytes)
		source_send(v, &piece, piece_sent);
	else
		source_ask(v, v->job->is_final ? REMOTE_ASK_LOG_END : REMOTE_ASK_LOG_KEEP, ended);
}

static void begun(struct vdi *v)
{
	if (v->step.err)
		give_up(v);
	else
		send_next(v);
}

static void gathered(struct vdi *v)
{
	struct outgoing *o = v->op->outgoing;

	if (v->step.err) {
		give_up(v);
		return;
	}
	o->cursor = 0;
	if (o->sent.count && cbt_moved_is_same(&o->now, &o->sent)) {
		send_next(v);
		return;
	}
	cbt_moved_clear(&o->sent);
	source_ask(v, REMOTE_ASK_LOG_BEGIN, begun);
}

static void gather(struct vdi *v)
{
	struct cbt_log log;

	if (cbt_copy(v->cbt, &log, &v->step) == 0)
		cbt_moved_collect(&v->op->outgoing->now, cbt_path(v->cbt), &log, &v->step);
}

/* NULL: out of memory. */
static struct outgoing *outgoing_of(struct operation *op, const struct mirror_status *s)
{
	struct outgoing *o = op->outgoing ? op->outgoing : calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	if (o->link != s->links_lost) { /* the far side has forgotten what came over that one */
		cbt_moved_clear(&o->sent);
		o->link = s->links_lost;
		o->is_refused = false;
	}
	op->outgoing = o;
	return o;
}

void source_log(struct vdi *v, bool is_final, step_fn *next)
{
	struct mirror_status s;
	struct outgoing *o;

	mirror_status(v->op->mirror, &s);
	error_clear(&v->step);
	o = is_tracked(v) && s.is_sxm && s.is_up ? outgoing_of(v->op, &s) : NULL;
	if (!o || o->is_refused) {
		next(v);
		return;
	}
	v->job->logged = next;
	v->job->is_final = is_final;
	if (s.version >= 2) {
		stack_work(v, gather, gathered);
	} else {
		error_set(&v->step, ENOTSUP, "the far side is an older sxm");
		give_up(v);
	}
}
