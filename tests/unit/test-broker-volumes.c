/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The broker's core where a device has a volume's URI (xl): it is activated for it, for one guest that writes or several that read, and
 * let go of.
 */
#include <errno.h>

#include "tests/unit/broker-rig.h"

static void a_volume_is_activated_served_let_go_of_and_deactivated(void **s)
{
	struct broker_action a;
	const struct broker_facts gone = { .is_there = false };

	(void)s;
	broker_changed(b, first);
	read_as(first, facts_of("sxm:///v"));
	a = next(BROKER_VERB);
	assert_int_equal(a.what, BROKER_TAKE);
	assert_string_equal(a.name, "sxm:///v");
	broker_taken(b, first, 0, "v-1", now_ms);
	expect_ask(BROKER_SERVE, first, "v-1", 0);
	expect_rest();
	broker_changed(b, first);
	read_as(first, gone);
	assert_int_equal(next(BROKER_VERB).what, BROKER_NOTHING);
	expect_ask(BROKER_DROP, first, "v-1", 0);
	a = next(BROKER_VERB);
	assert_int_equal(a.what, BROKER_RELEASE);
	assert_string_equal(a.name, "sxm:///v");
	broker_ended(b, first, 0, now_ms);
	expect_rest();
}

static void who_else_was_told_of_a_volume_lets_go_before_its_process_is_told(void **s)
{
	(void)s;
	broker_recall_taken(b, first, "sxm:///v", false);
	broker_recall_told(b, first, "old", now_ms);
	read_as(first, facts_of("sxm:///v"));
	assert_int_equal(next(BROKER_VERB).what, BROKER_TAKE);
	broker_taken(b, first, 0, "v-1", now_ms);
	expect_ask(BROKER_DROP, first, "old", 0);
	expect_ask(BROKER_SERVE, first, "v-1", 0);
	expect_rest();
}

/* Which process has it was not written down: it is asked for, before anybody is told to let go of it. */
static void a_volume_that_an_earlier_broker_activated_is_not_taken_from_its_guest(void **s)
{
	struct broker_action a;

	(void)s;
	broker_recall_taken(b, first, "sxm:///v", false);
	broker_recall_told(b, first, "v-1", now_ms);
	read_as(first, facts_of("sxm:///v"));
	assert_int_equal(next(BROKER_ASK).what, BROKER_NOTHING);
	a = next(BROKER_VERB);
	assert_int_equal(a.what, BROKER_TAKE);
	broker_taken(b, first, 0, "v-1", now_ms);
	a = next(BROKER_ASK);
	assert_int_equal(a.what, BROKER_SERVE);
	assert_true(a.is_again);
	broker_ended(b, first, 0, now_ms);
	expect_rest();
}

static void expect_take(struct broker_key key, bool is_held)
{
	struct broker_action a = next(BROKER_VERB);

	assert_int_equal(a.what, BROKER_TAKE);
	assert_int_equal(a.key.domain, key.domain);
	assert_int_equal(a.is_held, is_held);
	broker_taken(b, key, is_held ? EBUSY : 0, is_held ? "" : "v-1", now_ms);
}

/* A domain that xl moves to its own host, say: two have the disk in their keys for a moment. */
static void a_volume_that_another_guest_has_is_had_when_that_has_let_go(void **s)
{
	const struct broker_facts gone = { .is_there = false };

	(void)s;
	broker_changed(b, first);
	read_as(first, facts_of("sxm:///v"));
	expect_take(first, false);
	expect_ask(BROKER_SERVE, first, "v-1", 0);
	broker_changed(b, second);
	read_as(second, facts_of("sxm:///v"));
	expect_take(second, true);
	expect_rest();
	broker_changed(b, first);
	read_as(first, gone);
	expect_ask(BROKER_DROP, first, "v-1", 0);
	assert_int_equal(next(BROKER_VERB).what, BROKER_RELEASE);
	broker_ended(b, first, 0, now_ms);
	read_as(second, facts_of("sxm:///v")); /* at once */
	expect_take(second, false);
	expect_ask(BROKER_SERVE, second, "v-1", 0);
	expect_rest();
}

static void a_volume_is_had_by_several_who_read_or_by_one_who_writes(void **s)
{
	static const bool reads[][2] = { { true, true }, { true, false }, { false, true }, { false, false } };

	for (unsigned i = 0; i < ARRAY_LEN(reads); i++) {
		struct broker_facts f = facts_of("sxm:///v");

		for (unsigned n = 0; n < 2; n++) {
			f.is_read_only = reads[i][n];
			broker_changed(b, n ? second : first);
			read_as(n ? second : first, f);
			expect_take(n ? second : first, n && i);
		}
		rig_end(s);
		rig_begin(s);
	}
}

/* The toolstack had not yet said that its guest may write. */
static void a_volume_that_was_activated_for_something_else_is_activated_anew(void **s)
{
	struct broker_facts f = facts_of("sxm:///v");

	(void)s;
	f.is_read_only = true;
	broker_changed(b, first);
	read_as(first, f);
	expect_take(first, false);
	expect_ask(BROKER_SERVE, first, "v-1", 0);
	f.is_read_only = false;
	broker_changed(b, first);
	read_as(first, f);
	expect_ask(BROKER_DROP, first, "v-1", 0);
	assert_int_equal(next(BROKER_VERB).what, BROKER_RELEASE);
	broker_ended(b, first, 0, now_ms);
	expect_take(first, false);
	expect_ask(BROKER_SERVE, first, "v-1", 0);
	expect_rest();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_volume_is_activated_served_let_go_of_and_deactivated),
		TEST(who_else_was_told_of_a_volume_lets_go_before_its_process_is_told),
		TEST(a_volume_that_an_earlier_broker_activated_is_not_taken_from_its_guest),
		TEST(a_volume_that_another_guest_has_is_had_when_that_has_let_go),
		TEST(a_volume_is_had_by_several_who_read_or_by_one_who_writes),
		TEST(a_volume_that_was_activated_for_something_else_is_activated_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
