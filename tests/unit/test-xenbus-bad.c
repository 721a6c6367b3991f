/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The backend's side of the xenbus handshake against a frontend that is not honest, and in any order of events. Tests of what once
 * was a vulnerability somewhere are named for it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/xenbus-rig.h"

static void try_bad(unsigned key, const char *value)
{
	begin(true);
	plug();
	settle();
	new_ring(8);
	put(key, value);
	front(3);
	settle();
	assert_false(is_bound);
	assert_int_equal(connects, 0);
	assert_int_equal(errors, 1);
	assert_int_equal(state(XENBUS_B_STATE), 6);
	front(3); /* and once is enough */
	front(4);
	settle();
	assert_int_equal(errors, 1);
	/* It may begin anew. */
	put(key, NULL);
	front(1);
	settle();
	new_ring(8);
	front(3);
	settle();
	assert_true(is_bound);
}

static void ring_page_order_is_bounded_before_it_is_used_as_a_shift(void **s)
{
	static const char *const bad[] = { "5", "31", "32", "64", "4294967295", "4294967296", "-1", "", " 1", "1 ", "0x1", "1e0", "99999999999999999999",
					   "18446744073709551617" };

	(void)s;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		try_bad(XENBUS_F_ORDER, bad[i]);
		assert_non_null(strstr(x.why.text, "ring-page-order")); /* for that, and not for a page that is missing */
	}
}

static void xsa_175_what_a_frontend_says_is_parsed_strictly(void **s)
{
	static const unsigned keys[] = { XENBUS_F_REF, XENBUS_F_CHANNEL };
	static const char *const bad[] = { NULL, "", "-1", "+1", "4294967296", "8/../9", "8\n", "abc",
					   "18446744073709551624" }; /* the last is 8, and 2^64 */

	(void)s;
	for (size_t k = 0; k < ARRAY_LEN(keys); k++)
		for (size_t i = 0; i < ARRAY_LEN(bad); i++)
			try_bad(keys[k], bad[i]);
	try_bad(XENBUS_F_PROTOCOL, "sparc-abi");
	try_bad(XENBUS_F_PROTOCOL, "");
	try_bad(XENBUS_F_QUEUES, "2");
	try_bad(XENBUS_F_QUEUES, "0");
}

static void a_ring_of_many_pages_needs_all_of_them(void **s)
{
	(void)s;
	begin(true);
	plug();
	settle();
	put(XENBUS_F_ORDER, "2");
	put(XENBUS_F_CHANNEL, "9");
	for (unsigned i = 0; i < 3; i++)
		put_number(XENBUS_F_REF0 + i, 50 + i);
	front(3);
	settle();
	assert_false(is_bound);
	front(1);
	settle();
	put(XENBUS_F_REF0 + 3, "53");
	front(3);
	settle();
	assert_true(is_bound && bound.order == 2 && bound.gref[0] == 50 && bound.gref[3] == 53 && bound.abi == RING_X86_64);
	/* One page, numbered; and in the other layout. */
	connect_all();
	front(1);
	settle();
	put(XENBUS_F_REF, NULL);
	put(XENBUS_F_ORDER, "0");
	put(XENBUS_F_REF0, "77");
	put(XENBUS_F_PROTOCOL, "x86_32-abi");
	front(3);
	settle();
	assert_true(is_bound && bound.order == 0 && bound.gref[0] == 77 && bound.abi == RING_X86_32);
}

static void xsa_362_365_a_page_that_cannot_be_mapped_closes_the_device_and_no_more(void **s)
{
	(void)s;
	offer(5000);
	assert_int_equal(connects, 1); /* not again and again */
	assert_int_equal(errors, 1);
	assert_int_equal(state(XENBUS_B_STATE), 6);
	front(1);
	settle();
	new_ring(8);
	front(3);
	settle();
	assert_true(is_bound);
}

