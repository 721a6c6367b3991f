/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What every room relies on: tasks run in order and outside the poster's stack, hooks run after tasks and before sleep,
 * watches and timers may be freed from their own callbacks, blocking work comes back to the loop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loop/loop.h"
#include "loop/offload.h"

static char trace[64];
static struct loop *the_loop;

static void note(char c)
{
	size_t used = strlen(trace);

	assert_true(used + 1 < sizeof(trace));
	trace[used] = c;
	trace[used + 1] = '\0';
}

static int setup(void **state)
{
	(void)state;
	trace[0] = '\0';
	the_loop = loop_new();
	return the_loop ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	loop_free(the_loop);
	return 0;
}

static struct loop_task task_a, task_b, task_stop;

static void run_a(struct loop_task *t)
{
	(void)t;
	note('a');
	loop_defer(the_loop, &task_b);
	note('(');
}

static void run_b(struct loop_task *t)
{
	(void)t;
	note('b');
}

static void run_stop(struct loop_task *t)
{
	(void)t;
	note('.');
	loop_stop(the_loop);
}

static void tasks_run_in_order_and_never_in_the_posters_stack(void **state)
{
	(void)state;
	task_a.run = run_a;
	task_b.run = run_b;
	task_stop.run = run_stop;
	loop_defer(the_loop, &task_a);
	loop_defer(the_loop, &task_a); /* posted already: once */
	assert_string_equal(trace, "");
	loop_defer(the_loop, &task_stop);
	loop_run(the_loop);
	assert_string_equal(trace, "a(.b");
}

static int hook_rounds;

static void run_hook(struct loop_hook *h)
{
	(void)h;
	note('h');
	if (++hook_rounds == 1)
		loop_defer(the_loop, &task_b);
	else if (hook_rounds == 2)
		loop_defer(the_loop, &task_stop);
}

static void a_hook_that_defers_is_run_again_before_sleep(void **state)
{
	struct loop_hook hook = { .run = run_hook };

	(void)state;
	hook_rounds = 0;
	task_b.run = run_b;
	task_stop.run = run_stop;
	loop_hook_add(the_loop, &hook);
	loop_run(the_loop);
	loop_hook_remove(the_loop, &hook);
	assert_string_equal(trace, "hbh.h");
}

static struct loop_watch *watch;
static int pipe_fds[2];

static void on_readable(void *arg, int events)
{
	char byte;

	(void)arg;
	assert_true(events & LOOP_IN);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
	note(byte);
	if (byte == 'z') {
		loop_watch_free(watch);
		loop_stop(the_loop);
	}
}

static void a_watch_may_be_freed_from_its_own_callback(void **state)
{
	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	watch = loop_watch_new(the_loop, pipe_fds[0], LOOP_IN, on_readable, NULL);
	assert_non_null(watch);
	assert_int_equal(write(pipe_fds[1], "xyz", 3), 3);
	loop_run(the_loop);
	assert_string_equal(trace, "xyz");
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static struct loop_timer *timer;
static uint64_t timer_set_ns;

static void on_timer(void *arg)
{
	(void)arg;
	assert_true(loop_now_ns() - timer_set_ns >= 9 * NS_PER_MS);
	note('t');
	loop_timer_free(timer);
	loop_stop(the_loop);
}

static void on_late(void *arg)
{
	(void)arg;
	fail_msg("nothing more was reported");
}

static int pair_fds[2];
static unsigned read_bytes;

static void on_broken(void *arg, int events)
{
	char byte;
	ssize_t n = read(pair_fds[0], &byte, 1);

	(void)arg;
	assert_true(events & (LOOP_IN | LOOP_HUP));
	read_bytes += n > 0;
	if (n <= 0)
		loop_stop(the_loop);
}

/* The peer left and had not read everything: an error is pending on the socket, and what it had sent before is there. */
static void a_broken_socket_is_reported_until_it_is_read_to_its_end(void **state)
{
	struct loop_timer *late = loop_timer_new(the_loop, on_late, NULL);

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair_fds), 0);
	assert_int_equal(write(pair_fds[0], "unread", 6), 6);
	assert_int_equal(write(pair_fds[1], "abc", 3), 3);
	close(pair_fds[1]);
	read_bytes = 0;
	watch = loop_watch_new(the_loop, pair_fds[0], LOOP_IN, on_broken, NULL);
	loop_timer_set(late, 60000);
	loop_run(the_loop);
	assert_int_equal(read_bytes, 3);
	loop_watch_free(watch);
	loop_timer_free(late);
	close(pair_fds[0]);
}

static void a_timer_is_not_early(void **state)
{
	(void)state;
	timer = loop_timer_new(the_loop, on_timer, NULL);
	timer_set_ns = loop_now_ns();
	loop_timer_set(timer, 10);
	loop_run(the_loop);
	assert_string_equal(trace, "t");
}

struct blocking {
	struct offload o;
	pthread_t ran_on;
};

static void work(struct offload *o)
{
	container_of(o, struct blocking, o)->ran_on = pthread_self();
}

static void work_done(struct offload *o)
{
	(void)o;
	note('d');
	loop_stop(the_loop);
}

static void blocking_work_leaves_the_loops_thread_and_comes_back(void **state)
{
	struct blocking b = { .o = { .work = work, .done = work_done } };

	(void)state;
	assert_int_equal(offload_submit(the_loop, &b.o), 0);
	loop_run(the_loop);
	assert_string_equal(trace, "d");
	assert_false(pthread_equal(b.ran_on, pthread_self()));
}

static bool poll_for_work(struct loop_poller *p)
{
	(void)p;
	note('p');
	loop_defer(the_loop, &task_stop);
	return true;
}

static void pollers_are_asked_only_while_work_is_expected(void **state)
{
	struct loop_poller poller = { .poll = poll_for_work };

	(void)state;
	task_stop.run = run_stop;
	loop_poller_add(the_loop, &poller);
	loop_defer(the_loop, &task_stop);
	loop_run(the_loop);
	assert_string_equal(trace, ".");
	loop_expect_work(the_loop);
	loop_run(the_loop);
	assert_string_equal(trace, ".p.");
	loop_poller_remove(the_loop, &poller);
}

static void on_usr1(void *arg)
{
	note('s');
	loop_stop(arg);
}

static void signals_arrive_from_the_loop(void **state)
{
	(void)state;
	assert_int_equal(loop_on_signal(the_loop, SIGUSR1, on_usr1, the_loop), 0);
	kill(getpid(), SIGUSR1);
	loop_run(the_loop);
	assert_string_equal(trace, "s");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tasks_run_in_order_and_never_in_the_posters_stack, setup, teardown),
		cmocka_unit_test_setup_teardown(a_hook_that_defers_is_run_again_before_sleep, setup, teardown),
		cmocka_unit_test_setup_teardown(a_watch_may_be_freed_from_its_own_callback, setup, teardown),
		cmocka_unit_test_setup_teardown(a_broken_socket_is_reported_until_it_is_read_to_its_end, setup, teardown),
		cmocka_unit_test_setup_teardown(a_timer_is_not_early, setup, teardown),
		cmocka_unit_test_setup_teardown(blocking_work_leaves_the_loops_thread_and_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(pollers_are_asked_only_while_work_is_expected, setup, teardown),
		cmocka_unit_test_setup_teardown(signals_arrive_from_the_loop, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
