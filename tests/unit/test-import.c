/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-import - a leaf of a mirror from SMAPIv1: who is waited for when it has ended, and what is open and merged meanwhile
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "overlay/overlay-file.h"
#include "tests/unit/vdi-rig.h"

static char image[64];

static int import(void)
{
	struct answer a = { 0 };
	char socket[108];

	vdi_import(rig_vdi, "MIR1", socket, sizeof(socket), rig_answer, &a);
	return rig_answered(&a);
}

/* So far there is no image; when another file has its name, that is what Volume.compose does. */
static void put_on_parent(void)
{
	int fd = open(image, O_WRONLY | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static enum overlay_state state(void)
{
	enum overlay_state s;
	struct error e = { 0 };

	assert_int_equal(overlay_state(image, &s, &e), 0);
	return s;
}

static void mirror_ends(void)
{
	assert_int_equal(rig_activate("MIR1", false), 0);
	assert_int_equal(import(), 0);
	assert_int_equal(rig_deactivate("MIR1"), 0);
	assert_int_equal(rig_detach("MIR1"), 0);
	assert_int_equal(state(), OVERLAY_SEALED);
}

static bool is_open(void)
{
	struct vdi_status s;

	vdi_status(rig_vdi, &s);
	return s.is_open;
}

static int merge(void)
{
	struct answer a = { 0 };

	vdi_merge(rig_vdi, rig_answer, &a);
	return rig_answered(&a);
}

static int begin(void **s)
{
	rig_set_up(s);
	snprintf(image, sizeof(image), "%s/fake", rig_dir);
	return 0;
}

static int begin_impatient(void **s)
{
	begin(s);
	rig_stop();
	rig_expect_ms = 20;
	rig_begin();
	return 0;
}

static int end(void **s)
{
	struct error e = { 0 };

	rig_tear_down(s);
	overlay_remove(image, &e);
	unlink(image);
	return 0;
}

static void opened_for_the_guest_and_merged_when_he_is_served(void **s)
{
	(void)s;
	mirror_ends();
	assert_false(is_open()); /* Volume.compose claims it */
	put_on_parent();
	vdi_expect(rig_vdi);
	UNTIL(is_open());
	assert_int_equal(state(), OVERLAY_COMPOSED);
	vdi_expect(rig_vdi); /* compose, repeated */
	fake.trace[0] = '\0';
	assert_int_equal(rig_activate("3", false), 0);
	assert_null(strstr(fake.trace, "open"));
	UNTIL(state() == OVERLAY_NONE);
	assert_int_equal(rig_emptied, 0);
	assert_int_equal(rig_deactivate("3"), 0);
	assert_int_equal(rig_detach("3"), 0);
	assert_int_equal(rig_emptied, 1);
}

static void a_guest_without_expect_is_served_too(void **s)
{
	(void)s;
	mirror_ends();
	put_on_parent();
	assert_int_equal(rig_activate("3", false), 0);
	UNTIL(state() == OVERLAY_NONE);
}

static void nobody_composes(void **s)
{
	(void)s;
	mirror_ends();
	UNTIL(rig_emptied == 1);
	assert_int_equal(state(), OVERLAY_SEALED);
}

static void nobody_comes(void **s)
{
	(void)s;
	mirror_ends();
	put_on_parent();
	vdi_expect(rig_vdi);
	UNTIL(rig_emptied == 1);
	assert_false(is_open());
	assert_int_equal(state(), OVERLAY_COMPOSED);
}

static void who_needs_the_image_itself_need_not_wait(void **s)
{
	(void)s;
	mirror_ends();
	put_on_parent();
	vdi_expect(rig_vdi);
	UNTIL(is_open());
	assert_int_equal(merge(), 0);
	UNTIL(rig_emptied == 1);
	assert_false(is_open());
	assert_int_equal(state(), OVERLAY_NONE);
}

static void what_cannot_be_opened_is_not_waited_for(void **s)
{
	(void)s;
	mirror_ends();
	put_on_parent();
	fake.open_err = EIO;
	vdi_expect(rig_vdi);
	UNTIL(rig_emptied == 1);
	fake.open_err = 0;
	assert_int_equal(rig_activate("3", false), 0);
}

static void a_leaf_that_is_not_composed_is_not_kept_open(void **s)
{
	(void)s;
	mirror_ends();
	vdi_expect(rig_vdi);
	UNTIL(rig_emptied == 1);
	assert_false(is_open());
	assert_int_equal(rig_activate("3", false), EPERM);
}

static void it_is_stopped_while_it_waits(void **s)
{
	(void)s;
	mirror_ends();
	put_on_parent();
	vdi_expect(rig_vdi);
	UNTIL(is_open());
	rig_stop();
	assert_int_equal(state(), OVERLAY_COMPOSED);
}

static void without_memory_in_its_midst_the_leaf_is_the_disk_it_was(void **s)
{
	(void)s;
	assert_int_equal(rig_activate("MIR1", false), 0);
	fake.layer_err = ENOMEM;
	assert_int_equal(import(), ENOMEM);
	fake.layer_err = 0;
	assert_int_equal(state(), OVERLAY_NONE);
	assert_int_equal(import(), 0); /* asked again */
	assert_int_equal(state(), OVERLAY_OPEN);
}

#define IMPORT_TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
#define IMPATIENT_TEST(name) cmocka_unit_test_setup_teardown(name, begin_impatient, end)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		IMPORT_TEST(opened_for_the_guest_and_merged_when_he_is_served),
		IMPORT_TEST(a_guest_without_expect_is_served_too),
		IMPATIENT_TEST(nobody_composes),
		IMPATIENT_TEST(nobody_comes),
		IMPORT_TEST(who_needs_the_image_itself_need_not_wait),
		IMPORT_TEST(what_cannot_be_opened_is_not_waited_for),
		IMPORT_TEST(a_leaf_that_is_not_composed_is_not_kept_open),
		IMPORT_TEST(it_is_stopped_while_it_waits),
		IMPORT_TEST(without_memory_in_its_midst_the_leaf_is_the_disk_it_was),
	};

	return rig_group("import", tests, sizeof(tests) / sizeof(tests[0]));
}
