/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * lane - see lane.h
 *
 *      event, poller -> sweep: ring_take -> (indirect: one copy for all segments of a sweep, into the book) --failed-> answer
 *                                        -> judge -bad----------------------------------------> answer --.
 *                                           '-> buffer? -no--> waiting, nothing more is taken            |
 *                                                '-> WRITE: one copy for all of a sweep --failed-> answer-|
 *                                                '-> layer_submit ~~~ done() -> READ: reads -> answer -----|
 *                                                                       '-> ESHUTDOWN: parked             v
 *      before sleep: one copy for all reads that ended in this turn, then one ring_publish, and one event if it is wanted
 *
 * A sweep takes so many requests and no more; the loop's other work comes before the next one, and the channel is unmasked when
 * the sweep is over.  The guest is asked for an event only when the loop is about to sleep.
 * A guest that writes rubbish waits a millisecond after so much of it.
 * How long requests take is counted by one look at the clock in a turn: one for each of them costs a tenth of what they do.
 *
 * Can fail, for the request alone: what was judged, a copy (the page is not granted, the guest is gone), the disk.
 * Can wait: for a buffer.  A request that ended with ESHUTDOWN is not answered: a guest that goes on elsewhere asks again there,
 * and one that stays is served when the disk is back; it is tried again each second.
 * Invariants: bytes that the disk did not give are never copied to the guest; a request is answered once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "vbd/lane.h"

#define SWEEP_MAX 64u
#define COPIES_MAX (SWEEP_MAX * RING_SEGMENTS_MAX)
_Static_assert(COPIES_MAX >= RING_INDIRECT_MAX, "the copies of one request fit into one call");
#define BAD_MAX 8u      /* of one sweep */
#define BAD_REST_MS 1u
#define PARKED_MS 1000u

struct slot {
	struct lane *lane;   /* borrowed */
	struct iobuf *data;  /* owned; READ and WRITE, from the buffer to the answer */
	struct range range;
	uint64_t began_ns;   /* it was taken */
	TAILQ_ENTRY(slot) link; /* in one of the lane's lists */
};
TAILQ_HEAD(slot_list, slot);

struct lane {
	struct lane_spec spec;
	struct ring ring;
	struct slot slot[RING_ENTRIES_MAX]; /* of the book's entries */
	struct slot_list incomplete, waiting, writes, reads, parked;
	unsigned parked_count, in_flight;
	struct xen_copy copy[COPIES_MAX];
	struct iobuf_waiter waiter;
	struct loop_watch *watch;  /* owned */
	struct loop_timer *again, *unpark; /* owned */
	struct loop_hook hook;
	struct loop_poller poller;
	struct loop_task task, done_task;
	bool is_unpublished, is_stopping, was_broken;
	bool must_go_on;           /* a sweep has left something */
	unsigned bad;              /* of this sweep */
	uint64_t turn_ns;          /* when this turn was asked first what time it is; 0: it was not yet */
	void (*done)(void *arg);
	void *done_arg;
};

static int entry_of(const struct slot *s)
{
	return (int)(s - s->lane->slot);
}

static const struct ring_request *request_of(const struct slot *s)
{
	return ring_request(&s->lane->ring, entry_of(s));
}

static uint64_t turn_ns(struct lane *l)
{
	if (!l->turn_ns)
		l->turn_ns = loop_now_ns();
	return l->turn_ns;
}

/* --- answers */

static void count(struct vbd_stats *stats, const struct slot *s)
{
	uint64_t took_ns = turn_ns(s->lane) - s->began_ns;

	switch (request_of(s)->op) {
	case RING_READ:
		stats->reads++;
		stats->bytes_read += range_length(s->range);
		stats->read_ns += took_ns;
		break;
	case RING_WRITE:
		stats->writes++;
		stats->bytes_written += range_length(s->range);
		stats->write_ns += took_ns;
		histogram_add(&stats->writes_us, took_ns / 1000);
		break;
	case RING_FLUSH:
		stats->flushes++;
		break;
	default:
		stats->discards++;
		break;
	}
}

