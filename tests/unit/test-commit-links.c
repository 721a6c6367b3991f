/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The commit's table, row by row: what a link may ask of a far volume in which state, what a barrier does to its source, and what the
 * far side's words mean there.
 */
#include "tests/unit/commit-rows.h"

/* --- the far role */

static void hello_admits_a_new_mirror_where_nobody_loses(void **state)
{
	struct commit_link link = { .mirror = "new", .epoch = 9, .generation = 7 };
	struct commit_record fresh, r = source(4);
	struct commit_verdict v;

	(void)state;
	commit_record_init(&fresh);
	v = commit_far_hello(&fresh, &link, false);
	answered(v, COMMIT_STATUS_OK, true, COMMIT_RECEIVING, 9);
	assert_string_equal(v.next.mirror, "new");
	assert_int_equal(v.next.generation, 7);
	assert_int_equal(v.next.since, 7);
	assert_int_equal(v.link_epoch, 9);
	assert_true(v.shuts_out);
	answered(commit_far_hello(&r, &link, false), COMMIT_STATUS_NOT_YOURS, false, COMMIT_OWNED, 4); /* mirrored itself */
	fresh.was_written = true;
	answered(commit_far_hello(&fresh, &link, false), COMMIT_STATUS_NOT_YOURS, false, COMMIT_OWNED, 1);
	r = taken(4);
	answered(commit_far_hello(&r, &link, false), COMMIT_STATUS_NOT_YOURS, false, COMMIT_OWNED, 4);
}

static void hello_takes_over_from_a_dead_mirror_only(void **state)
{
	static const struct { enum commit_state state; bool is_free; } rows[] = {
		{ COMMIT_OFFERED, false },  { COMMIT_GIVEN, false },     { COMMIT_RECEIVING, true },
		{ COMMIT_ELIGIBLE, false }, { COMMIT_INCOMPLETE, true }, { COMMIT_RELEASED, false },
	};
	struct commit_link link = { .mirror = "new", .epoch = 1, .generation = 1 };
	struct commit_record r = record(COMMIT_RELEASED, 4);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct commit_record row = record(rows[i].state, 4);
		struct commit_verdict v = commit_far_hello(&row, &link, false);

		assert_int_equal(v.status, rows[i].is_free ? COMMIT_STATUS_OK : COMMIT_STATUS_NOT_YOURS);
		assert_int_equal(v.next.since, rows[i].is_free ? 1 : row.since);
		assert_int_equal(commit_far_hello(&row, &link, true).status, COMMIT_STATUS_NOT_YOURS);
	}
	r.is_acknowledged = true;
	answered(commit_far_hello(&r, &link, false), COMMIT_STATUS_OK, true, COMMIT_RECEIVING, 1);
}

static void hello_of_the_same_mirror_goes_on_where_it_was(void **state)
{
	struct commit_record r = record(COMMIT_RECEIVING, 4);
	struct commit_link link = link_of(4, 4), second = link_of(4, 3), older = link_of(4, 2), behind = link_of(2, 4);
	struct commit_link ahead = link_of(6, 4), far_behind = link_of(1, 4);
	struct commit_verdict v = commit_far_hello(&r, &link, false);

	(void)state;
	answered(v, COMMIT_STATUS_OK, true, COMMIT_RECEIVING, 4);
	assert_true(v.shuts_out);
	assert_int_equal(v.next.generation, 4);
	assert_int_equal(v.next.since, 2); /* what it had before is still there */
	v = commit_far_hello(&r, &second, false);
	answered(v, COMMIT_STATUS_OK, false, COMMIT_RECEIVING, 4);
	assert_false(v.shuts_out);
	answered(commit_far_hello(&r, &older, false), COMMIT_STATUS_STALE, false, COMMIT_RECEIVING, 4);
	answered(commit_far_hello(&r, &behind, false), COMMIT_STATUS_OK, true, COMMIT_RECEIVING, 4); /* RECLAIM's answer was lost */
	answered(commit_far_hello(&r, &far_behind, false), COMMIT_STATUS_STALE, false, COMMIT_RECEIVING, 4);
	answered(commit_far_hello(&r, &ahead, false), COMMIT_STATUS_OK, true, COMMIT_RECEIVING, 6); /* it was withdrawn */
}