static void xsa_349_a_storm_of_events_is_a_bounded_number_of_questions(void **s)
{
	(void)s;
	connect_all();
	reads = 0;
	for (unsigned ms = 0; ms < 10000; ms++) {
		now_ms++;
		for (unsigned i = 0; i < 100; i++) {
			front(i % 2 ? 4 : 7);
			turn();
		}
	}
	assert_in_range(reads, 1, 11 * 32);
	now_ms += 1000;
	front(4);
	settle();
	assert_true(is_bound);
}

static void xsa_350_a_frontend_that_flaps_meets_one_ring_at_a_time(void **s)
{
	(void)s;
	begin(true);
	plug();
	srand(7);
	for (unsigned i = 0; i < 20000; i++) {
		if (rand() % 3 == 0) {
			new_ring((unsigned)(rand() % 3) * 499 + 8);
			front((unsigned)(rand() % 9));
		}
		turn();
		now_ms += 7;
	}
	front(6);
	settle();
	assert_false(is_bound);
	assert_int_equal(state(XENBUS_B_STATE), 6);
}

/* Steps until nothing is to be done at this moment; how many were writes, each of which ends so. */
static unsigned fail_writes(int err)
{
	unsigned tried = 0;

	for (unsigned i = 0; i < 1000; i++) {
		struct xenbus_action a = xenbus_next(&x, now_ms);

		if (a.what == XENBUS_READ) {
			xenbus_read_is(&x, &names, store);
		} else if (a.what == XENBUS_WRITE) {
			xenbus_ended(&x, err, NULL, now_ms);
			tried++;
		} else {
			return tried;
		}
	}
	fail_msg("it never rests");
	return 0;
}

static void xsa_206_a_write_that_conflicts_for_ever_is_tried_so_often(void **s)
{
	unsigned tried = 0;

	(void)s;
	begin(true);
	plug();
	for (unsigned i = 0; i < 10; i++) {
		tried += fail_writes(EAGAIN);
		now_ms += 1000;
	}
	assert_in_range(tried, 200, 10 * 32); /* nor does it wait for a second, as for room */
	settle(); /* and when nobody is in the way any more it is made */
	assert_int_equal(state(XENBUS_B_STATE), 2);
}

static void xsa_326_a_store_without_room_costs_a_guest_nothing_that_it_has(void **s)
{
	static const int errs[] = { ENOSPC, E2BIG, EDQUOT, ENOMEM, EIO };

	(void)s;
	for (size_t i = 0; i < ARRAY_LEN(errs); i++) {
		connect_all();
		x.sectors *= 2;
		changed();
		assert_int_equal(fail_writes(errs[i]), 1); /* not again within the second */
		now_ms += 999;
		assert_int_equal(fail_writes(errs[i]), 0);
		assert_true(is_bound && disconnects == 0);
		now_ms += 1;
		settle();
		assert_string_equal(store[XENBUS_B_SECTORS].value, "4096");
		/* It cannot even be read: nothing is concluded from that. */
		changed();
		assert_int_equal(xenbus_next(&x, now_ms).what, XENBUS_READ);
		xenbus_not_read(&x, now_ms);
		assert_int_equal(xenbus_next(&x, now_ms).what, XENBUS_SLEEP);
		now_ms += 1000;
		settle();
		assert_true(is_bound && disconnects == 0 && connects == 1);
	}
}

static void xsa_178_another_guests_directory_is_not_served(void **s)
{
	(void)s;
	begin(true);
	plug();
	put(XENBUS_B_FRONTEND, "/local/domain/6/device/vbd/51712");
	settle();
	assert_int_equal(writes, 0);
	begin(true);
	plug();
	put(XENBUS_B_FRONTEND_ID, "6");
	settle();
	assert_int_equal(writes, 0);
}

