/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror-layer - the core's hands
 *
 *                   guests                                      The core decides, this file does:
 *                     | WRITE ZERO TRIM FLUSH   READ ... (through)
 *                     v                                         req arrives     -> WRITE_ARRIVED
 *              +-------------+   remote ops   +------------+    LOCAL_SUBMIT    -> a child request to below
 *              |   mirror    |--------------->| remote-nbd |    COPY_READ       -> a read of our own into our own buffer
 *              +------+------+                +------------+    REMOTE_SUBMIT   -> an operation on the guest's or our buffer
 *                     v                                         COMPLETE_GUEST  -> req_complete(), maybe a little later
 *                   disk                                        RELEASE         -> the buffer's reference goes back
 *
 * A guest's bytes are not copied: a reference on its buffer is taken on arrival and kept until RELEASE, which may be long after
 * the guest was answered.  The core bounds how much that is; frontends' own budget is not charged for it.
 *
 * Memory that is short fails a guest's write with ENOMEM before anything has begun, and makes a copy wait; nothing in flight
 * asks for any.
 *
 * When the operation is over (FINISHED, FAILED, ENDED) requests pass straight through; but for writes while map and marks are
 * there, and would be believed by the next process (mirror-map.c).
 */
#include "mirror/mirror-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define TICK_MS 10
#define SLOW_TICK_MS 1000

bool mirror_is_over(const struct mirror *m)
{
	return m->state == CORE_FINISHED || m->state == CORE_FAILED || m->state == CORE_ENDED;
}

/* --- a guest's operation */

static void put_guest_if_over(struct guest *g)
{
	if (!g->is_released || g->req)
		return;
	assert(!g->is_far_busy && !g->local);
	TAILQ_INSERT_HEAD(&g->m->free_guests, g, link);
}

static void answer(struct guest *g, int err)
{
	struct req *r = g->req;

	g->req = NULL;
	req_complete(r, err);
	put_guest_if_over(g);
}

