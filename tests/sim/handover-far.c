/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * handover-far - B: the host that receives
 *
 * Its disk has a cache that power loss empties and a flush writes out; a write that was submitted ends later.
 */
#include <stdio.h>
#include <string.h>

#include "tests/sim/handover.h"

static void reply(struct world *w, unsigned link, const struct message *m)
{
	if (w->links[link].is_open_at_b)
		world_put(&w->links[link].to_a, m);
}

static void flush(struct world *w)
{
	w->disk_b = w->cache_b;
}

void far_settle(struct world *w, unsigned link)
{
	struct link *l = &w->links[link];
	struct message m = { .ask = ASK_WRITE, .number = l->pending };

	if (!l->has_pending)
		return;
	l->has_pending = false;
	w->cache_b = l->pending;
	reply(w, link, &m);
}

void far_close(struct world *w, unsigned link)
{
	struct link *l = &w->links[link];

	if (l->is_open_at_b)
		w->must_tell = false;
	l->is_open_at_b = l->is_admitted = false;
	l->to_b.count = 0;
}

static void shut_out(struct world *w)
{
	const struct commit_record *r = &w->b.rec;

	if (PLANTED(BUG_CALLER_SHUTS_NOBODY_OUT))
		return;
	for (unsigned i = 0; i < LINKS; i++) {
		struct link *l = &w->links[i];

		if (strcmp(l->name_at_b.mirror, r->mirror) == 0 && l->name_at_b.generation == r->generation)
			continue;
		if (!l->is_admitted) /* its HELLO may still be on its way */
			continue;
		far_settle(w, i);
		far_close(w, i);
	}
	flush(w);
}

bool far_is_linked(const struct world *w)
{
	for (unsigned i = 0; i < LINKS; i++)
		if (w->links[i].is_open_at_b && w->links[i].is_admitted)
			return true;
	return false;
}

/* --- what a link asks */

static void answer(struct world *w)
{
	const struct commit_verdict *v = &w->b.verdict;
	struct link *l = &w->links[w->b.link];
	struct message m = w->b.message;

	if (v->shuts_out && v->does == COMMIT_ALLOW)
		shut_out(w);
	m.status = v->status;
	m.state = v->next.state;
	m.epoch = v->next.epoch;
	m.since = v->next.since;
	m.boot = w->boot_b;
	m.count = l->arrived;
	if (v->does == COMMIT_ALLOW && v->link_epoch)
		l->name_at_b.epoch = v->link_epoch;
	if (m.ask == ASK_HELLO && v->does == COMMIT_ALLOW) {
		l->is_admitted = true;
		l->is_told = false;
	}
	reply(w, w->b.link, &m);
}

static void arrive(struct world *w, unsigned link, const struct message *m)
{
	struct link *l = &w->links[link];
	struct message no = { .ask = ASK_WRITE, .status = COMMIT_STATUS_NOT_YOURS };
	struct message lie = { .ask = ASK_WRITE, .number = m->number };

	if (!l->is_admitted || commit_write(&w->b.rec, COMMIT_LINKED, &l->name_at_b) != COMMIT_ALLOW) {
		reply(w, link, &no);
	} else if (!w->is_quiet && !world_roll(w, 40)) { /* something between us answers, and passes nothing on */
		w->has_lied = true;
		reply(w, link, &lie);
	} else {
		l->arrived++;
		l->has_pending = true;
		l->pending = m->number;
	}
}

/* Writes are shut out by the record when it is eligible; until then, what was submitted is waited for and flushed. */
static struct commit_verdict commit(struct world *w, const struct link *l)
{
	bool is_flushed = w->disk_b == w->cache_b;

	for (unsigned i = 0; i < LINKS; i++)
		is_flushed = is_flushed && !w->links[i].has_pending;
	if (!is_flushed && (w->is_quiet || world_roll(w, 4))) {
		for (unsigned i = 0; i < LINKS; i++)
			far_settle(w, i);
		flush(w);
		is_flushed = true;
	}
	return commit_far_commit(&w->b.rec, &l->name_at_b, is_flushed);
}

static struct commit_verdict prepare(struct world *w, unsigned link)
{
	struct commit_verdict v = commit_far_prepare(&w->b.rec, &w->links[link].name_at_b);

	if (v.does == COMMIT_ALLOW && (w->group || world_roll(w, 4))) { /* else COMMIT has to; "commit" rests on this */
		far_settle(w, link);
		flush(w);
	}
	return v;
}

