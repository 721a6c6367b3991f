/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A disk as the far side of a mirror, over fakes of the rooms below: what is on record before what is answered, who may write when,
 * and what is left after each way to end.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nbdsrv/wire.h"
#include "tests/unit/vdi-rig.h"

static uint64_t u64(const struct fake_answer *a, unsigned at)
{
	return (uint64_t)a->field[at] << 32 | a->field[at + 1];
}

static struct fake_answer asked(struct nbdsrv_link *l, uint64_t opcode)
{
	struct fake_answer a = { 0 };

	fake_ask(l, opcode, &a);
	UNTIL(a.count);
	return a;
}

static void expect(struct nbdsrv_link *l, uint64_t opcode, enum commit_status status, enum commit_state state, uint64_t epoch)
{
	struct fake_answer a = asked(l, opcode);

	assert_int_equal(a.field[0], status);
	assert_int_equal(a.field[1], state);
	assert_int_equal(u64(&a, 2), epoch);
}

/* MIR1 is active, and a link of mirror "m", epoch 7, is let in. */
static struct nbdsrv_link *receive(uint64_t generation)
{
	struct nbdsrv_link *l;

	if (!vdi_is_empty(rig_vdi))
		fake.trace[0] = '\0';
	else
		assert_int_equal(rig_activate("MIR1", false), 0);
	l = fake_link("m", 7, generation);
	expect(l, XSXM_HELLO, COMMIT_STATUS_OK, COMMIT_RECEIVING, 7);
	return l;
}

static struct nbdsrv_link *commit(void)
{
	struct nbdsrv_link *l = receive(1);

	expect(l, XSXM_PREPARE, COMMIT_STATUS_OK, COMMIT_RECEIVING, 7);
	expect(l, XSXM_COMMIT, COMMIT_STATUS_OK, COMMIT_ELIGIBLE, 8);
	return l;
}

static void a_link_is_let_in_when_that_is_on_record(void **state)
{
	struct fake_answer a;
	struct nbdsrv_link *l;

	(void)state;
	assert_int_equal(rig_activate("MIR1", false), 0);
	assert_int_equal(fake.plain, NBDSRV_PLAIN_ASKS);
	assert_false(rig_is_owned("state"));
	l = fake_link("m", 7, 3);
	a = asked(l, XSXM_HELLO);
	assert_true(rig_is_owned("\"state\":\"receiving\"") && rig_is_owned("\"generation\":\"3\"") && rig_is_owned("\"epoch\":\"7\""));
	assert_int_equal(a.count, 15);
	assert_true(a.field[0] == COMMIT_STATUS_OK && a.field[1] == COMMIT_RECEIVING && u64(&a, 2) == 7 && u64(&a, 4) == 3);
	assert_true(u64(&a, 6) && u64(&a, 8) && a.field[10] == 0 && u64(&a, 11) == 3);
	assert_non_null(l->digest);
	assert_int_equal(fake.plain, NBDSRV_PLAIN_READS);
	assert_true(fake_traced("open:rw serve:rw flush "));
}

static uint64_t volume_heard(struct nbdsrv_link *l)
{
	struct fake_answer a = asked(l, XSXM_HELLO);

	assert_int_equal(a.field[0], COMMIT_STATUS_OK);
	return u64(&a, 13);
}

/* The mirrors that a volume receives, and the lives of its process, come and go; what is made in its place has another id. */
static void a_volume_has_one_id_for_good(void **state)
{
	char path[80];
	uint64_t id;

	(void)state;
	assert_int_equal(rig_activate("MIR1", false), 0);
	id = volume_heard(fake_link("m", 7, 1));
	assert_true(id != 0);
	assert_true(volume_heard(fake_link("m", 7, 1)) == id && volume_heard(fake_link("m", 7, 2)) == id);
	rig_stop();
	rig_begin();
	assert_true(volume_heard(fake_link("other", 9, 1)) == id);
	assert_int_equal(rig_detach("MIR1"), 0);
	snprintf(path, sizeof(path), "%s/fake.owner", rig_dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rig_activate("MIR1", false), 0);
	assert_true(volume_heard(fake_link("m", 7, 1)) != id);
}

static void of_the_version_before_ours_nothing_new_is_said(void **state)
{
	struct fake_answer a;

	(void)state;
	fake.xsxm_version = 1;
	assert_int_equal(rig_activate("MIR1", false), 0);
	a = asked(fake_link("m", 7, 3), XSXM_HELLO);
	assert_int_equal(a.count, 13);
	assert_true(a.field[0] == COMMIT_STATUS_OK && u64(&a, 11) == 3);
}

