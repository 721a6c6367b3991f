/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-steps - what a journey does besides the switchover; each may be done again, whoever died in it
 *
 *      make      volume.make, by the journey's mark: what is there is found
 *      receive   Datapath.attach and activate, for the domain that receives
 *      mirror    a writer where there is none, mirror.start where none runs
 *      verify    both sides are read back; while the guest goes on
 *      start     what received is let go of; the guest's domain has the disk
 *      keep      names; our own domain is let go of; the source is kept
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "migrate/journey-private.h"
#include "migrate/question.h"

#define VERIFY_RATE "\"rate_bytes\":0"
#define VERIFY_WAIT "\"wait_ms\":300"

static void make_mark(const struct journey *j, size_t i, char mark[static 64])
{
	snprintf(mark, 64, "%s-%zu", j->r.id, i);
}

/* --- make, receive */

static int make_one(struct journey *j, size_t i, struct error *e)
{
	struct journey_disk *d = journey_disk(j, i);
	char mark[64], raw[64];
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct plan_volume v;
	int r;

	make_mark(j, i, mark);
	snprintf(raw, sizeof(raw), "\"size_bytes\":%" PRId64, d->size_bytes);
	args = question_new(raw, "sr", j->r.far_sr, "mark", mark, "name", d->name, "base",
			    *d->base ? d->base : NULL, NULL);
	ok = args ? journey_ask_there(j, *d->base ? "base.take" : "volume.make", args, e) : NULL;
	if (!ok || jsonspec_decode(&plan_volume_spec, ok, strlen(ok), &v, e) == -1)
		return -1;
	r = v.size_bytes == d->size_bytes ? 0 : error_set(e, EPROTO, "the volume there has %" PRId64 " bytes, not %" PRId64,
							  v.size_bytes, d->size_bytes);
	if (r == 0 && (journey_set(&d->far_key, v.key, e) == -1 || journey_set(&d->far_uri, v.uri, e) == -1 ||
		       journey_set(&d->far_id, v.id, e) == -1))
		r = -1;
	jsonspec_clear(&plan_volume_spec, &v);
	return r;
}

int journey_make(struct journey *j, struct error *e)
{
	for (size_t i = 0; i < j->r.disks.count; i++)
		if (make_one(j, i, e) == -1)
			return error_prefix(e, "make the volume of %s there", journey_disk(j, i)->name);
	return 0;
}

static char *datapath_args(const char *uri, const char *domain)
{
	return question_new(NULL, "dbg", "sxm migrate", "uri", uri, "domain", domain, NULL);
}

int journey_receive(struct journey *j, struct error *e)
{
	for (size_t i = 0; i < j->r.disks.count; i++) {
		const struct journey_disk *d = journey_disk(j, i);

		if (journey_call_there(j, "Datapath.attach", datapath_args(d->far_uri, j->r.receiver), e) == -1 ||
		    journey_call_there(j, "Datapath.activate", datapath_args(d->far_uri, j->r.receiver), e) == -1)
			return error_prefix(e, "let %s receive there", d->name);
	}
	return 0;
}

/* --- mirror */

struct started {
	char *id;
};
static const struct jsonspec_field started_fields[] = { { "id", JS_STRING, offsetof(struct started, id) }, { NULL } };
static const struct jsonspec started_spec = { "mirror.start", sizeof(struct started), started_fields };

static char *start_args(const struct journey *j, size_t i, bool is_resumed)
{
	const struct journey_disk *d = journey_disk(j, i);
	const char *log = *d->log && !is_resumed ? d->log : NULL;
	CLEANUP_FREE char *remote = journey_remote(j, i);

	return remote ? question_new(is_resumed ? "\"copy\":false,\"resume\":true" : "\"copy\":false", "domain", d->domain,
				     "remote", remote, "base", log, NULL) : NULL;
}

int journey_start_mirror(struct journey *j, size_t i, bool is_resumed, struct error *e)
{
	struct journey_disk *d = journey_disk(j, i);
	CLEANUP_FREE char *args = start_args(j, i, is_resumed);
	CLEANUP_FREE char *ok = args ? journey_control(j, i, "mirror.start", args, e) : NULL;
	struct started s;

	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	if (!ok && e->err == ENOENT && *d->log && !is_resumed) {
		journey_say(j, "%s: %s; all of it is sent", d->name, e->text);
		return journey_set(&d->log, "", e) == 0 ? journey_start_mirror(j, i, false, e) : -1;
	}
	if (!ok || jsonspec_decode(&started_spec, ok, strlen(ok), &s, e) == -1)
		return -1;
	free(d->operation);
	d->operation = s.id;
	return journey_save(j, e);
}

