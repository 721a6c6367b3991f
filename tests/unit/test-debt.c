/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where a mirror of a disk keeps what it owes: marks where they outlive the host, under a name of their own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vdi/debt.h"

static char dir[64], image[96];

static void touch(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	assert_true(fd >= 0);
	close(fd);
}

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/sxm-debt.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(image, sizeof(image), "%s/a.raw", dir);
	touch(image);
	setenv("SXM_RUN_DIR", dir, 1);
	unsetenv("SXM_STATE_DIR");
	return 0;
}

static int remove_dir(void **state)
{
	char command[96];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void expect(const char *text, const char *in_dir)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, in_dir);
	assert_string_equal(text, path);
}

static void marks_lie_beside_an_image_and_go(void **state)
{
	struct error e;
	struct debt d;

	(void)state;
	assert_int_equal(debt_find(dir, image, &d, &e), 0);
	expect(d.map, "map");
	expect(d.marks, "a.raw.marks");
	touch(d.map);
	touch(d.marks);
	debt_forget_map(dir);
	assert_int_equal(access(d.map, F_OK), -1);
	assert_int_equal(access(d.marks, F_OK), 0);
	touch(d.map);
	debt_forget(dir, image);
	assert_int_equal(access(d.map, F_OK), -1);
	assert_int_equal(access(d.marks, F_OK), -1);
	assert_int_equal(access(image, F_OK), 0);
	debt_clear(&d);
}

static void marks_of_a_device_are_kept_with_the_states_by_its_whole_path(void **state)
{
	struct error e;
	struct debt d;

	(void)state;
	assert_int_equal(debt_find(dir, "/dev/null", &d, &e), 0);
	expect(d.marks, "state/%2Fdev%2Fnull.marks");
	expect(d.journal, "state/%2Fdev%2Fnull.mirror");
	touch(d.marks); /* its directory is there */
	debt_forget(dir, "/dev/null");
	assert_int_equal(access(d.marks, F_OK), -1);
	debt_clear(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(marks_lie_beside_an_image_and_go, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(marks_of_a_device_are_kept_with_the_states_by_its_whole_path, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
