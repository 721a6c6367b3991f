/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * x-sxm as the server carries it: who may choose it, when a link may write, what is folded into its digest, how its questions and
 * answers look on the wire, and how links end. Whoever owns the disk is played here: he notes each ask and answers as told.
 */
#include "tests/lib/nbd-talk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "block/extents.h"

#define NAME "x-sxm:1/m.1/7/3"
#define NAME_BYTES 15
#define BASE "base:allocation"
#define BASE_BYTES 15
#define ENTERED(contexts) (18 + 20 + (contexts) * 39 + 20 + 32 + 20) /* both names have 15 bytes */
#define SIMPLE 16

static struct {
	struct nbdsrv_ask *ask[16];
	unsigned asks, gone, plain;
	struct nbdsrv_link *link;
	bool answers_at_once;
	struct digest digest;
	unsigned pieces;
	uint64_t piece_at;
	size_t piece_bytes;
	uint8_t piece_byte;
	int piece_err;
} owner;

static void answer(unsigned n)
{
	uint32_t field[] = { XSXM_OK, 4, 0, 7, 0x12345678 };

	nbdsrv_answer(owner.ask[n], field, ARRAY_LEN(field));
}

static void on_ask(void *arg, struct nbdsrv_ask *a)
{
	assert_ptr_equal(arg, NULL);
	assert_true(owner.asks < ARRAY_LEN(owner.ask));
	owner.link = a->link;
	owner.ask[owner.asks++] = a;
	if (owner.answers_at_once)
		answer(owner.asks - 1);
}

static void on_gone(void *arg, struct nbdsrv_link *l)
{
	(void)arg;
	assert_false(nbdsrv_link_is_open(l));
	owner.gone++;
}

static void on_plain(void *arg)
{
	(void)arg;
	owner.plain++;
}

static int on_log(void *arg, struct nbdsrv_link *l, uint64_t at, const uint8_t *data, size_t bytes)
{
	(void)arg;
	assert_ptr_equal(l, owner.link);
	owner.pieces++;
	owner.piece_at = at;
	owner.piece_bytes = bytes;
	owner.piece_byte = data[bytes - 1];
	return owner.piece_err;
}

static const struct nbdsrv_link_ops ops = { .ask = on_ask, .log = on_log, .gone = on_gone, .plain = on_plain };

static int set_up(void **state)
{
	memset(&owner, 0, sizeof(owner));
	talk_set_up(state);
	talk.links = &ops;
	talk_restart(false, 0);
	talk.looked_bytes = talk.heard_bytes = 0;
	talk.has_eof = false;
	return 0;
}

static void enter(const char *one, const char *two)
{
	const char *const contexts[] = { one, two, NULL };

	talk_enter_with(contexts);
	talk_hear(ENTERED(one && two ? 2u : 1u));
	talk.looked_bytes = talk.heard_bytes;
}

static void enter_admitted_as(const char *name)
{
	enter(name, NULL);
	owner.answers_at_once = true;
	talk_request(WIRE_CMD_BLOCK_STATUS, 0, 1, XSXM_HELLO, XSXM_QUESTION_BYTES);
	talk_hear(talk.looked_bytes + 24 + 5 * 8);
	talk.looked_bytes = talk.heard_bytes;
	nbdsrv_link_admit(owner.link, &owner.digest);
}

static void enter_admitted(void)
{
	enter_admitted_as(NAME);
}

static void say_write(uint64_t cookie, uint64_t offset, uint32_t bytes)
{
	talk_request(WIRE_CMD_WRITE, 0, cookie, offset, bytes);
	talk_fill((uint8_t)cookie, bytes);
}

static void expect_error(uint32_t error, uint64_t cookie)
{
	uint8_t bytes[26];
	struct bytes_writer w = bytes_writer(bytes, sizeof(bytes));

	bytes_put_u32(&w, WIRE_CHUNK_MAGIC);
	bytes_put_u16(&w, WIRE_CHUNK_DONE);
	bytes_put_u16(&w, WIRE_CHUNK_ERROR);
	bytes_put_u64(&w, cookie);
	bytes_put_u32(&w, 6);
	bytes_put_u32(&w, error);
	bytes_put_u16(&w, 0);
	talk_expect(bytes, sizeof(bytes));
}

