/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The commit's table, row by row: what a verb may do in which state, and what becomes of the record.  What links ask and answer
 * is
 * test-commit-links; the interleavings are tests/sim/sim-commit's.
 */
#include "tests/unit/commit-rows.h"

/* --- activation */

static const struct commit_activation guest = { .domain = COMMIT_GUEST };
static const struct commit_activation guest_linked = { .domain = COMMIT_GUEST, .is_linked = true };
static const struct commit_activation forced = { .domain = COMMIT_GUEST, .is_forced = true };
static const struct commit_activation reader = { .domain = COMMIT_GUEST, .is_read_only = true };

static void a_volume_without_a_record_is_owned_and_started(void **state)
{
	struct commit_record r;
	struct commit_verdict v;

	(void)state;
	commit_record_init(&r);
	v = commit_activate(&r, &guest);
	expect(v, COMMIT_ALLOW, COMMIT_OWNED, 1);
	assert_true(v.is_changed && v.next.was_written); /* no mirror may take it over from now on */
	assert_false(commit_activate(&v.next, &guest).is_changed);
}

static void the_first_activation_takes_what_is_eligible(void **state)
{
	struct commit_record r = record(COMMIT_ELIGIBLE, 5);
	const struct commit_activation dom0 = { .domain = COMMIT_DOM0 };
	struct commit_link link = link_of(4, 3);
	struct commit_verdict v = commit_activate(&r, &guest);

	(void)state;
	expect(v, COMMIT_ALLOW, COMMIT_OWNED, 5);
	assert_true(v.is_changed && v.next.was_written);
	assert_int_equal(commit_far_news(&v.next, &link), COMMIT_NEWS_TAKEN);
	expect(commit_activate(&r, &dom0), COMMIT_ALLOW, COMMIT_OWNED, 5);
}

static void what_is_not_complete_starts_by_force_only_and_is_of_no_mirror_then(void **state)
{
	static const struct { enum commit_state state; enum commit_why why; } rows[] = {
		{ COMMIT_RECEIVING, COMMIT_WHY_RECEIVING },
		{ COMMIT_INCOMPLETE, COMMIT_WHY_INCOMPLETE },
		{ COMMIT_RELEASED, COMMIT_WHY_RELEASED },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct commit_record r = record(rows[i].state, 4);
		struct commit_link link = link_of(4, 3);
		struct commit_verdict v;

		refused(commit_activate(&r, &guest), rows[i].why);
		refused(commit_activate(&r, &guest_linked), rows[i].why);
		v = commit_activate(&r, &forced);
		expect(v, COMMIT_ALLOW, COMMIT_OWNED, 5);
		assert_int_equal(v.why, COMMIT_WHY_FORCED);
		assert_true(v.shuts_out && v.next.was_written);
		assert_int_equal(commit_far_news(&v.next, &link), COMMIT_NEWS_NONE); /* not TAKEN */
		answered(commit_far_commit(&v.next, &link, true), COMMIT_STATUS_NOT_YOURS, false, COMMIT_OWNED, 5);
		answered(commit_far_hello(&v.next, &link, false), COMMIT_STATUS_NOT_YOURS, false, COMMIT_OWNED, 5);
	}
}

static void readers_change_nothing(void **state)
{
	const struct commit_activation dom0 = { .domain = COMMIT_DOM0, .is_read_only = true };
	const struct commit_activation mirror = { .domain = COMMIT_MIRROR };
	const struct commit_activation forced_reader = { .is_read_only = true, .is_forced = true };

	(void)state;
	for (enum commit_state s = COMMIT_OWNED; s <= COMMIT_RELEASED; s++) {
		struct commit_record r = record(s, 4);
		bool is_partial = s == COMMIT_RECEIVING || s == COMMIT_INCOMPLETE;

		assert_int_equal(commit_activate(&r, &reader).does, is_partial ? COMMIT_REFUSE : COMMIT_ALLOW);
		assert_false(commit_activate(&r, &reader).is_changed);
		expect(commit_activate(&r, &forced_reader), COMMIT_ALLOW, s, 4);
		expect(commit_activate(&r, &dom0), COMMIT_ALLOW, s, 4);
		expect(commit_activate(&r, &mirror), COMMIT_ALLOW, s, 4);
		assert_false(commit_activate(&r, &mirror).is_changed);
	}
}

