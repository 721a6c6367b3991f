/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror-link - what a mirror starts from, and the far side's coming and going
 *
 *      mirror_start -> extents of the source, batch by batch -> connect, and zero the holes there -> LINK_UP -> the copy runs
 *                        data: dirty                             zero there: pristine
 *                        zeroes: `holes`                         holes not zero there: dirty
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
#define WINDOW_OPS 64

typedef void mark_fn(struct core *core, struct range r);

/* --- the source's extents */

static void end_sweep(struct mirror *m);
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
		end_sweep(m);
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
		end_sweep(m);
		return;
	}
	m->sweep = req_get();
	if (!m->sweep) {
		for (; m->sweep_item < m->only.count; m->sweep_item++) {
			struct range r = m->only.item[m->sweep_item].range;

			m->sweep_at = MAX(m->sweep_at, r.start);
			take_extent(m, &(struct extent){ .range = r });
		}
		end_sweep(m);
		return;
	}
	m->sweep->op = REQ_EXTENTS;
	m->sweep->range = (struct range){ m->sweep_at, m->only.item[m->sweep_item].range.end };
	m->sweep->extents = &m->batch;
	m->sweep->done = on_extents;
	m->sweep->arg = m;
	layer_submit(m->layer.below, m->sweep);
}

/* --- the link */

static void on_closed(void *arg)
{
	struct mirror *m = arg;

	m->remote = NULL;
	m->is_closing = false;
	if (m->is_cut)
		mirror_step(m, (struct core_event){ .type = CORE_LINK_DOWN, .err = ESHUTDOWN, .generation = LINK_GENERATION });
	mirror_end_check(m);
}

static void close_link(struct mirror *m, bool is_polite)
{
	if (!m->remote || m->is_closing)
		return;
	m->is_closing = true;
	m->is_cut = !is_polite && m->is_connected;
	m->remote->ops->close(m->remote, is_polite, on_closed, m);
}

void mirror_link_drop(struct mirror *m, int err)
{
	close_link(m, err == 0);
}

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

static void on_up(void *arg, const struct remote_info *info)
{
	struct mirror *m = arg;
	struct core_event ev = {
		.type = CORE_LINK_UP,
		.far = {
			.generation = LINK_GENERATION,
			.min_block_bytes = info->min_block_bytes,
			.max_bytes = info->max_bytes,
			.can_zero = info->can_zero,
			.can_flush = info->can_flush,
			.window_ops = WINDOW_OPS,
		},
	};

	if (mirror_is_over(m))
		return; /* its close is under way */
	/* Nothing outside `only` may be called pristine: it is clean by decree, not because both sides read as zero. */
	mark_inside(m, &info->zero, &m->only, core_mark_pristine);
	mark_outside(m, &m->holes, &info->zero, core_mark_dirty);
	log_info("mirror: connected to %s, %ju bytes to copy, %u bytes at most in a write, zeroes %s, flush %s", m->uri,
	         (uintmax_t)m->allocated_bytes, info->max_bytes, info->can_zero ? "yes" : "no", info->can_flush ? "yes" : "no");
	m->is_connected = true;
	mirror_step(m, ev);
}

static void on_failed(void *arg, const struct error *e)
{
	struct mirror *m = arg;

	m->cause = *e;
	mirror_step(m, (struct core_event){ .type = CORE_LINK_DOWN, .err = e->err });
	close_link(m, false);
}

static void on_down(void *arg, int err)
{
	struct mirror *m = arg;

	if (err == ETIMEDOUT)
		error_set(&m->cause, err, "the far side made no progress for %u ms", m->spec.dead_ms);
	else
		error_set(&m->cause, err, "the link to the far side was lost: it closed the connection");
	mirror_step(m, (struct core_event){ .type = CORE_LINK_DOWN, .err = err, .generation = LINK_GENERATION });
	close_link(m, false);
}

static void end_sweep(struct mirror *m)
{
	struct remote_spec spec = {
		.loop = m->spec.loop,
		.uri = m->uri,
		.min_size_bytes = m->layer.geometry.size_bytes,
		.holes = &m->holes,
		.connect_wait_ms = m->spec.connect_wait_ms,
		.handshake_ms = m->spec.handshake_ms,
		.dead_ms = m->spec.dead_ms,
		.on_up = on_up,
		.on_failed = on_failed,
		.on_down = on_down,
		.arg = m,
	};

	if (mirror_is_over(m)) {
		mirror_end_check(m);
		return;
	}
	m->remote = remote_nbd_new(&spec, &m->cause);
	if (!m->remote)
		mirror_step(m, (struct core_event){ .type = CORE_LINK_DOWN, .err = m->cause.err });
}

void mirror_start(struct layer *l)
{
	struct mirror *m = mirror_of(l);

	assert(!m->started_ns);
	m->started_ns = loop_now_ns();
	extents_init(&m->batch, BATCH_EXTENTS);
	m->sweep_at = m->only.count ? m->only.item[0].range.start : 0;
	if (!mirror_is_over(m))
		ask_extents(m);
}

void mirror_link_submit(struct mirror *m, struct remote_op *op)
{
	assert(m->remote && !m->is_closing);
	m->remote->ops->submit(m->remote, op);
}

static void on_far_flushed(struct remote_op *op, int err)
{
	struct mirror *m = container_of(op, struct mirror, flush);

	if (err && err != ESHUTDOWN)
		error_errno(&m->cause, err, "the far side failed a flush");
	mirror_step(m, (struct core_event){ .type = CORE_FLUSHED, .err = err, .generation = LINK_GENERATION });
}

void mirror_link_flush(struct mirror *m)
{
	m->flush = (struct remote_op){ .opcode = REMOTE_FLUSH, .done = on_far_flushed };
	mirror_link_submit(m, &m->flush);
}

bool mirror_link_is_gone(const struct mirror *m)
{
	return !m->remote && !m->sweep;
}

void mirror_link_fini(struct mirror *m)
{
	extents_fini(&m->batch);
	extents_fini(&m->only);
	extents_fini(&m->holes);
}