static void hello_after_commit(void **state)
{
	struct commit_record r = record(COMMIT_ELIGIBLE, 5);
	struct commit_link link = link_of(4, 4), ahead = link_of(6, 4), older = link_of(4, 2);
	struct commit_verdict v = commit_far_hello(&r, &link, false);

	(void)state;
	answered(v, COMMIT_STATUS_OK, true, COMMIT_ELIGIBLE, 5); /* the generation */
	assert_int_equal(commit_write(&v.next, COMMIT_LINKED, &link), COMMIT_REFUSE);
	answered(commit_far_hello(&r, &ahead, false), COMMIT_STATUS_OK, true, COMMIT_RECEIVING, 6); /* as good as RECLAIM */
	answered(commit_far_hello(&r, &older, false), COMMIT_STATUS_STALE, false, COMMIT_ELIGIBLE, 5);
	r = taken(5);
	answered(commit_far_hello(&r, &link, false), COMMIT_STATUS_BAD_STATE, false, COMMIT_OWNED, 5);
	r = record(COMMIT_INCOMPLETE, 4);
	answered(commit_far_hello(&r, &link, false), COMMIT_STATUS_BAD_STATE, false, COMMIT_INCOMPLETE, 4);
	r = record(COMMIT_RELEASED, 6);
	answered(commit_far_hello(&r, &link, false), COMMIT_STATUS_OK, true, COMMIT_RELEASED, 6);
}

static void hello_believes_no_nonsense(void **state)
{
	struct commit_record r;
	struct commit_link links[] = {
		{ .mirror = "", .epoch = 1, .generation = 1 },          { .mirror = ".x", .epoch = 1, .generation = 1 },
		{ .mirror = "a/b", .epoch = 1, .generation = 1 },       { .mirror = "m", .epoch = 0, .generation = 1 },
		{ .mirror = "m", .epoch = UINT64_MAX, .generation = 1 }, { .mirror = "m", .epoch = 1, .generation = 0 },
	};

	(void)state;
	commit_record_init(&r);
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		answered(commit_far_hello(&r, &links[i], false), COMMIT_STATUS_NOT_YOURS, false, COMMIT_OWNED, 1);
}

/* What a link of the right mirror and generation may ask in which state; epochs: the link's is 4. */
static void requests_fit_their_states(void **state)
{
	static const struct {
		enum commit_state state;
		uint64_t epoch;
		enum commit_status prepare, commit, reclaim, end, acknowledged;
	} rows[] = {
		{ COMMIT_RECEIVING, 4, 0, 0, 0, 0, 4 },
		{ COMMIT_RECEIVING, 6, 4, 4, 0, 0, 4 }, /* a RECLAIM was not heard */
		{ COMMIT_RECEIVING, 2, 4, 4, 4, 0, 4 },
		{ COMMIT_ELIGIBLE, 5, 4, 0, 0, 4, 4 },
		{ COMMIT_ELIGIBLE, 7, 4, 4, 4, 4, 4 },
		{ COMMIT_OWNED, 5, 4, 4, 4, 4, 4 }, /* taken */
		{ COMMIT_INCOMPLETE, 4, 4, 4, 4, 0, 4 },
		{ COMMIT_RELEASED, 6, 4, 4, 4, 4, 0 },
	};
	struct commit_link link = link_of(4, 3);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct commit_record r = rows[i].state == COMMIT_OWNED ? taken(5) : record(rows[i].state, rows[i].epoch);

		assert_int_equal(commit_far_prepare(&r, &link).status, rows[i].prepare);
		assert_int_equal(commit_far_commit(&r, &link, true).status, rows[i].commit);
		assert_int_equal(commit_far_reclaim(&r, &link).status, rows[i].reclaim);
		assert_int_equal(commit_far_end(&r, &link).status, rows[i].end);
		assert_int_equal(commit_far_acknowledged(&r, &link).status, rows[i].acknowledged);
		assert_int_equal(commit_far_ping(&r, &link).status, COMMIT_STATUS_OK);
	}
}

static void commit_is_durable_once_and_flushed(void **state)
{
	struct commit_record r = record(COMMIT_RECEIVING, 4);
	struct commit_link link = link_of(4, 3);
	struct commit_verdict v;

	(void)state;
	answered(commit_far_commit(&r, &link, false), COMMIT_STATUS_FAILED, false, COMMIT_RECEIVING, 4);
	v = commit_far_commit(&r, &link, true);
	answered(v, COMMIT_STATUS_OK, true, COMMIT_ELIGIBLE, 5);
	answered(commit_far_commit(&v.next, &link, false), COMMIT_STATUS_OK, false, COMMIT_ELIGIBLE, 5); /* asked again */
}

