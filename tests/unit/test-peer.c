/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A host is asked over channels: an answer that is lost is asked for again, what is no relay is said to be none, and a channel
 * that
 * becomes a disk's connection gives its first byte to the disk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/peer.h"
#include "migrate/relay.h"

#define LONG_MS 20000u

/* --- a relay of another process, made anew for each channel */

struct far {
	enum { GOOD, DIES_ONCE, TALKS, IS_OLD, SILENT } kind;
	int channels;
};

static int hello(const char *args UNUSED, struct relay_reply *r, struct error *e UNUSED)
{
	r->ok = strdup("{\"protocol\":1,\"oldest\":1,\"version\":\"9\",\"hostname\":\"b\",\"host\":\"h\",\"now_ms\":1,"
		       "\"run_dir\":\"/run/sxm\"}");
	return 0;
}

static int old_hello(const char *args UNUSED, struct relay_reply *r UNUSED, struct error *e)
{
	return error_set(e, ENOTSUP, "that is too new for me");
}

static int refuse(const char *args UNUSED, struct relay_reply *r UNUSED, struct error *e)
{
	return error_set(e, ENOSPC, "there is no room");
}

static int die(const char *args UNUSED, struct relay_reply *r UNUSED, struct error *e UNUSED)
{
	_exit(0);
}

static int probe(const char *args UNUSED, struct relay_reply *r, struct error *e UNUSED)
{
	r->swallow_bytes = 100000;
	return 0;
}

/* A disk that greets at once, and says back what it hears. */
static int become_disk(const char *args UNUSED, struct relay_reply *r, struct error *e UNUSED)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == -1 || write(ends[1], "NBD", 3) != 3)
		_exit(1);
	if (fork() == 0) {
		close(ends[0]);
		for (char c; read(ends[1], &c, 1) == 1;)
			(void)!write(ends[1], &c, 1);
		_exit(0);
	}
	close(ends[1]);
	r->stream = ends[0];
	return 0;
}

static const struct relay_verb good_verbs[] = { { "hello", hello }, { "refuse", refuse }, { "late", hello }, { "probe", probe },
						{ "connect", become_disk }, { NULL, NULL } };
static const struct relay_verb dying_verbs[] = { { "hello", hello }, { "late", die }, { NULL, NULL } };
static const struct relay_verb old_verbs[] = { { "hello", old_hello }, { NULL, NULL } };

static void serve(const struct far *f, int fd)
{
	const struct relay_table table = { f->kind == IS_OLD ? old_verbs : f->kind == DIES_ONCE && f->channels == 1 ? dying_verbs
					   : good_verbs };

	if (f->kind == SILENT)
		_exit(0);
	if (f->kind == TALKS)
		_exit(write(fd, "Welcome to b\n", 13) == 13 && read(fd, &(char){ 0 }, 1) >= 0 ? 0 : 1);
	_exit(relay_serve(&table, fd, fd));
}

static int channel(void *arg, struct error *e UNUSED)
{
	struct far *f = arg;
	int ends[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	f->channels++;
	if (fork() == 0) {
		close(ends[0]);
		serve(f, ends[1]);
	}
	close(ends[1]);
	return ends[0];
}

static void end(struct peer *p)
{
	peer_fini(p);
	while (wait(NULL) > 0)
		;
}

/* --- */

static void a_question_has_its_answer_or_its_sentence(void **state UNUSED)
{
	struct far f = { GOOD, 0 };
	struct peer p;
	struct error e;

	peer_init(&p, "b", channel, &f);
	for (int i = 0; i < 3; i++) {
		CLEANUP_FREE char *ok = peer_ask(&p, "refuse", NULL, LONG_MS, &e);

		assert_null(ok);
		assert_int_equal(e.err, ENOSPC);
		assert_string_equal(e.text, "b: there is no room");
		assert_false(p.is_lost);
	}
	assert_int_equal(f.channels, 1);
	assert_string_equal(p.greeting.version, "9");
	end(&p);
}

static void an_answer_that_is_lost_is_asked_for_again(void **state UNUSED)
{
	struct far f = { DIES_ONCE, 0 };
	struct peer p;
	struct error e;
	char *ok;

	peer_init(&p, "b", channel, &f);
	assert_int_equal(peer_reach(&p, &e), 0);
	ok = peer_ask(&p, "late", NULL, LONG_MS, &e);
	assert_non_null(ok);
	assert_int_equal(f.channels, 2);
	free(ok);
	end(&p);
}

static void what_is_no_relay_is_said_to_be_none(void **state UNUSED)
{
	struct far talks = { TALKS, 0 }, silent = { SILENT, 0 }, old = { IS_OLD, 0 };
	struct peer p;
	struct error e;

	peer_init(&p, "b", channel, &talks);
	assert_int_equal(peer_reach(&p, &e), -1);
	assert_non_null(strstr(e.text, "no `sxm relay`"));
	end(&p);
	peer_init(&p, "b", channel, &silent);
	assert_int_equal(peer_reach(&p, &e), -1);
	assert_true(p.is_lost);
	end(&p);
	peer_init(&p, "b", channel, &old);
	assert_int_equal(peer_reach(&p, &e), -1);
	assert_int_equal(e.err, ENOTSUP);
	end(&p);
}

static void what_was_probed_leaves_the_channel_as_it_was(void **state UNUSED)
{
	struct far f = { GOOD, 0 };
	struct peer p;
	struct error e;
	char *ok;

	peer_init(&p, "b", channel, &f);
	assert_true(peer_probe(&p, 100000, &e) > 0);
	ok = peer_ask(&p, "late", NULL, LONG_MS, &e);
	assert_non_null(ok);
	assert_int_equal(f.channels, 1);
	free(ok);
	end(&p);
}

static void a_disk_s_first_byte_is_the_first(void **state UNUSED)
{
	struct far f = { GOOD, 0 };
	struct error e;
	char bytes[6] = "";
	int fd = channel(&f, &e);
	bool is_squeezed = true;
	size_t got = 0;

	assert_int_equal(peer_connect(fd, "sxm:///x", "MIR1", &is_squeezed, LONG_MS, &e), 0);
	assert_false(is_squeezed); /* that relay knows nothing of it */
	assert_int_equal(write(fd, "ab", 2), 2);
	while (got < 5) {
		ssize_t n = read(fd, bytes + got, 5 - got);

		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_string_equal(bytes, "NBDab");
	close(fd);
	while (wait(NULL) > 0)
		;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_question_has_its_answer_or_its_sentence),
		cmocka_unit_test(an_answer_that_is_lost_is_asked_for_again),
		cmocka_unit_test(what_is_no_relay_is_said_to_be_none),
		cmocka_unit_test(what_was_probed_leaves_the_channel_as_it_was),
		cmocka_unit_test(a_disk_s_first_byte_is_the_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
