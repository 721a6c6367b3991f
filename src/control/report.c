/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * report - what the verbs that only ask answer, as JSON
 *
 * Tables, and functions that fill their records from the vdi room's numbers.  Strings in the records are borrowed.
 * Can fail: memory only.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/histogram.h"
#include "base/jsonspec.h"
#include "config.h"
#include "control/report.h"

#define OPERATIONS_MAX 32u
#define DOMAINS_REPORTED_MAX 256u
#define VERIFICATIONS_MAX 8u

/* --- hello, attach */

struct hello {
	char *version, *id, *path;
	int64_t pid;
};
static const struct jsonspec_field hello_fields[] = {
	{ .name = "version", .type = JS_STRING, .offset = offsetof(struct hello, version) },
	{ .name = "pid", .type = JS_INT64, .offset = offsetof(struct hello, pid) },
	{ .name = "id", .type = JS_STRING, .offset = offsetof(struct hello, id) },
	{ .name = "path", .type = JS_STRING, .offset = offsetof(struct hello, path) },
	{ .name = NULL },
};
static const struct jsonspec hello_spec = { "hello", sizeof(struct hello), hello_fields };

/* Records are encoded, not changed. */
static char *borrow(const char *text)
{
	return (char *)(uintptr_t)text;
}

char *report_hello(const char *id, const char *path)
{
	struct hello r = { .version = borrow(PACKAGE_VERSION), .id = borrow(id), .path = borrow(path), .pid = getpid() };

	return jsonspec_encode(&hello_spec, &r);
}

struct attach {
	char *socket, *export;
};
static const struct jsonspec_field attach_fields[] = {
	{ .name = "socket", .type = JS_STRING, .offset = offsetof(struct attach, socket) },
	{ .name = "export", .type = JS_STRING, .offset = offsetof(struct attach, export) },
	{ .name = NULL },
};
static const struct jsonspec attach_spec = { "attach", sizeof(struct attach), attach_fields };

char *report_attach(const char *socket, const char *export)
{
	struct attach r = { .socket = borrow(socket), .export = borrow(export) };

	return jsonspec_encode(&attach_spec, &r);
}

char *report_snapshot(const struct vdi_snapshot_result *r)
{
	char *text;

	if (asprintf(&text, "{\"held_us\":%" PRIu64 ",\"waited\":%" PRIu64 ",\"longest_wait_us\":%" PRIu64 ",\"clones\":%" PRIu64
		     ",\"took_us\":%" PRIu64 "}", r->held_us, r->waited, r->longest_wait_us, r->clones, r->took_us) < 0)
		return NULL;
	return text;
}

/* --- operations */

