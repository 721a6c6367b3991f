/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-qcow2-lock - on NFS the lock of an image is on what its server has opened: how it gets there
 *
 *      this program    has the image open and locked, and starts
 *      the server      which inherits that descriptor, and opens the image by itself, as qemu does: other files first, and the image
 *                      to read before it opens it to write
 *
 * When both have closed the first description the lock is still there, and goes with the server's own. That is asked for on whatever
 * file system; that writes then carry the lock is what the e2e test-nfs.sh shows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "disk/disk-qcow2.h"

#define FIELD_STARTED 22

struct world {
	char path[64], other[64], started[32];
	struct disk_qcow2 image;
	struct disk_server server;
	int to_server; /* owned: a byte lets go of its own description, the end of it ends the server */
	int from_server;
};

static void hear(int fd)
{
	char byte;

	assert_int_equal(read(fd, &byte, 1), 1);
}

/* Never returns. opens_image: to write; else only to read. */
static void be_server(const struct world *w, int inherited, bool opens_image, int from_test, int to_test)
{
	int other, reading, own;
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(inherited, DISK_SERVER_IMAGE_FD) < 0)
		_exit(1);
	if (inherited != DISK_SERVER_IMAGE_FD)
		close(inherited);
	other = open(w->other, O_RDWR);
	reading = open(w->path, O_RDONLY);
	own = opens_image ? open(w->path, O_RDWR) : -1;
	if (other < 0 || reading < 0 || write(to_test, "!", 1) != 1)
		_exit(1);
	while (read(from_test, &byte, 1) == 1) {
		close(byte == 'i' ? DISK_SERVER_IMAGE_FD : own);
		if (write(to_test, "!", 1) != 1)
			_exit(1);
	}
	_exit(0);
}

static void ask_started(pid_t pid, char started[static 32])
{
	char path[64], *at, *rest = NULL, *field = NULL;
	CLEANUP_FREE char *text = NULL;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	text = proc_read_file(path, 4096, NULL, NULL);
	assert_non_null(text);
	at = strrchr(text, ')') + 1;
	for (int i = 3; i <= FIELD_STARTED; i++, at = NULL)
		field = strtok_r(at, " ", &rest);
	snprintf(started, 32, "%s", field);
}

static void make_file(char path[static 64])
{
	strcpy(path, "/tmp/sxm-qcow2-lock.XXXXXX");
	close(mkstemp(path));
}

static void start(struct world *w, bool opens_image)
{
	int to[2], from[2];
	struct stat st;

	alarm(60);
	memset(w, 0, sizeof(*w));
	make_file(w->path);
	make_file(w->other);
	w->image = (struct disk_qcow2){ .path = w->path, .dir_fd = -1, .fd = open(w->path, O_RDWR | O_CLOEXEC) };
	assert_int_equal(flock(w->image.fd, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(fstat(w->image.fd, &st), 0);
	assert_true(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
	w->server = (struct disk_server){ .pid = fork(), .started = w->started, .dev = (int64_t)st.st_dev,
					  .ino = (int64_t)st.st_ino };
	if (w->server.pid == 0) {
		close(to[1]);
		/* out of the way of what is put into place */
		be_server(w, fcntl(w->image.fd, F_DUPFD, 100), opens_image, fcntl(to[0], F_DUPFD, 100), fcntl(from[1], F_DUPFD, 100));
	}
	close(to[0]);
	close(from[1]);
	w->to_server = to[1];
	w->from_server = from[0];
	hear(w->from_server);
	ask_started(w->server.pid, w->started);
}

static void stop(struct world *w)
{
	close(w->to_server);
	close(w->from_server);
	assert_int_equal(waitpid(w->server.pid, NULL, 0), w->server.pid);
	if (w->image.fd >= 0)
		close(w->image.fd);
	unlink(w->path);
	unlink(w->other);
}

/* 'i': the server closes what it inherited; 'o': its own. */
static void close_in_server(struct world *w, char which)
{
	assert_int_equal(write(w->to_server, &which, 1), 1);
	hear(w->from_server);
}

static bool is_locked(const struct world *w)
{
	CLEANUP_CLOSE int fd = open(w->path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return flock(fd, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK;
}

/* The server's own description, had by the kernel's help; skips the test where it does not give it. */
static void need_kernel(struct world *w)
{
	CLEANUP_CLOSE int own = disk_server_own_fd(&w->server);

	if (own >= 0)
		return;
	print_message("SKIPPED: this kernel, or what confines this process, has no pidfd_getfd(): the lock stays where it is\n");
	stop(w);
	skip();
}

static void the_lock_goes_over_to_what_the_server_has_opened(void **state)
{
	struct world w;
	struct error e = { 0 };

	(void)state;
	start(&w, true);
	need_kernel(&w);
	w.image.must_lock = true;
	assert_int_equal(disk_qcow2_move_lock(&w.image, &w.server, &e), 0);
	assert_false(w.image.must_lock);
	close_in_server(&w, 'i');
	assert_true(is_locked(&w)); /* nobody has the first description any more */
	close(take_fd(&w.image.fd));
	assert_true(is_locked(&w)); /* the server has its own */
	close_in_server(&w, 'o');
	assert_false(is_locked(&w));
	stop(&w);
}

static void it_is_there_already(void **state)
{
	struct world w;
	struct error e = { 0 };

	(void)state;
	start(&w, true);
	need_kernel(&w);
	for (int i = 0; i < 2; i++) /* as a successor does that took the server up */
		assert_int_equal(disk_qcow2_move_lock(&w.image, &w.server, &e), 0);
	close_in_server(&w, 'i');
	assert_true(is_locked(&w));
	stop(&w);
}

static void who_gets_it_in_between_has_it(void **state)
{
	CLEANUP_CLOSE int other = -1;
	struct world w;
	struct error e = { 0 };

	(void)state;
	start(&w, true);
	need_kernel(&w);
	other = open(w.path, O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(w.image.fd, LOCK_UN), 0);
	assert_int_equal(flock(other, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(disk_qcow2_move_lock(&w.image, &w.server, &e), -1);
	assert_int_equal(e.err, EBUSY);
	stop(&w);
}

static void where_the_server_has_none_to_write_it_stays(void **state)
{
	struct world w;
	struct error e = { 0 };
	int before;

	(void)state;
	start(&w, false);
	before = w.image.fd;
	assert_int_equal(disk_qcow2_move_lock(&w.image, &w.server, &e), 0);
	assert_int_equal(w.image.fd, before);
	assert_true(is_locked(&w));
	stop(&w);
}

static void another_process_of_that_number_is_not_asked(void **state)
{
	struct world w;

	(void)state;
	start(&w, true);
	strcpy(w.started, "1");
	assert_int_equal(disk_server_own_fd(&w.server), -1);
	stop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_lock_goes_over_to_what_the_server_has_opened),
		cmocka_unit_test(it_is_there_already),
		cmocka_unit_test(who_gets_it_in_between_has_it),
		cmocka_unit_test(where_the_server_has_none_to_write_it_stays),
		cmocka_unit_test(another_process_of_that_number_is_not_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