static void expect_status(bool is_last, uint64_t cookie, uint32_t context, const uint32_t *words, uint32_t descriptors)
{
	uint8_t bytes[256];
	struct bytes_writer w = bytes_writer(bytes, sizeof(bytes));

	bytes_put_u32(&w, WIRE_CHUNK_MAGIC);
	bytes_put_u16(&w, is_last);
	bytes_put_u16(&w, WIRE_CHUNK_BLOCK_STATUS);
	bytes_put_u64(&w, cookie);
	bytes_put_u32(&w, 4 + 8 * descriptors);
	bytes_put_u32(&w, context);
	for (uint32_t i = 0; i < 2 * descriptors; i++)
		bytes_put_u32(&w, words[i]);
	talk_expect(bytes, bytes_written(&w));
}

/* --- who chooses what */

/* What the server answers to a SET with these queries: the context's name, "" for none. */
static void assert_chosen(const char *first, const char *second, const char *chosen)
{
	const char *const contexts[] = { first, second, NULL };
	size_t bytes = strlen(chosen) ? 24 + strlen(chosen) : 0;

	close(talk_another());
	talk_enter_with(contexts);
	talk_hear(ENTERED(0u) + bytes);
	if (bytes)
		assert_memory_equal(talk.hear + 18 + 20 + 24, chosen, strlen(chosen));
}

static void the_newest_that_both_speak_is_chosen(void **state)
{
	(void)state;
	assert_chosen("x-sxm:1/m/1/1", NULL, "x-sxm:1/m/1/1");
	assert_chosen("x-sxm:1/m/1/1", "x-sxm:2/m/1/1", "x-sxm:2/m/1/1");
	assert_chosen("x-sxm:3/m/1/1", "x-sxm:2/m/1/1", "x-sxm:2/m/1/1");
	assert_chosen("x-sxm:3/m/1/1", NULL, "");
	assert_chosen("x-sxm:1", "x-sxm:", "");
	assert_chosen("x-sxm:1/m/0/1", "x-sxm:1/m/1/2", "x-sxm:1/m/1/2");
	/* The version before, as though this were that: with one of today it agrees on its own. */
	talk.xsxm_newest = 1;
	talk_restart(false, 0);
	assert_chosen("x-sxm:2/m/1/1", "x-sxm:1/m/1/1", "x-sxm:1/m/1/1");
	assert_chosen("x-sxm:2/m/1/1", NULL, "");
	/* The next one: with one of today it agrees on today's. */
	talk.xsxm_newest = 3;
	talk_restart(false, 0);
	assert_chosen("x-sxm:2/m/1/1", "x-sxm:1/m/1/1", "x-sxm:2/m/1/1");
	assert_chosen("x-sxm:1/m/1/1", NULL, "");
}

static void list_says_that_we_are_here(void **state)
{
	(void)state;
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	talk_option(WIRE_OPT_LIST_META_CONTEXT, 8 + 4 + 6);
	bytes_put_u32(&talk_words, 0);
	bytes_put_u32(&talk_words, 1);
	bytes_put_u32(&talk_words, 6);
	bytes_put(&talk_words, "x-sxm:", 6);
	talk_hear(18 + 24 + 7 + 20);
	assert_memory_equal(talk.hear + 18 + 24, "x-sxm:2", 7);
}

static void a_server_without_an_owner_offers_none(void **state)
{
	(void)state;
	talk.links = NULL;
	talk_restart(false, 0);
	assert_chosen(NAME, NULL, "");
}

static void a_disk_too_small_for_questions_offers_none(void **state)
{
	(void)state;
	talk.gate->geometry.size_bytes = 4095;
	assert_chosen(NAME, NULL, "");
}

/* --- questions */

static void an_answers_fields_are_descriptors(void **state)
{
	const uint32_t fields[] = { 1, XSXM_OK, 1, 4, 1, 0, 1, 7, 1, 0x12345678 };

	(void)state;
	enter(NAME, NULL);
	owner.answers_at_once = true;
	talk_request(WIRE_CMD_BLOCK_STATUS, 0, 9, XSXM_PREPARE, XSXM_QUESTION_BYTES);
	talk_hear(talk.looked_bytes + 24 + 5 * 8);
	expect_status(true, 9, 2, fields, 5);
	assert_int_equal(owner.asks, 1);
	assert_string_equal(owner.link->name.mirror, "m.1");
}

