/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-ask - what is said between two sxm on a link (PROTOCOL.x-sxm), and what a quiet one is asked
 *
 *      question   BLOCK_STATUS, length 511, offset = its number          answer   the x-sxm context's descriptors, a field each
 *      a piece of the logs of changes   WRITE, where no disk is          answer   its errno
 *
 * HELLO is said in the pool, by remote_connect(), before anything else; the rest are operations like others (remote-nbd.c),
 * whose remote_op stands in the remote_ask.  The answer's callback comes before the completion's, with the handle's lock held:
 * it only copies.
 *
 * Everything that comes is checked here: descriptors of another length than 1, a context twice, no answer at all.  What is
 * missing is 0, what is too much is not looked at.  A foreign far side is asked nothing; idle, it is asked for its first block,
 * which every server has, and of whose bytes nothing is done.
 */
#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mirror/remote-private.h"

#define ID_MAX_BYTES 63
#define LOG_AT (UINT64_C(1) << 62)

char *remote_ask_context(const struct remote_spec *spec, unsigned version, struct error *e)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	size_t bytes = strlen(spec->mirror_id);
	char *name;

	if (!bytes || bytes > ID_MAX_BYTES || spec->mirror_id[0] == '.' || strspn(spec->mirror_id, letters) != bytes)
		error_set(e, EINVAL, "\"%.80s\" cannot be the id of a mirror", spec->mirror_id);
	else if (!spec->epoch || !spec->generation)
		error_set(e, EINVAL, "mirror %s has no epoch or no generation", spec->mirror_id);
	else if (asprintf(&name, "x-sxm:%u/%s/%" PRIu64 "/%" PRIu64, version, spec->mirror_id, spec->epoch,
	                  spec->generation) == -1)
		error_errno(e, ENOMEM, "cannot make a link");
	else
		return name;
	return NULL;
}

/* --- answers */

/* libnbd's lock is held. */
static int on_answer(void *arg, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
	struct remote_ask *a = arg;

	(void)error;
	if (strncmp(context, "x-sxm:", 6) != 0)
		return 0;
	a->is_garbled |= a->count > 0 || offset != (uint64_t)a->question || count < 2 || count % 2 != 0;
	for (size_t i = 0; !a->is_garbled && i + 1 < count; i += 2) {
		a->is_garbled = entries[i] != 1;
		if (a->count < REMOTE_FIELDS_MAX)
			a->field[a->count++] = entries[i + 1];
	}
	return 0;
}

static int64_t issue(struct nbd_handle *nbd, struct remote_ask *a, nbd_completion_callback completion)
{
	nbd_extent_callback answer = { .callback = on_answer, .user_data = a };

	if (a->question == REMOTE_SEND_LOG)
		return nbd_aio_pwrite(nbd, a->piece, a->piece_bytes, LOG_AT + a->piece_at, completion, 0);
	a->count = 0;
	a->is_garbled = false;
	memset(a->field, 0, sizeof(a->field));
	return nbd_aio_block_status(nbd, REMOTE_QUESTION_BYTES, (uint64_t)a->question, answer, completion, 0);
}

static int verdict(const struct remote_ask *a, int err)
{
	if (err || a->question == REMOTE_SEND_LOG)
		return err;
	return a->is_garbled || a->count == 0 ? EPROTO : 0;
}

/* --- HELLO: blocks, in the pool */

/* What another volume says of itself is no word of the one that was asked. */
static bool is_another_volume(const struct remote_connect *c, const struct remote_ask *a)
{
	uint64_t volume = remote_ask_u64(a, 13);

	return a->field[0] == REMOTE_SAYS_OK && c->volume && volume && volume != c->volume;
}

/* After a failed wait libnbd does nothing more before the handle is closed: `a` may go. */
static int say_hello(struct remote_connect *c, struct remote_ask *a, struct error *e)
{
	int64_t cookie = issue(c->nbd, a, NBD_NULL_COMPLETION);
	int err = 0;

	if (cookie == -1)
		return error_errno(e, nbd_get_errno() ? nbd_get_errno() : EIO, "the far side cannot be asked");
	if (remote_connect_await(c, cookie, loop_now_ns() + c->handshake_ms * NS_PER_MS, &err, e) == -1)
		return -1;
	err = verdict(a, err);
	if (!err && is_another_volume(c, a))
		return error_set(e, EBUSY, "there is another volume at this address than when the mirror began: start it anew");
	c->has_heard = !err;
	c->status = a->field[0];
	c->state = a->field[1];
	c->epoch = remote_ask_u64(a, 2);
	return remote_ask_check(a, err, e);
}

