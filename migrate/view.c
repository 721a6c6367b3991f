/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * view - see view.h
 *
 *      status, JSON --decode--> the operation that is meant ----> struct move_disk: what is
 *                     |                                               |
 *                     '-------> all guests' domains, added up         | view_advance()
 *                                                                     v
 *                     what was at the last interval ---------> rates, latencies, when it is done
 *
 * Counters begin anew when a process has died: what is less than it was is counted from nothing, so no rate is ever negative.
 * Can fail: what is no status; memory.
 */
#include "migrate/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsonspec.h"
#include "migrate/eta.h"

/* --- a status, of which we know what we use */

struct seen_operation {
	char *id, *state, *why, *remote, *pace_why;
	bool is_copy, is_failed, is_complete, is_ended, is_stalled, is_sync, is_linked, is_pace_at_limit, is_given, is_verified;
	bool is_remembered;
	int64_t total, dirty, lag, rate, limit, sent, zeroed, skipped, copied, overflow, pace_us, pace_ops, running_ms, ready_ms;
	int64_t link, links_lost, latency_us, flush_us;
};
#define SEEN(member, kind, field) \
	{ .name = member, .type = kind, .offset = offsetof(struct seen_operation, field), .is_optional = true }
static const struct jsonspec_field operation_fields[] = {
	{ .name = "id", .type = JS_STRING, .offset = offsetof(struct seen_operation, id) },
	{ .name = "state", .type = JS_STRING, .offset = offsetof(struct seen_operation, state) },
	SEEN("why", JS_STRING, why), SEEN("remote", JS_STRING, remote), SEEN("pace_why", JS_STRING, pace_why),
	SEEN("copy", JS_BOOL, is_copy), SEEN("failed", JS_BOOL, is_failed), SEEN("complete", JS_BOOL, is_complete),
	SEEN("ended", JS_BOOL, is_ended), SEEN("stalled", JS_BOOL, is_stalled), SEEN("sync", JS_BOOL, is_sync),
	SEEN("linked", JS_BOOL, is_linked), SEEN("pace_at_limit", JS_BOOL, is_pace_at_limit), SEEN("given", JS_BOOL, is_given),
	SEEN("link_verified", JS_BOOL, is_verified), SEEN("remembered", JS_BOOL, is_remembered),
	SEEN("total_bytes", JS_INT64, total), SEEN("dirty_bytes", JS_INT64, dirty), SEEN("lag_bytes", JS_INT64, lag),
	SEEN("rate_bytes", JS_INT64, rate), SEEN("limit_bytes", JS_INT64, limit), SEEN("sent_bytes", JS_INT64, sent),
	SEEN("zeroed_bytes", JS_INT64, zeroed), SEEN("skipped_bytes", JS_INT64, skipped),
	SEEN("copied_bytes", JS_INT64, copied), SEEN("overflow_bytes", JS_INT64, overflow), SEEN("pace_us", JS_INT64, pace_us),
	SEEN("pace_ops", JS_INT64, pace_ops), SEEN("running_ms", JS_INT64, running_ms), SEEN("ready_ms", JS_INT64, ready_ms),
	SEEN("far_latency_us", JS_INT64, latency_us), SEEN("far_flush_us", JS_INT64, flush_us),
	SEEN("link", JS_INT64, link), SEEN("links_lost", JS_INT64, links_lost), { .name = NULL },
};
static const struct jsonspec operation_spec = { "operation", sizeof(struct seen_operation), operation_fields };

struct seen_domain {
	char *domain;
	int64_t writes, bytes_written, write_us, reads, bytes_read;
	struct jsonspec_ranges times;
};
#define GUEST(member, kind, field) \
	{ .name = member, .type = kind, .offset = offsetof(struct seen_domain, field), .is_optional = true }
static const struct jsonspec_field domain_fields[] = {
	{ .name = "domain", .type = JS_STRING, .offset = offsetof(struct seen_domain, domain) },
	GUEST("writes", JS_INT64, writes), GUEST("bytes_written", JS_INT64, bytes_written), GUEST("write_us", JS_INT64, write_us),
	GUEST("reads", JS_INT64, reads), GUEST("bytes_read", JS_INT64, bytes_read), GUEST("write_times", JS_RANGES, times),
	{ .name = NULL },
};
static const struct jsonspec domain_spec = { "domain", sizeof(struct seen_domain), domain_fields };

