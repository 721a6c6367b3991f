/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Bytes between two streams: whole and in their order, over sockets and pipes, squeezed or not, also where little is read at a
 * time; a question arrives before its sender says more; an end is passed on, and a broken end ends both.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "migrate/pump.h"
#include "migrate/squeeze.h"

#define BYTES ((size_t)5 << 20)

static char sent[BYTES], back[BYTES];

static void fill(void)
{
	uint32_t x = 2463534242u;

	for (size_t i = 0; i < BYTES; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		sent[i] = i / 5000 % 3 ? (char)x : 'w';
	}
}

/* Ours, and the pump's. */
struct ends {
	int in, out;
	struct pump_end pump;
};

static void make_sockets(struct ends *x)
{
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	*x = (struct ends) { fd[0], fd[0], { .in = fd[1], .out = fd[1] } };
}

static void make_pipes(struct ends *x)
{
	int there[2], here[2];

	assert_int_equal(pipe(there), 0);
	assert_int_equal(pipe(here), 0);
	*x = (struct ends) { here[0], there[1], { .in = there[0], .out = here[1] } };
}

static void close_pump(const struct pump_end *p)
{
	close(p->in);
	if (p->out != p->in)
		close(p->out);
}

static void close_ours(const struct ends *x)
{
	close(x->in);
	if (x->out != x->in)
		close(x->out);
}

/* near, far: what the pump's process must not have open. */
static pid_t start(const struct pump_end *a, const struct pump_end *b, const struct ends *near, const struct ends *far,
		   const char *first)
{
	pid_t pid = fork();
	struct error e;

	if (pid == 0) {
		close_ours(near);
		close_ours(far);
		_exit(pump_run(a, b, first, strlen(first), &e) == 0 ? 0 : 1);
	}
	close_pump(a);
	close_pump(b);
	return pid;
}

static int status_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void end_writing(const struct ends *x)
{
	if (x->in == x->out)
		shutdown(x->out, SHUT_WR);
	else
		close(x->out);
}

static void write_all(int fd, const char *from, size_t bytes)
{
	while (bytes) {
		ssize_t n = write(fd, from, bytes);

		assert_true(n > 0);
		from += n;
		bytes -= (size_t)n;
	}
}

/* What was sent from that place on. */
static void read_from(int fd, size_t at, size_t bytes, size_t step)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = read(fd, back + done, MIN(step, bytes - done));

		assert_true(n > 0);
		done += (size_t)n;
	}
	assert_memory_equal(back, sent + at, bytes);
}

/* Another process writes it there; what comes out at the other end is that, and then its end. */
static void carry_one_way(const struct ends *from, const struct ends *to, size_t step)
{
	pid_t pid = fork();
	char one;

	if (pid == 0) {
		write_all(from->out, sent, BYTES);
		_exit(0);
	}
	read_from(to->in, 0, BYTES, step);
	assert_int_equal(status_of(pid), 0);
	end_writing(from);
	assert_int_equal(read(to->in, &one, 1), 0);
}

typedef void make_fn(struct ends *x);

static void carry(make_fn *make_near, make_fn *make_far, size_t step)
{
	struct ends near, far;
	pid_t pid;

	make_near(&near);
	make_far(&far);
	pid = start(&near.pump, &far.pump, &near, &far, "");
	carry_one_way(&near, &far, step);
	carry_one_way(&far, &near, BYTES);
	assert_int_equal(status_of(pid), 0);
	close(near.in);
	close(far.in);
}

static void between_sockets_and_pipes(void **state UNUSED)
{
	carry(make_sockets, make_sockets, BYTES);
	carry(make_sockets, make_sockets, 3000);
	carry(make_pipes, make_sockets, 70000);
	carry(make_sockets, make_pipes, 5000);
	carry(make_pipes, make_pipes, BYTES);
}

static void what_was_read_before_comes_first(void **state UNUSED)
{
	struct ends near, far;
	pid_t pid;

	make_pipes(&near);
	make_sockets(&far);
	pid = start(&near.pump, &far.pump, &near, &far, "before ");
	write_all(near.out, "after", 5);
	end_writing(&near);
	end_writing(&far);
	assert_int_equal(status_of(pid), 0);
	assert_int_equal(read(far.in, back, 20), 12);
	assert_memory_equal(back, "before after", 12);
	close(near.in);
	close(far.in);
}

static void nobody_who_reads_ends_it(void **state UNUSED)
{
	struct ends near, far;
	pid_t pid;

	signal(SIGPIPE, SIG_IGN);
	make_sockets(&near);
	make_sockets(&far);
	pid = start(&near.pump, &far.pump, &near, &far, "");
	close(far.in);
	write_all(near.out, "x", 1);
	assert_true(status_of(pid) <= 1);
	assert_int_equal(read(near.in, back, 1), 0);
	close(near.in);
}

/* Two of them, and something in between. */
static pid_t start_far_half(struct ends *middle, struct ends *far)
{
	int fd[2];
	struct pump_end there;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	middle->pump = (struct pump_end) { .in = fd[0], .out = fd[0], .is_squeezed = true };
	there = (struct pump_end) { .in = fd[1], .out = fd[1], .is_squeezed = true };
	middle->in = middle->out = fd[0];
	make_sockets(far);
	return start(&there, &far->pump, middle, far, "");
}

static void squeezed_in_between(void **state UNUSED)
{
	struct ends near, middle, far;
	pid_t pid[2];

	if (!squeeze_is_there())
		skip();
	pid[1] = start_far_half(&middle, &far);
	make_sockets(&near);
	pid[0] = start(&near.pump, &middle.pump, &near, &far, "");
	for (size_t i = 0; i < 50; i++) { /* each is answered before the next is asked */
		write_all(near.out, sent + i, i + 1);
		read_from(far.in, i, i + 1, BYTES);
		write_all(far.out, sent + i, 2 * i + 1);
		read_from(near.in, i, 2 * i + 1, BYTES);
	}
	carry_one_way(&near, &far, 3000);
	carry_one_way(&far, &near, BYTES);
	assert_int_equal(status_of(pid[0]), 0);
	assert_int_equal(status_of(pid[1]), 0);
	close(near.in);
	close(far.in);
}

static void what_is_not_squeezed_is_refused(void **state UNUSED)
{
	struct ends near, far;
	pid_t pid;

	if (!squeeze_is_there())
		skip();
	make_sockets(&near);
	make_sockets(&far);
	near.pump.is_squeezed = true;
	pid = start(&near.pump, &far.pump, &near, &far, "");
	write_all(near.out, "NBDMAGICIHAVEOPT", 16);
	assert_int_equal(status_of(pid), 1);
	assert_int_equal(read(far.in, back, 1), 0);
	close(near.in);
	close(far.in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(between_sockets_and_pipes),
		cmocka_unit_test(what_was_read_before_comes_first),
		cmocka_unit_test(nobody_who_reads_ends_it),
		cmocka_unit_test(squeezed_in_between),
		cmocka_unit_test(what_is_not_squeezed_is_refused),
	};

	fill();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