static void only_a_backends_directory_is_one(void **s)
{
	static const char *const bad[] = {
		"", "/", "/local/domain/0/backend/vbd/5", "/local/domain/0/backend/vbd/5/51712/", "/local/domain/0/backend//5/51712",
		"/local/domain/0/backend/v bd/5/51712", "/local/domain/0/backend/../5/51712", "/local/domain/x/backend/vbd/5/51712",
		"/local/domain/0/backend/vbd/65536/51712", "/local/domain/0/backend/vbd/5/4294967296",
		"/local/domain/0/backend/a-name-that-is-longer-than-32-letters/5/1", "local/domain/0/backend/vbd/5/51712",
		"/local/demain/0/backend/vbd/5/51712", "/local/domain/0/frontend/vbd/5/51712", "/local/domain/65536/backend/vbd/5/51712",
	};
	struct xenbus_names n;
	char path[XENBUS_PATH_MAX];

	(void)s;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(xenbus_parse_backend(&n, bad[i], NULL), -1);
	assert_int_equal(xenbus_parse_backend(&n, "/local/domain/0/backend/vbd3/65535/4294967295", NULL), 0);
	assert_int_equal(n.domain, 65535);
	assert_string_equal(n.frontend, "/local/domain/65535/device/vbd/4294967295");
	assert_true(xenbus_key_path(&n, NULL, XENBUS_F_REF0 + 15, path));
	assert_string_equal(path, "/local/domain/65535/device/vbd/4294967295/ring-ref15");
}

static void what_is_not_there_or_too_long_is_no_text(void **s)
{
	const struct xenbus_value absent = { .value = "5" }, long_one = { .is_there = true, .is_long = true, .value = "5" };
	uint32_t number;

	(void)s;
	assert_false(xenbus_number(&absent, &number) || xenbus_number(&long_one, &number));
	assert_false(xenbus_is(&absent, "5") || xenbus_is(&long_one, "5"));
	begin(true);
	strcpy(names.params, "nbd:a");
	store[XENBUS_B_PARAMS] = (struct xenbus_value){ .value = "nbd:b" };
	assert_true(xenbus_is_this_disk(&names, store));
	put(XENBUS_F_STATE, "8");
	assert_int_equal(state(XENBUS_F_STATE), 8);
	put(XENBUS_F_STATE, "9");
	assert_int_equal(state(XENBUS_F_STATE), XENBUS_UNKNOWN);
}

/* 2, 7 and 8 are no frontend's to say: whatever is so stays so. */
static void an_odd_state_changes_nothing(void **s)
{
	static const unsigned odd[] = { 2, 7, 8 };

	(void)s;
	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		connect_all();
		writes = 0;
		front(odd[i]);
		settle();
		put(XENBUS_B_STATE, "1"); /* nor is a ring that is there offered anew */
		changed();
		settle();
		assert_true(is_bound && disconnects == 0);
		assert_int_equal(writes, 0);
		connect_all();
		front(6);
		settle();
		front(odd[i]);
		settle();
		assert_int_equal(state(XENBUS_B_STATE), 6);
	}
}

/* It is at work over its ring, and takes away what that was known by; or says 3 of it, once more. */
static void a_ring_stays_until_another_one_is_offered(void **s)
{
	(void)s;
	connect_all();
	put(XENBUS_F_REF, NULL);
	changed();
	settle();
	assert_true(is_bound && disconnects == 0);
	front(3);
	settle();
	assert_int_equal(disconnects, 1);
	assert_int_equal(errors, 1);
}

static void who_closes_and_flaps_is_not_met_again(void **s)
{
	(void)s;
	connect_all();
	front(5);
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 5);
	front(4);
	settle();
	assert_false(is_bound);
	front(6);
	settle();
	writes = 0;
	front(5);
	settle();
	assert_int_equal(state(XENBUS_B_STATE), 6);
	assert_int_equal(writes, 0);
}

/* What is at its end, or was not made to be used, is not offered because a guest says that there is a ring. */
static void a_device_that_is_not_online_is_not_offered(void **s)
{
	(void)s;
	begin(true);
	plug();
	put(XENBUS_B_ONLINE, "0");
	new_ring(8);
	front(3);
	settle();
	assert_true(!is_bound && writes == 0);
}