static void a_guests_disk_is_nobody_elses(void **state)
{
	struct nbdsrv_link *l;

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_true(rig_is_owned("\"written\":true"));
	l = fake_link("m", 7, 1);
	expect(l, XSXM_HELLO, COMMIT_STATUS_NOT_YOURS, COMMIT_OWNED, 1);
	assert_null(l->digest);
}

static void before_hello_nothing_is_answered_but_that(void **state)
{
	static const uint64_t opcodes[] = { XSXM_WAIT, XSXM_PREPARE, XSXM_COMMIT, XSXM_RECLAIM, XSXM_RELEASED, XSXM_END, XSXM_PING };
	struct nbdsrv_link *l;

	(void)state;
	assert_int_equal(rig_activate("MIR1", false), 0);
	l = fake_link("m", 7, 1);
	for (size_t i = 0; i < ARRAY_LEN(opcodes); i++)
		expect(l, opcodes[i], COMMIT_STATUS_BAD_STATE, COMMIT_OWNED, 1);
	expect(l, 4711, COMMIT_STATUS_UNKNOWN, COMMIT_OWNED, 1);
}

static void a_guest_does_not_start_from_half_a_disk(void **state)
{
	struct answer a = { 0 };

	(void)state;
	receive(1);
	assert_int_equal(rig_activate("3", false), EPERM);
	assert_int_equal(rig_activate("3", true), EPERM);
	assert_int_equal(rig_activate("u0_look", true), 0);
	assert_false(rig_is_on_file("\"domain\":\"3\",\"active\":true"));
	vdi_activate(rig_vdi, "3", false, true, rig_answer, &a); /* by force */
	assert_int_equal(rig_answered(&a), 0);
	assert_true(rig_is_owned("\"state\":\"owned\""));
}

static void a_newer_generation_shuts_the_older_out(void **state)
{
	struct nbdsrv_link *old, *twin, *new;

	(void)state;
	old = receive(2);
	old->digest->count = 99;
	twin = receive(2); /* a second connection of it */
	assert_true(fake_traced(""));
	assert_int_equal(twin->digest->count, 99);
	new = receive(3);
	assert_true(fake_traced("shut shut flush "));
	assert_int_equal(new->digest->count, 0);
	assert_true(rig_is_owned("\"generation\":\"3\""));
	expect(fake_link("m", 7, 2), XSXM_HELLO, COMMIT_STATUS_STALE, COMMIT_RECEIVING, 7);
	expect(fake_link("other", 9, 9), XSXM_HELLO, COMMIT_STATUS_NOT_YOURS, COMMIT_RECEIVING, 7);
}

static void a_link_that_was_lost_is_followed_by_a_newer_one_only(void **state)
{
	(void)state;
	fake_hang_up(receive(2));
	expect(fake_link("m", 7, 2), XSXM_HELLO, COMMIT_STATUS_STALE, COMMIT_RECEIVING, 7);
	receive(3);
}

static void a_dead_mirrors_disk_is_taken_over(void **state)
{
	struct nbdsrv_link *l = receive(2);

	(void)state;
	fake_hang_up(l);
	expect(fake_link("other", 9, 1), XSXM_HELLO, COMMIT_STATUS_OK, COMMIT_RECEIVING, 9);
	assert_true(rig_is_owned("\"mirror\":\"other\""));
}

static void prepare_flushes_and_says_what_came(void **state)
{
	struct nbdsrv_link *l = receive(1);
	struct fake_answer a;

	(void)state;
	*l->digest = (struct digest){ .high = 0x1122334455667788, .low = 0x99aabbccddeeff00, .count = 3 };
	fake_traced("open:rw serve:rw flush ");
	a = asked(l, XSXM_PREPARE);
	assert_true(fake_traced("flush "));
	assert_int_equal(a.count, 10);
	assert_true(u64(&a, 4) == 3 && u64(&a, 6) == 0x1122334455667788 && u64(&a, 8) == 0x99aabbccddeeff00);
	fake.flush_err = ENOSPC;
	a = asked(l, XSXM_PREPARE);
	assert_true(a.count == 2 && a.field[0] == COMMIT_STATUS_FAILED && a.field[1] == WIRE_ENOSPC);
	fake.flush_err = 0;
}

