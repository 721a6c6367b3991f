/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xenbus - see xenbus.h
 *
 *                     | frontend: none   1 new      3 ring is there   4 at work        5 closing   6 closed
 *      ---------------+----------------------------------------------------------------------------------------
 *      we: 1 new      |           -      offer: 2   offer: 2          offer: 2         5           6
 *      2 offered      |           6 *    -          connect, 4        connect, 4       5           6
 *      4 connected    |           6 *    offer: 2   if new: connect   serve            5           6
 *      5 closing      |           6 *    6, or 2    serve             serve            -           6
 *      6 closed       |           - *    6, or 2    -                 -                -           -
 *
 * Where this table does not say connect, serve or "-" in our 2, a ring that is connected is let go of first.  * the toolstack
 * waits for hotplug-status to go.  5 and 6 are written by the toolstack, too; 2 is offered only while it says online, and, unless
 * eager, when the hotplug script was through.
 *
 * One step at a time: what is read decides on one step; when that was done it is read again.  So a state that was overtaken is
 * never acted upon twice, and whatever somebody else wrote meanwhile is seen: a WRITE is made only over the state it was
 * decided by.
 * Can fail: what the frontend offers.  It is told why, closed, and not looked at again before it begins anew.
 * Never happens: more than READS_PER_WINDOW questions a second, whatever a guest writes how often.
 */
#include "vbd/xenbus.h"

#include <errno.h>
#include <string.h>

#include "vbd/xenbus-keys.h"

#define WINDOW_MS 1000u
#define READS_PER_WINDOW 32u
#define RETRY_MS 1000u

/* What was read. */
struct view {
	const struct xenbus_value *value;
	enum xenbus_state back, front;
	bool is_online, is_front_there, may_offer;
};

void xenbus_init(struct xenbus *x, bool is_eager)
{
	memset(x, 0, sizeof(*x));
	x->is_eager = is_eager;
	x->is_new = true;
	x->is_dirty = true;
}

void xenbus_changed(struct xenbus *x)
{
	x->is_dirty = true;
}

void xenbus_leave(struct xenbus *x)
{
	x->is_leaving = true;
}

/* --- what is to be done */

static struct xenbus_action nothing(void)
{
	return (struct xenbus_action){ .what = XENBUS_NOTHING };
}

static struct xenbus_action disconnect(void)
{
	return (struct xenbus_action){ .what = XENBUS_DISCONNECT };
}

static struct xenbus_action say(const struct view *w, enum xenbus_state state, unsigned says)
{
	says |= XENBUS_SAY_STATE;
	return (struct xenbus_action){ .what = XENBUS_WRITE, .says = says, .state = state, .expected = w->back };
}

static struct xenbus_action offer(const struct view *w)
{
	return w->may_offer ? say(w, XENBUS_INIT_WAIT, XENBUS_SAY_FEATURES) : nothing();
}

/* Without a ring any more: whoever waits for the device's end hears of it. */
static struct xenbus_action close_for_missing(const struct view *w)
{
	bool has_hotplug = !w->is_front_there && w->value[XENBUS_B_HOTPLUG].is_there;

	if (!w->value[XENBUS_B_STATE].is_there || (w->back == XENBUS_INITIALISING && w->is_online))
		return nothing(); /* it is being made; not all toolstacks write all of it at once */
	if (w->back == XENBUS_CLOSED && !has_hotplug)
		return nothing();
	return say(w, XENBUS_CLOSED, has_hotplug ? XENBUS_FORGET_HOTPLUG : 0);
}

static struct xenbus_action refuse(struct xenbus *x, const struct view *w)
{
	struct xenbus_action a;

	if (w->back == XENBUS_CLOSED)
		return nothing();
	if (!x->must_say_why)
		return say(w, XENBUS_CLOSED, 0);
	a = say(w, XENBUS_CLOSING, XENBUS_SAY_ERROR);
	a.why = x->why.text;
	return a;
}

static void fail(struct xenbus *x, int err, const char *why)
{
	x->has_failed = x->must_say_why = true;
	error_set(&x->why, err, "%s", why);
}

