/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The broker's core where it matters when something is done: a storm about one device, processes that do not answer, what fails again
 * and again; and what it says to whom, in order.
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/broker-rig.h"

static void a_storm_is_one_place_in_the_line(void **s)
{
	unsigned reads = 0;

	(void)s;
	for (unsigned n = 0; n < 10000; n++)
		broker_changed(b, first);
	broker_changed(b, second);
	read_as(first, facts_of("a"));
	read_as(second, facts_of("b"));
	expect_ask(BROKER_SERVE, first, "a", 0);
	expect_ask(BROKER_SERVE, second, "b", 0);
	expect_rest();
	for (unsigned ms = 0; ms < 10000; ms++, now_ms++) {
		struct broker_action a;

		for (unsigned n = 0; n < 5; n++)
			broker_changed(b, first);
		a = next(BROKER_STORE);
		if (a.what == BROKER_READ) {
			struct broker_facts f = facts_of("a");

			broker_read_is(b, a.key, &f, now_ms);
			reads++;
		}
	}
	assert_in_range(reads, 100, 200); /* what happens to it is still seen */
}

static void who_does_not_answer_keeps_nobody_waiting(void **s)
{
	struct broker_action a;

	(void)s;
	broker_changed(b, first);
	read_as(first, facts_of("stopped"));
	a = next(BROKER_ASK);
	assert_string_equal(a.name, "stopped");
	for (unsigned n = 0; n < 100; n++)
		broker_changed(b, first);
	broker_changed(b, second);
	read_as(second, facts_of("b"));
	expect_ask(BROKER_SERVE, second, "b", 0);
	expect_rest(); /* of the first one thing at a time */
	broker_ended(b, first, ETIMEDOUT, now_ms);
	read_as(first, facts_of("stopped"));
}

/* It was deactivated, say, when it had said yes, and that was still under way. */
static void an_answer_that_was_overtaken_is_not_believed(void **s)
{
	(void)s;
	broker_changed(b, first);
	read_as(first, facts_of("a"));
	assert_int_equal(next(BROKER_ASK).what, BROKER_SERVE);
	broker_process_changed(b, "a");
	broker_ended(b, first, 0, now_ms);
	read_as(first, facts_of("a"));
	expect_ask(BROKER_SERVE, first, "a", 0);
	expect_rest();
}

static void what_fails_is_tried_less_and_less_often_and_at_once_when_something_happens(void **s)
{
	unsigned tries = 0;

	(void)s;
	broker_changed(b, first);
	read_as(first, facts_of("a"));
	for (uint64_t end_ms = now_ms + 60000; now_ms < end_ms; now_ms += 10) {
		struct broker_action a = next(BROKER_STORE);

		if (a.what == BROKER_READ) {
			struct broker_facts f = facts_of("a");

			broker_read_is(b, a.key, &f, now_ms);
		}
		if (next(BROKER_ASK).what == BROKER_SERVE) {
			tries++;
			broker_ended(b, first, ENOTCONN, now_ms);
		}
	}
	assert_in_range(tries, 10, 25);
	broker_process_changed(b, "a");
	read_as(first, facts_of("a"));
	expect_ask(BROKER_SERVE, first, "a", 0);
}

static void fail_for_long(void)
{
	broker_changed(b, first);
	for (unsigned i = 0; i < 8; i++) {
		read_as(first, facts_of("a"));
		expect_ask(BROKER_SERVE, first, "a", ECONNRESET);
		expect_rest();
		now_ms += wait_ms;
	}
	read_as(first, facts_of("a"));
}

static void whose_domain_dies_is_let_go_of_at_once_however_long_it_has_failed(void **s)
{
	struct broker_facts f = facts_of("a");

	(void)s;
	fail_for_long();
	expect_ask(BROKER_SERVE, first, "a", ECONNRESET);
	f.is_alive = false;
	broker_changed(b, first);
	read_as(first, f);
	expect_ask(BROKER_DROP, first, "a", 0);
}

static void once_it_was_served_the_next_failure_is_a_first_one(void **s)
{
	(void)s;
	fail_for_long();
	expect_ask(BROKER_SERVE, first, "a", 0);
	broker_recall_told(b, first, "b", now_ms);
	read_as(first, facts_of("a"));
	expect_ask(BROKER_DROP, first, "b", ECONNRESET);
	expect_rest();
	assert_in_range(wait_ms, 1, 500);
}

