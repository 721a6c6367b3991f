/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Connections that are passed to the NBD server as descriptors, and begin again after DISC: as xapi and tapdisk do.
 */
#include "tests/lib/nbd-talk.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

static const char tapdisk_name[15] = "tapdisk_client"; /* with its NUL */

static void talk_that_begins_again(void)
{
	talk_hang_up();
	talk.begins_again = true;
	talk_another();
}

static void disc_is_answered_with_a_greeting(void **state)
{
	(void)state;
	talk_that_begins_again();
	talk_export_name(tapdisk_name, sizeof(tapdisk_name));
	talk_hear(28);
	talk_request(WIRE_CMD_WRITE, 0, 1, 0, 512);
	talk_fill(0x55, 512);
	talk_request(WIRE_CMD_DISC, 0, 2, 0, 0);
	talk_hear(28 + 16 + 18);
	talk.looked_bytes = 28;
	talk_expect_simple(0, 1);
	TALK_EXPECT('N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 3);
	talk_export_name(tapdisk_name, sizeof(tapdisk_name));
	talk_hear(28 + 16 + 18 + 10);
	talk_request(WIRE_CMD_READ, 0, 3, 0, 512);
	talk_hear(28 + 16 + 28 + 16 + 512);
	talk.looked_bytes = 28 + 16 + 28;
	talk_expect_simple(0, 3);
	assert_int_equal(talk.hear[talk.looked_bytes + 511], 0x55);
}

static bool is_one_in_flight(void)
{
	return talk.gate->in_flight > 0 || iobuf_pool_used(talk.pool) > 0;
}

static void greeting_waits_for_what_is_in_flight(void **state)
{
	(void)state;
	talk_that_begins_again();
	talk_enter();
	gate_hold(talk.gate);
	talk_request(WIRE_CMD_WRITE, 0, 1, 0, 512);
	talk_fill(0x56, 512);
	talk_request(WIRE_CMD_DISC, 0, 2, 0, 0);
	talk_export_name("x", 1); /* and does not wait for it itself */
	talk_run_until(is_one_in_flight);
	assert_int_equal(talk.heard_bytes, 28);
	gate_release(talk.gate);
	talk_hear(28 + 16 + 28);
	talk_expect_simple(0, 1);
	TALK_EXPECT('N', 'B', 'D', 'M');
}

static void nothing_is_kept_from_the_time_before(void **state)
{
	static const char *const contexts[] = { "base:allocation", NULL };

	(void)state;
	talk_that_begins_again();
	talk_enter_with(contexts);
	talk_hear(18 + 20 + 20 + 4 + 15 + 20 + 32 + 20);
	talk_request(WIRE_CMD_DISC, 0, 1, 0, 0);
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE); /* and 124 zeros, please */
	talk_option(WIRE_OPT_EXPORT_NAME, 0);
	talk_hear(149 + 18 + 10 + 124);
	talk_request(WIRE_CMD_READ, 0, 2, 0, 512);
	talk_hear(149 + 152 + 16 + 512);
	talk.looked_bytes = 149 + 152;
	talk_expect_simple(0, 2); /* no structured reply */
	talk_request(WIRE_CMD_BLOCK_STATUS, 0, 3, 0, 512);
	talk_hear(149 + 152 + 16 + 512 + 16);
	talk.looked_bytes += 512;
	talk_expect_simple(WIRE_EINVAL, 3);
}

static void many_times_and_a_hang_up_leave_nothing(void **state)
{
	(void)state;
	talk_that_begins_again();
	for (unsigned i = 0; i < 100; i++) {
		talk_export_name(tapdisk_name, sizeof(tapdisk_name));
		talk_request(WIRE_CMD_DISC, 0, i, 0, 0);
	}
	talk_hear(18 + 100 * 28);
	talk_request(WIRE_CMD_DISC, 0, 7, 0, 0);
}

/* --- passing */

#define PATH "passed.sock"

static int dial(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = PATH };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* One message, and the connection and the descriptors here are closed, as xapi does. */
static void pass(const int *fds, size_t count)
{
	union {
		char bytes[CMSG_SPACE(16 * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct iovec iov = { (void *)(uintptr_t)"5b0e6d3c-0000-0000-0000-000000000000", 36 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fd = dial();

	if (count) {
		struct cmsghdr *c;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	}
	assert_int_equal(sendmsg(fd, &msg, 0), 36);
	close(fd);
	for (size_t i = 0; i < count; i++)
		close(fds[i]);
}

static void start_receiving(void)
{
	struct error e;

	unlink(PATH);
	assert_int_equal(nbdsrv_receive_unix(talk.server, PATH, &e), 0);
}

static unsigned clients(void)
{
	struct nbdsrv_stats stats;

	nbdsrv_stats(talk.server, &stats);
	return stats.clients;
}

static bool has_two_clients(void)
{
	return clients() == 2;
}

static void passed_descriptor_becomes_a_client(void **state)
{
	char greeting[18];
	int pair[2];

	(void)state;
	start_receiving();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	pass(&pair[1], 1);
	talk_run_until(has_two_clients);
	talk_enter(); /* a turn, in which the greeting leaves */
	assert_int_equal(recv(pair[0], greeting, sizeof(greeting), 0), 18);
	assert_memory_equal(greeting, "NBDMAGICIHAVEOPT", 16);
	close(pair[0]);
}

static int others[2];

static bool has_hung_up_on_both(void)
{
	char byte;

	return recv(others[0], &byte, 1, MSG_DONTWAIT) == 0 && recv(others[1], &byte, 1, MSG_DONTWAIT) == 0;
}

static void more_than_one_or_none_is_not_taken(void **state)
{
	int a[2], b[2];

	(void)state;
	start_receiving();
	pass(NULL, 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b), 0);
	others[0] = a[0];
	others[1] = b[0];
	pass((int[]){ a[1], b[1] }, 2);
	talk_run_until(has_hung_up_on_both);
	assert_int_equal(clients(), 1);
	close(a[0]);
	close(b[0]);
}

static void who_says_nothing_does_not_keep_the_server(void **state)
{
	int fd;

	(void)state;
	start_receiving();
	fd = dial();
	talk_enter();
	talk_shut_down();
	talk_await_shut();
	assert_int_equal(access(PATH, F_OK), -1);
	close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, talk_set_up, talk_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(disc_is_answered_with_a_greeting),
		TEST(greeting_waits_for_what_is_in_flight),
		TEST(nothing_is_kept_from_the_time_before),
		TEST(many_times_and_a_hang_up_leave_nothing),
		TEST(passed_descriptor_becomes_a_client),
		TEST(more_than_one_or_none_is_not_taken),
		TEST(who_says_nothing_does_not_keep_the_server),
	};

	log_init("test-nbdsrv-passed");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
