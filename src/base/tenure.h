/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tenure - how long a lease is ours, and when another's is dead: pure, time is told
 *
 * Of the clocks only this is assumed: that they go forward at nearly the same rate.  What they show does not matter.
 *
 *      a watcher   the name has not changed for lost_ns of the watcher's clock: its holder is dead, or has stopped writing
 *      a holder    writes until hold_ns after the *beginning* of the last renewal that has succeeded, and no longer
 */
#ifndef SXM_BASE_TENURE_H
#define SXM_BASE_TENURE_H

#include "base/lease.h"

struct tenure_spec {
	uint64_t renew_ns; /* from the beginning of one renewal to the next */
	uint64_t hold_ns;
	uint64_t lost_ns;  /* what is more than hold_ns is for clocks' rates, and for writes under way */
	uint64_t lock_ns;  /* of a dead host's lease: how long its lock on the image is waited for besides */
};
/* The defaults, or what SXM_LEASE_{RENEW,HOLD,LOST,LOCK}_MS say, for tests: every host must have the same. */
struct tenure_spec tenure_spec_default(void);

/* --- who wants it */

enum tenure_verdict {
	TENURE_NONE,  /* nobody has it, or no lease is needed */
	TENURE_OURS,  /* this host has: whoever holds the image's lock here may go on with it at once */
	TENURE_WAIT,  /* another has; too early to say */
	TENURE_ALIVE, /* another has, and has renewed it */
	TENURE_DEAD,  /* another had: it may be taken */
};
struct tenure_watch {
	struct lease seen;
	uint64_t since_ns;
	bool has_seen;
};
/* What was seen; now_ns: read *after* it was. */
enum tenure_verdict tenure_watch(struct tenure_watch *w, const struct tenure_spec *spec, const char *host,
				 const struct lease *seen, uint64_t now_ns);

/* --- who has it */

enum tenure_ask { TENURE_ASK_NOTHING, TENURE_ASK_RENEW, TENURE_ASK_LOOK };

struct tenure {
	struct tenure_spec spec;
	struct lease lease;      /* as it is known to be */
	struct lease next;       /* what a renewal under way makes of it */
	uint64_t asked_ns;       /* when that began */
	uint64_t until_ns;
	uint64_t again_ns;       /* not before */
	bool must_look;          /* a renewal has failed: is it ours? */
	bool is_lost;
	struct lease found;      /* is_lost: what is there instead */
};

/* It was taken; began_ns: read before it was asked for. */
void tenure_begin(struct tenure *t, const struct tenure_spec *spec, const struct lease *taken, uint64_t began_ns);
/* What to ask now; NOTHING: in *wait_ns again. One at a time. */
enum tenure_ask tenure_next(const struct tenure *t, uint64_t now_ns, uint64_t *wait_ns);
/* It is about to be asked. RENEW: from t->lease to t->next. */
void tenure_ask(struct tenure *t, enum tenure_ask ask, uint64_t now_ns);
/* err: of lease_change(); 0, ESTALE, or another. */
void tenure_renewed(struct tenure *t, int err, uint64_t now_ns);
void tenure_looked(struct tenure *t, int err, const struct lease *found, uint64_t now_ns);

#endif
