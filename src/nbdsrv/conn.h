/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * conn - one client, and what the files of this room know of each other
 *
 *      HANDSHAKE --GO, EXPORT_NAME--> TRANSMISSION --DISC, EOF, shutdown--> ENDING --all answered--> CUT --> freed
 *          |                              |                                   |                       ^
 *          '---- ABORT, EOF ----> ENDING  '------ garbage, broken socket -----'-----------------------'
 *
 *      TRANSMISSION --DISC, where it begins again--> HANDSHAKE, when all before it is answered
 *
 * ENDING: nothing more is read; what is in flight ends and is answered.  CUT: the socket is closed; what is still in flight
 * below ends without an answer, and the last of it frees the conn.
 */
#ifndef SXM_NBDSRV_CONN_H
#define SXM_NBDSRV_CONN_H

#include <sys/queue.h>

#include "block/extents.h"
#include "block/req.h"
#include "nbdsrv/nbdsrv.h"
#include "nbdsrv/stream.h"
#include "nbdsrv/wire-build.h"
#include "nbdsrv/wire-parse.h"

#define CONN_IN_BYTES (128u << 10)    /* the input buffer: 16 writes of 4 KiB and their headers fit twice over... */
#define CONN_OPTION_MAX (64u << 10)   /* ...and so does the largest option we look at */
#define CONN_COMMANDS_MAX 128u        /* requests of one client not yet answered */
#define CONN_READING_MAX (4u << 20)   /* bytes: no more requests while so much is being read for, or unsent to, one client */
#define CONN_HELLO_BYTES (16u << 10)  /* answers to options not yet sent */
#define CONN_HELLO_ROOM (8u << 10)    /* the longest answer to one option is shorter */
#define CONN_HANDSHAKE_MS 30000u      /* from the greeting, or from TLS, to transmission */
#define CONN_SECURE_MS 10000u         /* for the handshake of TLS */
#define CONN_STRANGERS_MAX 16u        /* who has not made it: one more, and the first of them is cut */

struct conn;

/* One request from its header to the last byte of its reply. */
struct command {
	struct conn *conn;       /* holds a reference to it */
	struct wire_request wire;
	uint64_t submitted_ns;   /* 0: it is not measured */
	int err;                 /* the verdict, when it was refused before it was submitted */
	struct iobuf *data;      /* owned: READ until sent, WRITE until done() */
	uint32_t field[XSXM_FIELDS_MAX]; /* the answer to a question */
	unsigned fields;         /* 0: this is none */
	struct extents extents;  /* BLOCK_STATUS, until done() */
	uint8_t *descriptors;    /* owned: BLOCK_STATUS from done() until sent; with a second chunk's head in it */
	uint8_t head[WIRE_HEAD_MAX];
	uint32_t head_bytes;
	const uint8_t *body;     /* in data or descriptors */
	uint32_t body_bytes;
	STAILQ_ENTRY(command) link; /* conn.replies or nbdsrv.spare_commands */
};
STAILQ_HEAD(command_queue, command);

enum conn_state { CONN_HANDSHAKE, CONN_TRANSMISSION, CONN_ENDING, CONN_CUT };

struct conn {
	struct nbdsrv *server;
	enum conn_state state;
	struct stream stream;     /* closed when CUT */
	struct loop_watch *watch; /* owned */
	unsigned refs;            /* the open socket, each command, each function of ours it is on the stack of */

	/* input */
	uint8_t *in;              /* a buffer of the server's while there are bytes in it, else NULL */
	uint32_t in_start, in_end;
	uint32_t skip_bytes;      /* of an option too long to look at */
	struct command *filling;  /* owned: its payload is arriving */
	uint32_t filled_bytes;
	bool is_stalled;          /* nothing is read until there is room... */
	bool is_pondered;         /* ...or it is said whether it may write */
	bool begins_again;        /* DISC begins a new handshake */
	bool is_parting;          /* DISC was read: what is in flight is answered, then comes the greeting */
	struct nbdsrv_keys *keys; /* a reference: nothing but STARTTLS before there is TLS; NULL: plain */
	bool is_stranger;         /* there is no TLS yet: it may be anybody, and is no client */
	bool is_securing;         /* STARTTLS was read: what it is answered is sent, then begins TLS */
	struct iobuf_waiter waiter;
	struct loop_task resume;

	/* output */
	uint8_t *hello;           /* owned: answers of the handshake, [hello_start, hello_end); NULL after the last */
	uint32_t hello_start, hello_end;
	struct command_queue replies;
	size_t sent_bytes;        /* of the first reply */
	bool is_blocked;          /* the socket takes no more now */
	bool is_half_closed;      /* hung up on while blocked: epoll would report it without end, a timer tries instead */
	unsigned vain_wakeups;
	uint64_t give_up_ns;      /* when a client that takes no answers is cut; 0: never */

	unsigned commands;        /* taken and not freed */
	uint64_t reading_bytes;   /* of READs taken and not freed */

	/* agreed */
	bool has_client_flags;
	bool has_no_zeroes;
	bool has_structured;
	unsigned contexts;        /* META_ bits */
	char xsxm_name[XSXM_NAME_MAX + 1]; /* META_XSXM: as it was chosen */
	struct nbdsrv_link xsxm;
	TAILQ_HEAD(, nbdsrv_ask) asks; /* not answered */
	struct loop_task gone;    /* posted instead of the conn being freed, where the link is known */

	uint64_t deadline_ns;     /* 0: none; see listen.c */
	unsigned empty_polls;
	bool is_touched, is_lively;
	TAILQ_ENTRY(conn) link, touched_link, lively_link;
};
TAILQ_HEAD(conn_list, conn);