/* Whoever had it may have gone, and another one come. */
int journey_ensure_writer(struct journey *j, size_t i, const struct journey_look *l, struct error *e)
{
	struct journey_disk *d = journey_disk(j, i);
	char own[JOURNEY_ID_MAX + 8];

	snprintf(own, sizeof(own), "sxm-%s", j->r.id);
	if (l->writers > 1)
		return error_set(e, EBUSY, "%s is active for writing for %zu guests at once", d->name, l->writers);
	if (l->writers == 1 && strcmp(l->writer, d->domain) == 0)
		return 0;
	d->is_ours = l->writers == 0 || strcmp(l->writer, own) == 0;
	if (journey_set(&d->domain, l->writers ? l->writer : own, e) == -1 || journey_save(j, e) == -1)
		return -1;
	if (l->writers)
		return 0;
	return journey_call_here(j, "Datapath.attach", datapath_args(d->uri, d->domain), e) == 0 &&
	       journey_call_here(j, "Datapath.activate", datapath_args(d->uri, d->domain), e) == 0 ? 0 : -1;
}

static int mirror_one(struct journey *j, size_t i, struct error *e)
{
	struct journey_disk *d = journey_disk(j, i);
	struct journey_look l;

	if (journey_look(j, i, &l, e) == -1)
		return -1;
	if (*l.operation && !l.is_failed && !l.is_ended)
		return journey_set(&d->operation, l.operation, e);
	return journey_start_mirror(j, i, *l.operation && l.is_remembered, e);
}

/* All have their processes, and know how fast they may be, before the first begins. */
int journey_mirror(struct journey *j, struct error *e)
{
	for (size_t i = 0; i < j->r.disks.count; i++) {
		struct journey_look l;

		if (journey_look(j, i, &l, e) == -1 || journey_ensure_writer(j, i, &l, e) == -1)
			return error_prefix(e, "mirror %s", journey_disk(j, i)->name);
	}
	journey_apply_limit(j);
	for (size_t i = 0; i < j->r.disks.count; i++)
		if (mirror_one(j, i, e) == -1)
			return error_prefix(e, "mirror %s", journey_disk(j, i)->name);
	return 0;
}

/* --- verify */

struct verification {
	char *id, *state, *text;
	bool verified;
	int64_t different_bytes, unsettled_bytes;
	struct jsonspec_ranges different;
};
#define VERIFICATION(member, kind) { #member, kind, offsetof(struct verification, member), .is_optional = true }
static const struct jsonspec_field verification_fields[] = {
	{ "id", JS_STRING, offsetof(struct verification, id) }, VERIFICATION(state, JS_STRING), VERIFICATION(text, JS_STRING),
	VERIFICATION(verified, JS_BOOL), VERIFICATION(different_bytes, JS_INT64), VERIFICATION(unsettled_bytes, JS_INT64),
	VERIFICATION(different, JS_RANGES), { NULL },
};
static const struct jsonspec verification_spec = { "verify.stat", sizeof(struct verification), verification_fields };

static int ask_verification(struct journey *j, size_t i, const char *verb, const char *args, struct verification *v,
			    struct error *e)
{
	CLEANUP_FREE char *ok = journey_control(j, i, verb, args, e);

	return ok ? jsonspec_decode(&verification_spec, ok, strlen(ok), v, e) : -1;
}

/* 1: it goes on. */
static int judge(struct journey *j, size_t i, const struct verification *v, struct error *e)
{
	const char *name = journey_disk(j, i)->name;

	if (!v->state || strcmp(v->state, "connecting") == 0 || strcmp(v->state, "running") == 0)
		return 1;
	if (v->different_bytes)
		return error_set(e, EILSEQ, "%s differs there in %" PRId64 " bytes, the first at %" PRId64, name,
				 v->different_bytes, v->different.count ? v->different.item[0].start : 0);
	if (v->verified)
		return 0;
	j->r.is_unverified = true;
	if (strcmp(v->state, "complete") == 0)
		journey_say(j, "%s: %" PRId64 " bytes could not be compared, as the guest was always at them; the rest is equal",
			    name,
			    v->unsettled_bytes);
	else
		journey_say(j, "%s could not be read back and compared: %s", name, v->text ? v->text : v->state);
	return 0;
}

static int verify_one(struct journey *j, size_t i, struct error *e)
{
	CLEANUP_FREE char *args = NULL;
	struct verification v;
	int r;

	if (ask_verification(j, i, "verify.start", "{" VERIFY_RATE "}", &v, e) == -1)
		return -1;
	args = question_new(VERIFY_WAIT, "id", v.id, NULL);
	jsonspec_clear(&verification_spec, &v);
	do {
		if (!args || journey_check(j, e) == -1)
			return args ? -1 : error_set(e, ENOMEM, "out of memory");
		if (ask_verification(j, i, "verify.stat", args, &v, e) == -1)
			return -1;
		r = judge(j, i, &v, e);
		jsonspec_clear(&verification_spec, &v);
		journey_show(j, "verifying");
		journey_apply_limit(j);
	} while (r == 1);
	return r;
}

int journey_verify(struct journey *j, struct error *e)
{
	for (size_t i = 0; j->r.will_verify && i < j->r.disks.count; i++)
		if (verify_one(j, i, e) == -1)
			return -1;
	return 0;
}

