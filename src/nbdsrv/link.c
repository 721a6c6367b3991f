/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * link - a connection that chose x-sxm: its questions go out of this room, the answers come back as descriptors
 *
 *      BLOCK_STATUS, 511 bytes at OPCODE --link_ask()--> ask() ~~~ nbdsrv_answer() --> reply.c
 *                                                          '-- the conn ends meanwhile: ESHUTDOWN; the answer is dropped
 *
 *      WRITE from XSXM_LOG_AT on, version 2: a piece of the logs of changes --link_take_log()--> log(), and its reply
 *
 * An ask lives until it is answered, its command only as long as its conn can be answered: a conn never waits for whoever
 * ponders a question, so a server can always be shut down.
 * Shutting a link out is closing its socket: what it had submitted is in flight below, holds the conn, and the last of it
 * posts gone().
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "nbdsrv/conn.h"

static struct conn *conn_of(const struct nbdsrv_link *l)
{
	return container_of((struct nbdsrv_link *)(uintptr_t)l, struct conn, xsxm);
}

void link_ask(struct command *cmd)
{
	struct conn *c = cmd->conn;
	struct nbdsrv_ask *a = cmd->wire.flags ? NULL : calloc(1, sizeof(*a));

	if (!a) {
		reply_queue(cmd, cmd->wire.flags ? EINVAL : ENOMEM);
		return;
	}
	*a = (struct nbdsrv_ask){ .link = &c->xsxm, .opcode = cmd->wire.offset, .cmd = cmd };
	TAILQ_INSERT_TAIL(&c->asks, a, entry);
	c->xsxm.is_known = true;
	c->server->links->ask(c->server->links_arg, a);
}

void nbdsrv_answer(struct nbdsrv_ask *a, const uint32_t *field, unsigned count)
{
	struct command *cmd = a->cmd;

	assert(count >= 1 && count <= XSXM_FIELDS_MAX);
	if (cmd) {
		TAILQ_REMOVE(&cmd->conn->asks, a, entry);
		memcpy(cmd->field, field, count * sizeof(*field));
		cmd->fields = count;
		reply_queue(cmd, 0);
	}
	free(a);
}

void link_orphan_asks(struct conn *c)
{
	struct nbdsrv_ask *a;

	while ((a = TAILQ_FIRST(&c->asks))) {
		struct command *cmd = take_ptr(&a->cmd);

		TAILQ_REMOVE(&c->asks, a, entry);
		if (c->state == CONN_CUT)
			command_free(cmd);
		else
			reply_queue(cmd, ESHUTDOWN);
	}
}

bool link_may_write(const struct conn *c)
{
	return c->contexts & META_XSXM ? c->xsxm.digest != NULL : c->server->plain != NBDSRV_PLAIN_READS;
}

bool link_is_log(const struct conn *c, const struct wire_request *r)
{
	return (c->contexts & META_XSXM) && c->xsxm.name.version >= XSXM_LOG_VERSION && r->type == WIRE_CMD_WRITE &&
	       r->offset >= XSXM_LOG_AT;
}

int link_judge_log(const struct conn *c, const struct wire_request *r)
{
	if (!c->xsxm.digest || !c->server->links->log)
		return EPERM;
	return r->flags || r->length == 0 || r->length > XSXM_LOG_MAX_BYTES ? EINVAL : 0;
}

void link_take_log(struct command *cmd)
{
	struct conn *c = cmd->conn;
	int err = link_judge_log(c, &cmd->wire); /* it may be shut out by now: its payload took its time */

	if (!err)
		err = c->server->links->log(c->server->links_arg, &c->xsxm, cmd->wire.offset - XSXM_LOG_AT, cmd->data->data,
					    cmd->wire.length);
	reply_queue(cmd, err);
}

bool link_is_pondered(struct conn *c)
{
	struct nbdsrv *s = c->server;

	if ((c->contexts & META_XSXM) || s->plain != NBDSRV_PLAIN_ASKS)
		return false;
	c->is_pondered = true;
	if (!s->has_asked) {
		s->has_asked = true;
		s->links->plain(s->links_arg);
	}
	return true;
}

void link_fold(const struct command *cmd)
{
	const struct wire_request *r = &cmd->wire;
	struct digest *d = cmd->conn->xsxm.digest;

	if (!d)
		return;
	if (r->type == WIRE_CMD_WRITE)
		digest_add(d, DIGEST_WRITE, r->offset, r->length, cmd->data->data);
	else if (r->type == WIRE_CMD_WRITE_ZEROES)
		digest_add(d, DIGEST_ZERO, r->offset, r->length, NULL);
}

static void on_gone(struct loop_task *t)
{
	struct conn *c = container_of(t, struct conn, gone);

	c->server->links->gone(c->server->links_arg, &c->xsxm);
	conn_free(c);
}

bool link_is_leaving(struct conn *c)
{
	if (!c->xsxm.is_known)
		return false;
	c->gone.run = on_gone;
	loop_defer(c->server->loop, &c->gone);
	return true;
}

void nbdsrv_link_admit(struct nbdsrv_link *l, struct digest *d)
{
	l->digest = d;
}

void nbdsrv_link_shut(struct nbdsrv_link *l)
{
	l->digest = NULL;
	conn_cut(conn_of(l));
}

bool nbdsrv_link_is_open(const struct nbdsrv_link *l)
{
	return conn_is_open(conn_of(l));
}

void nbdsrv_set_plain(struct nbdsrv *s, enum nbdsrv_plain rule)
{
	struct conn *c;

	s->plain = rule;
	s->has_asked = false;
	TAILQ_FOREACH(c, &s->conns, link)
		if (c->is_pondered) {
			c->is_pondered = false;
			conn_touch(c);
		}
}

void nbdsrv_end_plain(struct nbdsrv *s)
{
	struct conn *c, *next;

	s->is_for_links_only = true;
	for (c = TAILQ_FIRST(&s->conns); c; c = next) {
		next = TAILQ_NEXT(c, link);
		if (c->state == CONN_TRANSMISSION && !(c->contexts & META_XSXM))
			conn_end(c);
	}
}
