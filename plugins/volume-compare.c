/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * volume-compare - where two volumes differ, and which are like one another
 *
 *      both a hole -> the next data of either      both the same blocks of the medium -> their end      else read and compare
 *
 * A disk that is shorter is as one that reads as zeros from its end on.
 * Only what nobody writes can be compared: of a disk in use, a snapshot.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "plugins/side.h"
#include "plugins/volume.h"

static bool is_same_place(const struct side_place *a, const struct side_place *b)
{
	return a->device == b->device && a->file == b->file && a->offset == b->offset;
}

/* How far both are the same bytes of the medium, from `at` on; `at`: not at all, or not known. */
static off_t shared_end(const struct side *a, const struct side *b, off_t at)
{
	struct side_place a_place, b_place;
	off_t a_end, b_end;

	if (!a->map != !b->map || !side_find(a, at, &a_place, &a_end) || !side_find(b, at, &b_place, &b_end) ||
	    !is_same_place(&a_place, &b_place))
		return at;
	return MIN(a_end, b_end);
}

static int note(struct jsonspec_ranges *list, int64_t block, struct error *e)
{
	struct jsonspec_range *last = list->count ? &list->item[list->count - 1] : NULL, *more;

	if (last && last->start + last->length == block) {
		last->length++;
		return 0;
	}
	if ((list->count & (list->count - 1)) == 0) {
		more = realloc(list->item, MAX(list->count * 2, (size_t)1) * sizeof(*more));
		if (!more)
			return error_set(e, ENOMEM, "out of memory");
		list->item = more;
	}
	list->item[list->count++] = (struct jsonspec_range) { block, 1 };
	return 0;
}

static int compare(struct side *a, struct side *b, struct jsonspec_ranges *list, struct error *e)
{
	off_t end = MAX(a->bytes, b->bytes), at = 0;

	for (;;) {
		off_t data = MIN(side_next_data(a, at, end), side_next_data(b, at, end)), shared;

		if (data >= end)
			return 0;
		at = data / SIDE_BLOCK_BYTES * SIDE_BLOCK_BYTES;
		shared = data == at ? shared_end(a, b, at) : at;
		if (shared - at >= SIDE_BLOCK_BYTES) {
			at = shared / SIDE_BLOCK_BYTES * SIDE_BLOCK_BYTES;
			continue;
		}
		if (side_read(a, at, e) == -1 || side_read(b, at, e) == -1)
			return -1;
		if (memcmp(a->block, b->block, SIDE_BLOCK_BYTES) != 0 && note(list, at / SIDE_BLOCK_BYTES, e) == -1)
			return -1;
		at += SIDE_BLOCK_BYTES;
	}
}

int volume_compare(struct smapi_call *call, char **result, struct failure *f)
{
	struct types_blocklist list = { .blocksize = SIDE_BLOCK_BYTES };
	struct side a = { .fd = -1 }, b = { .fd = -1 };
	struct image first, second;
	struct error e;
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	r = volume_image(&sr, call->args.key, &first, f) == 0 ? volume_image(&sr, call->args.key2, &second, f) : -1;
	if (r == 0) {
		r = side_open(&a, &first, &e) == 0 && side_open(&b, &second, &e) == 0 ?
		    compare(&a, &b, &list.ranges, &e) : -1;
		r = r == 0 ? smapi_result(jsonspec_encode(&types_blocklist, &list), result, f)
			   : failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	}
	side_close(&a);
	side_close(&b);
	free(list.ranges.item);
	sr_close(&sr);
	return r;
}

/* --- similar content */

static const char *family_of(const struct meta_volume *m, const char *key)
{
	return m->family ? m->family : key;
}

static bool has_same_content(const struct meta_volume *a, const struct meta_volume *b)
{
	const char *x = jsonspec_map_get(&a->keys, "content_id"), *y = jsonspec_map_get(&b->keys, "content_id");

	return x && y && *x && strcmp(x, y) == 0;
}

/* Of those in the SR: with the same content_id, or else (is_same false) of the same family. */
static int add_alike(const char *dir, const char *key, const struct meta_volume *m, const struct jsonspec_list *keys,
		     bool is_same, struct jsonspec_list *found)
{
	for (size_t i = 0; i < keys->count; i++) {
		struct meta_volume other;
		struct error e;
		bool is_alike;

		if (strcmp(keys->item[i], key) == 0 || meta_volume_read(dir, keys->item[i], &other, &e) == -1)
			continue;
		is_alike = has_same_content(m, &other) ? is_same
				: !is_same && strcmp(family_of(m, key), family_of(&other, keys->item[i])) == 0;
		meta_volume_clear(&other);
		if (is_alike && jsonspec_list_add(found, keys->item[i]) == -1)
			return -1;
	}
	return 0;
}

static int find_alike(const char *dir, const char *key, char **result, struct failure *f)
{
	struct jsonspec_list keys, found = { 0 };
	struct meta_volume m;
	struct error e;
	int r;

	if (volume_read(dir, key, &m, f) == -1)
		return -1;
	if (meta_list(dir, &keys, &e) == -1) {
		meta_volume_clear(&m);
		return failure_from(f, FAILURE_VDI_UNAVAILABLE, &e);
	}
	r = add_alike(dir, key, &m, &keys, true, &found) == 0 && add_alike(dir, key, &m, &keys, false, &found) == 0 ? 0 : -1;
	r = smapi_result(r == 0 ? jsonspec_strings((const char *const *)found.item, found.count) : NULL, result, f);
	meta_volume_clear(&m);
	meta_list_clear(&keys);
	meta_list_clear(&found);
	return r;
}

int volume_similar_content(struct smapi_call *call, char **result, struct failure *f)
{
	struct sr sr;
	int r;

	if (volume_open_sr(call, &sr, f) == -1)
		return -1;
	r = find_alike(sr.dir, call->args.key, result, f);
	sr_close(&sr);
	return r;
}