struct listener;
SLIST_HEAD(listener_list, listener);
struct passing;

/* One server; listen.c looks after it. */

struct nbdsrv {
	struct loop *loop;       /* borrowed */
	struct layer *top;       /* borrowed */
	struct iobuf_pool *pool; /* borrowed */
	char *export_name;       /* owned */
	bool is_read_only;
	unsigned max_clients;
	const struct nbdsrv_link_ops *links; /* borrowed; NULL: none */
	void *links_arg;
	unsigned xsxm_newest;
	enum nbdsrv_plain plain;
	bool has_asked, is_for_links_only; /* asked: plain() was called */

	struct listener_list listeners;
	LIST_HEAD(, passing) passings;
	unsigned passing_count;
	struct conn_list conns;
	struct conn_list touched; /* to be settled before the loop sleeps */
	struct conn_list lively;  /* asked by the poller */
	unsigned strangers;       /* conns that are such */
	unsigned alive;           /* conns not freed: those cut with requests in flight are in no list */
	unsigned lively_count;
	struct loop_hook hook;
	struct loop_poller poller;
	struct loop_timer *timer; /* owned: the nearest deadline */
	uint64_t armed_ns;        /* when it fires; 0: it does not */

	struct command_queue spare_commands;
	uint8_t *spare_in[4];     /* owned */
	unsigned spare_ins;

	bool is_shutting_down;
	void (*on_shut)(void *arg);
	void *on_shut_arg;
	struct loop_task shut_task;
	struct nbdsrv_stats stats;
	bool is_timed;
};

/* --- listen.c */
/* conn_on_deadline(c) after so long, unless it is set anew; 0: never. */
void nbdsrv_set_deadline(struct nbdsrv *s, struct conn *c, unsigned ms);
/* A conn was freed. */
void nbdsrv_forget_one(struct nbdsrv *s);

/* --- receive.c: takes fd, over which one descriptor is to come. */
void receive_begin(struct nbdsrv *s, int fd);
void receive_drop_all(struct nbdsrv *s);

/* --- conn.c */
/* Nothing is left of it: link.c's and conn_unref()'s. */
void conn_free(struct conn *c);
/* Takes fd, also when it fails; refers to keys (NULL: plain). */
struct conn *conn_new(struct nbdsrv *s, int fd, struct nbdsrv_keys *keys, struct error *e);
void conn_ref(struct conn *c);
void conn_unref(struct conn *c);
/* Nothing more is read. What is in flight is answered, then the socket is closed. */
void conn_end(struct conn *c);
/* Closes the socket now. */
void conn_cut(struct conn *c);
/* The client is done, and may begin again on the same socket. */
void conn_part(struct conn *c);
/* One rate-limited line about this client. */
void conn_complain(struct conn *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Looks at it again before the loop sleeps: sends, watches, closes. */
void conn_touch(struct conn *c);
static inline bool conn_is_open(const struct conn *c)
{
	return c->state == CONN_HANDSHAKE || c->state == CONN_TRANSMISSION;
}
/* May another message be taken in? */
bool conn_has_room(const struct conn *c);
/* The input not yet taken. */
static inline uint32_t conn_in_bytes(const struct conn *c)
{
	return c->in_end - c->in_start;
}
/* Hook and poller of the server. */
void conn_settle_all(struct loop_hook *h);
bool conn_poll_lively(struct loop_poller *p);
void conn_enliven(struct conn *c);
/* Its deadline has passed. */
void conn_on_deadline(struct conn *c);
/* What is unsent so many seconds from now is given up. */
void conn_hurry(struct conn *c, unsigned seconds);

/* --- how far a reader of messages came */
enum take {
	TAKE_MORE,  /* took one; there may be another */
	TAKE_WAIT,  /* the next one is not all there */
	TAKE_STALL, /* the next one has to wait for room */
};

/* --- handshake.c */
/* Puts the greeting out. False: out of memory. */
bool handshake_start(struct conn *c);
enum take handshake_take(struct conn *c);

/* --- context.c */
enum { META_BASE_ALLOCATION = 1, META_XSXM = 2 }; /* also their ids on the wire */
/* Both answer the option into w (which may have to hold every context's name once). context_set() notes what was chosen. */
void context_list(struct conn *c, struct bytes_writer *w, struct wire_meta *m);
void context_set(struct conn *c, struct bytes_writer *w, struct wire_meta *m);

/* --- link.c */
/* cmd is a question: passes it on. */
void link_ask(struct command *cmd);
/* The conn is closing or closed: nobody waits for its answers any more. */
void link_orphan_asks(struct conn *c);
bool link_may_write(const struct conn *c);
/* Whether the request is a piece of the logs of changes, no write of the disk. */
bool link_is_log(const struct conn *c, const struct wire_request *r);
int link_judge_log(const struct conn *c, const struct wire_request *r); /* before its payload came */
/* ... which has come: passes it on. */
void link_take_log(struct command *cmd);
/* A write of it has to wait until that is said. */
bool link_is_pondered(struct conn *c);
/* cmd's request was carried out. */
void link_fold(const struct command *cmd);
/* The conn is ready to be freed: says so first where it has to. True: it will call conn_free() later. */
bool link_is_leaving(struct conn *c);

/* --- transmit.c */
enum take transmit_take(struct conn *c);

/* --- reply.c */
struct command *command_new(struct conn *c, const struct wire_request *wire); /* NULL: out of memory */
void command_free(struct command *cmd);
/* Queues the reply; err as for req_complete(). */
void reply_queue(struct command *cmd, int err);
/* Sends what the socket takes. False: it is broken. */
bool reply_send(struct conn *c);
bool reply_is_pending(const struct conn *c);

#endif
