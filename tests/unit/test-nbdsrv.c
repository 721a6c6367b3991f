/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The NBD server as its clients meet it: conversations byte by byte over a socket pair, and what happens when they end badly.
 * Below it: a gate (to hold requests in flight) over a disk in memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/log.h"
#include "block/gate.h"
#include "nbdsrv/nbdsrv.h"
#include "nbdsrv/wire.h"
#include "tests/lib/memory-layer.h"

#define DISK_BYTES (64 * MiB)
#define CEILING_BYTES (64 * KiB)

static struct loop *loop;
static struct iobuf_pool *pool;
static struct layer *disk, *gate;
static struct nbdsrv *server;
static bool is_shut;

/* The client: what it still says, what it has heard. */
static struct {
	int fd;
	struct loop_watch *watch;
	uint8_t *say;
	size_t say_bytes, said_bytes, at_once;
	uint8_t *hear;
	size_t heard_bytes, wanted_bytes;
	bool is_deaf, has_eof;
} client;

static struct bytes_writer w;

/* --- the fixture */

static void listen_to_server(void)
{
	ssize_t n = client.is_deaf ? -1 : recv(client.fd, client.hear + client.heard_bytes, 40 * MiB - client.heard_bytes, MSG_DONTWAIT);

	if (n > 0)
		client.heard_bytes += (size_t)n;
	if (n == 0 || (n < 0 && !client.is_deaf && errno == ECONNRESET))
		client.has_eof = true;
	if (client.has_eof || (client.wanted_bytes && client.heard_bytes >= client.wanted_bytes))
		loop_stop(loop);
}