/* --- start, keep */

/* What changes from now on is what the way back sends. No reason for anything to fail. */
static void track_there(struct journey *j, const struct journey_disk *d)
{
	CLEANUP_FREE char *args = question_new(NULL, "sr", j->r.far_sr, "key", d->far_key, NULL);
	CLEANUP_FREE char *ok = NULL;
	struct error e = { 0 };

	if (d->is_tracked || !*d->key || !args)
		return;
	ok = peer_ask(&j->there, "volume.track", args, JOURNEY_ASK_MS, &e);
	if (!ok)
		journey_say(j, "%s: what changes there is not tracked, and moving it back will send all of it: %s", d->name,
			    e.text);
}

static int start_one(struct journey *j, const struct journey_disk *d, struct error *e)
{
	if (journey_call_there(j, "Datapath.deactivate", datapath_args(d->far_uri, j->r.receiver), e) == -1 ||
	    journey_call_there(j, "Datapath.detach", datapath_args(d->far_uri, j->r.receiver), e) == -1)
		return -1;
	track_there(j, d);
	if (!*j->r.far_domain)
		return 0;
	return journey_call_there(j, "Datapath.attach", datapath_args(d->far_uri, j->r.far_domain), e) == 0 &&
	       journey_call_there(j, "Datapath.activate", datapath_args(d->far_uri, j->r.far_domain), e) == 0 ? 0 : -1;
}

int journey_start(struct journey *j, struct error *e)
{
	size_t stay;

	if (journey_sort(j, &stay, e) == -1)
		return -1;
	for (size_t i = 0; i < j->r.disks.count; i++)
		if (!journey_disk(j, i)->stays && start_one(j, journey_disk(j, i), e) == -1)
			return error_prefix(e, "%s has moved; start it there", journey_disk(j, i)->name);
	return journey_resume_guest(j, true, e);
}

static int name_there(struct journey *j, size_t i, struct error *e)
{
	const struct journey_disk *d = journey_disk(j, i);
	char mark[64];
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *ok = NULL;

	make_mark(j, i, mark);
	args = question_new(NULL, "sr", j->r.far_sr, "key", d->far_key, "mark", mark, "name", d->name, "description",
			    d->description,
			    NULL);
	ok = args ? journey_ask_there(j, "volume.name", args, e) : NULL;
	return ok ? 0 : -1;
}

static int keep_here(struct journey *j, size_t i, struct error *e)
{
	const struct journey_disk *d = journey_disk(j, i);
	time_t until = (time_t)j->r.until_s;
	char mark[64], raw[64], date[32] = "";
	CLEANUP_FREE char *name = NULL;
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct tm tm;

	if (d->is_ours && journey_call_here(j, "Datapath.detach", datapath_args(d->uri, d->domain), e) == -1)
		return -1;
	if (!*d->key)
		return 0;
	make_mark(j, i, mark);
	if (localtime_r(&until, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d", &tm);
	if (asprintf(&name, "%s (moved to %s, kept until %s)", d->name, j->r.host, date) < 0) {
		name = NULL;
		return error_set(e, ENOMEM, "out of memory");
	}
	snprintf(raw, sizeof(raw), "\"until_s\":%" PRId64, j->r.until_s);
	args = question_new(raw, "sr", d->sr, "key", d->key, "mark", mark, "name", name, NULL);
	ok = args ? peer_ask(&j->here, "volume.keep", args, JOURNEY_LONG_MS, e) : NULL;
	return ok ? 0 : -1;
}

/* One that was taken back: of it, nothing is left of the move. Where a guest has the other one, too, only a person knows which is
 * the right one. */
static int end_one(struct journey *j, size_t i, struct error *e)
{
	const struct journey_disk *d = journey_disk(j, i);

	if (journey_undo_here(j, i, e) == 0 && journey_undo_there(j, i, e) == 0)
		return 0;
	if (e->err != EPERM || j->there.is_lost)
		return error_prefix(e, "%s was taken back, and stays; end its mirror", d->name);
	journey_say(j, "%s was taken back, and stays; what is of it on %s stays, too: %s", d->name, j->r.host, e->text);
	return 0;
}

int journey_keep(struct journey *j, struct error *e)
{
	size_t stay;

	if (journey_sort(j, &stay, e) == -1)
		return -1;
	if (!j->r.until_s)
		j->r.until_s = journey_now_ms() / 1000 + j->r.keep_s;
	for (size_t i = 0; i < j->r.disks.count; i++) {
		if (journey_disk(j, i)->stays && end_one(j, i, e) == -1)
			return -1;
		if (!journey_disk(j, i)->stays && (name_there(j, i, e) == -1 || keep_here(j, i, e) == -1))
			return error_prefix(e, "%s has moved; name it there, and keep its source", journey_disk(j, i)->name);
	}
	return 0;
}
