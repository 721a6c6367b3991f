/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is mounted where, as the kernel writes it: escapes, fields that come and go, one over another; and what is no such line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/sysmacros.h>

#include "plugins/mount-table.h"

static void a_line_is_understood_with_any_number_of_optional_fields(void **state UNUSED)
{
	static const char text[] =
		"22 27 0:21 / /proc rw,relatime - proc proc rw\n"
		"36 27 98:7 /sub /mnt rw,noatime master:1 shared:2 - ext4 /dev/root rw,errors=continue\n"
		"44 27 0:50 / /srv/my\\040disks\\134x rw shared:3 - nfs4 filer:/a\\040b rw,vers=4.2\n"
		"45 27 0:51 / /none rw - tmpfs  rw\n";
	struct mount_table t;
	const struct mount_entry *m;
	size_t count;

	assert_int_equal(mount_table_parse(&t, text), 0);
	assert_int_equal(t.count, 4);
	m = mount_table_at(&t, "/mnt", &count);
	assert_int_equal(count, 1);
	assert_true(m->device == makedev(98, 7));
	assert_string_equal(m->root, "/sub");
	assert_string_equal(m->fstype, "ext4");
	assert_string_equal(m->source, "/dev/root");
	m = mount_table_at(&t, "/srv/my disks\\x", NULL);
	assert_non_null(m);
	assert_string_equal(m->source, "filer:/a b");
	assert_string_equal(mount_table_at(&t, "/none", NULL)->source, "");
	assert_null(mount_table_at(&t, "/mn", &count));
	assert_int_equal(count, 0);
	mount_table_fini(&t);
}

static void the_last_of_several_is_what_is_seen(void **state UNUSED)
{
	static const char text[] = "1 0 8:1 / /a rw - ext4 /dev/sda1 rw\n"
				   "2 0 0:9 / /a rw - tmpfs over rw\n"
				   "3 0 8:1 / /b rw - ext4 /dev/sda1 rw\n";
	struct mount_table t;
	size_t count;

	assert_int_equal(mount_table_parse(&t, text), 0);
	assert_string_equal(mount_table_at(&t, "/a", &count)->source, "over");
	assert_int_equal(count, 2);
	assert_string_equal(mount_table_of(&t, makedev(8, 1))->dir, "/a");
	assert_null(mount_table_of(&t, makedev(8, 2)));
	mount_table_fini(&t);
}

static void what_is_no_line_is_left_out(void **state UNUSED)
{
	static const char *const texts[] = { "", "\n\n", "a", "1 2 3 4 5 6", "1 0 8:1 / /a rw", "1 0 8:1 / /a rw -", "1 0 8:1 / /a rw - ext4",
					     "1 0 8 / /a rw - ext4 x rw", "1 0 8:1x / /a rw - ext4 x rw", "- - - - -", "1 2 - ext4 x" };
	struct mount_table t;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		assert_int_equal(mount_table_parse(&t, texts[i]), 0);
		assert_int_equal(t.count, 0);
		mount_table_fini(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_understood_with_any_number_of_optional_fields),
		cmocka_unit_test(the_last_of_several_is_what_is_seen),
		cmocka_unit_test(what_is_no_line_is_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
