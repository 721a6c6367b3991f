/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * least - the shortest time that something took lately: what it costs when nothing stands before it
 *
 *      | turn before last | last turn | this turn |        a turn is five seconds; the least of the last and this one counts,
 *                                                          so a way that became longer is believed after ten at the latest
 */
#ifndef SXM_MIRROR_LEAST_H
#define SXM_MIRROR_LEAST_H

#include "base/compiler.h"

#define LEAST_TURN_NS (5 * NS_PER_S)

struct least {
	uint64_t ns[2]; /* of this turn and of the last; 0: none was seen */
	uint64_t turn_ns;
};

static inline void least_note(struct least *l, uint64_t now_ns, uint64_t ns)
{
	ns = MAX(ns, UINT64_C(1));
	if (now_ns - l->turn_ns > LEAST_TURN_NS) {
		l->turn_ns = now_ns;
		l->ns[1] = l->ns[0];
		l->ns[0] = ns;
	}
	if (!l->ns[0] || ns < l->ns[0])
		l->ns[0] = ns;
}

/* 0: not known. */
static inline uint64_t least_ns(const struct least *l)
{
	if (!l->ns[0] || !l->ns[1])
		return MAX(l->ns[0], l->ns[1]);
	return MIN(l->ns[0], l->ns[1]);
}

#endif
