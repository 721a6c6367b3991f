/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-snapshot - a clone of a disk in use, and its growth, beside everything else that happens to it
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/vdi-rig.h"

static char path[128];
static struct vdi_snapshot_result result;

static const char *target(void)
{
	snprintf(path, sizeof(path), "%s/.new", rig_dir);
	return path;
}

static bool is_made(void)
{
	struct stat st;
	bool is = stat(target(), &st) == 0 && st.st_size == (off_t)MiB;

	unlink(path);
	return is;
}

static int snapshot(void)
{
	struct answer a = { 0 };

	vdi_snapshot(rig_vdi, target(), NULL, &result, rig_answer, &a);
	return rig_answered(&a);
}

static int hold(unsigned patience_ms)
{
	struct answer a = { 0 };

	vdi_snapshot_hold(rig_vdi, target(), NULL, patience_ms, rig_answer, &a);
	return rig_answered(&a);
}

static int go(bool is_wanted)
{
	struct answer a = { 0 };

	vdi_snapshot_go(rig_vdi, target(), is_wanted, &result, rig_answer, &a);
	return rig_answered(&a);
}

static int resize(uint64_t bytes)
{
	struct answer a = { 0 };

	vdi_resize(rig_vdi, bytes, rig_answer, &a);
	return rig_answered(&a);
}

static void a_disk_in_use_stays_open_another_is_closed_again(void **state)
{
	(void)state;
	assert_int_equal(snapshot(), 0);
	assert_true(is_made());
	assert_true(fake_traced("open:ro close "));
	assert_int_equal(rig_activate("3", false), 0);
	fake.trace[0] = '\0';
	fake.clones = 0;
	assert_int_equal(snapshot(), 0);
	assert_int_equal(fake.clones, 2); /* one for a trial */
	assert_true(is_made());
	assert_true(fake_traced(""));
	assert_int_equal(snapshot(), 0); /* what is there is replaced */
	assert_int_equal(snapshot(), 0);
	assert_true(is_made());
}

static void where_blocks_cannot_be_shared_it_says_so_and_leaves_nothing(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	fake.clone_err_at = 1;
	fake.clone_err = EXDEV;
	assert_int_equal(snapshot(), EOPNOTSUPP);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void a_full_disk_in_the_midst_leaves_nothing(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	fake.clone_granules = 1;
	fake.clone_err_at = 5;
	fake.clone_err = ENOSPC;
	assert_int_equal(snapshot(), ENOSPC);
	assert_int_equal(access(path, F_OK), -1);
	fake.clone_err_at = 0;
	assert_int_equal(snapshot(), 0);
	assert_true(is_made());
}

static void only_beside_the_image(void **state)
{
	struct answer a = { 0 };
	char image[128];

	(void)state;
	vdi_snapshot(rig_vdi, "/tmp/elsewhere", NULL, &result, rig_answer, &a);
	assert_int_equal(rig_answered(&a), EINVAL);
	snprintf(image, sizeof(image), "%s/fake", rig_dir);
	a.count = 0;
	vdi_snapshot(rig_vdi, image, NULL, &result, rig_answer, &a);
	assert_int_equal(rig_answered(&a), EINVAL);
}

static void held_it_waits_for_the_word(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(go(true), ENOENT);
	assert_int_equal(hold(10000), 0);
	assert_int_equal(go(true), 0);
	assert_true(is_made());
	assert_int_equal(go(true), ENOENT);
	assert_int_equal(hold(10000), 0);
	assert_int_equal(go(false), ECANCELED);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void held_too_long_guests_go_on(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	assert_int_equal(hold(1), 0);
	assert_int_equal(rig_deactivate("3"), 0); /* waits for it */
	assert_int_equal(go(true), ENOENT);
	assert_int_equal(access(path, F_OK), -1);
}

static void it_is_given_up_with_whoever_asked(void **state)
{
	struct answer held = { 0 }, queued = { 0 }, gone = { 0 };
	uint64_t first, second;

	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	first = vdi_snapshot_hold(rig_vdi, target(), NULL, 10000, rig_answer, &held);
	assert_int_equal(rig_answered(&held), 0);
	second = vdi_snapshot_hold(rig_vdi, target(), NULL, 10000, rig_answer, &queued);
	vdi_hold_is_over(rig_vdi, second); /* before its turn */
	assert_int_equal(queued.count, 0);
	vdi_hold_is_over(rig_vdi, first);
	assert_int_equal(rig_answered(&queued), ECANCELED);
	assert_int_equal(go(true), ENOENT);
	assert_int_equal(access(path, F_OK), -1);
	first = vdi_snapshot_hold(rig_vdi, target(), NULL, 10000, rig_answer, &held);
	UNTIL(held.count == 2);
	vdi_snapshot_go(rig_vdi, target(), true, &result, rig_answer, &gone);
	vdi_hold_is_over(rig_vdi, first); /* while it is cloned */
	assert_int_equal(rig_answered(&gone), ECANCELED);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rig_deactivate("3"), 0);
}

static void start_mirror(void)
{
	const struct vdi_mirror_args args = { .domain = "3", .remote = "nbd://far/mirror" };
	struct answer a = { 0 };
	char op[64];

	vdi_mirror(rig_vdi, &args, op, sizeof(op), rig_answer, &a);
	UNTIL(fake.mirror && fake.status.started_ns);
	fake_change(CORE_SYNCING, true, false);
	assert_int_equal(rig_answered(&a), 0);
}

static void a_mirror_goes_on_below_it(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("3", false), 0);
	start_mirror();
	fake.trace[0] = '\0';
	assert_int_equal(snapshot(), 0);
	assert_true(is_made());
	assert_true(fake_traced(""));
	assert_non_null(fake.mirror);
}