static struct xenbus_action connect_ring(struct xenbus *x, const struct view *w)
{
	struct xenbus_action a = { .what = XENBUS_CONNECT };
	struct error why = { 0 };

	if (xenbus_read_ring(&a.ring, w->value, &why) == -1) {
		fail(x, EINVAL, why.text);
		return refuse(x, w);
	}
	a.is_again = x->is_new && w->front == XENBUS_CONNECTED && w->back != XENBUS_INIT_WAIT;
	return a;
}

/* Its 3 may have been overtaken by its 4 before anybody read it. */
static bool is_another_ring(const struct xenbus *x, const struct view *w)
{
	bool is_negotiating = w->front == XENBUS_INITIALISED;
	struct xenbus_ring ring;
	struct error why = { 0 };

	if (xenbus_read_ring(&ring, w->value, &why) == -1)
		return is_negotiating;
	return (is_negotiating && x->was_up) || memcmp(&ring, &x->ring, sizeof(ring)) != 0;
}

/* The frontend is at 3 or 4, and there is a ring. */
static struct xenbus_action go_on(struct xenbus *x, const struct view *w)
{
	uint32_t sectors = 0;

	if (w->back == XENBUS_CLOSED || is_another_ring(x, w))
		return disconnect();
	if (w->front == XENBUS_CONNECTED)
		x->was_up = true;
	if (w->back == XENBUS_CLOSING)
		return nothing(); /* the frontend decides when */
	if (w->back != XENBUS_CONNECTED)
		return say(w, XENBUS_CONNECTED, XENBUS_SAY_DISK);
	if (x->said_sectors != x->sectors && (!xenbus_number(&w->value[XENBUS_B_SECTORS], &sectors) || sectors != x->sectors))
		return say(w, XENBUS_CONNECTED, XENBUS_SAY_DISK);
	return nothing();
}

static struct xenbus_action meet(struct xenbus *x, const struct view *w)
{
	if (x->has_failed)
		return refuse(x, w);
	switch (w->back) {
	case XENBUS_INIT_WAIT:
	case XENBUS_CONNECTED:
		return connect_ring(x, w);
	case XENBUS_CLOSING: /* under an earlier process: until the frontend has closed it is served */
		return x->is_new && w->front == XENBUS_CONNECTED ? connect_ring(x, w) : nothing();
	case XENBUS_CLOSED:
		return nothing();
	default:
		return offer(w);
	}
}

static struct xenbus_action decide(struct xenbus *x, const struct view *w)
{
	bool is_at_work = w->front == XENBUS_INITIALISED || w->front == XENBUS_CONNECTED;
	bool is_odd = w->front == XENBUS_INIT_WAIT || w->front > XENBUS_CLOSED;

	if (is_at_work)
		return x->is_bound ? go_on(x, w) : meet(x, w);
	if (is_odd)
		return x->is_bound || w->back != XENBUS_INITIALISING ? nothing() : offer(w);
	if (x->is_bound)
		return disconnect();
	switch (w->front) {
	case XENBUS_INITIALISING:
		x->has_failed = false;
		if (!w->is_online)
			return w->back == XENBUS_CLOSED ? nothing() : say(w, XENBUS_CLOSED, 0);
		return w->back == XENBUS_INIT_WAIT && x->has_offered ? nothing() : offer(w);
	case XENBUS_CLOSING:
		return w->back == XENBUS_CLOSING || w->back == XENBUS_CLOSED ? nothing() : say(w, XENBUS_CLOSING, 0);
	case XENBUS_CLOSED:
		return w->back == XENBUS_CLOSED ? nothing() : say(w, XENBUS_CLOSED, 0);
	default:
		return close_for_missing(w);
	}
}

