/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the NBD server does when there is no room, and how it and its clients end: every request once, nothing left behind.
 */
#include "tests/lib/nbd-talk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

/* --- back-pressure */

static bool is_pool_full(void)
{
	return iobuf_pool_used(talk.pool) == TALK_CEILING_BYTES;
}

static void full_pool_holds_the_client_until_there_is_room(void **state)
{
	(void)state;
	talk_enter();
	gate_hold(talk.gate);
	for (uint64_t i = 0; i < 40; i++) {
		talk_request(WIRE_CMD_WRITE, 0, i, i * 4096, 4096);
		talk_fill((uint8_t)(i + 1), 4096);
	}
	talk_run_until(is_pool_full);
	assert_int_equal(talk.heard_bytes, 28);
	gate_release(talk.gate);
	talk_hear(28 + 40 * 16);
	for (uint64_t i = 0; i < 40; i++)
		talk_expect_simple(0, i);
	assert_int_equal(memory_layer_bytes(talk.disk)[39 * 4096], 40);
}

static bool is_all_charge_back(void)
{
	struct nbdsrv_stats stats;

	nbdsrv_stats(talk.server, &stats);
	return stats.reads >= 8 && iobuf_pool_used(talk.pool) == 0;
}

static void client_that_takes_no_answers_holds_nobody_up(void **state)
{
	(void)state;
	talk_enter();
	talk.is_deaf = true;
	for (uint64_t i = 0; i < 16; i++)
		talk_request(WIRE_CMD_READ, 0, i, 0, 65536);
	talk_run_until(is_all_charge_back);
	talk.is_deaf = false;
	talk_hear(28 + 16 * (16 + 65536));
}

static void more_than_128_requests_are_answered_all(void **state)
{
	(void)state;
	talk_enter();
	for (uint64_t i = 0; i < 1000; i++)
		talk_request(WIRE_CMD_FLUSH, 0, i, 0, 0);
	talk_hear(28 + 1000 * 16);
	for (uint64_t i = 0; i < 1000; i++)
		talk_expect_simple(0, i);
}

/* --- ends */

static void shutdown_answers_what_is_in_flight(void **state)
{
	(void)state;
	talk_enter();
	gate_hold(talk.gate);
	talk_request(WIRE_CMD_WRITE, 0, 7, 0, TALK_CEILING_BYTES);
	talk_fill(0x77, TALK_CEILING_BYTES);
	talk_run_until(is_pool_full);
	talk_shut_down();
	gate_release(talk.gate);
	talk_hear_eof();
	assert_int_equal(talk.heard_bytes, 28 + 16);
	talk_expect_simple(0, 7);
	talk_await_shut();
	assert_int_equal(memory_layer_bytes(talk.disk)[TALK_CEILING_BYTES - 1], 0x77);
}

static void shutdown_cuts_who_takes_no_answers(void **state)
{
	uint64_t start_ns;

	(void)state;
	talk_enter();
	talk.is_deaf = true;
	for (uint64_t i = 0; i < 16; i++)
		talk_request(WIRE_CMD_READ, 0, i, 0, 65536);
	talk_run_until(is_all_charge_back);
	start_ns = loop_now_ns();
	talk_shut_down();
	talk_await_shut();
	assert_in_range(loop_now_ns() - start_ns, 900 * NS_PER_MS, 20 * NS_PER_S);
}

static void disconnect_answers_first(void **state)
{
	(void)state;
	talk_enter();
	talk_request(WIRE_CMD_FLUSH, 0, 1, 0, 0);
	talk_request(WIRE_CMD_DISC, 0, 2, 0, 0);
	talk_request(WIRE_CMD_FLUSH, 0, 3, 0, 0);
	talk_hear_eof();
	talk_expect_simple(0, 1);
	assert_int_equal(talk.heard_bytes, 28 + 16);
}

static bool has_no_clients(void)
{
	struct nbdsrv_stats stats;

	nbdsrv_stats(talk.server, &stats);
	return stats.clients == 0;
}

