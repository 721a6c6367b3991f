/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * owner - the file beside an image that says whose the disk is
 *
 *      {"state":"receiving","role":"far","epoch":"7","mirror":"5e6f.1700000000000","generation":"3","since":"1","volume":"4...",
 *       "written":false,"acknowledged":false,"unverified":false,"at":1700000012, ... }
 *
 * in slots (base/slots.h): a change is in a guest's downtime, four of them when it moves, so each takes one flush.  "at", as
 * what is changed in place has no time of its own that were durable.
 * 64 bit numbers are strings: they come from peers, and JSON's numbers end earlier.
 * Can fail: the file is damaged.  Then nobody is let in by guessing; the sentence says what an admin may do.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/slots.h"
#include "base/beside.h"
#include "vdi/owner.h"

#define NUMBER_BYTES 21

struct text {
	/* borrowed when encoding, owned after decoding */
	char *state, *role, *mirror, *epoch, *generation, *since, *volume, *group;
	bool was_written, is_acknowledged, is_unverified, is_unfenced, is_told, is_raised, is_ended, is_taken;
	int64_t lost_s, written_s;
};

#define NEEDED(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct text, field) }
#define OPTION(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct text, field), .is_optional = true }
static const struct jsonspec_field fields[] = {
	NEEDED("state", JS_STRING, state), NEEDED("role", JS_STRING, role), NEEDED("epoch", JS_STRING, epoch),
	NEEDED("mirror", JS_STRING, mirror), NEEDED("generation", JS_STRING, generation), NEEDED("since", JS_STRING, since),
	NEEDED("written", JS_BOOL, was_written), OPTION("acknowledged", JS_BOOL, is_acknowledged),
	OPTION("unverified", JS_BOOL, is_unverified), OPTION("unfenced", JS_BOOL, is_unfenced),
	OPTION("told", JS_BOOL, is_told), OPTION("raised", JS_BOOL, is_raised), OPTION("ended", JS_BOOL, is_ended),
	OPTION("taken", JS_BOOL, is_taken), OPTION("lost", JS_INT64, lost_s),
	OPTION("at", JS_INT64, written_s), OPTION("group", JS_STRING, group), OPTION("volume", JS_STRING, volume),
	{ .name = NULL },
};
static const struct jsonspec spec = { "owner", sizeof(struct text), fields };

static const char *const roles[] = {
	[COMMIT_ROLE_NONE] = "none", [COMMIT_ROLE_SOURCE] = "source", [COMMIT_ROLE_FAR] = "far",
};

static char *borrow(const char *text)
{
	return (char *)(uintptr_t)text;
}

char *owner_encode(const struct commit_record *r)
{
	char epoch[NUMBER_BYTES], generation[NUMBER_BYTES], since[NUMBER_BYTES], volume[NUMBER_BYTES];
	const struct text t = {
		.state = borrow(commit_state_name(r->state)), .role = borrow(roles[r->role]), .mirror = borrow(r->mirror),
		.epoch = epoch, .generation = generation, .since = since, .was_written = r->was_written,
		.is_acknowledged = r->is_acknowledged, .is_unverified = r->is_unverified, .is_unfenced = r->is_unfenced,
		.is_told = r->is_told, .is_raised = r->is_raised, .is_ended = r->is_ended, .is_taken = r->is_taken,
		.lost_s = r->lost_s, .written_s = (int64_t)time(NULL), .group = r->group[0] ? borrow(r->group) : NULL,
		.volume = r->volume ? volume : NULL,
	};

	snprintf(epoch, sizeof(epoch), "%" PRIu64, r->epoch);
	snprintf(generation, sizeof(generation), "%" PRIu64, r->generation);
	snprintf(since, sizeof(since), "%" PRIu64, r->since);
	snprintf(volume, sizeof(volume), "%" PRIu64, r->volume);
	return jsonspec_encode(&spec, &t);
}

static bool read_number(const char *text, uint64_t *out)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return !errno && !*end;
}

static bool read_role(const char *text, enum commit_role *out)
{
	for (size_t i = 0; i < ARRAY_LEN(roles); i++)
		if (strcmp(text, roles[i]) == 0) {
			*out = (enum commit_role)i;
			return true;
		}
	return false;
}

static bool take(const struct text *t, struct commit_record *r)
{
	commit_record_init(r);
	if (strlen(t->mirror) >= sizeof(r->mirror) || (t->group && strlen(t->group) >= sizeof(r->group)) ||
	    !commit_state_by_name(t->state, &r->state) || !read_role(t->role, &r->role) ||
	    !read_number(t->epoch, &r->epoch) || !read_number(t->generation, &r->generation) ||
	    !read_number(t->since, &r->since) ||
	    (t->volume && !read_number(t->volume, &r->volume)))
		return false;
	snprintf(r->mirror, sizeof(r->mirror), "%s", t->mirror);
	r->was_written = t->was_written;
	r->is_acknowledged = t->is_acknowledged;
	r->is_unverified = t->is_unverified;
	r->is_unfenced = t->is_unfenced;
	r->is_told = t->is_told;
	r->is_raised = t->is_raised;
	r->is_ended = t->is_ended;
	r->is_taken = t->is_taken;
	r->lost_s = t->lost_s;
	if (t->group)
		snprintf(r->group, sizeof(r->group), "%s", t->group);
	return commit_record_is_valid(r);
}

static int refuse(const char *path, const char *why, struct error *e)
{
	return error_set(e, EBADMSG, "whose this disk is cannot be known, %s is damaged (%s); if no other host uses it, remove "
			 "that file", path, why);
}

static int read_file(const char *path, struct commit_record *r, int64_t *written_s, struct error *e)
{
	CLEANUP_FREE char *text = NULL;
	struct error why = { 0 };
	struct text t;
	size_t bytes = 0;
	bool is_good;

	text = slots_read_durable(path, &bytes, &why);
	if (!text && why.err == ENOENT)
		return 0;
	if (!text && why.err == EBADMSG)
		return refuse(path, why.text, e);
	if (!text)
		return error_set(e, why.err, "%s", why.text);
	if (jsonspec_decode(&spec, text, bytes, &t, &why) == -1)
		return refuse(path, why.text, e);
	is_good = take(&t, r);
	if (t.written_s > 0)
		*written_s = t.written_s;
	jsonspec_clear(&spec, &t);
	return is_good ? 0 : refuse(path, "it says nothing sensible", e);
}

int owner_load(const char *image, struct owner *o, struct error *e)
{
	struct stat st;

	*o = (struct owner){ .file = beside_path(image, OWNER_SUFFIX) };
	if (!o->file)
		return error_set(e, ENOMEM, "out of memory");
	commit_record_init(&o->record);
	if (stat(o->file, &st) == 0)
		o->written_s = (int64_t)st.st_mtim.tv_sec;
	if (read_file(o->file, &o->record, &o->written_s, e) == -1) {
		owner_clear(o);
		return -1;
	}
	return 0;
}

void owner_clear(struct owner *o)
{
	free(o->file);
	*o = (struct owner){ 0 };
}