static void answer(struct slot *s, enum ring_status status)
{
	struct lane *l = s->lane;

	if (status == RING_OKAY)
		count(l->spec.stats, s);
	else
		l->spec.stats->errors++;
	iobuf_return(take_ptr(&s->data));
	ring_answer(&l->ring, entry_of(s), status);
	l->is_unpublished = true;
	l->in_flight--;
	l->spec.stats->in_flight--;
}

static enum ring_status status_of(const struct slot *s, int err)
{
	if (!err)
		return RING_OKAY;
	/* Of a discard the guest then sends no more; of a flush it would lose what it is for. */
	return request_of(s)->op == RING_DISCARD && err == EOPNOTSUPP ? RING_NOT_SUPPORTED : RING_ERROR;
}

static void park(struct slot *s)
{
	struct lane *l = s->lane;

	TAILQ_INSERT_TAIL(&l->parked, s, link);
	l->parked_count++;
	if (!l->is_stopping)
		loop_timer_set(l->unpark, PARKED_MS);
}

static void on_done(struct req *r)
{
	struct slot *s = r->arg;
	int err = r->err;

	req_put(r);
	if (err == ESHUTDOWN)
		park(s);
	else if (!err && request_of(s)->op == RING_READ)
		TAILQ_INSERT_TAIL(&s->lane->reads, s, link);
	else
		answer(s, status_of(s, err));
}

static void submit(struct slot *s)
{
	static const enum req_op ops[] = { [RING_READ] = REQ_READ, [RING_WRITE] = REQ_WRITE, [RING_FLUSH] = REQ_FLUSH,
					   [RING_DISCARD] = REQ_TRIM };
	struct req *r = req_get();

	if (!r) {
		answer(s, RING_ERROR);
		return;
	}
	r->op = ops[request_of(s)->op];
	r->range = s->range;
	r->data = s->data;
	r->done = on_done;
	r->arg = s;
	layer_submit(s->lane->spec.top, r);
}

static void try_parked(void *arg)
{
	struct lane *l = arg;
	struct slot_list parked = TAILQ_HEAD_INITIALIZER(parked);
	struct slot *s;

	TAILQ_CONCAT(&parked, &l->parked, link);
	l->parked_count = 0;
	while ((s = TAILQ_FIRST(&parked))) {
		TAILQ_REMOVE(&parked, s, link);
		submit(s);
	}
}

/* --- the guest's memory */

static unsigned add_copies(const struct slot *s, struct xen_copy *copy)
{
	const struct ring_segment *segment = ring_segments(&s->lane->ring, entry_of(s));
	unsigned segments = request_of(s)->segments;
	uint8_t *memory = s->data->data;

	for (unsigned i = 0; i < segments; i++) {
		const struct ring_segment *g = &segment[i];
		uint16_t bytes = (uint16_t)((g->last - g->first + 1) * (int)RING_SECTOR_BYTES);

		copy[i] = (struct xen_copy){ .gref = g->gref, .offset = (uint16_t)(g->first * RING_SECTOR_BYTES), .bytes = bytes,
					     .memory = memory };
		memory += bytes;
	}
	return segments;
}

static bool has_failed(const struct xen_copy *copy, unsigned copies)
{
	while (copies--)
		if (copy[copies].has_failed)
			return true;
	return false;
}

static void copied(struct slot *s, bool is_to_guest, bool is_good)
{
	if (!is_good || is_to_guest)
		answer(s, is_good ? RING_OKAY : RING_ERROR);
	else
		submit(s);
}

