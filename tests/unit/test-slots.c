/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A text in slots: what was written last is read, what is torn never was, and a change takes no new file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/slots.h"

#define SLOT_BYTES 4096

static char dir[] = "/tmp/sxm-slots-XXXXXX";
static char file[64], other[64];

static void put(const char *text)
{
	assert_int_equal(slots_write(file, text, strlen(text), 0600, NULL), 0);
}

static void assert_says(const char *path, const char *text)
{
	CLEANUP_FREE char *found = NULL, *durable = NULL;
	size_t bytes = 0;

	found = slots_read(path, &bytes, NULL);
	assert_non_null(found);
	assert_string_equal(found, text);
	assert_int_equal(bytes, strlen(text));
	durable = slots_read_durable(path, &bytes, NULL);
	assert_non_null(durable);
	assert_string_equal(durable, text);
}

static struct stat stat_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st;
}

static void spoil(off_t at, const char *with)
{
	int fd = open(file, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, with, strlen(with), at), strlen(with));
	close(fd);
}

static int set_up(void **state)
{
	(void)state;
	unlink(file);
	unlink(other);
	return 0;
}

static void what_was_written_last_is_read(void **state)
{
	char text[32];

	(void)state;
	for (int i = 0; i < 40; i++) {
		snprintf(text, sizeof(text), "{\"number\":%d}", i);
		put(text);
		assert_says(file, text);
	}
	put("");
	assert_says(file, "");
	assert_int_equal(stat_of(file).st_mode & 0777, 0600);
}

static void a_change_is_made_in_place(void **state)
{
	struct stat first, last;

	(void)state;
	put("a");
	first = stat_of(file);
	put("b");
	put("c");
	last = stat_of(file);
	assert_int_equal(first.st_ino, last.st_ino);
	assert_int_equal(first.st_blocks, last.st_blocks); /* nothing is allocated */
	assert_int_equal(first.st_size, last.st_size);
}

static void one_that_is_torn_was_never_written(void **state)
{
	(void)state;
	put("first");
	put("second");
	put("third"); /* in the first one's place */
	assert_says(file, "third");
	spoil(48, "X");
	assert_says(file, "second");
	put("fourth"); /* over what is torn */
	assert_says(file, "fourth");
	spoil(48, "X");
	assert_says(file, "second");
}

static void a_number_alone_makes_nothing_newer(void **state)
{
	(void)state;
	put("first");
	put("second");
	spoil(5, "00000000000000ff");
	assert_says(file, "second");
}

static void where_neither_is_good_nothing_is_guessed(void **state)
{
	struct error e = { 0 };
	size_t bytes;

	(void)state;
	put("first");
	put("second");
	spoil(48, "X");
	spoil(SLOT_BYTES + 48, "X");
	assert_null(slots_read(file, &bytes, &e));
	assert_int_equal(e.err, EBADMSG);
	assert_non_null(strstr(e.text, file));
	put("third");
	assert_says(file, "third");
}

static void a_file_of_another_kind_is_the_text_and_is_replaced(void **state)
{
	(void)state;
	assert_int_equal(proc_replace_file(file, "{}\n", 3, 0600, NULL), 0);
	assert_says(file, "{}\n");
	put("new");
	assert_says(file, "new");
}

static void who_has_it_under_another_name_keeps_what_it_was(void **state)
{
	(void)state;
	put("first");
	put("second");
	assert_int_equal(link(file, other), 0);
	put("third");
	assert_says(file, "third");
	assert_says(other, "second");
}

static void a_link_is_not_followed(void **state)
{
	struct error e = { 0 };
	size_t bytes;

	(void)state;
	assert_int_equal(slots_write(other, "theirs", 6, 0600, NULL), 0);
	assert_int_equal(symlink(other, file), 0);
	assert_null(slots_read(file, &bytes, &e));
	assert_int_equal(e.err, EBADMSG);
	put("ours");
	assert_says(file, "ours");
	assert_says(other, "theirs");
}

static void what_cannot_be_is_an_error(void **state)
{
	char text[SLOTS_TEXT_MAX + 1];
	struct error e = { 0 };
	size_t bytes;

	(void)state;
	memset(text, 'x', sizeof(text));
	assert_int_equal(slots_write(file, text, sizeof(text), 0600, &e), -1);
	assert_int_equal(e.err, EFBIG);
	assert_int_equal(slots_write(file, text, sizeof(text) - 1, 0600, NULL), 0);
	assert_null(slots_read("/nowhere/at/all", &bytes, &e));
	assert_int_equal(e.err, ENOENT);
	assert_int_equal(slots_write("/nowhere/at/all", "x", 1, 0600, &e), -1);
	assert_int_equal(e.err, ENOENT);
}

static int remove_dir(void **state)
{
	set_up(state);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_was_written_last_is_read, set_up),
		cmocka_unit_test_setup(a_change_is_made_in_place, set_up),
		cmocka_unit_test_setup(one_that_is_torn_was_never_written, set_up),
		cmocka_unit_test_setup(a_number_alone_makes_nothing_newer, set_up),
		cmocka_unit_test_setup(where_neither_is_good_nothing_is_guessed, set_up),
		cmocka_unit_test_setup(a_file_of_another_kind_is_the_text_and_is_replaced, set_up),
		cmocka_unit_test_setup(who_has_it_under_another_name_keeps_what_it_was, set_up),
		cmocka_unit_test_setup(a_link_is_not_followed, set_up),
		cmocka_unit_test_setup(what_cannot_be_is_an_error, set_up),
	};

	if (!mkdtemp(dir))
		return 1;
	snprintf(file, sizeof(file), "%s/file", dir);
	snprintf(other, sizeof(other), "%s/other", dir);
	return cmocka_run_group_tests(tests, NULL, remove_dir);
}
