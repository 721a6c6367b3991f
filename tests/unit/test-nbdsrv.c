/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The NBD server as its clients meet it: conversations byte by byte over a socket pair.
 */
#include "tests/lib/nbd-talk.h"

#include "base/log.h"

#define GREETING 'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 3
#define REPLY_MAGIC 0x00, 0x03, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9
#define COOKIE 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88
#define SIZE_64_MIB 0, 0, 0, 0, 4, 0, 0, 0

#define COOKIE_U64 UINT64_C(0x1122334455667788)

static void say_modern_conversation(void)
{
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	talk_option(WIRE_OPT_STRUCTURED_REPLY, 0);
	talk_option(WIRE_OPT_SET_META_CONTEXT, 4 + 1 + 4 + 4 + 15);
	bytes_put_u32(&talk_words, 1);
	bytes_put(&talk_words, "x", 1);
	bytes_put_u32(&talk_words, 1);
	bytes_put_u32(&talk_words, 15);
	bytes_put(&talk_words, "base:allocation", 15);
	talk_option(WIRE_OPT_GO, 4 + 1 + 2 + 4);
	bytes_put_u32(&talk_words, 1);
	bytes_put(&talk_words, "x", 1);
	bytes_put_u16(&talk_words, 2);
	bytes_put_u16(&talk_words, WIRE_INFO_BLOCK_SIZE);
	bytes_put_u16(&talk_words, WIRE_INFO_NAME);
	talk_request(WIRE_CMD_WRITE, WIRE_FLAG_FUA, COOKIE_U64, 4096, 3);
	bytes_put(&talk_words, "abc", 3);
}

static void expect_modern_handshake(void)
{
	TALK_EXPECT(GREETING);
	TALK_EXPECT(REPLY_MAGIC, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0);
	TALK_EXPECT(REPLY_MAGIC, 0, 0, 0, 10, 0, 0, 0, 4, 0, 0, 0, 19, 0, 0, 0, 1,
	       'b', 'a', 's', 'e', ':', 'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n');
	TALK_EXPECT(REPLY_MAGIC, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0);
	/* HAS_FLAGS FLUSH FUA TRIM WRITE_ZEROES DF MULTI_CONN CACHE */
	TALK_EXPECT(REPLY_MAGIC, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 12, 0, 0, SIZE_64_MIB, 0x05, 0xed);
	TALK_EXPECT(REPLY_MAGIC, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 6, 0, 1, 'd', 'i', 's', 'k');
	TALK_EXPECT(REPLY_MAGIC, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 14, 0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 2, 0, 0, 0);
	TALK_EXPECT(REPLY_MAGIC, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0);
}

static void modern_conversation_byte_by_byte(void **state)
{
	size_t handshake = 18 + 20 + 39 + 20 + 32 + 26 + 34 + 20;

	(void)state;
	talk.looked_bytes = 0;
	talk.at_once = 1;
	say_modern_conversation();
	talk_hear(handshake + 16);
	expect_modern_handshake();
	talk_expect_simple(0, COOKIE_U64);
	assert_int_equal(memory_layer_durable_writes(talk.disk), 1);

	talk_request(WIRE_CMD_READ, WIRE_FLAG_DF, COOKIE_U64, 4095, 5);
	talk_hear(handshake + 16 + 28 + 5);
	TALK_EXPECT(0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, COOKIE, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0x0f, 0xff, 0, 'a', 'b', 'c', 0);

	talk_request(WIRE_CMD_BLOCK_STATUS, 0, COOKIE_U64, 0, 12288);
	talk_hear(handshake + 65 + 24 + 24 - 16);
	TALK_EXPECT(0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 5, COOKIE, 0, 0, 0, 28, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0, 0, 3,
	       0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 3);
}

static void errors_are_structured_where_agreed(void **state)
{
	size_t handshake = 18 + 20 + 39 + 20 + 32 + 26 + 34 + 20;

	(void)state;
	talk.looked_bytes = handshake;
	say_modern_conversation();
	talk_request(WIRE_CMD_READ, 0, COOKIE_U64, TALK_DISK_BYTES, 512);
	talk_hear(handshake + 16 + 26);
	/* The verdict is out before the write, which has been to the disk. */
	TALK_EXPECT(0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, COOKIE, 0, 0, 0, 6, 0, 0, 0, 22, 0, 0);
	talk_expect_simple(0, COOKIE_U64);
}

static void tapdisk_is_let_in_by_its_odd_name(void **state)
{
	(void)state;
	talk.looked_bytes = 0;
	talk_export_name("tapdisk_client", 15);
	talk_request(WIRE_CMD_READ, 0, COOKIE_U64, 0, 2);
	talk_hear(18 + 10 + 16 + 2);
	TALK_EXPECT(GREETING);
	TALK_EXPECT(SIZE_64_MIB, 0x05, 0x6d);
	talk_expect_simple(0, COOKIE_U64);
	TALK_EXPECT(0, 0);
}

static void old_client_gets_its_zeroes(void **state)
{
	static const uint8_t zeroes[124];

	(void)state;
	talk.looked_bytes = 0;
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE);
	talk_option(WIRE_OPT_EXPORT_NAME, 0);
	talk_request(WIRE_CMD_FLUSH, 0, COOKIE_U64, 0, 0);
	talk_hear(18 + 10 + 124 + 16);
	TALK_EXPECT(GREETING);
	TALK_EXPECT(SIZE_64_MIB, 0x05, 0x6d);
	talk_expect(zeroes, 124);
	talk_expect_simple(0, COOKIE_U64);
	assert_int_equal(memory_layer_flushes(talk.disk), 1);
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
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	for (size_t i = 0; i < ARRAY_LEN(tries); i++) {
		talk_option(tries[i].option, tries[i].bytes);
		bytes_put_zeros(&talk_words, tries[i].bytes);
	}
	talk_hear_eof();
	r = bytes_reader(talk.hear + 18, talk.heard_bytes - 18);
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
	talk.looked_bytes = 18;
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	talk_option(WIRE_OPT_LIST, 0);
	talk_hear(18 + 28 + 20);
	TALK_EXPECT(REPLY_MAGIC, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 4, 'd', 'i', 's', 'k');
	TALK_EXPECT(REPLY_MAGIC, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0);
}