struct operation_report {
	char *id, *state, *why, *remote, *pace_why, *barrier;
	bool is_copy, is_failed, is_complete, is_ended, is_stalled, is_sync, is_lagging, is_linked, is_pace_at_limit;
	bool is_unfenced, is_given, is_verified, is_remembered;
	double progress;
	int64_t dirty, lag, lag_ops, rate, limit, sent, zeroed, skipped, copied, overflow, total, pace_us, pace_ops, eta_ms;
	int64_t allocated, latency_us, flush_us;
	int64_t running_ms, ready_ms, link, links_lost, marked;
};
#define REPORT(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct operation_report, field) }
static const struct jsonspec_field stat_fields[] = {
	REPORT("failed", JS_BOOL, is_failed), REPORT("complete", JS_BOOL, is_complete), REPORT("progress", JS_FLOAT, progress),
	REPORT("text", JS_STRING, why), { .name = NULL },
};
static const struct jsonspec stat_spec = { "stat", sizeof(struct operation_report), stat_fields };
static const struct jsonspec_field listed_fields[] = {
	REPORT("id", JS_STRING, id), REPORT("copy", JS_BOOL, is_copy), { .name = NULL },
};
static const struct jsonspec listed_spec = { "operation", sizeof(struct operation_report), listed_fields };
static const struct jsonspec_field operation_fields[] = {
	REPORT("id", JS_STRING, id), REPORT("copy", JS_BOOL, is_copy), REPORT("state", JS_STRING, state),
	REPORT("failed", JS_BOOL, is_failed), REPORT("complete", JS_BOOL, is_complete), REPORT("ended", JS_BOOL, is_ended),
	REPORT("stalled", JS_BOOL, is_stalled), REPORT("why", JS_STRING, why), REPORT("remote", JS_STRING, remote),
	REPORT("progress", JS_FLOAT, progress), REPORT("total_bytes", JS_INT64, total), REPORT("dirty_bytes", JS_INT64, dirty),
	REPORT("lag_bytes", JS_INT64, lag), REPORT("lag_ops", JS_INT64, lag_ops), REPORT("rate_bytes", JS_INT64, rate),
	REPORT("limit_bytes", JS_INT64, limit),
	REPORT("sent_bytes", JS_INT64, sent), REPORT("zeroed_bytes", JS_INT64, zeroed),
	REPORT("skipped_bytes", JS_INT64, skipped), REPORT("copied_bytes", JS_INT64, copied),
	REPORT("overflow_bytes", JS_INT64, overflow), REPORT("pace_us", JS_INT64, pace_us),
	REPORT("pace_ops", JS_INT64, pace_ops), REPORT("pace_why", JS_STRING, pace_why),
	REPORT("pace_at_limit", JS_BOOL, is_pace_at_limit), REPORT("eta_ms", JS_INT64, eta_ms),
	REPORT("far_latency_us", JS_INT64, latency_us), REPORT("far_flush_us", JS_INT64, flush_us),
	REPORT("source_allocated_bytes", JS_INT64, allocated), REPORT("sync", JS_BOOL, is_sync),
	REPORT("lagging", JS_BOOL, is_lagging), REPORT("linked", JS_BOOL, is_linked), REPORT("link", JS_INT64, link),
	REPORT("links_lost", JS_INT64, links_lost), REPORT("marked_regions", JS_INT64, marked),
	REPORT("unfenced", JS_BOOL, is_unfenced), REPORT("barrier", JS_STRING, barrier), REPORT("given", JS_BOOL, is_given),
	REPORT("link_verified", JS_BOOL, is_verified), REPORT("remembered", JS_BOOL, is_remembered),
	REPORT("running_ms", JS_INT64, running_ms), REPORT("ready_ms", JS_INT64, ready_ms), { .name = NULL },
};
static const struct jsonspec operation_spec = { "operation", sizeof(struct operation_report), operation_fields };

static int64_t number(uint64_t n)
{
	return n > INT64_MAX ? -1 : (int64_t)n;
}

static void fill_times(const struct mirror_status *m, struct operation_report *out)
{
	uint64_t until = m->ended_ns ? m->ended_ns : loop_now_ns();

	if (!m->started_ns)
		return;
	out->running_ms = number((until - m->started_ns) / NS_PER_MS);
	out->ready_ms = m->ready_ns ? number((m->ready_ns - m->started_ns) / NS_PER_MS) : 0;
}

