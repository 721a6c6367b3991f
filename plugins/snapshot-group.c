/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * snapshot-group - see snapshot-group.h
 *
 *      look       each is there, is active on no other host; none is named twice
 *      lock       SRs (shared), records (exclusively), what formats lock: in the order of SRs' uuids, then of keys
 *      prepare    files are made, under passing names; whatever may be slow
 *      hold       all guests' writes, all asked at once; within TAKING_WAIT_MS
 *      cut, go    the moment is over: all guests go on
 *      finish     files are whole and durable
 *      publish    joint_begin -> images and records, shown to nobody -> joint_commit -> passing names go
 *
 * Who takes more than one of these locks takes them in that order: so two groups that overlap, and a revert or compose, wait for
 * one another and never in a circle. A record's lock keeps a second group from a disk that is held for the first.
 *
 * Killed before guests go on: connections end, so does each hold. Killed later: joint.h.
 * Can fail: everything, up to joint_commit(); then what was made is removed.
 */
#include "plugins/snapshot-group.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/uri.h"
#include "plugins/datapath.h"
#include "plugins/joint.h"
#include "plugins/sr.h"
#include "plugins/taking.h"

struct place {
	char *handle;     /* owned */
	struct sr sr;
	dev_t dev;
	ino_t ino;
	int lock, names;  /* owned; -1 */
};

struct item {
	struct snapshot_member *member; /* borrowed */
	struct place *place;            /* borrowed */
	int lock;                       /* owned: the record's; -1 */
	struct meta_volume meta;        /* the origin's, later the snapshot's */
	struct image_taking taking;
	void *state;                    /* owned: of the steps of its format */
};

struct work {
	struct snapshot_group *group;   /* borrowed */
	struct place place[SNAPSHOT_GROUP_MAX];
	const char *dirs[SNAPSHOT_GROUP_MAX];
	size_t places;
	struct item item[SNAPSHOT_GROUP_MAX];
	size_t items;
	bool is_begun;                  /* joint_begin() was called */
};

static int out_of_memory(struct error *e)
{
	return error_set(e, ENOMEM, "out of memory");
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
}

/* -1. */
static int say(const struct item *i, struct error *e)
{
	return error_prefix(e, "volume %s in %s", i->member->key, i->place->sr.dir);
}

static int pass(const struct failure *f, struct error *e)
{
	*e = f->e;
	return -1;
}

/* --- look */

/* The same directory may have several paths. NULL + e. */
static struct place *find_place(struct work *w, const char *dir, struct error *e)
{
	struct place *p = &w->place[w->places];
	struct failure f;
	struct stat st;

	if (stat(dir, &st) == -1) {
		error_errno(e, errno, "look at %s", dir);
		return NULL;
	}
	for (size_t i = 0; i < w->places; i++)
		if (w->place[i].dev == st.st_dev && w->place[i].ino == st.st_ino)
			return &w->place[i];
	*p = (struct place) { .handle = uri_of_path("file", dir), .dev = st.st_dev, .ino = st.st_ino, .lock = -1, .names = -1 };
	if (!p->handle) {
		out_of_memory(e);
		return NULL;
	}
	if (sr_open(&p->sr, p->handle, &f) == -1) {
		free(take_ptr(&p->handle));
		pass(&f, e);
		return NULL;
	}
	w->places++;
	return p;
}

/* Other hosts, too, know these. */
static int compare_places(const void *a, const void *b)
{
	const struct place *one = a, *other = b;
	int r = strcmp(one->sr.meta.uuid, other->sr.meta.uuid);

	return r ? r : strcmp(one->sr.dir, other->sr.dir);
}

static int compare_items(const void *a, const void *b)
{
	const struct item *one = a, *other = b;

	if (one->place != other->place)
		return one->place < other->place ? -1 : 1;
	return strcmp(one->member->key, other->member->key);
}

static int find_all(struct work *w, struct error *e)
{
	struct snapshot_group *g = w->group;

	for (size_t i = 0; i < g->count; i++)
		if (!find_place(w, g->member[i].dir, e))
			return -1;
	qsort(w->place, w->places, sizeof(*w->place), compare_places);
	for (size_t i = 0; i < w->places; i++)
		w->dirs[i] = w->place[i].sr.dir;
	for (size_t i = 0; i < g->count; i++) {
		w->item[i] = (struct item) { .member = &g->member[i], .lock = -1 };
		w->item[i].place = find_place(w, g->member[i].dir, e);
		if (!w->item[i].place)
			return -1;
		w->items++;
	}
	qsort(w->item, w->items, sizeof(*w->item), compare_items);
	for (size_t i = 1; i < w->items; i++)
		if (compare_items(&w->item[i - 1], &w->item[i]) == 0)
			return error_set(e, EINVAL, "volume %s in %s is named twice", w->item[i].member->key,
					 w->item[i].place->sr.dir);
	return 0;
}