static void reclaim_fences_the_commit_it_overtook(void **state)
{
	struct commit_record r = record(COMMIT_RECEIVING, 4);
	struct commit_link link = link_of(4, 3), late = link;
	struct commit_verdict v = commit_far_reclaim(&r, &link);

	(void)state;
	answered(v, COMMIT_STATUS_OK, true, COMMIT_RECEIVING, 6);
	assert_int_equal(v.link_epoch, 6);
	answered(commit_far_commit(&v.next, &late, true), COMMIT_STATUS_BAD_STATE, false, COMMIT_RECEIVING, 6);
	answered(commit_far_reclaim(&v.next, &late), COMMIT_STATUS_OK, false, COMMIT_RECEIVING, 6); /* asked again */
	link.epoch = v.link_epoch;
	answered(commit_far_commit(&v.next, &link, true), COMMIT_STATUS_OK, true, COMMIT_ELIGIBLE, 7); /* the next move */
}

static void only_the_newest_links_count(void **state)
{
	struct commit_record r = record(COMMIT_RECEIVING, 4);
	struct commit_link older = link_of(4, 2), newer = link_of(4, 4), other = { .mirror = "x", .epoch = 4, .generation = 3 };

	(void)state;
	answered(commit_far_commit(&r, &older, true), COMMIT_STATUS_STALE, false, COMMIT_RECEIVING, 4);
	answered(commit_far_end(&r, &older), COMMIT_STATUS_STALE, false, COMMIT_RECEIVING, 4);
	answered(commit_far_commit(&r, &newer, true), COMMIT_STATUS_BAD_STATE, false, COMMIT_RECEIVING, 4); /* no HELLO */
	answered(commit_far_commit(&r, &other, true), COMMIT_STATUS_NOT_YOURS, false, COMMIT_RECEIVING, 4);
}

static void the_end_of_mir_ends_what_is_not_committed(void **state)
{
	struct commit_record r = record(COMMIT_RECEIVING, 4);
	struct commit_link link = link_of(4, 3);
	struct commit_verdict v = commit_far_give_up(&r);

	(void)state;
	expect(v, COMMIT_ALLOW, COMMIT_INCOMPLETE, 4);
	assert_int_equal(commit_far_news(&v.next, &link), COMMIT_NEWS_ENDED);
	assert_false(commit_far_lost(&r).is_changed);
	r = record(COMMIT_ELIGIBLE, 5);
	assert_false(commit_far_give_up(&r).is_changed);
	assert_int_equal(commit_far_news(&r, &link), COMMIT_NEWS_NONE);
}

/* --- the source role */

static void a_mirror_begins_where_its_source_owns(void **state)
{
	struct commit_record r = taken(5);
	struct commit_verdict v = commit_source_begin(&r, "next");
	struct commit_link link;

	(void)state;
	expect(v, COMMIT_ALLOW, COMMIT_OWNED, 5);
	assert_true(v.is_changed && v.shuts_out);
	r = v.next;
	v = commit_source_connect(&r, &link);
	assert_true(v.is_changed);
	assert_int_equal(v.next.generation, 1);
	assert_string_equal(link.mirror, "next");
	assert_int_equal(link.epoch, 5);
	assert_int_equal(link.generation, 1);
	r = record(COMMIT_GIVEN, 6);
	commit_source_connect(&r, &link);
	assert_int_equal(link.epoch, 5); /* the name says what the source owned */
	refused(commit_source_begin(&r, "next"), COMMIT_WHY_NOT_OWNED);
	r = record(COMMIT_OFFERED, 6);
	refused(commit_source_begin(&r, "next"), COMMIT_WHY_OFFERED);
	r = record(COMMIT_RECEIVING, 6);
	refused(commit_source_begin(&r, "next"), COMMIT_WHY_NOT_OWNED);
	refused(commit_source_connect(&r, &link), COMMIT_WHY_NO_OPERATION);
}

static void a_barrier_offers_and_gives(void **state)
{
	struct commit_record r = source(4);
	struct commit_verdict v = commit_source_offer(&r);

	(void)state;
	expect(v, COMMIT_ALLOW, COMMIT_OFFERED, 5);
	r = v.next;
	assert_false(commit_source_offer(&r).is_changed);
	refused(commit_source_give(&r, 7), COMMIT_WHY_NO_OPERATION);
	v = commit_source_give(&r, 5);
	expect(v, COMMIT_ALLOW, COMMIT_GIVEN, 5);
	assert_true(v.is_changed);
	assert_false(commit_source_give(&v.next, 5).is_changed);
	r = source(4);
	refused(commit_source_give(&r, 5), COMMIT_WHY_NO_OPERATION);
	r.is_unfenced = true;
	refused(commit_source_offer(&r), COMMIT_WHY_NO_OPERATION);
	r.is_told = true;
	assert_false(commit_source_give_unfenced(&r).next.is_told);
}

