/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * client - asks a datapath process over its control socket (src/PROTOCOL.control). Blocking; for plugins and commands.
 */
#ifndef SXM_CONTROL_CLIENT_H
#define SXM_CONTROL_CLIENT_H

#include <stdint.h>

#include "base/error.h"

/* What became of a question: the process' errors and our own may have the same number. */
enum client_outcome {
	CLIENT_ANSWERED,
	CLIENT_REFUSED, /* the process answered with an error: its code and sentence */
	CLIENT_ABSENT,  /* nobody listens there: ECONNREFUSED */
	CLIENT_LOST,    /* hung up on before an answer: ECONNRESET. Whether it was done is not known */
	CLIENT_LATE,    /* wait_ms is over: ETIMEDOUT */
	CLIENT_BROKEN,  /* no socket, no memory, an answer that cannot be understood */
};

/* One verb on one connection. args: a JSON object's text, NULL for {}. *ok: the "ok" value's text, heap, when ANSWERED; else
 * e is filled.  wait_ms bounds the whole; 0: no bound. */
enum client_outcome client_ask(const char *socket_path, const char *verb, const char *args, unsigned wait_ms, char **ok,
			       struct error *e);

/* One connection, for what lasts as long as that does, and for asking several processes at once. */
struct client {
	int fd; /* owned; -1: none */
	char path[108];
	uint64_t deadline_ms;
};
/* wait_ms bounds all of it, up to client_close(). */
enum client_outcome client_connect(struct client *c, const char *socket_path, unsigned wait_ms, struct error *e);
enum client_outcome client_send(struct client *c, const char *verb, const char *args, struct error *e);
/* The answer to what was sent. *ok as client_ask()'s. */
enum client_outcome client_receive(struct client *c, char **ok, struct error *e);
/* What comes from now on is bounded anew. */
void client_bound(struct client *c, unsigned wait_ms);
void client_close(struct client *c);

/* The same for those who need not tell the outcomes apart. NULL + e. */
char *client_call(const char *socket_path, const char *verb, const char *args, unsigned wait_ms, struct error *e);

#endif
