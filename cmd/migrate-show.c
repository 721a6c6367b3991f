/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * migrate-show - see migrate-show.h
 *
 * Texts of others are made fit for a terminal. A history that cannot be kept is said once, and stops no move.
 */
#include "cmd/migrate-show.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/printable.h"
#include "base/size.h"
#include "migrate/progress.h"

int show_open(struct show *s, struct error *e)
{
	s->progress = progress_new(STDOUT_FILENO, s->is_json ? PROGRESS_JSON : s->is_quiet ? PROGRESS_QUIET : PROGRESS_AUTO, e);
	return s->progress ? 0 : -1;
}

void show_close(struct show *s)
{
	if (s->progress)
		progress_free(take_ptr(&s->progress));
	if (s->history)
		history_close(take_ptr(&s->history));
}

static void lose_history(struct show *s, const struct error *e)
{
	if (s->history)
		history_close(take_ptr(&s->history));
	if (s->progress && !s->is_json && !s->is_quiet)
		progress_say(s->progress, "sxm report will not have all of this: %s", e->text);
}

static void keep_history(struct show *s, const char *id)
{
	CLEANUP_FREE char *path = history_path(id);
	struct error e = { .err = ENOMEM, .text = "out of memory" };

	if (s->history)
		history_close(take_ptr(&s->history));
	s->history = path ? history_open(path, 0, &e) : NULL;
	if (!s->history)
		lose_history(s, &e);
}

void show_begin(void *arg, const struct journey *j)
{
	struct show *s = arg;
	CLEANUP_FREE char *host = jsonspec_string(j->r.host);

	if (s->is_json)
		printf("{\"move\":\"%s\",\"host\":%s,\"step\":\"%s\"}\n", j->r.id, host ? host : "\"\"", j->r.step);
	else if (!s->is_quiet)
		printf("move %s: %zu disk%s to %s (%s)\n", j->r.id, j->r.disks.count, j->r.disks.count == 1 ? "" : "s", j->r.host,
		       j->r.step);
	fflush(stdout);
	keep_history(s, j->r.id);
}

void show_view(void *arg, const struct move_view *v)
{
	struct show *s = arg;
	struct error e;

	if (s->progress)
		progress_show(s->progress, v);
	if (s->history && history_append(s->history, v, &e) == -1)
		lose_history(s, &e);
}

void show_text(void *arg, const char *text)
{
	const struct show *s = arg;

	if (s->progress && !s->is_json && !s->is_quiet)
		progress_say(s->progress, "%s", text);
}

void show_plan(const struct plan *p)
{
	const struct plan_step *step = p->steps.item;
	char text[SIZE_TEXT_MAX];

	for (size_t i = 0; i < p->steps.count; i++)
		printf("%zu. %s%s%s%s\n", i + 1, step[i].step, *step[i].undo ? "   (undone: " : "", step[i].undo,
		       *step[i].undo ? ")" : "");
	if (strcmp(p->transport, "ssh") != 0)
		printf("transport: %s, to %s\n", p->transport, *p->address ? p->address : "an address that is not known");
	printf("to be sent: %s", size_format((uint64_t)p->bytes, text));
	if (p->rate_bytes_s)
		printf(" at %s/s: %.1f s", size_format((uint64_t)p->rate_bytes_s, text), (double)p->duration_ms / 1000);
	printf("\nround trip: %.1f ms; downtime without the guest's memory: about %" PRId64 " ms\n",
	       (double)p->round_trip_us / 1000,
	       p->downtime_ms);
	for (size_t i = 0; i < p->warnings.count; i++)
		printf("note: %s\n", p->warnings.item[i]);
	for (size_t i = 0; i < p->refusals.count; i++)
		printf("refused: %s\n", p->refusals.item[i]);
}

void show_record(const struct journey_record *r, bool is_json)
{
	CLEANUP_FREE char *text = is_json ? jsonspec_encode(&journey_record_spec, r) : NULL;
	const struct journey_disk *d = r->disks.item;

	if (is_json) {
		printf("%s\n", text ? text : "{}");
		return;
	}
	printf("%s  %-10s to %s:", r->id, r->step, r->host);
	for (size_t i = 0; i < r->disks.count; i++) {
		CLEANUP_FREE char *name = strdup(d[i].name);

		if (name)
			printable_make(name, '?');
		printf(" %s", name ? name : "");
	}
	printf("%s%s\n", *r->why && !journey_is_over(r) ? ": " : "", journey_is_over(r) ? "" : r->why);
}
