/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xenbus-rig - see xenbus-rig.h
 */
#include "tests/unit/xenbus-rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


struct xenbus x;
struct xenbus_names names;
struct xenbus_value store[XENBUS_KEYS];
struct xenbus_action pending; /* begun, and not ended */
bool is_bound, was_again;
unsigned connects, disconnects, reads, writes, errors;
struct xenbus_ring bound;
uint64_t now_ms;

void put(unsigned key, const char *value)
{
	store[key] = (struct xenbus_value){ .is_there = value != NULL };
	if (value)
		snprintf(store[key].value, sizeof(store[key].value), "%.63s", value);
}

void put_number(unsigned key, unsigned value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	put(key, text);
}

unsigned state(unsigned key)
{
	return xenbus_state_of(&store[key]);
}

void changed(void)
{
	xenbus_changed(&x);
}

void front(unsigned value)
{
	put_number(XENBUS_F_STATE, value);
	changed();
}

void new_ring(unsigned gref)
{
	put(XENBUS_F_ORDER, NULL);
	put_number(XENBUS_F_REF, gref);
	put_number(XENBUS_F_CHANNEL, gref + 100);
	put(XENBUS_F_PROTOCOL, "x86_64-abi");
}

void plug(void)
{
	put(XENBUS_B_FRONTEND, names.frontend);
	put_number(XENBUS_B_FRONTEND_ID, names.domain);
	put(XENBUS_B_STATE, "1");
	put(XENBUS_B_ONLINE, "1");
	put(XENBUS_B_MODE, "w");
	put(XENBUS_F_STATE, "1");
	changed();
}

void begin(bool is_eager)
{
	memset(store, 0, sizeof(store));
	memset(&pending, 0, sizeof(pending));
	is_bound = was_again = false;
	connects = disconnects = reads = writes = errors = 0;
	now_ms = 1000000;
	assert_int_equal(xenbus_parse_backend(&names, "/local/domain/0/backend/qdisk/5/51712", NULL), 0);
	xenbus_init(&x, is_eager);
	x.sectors = 2048;
}

/* --- whoever does what is said */

static int write_it(const struct xenbus_action *a)
{
	if (!store[XENBUS_B_FRONTEND].is_there)
		return ENOENT;
	if (state(XENBUS_B_STATE) != a->expected)
		return EAGAIN;
	put_number(XENBUS_B_STATE, a->state);
	if (a->says & XENBUS_SAY_DISK)
		put_number(XENBUS_B_SECTORS, (unsigned)x.sectors);
	if (a->says & XENBUS_FORGET_HOTPLUG)
		put(XENBUS_B_HOTPLUG, NULL);
	if (a->says & XENBUS_SAY_ERROR) {
		assert_true(a->why && *a->why);
		errors++;
	}
	writes++;
	changed(); /* our own watch */
	return 0;
}

static int connect_it(const struct xenbus_action *a)
{
	assert_false(is_bound);
	assert_true(a->ring.order <= RING_ORDER_MAX);
	connects++;
	was_again = a->is_again;
	if (a->ring.gref[0] >= 1000)
		return EINVAL; /* no such grant */
	is_bound = true;
	bound = a->ring;
	return 0;
}

void end_pending(void)
{
	struct xenbus_action a = pending;

	pending.what = XENBUS_NOTHING;
	switch (a.what) {
	case XENBUS_READ:
		reads++;
		xenbus_read_is(&x, &names, store);
		break;
	case XENBUS_WRITE:
		xenbus_ended(&x, write_it(&a), NULL, now_ms);
		break;
	case XENBUS_CONNECT: {
		int err = connect_it(&a);

		xenbus_ended(&x, err, err ? "the page is not granted" : NULL, now_ms);
		break;
	}
	case XENBUS_DISCONNECT:
		assert_true(is_bound);
		is_bound = false;
		disconnects++;
		xenbus_ended(&x, 0, NULL, now_ms);
		break;
	default:
		break;
	}
}

/* One half of a step; true: there was one. */
bool turn(void)
{
	if (pending.what != XENBUS_NOTHING) {
		assert_int_equal(xenbus_next(&x, now_ms).what, XENBUS_NOTHING); /* one thing at a time */
		end_pending();
		return true;
	}
	pending = xenbus_next(&x, now_ms);
	if (pending.what == XENBUS_SLEEP) {
		assert_true(pending.ms > 0 && pending.ms <= 1000);
		pending.what = XENBUS_NOTHING;
		return false;
	}
	return pending.what != XENBUS_NOTHING && pending.what != XENBUS_OVER;
}

void settle(void)
{
	for (unsigned i = 0; i < 2000; i++)
		if (!turn()) {
			if (!x.is_dirty || x.is_leaving)
				return;
			now_ms += 100;
		}
	fail_msg("it never rests");
}

void offer(unsigned gref)
{
	begin(true);
	plug();
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 2);
	new_ring(gref);
	front(3);
	settle();
}

void connect_all(void)
{
	offer(8);
	assert_int_equal(state(XENBUS_B_STATE), 4);
	assert_true(is_bound);
	front(4);
	settle();
}
