/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * transmit - a client's request becomes a struct req
 *
 *      header -> verdict --good--> buffer -> [payload arrives] -> layer_submit() ~~~ done() -> reply.c
 *                    '---bad---------------> [payload dropped] ---------------------> error reply
 *
 * A refused WRITE is answered after its payload was read and dropped: a client in the middle of sending it does not expect
 * an answer yet.
 * Can wait: for room (too many requests not answered, too many bytes read for or unsent to this client, no iobuf); the header
 * then stays in the input buffer and nothing more is read from this client.
 * Can fail: a wrong magic; there is no telling where the next request starts: the client is cut.
 */
#include <errno.h>
#include <string.h>

#include "nbdsrv/conn.h"

#define EXTENTS_MAX 4096u /* in one answer: 32 KiB of descriptors */

static void count(struct nbdsrv_stats *stats, const struct command *cmd)
{
	const struct wire_request *r = &cmd->wire;
	uint64_t took_ns = cmd->submitted_ns ? loop_now_ns() - cmd->submitted_ns : 0;

	switch (r->type) {
	case WIRE_CMD_READ:
		stats->reads++;
		stats->bytes_read += r->length;
		stats->read_ns += took_ns;
		break;
	case WIRE_CMD_WRITE:
		stats->writes++;
		stats->bytes_written += r->length;
		stats->write_ns += took_ns;
		if (cmd->submitted_ns)
			histogram_add(&stats->writes_us, took_ns / 1000);
		break;
	case WIRE_CMD_FLUSH:
		stats->flushes++;
		break;
	case WIRE_CMD_TRIM:
		stats->trims++;
		break;
	case WIRE_CMD_WRITE_ZEROES:
		stats->zeroes++;
		break;
	}
}

static void on_done(struct req *r)
{
	struct command *cmd = r->arg;
	int err = r->err;

	req_put(r);
	cmd->conn->server->stats.in_flight--;
	if (!err) {
		count(&cmd->conn->server->stats, cmd);
		link_fold(cmd);
	}
	if (cmd->conn->state == CONN_CUT)
		command_free(cmd);
	else
		reply_queue(cmd, err);
}

static enum req_op op_of(uint16_t type)
{
	switch (type) {
	case WIRE_CMD_READ:
		return REQ_READ;
	case WIRE_CMD_WRITE:
		return REQ_WRITE;
	case WIRE_CMD_FLUSH:
		return REQ_FLUSH;
	case WIRE_CMD_TRIM:
		return REQ_TRIM;
	case WIRE_CMD_CACHE:
		return REQ_CACHE;
	case WIRE_CMD_WRITE_ZEROES:
		return REQ_ZERO;
	default:
		assert(type == WIRE_CMD_BLOCK_STATUS);
		return REQ_EXTENTS;
	}
}

static unsigned flags_of(const struct wire_request *r, enum req_op op)
{
	bool can_be_durable = op == REQ_WRITE || op == REQ_ZERO || op == REQ_TRIM;
	unsigned flags = 0;

	if (can_be_durable && (r->flags & WIRE_FLAG_FUA))
		flags |= REQ_FUA;
	if (op == REQ_ZERO && !(r->flags & WIRE_FLAG_NO_HOLE))
		flags |= REQ_MAY_TRIM;
	if (op == REQ_EXTENTS && (r->flags & WIRE_FLAG_REQ_ONE))
		flags |= REQ_ONE;
	return flags;
}

static void submit(struct command *cmd)
{
	const struct wire_request *w = &cmd->wire;
	struct nbdsrv *s = cmd->conn->server;
	struct req *r;

	if (wire_is_write(w->type) && !link_may_write(cmd->conn)) { /* no more: its payload took its time */
		reply_queue(cmd, EPERM);
		return;
	}
	r = req_get();
	if (!r) {
		reply_queue(cmd, ENOMEM);
		return;
	}
	r->op = op_of(w->type);
	r->flags = flags_of(w, r->op);
	if (r->op != REQ_FLUSH)
		r->range = (struct range){ w->offset, w->offset + w->length };
	r->data = cmd->data;
	if (r->op == REQ_EXTENTS) {
		extents_init(&cmd->extents, (w->flags & WIRE_FLAG_REQ_ONE) ? 1 : EXTENTS_MAX);
		r->extents = &cmd->extents;
	}
	r->done = on_done;
	r->arg = cmd;
	s->stats.in_flight++;
	cmd->submitted_ns = s->is_timed ? loop_now_ns() : 0;
	loop_expect_work(s->loop);
	layer_submit(s->top, r);
}

