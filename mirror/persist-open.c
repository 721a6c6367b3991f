/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * persist-open - makes the two files, or takes up what a predecessor left
 *
 *      map:    there, ours, of this boot?  --yes--> taken up
 *                    '--no--> removed, a new one: everything is owed      (cannot be made: none, removed all the same)
 *      marks:  there and ours?             --yes--> its bits are taken
 *                    '--no--> no bits, everything is marked
 *                                                   then the file is made anew either way (persist-marks.c says why)
 *
 * What must not happen is that a file is left which will be believed later and was not kept up meanwhile. So whatever goes
 * wrong, an old file is replaced or gone.
 */
#include "mirror/persist-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

static void fill_header(const struct persist_spec *spec, enum persist_kind kind, struct persist_header *h)
{
	struct error e;
	CLEANUP_FREE char *boot_id = kind == PERSIST_KIND_MAP ? proc_read_file(BOOT_ID_FILE, 64, NULL, &e) : NULL;

	*h = (struct persist_header){
		.kind = kind,
		.size_bytes = spec->size_bytes,
		.content_generation = spec->content_generation,
		.mirror_id = spec->mirror_id,
		.source_name = spec->source_name,
		.target_name = spec->target_name,
	};
	if (boot_id && strlen(boot_id) >= PERSIST_BOOT_ID_BYTES) /* unknown: no map is of this boot */
		memcpy(h->boot_id, boot_id, PERSIST_BOOT_ID_BYTES);
}

/* Without a map, or with one that cannot be made, no older one must be left to be believed. */
static int make_map(struct persist *p, const struct persist_spec *spec, struct error *e)
{
	struct persist_header h;
	struct error why;

	fill_header(spec, PERSIST_KIND_MAP, &h);
	if (unlink(spec->map_path) == -1 && errno != ENOENT)
		return error_errno(e, errno, "remove the old map %s", spec->map_path);
	if (persist_map_new(&p->map, spec->map_path, &h, &why) == -1) {
		if (!p->map.path)
			return error_set(e, ENOMEM, "out of memory");
		log_warn("%s: after a restart whole regions are copied instead of single chunks", why.text);
	}
	return 0;
}

/* -1: there is none that is worth anything; p->map is to be made. */
static int take_up_map(struct persist *p, const struct persist_spec *spec, struct persist_found *found)
{
	struct persist_header h;

	fill_header(spec, PERSIST_KIND_MAP, &h);
	found->has_map = persist_map_open(&p->map, spec->map_path, &h, &found->is_same_boot, &found->map_reason) == 0;
	if (found->has_map && found->is_same_boot)
		return 0;
	if (found->has_map)
		error_set(&found->map_reason, ENODATA, "%s is of an earlier boot of this host", spec->map_path);
	found->is_same_boot = false;
	persist_map_fini(&p->map);
	return -1;
}

static struct persist *allocate(const struct persist_spec *spec, struct error *e)
{
	uint64_t regions = (spec->size_bytes + PERSIST_REGION_BYTES - 1) / PERSIST_REGION_BYTES;
	struct persist *p;

	if (spec->size_bytes == 0 || spec->size_bytes > PERSIST_MAX_BYTES) {
		error_set(e, EFBIG, "a disk of %llu bytes has no map: it can have up to %llu",
			  (unsigned long long)spec->size_bytes, (unsigned long long)PERSIST_MAX_BYTES);
		return NULL;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	persist_init(p, spec->loop);
	p->wanted = bitmap_new(regions);
	p->refused = bitmap_new(regions);
	p->spare = bitmap_new(regions / PERSIST_GROUP + 1);
	p->given_back = bitmap_new(regions / PERSIST_GROUP + 1);
	if (p->wanted && p->refused && p->spare && p->given_back)
		return p;
	persist_free(p);
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

/* Marks of an earlier boot, or of one who was killed before the map said so: nobody asks for them again, and what is written
 * there is to be in the map, or the next process takes nothing of it for owed. */
static void map_marked(struct persist *p)
{
	uint64_t regions = p->map.regions;

	for (uint64_t r = bitmap_next(p->marks.marked, 0); r < regions; r = bitmap_next(p->marks.marked, r + 1))
		if (!persist_map_is_decided(&p->map, r))
			persist_map_take(&p->map, r, persist_map_reserve(&p->map, r, r + 1) == 0);
}

static int open_files(struct persist *p, const struct persist_spec *spec, struct persist_found *found, struct error *e)
{
	const struct persist_ops *ops = spec->ops ? spec->ops : &persist_file_ops;
	struct persist_header h;

	if (!(found && take_up_map(p, spec, found) == 0) && make_map(p, spec, e) == -1)
		return -1;
	fill_header(spec, PERSIST_KIND_MARKS, &h);
	if (persist_marks_init(&p->marks, ops, spec->marks_path, &h, e) == -1)
		return -1;
	if (found)
		found->has_marks = persist_marks_load(&p->marks, &h, &found->marks_reason) == 0;
	map_marked(p);
	return persist_marks_make(&p->marks, e) == -1 ? error_prefix(e, "make the marks beside the volume") : 0;
}

static struct persist *open_both(const struct persist_spec *spec, struct persist_found *found, struct error *e)
{
	const struct persist_ops *ops = spec->ops ? spec->ops : &persist_file_ops;
	struct persist *p = allocate(spec, e);
	struct error why;

	if (p && open_files(p, spec, found, e) == 0)
		return p;
	if (p)
		persist_free(p);
	unlink(spec->map_path);
	ops->unlink(ops->arg, spec->marks_path);
	if (ops->sync_dir(ops->arg, spec->marks_path, &why) == -1)
		log_error("old marks may be back after a power loss: %s", why.text);
	return NULL;
}

struct persist *persist_new(const struct persist_spec *spec, struct error *e)
{
	return open_both(spec, NULL, e);
}

struct persist *persist_open(const struct persist_spec *spec, struct persist_found *found, struct error *e)
{
	struct persist *p;

	*found = (struct persist_found){ 0 };
	p = open_both(spec, found, e);
	found->names_match = found->map_reason.err != ESTALE && found->marks_reason.err != ESTALE;
	return p;
}