/* Offered with other disks: whatever else is asked waits for what was decided for all of them. */
static void a_disk_of_a_group_does_what_was_decided_for_all(void **state)
{
	const struct commit_activation guest = { .domain = COMMIT_GUEST }, linked = { .domain = COMMIT_GUEST, .is_linked = true };
	const struct commit_destruction destruction = { .unlinked_s = 0 };
	struct commit_record r = source(4);
	struct commit_verdict v;

	(void)state;
	r.is_told = true;
	v = commit_source_offer_in(&r, "g");
	expect(v, COMMIT_ALLOW, COMMIT_OFFERED, 5);
	assert_string_equal(v.next.group, "g");
	r = v.next;
	assert_false(commit_source_offer_in(&r, "g").is_changed);
	refused(commit_source_offer_in(&r, "h"), COMMIT_WHY_OFFERED);
	expect(commit_deactivate(&r, false, 0), COMMIT_ASK_GROUP, COMMIT_OFFERED, 5);
	expect(commit_deactivate(&r, true, 0), COMMIT_ASK_GROUP, COMMIT_OFFERED, 5);
	expect(commit_activate(&r, &guest), COMMIT_ASK_GROUP, COMMIT_OFFERED, 5);
	expect(commit_activate(&r, &linked), COMMIT_ASK_GROUP, COMMIT_OFFERED, 5);
	expect(commit_source_barrier_failed(&r), COMMIT_ASK_GROUP, COMMIT_OFFERED, 5);
	expect(commit_source_settle(&r), COMMIT_ASK_GROUP, COMMIT_OFFERED, 5);
	expect(commit_take(&r, false), COMMIT_ASK_GROUP, COMMIT_OFFERED, 5);
	refused(commit_destroy(&r, &destruction), COMMIT_WHY_UNRESOLVED);
	assert_int_equal(commit_write(&r, COMMIT_LOCAL, NULL), COMMIT_WAIT);

	expect(commit_take(&r, true), COMMIT_ALLOW, COMMIT_OWNED, 6);
	v = commit_source_withdraw(&r);
	expect(v, COMMIT_ALLOW, COMMIT_OWNED, 6);
	assert_true(v.next.is_told && !v.next.is_ended && !v.next.is_raised && !v.next.group[0]);
	assert_int_equal(commit_deactivate(&v.next, true, 0).does, COMMIT_BARRIER); /* the operation goes on */
	refused(commit_source_withdraw(&v.next), COMMIT_WHY_NO_OPERATION);

	v = commit_source_give(&r, 5);
	expect(v, COMMIT_ALLOW, COMMIT_GIVEN, 5);
	assert_string_equal(v.next.group, "g"); /* for whoever asks whether it followed */
	assert_int_equal(commit_activate(&v.next, &linked).does, COMMIT_ASK_RECLAIM);
	r = source(4);
	r.is_unfenced = true;
	refused(commit_source_offer_in(&r, "g"), COMMIT_WHY_NO_OPERATION);
	strcpy(r.group, "g");
	assert_false(commit_record_is_valid(&r));
}

static void deactivation_raises_once_and_what_was_offered_is_withdrawn(void **state)
{
	struct commit_record r = record(COMMIT_OFFERED, 5);
	struct commit_verdict v;

	(void)state;
	r.is_told = true;
	assert_int_equal(commit_deactivate(&r, true, 0).does, COMMIT_BARRIER);
	v = commit_deactivate(&r, false, 0);
	expect(v, COMMIT_RAISE, COMMIT_OWNED, 6);
	assert_true(v.is_changed && v.next.is_raised && v.next.is_told);
	r = v.next;
	expect(commit_deactivate(&r, true, 0), COMMIT_ALLOW, COMMIT_OWNED, 6);
	expect(commit_deactivate(&r, false, 0), COMMIT_ALLOW, COMMIT_OWNED, 6);
	r = record(COMMIT_GIVEN, 5);
	r.is_told = true;
	expect(commit_deactivate(&r, false, 0), COMMIT_ALLOW, COMMIT_GIVEN, 5); /* again */
	expect(commit_source_barrier_failed(&r), COMMIT_ALLOW, COMMIT_GIVEN, 5);
}

