/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror-sweep - what a mirror starts from: the source's extents, batch by batch
 *
 *      mirror_sweep_start -> extents of the source -> mirror_sweep_ended ... the first link: mirror_sweep_meet
 *                              data: dirty                              zero there: pristine
 *                              zeroes: `holes`                          holes not zero there: dirty
 *
 * Order is what makes this right (I3, I13).  The mirror stands under the gate, and every write that goes by is recorded,
 * *before* the first extent is asked for.  A write that comes before the answer is in the answer or in the record; one that
 * comes after it is in the record.  Asked the other way round, a write in between would be in neither: lost.
 * Likewise the holes: what is called a hole and gets a write afterwards is dirty by that write, and zeroing it at the far
 * side happens before LINK_UP, when no write has gone there yet.
 *
 * An extent that cannot be asked for is data.
 */
#include <errno.h>

#include "base/log.h"
#include "mirror/mirror-private.h"

#define BATCH_EXTENTS 4096

typedef void mark_fn(struct core *core, struct range r);

static void ask_extents(struct mirror *m);

static void take_extent(struct mirror *m, const struct extent *x)
{
	struct range wanted = { m->sweep_at, m->only.item[m->sweep_item].range.end };
	struct range r = range_clip(x->range, wanted);

	if (range_is_empty(r))
		return;
	if (!(x->type & EXTENT_ZERO) || extents_add(&m->holes, r, EXTENT_ZERO) != 0) {
		core_mark_dirty(m->core, r);
		m->allocated_bytes += range_length(r);
	}
}

static void on_extents(struct req *r)
{
	struct mirror *m = r->arg;
	uint64_t end = m->only.item[m->sweep_item].range.end, at = m->sweep_at;
	int err = r->err;

	req_put(r);
	m->sweep = NULL;
	if (mirror_is_over(m)) {
		mirror_sweep_ended(m);
		return;
	}
	for (size_t i = 0; !err && i < m->batch.count; i++) {
		take_extent(m, &m->batch.item[i]);
		at = MIN(MAX(at, m->batch.item[i].range.end), end);
	}
	m->batch.count = 0;
	if (err || at == m->sweep_at) {
		log_warn("what is allocated on this disk from %ju on is not known (%s): it is all copied", (uintmax_t)at,
		         err ? error_name(err) : "no answer");
		take_extent(m, &(struct extent){ .range = { at, end } });
		at = end;
	}
	m->sweep_at = at;
	if (at == end && ++m->sweep_item < m->only.count)
		m->sweep_at = m->only.item[m->sweep_item].range.start;
	ask_extents(m);
}

static void ask_extents(struct mirror *m)
{
	if (m->sweep_item == m->only.count) {
		mirror_sweep_ended(m);
		return;
	}
	m->sweep = req_get();
	if (!m->sweep) {
		for (; m->sweep_item < m->only.count; m->sweep_item++) {
			struct range r = m->only.item[m->sweep_item].range;

			m->sweep_at = MAX(m->sweep_at, r.start);
			take_extent(m, &(struct extent){ .range = r });
		}
		mirror_sweep_ended(m);
		return;
	}
	m->sweep->op = REQ_EXTENTS;
	m->sweep->range = (struct range){ m->sweep_at, m->only.item[m->sweep_item].range.end };
	m->sweep->extents = &m->batch;
	m->sweep->done = on_extents;
	m->sweep->arg = m;
	layer_submit(m->layer.below, m->sweep);
}

void mirror_sweep_start(struct mirror *m)
{
	extents_init(&m->batch, BATCH_EXTENTS);
	m->sweep_at = m->only.count ? m->only.item[0].range.start : 0;
	ask_extents(m);
}

/* --- what the far side is known to hold, when the first link is there */

/* What of `from` lies inside (or, the other way round, outside) the items of `list`. */
static void mark_inside(struct mirror *m, const struct extents *from, const struct extents *list, mark_fn *mark)
{
	for (size_t i = 0, j = 0; i < from->count && j < list->count;) {
		struct range r = range_clip(from->item[i].range, list->item[j].range);

		if (!range_is_empty(r))
			mark(m->core, r);
		if (from->item[i].range.end < list->item[j].range.end)
			i++;
		else
			j++;
	}
}

static void mark_outside(struct mirror *m, const struct extents *from, const struct extents *list, mark_fn *mark)
{
	size_t j = 0;

	for (size_t i = 0; i < from->count; i++) {
		uint64_t at = from->item[i].range.start, end = from->item[i].range.end;

		while (at < end) {
			while (j < list->count && list->item[j].range.end <= at)
				j++;
			if (j == list->count || list->item[j].range.start >= end) {
				mark(m->core, (struct range){ at, end });
				break;
			}
			if (list->item[j].range.start > at)
				mark(m->core, (struct range){ at, list->item[j].range.start });
			at = list->item[j].range.end;
		}
	}
}

/* Nothing outside `only` may be called pristine: it is clean by decree, not because both sides read as zero. */
void mirror_sweep_meet(struct mirror *m, const struct extents *zero)
{
	mark_inside(m, zero, &m->only, core_mark_pristine);
	mark_outside(m, &m->holes, zero, core_mark_dirty);
}
