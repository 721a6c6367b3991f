/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier - what brings bytes to `sxm relay` on a host, and back
 *
 *      carrier_open() -> a way to the host, authenticated -> carrier_channel(), as often as wanted: each is a fresh `sxm relay`
 *                                                            over there, its standard input and output at our descriptor's end
 *
 * What runs over there is always the same constant words; nothing that anybody said goes into a command line. So an
 * authorized_keys line with command="sxm relay" works.
 *
 * A channel is a connected stream socket, close-on-exec and blocking. It ends, as any socket does, when the relay ends, when the
 * way to the host is lost, or when the carrier is freed; shutdown(SHUT_WR) is the end of the relay's standard input.
 * What a relay says on standard error is ours to show: a carrier passes it on to our own.
 * Everything here blocks. Everybody who writes to a channel uses MSG_NOSIGNAL, or ignores SIGPIPE.
 */
#ifndef SXM_MIGRATE_CARRIER_H
#define SXM_MIGRATE_CARRIER_H

#include <stddef.h>

#include "base/compiler.h"
#include "base/error.h"

struct carrier_spec {
	/* "exec", "ssh2" (libssh2), "ssh" (the program); NULL: what is best here for a host. */
	const char *kind;
	/* exec: the program with its arguments, looked for in PATH, ends with NULL. No shell. */
	const char *const *argv;
	/* ssh2, ssh: as the command line has them, before ~/.ssh/config is asked. */
	const char *host;
	const char *user;   /* NULL: not said */
	unsigned port;      /* 0: not said */
	const char *config; /* NULL: ~/.ssh/config */
	/* Nobody is asked anything: no password, no unknown host key. Else the first connection may ask on the tty; later ones
	 * never do. */
	bool is_silent;
};

#define CARRIER_DESCRIPTORS_MAX 80u

struct carrier;
struct carrier_ops {
	const char *kind;
	bool (*is_usable)(void); /* NULL: always. Asked where no kind is named */
	/* NULL + e: EACCES not let in, EKEYREJECTED another host, ENOENT no such program; or why it was not reached. */
	struct carrier *(*open)(const struct carrier_spec *spec, struct error *e);
	int (*channel)(struct carrier *c, struct error *e);
	int (*why)(struct carrier *c, int channel, struct error *e); /* NULL: nothing is known */
	bool (*is_alive)(struct carrier *c);
	/* How many; into fds. NULL: it has none. */
	size_t (*descriptors)(struct carrier *c, int fds[static CARRIER_DESCRIPTORS_MAX]);
	void (*free)(struct carrier *c);
};
/* Embedded at the beginning of each kind's own. */
struct carrier {
	const struct carrier_ops *ops;
	char *name; /* owned by the kind: for sentences, "host" or "user@host" */
};

/* One of each, in its own file; carrier.c knows which there are. */
extern const struct carrier_ops carrier_exec, carrier_ssh, carrier_ssh2;

/* spec is not looked at again. NULL + e. */
struct carrier *carrier_open(const struct carrier_spec *spec, struct error *e);
/* A descriptor, or -1 + e. Where the way is lost it is made anew with what it was made with, asking nobody: this may be tried
 * again and again. */
int carrier_channel(struct carrier *c, struct error *e);
/* Always -1 + e: why this channel has ended. Asked when it has, before its descriptor is closed. ENOENT: there is no sxm over
 * there; ENOLINK: the way was lost; EPIPE: the relay has ended. Waits for that at most two seconds. */
int carrier_why(struct carrier *c, int channel, struct error *e);
/* False: a channel now would have to make the way anew first. */
bool carrier_is_alive(struct carrier *c);
/* Those that it needs itself, for a child that goes on with it and closes all others: how many; into fds. */
size_t carrier_descriptors(struct carrier *c, int fds[static CARRIER_DESCRIPTORS_MAX]);
/* Its channels end. NULL is good. */
void carrier_free(struct carrier *c);

#endif
