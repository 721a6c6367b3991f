/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What TLS holds is not forgotten: bytes that came with others, of which the socket will not tell again, are answered although
 * nothing more comes. The client is GnuTLS without a socket: what it says is gathered, and leaves as one piece when the test wants
 * it to.
 *
 *      session --push--> talk_words ====> the server's socket       all at once
 *      session <--pull-- talk.hear  <====
 *
 * Whoever is forgotten waits for ever: then an alarm ends the test.
 */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/gate.h"
#include "nbdsrv/tls.h"
#include "tests/lib/nbd-talk.h"

#define KEY "00112233445566778899aabbccddeeff"
#define ENTERED_BYTES 10u /* what EXPORT_NAME is answered: a size and flags */
#define MANY 6000u        /* requests: more than the server's buffers hold */
#define AT_ONCE 128u      /* requests that are taken before one is answered */
#define READ_BYTES 4096u
#define READS 400u        /* their answers are more than the buffers of both and the socket's hold */

static char psk_file[] = "/tmp/sxm-tls-XXXXXX";
static gnutls_session_t session;
static gnutls_psk_client_credentials_t credentials;
static struct {
	uint8_t *bytes;
	size_t count, wanted;
} answers;

static ssize_t push(gnutls_transport_ptr_t arg, const giovec_t *iov, int count)
{
	ssize_t bytes = 0;

	(void)arg;
	for (int i = 0; i < count; i++) {
		bytes_put(&talk_words, iov[i].iov_base, iov[i].iov_len);
		bytes += (ssize_t)iov[i].iov_len;
	}
	return bytes;
}

static ssize_t pull(gnutls_transport_ptr_t arg, void *data, size_t bytes)
{
	(void)arg;
	bytes = MIN(bytes, talk.heard_bytes - talk.looked_bytes);
	if (!bytes) {
		gnutls_transport_set_errno(session, EAGAIN);
		return -1;
	}
	memcpy(data, talk.hear + talk.looked_bytes, bytes);
	talk.looked_bytes += bytes;
	return (ssize_t)bytes;
}

static int pull_timeout(gnutls_transport_ptr_t arg, unsigned ms)
{
	(void)arg;
	(void)ms;
	return talk.looked_bytes < talk.heard_bytes;
}

static bool has_heard_more(void)
{
	return talk.looked_bytes < talk.heard_bytes;
}

static bool has_answers(void)
{
	ssize_t n;

	while ((n = gnutls_record_recv(session, answers.bytes + answers.count, answers.wanted - answers.count)) > 0)
		answers.count += (size_t)n;
	if (answers.count < answers.wanted)
		assert_int_equal(n, GNUTLS_E_AGAIN);
	return answers.count == answers.wanted;
}

/* What was said until now leaves, and so much comes back in all. */
static void hear(size_t bytes)
{
	answers.wanted += bytes;
	answers.bytes = realloc(answers.bytes, answers.wanted);
	assert_non_null(answers.bytes);
	talk_run_until(has_answers);
}

/* In records as long as may be: they end in the middle of a request. */
static void say(const void *data, size_t bytes)
{
	for (const uint8_t *at = data; bytes;) {
		ssize_t n = gnutls_record_send(session, at, bytes);

		assert_true(n > 0);
		at += n;
		bytes -= (size_t)n;
	}
}

static void say_option(uint32_t option)
{
	uint8_t bytes[WIRE_OPTION_BYTES];
	struct bytes_writer w = bytes_writer(bytes, sizeof(bytes));

	bytes_put_u64(&w, WIRE_OPTION_MAGIC);
	bytes_put_u32(&w, option);
	bytes_put_u32(&w, 0);
	say(bytes, sizeof(bytes));
}

static void put_request(struct bytes_writer *w, unsigned type, uint64_t cookie, uint32_t length)
{
	bytes_put_u32(w, WIRE_REQUEST_MAGIC);
	bytes_put_u16(w, 0);
	bytes_put_u16(w, (uint16_t)type);
	bytes_put_u64(w, cookie);
	bytes_put_u64(w, 0);
	bytes_put_u32(w, length);
}

static void say_flushes(unsigned count)
{
	uint8_t *bytes = malloc((size_t)count * WIRE_REQUEST_BYTES);
	struct bytes_writer w = bytes_writer(bytes, (size_t)count * WIRE_REQUEST_BYTES);

	assert_non_null(bytes);
	for (unsigned i = 0; i < count; i++)
		put_request(&w, WIRE_CMD_FLUSH, i, 0);
	say(bytes, bytes_written(&w));
	free(bytes);
}

static void start_session(void)
{
	const gnutls_datum_t key = { (unsigned char *)(uintptr_t)KEY, sizeof(KEY) - 1 };

	assert_int_equal(gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NONBLOCK), 0);
	assert_int_equal(gnutls_priority_set_direct(session, "NORMAL:+ECDHE-PSK:+DHE-PSK", NULL), 0);
	assert_int_equal(gnutls_psk_allocate_client_credentials(&credentials), 0);
	assert_int_equal(gnutls_psk_set_client_credentials(credentials, "sxm", &key, GNUTLS_PSK_KEY_HEX), 0);
	assert_int_equal(gnutls_credentials_set(session, GNUTLS_CRD_PSK, credentials), 0);
}

static void end_session(void)
{
	gnutls_deinit(session);
	gnutls_psk_free_client_credentials(credentials);
}

static struct nbdsrv_keys *load_keys(void)
{
	struct nbdsrv_tls spec = { .psk_username = (char *)(uintptr_t)"sxm", .psk_file = psk_file };
	struct error e;
	struct nbdsrv_keys *keys = nbdsrv_keys_load(&spec, &e);

	assert_non_null(keys);
	return keys;
}

