/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay-base - the way back: the source that a move kept is a base, and only what changed since goes back to it
 *
 *      there   track   the disk was handed over, nobody has had it yet: a new log of its changes begins; its id into a key of
 *                      the volume
 *      here    find    the volume that was kept by the move with that mark
 *              take    on record who takes it; its process: what was given away may receive; its description has the new move's
 *                      mark, as any volume's that is being received; it is kept for nobody any more
 *
 * What is called the base's content is what the disk had at COMMIT: since then nobody could write here, and what was written
 * there is in the log. So there is no log, and all goes back, where a guest may have written before it began:
 *
 *      COMMIT - a person starts the guest - it writes - whoever goes on with the move asks for track: too late
 *
 * A guest's first activation is on record, durable, before it writes, and the log is there when it is opened. So that record is
 * looked at before the log is made and after.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/decision.h"
#include "base/jsonspec.h"
#include "base/uri.h"
#include "cmd/relay-verbs.h"
#include "plugins/chain.h"
#include "plugins/meta.h"
#include "plugins/process.h"

#define DROP_WAIT_MS 20000u

struct args {
	char *sr, *key, *mark, *base;
	int64_t size_bytes;
};
#define OPTIONAL(member, kind) { #member, kind, offsetof(struct args, member), .is_optional = true }
static const struct jsonspec_field fields[] = {
	{ "sr", JS_STRING, offsetof(struct args, sr) }, OPTIONAL(key, JS_STRING), OPTIONAL(mark, JS_STRING),
	OPTIONAL(base, JS_STRING), OPTIONAL(size_bytes, JS_INT64), { NULL },
};
static const struct jsonspec spec = { "base", sizeof(struct args), fields };

struct decoded {
	struct args a;
	char *dir; /* owned */
};

static int decode(const char *text, struct decoded *d, struct error *e)
{
	if (jsonspec_decode(&spec, text, strlen(text), &d->a, e) == -1)
		return -1;
	d->dir = uri_path(d->a.sr, "file", e);
	if (d->dir)
		return 0;
	jsonspec_clear(&spec, &d->a);
	return -1;
}

static int done(struct decoded *d, int r)
{
	free(d->dir);
	jsonspec_clear(&spec, &d->a);
	return r;
}

/* --- track */

/* A log that is there and not this one came with the disk: it has served. */
static int begin_log(const struct decoded *d, char id[static CHAIN_ID_MAX], struct error *e)
{
	if (chain_log_id(d->dir, d->a.key, id, e) == 0) {
		if (relay_do("Volume.disable_cbt", d->a.sr, d->a.key, e) == -1)
			return -1;
	} else if (e->err != ENOENT) {
		return -1;
	}
	return relay_do("Volume.enable_cbt", d->a.sr, d->a.key, e) == 0 ? chain_log_id(d->dir, d->a.key, id, e) : -1;
}

/* -1 + e: no log is there that would not have all. */
static int begin_log_in_time(const struct decoded *d, char id[static CHAIN_ID_MAX], struct error *e)
{
	CLEANUP_FREE char *path = relay_image_of(d->dir, d->a.key, e);
	struct error why;

	if (!path || !relay_is_untaken(path, e) || begin_log(d, id, e) == -1)
		return -1;
	if (relay_is_untaken(path, e))
		return 0;
	relay_do("Volume.disable_cbt", d->a.sr, d->a.key, &why);
	return -1;
}

static int track(const struct decoded *d, struct relay_reply *r, struct error *e)
{
	char id[CHAIN_ID_MAX];
	struct relay_mark m = { .sr = d->a.sr, .key = d->a.key, .k = "sxm_log", .v = id };
	char *text;

	if (!d->a.key || !meta_is_key(d->a.key))
		return error_set(e, EINVAL, "no volume is named");
	if (chain_log_id(d->dir, d->a.key, id, e) == 0 && relay_has_key(d->dir, d->a.key, "sxm_log", id))
		error_clear(e); /* asked again */
	else if (begin_log_in_time(d, id, e) == -1 || relay_set_key(&m, e) == -1)
		return -1;
	return relay_say(asprintf(&text, "{\"log\":\"%s\"}", id) < 0 ? NULL : text, r, e);
}

int relay_volume_track(const char *args, struct relay_reply *r, struct error *e)
{
	struct decoded d;

	return decode(args, &d, e) == 0 ? done(&d, track(&d, r, e)) : -1;
}

