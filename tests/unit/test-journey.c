/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A journey whose driver dies at any question, before it is done or after, and is resumed or given up: it ends, each disk has one
 * owner with the newest data, nothing that was made is left over, and the source of what has moved is kept.
 *
 * Between two steps that are on record there is a question, or nothing that anybody else sees: so dying before each question is
 * dying after each record, too. Then, besides, a person does something with a disk before the journey is taken up again.
 *
 *      SXM_LONG=1: at each question; else at some.      test-journey N AFTER HOW PERSON: one history, told
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/journey.h"
#include "tests/unit/fake-hosts.h"

#define ID "m0"
#define TEXT(s) ((char *)(uintptr_t)(s))
#define STRIDE 5u /* of questions, in a short run */

enum how { RESUME, ABORT, HOWS };
enum person { NOBODY, SHUTS_DOWN, TAKES_BACK, STARTS_THERE, STARTS_AND_TAKES_BACK, PERSONS };

static bool is_told;
static char playing[64]; /* this history, to be told */

static void write_record(void)
{
	static struct journey_disk disk[HOSTS_DISKS];
	struct journey_record r = {
		.format = 1, .id = TEXT(ID), .step = TEXT("planned"), .why = TEXT(""), .host = TEXT("b"), .kind = TEXT("exec"),
		.user = TEXT(""), .config = TEXT(""), .far_sr = TEXT("file:///b"), .far_domain = TEXT(""), .receiver = TEXT("MIR0"),
		.group = TEXT(""), .switchover = TEXT("auto"), .keep_s = 5, .disks = { HOSTS_DISKS, disk },
	};
	static const char *const uris[] = { "sxm:///a/k0.raw", "sxm:///a/k1.raw" };
	struct error e;

	for (size_t i = 0; i < HOSTS_DISKS; i++)
		disk[i] = (struct journey_disk) {
			.name = TEXT("x"), .description = TEXT(""), .uri = TEXT(uris[i]), .id = TEXT("k"), .sr = TEXT("file:///a"),
			.key = TEXT("k"), .domain = TEXT("3"), .base = TEXT(""), .log = TEXT(""), .is_tracked = true,
			.size_bytes = 4096, .far_key = TEXT(""), .far_uri = TEXT(""), .far_id = TEXT(""), .operation = TEXT(""),
		};
	assert_int_equal(journey_write(&r, &e), 0);
}

static enum journey_step step_now(void)
{
	struct journey_record r;
	enum journey_step step;
	struct error e;

	assert_int_equal(journey_read(ID, &r, &e), 0);
	step = journey_step_of(&r);
	jsonspec_clear(&journey_record_spec, &r);
	return step;
}

/* --- whoever drives it */

static void say(void *arg UNUSED, const char *text)
{
	if (is_told)
		printf("  says: %s\n", text);
}

static int drive_here(enum how how)
{
	const struct journey_watch watch = { .say = say, .patience_s = hosts->link_takes ? 60 : 1 };
	struct journey_record r;
	struct error e = { 0 };
	struct journey j;
	int outcome;

	hosts->driver = getpid();
	if (journey_read(ID, &r, &e) == -1 || journey_open(&j, &r, -1, &watch, &e) == -1)
		return 99;
	j.here.channel = hosts_channel_here;
	for (size_t i = 0; i < HOSTS_DISKS; i++)
		j.disk_here[i].channel = hosts_channel_here;
	if (journey_reach(&j, hosts_carrier(), &e) == -1)
		return 98;
	outcome = how == ABORT ? (int)journey_abort(&j, &e) : (int)journey_run(&j, &e);
	if (is_told)
		printf("  %s: %d at %s: %s\n", how == ABORT ? "abort" : "run", outcome, j.r.step, e.text);
	fflush(stdout);
	journey_close(&j);
	return outcome;
}