static void fill(const struct vdi_operation_status *s, struct operation_report *out)
{
	const struct core_status *c = &s->mirror.core;

	*out = (struct operation_report){
		.id = borrow(s->id), .state = borrow(core_state_name(c->state)),
		.why = borrow(s->is_failed ? s->why.text : ""),
		.remote = borrow(s->mirror.remote), .is_copy = s->is_copy, .is_failed = s->is_failed,
		.is_complete = s->is_complete, .is_ended = s->is_ended, .is_stalled = c->is_stalled,
		.progress = s->progress, .dirty = number(c->dirty_bytes), .lag = number(c->lag_bytes),
		.lag_ops = number(c->lag_ops),
		.rate = number(c->rate_bytes), .limit = number(c->limit_bytes), .sent = number(c->sent_bytes),
		.zeroed = number(c->zero_bytes),
		.skipped = number(c->skipped_bytes), .copied = number(c->copied_bytes), .overflow = number(c->overflow_bytes),
		.total = number(c->total_bytes), .pace_us = c->pace_us, .pace_ops = number(c->pace_ops),
		.pace_why = borrow(c->pace_why ? c->pace_why : ""), .is_pace_at_limit = c->is_pace_at_limit,
		.eta_ms = number(c->eta_ms), .latency_us = number(c->latency_ns / 1000), .flush_us = number(c->flush_ns / 1000),
		.allocated = number(s->mirror.source_allocated_bytes), .is_sync = c->is_sync, .is_lagging = c->is_lagging,
		.is_linked = s->mirror.is_up && !s->is_ended, .link = number(c->generation), .links_lost = s->mirror.links_lost,
		.marked = number(c->marked_regions),
		.is_unfenced = s->mirror.is_connected && !s->mirror.is_sxm && !s->is_copy,
		.barrier = borrow(s->is_copy ? "" : mirror_barrier_means(&s->mirror)),
		.is_given = s->is_given, .is_verified = s->is_verified, .is_remembered = s->is_remembered,
	};
	fill_times(&s->mirror, out);
}

char *report_stat(const struct vdi *v, const char *id)
{
	struct operation_report r = { .is_failed = true, .why = borrow("this process knows no such operation") };
	struct vdi_operation_status s;

	if (vdi_operation(v, id, &s) == 0)
		fill(&s, &r);
	return jsonspec_encode(&stat_spec, &r);
}

/* Statuses are borrowed by the reports: both live until encoded. */
struct operations {
	struct vdi_operation_status status[OPERATIONS_MAX];
	struct operation_report report[OPERATIONS_MAX];
	size_t count;
};

static struct operations *collect(const struct vdi *v)
{
	struct operations *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->count = vdi_operations(v, o->status, OPERATIONS_MAX);
	for (size_t i = 0; i < o->count; i++)
		fill(&o->status[i], &o->report[i]);
	return o;
}

char *report_list(const struct vdi *v)
{
	CLEANUP_FREE struct operations *o = collect(v);
	CLEANUP_FREE char *list = o ? jsonspec_array(&listed_spec, o->report, o->count) : NULL;
	char *text;

	return !list || asprintf(&text, "{\"operations\":%s}", list) == -1 ? NULL : text;
}

/* --- verifications */

struct verification_report {
	char *id, *state, *why, *remote;
	bool is_verified, is_different_cut, is_unsettled_cut;
	double progress;
	int64_t total, done, skipped, read, suspect, different_bytes, unsettled_bytes, rate, running_ms;
	struct jsonspec_ranges different, unsettled;
};
#define VERIFICATION(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct verification_report, field) }
static const struct jsonspec_field verification_fields[] = {
	VERIFICATION("id", JS_STRING, id), VERIFICATION("state", JS_STRING, state),
	VERIFICATION("verified", JS_BOOL, is_verified), VERIFICATION("text", JS_STRING, why),
	VERIFICATION("remote", JS_STRING, remote), VERIFICATION("progress", JS_FLOAT, progress),
	VERIFICATION("total_bytes", JS_INT64, total), VERIFICATION("done_bytes", JS_INT64, done),
	VERIFICATION("skipped_bytes", JS_INT64, skipped), VERIFICATION("read_bytes", JS_INT64, read),
	VERIFICATION("suspect_bytes", JS_INT64, suspect), VERIFICATION("rate_bytes", JS_INT64, rate),
	VERIFICATION("running_ms", JS_INT64, running_ms),
	VERIFICATION("different_bytes", JS_INT64, different_bytes), VERIFICATION("different", JS_RANGES, different),
	VERIFICATION("different_cut", JS_BOOL, is_different_cut),
	VERIFICATION("unsettled_bytes", JS_INT64, unsettled_bytes), VERIFICATION("unsettled", JS_RANGES, unsettled),
	VERIFICATION("unsettled_cut", JS_BOOL, is_unsettled_cut), { .name = NULL },
};
static const struct jsonspec verification_spec = {
	"verification", sizeof(struct verification_report), verification_fields
};

