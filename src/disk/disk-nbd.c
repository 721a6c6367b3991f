/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-nbd - an engine whose medium is an NBD server on this host
 *
 * disk-raw.c cuts requests into whole blocks and puts writes in order, as for a device; here each piece becomes commands of at
 * most the length the server takes, one after the other:
 *
 *      submit -> start -> flying ... libnbd ... on_completion -> ended -> [task] settle -> start: the rest | done()
 *                   |        '------- the link is lost ---.
 *                   '- no link -> parked <----------------'
 *
 * The server may go away: killed, started again, upgraded.  Nothing is answered with an error at once then (disk-nbd-link.c):
 *
 *      WAITING   what was in flight and what comes is parked, for SXM_NBD_WAIT_MS (30 s) after the loss; what has been parked so
 *                long in several goes is not parked again
 *      GONE      what is parked and what comes ends with EIO, until the server is back
 *
 * A parked command is sent anew, whole: nobody was told that it is done, and nothing else overlaps it that its submitter
 * cares for.  The old one may still be on its way, so disk-nbd-open.c lets the server finish with the lost link first.
 *
 * Flush.  What stands behind the server is not known; as with a page cache (disk-raw.c) what a flush failed to store may be
 * forgotten, so that error is kept, and each later flush ends with it until the disk is opened anew.
 *
 * A server may keep what it acknowledged in its own memory until a flush, and lose it when it dies; whether it died, or only the
 * connection, nobody here can know.  So a link that is lost while something was acknowledged and not flushed since is such a
 * failed flush: the guest, or the mirror, hears it at its next one, and not that all is well.  Where the file promises that the
 * server keeps its writes (one that writes to a page cache does), nobody hears of it.
 *
 * A completion callback of libnbd holds the handle's lock and may come from inside the call that sends; it moves the command
 * to `ended`, nothing else.
 * Invariant: a command is free, flying (libnbd has it, the link is UP), parked (the link is not UP) or ended.
 */
#include "disk/disk-nbd.h"

#include <errno.h>
#include <libnbd.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/extents.h"
#include "block/req.h"

#define COMMANDS_PER_STEP 64
#define ASK_MAX_BYTES (UINT64_C(2) << 30) /* the length on the wire has 32 bits */

#define LATE ETIMEDOUT /* waited in vain: none of the errors that NBD can carry */

TAILQ_HEAD(command_list, command);

/* An engine's operation, or a question about extents (op is NULL). */
struct command {
	struct engine_nbd *engine;  /* borrowed */
	struct engine_op *op;
	struct req *req;
	size_t extents_before;      /* of req->extents, when the question came */
	struct range rest;          /* what is still to be asked for */
	uint64_t asked_bytes;       /* of it, now */
	uint64_t covers;            /* a flush: of engine->written, when it was sent */
	uint64_t parked_ns;         /* since when, for the first time; 0: never */
	bool is_storing;            /* the flush after a FUA write, where the server has no FUA */
	int err;
	TAILQ_ENTRY(command) link;
};

struct step {
	SLIST_ENTRY(step) link;
	struct command command[COMMANDS_PER_STEP];
};

struct engine_nbd {
	struct engine base;
	struct disk_nbd_link link;
	struct loop_task task;
	struct command_list free, flying, parked, ended;
	SLIST_HEAD(, step) steps;   /* owned */
	STAILQ_HEAD(, engine_op) refused; /* no memory to run them */

	uint64_t written, flushed;  /* how many writes were answered; how many of them a good flush covers */
	int lost_err;               /* of a flush that failed, or would have */
};

static void start(struct command *c);

/* --- commands */

static struct command *take_command(struct engine_nbd *g)
{
	struct command *c = TAILQ_FIRST(&g->free);
	struct step *s = c ? NULL : calloc(1, sizeof(*s));

