/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-debt - what is owed, as time, and when it is little enough to say "complete"
 *
 *      pass over ----> debt small ----> a flush begins ... ends ----> SYNCED, "complete" (and again, without the flush)
 *                         |  not yet: what is small grows with time, to half the bound
 *
 * "Complete" is a promise: whoever hears it stops the guest, and what is owed or not flushed then, the guest waits for. So it
 * is said when what is owed is sent in PROMISE_MS, and when a flush has begun and ended since the pass was over: then the
 * barrier's own finds what was written during that one, and not the end of the pass.
 *
 * It must be said in the end, whatever guests do. One flush is waited for, and it ends or the link does; and a guest that never
 * lets the debt be small is told with more of it, the later the more. Where no guest writes nothing is waited for.
 *
 * Can fail: nothing.  Invariant: SYNCED is not said while the first pass is under way, unless all is there.
 */
#include "mirror/core-private.h"

#define DEBT_MAX_MS UINT64_C(86400000)
#define PROMISE_MS 10u
#define LOOSENS_EVERY 4u  /* a millisecond more with each so many */
#define SCATTERED 8u      /* what stands when the pass is over are single chunks, each as costly as so many in a row */

/* How long a barrier would have to send. */
static uint64_t debt_ms(const struct core *c)
{
	uint64_t owed = core_owed_bytes(c), per_ms = c->pace.rate_bytes / 1000;

	if (!owed)
		return 0;
	return per_ms ? MIN((owed + c->guest_charge) / per_ms, DEBT_MAX_MS) : DEBT_MAX_MS;
}

unsigned core_debt_percent(const struct core *c)
{
	return (unsigned)MIN(debt_ms(c) * 100 / c->spec.debt_ms, UINT64_C(1000));
}

static bool is_debt_small(struct core *c)
{
	uint64_t bound_ms = c->spec.debt_ms / 2, debt = debt_ms(c), since_ms;

	if (core_owed_bytes(c) == 0)
		return true;
	if (!c->passes || c->is_stalled)
		return false;
	if (!c->pass_over_ns)
		c->pass_over_ns = c->now_ns;
	since_ms = (c->now_ns - c->pass_over_ns) / NS_PER_MS;
	if (c->was_synced)
		return debt <= bound_ms;
	return debt <= bound_ms && debt * SCATTERED <= PROMISE_MS + since_ms / LOOSENS_EVERY;
}

static bool is_flushed(struct core *c)
{
	if (!c->far.can_flush || (!c->unflushed_bytes && !c->is_flushing))
		return true;
	if (!c->promise_flush)
		c->promise_flush = c->flushes_begun + 1;
	return c->flushes_begun - c->is_flushing >= c->promise_flush;
}

bool core_can_promise(struct core *c)
{
	if (!is_debt_small(c))
		return false;
	return c->was_synced || !core_is_guest_active(c) || is_flushed(c);
}