static void on_client(void *arg, int events)
{
	size_t left = MIN(client.say_bytes - client.said_bytes, client.at_once);

	(void)arg;
	(void)events;
	if (left) {
		ssize_t n = send(client.fd, client.say + client.said_bytes, left, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			client.said_bytes += (size_t)n;
	}
	listen_to_server();
	if (client.has_eof)
		loop_watch_set(client.watch, 0);
	else
		loop_watch_set(client.watch, (client.is_deaf ? 0 : LOOP_IN) | (client.said_bytes < client.say_bytes ? LOOP_OUT : 0));
}

static void start_server(bool is_read_only, unsigned max_clients)
{
	struct error e;
	int pair[2];

	server = nbdsrv_new(&(struct nbdsrv_spec){ .loop = loop, .top = gate, .pool = pool, .export_name = "disk",
						    .is_read_only = is_read_only, .max_clients = max_clients }, &e);
	assert_non_null(server);
	is_shut = false;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(nbdsrv_adopt(server, pair[1], &e), 0);
	client.fd = pair[0];
	client.watch = loop_watch_new(loop, client.fd, LOOP_IN, on_client, NULL);
	assert_non_null(client.watch);
}

static int set_up(void **state)
{
	(void)state;
	alarm(60);
	loop = loop_new();
	pool = iobuf_pool_new(CEILING_BYTES);
	req_init(loop);
	disk = memory_layer_new(DISK_BYTES);
	gate = gate_new(disk);
	memset(&client, 0, sizeof(client));
	client.at_once = SIZE_MAX;
	client.say = malloc(40 * MiB);
	client.hear = malloc(40 * MiB);
	w = bytes_writer(client.say, 40 * MiB);
	start_server(false, 0);
	return 0;
}

static void on_shut(void *arg)
{
	(void)arg;
	is_shut = true;
	nbdsrv_free(server);
	server = NULL;
	loop_stop(loop);
}

static void hang_up(void)
{
	loop_watch_free(client.watch);
	client.watch = NULL;
	close(client.fd);
	client.fd = -1;
}

static int tear_down(void **state)
{
	(void)state;
	if (server && !is_shut) {
		nbdsrv_shutdown(server, on_shut, NULL);
		while (!is_shut)
			loop_run(loop);
	}
	if (client.watch)
		hang_up();
	assert_int_equal(iobuf_pool_used(pool), 0);
	layer_close(gate);
	layer_close(disk);
	loop_free(loop);
	req_fini();
	iobuf_pool_free(pool);
	free(client.say);
	free(client.hear);
	return 0;
}

/* Sends what was put into w and runs until so many bytes have come in all, or the server hung up. */
static void hear(size_t bytes)
{
	client.say_bytes = bytes_written(&w);
	client.wanted_bytes = bytes;
	loop_watch_set(client.watch, LOOP_IN | LOOP_OUT);
	if (client.heard_bytes < bytes && !client.has_eof)
		loop_run(loop);
	assert_int_equal(client.heard_bytes, bytes);
	client.wanted_bytes = 0;
}

static void hear_eof(void)
{
	client.say_bytes = bytes_written(&w);
	loop_watch_set(client.watch, LOOP_IN | LOOP_OUT);
	while (!client.has_eof)
		loop_run(loop);
}

/* Runs until cond(). */
static bool (*awaited)(void);
static struct loop_timer *ticker;

static void on_tick(void *arg)
{
	(void)arg;
	if (awaited())
		loop_stop(loop);
	else
		loop_timer_set(ticker, 1);
}

static void run_until(bool (*cond)(void))
{
	client.say_bytes = bytes_written(&w);
	if (client.watch)
		loop_watch_set(client.watch, client.is_deaf ? LOOP_OUT : LOOP_IN | LOOP_OUT);
	awaited = cond;
	ticker = loop_timer_new(loop, on_tick, NULL);
	loop_timer_set(ticker, 1);
	loop_run(loop);
	loop_timer_free(ticker);
	assert_true(cond());
}

static void say_option(uint32_t option, uint32_t bytes)
{
	bytes_put_u64(&w, WIRE_OPTION_MAGIC);
	bytes_put_u32(&w, option);
	bytes_put_u32(&w, bytes);
}

static void say_request(unsigned type, unsigned flags, uint64_t cookie, uint64_t offset, uint32_t length)
{
	bytes_put_u32(&w, WIRE_REQUEST_MAGIC);
	bytes_put_u16(&w, (uint16_t)flags);
	bytes_put_u16(&w, (uint16_t)type);
	bytes_put_u64(&w, cookie);
	bytes_put_u64(&w, offset);
	bytes_put_u32(&w, length);
}

static void say_fill(uint8_t value, size_t bytes)
{
	memset(bytes_put_space(&w, bytes), value, bytes);
}

static void say_export_name(const char *name, size_t bytes)
{
	bytes_put_u32(&w, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	say_option(WIRE_OPT_EXPORT_NAME, (uint32_t)bytes);
	bytes_put(&w, name, bytes);
}

/* What the server must say, from where the last look ended. */
static size_t looked_bytes;

static void expect_bytes(const void *expected, size_t bytes)
{
	assert_true(looked_bytes + bytes <= client.heard_bytes);
	assert_memory_equal(client.hear + looked_bytes, expected, bytes);
	looked_bytes += bytes;
}
#define EXPECT(...) \
	do { \
		static const uint8_t expected_[] = { __VA_ARGS__ }; \
		expect_bytes(expected_, sizeof(expected_)); \
	} while (0)

static void expect_simple(uint32_t error, uint64_t cookie)
{
	uint8_t bytes[16];
	struct bytes_writer r = bytes_writer(bytes, sizeof(bytes));

	bytes_put_u32(&r, WIRE_SIMPLE_REPLY_MAGIC);
	bytes_put_u32(&r, error);
	bytes_put_u64(&r, cookie);
	expect_bytes(bytes, sizeof(bytes));
}

#define GREETING 'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 3
#define REPLY_MAGIC 0x00, 0x03, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9
#define COOKIE 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88
#define SIZE_64_MIB 0, 0, 0, 0, 4, 0, 0, 0

#define COOKIE_U64 UINT64_C(0x1122334455667788)

/* The shortest way in: 18 + 10 bytes are heard. */
static void enter(void)
{
	looked_bytes = 0;
	say_export_name("", 0);
	hear(28);
	looked_bytes = 28;
}

/* --- conversations */

static void say_modern_conversation(void)
{
	bytes_put_u32(&w, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	say_option(WIRE_OPT_STRUCTURED_REPLY, 0);
	say_option(WIRE_OPT_SET_META_CONTEXT, 4 + 1 + 4 + 4 + 15);
	bytes_put_u32(&w, 1);
	bytes_put(&w, "x", 1);
	bytes_put_u32(&w, 1);
	bytes_put_u32(&w, 15);
	bytes_put(&w, "base:allocation", 15);
	say_option(WIRE_OPT_GO, 4 + 1 + 2 + 4);
	bytes_put_u32(&w, 1);
	bytes_put(&w, "x", 1);
	bytes_put_u16(&w, 2);
	bytes_put_u16(&w, WIRE_INFO_BLOCK_SIZE);
	bytes_put_u16(&w, WIRE_INFO_NAME);
	say_request(WIRE_CMD_WRITE, WIRE_FLAG_FUA, COOKIE_U64, 4096, 3);
	bytes_put(&w, "abc", 3);
}

static void expect_modern_handshake(void)
{
	EXPECT(GREETING);
	EXPECT(REPLY_MAGIC, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0);
	EXPECT(REPLY_MAGIC, 0, 0, 0, 10, 0, 0, 0, 4, 0, 0, 0, 19, 0, 0, 0, 1,
	       'b', 'a', 's', 'e', ':', 'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n');
	EXPECT(REPLY_MAGIC, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0);
	/* HAS_FLAGS FLUSH FUA TRIM WRITE_ZEROES DF MULTI_CONN CACHE */
	EXPECT(REPLY_MAGIC, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 12, 0, 0, SIZE_64_MIB, 0x05, 0xed);
	EXPECT(REPLY_MAGIC, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 6, 0, 1, 'd', 'i', 's', 'k');
	EXPECT(REPLY_MAGIC, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 14, 0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0);
	EXPECT(REPLY_MAGIC, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0);
}

static void modern_conversation_byte_by_byte(void **state)
{
	size_t handshake = 18 + 20 + 39 + 20 + 32 + 26 + 34 + 20;

	(void)state;
	looked_bytes = 0;
	client.at_once = 1;
	say_modern_conversation();
	hear(handshake + 16);
	expect_modern_handshake();
	expect_simple(0, COOKIE_U64);
	assert_int_equal(memory_layer_durable_writes(disk), 1);

	say_request(WIRE_CMD_READ, WIRE_FLAG_DF, COOKIE_U64, 4095, 5);
	hear(handshake + 16 + 28 + 5);
	EXPECT(0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, COOKIE, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0x0f, 0xff, 0, 'a', 'b', 'c', 0);

	say_request(WIRE_CMD_BLOCK_STATUS, 0, COOKIE_U64, 0, 12288);
	hear(handshake + 65 + 24 + 24 - 16);
	EXPECT(0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 5, COOKIE, 0, 0, 0, 28, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 3,
	       0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 3);
}

static void errors_are_structured_where_agreed(void **state)
{
	size_t handshake = 18 + 20 + 39 + 20 + 32 + 26 + 34 + 20;

	(void)state;
	looked_bytes = handshake;
	say_modern_conversation();
	say_request(WIRE_CMD_READ, 0, COOKIE_U64, DISK_BYTES, 512);
	hear(handshake + 16 + 26);
	/* The verdict is out before the write, which has been to the disk. */
	EXPECT(0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, COOKIE, 0, 0, 0, 6, 0, 0, 0, 22, 0, 0);
	expect_simple(0, COOKIE_U64);
}

static void tapdisk_is_let_in_by_its_odd_name(void **state)
{
	(void)state;
	looked_bytes = 0;
	say_export_name("tapdisk_client", 15);
	say_request(WIRE_CMD_READ, 0, COOKIE_U64, 0, 2);
	hear(18 + 10 + 16 + 2);
	EXPECT(GREETING);
	EXPECT(SIZE_64_MIB, 0x05, 0x6d);
	expect_simple(0, COOKIE_U64);
	EXPECT(0, 0);
}

static void old_client_gets_its_zeroes(void **state)
{
	static const uint8_t zeroes[124];

	(void)state;
	looked_bytes = 0;
	bytes_put_u32(&w, WIRE_FIXED_NEWSTYLE);
	say_option(WIRE_OPT_EXPORT_NAME, 0);
	say_request(WIRE_CMD_FLUSH, 0, COOKIE_U64, 0, 0);
	hear(18 + 10 + 124 + 16);
	EXPECT(GREETING);
	EXPECT(SIZE_64_MIB, 0x05, 0x6d);
	expect_bytes(zeroes, 124);
	expect_simple(0, COOKIE_U64);
	assert_int_equal(memory_layer_flushes(disk), 1);
}

static void what_is_not_offered_is_refused_politely(void **state)
{
	struct bytes_reader r;
	static const struct {
		uint32_t option, bytes, reply;
	} tries[] = {
		{ WIRE_OPT_STARTTLS, 0, WIRE_REP_ERR_POLICY }, { 4711, 5, WIRE_REP_ERR_UNSUP }, { WIRE_OPT_LIST, 1, WIRE_REP_ERR_INVALID },
		{ WIRE_OPT_GO, 3, WIRE_REP_ERR_INVALID }, { WIRE_OPT_SET_META_CONTEXT, 8, WIRE_REP_ERR_INVALID },
		{ WIRE_OPT_LIST_META_CONTEXT, 7, WIRE_REP_ERR_INVALID }, { WIRE_OPT_INFO, 70000, WIRE_REP_ERR_TOO_BIG },
		{ WIRE_OPT_STRUCTURED_REPLY, 2, WIRE_REP_ERR_INVALID }, { WIRE_OPT_ABORT, 9, WIRE_REP_ACK },
	};

	(void)state;
	bytes_put_u32(&w, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	for (size_t i = 0; i < ARRAY_LEN(tries); i++) {
		say_option(tries[i].option, tries[i].bytes);
		bytes_put_zeros(&w, tries[i].bytes);
	}
	hear_eof();
	r = bytes_reader(client.hear + 18, client.heard_bytes - 18);
	for (size_t i = 0; i < ARRAY_LEN(tries); i++) {
		assert_int_equal(bytes_get_u64(&r), WIRE_OPTION_REPLY_MAGIC);
		assert_int_equal(bytes_get_u32(&r), tries[i].option);
		assert_int_equal(bytes_get_u32(&r), tries[i].reply);
		bytes_get(&r, bytes_get_u32(&r));
	}
	assert_true(bytes_is_exhausted(&r));
}

static void list_tells_the_exports_name(void **state)
{
	(void)state;
	looked_bytes = 18;
	bytes_put_u32(&w, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	say_option(WIRE_OPT_LIST, 0);
	hear(18 + 28 + 20);
	EXPECT(REPLY_MAGIC, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 4, 'd', 'i', 's', 'k');
	EXPECT(REPLY_MAGIC, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0);
}

static void every_command_reaches_the_disk(void **state)
{
	struct nbdsrv_stats stats;

	(void)state;
	enter();
	say_request(WIRE_CMD_WRITE, 0, 1, 0, 16384);
	say_fill(0x55, 16384);
	hear(28 + 16);
	say_request(WIRE_CMD_WRITE_ZEROES, WIRE_FLAG_NO_HOLE, 2, 0, 4096);
	say_request(WIRE_CMD_TRIM, WIRE_FLAG_FUA, 3, 8192, 4096);
	say_request(WIRE_CMD_CACHE, 0, 4, 0, 4096);
	say_request(WIRE_CMD_FLUSH, 0, 5, 0, 0);
	hear(28 + 5 * 16);
	for (uint64_t cookie = 1; cookie <= 5; cookie++)
		expect_simple(0, cookie);
	assert_int_equal(memory_layer_bytes(disk)[4095], 0);
	assert_int_equal(memory_layer_bytes(disk)[4096], 0x55);
	assert_int_equal(memory_layer_bytes(disk)[8192], 0);
	assert_int_equal(memory_layer_flushes(disk), 1);
	assert_int_equal(memory_layer_durable_writes(disk), 1);
	assert_int_equal(memory_layer_hints(disk), 1);
	nbdsrv_stats(server, &stats);
	assert_int_equal(stats.writes, 1);
	assert_int_equal(stats.bytes_written, 16384);
	assert_int_equal(stats.zeroes + stats.trims + stats.flushes, 3);
}

static void read_only_refuses_and_goes_on(void **state)
{
	(void)state;
	hang_up();
	nbdsrv_shutdown(server, on_shut, NULL);
	loop_run(loop);
	start_server(true, 0);
	looked_bytes = 18;
	say_export_name("", 0);
	say_request(WIRE_CMD_WRITE, 0, 1, 0, 600);
	say_fill(0x55, 600);
	say_request(WIRE_CMD_TRIM, 0, 2, 0, 512);
	say_request(WIRE_CMD_WRITE_ZEROES, 0, 3, 0, 512);
	say_request(WIRE_CMD_READ, 0, 4, 0, 1);
	hear(28 + 4 * 16 + 1);
	EXPECT(SIZE_64_MIB, 0x05, 0x0f);
	for (uint64_t cookie = 1; cookie <= 3; cookie++)
		expect_simple(WIRE_EPERM, cookie);
	expect_simple(0, 4);
	EXPECT(0);
}

static void too_long_a_write_is_drained_and_refused(void **state)
{
	(void)state;
	enter();
	say_request(WIRE_CMD_WRITE, 0, 1, 0, WIRE_PAYLOAD_MAX + 1);
	say_fill(0x55, WIRE_PAYLOAD_MAX + 1);
	say_request(WIRE_CMD_FLUSH, 0, 2, 0, 0);
	hear(28 + 32);
	expect_simple(WIRE_EINVAL, 1);
	expect_simple(0, 2);
}

static void longest_write_and_read_pass_a_small_pool(void **state)
{
	(void)state;
	enter();
	say_request(WIRE_CMD_WRITE, 0, 1, 1, WIRE_PAYLOAD_MAX);
	say_fill(0x5a, WIRE_PAYLOAD_MAX);
	say_request(WIRE_CMD_READ, 0, 2, 1, WIRE_PAYLOAD_MAX);
	hear(28 + 16 + 16 + WIRE_PAYLOAD_MAX);
	expect_simple(0, 1);
	expect_simple(0, 2);
	assert_memory_equal(client.hear + 60, memory_layer_bytes(disk) + 1, WIRE_PAYLOAD_MAX);
	assert_int_equal(client.hear[60 + WIRE_PAYLOAD_MAX - 1], 0x5a);
}

/* --- back-pressure */

static bool is_pool_full(void)
{
	return iobuf_pool_used(pool) == CEILING_BYTES;
}

static void full_pool_holds_the_client_until_there_is_room(void **state)
{
	(void)state;
	enter();
	gate_hold(gate);
	for (uint64_t i = 0; i < 40; i++) {
		say_request(WIRE_CMD_WRITE, 0, i, i * 4096, 4096);
		say_fill((uint8_t)(i + 1), 4096);
	}
	run_until(is_pool_full);
	assert_int_equal(client.heard_bytes, 28);
	gate_release(gate);
	hear(28 + 40 * 16);
	for (uint64_t i = 0; i < 40; i++)
		expect_simple(0, i);
	assert_int_equal(memory_layer_bytes(disk)[39 * 4096], 40);
}

static bool is_all_charge_back(void)
{
	struct nbdsrv_stats stats;

	nbdsrv_stats(server, &stats);
	return stats.reads >= 8 && iobuf_pool_used(pool) == 0;
}

static void client_that_takes_no_answers_holds_nobody_up(void **state)
{
	(void)state;
	enter();
	client.is_deaf = true;
	for (uint64_t i = 0; i < 16; i++)
		say_request(WIRE_CMD_READ, 0, i, 0, 65536);
	run_until(is_all_charge_back);
	client.is_deaf = false;
	hear(28 + 16 * (16 + 65536));
}

static void more_than_128_requests_are_answered_all(void **state)
{
	(void)state;
	enter();
	gate_hold(gate);
	for (uint64_t i = 0; i < 1000; i++)
		say_request(WIRE_CMD_FLUSH, 0, i, 0, 0);
	gate_release(gate);
	hear(28 + 1000 * 16);
	for (uint64_t i = 0; i < 1000; i++)
		expect_simple(0, i);
}

/* --- ends */

static void shutdown_answers_what_is_in_flight(void **state)
{
	(void)state;
	enter();
	gate_hold(gate);
	say_request(WIRE_CMD_WRITE, 0, 7, 0, CEILING_BYTES);
	say_fill(0x77, CEILING_BYTES);
	run_until(is_pool_full);
	nbdsrv_shutdown(server, on_shut, NULL);
	gate_release(gate);
	hear_eof();
	assert_int_equal(client.heard_bytes, 28 + 16);
	expect_simple(0, 7);
	while (!is_shut)
		loop_run(loop);
	assert_int_equal(memory_layer_bytes(disk)[CEILING_BYTES - 1], 0x77);
}

static void shutdown_cuts_who_takes_no_answers(void **state)
{
	uint64_t start_ns;

	(void)state;
	enter();
	client.is_deaf = true;
	for (uint64_t i = 0; i < 16; i++)
		say_request(WIRE_CMD_READ, 0, i, 0, 65536);
	run_until(is_all_charge_back);
	start_ns = loop_now_ns();
	nbdsrv_shutdown(server, on_shut, NULL);
	while (!is_shut)
		loop_run(loop);
	assert_in_range(loop_now_ns() - start_ns, 900 * NS_PER_MS, 20 * NS_PER_S);
}

static void disconnect_answers_first(void **state)
{
	(void)state;
	enter();
	say_request(WIRE_CMD_FLUSH, 0, 1, 0, 0);
	say_request(WIRE_CMD_DISC, 0, 2, 0, 0);
	say_request(WIRE_CMD_FLUSH, 0, 3, 0, 0);
	hear_eof();
	expect_simple(0, 1);
	assert_int_equal(client.heard_bytes, 28 + 16);
}

static bool has_no_clients(void)
{
	struct nbdsrv_stats stats;

	nbdsrv_stats(server, &stats);
	return stats.clients == 0;
}

static void client_gone_in_the_middle_of_a_payload_leaves_nothing(void **state)
{
	(void)state;
	enter();
	say_request(WIRE_CMD_WRITE, 0, 1, 0, CEILING_BYTES);
	say_fill(0x11, 5000);
	run_until(is_pool_full);
	hang_up();
	run_until(has_no_clients);
	assert_int_equal(iobuf_pool_used(pool), 0);
	assert_int_equal(memory_layer_bytes(disk)[0], 0);
}

static void client_gone_with_requests_in_flight_leaves_nothing(void **state)
{
	(void)state;
	enter();
	gate_hold(gate);
	say_request(WIRE_CMD_WRITE, 0, 1, 0, CEILING_BYTES);
	say_fill(0x11, CEILING_BYTES);
	run_until(is_pool_full);
	hang_up();
	nbdsrv_shutdown(server, on_shut, NULL);
	gate_release(gate);
	while (!is_shut)
		loop_run(loop);
	assert_int_equal(memory_layer_bytes(disk)[0], 0x11);
}

static void garbage_is_cut_off(void **state)
{
	(void)state;
	enter();
	say_fill('?', 28);
	hear_eof();
	assert_int_equal(client.heard_bytes, 28);
}

static void unknown_handshake_flags_are_cut_off(void **state)
{
	(void)state;
	bytes_put_u32(&w, 0x80000001u);
	hear_eof();
	assert_int_equal(client.heard_bytes, 18);
}

static void one_client_too_many_is_not_let_in(void **state)
{
	struct error e;
	int pair[2];

	(void)state;
	hang_up();
	nbdsrv_shutdown(server, on_shut, NULL);
	loop_run(loop);
	start_server(false, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(nbdsrv_adopt(server, pair[1], &e), -1);
	assert_int_equal(e.err, EBUSY);
	close(pair[0]);
	enter(); /* the first still works */
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
	assert_int_equal(nbdsrv_listen_unix(server, path, &e), -1);
	assert_int_equal(e.err, EADDRINUSE);
	close(fd);
	assert_int_equal(nbdsrv_listen_unix(server, path, &e), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	nbdsrv_shutdown(server, on_shut, NULL);
	while (!is_shut)
		loop_run(loop);
	assert_int_equal(stat(path, &st), -1);
	assert_int_equal(rmdir(dir), 0);
}

static void tcp_port_is_told(void **state)
{
	uint16_t port = 0, again;
	struct error e;

	(void)state;
	assert_int_equal(nbdsrv_listen_tcp(server, "127.0.0.1", 0, &port, &e), 0);
	assert_int_not_equal(port, 0);
	assert_int_equal(nbdsrv_listen_tcp(server, "127.0.0.1", port, &again, &e), -1);
	assert_int_equal(e.err, EADDRINUSE);
	assert_int_equal(nbdsrv_listen_tcp(server, "localhost", 0, &port, &e), -1);
}

static void what_is_no_stream_socket_is_not_adopted(void **state)
{
	struct error e;
	int pipes[2];

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(nbdsrv_adopt(server, pipes[0], &e), -1);
	assert_int_equal(e.err, EINVAL);
	close(pipes[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(modern_conversation_byte_by_byte),
		TEST(errors_are_structured_where_agreed),
		TEST(tapdisk_is_let_in_by_its_odd_name),
		TEST(old_client_gets_its_zeroes),
		TEST(what_is_not_offered_is_refused_politely),
		TEST(list_tells_the_exports_name),
		TEST(every_command_reaches_the_disk),
		TEST(read_only_refuses_and_goes_on),
		TEST(too_long_a_write_is_drained_and_refused),
		TEST(longest_write_and_read_pass_a_small_pool),
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

	log_init("test-nbdsrv");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
