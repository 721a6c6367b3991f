/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * peer - one host of a move, asked through its relay (PROTOCOL.relay): this one or the other, in the same way
 *
 *      peer_new() -> peer_ask(), which opens a channel and greets when there is none -> peer_free()
 *
 * A question whose answer was lost with the channel is asked once more over a new one: every verb may be repeated.
 * Several peers may be of one host: then they are asked at once, with peer_send() to all and peer_hear() of all.
 * Blocking, with a deadline; what comes back is bounded and hostile.
 */
#ifndef SXM_MIGRATE_PEER_H
#define SXM_MIGRATE_PEER_H

#include "base/compiler.h"
#include "base/error.h"

#define PEER_TEXT_MAX 256

/* A connected stream socket whose other end is a relay, the caller's from then on; -1 + e. */
typedef int peer_channel_fn(void *arg, struct error *e);

/* Why that channel, which has ended, did: e; always -1. */
typedef int peer_why_fn(void *arg, struct error *e);

/* What the host said of itself. */
struct peer_greeting {
	int64_t protocol, now_ms;
	int64_t round_trip_us; /* of the greeting */
	char version[PEER_TEXT_MAX], hostname[PEER_TEXT_MAX], host[PEER_TEXT_MAX], run_dir[PEER_TEXT_MAX];
	char address[PEER_TEXT_MAX]; /* where sshd there was reached; "": that is not known */
	bool has_tcp, has_tls;       /* transports */
	bool can_squeeze;            /* a disk's connection (squeeze.h) */
};

struct peer {
	char name[PEER_TEXT_MAX]; /* for sentences */
	peer_channel_fn *channel;
	peer_why_fn *why; /* of the last channel; NULL: nobody knows. The caller may set it after peer_init() */
	void *arg;
	int fd; /* owned; -1: none */
	bool is_lost; /* the last failure was the way's, not an answer */
	int64_t next_id;
	char *buffer; /* owned: what came and is not a whole line */
	size_t used, room;
	struct peer_greeting greeting;
};

void peer_init(struct peer *p, const char *name, peer_channel_fn *channel, void *arg);
void peer_fini(struct peer *p);

/* Reaches it, if it is not. -1 + e: the way's error, or EPROTO: what answers there is no relay; ENOTSUP: too old, or too new. */
int peer_reach(struct peer *p, struct error *e);

/* The "ok" value's text, heap. NULL + e, and p->is_lost. wait_ms 0: for ever. args: a JSON object; NULL: {}. */
char *peer_ask(struct peer *p, const char *verb, const char *args, unsigned wait_ms, struct error *e);
/* The same in two halves; not repeated. */
int peer_send(struct peer *p, const char *verb, const char *args, struct error *e);
char *peer_hear(struct peer *p, unsigned wait_ms, struct error *e);

/* So many bytes are sent there and thrown away: a second they take. -1 + e. */
int64_t peer_probe(struct peer *p, uint64_t bytes, struct error *e);

/* fd: a fresh channel. From then on it is what that verb's stream is; nothing of it was read. ok: NULL, or what was answered,
 * owned. -1 + e. */
int peer_stream(int fd, const char *verb, const char *args, unsigned wait_ms, char **ok, struct error *e);
/* ... the NBD server of that domain. *is_squeezed: whether its bytes are to be; and whether they are. */
int peer_connect(int fd, const char *uri, const char *domain, bool *is_squeezed, unsigned wait_ms, struct error *e);

#endif