/* --- find, take */

/* Kept by that move: its key; heap. NULL + e: ENOENT. */
static char *find_kept(const char *dir, const char *mark, struct error *e)
{
	struct jsonspec_list keys;
	char *found = NULL;

	if (meta_list(dir, &keys, e) == -1)
		return NULL;
	for (size_t i = 0; i < keys.count && !found; i++)
		if (relay_has_key(dir, keys.item[i], "sxm_moved", mark) && relay_has_key(dir, keys.item[i], "sxm_kept_until",
											 NULL))
			found = strdup(keys.item[i]);
	meta_list_clear(&keys);
	if (!found)
		error_set(e, ENOENT, "no source of move %s is kept there", mark);
	return found;
}

/* Its image's path, heap; NULL + e. */
static char *find_base(const struct decoded *d, const char *mark, char **key, struct error *e)
{
	*key = NULL;
	if (!mark || !decision_group_is_valid(mark)) {
		error_set(e, EINVAL, "no move is named");
		return NULL;
	}
	*key = find_kept(d->dir, mark, e);
	return *key && relay_is_still_given(d->dir, *key, e) ? relay_image_of(d->dir, *key, e) : NULL;
}

static int find(const struct decoded *d, struct relay_reply *r, struct error *e)
{
	CLEANUP_FREE char *key = NULL;
	CLEANUP_FREE char *path = find_base(d, d->a.mark, &key, e);

	r->ok = path ? relay_describe(path, e) : NULL;
	return r->ok ? 0 : -1;
}

int relay_base_find(const char *args, struct relay_reply *r, struct error *e)
{
	struct decoded d;

	return decode(args, &d, e) == 0 ? done(&d, find(&d, r, e)) : -1;
}

static int drop(const char *path, struct error *e)
{
	CLEANUP_FREE char *ok = NULL;
	struct process p;

	if (process_by_path(&p, path, e) == -1)
		return -1;
	ok = process_call(&p, "epoch.drop", NULL, PROCESS_START, DROP_WAIT_MS, e);
	return ok ? 0 : -1;
}

/* NULL with e->err 0: nobody has begun to take one. */
static char *find_begun(const struct decoded *d, char **key, struct error *e)
{
	*key = relay_find_marked(d->dir, d->a.mark, e);
	if (*key)
		return relay_image_of(d->dir, *key, e);
	*key = e->err ? NULL : relay_find_taken(d->dir, d->a.mark, e);
	return *key && relay_is_base(d->dir, *key, e) ? relay_image_of(d->dir, *key, e) : NULL;
}

/* Once it is dropped it is not given any more, and by nothing else would be found for what it is. */
static char *begin(const struct decoded *d, char **key, struct error *e)
{
	CLEANUP_FREE char *path = find_base(d, d->a.base, key, e);

	if (!path)
		return NULL;
	if (relay_set_key(&(struct relay_mark) { .sr = d->a.sr, .key = *key, .k = RELAY_KEY_TAKEN, .v = d->a.mark }, e) == -1)
		return NULL;
	return take_ptr(&path);
}

/* Where it was begun before, all of it is done again: nobody knows how far that came. */
static int take(const struct decoded *d, struct relay_reply *r, struct error *e)
{
	CLEANUP_FREE char *key = NULL;
	CLEANUP_FREE char *path = find_begun(d, &key, e);

	if (!path && !e->err)
		path = begin(d, &key, e);
	if (!path || drop(path, e) == -1 || relay_mark_volume(d->a.sr, key, d->a.mark, e) == -1)
		return -1;
	r->ok = relay_describe(path, e);
	return r->ok ? 0 : -1;
}

static int take_locked(const struct decoded *d, struct relay_reply *r, struct error *e)
{
	int lock = relay_mark_begin(d->a.mark, e);
	int taken = lock < 0 ? -1 : take(d, r, e);

	if (lock >= 0)
		relay_mark_end(d->a.mark, lock);
	return taken;
}

int relay_base_take(const char *args, struct relay_reply *r, struct error *e)
{
	struct decoded d;

	if (decode(args, &d, e) == -1)
		return -1;
	if (!d.a.mark || !decision_group_is_valid(d.a.mark))
		return done(&d, error_set(e, EINVAL, "no move is named"));
	return done(&d, take_locked(&d, r, e));
}