struct seen {
	int64_t size;
	struct jsonspec_records domains, operations;
};
static const struct jsonspec_field seen_fields[] = {
	{ .name = "size_bytes", .type = JS_INT64, .offset = offsetof(struct seen, size), .is_optional = true },
	{ .name = "domains", .type = JS_RECORDS, .offset = offsetof(struct seen, domains), .sub = &domain_spec,
	  .is_optional = true },
	{ .name = "operations", .type = JS_RECORDS, .offset = offsetof(struct seen, operations), .sub = &operation_spec },
	{ .name = NULL },
};
static const struct jsonspec seen_spec = { "status", sizeof(struct seen), seen_fields };

static uint64_t positive(int64_t n)
{
	return n > 0 ? (uint64_t)n : 0;
}

static void copy_text(char *to, size_t bytes, const char *from)
{
	size_t length = from ? strnlen(from, bytes - 1) : 0;

	if (length)
		memcpy(to, from, length);
	to[length] = '\0';
}

static const struct seen_operation *choose(const struct jsonspec_records *l, const char *id)
{
	const struct seen_operation *o = l->item, *found = NULL;

	for (size_t i = 0; i < l->count; i++) {
		if (id && *id) {
			if (strcmp(o[i].id, id) == 0)
				return &o[i];
		} else if (!found || found->is_copy || !o[i].is_copy) {
			found = &o[i];
		}
	}
	return found;
}

/* --- the guests */

/* Both are ascending. */
static void add_times(struct view_latency *l, const struct jsonspec_ranges *times)
{
	unsigned at = 0;

	for (size_t i = 0; i < times->count; i++) {
		uint64_t us = positive(times->item[i].start), count = positive(times->item[i].length);

		while (at < l->count && l->item[at].us < us)
			at++;
		if (at < l->count && l->item[at].us == us) {
			l->item[at].count += count;
			continue;
		}
		if (l->count == VIEW_BUCKETS_MAX || (i && times->item[i - 1].start >= times->item[i].start))
			return;
		memmove(&l->item[at + 1], &l->item[at], (l->count - at) * sizeof(l->item[0]));
		l->item[at] = (struct view_bucket){ us, count };
		l->count++;
	}
}

/* A receiver's domain is no guest. */
static void add_guests(struct view_figures *f, const struct jsonspec_records *l)
{
	const struct seen_domain *d = l->item;

	for (size_t i = 0; i < l->count; i++) {
		if (strncmp(d[i].domain, "MIR", 3) == 0)
			continue;
		f->guest_writes += positive(d[i].writes);
		f->guest_written_bytes += positive(d[i].bytes_written);
		f->guest_write_us += positive(d[i].write_us);
		f->guest_reads += positive(d[i].reads);
		f->guest_read_bytes += positive(d[i].bytes_read);
		add_times(&f->guest, &d[i].times);
	}
}

/* --- the operation */

static const char *reason(const struct seen_operation *o)
{
	if (o->is_failed)
		return o->why && *o->why ? o->why : "it has failed, and does not say why";
	if (o->pace_why && *o->pace_why)
		return o->pace_why;
	if (o->is_ended)
		return "";
	if (!o->is_linked)
		return o->links_lost ? "the link to the far side is lost, and is being made anew" :
				       "the far side is being connected to";
	return o->is_stalled ? "the far side does not answer" : "";
}

static void take_flags(struct move_disk *d, const struct seen_operation *o)
{
	d->is_copy = o->is_copy;
	d->is_complete = o->is_complete;
	d->is_failed = o->is_failed;
	d->is_ended = o->is_ended;
	d->is_linked = o->is_linked;
	d->is_stalled = o->is_stalled;
	d->is_sync = o->is_sync;
	d->is_remembered = o->is_remembered;
	d->is_given = o->is_given;
	d->is_verified = o->is_verified;
	d->is_pace_at_limit = o->is_pace_at_limit;
}

