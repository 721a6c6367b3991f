/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror-map - the core's debt in files that outlive the process and the host (I11, mirror/persist.h)
 *
 *      fresh     swept -> files made anew (pool) -> MAP_ON -> MARK ... MARKED -> map ready: vouched for -> the first link
 *      restored  files opened (pool) -> what they owe is dirty -> MAP_ON -> guests are let in -> ... as above, without a sweep
 *
 * Restored guests wait at the gate until MAP_ON: what they wrote before it would be in no file.
 * The files are open as long as the core lives, since it writes its bits by plain stores; they go with it, or stay where the
 * mirror is to be taken up again.
 *
 * When the mirror has failed or was ended, and is not to be taken up again, they are removed at once, for good (persist_void());
 * until they are, a write is noted there as ever: for so long a guest may wait that writes where no mark is.
 *
 * Can fail: the files cannot be made: the mirror runs, and will not survive its process. A mark cannot be written: both files go
 * first, the marks from the medium, so that nobody ever trusts them, then the core hears, the operation fails, and the write goes
 * on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mirror/mirror-private.h"

struct marking {
	struct mirror *m;
	struct persist_mark mark;
	int err;
	TAILQ_ENTRY(marking) link; /* m->unmarked */
};

static bool keeps_debt(const struct mirror *m)
{
	return m->spec.map_path != NULL;
}

static struct persist_spec persist_spec_of(struct mirror *m)
{
	return (struct persist_spec){
		.loop = m->spec.loop,
		.map_path = m->map_path,
		.marks_path = m->marks_path,
		.size_bytes = m->layer.geometry.size_bytes,
		.mirror_id = m->mirror_id,
		.source_name = m->source_name,
		.target_name = m->uri,
		.content_generation = m->spec.content_generation,
	};
}

static void turn_on(struct mirror *m)
{
	m->is_map_on = true;
	mirror_step(m, (struct core_event){
		.type = CORE_MAP_ON, .owing = persist_owing(m->persist), .unflushed = persist_unflushed(m->persist) });
}

/* --- made anew */

static void make_files(struct offload *o)
{
	struct mirror *m = container_of(o, struct mirror, map_offload);
	struct persist_spec spec = persist_spec_of(m);

	m->persist = persist_new(&spec, &m->map_error);
}

static void files_made(struct offload *o)
{
	struct mirror *m = container_of(o, struct mirror, map_offload);

	m->is_map_busy = false;
	if (mirror_is_over(m)) {
		mirror_end_check(m);
	} else if (m->persist) {
		turn_on(m);
	} else {
		log_warn("mirror to %s: %s; it will not outlive this process", m->uri, m->map_error.text);
		mirror_link_start(m);
	}
}

void mirror_map_start(struct mirror *m)
{
	if (mirror_is_over(m) || !keeps_debt(m)) {
		mirror_link_start(m);
		return;
	}
	m->map_offload = (struct offload){ .work = make_files, .done = files_made };
	m->is_map_busy = true;
	if (offload_submit(m->spec.loop, &m->map_offload) == 0)
		return;
	m->is_map_busy = false;
	log_warn("mirror to %s: no memory for the map; it will not outlive this process", m->uri);
	mirror_link_start(m);
}

/* --- taken up again */

static void dirty(void *arg, struct range r)
{
	core_mark_dirty(arg, r);
}

static void unflushed(void *arg, struct range r)
{
	core_mark_unflushed(arg, r);
}

static void marked(void *arg, struct range r)
{
	struct mirror *m = arg;

	for (uint64_t at = r.start; at < r.end; at = (at / PERSIST_REGION_BYTES + 1) * PERSIST_REGION_BYTES)
		core_mark_marked(m->core, (struct range){ at, at + 1 }, persist_has_map(m->persist, at / PERSIST_REGION_BYTES));
}

