/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A move that is to be done by a moment, in virtual time: the mirror's own core under guests and links that change, and
 * whoever drives it, who looks each second, foresees, and sets the limit. It is there in time where it can be, not much
 * before, and never sends much faster than it has to; guests are not held for it. Where it cannot be, that is known soon,
 * and the pace has cost nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/deadline.h"
#include "migrate/eta.h"
#include "tests/sim/timed.h"

#define MB UINT64_C(1000000)
#define SIZE (GiB / 2)

struct change {
	double at_s;
	unsigned depth;
	uint64_t rate;
};
struct row {
	struct timed_scene scene;
	struct change change[2];
	double by_s;        /* it is to be done by then */
	double late_s;      /* 0: it can be; else it cannot, and that is known by then */
	double most_rate;   /* MB a second, over five seconds, before it is late */
	bool is_late_first; /* it would be late for a while, and is in time at last */
};
#define SCENE(what, depth, think, hot, from) { what, 25 * MB, 500, 10, depth, 4, think, hot, 0, false, 0, 0, from, SIZE }

static const struct row rows[] = {
	{ SCENE("nobody writes", 0, 0, SIZE, 0), { { 0 } }, 100, 0, 7, false },
	{ SCENE("it writes a little", 1, 4000, SIZE, 0), { { 0 } }, 100, 0, 7.5, false },
	{ SCENE("it writes a third of the link", 2, 1000, SIZE, 0), { { 0 } }, 60, 0, 17, false },
	{ SCENE("where the copy comes last", 2, 1000, 64 * MiB, SIZE - 64 * MiB), { { 0 } }, 80, 0, 14, false },
	{ SCENE("it begins to write", 0, 1000, SIZE, 0), { { 30, 2, 25 * MB } }, 80, 0, 16, false },
	{ SCENE("it stops to write", 2, 1000, SIZE, 0), { { 20, 0, 25 * MB } }, 100, 0, 10, false },
	{ SCENE("the link is a third as fast", 0, 0, SIZE, 0), { { 30, 0, 25 * MB / 3 } }, 100, 0, 7, false },
	{ SCENE("there is no time for it", 0, 0, SIZE, 0), { { 0 } }, 15, 8, 0, false },
	{ SCENE("nor while it writes", 4, 1300, SIZE, 0), { { 0 } }, 20, 12, 0, false },
	{ SCENE("the link is too slow at last", 0, 0, SIZE, 0), { { 50, 0, 25 * MB / 10 } }, 80, 60, 9, false },
	{ SCENE("the link is slow, and then it is not", 0, 0, SIZE, 0),
	  { { 20, 0, 4 * MB }, { 35, 0, 25 * MB } }, 80, 0, 9, true },
};

struct watch {
	struct timed w;
	struct eta eta;
	struct deadline deadline;
	double most_rate, late_at_s, in_time_at_s;
	uint64_t sent[5];
	unsigned looks;
	bool is_paced;
};

static void look(struct watch *k, double s)
{
	int64_t now_ms = (int64_t)(s * 1000), left_ms = deadline_left_ms(&k->deadline, now_ms);
	const struct core_status *st = &k->w.status;
	struct eta_sample sample = { .at_ms = now_ms, .total_bytes = st->total_bytes, .owed_bytes = st->dirty_bytes,
				     .sent_bytes = st->sent_bytes, .guest_bytes = k->w.written * 4 * KiB, .is_moving = true,
				     .is_paced = st->pace_ops != 0, .is_done = st->was_synced };
	enum deadline_news news;

	eta_note(&k->eta, &sample);
	news = deadline_note(&k->deadline, now_ms, eta_left_ms(&k->eta), eta_taken_bytes(&k->eta));
	if (news == DEADLINE_IS_LATE && k->late_at_s <= 0)
		k->late_at_s = s;
	if (news == DEADLINE_IS_IN_TIME)
		k->in_time_at_s = s;
	if (k->is_paced)
		timed_set_limit(&k->w, deadline_rate(&k->deadline, eta_rate_for(&k->eta, st->dirty_bytes, left_ms)));
	if (k->looks >= ARRAY_LEN(k->sent) && k->late_at_s <= 0) {
		uint64_t sent = st->sent_bytes - k->sent[k->looks % ARRAY_LEN(k->sent)];
		double rate = (double)sent / (double)ARRAY_LEN(k->sent) / 1e6;

		k->most_rate = rate > k->most_rate ? rate : k->most_rate;
	}
	k->sent[k->looks++ % ARRAY_LEN(k->sent)] = st->sent_bytes;
	if (getenv("SIM_VERBOSE"))
		printf("%6.1f s: owed %5.1f MB, limit %6.2f, foreseen %6.1f s%s\n", s, (double)st->dirty_bytes / 1e6,
		       (double)k->deadline.rate_bytes_s / 1e6, s + (double)eta_left_ms(&k->eta) / 1000,
		       k->deadline.is_late ? ", late" : "");
}