/* One call for as many of the list as there is room for. */
static void copy_some(struct lane *l, struct slot_list *list, bool is_to_guest)
{
	struct slot_list batch = TAILQ_HEAD_INITIALIZER(batch);
	unsigned copies = 0;
	struct slot *s;

	while ((s = TAILQ_FIRST(list)) && copies + request_of(s)->segments <= COPIES_MAX) {
		TAILQ_REMOVE(list, s, link);
		TAILQ_INSERT_TAIL(&batch, s, link);
		copies += add_copies(s, &l->copy[copies]);
	}
	l->spec.ops->copy(l->spec.xen, is_to_guest, l->copy, copies);
	copies = 0;
	while ((s = TAILQ_FIRST(&batch))) {
		unsigned segments = request_of(s)->segments;

		TAILQ_REMOVE(&batch, s, link);
		copied(s, is_to_guest, !has_failed(&l->copy[copies], segments));
		copies += segments;
	}
}

static void copy_all(struct lane *l, struct slot_list *list, bool is_to_guest)
{
	while (!TAILQ_EMPTY(list))
		copy_some(l, list, is_to_guest);
}

/* --- requests */

static void complain(const struct lane *l, const struct ring_request *q)
{
	static struct log_limit limit = LOG_LIMIT(3);

	if (log_allowed(&limit))
		log_warn("%s: a request that cannot be: operation %u, %u segments, sector %llu", l->spec.name, q->op, q->segments,
			 (unsigned long long)q->sector);
}

static void refuse(struct slot *s, enum ring_status status)
{
	if (status == RING_ERROR)
		complain(s->lane, request_of(s));
	s->lane->bad++;
	answer(s, status);
}

/* False: it waits for a buffer. */
static bool go_with_buffer(struct slot *s)
{
	struct lane *l = s->lane;

	s->data = iobuf_get(l->spec.pool, range_length(s->range));
	if (!s->data && iobuf_pool_used(l->spec.pool) == 0) {
		answer(s, RING_ERROR);
		return true;
	}
	if (!s->data) {
		iobuf_wait(l->spec.pool, &l->waiter);
		return false;
	}
	if (request_of(s)->op == RING_WRITE)
		TAILQ_INSERT_TAIL(&l->writes, s, link);
	else
		submit(s);
	return true;
}

static void judge(struct slot *s)
{
	struct lane *l = s->lane;
	const struct geometry *g = &l->spec.top->geometry;
	const struct ring_terms terms = {
		.size_bytes = g->size_bytes,
		.is_read_only = l->spec.is_read_only || g->is_read_only,
		.can_discard = l->spec.can_discard,
	};
	enum ring_status status = ring_judge(&l->ring, entry_of(s), &terms, &s->range);

	if (status != RING_OKAY)
		refuse(s, status);
	else if (request_of(s)->op != RING_READ && request_of(s)->op != RING_WRITE)
		submit(s);
	else if (!TAILQ_EMPTY(&l->waiting) || !go_with_buffer(s))
		TAILQ_INSERT_TAIL(&l->waiting, s, link);
}

static void start(struct lane *l, int entry)
{
	struct slot *s = &l->slot[entry];
	struct ring_rest rest;

	s->lane = l;
	s->began_ns = turn_ns(l);
	l->in_flight++;
	l->spec.stats->in_flight++;
	if (ring_misses(&l->ring, entry, &rest))
		TAILQ_INSERT_TAIL(&l->incomplete, s, link);
	else
		judge(s);
}

/* One call for all of them, but for a successor who found more. */
static void complete_some(struct lane *l)
{
	struct slot_list batch = TAILQ_HEAD_INITIALIZER(batch);
	struct ring_rest rest;
	unsigned copies = 0;
	struct slot *s;

	while (copies < COPIES_MAX && (s = TAILQ_FIRST(&l->incomplete)) && ring_misses(&l->ring, entry_of(s), &rest)) {
		TAILQ_REMOVE(&l->incomplete, s, link);
		TAILQ_INSERT_TAIL(&batch, s, link);
		l->copy[copies++] = (struct xen_copy){ .gref = rest.gref, .bytes = rest.bytes, .memory = rest.memory };
	}
	l->spec.ops->copy(l->spec.xen, false, l->copy, copies);
	for (copies = 0; (s = TAILQ_FIRST(&batch)); copies++) {
		TAILQ_REMOVE(&batch, s, link);
		if (l->copy[copies].has_failed) {
			answer(s, RING_ERROR);
			continue;
		}
		ring_complete(&l->ring, entry_of(s));
		judge(s);
	}
}

