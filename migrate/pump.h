/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * pump - bytes between two streams, both ways, until both have ended
 *
 * The end of one direction is passed on (shutdown) and the other goes on. A broken end ends both.
 * What can be spliced is not copied: that is half of what a pump costs.
 */
#ifndef SXM_MIGRATE_PUMP_H
#define SXM_MIGRATE_PUMP_H

#include "base/compiler.h"
#include "base/error.h"

struct pump_end {
	int in, out;      /* borrowed; may be the same socket, or two pipes */
	bool is_squeezed; /* what goes over it is (squeeze.h); the other end's is not */
};

/* Until both directions have ended. first: what was read of a already, and goes to b before all else. -1 + e: one broke, or there
 * is no memory, or what came squeezed was not. The ends do not block afterwards. */
int pump_run(const struct pump_end *a, const struct pump_end *b, const void *first, size_t first_bytes, struct error *e);

#endif