/* What is owed may grow; what was done of it is still done. */
static void take_amounts(struct move_disk *d, const struct seen_operation *o, bool is_same)
{
	uint64_t done;

	d->total_bytes = MAX(positive(o->total), positive(o->dirty));
	d->dirty_bytes = positive(o->dirty);
	d->lag_bytes = positive(o->lag);
	d->limit_bytes = positive(o->limit);
	d->core_rate_bytes = positive(o->rate);
	done = d->total_bytes - d->dirty_bytes;
	d->done_bytes = MIN(is_same ? MAX(done, d->done_bytes) : done, d->total_bytes);
	d->pace_us = o->pace_us;
	d->pace_ops = o->pace_ops;
	d->running_ms = o->running_ms;
	d->ready_ms = o->ready_ms;
	d->link = o->link;
	d->links_lost = o->links_lost;
	d->far_latency_us = positive(o->latency_us);
	d->far_flush_us = positive(o->flush_us);
	d->figures.sent_bytes = positive(o->sent);
	d->figures.zeroed_bytes = positive(o->zeroed);
	d->figures.skipped_bytes = positive(o->skipped);
	d->figures.copied_bytes = positive(o->copied);
	d->figures.overflow_bytes = positive(o->overflow);
}

static void take_operation(struct move_disk *d, const struct seen_operation *o)
{
	bool is_same = strncmp(d->operation, o->id, sizeof(d->operation) - 1) == 0;

	copy_text(d->operation, sizeof(d->operation), o->id);
	copy_text(d->state, sizeof(d->state), o->state);
	copy_text(d->remote, sizeof(d->remote), o->remote);
	copy_text(d->why, sizeof(d->why), reason(o));
	take_flags(d, o);
	take_amounts(d, o, is_same);
}

int view_from_status(struct move_disk *d, const char *text, const char *operation, struct error *e)
{
	const struct seen_operation *o;
	struct seen s;

	if (jsonspec_decode(&seen_spec, text, strlen(text), &s, e) == -1)
		return error_prefix(e, "what the disk's process says");
	o = choose(&s.operations, operation);
	d->figures = (struct view_figures){ 0 };
	d->size_bytes = positive(s.size);
	add_guests(&d->figures, &s.domains);
	if (o)
		take_operation(d, o);
	else
		copy_text(d->state, sizeof(d->state), "");
	jsonspec_clear(&seen_spec, &s);
	return 0;
}

void view_lost(struct move_disk *d, const char *why)
{
	copy_text(d->state, sizeof(d->state), "lost");
	copy_text(d->why, sizeof(d->why), why);
	d->is_linked = false;
}

/* --- the move */

void view_set_id(struct move_view *v, const char *id)
{
	copy_text(v->id, sizeof(v->id), id);
}

struct view_past {
	struct eta eta;
	struct view_figures figures;
	int64_t at_ms;
};

struct move_disk *view_add_disk(struct move_view *v, const char *name, struct error *e)
{
	struct move_disk *grown, *d;

	if (v->disks == VIEW_DISKS_MAX) {
		error_set(e, E2BIG, "a move has at most %u disks", VIEW_DISKS_MAX);
		return NULL;
	}
	grown = reallocarray(v->disk, v->disks + 1, sizeof(*grown));
	if (!grown) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	v->disk = grown;
	d = &grown[v->disks];
	*d = (struct move_disk){ .guest_latency_us = VIEW_UNKNOWN, .guest_p99_us = VIEW_UNKNOWN, .eta_ms = VIEW_UNKNOWN,
				 .downtime_ms = VIEW_UNKNOWN, .past = calloc(1, sizeof(*d->past)) };
	if (!d->past) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	copy_text(d->name, sizeof(d->name), name);
	v->disks++;
	return d;
}

void view_remove_disk(struct move_view *v, unsigned i)
{
	free(v->disk[i].past);
	v->disks--;
	memmove(&v->disk[i], &v->disk[i + 1], (v->disks - i) * sizeof(v->disk[0]));
}

void view_clear(struct move_view *v)
{
	for (unsigned i = 0; i < v->disks; i++)
		free(v->disk[i].past);
	free(v->disk);
	*v = (struct move_view){ 0 };
}

/* --- what follows from two moments */

static uint64_t since(uint64_t before, uint64_t now)
{
	return now >= before ? now - before : now;
}

static uint64_t a_second(uint64_t amount, int64_t ms)
{
	return (uint64_t)((double)amount * 1000.0 / (double)ms);
}

static uint64_t count_before(const struct view_latency *l, uint64_t us)
{
	for (unsigned i = 0; i < l->count; i++)
		if (l->item[i].us == us)
			return l->item[i].count;
	return 0;
}

/* Of the requests between the two, at least 99 in 100 took no longer. */
static int64_t p99_us(const struct view_latency *before, const struct view_latency *now)
{
	uint64_t all = 0, so_far = 0;

	for (unsigned i = 0; i < now->count; i++)
		all += since(count_before(before, now->item[i].us), now->item[i].count);
	for (unsigned i = 0; i < now->count; i++) {
		so_far += since(count_before(before, now->item[i].us), now->item[i].count);
		if (all && so_far * 100 >= all * 99)
			return (int64_t)now->item[i].us;
	}
	return VIEW_UNKNOWN;
}

