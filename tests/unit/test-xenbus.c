/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The backend's side of the xenbus handshake against a toolstack and a frontend that do what they should: each way a device comes,
 * goes, and comes again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/xenbus-rig.h"

static void a_frontend_is_met_and_served(void **s)
{
	(void)s;
	connect_all();
	assert_int_equal(connects, 1);
	assert_int_equal(bound.gref[0], 8);
	assert_int_equal(bound.channel, 108);
	assert_int_equal(atoi(store[XENBUS_B_SECTORS].value), 2048);
	assert_int_equal(writes, 2);
}

static void nothing_is_offered_before_the_hotplug_script_is_through(void **s)
{
	(void)s;
	begin(false);
	plug();
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 1);
	put(XENBUS_B_HOTPLUG, "error");
	changed();
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 1);
	put(XENBUS_B_HOTPLUG, "connected");
	changed();
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 2);
}

/* What only the broker and the verbs understand is theirs to judge; an NBD URI, or a volume's, is this disk's or another's. */
static void a_directory_whose_params_name_another_disk_is_not_served(void **s)
{
	(void)s;
	begin(true);
	strcpy(names.params, "nbd:unix:/run/sxm/a/nbd-00000001:exportname=a");
	put(XENBUS_B_PARAMS, "nbd:unix:/run/sxm/b/nbd-00000001:exportname=b");
	plug();
	settle();
	assert_int_equal(writes, 0);
	put(XENBUS_B_PARAMS, names.params);
	new_ring(8);
	front(3);
	settle();
	assert_true(is_bound && state(XENBUS_B_STATE) == 4);
	writes = 0;
	put(XENBUS_B_PARAMS, "nbd:unix:/run/sxm/a/nbd-00000001:exportname=aa");
	front(4);
	settle();
	assert_false(is_bound);
	assert_int_equal(writes, 0);
	put(XENBUS_B_PARAMS, names.params);
	changed();
	settle();
	assert_true(is_bound && !was_again); /* this process has let go of it, and knows that nothing was left */
	store[XENBUS_B_PARAMS] = (struct xenbus_value){ .is_there = true, .is_long = true };
	assert_false(xenbus_is_this_disk(&names, store));
}

static bool is_this_disk(const char *params)
{
	put(XENBUS_B_PARAMS, params);
	return xenbus_is_this_disk(&names, store);
}

static void a_directory_whose_params_name_another_volume_is_not_served(void **s)
{
	(void)s;
	begin(true);
	strcpy(names.params, "nbd:unix:/run/sxm/a/nbd-00000001:exportname=a");
	put(XENBUS_B_PARAMS, "sxm:///sr/a.raw");
	assert_string_equal(xenbus_volume(store), "sxm:///sr/a.raw");
	plug();
	settle();
	assert_int_equal(writes, 0);
	strcpy(names.volume, "sxm:///sr/a.raw");
	changed();
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 2);
	assert_true(is_this_disk("aio:sxm:///sr/a.raw") && is_this_disk("qcow2:sxm:///sr/a.raw") && is_this_disk(":sxm:///sr/a.raw"));
	assert_false(is_this_disk("aio:sxm:///sr/b.raw") || is_this_disk("sxm:///sr/a.raw.raw") || is_this_disk("SXM:///sr/b.raw"));
	assert_false(is_this_disk("sxm:") || is_this_disk("sxm:sxm:///sr/a.raw"));
	assert_true(is_this_disk("/dev/sda") && is_this_disk("--help:sxm:///sr/b.raw") && is_this_disk("") && is_this_disk(NULL));
	assert_null(xenbus_volume(store));
	*names.params = '\0'; /* nobody has said which disk this is */
	assert_true(is_this_disk("sxm:///sr/b.raw"));
}

static void nothing_is_written_before_there_is_a_directory_or_after(void **s)
{
	(void)s;
	begin(true);
	settle();
	assert_int_equal(writes, 0);
	connect_all();
	memset(store, 0, sizeof(store));
	changed();
	writes = 0;
	settle();
	assert_false(is_bound);
	assert_int_equal(writes, 0);
	assert_false(store[XENBUS_B_STATE].is_there);
	plug(); /* another one, of that name */
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 2);
}

static void a_directory_that_is_being_made_is_waited_for(void **s)
{
	(void)s;
	begin(true);
	plug();
	put(XENBUS_F_STATE, NULL);
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 1);
	front(1);
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 2);
}

