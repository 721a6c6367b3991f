/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay-owner - whose a volume is, as its record says, and what a move may therefore do with it
 *
 *      source, kept       given                     by the mirror and in the epoch that are noted when it is kept: its gift
 *      source, a base     the same, or incomplete   ... and it is noted who takes it: it was dropped by him, or will be
 *      far, undone        receiving, incomplete,    or owned and never written to: nobody was ever handed it
 *                         released
 *      far, called back   eligible                  its source owns it again, and says so; then it is undone
 *      far, named         eligible, owned           it was handed over whole
 *      far, tracked       eligible                  ... and no guest has had it yet
 *
 * Names and marks say which volume is meant. Only the record says whether it is the one with the data: a person may have taken
 * the source by force, or started the guest by hand, at any moment. So before anything is destroyed, kept or written over it is
 * read.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/uri.h"
#include "cmd/relay-verbs.h"
#include "migrate/question.h"
#include "plugins/owner-file.h"
#include "plugins/process.h"

#define STATUS_WAIT_MS 10000u
#define RECALL_WAIT_MS 20000u

struct status {
	struct owner_file owner;
};
static const struct jsonspec_field status_fields[] = {
	{ "owner", JS_RECORD, offsetof(struct status, owner), .sub = &owner_file_spec }, { NULL },
};
static const struct jsonspec status_spec = { "status", sizeof(struct status), status_fields };

static int read_owner(const char *path, struct owner_file *o, struct error *e)
{
	CLEANUP_FREE char *ok = NULL;
	struct status s = { 0 };
	struct process p;

	*o = (struct owner_file) { 0 };
	if (process_by_path(&p, path, e) == -1)
		return -1;
	ok = process_call(&p, "status", NULL, PROCESS_RESTART, STATUS_WAIT_MS, e);
	if (!ok)
		return e->err == ESRCH ? owner_file_read(path, o, e) : -1;
	if (jsonspec_decode(&status_spec, ok, strlen(ok), &s, e) == -1)
		return -1;
	*o = s.owner;
	if (o->state && *o->state)
		return 0;
	owner_file_clear(o); /* it has not opened the disk yet, and knows nothing */
	return owner_file_read(path, o, e);
}

char *relay_state_on_record(const char *path, struct error *e)
{
	struct owner_file o;
	char *state;

	if (owner_file_read(path, &o, e) == -1)
		return NULL;
	state = take_ptr(&o.state);
	owner_file_clear(&o);
	return state;
}

bool relay_is_untaken(const char *path, struct error *e)
{
	struct owner_file o;
	bool is_untaken;

	if (read_owner(path, &o, e) == -1)
		return false;
	is_untaken = owner_file_is(&o, "eligible");
	owner_file_clear(&o);
	if (!is_untaken)
		error_set(e, EPERM, "a guest was started there meanwhile");
	return is_untaken;
}

bool relay_is_handed_over(const char *path, struct error *e)
{
	struct owner_file o;
	bool is_whole;

	if (read_owner(path, &o, e) == -1)
		return false;
	is_whole = owner_file_is(&o, "eligible") || owner_file_is(&o, "owned");
	if (!is_whole)
		error_set(e, EPERM, "%s was not handed over, or it was given back (it is %s): its guest runs from the source",
			  path, o.state);
	owner_file_clear(&o);
	return is_whole;
}

bool relay_may_undo(const char *path, struct error *e)
{
	struct owner_file o;
	bool may;

	if (read_owner(path, &o, e) == -1)
		return false;
	may = owner_file_is(&o, "receiving") || owner_file_is(&o, "incomplete") || owner_file_is(&o, "released") ||
	      (owner_file_is(&o, "owned") && !o.written);
	if (!may)
		error_set(e, EPERM, "%s was handed over (it is %s): it may be the only one that is whole, and is not removed",
			  path, o.state);
	owner_file_clear(&o);
	return may;
}