static void an_offered_disk_is_asked_for_or_withdrawn_before_it_starts(void **state)
{
	struct commit_record r = record(COMMIT_OFFERED, 5);
	const struct commit_activation pending = { .is_linked = true, .is_pending = true };
	struct commit_verdict v = commit_activate(&r, &guest);

	(void)state;
	assert_int_equal(commit_activate(&r, &pending).does, COMMIT_WAIT);
	assert_int_equal(commit_activate(&r, &guest_linked).does, COMMIT_ASK_RECLAIM);
	expect(v, COMMIT_ALLOW, COMMIT_OWNED, 6);
	assert_true(v.is_changed);
	assert_int_equal(v.why, COMMIT_WHY_WITHDRAWN);
}

static void a_given_disk_starts_after_reclaim_only(void **state)
{
	struct commit_record r = record(COMMIT_GIVEN, 5);

	(void)state;
	refused(commit_activate(&r, &guest), COMMIT_WHY_GIVEN);
	refused(commit_activate(&r, &forced), COMMIT_WHY_GIVEN);
	assert_int_equal(commit_activate(&r, &guest_linked).does, COMMIT_ASK_RECLAIM);
	r.is_taken = true;
	refused(commit_activate(&r, &guest_linked), COMMIT_WHY_TAKEN);
}

static void what_was_given_away_may_receive_again_and_starts_nobody(void **state)
{
	struct commit_record r = record(COMMIT_GIVEN, 5);
	const struct commit_link link = { "another", 9, 1 };
	struct commit_verdict v = commit_drop(&r);

	(void)state;
	expect(v, COMMIT_ALLOW, COMMIT_INCOMPLETE, 5);
	assert_true(v.is_changed && commit_record_is_valid(&v.next));
	assert_false(commit_drop(&v.next).is_changed); /* again */
	refused(commit_activate(&v.next, &guest), COMMIT_WHY_INCOMPLETE);
	assert_int_equal(commit_far_hello(&v.next, &link, false).next.state, COMMIT_RECEIVING);
	for (enum commit_state s = COMMIT_OWNED; s <= COMMIT_RELEASED; s++) {
		r = record(s, 5);
		if (s != COMMIT_GIVEN && s != COMMIT_INCOMPLETE)
			refused(commit_drop(&r), COMMIT_WHY_NOT_GIVEN);
	}
}

static void what_was_handed_over_is_called_back_until_it_is_started(void **state)
{
	const struct commit_link newer = link_of(9, 4);
	struct commit_record r = record(COMMIT_ELIGIBLE, 5);
	struct commit_verdict v = commit_recall(&r, "m", 6);

	(void)state;
	expect(v, COMMIT_ALLOW, COMMIT_INCOMPLETE, 6);
	assert_true(v.is_changed && v.shuts_out && commit_record_is_valid(&v.next));
	assert_false(commit_recall(&v.next, "m", 6).is_changed); /* again */
	refused(commit_activate(&v.next, &guest), COMMIT_WHY_INCOMPLETE);
	assert_int_equal(commit_far_hello(&v.next, &newer, false).status, COMMIT_STATUS_BAD_STATE); /* it has ENDED */
	refused(commit_recall(&r, "m", 5), COMMIT_WHY_NO_OPERATION); /* its source gave it away since it said so */
	refused(commit_recall(&r, "another", 6), COMMIT_WHY_NO_OPERATION);
	r = taken(5);
	refused(commit_recall(&r, "m", 6), COMMIT_WHY_STARTED);
	r = record(COMMIT_RECEIVING, 4);
	expect(commit_recall(&r, "m", 4), COMMIT_ALLOW, COMMIT_INCOMPLETE, 4);
	r.epoch = 6;
	refused(commit_recall(&r, "m", 4), COMMIT_WHY_NO_OPERATION);
	r = record(COMMIT_RELEASED, 6);
	v = commit_recall(&r, "m", 6);
	expect(v, COMMIT_ALLOW, COMMIT_RELEASED, 6);
	assert_true(v.next.is_acknowledged);
	r = source(5);
	refused(commit_recall(&r, "m", 6), COMMIT_WHY_NO_OPERATION);
}

