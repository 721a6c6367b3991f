/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handshake - option haggling, one function per option
 *
 *      server                                          client
 *      NBDMAGIC IHAVEOPT flags ---------------------->
 *                            <------------------------ flags             (FIXED_NEWSTYLE, NO_ZEROES)
 *                            <------------------------ IHAVEOPT option length data     as often as it likes
 *      reply magic, option, reply, length, data ----->                                 (one or more per option)
 *                            <------------------------ GO
 *      INFO export size + flags [INFO ...] ACK ------>
 *      ================================ transmission ==============================
 *
 *      Where TLS is demanded (nbdsrv_listen_tcp() with keys), before all that:
 *                            <------------------------ STARTTLS, and nothing behind it
 *      ACK ------------------------------------------>
 *      ========= TLS's handshake; from here on all of it is in records, and begins anew with options ==========
 *
 *      EXPORT_NAME ends it too: size and flags without a header, then 124 zeros unless NO_ZEROES was agreed.
 *
 * There is one export here and every name means it: tapdisk asks for "tapdisk_client" with a NUL after it, qemu for "".
 * tapdisk's client also ends with DISC whenever it is paused, keeps the socket, and expects a greeting on it when it goes on:
 * so a connection that was passed on (receive.c) begins again from the top.
 * Can fail: plain text behind STARTTLS (it would be an injection), flags we do not know, a wrong magic, an EXPORT_NAME that
 * makes no sense: the client is cut, for the protocol has no answer there.  Everything else is answered with an error reply and
 * the haggling goes on.
 */
#include <stdlib.h>
#include <string.h>

#include "nbdsrv/conn.h"

#define PREFERRED_BYTES 4096u

struct option_data {
	uint32_t option;
	const uint8_t *at;
	uint32_t bytes;
};

static struct bytes_writer hello_writer(struct conn *c)
{
	return bytes_writer(c->hello + c->hello_end, CONN_HELLO_BYTES - c->hello_end);
}

static void hello_written(struct conn *c, const struct bytes_writer *w)
{
	assert(!w->is_full); /* CONN_HELLO_ROOM */
	c->hello_end += (uint32_t)bytes_written(w);
	conn_touch(c);
}

static void answer(struct conn *c, uint32_t option, uint32_t reply)
{
	struct bytes_writer w = hello_writer(c);

	wire_build_option_reply(&w, option, reply, 0);
	hello_written(c, &w);
}

static void refuse(struct conn *c, uint32_t option, uint32_t reply, const char *text)
{
	struct bytes_writer w = hello_writer(c);

	wire_build_option_error(&w, option, reply, text);
	hello_written(c, &w);
}

bool handshake_start(struct conn *c)
{
	struct bytes_writer w;

	if (!c->hello)
		c->hello = malloc(CONN_HELLO_BYTES);
	if (!c->hello)
		return false;
	w = hello_writer(c);
	wire_build_greeting(&w);
	hello_written(c, &w);
	return true;
}

static uint16_t export_flags(const struct conn *c)
{
	const struct geometry *g = &c->server->top->geometry;
	unsigned flags = WIRE_HAS_FLAGS | WIRE_SEND_FLUSH | WIRE_SEND_FUA | WIRE_CAN_MULTI_CONN | WIRE_SEND_CACHE;

	if (c->server->is_read_only || g->is_read_only)
		flags |= WIRE_READ_ONLY;
	else
		flags |= (g->can_trim ? WIRE_SEND_TRIM : 0u) | (g->can_zero ? WIRE_SEND_WRITE_ZEROES : 0u);
	if (c->has_structured)
		flags |= WIRE_SEND_DF;
	return (uint16_t)flags;
}

static bool is_secure(const struct conn *c)
{
	return stream_is_secure(&c->stream);
}

static void enter_transmission(struct conn *c)
{
	c->state = CONN_TRANSMISSION;
	nbdsrv_set_deadline(c->server, c, 0);
	if (c->server->is_for_links_only && !(c->contexts & META_XSXM))
		conn_end(c);
}

static void take_export_name(struct conn *c, const struct option_data *o)
{
	struct bytes_writer w = hello_writer(c);

	(void)o;
	wire_build_export(&w, c->server->top->geometry.size_bytes, export_flags(c));
	if (!c->has_no_zeroes)
		bytes_put_zeros(&w, WIRE_OLD_PADDING_BYTES);
	hello_written(c, &w);
	enter_transmission(c);
}

static void take_abort(struct conn *c, const struct option_data *o)
{
	answer(c, o->option, WIRE_REP_ACK);
	conn_end(c);
}