void xenbus_read_is(struct xenbus *x, const struct xenbus_names *n, const struct xenbus_value *value)
{
	uint32_t online = 0;
	struct view w = {
		.value = value,
		.back = xenbus_state_of(&value[XENBUS_B_STATE]),
		.front = xenbus_state_of(&value[XENBUS_F_STATE]),
		.is_front_there = value[XENBUS_F_STATE].is_there,
	};

	assert(x->is_busy && x->doing.what == XENBUS_READ);
	x->is_busy = false;
	if (!xenbus_is_ours(n, value)) { /* it is gone, or not there yet: nothing is written that would make it anew */
		x->has_offered = x->has_failed = false;
		x->next = x->is_bound ? disconnect() : nothing();
		return;
	}
	w.is_online = xenbus_number(&value[XENBUS_B_ONLINE], &online) && online == 1;
	w.may_offer = w.is_online && (x->is_eager || xenbus_is(&value[XENBUS_B_HOTPLUG], "connected"));
	x->is_read_only = !xenbus_is(&value[XENBUS_B_MODE], "w");
	x->may_discard = !xenbus_is(&value[XENBUS_B_DISCARD], "0");
	x->next = decide(x, &w);
}

void xenbus_not_read(struct xenbus *x, uint64_t now_ms)
{
	assert(x->is_busy && x->doing.what == XENBUS_READ);
	x->is_busy = false;
	x->is_dirty = true;
	x->retry_ms = now_ms + RETRY_MS;
}

/* --- one thing at a time */

static bool may_read(struct xenbus *x, uint64_t now_ms)
{
	if (now_ms - x->window_ms >= WINDOW_MS) {
		x->window_ms = now_ms;
		x->reads = 0;
	}
	if (x->reads == READS_PER_WINDOW)
		return false;
	x->reads++;
	return true;
}

static struct xenbus_action choose(struct xenbus *x, uint64_t now_ms)
{
	struct xenbus_action a = x->next;

	x->next = nothing();
	if (x->is_leaving)
		return x->is_bound ? disconnect() : (struct xenbus_action){ .what = XENBUS_OVER };
	if (a.what != XENBUS_NOTHING || !x->is_dirty)
		return a;
	if (now_ms < x->retry_ms)
		return (struct xenbus_action){ .what = XENBUS_SLEEP, .ms = (unsigned)(x->retry_ms - now_ms) };
	if (!may_read(x, now_ms))
		return (struct xenbus_action){ .what = XENBUS_SLEEP, .ms = (unsigned)(x->window_ms + WINDOW_MS - now_ms) };
	x->is_dirty = false;
	return (struct xenbus_action){ .what = XENBUS_READ };
}

struct xenbus_action xenbus_next(struct xenbus *x, uint64_t now_ms)
{
	struct xenbus_action a;

	if (x->is_busy)
		return nothing();
	a = choose(x, now_ms);
	x->doing = a;
	x->is_busy = a.what == XENBUS_READ || a.what == XENBUS_WRITE || a.what == XENBUS_CONNECT || a.what == XENBUS_DISCONNECT;
	return a;
}

static void written(struct xenbus *x, int err, uint64_t now_ms)
{
	const struct xenbus_action *a = &x->doing;

	if (err && err != EAGAIN && err != ENOENT)
		x->retry_ms = now_ms + RETRY_MS; /* a quota, no memory: it may pass */
	if (err)
		return;
	if (a->state == XENBUS_INIT_WAIT)
		x->has_offered = true;
	if (a->says & XENBUS_SAY_DISK)
		x->said_sectors = x->sectors;
	if (a->says & XENBUS_SAY_ERROR)
		x->must_say_why = false;
}

void xenbus_ended(struct xenbus *x, int err, const char *why, uint64_t now_ms)
{
	assert(x->is_busy && x->doing.what != XENBUS_READ);
	x->is_busy = false;
	x->is_dirty = true;
	switch (x->doing.what) {
	case XENBUS_CONNECT:
		x->is_new = false;
		x->is_bound = err == 0;
		x->was_up = false;
		x->ring = x->doing.ring;
		if (err)
			fail(x, err, why);
		break;
	case XENBUS_DISCONNECT:
		x->is_bound = false;
		break;
	default:
		written(x, err, now_ms);
		break;
	}
}
