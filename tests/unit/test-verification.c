/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-verification - a comparison beside everything else that happens to a disk
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/vdi-rig.h"

static char id[64];

static int verify(const char *remote)
{
	const struct vdi_verify_args args = { .remote = remote, .rate_bytes = 1000 };
	struct answer a = { 0 };

	vdi_verify(rig_vdi, &args, id, sizeof(id), rig_answer, &a);
	return rig_answered(&a);
}

static struct verify_status status(void)
{
	struct vdi_verification_status s;

	assert_int_equal(vdi_verification(rig_vdi, id, &s), 0);
	return s.verify;
}

static void start_mirror(bool is_synced)
{
	const struct vdi_mirror_args args = { .domain = "3", .remote = "nbd://far/mirror" };
	struct answer a = { 0 };
	char op[64];

	vdi_mirror(rig_vdi, &args, op, sizeof(op), rig_answer, &a);
	UNTIL(fake.mirror && fake.status.started_ns);
	fake_change(is_synced ? CORE_SYNCED : CORE_SYNCING, true, is_synced);
	assert_int_equal(rig_answered(&a), 0);
}

static void without_a_mirror_the_far_side_has_to_be_named(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(verify(NULL), EINVAL);
	assert_int_equal(verify("http://x"), EINVAL);
	assert_int_equal(verify("nbd://far/x"), 0);
	assert_string_equal(status().remote, "nbd://far/x");
	assert_true(fake_traced("open:rw serve:rw verify+ compare "));
}

static void a_mirrors_far_side_once_it_is_in_sync(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	start_mirror(false);
	assert_int_equal(verify(NULL), EBUSY);
	fake_change(CORE_SYNCED, true, true);
	rig_turn();
	assert_int_equal(verify(NULL), 0);
	assert_string_equal(status().remote, "nbd://far/mirror");
	fake.is_settled = false;
	assert_false(fake_ask_settled((struct range){ 0, 4096 }));
	fake.is_settled = true;
	assert_true(fake_ask_settled((struct range){ 0, 4096 }));
}

static void one_at_a_time_and_the_outcome_stays(void **state)
{
	struct vdi_verification_status all[8];
	char first[64];

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(verify("nbd://far/x"), 0);
	memcpy(first, id, sizeof(first));
	assert_int_equal(verify("nbd://far/y"), EBUSY);
	fake_verified();
	UNTIL(!fake.verify);
	assert_int_equal(status().state, VERIFY_COMPLETE);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(verify("nbd://far/y"), 0);
		assert_string_not_equal(id, first);
		fake_verified();
		UNTIL(!fake.verify);
	}
	assert_int_equal(vdi_verifications(rig_vdi, all, 8), 4);
	memcpy(id, first, sizeof(id));
	assert_int_equal(vdi_verification(rig_vdi, id, &all[0]), -1);
}

static void on_news(void *arg)
{
	++*(unsigned *)arg;
}

static void its_end_is_news(void **state)
{
	struct answer a = { 0 };
	unsigned news = 0;

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(verify("nbd://far/x"), 0);
	vdi_wait_news(rig_vdi, id, 15000, on_news, &news);
	rig_turn();
	assert_int_equal(news, 0);
	vdi_verify_cancel(rig_vdi, id, rig_answer, &a);
	assert_int_equal(rig_answered(&a), 0);
	UNTIL(news);
	assert_int_equal(status().state, VERIFY_CANCELLED);
	vdi_wait_news(rig_vdi, id, 15000, on_news, &news);
	UNTIL(news == 2);
	a = (struct answer){ 0 };
	vdi_verify_cancel(rig_vdi, "disk.v1", rig_answer, &a);
	assert_int_equal(rig_answered(&a), ENOENT);
}

static void the_last_deactivation_ends_it_and_does_not_wait(void **state)
{
	(void)state;
	fake.is_verify_slow = true;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(verify("nbd://far/x"), 0);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_int_equal(status().state, VERIFY_FAILED);
	assert_non_null(strstr(status().why.text, "closed"));
	assert_true(fake_traced("open:rw serve:rw verify+ compare cut flush stop close "));
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(rig_emptied, 0); /* the process is still needed: something of it is under way */
	fake_verify_over();
	UNTIL(rig_emptied);
	assert_null(fake.verify);
}

static void another_domain_keeps_it_going(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(rig_activate("u0_1", true), 0);
	assert_int_equal(verify("nbd://far/x"), 0);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_int_equal(status().state, VERIFY_CONNECTING);
}

static void a_disk_nobody_has_active_is_opened_for_it_and_closed_again(void **state)
{
	(void)state;
	assert_int_equal(verify("nbd://far/x"), 0);
	assert_true(fake_traced("open:ro verify+ compare "));
	assert_int_equal(rig_emptied, 0);
	fake_verified();
	UNTIL(rig_emptied);
	assert_true(fake_traced("verify- close "));
}

static void ranges_outside_of_the_disk_are_refused(void **state)
{
	struct vdi_verify_args args = { .remote = "nbd://far/x" };
	struct answer a = { 0 }, b = { 0 };
	struct extents only;

	(void)state;
	extents_init(&only, 0);
	args.only = &only;
	vdi_verify(rig_vdi, &args, id, sizeof(id), rig_answer, &a);
	assert_int_equal(rig_answered(&a), EINVAL);
	extents_add(&only, (struct range){ 0, MiB + 1 }, 0);
	vdi_verify(rig_vdi, &args, id, sizeof(id), rig_answer, &b);
	assert_int_equal(rig_answered(&b), EINVAL);
	extents_fini(&only);
	assert_true(fake_traced("open:ro close open:ro close "));
}

static void over(struct loop_task *t)
{
	(void)t;
	fake_verify_over();
}

static void stop_waits_for_its_end(void **state)
{
	struct loop_task later = { .run = over };
	struct answer a = { 0 };

	(void)state;
	fake.is_verify_slow = true;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(verify("nbd://far/x"), 0);
	vdi_stop(rig_vdi, rig_answer, &a);
	UNTIL(strstr(fake.trace, "close"));
	for (unsigned i = 0; i < 10; i++)
		rig_turn();
	assert_int_equal(a.count, 0);
	loop_defer(fake.loop, &later);
	assert_int_equal(rig_answered(&a), 0);
	assert_null(fake.verify);
	vdi_free(rig_vdi);
	rig_vdi = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(without_a_mirror_the_far_side_has_to_be_named),
		RIG_TEST(a_mirrors_far_side_once_it_is_in_sync),
		RIG_TEST(one_at_a_time_and_the_outcome_stays),
		RIG_TEST(its_end_is_news),
		RIG_TEST(the_last_deactivation_ends_it_and_does_not_wait),
		RIG_TEST(another_domain_keeps_it_going),
		RIG_TEST(a_disk_nobody_has_active_is_opened_for_it_and_closed_again),
		RIG_TEST(ranges_outside_of_the_disk_are_refused),
		RIG_TEST(stop_waits_for_its_end),
	};

	return rig_group("verification", tests, sizeof(tests) / sizeof(tests[0]));
}