static void activation_settles_an_operation_that_is_over(void **state)
{
	struct commit_record r = source(4);

	(void)state;
	r.is_told = true;
	assert_true(commit_activate(&r, &guest).next.is_told); /* it goes on */
	r.is_raised = true;
	assert_false(commit_activate(&r, &guest).next.is_told);
}

static void an_unverified_disk_starts_with_a_line_in_the_log(void **state)
{
	struct commit_record r;
	struct commit_verdict v;

	(void)state;
	commit_record_init(&r);
	v = commit_far_foreign(&r);
	assert_true(v.is_changed && v.next.is_unverified && !v.next.was_written);
	r = v.next;
	v = commit_activate(&r, &guest);
	expect(v, COMMIT_ALLOW, COMMIT_OWNED, 1);
	assert_int_equal(v.why, COMMIT_WHY_UNVERIFIED);
	assert_int_equal(commit_activate(&v.next, &guest).why, COMMIT_WHY_NONE); /* once */
}

/* --- writes */

static void writes_go_where_the_record_lets_them(void **state)
{
	static const struct { enum commit_state state; enum commit_does local, linked, foreign; } rows[] = {
		{ COMMIT_OWNED, COMMIT_ALLOW, COMMIT_REFUSE, COMMIT_ALLOW },
		{ COMMIT_OFFERED, COMMIT_WAIT, COMMIT_REFUSE, COMMIT_REFUSE },
		{ COMMIT_GIVEN, COMMIT_REFUSE, COMMIT_REFUSE, COMMIT_REFUSE },
		{ COMMIT_RECEIVING, COMMIT_REFUSE, COMMIT_ALLOW, COMMIT_REFUSE },
		{ COMMIT_ELIGIBLE, COMMIT_REFUSE, COMMIT_REFUSE, COMMIT_REFUSE },
		{ COMMIT_INCOMPLETE, COMMIT_REFUSE, COMMIT_REFUSE, COMMIT_ALLOW },
		{ COMMIT_RELEASED, COMMIT_REFUSE, COMMIT_REFUSE, COMMIT_REFUSE },
	};
	struct commit_link link = link_of(4, 3), older = link_of(4, 2), behind = link_of(2, 3);
	struct commit_record r = taken(4);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct commit_record row = record(rows[i].state, 4);

		assert_int_equal(commit_write(&row, COMMIT_LOCAL, NULL), rows[i].local);
		assert_int_equal(commit_write(&row, COMMIT_LINKED, &link), rows[i].linked);
		assert_int_equal(commit_write(&row, COMMIT_FOREIGN, NULL), rows[i].foreign);
	}
	assert_int_equal(commit_write(&r, COMMIT_FOREIGN, NULL), COMMIT_REFUSE); /* a guest runs on it */
	assert_int_equal(commit_write(&r, COMMIT_LINKED, &link), COMMIT_REFUSE);
	r = record(COMMIT_RECEIVING, 4);
	assert_int_equal(commit_write(&r, COMMIT_LINKED, &older), COMMIT_REFUSE);
	assert_int_equal(commit_write(&r, COMMIT_LINKED, &behind), COMMIT_ALLOW);
}

/* --- destruction, the admin's word */

