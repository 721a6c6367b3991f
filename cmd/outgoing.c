/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * outgoing - see outgoing.h
 *
 *      the image's lock, shared --to be had--> it
 *                               --not-------> Volume.snapshot --> that
 *
 *      all: where it has data         delta: where changes are tracked, what changed since; else what is not at the same place
 *                                     of the medium as in the base, and differs when both are read
 */
#include "cmd/outgoing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/uri.h"
#include "cmd/content.h"
#include "plugins/smapi.h"
#include "plugins/unfinished.h"

static char *text_of(const char *text)
{
	return (char *)(uintptr_t)text;
}

/* --- verbs */

/* The result's text, heap. NULL + e. */
static char *call_with(smapi_fn *fn, const char *verb, const char *dir, struct smapi_args *a, struct error *e)
{
	CLEANUP_FREE char *sr = uri_of_path("file", dir);
	struct smapi_call c = { .verb = verb };
	struct failure f = { 0 };
	char *result = NULL;

	a->dbg = text_of("");
	a->sr = sr;
	a->length = -1;
	c.args = *a;
	if (!sr)
		error_set(e, ENOMEM, "out of memory");
	else if (fn(&c, &result, &f) == 0)
		return result;
	else
		*e = f.e;
	return NULL;
}

static char *call(smapi_fn *fn, const char *verb, const char *dir, const char *key, const char *key2, struct error *e)
{
	struct smapi_args a = { .key = text_of(key), .key2 = text_of(key2) };

	return call_with(fn, verb, dir, &a, e);
}

/* From its first moment on it says whose it is: a person's stays, and of this one's the doctor knows when nobody removes it. */
static int take_snapshot(struct outgoing *o, struct error *e)
{
	char command[UNFINISHED_TEXT];
	struct smapi_args a = { .key = o->place.key, .k = text_of(UNFINISHED_KEY), .v = command };
	CLEANUP_FREE char *result = NULL;
	struct types_volume v;

	if (unfinished_command(command, e) == -1)
		return -1;
	result = call_with(volume_snapshot, "Volume.snapshot", o->place.dir, &a, e);
	if (!result)
		return error_prefix(e, "%s is being written to, and a snapshot of it cannot be taken", o->place.name);
	if (jsonspec_decode(&types_volume, result, strlen(result), &v, e) == -1)
		return -1;
	o->snapshot = take_ptr(&v.key);
	jsonspec_clear(&types_volume, &v);
	return 0;
}

/* --- held */

static int hold_volume(struct outgoing *o, const char *key, struct error *e)
{
	const struct image i = image_of(o->place.dir, key, o->place.format);

	o->is_held = true; /* to be closed in any case */
	return side_open(&o->side, &i, e);
}

static int hold_raw_file(struct outgoing *o, struct error *e)
{
	o->side = (struct side) { .fd = open(o->place.real, O_RDONLY | O_CLOEXEC | O_NOCTTY), .block = malloc(SIDE_BLOCK_BYTES) };
	o->is_held = true;
	if (!o->side.block)
		return error_set(e, ENOMEM, "out of memory");
	if (o->side.fd < 0)
		return error_errno(e, errno, "open %s", o->place.real);
	if (flock(o->side.fd, LOCK_SH | LOCK_NB) == -1)
		return errno == EWOULDBLOCK ? error_set(e, EBUSY, "%s is being written to", o->place.name)
					    : error_errno(e, errno, "lock %s", o->place.real);
	o->side.bytes = lseek(o->side.fd, 0, SEEK_END);
	return o->side.bytes >= 0 ? 0 : error_errno(e, errno, "look at %s", o->place.real);
}

/* DIR/NAME.qcow2 */
static int hold_qcow2_file(struct outgoing *o, struct error *e)
{
	CLEANUP_FREE char *dir = strdup(o->place.real);
	char *name = dir ? strrchr(dir, '/') : NULL;

	if (!name)
		return error_set(e, ENOMEM, "out of memory");
	*name++ = '\0';
	name[strlen(name) - strlen(".qcow2")] = '\0';
	o->is_held = true;
	return side_open(&o->side, &(struct image) { *dir ? dir : "/", name, &image_qcow2 }, e);
}

static int hold(struct outgoing *o, struct error *e)
{
	if (o->place.kind == PLACE_NBD)
		return error_set(e, EINVAL, "%s is no disk of this host; `sxm copy` copies it", o->place.name);
	if (o->place.kind == PLACE_FILE) {
		if (place_check_unused(&o->place, true, e) == -1)
			return -1;
		return strcmp(o->place.format, "qcow2") == 0 ? hold_qcow2_file(o, e) : hold_raw_file(o, e);
	}
	if (hold_volume(o, o->place.key, e) == 0)
		return 0;
	side_close(&o->side);
	o->is_held = false;
	if (e->err != EBUSY || take_snapshot(o, e) == -1)
		return -1;
	return hold_volume(o, o->snapshot, e);
}

/* --- what is to be sent */

static void add_data(struct outgoing *o, uint64_t from, uint64_t to)
{
	struct bitmap *data = o->stream.data;
	off_t end = (off_t)(to * QCOW2_STREAM_CLUSTER), at = side_next_data(&o->side, (off_t)(from * QCOW2_STREAM_CLUSTER), end);

	while (at < end) {
		uint64_t cluster = (uint64_t)at / QCOW2_STREAM_CLUSTER;

		bitmap_set(data, cluster, cluster + 1);
		at = side_next_data(&o->side, (off_t)((cluster + 1) * QCOW2_STREAM_CLUSTER), end);
	}
}

