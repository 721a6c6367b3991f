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

/* How many schedules it took; 0: it got away. */
static uint64_t hunt(struct sim *w, uint64_t most)
{
	static struct schedule s;

	for (uint64_t seed = 1; seed <= most; seed++) {
		schedule_make(&s, seed);
		if (!schedule_run(&s, w, false))
			return seed;
	}
	return 0;
}

static bool tell(const char *name, uint64_t n, uint64_t most, const struct sim *w)
{
	printf("%-24s %s after %llu schedules%s%s\n", name, n ? "caught" : "NOT CAUGHT", (unsigned long long)(n ? n : most),
	       n ? ": " : "", n ? w->broken : "");
	return n > 0;
}

int main(void)
{
	const char *limit = getenv("SIM_PLANTED_SCHEDULES");
	uint64_t most = limit ? strtoull(limit, NULL, 10) : 20000;
	struct sim *w = sim_new();
	int escaped = 0;

	if (hunt(w, most / 4)) {
		printf("without a bug: %s\n", w->broken);
		return 1;
	}
	for (core_planted = BUG_NONE + 1; core_planted < BUG_COUNT; core_planted++) {
		escaped += !tell(names[core_planted], hunt(w, most), most, w);
	}
	core_planted = BUG_NONE;
	schedule_has_zombies = true;
	escaped += !tell("OLD_GENERATION_LIVES", hunt(w, most), most, w);
	sim_free(w);
	return escaped != 0;
}
