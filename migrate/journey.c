/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey - see journey.h: from step to step, on record
 *
 *      step done before -> the next one's function -> its name on record -> the next
 *                             '-- failed: what can be gone on with stays as it is (resume); what was refused is undone
 *
 * Can fail: everything. Nothing here decides whose a disk is: the handover's records do.
 */
#include "migrate/journey.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "migrate/journey-private.h"
#include "migrate/question.h"

struct journey_disk *journey_disk(const struct journey *j, size_t i)
{
	return (struct journey_disk *)j->r.disks.item + i;
}

int64_t journey_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / (long)NS_PER_MS;
}

void journey_pause(unsigned ms)
{
	const struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * (long)NS_PER_MS };

	nanosleep(&pause, NULL); /* a signal may end it */
}

void journey_say(const struct journey *j, const char *fmt, ...)
{
	CLEANUP_FREE char *text = NULL;
	va_list args;

	if (!j->watch->say)
		return;
	va_start(args, fmt);
	if (vasprintf(&text, fmt, args) < 0)
		text = NULL;
	va_end(args);
	if (text)
		j->watch->say(j->watch->arg, text);
}

int journey_check(const struct journey *j, struct error *e)
{
	return j->watch->interrupts && *j->watch->interrupts ? error_set(e, ECANCELED, "it was interrupted") : 0;
}

int journey_set(char **text, const char *value, struct error *e)
{
	char *copy = strdup(value);

	if (!copy)
		return error_set(e, ENOMEM, "out of memory");
	free(*text);
	*text = copy;
	return 0;
}

int journey_save(const struct journey *j, struct error *e)
{
	return journey_write(&j->r, e);
}

/* For tests: stands still where it may be killed. */
static void stop_after(enum journey_step step)
{
	const char *stop = getenv("SXM_MIGRATE_STOP");

	if (stop && strcmp(stop, journey_step_name(step)) == 0)
		raise(SIGSTOP);
}

int journey_set_step(struct journey *j, enum journey_step step, struct error *e)
{
	if (journey_set(&j->r.step, journey_step_name(step), e) == -1 || journey_save(j, e) == -1)
		return -1;
	stop_after(step);
	return 0;
}

/* --- open, close */

static int own_channel(void *j, struct error *e)
{
	return carrier_channel(((struct journey *)j)->local, e);
}

static int far_channel(void *arg, struct error *e)
{
	struct journey *j = arg;

	if (!j->tunnel && journey_reach(j, NULL, e) == -1)
		return -1;
	return tunnel_channel(j->tunnel, e);
}

static int far_why(void *arg, struct error *e)
{
	struct journey *j = arg;

	return j->tunnel ? tunnel_why(j->tunnel, e) : -1;
}

int journey_open_view(struct journey *j, struct error *e)
{
	if (j->view.disks)
		return 0;
	view_set_id(&j->view, j->r.id);
	j->view.started_ms = j->r.started_ms;
	j->view.finish_by_ms = journey_has_deadline(j) ? j->r.at_s * 1000 : 0;
	for (size_t i = 0; i < j->r.disks.count; i++) {
		struct move_disk *d = view_add_disk(&j->view, journey_disk(j, i)->name, e);

		if (!d)
			return -1;
		d->size_bytes = (uint64_t)journey_disk(j, i)->size_bytes;
	}
	return 0;
}

int journey_open(struct journey *j, struct journey_record *r, int lock, const struct journey_watch *watch, struct error *e)
{
	static const char *const own[] = { "/proc/self/exe", "relay", NULL };
	const struct carrier_spec spec = { .kind = "exec", .argv = own, .host = "this host" };

	*j = (struct journey) { .r = *r, .lock = lock, .watch = watch };
	*r = (struct journey_record) { 0 };
	peer_init(&j->here, "this host", own_channel, j);
	peer_init(&j->there, j->r.host, far_channel, j);
	j->there.why = far_why;
	j->disk_here = calloc(j->r.disks.count, sizeof(*j->disk_here));
	if (!j->disk_here)
		return error_set(e, ENOMEM, "out of memory");
	for (size_t i = 0; i < j->r.disks.count; i++)
		peer_init(&j->disk_here[i], "this host", own_channel, j);
	j->local = carrier_open(&spec, e);
	return j->local ? 0 : -1;
}

void journey_close(struct journey *j)
{
	for (size_t i = 0; j->disk_here && i < j->r.disks.count; i++)
		peer_fini(&j->disk_here[i]);
	free(take_ptr(&j->disk_here));
	peer_fini(&j->here);
	peer_fini(&j->there);
	tunnel_free(take_ptr(&j->tunnel));
	carrier_free(take_ptr(&j->local));
	view_clear(&j->view);
	jsonspec_clear(&journey_record_spec, &j->r);
	if (j->memory > 0)
		close(j->memory);
	j->memory = 0;
	if (j->lock >= 0)
		close(j->lock);
	j->lock = -1;
}

int journey_reach(struct journey *j, struct carrier *carrier, struct error *e)
{
	const struct journey_record *r = &j->r;
	CLEANUP_FREE const char **argv = calloc(r->argv.count + 1, sizeof(*argv));
	const struct carrier_spec spec = {
		.kind = *r->kind ? r->kind : NULL, .argv = r->argv.count ? argv : NULL, .host = r->host,
		.user = *r->user ? r->user : NULL, .port = (unsigned)r->port, .config = *r->config ? r->config : NULL,
	};

	for (size_t i = 0; argv && i < r->argv.count; i++)
		argv[i] = r->argv.item[i];
	if (!carrier)
		carrier = argv ? carrier_open(&spec, e) : NULL;
	if (carrier)
		j->tunnel = tunnel_new(carrier, e);
	return j->tunnel ? 0 : -1;
}