static void take_up(struct mirror *m)
{
	const struct persist_found *f = &m->found;
	struct range all = { 0, m->layer.geometry.size_bytes };
	bool is_exact = f->has_map && f->is_same_boot;
	struct core_status s;

	if (is_exact && persist_each_owing(m->persist, PERSIST_OWING, dirty, m->core) == 0)
		is_exact = persist_each_owing(m->persist, PERSIST_UNFLUSHED, unflushed, m->core) == 0;
	else
		is_exact = false;
	if (!is_exact && f->has_marks)
		persist_each_marked(m->persist, dirty, m->core);
	else if (!is_exact)
		core_mark_dirty(m->core, all);
	if (f->has_marks)
		persist_each_marked(m->persist, marked, m);
	core_status(m->core, &s);
	log_info("mirror to %s: taken up again, %ju bytes owed by %s", m->uri, (uintmax_t)s.dirty_bytes,
	         is_exact ? "the map" : f->has_marks ? "the marks" : "rights: neither map nor marks are there");
	if (!is_exact && f->map_reason.err)
		log_info("the map: %s", f->map_reason.text);
	if (!f->has_marks && f->marks_reason.err)
		log_info("the marks: %s", f->marks_reason.text);
}

static void open_files(struct offload *o)
{
	struct mirror *m = container_of(o, struct mirror, map_offload);
	struct persist_spec spec = persist_spec_of(m);

	m->persist = persist_open(&spec, &m->found, &m->map_error);
}

static void files_opened(struct offload *o)
{
	struct mirror *m = container_of(o, struct mirror, map_offload);
	void (*done)(void *arg, const struct error *e) = m->on_restored;

	m->is_map_busy = false;
	m->on_restored = NULL;
	if (m->persist) {
		take_up(m);
		turn_on(m);
	}
	done(m->on_restored_arg, m->persist ? NULL : &m->map_error);
}

void mirror_restore(struct layer *l, void (*done)(void *arg, const struct error *e), void *arg)
{
	struct mirror *m = mirror_of(l);
	struct error e = { 0 };

	assert(keeps_debt(m) && !m->started_ns && !m->persist);
	m->is_restored = true;
	m->on_restored = done;
	m->on_restored_arg = arg;
	m->map_offload = (struct offload){ .work = open_files, .done = files_opened };
	m->is_map_busy = true;
	if (offload_submit(m->spec.loop, &m->map_offload) == 0)
		return;
	m->is_map_busy = false;
	m->on_restored = NULL;
	error_errno(&e, ENOMEM, "cannot take a mirror up again");
	done(arg, &e);
}

/* --- marks */

static void tell_marked(struct marking *k, bool has_map)
{
	struct mirror *m = k->m;
	struct core_event ev = { .type = CORE_MARKED, .region = k->mark.region, .count = k->mark.count, .err = k->err };

	m->markings--;
	if (k->err) {
		if (!mirror_is_over(m))
			error_errno(&m->cause, k->err, "the marks %s could not be written", m->marks_path);
		mirror_step(m, ev);
	} else if (has_map || k->mark.count == 1) {
		ev.has_map = has_map;
		mirror_step(m, ev);
	} else {
		for (uint64_t i = 0; i < k->mark.count; i++) {
			ev.region = k->mark.region + i;
			ev.count = 1;
			ev.has_map = persist_has_map(m->persist, ev.region);
			mirror_step(m, ev);
		}
	}
	free(k);
	mirror_end_check(m);
}

static void voided(void *arg, const struct error *e)
{
	struct mirror *m = arg;
	struct marking *k;

	m->is_voiding = false;
	m->is_void = true;
	if (e)
		log_error("%s: after a power loss before this mirror's end is on record they may be back, and lack writes: then "
			  "the far side is to be copied anew", e->text);
	while ((k = TAILQ_FIRST(&m->unmarked))) {
		TAILQ_REMOVE(&m->unmarked, k, link);
		tell_marked(k, false);
	}
	mirror_step(m, (struct core_event){ .type = CORE_VOIDED });
	mirror_end_check(m);
}