static uint64_t timed(const struct view_latency *l)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < l->count; i++)
		all += l->item[i].count;
	return all;
}

static void take_rates(struct move_disk *d, const struct view_figures *p, int64_t ms)
{
	const struct view_figures *f = &d->figures;
	uint64_t writes = since(timed(&p->guest), timed(&f->guest)), took_us = since(p->guest_write_us, f->guest_write_us);

	d->rate_bytes = a_second(since(p->sent_bytes, f->sent_bytes), ms);
	d->guest_rate_bytes = a_second(since(p->guest_written_bytes, f->guest_written_bytes), ms);
	d->guest_rate_ops = a_second(since(p->guest_writes, f->guest_writes), ms);
	d->guest_latency_us = writes ? (int64_t)(took_us / writes) : VIEW_UNKNOWN;
	d->guest_p99_us = p99_us(&p->guest, &f->guest);
}

static bool is_over(const struct move_disk *d)
{
	return d->is_ended || d->is_failed || !*d->operation;
}

static void predict(struct move_disk *d, int64_t now_ms)
{
	struct eta_sample s = { .at_ms = now_ms, .total_bytes = d->total_bytes, .owed_bytes = d->dirty_bytes,
				.sent_bytes = d->figures.sent_bytes, .guest_bytes = d->figures.guest_written_bytes,
				.is_moving = d->is_linked && !d->is_stalled, .is_paced = d->pace_ops > 0,
				.is_done = d->is_complete };

	eta_note(&d->past->eta, &s);
	d->eta_ms = is_over(d) && !d->is_complete ? VIEW_UNKNOWN : eta_left_ms(&d->past->eta);
	d->downtime_ms = is_over(d) || !d->is_linked ? VIEW_UNKNOWN :
			 eta_downtime_ms(d->dirty_bytes + d->lag_bytes, d->core_rate_bytes, d->far_latency_us, d->far_flush_us);
}

static void advance(struct move_disk *d, int64_t now_ms)
{
	struct view_past *past = d->past;

	if (past->at_ms && now_ms <= past->at_ms)
		return;
	if (past->at_ms)
		take_rates(d, &past->figures, now_ms - past->at_ms);
	predict(d, now_ms);
	past->figures = d->figures;
	past->at_ms = now_ms;
}

/* One disk's share of the link is the others' when it is through. */
static int64_t together_ms(const struct move_view *v)
{
	int64_t left[VIEW_DISKS_MAX];
	double progress[VIEW_DISKS_MAX];
	unsigned count = 0;

	for (unsigned i = 0; i < v->disks && count < VIEW_DISKS_MAX; i++) {
		if (is_over(&v->disk[i]))
			continue;
		left[count] = v->disk[i].eta_ms;
		progress[count++] = eta_progress_bytes(&v->disk[i].past->eta);
	}
	return count ? eta_together_ms(left, progress, count) : VIEW_UNKNOWN;
}

double view_taken_bytes(const struct move_view *v)
{
	double all = 0;

	for (unsigned i = 0; i < v->disks; i++)
		all += v->disk[i].is_complete ? 0 : eta_taken_bytes(&v->disk[i].past->eta);
	return all;
}

uint64_t view_rate_for(const struct move_view *v, int64_t left_ms)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < v->disks; i++) {
		const struct move_disk *d = &v->disk[i];
		uint64_t rate = d->is_complete ? 0 : eta_rate_for(&d->past->eta, d->dirty_bytes, left_ms);

		all = rate > UINT64_MAX - all ? UINT64_MAX : all + rate;
	}
	return all;
}

void view_advance(struct move_view *v)
{
	v->downtime_ms = VIEW_UNKNOWN;
	for (unsigned i = 0; i < v->disks; i++) {
		advance(&v->disk[i], v->now_ms);
		v->downtime_ms = MAX(v->downtime_ms, v->disk[i].downtime_ms);
	}
	v->eta_ms = together_ms(v);
	for (unsigned i = 0; i < v->disks && v->eta_ms != VIEW_UNKNOWN; i++)
		v->disk[i].eta_ms = MIN(v->disk[i].eta_ms, v->eta_ms);
}