static void commit_is_on_record_and_ends_all_writing(void **state)
{
	struct nbdsrv_link *l = receive(1);

	(void)state;
	l->digest->count = 5;
	asked(l, XSXM_PREPARE);
	fake.trace[0] = '\0';
	expect(l, XSXM_COMMIT, COMMIT_STATUS_OK, COMMIT_ELIGIBLE, 8);
	assert_true(fake_traced("")); /* nothing came since */
	assert_true(rig_is_owned("\"state\":\"eligible\"") && rig_is_owned("\"epoch\":\"8\""));
	assert_null(l->digest);
	assert_int_equal(fake.plain, NBDSRV_PLAIN_READS);
	expect(l, XSXM_COMMIT, COMMIT_STATUS_OK, COMMIT_ELIGIBLE, 8);
	expect(l, XSXM_PREPARE, COMMIT_STATUS_BAD_STATE, COMMIT_ELIGIBLE, 8);
}

static void commit_flushes_what_came_since(void **state)
{
	struct nbdsrv_link *l = receive(1);
	struct fake_answer a;

	(void)state;
	l->digest->count = 5;
	asked(l, XSXM_PREPARE);
	l->digest->count = 6;
	fake.trace[0] = '\0';
	fake.flush_err = EIO;
	a = asked(l, XSXM_COMMIT);
	assert_true(a.field[0] == COMMIT_STATUS_FAILED && a.field[1] == WIRE_EIO);
	assert_non_null(l->digest); /* it goes on receiving */
	fake.flush_err = 0;
	expect(l, XSXM_COMMIT, COMMIT_STATUS_OK, COMMIT_ELIGIBLE, 8);
	assert_true(fake_traced("flush flush "));
}

static void reclaim_lets_it_write_again(void **state)
{
	struct nbdsrv_link *l = receive(1);
	struct digest before;

	(void)state;
	l->digest->count = 5;
	before = *l->digest;
	asked(l, XSXM_PREPARE);
	expect(l, XSXM_COMMIT, COMMIT_STATUS_OK, COMMIT_ELIGIBLE, 8);
	expect(l, XSXM_RECLAIM, COMMIT_STATUS_OK, COMMIT_RECEIVING, 9);
	assert_true(l->digest && digest_equal(l->digest, &before));
	assert_true(rig_is_owned("\"state\":\"receiving\"") && rig_is_owned("\"epoch\":\"9\""));
	expect(l, XSXM_COMMIT, COMMIT_STATUS_OK, COMMIT_ELIGIBLE, 10);
}

static void the_first_guest_takes_it_and_the_source_hears(void **state)
{
	struct nbdsrv_link *l = commit();
	struct fake_answer news = { 0 };

	(void)state;
	fake_ask(l, XSXM_WAIT, &news);
	expect(l, XSXM_WAIT, COMMIT_STATUS_BAD_STATE, COMMIT_ELIGIBLE, 8); /* one at a time */
	expect(l, XSXM_PING, COMMIT_STATUS_OK, COMMIT_ELIGIBLE, 8);
	assert_int_equal(news.count, 0);
	fake.listen_err = EMFILE; /* it is taken before anybody can be served */
	assert_int_equal(rig_activate("3", false), EMFILE);
	fake.listen_err = 0;
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"8\""));
	assert_int_equal(news.count, 4);
	assert_true(news.field[0] == COMMIT_STATUS_OK && news.field[1] == COMMIT_NEWS_TAKEN && u64(&news, 2) == 8);
	expect(l, XSXM_RECLAIM, COMMIT_STATUS_BAD_STATE, COMMIT_OWNED, 8);
	assert_int_equal(rig_activate("3", false), 0);
}

static void without_a_commit_it_is_incomplete_for_good(void **state)
{
	struct nbdsrv_link *l = receive(1);
	struct fake_answer news = { 0 };

	(void)state;
	fake_ask(l, XSXM_WAIT, &news);
	assert_int_equal(rig_deactivate("MIR1"), 0);
	assert_true(news.count == 4 && news.field[1] == COMMIT_NEWS_ENDED);
	assert_true(rig_is_owned("\"state\":\"incomplete\""));
	assert_int_equal(rig_detach("MIR1"), 0);
	assert_true(vdi_is_empty(rig_vdi));
	assert_int_equal(rig_activate("3", false), EPERM);
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(rig_activate("MIR1", false), 0);
	expect(fake_link("m", 7, 2), XSXM_HELLO, COMMIT_STATUS_BAD_STATE, COMMIT_INCOMPLETE, 7);
}

static void the_source_may_end_it(void **state)
{
	struct nbdsrv_link *l = receive(1);

	(void)state;
	expect(l, XSXM_END, COMMIT_STATUS_OK, COMMIT_INCOMPLETE, 7);
	assert_null(l->digest);
	assert_int_equal(rig_activate("3", false), EPERM);
}