static void take_list(struct conn *c, const struct option_data *o)
{
	const char *name = c->server->export_name;
	size_t bytes = strlen(name);
	struct bytes_writer w = hello_writer(c);

	if (o->bytes) {
		refuse(c, o->option, WIRE_REP_ERR_INVALID, "LIST takes no data");
		return;
	}
	wire_build_option_reply(&w, o->option, WIRE_REP_SERVER, (uint32_t)(4 + bytes));
	bytes_put_u32(&w, (uint32_t)bytes);
	bytes_put(&w, name, bytes);
	wire_build_option_reply(&w, o->option, WIRE_REP_ACK, 0);
	hello_written(c, &w);
}

static void put_info_name(struct bytes_writer *w, uint32_t option, const char *name)
{
	size_t bytes = strlen(name);

	wire_build_option_reply(w, option, WIRE_REP_INFO, (uint32_t)(2 + bytes));
	bytes_put_u16(w, WIRE_INFO_NAME);
	bytes_put(w, name, bytes);
}

static void put_info_block_size(struct bytes_writer *w, uint32_t option)
{
	wire_build_option_reply(w, option, WIRE_REP_INFO, 14);
	bytes_put_u16(w, WIRE_INFO_BLOCK_SIZE);
	bytes_put_u32(w, 1);
	bytes_put_u32(w, PREFERRED_BYTES);
	bytes_put_u32(w, WIRE_PAYLOAD_MAX);
}

/* INFO and GO. */
static void take_info(struct conn *c, const struct option_data *o)
{
	struct bytes_writer w = hello_writer(c);
	struct wire_info info;

	if (!wire_parse_info(o->at, o->bytes, &info)) {
		refuse(c, o->option, WIRE_REP_ERR_INVALID, "the lengths in this option do not add up");
		return;
	}
	wire_build_option_reply(&w, o->option, WIRE_REP_INFO, 12);
	bytes_put_u16(&w, WIRE_INFO_EXPORT);
	wire_build_export(&w, c->server->top->geometry.size_bytes, export_flags(c));
	if (info.wants_name)
		put_info_name(&w, o->option, c->server->export_name);
	if (info.wants_block_size)
		put_info_block_size(&w, o->option);
	wire_build_option_reply(&w, o->option, WIRE_REP_ACK, 0);
	hello_written(c, &w);
	if (o->option == WIRE_OPT_GO)
		enter_transmission(c);
}