/* A toolstack that writes a key after the other, its state and the frontend last. */
static void a_device_that_is_not_all_there_yet_is_let_alone(void **s)
{
	(void)s;
	begin(true);
	put(XENBUS_B_FRONTEND, names.frontend);
	put_number(XENBUS_B_FRONTEND_ID, names.domain);
	changed();
	settle();
	put(XENBUS_B_ONLINE, "1");
	changed();
	settle();
	assert_int_equal(writes, 0);
	plug();
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 2);
	assert_int_equal(writes, 1);
}

/* ... and one that is at its end before it began: whoever waits for that hears of it. */
static void a_device_that_is_taken_away_before_its_guest_came_is_closed(void **s)
{
	(void)s;
	begin(true);
	plug();
	put(XENBUS_B_ONLINE, "0");
	put(XENBUS_B_HOTPLUG, "connected");
	put(XENBUS_F_STATE, "rubbish"); /* it is there */
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 6);
	assert_true(store[XENBUS_B_HOTPLUG].is_there);
	front(6);
	put(XENBUS_F_STATE, NULL);
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 6);
	assert_false(store[XENBUS_B_HOTPLUG].is_there);
}

/* The toolstack's words: "w" alone is for writing, and 0 alone takes discards away. */
static void what_the_toolstack_permits_is_read_as_it_says_it(void **s)
{
	static const char *const modes[] = { "r", "rw", "W", "", NULL };

	(void)s;
	connect_all();
	assert_true(!x.is_read_only && x.may_discard);
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		put(XENBUS_B_MODE, modes[i]);
		changed();
		settle();
		assert_true(x.is_read_only);
	}
	put(XENBUS_B_DISCARD, "0");
	changed();
	settle();
	assert_false(x.may_discard);
	put(XENBUS_B_DISCARD, "1");
	changed();
	settle();
	assert_true(x.may_discard);
}

static void a_device_of_the_same_name_has_a_past_of_its_own(void **s)
{
	(void)s;
	offer(5000);
	assert_int_equal(errors, 1);
	memset(store, 0, sizeof(store));
	changed();
	settle();
	plug();
	new_ring(8);
	front(3); /* before anybody looked */
	settle();
	assert_true(is_bound && state(XENBUS_B_STATE) == 4);
}

static void a_guest_reboots(void **s)
{
	(void)s;
	connect_all();
	front(5);
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 5);
	assert_false(is_bound);
	front(6);
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 6);
	front(1);
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 2);
	new_ring(20);
	front(3);
	settle();
	front(4);
	settle();
	assert_true(is_bound && bound.gref[0] == 20 && !was_again);
}

/* kexec, a crash kernel: it begins anew and has not closed. */
static void a_frontend_begins_anew_under_a_ring_that_is_connected(void **s)
{
	(void)s;
	connect_all();
	front(1);
	settle();
	assert_false(is_bound);
	assert_int_equal(state(XENBUS_B_STATE), 2);
	new_ring(8); /* the same numbers, and another ring all the same */
	front(3);
	settle();
	assert_int_equal(connects, 2);
	assert_int_equal(state(XENBUS_B_STATE), 4);
}

static void a_frontend_resumes_in_place_with_a_new_ring(void **s)
{
	(void)s;
	connect_all();
	new_ring(30);
	front(3);
	settle();
	assert_int_equal(disconnects, 1);
	assert_int_equal(connects, 2);
	assert_int_equal(bound.gref[0], 30);
	front(4);
	settle();
	front(3); /* numbers as before: it can only be a new one */
	settle();
	assert_int_equal(connects, 3);
	front(4);
	settle();
	new_ring(40);
	front(3);
	front(4); /* before we looked */
	settle();
	assert_int_equal(connects, 4);
	assert_int_equal(bound.gref[0], 40);
}

static void a_late_event_of_state_3_connects_nothing_twice(void **s)
{
	(void)s;
	begin(true);
	plug();
	settle();
	new_ring(8);
	front(3);
	settle();
	for (unsigned i = 0; i < 5; i++) {
		changed();
		settle();
	}
	assert_int_equal(connects, 1);
	assert_int_equal(disconnects, 0);
}

