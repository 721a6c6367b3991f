/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * When it will be done, said while it is under way, in virtual time: the mirror's own core under guests that write steadily,
 * write here and there, begin, stop and change, over links that do. From a tenth on, and some seconds after whatever changed,
 * what is said is within 15 % of what it then took, all of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/eta.h"
#include "tests/sim/timed.h"

#define MB UINT64_C(1000000)
#define SIZE (GiB)
#define WRONG_MAX_PERCENT 15
#define SETTLES_S 4.0

struct change {
	double at_s;
	unsigned depth;
	uint64_t rate;
};
struct row {
	struct timed_scene scene;
	struct change change[2];
};
#define SCENE(what, rate, latency, per_op, depth, think, hot, from) \
	{ what, rate, latency, per_op, depth, 4, think, hot, 0, false, 0, 0, from, SIZE }

static const struct row rows[] = {
	{ SCENE("nobody writes", 25 * MB, 500, 10, 0, 0, SIZE, 0), { { 0 } } },
	{ SCENE("a quarter of the link", 25 * MB, 500, 10, 4, 2600, SIZE, 0), { { 0 } } },
	{ SCENE("half of the link", 25 * MB, 500, 10, 4, 1300, SIZE, 0), { { 0 } } },
	{ SCENE("most of the link", 25 * MB, 500, 10, 8, 1600, SIZE, 0), { { 0 } } },
	{ SCENE("more than the link", 25 * MB, 500, 10, 16, 0, SIZE, 0), { { 0 } } },
	{ SCENE("where the copy comes last", 25 * MB, 500, 10, 4, 1300, 64 * MiB, SIZE - 64 * MiB), { { 0 } } },
	{ SCENE("in the middle", 25 * MB, 500, 10, 4, 1300, 64 * MiB, SIZE / 2), { { 0 } } },
	{ SCENE("10 ms away", 25 * MB, 10000, 10, 4, 2600, SIZE, 0), { { 0 } } },
	{ SCENE("each write costs", 50 * MB, 500, 400, 4, 2600, SIZE, 0), { { 0 } } },
	{ SCENE("begins to write", 25 * MB, 500, 10, 0, 1300, SIZE, 0), { { 15, 4, 25 * MB } } },
	{ SCENE("stops to write", 25 * MB, 500, 10, 4, 1300, SIZE, 0), { { 20, 0, 25 * MB } } },
	{ SCENE("writes three times as much", 25 * MB, 500, 10, 2, 1300, SIZE, 0), { { 15, 6, 25 * MB } } },
	{ SCENE("a burst", 25 * MB, 500, 10, 2, 1300, SIZE, 0), { { 15, 8, 25 * MB }, { 20, 2, 25 * MB } } },
	{ SCENE("the link is half as fast", 25 * MB, 500, 10, 2, 1300, SIZE, 0), { { 15, 2, 25 * MB / 2 } } },
	{ SCENE("the link is twice as fast", 25 * MB, 500, 10, 2, 1300, SIZE, 0), { { 15, 2, 50 * MB } } },
};

struct said {
	double at_s, end_s; /* it would be then */
	double core_s;      /* ... as the core itself says, which knows no more than this moment */
	bool is_to_count;
};
#define SAID_MAX 1024u

static void note(struct eta *m, const struct timed *w, double at_s)
{
	struct eta_sample s = { .at_ms = (int64_t)(at_s * 1000), .total_bytes = w->status.total_bytes,
				.owed_bytes = w->status.dirty_bytes, .sent_bytes = w->status.sent_bytes,
				.guest_bytes = w->written * 4 * KiB, .is_moving = true, .is_paced = w->status.pace_ops != 0,
				.is_done = w->status.was_synced };

	eta_note(m, &s);
}

static void change(struct timed *w, const struct change *c)
{
	w->rate = c->rate;
	timed_set_depth(w, c->depth);
}

/* How long it took; said[] is filled. */
static double watch(struct timed *w, const struct row *row, struct said *said, unsigned *count)
{
	uint64_t begun_ns = w->now_ns, next_ns = begun_ns;
	struct eta model = { 0 };
	unsigned changes = 0;
	double changed_s = -SETTLES_S, s = 0;

	while (!w->synced_ns && s < 1000) {
		timed_happen(w);
		s = (double)(w->now_ns - begun_ns) / 1e9;
		if (changes < ARRAY_LEN(row->change) && row->change[changes].at_s > 0 && s >= row->change[changes].at_s) {
			change(w, &row->change[changes++]);
			changed_s = s;
		}
		if (w->now_ns < next_ns || *count == SAID_MAX)
			continue;
		next_ns += NS_PER_S;
		note(&model, w, s);
		if (eta_left_ms(&model) == ETA_UNKNOWN)
			continue;
		said[(*count)++] = (struct said){
			s, s + (double)eta_left_ms(&model) / 1000, s + (double)w->status.eta_ms / 1000,
			w->status.dirty_bytes <= w->status.total_bytes / 10 * 9 && s - changed_s > SETTLES_S &&
			(changes == ARRAY_LEN(row->change) || row->change[changes].at_s <= 0)
		};
	}
	return s;
}

static bool run(struct timed *w, const struct row *row)
{
	static struct said said[SAID_MAX];
	unsigned count = 0, counted = 0;
	double took_s, core = 0, worst = 0, mean = 0, worst_at_s = 0;

	timed_start(w, &row->scene);
	took_s = watch(w, row, said, &count);
	timed_stop(w);
	for (unsigned i = 0; i < count; i++) {
		double wrong = (said[i].end_s - took_s) / took_s * 100;

		if (getenv("SIM_VERBOSE"))
			printf("%6.1f s: %6.1f (%+.1f %%)%s\n", said[i].at_s, said[i].end_s, wrong,
			       said[i].is_to_count ? "" : " -");
		if (!said[i].is_to_count)
			continue;
		wrong = wrong < 0 ? -wrong : wrong;
		if (wrong > worst) {
			worst = wrong;
			worst_at_s = said[i].at_s;
		}
		core += (said[i].core_s > took_s ? said[i].core_s - took_s : took_s - said[i].core_s) / took_s * 100;
		mean += wrong;
		counted++;
	}
	printf("%s %-28s %6.1f s; wrong by %4.1f %% at most (after %5.1f s), %4.1f %% on average; the core %4.1f %%\n",
	       counted && worst <= WRONG_MAX_PERCENT ? "ok  " : "FAIL", row->scene.name, took_s, worst, worst_at_s,
	       counted ? mean / counted : 0, counted ? core / counted : 0);
	return counted && worst <= WRONG_MAX_PERCENT;
}

int main(int argc, char **argv)
{
	struct timed *w = calloc(1, sizeof *w);
	int bad = 0;

	for (unsigned i = 0; i < ARRAY_LEN(rows); i += getenv("SXM_BRIEF") ? 4 : 1)
		if (argc < 2 || strstr(rows[i].scene.name, argv[1]))
			bad += !run(w, &rows[i]);
	free(w);
	return bad != 0;
}