/* --- from step to step */

typedef int step_fn(struct journey *j, struct error *e);

static const struct {
	enum journey_step after; /* this is done */
	step_fn *run;
	enum journey_step step;
	bool is_undone; /* where it is refused nothing is left */
} steps[] = {
	{ JOURNEY_PLANNED, journey_make, JOURNEY_MADE, true },
	{ JOURNEY_MADE, journey_receive, JOURNEY_RECEIVING, true },
	{ JOURNEY_RECEIVING, journey_mirror, JOURNEY_MIRRORED, true },
	{ JOURNEY_MIRRORED, journey_await_sync, JOURNEY_SYNCED, false },
	{ JOURNEY_SYNCED, journey_verify, JOURNEY_VERIFIED, true },
	{ JOURNEY_VERIFIED, journey_switch, JOURNEY_MOVED, false },
	{ JOURNEY_SWITCHING, journey_switch, JOURNEY_MOVED, false },
	{ JOURNEY_MOVED, journey_start, JOURNEY_STARTED, false },
	{ JOURNEY_STARTED, journey_keep, JOURNEY_KEPT, false },
};

int journey_prepare(struct journey *j, enum journey_step after, struct error *e)
{
	if (!j->tunnel && journey_reach(j, NULL, e) == -1)
		return -1;
	return after >= JOURNEY_RECEIVING && after < JOURNEY_MOVED ? journey_open_way(j, e) : 0;
}

/* 0: on; else an outcome. */
static int take_step(struct journey *j, struct error *e, bool *is_over)
{
	enum journey_step at = journey_step_of(&j->r);

	*is_over = false;
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		if (steps[i].after != at)
			continue;
		j->view.phase = journey_step_name(at);
		if (journey_prepare(j, at, e) == -1)
			return JOURNEY_INTERRUPTED;
		if (steps[i].run(j, e) == 0)
			return journey_set_step(j, steps[i].step, e) == 0 ? 0 : JOURNEY_INTERRUPTED;
		return steps[i].is_undone && e->err != ECANCELED && !j->there.is_lost ? JOURNEY_UNDONE : JOURNEY_INTERRUPTED;
	}
	*is_over = true;
	return 0;
}

/* What was done of it by whoever drove it, now or before. */
static void say_places(const struct journey *j)
{
	const char *domain = j->r.far_domain;

	for (size_t i = 0; i < j->r.disks.count; i++) {
		const struct journey_disk *d = journey_disk(j, i);

		if (d->stays)
			continue;
		if (*domain)
			journey_say(j, "%s is on %s now, active for domain %s: %s", d->name, j->r.host, domain, d->far_uri);
		else
			journey_say(j, "%s is on %s now, free to be started there: %s", d->name, j->r.host, d->far_uri);
	}
}

static enum journey_outcome finish(struct journey *j, struct error *e)
{
	journey_close_way(j);
	if (journey_set_step(j, JOURNEY_DONE, e) == -1)
		return JOURNEY_LEFT;
	journey_show_end(j);
	say_places(j);
	for (size_t i = 0; i < j->r.disks.count; i++)
		if (journey_disk(j, i)->stays) {
			error_set(e, EALREADY, "%s was taken back, and stays here", journey_disk(j, i)->name);
			return JOURNEY_LEFT;
		}
	if (j->r.is_vm_lost)
		error_set(e, ENODATA, "its VM was lost: boot it there, from its disks");
	if (j->r.is_vm_lost)
		return JOURNEY_LEFT;
	if (!j->r.is_unverified)
		return JOURNEY_OK;
	error_set(e, ENODATA, "not every byte could be compared before the switchover");
	return JOURNEY_LEFT;
}

/* What was refused goes; the sentence that said so stays. */
static enum journey_outcome undo_refused(struct journey *j)
{
	struct error why = { 0 };

	if (journey_abort(j, &why) == JOURNEY_UNDONE || journey_step_of(&j->r) == JOURNEY_ABORTED) {
		if (why.err)
			journey_say(j, "%s", why.text);
		return JOURNEY_UNDONE;
	}
	journey_say(j, "what was begun could not be undone yet: %s", why.text);
	return JOURNEY_INTERRUPTED;
}

static enum journey_outcome stop(struct journey *j, enum journey_outcome outcome, struct error *e)
{
	struct error why;

	if (!e->err)
		error_set(e, ENOMEM, "out of memory");
	j->view.is_failed = true;
	if (outcome == JOURNEY_UNDONE)
		return undo_refused(j);
	if (journey_set(&j->r.why, e->text, &why) == 0)
		journey_save(j, &why);
	return journey_step_of(&j->r) >= JOURNEY_MOVED && journey_step_of(&j->r) <= JOURNEY_KEPT && e->err != ECANCELED
		? JOURNEY_LEFT : outcome;
}

int journey_begin(struct journey *j, struct error *e)
{
	return journey_set_step(j, JOURNEY_PLANNED, e);
}

enum journey_outcome journey_run(struct journey *j, struct error *e)
{
	bool is_over = false;
	int outcome = 0;

	error_clear(e);
	if (journey_open_view(j, e) == -1)
		return JOURNEY_INTERRUPTED;
	if (journey_step_of(&j->r) >= JOURNEY_ABORTING)
		return journey_abort(j, e);
	if (journey_unpause(j, e) == -1)
		return stop(j, JOURNEY_INTERRUPTED, e);
	while (!is_over && !outcome)
		outcome = journey_check(j, e) == -1 ? JOURNEY_INTERRUPTED : take_step(j, e, &is_over);
	return outcome ? stop(j, (enum journey_outcome)outcome, e) : finish(j, e);
}