static void a_dead_mirror_does_not_kill_a_guest(void **state)
{
	struct commit_record r = source(4);

	(void)state;
	assert_int_equal(commit_deactivate(&r, true, 0).does, COMMIT_ALLOW); /* complete was never said */
	assert_int_equal(commit_source_barrier_failed(&r).does, COMMIT_ALLOW);
	r = commit_source_tell(&r).next;
	assert_int_equal(commit_deactivate(&r, true, 0).does, COMMIT_BARRIER);
	r = commit_source_lost(&r, 1000).next;
	r = commit_source_lost(&r, 2000).next; /* the first loss counts */
	assert_int_equal(commit_deactivate(&r, false, 1000 + COMMIT_LOST_RAISES_S - 1).does, COMMIT_RAISE);
	assert_int_equal(commit_deactivate(&r, false, 1000 + COMMIT_LOST_RAISES_S).does, COMMIT_ALLOW);
	r.is_unfenced = true;
	assert_int_equal(commit_deactivate(&r, false, 1000 + COMMIT_LOST_RAISES_S).does, COMMIT_RAISE);
	assert_int_equal(commit_deactivate(&r, false, 1000 + COMMIT_LOST_RAISES_FOREIGN_S).does, COMMIT_ALLOW);
	r = commit_source_linked(&r).next;
	assert_int_equal(commit_deactivate(&r, true, 1000 + COMMIT_LOST_RAISES_FOREIGN_S).does, COMMIT_BARRIER);
	r.is_ended = true;
	assert_int_equal(commit_deactivate(&r, false, 0).does, COMMIT_ALLOW);
}

