/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-look - what the disks of a journey do just now: for its decisions, and for who watches
 *
 *      status of each disk's process -> struct journey_look        the mirror that goes our way, who writes
 *                                   '-> struct move_view           view_from_status()
 *
 * The mirror is found by its remote (journey-transport): also one whose name never came to be on record.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/journey-private.h"

#define QUICK_MS 50u
#define QUICK_UNTIL_MS 2000
#define INTERVAL_MS 500u
#define LEFT_SHARE 8 /* of the time that it still takes, one look in so many parts */
#define RESUME_EVERY_MS 1000

struct operation {
	char *id, *remote, *why;
	bool copy, failed, complete, remembered, linked, sync, lagging, ended, given;
	int64_t lag_bytes, dirty_bytes;
};
#define OPERATION(member, kind) { #member, kind, offsetof(struct operation, member) }
static const struct jsonspec_field operation_fields[] = {
	OPERATION(id, JS_STRING), OPERATION(remote, JS_STRING), OPERATION(why, JS_STRING), OPERATION(copy, JS_BOOL),
	OPERATION(failed, JS_BOOL), OPERATION(complete, JS_BOOL), OPERATION(remembered, JS_BOOL), OPERATION(linked, JS_BOOL),
	OPERATION(sync, JS_BOOL), OPERATION(lagging, JS_BOOL), OPERATION(ended, JS_BOOL), OPERATION(given, JS_BOOL),
	OPERATION(lag_bytes, JS_INT64), OPERATION(dirty_bytes, JS_INT64), { NULL },
};
static const struct jsonspec operation_spec = { "operation", sizeof(struct operation), operation_fields };

struct user {
	char *domain;
	bool active, read_only;
};
static const struct jsonspec_field user_fields[] = {
	{ "domain", JS_STRING, offsetof(struct user, domain) }, { "active", JS_BOOL, offsetof(struct user, active) },
	{ "read_only", JS_BOOL, offsetof(struct user, read_only) }, { NULL },
};
static const struct jsonspec user_spec = { "domain", sizeof(struct user), user_fields };
struct owner {
	char *state, *group;
};
static const struct jsonspec_field owner_fields[] = {
	{ "state", JS_STRING, offsetof(struct owner, state) },
	{ "group", JS_STRING, offsetof(struct owner, group), .is_optional = true }, { NULL },
};
static const struct jsonspec owner_spec = { "owner", sizeof(struct owner), owner_fields };
struct status {
	struct owner owner;
	struct jsonspec_records domains, operations;
};
static const struct jsonspec_field status_fields[] = {
	{ "owner", JS_RECORD, offsetof(struct status, owner), .sub = &owner_spec },
	{ "domains", JS_RECORDS, offsetof(struct status, domains), .sub = &user_spec },
	{ "operations", JS_RECORDS, offsetof(struct status, operations), .sub = &operation_spec }, { NULL },
};
static const struct jsonspec status_spec = { "status", sizeof(struct status), status_fields };

/* --- one disk */

static void take_operation(const struct operation *o, struct journey_look *l)
{
	snprintf(l->operation, sizeof(l->operation), "%s", o->id);
	snprintf(l->why, sizeof(l->why), "%s", o->why);
	l->is_failed = o->failed;
	l->is_complete = o->complete;
	l->is_remembered = o->remembered;
	l->is_linked = o->linked;
	l->is_sync = o->sync;
	l->is_lagging = o->lagging;
	l->is_ended = o->ended;
	l->is_given = o->given;
	l->lag_bytes = o->lag_bytes;
	l->dirty_bytes = o->dirty_bytes;
}

static void take_status(const struct journey *j, size_t i, const struct status *s, struct journey_look *l)
{
	const struct operation *o = s->operations.item;
	const struct user *u = s->domains.item;

	for (size_t k = 0; k < s->operations.count; k++)
		if (!o[k].copy && journey_is_remote(j, i, o[k].remote))
			take_operation(&o[k], l); /* the newest */
	for (size_t k = 0; k < s->domains.count; k++)
		if (u[k].active && !u[k].read_only && l->writers++ == 0)
			snprintf(l->writer, sizeof(l->writer), "%s", u[k].domain);
	snprintf(l->owner, sizeof(l->owner), "%s", s->owner.state);
	snprintf(l->group, sizeof(l->group), "%s", s->owner.group ? s->owner.group : "");
}

int journey_look(struct journey *j, size_t i, struct journey_look *l, struct error *e)
{
	CLEANUP_FREE char *text = journey_control(j, i, "status", NULL, e);
	struct error why;
	struct status s;

	*l = (struct journey_look) { 0 };
	if (!text || jsonspec_decode(&status_spec, text, strlen(text), &s, e) == -1) {
		view_lost(&j->view.disk[i], e->text);
		return -1;
	}
	take_status(j, i, &s, l);
	jsonspec_clear(&status_spec, &s);
	if (*l->operation)
		view_from_status(&j->view.disk[i], text, l->operation, &why);
	return 0;
}