static void after_a_commit_the_link_stays_when_its_domain_goes(void **state)
{
	struct nbdsrv_link *l = commit();
	struct fake_answer news = { 0 };
	struct vdi_domain_status d[4];

	(void)state;
	fake_ask(l, XSXM_WAIT, &news);
	fake.trace[0] = '\0';
	assert_int_equal(rig_deactivate("MIR1"), 0);
	assert_int_equal(rig_detach("MIR1"), 0);
	assert_true(fake_traced("links-only flush "));
	assert_int_equal(vdi_domains(rig_vdi, d, 4), 0);
	assert_false(vdi_is_empty(rig_vdi));
	assert_int_equal(rig_emptied, 0);
	expect(l, XSXM_RECLAIM, COMMIT_STATUS_OK, COMMIT_RECEIVING, 9);
	assert_non_null(l->digest);
	expect(l, XSXM_COMMIT, COMMIT_STATUS_OK, COMMIT_ELIGIBLE, 10);
	fake.trace[0] = '\0';
	assert_int_equal(rig_activate("3", false), 0);
	assert_true(news.count == 4 && news.field[1] == COMMIT_NEWS_TAKEN && u64(&news, 2) == 10);
	assert_int_equal(rig_detach("3"), 0);
	UNTIL(vdi_is_empty(rig_vdi));
	assert_true(fake_traced("serve:rw cut cut flush close "));
}

static void what_lingers_is_taken_up_after_a_restart(void **state)
{
	struct nbdsrv_link *l;

	(void)state;
	commit();
	assert_int_equal(rig_detach("MIR1"), 0);
	rig_stop();
	assert_true(vdi_is_needed(rig_dir));
	fake.trace[0] = '\0';
	rig_begin();
	assert_true(fake_traced("open:rw serve:rw links-only "));
	l = fake_link("m", 7, 2);
	expect(l, XSXM_HELLO, COMMIT_STATUS_OK, COMMIT_ELIGIBLE, 8);
	assert_null(l->digest);
	expect(l, XSXM_RECLAIM, COMMIT_STATUS_OK, COMMIT_RECEIVING, 9);
	assert_non_null(l->digest);
	expect(l, XSXM_END, COMMIT_STATUS_OK, COMMIT_INCOMPLETE, 9);
	UNTIL(vdi_is_empty(rig_vdi));
}

static void without_a_link_it_lingers_for_a_while_only(void **state)
{
	(void)state;
	rig_stop();
	rig_linger_ms = 20;
	rig_begin();
	fake_hang_up(commit());
	assert_int_equal(rig_detach("MIR1"), 0);
	UNTIL(vdi_is_empty(rig_vdi));
	assert_true(rig_is_owned("\"state\":\"eligible\"")); /* whoever starts from it has it */
	assert_int_equal(rig_activate("3", false), 0);
	assert_true(rig_is_owned("\"state\":\"owned\""));
}

static void a_restart_goes_on_receiving(void **state)
{
	struct nbdsrv_link *l;

	(void)state;
	receive(1);
	rig_stop();
	rig_begin();
	assert_int_equal(fake.plain, NBDSRV_PLAIN_READS);
	assert_int_equal(rig_activate("3", false), EPERM);
	/* What it wrote before is in no digest any more. */
	l = fake_link("m", 7, 1);
	expect(l, XSXM_HELLO, COMMIT_STATUS_STALE, COMMIT_RECEIVING, 7);
	receive(2);
}

static void what_cannot_be_on_record_is_not_answered_with_ok(void **state)
{
	struct fake_answer a;
	struct nbdsrv_link *l = receive(1), *newer;
	char path[80];

	(void)state;
	snprintf(path, sizeof(path), "%s/fake.owner", rig_dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0); /* nothing can be put in its place */
	a = asked(l, XSXM_COMMIT);
	assert_true(a.count == 2 && a.field[0] == COMMIT_STATUS_FAILED);
	assert_non_null(l->digest);
	newer = fake_link("m", 7, 2);
	a = asked(newer, XSXM_HELLO);
	assert_int_equal(a.field[0], COMMIT_STATUS_FAILED);
	assert_null(newer->digest);
	assert_int_equal(rmdir(path), 0);
	expect(newer, XSXM_HELLO, COMMIT_STATUS_OK, COMMIT_RECEIVING, 7);
}


static void a_question_of_a_link_that_is_gone_changes_nothing(void **state)
{
	struct nbdsrv_link *l = receive(1);
	struct fake_answer a = { 0 };

	(void)state;
	fake_ask(l, XSXM_COMMIT, &a);
	fake_hang_up(l);
	UNTIL(a.count);
	assert_int_equal(a.field[0], COMMIT_STATUS_FAILED);
	assert_true(rig_is_owned("\"state\":\"receiving\""));
}