static off_t image_size(void)
{
	struct stat st;
	char image[128];

	snprintf(image, sizeof(image), "%s/fake", rig_dir);
	assert_int_equal(stat(image, &st), 0);
	return st.st_size;
}

static void make_image(void)
{
	char image[128];
	FILE *f;

	snprintf(image, sizeof(image), "%s/fake", rig_dir);
	f = fopen(image, "w");
	assert_non_null(f);
	assert_int_equal(ftruncate(fileno(f), (off_t)MiB), 0);
	fclose(f);
}

static void a_disk_in_use_grows_and_never_shrinks(void **state)
{
	struct vdi_status s;

	(void)state;
	make_image();
	assert_int_equal(rig_activate("3", false), 0);
	fake.size_bytes = 2 * MiB;
	assert_int_equal(resize(2 * MiB), 0);
	assert_int_equal(image_size(), 2 * MiB);
	vdi_status(rig_vdi, &s);
	assert_int_equal(s.size_bytes, 2 * MiB);
	assert_int_equal(resize(2 * MiB), 0);
	assert_int_equal(resize(MiB), ERANGE);
	assert_int_equal(image_size(), 2 * MiB);
}

static void a_disk_that_is_mirrored_does_not_grow(void **state)
{
	(void)state;
	make_image();
	assert_int_equal(rig_activate("3", false), 0);
	start_mirror();
	assert_int_equal(resize(2 * MiB), EBUSY);
	assert_int_equal(image_size(), MiB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_TEST(a_disk_in_use_stays_open_another_is_closed_again),
		RIG_TEST(where_blocks_cannot_be_shared_it_says_so_and_leaves_nothing),
		RIG_TEST(a_full_disk_in_the_midst_leaves_nothing),
		RIG_TEST(only_beside_the_image),
		RIG_TEST(held_it_waits_for_the_word),
		RIG_TEST(held_too_long_guests_go_on),
		RIG_TEST(it_is_given_up_with_whoever_asked),
		RIG_TEST(a_mirror_goes_on_below_it),
		RIG_TEST(a_disk_in_use_grows_and_never_shrinks),
		RIG_TEST(a_disk_that_is_mirrored_does_not_grow),
	};

	return rig_group("snapshot", tests, sizeof(tests) / sizeof(tests[0]));
}