/* --- whose it is */

#define UUID "5e0b8c3d-0123-4000-8000-89abcdef0123"
#define LEAVING "5e0b8c3d-0123-4000-8000-000000000000"
#define COMING "5e0b8c3d-0123-4000-8000-000000000001"

/* The toolstack's word. */
static void vm_is(const char *vm, const char *stable)
{
	put(XENBUS_D_VM, vm);
	put(XENBUS_V_STABLE, stable);
	store[XENBUS_D_VM].is_toolstacks = store[XENBUS_V_STABLE].is_toolstacks = true;
}

static const char *vm_of(const char *vm, const char *stable)
{
	static char uuid[GUID_MAX];

	vm_is(vm, stable);
	return xenbus_vm(store, uuid) ? uuid : "none";
}

static void a_vm_is_a_uuid_to_the_letter(void **s)
{
	static const char *const bad[] = {
		"", UUID, "/vm/", "vm/" UUID, "/vm/" UUID "-1", "/vm/" UUID "/", "/vm//" UUID, " /vm/" UUID, "/vm/" UUID "\n",
		"/vm/5E0B8C3D-0123-4000-8000-89ABCDEF0123", "/vm/5e0b8c3d-0123-4000-8000-89abcdef012", "/vm/5e0b8c3d0123-4000-8000-89abcdef0123-",
		"/vm/5e0b8c3d-0123-4000-8000-89abcdef012g", "/vm/../../../../../etc/8000-89abcdef0123", "/vm/------------------------------------",
	};

	(void)s;
	begin(true);
	assert_string_equal(vm_of("/vm/" UUID, NULL), UUID);
	assert_string_equal(vm_of(NULL, UUID), "none");
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_string_equal(vm_of(bad[i], UUID), "none");
	vm_is("/vm/" UUID, NULL);
	store[XENBUS_D_VM].is_long = true;
	assert_false(xenbus_vm(store, (char[GUID_MAX]){ 0 }));
}

/* xapi's graphs are the VM's, whatever it is called meanwhile. */
static void a_vm_that_moves_is_known_by_its_own_uuid(void **s)
{
	char path[XENBUS_PATH_MAX];

	(void)s;
	begin(true);
	assert_string_equal(vm_of("/vm/" LEAVING, UUID), UUID);
	assert_true(xenbus_key_path(&names, store, XENBUS_V_STABLE, path));
	assert_string_equal(path, "/vm/" LEAVING "/origin-uuid");
	assert_string_equal(vm_of("/vm/" COMING, UUID), UUID);
	assert_true(xenbus_key_path(&names, store, XENBUS_V_STABLE, path));
	assert_string_equal(path, "/vm/" COMING "/final-uuid");
	assert_string_equal(vm_of("/vm/" LEAVING, NULL), "none");
	assert_string_equal(vm_of("/vm/" COMING, "/vm/" UUID), "none");
	vm_of("/vm/" UUID, NULL);
	assert_false(xenbus_key_path(&names, store, XENBUS_V_STABLE, path) || xenbus_key_path(&names, NULL, XENBUS_V_STABLE, path));
}

/* Or one guest would draw into another's graphs. */
static void what_a_guest_may_write_does_not_say_whose_it_is(void **s)
{
	char uuid[GUID_MAX], path[XENBUS_PATH_MAX];

	(void)s;
	begin(true);
	vm_is("/vm/" UUID, NULL);
	store[XENBUS_D_VM].is_toolstacks = false;
	assert_false(xenbus_vm(store, uuid));
	vm_is("/vm/" LEAVING, UUID);
	store[XENBUS_V_STABLE].is_toolstacks = false;
	assert_false(xenbus_vm(store, uuid));
	vm_is("/vm/" LEAVING, UUID);
	store[XENBUS_D_VM].is_toolstacks = false;
	assert_false(xenbus_vm(store, uuid) || xenbus_key_path(&names, store, XENBUS_V_STABLE, path));
}

