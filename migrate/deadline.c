/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * deadline - see deadline.h
 *
 *      began ---------------------------- aim ------- at
 *             paced: what is owed over       '-- spare: a twentieth of it all, and what reading both sides back may take
 *             what is left until aim
 *
 *      in time --- foreseen after `at`, for 3 s ---> late: as fast as it goes
 *              <-- foreseen before `aim`, for 3 s --
 *
 * What is needed is asked for anew each time, from what is owed then: whatever was foreseen wrongly, a guest that writes
 * more or a link that lost its connection, is made up for in the time that is left. As long as it is the limit that holds it
 * back it is in time, since the limit is raised as it has to be; it is late when the link does less than it may, and would
 * not be there. Whoever is late is not slowed, so being paced is no reason to be any later; nor is it before, but for a link
 * that does less in the end than it did at first.
 */
#include "migrate/deadline.h"

#define SPARE_PART 20
#define SPARE_LEAST_MS 2000
#define CHECK_BYTES_S (UINT64_C(200) << 20) /* what a medium lets be read at least, most do; both sides are read at once */
#define CHECK_MOST_PART 2                   /* of the time that there is */
#define SURE_MS 3000
#define LIMITED_SHARE 0.85                  /* of the limit: whoever sends less is slower by himself */
#define SAME_PART 32                        /* what differs by less is the same rate */

void deadline_init(struct deadline *d, int64_t began_ms, int64_t at_ms, uint64_t check_bytes)
{
	int64_t whole_ms = MAX(at_ms - began_ms, INT64_C(0)), spare_ms = MAX(whole_ms / SPARE_PART, (int64_t)SPARE_LEAST_MS);
	int64_t check_ms = (int64_t)(check_bytes / (CHECK_BYTES_S / 1000));

	*d = (struct deadline){ .at_ms = at_ms, .aim_ms = at_ms - spare_ms - MIN(check_ms, whole_ms / CHECK_MOST_PART) };
}

int64_t deadline_left_ms(const struct deadline *d, int64_t now_ms)
{
	return MAX(d->aim_ms - now_ms, INT64_C(0));
}

/* It is the limit that keeps it from being faster. */
static bool is_limited(const struct deadline *d, double taken_bytes_s)
{
	return d->rate_bytes_s && taken_bytes_s > (double)d->rate_bytes_s * LIMITED_SHARE;
}

enum deadline_news deadline_note(struct deadline *d, int64_t now_ms, int64_t eta_ms, double taken_bytes_s)
{
	bool is_other;

	if (!d->at_ms || eta_ms < 0)
		return DEADLINE_AS_BEFORE;
	is_other = d->is_late ? now_ms + eta_ms < d->aim_ms : now_ms + eta_ms > d->at_ms && !is_limited(d, taken_bytes_s);
	if (!is_other) {
		d->doubted_ms = 0;
		return DEADLINE_AS_BEFORE;
	}
	if (!d->doubted_ms)
		d->doubted_ms = now_ms;
	if (now_ms - d->doubted_ms < SURE_MS)
		return DEADLINE_AS_BEFORE;
	d->doubted_ms = 0;
	d->is_late = !d->is_late;
	return d->is_late ? DEADLINE_IS_LATE : DEADLINE_IS_IN_TIME;
}

uint64_t deadline_rate(struct deadline *d, uint64_t needed)
{
	uint64_t most = d->rate_bytes_s + d->rate_bytes_s / SAME_PART, least = d->rate_bytes_s - d->rate_bytes_s / SAME_PART;

	if (!d->at_ms || d->is_late || needed == UINT64_MAX)
		return d->rate_bytes_s = 0;
	if (!d->rate_bytes_s || needed > most || needed < least)
		d->rate_bytes_s = needed;
	return d->rate_bytes_s;
}