/* A report and what it borrows. */
struct verification {
	struct vdi_verification_status status;
	struct verification_report report;
	struct jsonspec_range different[VERIFY_DIFFERENT_MAX], unsettled[VERIFY_UNSETTLED_MAX];
};

static struct jsonspec_ranges fill_ranges(const struct verify_list *l, struct jsonspec_range *out)
{
	for (size_t i = 0; i < l->count; i++)
		out[i] = (struct jsonspec_range){ number(l->item[i].start), number(range_length(l->item[i])) };
	return (struct jsonspec_ranges){ l->count, out };
}

static void fill_verification(struct verification *v)
{
	const struct verify_status *s = &v->status.verify;
	const struct verify_result *r = &s->result;
	uint64_t until = s->ended_ns ? s->ended_ns : loop_now_ns(), ns = s->running_ns ? until - s->running_ns : 0;

	v->report = (struct verification_report){
		.id = borrow(v->status.id), .state = borrow(verify_state_name(s->state)), .is_verified = s->is_verified,
		.why = borrow(s->why.text), .remote = borrow(s->remote),
		.progress = r->total_bytes ? (double)r->done_bytes / (double)r->total_bytes : s->state == VERIFY_COMPLETE,
		.total = number(r->total_bytes), .done = number(r->done_bytes), .skipped = number(r->skipped_bytes),
		.read = number(r->read_bytes), .suspect = number(r->suspect_bytes),
		.rate = ns ? (int64_t)((double)r->read_bytes / ((double)ns / (double)NS_PER_S)) : 0,
		.running_ms = number(ns / NS_PER_MS),
		.different_bytes = number(r->different_bytes), .is_different_cut = r->different.is_cut,
		.different = fill_ranges(&r->different, v->different),
		.unsettled_bytes = number(r->unsettled_bytes), .is_unsettled_cut = r->unsettled.is_cut,
		.unsettled = fill_ranges(&r->unsettled, v->unsettled),
	};
}

char *report_verification(const struct vdi *v, const char *id)
{
	CLEANUP_FREE struct verification *one = calloc(1, sizeof(*one));

	if (!one || vdi_verification(v, id, &one->status) == -1)
		return NULL;
	fill_verification(one);
	return jsonspec_encode(&verification_spec, &one->report);
}

struct verifications {
	struct vdi_verification_status status[VERIFICATIONS_MAX];
	struct verification item[VERIFICATIONS_MAX];
	struct verification_report report[VERIFICATIONS_MAX];
	size_t count;
};

static struct verifications *collect_verifications(const struct vdi *v)
{
	struct verifications *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->count = vdi_verifications(v, l->status, VERIFICATIONS_MAX);
	for (size_t i = 0; i < l->count; i++) {
		l->item[i].status = l->status[i];
		fill_verification(&l->item[i]);
		l->report[i] = l->item[i].report;
	}
	return l;
}

/* --- status */

struct domain_report {
	char *domain, *socket, *backend, *had;
	bool is_active, is_read_only, is_served, is_connected;
	int64_t ring_errors, ring_left;
	int64_t clients, reads, writes, flushes, trims, zeroes, bytes_read, bytes_written, read_us, write_us;
	struct jsonspec_ranges times;
};
#define DOMAIN(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct domain_report, field) }
static const struct jsonspec_field domain_fields[] = {
	DOMAIN("domain", JS_STRING, domain), DOMAIN("socket", JS_STRING, socket), DOMAIN("active", JS_BOOL, is_active),
	DOMAIN("read_only", JS_BOOL, is_read_only), DOMAIN("served", JS_BOOL, is_served),
	DOMAIN("backend", JS_STRING, backend), DOMAIN("had", JS_STRING, had), DOMAIN("connected", JS_BOOL, is_connected),
	DOMAIN("ring_errors", JS_INT64, ring_errors), DOMAIN("ring_left", JS_INT64, ring_left),
	DOMAIN("clients", JS_INT64, clients),
	DOMAIN("reads", JS_INT64, reads), DOMAIN("writes", JS_INT64, writes), DOMAIN("flushes", JS_INT64, flushes),
	DOMAIN("trims", JS_INT64, trims), DOMAIN("zeroes", JS_INT64, zeroes), DOMAIN("bytes_read", JS_INT64, bytes_read),
	DOMAIN("bytes_written", JS_INT64, bytes_written), DOMAIN("read_us", JS_INT64, read_us),
	DOMAIN("write_us", JS_INT64, write_us), DOMAIN("write_times", JS_RANGES, times), { .name = NULL },
};
static const struct jsonspec domain_spec = { "domain", sizeof(struct domain_report), domain_fields };

