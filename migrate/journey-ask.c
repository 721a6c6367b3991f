/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * journey-ask - the questions of a journey
 *
 *      here     the disk's own relay, so that several disks may be asked at once
 *      there    through the tunnel; where the way is lost it is tried again and again, for the journey's patience, and it is
 *      shown
 *               for what is waited
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/journey-private.h"
#include "migrate/question.h"

#define TRY_FIRST_MS 200u
#define TRY_LAST_MS 3000u

struct wrapped {
	char *answer;
};
static const struct jsonspec_field wrapped_fields[] = { { "answer", JS_TEXT, offsetof(struct wrapped, answer) }, { NULL } };
static const struct jsonspec wrapped_spec = { "answer", sizeof(struct wrapped), wrapped_fields };

static char *out_of_memory(struct error *e)
{
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

/* --- there */

/* 0: try again. */
static int wait_for_way(struct journey *j, int64_t since_ms, unsigned pause_ms, const struct error *why, struct error *e)
{
	if (why->err == EACCES) { /* who is not let in is not let in later */
		*e = *why;
		return -1;
	}
	if (journey_now_ms() - since_ms > j->watch->patience_s * 1000)
		return error_prefix(e, "%s cannot be reached for %" PRId64 " s", j->r.host, j->watch->patience_s);
	snprintf(j->view.why, sizeof(j->view.why), "%s cannot be reached: %.180s", j->r.host, why->text);
	journey_show(j, j->view.phase ? j->view.phase : "");
	for (unsigned ms = 0; ms < pause_ms; ms += 100) {
		if (journey_check(j, e) == -1)
			return -1;
		journey_pause(100);
	}
	return 0;
}

char *journey_ask_there(struct journey *j, const char *verb, const char *args, struct error *e)
{
	int64_t since_ms = journey_now_ms();
	unsigned pause_ms = TRY_FIRST_MS;

	for (;;) {
		char *ok = peer_ask(&j->there, verb, args, JOURNEY_LONG_MS, e);
		struct error why = *e;

		if (ok || !j->there.is_lost) {
			j->view.why[0] = '\0';
			return ok;
		}
		if (wait_for_way(j, since_ms, pause_ms, &why, e) == -1)
			return NULL;
		pause_ms = MIN(2 * pause_ms, TRY_LAST_MS);
	}
}

/* Takes args. */
static char *wrap_verb(const char *verb, char *args)
{
	CLEANUP_FREE char *text = args;
	CLEANUP_FREE char *raw = NULL;

	if (!text || asprintf(&raw, "\"args\":%s", text) < 0) {
		raw = NULL;
		return NULL;
	}
	return question_new(raw, "verb", verb, NULL);
}

int journey_call_there(struct journey *j, const char *verb, char *args, struct error *e)
{
	CLEANUP_FREE char *question = wrap_verb(verb, args);
	CLEANUP_FREE char *ok = question ? journey_ask_there(j, "smapi", question, e) : out_of_memory(e);

	return ok ? 0 : -1;
}

int journey_call_here(struct journey *j, const char *verb, char *args, struct error *e)
{
	CLEANUP_FREE char *question = wrap_verb(verb, args);
	CLEANUP_FREE char *ok = question ? peer_ask(&j->here, "smapi", question, JOURNEY_LONG_MS, e) : out_of_memory(e);

	return ok ? 0 : -1;
}

/* --- a disk here */

static char *wrap_control(const struct journey_disk *d, const char *verb, const char *args, unsigned wait_ms)
{
	CLEANUP_FREE char *raw = NULL;

	if (asprintf(&raw, "\"args\":%s,\"start\":true,\"wait_ms\":%u", args ? args : "{}", wait_ms) < 0) {
		raw = NULL;
		return NULL;
	}
	return question_new(raw, "uri", d->uri, "verb", verb, NULL);
}

static char *unwrap(const char *ok, struct error *e)
{
	struct wrapped w;

	return jsonspec_decode(&wrapped_spec, ok, strlen(ok), &w, e) == 0 ? w.answer : NULL;
}

char *journey_control(struct journey *j, size_t i, const char *verb, const char *args, struct error *e)
{
	CLEANUP_FREE char *question = wrap_control(journey_disk(j, i), verb, args, JOURNEY_ASK_MS);
	CLEANUP_FREE char *ok = question ? peer_ask(&j->disk_here[i], "control", question, JOURNEY_LONG_MS, e) : out_of_memory(e);

	return ok ? unwrap(ok, e) : NULL;
}

static int send_one(struct journey *j, size_t i, const char *verb, const char *args, unsigned wait_ms, struct error *e)
{
	CLEANUP_FREE char *question = wrap_control(journey_disk(j, i), verb, args, wait_ms);

	return question ? peer_send(&j->disk_here[i], "control", question, e) : error_set(e, ENOMEM, "out of memory");
}

/* All hear it before the first is waited for; all are waited for, whoever fails. */
int journey_control_all(struct journey *j, const char *verb, const char *args, unsigned wait_ms, struct error *e)
{
	bool is_sent[JOURNEY_DISKS_MAX] = { 0 };
	struct error why;
	int r = 0;

	error_clear(e);
	for (size_t i = 0; i < j->r.disks.count; i++) {
		is_sent[i] = send_one(j, i, verb, args, wait_ms, &why) == 0;
		if (!is_sent[i]) {
			*e = r ? *e : why;
			r = -1;
		}
	}
	for (size_t i = 0; i < j->r.disks.count; i++) {
		CLEANUP_FREE char *ok = is_sent[i] ? peer_hear(&j->disk_here[i], wait_ms + JOURNEY_ASK_MS, &why) : NULL;

		if (!ok && is_sent[i] && r == 0) {
			*e = why;
			error_prefix(e, "%s", journey_disk(j, i)->name);
			r = -1;
		}
	}
	return r;
}