static void void_files(struct mirror *m)
{
	m->keeps_files = false;
	if (m->is_voiding || m->is_void)
		return;
	m->is_voiding = true;
	persist_void(m->persist, voided, m);
}

void mirror_map_end(struct mirror *m)
{
	if (m->is_map_on && !m->wants_files && m->state != CORE_FINISHED)
		void_files(m);
}

static void on_marked(struct persist_mark *mark, int err, bool has_map)
{
	struct marking *k = container_of(mark, struct marking, mark);
	struct mirror *m = k->m;

	k->err = err;
	if (!err || m->is_void || m->state == CORE_FINISHED) {
		tell_marked(k, has_map);
		return;
	}
	TAILQ_INSERT_TAIL(&m->unmarked, k, link);
	void_files(m);
}

void mirror_map_mark(struct mirror *m, uint64_t region, uint64_t count)
{
	struct marking *k = calloc(1, sizeof(*k));

	assert(k); /* some bytes for thousands of regions */
	k->m = m;
	k->mark = (struct persist_mark){ .region = region, .count = count, .done = on_marked };
	m->markings++;
	persist_mark(m->persist, &k->mark);
}

void mirror_map_retire(struct mirror *m, uint64_t region, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		persist_retire(m->persist, region + i);
}

static void on_home_flushed(struct req *r)
{
	struct mirror *m = r->arg;
	int err = r->err;

	req_put(r);
	m->is_flushing_home = false;
	if (err)
		error_errno(&m->cause, err, "a flush of this disk failed");
	mirror_step(m, (struct core_event){ .type = CORE_HOME_FLUSHED, .err = err });
	mirror_end_check(m);
}

static void flush_failed(struct loop_task *t)
{
	struct mirror *m = container_of(t, struct mirror, flush_task);

	m->is_flushing_home = false;
	error_errno(&m->cause, ENOMEM, "this disk could not be flushed");
	mirror_step(m, (struct core_event){ .type = CORE_HOME_FLUSHED, .err = ENOMEM });
	mirror_end_check(m);
}

void mirror_map_flush_home(struct mirror *m)
{
	struct req *r = req_get();

	m->is_flushing_home = true;
	if (!r) {
		m->flush_task = (struct loop_task){ .run = flush_failed };
		loop_defer(m->spec.loop, &m->flush_task);
		return;
	}
	r->op = REQ_FLUSH;
	r->done = on_home_flushed;
	r->arg = m;
	layer_submit(m->layer.below, r);
}

/* --- ready, and the end */

/* After a step: all that was owed at MAP_ON is marked now. */
static void vouch(struct loop_task *t)
{
	struct mirror *m = container_of(t, struct mirror, map_task);

	if (mirror_is_over(m))
		return;
	persist_vouch(m->persist);
	m->keeps_files = true;
	if (m->started_ns)
		mirror_link_start(m);
}

void mirror_map_check(struct mirror *m, const struct core_status *s)
{
	if (m->is_vouched || !s->is_map_ready)
		return;
	m->is_vouched = true;
	m->map_task = (struct loop_task){ .run = vouch };
	loop_defer(m->spec.loop, &m->map_task);
}

bool mirror_map_is_quiet(const struct mirror *m)
{
	return !m->is_map_busy && !m->markings && !m->is_voiding && !m->is_flushing_home;
}

void mirror_keep_debt(struct layer *l)
{
	mirror_of(l)->wants_files = true;
}

void mirror_map_fini(struct mirror *m)
{
	loop_defer_cancel(m->spec.loop, &m->map_task);
	loop_defer_cancel(m->spec.loop, &m->flush_task);
	if (m->persist)
		persist_close(m->persist, m->wants_files && m->keeps_files ? PERSIST_KEEP : PERSIST_UNLINK, NULL, NULL);
	free(m->map_path);
	free(m->marks_path);
	free(m->source_name);
}
