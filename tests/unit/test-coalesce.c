/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-coalesce - who merges is ended, and nobody else: a lock may be held a moment longer than by the process that is named in it
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "plugins/coalesce.h"
#include "plugins/vdi-id.h"

#define SR "/srv/nothing"
#define HELD_MS 200

static char dir[] = "/tmp/sxm-coalesce.XXXXXX";

static void lock_path(char path[static 128])
{
	char id[VDI_ID_MAX];

	vdi_id_of_path(SR, id);
	snprintf(path, 128, "%s/coalesce/%s", dir, id);
}

/* Has the lock open, and is not who merges. */
static pid_t start_other(const char *path, int lock)
{
	pid_t pid = fork();

	if (pid == 0) {
		close(lock);
		if (open(path, O_RDWR) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	return pid;
}

/* Has the lock for a moment, as a qemu-img whose parent was killed. */
static pid_t start_holder(void)
{
	const struct timespec moment = { .tv_nsec = HELD_MS * 1000000L };
	pid_t pid = fork();

	if (pid == 0) {
		nanosleep(&moment, NULL);
		_exit(0);
	}
	return pid;
}

static void a_number_that_is_anothers_by_now_is_left_alone(void **state)
{
	pid_t other, holder;
	char path[128], text[16];
	struct error e;
	int lock;

	(void)state;
	lock_path(path);
	lock = open(path, O_RDWR | O_CREAT, 0600);
	assert_true(lock >= 0);
	other = start_other(path, lock);
	snprintf(text, sizeof(text), "%d\n", (int)other);
	assert_int_equal(write(lock, text, strlen(text)), strlen(text));
	assert_int_equal(flock(lock, LOCK_EX), 0);
	holder = start_holder();
	close(lock);
	assert_int_equal(coalesce_stop(SR, &e), 0);
	assert_int_equal(waitpid(other, NULL, WNOHANG), 0);
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
	waitpid(holder, NULL, 0);
}

static int set_up(void **state)
{
	char path[64];

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	setenv("SXM_RUN_DIR", dir, 1);
	snprintf(path, sizeof(path), "%s/coalesce", dir);
	return mkdir(path, 0700);
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
		cmocka_unit_test(a_number_that_is_anothers_by_now_is_left_alone),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