int remote_ask_hello(struct remote_connect *c, struct error *e)
{
	struct remote_ask a = { .question = REMOTE_ASK_HELLO };

	if (say_hello(c, &a, e) == -1)
		return error_prefix(e, "HELLO");
	if (a.field[1] != REMOTE_IS_RECEIVING && a.field[1] != REMOTE_IS_ELIGIBLE && a.field[1] != REMOTE_IS_RELEASED)
		return error_set(e, EPROTO, "HELLO: the far volume is %s, and yet the link was admitted",
		                 remote_state_name(a.field[1]));
	c->info.is_sxm = true;
	c->info.state = (enum remote_state)a.field[1];
	c->info.epoch = remote_ask_u64(&a, 2);
	c->info.generation = remote_ask_u64(&a, 4);
	c->info.boot = remote_ask_u64(&a, 6);
	c->info.process = remote_ask_u64(&a, 8);
	c->info.is_caching = a.field[10] & 1;
	c->info.since = remote_ask_u64(&a, 11);
	c->info.volume = remote_ask_u64(&a, 13);
	return 0;
}

/* --- the others */

bool remote_ask_is_wait(const struct remote_op *op)
{
	return op->opcode == REMOTE_OTHER && op->is_question &&
	       container_of(op, struct remote_ask, op)->question == REMOTE_ASK_WAIT;
}

static void on_done(struct remote_op *op, int err)
{
	struct remote_ask *a = container_of(op, struct remote_ask, op);

	a->done(a, verdict(a, err));
}

static void on_nobody(struct remote_op *op, int err)
{
	struct remote_ask *a = container_of(op, struct remote_ask, op);

	(void)err;
	a->done(a, ENOTSUP);
}

void remote_ask_submit(struct remote *base, struct remote_ask *a)
{
	struct remote_nbd *r = remote_nbd_of(base);

	assert(a->done);
	a->count = 0;
	memset(a->field, 0, sizeof(a->field));
	a->op = (struct remote_op){ .opcode = REMOTE_OTHER, .is_question = true, .done = on_done };
	if (r->is_sxm) {
		remote_nbd_submit(base, &a->op);
		return;
	}
	a->op.done = on_nobody;
	TAILQ_INSERT_TAIL(&r->done, &a->op, link);
	loop_defer(r->spec.loop, &r->task);
}

int64_t remote_ask_issue(struct conn *c, struct remote_op *op)
{
	nbd_completion_callback completion = { .callback = remote_nbd_on_completion, .user_data = op };

	if (op->is_question)
		return issue(c->nbd, container_of(op, struct remote_ask, op), completion);
	return nbd_aio_pread(c->nbd, c->owner->looked, c->owner->look_bytes, 0, completion, 0);
}

/* --- the digest: each request by itself, for the far side sees no more of a long ZERO */

void remote_ask_fold(struct remote_nbd *r, const struct remote_op *op)
{
	if (!r->is_sxm || r->is_digest_void || (op->opcode != REMOTE_WRITE && op->opcode != REMOTE_ZERO))
		return;
	if (op->err)
		r->is_digest_void = true;
	else if (op->opcode == REMOTE_WRITE)
		digest_add(&r->digest, DIGEST_WRITE, op->range.start, range_length(op->range), op->data);
	else
		digest_add(&r->digest, DIGEST_ZERO, op->part.start, range_length(op->part), NULL);
}

bool remote_ask_digest(struct remote *base, struct digest *out)
{
	const struct remote_nbd *r = remote_nbd_of(base);

	*out = r->digest;
	return r->is_sxm && !r->is_digest_void;
}

/* --- a quiet link */

static void on_pinged(struct remote_ask *a, int err)
{
	(void)err; /* any answer is a sign of life; the link's end is told by others */
	container_of(a, struct remote_nbd, ping)->is_asking_idly = false;
}

static void on_looked(struct remote_op *op, int err)
{
	(void)err;
	container_of(op, struct remote_nbd, look)->is_asking_idly = false;
}

void remote_ask_idly(void *arg)
{
	struct remote_nbd *r = arg;
	uint64_t quiet_ms = (loop_now_ns() - r->progress_ns) / NS_PER_MS;

	if (r->state != UP)
		return;
	if (r->in_flight || quiet_ms < r->spec.idle_ms) {
		loop_timer_set(r->idle, r->in_flight ? r->spec.idle_ms : r->spec.idle_ms - quiet_ms);
		return;
	}
	r->is_asking_idly = true;
	loop_timer_set(r->idle, r->spec.idle_ms);
	if (r->is_sxm) {
		r->ping = (struct remote_ask){ .question = REMOTE_ASK_PING, .done = on_pinged };
		remote_ask_submit(&r->base, &r->ping);
	} else {
		r->look = (struct remote_op){ .opcode = REMOTE_OTHER, .done = on_looked };
		remote_nbd_submit(&r->base, &r->look);
	}
}
