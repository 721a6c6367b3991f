/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What is said in plain text to a listener that demands TLS: it gives nothing, and what stands behind STARTTLS is never taken for
 * something that came under TLS. And the keys: which are taken, and what is said of the others.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/nbd-talk.h"

#define KEY "00112233445566778899aabbccddeeff"

static char dir[] = "/tmp/sxm-tls-XXXXXX";
static char psk_file[64];

static void write_file(const char *text, mode_t mode)
{
	FILE *f = fopen(psk_file, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(psk_file, mode), 0);
}

static struct nbdsrv_keys *load(const char *user, struct error *e)
{
	struct nbdsrv_tls spec = { .psk_username = (char *)(uintptr_t)user, .psk_file = psk_file };

	return nbdsrv_keys_load(&spec, e);
}

static void set_up(void **state)
{
	struct error e;

	talk_set_up(state);
	write_file("someone:" KEY "\nsxm:" KEY "\n", 0600);
	talk.keys = load("sxm", &e);
	if (!talk.keys && e.err == ENOTSUP) {
		talk_tear_down(state);
		skip();
	}
	assert_non_null(talk.keys);
	talk_restart(false, 0);
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
}

static void tear_down(void **state)
{
	nbdsrv_keys_unref(talk.keys);
	talk_tear_down(state);
}

/* Listened to at the end: what is answered has no fixed length, as sentences are in it. */
static uint32_t next_reply(uint32_t option)
{
	struct bytes_reader r;
	uint32_t reply, bytes;

	assert_true(talk.looked_bytes + WIRE_OPTION_REPLY_BYTES <= talk.heard_bytes);
	r = bytes_reader(talk.hear + talk.looked_bytes, WIRE_OPTION_REPLY_BYTES);
	assert_int_equal(bytes_get_u64(&r), WIRE_OPTION_REPLY_MAGIC);
	assert_int_equal(bytes_get_u32(&r), option);
	reply = bytes_get_u32(&r);
	bytes = bytes_get_u32(&r);
	talk.looked_bytes += WIRE_OPTION_REPLY_BYTES + bytes;
	return reply;
}

static void test_nothing_in_plain(void **state)
{
	static const uint32_t option[] = { WIRE_OPT_LIST, WIRE_OPT_STRUCTURED_REPLY, WIRE_OPT_LIST_META_CONTEXT,
					   WIRE_OPT_SET_META_CONTEXT, WIRE_OPT_INFO, WIRE_OPT_GO, 4711 };

	set_up(state);
	for (size_t i = 0; i < ARRAY_LEN(option); i++)
		talk_option(option[i], 0);
	talk_option(WIRE_OPT_INFO, 100000); /* longer than any is looked at */
	talk_fill(0, 100000);
	talk_option(WIRE_OPT_ABORT, 0);
	talk_hear_eof();
	talk.looked_bytes = WIRE_GREETING_BYTES;
	for (size_t i = 0; i < ARRAY_LEN(option); i++)
		assert_int_equal(next_reply(option[i]), WIRE_REP_ERR_TLS_REQD);
	assert_int_equal(next_reply(WIRE_OPT_INFO), WIRE_REP_ERR_TLS_REQD);
	assert_int_equal(next_reply(WIRE_OPT_ABORT), WIRE_REP_ACK);
	assert_int_equal(talk.looked_bytes, talk.heard_bytes);
	tear_down(state);
}

static void test_export_name_in_plain(void **state)
{
	set_up(state);
	talk_option(WIRE_OPT_EXPORT_NAME, 0);
	talk_hear_eof();
	assert_int_equal(talk.heard_bytes, WIRE_GREETING_BYTES);
	tear_down(state);
}

static void test_injection(void **state)
{
	set_up(state);
	talk_option(WIRE_OPT_STARTTLS, 0);
	talk_option(WIRE_OPT_STRUCTURED_REPLY, 0);
	talk_hear_eof();
	assert_int_equal(talk.heard_bytes, WIRE_GREETING_BYTES);
	tear_down(state);
}

static void test_half_an_option_behind(void **state)
{
	set_up(state);
	talk_option(WIRE_OPT_STARTTLS, 0);
	talk_fill('I', 1);
	talk_hear_eof();
	assert_int_equal(talk.heard_bytes, WIRE_GREETING_BYTES);
	tear_down(state);
}