static void client_gone_in_the_middle_of_a_payload_leaves_nothing(void **state)
{
	(void)state;
	talk_enter();
	talk_request(WIRE_CMD_WRITE, 0, 1, 0, TALK_CEILING_BYTES);
	talk_fill(0x11, 5000);
	talk_run_until(is_pool_full);
	talk_hang_up();
	talk_run_until(has_no_clients);
	assert_int_equal(iobuf_pool_used(talk.pool), 0);
	assert_int_equal(memory_layer_bytes(talk.disk)[0], 0);
}

static void client_gone_with_requests_in_flight_leaves_nothing(void **state)
{
	(void)state;
	talk_enter();
	gate_hold(talk.gate);
	talk_request(WIRE_CMD_WRITE, 0, 1, 0, TALK_CEILING_BYTES);
	talk_fill(0x11, TALK_CEILING_BYTES);
	talk_run_until(is_pool_full);
	talk_hang_up();
	talk_shut_down();
	gate_release(talk.gate);
	talk_await_shut();
	assert_int_equal(memory_layer_bytes(talk.disk)[0], 0x11);
}

static void garbage_is_cut_off(void **state)
{
	(void)state;
	talk_enter();
	talk_fill('?', 28);
	talk_hear_eof();
	assert_int_equal(talk.heard_bytes, 28);
}

static void unknown_handshake_flags_are_cut_off(void **state)
{
	(void)state;
	bytes_put_u32(&talk_words, 0x80000001u);
	talk_hear_eof();
	assert_int_equal(talk.heard_bytes, 18);
}

static void one_client_too_many_is_not_let_in(void **state)
{
	struct error e;
	int pair[2];

	(void)state;
	talk_restart(false, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(nbdsrv_adopt(talk.server, pair[1], false, &e), -1);
	assert_int_equal(e.err, EBUSY);
	close(pair[0]);
	talk_enter(); /* the first still works */
}

static int make_socket_file(const char *path, bool is_listening)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	if (is_listening)
		assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void dead_socket_is_replaced_and_a_live_one_respected(void **state)
{
	char dir[] = "/tmp/sxm-test.XXXXXX", path[64];
	struct stat st;
	struct error e;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	fd = make_socket_file(path, true);
	assert_int_equal(nbdsrv_listen_unix(talk.server, path, &e), -1);
	assert_int_equal(e.err, EADDRINUSE);
	close(fd);
	assert_int_equal(nbdsrv_listen_unix(talk.server, path, &e), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	talk_shut_down();
	talk_await_shut();
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(rmdir(dir), 0);
}

static void tcp_port_is_told(void **state)
{
	uint16_t port = 0, again;
	struct error e;

	(void)state;
	assert_int_equal(nbdsrv_listen_tcp(talk.server, "127.0.0.1", 0, NULL, &port, &e), 0);
	assert_int_not_equal(port, 0);
	assert_int_equal(nbdsrv_listen_tcp(talk.server, "127.0.0.1", port, NULL, &again, &e), -1);
	assert_int_equal(e.err, EADDRINUSE);
	assert_int_equal(nbdsrv_listen_tcp(talk.server, "localhost", 0, NULL, &port, &e), -1);
}

static void what_is_no_stream_socket_is_not_adopted(void **state)
{
	struct error e;
	int pipes[2];

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(nbdsrv_adopt(talk.server, pipes[0], false, &e), -1);
	assert_int_equal(e.err, EINVAL);
	close(pipes[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, talk_set_up, talk_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(full_pool_holds_the_client_until_there_is_room),
		TEST(client_that_takes_no_answers_holds_nobody_up),
		TEST(more_than_128_requests_are_answered_all),
		TEST(shutdown_answers_what_is_in_flight),
		TEST(shutdown_cuts_who_takes_no_answers),
		TEST(disconnect_answers_first),
		TEST(client_gone_in_the_middle_of_a_payload_leaves_nothing),
		TEST(client_gone_with_requests_in_flight_leaves_nothing),
		TEST(garbage_is_cut_off),
		TEST(unknown_handshake_flags_are_cut_off),
		TEST(one_client_too_many_is_not_let_in),
		TEST(dead_socket_is_replaced_and_a_live_one_respected),
		TEST(tcp_port_is_told),
		TEST(what_is_no_stream_socket_is_not_adopted),
	};

	log_init("test-nbdsrv-ends");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
