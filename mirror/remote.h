/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote - what a far side is
 *
 * Operations complete later, once, from the loop, with an errno; operations of a link that is gone are failed by the
 * remote itself after the link touches no buffer any more.  Implementations: remote-nbd.c, tests/lib/sim.c.
 */
#ifndef SXM_MIRROR_REMOTE_H
#define SXM_MIRROR_REMOTE_H

#include <sys/queue.h>

#include "base/error.h"
#include "base/range.h"
#include "block/extents.h"
#include "loop/loop.h"

enum remote_opcode { REMOTE_WRITE, REMOTE_ZERO, REMOTE_FLUSH };

struct remote_op {
	enum remote_opcode opcode;
	struct range range;       /* bytes; a multiple of min_block_bytes, no longer than max_bytes for WRITE */
	const void *data;         /* WRITE: stable until done() */
	bool may_trim;            /* ZERO: holes allowed */
	/* From the deferred queue. ESHUTDOWN is never the far side's answer but the link's end: on_down or close's done comes. */
	void (*done)(struct remote_op *op, int err);
	/* the remote's */
	void *private_;
	struct range rest;        /* ZERO: what of range is still to be asked for */
	int err;
	TAILQ_ENTRY(remote_op) link;
};

struct remote_info {
	uint64_t size_bytes;
	uint32_t min_block_bytes; /* 1: any */
	uint32_t max_bytes;
	bool can_zero, can_flush, can_multi_conn;
	unsigned connections;     /* when on_up was called; more may follow */
	/* What is known to read as zero, from block status at connection and from zeroes written then; empty: nothing known. */
	struct extents zero;      /* items of type EXTENT_ZERO, what lies between is not known; the remote's, while on_up runs */
};

struct remote_spec {
	struct loop *loop;             /* borrowed */
	const char *uri;               /* copied: any NBD URI, or xapi's nbd:unix:PATH:exportname=NAME */
	uint64_t min_size_bytes;       /* a smaller far side is refused */
	/* Ranges that should read as zero at the far side (the source's holes): zeroed during connection where the far side
	 * does not say they do already. Copied. */
	const struct extents *holes;   /* NULL: none; only items that have EXTENT_ZERO count */
	unsigned connect_wait_ms;      /* how long a socket that is not there or refuses is tried again (xapi's appears late) */
	unsigned handshake_ms;         /* how long the peer may take to greet and answer */
	unsigned dead_ms;              /* no progress for so long with requests in flight: link down */
	/* Exactly one of these ends the connecting; then link_down at most once, after link_up. From the loop. */
	void (*on_up)(void *arg, const struct remote_info *info);
	void (*on_failed)(void *arg, const struct error *e);
	void (*on_down)(void *arg, int err); /* all operations have been failed before */
	void *arg;
};

struct remote;
struct remote_ops {
	void (*submit)(struct remote *r, struct remote_op *op); /* between on_up and on_down */
	/* Once. is_polite: everything was answered, say DISC and let the peer close (bounded); else cut at once: operations in
	 * flight end with ESHUTDOWN first. done(), from the deferred queue, is the last callback, and r is gone then; on_down is
	 * not called any more. Works while connecting, and is the only way out after on_failed or on_down too. */
	void (*close)(struct remote *r, bool is_polite, void (*done)(void *arg), void *arg);
};
struct remote {
	const struct remote_ops *ops;
};

/* Starts connecting (on the thread pool, never on the loop). NULL + e: a URI that cannot be one, or no memory. */
struct remote *remote_nbd_new(const struct remote_spec *spec, struct error *e);
/* Only the form, for an early and clear answer. */
int remote_nbd_check_uri(const char *uri, struct error *e);

#endif
