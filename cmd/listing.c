/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * listing - see listing.h
 *
 *      a child looks whether the SR answers -> its record -> each volume: record and image -> its process, where there is one
 *                                                                                          -> else what lies beside the image
 *
 * An SR whose server does not answer is said to be so after LOOK_MS. A process that does not answer costs its volume a word.
 */
#include "cmd/listing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/host-id.h"
#include "base/lease.h"
#include "base/uri.h"
#include "cmd/live.h"
#include "plugins/image.h"
#include "plugins/bounded.h"
#include "plugins/meta.h"
#include "plugins/smapi.h"

#define LOOK_MS 5000u
#define ASK_MS 2000u

#define USER(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct listing_user, field) }
static const struct jsonspec_field user_fields[] = {
	USER("domain", JS_STRING, domain), USER("active", JS_BOOL, is_active), USER("read_only", JS_BOOL, is_read_only),
	USER("clients", JS_INT64, clients), { .name = NULL },
};
static const struct jsonspec user_spec = { "user", sizeof(struct listing_user), user_fields };

#define MIRROR(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct listing_mirror, field) }
static const struct jsonspec_field mirror_fields[] = {
	MIRROR("id", JS_STRING, id), MIRROR("copy", JS_BOOL, is_copy), MIRROR("state", JS_STRING, state),
	MIRROR("progress", JS_FLOAT, progress), MIRROR("complete", JS_BOOL, is_complete), MIRROR("failed", JS_BOOL, is_failed),
	MIRROR("why", JS_STRING, why), MIRROR("remote", JS_STRING, remote), { .name = NULL },
};
static const struct jsonspec mirror_spec = { "mirror", sizeof(struct listing_mirror), mirror_fields };

#define VOLUME(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct listing_volume, field) }
#define MAYBE(member, kind, field) { .name = member, .type = kind, .offset = offsetof(struct listing_volume, field), \
				     .is_optional = true }
static const struct jsonspec_field volume_fields[] = {
	VOLUME("key", JS_STRING, key), MAYBE("uuid", JS_STRING, uuid), VOLUME("name", JS_STRING, name),
	VOLUME("description", JS_STRING, description), VOLUME("format", JS_STRING, format), VOLUME("uri", JS_STRING, uri),
	VOLUME("image", JS_STRING, image), VOLUME("size_bytes", JS_INT64, size_bytes),
	VOLUME("allocated_bytes", JS_INT64, allocated_bytes), VOLUME("read_write", JS_BOOL, is_writable),
	VOLUME("sharable", JS_BOOL, is_sharable), VOLUME("snapshot", JS_BOOL, is_snapshot),
	MAYBE("snapshot_of", JS_STRING, snapshot_of), MAYBE("snapshot_time", JS_STRING, snapshot_time),
	MAYBE("family", JS_STRING, family), VOLUME("cbt", JS_BOOL, is_tracked),
	VOLUME("data_destroyed", JS_BOOL, is_data_destroyed), MAYBE("active_on_host", JS_STRING, host),
	MAYBE("owner", JS_STRING, owner), MAYBE("trouble", JS_STRING, trouble),
	{ .name = "domains", .type = JS_RECORDS, .offset = offsetof(struct listing_volume, users), .sub = &user_spec },
	{ .name = "mirrors", .type = JS_RECORDS, .offset = offsetof(struct listing_volume, mirrors), .sub = &mirror_spec },
	{ .name = NULL },
};
static const struct jsonspec volume_spec = { "volume", sizeof(struct listing_volume), volume_fields };

#define LISTING(member, kind, field, optional) \
	{ .name = member, .type = kind, .offset = offsetof(struct listing, field), .is_optional = optional }
static const struct jsonspec_field listing_fields[] = {
	LISTING("dir", JS_STRING, dir, false), LISTING("uuid", JS_STRING, uuid, true), LISTING("name", JS_STRING, name, true),
	LISTING("description", JS_STRING, description, true), LISTING("format", JS_STRING, format, true),
	LISTING("shared", JS_BOOL, is_shared, false), LISTING("trouble", JS_STRING, trouble, true),
	{ .name = "volumes", .type = JS_RECORDS, .offset = offsetof(struct listing, volumes), .sub = &volume_spec },
	{ .name = NULL },
};
const struct jsonspec listing_spec = { "SR", sizeof(struct listing), listing_fields };

/* --- one volume, from its files */

static char *copy_of(const char *text)
{
	return text && *text ? strdup(text) : NULL;
}

/* Takes the strings of v and m over. -1: out of memory. */
static int take_record(struct listing_volume *out, const char *dir, struct types_volume *v, struct meta_volume *m)
{
	const struct image i = image_of(dir, v->key, m->format);
	CLEANUP_FREE char *path = image_path(&i);
	const char *mark = jsonspec_map_get(&v->keys, "is_a_snapshot");
	struct error e;

	*out = (struct listing_volume) {
		.key = take_ptr(&v->key), .uuid = take_ptr(&v->uuid), .name = take_ptr(&v->name),
		.description = take_ptr(&v->description), .format = strdup(i.ops->format),
		.uri = v->uri.count ? take_ptr(&v->uri.item[0]) : strdup(""),
		.size_bytes = v->virtual_size, .allocated_bytes = v->physical_utilisation, .is_writable = v->read_write,
		.is_sharable = v->sharable, .is_tracked = v->cbt_enabled, .is_data_destroyed = m->is_data_destroyed,
		.is_snapshot = mark && strcmp(mark, "true") == 0, .family = take_ptr(&m->family),
		.snapshot_of = copy_of(jsonspec_map_get(&v->keys, "snapshot_of")),
		.snapshot_time = copy_of(jsonspec_map_get(&v->keys, "snapshot_time")), .parent = LISTING_NONE,
	};
	if (!path)
		return -1;
	out->image = uri_canonical(path, &e);
	if (!out->image)
		out->image = take_ptr(&path);
	return out->key && out->name && out->description && out->format && out->uri && out->image ? 0 : -1;
}