static void each_context_has_its_chunk(void **state)
{
	const uint32_t hole[] = { XSXM_QUESTION_BYTES, 0 }, fields[] = { 1, XSXM_OK, 1, 4, 1, 0, 1, 7, 1, 0x12345678 };
	const uint32_t sweep[] = { 8192, EXTENT_HOLE | EXTENT_ZERO }, nothing[] = { 8192, 0 };

	(void)state;
	enter(BASE, NAME);
	owner.answers_at_once = true;
	talk_request(WIRE_CMD_BLOCK_STATUS, 0, 9, 4711, XSXM_QUESTION_BYTES);
	talk_request(WIRE_CMD_BLOCK_STATUS, 0, 10, 0, 8192);
	talk_hear(talk.looked_bytes + 32 + 24 + 5 * 8 + 32 + 32);
	expect_status(false, 9, 1, hole, 1);
	expect_status(true, 9, 2, fields, 5);
	expect_status(false, 10, 1, sweep, 1);
	expect_status(true, 10, 2, nothing, 1);
}

static void a_sweep_is_no_question(void **state)
{
	const uint32_t nothing[] = { 512, 0 };

	(void)state;
	enter(NAME, NULL);
	talk_request(WIRE_CMD_BLOCK_STATUS, WIRE_FLAG_REQ_ONE, 9, XSXM_QUESTION_BYTES, XSXM_QUESTION_BYTES);
	talk_request(WIRE_CMD_BLOCK_STATUS, 0, 10, 0, 512);
	talk_request(WIRE_CMD_BLOCK_STATUS, 0, 11, TALK_DISK_BYTES, 512);
	talk_hear(talk.looked_bytes + 26 + 32 + 26);
	expect_error(WIRE_EINVAL, 9); /* it has flags */
	expect_error(WIRE_EINVAL, 11);
	expect_status(true, 10, 2, nothing, 1);
	assert_int_equal(owner.asks, 0);
}

/* --- writes */

static void nothing_is_written_before_it_is_admitted(void **state)
{
	(void)state;
	enter(NAME, NULL);
	say_write(1, 0, 512);
	talk_request(WIRE_CMD_WRITE_ZEROES, 0, 2, 0, 512);
	talk_request(WIRE_CMD_TRIM, 0, 3, 0, 512);
	talk_request(WIRE_CMD_FLUSH, 0, 4, 0, 0);
	talk_hear(talk.looked_bytes + 3 * 26 + SIMPLE);
	expect_error(WIRE_EPERM, 1);
	expect_error(WIRE_EPERM, 2);
	expect_error(WIRE_EPERM, 3);
	talk_expect_simple(0, 4);
	assert_int_equal(memory_layer_bytes(talk.disk)[0], 0);
}

static void what_was_written_is_in_the_digest(void **state)
{
	struct digest expected = { 0 };
	uint8_t bytes[4096];

	(void)state;
	enter_admitted();
	say_write(5, 8192, sizeof(bytes));
	talk_request(WIRE_CMD_WRITE_ZEROES, WIRE_FLAG_NO_HOLE, 6, 512, 1024);
	say_write(7, TALK_DISK_BYTES, 512); /* fails */
	talk_request(WIRE_CMD_READ, 0, 8, 8192, 1);
	talk_hear(talk.looked_bytes + 2 * SIMPLE + 26 + 29);
	memset(bytes, 5, sizeof(bytes));
	digest_add(&expected, DIGEST_WRITE, 8192, sizeof(bytes), bytes);
	digest_add(&expected, DIGEST_ZERO, 512, 1024, NULL);
	assert_true(digest_equal(&owner.digest, &expected));
	assert_int_equal(memory_layer_bytes(talk.disk)[8192], 5);
}