struct owner_report {
	char *state, *mirror, *epoch, *generation, *group;
	int64_t links;
	bool was_written, is_unverified;
};
#define OWNER(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct owner_report, field) }
static const struct jsonspec_field owner_fields[] = {
	OWNER("state", JS_STRING, state), OWNER("epoch", JS_STRING, epoch), OWNER("mirror", JS_STRING, mirror),
	OWNER("generation", JS_STRING, generation), OWNER("links", JS_INT64, links), OWNER("written", JS_BOOL, was_written),
	OWNER("unverified", JS_BOOL, is_unverified), OWNER("group", JS_STRING, group), { .name = NULL },
};
static const struct jsonspec owner_spec = { "owner", sizeof(struct owner_report), owner_fields };

struct owner_texts {
	char epoch[24], generation[24];
};

/* Borrows both. */
static struct owner_report owner_of(const struct vdi_status *s, struct owner_texts *t)
{
	const struct commit_record *r = &s->owner;

	snprintf(t->epoch, sizeof(t->epoch), "%" PRIu64, r->epoch);
	snprintf(t->generation, sizeof(t->generation), "%" PRIu64, r->generation);
	return (struct owner_report){
		.state = borrow(r->state ? commit_state_name(r->state) : ""), .mirror = borrow(r->mirror), .epoch = t->epoch,
		.generation = t->generation, .links = s->links, .was_written = r->was_written,
		.is_unverified = r->is_unverified, .group = borrow(r->group),
	};
}

struct status_report {
	char *version, *id, *path, *engine, *owed, *lease;
	int64_t lease_left_ms, pid, size, in_flight, buffers, rss;
	bool is_open, is_direct, is_read_only, is_tracked;
	struct owner_report owner;
	struct jsonspec_records domains, operations, verifications;
};
#define STATUS(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct status_report, field) }
static const struct jsonspec_field status_fields[] = {
	STATUS("version", JS_STRING, version), STATUS("pid", JS_INT64, pid), STATUS("id", JS_STRING, id),
	STATUS("path", JS_STRING, path), STATUS("open", JS_BOOL, is_open), STATUS("engine", JS_STRING, engine),
	STATUS("direct", JS_BOOL, is_direct), STATUS("read_only", JS_BOOL, is_read_only), STATUS("cbt", JS_BOOL, is_tracked),
	STATUS("size_bytes", JS_INT64, size),
	STATUS("in_flight", JS_INT64, in_flight), STATUS("buffer_bytes", JS_INT64, buffers), STATUS("rss_bytes", JS_INT64, rss),
	STATUS("owed", JS_STRING, owed), STATUS("lease", JS_STRING, lease), STATUS("lease_left_ms", JS_INT64, lease_left_ms),
	{ .name = "owner", .type = JS_RECORD, .offset = offsetof(struct status_report, owner), .sub = &owner_spec },
	{ .name = "domains", .type = JS_RECORDS, .offset = offsetof(struct status_report, domains), .sub = &domain_spec },
	{ .name = "operations", .type = JS_RECORDS, .offset = offsetof(struct status_report, operations),
	  .sub = &operation_spec },
	{ .name = "verifications", .type = JS_RECORDS, .offset = offsetof(struct status_report, verifications),
	  .sub = &verification_spec },
	{ .name = NULL },
};
static const struct jsonspec status_spec = { "status", sizeof(struct status_report), status_fields };

