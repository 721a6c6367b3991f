/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Every bug planted in the core is caught by the simulation: a test of the test. Built with -DPLANT, see core-private.h; and
 * with room for four actions a step, so that "array full, call again" happens all the time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mirror/core-private.h"
#include "tests/sim/schedule.h"

#define BUG_NAME(name) #name,
static const char *const names[] = { "NONE", CORE_BUGS(BUG_NAME) };

enum core_bug core_planted;

/* A core that was caught cannot be freed: its own assertions would not let it. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return 1;
}

#define HUNTS 5u

/* How many schedules it took, from the first on; 0: it got away. */
static uint64_t hunt(struct sim *w, uint64_t first, uint64_t most)
{
	static struct schedule s;

	for (uint64_t n = 1; n <= most; n++) {
		schedule_make(&s, first + n);
		if (!schedule_run(&s, w, false))
			return n;
	}
	return 0;
}

static unsigned hunts; /* <= HUNTS */

/* Hunts it from several places; the median is how well the schedules see it. */
static bool is_caught(const char *name, struct sim *w, uint64_t most)
{
	uint64_t taken[HUNTS];

	for (unsigned i = 0; i < hunts; i++) {
		uint64_t n = hunt(w, i * UINT64_C(1000000), most);
		unsigned at = i;

		if (!n) {
			printf("%-24s NOT CAUGHT in %llu schedules from %u000000 on\n", name, (unsigned long long)most, i);
			return false;
		}
		for (; at > 0 && taken[at - 1] > n; at--)
			taken[at] = taken[at - 1];
		taken[at] = n;
	}
	printf("%-24s caught, median of %u hunts %llu schedules: %s\n", name, hunts, (unsigned long long)taken[hunts / 2],
	       w->broken);
	return true;
}

int main(void)
{
	const char *limit = getenv("SIM_PLANTED_SCHEDULES"), *schedules = getenv("SIM_SCHEDULES");
	uint64_t most = limit ? strtoull(limit, NULL, 10) : 60000;
	struct sim *w = sim_new();
	int escaped = 0;

	hunts = schedules && strtoull(schedules, NULL, 10) < 20000 ? 1 : HUNTS;
	if (hunt(w, 0, most / 12)) {
		printf("without a bug: %s\n", w->broken);
		return 1;
	}
	for (core_planted = BUG_NONE + 1; core_planted < BUG_COUNT; core_planted++) {
		escaped += !is_caught(names[core_planted], w, most);
	}
	core_planted = BUG_NONE;
	schedule_has_zombies = true;
	escaped += !is_caught("OLD_GENERATION_LIVES", w, most);
	sim_free(w);
	return escaped != 0;
}
