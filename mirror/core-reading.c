/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * core-reading - how much copies ask of this disk at once
 *
 * A guest's request stands in the disk's queue behind what copies read. While no guest uses the disk they keep it as full as
 * helps. Beside one they begin with little, and take more only from a disk where that makes nobody wait:
 *
 *      a read of the usual length took      up to twice the least lately     longer: something stood before it
 *      the window                           an eighth of a read more         half a read less
 *
 * So a disk that does one thing after the other gives a copy LEAST_BYTES at a time, which keeps it busy; one that is only far
 * away, where time passes on the way, MOST_BYTES. Shorter reads are not judged: they are quicker by nature.
 *
 * A guest that only reads is heeded, too; there is nothing else that the core has to know of it.
 *
 * Can fail: nothing.  Invariant: the window is LEAST_BYTES to MOST_BYTES.
 */
#include "mirror/core-private.h"

#define READS_MAX 32u
#define ALONE_BYTES (4 * MiB)  /* keeps a disk busy; beyond that a copy only waits there, with its part of the budget */
#define MOST_BYTES (2 * MiB)
#define LEAST_BYTES MiB        /* four reads: beside two of 256 KiB a disk image with clusters is not kept busy */
#define QUEUED_TIMES 2u
#define GUEST_ACTIVE_NS (100 * NS_PER_MS)

static bool is_recent(const struct core *c, uint64_t ns)
{
	return c->state != CORE_FINISHING && ns && c->now_ns - ns < GUEST_ACTIVE_NS;
}

bool core_is_guest_active(const struct core *c)
{
	return is_recent(c, c->guest_ns);
}

bool core_is_disk_shared(const struct core *c)
{
	return is_recent(c, c->guest_ns) || is_recent(c, c->reading.guest_ns);
}

void core_guest_reads(struct core *c, uint64_t now_ns)
{
	c->reading.guest_ns = now_ns;
}

bool core_reading_has_room(const struct core *c)
{
	const struct core_reading *r = &c->reading;
	uint64_t window = core_is_disk_shared(c) ? MAX(r->window_bytes, LEAST_BYTES) : ALONE_BYTES;

	return r->bytes < window && r->count < READS_MAX;
}

void core_reading_took(struct core *c, const struct core_op *op)
{
	uint64_t bytes = range_length(op->range), ns = c->now_ns - op->asked_ns;
	struct core_reading *r = &c->reading;

	if (bytes != core_far_copy_bytes(c, true))
		return;
	least_note(&r->least, c->now_ns, ns);
	if (!core_is_disk_shared(c))
		return;
	if (ns > QUEUED_TIMES * least_ns(&r->least))
		r->window_bytes -= MIN(r->window_bytes, bytes / 2);
	else
		r->window_bytes += bytes / 8;
	r->window_bytes = MIN(MAX(r->window_bytes, LEAST_BYTES), MOST_BYTES);
}
