/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier-ssh2-private - what the files of the libssh2 carrier share
 *
 *      carrier-ssh2           the caller's side: starts the child, asks it for channels
 *      carrier-ssh2-child     the child: its links and channels, and one poll() for all
 *      carrier-ssh2-link      one SSH session over one socket
 *      carrier-ssh2-known     whether the host is who it should be
 *      carrier-ssh2-login     keys, passwords, questions
 *      carrier-ssh2-channel   one relay's bytes
 */
#ifndef SXM_MIGRATE_CARRIER_SSH2_PRIVATE_H
#define SXM_MIGRATE_CARRIER_SSH2_PRIVATE_H

#include <sys/queue.h>
#include <sys/types.h>

#include "migrate/carrier.h"
#include "migrate/carrier-ends.h"
#include "migrate/ssh-config.h"

#define SSH2_COMMAND "sxm relay"

/* --- what is asked of the child, and answered; one at a time over a socket that keeps messages apart */

enum ssh2_verb { SSH2_CHANNEL = 1, SSH2_FORWARD, SSH2_IS_ALIVE };
struct ssh2_request {
	int32_t verb; /* CHANNEL and FORWARD: with two descriptors, the stream and what tells its end */
	uint32_t port;                      /* FORWARD: to where the host is to connect */
	char host[SSH_CONFIG_NAME_MAX];
};
struct ssh2_answer {
	int32_t err; /* 0: done, or alive */
	char text[480];
};

/* --- what was typed, for the next connection; in memory that is locked, is in no core dump, and is wiped */

#define SSH2_SECRET_MAX 256u
#define SSH2_SECRETS_MAX 16u
struct ssh2_secrets {
	struct {
		char what[SSH_CONFIG_NAME_MAX]; /* a key's file, a prompt, or SSH2_PASSWORD */
		char text[SSH2_SECRET_MAX];
	} secret[SSH2_SECRETS_MAX];
	size_t count;
	char typed[SSH2_SECRET_MAX]; /* before it is known to be right */
};
#define SSH2_PASSWORD "password"

struct ssh2_secrets *ssh2_secrets_new(struct error *e);
void ssh2_secrets_free(struct ssh2_secrets *s);
const char *ssh2_secrets_find(const struct ssh2_secrets *s, const char *what); /* NULL: not known */
void ssh2_secrets_add(struct ssh2_secrets *s, const char *what, const char *text);

/* --- where to, and with what; the child's */

struct ssh2_way {
	struct ssh_config config;
	char *name;           /* owned: for sentences */
	char *jump;           /* owned: what is left of ProxyJump for the next carrier; NULL: straight there */
	struct carrier *over; /* owned: that carrier, or NULL */
	struct ssh2_secrets *secrets; /* owned; the child's, as memory is locked for one process */
	uint8_t *key;         /* owned: the host's, once it is accepted */
	size_t key_bytes;
	bool may_ask;         /* only in the first connection */
	unsigned connect_ms, dead_ms, agent_ms;
};

/* --- a link */

struct ssh2_channel;
struct ssh2_link {
	struct ssh2_way *way; /* borrowed */
	struct _LIBSSH2_SESSION *session; /* owned */
	int fd;               /* owned */
	bool is_wiping;       /* what libssh2 frees may hold secrets */
	bool is_buffered;     /* from the login on: what the socket does not take is kept */
	bool can_receive;     /* poll() said so, and it was not emptied since */
	bool is_lost;
	bool is_full;         /* the host refused one more channel; until one has ended */
	bool is_stuck;        /* it never said whether it opened one */
	unsigned channels;
	uint8_t *out;         /* owned: for the socket: out_start .. out_end of out_room */
	size_t out_start, out_end, out_room;
	uint64_t sent;        /* given to the kernel */
	uint64_t acked;       /* of that: left it, when it was looked at last */
	size_t backlog;       /* in out and in the kernel, the same */
	int unread;           /* while there is no channel: what nobody reads, an answer to a keepalive perhaps */
	uint64_t received_ns, progress_ns;
	char goodbye[CARRIER_LINE_MAX]; /* why it was lost */
	TAILQ_ENTRY(ssh2_link) next;
};
TAILQ_HEAD(ssh2_links, ssh2_link);

