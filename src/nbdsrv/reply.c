/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * reply - a completion becomes bytes, and all of a turn's bytes leave at once
 *
 *      hello (rest of the handshake) | head body | head | head | head body | ...      one iovec, one stream_send
 *                                      ^ sent_bytes
 *
 * A READ's data goes from the iobuf to the socket uncopied.  While the socket takes it the buffer stays charged to the pool;
 * when the socket is full the charge is given back and only the reference kept: a client that does not take its answers
 * holds memory (at most CONN_READING_MAX and one request), but no other client, and no guest, waits for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "nbdsrv/conn.h"

#define IOV_MAX_HERE (2 * CONN_COMMANDS_MAX + 1)

struct command *command_new(struct conn *c, const struct wire_request *wire)
{
	struct nbdsrv *s = c->server;
	struct command *cmd = STAILQ_FIRST(&s->spare_commands);

	if (cmd)
		STAILQ_REMOVE_HEAD(&s->spare_commands, link);
	else if (!(cmd = malloc(sizeof(*cmd))))
		return NULL;
	cmd->conn = c;
	cmd->wire = *wire;
	cmd->err = 0;
	cmd->data = NULL;
	cmd->extents = (struct extents){ 0 };
	cmd->descriptors = NULL;
	cmd->fields = 0;
	cmd->head_bytes = 0;
	cmd->body = NULL;
	cmd->body_bytes = 0;
	conn_ref(c);
	c->commands++;
	if (wire->type == WIRE_CMD_READ)
		c->reading_bytes += wire->length;
	return cmd;
}

void command_free(struct command *cmd)
{
	struct conn *c = cmd->conn;

	iobuf_return(cmd->data);
	extents_fini(&cmd->extents);
	free(cmd->descriptors);
	if (cmd->wire.type == WIRE_CMD_READ)
		c->reading_bytes -= cmd->wire.length;
	assert(c->commands > 0);
	c->commands--;
	STAILQ_INSERT_HEAD(&c->server->spare_commands, cmd, link);
	conn_unref(c);
}

static void build_error(struct command *cmd, int err)
{
	if (cmd->conn->has_structured)
		cmd->head_bytes = (uint32_t)wire_build_error(cmd->head, cmd->wire.cookie, err);
	else
		cmd->head_bytes = (uint32_t)wire_build_simple(cmd->head, cmd->wire.cookie, err);
	iobuf_return(cmd->data);
	cmd->data = NULL;
}

static void build_read(struct command *cmd)
{
	const struct wire_request *r = &cmd->wire;

	if (cmd->conn->has_structured)
		cmd->head_bytes = (uint32_t)wire_build_data(cmd->head, r->cookie, r->offset, r->length);
	else
		cmd->head_bytes = (uint32_t)wire_build_simple(cmd->head, r->cookie, 0);
	cmd->body = cmd->data->data;
	cmd->body_bytes = r->length;
}

/* The descriptors of one context, after room for their chunk's head, which is built when they are counted. */
static void build_context(struct command *cmd, struct bytes_writer *w, unsigned context, bool is_last)
{
	const struct wire_request *r = &cmd->wire;
	struct bytes_writer head = bytes_writer(bytes_put_space(w, WIRE_STATUS_BYTES), WIRE_STATUS_BYTES);
	bool is_base = context == META_BASE_ALLOCATION;
	uint32_t count = 1;

	if (is_base && cmd->extents.count)
		count = wire_build_descriptors(w, &cmd->extents, (struct range){ r->offset, r->offset + r->length });
	else if (is_base || !cmd->fields)
		wire_build_descriptor(w, r->length, 0);
	else
		for (count = 0; count < cmd->fields; count++)
			wire_build_descriptor(w, 1, cmd->field[count]);
	wire_build_status(&head, r->cookie, context, count, is_last);
}