static void a_foreign_source_is_noted_before_its_first_write(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("MIR1", false), 0);
	assert_int_equal(fake.plain, NBDSRV_PLAIN_ASKS);
	fake.links->plain(fake.links_arg);
	UNTIL(fake.plain != NBDSRV_PLAIN_ASKS);
	assert_int_equal(fake.plain, NBDSRV_PLAIN_WRITES);
	assert_true(rig_is_owned("\"unverified\":true"));
	assert_int_equal(rig_detach("MIR1"), 0);
	assert_int_equal(rig_activate("3", false), 0);
}

static int destroy(bool is_forced)
{
	struct answer a = { 0 };

	vdi_destroy(rig_vdi, is_forced, rig_answer, &a);
	return rig_answered(&a);
}

static void an_eligible_disk_is_given_back_before_it_is_destroyed(void **state)
{
	struct nbdsrv_link *l = commit();
	struct fake_answer news = { 0 };

	(void)state;
	fake_ask(l, XSXM_WAIT, &news);
	assert_int_equal(destroy(false), EBUSY);
	assert_int_equal(rig_detach("MIR1"), 0);
	assert_int_equal(destroy(false), EAGAIN);
	assert_true(news.count == 4 && news.field[1] == COMMIT_NEWS_RELEASED && u64(&news, 2) == 9);
	assert_true(rig_is_owned("\"state\":\"released\""));
	assert_int_equal(destroy(false), EAGAIN);
	assert_int_equal(rig_activate("3", false), EPERM);
	assert_int_equal(rig_detach("3"), 0);
	expect(l, XSXM_RELEASED, COMMIT_STATUS_OK, COMMIT_RELEASED, 9);
	assert_int_equal(destroy(false), 0);
	UNTIL(vdi_is_empty(rig_vdi));
}

static void the_only_copy_is_not_destroyed(void **state)
{
	struct nbdsrv_link *l = commit();

	(void)state;
	fake_hang_up(l);
	assert_int_equal(rig_detach("MIR1"), 0);
	assert_int_equal(destroy(false), EPERM);
	assert_int_equal(destroy(true), 0);
	UNTIL(vdi_is_empty(rig_vdi));
}

static void the_status_says_whose_it_is(void **state)
{
	struct vdi_status s;

	(void)state;
	vdi_status(rig_vdi, &s);
	assert_int_equal(s.owner.state, 0);
	receive(5);
	vdi_status(rig_vdi, &s);
	assert_true(s.owner.state == COMMIT_RECEIVING && s.owner.epoch == 7 && s.owner.generation == 5 && s.links == 1);
	assert_string_equal(s.owner.mirror, "m");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(a_link_is_let_in_when_that_is_on_record),
		RIG_TEST(a_volume_has_one_id_for_good),
		RIG_TEST(of_the_version_before_ours_nothing_new_is_said),
		RIG_TEST(a_guests_disk_is_nobody_elses),
		RIG_TEST(before_hello_nothing_is_answered_but_that),
		RIG_TEST(a_guest_does_not_start_from_half_a_disk),
		RIG_TEST(a_newer_generation_shuts_the_older_out),
		RIG_TEST(a_link_that_was_lost_is_followed_by_a_newer_one_only),
		RIG_TEST(a_dead_mirrors_disk_is_taken_over),
		RIG_TEST(prepare_flushes_and_says_what_came),
		RIG_TEST(commit_is_on_record_and_ends_all_writing),
		RIG_TEST(commit_flushes_what_came_since),
		RIG_TEST(reclaim_lets_it_write_again),
		RIG_TEST(the_first_guest_takes_it_and_the_source_hears),
		RIG_TEST(without_a_commit_it_is_incomplete_for_good),
		RIG_TEST(the_source_may_end_it),
		RIG_TEST(after_a_commit_the_link_stays_when_its_domain_goes),
		RIG_TEST(what_lingers_is_taken_up_after_a_restart),
		RIG_TEST(without_a_link_it_lingers_for_a_while_only),
		RIG_TEST(a_restart_goes_on_receiving),
		RIG_TEST(what_cannot_be_on_record_is_not_answered_with_ok),
		RIG_TEST(a_question_of_a_link_that_is_gone_changes_nothing),
		RIG_TEST(a_foreign_source_is_noted_before_its_first_write),
		RIG_TEST(an_eligible_disk_is_given_back_before_it_is_destroyed),
		RIG_TEST(the_only_copy_is_not_destroyed),
		RIG_TEST(the_status_says_whose_it_is),
	};

	return rig_group("far", tests, ARRAY_LEN(tests));
}