/* Up to the moment in which the client's last word of the handshake is gathered and not yet said. */
static void set_up(void **state)
{
	int code;

	talk_set_up(state);
	talk.keys = load_keys();
	talk_restart(false, 0);
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	talk_option(WIRE_OPT_STARTTLS, 0);
	talk_hear(WIRE_GREETING_BYTES + WIRE_OPTION_REPLY_BYTES);
	talk.looked_bytes = talk.heard_bytes;
	start_session();
	gnutls_transport_set_vec_push_function(session, push);
	gnutls_transport_set_pull_function(session, pull);
	gnutls_transport_set_pull_timeout_function(session, pull_timeout);
	while ((code = gnutls_handshake(session)) == GNUTLS_E_AGAIN)
		talk_run_until(has_heard_more);
	assert_int_equal(code, 0);
	assert_true(bytes_written(&talk_words) > talk.said_bytes);
}

static void tear_down(void **state)
{
	end_session();
	free(answers.bytes);
	memset(&answers, 0, sizeof(answers));
	nbdsrv_keys_unref(talk.keys);
	talk_tear_down(state);
}

static void enter(void)
{
	say_option(WIRE_OPT_EXPORT_NAME);
	hear(ENTERED_BYTES);
}

static void test_requests_behind_the_handshake(void **state)
{
	set_up(state);
	say_option(WIRE_OPT_EXPORT_NAME);
	say_flushes(3);
	hear(ENTERED_BYTES + 3 * WIRE_SIMPLE_REPLY_BYTES);
	tear_down(state);
}

/* The record of new keys holds nothing for the server's reader; the request behind it does. */
static void test_requests_behind_new_keys(void **state)
{
	set_up(state);
	enter();
	for (unsigned flags = 0; flags <= GNUTLS_KU_PEER; flags += GNUTLS_KU_PEER) {
		assert_int_equal(gnutls_session_key_update(session, flags), 0);
		say_flushes(1);
		assert_int_equal(gnutls_session_key_update(session, flags), 0);
		say_flushes(2);
		hear(3 * WIRE_SIMPLE_REPLY_BYTES);
	}
	tear_down(state);
}

static bool is_full(void)
{
	struct nbdsrv_stats stats;

	nbdsrv_stats(talk.server, &stats);
	return stats.in_flight == AT_ONCE;
}

/* More than one call takes, and while they are held below the server takes no more: records stay behind it, one of them in part. */
static void test_more_than_there_is_room_for(void **state)
{
	set_up(state);
	enter();
	gate_hold(talk.gate);
	say_flushes(MANY);
	talk_run_until(is_full);
	gate_release(talk.gate);
	hear(MANY * WIRE_SIMPLE_REPLY_BYTES);
	tear_down(state);
}

static bool has_said_all(void)
{
	return talk.said_bytes == talk.say_bytes;
}

/* It asks and does not listen, until our answers have filled what there is for them. */
static void test_answers_that_nobody_takes(void **state)
{
	uint8_t *bytes = malloc(READS * (size_t)WIRE_REQUEST_BYTES);
	struct bytes_writer w = bytes_writer(bytes, READS * (size_t)WIRE_REQUEST_BYTES);

	set_up(state);
	enter();
	for (unsigned i = 0; i < READS; i++)
		put_request(&w, WIRE_CMD_READ, i, READ_BYTES);
	for (unsigned i = 0; i < 8; i++) {
		talk.is_deaf = true;
		assert_int_equal(gnutls_session_key_update(session, GNUTLS_KU_PEER), 0);
		say(bytes, bytes_written(&w));
		talk_run_until(has_said_all);
	}
	talk.is_deaf = false;
	hear(8 * READS * (size_t)(WIRE_SIMPLE_REPLY_BYTES + READ_BYTES));
	tear_down(state);
	free(bytes);
}

/* Without a conn, whose buffers are seldom so small: what of it does not fit is in the session, and nowhere else. */
static void test_a_record_longer_than_the_room(void **state)
{
	struct nbdsrv_keys *keys = load_keys();
	uint8_t room[60], record[100] = { 1 };
	struct iovec iov = { room, sizeof(room) };
	bool is_done = false;
	struct tls *tls;
	int pair[2];

	(void)state;
	alarm(60);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	tls = tls_new(pair[0], keys);
	assert_non_null(tls);
	start_session();
	gnutls_transport_set_int(session, pair[1]);
	while (!is_done || !tls_is_up(tls)) {
		is_done = is_done || gnutls_handshake(session) == 0;
		assert_int_equal(tls_receive(tls, &iov, 1), -1);
		assert_int_equal(errno, EAGAIN);
		assert_false(tls_is_holding(tls));
		assert_int_equal(tls_send(tls, NULL, 0), 0);
	}
	assert_int_equal(gnutls_record_send(session, record, sizeof(record)), sizeof(record));
	assert_int_equal(tls_receive(tls, &iov, 1), 60);
	assert_true(tls_is_holding(tls));
	assert_int_equal(tls_receive(tls, &iov, 1), 40);
	assert_false(tls_is_holding(tls));
	assert_int_equal(tls_receive(tls, &iov, 1), -1);
	assert_int_equal(errno, EAGAIN);
	tls_bye_free(tls);
	end_session();
	nbdsrv_keys_unref(keys);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests_behind_the_handshake),
		cmocka_unit_test(test_requests_behind_new_keys),
		cmocka_unit_test(test_more_than_there_is_room_for),
		cmocka_unit_test(test_answers_that_nobody_takes),
		cmocka_unit_test(test_a_record_longer_than_the_room),
	};
	int fd = mkstemp(psk_file), failed;

	if (fd < 0 || dprintf(fd, "sxm:" KEY "\n") < 0 || close(fd) != 0)
		return 1;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(psk_file);
	return failed;
}