static void whoever_has_it_lets_go_before_another_is_told(void **s)
{
	(void)s;
	broker_recall_told(b, first, "old", now_ms);
	read_as(first, facts_of("new"));
	expect_ask(BROKER_DROP, first, "old", ECONNRESET);
	expect_rest();
	now_ms += wait_ms;
	read_as(first, facts_of("new"));
	expect_ask(BROKER_DROP, first, "old", 0);
	expect_ask(BROKER_SERVE, first, "new", 0);
	expect_rest();
}

/* It is made anew while it is read that it is gone, say. */
static void what_happens_while_it_is_read_is_read_too(void **s)
{
	const struct broker_facts gone = { .is_there = false };

	(void)s;
	broker_changed(b, first);
	assert_int_equal(next(BROKER_STORE).what, BROKER_READ);
	broker_changed(b, first);
	broker_read_is(b, first, &gone, now_ms);
	read_as(first, facts_of("a"));
	expect_ask(BROKER_SERVE, first, "a", 0);
}

/* `sxm vbd attach` does so, or a person. */
static void what_others_tell_a_process_is_let_alone(void **s)
{
	struct broker_facts f = facts_of(""), gone = { .is_there = false };

	(void)s;
	f.kind = BROKER_EMPTY;
	broker_recall_told(b, first, "a", now_ms);
	read_as(first, gone);
	expect_rest(); /* it is about to be made */
	assert_in_range(wait_ms, 1000, 60000);
	broker_changed(b, first);
	read_as(first, f);
	expect_rest();
	broker_changed(b, first);
	read_as(first, gone);
	expect_ask(BROKER_DROP, first, "a", 0);
	broker_recall_told(b, second, "a", now_ms);
	read_as(second, gone);
	now_ms += 60000;
	expect_ask(BROKER_DROP, second, "a", 0); /* it was not */
}

/* A domain's number is another's some time; whatever it is that comes again under the same name. */
static void what_let_go_of_a_device_is_asked_anew_when_that_comes_again(void **s)
{
	struct broker_facts f = facts_of("a");

	(void)s;
	broker_changed(b, first);
	read_as(first, f);
	expect_ask(BROKER_SERVE, first, "a", 0);
	f.is_alive = false;
	broker_changed(b, first);
	read_as(first, f);
	expect_ask(BROKER_DROP, first, "a", 0);
	broker_changed(b, first);
	read_as(first, facts_of("a"));
	expect_ask(BROKER_SERVE, first, "a", 0);
	expect_rest();
}

/* The pause after a failure is long, and what was read before it is old: nobody is told of a device that is gone meanwhile. */
static void what_failed_is_read_again_before_it_is_tried_again(void **s)
{
	const struct broker_facts gone = { .is_there = false };

	(void)s;
	broker_changed(b, first);
	read_as(first, facts_of("a"));
	expect_ask(BROKER_SERVE, first, "a", ECONNRESET);
	expect_rest();
	now_ms += wait_ms;
	assert_int_equal(next(BROKER_ASK).what, BROKER_NOTHING);
	read_as(first, gone);
	expect_ask(BROKER_DROP, first, "a", 0); /* it may have heard */
	expect_rest();
}

static void a_device_whose_guest_is_gone_is_closed_in_its_process_stead(void **s)
{
	struct broker_facts f = facts_of("a");

	(void)s;
	broker_changed(b, first);
	read_as(first, f);
	expect_ask(BROKER_SERVE, first, "a", ESRCH);
	f.is_online = f.is_front_open = false;
	broker_changed(b, first);
	read_as(first, f);
	expect_ask(BROKER_SERVE, first, "a", ESRCH); /* it may be there again */
	expect_rest();
	now_ms += wait_ms;
	read_as(first, f);
	assert_int_equal(next(BROKER_STORE).what, BROKER_CLEAN);
	broker_ended(b, first, 0, now_ms);
	f.is_settled = true;
	read_as(first, f);
	expect_rest();
}

static void a_device_that_is_not_ours_is_let_alone(void **s)
{
	struct broker_facts f = facts_of("");

	(void)s;
	f.kind = BROKER_NOBODYS;
	f.is_alive = f.is_front_open = f.is_online = f.is_young = false;
	broker_changed(b, first);
	read_as(first, f);
	expect_rest();
}