static void what_may_be_the_only_copy_is_released_first(void **state)
{
	struct commit_record r = record(COMMIT_ELIGIBLE, 5);
	const struct commit_destruction linked = { .is_linked = true }, alone = { .unlinked_s = 60 };
	const struct commit_destruction long_alone = { .unlinked_s = COMMIT_UNLINKED_DESTROY_S },
		by_force = { .is_forced = true };
	struct commit_link link = link_of(4, 3);
	struct commit_verdict v = commit_destroy(&r, &linked);

	(void)state;
	expect(v, COMMIT_WAIT, COMMIT_RELEASED, 6);
	assert_true(v.is_changed);
	refused(commit_destroy(&r, &alone), COMMIT_WHY_ONLY_COPY);
	assert_int_equal(commit_destroy(&r, &long_alone).does, COMMIT_ALLOW);
	assert_int_equal(commit_destroy(&r, &by_force).does, COMMIT_ALLOW);
	r = v.next;
	assert_int_equal(commit_far_news(&r, &link), COMMIT_NEWS_RELEASED);
	expect(commit_destroy(&r, &linked), COMMIT_WAIT, COMMIT_RELEASED, 6);
	refused(commit_destroy(&r, &alone), COMMIT_WHY_ONLY_COPY);
	r = commit_far_acknowledged(&r, &link).next;
	assert_int_equal(commit_far_news(&r, &link), COMMIT_NEWS_NONE);
	expect(commit_destroy(&r, &alone), COMMIT_ALLOW, COMMIT_RELEASED, 6);
}

static void a_source_that_may_be_the_only_good_copy_stays(void **state)
{
	const struct commit_destruction plain = { 0 }, by_force = { .is_forced = true };
	struct commit_record r = source(4);

	(void)state;
	assert_int_equal(commit_destroy(&r, &plain).does, COMMIT_ALLOW);
	r.is_told = r.is_raised = r.is_ended = true;
	refused(commit_destroy(&r, &plain), COMMIT_WHY_UNRESOLVED);
	assert_int_equal(commit_destroy(&r, &by_force).does, COMMIT_ALLOW);
	r = commit_source_settle(&r).next;
	assert_int_equal(commit_destroy(&r, &plain).does, COMMIT_ALLOW);
	r = record(COMMIT_OFFERED, 5);
	refused(commit_destroy(&r, &plain), COMMIT_WHY_UNRESOLVED);
	expect(commit_source_settle(&r), COMMIT_ALLOW, COMMIT_OWNED, 6);
	r = record(COMMIT_GIVEN, 5);
	r.is_told = true;
	expect(commit_destroy(&r, &plain), COMMIT_ALLOW, COMMIT_GIVEN, 5); /* the move is done */
	expect(commit_source_settle(&r), COMMIT_ALLOW, COMMIT_GIVEN, 5);
	r = record(COMMIT_RECEIVING, 4);
	expect(commit_destroy(&r, &plain), COMMIT_ALLOW, COMMIT_INCOMPLETE, 4);
}

static void an_admins_word_decides_where_nobody_owns(void **state)
{
	static const struct { enum commit_state state; enum commit_does plain; uint64_t plain_epoch, forced_epoch; } rows[] = {
		{ COMMIT_OWNED, COMMIT_REFUSE, 5, 5 },      { COMMIT_OFFERED, COMMIT_ALLOW, 6, 6 },
		{ COMMIT_GIVEN, COMMIT_ALLOW, 6, 6 },       { COMMIT_RECEIVING, COMMIT_REFUSE, 5, 6 },
		{ COMMIT_ELIGIBLE, COMMIT_ALLOW, 5, 5 },    { COMMIT_INCOMPLETE, COMMIT_REFUSE, 5, 6 },
		{ COMMIT_RELEASED, COMMIT_REFUSE, 5, 6 },
	};
	struct commit_record r = record(COMMIT_GIVEN, 5);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct commit_record row = record(rows[i].state, 5);

		assert_int_equal(commit_take(&row, false).does, rows[i].plain);
		assert_int_equal(commit_take(&row, false).next.epoch, rows[i].plain_epoch);
		assert_int_equal(commit_take(&row, true).next.epoch, rows[i].forced_epoch);
		assert_int_equal(commit_take(&row, true).next.state, COMMIT_OWNED);
	}
	r.is_taken = true;
	refused(commit_take(&r, false), COMMIT_WHY_TAKEN);
	assert_int_equal(commit_take(&r, true).does, COMMIT_ALLOW);
	assert_false(commit_take(&r, true).next.is_taken);
}