/* Past any disk's end, and none of its bytes. */
static void the_logs_of_changes_are_no_write(void **state)
{
	const uint64_t most = XSXM_LOG_AT + UINT64_C(0x3ffffffffffff000);

	(void)state;
	enter_admitted_as("x-sxm:2/m.1/7/3");
	say_write(5, XSXM_LOG_AT + 8192, 4096);
	talk_hear(talk.looked_bytes + SIMPLE);
	talk_expect_simple(0, 5);
	assert_true(owner.pieces == 1 && owner.piece_at == 8192 && owner.piece_bytes == 4096 && owner.piece_byte == 5);
	owner.piece_err = EINVAL;
	say_write(6, most, 4096);
	talk_request(WIRE_CMD_WRITE, WIRE_FLAG_FUA, 7, XSXM_LOG_AT, 512);
	talk_fill(7, 512);
	say_write(8, XSXM_LOG_AT, XSXM_LOG_MAX_BYTES + 1);
	talk_hear(talk.looked_bytes + 3 * 26);
	expect_error(WIRE_EINVAL, 6);
	expect_error(WIRE_EINVAL, 7);
	expect_error(WIRE_EINVAL, 8);
	assert_true(owner.pieces == 2 && owner.piece_at == most - XSXM_LOG_AT);
	nbdsrv_link_admit(owner.link, NULL);
	say_write(9, XSXM_LOG_AT, 512);
	talk_hear(talk.looked_bytes + 26);
	expect_error(WIRE_EPERM, 9);
	assert_true(owner.pieces == 2 && owner.digest.count == 0 && memory_layer_bytes(talk.disk)[0] == 0);
}

static void version_1_sends_none(void **state)
{
	(void)state;
	enter_admitted();
	say_write(5, XSXM_LOG_AT, 4096);
	talk_hear(talk.looked_bytes + 26);
	expect_error(WIRE_ENOSPC, 5);
	assert_int_equal(owner.pieces, 0);
}

static bool is_in_flight(void)
{
	return talk.gate->in_flight == 0 && iobuf_pool_used(talk.pool) == 4096 && talk.said_bytes == talk.say_bytes;
}

static void a_payload_that_arrives_after_the_end_is_not_written(void **state)
{
	(void)state;
	enter_admitted();
	talk_request(WIRE_CMD_WRITE, 0, 5, 0, 4096);
	talk_fill(5, 4000);
	talk_run_until(is_in_flight);
	nbdsrv_link_admit(owner.link, NULL);
	talk_fill(5, 96);
	talk_hear(talk.looked_bytes + 26);
	expect_error(WIRE_EPERM, 5);
	assert_int_equal(memory_layer_bytes(talk.disk)[0], 0);
	assert_int_equal(owner.digest.count, 0);
}

static void the_plain_are_refused_where_it_is_said(void **state)
{
	(void)state;
	talk_enter();
	nbdsrv_set_plain(talk.server, NBDSRV_PLAIN_READS);
	say_write(1, 0, 512);
	talk_request(WIRE_CMD_READ, 0, 2, 0, 1);
	talk_hear(talk.looked_bytes + SIMPLE + SIMPLE + 1);
	talk_expect_simple(WIRE_EPERM, 1);
	talk_expect_simple(0, 2);
	TALK_EXPECT(0);
	nbdsrv_set_plain(talk.server, NBDSRV_PLAIN_WRITES);
	say_write(3, 0, 512);
	talk_hear(talk.looked_bytes + SIMPLE);
	talk_expect_simple(0, 3);
}

static bool was_asked(void)
{
	return owner.plain == 1;
}

static bool was_asked_again(void)
{
	return owner.plain == 2;
}

static void the_first_plain_write_is_held_until_it_is_known(void **state)
{
	(void)state;
	talk_enter();
	nbdsrv_set_plain(talk.server, NBDSRV_PLAIN_ASKS);
	talk_request(WIRE_CMD_READ, 0, 1, 0, 1);
	say_write(2, 0, 512);
	say_write(3, 512, 512);
	talk_run_until(was_asked);
	talk_hear(talk.looked_bytes + SIMPLE + 1);
	talk_expect_simple(0, 1);
	TALK_EXPECT(0);
	assert_int_equal(memory_layer_bytes(talk.disk)[0], 0);
	nbdsrv_set_plain(talk.server, NBDSRV_PLAIN_WRITES);
	talk_hear(talk.looked_bytes + 2 * SIMPLE);
	talk_expect_simple(0, 2);
	talk_expect_simple(0, 3);
	assert_int_equal(owner.plain, 1);
	nbdsrv_set_plain(talk.server, NBDSRV_PLAIN_ASKS);
	say_write(4, 0, 512);
	talk_run_until(was_asked_again);
	nbdsrv_set_plain(talk.server, NBDSRV_PLAIN_READS);
	talk_hear(talk.looked_bytes + SIMPLE);
	talk_expect_simple(WIRE_EPERM, 4);
}

/* --- ends */

static bool is_gone(void)
{
	return owner.gone == 1;
}

