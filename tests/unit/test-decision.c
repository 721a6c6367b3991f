/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One word about a group of disks: whoever says it first has said it, and all others hear that.
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/decision.h"
#include "base/proc.h"

static char dir[] = "/tmp/sxm-decision-XXXXXX";

static void put(const char *group, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/groups/%s.json", dir, group);
	assert_int_equal(proc_replace_file(path, text, strlen(text), 0600, NULL), 0);
}

static void the_first_word_stands(void **state)
{
	struct error e;

	(void)state;
	assert_int_equal(decision_read("a", &e), DECISION_NONE);
	assert_int_equal(e.err, 0);
	assert_int_equal(decision_make("a", DECISION_COMMIT, &e), DECISION_COMMIT);
	assert_int_equal(decision_make("a", DECISION_CANCEL, &e), DECISION_COMMIT);
	assert_int_equal(decision_make("a", DECISION_COMMIT, &e), DECISION_COMMIT);
	assert_int_equal(decision_read("a", &e), DECISION_COMMIT);
	assert_int_equal(decision_make("b", DECISION_CANCEL, &e), DECISION_CANCEL);
	assert_int_equal(decision_make("b", DECISION_COMMIT, &e), DECISION_CANCEL);
	assert_int_equal(decision_forget("b", &e), 0);
	assert_int_equal(decision_forget("b", &e), 0);
	assert_int_equal(decision_read("b", &e), DECISION_NONE);
}

/* Many who want the one or the other, let go in one moment: all have heard the same. */
static void of_those_who_decide_in_one_moment_all_hear_one_word(void **state)
{
	enum { ROUNDS = 40, WRITERS = 6 };
	unsigned seen[DECISION_CANCEL + 1] = { 0 };

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		char group[32], byte;
		int start[2], status, first = 0;

		snprintf(group, sizeof(group), "race-%d", round);
		assert_int_equal(pipe(start), 0);
		for (int i = 0; i < WRITERS; i++) {
			struct error e;

			if (fork() != 0)
				continue;
			close(start[1]);
			(void)!read(start[0], &byte, 1); /* its end */
			_exit((int)decision_make(group, (i + round) % 2 ? DECISION_COMMIT : DECISION_CANCEL, &e));
		}
		close(start[0]);
		close(start[1]);
		for (int i = 0; i < WRITERS; i++) {
			assert_true(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) != DECISION_NONE);
			assert_true(!first || first == WEXITSTATUS(status));
			first = WEXITSTATUS(status);
		}
		seen[first]++;
	}
	printf("of %d races commit won %u, cancel %u\n", ROUNDS, seen[DECISION_COMMIT], seen[DECISION_CANCEL]);
}

static void what_cannot_be_read_decides_nothing(void **state)
{
	static const char *const bad[] = {
		"", "{}", "{\"group\":\"bad\",\"decision\":\"perhaps\"}", "{\"group\":\"other\",\"decision\":\"commit\"}", "commit",
	};
	struct error e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		put("bad", bad[i]);
		assert_int_equal(decision_read("bad", &e), DECISION_NONE);
		assert_int_not_equal(e.err, 0);
		assert_int_equal(decision_make("bad", DECISION_CANCEL, &e), DECISION_NONE);
		assert_int_not_equal(e.err, 0);
	}
}

static void a_groups_name_is_a_files_name(void **state)
{
	static const char *const bad[] = { "", ".", "..", ".x", "a/b", "../x", "a b", "x\n",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" };
	struct error e;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_false(decision_group_is_valid(bad[i]));
		assert_int_equal(decision_make(bad[i], DECISION_CANCEL, &e), DECISION_NONE);
		assert_int_equal(e.err, EINVAL);
		assert_int_equal(decision_read(bad[i], &e), DECISION_NONE);
		assert_int_equal(e.err, EINVAL);
	}
	assert_true(decision_group_is_valid("g1700000000000-4711"));
}

static bool is_there(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/groups/%s", dir, name);
	return access(path, F_OK) == 0;
}

static void make_old(const char *name, int days)
{
	const struct timespec then[2] = { { .tv_sec = time(NULL) - days * 86400 }, { .tv_sec = time(NULL) - days * 86400 } };
	char path[128];

	snprintf(path, sizeof(path), "%s/groups/%s", dir, name);
	assert_int_equal(utimensat(AT_FDCWD, path, then, 0), 0);
}

static void a_cancel_goes_after_a_day_and_a_commit_never(void **state)
{
	struct error e;

	(void)state;
	assert_int_equal(decision_make("old", DECISION_CANCEL, &e), DECISION_CANCEL);
	assert_int_equal(decision_make("young", DECISION_CANCEL, &e), DECISION_CANCEL);
	assert_int_equal(decision_make("given", DECISION_COMMIT, &e), DECISION_COMMIT);
	put("bad", "{");
	make_old("old.json", 2);
	make_old("given.json", 2);
	make_old("bad.json", 2);
	decision_collect(86400);
	assert_false(is_there("old.json"));
	assert_true(is_there("young.json") && is_there("given.json") && is_there("bad.json"));
	assert_int_equal(decision_read("old", &e), DECISION_NONE);
	assert_int_equal(e.err, 0);
}

static void what_was_being_made_goes_too(void **state)
{
	char path[128];
	FILE *f;

	(void)state;
	snprintf(path, sizeof(path), "%s/groups/g.json.4711.tmp", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fclose(f);
	decision_collect(86400);
	assert_true(is_there("g.json.4711.tmp")); /* it may still be */
	make_old("g.json.4711.tmp", 2);
	decision_collect(86400);
	assert_false(is_there("g.json.4711.tmp"));
}

static int set_up(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	setenv("SXM_STATE_DIR", dir, 1);
	return 0;
}

static int tear_down(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_word_stands),
		cmocka_unit_test(of_those_who_decide_in_one_moment_all_hear_one_word),
		cmocka_unit_test(what_cannot_be_read_decides_nothing),
		cmocka_unit_test(a_groups_name_is_a_files_name),
		cmocka_unit_test(a_cancel_goes_after_a_day_and_a_commit_never),
		cmocka_unit_test(what_was_being_made_goes_too),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