static enum take take_payload(struct conn *c)
{
	struct command *cmd = c->filling;
	uint32_t bytes = MIN(cmd->wire.length - c->filled_bytes, conn_in_bytes(c));

	if (cmd->data && bytes)
		memcpy(cmd->data->data + c->filled_bytes, c->in + c->in_start, bytes);
	c->in_start += bytes;
	c->filled_bytes += bytes;
	if (c->filled_bytes < cmd->wire.length)
		return TAKE_WAIT;
	c->filling = NULL;
	if (cmd->err)
		reply_queue(cmd, cmd->err);
	else if (link_is_log(c, &cmd->wire))
		link_take_log(cmd);
	else
		submit(cmd);
	return TAKE_MORE;
}

static int judge(const struct conn *c, const struct wire_request *r)
{
	const struct geometry *g = &c->server->top->geometry;
	struct wire_terms terms = {
		.size_bytes = g->size_bytes,
		.is_read_only = c->server->is_read_only || g->is_read_only || !link_may_write(c),
		.can_trim = g->can_trim,
		.can_zero = g->can_zero,
		.has_structured = c->has_structured,
		.has_contexts = c->contexts != 0,
	};

	return link_is_log(c, r) ? link_judge_log(c, r) : wire_check_request(r, &terms);
}

/* The buffer for a READ or WRITE that was found good. *err: there will never be one. NULL and no *err: wait. */
static struct iobuf *get_buffer(struct conn *c, uint32_t bytes, int *err)
{
	struct iobuf_pool *pool = c->server->pool;
	struct iobuf *b = iobuf_get(pool, bytes);

	if (b)
		return b;
	if (iobuf_pool_used(pool) == 0)
		*err = ENOMEM;
	else
		iobuf_wait(pool, &c->waiter);
	return NULL;
}

static enum take start(struct conn *c, const struct wire_request *r)
{
	bool has_payload = r->type == WIRE_CMD_READ || r->type == WIRE_CMD_WRITE;
	bool is_question = (c->contexts & META_XSXM) && r->type == WIRE_CMD_BLOCK_STATUS && r->length == XSXM_QUESTION_BYTES;
	int err = is_question ? 0 : judge(c, r);
	struct iobuf *data = NULL;
	struct command *cmd;

	if (!err && wire_is_write(r->type) && link_is_pondered(c))
		return TAKE_STALL;
	if (has_payload && !err)
		data = get_buffer(c, r->length, &err);
	if (has_payload && !err && !data)
		return TAKE_STALL;
	cmd = command_new(c, r);
	if (!cmd) {
		iobuf_return(data);
		conn_complain(c, "was cut: out of memory");
		conn_cut(c);
		return TAKE_WAIT;
	}
	c->in_start += WIRE_REQUEST_BYTES;
	cmd->data = data;
	cmd->err = err;
	if (r->type == WIRE_CMD_WRITE) {
		c->filling = cmd;
		c->filled_bytes = 0;
	} else if (err) {
		reply_queue(cmd, err);
	} else if (is_question) {
		link_ask(cmd);
	} else {
		submit(cmd);
	}
	return TAKE_MORE;
}

enum take transmit_take(struct conn *c)
{
	struct wire_request r;

	if (c->filling)
		return take_payload(c);
	if (conn_in_bytes(c) < WIRE_REQUEST_BYTES)
		return TAKE_WAIT;
	if (!conn_has_room(c))
		return TAKE_STALL;
	if (!wire_parse_request(c->in + c->in_start, &r)) {
		conn_complain(c, "sent something that is not a request");
		conn_cut(c);
		return TAKE_WAIT;
	}
	if (r.type == WIRE_CMD_DISC) {
		c->in_start += WIRE_REQUEST_BYTES;
		if (c->begins_again && !(c->contexts & META_XSXM)) {
			conn_part(c);
			return TAKE_MORE;
		}
		conn_end(c);
		return TAKE_WAIT;
	}
	conn_enliven(c);
	return start(c, &r);
}