/* --- all of them */

static void show(struct journey *j, const char *phase)
{
	j->view.phase = phase;
	j->view.now_ms = journey_now_ms();
	view_advance(&j->view);
	if (j->watch->show)
		j->watch->show(j->watch->arg, &j->view);
}

void journey_show(struct journey *j, const char *phase)
{
	struct journey_look l;
	struct error e;

	for (size_t i = 0; i < j->view.disks; i++)
		journey_look(j, i, &l, &e);
	show(j, phase);
}

/* By the record: a disk whose process has ended, or that another program drove here, is asked nothing. */
void journey_show_end(struct journey *j)
{
	for (size_t i = 0; i < j->view.disks; i++) {
		struct move_disk *d = &j->view.disk[i];

		d->is_given = d->is_complete = !journey_disk(j, i)->stays;
		d->is_ended = d->is_failed = journey_disk(j, i)->stays;
		d->is_linked = d->is_stalled = d->is_remembered = false;
		snprintf(d->state, sizeof(d->state), "ended");
		snprintf(d->why, sizeof(d->why), "%s", d->is_given ? "" : "it was taken back, and stays here");
	}
	show(j, "done");
}

/* --- until they are the same */

/* What is remembered is resumed; the mirror says how that went when it is looked at again. 0: it goes on, or may. */
static int mend(struct journey *j, size_t i, const struct journey_look *l, bool is_due, struct error *e)
{
	struct error why;

	if (!l->is_remembered)
		return error_set(e, EIO, "the mirror of %s has failed: %s", journey_disk(j, i)->name,
				 *l->why ? l->why : "it ended");
	if (!is_due)
		return 0;
	journey_reopen_way(j);
	if (journey_start_mirror(j, i, true, &why) == -1)
		snprintf(j->view.why, sizeof(j->view.why), "%.200s", why.text);
	return 0;
}

/* Why the mirrors have none is known to whoever makes it. Who is not let in is not let in later; a person has to come. */
static int check_way(struct journey *j, struct error *e)
{
	struct error why = { 0 };

	if (journey_is_tcp(j) || !j->tunnel || tunnel_way(j->tunnel, &why) == 0)
		return 0;
	snprintf(j->view.why, sizeof(j->view.why), "%.200s", why.text);
	if (why.err != EACCES)
		return 0;
	*e = why;
	return -1;
}

/* 1: all are complete, and have a link: the switchover is asked for over it. */
static int look_at_all(struct journey *j, int64_t *good_ms, int64_t *tried_ms, struct error *e)
{
	bool is_due = journey_now_ms() - *tried_ms >= RESUME_EVERY_MS; /* for all that need it */
	size_t complete = 0, good = 0;

	for (size_t i = 0; i < j->r.disks.count; i++) {
		struct journey_look l;

		if (journey_look(j, i, &l, e) == -1)
			return -1;
		if (!*l.operation || l.is_failed || l.is_ended) {
			if (mend(j, i, &l, is_due, e) == -1)
				return -1;
			*tried_ms = is_due ? journey_now_ms() : *tried_ms;
			continue;
		}
		good += l.is_linked;
		complete += l.is_complete;
	}
	if (good < j->r.disks.count && check_way(j, e) == -1)
		return -1;
	if (good == j->r.disks.count) {
		*good_ms = journey_now_ms();
		j->view.why[0] = '\0';
	} else if (journey_now_ms() - *good_ms > j->watch->patience_s * 1000) {
		return error_set(e, ETIMEDOUT, "the mirror has had no way to %s for %" PRId64 " s: %s", j->r.host,
				 j->watch->patience_s,
				 j->view.why);
	}
	return complete == j->r.disks.count && good == complete;
}

/* Often at the beginning, and towards its end: who waits for it is not to wait for us. */
static unsigned interval_ms(const struct journey *j, int64_t began_ms)
{
	int64_t left_ms = j->view.eta_ms;

	if (journey_now_ms() - began_ms < QUICK_UNTIL_MS)
		return QUICK_MS;
	return left_ms < 0 ? INTERVAL_MS : (unsigned)MIN(MAX(left_ms / LEFT_SHARE, (int64_t)QUICK_MS), (int64_t)INTERVAL_MS);
}

int journey_await_sync(struct journey *j, struct error *e)
{
	int64_t began_ms = journey_now_ms(), good_ms = began_ms, tried_ms = 0;

	for (;;) {
		int r = look_at_all(j, &good_ms, &tried_ms, e);

		show(j, r == 1 ? "in sync" : "mirroring");
		if (r)
			return r == 1 ? 0 : -1;
		if (journey_check(j, e) == -1)
			return -1;
		journey_apply_limit(j);
		journey_pause(interval_ms(j, began_ms));
	}
}
