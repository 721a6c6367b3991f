/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/lease.h"
#include "base/tenure.h"

static char dir[] = "/tmp/sxm-lease-XXXXXX";
static char image[64];

static const struct lease free_7 = { .kind = LEASE_FREE, .generation = 7 };

/* --- names */

static void a_name_says_it_all_and_is_read_back(void **state)
{
	struct lease held = lease_taken(&free_7, "host.one-2", UINT64_C(0xabc)), next = lease_renewed(&held), back, read;
	char name[LEASE_NAME_MAX];

	(void)state;
	lease_name(&next, name);
	assert_string_equal(name, "8.1.0000000000000abc.host.one-2");
	assert_true(lease_parse(name, &read));
	assert_true(lease_is_equal(&read, &next));
	back = lease_given_back(&next);
	lease_name(&back, name);
	assert_string_equal(name, "8.free");
	assert_true(lease_parse(name, &read) && lease_is_equal(&read, &back));
	assert_true(lease_is_later(&held, &free_7) && lease_is_later(&next, &held) && lease_is_later(&back, &next));
	assert_false(lease_is_later(&held, &next) || lease_is_later(&free_7, &held));
}

static void what_is_spelled_otherwise_is_no_name(void **state)
{
	static const char *const bad[] = {
		"", "free", "7.fre", "7.free.", "07.free", "-1.free", "8.1.abc.h", "8.1.0000000000000abc.", "8.1.0000000000000ABC.h",
		"8.1.0000000000000abc", "99999999999999999999.free", "8.+1.0000000000000abc.h", "8.1.000000000000000abc.h", "sharable2",
		" 8.free", "0x8.free",
		"8.1.0000000000000abc.hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh",
	};
	struct lease l;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (lease_parse(bad[i], &l))
			fail_msg("%s", bad[i]);
}

/* --- files */

static int set_up(void **state)
{
	(void)state;
	snprintf(image, sizeof(image), "%s/a.raw", dir);
	return 0;
}

static int tear_down(void **state)
{
	struct error e;

	(void)state;
	return lease_remove(image, &e);
}

static void none_is_there_until_it_is_made(void **state)
{
	struct error e = { 0 };
	struct lease l;

	(void)state;
	assert_int_equal(lease_look(image, &l, &e), 0);
	assert_int_equal(l.kind, LEASE_ABSENT);
	assert_int_equal(lease_make(image, false, &e), 0);
	assert_int_equal(lease_look(image, &l, &e), 0);
	assert_int_equal(l.kind, LEASE_FREE);
	assert_int_equal(lease_make(image, true, &e), 0); /* it stays what it is */
	assert_int_equal(lease_look(image, &l, &e), 0);
	assert_int_equal(l.kind, LEASE_FREE);
	assert_int_equal(lease_remove(image, &e), 0);
	assert_int_equal(lease_make(image, true, &e), 0);
	assert_int_equal(lease_look(image, &l, &e), 0);
	assert_int_equal(l.kind, LEASE_SHARABLE);
}

static void a_change_is_made_from_what_is_there_and_from_nothing_else(void **state)
{
	struct lease first, a, b, l;
	struct error e = { 0 };

	(void)state;
	assert_int_equal(lease_make(image, false, &e), 0);
	assert_int_equal(lease_look(image, &first, &e), 0);
	a = lease_taken(&first, "A", 1);
	b = lease_taken(&first, "B", 2);
	assert_int_equal(lease_change(image, &first, &a, &e), 0);
	assert_int_equal(lease_change(image, &first, &b, &e), -1);
	assert_int_equal(e.err, ESTALE);
	assert_int_equal(lease_look(image, &l, &e), 0);
	assert_true(lease_is_equal(&l, &a));
	assert_int_equal(lease_change(image, &first, &a, &e), 0); /* asked again, as NFS may: it was made */
}

static void of_many_who_take_it_at_once_one_gets_it(void **state)
{
	struct lease first;
	struct error e = { 0 };
	unsigned won = 0;
	int gate[2];

	(void)state;
	assert_int_equal(lease_make(image, false, &e), 0);
	assert_int_equal(lease_look(image, &first, &e), 0);
	assert_int_equal(pipe(gate), 0);
	for (unsigned i = 0; i < 8; i++)
		if (fork() == 0) {
			struct lease mine = lease_taken(&first, "H", i);
			char c;

			close(gate[1]);
			(void)!read(gate[0], &c, 1);
			_exit(lease_change(image, &first, &mine, &e) == 0);
		}
	close(gate[0]);
	close(gate[1]);
	for (unsigned i = 0; i < 8; i++) {
		int status = 0;

		assert_true(wait(&status) > 0 && WIFEXITED(status));
		won += (unsigned)WEXITSTATUS(status);
	}
	assert_int_equal(won, 1);
}

