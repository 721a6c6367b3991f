/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * mirror-end - finish, abort, status: how those outside learn what became of a mirror
 *
 * The core says that something changed; here it is kept, explained, and told from one deferred task, so that nobody outside is
 * called in the middle of a step.  Order of telling: on_change, then finish's done, then abort's; the last may close the layer.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "mirror/mirror-private.h"

static bool is_quiet(const struct mirror *m)
{
	struct core_status s;

	core_status(m->core, &s);
	return s.is_idle && mirror_link_is_gone(m);
}

/* True: finish's end has come; *e says how, err 0: well. */
static bool is_finish_over(const struct mirror *m, struct error *e)
{
	*e = (struct error){ 0 };
	if (m->state == CORE_FINISHED)
		return m->is_sxm || mirror_link_is_gone(m);
	if (m->state == CORE_FAILED)
		*e = m->why;
	else if (m->state == CORE_ENDED)
		error_set(e, ECANCELED, "the mirror was ended");
	else if (m->is_remembering)
		*e = m->why;
	else if (m->backed_out == ETIMEDOUT)
		error_set(e, ETIMEDOUT, "the far side made no progress while the last writes were sent");
	else if (m->backed_out)
		error_errno(e, m->backed_out, "the last writes could not be sent%s%s", m->cause.err ? ": " : "", m->cause.text);
	return e->err != 0;
}

static void tell(struct loop_task *t)
{
	struct mirror *m = container_of(t, struct mirror, news);
	STAILQ_HEAD(, abort_waiter) aborts = STAILQ_HEAD_INITIALIZER(aborts);
	struct abort_waiter *w;
	struct error e;

	if (m->has_news) {
		m->has_news = false;
		if (m->spec.on_change)
			m->spec.on_change(m->spec.arg);
	}
	if (m->on_finished && is_finish_over(m, &e)) {
		void (*done)(void *, const struct error *) = m->on_finished;

		m->on_finished = NULL;
		m->backed_out = 0;
		done(m->on_finished_arg, e.err ? &e : NULL);
	}
	if (STAILQ_EMPTY(&m->aborts) || !is_quiet(m))
		return;
	/* m may be gone after any of these. */
	loop_defer_cancel(m->spec.loop, &m->news);
	STAILQ_CONCAT(&aborts, &m->aborts);
	while ((w = STAILQ_FIRST(&aborts))) {
		STAILQ_REMOVE_HEAD(&aborts, link);
		w->done(w->arg);
		free(w);
	}
}

void mirror_end_init(struct mirror *m)
{
	m->news = (struct loop_task){ .run = tell };
	STAILQ_INIT(&m->aborts);
}

void mirror_end_check(struct mirror *m)
{
	if (m->on_finished || !STAILQ_EMPTY(&m->aborts))
		loop_defer(m->spec.loop, &m->news);
}

void mirror_end_news(struct mirror *m)
{
	m->has_news = true;
	loop_defer(m->spec.loop, &m->news);
}

static void note_lateness(struct mirror *m, const struct core_status *s)
{
	if (s->is_lagging == m->is_lagging)
		return;
	m->is_lagging = s->is_lagging;
	if (m->is_lagging)
		log_warn("mirror to %s: the far side is late, guests do not wait for it until it has everything again", m->uri);
	else if (!mirror_is_over(m))
		log_info("mirror to %s: the far side has everything again, guests wait for it", m->uri);
}

static void note_state(struct mirror *m, const struct core_status *s)
{
	log_info("mirror to %s: %s -> %s", m->uri, core_state_name(m->state), core_state_name(s->state));
	m->state = s->state;
	if (!mirror_is_over(m))
		return;
	m->ended_ns = loop_now_ns();
	mirror_map_end(m);
	if (m->state == CORE_FINISHED && !m->is_sxm)
		mirror_link_drop(m, 0);
	if (m->state != CORE_FAILED)
		return;
	m->why = m->cause;
	if (!m->why.err)
		error_errno(&m->why, s->err, "the mirror failed");
	log_error("mirror to %s failed: %s", m->uri, m->why.text);
}