static void answer_due(void *arg)
{
	struct mirror *m = arg;
	uint64_t now_ns = loop_now_ns();
	struct guest *g;

	while ((g = TAILQ_FIRST(&m->delayed)) && g->due_ns <= now_ns) {
		TAILQ_REMOVE(&m->delayed, g, link);
		answer(g, g->err);
	}
	if (g)
		loop_timer_set(m->pacer, (g->due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
}

/* Later ones mostly come later: the place is found from the end. */
static void answer_later(struct guest *g, int err, uint32_t delay_us)
{
	struct mirror *m = g->m;
	struct guest *before;

	g->err = err;
	g->due_ns = loop_now_ns() + delay_us * UINT64_C(1000);
	TAILQ_FOREACH_REVERSE(before, &m->delayed, guest_list, link)
		if (before->due_ns <= g->due_ns)
			break;
	if (before) {
		TAILQ_INSERT_AFTER(&m->delayed, before, g, link);
	} else {
		TAILQ_INSERT_HEAD(&m->delayed, g, link);
		loop_timer_set(m->pacer, (delay_us + 999) / 1000);
	}
}

static void on_local_done(struct req *r)
{
	struct guest *g = r->arg;
	int err = r->err;

	g->local = NULL;
	req_put(r);
	if (err && g->op.kind == CORE_FLUSH && !mirror_is_over(g->m))
		error_errno(&g->m->cause, err, "a flush of this disk failed");
	mirror_step(g->m, (struct core_event){ .type = CORE_LOCAL_DONE, .op = &g->op, .err = err });
}

static struct guest *get_guest(struct mirror *m)
{
	struct guest *g = TAILQ_FIRST(&m->free_guests);

	if (g)
		TAILQ_REMOVE(&m->free_guests, g, link);
	else
		g = malloc(sizeof(*g));
	if (g)
		*g = (struct guest){ .m = m };
	return g;
}

static enum core_op_kind kind_of(enum req_op op)
{
	switch (op) {
	case REQ_WRITE:
		return CORE_WRITE;
	case REQ_ZERO:
		return CORE_ZERO;
	case REQ_TRIM:
		return CORE_TRIM;
	case REQ_FLUSH:
		return CORE_FLUSH;
	default:
		abort();
	}
}

static void submit_guest(struct mirror *m, struct req *r)
{
	struct guest *g = get_guest(m);
	struct req *local = g ? req_get() : NULL;

	if (!local) {
		if (g)
			TAILQ_INSERT_HEAD(&m->free_guests, g, link);
		req_complete(r, ENOMEM);
		return;
	}
	g->op = (struct core_op){ .kind = kind_of(r->op), .range = r->range, .may_trim = (r->flags & REQ_MAY_TRIM) != 0 };
	g->req = r;
	g->local = local;
	local->op = r->op;
	local->flags = r->flags;
	local->range = r->range;
	local->done = on_local_done;
	local->arg = g;
	if (r->op == REQ_WRITE) {
		g->data = iobuf_ref(r->data);
		g->data_offset = r->data_offset;
		g->op.is_zero = iobuf_is_zero(r->data->data + r->data_offset, range_length(r->range));
		local->data = g->data;
		local->data_offset = r->data_offset;
	}
	mirror_step(m, (struct core_event){ .type = CORE_WRITE_ARRIVED, .op = &g->op });
}

static void release_guest(struct guest *g)
{
	iobuf_unref(g->data);
	g->data = NULL;
	g->is_released = true;
	put_guest_if_over(g);
}

/* The next process would take what is noted for all that is owed. */
static bool must_note(const struct mirror *m, const struct req *r)
{
	return m->is_map_on && !m->is_void && m->state != CORE_FINISHED &&
	       (r->op == REQ_WRITE || r->op == REQ_ZERO || r->op == REQ_TRIM);
}

static void submit(struct layer *l, struct req *r)
{
	struct mirror *m = mirror_of(l);

	if (mirror_is_over(m) && !must_note(m, r)) {
		layer_forward(l->below, r);
		return;
	}
	switch (r->op) {
	case REQ_WRITE:
	case REQ_ZERO:
	case REQ_TRIM:
	case REQ_FLUSH:
		submit_guest(m, r);
		return;
	case REQ_READ:
		core_guest_reads(m->core, loop_now_ns());
		layer_forward(l->below, r);
		return;
	case REQ_EXTENTS:
	case REQ_CACHE:
		layer_forward(l->below, r);
		return;
	}
}

/* --- a copy */

/* Bit i: the i-th chunk holds zeroes only. */
static struct core_mask find_zeros(const uint8_t *data, uint64_t bytes)
{
	struct core_mask zeros = { 0 };

	for (uint64_t at = 0; at < bytes; at += CORE_CHUNK_BYTES)
		if (iobuf_is_zero(data + at, MIN(bytes - at, CORE_CHUNK_BYTES)))
			core_mask_set(&zeros, at / CORE_CHUNK_BYTES);
	return zeros;
}

static const uint8_t *copy_data(const struct copy *c)
{
	return c->bytes.buffer->data + c->bytes.offset;
}

static void on_copy_read(struct req *r)
{
	struct copy *c = r->arg;
	struct mirror *m = c->m;
	int err = r->err;

	c->read = NULL;
	req_put(r);
	if (err)
		error_errno(&m->cause, err, "this disk could not be read at %ju", (uintmax_t)c->op->range.start);
	else
		c->op->zeros = find_zeros(copy_data(c), range_length(c->op->range));
	mirror_step(m, (struct core_event){ .type = CORE_COPY_READ_DONE, .op = c->op, .err = err });
	mirror_end_check(m);
}

static void read_copy(struct copy *c)
{
	struct mirror *m = c->m;

	assert(!c->read && !c->bytes.buffer);
	c->read = req_get();
	if (!c->read || !copy_memory_get(m->memory, range_length(c->op->range), &c->bytes)) {
		if (c->read)
			req_put(c->read);
		c->read = NULL;
		TAILQ_INSERT_TAIL(&m->starved, c, link);
		return;
	}
	c->read->op = REQ_READ;
	c->read->range = c->op->range;
	c->read->data = c->bytes.buffer;
	c->read->data_offset = c->bytes.offset;
	c->read->done = on_copy_read;
	c->read->arg = c;
	layer_submit(m->layer.below, c->read);
}

static void start_copy(struct mirror *m, struct core_op *op)
{
	struct copy *c = op->driver;

	if (!c) {
		assert(m->copies_used < CORE_COPIES_MAX);
		c = &m->copies[m->copies_used++];
		*c = (struct copy){ .op = op, .m = m };
		op->driver = c;
	}
	assert(!c->is_far_busy);
	copy_memory_put(m->memory, &c->bytes);
	read_copy(c);
}

static void feed_starved(struct mirror *m)
{
	struct copy_list starved = TAILQ_HEAD_INITIALIZER(starved);
	struct copy *c;

	TAILQ_CONCAT(&starved, &m->starved, link);
	while ((c = TAILQ_FIRST(&starved))) {
		TAILQ_REMOVE(&starved, c, link);
		read_copy(c);
	}
}

/* --- the far leg of either */

static void note_far_error(struct mirror *m, const struct core_op *op, int err)
{
	if (err && err != ESHUTDOWN)
		error_errno(&m->cause, err, "the far side failed a %s of %ju bytes at %ju",
		            op->far_kind == CORE_FAR_ZERO ? "zeroing" : "write", (uintmax_t)range_length(op->far_range),
		            (uintmax_t)op->far_range.start);
}

static void tell_far_done(struct mirror *m, struct core_op *op, int err)
{
	note_far_error(m, op, err);
	mirror_step(m, (struct core_event){ .type = CORE_REMOTE_DONE, .op = op, .err = err, .generation = m->peer.generation });
}

static void on_guest_far_done(struct remote_op *far, int err)
{
	struct guest *g = container_of(far, struct guest, far);

	g->is_far_busy = false;
	tell_far_done(g->m, &g->op, err);
}

static void on_copy_far_done(struct remote_op *far, int err)
{
	struct copy *c = container_of(far, struct copy, far);

	c->is_far_busy = false;
	copy_memory_put(c->m->memory, &c->bytes);
	tell_far_done(c->m, c->op, err);
}

static void submit_far(struct mirror *m, struct core_op *op)
{
	uint64_t skip = op->far_range.start - op->range.start;
	struct remote_op *far;
	const uint8_t *data;

	assert(range_contains(op->range, op->far_range) && op->far_kind != CORE_FAR_NONE);
	if (op->kind == CORE_COPY) {
		struct copy *c = op->driver;

		assert(!c->is_far_busy);
		c->is_far_busy = true;
		far = &c->far;
		*far = (struct remote_op){ .done = on_copy_far_done };
		data = copy_data(c);
	} else {
		struct guest *g = container_of(op, struct guest, op);

		assert(!g->is_far_busy);
		g->is_far_busy = true;
		far = &g->far;
		*far = (struct remote_op){ .done = on_guest_far_done };
		data = g->data ? g->data->data + g->data_offset : NULL;
	}
	far->range = op->far_range;
	if (op->far_kind == CORE_FAR_ZERO) {
		far->opcode = REMOTE_ZERO;
		far->may_trim = op->far_may_trim;
	} else {
		far->opcode = REMOTE_WRITE;
		far->data = data + skip;
	}
	mirror_link_submit(m, far);
}

/* --- stepping */

static void perform(struct mirror *m, const struct core_action *a, bool *has_report, int *report_err)
{
	struct guest *g = a->op ? container_of(a->op, struct guest, op) : NULL; /* if it is a guest's */

	switch (a->type) {
	case CORE_DO_LOCAL_SUBMIT:
		layer_submit(m->layer.below, g->local);
		return;
	case CORE_DO_COPY_READ:
		start_copy(m, a->op);
		return;
	case CORE_DO_REMOTE_SUBMIT:
		submit_far(m, a->op);
		return;
	case CORE_DO_COMPLETE_GUEST:
		if (a->delay_us)
			answer_later(g, a->err, a->delay_us);
		else
			answer(g, a->err);
		return;
	case CORE_DO_RELEASE:
		assert(a->op->kind != CORE_COPY);
		release_guest(g);
		return;
	case CORE_DO_FLUSH_FAR:
		mirror_link_flush(m);
		return;
	case CORE_DO_FLUSH_HOME:
		mirror_map_flush_home(m);
		return;
	case CORE_DO_MARK:
		mirror_map_mark(m, a->region, a->count);
		return;
	case CORE_DO_RETIRE:
		mirror_map_retire(m, a->region, a->count);
		return;
	case CORE_DO_REPORT:
		*has_report = true;
		if (a->err)
			*report_err = a->err;
		return;
	case CORE_DO_DROP_LINK:
		mirror_link_drop(m, a->err);
		return;
	}
}

/* While anything is owed the core is told at least this often that time passes. */
static void start_ticking(struct mirror *m)
{
	if (m->is_ticking || !m->is_connected || mirror_is_over(m) || (m->state == CORE_BROKEN && !m->on_finished))
		return;
	m->is_ticking = true; /* if slowly so far, no more */
	loop_timer_set(m->tick, TICK_MS);
}

/* In step with the guest, nothing on its way and all flushed, time does not matter: the next event starts the clock again. */
static void on_tick(void *arg)
{
	struct mirror *m = arg;
	struct core_status s;

	m->is_ticking = false;
	feed_starved(m);
	mirror_step(m, (struct core_event){ .type = CORE_TICK });
	core_status(m->core, &s);
	if (s.state == CORE_SYNCED && s.dirty_bytes == 0 && s.lag_ops == 0 && s.unflushed_bytes == 0) {
		m->is_ticking = false;
		copy_memory_trim(m->memory);
		if (s.marked_regions) /* they retire, after a while */
			loop_timer_set(m->tick, SLOW_TICK_MS);
		else
			loop_timer_clear(m->tick);
	}
}

void mirror_step(struct mirror *m, struct core_event ev)
{
	bool has_report = false;
	int report_err = 0;

	assert(!m->is_stepping);
	m->is_stepping = true;
	ev.now_ns = loop_now_ns();
	do {
		core_step(m->core, &ev, &m->actions);
		for (unsigned i = 0; i < m->actions.count; i++)
			perform(m, &m->actions.item[i], &has_report, &report_err);
		ev = (struct core_event){ .type = CORE_MORE, .now_ns = ev.now_ns };
	} while (m->actions.is_full);
	m->is_stepping = false;
	if (has_report)
		mirror_end_report(m, report_err);
	start_ticking(m);
}

/* --- birth and death */

static void free_mirror(struct mirror *m)
{
	struct guest *g;

	while ((g = TAILQ_FIRST(&m->free_guests))) {
		TAILQ_REMOVE(&m->free_guests, g, link);
		free(g);
	}
	for (unsigned i = 0; i < m->copies_used; i++) {
		assert(!m->copies[i].is_far_busy && !m->copies[i].read);
		copy_memory_put(m->memory, &m->copies[i].bytes);
	}
	mirror_link_fini(m);
	loop_defer_cancel(m->spec.loop, &m->news);
	loop_timer_free(m->pacer);
	loop_timer_free(m->tick);
	if (m->core)
		core_free(m->core);
	mirror_map_fini(m);
	copy_memory_free(m->memory);
	free(m->copies);
	free(m->mirror_id);
	free(m->uri);
	free(m);
}

static void close_mirror(struct layer *l)
{
	struct mirror *m = mirror_of(l);

	assert(mirror_link_is_gone(m) && !m->on_finished && STAILQ_EMPTY(&m->aborts) && TAILQ_EMPTY(&m->delayed));
	free_mirror(m);
}

static const struct layer_ops ops = { .name = "mirror", .submit = submit, .close = close_mirror };

static int copy_only(struct mirror *m)
{
	const struct extents *only = m->spec.only;

	m->spec.only = NULL;
	if (!only)
		return extents_add(&m->only, (struct range){ 0, m->layer.geometry.size_bytes }, 0);
	for (size_t i = 0; i < only->count; i++) {
		struct range r = range_clip(only->item[i].range, (struct range){ 0, m->layer.geometry.size_bytes });

		if (only->item[i].type == 0 && extents_add(&m->only, r, 0) != 0)
			return -1;
	}
	return 0;
}

int mirror_limit(struct layer *mirror, const struct extents *changed)
{
	struct mirror *m = container_of(mirror, struct mirror, layer);

	m->only.count = 0;
	m->spec.only = changed;
	if (copy_only(m) == 0)
		return 0;
	m->only.count = 0;
	copy_only(m);
	return -1;
}

static int make_parts(struct mirror *m)
{
	struct core_spec spec = {
		.keeps_link = m->spec.mirror_id != NULL,
		.size_bytes = m->layer.geometry.size_bytes,
		.lag_bytes = m->spec.lag_bytes,
		.lag_ms = m->spec.lag_ms,
		.debt_ms = 1000,
		.trim_reads_zero = m->layer.geometry.trim_reads_zero,
		.is_copy = m->spec.is_copy,
		.no_progress_ms = 30000,
		.is_sync = m->spec.is_sync,
	};

	m->core = core_new(&spec);
	m->memory = copy_memory_new();
	m->copies = calloc(CORE_COPIES_MAX, sizeof(*m->copies));
	m->retry = loop_timer_new(m->spec.loop, mirror_link_retry, m);
	m->pacer = loop_timer_new(m->spec.loop, answer_due, m);
	m->tick = loop_timer_new(m->spec.loop, on_tick, m);
	m->uri = strdup(m->spec.uri);
	m->spec.uri = m->uri;
	m->mirror_id = m->spec.mirror_id ? strdup(m->spec.mirror_id) : NULL;
	if (m->spec.mirror_id && !m->mirror_id)
		return -1;
	if (m->spec.map_path) {
		m->map_path = strdup(m->spec.map_path);
		m->marks_path = strdup(m->spec.marks_path);
		m->source_name = strdup(m->spec.source_name);
		if (!m->map_path || !m->marks_path || !m->source_name)
			return -1;
		m->spec.map_path = m->map_path;
	}
	return m->core && m->retry && m->memory && m->copies && m->pacer && m->tick && m->uri && copy_only(m) == 0 ? 0 : -1;
}

struct layer *mirror_new(const struct mirror_spec *spec, struct error *e)
{
	struct mirror *m;

	if (remote_nbd_check_uri(spec->uri, e) == -1)
		return NULL;
	m = calloc(1, sizeof(*m));
	if (!m) {
		error_errno(e, ENOMEM, "cannot make a mirror");
		return NULL;
	}
	m->spec = *spec;
	m->spec.lag_bytes = spec->lag_bytes ? spec->lag_bytes : 16 * MiB;
	m->spec.lag_ms = spec->lag_ms ? spec->lag_ms : 50;
	m->spec.connect_wait_ms = spec->connect_wait_ms ? spec->connect_wait_ms : 5000;
	m->spec.handshake_ms = spec->handshake_ms ? spec->handshake_ms : 20000;
	m->spec.dead_ms = spec->dead_ms ? spec->dead_ms : 30000;
	m->state = CORE_CONNECTING;
	m->peer = spec->peer;
	m->was_up = spec->peer.generation > 0;
	m->is_remembering = spec->is_remembering;
	TAILQ_INIT(&m->free_guests);
	TAILQ_INIT(&m->delayed);
	TAILQ_INIT(&m->starved);
	TAILQ_INIT(&m->unmarked);
	layer_init(&m->layer, &ops, spec->below, &spec->below->geometry);
	mirror_end_init(m);
	if (make_parts(m) == -1) {
		error_errno(e, ENOMEM, "cannot make a mirror");
		free_mirror(m);
		return NULL;
	}
	return &m->layer;
}
