/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * view-json - see view-json.h
 *
 * Tables, and records that they know: filled from the view, or the view from them.
 * Can fail: a line that is none, as a crash leaves the last one of a file; memory.
 */
#include "migrate/view-json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"

struct shown_disk {
	char *name, *operation, *remote, *state, *why;
	bool is_copy, is_complete, is_failed, is_linked, is_sync, is_given, is_verified, is_remembered;
	int64_t size, total, done, dirty, lag, sent, zeroed, skipped, copied, overflow, rate, limit, guest_rate, guest_ops;
	int64_t guest_latency_us, guest_p99_us, pace_ops, links_lost, eta_ms, downtime_ms, running_ms;
};
#define DISK(member, kind, field) \
	{ .name = member, .type = kind, .offset = offsetof(struct shown_disk, field), .is_optional = true }
#define MUST(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct shown_disk, field) }
static const struct jsonspec_field disk_fields[] = {
	MUST("name", JS_STRING, name), DISK("operation", JS_STRING, operation), DISK("remote", JS_STRING, remote),
	MUST("state", JS_STRING, state), DISK("why", JS_STRING, why), DISK("copy", JS_BOOL, is_copy),
	DISK("complete", JS_BOOL, is_complete), DISK("failed", JS_BOOL, is_failed), DISK("linked", JS_BOOL, is_linked),
	DISK("sync", JS_BOOL, is_sync), DISK("given", JS_BOOL, is_given), DISK("link_verified", JS_BOOL, is_verified),
	DISK("remembered", JS_BOOL, is_remembered),
	DISK("size_bytes", JS_INT64, size), MUST("total_bytes", JS_INT64, total), MUST("done_bytes", JS_INT64, done),
	MUST("dirty_bytes", JS_INT64, dirty), MUST("lag_bytes", JS_INT64, lag), DISK("sent_bytes", JS_INT64, sent),
	DISK("zeroed_bytes", JS_INT64, zeroed), DISK("skipped_bytes", JS_INT64, skipped), DISK("copied_bytes", JS_INT64, copied),
	DISK("overflow_bytes", JS_INT64, overflow), MUST("rate_bytes", JS_INT64, rate), DISK("limit_bytes", JS_INT64, limit),
	MUST("guest_rate_bytes", JS_INT64, guest_rate), DISK("guest_rate_ops", JS_INT64, guest_ops),
	MUST("guest_latency_us", JS_INT64, guest_latency_us), MUST("guest_p99_us", JS_INT64, guest_p99_us),
	DISK("pace_ops", JS_INT64, pace_ops), DISK("links_lost", JS_INT64, links_lost), MUST("eta_ms", JS_INT64, eta_ms),
	MUST("downtime_ms", JS_INT64, downtime_ms), DISK("running_ms", JS_INT64, running_ms), { .name = NULL },
};
static const struct jsonspec disk_spec = { "disk", sizeof(struct shown_disk), disk_fields };

struct shown {
	char *id, *phase, *why;
	bool is_failed, is_late;
	int64_t finish_by, time, started, held, released, ended, eta_ms, downtime_ms;
	struct jsonspec_records disks;
};
#define VIEW(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct shown, field), .is_optional = true }
static const struct jsonspec_field view_fields[] = {
	{ .name = "time", .type = JS_INT64, .offset = offsetof(struct shown, time) },
	{ .name = "id", .type = JS_STRING, .offset = offsetof(struct shown, id) },
	{ .name = "phase", .type = JS_STRING, .offset = offsetof(struct shown, phase) },
	VIEW("why", JS_STRING, why), VIEW("started", JS_INT64, started), VIEW("held", JS_INT64, held),
	VIEW("released", JS_INT64, released), VIEW("ended", JS_INT64, ended), VIEW("failed", JS_BOOL, is_failed),
	VIEW("finish_by", JS_INT64, finish_by), VIEW("late", JS_BOOL, is_late),
	{ .name = "eta_ms", .type = JS_INT64, .offset = offsetof(struct shown, eta_ms) },
	{ .name = "downtime_ms", .type = JS_INT64, .offset = offsetof(struct shown, downtime_ms) },
	{ .name = "disks", .type = JS_RECORDS, .offset = offsetof(struct shown, disks), .sub = &disk_spec },
	{ .name = NULL },
};
static const struct jsonspec view_spec = { "line of a move", sizeof(struct shown), view_fields };

/* --- to */

static int64_t number(uint64_t n)
{
	return n > INT64_MAX ? INT64_MAX : (int64_t)n;
}

/* What is encoded is not changed. */
static char *borrow(const char *text)
{
	return (char *)(uintptr_t)text;
}

static char *borrow_if(const char *text)
{
	return text && *text ? borrow(text) : NULL;
}