/* The source's record x what the far side says. n is the record's epoch, 5. */
static void the_far_sides_words_mean(void **state)
{
	static const struct { enum commit_state own, far; uint64_t epoch; enum commit_meaning meaning; enum commit_state next; uint64_t next_epoch; } rows[] = {
		{ COMMIT_OWNED, COMMIT_RECEIVING, 5, COMMIT_MEANS_RECEIVING, COMMIT_OWNED, 5 },
		{ COMMIT_OWNED, COMMIT_RECEIVING, 3, COMMIT_MEANS_NOTHING, COMMIT_OWNED, 5 },
		{ COMMIT_OWNED, COMMIT_RECEIVING, 7, COMMIT_MEANS_CONFLICT, COMMIT_OWNED, 5 },
		{ COMMIT_OWNED, COMMIT_ELIGIBLE, 4, COMMIT_MEANS_ELIGIBLE, COMMIT_OWNED, 5 },
		{ COMMIT_OWNED, COMMIT_ELIGIBLE, 6, COMMIT_MEANS_CONFLICT, COMMIT_OWNED, 5 },
		{ COMMIT_OWNED, COMMIT_OWNED, 4, COMMIT_MEANS_CONFLICT, COMMIT_OWNED, 5 },
		{ COMMIT_OWNED, COMMIT_RELEASED, 5, COMMIT_MEANS_RELEASED, COMMIT_OWNED, 5 },
		{ COMMIT_OWNED, COMMIT_INCOMPLETE, 5, COMMIT_MEANS_ENDED, COMMIT_OWNED, 5 },
		{ COMMIT_OFFERED, COMMIT_RECEIVING, 4, COMMIT_MEANS_RECEIVING, COMMIT_OFFERED, 5 },
		{ COMMIT_OFFERED, COMMIT_RECEIVING, 6, COMMIT_MEANS_RECLAIMED, COMMIT_OWNED, 6 },
		{ COMMIT_OFFERED, COMMIT_RECEIVING, 5, COMMIT_MEANS_CONFLICT, COMMIT_OFFERED, 5 },
		{ COMMIT_OFFERED, COMMIT_ELIGIBLE, 5, COMMIT_MEANS_ELIGIBLE, COMMIT_OFFERED, 5 },
		{ COMMIT_OFFERED, COMMIT_ELIGIBLE, 3, COMMIT_MEANS_CONFLICT, COMMIT_OFFERED, 5 },
		{ COMMIT_OFFERED, COMMIT_OWNED, 5, COMMIT_MEANS_TAKEN, COMMIT_GIVEN, 5 },
		{ COMMIT_OFFERED, COMMIT_OWNED, 6, COMMIT_MEANS_CONFLICT, COMMIT_OFFERED, 5 },
		{ COMMIT_OFFERED, COMMIT_RELEASED, 6, COMMIT_MEANS_RELEASED, COMMIT_OWNED, 6 },
		{ COMMIT_OFFERED, COMMIT_INCOMPLETE, 4, COMMIT_MEANS_ENDED, COMMIT_OWNED, 6 },
		{ COMMIT_OFFERED, COMMIT_INCOMPLETE, 6, COMMIT_MEANS_ENDED, COMMIT_OWNED, 6 },
		{ COMMIT_GIVEN, COMMIT_ELIGIBLE, 5, COMMIT_MEANS_ELIGIBLE, COMMIT_GIVEN, 5 },
		{ COMMIT_GIVEN, COMMIT_OWNED, 5, COMMIT_MEANS_TAKEN, COMMIT_GIVEN, 5 },
		{ COMMIT_GIVEN, COMMIT_RECEIVING, 6, COMMIT_MEANS_RECLAIMED, COMMIT_OWNED, 6 },
		{ COMMIT_GIVEN, COMMIT_RECEIVING, 4, COMMIT_MEANS_CONFLICT, COMMIT_GIVEN, 5 }, /* it lost its record */
		{ COMMIT_GIVEN, COMMIT_RELEASED, 6, COMMIT_MEANS_RELEASED, COMMIT_OWNED, 6 },
		{ COMMIT_GIVEN, COMMIT_INCOMPLETE, 6, COMMIT_MEANS_ENDED, COMMIT_OWNED, 6 },
		{ COMMIT_GIVEN, COMMIT_INCOMPLETE, 4, COMMIT_MEANS_CONFLICT, COMMIT_GIVEN, 5 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct commit_record r = rows[i].own == COMMIT_OWNED ? source(5) : record(rows[i].own, 5);
		enum commit_meaning meaning;
		struct commit_verdict v = commit_source_heard(&r, COMMIT_STATUS_OK, rows[i].far, rows[i].epoch, &meaning);

		assert_int_equal(meaning, rows[i].meaning);
		expect(v, COMMIT_ALLOW, rows[i].next, rows[i].next_epoch);
		assert_int_equal(v.next.is_taken, meaning == COMMIT_MEANS_TAKEN);
		assert_int_equal(v.next.is_ended, meaning == COMMIT_MEANS_RELEASED || meaning == COMMIT_MEANS_ENDED);
		commit_source_heard(&r, COMMIT_STATUS_BAD_STATE, rows[i].far, rows[i].epoch, &meaning);
		assert_int_equal(meaning, rows[i].meaning);
		v = commit_source_heard(&r, COMMIT_STATUS_NOT_YOURS, rows[i].far, rows[i].epoch, &meaning);
		assert_int_equal(meaning, COMMIT_MEANS_NOTHING); /* another's record: no word about this one */
		assert_false(v.is_changed);
	}
}

static void taken_is_final(void **state)
{
	struct commit_record r = record(COMMIT_GIVEN, 5);
	enum commit_meaning meaning;

	(void)state;
	r.is_taken = true;
	for (enum commit_state s = COMMIT_OWNED; s <= COMMIT_RELEASED; s++) {
		assert_false(commit_source_heard(&r, COMMIT_STATUS_OK, s, 6, &meaning).is_changed);
		assert_int_equal(meaning, COMMIT_MEANS_NOTHING);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hello_admits_a_new_mirror_where_nobody_loses),
		cmocka_unit_test(hello_takes_over_from_a_dead_mirror_only),
		cmocka_unit_test(hello_of_the_same_mirror_goes_on_where_it_was),
		cmocka_unit_test(hello_after_commit),
		cmocka_unit_test(hello_believes_no_nonsense),
		cmocka_unit_test(requests_fit_their_states),
		cmocka_unit_test(commit_is_durable_once_and_flushed),
		cmocka_unit_test(reclaim_fences_the_commit_it_overtook),
		cmocka_unit_test(only_the_newest_links_count),
		cmocka_unit_test(the_end_of_mir_ends_what_is_not_committed),
		cmocka_unit_test(a_mirror_begins_where_its_source_owns),
		cmocka_unit_test(a_barrier_offers_and_gives),
		cmocka_unit_test(a_disk_of_a_group_does_what_was_decided_for_all),
		cmocka_unit_test(deactivation_raises_once_and_what_was_offered_is_withdrawn),
		cmocka_unit_test(a_dead_mirror_does_not_kill_a_guest),
		cmocka_unit_test(the_far_sides_words_mean),
		cmocka_unit_test(taken_is_final),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
