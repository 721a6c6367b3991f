/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Random histories of a mirror, each from its own seed, against the laws of mirror/THEORY after every step.
 *      SIM_SCHEDULES=100000 SIM_SEED=1 tests/sim/sim-random
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/schedule.h"

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s ? strtoull(s, NULL, 10) : otherwise;
}

/* A write was paced in the very step in which the far side had been silent for too long. */
static const uint64_t once_broken[] = { 30288356 };

static void play(struct schedule *s, struct sim *w, uint64_t seed)
{
	schedule_make(s, seed);
	if (schedule_run(s, w, false))
		return;
	printf("SIM_SEED=%llu: %s\n", (unsigned long long)s->seed, w->broken);
	schedule_shrink(s, w);
	printf("shortest, %u events:\n%s%s\n", s->count, w->trace, w->broken);
	exit(1);
}

int main(void)
{
	static struct schedule s;
	uint64_t seed = number_from("SIM_SEED", 1), count = number_from("SIM_SCHEDULES", 100000), steps = 0;
	struct sim *w = sim_new();

	for (unsigned i = 0; i < ARRAY_LEN(once_broken); i++)
		play(&s, w, once_broken[i]);
	for (uint64_t i = 0; i < count; i++) {
		play(&s, w, seed + i);
		steps += w->steps;
	}
	printf("%llu schedules, %llu steps, no law broken\n", (unsigned long long)count, (unsigned long long)steps);
	sim_free(w);
	return 0;
}
