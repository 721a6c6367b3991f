/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * plan - see plan.h
 *
 *      each disk: size, owner, users, other moves -> refusals     the SR there: health, space -> refusals, warnings
 *      bytes / the slower of the link and the limit -> how long   two round trips and what a record costs -> the downtime
 *
 * All refusals are said at once: who puts one right should not meet the next.
 */
#include "migrate/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/printable.h"
#include "base/size.h"

#define SECTOR_BYTES 512
#define RECORDS_MS 20 /* durable records and the sync of the last writes, at a switchover */
#define TEXT_MAX_BYTES 480u /* of one sentence */
#define MARGIN_BYTES (INT64_C(16) << 20)

#define USER(member, kind) { #member, kind, offsetof(struct plan_user, member) }
static const struct jsonspec_field user_fields[] = {
	USER(domain, JS_STRING), USER(active, JS_BOOL),
	{ "read_only", JS_BOOL, offsetof(struct plan_user, read_only), .is_optional = true }, { NULL },
};
static const struct jsonspec user_spec = { "domain", sizeof(struct plan_user), user_fields };

#define VOLUME(member, kind) { #member, kind, offsetof(struct plan_volume, member) }
static const struct jsonspec_field volume_fields[] = {
	VOLUME(sr, JS_STRING), VOLUME(key, JS_STRING), VOLUME(name, JS_STRING), VOLUME(description, JS_STRING),
	VOLUME(uri, JS_STRING), VOLUME(path, JS_STRING), VOLUME(id, JS_STRING), VOLUME(format, JS_STRING),
	VOLUME(owner, JS_STRING), VOLUME(operation, JS_STRING), VOLUME(size_bytes, JS_INT64), VOLUME(allocated_bytes, JS_INT64),
	VOLUME(read_write, JS_BOOL), VOLUME(sharable, JS_BOOL), VOLUME(cbt, JS_BOOL), VOLUME(operation_failed, JS_BOOL),
	VOLUME(keys, JS_MAP), { "domains", JS_RECORDS, offsetof(struct plan_volume, domains), .sub = &user_spec }, { NULL },
};
const struct jsonspec plan_volume_spec = { "volume.find", sizeof(struct plan_volume), volume_fields };

#define SR(member, kind) { #member, kind, offsetof(struct plan_sr, member) }
static const struct jsonspec_field sr_fields[] = {
	SR(sr, JS_STRING), SR(dir, JS_STRING), SR(uuid, JS_STRING), SR(name, JS_STRING), SR(type, JS_STRING),
	SR(format, JS_STRING), SR(health, JS_STRING), SR(free_bytes, JS_INT64), SR(total_bytes, JS_INT64), SR(shared, JS_BOOL),
	{ NULL },
};
const struct jsonspec plan_sr_spec = { "sr.find", sizeof(struct plan_sr), sr_fields };

static const struct jsonspec_field step_fields[] = {
	{ "do", JS_STRING, offsetof(struct plan_step, step) }, { "undo", JS_STRING, offsetof(struct plan_step, undo) }, { NULL },
};
static const struct jsonspec step_spec = { "step", sizeof(struct plan_step), step_fields };

#define PLAN(member, kind) { #member, kind, offsetof(struct plan, member) }
static const struct jsonspec_field plan_fields[] = {
	{ "possible", JS_BOOL, offsetof(struct plan, is_possible) }, PLAN(refusals, JS_LIST), PLAN(warnings, JS_LIST),
	PLAN(bytes, JS_INT64), PLAN(duration_ms, JS_INT64), PLAN(downtime_ms, JS_INT64), PLAN(round_trip_us, JS_INT64),
	PLAN(rate_bytes_s, JS_INT64), PLAN(transport, JS_STRING), PLAN(address, JS_STRING),
	{ "steps", JS_RECORDS, offsetof(struct plan, steps), .sub = &step_spec }, { NULL },
};
const struct jsonspec plan_spec = { "plan", sizeof(struct plan), plan_fields };

const char *plan_writer(const struct plan_volume *v, size_t *count)
{
	const struct plan_user *user = v->domains.item;
	const char *writer = NULL;

	*count = 0;
	for (size_t i = 0; i < v->domains.count; i++)
		if (user[i].active && !user[i].read_only && (*count)++ == 0)
			writer = user[i].domain;
	return writer;
}

/* --- lists that grow */

struct making {
	struct plan *plan;
	bool is_short; /* of memory */
};

/* The other host's names are among its words, and it is read on a terminal: one line, of a length to be read. */
static char *format(const char *fmt, va_list args)
{
	char *text;

	if (vasprintf(&text, fmt, args) < 0)
		return NULL;
	text[strnlen(text, TEXT_MAX_BYTES)] = '\0';
	printable_make(text, ' ');
	return text;
}