/* All that was started is on its way, or waits. */
static void move_data(struct lane *l)
{
	while (!TAILQ_EMPTY(&l->incomplete))
		complete_some(l);
	copy_all(l, &l->writes, false);
}

static void go_on_waiting(struct lane *l)
{
	struct slot *s;

	while ((s = TAILQ_FIRST(&l->waiting))) {
		TAILQ_REMOVE(&l->waiting, s, link);
		if (go_with_buffer(s))
			continue;
		TAILQ_INSERT_HEAD(&l->waiting, s, link);
		return;
	}
}

static void complain_broken(struct lane *l)
{
	static struct log_limit limit = LOG_LIMIT(3);

	if (!l->was_broken && log_allowed(&limit))
		log_warn("%s: the ring's numbers make no sense: nothing is taken from it any more", l->spec.name);
	l->was_broken = true;
}

/* True: something was taken. */
static bool sweep(struct lane *l)
{
	unsigned taken = 0;
	int entry = RING_NONE;

	l->bad = 0;
	while (taken < SWEEP_MAX && l->bad < BAD_MAX && !l->is_stopping && TAILQ_EMPTY(&l->waiting)) {
		entry = ring_take(&l->ring);
		if (entry < 0)
			break;
		start(l, entry);
		taken++;
	}
	if (entry == RING_BROKEN)
		complain_broken(l);
	move_data(l);
	l->must_go_on = (entry >= 0 || l->bad >= BAD_MAX) && TAILQ_EMPTY(&l->waiting); /* it is not empty */
	if (taken)
		loop_expect_work(l->spec.loop);
	return taken > 0;
}

static void sweep_again(void *arg)
{
	sweep(arg);
}

static bool poll_ring(struct loop_poller *p)
{
	struct lane *l = container_of(p, struct lane, poller);

	return l->bad < BAD_MAX && TAILQ_EMPTY(&l->waiting) && ring_has_more(&l->ring) && sweep(l);
}

/* Until now the guest was not to notify us: an event costs it more than a request. */
static void arm(struct loop_poller *p)
{
	struct lane *l = container_of(p, struct lane, poller);

	if (l->bad < BAD_MAX && TAILQ_EMPTY(&l->waiting) && ring_arm(&l->ring))
		loop_timer_set(l->again, 0);
}

static void on_event(void *arg, int events UNUSED)
{
	struct lane *l = arg;

	if (!l->spec.ops->pending(l->spec.xen))
		return;
	l->spec.stats->events++;
	if (l->bad < BAD_MAX)
		sweep(l);
	l->spec.ops->unmask(l->spec.xen);
}

static void on_room(struct iobuf_waiter *w)
{
	struct lane *l = container_of(w, struct lane, waiter);

	loop_defer(l->spec.loop, &l->task);
}

static void on_task(struct loop_task *t)
{
	struct lane *l = container_of(t, struct lane, task);

	go_on_waiting(l);
	sweep(l);
}

/* --- the end of a turn */

static void announce_end(struct loop_task *t)
{
	struct lane *l = container_of(t, struct lane, done_task);
	void (*done)(void *arg) = take_ptr(&l->done);

	if (done)
		done(l->done_arg);
}

static void look_for_end(struct lane *l)
{
	if (l->done && l->in_flight == l->parked_count && !l->is_unpublished)
		loop_defer(l->spec.loop, &l->done_task);
}