static void many_make_it_at_once_and_it_is_one(void **state)
{
	struct error e = { 0 };
	struct lease l;

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		if (fork() == 0)
			_exit(lease_make(image, false, &e) != 0);
	for (unsigned i = 0; i < 8; i++) {
		int status = 0;

		assert_true(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	assert_int_equal(lease_look(image, &l, &e), 0);
	assert_int_equal(l.kind, LEASE_FREE);
}

static void what_somebody_else_put_there_is_not_guessed_about(void **state)
{
	struct error e = { 0 };
	char path[96];
	struct lease l;

	(void)state;
	assert_int_equal(lease_make(image, false, &e), 0);
	snprintf(path, sizeof(path), "%s.lease/notes.txt", image);
	fclose(fopen(path, "w"));
	assert_int_equal(lease_look(image, &l, &e), -1);
	assert_int_equal(e.err, EBADMSG);
	assert_non_null(strstr(e.text, "notes.txt"));
}

/* --- tenure */

#define S(n) ((n) * NS_PER_S)
static const struct tenure_spec spec = { S(5ull), S(20ull), S(60ull), 0 };

static void a_watcher_counts_on_his_own_clock_from_when_he_saw_it(void **state)
{
	struct lease a = lease_taken(&free_7, "A", 1), renewed = lease_renewed(&a);
	struct tenure_watch w = { 0 };

	(void)state;
	assert_int_equal(tenure_watch(&w, &spec, "B", &free_7, S(100)), TENURE_NONE);
	assert_int_equal(tenure_watch(&w, &spec, "A", &a, S(100)), TENURE_OURS);
	assert_int_equal(tenure_watch(&w, &spec, "B", &a, S(100)), TENURE_WAIT);
	assert_int_equal(tenure_watch(&w, &spec, "B", &a, S(159)), TENURE_WAIT);
	assert_int_equal(tenure_watch(&w, &spec, "B", &renewed, S(160)), TENURE_ALIVE);
	assert_int_equal(tenure_watch(&w, &spec, "B", &renewed, S(219)), TENURE_WAIT);
	assert_int_equal(tenure_watch(&w, &spec, "B", &renewed, S(220)), TENURE_DEAD);
}

static void a_holder_writes_until_some_time_after_a_renewals_beginning(void **state)
{
	struct lease a = lease_taken(&free_7, "A", 1);
	struct tenure t;
	uint64_t wait_ns;

	(void)state;
	tenure_begin(&t, &spec, &a, S(100));
	assert_int_equal(t.until_ns, S(120));
	assert_int_equal(tenure_next(&t, S(101), &wait_ns), TENURE_ASK_NOTHING);
	assert_int_equal(wait_ns, S(4));
	assert_int_equal(tenure_next(&t, S(105), &wait_ns), TENURE_ASK_RENEW);
	tenure_ask(&t, TENURE_ASK_RENEW, S(105));
	tenure_renewed(&t, 0, S(119)); /* it took long */
	assert_int_equal(t.until_ns, S(125));
	assert_int_equal(t.lease.renewals, 1);
	assert_int_equal(tenure_next(&t, S(119), &wait_ns), TENURE_ASK_RENEW);
}

static void a_renewal_that_failed_counts_for_nothing_though_it_was_made(void **state)
{
	struct lease a = lease_taken(&free_7, "A", 1), seen;
	struct tenure t;
	uint64_t wait_ns;

	(void)state;
	tenure_begin(&t, &spec, &a, S(100));
	tenure_ask(&t, TENURE_ASK_RENEW, S(105));
	seen = t.next;
	tenure_renewed(&t, EIO, S(106));
	assert_int_equal(tenure_next(&t, S(108), &wait_ns), TENURE_ASK_LOOK);
	tenure_ask(&t, TENURE_ASK_LOOK, S(108));
	tenure_looked(&t, 0, &seen, S(109));
	assert_int_equal(t.until_ns, S(120));
	assert_int_equal(tenure_next(&t, S(109), &wait_ns), TENURE_ASK_RENEW);
	tenure_ask(&t, TENURE_ASK_RENEW, S(109));
	assert_true(lease_is_equal(&t.lease, &seen) && t.next.renewals == 2);
}

static void it_is_lost_when_another_has_it_and_not_by_an_old_listing(void **state)
{
	struct lease a = lease_taken(&free_7, "A", 1), b = lease_taken(&a, "B", 2);
	struct tenure t;
	uint64_t wait_ns;

	(void)state;
	tenure_begin(&t, &spec, &a, S(100));
	tenure_ask(&t, TENURE_ASK_RENEW, S(105));
	tenure_renewed(&t, ESTALE, S(106));
	tenure_looked(&t, 0, &free_7, S(107));
	assert_false(t.is_lost);
	tenure_looked(&t, EIO, &free_7, S(107));
	assert_false(t.is_lost);
	tenure_looked(&t, 0, &b, S(108));
	assert_true(t.is_lost);
	assert_int_equal(t.until_ns, 0);
	assert_string_equal(t.found.host, "B");
	assert_int_equal(tenure_next(&t, S(300), &wait_ns), TENURE_ASK_NOTHING);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
#define FILES(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_says_it_all_and_is_read_back),
		cmocka_unit_test(what_is_spelled_otherwise_is_no_name),
		FILES(none_is_there_until_it_is_made),
		FILES(a_change_is_made_from_what_is_there_and_from_nothing_else),
		FILES(of_many_who_take_it_at_once_one_gets_it),
		FILES(many_make_it_at_once_and_it_is_one),
		FILES(what_somebody_else_put_there_is_not_guessed_about),
		cmocka_unit_test(a_watcher_counts_on_his_own_clock_from_when_he_saw_it),
		cmocka_unit_test(a_holder_writes_until_some_time_after_a_renewals_beginning),
		cmocka_unit_test(a_renewal_that_failed_counts_for_nothing_though_it_was_made),
		cmocka_unit_test(it_is_lost_when_another_has_it_and_not_by_an_old_listing),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
