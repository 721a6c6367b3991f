/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * server - the control socket: lines in, lines out
 */
#ifndef SXM_CONTROL_SERVER_H
#define SXM_CONTROL_SERVER_H

#include "base/error.h"
#include "loop/loop.h"

#define SERVER_LINE_MAX (1u << 20) /* bytes, without the newline */

struct server;
/* One line that was asked; answered exactly once, at any time, whether or not the client is still there. */
struct server_request;

struct server_spec {
	struct loop *loop;  /* borrowed */
	int fd;             /* borrowed: a listening unix stream socket */
	/* line: `bytes` long, a NUL after it, no newline; valid during the call. */
	void (*on_line)(void *arg, struct server_request *q, const char *line, size_t bytes);
	void (*on_quiet)(void *arg); /* the last connection has gone */
	void (*on_gone)(void *arg, uint64_t number); /* server_mind()'s; NULL: nobody cares */
	void *arg;
};

struct server *server_new(const struct server_spec *spec, struct error *e);
/* text: one line without its newline; taken. NULL: out of memory, the client is hung up on. */
void server_answer(struct server_request *q, char *text);
/* The connection that asked this stands for something: on_gone() is called with the number (not 0) when it has ended. One number
 * each, the last. Not after the answer. */
void server_mind(struct server_request *q, uint64_t number);
/* No connection is open. */
bool server_is_quiet(const struct server *s);
/* Hangs up on connections that ask nothing, stand for nothing and have been silent for a while. */
void server_hang_up_idle(struct server *s, unsigned silent_ms);
/* Accepts nobody any more (what waits in the backlog stays there). */
void server_stop(struct server *s);
/* After server_stop(); every request was answered. */
void server_free(struct server *s);

#endif
