/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * disk-order - who waits for whom
 *
 * A write that does not cover whole blocks reads the block, changes its part and writes the block back, bytes of others
 * included.  Two interleavings lose somebody's update; block 0, A changes byte 0, W writes the whole block:
 *
 *      A in the middle                         W in the middle
 *      A reads    (old)                        W is submitted
 *      W writes, completes                     A reads    (old: W has not reached the medium)
 *      A writes   (old + its byte): W is gone  W completes
 *                                              A writes   (old + its byte): W is gone
 *
 * and A with another such A' likewise.  So such a write is exclusive: it flies alone on the blocks it touches, whoever came
 * first.  Everything else may overlap freely: what two plain writes to the same bytes in flight together leave behind is the
 * submitter's business.  Readers never wait: the bytes written back are the bytes that were there.
 *
 *      enter ---- no exclusive alive, and not one itself ----> flying          (every aligned request: two pointers)
 *        '--- clash with a flying or an earlier waiting one -> waiting --next--> flying --leave-->
 *
 * A newcomer also waits behind a waiting exclusive one it clashes with, so a stream of writes cannot starve it.
 * Invariant: no two flying slots clash.
 */
#include "disk/disk-order.h"

void disk_order_init(struct disk_order *o)
{
	TAILQ_INIT(&o->flying);
	TAILQ_INIT(&o->waiting);
	o->exclusive = 0;
}

static bool clash(const struct disk_slot *a, const struct disk_slot *b)
{
	return (a->is_exclusive || b->is_exclusive) && range_overlaps(a->touched, b->touched);
}

/* With anybody in the list before `end` (NULL: all of it). */
static bool clashes_with(const struct disk_slot_list *list, const struct disk_slot *s, const struct disk_slot *end)
{
	const struct disk_slot *other;

	TAILQ_FOREACH(other, list, link) {
		if (other == end)
			return false;
		if (clash(other, s))
			return true;
	}
	return false;
}

bool disk_order_enter(struct disk_order *o, struct disk_slot *s)
{
	s->is_waiting = false;
	if (UNLIKELY(o->exclusive || s->is_exclusive)) {
		o->exclusive += s->is_exclusive;
		s->is_waiting = clashes_with(&o->flying, s, NULL) || clashes_with(&o->waiting, s, NULL);
	}
	if (s->is_waiting)
		TAILQ_INSERT_TAIL(&o->waiting, s, link);
	else
		TAILQ_INSERT_TAIL(&o->flying, s, link);
	return !s->is_waiting;
}

void disk_order_leave(struct disk_order *o, struct disk_slot *s)
{
	assert(!s->is_waiting);
	TAILQ_REMOVE(&o->flying, s, link);
	o->exclusive -= s->is_exclusive;
}

struct disk_slot *disk_order_next(struct disk_order *o)
{
	struct disk_slot *s;

	TAILQ_FOREACH(s, &o->waiting, link) {
		if (clashes_with(&o->flying, s, NULL) || clashes_with(&o->waiting, s, s))
			continue;
		TAILQ_REMOVE(&o->waiting, s, link);
		TAILQ_INSERT_TAIL(&o->flying, s, link);
		s->is_waiting = false;
		return s;
	}
	return NULL;
}
