/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay-volume - a move's volumes: made, named, undone; the source kept, and released
 *
 *      make   Volume.create with the mark in its description: so one that was made, and nobody heard of it, is found again
 *      name   the description is the disk's; the mark goes into a key of the volume
 *      undo   destroys what still has the mark in its description; what has its name is complete, and not undone; a source that
 *             was to be taken as a base (relay-base) stays what it is, where that had not begun
 *      keep   a name that says where it went, and keys that say whose it is and until when
 *      release   destroys what was kept with that mark, and nothing else
 *
 * Each looks first at the volume's record (relay-owner): the mark alone does not say who has the data.
 *
 * All of it by the verbs of the plugins, in this process.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/decision.h"
#include "base/jsonspec.h"
#include "base/uri.h"
#include "cmd/relay-verbs.h"
#include "plugins/image.h"
#include "plugins/lock.h"
#include "plugins/sr.h"
#include "plugins/types.h"
#include "plugins/verb.h"
#include "plugins/volume.h"

#define KEY_MARK "sxm_moved"        /* of a disk that came by a move, and of the source that was kept: the move's mark */
#define KEY_UNTIL "sxm_kept_until"  /* of the source: unix time */
#define MARK_FORMAT "sxm migrate %s: being received"
#define MARK_SCAN "sxm migrate %63[0-9A-Za-z._-]: being received"

struct args {
	char *sr, *key, *mark, *name, *description, *mirror, *epoch;
	int64_t size_bytes, until_s;
	char *verb, *type, *args;
};
#define MEMBER(member, kind) { #member, kind, offsetof(struct args, member) }
#define OPTIONAL(member, kind) { #member, kind, offsetof(struct args, member), .is_optional = true }
static const struct jsonspec_field fields[] = {
	MEMBER(sr, JS_STRING), OPTIONAL(key, JS_STRING), MEMBER(mark, JS_STRING), OPTIONAL(name, JS_STRING),
	OPTIONAL(description, JS_STRING), OPTIONAL(mirror, JS_STRING), OPTIONAL(epoch, JS_STRING), OPTIONAL(size_bytes, JS_INT64),
	OPTIONAL(until_s, JS_INT64), { NULL },
};
static const struct jsonspec_field smapi_fields[] = {
	MEMBER(verb, JS_STRING), OPTIONAL(type, JS_STRING), OPTIONAL(args, JS_TEXT), { NULL },
};
static const struct jsonspec spec = { "volume", sizeof(struct args), fields };
static const struct jsonspec smapi_spec = { "smapi", sizeof(struct args), smapi_fields };

/* --- verbs */

/* The SR's type, from its handle: what it is mounted as. */
static const char *type_of(const char *handle)
{
	struct error e;
	CLEANUP_FREE char *dir = uri_path(handle, "file", &e);

	return dir ? relay_sr_type(dir) : sr_filebased.type;
}

static char *call(const char *type, const char *verb, const char *args, struct error *e)
{
	struct failure f;
	char *result = NULL;

	if (verb_call(type, verb, args, &result, &f) == 0)
		return result;
	*e = f.e;
	return NULL;
}

struct volume_call {
	char *dbg, *sr, *key, *name, *description, *new_name, *new_description, *k, *v;
	int64_t size;
	bool is_new, sharable;
};
#define ASKED(member) { #member, JS_STRING, offsetof(struct volume_call, member), .is_optional = true }
static const struct jsonspec_field call_fields[] = {
	ASKED(dbg), ASKED(sr), ASKED(key), ASKED(name), ASKED(description), ASKED(new_name), ASKED(new_description), ASKED(k),
	ASKED(v),
	{ "size", JS_INT64, offsetof(struct volume_call, size), .is_optional = true,
	  .has = offsetof(struct volume_call, is_new) },
	{ "sharable", JS_BOOL, offsetof(struct volume_call, sharable), .is_optional = true,
	  .has = offsetof(struct volume_call, is_new) },
	{ NULL },
};
static const struct jsonspec call_spec = { "call", sizeof(struct volume_call), call_fields };