static void add(struct making *m, struct jsonspec_list *to, char *text)
{
	if (!text || jsonspec_list_add(to, text) == -1)
		m->is_short = true;
	free(text);
}

static void refuse(struct making *m, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void refuse(struct making *m, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	add(m, &m->plan->refusals, format(fmt, args));
	va_end(args);
}

static void warn(struct making *m, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void warn(struct making *m, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	add(m, &m->plan->warnings, format(fmt, args));
	va_end(args);
}

/* Takes both texts. */
static void add_step(struct making *m, char *step, char *undo)
{
	struct jsonspec_records *l = &m->plan->steps;
	struct plan_step *more = realloc(l->item, (l->count + 1) * sizeof(*more));

	if (more)
		l->item = more;
	if (!more || !step || !undo) {
		m->is_short = true;
		free(step);
		free(undo);
		return;
	}
	more[l->count++] = (struct plan_step) { step, undo };
}

static char *text(const char *fmt, ...) PRINTF_LIKE(1, 2);
static char *text(const char *fmt, ...)
{
	va_list args;
	char *made;

	va_start(args, fmt);
	made = format(fmt, args);
	va_end(args);
	return made;
}

/* --- refusals */

static bool is_same_host(const struct plan_input *in)
{
	return strcmp(in->here.host, in->there.host) == 0 && strcmp(in->here.run_dir, in->there.run_dir) == 0;
}

static void check_owner(struct making *m, const struct plan_volume *v)
{
	if (strcmp(v->owner, "given") == 0)
		refuse(m, "%s was moved away before; what is here is its source as it was kept", v->name);
	else if (strcmp(v->owner, "offered") == 0)
		refuse(m, "%s is being handed over to another host just now", v->name);
	else if (strcmp(v->owner, "owned") != 0 && strcmp(v->owner, "taken") != 0 && *v->owner)
		refuse(m, "%s receives a mirror from another host, or one that ended half way (%s): it has no guest to move",
		       v->name,
		       v->owner);
}

static void check_users(struct making *m, const struct plan_volume *v)
{
	size_t writers;

	plan_writer(v, &writers);
	if (writers > 1)
		refuse(m, "%s is active for writing for %zu guests at once; a disk is moved that one guest writes to", v->name,
		       writers);
	if (v->sharable)
		refuse(m, "%s is sharable: several hosts may write to it, and a mirror would not see what others write", v->name);
	if (!v->read_write)
		refuse(m, "%s is a snapshot, or read-only: it is copied, not moved (sxm copy)", v->name);
}

static void check_disk(struct making *m, const struct plan_input *in, size_t i)
{
	const struct plan_volume *v = &in->volume[i];

	check_owner(m, v);
	check_users(m, v);
	if (in->moving_in && in->moving_in[i])
		refuse(m, "%s is being moved already, by move %s: sxm migrate --resume %s, or --abort %s", v->name,
		       in->moving_in[i],
		       in->moving_in[i], in->moving_in[i]);
	else if (*v->operation && !v->operation_failed)
		refuse(m, "a mirror or copy of %s runs: %s; let it end, or cancel it", v->name, v->operation);
	if (v->size_bytes <= 0 || v->size_bytes % SECTOR_BYTES)
		refuse(m, "%s has %" PRId64 " bytes, which is no number of sectors of %d", v->name, v->size_bytes, SECTOR_BYTES);
	for (size_t k = 0; k < i; k++)
		if (strcmp(in->volume[k].uri, v->uri) == 0)
			refuse(m, "%s is named twice", v->name);
	if (is_same_host(in) && strcmp(v->sr, in->sr->sr) == 0)
		refuse(m, "%s is in that SR already, on this very host", v->name);
	if (v->cbt && !jsonspec_map_get(&v->keys, "sxm_log"))
		warn(m, "%s has its changes tracked: the log goes with it, and its snapshots stay here", v->name);
}

static void check_space(struct making *m, const struct plan_input *in)
{
	int64_t allocated = 0, all = 0;
	char need[SIZE_TEXT_MAX], has[SIZE_TEXT_MAX];

	for (size_t i = 0; i < in->count; i++) {
		allocated += MAX(in->volume[i].allocated_bytes, INT64_C(0));
		all += MAX(in->volume[i].size_bytes, INT64_C(0));
	}
	m->plan->bytes = allocated;
	size_format((uint64_t)MAX(in->sr->free_bytes, INT64_C(0)), has);
	if (allocated + MARGIN_BYTES > in->sr->free_bytes)
		refuse(m, "SR %s on %s has %s free, and %s are needed", in->sr->name, in->there.name, has,
		       size_format((uint64_t)(allocated + MARGIN_BYTES), need));
	else if (all > in->sr->free_bytes)
		warn(m, "SR %s on %s has %s free: the disks fit as they are, and not if all of their %s were written",
		     in->sr->name,
		     in->there.name, has, size_format((uint64_t)all, need));
}

static void check_sr(struct making *m, const struct plan_input *in)
{
	if (strcmp(in->sr->health, "Healthy") != 0)
		refuse(m, "SR %s on %s is not healthy: %s", in->sr->name, in->there.name, in->sr->health);
	check_space(m, in);
	if (in->no_way)
		refuse(m, "%s", in->no_way);
	if (strcmp(in->here.version, in->there.version) != 0)
		warn(m, "here is sxm %s, on %s %s", in->here.version, in->there.name, in->there.version);
}

/* --- estimates, steps */

static void estimate(struct plan *p, const struct plan_input *in)
{
	int64_t rate = in->there.rate_bytes_s, limit = (int64_t)MIN(in->bandwidth_bytes_s, (uint64_t)INT64_MAX);

	if (limit && (!rate || limit < rate))
		rate = limit;
	p->round_trip_us = in->there.round_trip_us;
	p->rate_bytes_s = rate;
	p->duration_ms = rate ? (int64_t)((double)p->bytes * 1000 / (double)rate) : -1;
	p->downtime_ms = 2 * in->there.round_trip_us / 1000 + RECORDS_MS;
}

static void check_deadline(struct making *m, const struct plan_input *in)
{
	int64_t ms = m->plan->duration_ms;
	char rate[SIZE_TEXT_MAX];

	if (!in->finish_by || ms < 0)
		return;
	size_format((uint64_t)m->plan->rate_bytes_s, rate);
	if (ms > in->left_ms)
		warn(m, "it will not be done by %s: at %s/s it takes %" PRId64 " s until both sides are the same, and there are %"
			PRId64 " s; it goes as fast as it can", in->finish_by, rate, ms / 1000, in->left_ms / 1000);
	else
		warn(m, "it could be there in %" PRId64 " s, and is paced to take %" PRId64 " s, and be done by %s", ms / 1000,
		     in->left_ms / 1000, in->finish_by);
}

static void add_steps(struct making *m, const struct plan_input *in)
{
	const char *s = in->count == 1 ? "" : "s", *host = in->there.name;
	const char *by = in->transport && strcmp(in->transport, "ssh") != 0 ? in->transport : "";

	add_step(m, text("make %zu volume%s in SR %s on %s", in->count, s, in->sr->name, host),
		 text("destroy what was made there"));
	add_step(m, text("let it receive: attach and activate for a mirror"), text("let go of it there"));
	add_step(m, text("mirror%s%s%s, while the guest goes on, until both sides are the same", *by ? " over " : "", by,
			 *by && strcmp(by, "tcp") == 0 ? " in the clear" : ""),
		 text("end the mirror; the guest goes on here"));
	if (in->will_verify)
		add_step(m, text("read both sides back and compare them"), text("%s", ""));
	add_step(m, text("hold the guest's writes, send the rest, hand over: %s", in->count == 1 ? "the disk is the other host's"
			 : "all disks together, or none"),
		 text("before the decision is on record: guests go on here; after it only forward"));
	add_step(m, in->domain ? text("give it its name there, and activate it for domain %s", in->domain)
			       : text("give it its name there: a guest may be started with it"), text("%s", ""));
	add_step(m, text("keep the source here, renamed and unusable, for %" PRId64 " days (sxm migrate --release)",
			 in->keep_s / 86400), text("%s", ""));
}

int plan_make(const struct plan_input *in, struct plan *p, struct error *e)
{
	struct making m = { .plan = p };

	*p = (struct plan) { 0 };
	for (size_t i = 0; i < in->count; i++)
		check_disk(&m, in, i);
	check_sr(&m, in);
	estimate(p, in);
	check_deadline(&m, in);
	add_steps(&m, in);
	p->transport = text("%s", in->transport ? in->transport : "ssh");
	p->address = text("%s", in->address ? in->address : "");
	m.is_short |= !p->transport || !p->address;
	p->is_possible = p->refusals.count == 0;
	if (!m.is_short)
		return 0;
	plan_clear(p);
	return error_set(e, ENOMEM, "out of memory");
}

void plan_clear(struct plan *p)
{
	jsonspec_clear(&plan_spec, p);
}
