/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-tenancy - a disk whose image has a lease beside it; the other hosts are this test
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/lease.h"
#include "tests/unit/vdi-rig.h"

#define LOST_MS 3000u /* a machine that is busy may look away for longer than a few hundred */
static char image[80];

static int set_up(void **state)
{
	struct error e = { 0 };

	setenv("SXM_HOST_ID", "here", 1);
	setenv("SXM_LEASE_RENEW_MS", "20", 1);
	setenv("SXM_LEASE_HOLD_MS", "1000", 1);
	setenv("SXM_LEASE_LOST_MS", "3000", 1);
	setenv("SXM_LEASE_LOCK_MS", "1", 1);
	snprintf(image, sizeof(image), "%s/fake", rig_dir);
	assert_int_equal(lease_make(image, false, &e), 0);
	return rig_set_up(state);
}

static int tear_down(void **state)
{
	struct error e = { 0 };
	int r = rig_tear_down(state);

	return lease_remove(image, &e) == 0 ? r : -1;
}

static struct lease look(void)
{
	struct error e = { 0 };
	struct lease l;

	assert_int_equal(lease_look(image, &l, &e), 0);
	return l;
}

static struct lease take_as(const char *host)
{
	struct lease seen = look(), next = lease_taken(&seen, host, 7);
	struct error e = { 0 };

	assert_int_equal(lease_change(image, &seen, &next, &e), 0);
	return next;
}

static bool is_held_here(void)
{
	struct lease l = look();

	return l.kind == LEASE_HELD && strcmp(l.host, "here") == 0;
}

static uint64_t now_ms(void)
{
	return lease_now_ns() / NS_PER_MS;
}

static void it_is_taken_for_a_writer_renewed_and_given_back(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("1", false), 0);
	assert_true(fake.was_leased && is_held_here());
	assert_true(fake.lease_until_ns > lease_now_ns());
	UNTIL(look().renewals >= 3);
	assert_int_equal(rig_deactivate("1"), 0);
	assert_int_equal(look().kind, LEASE_FREE);
	assert_int_equal(look().generation, 1);
	assert_int_equal(rig_lost, 0);
}

static void a_reader_needs_none(void **state)
{
	struct lease other = take_as("there"), l;

	(void)state;
	assert_int_equal(rig_activate("1", true), 0);
	assert_false(fake.was_leased);
	l = look();
	assert_true(lease_is_equal(&l, &other));
}

static void a_sharable_volume_is_everybodys(void **state)
{
	struct error e = { 0 };

	(void)state;
	assert_int_equal(lease_remove(image, &e), 0);
	assert_int_equal(lease_make(image, true, &e), 0);
	assert_int_equal(rig_activate("1", false), 0);
	assert_true(fake.was_sharable);
	assert_false(fake.was_leased);
}

static void without_one_nothing_is_taken(void **state)
{
	struct error e = { 0 };

	(void)state;
	assert_int_equal(lease_remove(image, &e), 0);
	assert_int_equal(rig_activate("1", false), 0);
	assert_false(fake.was_leased || fake.was_sharable);
	assert_int_equal(look().kind, LEASE_ABSENT);
}

/* Renews it as a host that lives does. */
static pid_t live(struct lease l)
{
	const struct timespec pause = { .tv_nsec = 20 * (long)NS_PER_MS };
	pid_t pid = fork();

	while (pid == 0) {
		struct lease next = lease_renewed(&l);
		struct error e;

		nanosleep(&pause, NULL);
		if (lease_change(image, &l, &next, &e) == -1)
			_exit(1);
		l = next;
	}
	return pid;
}

static void a_host_that_lives_keeps_it(void **state)
{
	pid_t pid = live(take_as("there"));
	uint64_t began_ms = now_ms();

	(void)state;
	assert_int_equal(rig_activate("1", false), EREMOTE);
	assert_true(now_ms() - began_ms < LOST_MS);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_string_equal(look().host, "there");
	assert_int_equal(rig_activate("1", false), 0); /* dead now */
	assert_true(fake.could_skip_lock && is_held_here());
}

static void a_dead_host_loses_it_in_bounded_time_and_not_earlier(void **state)
{
	uint64_t began_ms = now_ms();

	(void)state;
	take_as("there");
	assert_int_equal(rig_activate("1", false), 0);
	assert_in_range(now_ms() - began_ms, LOST_MS, 2 * LOST_MS);
	assert_int_equal(look().generation, 2);
}

static void this_hosts_own_is_taken_back_at_once(void **state)
{
	uint64_t began_ms = now_ms();

	(void)state;
	take_as("here");
	assert_int_equal(rig_activate("1", false), 0);
	assert_true(now_ms() - began_ms < LOST_MS / 2);
	assert_false(fake.could_skip_lock); /* the lock says when the dead process' writes are over */
	assert_int_equal(look().generation, 2);
}

static void what_could_not_be_opened_is_not_leased(void **state)
{
	(void)state;
	fake.open_err = EBUSY;
	assert_int_equal(rig_activate("1", false), EBUSY);
	assert_int_equal(look().kind, LEASE_FREE);
	fake.open_err = 0;
}

static void who_has_lost_it_is_told_and_touches_nothing(void **state)
{
	struct lease theirs, l;

	(void)state;
	assert_int_equal(rig_activate("1", false), 0);
	theirs = take_as("there");
	UNTIL(rig_lost == 1);
	assert_int_equal(rig_deactivate("1"), 0);
	l = look();
	assert_true(lease_is_equal(&l, &theirs));
}

int main(void)
{
#define LEASED(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		LEASED(it_is_taken_for_a_writer_renewed_and_given_back),
		LEASED(a_reader_needs_none),
		LEASED(a_sharable_volume_is_everybodys),
		LEASED(without_one_nothing_is_taken),
		LEASED(a_host_that_lives_keeps_it),
		LEASED(a_dead_host_loses_it_in_bounded_time_and_not_earlier),
		LEASED(this_hosts_own_is_taken_back_at_once),
		LEASED(what_could_not_be_opened_is_not_leased),
		LEASED(who_has_lost_it_is_told_and_touches_nothing),
	};

	return rig_group("tenancy", tests, ARRAY_LEN(tests));
}
