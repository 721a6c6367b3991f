/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tunnel - the way to the far host while a move goes on, in a process of its own
 *
 *      the mirror here --unix socket--> a child of the tunnel's --channel, "connect"--> the relay --> the far disk's NBD server
 *      the journey     --tunnel_channel()--> a channel of its own, to ask
 *
 * A process of its own, since what is asked may wait for what is carried: whoever prepares a handover waits until all was sent.
 * It has the carrier alone, so that a way that is lost is made anew in one place. It ends when its caller does, however that
 * ends, and everything it carries with it: then the mirror has lost its link, and waits or can be resumed.
 */
#ifndef SXM_MIGRATE_TUNNEL_H
#define SXM_MIGRATE_TUNNEL_H

#include "base/compiler.h"
#include "base/error.h"
#include "migrate/carrier.h"

struct tunnel;
/* carrier: the tunnel's from then on, also on error. NULL + e. */
struct tunnel *tunnel_new(struct carrier *carrier, struct error *e);
/* NULL is good. */
void tunnel_free(struct tunnel *t);

/* A channel to a fresh relay: a peer_channel_fn. */
int tunnel_channel(void *t, struct error *e);

/* Why the last channel, which has ended, did: a peer_why_fn. */
int tunnel_why(void *t, struct error *e);

/* Could the disk that connected last be connected to the far host? -1 + e: why not; EACCES: nobody is let in any more. */
int tunnel_way(struct tunnel *t, struct error *e);

/* From now on there is a server at socket_path (replaced, if it is there), and what connects is connected to that domain of the
 * disk, squeezed if that is wanted and the relay there knows how. 0 also if it is there already. -1 + e. */
int tunnel_serve(struct tunnel *t, const char *socket_path, const char *uri, const char *domain, bool is_squeezed,
		 struct error *e);

#endif
