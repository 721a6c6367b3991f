/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The handover between two hosts, at random, of one disk, and of two with one decision: without a bug nothing is ever lost, owned
 * twice, or half gone; with any of those planted in mirror/commit, or in what it asks of its caller, something is, soon.  Built
 * with -DPLANT.
 *
 *      SIM_SCHEDULES=1000000 SIM_SEED=1 tests/sim/sim-commit      sim-commit BUG|GROUP SEED      (one history, told)
 *      SIM_BUG=DROP_OWNS tests/sim/sim-commit                     (that one only)
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
	"ends: released, take the source", "ends: reclaimed, take the source", "ends: either", "cancelled in between",
	"called back", "taken back by force", "turned round", "turned round, and only what changed is sent",
	"gone with its group", "stayed with its group", "torn from its group", "ends: in doubt, waits for its far side",
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

static const char *run(uint64_t seed, bool is_group, bool is_traced)
{
	if (is_group)
		return group_run(seed, 2 * steps_of(seed), is_traced);
	world.is_traced = is_traced;
	world_run(&world, seed, steps_of(seed));
	return world.broken;
}

/* How many schedules until one breaks; 0: none of `most`. */
static uint64_t hunt(uint64_t first, uint64_t most, bool is_group, const char **why)
{
	for (uint64_t n = 1; n <= most; n++) {
		*why = run(first + n, is_group, false);
		if (*why)
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
		took[i] = hunt(seed + (i + 1) * UINT64_C(1000000000), most, bug >= BUG_DOUBT_FORGOTTEN, &why);
		if (!took[i]) {
			printf("%-25s NOT CAUGHT after %llu schedules\n", names[bug], (unsigned long long)most);
			return false;
		}
	}
	qsort(took, hunts, sizeof(took[0]), compare);
	printf("%-25s caught after %llu schedules (median of %u): %s\n", names[bug], (unsigned long long)took[hunts / 2],
	       hunts, why);
	return true;
}

static int tell(const char *bug, const char *seed)
{
	bool is_group = strcmp(bug, "GROUP") == 0;
	const char *why;

	for (commit_planted = BUG_COUNT - 1; commit_planted > BUG_NONE; commit_planted--)
		if (strcmp(names[commit_planted], bug) == 0)
			break;
	why = run(strtoull(seed, NULL, 10), is_group || commit_planted >= BUG_DOUBT_FORGOTTEN, true);
	printf("%s\n", why ? why : "good");
	return why != NULL;
}

/* 0: nothing broke, and what can happen did. */
static int try_without_bug(uint64_t seed, uint64_t schedules, bool is_group)
{
	const char *why;
	uint64_t n = hunt(seed, schedules, is_group, &why);
	const uint64_t *tally = is_group ? group_tally() : world.tally;
	int missing = 0;

	if (n) {
		printf("without a bug: %s; to see it: sim-commit %s %llu\n", why, is_group ? "GROUP" : "NONE",
		       (unsigned long long)(seed + n));
		return -1;
	}
	printf("%llu schedules%s from seed %llu without a bug\n", (unsigned long long)schedules, is_group ? " of two disks" : "",
	       (unsigned long long)seed);
	for (unsigned i = is_group ? TALLY_GONE : 0; i < (is_group ? TALLY_COUNT : TALLY_ALONE); i++) {
		printf("  %10llu %s\n", (unsigned long long)tally[i], tallies[i]);
		missing += tally[i] == 0 && schedules >= 10000; /* who never gets there proves nothing */
	}
	return missing;
}

int main(int argc, char **argv)
{
	uint64_t schedules = number("SIM_SCHEDULES", 20000), seed = number("SIM_SEED", 1);
	unsigned hunts = schedules < 20000 ? 1 : HUNTS;
	const char *only = getenv("SIM_BUG");
	int escaped, torn;

	if (argc == 3)
		return tell(argv[1], argv[2]);
	escaped = try_without_bug(seed, schedules, false);
	torn = try_without_bug(seed, schedules / 2, true);
	if (escaped < 0 || torn < 0)
		return 1;
	escaped += torn;
	for (enum commit_bug bug = BUG_NONE + 1; bug < BUG_COUNT; bug++)
		if (!only || strcmp(only, names[bug]) == 0)
			escaped += !catch_planted(bug, seed, number("SIM_PLANTED_SCHEDULES", 100000), hunts);
	return escaped != 0;
}