/* --- ... and from its process */

static int take_users(struct listing_volume *out, struct live *l)
{
	struct live_user *from = l->users.item;
	struct listing_user *to = calloc(l->users.count + 1, sizeof(*to));

	if (!to)
		return -1;
	for (size_t i = 0; i < l->users.count; i++)
		to[i] = (struct listing_user) {
			.domain = take_ptr(&from[i].domain), .is_active = from[i].is_active, .is_read_only = from[i].is_read_only,
			.clients = from[i].clients,
		};
	out->users = (struct jsonspec_records) { l->users.count, to };
	return 0;
}

static int take_mirror(struct listing_volume *out, const struct live *l)
{
	const struct live_operation *o = live_current(l);
	struct listing_mirror *to;

	if (!o)
		return 0;
	to = calloc(1, sizeof(*to));
	if (!to)
		return -1;
	*to = (struct listing_mirror) {
		.id = strdup(o->id), .state = strdup(o->state), .why = strdup(o->why), .remote = strdup(o->remote),
		.is_copy = o->is_copy, .is_failed = o->is_failed, .is_complete = o->is_complete, .progress = o->progress,
	};
	out->mirrors = (struct jsonspec_records) { 1, to };
	return to->id && to->state && to->why && to->remote ? 0 : -1;
}

/* Nobody has it here: another host may. */
static void look_elsewhere(struct listing_volume *v)
{
	char own[HOST_ID_MAX];
	struct lease seen;
	struct error e;

	if (lease_look(v->image, &seen, &e) == 0 && seen.kind == LEASE_HELD &&
	    (host_id(own, &e) == -1 || strcmp(own, seen.host) != 0))
		v->host = strdup(seen.host);
}

static int look_live(struct listing_volume *v)
{
	struct error e = { 0 };
	struct live l = { 0 };
	int r;

	if (live_ask(v->image, ASK_MS, &l, &e) == -1 && e.err != ESRCH) {
		v->trouble = strdup(e.text);
		return 0;
	}
	if (!l.users.count)
		look_elsewhere(v);
	v->owner = l.owner && *l.owner ? take_ptr(&l.owner) : live_owner_on_record(v->image);
	r = take_users(v, &l) == 0 ? take_mirror(v, &l) : -1;
	live_clear(&l);
	return r;
}

/* 1: there is no such volume (any more). -1: out of memory. */
static int look_at_volume(const char *dir, const char *key, struct listing_volume *out)
{
	struct types_volume v;
	struct meta_volume m;
	struct error e = { 0 };
	int r = volume_describe(dir, key, &v, &e);

	if (r)
		return r;
	if (meta_volume_read(dir, key, &m, &e) == -1) {
		r = meta_volume_guess(key, image_of(dir, key, NULL).ops->format, &m);
		error_prefix(&e, "its record is damaged");
	}
	if (r == 0) {
		r = take_record(out, dir, &v, &m);
		if (e.err)
			out->trouble = strdup(e.text);
		meta_volume_clear(&m);
	}
	jsonspec_clear(&types_volume, &v);
	return r == 0 ? look_live(out) : -1;
}

/* --- all of them */

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct listing_volume *)a)->key, ((const struct listing_volume *)b)->key);
}

static void find_parents(struct listing *l)
{
	struct listing_volume *v = l->volumes.item;

	if (!l->volumes.count)
		return;
	qsort(v, l->volumes.count, sizeof(*v), by_key);
	for (size_t i = 0; i < l->volumes.count; i++) {
		const struct listing_volume wanted = { .key = v[i].snapshot_of };
		const struct listing_volume *found;

		found = wanted.key ? bsearch(&wanted, v, l->volumes.count, sizeof(*v), by_key) : NULL;
		if (found)
			v[i].parent = (size_t)(found - v);
	}
}

static int look_at_volumes(struct listing *l, const struct jsonspec_list *keys)
{
	struct listing_volume *v = calloc(keys->count + 1, sizeof(*v));

	if (!v)
		return -1;
	l->volumes.item = v;
	for (size_t i = 0; i < keys->count; i++) {
		int r = look_at_volume(l->dir, keys->item[i], &v[l->volumes.count]);

		if (r == -1)
			return -1;
		l->volumes.count += r == 0;
	}
	find_parents(l);
	return 0;
}

static int say_trouble(struct listing *l, const struct error *e)
{
	l->trouble = strdup(e->text);
	return l->trouble ? 0 : -1;
}

int listing_look(const char *dir, struct listing *l)
{
	struct jsonspec_list keys;
	struct meta_sr m = { 0 };
	struct error e = { 0 };
	int r;

	*l = (struct listing) { .dir = strdup(dir) };
	if (!l->dir)
		return -1;
	if (bounded_look_at_sr(l->dir, LOOK_MS, &e) == -1)
		return say_trouble(l, &e);
	if (meta_sr_read(dir, &m, &e) == 0) {
		*l = (struct listing) { .dir = l->dir, .uuid = take_ptr(&m.uuid), .name = take_ptr(&m.name),
					.description = take_ptr(&m.description), .format = take_ptr(&m.format),
					.is_shared = m.is_shared };
		meta_sr_clear(&m);
	} else if (say_trouble(l, &e) == -1 || e.err != EBADMSG) {
		return l->trouble ? 0 : -1;
	}
	if (meta_list(dir, &keys, &e) == -1)
		return l->trouble ? 0 : say_trouble(l, &e);
	r = look_at_volumes(l, &keys);
	meta_list_clear(&keys);
	return r;
}
