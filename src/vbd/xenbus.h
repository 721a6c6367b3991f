/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xenbus - what a backend says and does, by what is in xenstore
 *
 * Pure: it is told what was read, and says what is to be done next; one thing at a time.
 *
 *      xenbus_init -> { xenbus_next -> do it -> xenbus_read_is | xenbus_ended } ...          xenbus_changed: at any time
 *
 * It acts on what is there, never on what happened: watches may come late, together, or for nothing.
 */
#ifndef SXM_VBD_XENBUS_H
#define SXM_VBD_XENBUS_H

#include "base/error.h"
#include "vbd/ring.h"

#define XENBUS_PATH_MAX 128 /* bytes with the NUL */
#define XENBUS_VALUE_MAX 400 /* nothing that we understand is longer */

enum xenbus_state {
	XENBUS_UNKNOWN = 0,
	XENBUS_INITIALISING = 1,
	XENBUS_INIT_WAIT = 2,
	XENBUS_INITIALISED = 3,
	XENBUS_CONNECTED = 4,
	XENBUS_CLOSING = 5,
	XENBUS_CLOSED = 6,
};

/* --- names: /local/domain/<backend>/backend/<kind>/<frontend>/<device>, and what follows from it */
struct xenbus_names {
	char backend[XENBUS_PATH_MAX], frontend[XENBUS_PATH_MAX]; /* directories */
	char error[XENBUS_PATH_MAX];                              /* where the guest's side of it hears why not */
	uint16_t domain;                                          /* the guest's */
	uint32_t device;
	/* The caller's: */
	char params[XENBUS_VALUE_MAX]; /* this disk's NBD URI, as params has it; "": not known */
	char volume[XENBUS_VALUE_MAX]; /* the volume's URI that was last found to be this disk; "": none */
};
int xenbus_parse_backend(struct xenbus_names *n, const char *path, struct error *e);

/* --- what is read, all of one moment */
enum xenbus_key {
	/* the backend's directory: the toolstack's and ours */
	XENBUS_B_FRONTEND, XENBUS_B_FRONTEND_ID, XENBUS_B_STATE, XENBUS_B_ONLINE, XENBUS_B_MODE, XENBUS_B_HOTPLUG,
	XENBUS_B_DISCARD, XENBUS_B_SECTORS, XENBUS_B_PARAMS,
	/* the frontend's: any text */
	XENBUS_F_STATE, XENBUS_F_ORDER, XENBUS_F_CHANNEL, XENBUS_F_PROTOCOL, XENBUS_F_QUEUES, XENBUS_F_REF,
	XENBUS_F_REF0, /* and the following RING_PAGES_MAX - 1 */
	/* the toolstack's: which device of which VM it is (xenbus-keys.c) */
	XENBUS_B_DEVICE = XENBUS_F_REF0 + RING_PAGES_MAX, XENBUS_D_VM, XENBUS_V_STABLE,
	XENBUS_KEYS,
};
struct xenbus_value {
	bool is_there;
	bool is_toolstacks;           /* nobody but domain 0 may write it. Asked for from XENBUS_D_VM on */
	bool is_long;                 /* longer than that, or with a NUL in it: value is empty */
	char value[XENBUS_VALUE_MAX];
};
/* The key's path; out has XENBUS_PATH_MAX bytes. value: what was read before it, NULL: nothing. False: by that there is none. */
bool xenbus_key_path(const struct xenbus_names *n, const struct xenbus_value *value, unsigned key, char *out);

struct xenbus_ring {
	uint32_t gref[RING_PAGES_MAX];
	uint32_t channel;
	unsigned order;
	enum ring_abi abi;
};

/* --- what is written, all or nothing */
enum {
	XENBUS_SAY_FEATURES = 1,  /* what we can do, before INIT_WAIT */
	XENBUS_SAY_DISK = 2,      /* its size and kind, before CONNECTED */
	XENBUS_SAY_STATE = 4,
	XENBUS_SAY_ERROR = 8,
	XENBUS_FORGET_HOTPLUG = 16,
};

enum xenbus_do {
	XENBUS_NOTHING,    /* until xenbus_changed() */
	XENBUS_SLEEP,      /* ... or for ms */
	XENBUS_READ,       /* -> xenbus_read_is() */
	XENBUS_WRITE,      /* -> xenbus_ended(); only if XENBUS_B_FRONTEND is there and XENBUS_B_STATE still is `expected` */
	XENBUS_CONNECT,    /* -> xenbus_ended() */
	XENBUS_DISCONNECT, /* -> xenbus_ended(0): nothing of the ring is used any more */
	XENBUS_OVER,       /* xenbus_leave() was called, and there is no ring */
};
struct xenbus_action {
	enum xenbus_do what;
	unsigned ms;
	/* WRITE */
	unsigned says;
	enum xenbus_state state;
	enum xenbus_state expected;
	const char *why;            /* SAY_ERROR: borrowed until the next call */
	/* CONNECT */
	struct xenbus_ring ring;
	bool is_again;              /* it had been connected before us: an earlier process may have left something */
};

struct xenbus {
	/* the caller's */
	uint64_t sectors;           /* of the disk; xenbus_changed() after it grew */
	/* its own */
	bool is_eager, is_leaving, is_bound, is_busy, is_dirty;
	bool is_new;                /* this process has not met a ring yet */
	bool is_read_only, may_discard; /* by what was read last */
	bool has_offered;           /* INIT_WAIT is our word, not an earlier process' */
	bool was_up;                /* the frontend has said CONNECTED over this ring */
	bool has_failed;            /* what it gave us leads nowhere; until it begins anew */
	bool must_say_why;
	struct error why;
	struct xenbus_ring ring;    /* bound */
	uint64_t said_sectors;      /* 0: not yet, by this process */
	struct xenbus_action doing; /* is_busy */
	struct xenbus_action next;  /* by what was read last; NOTHING: read again first, if dirty */
	uint64_t window_ms, retry_ms; /* of reads; not before */
	unsigned reads;
};

/* is_eager: INIT_WAIT is said at once, not when a hotplug script is done. */
void xenbus_init(struct xenbus *x, bool is_eager);
void xenbus_changed(struct xenbus *x);
void xenbus_leave(struct xenbus *x);
struct xenbus_action xenbus_next(struct xenbus *x, uint64_t now_ms);
void xenbus_read_is(struct xenbus *x, const struct xenbus_names *n, const struct xenbus_value *value);
void xenbus_not_read(struct xenbus *x, uint64_t now_ms); /* it could not be: it is tried again in a second */
/* err: positive errno. Of a WRITE: EAGAIN: it was not as expected; ENOENT: the directory is gone. why: of a CONNECT. */
void xenbus_ended(struct xenbus *x, int err, const char *why, uint64_t now_ms);

#endif