/* Before locks are taken, as it may wait. */
static int merge(const char *dir, const char *key, struct error *e)
{
	const struct image i = image_of(dir, key, NULL);
	CLEANUP_FREE char *path = image_path(&i);

	return path ? datapath_merge(path, e) : out_of_memory(e);
}

static int check_all(struct work *w, struct error *e)
{
	struct failure f;

	for (size_t i = 0; i < w->items; i++) {
		const struct snapshot_member *m = w->item[i].member;
		const char *dir = w->item[i].place->sr.dir;

		if (!meta_is_key(m->key)) {
			volume_raise_missing(m->key, &f);
			pass(&f, e);
			return error_prefix(e, "%s", dir);
		}
		if (volume_check_here(dir, m->key, &f) == -1) {
			pass(&f, e);
			return say(&w->item[i], e);
		}
		if (merge(dir, m->key, e) == -1)
			return error_prefix(e, "%s", dir);
	}
	return 0;
}

/* --- lock */

static int lock_item(struct item *i, struct error *e)
{
	const char *dir = i->place->sr.dir;
	struct failure f;

	i->lock = volume_lock(dir, i->member->key, LOCK_EXCLUSIVE, &f);
	if (i->lock < 0 || volume_read_whole(dir, i->member->key, &i->meta, &f) == -1) {
		pass(&f, e);
		return error_prefix(e, "%s", dir);
	}
	i->taking.is_snapshot = true;
	i->taking.was_written = volume_is_doubted(dir, i->member->key, &i->meta);
	i->taking.from = image_of(dir, i->member->key, i->meta.format);
	i->taking.to = (struct image) { dir, i->member->new_key, i->taking.from.ops };
	i->state = calloc(1, i->taking.from.ops->steps->bytes);
	return i->state ? 0 : out_of_memory(e);
}

static int lock_all(struct work *w, struct error *e)
{
	struct failure f;

	for (size_t i = 0; i < w->places; i++)
		if ((w->place[i].lock = volume_hold_sr(&w->place[i].sr, &f)) < 0)
			return pass(&f, e);
	for (size_t i = 0; i < w->items; i++)
		if (lock_item(&w->item[i], e) == -1)
			return -1;
	for (size_t i = 0; i < w->items; i++) {
		struct place *p = w->item[i].place;
		const struct image_ops *ops = w->item[i].taking.from.ops;

		if (ops->lock && p->names < 0 && (p->names = ops->lock(p->sr.dir, e)) < 0)
			return -1;
	}
	return 0;
}

/* Names are given one by one from here on. */
static void unlock_names(struct work *w)
{
	for (size_t i = 0; i < w->places; i++)
		if (w->place[i].names >= 0)
			close(take_fd(&w->place[i].names));
}

/* --- one moment */

static const struct taking_steps *steps(const struct item *i)
{
	return i->taking.from.ops->steps;
}

static int prepare_all(struct work *w, struct error *e)
{
	for (size_t i = 0; i < w->items; i++)
		if (steps(&w->item[i])->prepare(w->item[i].state, &w->item[i].taking, e) == -1)
			return say(&w->item[i], e);
	return 0;
}

static int hold_all(struct work *w, struct error *e)
{
	uint64_t begun_ms = now_ms(), took_ms;

	for (size_t i = 0; i < w->items; i++)
		steps(&w->item[i])->ask(w->item[i].state, TAKING_WAIT_MS);
	for (size_t i = 0; i < w->items; i++)
		if (steps(&w->item[i])->wait(w->item[i].state, e) == -1)
			return say(&w->item[i], e);
	took_ms = now_ms() - begun_ms;
	if (took_ms < TAKING_HELD_MS)
		return 0;
	return error_set(e, ETIMEDOUT,
			 "it took %llu ms until the writes to all %zu volumes were held, and none is held for so long",
			 (unsigned long long)took_ms, w->items);
}

static int cut_all(struct work *w, struct error *e)
{
	for (size_t i = 0; i < w->items; i++)
		if (steps(&w->item[i])->cut && steps(&w->item[i])->cut(w->item[i].state, e) == -1)
			return say(&w->item[i], e);
	for (size_t i = 0; i < w->places; i++) {
		int err = w->place[i].names >= 0 ? image_sync_dir(w->place[i].sr.dir) : 0;

		if (err)
			return error_errno(e, err, "make the new names in %s durable", w->place[i].sr.dir);
	}
	return 0;
}

static void undo_cuts(struct work *w)
{
	for (size_t i = 0; i < w->items; i++)
		if (steps(&w->item[i])->back)
			steps(&w->item[i])->back(w->item[i].state);
}

