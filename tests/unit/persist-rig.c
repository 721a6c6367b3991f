/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * See persist-rig.h.
 */
#include "tests/unit/persist-rig.h"

#include <errno.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static unsigned pending;

void rig_start(struct persist_rig *rig, uint64_t size_bytes)
{
	memset(rig, 0, sizeof(*rig));
	/* the map's home is a tmpfs */
	strcpy(rig->dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/sxm-persist.XXXXXX" : "/tmp/sxm-persist.XXXXXX");
	assert_non_null(mkdtemp(rig->dir));
	snprintf(rig->map, sizeof(rig->map), "%s/map", rig->dir);
	snprintf(rig->marks, sizeof(rig->marks), "%s/disk.raw.marks", rig->dir);
	rig->loop = loop_new();
	assert_non_null(rig->loop);
	rig->spec = (struct persist_spec){
		.loop = rig->loop,
		.map_path = rig->map,
		.marks_path = rig->marks,
		.size_bytes = size_bytes,
		.mirror_id = "5e6f0c3a.1700000000000",
		.source_name = "file:///srv/a/disk.raw",
		.target_name = "nbd://10.0.0.2/disk",
		.content_generation = 7,
	};
	pending = 0;
}

void rig_new(struct persist_rig *rig)
{
	struct error e;

	rig->p = persist_new(&rig->spec, &e);
	if (!rig->p)
		fail_msg("%s", e.text);
}

void rig_reopen(struct persist_rig *rig, struct persist_found *found)
{
	struct error e;

	if (rig->p)
		rig_close(rig, PERSIST_KEEP);
	rig->p = persist_open(&rig->spec, found, &e);
	if (!rig->p)
		fail_msg("%s", e.text);
}

static void on_closed(void *arg)
{
	struct persist_rig *rig = arg;

	assert_int_equal(pending, 0); /* every mark was answered before */
	rig->p = NULL;
	loop_stop(rig->loop);
}

void rig_close(struct persist_rig *rig, enum persist_end end)
{
	persist_close(rig->p, end, on_closed, rig);
	assert_non_null(rig->p); /* not in this stack */
	while (rig->p) /* the last mark stops the loop too */
		loop_run(rig->loop);
}

void rig_stop(struct persist_rig *rig)
{
	char path[128];

	if (rig->p)
		rig_close(rig, PERSIST_UNLINK);
	loop_free(rig->loop);
	unlink(rig->map);
	unlink(rig->marks);
	snprintf(path, sizeof(path), "%s.target", rig->marks);
	unlink(path);
	assert_int_equal(rmdir(rig->dir), 0); /* nothing else was left */
}

static void on_marked(struct persist_mark *m, int err, bool has_map)
{
	struct try *t = container_of(m, struct try, mark);

	t->answers++;
	t->err = err;
	t->has_map = has_map;
	if (t->rig->answered)
		t->rig->answered(t);
	if (--pending == 0)
		loop_stop(t->rig->loop);
}

void try_mark(struct persist_rig *rig, struct try *t, uint64_t region, uint64_t count)
{
	*t = (struct try){ .rig = rig, .mark = { .region = region, .count = count, .done = on_marked } };
	pending++;
	persist_mark(rig->p, &t->mark);
	assert_int_equal(t->answers, 0); /* not in this stack */
}

void rig_run(struct persist_rig *rig)
{
	if (pending)
		loop_run(rig->loop);
}

static struct loop *turning;

static void stop_turning(struct loop_task *t UNUSED)
{
	loop_stop(turning);
}

void rig_turn(struct persist_rig *rig)
{
	struct loop_task stop = { .run = stop_turning };

	turning = rig->loop;
	loop_defer(rig->loop, &stop);
	loop_run(rig->loop);
}

void rig_mark(struct persist_rig *rig, uint64_t region, uint64_t count)
{
	struct try t;

	try_mark(rig, &t, region, count);
	rig_run(rig);
	assert_int_equal(t.err, 0);
	assert_true(t.has_map);
}

struct said {
	char text[4096];
	size_t used;
};

static void say(void *arg, struct range r)
{
	struct said *s = arg;

	s->used += (size_t)snprintf(s->text + s->used, sizeof(s->text) - s->used, "%s%llu-%llu", s->used ? " " : "",
				    (unsigned long long)(r.start / 1024), (unsigned long long)(r.end / 1024));
	assert_true(s->used < sizeof(s->text));
}

const char *rig_owing(struct persist_rig *rig, unsigned which)
{
	static struct said said;

	said = (struct said){ .used = 0 };
	assert_int_equal(persist_each_owing(rig->p, which, say, &said), 0);
	return said.text;
}

const char *rig_marked(struct persist_rig *rig)
{
	static struct said said;

	said = (struct said){ .used = 0 };
	persist_each_marked(rig->p, say, &said);
	return said.text;
}

/* --- the plug */

uint64_t plug_draw(struct plug *plug, uint64_t limit)
{
	plug->random = plug->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return (plug->random >> 33) % limit;
}

/* Some of the sectors; all of them when is_all. */
static void reach_medium(struct plug *plug, bool is_all)
{
	for (size_t s = 0; s < PLUG_MAX / 512; s++)
		if (plug->is_dirty[s] && (is_all || plug_draw(plug, 2))) {
			memcpy(plug->medium + s * 512, plug->cache + s * 512, 512);
			plug->is_dirty[s] = false;
		}
}

/* Whether the power is gone. */
static bool spend(struct plug *plug)
{
	if (plug->dies_after && --plug->dies_after == 0)
		plug->is_dead = true;
	return plug->is_dead;
}

static int plug_load(void *arg, const char *path, void *into, size_t bytes, struct error *e)
{
	struct plug *plug = arg;

	if (plug->bytes == 0 || plug->is_unlinked)
		return error_set(e, ENOENT, "%s is not there", path);
	if (plug->bytes != bytes)
		return error_set(e, EUCLEAN, "%s has another size", path);
	memcpy(into, plug->cache, bytes);
	return 0;
}

static int plug_make(void *arg, const char *path UNUSED, const void *content, size_t bytes, struct error *e)
{
	struct plug *plug = arg;

	assert(bytes <= PLUG_MAX);
	plug->makes++;
	if (spend(plug) && plug_draw(plug, 2))
		return error_set(e, EIO, "no power");
	if (plug->fail_make)
		return error_set(e, plug->fail_make, "no new file");
	plug->bytes = bytes;
	plug->is_unlinked = false;
	memcpy(plug->cache, content, bytes);
	memcpy(plug->medium, content, bytes);
	memset(plug->is_dirty, 0, sizeof(plug->is_dirty));
	return plug->is_dead ? error_set(e, EIO, "no power") : 3;
}

static ssize_t plug_pwrite(void *arg, int fd UNUSED, const void *from, size_t bytes, off_t at)
{
	struct plug *plug = arg;

	if (spend(plug)) {
		errno = EIO;
		return -1;
	}
	assert((size_t)at + bytes <= plug->bytes);
	plug->writes++;
	if (bytes > 512 && plug_draw(plug, 2))
		bytes = 512 * (1 + plug_draw(plug, bytes / 512)); /* a short one */
	memcpy(plug->cache + at, from, bytes);
	for (size_t s = (size_t)at / 512; s < ((size_t)at + bytes + 511) / 512; s++)
		plug->is_dirty[s] = true;
	if (plug_draw(plug, 2))
		reach_medium(plug, false);
	return (ssize_t)bytes;
}

static int plug_sync(void *arg, int fd UNUSED)
{
	struct plug *plug = arg;

	plug->syncs++;
	if (plug->before_sync)
		plug->before_sync(plug);
	if (spend(plug) || plug->fail_sync) {
		reach_medium(plug, false);
		errno = plug->is_dead ? EIO : plug->fail_sync;
		if (!plug->is_dead)
			memset(plug->is_dirty, 0, sizeof(plug->is_dirty)); /* as the kernel does */
		plug->fail_sync = 0;
		return -1;
	}
	reach_medium(plug, true);
	return 0;
}

static void plug_close(void *arg UNUSED, int fd UNUSED)
{
}

static void plug_unlink(void *arg, const char *path UNUSED)
{
	struct plug *plug = arg;

	plug->is_unlinked = plug->bytes > 0;
}

static int plug_sync_dir(void *arg, const char *path, struct error *e)
{
	struct plug *plug = arg;

	if (spend(plug) || plug->fail_sync_dir)
		return error_set(e, plug->is_dead ? EIO : plug->fail_sync_dir, "the directory of %s is not durable", path);
	if (plug->is_unlinked)
		plug->bytes = 0;
	plug->is_unlinked = false;
	return 0;
}

void plug_init(struct plug *plug, uint64_t seed)
{
	memset(plug, 0, sizeof(*plug));
	plug->random = seed;
	plug->ops = (struct persist_ops){
		.arg = plug,
		.load = plug_load,
		.make = plug_make,
		.pwrite = plug_pwrite,
		.fdatasync = plug_sync,
		.close = plug_close,
		.unlink = plug_unlink,
		.sync_dir = plug_sync_dir,
	};
}

void plug_crash(struct plug *plug)
{
	reach_medium(plug, false);
	plug->is_unlinked = false; /* at the worst */
	memcpy(plug->cache, plug->medium, PLUG_MAX);
	memset(plug->is_dirty, 0, sizeof(plug->is_dirty));
	plug->is_dead = false;
	plug->dies_after = 0;
}
