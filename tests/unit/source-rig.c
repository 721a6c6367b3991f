/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * source-rig - see source-rig.h
 */
#include "tests/unit/source-rig.h"

char id[64];

struct vdi_operation_status stat_of(void)
{
	struct vdi_operation_status s;

	assert_int_equal(vdi_operation(rig_vdi, id, &s), 0);
	return s;
}

void says(enum remote_question q, uint32_t status, uint32_t state, uint32_t epoch)
{
	fake.says[q] = (struct fake_says){ .field = { status, state, 0, epoch } };
}

void begin_mirror(void)
{
	const struct vdi_mirror_args args = { .domain = "3", .remote = "nbd://far/x" };
	struct answer a = { 0 };

	says(REMOTE_ASK_PREPARE, 0, REMOTE_IS_RECEIVING, 1);
	says(REMOTE_ASK_COMMIT, 0, REMOTE_IS_ELIGIBLE, 2);
	says(REMOTE_ASK_RECLAIM, 0, REMOTE_IS_RECEIVING, 3);
	says(REMOTE_ASK_END, 0, REMOTE_IS_INCOMPLETE, 3);
	vdi_mirror(rig_vdi, &args, id, sizeof(id), rig_answer, &a);
	UNTIL(fake.status.started_ns);
	fake_link_up();
	fake_change(CORE_SYNCING, true, false);
	assert_int_equal(rig_answered(&a), 0);
}

void mirror_for_guest(void)
{
	assert_int_equal(rig_activate("3", false), 0);
	begin_mirror();
	fake_change(CORE_SYNCED, true, true);
	UNTIL(stat_of().is_complete);
	assert_true(rig_is_owned("\"told\":true"));
	fake.trace[0] = '\0';
}

void switch_over(void)
{
	mirror_for_guest();
	assert_int_equal(rig_deactivate("3"), 0);
	assert_true(rig_is_owned("\"state\":\"given\"") && rig_is_owned("\"epoch\":\"2\""));
	assert_true(fake_traced("flush finish prepare commit cut "));
	assert_true(stat_of().is_complete && !stat_of().is_ended);
}