static char *call_volume(const char *verb, struct volume_call *c, struct error *e)
{
	char dbg[] = "sxm relay";
	CLEANUP_FREE char *args = NULL;

	c->dbg = dbg;
	args = jsonspec_encode(&call_spec, c);
	if (args)
		return call(type_of(c->sr), verb, args, e);
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

static int do_volume(const char *verb, struct volume_call c, struct error *e)
{
	CLEANUP_FREE char *result = call_volume(verb, &c, e);

	return result ? 0 : -1;
}

int relay_smapi(const char *args, struct relay_reply *r, struct error *e)
{
	CLEANUP_FREE char *result = NULL;
	struct args a;
	char *text;

	if (jsonspec_decode(&smapi_spec, args, strlen(args), &a, e) == -1)
		return -1;
	result = call(a.type && *a.type ? a.type : sr_filebased.type, a.verb, a.args ? a.args : "{}", e);
	jsonspec_clear(&smapi_spec, &a);
	if (!result)
		return -1;
	return relay_say(asprintf(&text, "{\"result\":%s}", result) < 0 ? NULL : text, r, e);
}

/* --- the mark */

static int decode(const char *text, struct args *a, struct error *e)
{
	if (jsonspec_decode(&spec, text, strlen(text), a, e) == -1)
		return -1;
	if (decision_group_is_valid(a->mark))
		return 0;
	error_set(e, EINVAL, "%.80s is no mark of a move", a->mark);
	jsonspec_clear(&spec, a);
	return -1;
}

static int done(struct args *a, int r, struct relay_reply *reply, struct error *e)
{
	jsonspec_clear(&spec, a);
	return r == 0 && !reply->ok ? relay_say(strdup("{}"), reply, e) : r;
}

/* The key of the volume with that description, heap; NULL with e->err 0: there is none. */
static char *find_described(const char *dir, const char *description, struct error *e)
{
	struct jsonspec_list keys;
	char *found = NULL;

	*e = (struct error) { 0 };
	if (meta_list(dir, &keys, e) == -1)
		return NULL;
	for (size_t i = 0; i < keys.count && !found; i++) {
		struct meta_volume m;
		struct error why;

		if (meta_volume_read(dir, keys.item[i], &m, &why) == -1)
			continue;
		if (strcmp(m.description, description) == 0)
			found = strdup(keys.item[i]);
		meta_volume_clear(&m);
	}
	meta_list_clear(&keys);
	return found;
}

static char *describe_mark(const char *mark)
{
	char *text;

	return asprintf(&text, MARK_FORMAT, mark) < 0 ? NULL : text;
}

static char *find_marked(const struct args *a, struct error *e)
{
	CLEANUP_FREE char *dir = uri_path(a->sr, "file", e);
	CLEANUP_FREE char *description = describe_mark(a->mark);

	return dir && description ? find_described(dir, description, e) : NULL;
}

static int read_volume(const struct args *a, struct meta_volume *m, struct error *e)
{
	CLEANUP_FREE char *dir = uri_path(a->sr, "file", e);

	if (!dir)
		return -1;
	if (!a->key || !meta_is_key(a->key))
		return error_set(e, EINVAL, "%.80s is no key of a volume", a->key ? a->key : "");
	return meta_volume_read(dir, a->key, m, e);
}

/* --- make, name, undo */

static char *create(const struct args *a, struct error *e)
{
	CLEANUP_FREE char *description = describe_mark(a->mark);
	struct volume_call c = { .sr = a->sr, .name = a->name ? a->name : a->mark, .description = description,
				 .size = a->size_bytes, .is_new = true };
	CLEANUP_FREE char *result = description ? call_volume("Volume.create", &c, e) : NULL;
	struct types_volume v;
	char *key;

	if (!result || jsonspec_decode(&types_volume, result, strlen(result), &v, e) == -1)
		return NULL;
	key = take_ptr(&v.key);
	jsonspec_clear(&types_volume, &v);
	return key;
}

static char *image_of_key(const struct args *a, const char *key, struct error *e)
{
	CLEANUP_FREE char *dir = uri_path(a->sr, "file", e);
	struct meta_volume m;
	struct image image;
	char *path;

	if (!dir || meta_volume_read(dir, key, &m, e) == -1)
		return NULL;
	image = image_of(dir, key, m.format);
	if (m.virtual_size != a->size_bytes) {
		error_set(e, EEXIST, "volume %s was made for this move with %" PRId64 " bytes, not %" PRId64, key, m.virtual_size,
			  a->size_bytes);
		meta_volume_clear(&m);
		return NULL;
	}
	meta_volume_clear(&m);
	path = image_path(&image);
	if (!path)
		error_set(e, ENOMEM, "out of memory");
	return path;
}

static char *image_of_volume(const struct args *a, const char *key, struct error *e)
{
	CLEANUP_FREE char *dir = uri_path(a->sr, "file", e);

	if (dir && key && meta_is_key(key))
		return relay_image_of(dir, key, e);
	if (dir)
		error_set(e, EINVAL, "%.80s is no key of a volume", key ? key : "");
	return NULL;
}

static int make(const struct args *a, struct relay_reply *r, struct error *e)
{
	CLEANUP_FREE char *found = find_marked(a, e);
	CLEANUP_FREE char *key = NULL;
	CLEANUP_FREE char *path = NULL;

	if (!found && e->err)
		return -1;
	key = found ? take_ptr(&found) : create(a, e);
	path = key ? image_of_key(a, key, e) : NULL;
	r->ok = path ? relay_describe(path, e) : NULL;
	return r->ok ? 0 : -1;
}

static int make_locked(const struct args *a, struct relay_reply *r, struct error *e)
{
	int lock = relay_mark_begin(a->mark, e);
	int made = lock < 0 ? -1 : make(a, r, e);

	if (lock >= 0)
		relay_mark_end(a->mark, lock);
	return made;
}

int relay_volume_make(const char *args, struct relay_reply *r, struct error *e)
{
	struct args a;

	return decode(args, &a, e) == 0 ? done(&a, make_locked(&a, r, e), r, e) : -1;
}

/* The description last: as long as it has the mark it can be undone. */
static int name(const struct args *a, struct error *e)
{
	char k[] = KEY_MARK;
	const struct volume_call which = { .sr = a->sr, .key = a->key };
	struct volume_call c = which;
	CLEANUP_FREE char *path = image_of_volume(a, a->key, e);

	if (!path || !relay_is_handed_over(path, e))
		return -1;
	c.k = k;
	c.v = a->mark;
	if (do_volume("Volume.set", c, e) == -1)
		return -1;
	c = which;
	c.new_name = a->name ? a->name : a->mark;
	if (do_volume("Volume.set_name", c, e) == -1)
		return -1;
	c = which;
	c.new_description = a->description;
	if (!c.new_description)
		return error_set(e, EINVAL, "no description is given");
	return do_volume("Volume.set_description", c, e);
}

int relay_volume_name(const char *args, struct relay_reply *r, struct error *e)
{
	struct args a;

	return decode(args, &a, e) == 0 ? done(&a, name(&a, e), r, e) : -1;
}

/* It has its own name already, and was asked back since. */
static char *find_named(const struct args *a, struct error *e)
{
	CLEANUP_FREE char *dir = uri_path(a->sr, "file", e);
	struct jsonspec_list keys;
	char *found = NULL;

	if (!dir || meta_list(dir, &keys, e) == -1)
		return NULL;
	for (size_t i = 0; i < keys.count && !found; i++)
		if (relay_has_key(dir, keys.item[i], KEY_MARK, a->mark) && !relay_has_key(dir, keys.item[i], KEY_UNTIL, NULL))
			found = strdup(keys.item[i]);
	meta_list_clear(&keys);
	return found;
}

static char *find_to_undo(const struct args *a, struct error *e)
{
	CLEANUP_FREE char *dir = uri_path(a->sr, "file", e);
	char *key = find_marked(a, e);

	if (!key && !e->err && dir)
		key = relay_find_taken(dir, a->mark, e);
	return key || e->err || !a->mirror ? key : find_named(a, e);
}

/* 1: there is none that was begun to be taken, and not dropped yet. */
static int undo_taking(const struct args *a, struct error *e)
{
	CLEANUP_FREE char *dir = uri_path(a->sr, "file", e);
	CLEANUP_FREE char *key = dir ? relay_find_taken(dir, a->mark, e) : NULL;

	if (!key)
		return !dir || e->err ? -1 : 1;
	if (!relay_is_still_given(dir, key, e))
		return e->err == EPERM ? 1 : -1;
	return relay_set_key(&(struct relay_mark) { .sr = a->sr, .key = key, .k = RELAY_KEY_TAKEN }, e);
}

static int undo(const struct args *a, struct error *e)
{
	int r = undo_taking(a, e);
	CLEANUP_FREE char *key = r == 1 ? find_to_undo(a, e) : NULL;
	CLEANUP_FREE char *path = key ? image_of_volume(a, key, e) : NULL;

	if (r != 1)
		return r;
	if (!key)
		return e->err ? -1 : 0;
	if (!path || (a->mirror && a->epoch && relay_recall(path, a->mirror, a->epoch, e) == -1) || !relay_may_undo(path, e))
		return -1;
	return do_volume("Volume.destroy", (struct volume_call) { .sr = a->sr, .key = key }, e);
}

static int undo_locked(const struct args *a, struct error *e)
{
	CLEANUP_LOCK int lock = relay_mark_undo(a->mark, e);

	return lock < 0 ? -1 : undo(a, e);
}

int relay_volume_undo(const char *args, struct relay_reply *r, struct error *e)
{
	struct args a;

	return decode(args, &a, e) == 0 ? done(&a, undo_locked(&a, e), r, e) : -1;
}

/* --- keep, release */

static int keep(const struct args *a, struct error *e)
{
	char k_gift[] = RELAY_KEY_GIFT, k_mark[] = KEY_MARK, k_until[] = KEY_UNTIL, until[24];
	const struct volume_call which = { .sr = a->sr, .key = a->key };
	struct volume_call c = which;
	CLEANUP_FREE char *path = image_of_volume(a, a->key, e);
	CLEANUP_FREE char *gift = path ? relay_gift_of(path, e) : NULL;

	if (!gift)
		return -1;
	c.k = k_gift;
	c.v = gift;
	if (do_volume("Volume.set", c, e) == -1)
		return -1;
	snprintf(until, sizeof(until), "%" PRId64, a->until_s);
	c.k = k_mark;
	c.v = a->mark;
	if (do_volume("Volume.set", c, e) == -1)
		return -1;
	c.k = k_until;
	c.v = until;
	if (do_volume("Volume.set", c, e) == -1)
		return -1;
	c = which;
	c.new_name = a->name;
	return a->name ? do_volume("Volume.set_name", c, e) : 0;
}

int relay_volume_keep(const char *args, struct relay_reply *r, struct error *e)
{
	struct args a;

	return decode(args, &a, e) == 0 ? done(&a, keep(&a, e), r, e) : -1;
}

static int release(const struct args *a, struct error *e)
{
	struct meta_volume m;
	const char *mark;
	bool is_kept;
	CLEANUP_FREE char *dir = uri_path(a->sr, "file", e);

	if (!dir)
		return -1;
	if (read_volume(a, &m, e) == -1)
		return e->err == ENOENT ? 0 : -1;
	mark = jsonspec_map_get(&m.keys, KEY_MARK);
	is_kept = mark && strcmp(mark, a->mark) == 0 && jsonspec_map_get(&m.keys, KEY_UNTIL);
	meta_volume_clear(&m);
	if (!is_kept)
		return error_set(e, EPERM, "volume %s was not kept by move %s", a->key, a->mark);
	if (!relay_is_base(dir, a->key, e))
		return -1;
	return do_volume("Volume.destroy", (struct volume_call) { .sr = a->sr, .key = a->key }, e);
}

int relay_volume_release(const char *args, struct relay_reply *r, struct error *e)
{
	struct args a;

	return decode(args, &a, e) == 0 ? done(&a, release(&a, e), r, e) : -1;
}

/* --- for the way back */

int relay_set_key(const struct relay_mark *m, struct error *e)
{
	const struct volume_call c = { .sr = m->sr, .key = m->key, .k = (char *)(uintptr_t)m->k, .v = (char *)(uintptr_t)m->v };

	return do_volume(m->v ? "Volume.set" : "Volume.unset", c, e);
}

bool relay_has_key(const char *dir, const char *key, const char *k, const char *v)
{
	struct meta_volume m;
	struct error e;
	const char *found;
	bool has_it;

	if (meta_volume_read(dir, key, &m, &e) == -1)
		return false;
	found = jsonspec_map_get(&m.keys, k);
	has_it = found && (!v || strcmp(found, v) == 0);
	meta_volume_clear(&m);
	return has_it;
}

int relay_do(const char *verb, char *sr, char *key, struct error *e)
{
	return do_volume(verb, (struct volume_call) { .sr = sr, .key = key }, e);
}

char *relay_find_marked(const char *dir, const char *mark, struct error *e)
{
	CLEANUP_FREE char *description = describe_mark(mark);

	return description ? find_described(dir, description, e) : NULL;
}

char *relay_mark_of(const char *dir, const char *key)
{
	char received[DECISION_GROUP_MAX + 1] = "";
	const char *mark = received;
	char *copy = NULL;
	struct meta_volume m;
	struct error e;
	int end = 0;

	if (meta_volume_read(dir, key, &m, &e) == -1)
		return NULL;
	if (sscanf(m.description, MARK_SCAN "%n", received, &end) != 1 || !end || m.description[end])
		mark = jsonspec_map_get(&m.keys, KEY_UNTIL) ? NULL : jsonspec_map_get(&m.keys, KEY_MARK);
	if (mark && decision_group_is_valid(mark))
		copy = strdup(mark);
	meta_volume_clear(&m);
	return copy;
}

int relay_mark_volume(char *sr, char *key, const char *mark, struct error *e)
{
	CLEANUP_FREE char *description = describe_mark(mark);
	const struct relay_mark until = { .sr = sr, .key = key, .k = KEY_UNTIL }, moved = { .sr = sr, .key = key, .k = KEY_MARK };
	const struct relay_mark gift = { .sr = sr, .key = key, .k = RELAY_KEY_GIFT };
	const struct relay_mark taken = { .sr = sr, .key = key, .k = RELAY_KEY_TAKEN };

	if (!description)
		return error_set(e, ENOMEM, "out of memory");
	if (do_volume("Volume.set_description", (struct volume_call) { .sr = sr, .key = key, .new_description = description },
		      e) == -1)
		return -1;
	return relay_set_key(&until, e) == 0 && relay_set_key(&gift, e) == 0 && relay_set_key(&moved, e) == 0 ?
	       relay_set_key(&taken, e) : -1;
}

/* Once it is marked it is kept no more, and found by that. */
char *relay_find_taken(const char *dir, const char *mark, struct error *e)
{
	struct jsonspec_list keys;
	char *found = NULL;

	*e = (struct error) { 0 };
	if (meta_list(dir, &keys, e) == -1)
		return NULL;
	for (size_t i = 0; i < keys.count && !found; i++)
		if (relay_has_key(dir, keys.item[i], RELAY_KEY_TAKEN, mark) && relay_has_key(dir, keys.item[i], KEY_UNTIL, NULL))
			found = strdup(keys.item[i]);
	meta_list_clear(&keys);
	return found;
}

char *relay_image_of(const char *dir, const char *key, struct error *e)
{
	struct meta_volume m;
	struct image image;
	char *path;

	if (meta_volume_read(dir, key, &m, e) == -1)
		return NULL;
	image = image_of(dir, key, m.format);
	meta_volume_clear(&m);
	path = image_path(&image);
	if (!path)
		error_set(e, ENOMEM, "out of memory");
	return path;
}
