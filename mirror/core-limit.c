/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-limit - not more than so many bytes a second for the far side
 *
 *      every moment:  + rate x time, - what guests' writes took of it (a quarter is left whatever they take), at most BURST
 *      a copy chosen: - its bytes;  what of it is not sent comes back
 *      nothing left:  no copy is chosen until the next tick
 *
 * Only copies wait: a guest's write goes over at once, since what it would be later is a debt.  Where guests write more than the
 * limit lets through, the pass falls behind, and pace.c slows them.  Nothing waits while a disk is handed over: its guest waits
 * for that.
 *
 * Invariant: left_bytes is never above BURST; below zero it is by the copies that were chosen before it was, at most.
 */
#include "mirror/core-private.h"

#define LEAST_BURST_BYTES (INT64_C(256) << 10)
#define BURSTS_A_SECOND 20
#define GUESTS_LEAVE 4 /* a part of so many */

static int64_t burst(const struct core_limit *l)
{
	return MAX((int64_t)(l->rate_bytes / BURSTS_A_SECOND), LEAST_BURST_BYTES);
}

static void refill(struct core *c)
{
	struct core_limit *l = &c->limit;
	uint64_t us = MIN(c->now_ns - l->from_ns, NS_PER_S) / 1000;
	int64_t came = (int64_t)(l->rate_bytes / 1000 * us / 1000);

	if (!us)
		return;
	l->left_bytes = MIN(l->left_bytes + MAX(came - l->guest_bytes, came / GUESTS_LEAVE), burst(l));
	l->guest_bytes = MAX(l->guest_bytes - came, INT64_C(0));
	l->from_ns = c->now_ns;
}

void core_limit_set(struct core *c, uint64_t rate_bytes)
{
	struct core_limit *l = &c->limit;

	if (!l->rate_bytes)
		*l = (struct core_limit){ .from_ns = c->now_ns };
	l->rate_bytes = MIN(rate_bytes, (uint64_t)INT64_MAX / 1000);
	l->left_bytes = MIN(l->left_bytes, burst(l));
}

bool core_limit_allows_copy(struct core *c)
{
	if (!c->limit.rate_bytes || c->state == CORE_FINISHING)
		return true;
	refill(c);
	return c->limit.left_bytes > 0;
}

void core_limit_copy(struct core *c, uint64_t bytes)
{
	c->limit.left_bytes -= (int64_t)bytes;
}

void core_limit_give_back(struct core *c, uint64_t bytes)
{
	c->limit.left_bytes += (int64_t)bytes;
}

void core_limit_guest(struct core *c, const struct core_op *op)
{
	if (c->limit.rate_bytes && op->kind != CORE_COPY && op->far_kind == CORE_FAR_WRITE)
		c->limit.guest_bytes += (int64_t)range_length(op->far_range);
}