void far_receive(struct world *w, unsigned link)
{
	struct link *l = &w->links[link];
	struct message m = world_take(&l->to_b);
	const struct commit_record *r = &w->b.rec;
	enum commit_bug late = BUG_NONE;
	struct commit_verdict v;

	if (m.ask == ASK_WRITE) {
		arrive(w, link, &m);
		return;
	}
	if (m.ask == ASK_HELLO) {
		v = commit_far_hello(r, &l->name_at_b, w->is_other_linked);
	} else if (m.ask == ASK_PREPARE) {
		v = prepare(w, link);
	} else if (m.ask == ASK_COMMIT) {
		v = commit(w, l);
		late = BUG_CALLER_ELIGIBLE_LATE;
	} else if (m.ask == ASK_RECLAIM) {
		v = commit_far_reclaim(r, &l->name_at_b);
		late = BUG_CALLER_RECLAIMED_LATE;
	} else if (m.ask == ASK_END) {
		v = commit_far_end(r, &l->name_at_b);
	} else {
		v = commit_far_acknowledged(r, &l->name_at_b);
	}
	w->b.message = m;
	w->b.link = link;
	world_decide(w, &w->b, &v, answer, late);
}

void far_news(struct world *w, unsigned link)
{
	struct link *l = &w->links[link];
	enum commit_news news = commit_far_news(&w->b.rec, &l->name_at_b);
	struct message m = { .ask = ASK_NEWS, .state = commit_news_state(news), .epoch = w->b.rec.epoch };

	if (!l->is_admitted || l->is_told || news == COMMIT_NEWS_NONE)
		return;
	l->is_told = true;
	reply(w, link, &m);
}

/* --- what happens here */

static void started(struct world *w)
{
	bool is_taken = w->b.rec.state == COMMIT_OWNED;

	if (w->b.verdict.shuts_out)
		shut_out(w);
	w->is_starting = false;
	if (!is_taken)
		return;
	w->b.is_guest_active = true;
	w->tally[TALLY_MOVED]++;
	oracle_started(w, &w->b);
	w->is_moved = w->is_moved || w->is_right;
}

void far_start(struct world *w)
{
	static const struct commit_activation guest = { .domain = COMMIT_GUEST };
	struct commit_verdict v = commit_activate(&w->b.rec, &guest);

	if (v.does == COMMIT_REFUSE) {
		w->is_starting = false;
		if (w->is_right)
			world_break(w, "the far side refused to start what it was given");
	} else if (w->b.is_busy) { /* planted: nobody waits */
		w->b.rec = w->b.durable = v.next;
		w->b.verdict = v;
		started(w);
	} else {
		world_decide(w, &w->b, &v, started, BUG_NONE);
	}
}

static void gone(struct world *w)
{
	for (unsigned i = 0; i < LINKS; i++) {
		far_close(w, i);
		w->links[i].has_pending = false;
	}
	oracle_destroyed(w);
	w->b.exists = w->is_destroying = false;
	w->is_other_linked = w->is_starting = false;
}

static void waiting(struct world *w)
{
	(void)w;
}

void far_destroy(struct world *w)
{
	const struct commit_destruction d = { .is_linked = far_is_linked(w) };
	struct commit_verdict v = commit_destroy(&w->b.rec, &d);

	if (w->b.is_guest_active || v.does == COMMIT_REFUSE)
		w->is_destroying = false;
	else
		world_decide(w, &w->b, &v, v.does == COMMIT_ALLOW ? gone : waiting, BUG_CALLER_RELEASED_LATE);
}

void far_give_up(struct world *w)
{
	struct commit_verdict v = commit_far_give_up(&w->b.rec);

	world_decide(w, &w->b, &v, waiting, BUG_NONE);
}

static void other_admitted(struct world *w)
{
	shut_out(w);
	w->is_other_linked = true;
	w->cache_b = ++w->clock;
}

/* Another mirror, from somewhere else, tries to get this volume. */
void far_other(struct world *w)
{
	static const struct commit_link other = { .mirror = "other", .epoch = 1, .generation = 1 };
	struct commit_verdict v = commit_far_hello(&w->b.rec, &other, far_is_linked(w));

	if (v.does == COMMIT_ALLOW && !w->is_other_linked)
		world_decide(w, &w->b, &v, other_admitted, BUG_NONE);
}

void far_crash(struct world *w, bool is_host)
{
	for (unsigned i = 0; i < LINKS; i++) {
		if (!is_host && world_roll(w, 2))
			far_settle(w, i);
		w->links[i].has_pending = false;
		far_close(w, i);
	}
	w->is_other_linked = false;
	w->b.rec = w->b.durable;
	if (!is_host)
		return;
	w->cache_b = w->disk_b;
	w->boot_b++;
	w->b.is_guest_active = false;
}