static int finish_all(struct work *w, struct error *e)
{
	int r = 0;

	for (size_t i = 0; i < w->items; i++) {
		struct item *item = &w->item[i];
		struct error why;

		if (steps(item)->finish(item->state, &why) == 0) {
			item->member->held_us = steps(item)->held_us(item->state);
		} else if (r == 0) {
			*e = why;
			r = say(item, e);
		}
	}
	return r;
}

static int take_all(struct work *w, struct error *e)
{
	int r = prepare_all(w, e);

	if (r == 0) {
		r = hold_all(w, e);
		if (r == 0 && (r = cut_all(w, e)) == -1)
			undo_cuts(w);
		for (size_t i = 0; i < w->items; i++)
			steps(&w->item[i])->go(w->item[i].state, r == 0);
	}
	if (r == 0)
		r = finish_all(w, e);
	for (size_t i = 0; i < w->items; i++)
		steps(&w->item[i])->end(w->item[i].state);
	return r;
}

/* --- published */

static int describe_all(struct work *w, struct error *e)
{
	for (size_t i = 0; i < w->items; i++) {
		struct meta_volume *m = &w->item[i].meta;

		if (volume_derive(m, &w->item[i].taking, true, e) == -1)
			return say(&w->item[i], e);
		if (jsonspec_map_set(&m->keys, JOINT_KEY, w->group->id) == -1 ||
		    jsonspec_map_set(&m->keys, "snapshot_time", w->group->time) == -1)
			return out_of_memory(e);
	}
	return 0;
}

static int publish_all(struct work *w, struct error *e)
{
	if (describe_all(w, e) == -1)
		return -1;
	w->is_begun = true;
	if (joint_begin(w->dirs, w->places, w->group->id, e) == -1)
		return -1;
	for (size_t i = 0; i < w->items; i++)
		if (image_publish(&w->item[i].taking.to, e) == -1)
			return say(&w->item[i], e);
	for (size_t i = 0; i < w->items; i++) {
		struct item *item = &w->item[i];

		if (meta_volume_write(item->place->sr.dir, item->member->new_key, &item->meta, e) == -1)
			return say(item, e);
	}
	return joint_commit(w->dirs, w->places, w->group->id, e);
}

static void remove_all(struct work *w)
{
	for (size_t i = 0; i < w->items; i++) {
		const struct image *to = &w->item[i].taking.to;
		CLEANUP_FREE char *record = meta_volume_path(to->dir, to->key);
		struct error e;

		if (record && w->is_begun)
			unlink(record); /* it may be there, and only not durable */
		if (image_unlink(to, &e) == -1)
			log_warn("%s", e.text);
	}
	if (w->is_begun)
		joint_abandon(w->dirs, w->places, w->group->id);
	/* Where leaves had new names already, there is a base too many under each. */
	for (size_t i = 0; i < w->items; i++)
		if (w->item[i].taking.from.ops->collect)
			w->item[i].taking.from.ops->collect(w->item[i].place->sr.dir);
}

static int take_and_publish(struct work *w, struct error *e)
{
	int r = take_all(w, e);

	unlock_names(w);
	if (r == 0)
		r = publish_all(w, e);
	if (r == -1) {
		remove_all(w);
		return -1;
	}
	for (size_t i = 0; i < w->items; i++)
		image_settle(&w->item[i].taking.to);
	return 0;
}

/* --- */

static void name_all(struct snapshot_group *g)
{
	volume_make_uuid(g->id);
	volume_make_time(g->time);
	for (size_t i = 0; i < g->count; i++) {
		volume_make_uuid(g->member[i].new_key);
		g->member[i].held_us = 0;
	}
}

static void clear(struct work *w)
{
	for (size_t i = 0; i < w->items; i++) {
		meta_volume_clear(&w->item[i].meta);
		free(w->item[i].state);
		if (w->item[i].lock >= 0)
			close(w->item[i].lock);
	}
	unlock_names(w);
	for (size_t i = 0; i < w->places; i++) {
		if (w->place[i].lock >= 0)
			close(w->place[i].lock);
		sr_close(&w->place[i].sr);
		free(w->place[i].handle);
	}
}

int snapshot_group(struct snapshot_group *g, struct error *e)
{
	CLEANUP_FREE struct work *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return out_of_memory(e);
	if (!g->count || g->count > SNAPSHOT_GROUP_MAX)
		return error_set(e, EINVAL, "%zu volumes: between 1 and %u can be snapshotted together", g->count,
				 SNAPSHOT_GROUP_MAX);
	w->group = g;
	name_all(g);
	r = find_all(w, e) == 0 && check_all(w, e) == 0 && lock_all(w, e) == 0 ? take_and_publish(w, e) : -1;
	clear(w);
	return r;
}