/* How long it took. */
static double run(struct watch *k, const struct row *row, bool is_paced)
{
	uint64_t begun_ns, next_ns;
	unsigned changes = 0;
	double s = 0;

	memset(k, 0, sizeof(*k));
	k->is_paced = is_paced;
	deadline_init(&k->deadline, 0, (int64_t)(row->by_s * 1000), 0);
	timed_start(&k->w, &row->scene);
	begun_ns = next_ns = k->w.now_ns;
	while (!k->w.synced_ns && s < 1000) {
		timed_happen(&k->w);
		s = (double)(k->w.now_ns - begun_ns) / 1e9;
		if (changes < ARRAY_LEN(row->change) && row->change[changes].at_s > 0 && s >= row->change[changes].at_s) {
			k->w.rate = row->change[changes].rate;
			timed_set_depth(&k->w, row->change[changes++].depth);
		}
		if (k->w.now_ns < next_ns)
			continue;
		next_ns += NS_PER_S;
		look(k, s);
	}
	timed_stop(&k->w);
	return s;
}

static const char *judge(const struct row *row, const struct watch *k, double took_s, double full_s, uint64_t held_us)
{
	double aim_s = (double)k->deadline.aim_ms / 1000;

	if (k->w.held_us > held_us)
		return "the guest was held for it";
	if (row->late_s <= 0 && took_s > row->by_s)
		return "it was late";
	if (row->late_s <= 0 && took_s < aim_s - (row->by_s - aim_s))
		return "it took more than it needed";
	if (row->most_rate > 0 && k->most_rate > row->most_rate)
		return "it was faster than it needed to be";
	if (row->late_s > 0 && (k->late_at_s <= 0 || k->late_at_s > row->late_s))
		return "it was not known that it would be late";
	if (row->late_s <= 0 && !row->is_late_first && k->late_at_s > 0)
		return "it was called late, and was not";
	if (row->is_late_first && (k->late_at_s <= 0 || k->in_time_at_s <= k->late_at_s))
		return "it was not known what would become of it";
	if (row->late_s > 0 && full_s > row->by_s && took_s > full_s * 1.03 + 3)
		return "the pace cost time that there was none of";
	return NULL;
}

static bool play(struct watch *k, const struct row *row)
{
	double full_s = run(k, row, false), took_s;
	uint64_t held_us = k->w.held_us;
	const char *wrong;

	took_s = run(k, row, true);
	wrong = judge(row, k, took_s, full_s, held_us);
	printf("%s %-37s %5.1f s of %3.0f (%5.1f as fast as it goes), at most %4.1f MB/s", wrong ? "FAIL" : "ok  ",
	       row->scene.name, took_s, row->by_s, full_s, k->most_rate);
	if (k->late_at_s > 0)
		printf(", late at %4.1f s", k->late_at_s);
	printf("%s%s\n", wrong ? ": " : "", wrong ? wrong : "");
	return !wrong;
}

int main(int argc, char **argv)
{
	struct watch *k = calloc(1, sizeof *k);
	int bad = 0;

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		if (argc < 2 || strstr(rows[i].scene.name, argv[1]))
			bad += !play(k, &rows[i]);
	free(k);
	return bad ? EXIT_FAILURE : EXIT_SUCCESS;
}
