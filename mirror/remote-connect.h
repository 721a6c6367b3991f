/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * remote-connect - from a URI to a link that is known to fit
 *
 * Blocks: for a thread of the pool, never for the loop.  Each wait has a deadline and looks at is_cancelled ten times a
 * second; only the resolver of host names, which libnbd calls, keeps its own time.
 */
#ifndef SXM_MIRROR_REMOTE_CONNECT_H
#define SXM_MIRROR_REMOTE_CONNECT_H

#include <stdatomic.h>

#include "base/error.h"
#include "block/extents.h"
#include "mirror/remote.h"

#define REMOTE_QUESTION_BYTES 511u /* a block status request of this length is an x-sxm question */

struct nbd_handle;

struct remote_connect {
	/* what is wanted; not touched while remote_connect() runs */
	const char *uri;             /* as remote_uri_normalize() gives it; borrowed */
	uint64_t min_size_bytes;
	const struct extents *holes; /* borrowed; NULL: none */
	unsigned connect_wait_ms;
	unsigned handshake_ms;
	bool is_further;             /* a further connection of a link that stands: HELLO is said, nothing else asked or zeroed */
	bool is_reader;              /* nothing is going to be written: nothing is zeroed, and a read-only far side will do */
	char *const *contexts;       /* borrowed: of x-sxm, to ask for; newest version first, NULL after the last; NULL: none */
	uint64_t volume;             /* the far volume's id, if it is known: no other is let pass */
	/* from any thread: give up soon */
	atomic_bool is_cancelled;
	/* the outcome */
	struct nbd_handle *nbd;      /* owned; ready. NULL after a failure */
	struct remote_info info;     /* info.zero is owned here */
	bool has_heard;              /* HELLO was answered: field 0, 1, and 2 and 3 */
	uint32_t status, state;
	uint64_t epoch;
	struct digest digest;        /* of what was written */
	bool is_digest_void;
};

/* -1 + e, and nothing is left open. */
int remote_connect(struct remote_connect *c, struct error *e);

/* For remote-probe.c. Lets libnbd work until the command is answered or deadline_ns has come.
 * 0: answered, *err is its errno (0: good). -1 + e: the link is of no use any more. */
int remote_connect_await(struct remote_connect *c, int64_t cookie, uint64_t deadline_ns, int *err, struct error *e);
bool remote_connect_is_cancelled(const struct remote_connect *c);

#endif