void mirror_end_report(struct mirror *m, int err)
{
	struct core_status s;

	core_status(m->core, &s);
	if (err)
		m->backed_out = err;
	if (s.was_synced && !m->ready_ns)
		m->ready_ns = loop_now_ns();
	note_lateness(m, &s);
	mirror_map_check(m, &s);
	if (s.state != m->state)
		note_state(m, &s);
	mirror_end_news(m);
}

void mirror_set_sync(struct layer *l, bool is_sync)
{
	struct mirror *m = mirror_of(l);

	if (!mirror_is_over(m))
		mirror_step(m, (struct core_event){ .type = CORE_SET_MODE, .is_sync = is_sync });
}

void mirror_set_limit(struct layer *l, uint64_t bytes)
{
	struct mirror *m = mirror_of(l);

	if (!mirror_is_over(m))
		mirror_step(m, (struct core_event){ .type = CORE_SET_LIMIT, .limit_bytes = bytes });
}

void mirror_finish(struct layer *l, void (*done)(void *arg, const struct error *e), void *arg)
{
	struct mirror *m = mirror_of(l);

	assert(done && !m->on_finished);
	m->on_finished = done;
	m->on_finished_arg = arg;
	m->backed_out = 0;
	if (!mirror_is_over(m))
		mirror_step(m, (struct core_event){ .type = CORE_BARRIER });
	mirror_end_check(m);
}

void mirror_abort(struct layer *l, void (*done)(void *arg), void *arg)
{
	struct mirror *m = mirror_of(l);
	struct abort_waiter *w = malloc(sizeof(*w));

	assert(done && w); /* a few bytes, on the way out: there is nobody left to tell */
	*w = (struct abort_waiter){ .done = done, .arg = arg };
	STAILQ_INSERT_TAIL(&m->aborts, w, link);
	if (!mirror_is_over(m))
		mirror_step(m, (struct core_event){ .type = CORE_ABORT });
	/* The core asks to drop a link it knows; one that is still being made is ours, and so is one that was kept. */
	mirror_link_drop(m, m->state == CORE_FINISHED ? 0 : ECANCELED);
	mirror_end_check(m);
}

void mirror_status(const struct layer *l, struct mirror_status *out)
{
	const struct mirror *m = mirror_of(l);

	*out = (struct mirror_status){
		.is_connected = m->is_connected,
		.why = m->why,
		.started_ns = m->started_ns,
		.ready_ns = m->ready_ns,
		.ended_ns = m->ended_ns,
		.source_allocated_bytes = m->allocated_bytes,
	};
	mirror_link_status(m, out);
	core_status(m->core, &out->core);
	snprintf(out->remote, sizeof(out->remote), "%s", m->uri);
}

#define NOT_COMPARED "; the two sides were not compared, and only who moves the guest keeps it from running on both"

const char *mirror_barrier_means(const struct mirror_status *s)
{
	if (!s->is_connected || s->is_sxm)
		return "";
	if (s->can_flush)
		return "the far side is no sxm: after the barrier it has acknowledged every write, and a flush after them"
		       NOT_COMPARED;
	return "the far side is no sxm and offers no flush: after the barrier it has acknowledged every write, and may lose "
	       "with its host's power what is not on its medium yet" NOT_COMPARED;
}

const char *mirror_uri(const struct layer *l)
{
	return mirror_of(l)->uri;
}

bool mirror_is_settled(const struct layer *l, struct range r)
{
	const struct mirror *m = mirror_of(l);

	if (mirror_is_over(m))
		return true;
	if (!m->is_connected || core_has_far_leg(m->core, r))
		return false;
	for (uint64_t at = r.start / CORE_CHUNK_BYTES; at * CORE_CHUNK_BYTES < r.end; at++)
		if (core_chunk(m->core, at) != CORE_CLEAN)
			return false;
	return true;
}