/* --- any order: toolstack, frontend, and we, each a step at a time. What an honest guest ends with is a disk. */

static void frontend_step(unsigned *gref)
{
	unsigned back = state(XENBUS_B_STATE);

	switch (state(XENBUS_F_STATE)) {
	case 1:
		if (back == 2) {
			new_ring(*gref += 3);
			front(3);
		}
		break;
	case 3:
		if (back == 4)
			front(4);
		else if (back == 5)
			front(6);
		break;
	case 4:
		if (back == 5)
			front(6);
		else if (rand() % 20 == 0)
			front(rand() % 2 ? 5 : 1);
		break;
	case 5:
		if (back >= 5)
			front(6);
		break;
	case 6:
		if (back == 6 && rand() % 4 == 0)
			front(1);
		break;
	}
}

static void honest_guests_get_their_disk_in_any_order_of_events(void **s)
{
	(void)s;
	for (unsigned seed = 0; seed < 300; seed++) {
		unsigned gref = seed;

		srand(seed);
		begin(seed % 2);
		for (unsigned i = 0; i < 400; i++) {
			now_ms += (unsigned)(rand() % 50);
			if (i == 10)
				plug();
			if (i == 30)
				put(XENBUS_B_HOTPLUG, "connected"), changed();
			if (rand() % 2)
				turn();
			else
				frontend_step(&gref);
			if (rand() % 100 == 0) {
				end_pending();
				xenbus_init(&x, seed % 2); /* killed, and another one comes */
				x.sectors = 2048;
				is_bound = false;
			}
		}
		for (unsigned i = 0; i < 200 && !(state(XENBUS_F_STATE) == 4 && state(XENBUS_B_STATE) == 4 && is_bound); i++) {
			settle();
			if (state(XENBUS_F_STATE) != 4)
				frontend_step(&gref);
			settle();
		}
		settle();
		if (!is_bound || state(XENBUS_B_STATE) != 4 || bound.gref[0] != (unsigned)atoi(store[XENBUS_F_REF].value))
			fail_msg("seed %u: backend %u, frontend %u, bound %d", seed, state(XENBUS_B_STATE), state(XENBUS_F_STATE), is_bound);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ring_page_order_is_bounded_before_it_is_used_as_a_shift),
		cmocka_unit_test(xsa_175_what_a_frontend_says_is_parsed_strictly),
		cmocka_unit_test(a_ring_of_many_pages_needs_all_of_them),
		cmocka_unit_test(xsa_362_365_a_page_that_cannot_be_mapped_closes_the_device_and_no_more),
		cmocka_unit_test(xsa_349_a_storm_of_events_is_a_bounded_number_of_questions),
		cmocka_unit_test(xsa_350_a_frontend_that_flaps_meets_one_ring_at_a_time),
		cmocka_unit_test(xsa_206_a_write_that_conflicts_for_ever_is_tried_so_often),
		cmocka_unit_test(xsa_326_a_store_without_room_costs_a_guest_nothing_that_it_has),
		cmocka_unit_test(xsa_178_another_guests_directory_is_not_served),
		cmocka_unit_test(only_a_backends_directory_is_one),
		cmocka_unit_test(what_is_not_there_or_too_long_is_no_text),
		cmocka_unit_test(an_odd_state_changes_nothing),
		cmocka_unit_test(a_ring_stays_until_another_one_is_offered),
		cmocka_unit_test(who_closes_and_flaps_is_not_met_again),
		cmocka_unit_test(a_device_that_is_not_online_is_not_offered),
		cmocka_unit_test(a_vm_is_a_uuid_to_the_letter),
		cmocka_unit_test(a_vm_that_moves_is_known_by_its_own_uuid),
		cmocka_unit_test(what_a_guest_may_write_does_not_say_whose_it_is),
		cmocka_unit_test(honest_guests_get_their_disk_in_any_order_of_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
