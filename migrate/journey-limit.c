/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-limit - how fast the mirrors of a journey may send: what was said of it, or what its moment needs, whichever is less
 *
 *      --bandwidth, --change      ---> so many bytes a second ---.
 *      --switchover finish-by     ---> deadline, of the view ----'--> less of them --> each disk's part, in its "bandwidth"
 *
 * Asked anew at each look. Who drives it may die: what was said last stays with the mirrors that go on without him.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/size.h"
#include "migrate/columns.h"
#include "migrate/eta.h"
#include "migrate/journey-private.h"

/* Each disk has its part; what one does not need, as it has everything, the others get. */
void journey_set_limit(struct journey *j, uint64_t bytes_s)
{
	bool is_told = true;
	size_t busy = 0;
	struct error e;
	char text[24];

	for (size_t i = 0; i < j->r.disks.count; i++)
		busy += !j->view.disk[i].is_complete;
	snprintf(text, sizeof(text), "%" PRIu64 "\n", bytes_s / MAX(busy, (size_t)1));
	if (strcmp(text, j->limit) == 0)
		return;
	for (size_t i = 0; i < j->r.disks.count; i++) {
		CLEANUP_FREE char *path = NULL;

		if (asprintf(&path, "%s/%s/bandwidth", proc_run_dir(), journey_disk(j, i)->id) < 0) {
			path = NULL;
			return;
		}
		if (!bytes_s)
			unlink(path);
		else if (proc_swap_file(path, text, strlen(text), 0600, &e) == -1)
			is_told = false; /* it has no process yet, or no more: again, the next time */
	}
	if (is_told)
		strcpy(j->limit, text);
}

/* --- a moment */

bool journey_has_deadline(const struct journey *j)
{
	return j->r.at_s && strcmp(j->r.switchover, "auto") == 0;
}

static uint64_t total_bytes(const struct journey *j)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < j->view.disks; i++)
		all += j->view.disk[i].total_bytes;
	return all;
}

static void say_deadline(const struct journey *j, enum deadline_news news, bool is_bound)
{
	int64_t now_ms = j->view.now_ms;
	char at[COLUMNS_TIME_MAX], then[COLUMNS_TIME_MAX];

	columns_clock(j->deadline.at_ms, now_ms, at);
	columns_clock(now_ms + MAX(j->view.eta_ms, INT64_C(0)), now_ms, then);
	if (news == DEADLINE_IS_LATE)
		journey_say(j, "it will not be done by %s: as it goes, both sides are the same at %s; it goes as fast as "
			    "it can%s", at, then, is_bound ? " within --bandwidth" : "");
	else if (news == DEADLINE_IS_IN_TIME)
		journey_say(j, "it will be done by %s after all, and goes no faster than that needs", at);
}

/* Before the mirrors have begun, so that they do not begin as fast as they can: as if there were no holes. */
static uint64_t first_rate(const struct journey *j)
{
	const struct eta nothing = { 0 };
	struct deadline d;
	uint64_t size = 0, rate;

	for (size_t i = 0; i < j->r.disks.count; i++)
		size += (uint64_t)MAX(journey_disk(j, i)->size_bytes, INT64_C(0));
	deadline_init(&d, j->r.started_ms, j->r.at_s * 1000, j->r.will_verify ? size : 0);
	rate = eta_rate_for(&nothing, size, deadline_left_ms(&d, journey_now_ms()));
	return rate == UINT64_MAX ? 0 : rate;
}

/* What the moment needs; 0: no limit. */
static uint64_t needed_rate(struct journey *j, bool is_bound)
{
	struct deadline *d = &j->deadline;
	uint64_t total = total_bytes(j);

	if (!journey_has_deadline(j))
		return 0;
	if (!total)
		return first_rate(j);
	if (!d->at_ms) {
		char at[COLUMNS_TIME_MAX], aim[COLUMNS_TIME_MAX];

		deadline_init(d, j->r.started_ms, j->r.at_s * 1000, j->r.will_verify ? total : 0);
		if (deadline_left_ms(d, j->view.now_ms))
			journey_say(j, "it goes no faster than it has to: both sides are to be the same at %s, and it done by %s",
				    columns_clock(d->aim_ms, j->view.now_ms, aim),
				    columns_clock(d->at_ms, j->view.now_ms, at));
	}
	say_deadline(j, deadline_note(d, j->view.now_ms, j->view.eta_ms, view_taken_bytes(&j->view)), is_bound);
	j->view.is_late = d->is_late || j->view.now_ms > d->at_ms;
	return deadline_rate(d, view_rate_for(&j->view, deadline_left_ms(d, j->view.now_ms)));
}

void journey_apply_limit(struct journey *j)
{
	CLEANUP_FREE char *path = journey_run_path(j->r.id, "bandwidth");
	struct error e;
	CLEANUP_FREE char *text = path ? proc_read_own_file(path, 64, NULL, &e) : NULL;
	uint64_t bytes_s = (uint64_t)j->r.bandwidth_bytes_s, needed;

	if (text) {
		text[strcspn(text, "\n")] = '\0';
		if (!size_parse(text, &bytes_s))
			bytes_s = (uint64_t)j->r.bandwidth_bytes_s;
	}
	needed = needed_rate(j, bytes_s);
	journey_set_limit(j, bytes_s && needed ? MIN(bytes_s, needed) : MAX(bytes_s, needed));
}