static void one_that_is_shut_out_is_gone_when_its_last_write_has_landed(void **state)
{
	(void)state;
	enter_admitted();
	gate_hold(talk.gate);
	say_write(5, 0, 4096);
	talk_run_until(is_in_flight);
	talk.is_deaf = true; /* and it does not even read what was said to it */
	nbdsrv_link_shut(owner.link);
	for (unsigned i = 0; i < 3; i++) { /* some turns */
		struct nbdsrv_stats stats;

		loop_stop(talk.loop);
		loop_run(talk.loop);
		nbdsrv_stats(talk.server, &stats);
		assert_int_equal(stats.clients, 0);
	}
	assert_int_equal(owner.gone, 0);
	gate_release(talk.gate);
	talk_run_until(is_gone);
	assert_int_equal(memory_layer_bytes(talk.disk)[4095], 5);
	assert_int_equal(owner.digest.count, 0);
}

static void a_client_that_leaves_is_gone(void **state)
{
	(void)state;
	enter_admitted();
	talk_request(WIRE_CMD_DISC, 0, 0, 0, 0);
	talk_hear_eof();
	talk_run_until(is_gone);
}

static void a_question_without_an_answer_holds_no_server_up(void **state)
{
	(void)state;
	enter(NAME, NULL);
	talk_request(WIRE_CMD_BLOCK_STATUS, 0, 9, XSXM_WAIT, XSXM_QUESTION_BYTES);
	talk_request(WIRE_CMD_FLUSH, 0, 10, 0, 0);
	talk_hear(talk.looked_bytes + SIMPLE);
	talk_expect_simple(0, 10);
	talk_shut_down();
	talk_hear_eof();
	expect_error(WIRE_ESHUTDOWN, 9);
	talk_await_shut();
	assert_int_equal(owner.gone, 1);
	answer(0); /* into the void */
}

static void a_question_of_one_that_is_cut_may_still_be_answered(void **state)
{
	(void)state;
	enter(NAME, NULL);
	talk_request(WIRE_CMD_BLOCK_STATUS, 0, 9, XSXM_COMMIT, XSXM_QUESTION_BYTES);
	talk_request(WIRE_CMD_FLUSH, 0, 10, 0, 0);
	talk_hear(talk.looked_bytes + SIMPLE);
	nbdsrv_link_shut(owner.link);
	answer(0);
	talk_run_until(is_gone);
}

static void only_links_stay_when_the_plain_are_ended(void **state)
{
	int plain;

	(void)state;
	talk_enter();
	plain = talk_another();
	enter(NAME, NULL);
	nbdsrv_end_plain(talk.server);
	talk_request(WIRE_CMD_FLUSH, 0, 10, 0, 0);
	talk_hear(talk.looked_bytes + SIMPLE);
	talk_expect_simple(0, 10);
	assert_int_equal(read(plain, talk.hear, 1), 0);
	close(plain);
	close(talk_another()); /* one that comes now */
	talk_export_name("", 0);
	talk_hear_eof();
	assert_int_equal(talk.heard_bytes, 28);
}

#define TALK_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, talk_tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TALK_TEST(the_newest_that_both_speak_is_chosen),
		TALK_TEST(list_says_that_we_are_here),
		TALK_TEST(a_server_without_an_owner_offers_none),
		TALK_TEST(a_disk_too_small_for_questions_offers_none),
		TALK_TEST(an_answers_fields_are_descriptors),
		TALK_TEST(each_context_has_its_chunk),
		TALK_TEST(a_sweep_is_no_question),
		TALK_TEST(nothing_is_written_before_it_is_admitted),
		TALK_TEST(what_was_written_is_in_the_digest),
		TALK_TEST(the_logs_of_changes_are_no_write),
		TALK_TEST(version_1_sends_none),
		TALK_TEST(a_payload_that_arrives_after_the_end_is_not_written),
		TALK_TEST(the_plain_are_refused_where_it_is_said),
		TALK_TEST(the_first_plain_write_is_held_until_it_is_known),
		TALK_TEST(one_that_is_shut_out_is_gone_when_its_last_write_has_landed),
		TALK_TEST(a_client_that_leaves_is_gone),
		TALK_TEST(a_question_without_an_answer_holds_no_server_up),
		TALK_TEST(a_question_of_one_that_is_cut_may_still_be_answered),
		TALK_TEST(only_links_stay_when_the_plain_are_ended),
	};

	setenv("SXM_LOG", "stderr", 1);
	log_init("test-nbdsrv-links");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