/* A chunk for each context. */
static void build_status(struct command *cmd)
{
	unsigned contexts = cmd->conn->contexts;
	size_t room = 2 * WIRE_STATUS_BYTES + (cmd->extents.count + 1 + XSXM_FIELDS_MAX) * WIRE_DESCRIPTOR_BYTES;
	struct bytes_writer w;

	cmd->descriptors = malloc(room);
	if (!cmd->descriptors) {
		build_error(cmd, ENOMEM);
		return;
	}
	w = bytes_writer(cmd->descriptors, room);
	if (contexts & META_BASE_ALLOCATION)
		build_context(cmd, &w, META_BASE_ALLOCATION, !(contexts & META_XSXM));
	if (contexts & META_XSXM)
		build_context(cmd, &w, META_XSXM, true);
	assert(!w.is_full);
	cmd->body = cmd->descriptors;
	cmd->body_bytes = (uint32_t)bytes_written(&w);
	extents_fini(&cmd->extents);
}

/* What carries no payload may be answered with a simple reply also where structured ones were agreed on: it is shorter. */
void reply_queue(struct command *cmd, int err)
{
	struct conn *c = cmd->conn;

	if (err)
		build_error(cmd, err);
	else if (cmd->wire.type == WIRE_CMD_READ)
		build_read(cmd);
	else if (cmd->wire.type == WIRE_CMD_BLOCK_STATUS)
		build_status(cmd);
	else
		cmd->head_bytes = (uint32_t)wire_build_simple(cmd->head, cmd->wire.cookie, 0);
	if (cmd->wire.type == WIRE_CMD_WRITE) {
		iobuf_return(cmd->data);
		cmd->data = NULL;
	}
	STAILQ_INSERT_TAIL(&c->replies, cmd, link);
	conn_touch(c);
}

bool reply_is_pending(const struct conn *c)
{
	return c->hello_end > c->hello_start || !STAILQ_EMPTY(&c->replies) || stream_is_unsent(&c->stream);
}

/* Adds bytes, but for the first *skip of them. */
static size_t add_piece(struct iovec *iov, const uint8_t *bytes, size_t length, size_t *skip)
{
	size_t skipped = MIN(*skip, length);

	*skip -= skipped;
	if (skipped == length)
		return 0;
	*iov = (struct iovec){ .iov_base = (void *)(uintptr_t)(bytes + skipped), .iov_len = length - skipped };
	return 1;
}

static size_t gather(const struct conn *c, struct iovec *iov)
{
	size_t count = 0, skip = c->sent_bytes, none = 0;
	const struct command *cmd;

	if (c->hello_end > c->hello_start)
		count += add_piece(iov, c->hello + c->hello_start, c->hello_end - c->hello_start, &none);
	STAILQ_FOREACH(cmd, &c->replies, link) {
		if (count + 2 > IOV_MAX_HERE)
			break;
		count += add_piece(&iov[count], cmd->head, cmd->head_bytes, &skip);
		count += add_piece(&iov[count], cmd->body, cmd->body_bytes, &skip);
	}
	return count;
}

static size_t advance_hello(struct conn *c, size_t bytes)
{
	uint32_t taken = (uint32_t)MIN(bytes, (size_t)(c->hello_end - c->hello_start));

	c->hello_start += taken;
	if (c->hello_start < c->hello_end)
		return 0;
	c->hello_start = c->hello_end = 0;
	if (c->state != CONN_HANDSHAKE) {
		free(c->hello);
		c->hello = NULL;
	}
	return bytes - taken;
}

static void advance(struct conn *c, size_t bytes)
{
	struct command *cmd;

	if (c->hello)
		bytes = advance_hello(c, bytes);
	c->sent_bytes += bytes;
	while ((cmd = STAILQ_FIRST(&c->replies)) && c->sent_bytes >= cmd->head_bytes + (size_t)cmd->body_bytes) {
		c->sent_bytes -= cmd->head_bytes + (size_t)cmd->body_bytes;
		STAILQ_REMOVE_HEAD(&c->replies, link);
		command_free(cmd);
	}
}

static void give_charges_back(struct conn *c)
{
	struct command *cmd;

	STAILQ_FOREACH(cmd, &c->replies, link)
		if (cmd->data && cmd->data->charged)
			iobuf_return(iobuf_ref(cmd->data));
}

bool reply_send(struct conn *c)
{
	struct iovec iov[IOV_MAX_HERE];
	ssize_t sent;

	while (reply_is_pending(c)) {
		sent = stream_send(&c->stream, iov, gather(c, iov));
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN) {
			c->is_blocked = true;
			give_charges_back(c);
			return true;
		}
		if (sent < 0)
			return false;
		advance(c, (size_t)sent);
	}
	c->is_blocked = false;
	return true;
}