/* Changed clusters; what of them has no data reads as zeros. */
static void add_changed(struct outgoing *o, uint64_t from, uint64_t to)
{
	to = MIN(to, qcow2_stream_clusters(&o->stream));
	if (from >= to)
		return;
	add_data(o, from, to);
	for (uint64_t i = bitmap_next_clear(o->stream.data, from); i < to; i = bitmap_next_clear(o->stream.data, i + 1))
		bitmap_set(o->stream.zero, i, i + 1);
}

static int value_of(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* base64 of bits, the highest of a byte first. */
static void add_bitmap(struct outgoing *o, const char *text)
{
	uint64_t bit = 0;

	for (; value_of(*text) >= 0; text++)
		for (int shift = 5; shift >= 0; shift--, bit++)
			if (value_of(*text) >> shift & 1)
				add_changed(o, bit, bit + 1);
}

static int add_tracked(struct outgoing *o, const char *base, const char *key, struct error *e)
{
	CLEANUP_FREE char *result = call(volume_list_changed_blocks, "Volume.list_changed_blocks", o->place.dir, base, key, e);
	struct types_changed_blocks blocks;
	int r = 0;

	if (!result || jsonspec_decode(&types_changed_blocks, result, strlen(result), &blocks, e) == -1)
		return -1;
	if (blocks.granularity == (int64_t)QCOW2_STREAM_CLUSTER)
		add_bitmap(o, blocks.bitmap);
	else
		r = error_set(e, EPROTO, "changes are tracked in blocks of another size");
	jsonspec_clear(&types_changed_blocks, &blocks);
	return r;
}

static int add_different(struct outgoing *o, const char *base, const char *key, struct error *e)
{
	CLEANUP_FREE char *result = call(volume_compare, "Volume.compare", o->place.dir, base, key, e);
	struct types_blocklist list;
	int r = 0;

	if (!result || jsonspec_decode(&types_blocklist, result, strlen(result), &list, e) == -1)
		return -1;
	if (list.blocksize != (int64_t)QCOW2_STREAM_CLUSTER)
		r = error_set(e, EPROTO, "volumes are compared in blocks of another size");
	for (size_t i = 0; r == 0 && i < list.ranges.count; i++)
		add_changed(o, (uint64_t)list.ranges.item[i].start,
			    (uint64_t)(list.ranges.item[i].start + list.ranges.item[i].length));
	jsonspec_clear(&types_blocklist, &list);
	return r;
}

static int add_delta(struct outgoing *o, const char *base, struct error *e)
{
	const char *key = o->snapshot ? o->snapshot : o->place.key;
	char now[QCOW2_STREAM_ID_MAX];

	if (o->place.kind != PLACE_VOLUME || !meta_is_key(base))
		return error_set(e, EINVAL, "a base is a volume, by its key, of the SR that the volume is in");
	if (content_name(o->place.dir, base, o->stream.base, e) == -1)
		return error_prefix(e, "base %s", base);
	if (!*o->stream.base)
		return error_set(e, ENODATA, "base %s has no content_id by which it could be found elsewhere", base);
	if (add_tracked(o, base, key, e) == -1 && add_different(o, base, key, e) == -1)
		return -1;
	if (content_name(o->place.dir, base, now, e) == 0 && strcmp(now, o->stream.base) == 0)
		return 0;
	return error_set(e, EBUSY, "base %s was written to while it was compared with; a snapshot does not change", base);
}

static int fill(struct outgoing *o, const char *base, struct error *e)
{
	uint64_t bytes = ((uint64_t)o->side.bytes + 511) / 512 * 512;

	if (qcow2_stream_init(&o->stream, bytes, e) == -1)
		return -1;
	if (o->place.kind == PLACE_VOLUME &&
	    content_name(o->place.dir, o->snapshot ? o->snapshot : o->place.key, o->stream.content, e) == -1)
		return -1;
	if (base)
		return add_delta(o, base, e);
	add_data(o, 0, qcow2_stream_clusters(&o->stream));
	return 0;
}

/* --- */

int outgoing_open(struct outgoing *o, const char *name, const char *format, const char *base, struct error *e)
{
	struct error first, second;

	*o = (struct outgoing) { .side = { .fd = -1 } };
	if (place_find(&o->place, name, format, e) == 0 && hold(o, e) == 0 && fill(o, base, e) == 0)
		return 0;
	if (outgoing_close(o, &second) == 0)
		return -1;
	first = *e;
	return error_set(e, first.err, "%.230s; and %.230s", first.text, second.text);
}

int outgoing_close(struct outgoing *o, struct error *e)
{
	CLEANUP_FREE char *result = NULL;
	int r = 0;

	if (o->is_held)
		side_close(&o->side);
	if (o->snapshot) {
		result = call(volume_destroy, "Volume.destroy", o->place.dir, o->snapshot, NULL, e);
		r = result ? 0 : error_prefix(e, "the snapshot %s that was taken is left", o->snapshot);
	}
	free(o->snapshot);
	qcow2_stream_fini(&o->stream);
	place_clear(&o->place);
	*o = (struct outgoing) { .side = { .fd = -1 } };
	return r;
}

int outgoing_read(struct outgoing *o, uint64_t cluster, struct error *e)
{
	return side_read(&o->side, (off_t)(cluster * QCOW2_STREAM_CLUSTER), e) == 0 ? 0 : error_prefix(e, "%s", o->place.name);
}