static void the_toolstack_asks_to_close_and_the_guest_decides_when(void **s)
{
	(void)s;
	connect_all();
	put(XENBUS_B_ONLINE, "0");
	put(XENBUS_B_STATE, "5");
	changed();
	settle();
	assert_true(is_bound); /* it flushes over it */
	front(6);
	settle();
	assert_false(is_bound);
	assert_int_equal(state(XENBUS_B_STATE), 6);
	front(1); /* and it is not offered again */
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 6);
}

static void a_device_that_never_was_used_closes_at_once(void **s)
{
	(void)s;
	begin(true);
	plug();
	settle();
	put(XENBUS_B_ONLINE, "0");
	put(XENBUS_B_STATE, "5");
	changed();
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 6);
}

static void a_forced_removal_drains_closes_and_forgets_hotplug_status(void **s)
{
	(void)s;
	begin(false);
	plug();
	put(XENBUS_B_HOTPLUG, "connected");
	settle();
	new_ring(8);
	front(3);
	settle();
	front(4);
	settle();
	put(XENBUS_B_ONLINE, "0");
	for (unsigned i = XENBUS_F_STATE; i < XENBUS_KEYS; i++)
		put(i, NULL);
	changed();
	settle();
	assert_false(is_bound);
	assert_int_equal(state(XENBUS_B_STATE), 6);
	assert_false(store[XENBUS_B_HOTPLUG].is_there);
	assert_int_equal(writes, 3);
}

static void a_toolstack_that_writes_closed_itself_gets_the_ring_back(void **s)
{
	(void)s;
	connect_all();
	put(XENBUS_B_STATE, "6");
	changed();
	settle();
	assert_false(is_bound);
	assert_int_equal(state(XENBUS_B_STATE), 6);
}

static void a_disk_that_grew_is_said_to_a_guest_that_is_connected(void **s)
{
	(void)s;
	connect_all();
	writes = 0;
	x.sectors = 4096;
	changed();
	settle();
	assert_int_equal(atoi(store[XENBUS_B_SECTORS].value), 4096);
	assert_int_equal(state(XENBUS_B_STATE), 4);
	assert_int_equal(writes, 1);
	assert_true(is_bound && connects == 1);
	put(XENBUS_B_SECTORS, "77"); /* what others write there is not fought over */
	changed();
	settle();
	assert_int_equal(writes, 1);
}

static void who_leaves_lets_go_of_the_ring_and_writes_nothing(void **s)
{
	struct xenbus_action a;

	(void)s;
	connect_all();
	writes = 0;
	xenbus_leave(&x);
	settle();
	assert_false(is_bound);
	assert_int_equal(writes, 0);
	assert_int_equal(state(XENBUS_B_STATE), 4);
	a = xenbus_next(&x, now_ms);
	assert_int_equal(a.what, XENBUS_OVER);
}

/* Before, between and after any two halves of any step. */
static void who_leaves_at_any_time_is_over_soon(void **s)
{
	(void)s;
	for (unsigned at = 0; at < 40; at++) {
		begin(true);
		plug();
		for (unsigned i = 0; i < at; i++) {
			if (!turn()) {
				new_ring(8);
				front(state(XENBUS_B_STATE) == 2 ? 3 : state(XENBUS_B_STATE) == 4 ? 4 : 1);
			}
		}
		xenbus_leave(&x);
		for (unsigned i = 0; i < 4 && pending.what != XENBUS_OVER; i++)
			turn();
		assert_int_equal(pending.what, XENBUS_OVER);
		assert_false(is_bound);
	}
}

static void a_successor_takes_the_ring_of_a_guest_that_is_at_work(void **s)
{
	unsigned i;

	(void)s;
	connect_all();
	xenbus_init(&x, true);
	x.sectors = 2048;
	is_bound = false;
	pending.what = XENBUS_NOTHING;
	writes = 0;
	settle();
	assert_true(is_bound && was_again);
	assert_int_equal(state(XENBUS_B_STATE), 4);
	assert_int_equal(writes, 0);
	assert_int_equal(bound.gref[0], 8);
	/* ... and of one that is just being asked to close. */
	put(XENBUS_B_ONLINE, "0");
	put(XENBUS_B_STATE, "5");
	xenbus_init(&x, true);
	is_bound = false;
	settle();
	assert_true(is_bound && was_again);
	assert_int_equal(state(XENBUS_B_STATE), 5);
	/* ... but not of one that negotiates it just now. */
	put(XENBUS_F_STATE, "3");
	xenbus_init(&x, true);
	is_bound = false;
	settle();
	assert_true(!is_bound && state(XENBUS_B_STATE) == 5);
	put(XENBUS_B_ONLINE, "1");
	for (i = 2; i <= 4; i++) {
		put_number(XENBUS_B_STATE, i & 6);
		put_number(XENBUS_F_STATE, i == 3 ? 4 : 3); /* over a ring that nobody has served yet */
		xenbus_init(&x, true);
		is_bound = false;
		settle();
		assert_true(is_bound && !was_again);
		assert_int_equal(state(XENBUS_B_STATE), 4);
	}
}

