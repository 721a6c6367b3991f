/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * I9 in virtual time: guests that write as fast as they can against far sides of several speeds. The pass always ends, the
 * debt after "complete" stays within its bound, nobody is held longer than 20 ms, and a guest the far side can keep up with is
 * not held at all.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/timed.h"

static unsigned latency_us(const struct timed *w, unsigned percent)
{
	uint64_t all = 0, below = 0;
	unsigned i;

	for (i = 0; i < ARRAY_LEN(w->took); i++)
		all += w->took[i];
	for (i = 0; i < ARRAY_LEN(w->took) - 1; i++)
		if ((below += w->took[i]) * 100 >= all * percent)
			break;
	return (i + 1) * TIMED_TOOK_STEP_US;
}

static bool is_smooth(const struct timed *w)
{
	uint64_t writes = 0;

	if (!w->scene->least_iops)
		return true;
	for (unsigned i = 0; i < ARRAY_LEN(w->took); i++)
		writes += w->took[i];
	return writes >= w->scene->least_iops * UINT64_C(4) && latency_us(w, 99) <= 3 * latency_us(w, 50);
}

static bool run(struct timed *w, const struct timed_scene *scene)
{
	double to_synced, iops_before, iops_after, held_ms;
	uint64_t held_before, written_before;
	bool is_good;

	timed_start(w, scene);
	while (!w->synced_ns && w->now_ns < 200 * NS_PER_S)
		timed_happen(w);
	to_synced = (double)(w->now_ns - NS_PER_S) / 1e9;
	written_before = w->written;
	held_before = w->held_us;
	while (w->synced_ns && w->now_ns < w->synced_ns + 5 * NS_PER_S)
		timed_happen(w);

	iops_before = (double)written_before / to_synced;
	iops_after = (double)(w->written - written_before) / 5;
	held_ms = (double)w->held_us / 1000;
	is_good = w->synced_ns && to_synced <= scene->most_s && w->worst_us <= 20000 && w->worst_debt_ms <= scene->most_debt_ms &&
		  (scene->may_hold || !w->held_us) && (!scene->depth || iops_after >= 450) && is_smooth(w);
	printf("%s %-34s complete after %6.2f s; writes/s %7.0f before, %7.0f after; held %8.0f ms before, %8.0f after; "
	       "p50 %5u us, p99 %5u us; worst debt %4llu ms, overflow %llu MiB\n",
	       is_good ? "ok  " : "FAIL", scene->name, to_synced, iops_before, iops_after, (double)held_before / 1000,
	       held_ms - (double)held_before / 1000, latency_us(w, 50), latency_us(w, 99), (unsigned long long)w->worst_debt_ms,
	       (unsigned long long)(w->status.overflow_bytes / MiB));
	timed_stop(w);
	return is_good;
}

static const struct timed_scene scenes[] = {
	{ "nobody writes, 1 GB/s", 1000000000, 200, 5, 0, 4, 0, TIMED_DISK, 0.5, false, 1000 },
	{ "nobody writes, 1 GB/s, 50 ms away", 1000000000, 50000, 5, 0, 4, 0, TIMED_DISK, 0.45, false, 1000 },
	{ "nobody writes, 100 MB/s, 40 ms away", 100000000, 40000, 5, 0, 4, 0, TIMED_DISK, 5, false, 1000 },
	{ "2000 writes/s, 400 MB/s", 400000000, 500, 5, 4, 4, 2000, TIMED_DISK, 1.5, false, 1000 },
	{ "saturating, 1 GB/s", 1000000000, 200, 5, 16, 4, 0, TIMED_DISK, 1.2, true, 1000 },
	{ "saturating, 1 GB/s, 2 ms away", 1000000000, 2000, 5, 16, 4, 0, TIMED_DISK, 2, true, 1000 },
	{ "saturating, 100 MB/s", 100000000, 500, 10, 16, 4, 0, TIMED_DISK, 10, true, 1000 },
	{ "saturating, 100 MB/s, 40 ms away", 100000000, 40000, 10, 16, 4, 0, TIMED_DISK, 15, true, 1000 },
	{ "saturating, 64 KiB, 100 MB/s", 100000000, 500, 10, 16, 64, 0, TIMED_DISK, 12, true, 1500 },
	{ "saturating, 10 MB/s", 10000000, 500, 10, 16, 4, 0, TIMED_DISK, 90, true, 1000 },
	{ "hot 8 MiB, 100 MB/s", 100000000, 500, 10, 16, 4, 0, 8 * MiB, 10, true, 1000 },
	{ "one at a time, 100 MB/s", 100000000, 500, 10, 1, 4, 0, TIMED_DISK, 8, true, 1000 },
	{ "op-bound far side, 5000/s", 1000000000, 500, 200, 16, 4, 0, TIMED_DISK, 10, true, 1000, 4500 },
	{ "8000/s, 2 ms away", 1000000000, 2000, 125, 16, 4, 0, TIMED_DISK, 10, true, 1000, 7200 },
	{ "8000/s, 2 ms away, 64 in flight", 1000000000, 2000, 125, 64, 4, 0, TIMED_DISK, 10, true, 1000, 7200 },
	{ "8000/s, 2 ms away, one at a time", 1000000000, 2000, 125, 1, 4, 0, TIMED_DISK, 10, true, 1000, 6000 },
};

int main(void)
{
	struct timed *w = calloc(1, sizeof *w);
	int bad = 0;

	for (unsigned i = 0; i < ARRAY_LEN(scenes); i++)
		bad += !run(w, &scenes[i]);
	free(w);
	return bad != 0;
}
