/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-nbd - an export of an NBD server on this host as the medium (private to this room)
 *
 * An image whose name ends in .nbd is no image: it is a file with one line, the URI of the export that has the bytes, and perhaps
 * a second one, "keeps-writes": a server that is started again has all that it had acknowledged, flushed or not.
 */
#ifndef SXM_DISK_DISK_NBD_H
#define SXM_DISK_DISK_NBD_H

#include <stdatomic.h>

#include "disk/disk-file.h"
#include "disk/engine.h"

struct nbd_handle;
struct disk_qcow2;

struct disk_nbd_facts {
	uint64_t size_bytes;
	uint32_t min_block_bytes; /* of offsets and lengths: a power of two */
	uint32_t optimal_bytes;
	uint32_t max_bytes;       /* of one READ or WRITE */
	bool can_zero, can_flush, can_fua, can_extents;
};

/* --- disk-nbd-open.c: what blocks */

struct disk_nbd {
	char *uri;                /* owned */
	int lock_fd;              /* owned: nobody else of this SXM_RUN_DIR has this export open */
	bool is_read_only;
	bool keeps_writes;        /* the file says so of the server */
	struct disk_qcow2 *server; /* owned: one of ours, which is started again when it died; NULL: somebody else's */
	bool was_lost;            /* a server of ours died with what it had acknowledged and not stored */
	bool is_taken_up;         /* it is an earlier process': it may hold what that one was told is written */
	struct nbd_handle *nbd;   /* owned; NULL: not connected */
	struct disk_nbd_facts facts;
};

bool disk_nbd_is_named(const char *path);
/* Reads the URI from the file at f->path, locks, connects, fills in f; f->nbd is the export. Blocks as disk_open() does. */
int disk_nbd_open(struct disk_file *f, const struct disk_spec *spec, struct error *e);
/* The same of a server of ours; takes s, also when it fails. f->fd is open. */
int disk_nbd_open_server(struct disk_file *f, const struct disk_spec *spec, struct disk_qcow2 *s, bool was_lost, bool is_taken_up,
			 struct error *e);
void disk_nbd_close(struct disk_nbd *n); /* NULL allowed */

/* From a URI to a connection on which requests may be sent. For a thread of the pool. */
struct disk_nbd_reach {
	/* what is wanted; not touched while disk_nbd_reach() runs */
	const char *uri;          /* borrowed */
	struct disk_qcow2 *server; /* borrowed; NULL: nothing is to be started */
	bool was_lost;            /* to be said of what is started; also out: an earlier process' server died meanwhile */
	bool is_taken_up;         /* `server` ran, just now, and may hold what was written through it and not flushed */
	bool is_read_only;
	unsigned patience_ms;     /* how long a socket that is not there or refuses is tried again */
	/* from any thread: give up soon */
	atomic_bool is_cancelled;
	/* the outcome */
	struct nbd_handle *nbd;   /* owned; NULL after a failure */
	struct disk_nbd_facts facts;
};
int disk_nbd_reach(struct disk_nbd_reach *r, struct error *e);

/* --- disk-nbd-fence.c */

/* How many connections to the server that fd is connected to have lost their client, and are still being worked on: what was
 * sent there may yet be written. -1: the kernel does not tell. Blocks for a moment. */
int disk_nbd_orphans(int fd);

/* --- disk-nbd-link.c: on the loop */

enum disk_nbd_state {
	DISK_NBD_UP,
	DISK_NBD_WAITING, /* the server is gone, and may be back soon */
	DISK_NBD_GONE,    /* it was not, for wait_ms; it is tried for ever */
};

struct disk_nbd_attempt;

struct disk_nbd_link {
	struct loop *loop;        /* borrowed */
	struct disk_nbd *export;  /* owned; its nbd is there while UP */
	void (*on_lost)(struct disk_nbd_link *k); /* UP -> WAITING: libnbd touches nothing of what was in flight any more */
	void (*on_back)(struct disk_nbd_link *k); /* -> UP; export->facts are the new server's */
	void (*on_gone)(struct disk_nbd_link *k); /* WAITING -> GONE */
	bool is_touched;          /* set it with each libnbd call: what libnbd waits for may have changed */
	/* the link's own but for reading */
	enum disk_nbd_state state;
	uint64_t wait_ms;         /* how long WAITING lasts */
	uint64_t pause_ms;        /* before the next try */
	uint64_t up_ns;           /* when it came up */
	int fd;                   /* owned: a duplicate of libnbd's */
	struct loop_watch *watch; /* owned */
	struct loop_hook hook;
	struct loop_timer *retry, *patience; /* owned */
	struct disk_nbd_attempt *attempt;    /* owned, until its end; NULL: none under way */
};

/* loop, export and the callbacks are set, the rest is zero. -1 + e: disk_nbd_link_fini() is still to be called. */
int disk_nbd_link_init(struct disk_nbd_link *k, struct error *e);
void disk_nbd_link_fini(struct disk_nbd_link *k); /* closes the export, too */
/* UP: whether the connection has died under it. */
bool disk_nbd_link_is_dead(const struct disk_nbd_link *k);
/* UP: gives the connection up. Not from a libnbd callback. */
void disk_nbd_link_lose(struct disk_nbd_link *k, const char *why);

/* --- disk-nbd.c: on the loop */

/* Takes n, also when it fails. */
struct engine *engine_nbd_new(struct loop *l, struct disk_nbd *n, struct error *e);

#endif