/* Its answer was that it has not got the disk: so it does not serve it, and there is nothing that it could let go of. */
static void who_has_not_got_the_disk_is_asked_no_more_when_the_device_ends(void **s)
{
	const struct broker_facts gone = { .is_there = false };
	struct broker_facts f = facts_of("a");

	(void)s;
	broker_changed(b, first);
	read_as(first, f);
	expect_ask(BROKER_SERVE, first, "a", ENOTCONN);
	f.is_online = false;
	broker_changed(b, first);
	read_as(first, f);
	expect_rest();
	broker_changed(b, first);
	read_as(first, gone);
	expect_rest();
}

/* What is not wanted on, and was not begun, is not begun; a volume that was is asked for until it is let go of. */
static void a_device_that_is_not_online_is_not_begun(void **s)
{
	struct broker_facts f = facts_of("a"), v = facts_of("sxm:///v");

	(void)s;
	f.is_online = v.is_online = false;
	broker_changed(b, first);
	read_as(first, f);
	assert_int_equal(next(BROKER_ASK).what, BROKER_NOTHING);
	broker_changed(b, second);
	read_as(second, v);
	assert_int_equal(next(BROKER_VERB).what, BROKER_NOTHING);
	broker_recall_taken(b, second, "sxm:///v", false);
	broker_recall_told(b, second, "v-1", now_ms);
	read_as(second, v);
	assert_int_equal(next(BROKER_VERB).what, BROKER_TAKE);
}

/* Whatever is on record: no more than there is room for, no name that is too long, and each of them once. */
static void who_was_told_is_kept_within_bounds_and_once(void **s)
{
	static const char *const ids[] = { "a", "b", "c", "d", "e", "f" };
	char longer[BROKER_ID_MAX + 1];
	const struct broker_facts gone = { .is_there = false };
	unsigned drops = 0;

	(void)s;
	memset(longer, 'x', BROKER_ID_MAX);
	longer[BROKER_ID_MAX] = '\0';
	broker_recall_told(b, first, longer, now_ms);
	for (unsigned i = 0; i < ARRAY_LEN(ids); i++)
		broker_recall_told(b, first, ids[i], now_ms);
	read_as(first, facts_of(""));
	now_ms += 60000;
	broker_changed(b, first);
	read_as(first, gone);
	for (struct broker_action a; (a = next(BROKER_ASK)).what == BROKER_DROP;) {
		assert_int_equal(strlen(a.name), 1);
		broker_ended(b, first, 0, now_ms);
		drops++;
	}
	assert_int_equal(drops, BROKER_TOLD_MAX);
	broker_changed(b, second);
	for (unsigned i = 0; i < 20; i++) {
		read_as(second, facts_of("a"));
		expect_ask(BROKER_SERVE, second, "a", ECONNRESET);
		expect_rest();
		assert_in_range(wait_ms, 100, 5000); /* ever longer, and never too long */
		now_ms += wait_ms;
	}
	read_as(second, gone);
	expect_ask(BROKER_DROP, second, "a", 0);
	expect_rest();
}

/* Its process says nothing but that; whether it is closed in its stead. */
static bool is_closed(struct broker_facts f, int err)
{
	rig_end(NULL);
	rig_begin(NULL);
	broker_changed(b, first);
	for (unsigned i = 0; i < 30; i++, now_ms += 500) {
		struct broker_action a = next(BROKER_STORE);

		if (a.what == BROKER_READ)
			broker_read_is(b, first, &f, now_ms);
		else if (a.what == BROKER_CLEAN)
			return true;
		if (next(BROKER_ASK).what == BROKER_SERVE)
			broker_ended(b, first, err, now_ms);
	}
	return false;
}

static void check_what_is_closed(int err)
{
	struct broker_facts f = facts_of("a");

	assert_false(is_closed(f, err));
	f.is_young = false; /* a guest that waits */
	assert_false(is_closed(f, err));
	f.is_online = false;
	assert_false(is_closed(f, err));
	f.is_front_open = false;
	assert_true(is_closed(f, err));
	f.is_online = true;
	assert_true(is_closed(f, err));
	f.is_young = true; /* one that is being made */
	assert_false(is_closed(f, err));
	f.is_online = false;
	assert_true(is_closed(f, err));
}

static void only_what_nobody_uses_is_closed_in_its_process_stead(void **s)
{
	(void)s;
	check_what_is_closed(ESRCH);
	check_what_is_closed(ENOTCONN); /* it is there, and has not got the disk */
}

/* The process was told by a person, say, and does not begin with us. */
static void what_others_tell_a_process_is_closed_by_it_alone(void **s)
{
	struct broker_facts f = facts_of("");

	(void)s;
	f.kind = BROKER_EMPTY;
	f.is_front_open = f.is_young = false;
	broker_recall_told(b, first, "a", now_ms);
	read_as(first, f);
	expect_rest();
}