	if (s) {
		SLIST_INSERT_HEAD(&g->steps, s, link);
		for (size_t i = 0; i < COMMANDS_PER_STEP; i++)
			TAILQ_INSERT_TAIL(&g->free, &s->command[i], link);
		c = TAILQ_FIRST(&g->free);
	}
	if (c) {
		TAILQ_REMOVE(&g->free, c, link);
		*c = (struct command){ .engine = g };
	}
	return c;
}

/* It is on no list. */
static void end(struct command *c, int err)
{
	c->err = err;
	TAILQ_INSERT_TAIL(&c->engine->ended, c, link);
	loop_defer(c->engine->link.loop, &c->engine->task);
}

static bool is_flush(const struct command *c)
{
	return c->op && (c->op->opcode == ENGINE_FLUSH || c->is_storing);
}

/* libnbd's lock is held. */
static int on_completion(void *arg, int *error)
{
	struct command *c = arg;

	TAILQ_REMOVE(&c->engine->flying, c, link);
	end(c, *error);
	return 1;
}

/* Of a server: entries may be anything. */
static int on_extents(void *arg, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error UNUSED)
{
	struct command *c = arg;
	struct req *r = c->req;

	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || offset != c->rest.start)
		return 0;
	for (size_t i = 0; i + 1 < count; offset += entries[i], i += 2) {
		struct range part = range_clip((struct range){ offset, offset + entries[i] }, r->range);
		unsigned type = entries[i + 1] & (EXTENT_HOLE | EXTENT_ZERO);

		if (!range_is_empty(part) && extents_add(r->extents, part, type) != 0)
			break;
	}
	return 0;
}

static int64_t ask_extents(struct command *c, nbd_completion_callback completion)
{
	nbd_extent_callback extent = { .callback = on_extents, .user_data = c };

	c->req->extents->count = c->extents_before; /* an earlier link may have answered half */
	return nbd_aio_block_status(c->engine->link.export->nbd, range_length(c->rest), c->rest.start, extent, completion,
				    c->req->flags & REQ_ONE ? LIBNBD_CMD_FLAG_REQ_ONE : 0);
}