#define SSH2_OUT_HIGH (1024u * 1024) /* above that nothing is taken from channels */

/* Connected, the host is who it should be, logged in. Blocks; asks where way->may_ask. NULL + e. */
struct ssh2_link *ssh2_link_new(struct ssh2_way *way, struct error *e);
void ssh2_link_free(struct ssh2_link *l);
static inline size_t ssh2_link_pending(const struct ssh2_link *l)
{
	return l->out_end - l->out_start;
}
void ssh2_link_flush(struct ssh2_link *l);
/* Each second or so: still there? */
void ssh2_link_tick(struct ssh2_link *l);
void ssh2_link_lose(struct ssh2_link *l, const char *why); /* the first reason stays */
uint64_t ssh2_now_ns(void);
/* Which algorithms of one kind (LIBSSH2_METHOD_) to offer; -1: libssh2 has none of them. */
int ssh2_link_prefer(struct ssh2_link *l, int method, const char *list);
/* -1 + e: what libssh2 says after `what`. */
int ssh2_error(const struct ssh2_link *l, int err, struct error *e, const char *what);

/* A list of algorithms: ours, or what a config's list makes of it (+ - ^ as in ssh_config). */
void ssh2_algorithms(const char *ours, const char *said, char *list, size_t max);
/* What to ask the host for: keys that are known first. */
int ssh2_known_prefer(struct ssh2_link *l, struct error *e);
/* Is that host's key the right one? EKEYREJECTED. */
int ssh2_known_check(struct ssh2_link *l, struct error *e);
int ssh2_login(struct ssh2_link *l, struct error *e);

/* --- a channel */

enum ssh2_state { SSH2_OPENING, SSH2_STARTING, SSH2_RUNNING, SSH2_CLOSING, SSH2_OVER };

/* Opens one on l; stream and tell are taken over in any case. NULL: out of memory. */
struct ssh2_channel *ssh2_channel_new(struct ssh2_link *l, const struct ssh2_request *r, int stream, int tell);
/* Brings it on as far as goes without waiting; false: nothing has moved. */
bool ssh2_channel_step(struct ssh2_channel *c);
/* Its link was lost, or it is over: tells, closes, frees. */
void ssh2_channel_free(struct ssh2_channel *c);

struct ssh2_channel {
	struct ssh2_link *link; /* borrowed */
	struct _LIBSSH2_CHANNEL *channel; /* owned */
	struct ssh2_request request;
	enum ssh2_state state;
	int stream, tell; /* owned; -1: nobody reads any more, nothing is to be told */
	bool has_local_ended, has_sent_eof, has_far_ended, has_shut;
	char *out, *in;   /* owned */
	size_t out_used, out_sent, in_used, in_sent;
	struct carrier_lines lines;
	enum carrier_end end; /* 0: it never began */
	int status;           /* the relay's */
	struct error why;     /* it was not opened */
	TAILQ_ENTRY(ssh2_channel) next;
};
TAILQ_HEAD(ssh2_channels, ssh2_channel);
/* What poll() should wait for at its stream. */
short ssh2_channel_events(const struct ssh2_channel *c);

/* --- the child */

/* Never returns. control: a socket to the caller, on which the first answer says whether there is a link. */
void ssh2_child_run(struct ssh2_way *way, int control);

/* --- the caller's side, for a child that goes over another host */

struct carrier *ssh2_open(const struct carrier_spec *spec, const char *jump, struct error *e);
/* A stream to host:port as c's host sees it. */
int ssh2_forward(struct carrier *c, const char *host, unsigned port, struct error *e);

#endif
