/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Who drives a move is killed while the tunnel's keeper waits for the way to the host, which may take long: whoever takes the move up
 * has its lock at once, and what the driver had open has ended with him.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/tunnel.h"

/* --- a way that is being made for as long as nothing can be read from `stuck` */

struct way {
	struct carrier carrier;
	int told, stuck; /* its own */
};

static int channel(struct carrier *c, struct error *e)
{
	struct way *w = container_of(c, struct way, carrier);
	char go;

	(void)!write(w->told, "w", 1);
	while (read(w->stuck, &go, 1) == -1 && errno == EINTR)
		;
	return error_set(e, EHOSTUNREACH, "there is no way");
}

static bool is_alive(struct carrier *c UNUSED)
{
	return false;
}

static size_t descriptors(struct carrier *c, int fds[static CARRIER_DESCRIPTORS_MAX])
{
	struct way *w = container_of(c, struct way, carrier);

	fds[0] = w->told;
	fds[1] = w->stuck;
	return 2;
}

static void free_way(struct carrier *c UNUSED)
{
}

static const struct carrier_ops ops = { .kind = "stuck", .channel = channel, .is_alive = is_alive, .descriptors = descriptors,
					.free = free_way };

/* --- */

static char lock_path[] = "/tmp/sxm.test-tunnel.XXXXXX";

static int take_lock(void)
{
	int fd = open(lock_path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return flock(fd, LOCK_EX | LOCK_NB) == 0 ? fd : (close(fd), -1);
}

/* Never returns. */
static void drive(struct way *w)
{
	struct error e = { 0 };
	int lock = take_lock();
	struct tunnel *t = lock < 0 ? NULL : tunnel_new(&w->carrier, &e);

	if (t)
		tunnel_channel(t, &e);
	_exit(1);
}

static void a_killed_driver_leaves_its_lock_to_the_next(void **state UNUSED)
{
	int told[2], stuck[2], open_there[2], lock;
	struct way w = { .carrier = { .ops = &ops } };
	char word;
	pid_t pid;

	assert_int_equal(pipe2(told, O_CLOEXEC), 0);
	assert_int_equal(pipe2(stuck, O_CLOEXEC), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, open_there), 0);
	w.told = told[1];
	w.stuck = stuck[0];
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(stuck[1]);
		close(open_there[1]);
		drive(&w);
	}
	close(told[1]);
	close(open_there[0]);
	assert_int_equal(read(told[0], &word, 1), 1); /* the keeper is in there */
	lock = take_lock();
	assert_int_equal(lock, -1);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	lock = take_lock();
	assert_true(lock >= 0);
	assert_int_equal(recv(open_there[1], &word, 1, MSG_DONTWAIT), 0); /* its end */
	assert_int_equal(write(stuck[1], "g", 1), 1);
	assert_int_equal(read(told[0], &word, 1), 0); /* and the keeper's */
	close(lock);
	close(told[0]);
	close(stuck[0]);
	close(stuck[1]);
	close(open_there[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_killed_driver_leaves_its_lock_to_the_next),
	};
	int fd = mkstemp(lock_path), r;

	if (fd < 0)
		return 1;
	close(fd);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(lock_path);
	return r;
}