static void every_command_reaches_the_disk(void **state)
{
	struct nbdsrv_stats stats;

	(void)state;
	talk_enter();
	talk_request(WIRE_CMD_WRITE, 0, 1, 0, 16384);
	talk_fill(0x55, 16384);
	talk_hear(28 + 16);
	talk_request(WIRE_CMD_WRITE_ZEROES, WIRE_FLAG_NO_HOLE, 2, 0, 4096);
	talk_request(WIRE_CMD_TRIM, WIRE_FLAG_FUA, 3, 8192, 4096);
	talk_request(WIRE_CMD_CACHE, 0, 4, 0, 4096);
	talk_request(WIRE_CMD_FLUSH, 0, 5, 0, 0);
	talk_hear(28 + 5 * 16);
	for (uint64_t cookie = 1; cookie <= 5; cookie++)
		talk_expect_simple(0, cookie);
	assert_int_equal(memory_layer_bytes(talk.disk)[4095], 0);
	assert_int_equal(memory_layer_bytes(talk.disk)[4096], 0x55);
	assert_int_equal(memory_layer_bytes(talk.disk)[8192], 0);
	assert_int_equal(memory_layer_flushes(talk.disk), 1);
	assert_int_equal(memory_layer_durable_writes(talk.disk), 1);
	assert_int_equal(memory_layer_hints(talk.disk), 1);
	nbdsrv_stats(talk.server, &stats);
	assert_int_equal(stats.writes, 1);
	assert_int_equal(stats.bytes_written, 16384);
	assert_int_equal(stats.zeroes + stats.trims + stats.flushes, 3);
}

static uint64_t timed_writes(void)
{
	struct nbdsrv_stats stats;
	uint64_t all = 0;

	nbdsrv_stats(talk.server, &stats);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		all += stats.writes_us.count[i];
	return all;
}

static void how_long_a_write_takes_is_counted_from_when_it_is_asked(void **state)
{
	(void)state;
	talk_enter();
	talk_request(WIRE_CMD_WRITE, 0, 1, 0, 512);
	talk_fill(0x55, 512);
	talk_hear(28 + 16);
	assert_int_equal(timed_writes(), 0);
	nbdsrv_time(talk.server);
	talk_request(WIRE_CMD_WRITE, 0, 2, 0, 512);
	talk_fill(0x55, 512);
	talk_request(WIRE_CMD_READ, 0, 3, 0, 512);
	talk_hear(28 + 16 + 16 + 16 + 512);
	assert_int_equal(timed_writes(), 1);
}

static void read_only_refuses_and_goes_on(void **state)
{
	(void)state;
	talk_restart(true, 0);
	talk.looked_bytes = 18;
	talk_export_name("", 0);
	talk_request(WIRE_CMD_WRITE, 0, 1, 0, 600);
	talk_fill(0x55, 600);
	talk_request(WIRE_CMD_TRIM, 0, 2, 0, 512);
	talk_request(WIRE_CMD_WRITE_ZEROES, 0, 3, 0, 512);
	talk_request(WIRE_CMD_READ, 0, 4, 0, 1);
	talk_hear(28 + 4 * 16 + 1);
	TALK_EXPECT(SIZE_64_MIB, 0x05, 0x0f);
	for (uint64_t cookie = 1; cookie <= 3; cookie++)
		talk_expect_simple(WIRE_EPERM, cookie);
	talk_expect_simple(0, 4);
	TALK_EXPECT(0);
}

static void too_long_a_write_is_drained_and_refused(void **state)
{
	(void)state;
	talk_enter();
	talk_request(WIRE_CMD_WRITE, 0, 1, 0, WIRE_PAYLOAD_MAX + 1);
	talk_fill(0x55, WIRE_PAYLOAD_MAX + 1);
	talk_request(WIRE_CMD_FLUSH, 0, 2, 0, 0);
	talk_hear(28 + 32);
	talk_expect_simple(WIRE_EINVAL, 1);
	talk_expect_simple(0, 2);
}

static void longest_write_and_read_pass_a_small_pool(void **state)
{
	(void)state;
	talk_enter();
	talk_request(WIRE_CMD_WRITE, 0, 1, 1, WIRE_PAYLOAD_MAX);
	talk_fill(0x5a, WIRE_PAYLOAD_MAX);
	talk_request(WIRE_CMD_READ, 0, 2, 1, WIRE_PAYLOAD_MAX);
	talk_hear(28 + 16 + 16 + WIRE_PAYLOAD_MAX);
	talk_expect_simple(0, 1);
	talk_expect_simple(0, 2);
	assert_memory_equal(talk.hear + 60, memory_layer_bytes(talk.disk) + 1, WIRE_PAYLOAD_MAX);
	assert_int_equal(talk.hear[60 + WIRE_PAYLOAD_MAX - 1], 0x5a);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, talk_set_up, talk_tear_down)

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
		TEST(how_long_a_write_takes_is_counted_from_when_it_is_asked),
		TEST(read_only_refuses_and_goes_on),
		TEST(too_long_a_write_is_drained_and_refused),
		TEST(longest_write_and_read_pass_a_small_pool),
	};

	log_init("test-nbdsrv");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