char *relay_gift_of(const char *path, struct error *e)
{
	char *gift = NULL;
	struct owner_file o;

	if (read_owner(path, &o, e) == -1)
		return NULL;
	if (!owner_file_is(&o, "given") || !o.epoch || !o.mirror)
		error_set(e, EPERM, "%s is not given away (it is %s): its guest may run from here", path, o.state);
	else if (asprintf(&gift, "%s %s", o.epoch, o.mirror) < 0)
		error_set(e, (gift = NULL, ENOMEM), "out of memory");
	owner_file_clear(&o);
	return gift;
}

bool relay_is_still_given(const char *dir, const char *key, struct error *e)
{
	CLEANUP_FREE char *path = relay_image_of(dir, key, e);
	CLEANUP_FREE char *gift = path ? relay_gift_of(path, e) : NULL;

	if (!gift)
		return false;
	if (relay_has_key(dir, key, RELAY_KEY_GIFT, gift))
		return true;
	error_set(e, EPERM, "volume %s was given away by another move since it was kept", key);
	return false;
}

bool relay_is_base(const char *dir, const char *key, struct error *e)
{
	CLEANUP_FREE char *path = relay_image_of(dir, key, e);
	struct owner_file o;
	bool is_dropped;

	if (!path || read_owner(path, &o, e) == -1)
		return false;
	is_dropped = owner_file_is(&o, "incomplete") && relay_has_key(dir, key, RELAY_KEY_TAKEN, NULL);
	owner_file_clear(&o);
	return is_dropped || relay_is_still_given(dir, key, e);
}

/* --- as it is asked for, and called back */

struct whose {
	char *state, *epoch, *mirror;
};
static const struct jsonspec_field whose_fields[] = {
	{ "state", JS_STRING, offsetof(struct whose, state) }, { "epoch", JS_STRING, offsetof(struct whose, epoch) },
	{ "mirror", JS_STRING, offsetof(struct whose, mirror) }, { NULL },
};
static const struct jsonspec whose_spec = { "volume.owner", sizeof(struct whose), whose_fields };

struct whose_args {
	char *uri;
};
static const struct jsonspec_field whose_args_fields[] = { { "uri", JS_STRING, offsetof(struct whose_args, uri) }, { NULL } };
static const struct jsonspec whose_args_spec = { "volume.owner", sizeof(struct whose_args), whose_args_fields };

static char *text_or_none(char *text)
{
	static char none[] = "";

	return text ? text : none;
}

int relay_volume_owner(const char *args, struct relay_reply *r, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *canonical = NULL;
	struct whose_args a;
	struct owner_file o;
	struct whose w;

	if (jsonspec_decode(&whose_args_spec, args, strlen(args), &a, e) == -1)
		return -1;
	path = uri_path(a.uri, "sxm", e);
	jsonspec_clear(&whose_args_spec, &a);
	canonical = path ? uri_canonical(path, e) : NULL;
	if (!path || read_owner(canonical ? canonical : path, &o, e) == -1)
		return -1;
	w = (struct whose) {
		.state = o.state, .epoch = text_or_none(o.epoch), .mirror = text_or_none(o.mirror),
	};
	r->ok = jsonspec_encode(&whose_spec, &w);
	owner_file_clear(&o);
	return r->ok ? 0 : error_set(e, ENOMEM, "out of memory");
}

/* Only what may have been handed over needs it: the rest starts nobody. */
int relay_recall(const char *path, const char *mirror, const char *epoch, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "mirror", mirror, "epoch", epoch, NULL);
	CLEANUP_FREE char *ok = NULL;
	struct process p;
	struct owner_file o;
	bool is_needed;

	if (read_owner(path, &o, e) == -1)
		return -1;
	is_needed = owner_file_is(&o, "eligible") || owner_file_is(&o, "released");
	owner_file_clear(&o);
	if (!is_needed)
		return 0;
	if (!args || process_by_path(&p, path, e) == -1)
		return args ? -1 : error_set(e, ENOMEM, "out of memory");
	ok = process_call(&p, "epoch.recall", args, PROCESS_START, RECALL_WAIT_MS, e);
	return ok ? 0 : -1;
}