/* --- the record */

static void a_record_from_a_file_is_checked(void **state)
{
	struct commit_record r = record(COMMIT_GIVEN, 5);

	(void)state;
	assert_true(commit_record_is_valid(&r));
	r.role = COMMIT_ROLE_FAR;
	assert_false(commit_record_is_valid(&r));
	r = record(COMMIT_GIVEN, 1); /* of epoch 0 nobody gives anything away */
	assert_false(commit_record_is_valid(&r));
	r = record(COMMIT_ELIGIBLE, UINT64_MAX);
	assert_false(commit_record_is_valid(&r));
	r = record(COMMIT_ELIGIBLE, 5);
	memset(r.mirror, 'x', sizeof(r.mirror)); /* no end */
	assert_false(commit_record_is_valid(&r));
	r = record(COMMIT_ELIGIBLE, 5);
	r.since = r.generation + 1;
	assert_false(commit_record_is_valid(&r));
	r = record(COMMIT_ELIGIBLE, 5);
	r.state = 0;
	assert_false(commit_record_is_valid(&r));
	r.state = 8;
	assert_false(commit_record_is_valid(&r));
}

static void states_have_names_and_reasons_have_sentences(void **state)
{
	enum commit_state s;

	(void)state;
	for (enum commit_state i = COMMIT_OWNED; i <= COMMIT_RELEASED; i++) {
		assert_true(commit_state_by_name(commit_state_name(i), &s));
		assert_int_equal(s, i);
	}
	assert_false(commit_state_by_name("own", &s));
	for (enum commit_why i = 0; i < COMMIT_WHY_COUNT; i++)
		assert_non_null(commit_why_text(i));
	assert_int_equal(commit_news_state(COMMIT_NEWS_TAKEN), COMMIT_OWNED);
	assert_int_equal(commit_news_state(COMMIT_NEWS_ENDED), COMMIT_INCOMPLETE);
	assert_int_equal(commit_news_state(COMMIT_NEWS_RELEASED), COMMIT_RELEASED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_volume_without_a_record_is_owned_and_started),
		cmocka_unit_test(the_first_activation_takes_what_is_eligible),
		cmocka_unit_test(what_is_not_complete_starts_by_force_only_and_is_of_no_mirror_then),
		cmocka_unit_test(readers_change_nothing),
		cmocka_unit_test(an_offered_disk_is_asked_for_or_withdrawn_before_it_starts),
		cmocka_unit_test(a_given_disk_starts_after_reclaim_only),
		cmocka_unit_test(what_was_given_away_may_receive_again_and_starts_nobody),
		cmocka_unit_test(what_was_handed_over_is_called_back_until_it_is_started),
		cmocka_unit_test(activation_settles_an_operation_that_is_over),
		cmocka_unit_test(an_unverified_disk_starts_with_a_line_in_the_log),
		cmocka_unit_test(writes_go_where_the_record_lets_them),
		cmocka_unit_test(what_may_be_the_only_copy_is_released_first),
		cmocka_unit_test(a_source_that_may_be_the_only_good_copy_stays),
		cmocka_unit_test(an_admins_word_decides_where_nobody_owns),
		cmocka_unit_test(a_record_from_a_file_is_checked),
		cmocka_unit_test(states_have_names_and_reasons_have_sentences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
