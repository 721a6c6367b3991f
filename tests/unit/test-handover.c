/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The barrier, over fakes of the rooms below: what it waits for at once, and what becomes of an offer when not all of it goes well.
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/source-rig.h"

static void begin_slow_barrier(struct answer *a)
{
	fake.is_finish_slow = true;
	vdi_deactivate(rig_vdi, "3", rig_answer, a);
	UNTIL(strstr(fake.trace, "flush finish "));
}

static void it_is_offered_while_the_last_is_sent(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_for_guest();
	begin_slow_barrier(&a);
	UNTIL(rig_is_owned("\"state\":\"offered\""));
	assert_null(strstr(fake.trace, "prepare"));
	fake_finish(0);
	assert_int_equal(rig_answered(&a), 0);
	assert_true(rig_is_owned("\"state\":\"given\"") && rig_is_owned("\"epoch\":\"2\""));
}

static void what_was_offered_and_not_sent_is_withdrawn(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_for_guest();
	begin_slow_barrier(&a);
	UNTIL(rig_is_owned("\"state\":\"offered\""));
	fake_finish(ETIMEDOUT);
	assert_int_equal(rig_answered(&a), ETIMEDOUT);
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"3\"") && rig_is_owned("\"raised\":true"));
	assert_true(fake_traced("flush finish reclaim end abort mirror- "));
}

/* What it says then may be of an older epoch. */
static void without_a_link_it_is_not_offered_before_all_is_sent(void **state)
{
	struct answer a = { 0 };

	(void)state;
	mirror_for_guest();
	fake_link_down(true);
	fake.trace[0] = '\0';
	begin_slow_barrier(&a);
	fake_finish(ETIMEDOUT);
	assert_int_equal(rig_answered(&a), ETIMEDOUT);
	assert_true(rig_is_owned("\"state\":\"owned\"") && rig_is_owned("\"epoch\":\"1\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(it_is_offered_while_the_last_is_sent),
		RIG_TEST(what_was_offered_and_not_sent_is_withdrawn),
		RIG_TEST(without_a_link_it_is_not_offered_before_all_is_sent),
	};

	return rig_group("handover", tests, sizeof(tests) / sizeof(*tests));
}
