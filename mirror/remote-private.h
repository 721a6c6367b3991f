/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-private - what the files of one link that speaks NBD share
 *
 *      remote-up.c    makes it: a thread of the pool for each connection, then they are watched
 *      remote-nbd.c   runs it: operations, progress, its end
 *      remote-ask.c   what is said between two sxm on it
 */
#ifndef SXM_MIRROR_REMOTE_PRIVATE_H
#define SXM_MIRROR_REMOTE_PRIVATE_H

#include "loop/offload.h"
#include "mirror/remote-connect.h"
#include "mirror/remote.h"

#define CONNECTIONS_MAX 4
#define QUIET_BYTES 4096u /* a mirror's far side has no larger smallest block */

struct nbd_handle;

enum link_state { CONNECTING, UP, PARTING, DOWN };

TAILQ_HEAD(op_list, remote_op);

struct conn {
	struct remote_nbd *owner;
	struct nbd_handle *nbd;   /* owned */
	int fd;                   /* owned: a duplicate of libnbd's */
	struct loop_watch *watch; /* owned */
	struct op_list ops;       /* in flight, in the order of their submission */
	struct remote_op *unsent; /* borrowed: the first of them that libnbd was not told of; all behind it neither */
	unsigned in_flight;
	bool is_touched;          /* its direction may have changed */
};

struct remote_nbd {
	struct remote base;
	struct remote_spec spec;      /* uri and holes: see below */
	char *uri;                    /* owned; normalized */
	char *context[REMOTE_VERSIONS + 1]; /* owned: the x-sxm contexts' names, newest version first; none: not spoken */
	struct extents holes;         /* owned */
	enum link_state state;
	bool is_sxm;                  /* the far side chose the context and took our HELLO */
	struct digest digest;         /* of what was acknowledged */
	bool is_digest_void;

	struct conn conn[CONNECTIONS_MAX];
	unsigned connections;
	unsigned in_flight;           /* WAIT is not counted */
	struct op_list done;          /* ended, done() not yet called */
	struct loop_task task;
	struct loop_hook hook;
	struct loop_timer *timer;     /* owned: dead_ms, or while PARTING its end */
	bool is_timing;
	uint64_t progress_ns;

	struct loop_timer *idle;      /* owned: runs while UP */
	struct remote_ask ping;
	struct remote_op look;        /* what a foreign far side is asked: a read of its first block */
	bool is_asking_idly;          /* one of the two is in flight */
	uint32_t look_bytes;
	uint8_t looked[QUIET_BYTES];

	struct offload offload;
	struct remote_connect connect;
	struct error connect_error;
	bool is_connecting;           /* the offload is under way */

	int down_err;                 /* on_down is owed */
	void (*on_closed)(void *arg); /* close() was called */
	void *on_closed_arg;
};

static inline struct remote_nbd *remote_nbd_of(struct remote *base)
{
	return container_of(base, struct remote_nbd, base);
}

/* --- remote-nbd.c */
void remote_nbd_set_state(struct remote_nbd *r, enum link_state state);
void remote_nbd_init(struct remote_nbd *r); /* its tasks and hooks; r->spec is set */
void remote_nbd_submit(struct remote *base, struct remote_op *op);
void remote_nbd_close(struct remote *base, bool is_polite, void (*done)(void *arg), void *arg);
void remote_nbd_on_ready(void *arg, int events); /* of a connection's descriptor */
void remote_nbd_on_timer(void *arg);
int remote_nbd_on_completion(void *op, int *error); /* libnbd's callback */
void remote_nbd_close_conn(struct conn *c);
void remote_nbd_free(struct remote_nbd *r);

/* --- remote-ask.c */
void remote_ask_fold(struct remote_nbd *r, const struct remote_op *op); /* what has ended; before its done() */
bool remote_ask_digest(struct remote *base, struct digest *out);
/* A version's context's name, heap. NULL + e: an id that cannot be one. */
char *remote_ask_context(const struct remote_spec *spec, unsigned version, struct error *e);
/* Admits a fresh connection; fills c->info. Blocks, as remote_connect() does. -1 + e. */
int remote_ask_hello(struct remote_connect *c, struct error *e);
void remote_ask_submit(struct remote *base, struct remote_ask *a);
/* Sends a question: libnbd's cookie, or -1. */
int64_t remote_ask_issue(struct conn *c, struct remote_op *op);
/* What a quiet link is asked. From the idle timer. */
void remote_ask_idly(void *arg);
bool remote_ask_is_wait(const struct remote_op *op);

#endif
