/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The handover between two hosts, at random: without a bug nothing is ever lost or owned twice; with any of those planted in
 * mirror/commit, or in what it asks of its caller, something is, soon.  Built with -DPLANT.
 *
 *      SIM_SCHEDULES=1000000 SIM_SEED=1 tests/sim/sim-commit      sim-commit BUG SEED      (one history, told)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/handover.h"

#define HUNTS 3u /* for the median */

#define BUG_NAME(name) #name,
static const char *const names[] = { "NONE", COMMIT_BUGS(BUG_NAME) };
static const char *const tallies[TALLY_COUNT] = {
	"moved", "reclaimed", "released", "raised", "ended", "withdrawn", "ends: far volume gone, take the source",
	"ends: released, take the source", "ends: reclaimed, take the source", "ends: either",
};

static struct world world;

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : otherwise;
}

static unsigned steps_of(uint64_t seed)
{
	return 200 + (unsigned)(seed * 7919 % 1200);
}

/* How many schedules until one breaks; 0: none of `most`. */
static uint64_t hunt(uint64_t first, uint64_t most)
{
	for (uint64_t n = 1; n <= most; n++) {
		world_run(&world, first + n, steps_of(first + n));
		if (world.broken)
			return n;
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static bool catch_planted(enum commit_bug bug, uint64_t seed, uint64_t most, unsigned hunts)
{
	uint64_t took[HUNTS];
	const char *why = "";

	commit_planted = bug;
	for (unsigned i = 0; i < hunts; i++) {
		took[i] = hunt(seed + (i + 1) * UINT64_C(1000000000), most);
		if (!took[i]) {
			printf("%-25s NOT CAUGHT after %llu schedules\n", names[bug], (unsigned long long)most);
			return false;
		}
		why = world.broken;
	}
	qsort(took, hunts, sizeof(took[0]), compare);
	printf("%-25s caught after %llu schedules (median of %u): %s\n", names[bug], (unsigned long long)took[hunts / 2],
	       hunts, why);
	return true;
}

static int tell(const char *bug, const char *seed)
{
	uint64_t n = strtoull(seed, NULL, 10);

	for (commit_planted = BUG_NONE; commit_planted < BUG_COUNT - 1; commit_planted++)
		if (strcmp(names[commit_planted], bug) == 0)
			break;
	world.is_traced = true;
	world_run(&world, n, steps_of(n));
	printf("%s\n", world.broken ? world.broken : "good");
	return world.broken != NULL;
}

int main(int argc, char **argv)
{
	uint64_t schedules = number("SIM_SCHEDULES", 20000), seed = number("SIM_SEED", 1), n;
	int escaped = 0;

	if (argc == 3)
		return tell(argv[1], argv[2]);
	n = hunt(seed, schedules);
	if (n) {
		printf("without a bug: %s; to see it: sim-commit NONE %llu\n", world.broken, (unsigned long long)(seed + n));
		return 1;
	}
	printf("%llu schedules from seed %llu without a bug\n", (unsigned long long)schedules, (unsigned long long)seed);
	for (unsigned i = 0; i < TALLY_COUNT; i++) {
		printf("  %10llu %s\n", (unsigned long long)world.tally[i], tallies[i]);
		escaped += world.tally[i] == 0 && schedules >= 20000; /* who never gets there proves nothing */
	}
	for (enum commit_bug bug = BUG_NONE + 1; bug < BUG_COUNT; bug++)
		escaped += !catch_planted(bug, seed, number("SIM_PLANTED_SCHEDULES", 100000), schedules < 20000 ? 1 : HUNTS);
	return escaped != 0;
}