static void settle(struct loop_hook *h)
{
	struct lane *l = container_of(h, struct lane, hook);

	copy_all(l, &l->reads, true);
	if (l->must_go_on && !l->is_stopping) /* here, for what a timer sets to 0 may be run before all else: libuv before 1.45 */
		loop_timer_set(l->again, l->bad >= BAD_MAX ? BAD_REST_MS : 0);
	l->must_go_on = false;
	if (l->is_unpublished) {
		l->is_unpublished = false;
		if (ring_publish(&l->ring)) {
			l->spec.stats->notifications++;
			l->spec.ops->notify(l->spec.xen);
		}
	}
	l->turn_ns = 0;
	look_for_end(l);
}

/* --- its life */

static void begin(struct lane *l)
{
	unsigned at = 0;
	int entry;

	while ((entry = ring_next_left(&l->ring, &at)) >= 0) {
		l->spec.stats->left++;
		start(l, entry);
	}
	ring_publish(&l->ring);
	l->spec.ops->notify(l->spec.xen); /* whoever served it before may have died before he did */
	sweep(l);
}

static int fill(struct lane *l, struct error *e)
{
	l->again = loop_timer_new(l->spec.loop, sweep_again, l);
	l->unpark = loop_timer_new(l->spec.loop, try_parked, l);
	l->watch = loop_watch_new(l->spec.loop, l->spec.ops->fd(l->spec.xen), LOOP_IN, on_event, l);
	if (!l->again || !l->unpark || !l->watch)
		return error_set(e, ENOMEM, "out of memory");
	if (!ring_open(&l->ring, l->spec.shared, l->spec.ring->order, l->spec.ring->abi, l->spec.book, l->spec.identity))
		return error_set(e, EPROTO, "the ring contradicts what was answered over it");
	return 0;
}

struct lane *lane_new(const struct lane_spec *spec, struct error *e)
{
	struct lane *l = calloc(1, sizeof(*l));

	if (!l) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	l->spec = *spec;
	TAILQ_INIT(&l->incomplete);
	TAILQ_INIT(&l->waiting);
	TAILQ_INIT(&l->writes);
	TAILQ_INIT(&l->reads);
	TAILQ_INIT(&l->parked);
	l->waiter.on_room = on_room;
	l->hook.run = settle;
	l->poller.poll = poll_ring;
	l->poller.sleep = arm;
	l->task.run = on_task;
	l->done_task.run = announce_end;
	if (fill(l, e) == -1) {
		loop_watch_free(l->watch);
		loop_timer_free(l->again);
		loop_timer_free(l->unpark);
		free(l);
		return NULL;
	}
	loop_hook_add(spec->loop, &l->hook);
	loop_poller_add(spec->loop, &l->poller);
	begin(l);
	return l;
}

void lane_stop(struct lane *l, void (*done)(void *arg), void *arg)
{
	assert(!l->is_stopping);
	l->is_stopping = true;
	l->done = done;
	l->done_arg = arg;
	loop_poller_remove(l->spec.loop, &l->poller);
	loop_watch_free(take_ptr(&l->watch));
	loop_timer_clear(l->again);
	loop_timer_clear(l->unpark);
	look_for_end(l);
}

void lane_free(struct lane *l)
{
	struct slot *s;

	assert(l->is_stopping && l->in_flight == l->parked_count && !l->is_unpublished);
	while ((s = TAILQ_FIRST(&l->parked))) {
		TAILQ_REMOVE(&l->parked, s, link);
		iobuf_return(take_ptr(&s->data));
	}
	l->spec.stats->in_flight -= l->parked_count;
	iobuf_wait_cancel(l->spec.pool, &l->waiter);
	loop_defer_cancel(l->spec.loop, &l->task);
	loop_hook_remove(l->spec.loop, &l->hook);
	loop_timer_free(l->again);
	loop_timer_free(l->unpark);
	free(l);
}