static int64_t ask(struct command *c)
{
	nbd_completion_callback completion = { .callback = on_completion, .user_data = c };
	const struct disk_nbd_facts *facts = &c->engine->link.export->facts;
	struct nbd_handle *nbd = c->engine->link.export->nbd;
	const struct engine_op *op = c->op;
	uint64_t bytes = range_length(c->rest);
	uint8_t *memory;

	if (!op)
		return ask_extents(c, completion);
	if (is_flush(c)) {
		c->covers = c->engine->written;
		return nbd_aio_flush(nbd, completion, 0);
	}
	if (op->opcode == ENGINE_FALLOCATE) {
		c->asked_bytes = MIN(bytes, ASK_MAX_BYTES);
		return nbd_aio_zero(nbd, c->asked_bytes, c->rest.start, completion,
				    op->mode & FALLOC_FL_PUNCH_HOLE ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
	}
	c->asked_bytes = MIN(bytes, facts->max_bytes);
	memory = (uint8_t *)op->buffer + (c->rest.start - op->offset);
	if (op->opcode == ENGINE_READ)
		return nbd_aio_pread(nbd, memory, c->asked_bytes, c->rest.start, completion, 0);
	return nbd_aio_pwrite(nbd, memory, c->asked_bytes, c->rest.start, completion,
			      op->is_fua && facts->can_fua ? LIBNBD_CMD_FLAG_FUA : 0);
}

/* True: ended without the server, which has no such command. */
static bool does_without(struct command *c)
{
	const struct disk_nbd_facts *facts = &c->engine->link.export->facts;

	if (!c->op && !facts->can_extents)
		end(c, 0);
	else if (is_flush(c) && (c->engine->lost_err || !facts->can_flush))
		end(c, c->engine->lost_err);
	else if (c->op && c->op->opcode == ENGINE_FALLOCATE && !facts->can_zero)
		end(c, EOPNOTSUPP);
	else
		return false;
	return true;
}

/* On our list before libnbd knows it: it may be over when the call returns. */
static void send_command(struct command *c)
{
	struct engine_nbd *g = c->engine;
	int err;

	if (does_without(c))
		return;
	TAILQ_INSERT_TAIL(&g->flying, c, link);
	g->link.is_touched = true;
	if (ask(c) != -1)
		return;
	err = nbd_get_errno();
	TAILQ_REMOVE(&g->flying, c, link);
	end(c, disk_nbd_link_is_dead(&g->link) ? ENOTCONN : err ? err : EIO);
}

static void park(struct command *c)
{
	struct engine_nbd *g = c->engine;
	uint64_t now_ns = loop_now_ns();

	if (c->parked_ns == 0)
		c->parked_ns = now_ns;
	if (now_ns - c->parked_ns >= g->link.wait_ms * NS_PER_MS)
		end(c, LATE);
	else
		TAILQ_INSERT_TAIL(&g->parked, c, link);
}

static void start(struct command *c)
{
	switch (c->engine->link.state) {
	case DISK_NBD_UP: send_command(c); break;
	case DISK_NBD_WAITING: park(c); break;
	case DISK_NBD_GONE: end(c, LATE); break;
	}
}

/* --- what an ended command leads to */

/* "All data" is always a right answer. */
static void answer_extents(struct command *c)
{
	struct req *r = c->req;
	bool is_full = r->extents->count == c->extents_before && extents_add(r->extents, r->range, 0) == -1;

	TAILQ_INSERT_HEAD(&c->engine->free, c, link);
	req_complete(r, is_full ? ENOMEM : 0);
}

static void answer(struct command *c, int err)
{
	struct engine_op *op = c->op;
	bool is_write = op->opcode == ENGINE_WRITE || op->opcode == ENGINE_FALLOCATE;

	c->engine->written += is_write && !err && !op->is_fua;
	TAILQ_INSERT_HEAD(&c->engine->free, c, link);
	op->done(op, err);
}

/* ENOTCONN is libnbd's own word for a command whose connection died, ESHUTDOWN that of a server which is about to go. */
static bool is_links_fault(int err)
{
	return err == ENOTCONN || err == ESHUTDOWN;
}

static void go_on(struct command *c)
{
	struct engine_nbd *g = c->engine;

	if (is_links_fault(c->err)) {
		if (g->link.state == DISK_NBD_UP)
			disk_nbd_link_lose(&g->link, c->err == ESHUTDOWN ? "the server is about to end" : "the connection ended");
		start(c);
	} else if (!c->op) {
		answer_extents(c);
	} else if (c->err == LATE) {
		answer(c, EIO);
	} else if (c->err) {
		if (is_flush(c))
			g->lost_err = c->err;
		answer(c, c->err);
	} else if (is_flush(c)) {
		g->flushed = MAX(g->flushed, c->covers);
		answer(c, g->lost_err);
	} else {
		c->rest.start += c->asked_bytes;
		c->is_storing = range_is_empty(c->rest) && c->op->is_fua && !g->link.export->facts.can_fua;
		if (range_is_empty(c->rest) && !c->is_storing)
			answer(c, 0);
		else
			start(c);
	}
}

static void settle(struct loop_task *t)
{
	struct engine_nbd *g = container_of(t, struct engine_nbd, task);
	struct engine_op *op;
	struct command *c;

	while ((c = TAILQ_FIRST(&g->ended))) {
		TAILQ_REMOVE(&g->ended, c, link);
		go_on(c);
	}
	while ((op = STAILQ_FIRST(&g->refused))) {
		STAILQ_REMOVE_HEAD(&g->refused, link);
		op->done(op, ENOMEM);
	}
}

static void submit(struct engine *base, struct engine_op *op)
{
	struct engine_nbd *g = container_of(base, struct engine_nbd, base);
	struct command *c = take_command(g);

	if (UNLIKELY(!c)) {
		STAILQ_INSERT_TAIL(&g->refused, op, link);
		loop_defer(g->link.loop, &g->task);
		return;
	}
	c->op = op;
	c->rest = (struct range){ op->offset, op->offset + op->length };
	start(c);
}

static void submit_extents(struct engine *base, struct req *r)
{
	struct engine_nbd *g = container_of(base, struct engine_nbd, base);
	struct command *c = take_command(g);

	if (!c) {
		req_complete(r, ENOMEM);
		return;
	}
	c->req = r;
	c->extents_before = r->extents->count;
	c->rest = range_widen(r->range, g->link.export->facts.min_block_bytes);
	c->rest.end = MIN(c->rest.end, c->rest.start + ASK_MAX_BYTES);
	start(c);
}

/* --- the link */

static struct engine_nbd *engine_of(struct disk_nbd_link *k)
{
	return container_of(k, struct engine_nbd, link);
}

/* A server without flush says of itself that there is nothing to lose. */
static void note_loss(struct engine_nbd *g)
{
	struct disk_nbd *n = g->link.export;

	if (g->written == g->flushed || g->lost_err || n->keeps_writes || !n->facts.can_flush)
		return;
	g->lost_err = EIO;
	n->was_lost = true;
	log_error("%s: what was written there and not flushed may be lost, since the server may have died: flushes fail from "
		  "here on, until the disk is activated anew%s", n->uri,
		  n->server ? "" : ". If the server keeps its writes, the file that names it can say so");
}

static void on_lost(struct disk_nbd_link *k)
{
	struct engine_nbd *g = engine_of(k);
	struct command *c;

	note_loss(g);
	while ((c = TAILQ_FIRST(&g->flying))) {
		TAILQ_REMOVE(&g->flying, c, link);
		park(c);
	}
}

static void on_gone(struct disk_nbd_link *k)
{
	struct engine_nbd *g = engine_of(k);
	struct command *c;

	while ((c = TAILQ_FIRST(&g->parked))) {
		TAILQ_REMOVE(&g->parked, c, link);
		end(c, LATE);
	}
}

static void on_back(struct disk_nbd_link *k)
{
	struct engine_nbd *g = engine_of(k);
	struct command *c;

	while ((c = TAILQ_FIRST(&g->parked))) {
		TAILQ_REMOVE(&g->parked, c, link);
		start(c);
	}
}

/* --- life */

static void release(struct engine *base)
{
	struct engine_nbd *g = container_of(base, struct engine_nbd, base);
	struct step *s;

	assert(TAILQ_EMPTY(&g->flying) && TAILQ_EMPTY(&g->parked) && TAILQ_EMPTY(&g->ended));
	loop_defer_cancel(g->link.loop, &g->task);
	disk_nbd_link_fini(&g->link);
	while ((s = SLIST_FIRST(&g->steps))) {
		SLIST_REMOVE_HEAD(&g->steps, link);
		free(s);
	}
	free(g);
}

static const struct engine_ops nbd_ops = { .name = "nbd", .submit = submit, .extents = submit_extents, .free = release };

struct engine *engine_nbd_new(struct loop *l, struct disk_nbd *n, struct error *e)
{
	struct engine_nbd *g = calloc(1, sizeof(*g));

	if (!g) {
		disk_nbd_close(n);
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	g->base.ops = &nbd_ops;
	g->task.run = settle;
	TAILQ_INIT(&g->free);
	TAILQ_INIT(&g->flying);
	TAILQ_INIT(&g->parked);
	TAILQ_INIT(&g->ended);
	STAILQ_INIT(&g->refused);
	SLIST_INIT(&g->steps);
	g->link = (struct disk_nbd_link){ .loop = l, .export = n, .on_lost = on_lost, .on_back = on_back, .on_gone = on_gone };
	g->written = n->is_taken_up && !n->is_read_only;
	if (n->was_lost) {
		g->lost_err = EIO;
		log_error("%s: its server died with what it had not stored: flushes fail from here on, until the disk is "
			  "activated anew", n->uri);
	}
	if (disk_nbd_link_init(&g->link, e) == -1) {
		release(&g->base);
		return NULL;
	}
	return &g->base;
}