/* Nobody tells when a guest's side has gone. */
static void whose_guest_is_still_there_at_the_end_is_looked_at_until_it_is_gone(void **s)
{
	struct broker_facts f = facts_of("a");

	(void)s;
	f.is_online = f.is_young = false;
	broker_changed(b, first);
	for (unsigned i = 0; i < 5; i++) {
		read_as(first, f);
		expect_rest();
		assert_in_range(wait_ms, 100, 1000);
		now_ms += wait_ms;
	}
	f.is_front_open = false;
	read_as(first, f);
	assert_int_equal(next(BROKER_STORE).what, BROKER_CLEAN);
}

static void expect_no_more_looks(struct broker_key key, struct broker_facts f)
{
	broker_changed(b, key);
	read_as(key, f);
	expect_rest();
	assert_true(wait_ms == UINT64_MAX);
}

static void what_is_at_its_end_or_waits_for_a_disk_or_is_not_ours_is_not_looked_at_again(void **s)
{
	struct broker_facts closed = facts_of("a"), empty = facts_of(""), others = facts_of("");

	(void)s;
	closed.is_online = closed.is_young = others.is_online = others.is_young = false;
	closed.is_settled = true;
	empty.kind = BROKER_EMPTY;
	others.kind = BROKER_NOBODYS;
	expect_no_more_looks(first, closed);
	expect_no_more_looks(second, empty);
	expect_no_more_looks((struct broker_key){ 9, 51712 }, others);
}

static void whom_others_told_lets_go_of_a_dead_domain(void **s)
{
	struct broker_facts f = facts_of("");

	(void)s;
	f.kind = BROKER_EMPTY;
	broker_recall_told(b, first, "a", now_ms);
	read_as(first, f);
	expect_rest();
	f.is_alive = false;
	broker_changed(b, first);
	read_as(first, f);
	expect_ask(BROKER_DROP, first, "a", 0);
}

static void ten_thousand_devices_each_have_their_turn(void **s)
{
	struct broker_counts counts;

	(void)s;
	for (unsigned n = 0; n < 10000; n++)
		broker_changed(b, (struct broker_key){ (uint16_t)(n / 10), n % 10 });
	for (unsigned n = 0; n < 10000; n++) {
		struct broker_action a = next(BROKER_STORE);
		struct broker_facts f = facts_of("a");

		assert_int_equal(a.what, BROKER_READ);
		assert_int_equal(a.key.domain, n / 10);
		broker_read_is(b, a.key, &f, now_ms);
	}
	broker_count(b, &counts);
	assert_int_equal(counts.devices, 10000);
	assert_int_equal(counts.reads, 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_storm_is_one_place_in_the_line), TEST(who_does_not_answer_keeps_nobody_waiting),
		TEST(an_answer_that_was_overtaken_is_not_believed),
		TEST(what_fails_is_tried_less_and_less_often_and_at_once_when_something_happens),
		TEST(whose_domain_dies_is_let_go_of_at_once_however_long_it_has_failed),
		TEST(once_it_was_served_the_next_failure_is_a_first_one),
		TEST(whoever_has_it_lets_go_before_another_is_told),
		TEST(what_happens_while_it_is_read_is_read_too), TEST(what_others_tell_a_process_is_let_alone),
		TEST(what_let_go_of_a_device_is_asked_anew_when_that_comes_again),
		TEST(what_failed_is_read_again_before_it_is_tried_again),
		TEST(a_device_whose_guest_is_gone_is_closed_in_its_process_stead), TEST(a_device_that_is_not_ours_is_let_alone),
		TEST(who_has_not_got_the_disk_is_asked_no_more_when_the_device_ends),
		TEST(a_device_that_is_not_online_is_not_begun), TEST(who_was_told_is_kept_within_bounds_and_once),
		TEST(only_what_nobody_uses_is_closed_in_its_process_stead),
		TEST(what_others_tell_a_process_is_closed_by_it_alone),
		TEST(whose_guest_is_still_there_at_the_end_is_looked_at_until_it_is_gone),
		TEST(what_is_at_its_end_or_waits_for_a_disk_or_is_not_ours_is_not_looked_at_again), TEST(whom_others_told_lets_go_of_a_dead_domain),
		TEST(ten_thousand_devices_each_have_their_turn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