/* -1: it died. All that it began is gone when this is over. */
static int drive(enum how how)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(drive_here(how));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	while (wait(NULL) > 0 || errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- what a person does meanwhile: to the first disk. False: there is nothing to do it to. */

static bool act(enum person person)
{
	struct hosts_disk *d = &hosts->disk[0];

	switch (person) {
	case SHUTS_DOWN:
		if (d->here != HERE_OWNED || d->there != FAR_RECEIVING || !d->has_mirror)
			return false;
		hosts_shut_down(0);
		return true;
	case TAKES_BACK:
		if (d->here == HERE_OWNED)
			return false;
		hosts_take_back(0);
		return true;
	case STARTS_THERE:
	case STARTS_AND_TAKES_BACK:
		if (d->there != FAR_ELIGIBLE)
			return false;
		hosts_start_there(0);
		if (person == STARTS_AND_TAKES_BACK)
			hosts_take_back(0);
		return true;
	default:
		return true;
	}
}

/* Their links have been gone for long. */
static void lose_mirrors(void)
{
	for (size_t i = 0; i < HOSTS_DISKS; i++)
		hosts->disk[i].is_lost = hosts->disk[i].has_mirror && hosts->disk[i].here == HERE_OWNED;
}

/* --- what must hold */

static void check_disk(const struct hosts_disk *d, enum person person, bool is_touched)
{
	assert_true(d->here != HERE_OFFERED);
	assert_true(strncmp(d->writer, "sxm-", 4) != 0);
	assert_false(d->is_receiver_there);
	if (d->here == HERE_OWNED) {
		if (person == STARTS_AND_TAKES_BACK && is_touched)
			assert_int_equal(d->there, FAR_STARTED);
		else
			assert_int_equal(d->there, FAR_NONE);
		assert_true(person != NOBODY || !*d->kept);
		assert_false(d->has_mirror);
		assert_true(person == SHUTS_DOWN || strcmp(d->writer, "3") == 0);
	} else {
		assert_true(d->there == FAR_ELIGIBLE || d->there == FAR_STARTED);
		assert_true(d->far_version >= d->version && d->is_named && *d->kept);
	}
}

static void check(enum person person, enum how how)
{
	const struct hosts_disk *d = hosts->disk;
	enum journey_step step = step_now();

	assert_true(step == JOURNEY_DONE || step == JOURNEY_ABORTED);
	check_disk(&d[0], person, true);
	check_disk(&d[1], person, false);
	if (person == NOBODY)
		assert_int_equal(d[0].here, d[1].here);
	if (person == NOBODY && how == RESUME)
		assert_int_equal(d[0].here, HERE_GIVEN);
	if (step == JOURNEY_DONE)
		assert_int_equal(d[1].here, HERE_GIVEN);
}

/* As a person would: what is said is done, until it is over. */
static void finish(enum how how)
{
	static const enum how other[] = { [RESUME] = ABORT, [ABORT] = RESUME };
	enum journey_step step;

	for (int i = 0; i < 3; i++) {
		int outcome = drive(how);

		assert_true(outcome >= 0 && outcome <= JOURNEY_LEFT);
		step = step_now();
		if (step == JOURNEY_DONE || step == JOURNEY_ABORTED)
			return;
		how = other[how];
	}
	fail_msg("neither --resume nor --abort ends it: it is %s", journey_step_name(step));
}

/* False: it did not get so far. */
static bool play(unsigned dies_at, bool dies_after, enum how how, enum person person)
{
	int outcome;

	hosts_reset();
	write_record();
	hosts->dies_at = dies_at;
	hosts->dies_after = dies_after;
	outcome = drive(RESUME);
	if (!hosts->has_died) {
		assert_int_equal(outcome, JOURNEY_OK);
		check(NOBODY, RESUME);
	} else if (act(person)) {
		if (is_told)
			printf("died at %s; here %d, there %d\n", journey_step_name(step_now()), hosts->disk[0].here, hosts->disk[0].there);
		lose_mirrors();
		finish(how);
		check(person, how);
	}
	journey_forget(ID);
	return hosts->has_died;
}

static unsigned stride(void)
{
	return getenv("SXM_LONG") ? 1 : STRIDE;
}

static void play_all(enum person person)
{
	bool is_far_enough = true;

	for (unsigned n = 1; is_far_enough; n++)
		for (enum how how = RESUME; how < HOWS && is_far_enough; how++)
			for (unsigned after = 0; after < 2 && is_far_enough; after++) {
				if ((4 * n + 2 * how + after + person) % stride())
					continue;
				snprintf(playing, sizeof(playing), "%u %u %d %d", n, after, how, person);
				is_far_enough = play(n, after, how, person);
				playing[0] = '\0';
			}
}

static void it_ends_wherever_its_driver_dies(void **state UNUSED)
{
	play_all(NOBODY);
}

static void it_ends_though_a_guest_was_shut_down(void **state UNUSED)
{
	play_all(SHUTS_DOWN);
}

static void it_ends_though_a_disk_was_taken_back(void **state UNUSED)
{
	play_all(TAKES_BACK);
}

static void it_ends_though_a_guest_was_started_there(void **state UNUSED)
{
	play_all(STARTS_THERE);
}

static void it_ends_though_both_are_somebody_s(void **state UNUSED)
{
	play_all(STARTS_AND_TAKES_BACK);
}

/* Complete, and the driver is another: the links to the far side are just being made anew. */
static void a_switchover_waits_for_the_links(void **state UNUSED)
{
	bool is_far_enough = true;
	unsigned waited = 0;

	for (unsigned n = 1; is_far_enough; n += stride()) {
		hosts_reset();
		write_record();
		hosts->dies_at = n;
		drive(RESUME);
		is_far_enough = hosts->has_died && step_now() < JOURNEY_SWITCHING;
		if (is_far_enough && hosts->disk[0].has_mirror && hosts->disk[1].has_mirror) {
			hosts->link_takes = 12;
			assert_int_equal(drive(RESUME), JOURNEY_OK);
			waited++;
		}
		journey_forget(ID);
	}
	assert_true(waited > 1);
}

static int tell_failed(void **state UNUSED)
{
	if (playing[0])
		print_message("to see it: test-journey %s\n", playing);
	playing[0] = '\0';
	return 0;
}

static char dir[] = "/tmp/sxm.XXXXXX";

static int begin(void **state UNUSED)
{
	if (!mkdtemp(dir) || prctl(PR_SET_CHILD_SUBREAPER, 1) == -1)
		return -1;
	setenv("SXM_RUN_DIR", dir, 1);
	setenv("SXM_STATE_DIR", dir, 1);
	signal(SIGPIPE, SIG_IGN);
	hosts_begin();
	return 0;
}

static int end(void **state UNUSED)
{
	CLEANUP_FREE char *command = NULL;

	return asprintf(&command, "rm -rf %s", dir) < 0 ? -1 : system(command);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_switchover_waits_for_the_links),
		cmocka_unit_test_teardown(it_ends_wherever_its_driver_dies, tell_failed),
		cmocka_unit_test_teardown(it_ends_though_a_guest_was_shut_down, tell_failed),
		cmocka_unit_test_teardown(it_ends_though_a_disk_was_taken_back, tell_failed),
		cmocka_unit_test_teardown(it_ends_though_a_guest_was_started_there, tell_failed),
		cmocka_unit_test_teardown(it_ends_though_both_are_somebody_s, tell_failed),
	};

	if (argc == 5) {
		is_told = true;
		begin(NULL);
		play((unsigned)atoi(argv[1]), atoi(argv[2]), (enum how)atoi(argv[3]), (enum person)atoi(argv[4]));
		return end(NULL);
	}
	return cmocka_run_group_tests(tests, begin, end);
}
