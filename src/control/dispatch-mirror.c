/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dispatch-mirror - the verbs of operations: mirror.* and verify.*
 *
 * Knows what of their arguments can be wrong besides their types: modes, ranges, rates.  Ranges come in any order, overlapping or
 * not, in blocks; they leave in order, in bytes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/dispatch-private.h"
#include "control/report.h"

#define WAIT_MS_MAX 60000
#define VERIFY_RATE_BYTES INT64_C(200000000)

static int by_start(const void *a, const void *b)
{
	const struct jsonspec_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Blocks from outside, in any order, overlapping or not, become ranges of bytes in order. */
static int ranges_to_extents(struct args *a, struct extents *out, struct error *e)
{
	uint64_t end = 0;

	if (a->blocksize < 1 || a->blocksize > (int64_t)GiB)
		return error_set(e, EINVAL, "ranges need a blocksize between 1 byte and 1 GiB");
	if (a->ranges.count)
		qsort(a->ranges.item, a->ranges.count, sizeof(*a->ranges.item), by_start);
	for (size_t i = 0; i < a->ranges.count; i++) {
		const struct jsonspec_range *b = &a->ranges.item[i];
		struct range r;

		if (b->start < 0 || b->length < 1 || b->start > INT64_MAX / a->blocksize - b->length)
			return error_set(e, EINVAL, "range [%" PRId64 ", %" PRId64 "] is not [first, count] of a disk", b->start,
					 b->length);
		r.end = (uint64_t)(b->start + b->length) * (uint64_t)a->blocksize;
		r.start = MAX((uint64_t)b->start * (uint64_t)a->blocksize, end);
		if (range_is_empty(r))
			continue;
		end = r.end;
		if (extents_add(out, r, 0) == -1)
			return error_set(e, ENOMEM, "out of memory");
	}
	return 0;
}

static bool is_sync(const char *mode, struct error *e)
{
	if (strcmp(mode, "sync") != 0 && strcmp(mode, "lag") != 0)
		error_set(e, EINVAL, "%.32s is no mode: lag (a guest hears when its own disk has a write), or sync (both)", mode);
	return strcmp(mode, "sync") == 0;
}

void dispatch_mirror_mode(struct call *c)
{
	struct error e = { 0 };
	bool wants_sync = is_sync(c->args.mode, &e);

	if (e.err)
		dispatch_done(c, &e);
	else
		vdi_set_sync(c->d->vdi, c->args.id, wants_sync, dispatch_done, c);
}

/* A log's id, as 16 hexadecimal digits. */
static uint64_t parse_base(const struct call *c, struct error *e)
{
	char *end;
	uint64_t id = strtoull(c->args.base, &end, 16);

	if (!id || *end || strlen(c->args.base) != 16)
		error_set(e, EINVAL, "base is the id of a log of changes, 16 hexadecimal digits, not %.40s", c->args.base);
	else if (c->args.is_copy || c->args.is_resume)
		error_set(e, EINVAL, "a base is for a mirror that begins");
	return id;
}

void dispatch_mirror_start(struct call *c)
{
	struct extents only;
	struct vdi_mirror_args a = { .domain = c->args.domain, .remote = c->args.remote, .is_copy = c->args.is_copy,
				     .is_resume = c->args.is_resume };
	struct error e = { 0 };

	extents_init(&only, 0);
	a.is_sync = c->args.mode && is_sync(c->args.mode, &e);
	if (a.is_sync && a.is_copy)
		error_set(&e, EINVAL, "a copy has no mode: no guest waits for it");
	if (a.is_resume && a.is_copy)
		error_set(&e, EINVAL, "a copy is not resumed: start it anew");
	if (c->args.base && !e.err)
		a.base = parse_base(c, &e);
	if (e.err) {
		dispatch_done(c, &e);
		return;
	}
	if (c->args.has_ranges && !c->args.is_copy)
		error_set(&e, EINVAL, "ranges are for a copy; a mirror is of the whole disk");
	else if (c->args.has_ranges && ranges_to_extents(&c->args, &only, &e) == 0)
		a.only = &only;
	if (e.err)
		dispatch_done(c, &e);
	else
		vdi_mirror(c->d->vdi, &a, c->text, sizeof(c->text), dispatch_done, c);
	extents_fini(&only);
}

char *dispatch_mirror_start_ok(struct call *c)
{
	return dispatch_text_ok(c, "id");
}

static void on_news(void *arg)
{
	struct call *c = arg;
	struct vdi_operation_status s;

	if (vdi_operation(c->d->vdi, c->args.id, &s) == -1)
		dispatch_fail(c, ENOENT, "this process knows no such operation");
	else
		dispatch_done(c, NULL);
}

static void wait_for_news(struct call *c, void (*fn)(void *arg))
{
	int64_t wait_ms = MIN(c->args.wait_ms, (int64_t)WAIT_MS_MAX);

	vdi_wait_news(c->d->vdi, c->args.id, wait_ms > 0 ? (unsigned)wait_ms : 0, fn, c);
}

void dispatch_mirror_stat(struct call *c)
{
	wait_for_news(c, on_news);
}

char *dispatch_mirror_stat_ok(struct call *c)
{
	return report_stat(c->d->vdi, c->args.id);
}

void dispatch_mirror_cancel(struct call *c)
{
	vdi_cancel(c->d->vdi, c->args.id, dispatch_done, c);
}

void dispatch_mirror_destroy(struct call *c)
{
	vdi_forget(c->d->vdi, c->args.id, dispatch_done, c);
}

void dispatch_mirror_verify(struct call *c)
{
	struct vdi_verify_args a = { .remote = c->args.remote };
	struct error e = { 0 };
	struct extents only;

	extents_init(&only, 0);
	c->args.blocksize = 1;
	if (c->args.has_rate && c->args.rate_bytes < 0)
		error_set(&e, EINVAL, "rate_bytes is a number of bytes a second, or 0 for no bound");
	else if (c->args.has_ranges && ranges_to_extents(&c->args, &only, &e) == 0)
		a.only = &only;
	a.rate_bytes = (uint64_t)(c->args.has_rate ? c->args.rate_bytes : VERIFY_RATE_BYTES);
	if (e.err)
		dispatch_done(c, &e);
	else
		vdi_verify(c->d->vdi, &a, c->text, sizeof(c->text), dispatch_done, c);
	extents_fini(&only);
}

static void on_verify_news(void *arg)
{
	struct call *c = arg;
	struct vdi_verification_status s;

	if (vdi_verification(c->d->vdi, c->args.id, &s) == -1)
		dispatch_fail(c, ENOENT, "this process knows no such verification");
	else
		dispatch_done(c, NULL);
}

void dispatch_mirror_verify_stat(struct call *c)
{
	wait_for_news(c, on_verify_news);
}

char *dispatch_mirror_verify_stat_ok(struct call *c)
{
	return report_verification(c->d->vdi, c->args.id);
}

void dispatch_mirror_verify_cancel(struct call *c)
{
	vdi_verify_cancel(c->d->vdi, c->args.id, dispatch_done, c);
}