/* Resident bytes; a read of /proc does not block. */
static int64_t resident_bytes(void)
{
	CLEANUP_FCLOSE FILE *f = fopen("/proc/self/statm", "re");
	long size, pages;

	if (!f || fscanf(f, "%ld %ld", &size, &pages) != 2)
		return -1;
	return (int64_t)pages * sysconf(_SC_PAGESIZE);
}

struct domain_list {
	struct vdi_domain_status status[DOMAINS_REPORTED_MAX];
	struct domain_report report[DOMAINS_REPORTED_MAX];
	struct jsonspec_range times[DOMAINS_REPORTED_MAX][HISTOGRAM_BUCKETS];
};

static struct jsonspec_ranges fill_writes(const struct histogram *h, struct jsonspec_range *out)
{
	size_t count = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		if (h->count[i])
			out[count++] = (struct jsonspec_range){ number(histogram_bound_us(i)), number(h->count[i]) };
	return (struct jsonspec_ranges){ count, out };
}

static size_t fill_domains(const struct vdi *v, struct domain_list *l)
{
	size_t count = vdi_domains(v, l->status, DOMAINS_REPORTED_MAX);

	for (size_t i = 0; i < count; i++) {
		const struct vdi_domain_status *s = &l->status[i];

		l->report[i] = (struct domain_report){
			.domain = borrow(s->domain), .socket = borrow(s->socket), .is_active = s->is_active,
			.is_read_only = s->is_read_only, .is_served = s->is_served,
			.backend = borrow(s->backend), .had = borrow(s->had), .is_connected = s->is_connected,
			.ring_errors = number(s->ring_errors),
			.ring_left = number(s->ring_left), .clients = s->nbd.clients,
			.reads = number(s->nbd.reads), .writes = number(s->nbd.writes), .flushes = number(s->nbd.flushes),
			.trims = number(s->nbd.trims), .zeroes = number(s->nbd.zeroes), .bytes_read = number(s->nbd.bytes_read),
			.bytes_written = number(s->nbd.bytes_written), .read_us = number(s->nbd.read_ns / 1000),
			.write_us = number(s->nbd.write_ns / 1000), .times = fill_writes(&s->nbd.writes_us, l->times[i]),
		};
	}
	return count;
}

char *report_status(const struct vdi *v, const char *id, const char *path)
{
	CLEANUP_FREE struct domain_list *l = calloc(1, sizeof(*l));
	CLEANUP_FREE struct operations *o = collect(v);
	CLEANUP_FREE struct verifications *n = collect_verifications(v);
	struct vdi_status s;
	struct owner_texts texts;
	struct status_report r;
	char lease[LEASE_NAME_MAX] = "";

	if (!l || !o || !n)
		return NULL;
	vdi_status(v, &s);
	if (s.lease.kind != LEASE_ABSENT)
		lease_name(&s.lease, lease);
	r = (struct status_report){
		.lease = lease, .lease_left_ms = number(s.lease_left_ms),
		.version = borrow(PACKAGE_VERSION), .id = borrow(id), .path = borrow(path), .engine = borrow(s.engine),
		.owed = borrow(s.owed ? s.owed : ""), .pid = getpid(), .size = number(s.size_bytes), .in_flight = s.in_flight,
		.buffers = number(s.buffer_bytes), .rss = resident_bytes(), .is_open = s.is_open, .is_direct = s.is_direct,
		.is_tracked = s.is_tracked,
		.is_read_only = s.is_read_only, .owner = owner_of(&s, &texts),
		.domains = { fill_domains(v, l), l->report },
		.operations = { o->count, o->report },
		.verifications = { n->count, n->report },
	};
	return jsonspec_encode(&status_spec, &r);
}
