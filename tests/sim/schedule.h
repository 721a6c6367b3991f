/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * schedule - a random history of one mirror, and the shortest one that still breaks a law
 */
#ifndef SXM_TESTS_SCHEDULE_H
#define SXM_TESTS_SCHEDULE_H

#include "tests/lib/sim.h"

#define SCHEDULE_EVENTS_MAX 512u

/* One number an event: what happens, and all its dice. Leaving one out leaves the others what they were, as far as it can. */
struct schedule {
	uint64_t seed; /* of the world */
	unsigned count;
	uint64_t events[SCHEDULE_EVENTS_MAX];
};

extern bool schedule_has_zombies; /* the far side does not shut out older generations: a bug to be found */

void schedule_make(struct schedule *s, uint64_t seed);
/* False: a law was broken, w->broken says which; an assertion of the core counts as one. */
bool schedule_run(const struct schedule *s, struct sim *w, bool is_traced);
/* Drops events as long as it still breaks. */
void schedule_shrink(struct schedule *s, struct sim *w);

#endif