/* It comes later than the option: it is no TLS, and nothing of it is answered. */
static void test_plain_after_the_answer(void **state)
{
	set_up(state);
	talk_option(WIRE_OPT_STARTTLS, 0);
	talk_hear(WIRE_GREETING_BYTES + WIRE_OPTION_REPLY_BYTES);
	talk.looked_bytes = WIRE_GREETING_BYTES;
	assert_int_equal(next_reply(WIRE_OPT_STARTTLS), WIRE_REP_ACK);
	talk_option(WIRE_OPT_GO, 6);
	talk_fill(0, 6);
	talk_hear_eof();
	assert_in_range(talk.heard_bytes - talk.looked_bytes, 0, 7); /* an alert at most */
	tear_down(state);
}

static void test_starttls_with_data(void **state)
{
	set_up(state);
	talk_option(WIRE_OPT_STARTTLS, 3);
	talk_fill(0, 3);
	talk_option(WIRE_OPT_ABORT, 0);
	talk_hear_eof();
	talk.looked_bytes = WIRE_GREETING_BYTES;
	assert_int_equal(next_reply(WIRE_OPT_STARTTLS), WIRE_REP_ERR_INVALID);
	assert_int_equal(next_reply(WIRE_OPT_ABORT), WIRE_REP_ACK);
	tear_down(state);
}

/* A hello that never ends: the server ends all the same. */
static void test_shutdown_in_the_handshake(void **state)
{
	set_up(state);
	talk_option(WIRE_OPT_STARTTLS, 0);
	talk_hear(WIRE_GREETING_BYTES + WIRE_OPTION_REPLY_BYTES);
	bytes_put(&talk_words, "\x16\x03\x01\x02\x00\x01\x00", 7);
	talk_hear(WIRE_GREETING_BYTES + WIRE_OPTION_REPLY_BYTES);
	talk_shut_down();
	talk_await_shut();
	tear_down(state);
}

static void expect_no_keys(const char *text, mode_t mode, const char *user, const char *words)
{
	struct nbdsrv_keys *k;
	struct error e = { 0 };

	write_file(text, mode);
	k = load(user, &e);
	assert_null(k);
	if (e.err == ENOTSUP)
		skip();
	if (!strstr(e.text, words))
		fail_msg("\"%s\" does not say \"%s\"", e.text, words);
}

static void test_keys(void **state)
{
	struct nbdsrv_tls spec = { 0 };
	struct error e = { 0 };

	(void)state;
	expect_no_keys("sxm:" KEY "\n", 0644, "sxm", "everybody");
	expect_no_keys("", 0600, "sxm", "no line");
	expect_no_keys("sxm2:" KEY "\nxsxm:" KEY "\n", 0600, "sxm", "no line");
	expect_no_keys("sxm:00112233", 0600, "sxm", "8 digits");
	expect_no_keys("sxm:" KEY "0\n", 0600, "sxm", "33 digits");
	expect_no_keys("sxm:" KEY "xy\n", 0600, "sxm", "not hexadecimal");
	expect_no_keys("a:b:" KEY "\n", 0600, "a:b", "psk_username");
	expect_no_keys(":" KEY "\n", 0600, "", "psk_username");
	unlink(psk_file);
	assert_null(load("sxm", &e));
	assert_int_equal(e.err, ENOENT);
	assert_null(nbdsrv_keys_load(&spec, &e));
	assert_non_null(strstr(e.text, "either"));
	spec = (struct nbdsrv_tls){ .certificates = dir, .psk_file = psk_file };
	assert_null(nbdsrv_keys_load(&spec, &e));
	assert_non_null(strstr(e.text, "either"));
	spec = (struct nbdsrv_tls){ .certificates = dir };
	assert_null(nbdsrv_keys_load(&spec, &e));
	assert_non_null(strstr(e.text, "server-cert.pem"));
	spec = (struct nbdsrv_tls){ .certificates = (char *)(uintptr_t)"pki" };
	assert_null(nbdsrv_keys_load(&spec, &e));
	assert_non_null(strstr(e.text, "absolute"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_in_plain),
		cmocka_unit_test(test_export_name_in_plain),
		cmocka_unit_test(test_injection),
		cmocka_unit_test(test_half_an_option_behind),
		cmocka_unit_test(test_plain_after_the_answer),
		cmocka_unit_test(test_starttls_with_data),
		cmocka_unit_test(test_shutdown_in_the_handshake),
		cmocka_unit_test(test_keys),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	snprintf(psk_file, sizeof(psk_file), "%s/psk", dir);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(psk_file);
	rmdir(dir);
	return failed;
}