static void a_backend_that_comes_late_serves_a_frontend_that_waits(void **s)
{
	(void)s;
	begin(true);
	plug();
	put(XENBUS_B_STATE, "2"); /* an earlier process' */
	new_ring(8);
	put(XENBUS_F_STATE, "3");
	settle();
	assert_true(is_bound && !was_again);
	assert_int_equal(state(XENBUS_B_STATE), 4);
	/* What an earlier process has offered it says anew: it may know other things. */
	begin(true);
	plug();
	put(XENBUS_B_STATE, "2");
	settle();
	assert_int_equal(writes, 1);
}

static void a_write_that_fails_for_want_of_memory_is_tried_again_a_second_later(void **s)
{
	struct xenbus_action a;

	(void)s;
	begin(true);
	plug();
	assert_int_equal(xenbus_next(&x, now_ms).what, XENBUS_READ);
	xenbus_read_is(&x, &names, store);
	a = xenbus_next(&x, now_ms);
	assert_int_equal(a.what, XENBUS_WRITE);
	xenbus_ended(&x, ENOSPC, NULL, now_ms);
	a = xenbus_next(&x, now_ms);
	assert_int_equal(a.what, XENBUS_SLEEP);
	assert_int_equal(a.ms, 1000);
	now_ms += 1000;
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 2);
}

static void what_was_read_is_not_written_over_what_came_since(void **s)
{
	(void)s;
	begin(true);
	plug();
	turn(), turn(), turn(); /* read, and the write of 2 has begun */
	put(XENBUS_B_ONLINE, "0");
	put(XENBUS_B_STATE, "5"); /* before it is made */
	changed();
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frontend_is_met_and_served),
		cmocka_unit_test(nothing_is_offered_before_the_hotplug_script_is_through),
		cmocka_unit_test(a_directory_whose_params_name_another_disk_is_not_served),
		cmocka_unit_test(a_directory_whose_params_name_another_volume_is_not_served),
		cmocka_unit_test(nothing_is_written_before_there_is_a_directory_or_after),
		cmocka_unit_test(a_directory_that_is_being_made_is_waited_for),
		cmocka_unit_test(a_device_that_is_not_all_there_yet_is_let_alone),
		cmocka_unit_test(a_device_that_is_taken_away_before_its_guest_came_is_closed),
		cmocka_unit_test(what_the_toolstack_permits_is_read_as_it_says_it),
		cmocka_unit_test(a_device_of_the_same_name_has_a_past_of_its_own),
		cmocka_unit_test(a_guest_reboots),
		cmocka_unit_test(a_frontend_begins_anew_under_a_ring_that_is_connected),
		cmocka_unit_test(a_frontend_resumes_in_place_with_a_new_ring),
		cmocka_unit_test(a_late_event_of_state_3_connects_nothing_twice),
		cmocka_unit_test(the_toolstack_asks_to_close_and_the_guest_decides_when),
		cmocka_unit_test(a_device_that_never_was_used_closes_at_once),
		cmocka_unit_test(a_forced_removal_drains_closes_and_forgets_hotplug_status),
		cmocka_unit_test(a_toolstack_that_writes_closed_itself_gets_the_ring_back),
		cmocka_unit_test(a_disk_that_grew_is_said_to_a_guest_that_is_connected),
		cmocka_unit_test(who_leaves_lets_go_of_the_ring_and_writes_nothing),
		cmocka_unit_test(who_leaves_at_any_time_is_over_soon),
		cmocka_unit_test(a_successor_takes_the_ring_of_a_guest_that_is_at_work),
		cmocka_unit_test(a_backend_that_comes_late_serves_a_frontend_that_waits),
		cmocka_unit_test(a_write_that_fails_for_want_of_memory_is_tried_again_a_second_later),
		cmocka_unit_test(what_was_read_is_not_written_over_what_came_since),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