static struct shown_disk disk_of(const struct move_disk *d)
{
	return (struct shown_disk){
		.name = borrow(d->name), .operation = borrow_if(d->operation), .remote = borrow_if(d->remote),
		.state = borrow(d->state), .why = borrow_if(d->why), .is_copy = d->is_copy, .is_complete = d->is_complete,
		.is_failed = d->is_failed, .is_linked = d->is_linked, .is_sync = d->is_sync, .is_given = d->is_given,
		.is_verified = d->is_verified, .is_remembered = d->is_remembered, .size = number(d->size_bytes),
		.total = number(d->total_bytes), .done = number(d->done_bytes), .dirty = number(d->dirty_bytes),
		.lag = number(d->lag_bytes), .sent = number(d->figures.sent_bytes), .zeroed = number(d->figures.zeroed_bytes),
		.skipped = number(d->figures.skipped_bytes), .copied = number(d->figures.copied_bytes),
		.overflow = number(d->figures.overflow_bytes), .rate = number(d->rate_bytes), .limit = number(d->limit_bytes),
		.guest_rate = number(d->guest_rate_bytes), .guest_ops = number(d->guest_rate_ops),
		.guest_latency_us = d->guest_latency_us, .guest_p99_us = d->guest_p99_us, .pace_ops = d->pace_ops,
		.links_lost = d->links_lost, .eta_ms = d->eta_ms, .downtime_ms = d->downtime_ms, .running_ms = d->running_ms,
	};
}

char *view_encode(const struct move_view *v)
{
	CLEANUP_FREE struct shown_disk *disks = calloc(v->disks + 1, sizeof(*disks));
	struct shown s = {
		.id = borrow(v->id), .phase = borrow(v->phase ? v->phase : ""), .why = borrow_if(v->why), .time = v->now_ms,
		.started = v->started_ms, .held = v->held_ms, .released = v->released_ms, .ended = v->ended_ms,
		.is_failed = v->is_failed, .finish_by = v->finish_by_ms, .is_late = v->is_late,
		.eta_ms = v->eta_ms, .downtime_ms = v->downtime_ms, .disks = { v->disks, disks },
	};

	if (!disks)
		return NULL;
	for (unsigned i = 0; i < v->disks; i++)
		disks[i] = disk_of(&v->disk[i]);
	return jsonspec_encode(&view_spec, &s);
}

char *view_encode_disk(const struct move_disk *d)
{
	struct shown_disk s = disk_of(d);

	return jsonspec_encode(&disk_spec, &s);
}

/* --- and back */

static uint64_t positive(int64_t n)
{
	return n > 0 ? (uint64_t)n : 0;
}

static int64_t known(int64_t n)
{
	return n < 0 ? VIEW_UNKNOWN : n;
}

static void copy_text(char *to, size_t bytes, const char *from)
{
	snprintf(to, bytes, "%s", from ? from : "");
}

static void take_disk(struct move_disk *d, const struct shown_disk *s)
{
	copy_text(d->operation, sizeof(d->operation), s->operation);
	copy_text(d->remote, sizeof(d->remote), s->remote);
	copy_text(d->state, sizeof(d->state), s->state);
	copy_text(d->why, sizeof(d->why), s->why);
	d->is_copy = s->is_copy;
	d->is_complete = s->is_complete;
	d->is_failed = s->is_failed;
	d->is_linked = s->is_linked;
	d->is_sync = s->is_sync;
	d->is_given = s->is_given;
	d->is_verified = s->is_verified;
	d->is_remembered = s->is_remembered;
	d->size_bytes = positive(s->size);
	d->total_bytes = positive(s->total);
	d->done_bytes = positive(s->done);
	d->dirty_bytes = positive(s->dirty);
	d->lag_bytes = positive(s->lag);
	d->figures = (struct view_figures){
		.sent_bytes = positive(s->sent), .zeroed_bytes = positive(s->zeroed), .skipped_bytes = positive(s->skipped),
		.copied_bytes = positive(s->copied), .overflow_bytes = positive(s->overflow),
	};
	d->rate_bytes = positive(s->rate);
	d->limit_bytes = positive(s->limit);
	d->guest_rate_bytes = positive(s->guest_rate);
	d->guest_rate_ops = positive(s->guest_ops);
	d->guest_latency_us = known(s->guest_latency_us);
	d->guest_p99_us = known(s->guest_p99_us);
	d->pace_ops = s->pace_ops;
	d->links_lost = s->links_lost;
	d->eta_ms = known(s->eta_ms);
	d->downtime_ms = known(s->downtime_ms);
	d->running_ms = s->running_ms;
}

static int take(struct move_view *v, const struct shown *s, char phase[static VIEW_PHASE_MAX], struct error *e)
{
	const struct shown_disk *disk = s->disks.item;

	view_set_id(v, s->id);
	copy_text(phase, VIEW_PHASE_MAX, s->phase);
	copy_text(v->why, sizeof(v->why), s->why);
	v->phase = phase;
	v->now_ms = s->time;
	v->started_ms = s->started;
	v->held_ms = s->held;
	v->released_ms = s->released;
	v->ended_ms = s->ended;
	v->is_failed = s->is_failed;
	v->finish_by_ms = s->finish_by;
	v->is_late = s->is_late;
	v->eta_ms = known(s->eta_ms);
	v->downtime_ms = known(s->downtime_ms);
	for (size_t i = 0; i < s->disks.count; i++) {
		struct move_disk *d = view_add_disk(v, disk[i].name, e);

		if (!d)
			return -1;
		take_disk(d, &disk[i]);
	}
	return 0;
}

int view_decode(const char *text, size_t bytes, struct move_view *v, char phase[static VIEW_PHASE_MAX], struct error *e)
{
	struct shown s;
	int r;

	*v = (struct move_view){ 0 };
	if (jsonspec_decode(&view_spec, text, bytes, &s, e) == -1)
		return -1;
	r = take(v, &s, phase, e);
	jsonspec_clear(&view_spec, &s);
	if (r == -1)
		view_clear(v);
	return r;
}