static void take_structured_reply(struct conn *c, const struct option_data *o)
{
	if (o->bytes) {
		refuse(c, o->option, WIRE_REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
		return;
	}
	c->has_structured = true;
	answer(c, o->option, WIRE_REP_ACK);
}

/* LIST_META_CONTEXT and SET_META_CONTEXT. A SET that fails unsets. */
static void take_meta(struct conn *c, const struct option_data *o)
{
	bool is_set = o->option == WIRE_OPT_SET_META_CONTEXT;
	struct bytes_writer w = hello_writer(c);
	struct wire_meta meta;

	if (is_set)
		c->contexts = 0;
	if (is_set && !c->has_structured) {
		refuse(c, o->option, WIRE_REP_ERR_INVALID, "structured replies have to be agreed on first");
		return;
	}
	if (!wire_parse_meta(o->at, o->bytes, &meta)) {
		refuse(c, o->option, WIRE_REP_ERR_INVALID, "the lengths in this option do not add up");
		return;
	}
	if (is_set)
		context_set(c, &w, &meta);
	else
		context_list(c, &w, &meta);
	hello_written(c, &w);
}

/* What follows it in plain text was put there by whoever sits between, or would be taken for what came under TLS: no client sends
 * anything before our answer. */
static void take_starttls(struct conn *c, const struct option_data *o)
{
	if (!c->keys) {
		refuse(c, o->option, WIRE_REP_ERR_POLICY, "there is no TLS on this socket");
	} else if (is_secure(c)) {
		refuse(c, o->option, WIRE_REP_ERR_INVALID, "there is TLS on this connection already");
	} else if (o->bytes) {
		refuse(c, o->option, WIRE_REP_ERR_INVALID, "STARTTLS takes no data");
	} else if (conn_in_bytes(c)) {
		conn_complain(c, "sent %u bytes in plain text behind STARTTLS", conn_in_bytes(c));
		conn_cut(c);
	} else {
		answer(c, o->option, WIRE_REP_ACK);
		c->is_securing = true;
	}
}

/* All that was agreed on in plain text is void. */
static enum take secure(struct conn *c)
{
	if (!conn_has_room(c))
		return TAKE_STALL;
	assert(!conn_in_bytes(c));
	c->is_securing = c->has_structured = false;
	c->contexts = 0;
	if (stream_secure(&c->stream, c->keys) == -1) {
		conn_complain(c, "was cut: out of memory");
		conn_cut(c);
		return TAKE_WAIT;
	}
	nbdsrv_set_deadline(c->server, c, CONN_SECURE_MS);
	return TAKE_WAIT;
}

/* Refuses what is not to be had before there is TLS. */
static bool refuse_plain(struct conn *c, uint32_t option)
{
	if (!c->keys || is_secure(c) || option == WIRE_OPT_STARTTLS || option == WIRE_OPT_ABORT)
		return false;
	if (option == WIRE_OPT_EXPORT_NAME) { /* has no answer that says no */
		conn_complain(c, "asked for an export without TLS, which is demanded here");
		conn_cut(c);
	} else {
		refuse(c, option, WIRE_REP_ERR_TLS_REQD, "TLS is demanded here: STARTTLS first");
	}
	return true;
}

static void take_option(struct conn *c, const struct option_data *o)
{
	if (refuse_plain(c, o->option))
		return;
	switch (o->option) {
	case WIRE_OPT_EXPORT_NAME:
		take_export_name(c, o);
		break;
	case WIRE_OPT_ABORT:
		take_abort(c, o);
		break;
	case WIRE_OPT_LIST:
		take_list(c, o);
		break;
	case WIRE_OPT_STARTTLS:
		take_starttls(c, o);
		break;
	case WIRE_OPT_INFO:
	case WIRE_OPT_GO:
		take_info(c, o);
		break;
	case WIRE_OPT_STRUCTURED_REPLY:
		take_structured_reply(c, o);
		break;
	case WIRE_OPT_LIST_META_CONTEXT:
	case WIRE_OPT_SET_META_CONTEXT:
		take_meta(c, o);
		break;
	default:
		refuse(c, o->option, WIRE_REP_ERR_UNSUP, "unknown option");
	}
}

static enum take take_client_flags(struct conn *c)
{
	struct bytes_reader r = bytes_reader(c->in + c->in_start, conn_in_bytes(c));
	uint32_t flags = bytes_get_u32(&r);

	if (r.is_short)
		return TAKE_WAIT;
	c->in_start += WIRE_CLIENT_FLAGS_BYTES;
	if (flags & ~(uint32_t)(WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES)) {
		conn_complain(c, "sent unknown handshake flags 0x%x", flags);
		conn_cut(c);
		return TAKE_WAIT;
	}
	c->has_client_flags = true;
	c->has_no_zeroes = flags & WIRE_NO_ZEROES;
	return TAKE_MORE;
}

static enum take refuse_long_option(struct conn *c, const struct wire_option *o)
{
	if (o->type == WIRE_OPT_EXPORT_NAME) {
		conn_complain(c, "asked for an export by a name of %u bytes", o->length);
		conn_cut(c);
		return TAKE_WAIT;
	}
	if (!refuse_plain(c, o->type))
		refuse(c, o->type, WIRE_REP_ERR_TOO_BIG, "option too long");
	c->in_start += WIRE_OPTION_BYTES;
	c->skip_bytes = o->length;
	return TAKE_MORE;
}

static enum take skip(struct conn *c)
{
	uint32_t bytes = MIN(c->skip_bytes, conn_in_bytes(c));

	c->in_start += bytes;
	c->skip_bytes -= bytes;
	return c->skip_bytes ? TAKE_WAIT : TAKE_MORE;
}

/* After DISC: not before the last answer has left, for the greeting says that all is answered. */
static enum take greet_again(struct conn *c)
{
	if (!conn_has_room(c))
		return TAKE_STALL;
	c->is_parting = false;
	if (handshake_start(c))
		return TAKE_MORE;
	conn_complain(c, "was cut: out of memory");
	conn_cut(c);
	return TAKE_WAIT;
}

enum take handshake_take(struct conn *c)
{
	struct wire_option o;
	struct option_data data;

	if (c->is_parting)
		return greet_again(c);
	if (c->is_securing)
		return secure(c);
	if (!c->has_client_flags)
		return take_client_flags(c);
	if (c->skip_bytes)
		return skip(c);
	if (conn_in_bytes(c) < WIRE_OPTION_BYTES)
		return TAKE_WAIT;
	if (!conn_has_room(c))
		return TAKE_STALL;
	if (!wire_parse_option(c->in + c->in_start, &o)) {
		conn_complain(c, "sent something that is not an option");
		conn_cut(c);
		return TAKE_WAIT;
	}
	if (o.length > (o.type == WIRE_OPT_EXPORT_NAME ? (uint32_t)WIRE_STRING_MAX : CONN_OPTION_MAX))
		return refuse_long_option(c, &o);
	if (conn_in_bytes(c) - WIRE_OPTION_BYTES < o.length)
		return TAKE_WAIT;
	data = (struct option_data){ o.type, c->in + c->in_start + WIRE_OPTION_BYTES, o.length };
	c->in_start += WIRE_OPTION_BYTES + o.length;
	take_option(c, &data);
	return TAKE_MORE;
}
