/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * nbd-talk - see nbd-talk.h
 *
 * The client is a watch on the same loop: it says at most at_once bytes each time the socket takes any, and stops the loop
 * when it has heard enough or the server hung up.
 */
#include "tests/lib/nbd-talk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROOM_BYTES (40 * MiB)
#define PATIENCE_S 60

struct talk talk;
struct bytes_writer talk_words;

static void listen_to_server(void)
{
	ssize_t n;

	if (talk.is_deaf)
		return;
	n = recv(talk.fd, talk.hear + talk.heard_bytes, ROOM_BYTES - talk.heard_bytes, MSG_DONTWAIT);
	if (n > 0)
		talk.heard_bytes += (size_t)n;
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		talk.has_eof = true;
	if (talk.has_eof || (talk.wanted_bytes && talk.heard_bytes >= talk.wanted_bytes))
		loop_stop(talk.loop);
}

static void watch_client(void)
{
	int events = (talk.is_deaf ? 0 : LOOP_IN) | (talk.said_bytes < talk.say_bytes ? LOOP_OUT : 0);

	if (talk.watch)
		loop_watch_set(talk.watch, talk.has_eof ? 0 : events);
}

static void on_client(void *arg, int events)
{
	size_t left = MIN(talk.say_bytes - talk.said_bytes, talk.at_once);
	ssize_t n;

	(void)arg;
	(void)events;
	if (left) {
		n = send(talk.fd, talk.say + talk.said_bytes, left, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n > 0)
			talk.said_bytes += (size_t)n;
	}
	listen_to_server();
	watch_client();
}

/* The kernel has it connected before it is accepted. */
static int connect_tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint16_t port = 0;
	struct error e;

	assert_int_equal(nbdsrv_listen_tcp(talk.server, "127.0.0.1", 0, talk.keys, &port, &e), 0);
	address.sin_port = htons(port);
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void start_client(void)
{
	struct error e;
	int pair[2];

	if (talk.keys) {
		talk.fd = connect_tcp();
	} else {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		assert_int_equal(nbdsrv_adopt(talk.server, pair[1], talk.begins_again, &e), 0);
		talk.fd = pair[0];
	}
	talk.watch = loop_watch_new(talk.loop, talk.fd, LOOP_IN, on_client, NULL);
	assert_non_null(talk.watch);
}

static void start_server(bool is_read_only, unsigned max_clients)
{
	struct nbdsrv_spec spec = { .loop = talk.loop, .top = talk.gate, .pool = talk.pool, .export_name = "disk",
				    .is_read_only = is_read_only, .max_clients = max_clients, .links = talk.links,
				    .xsxm_newest = talk.xsxm_newest };
	struct error e;

	talk.server = nbdsrv_new(&spec, &e);
	assert_non_null(talk.server);
	start_client();
}

int talk_another(void)
{
	int fd = talk.fd;

	loop_watch_free(talk.watch);
	talk.said_bytes = talk.say_bytes = talk.heard_bytes = talk.looked_bytes = 0;
	talk.has_eof = false;
	talk_words = bytes_writer(talk.say, ROOM_BYTES);
	start_client();
	return fd;
}

int talk_set_up(void **state)
{
	(void)state;
	alarm(PATIENCE_S);
	talk = (struct talk){ .loop = loop_new(), .at_once = SIZE_MAX };
	assert_non_null(talk.loop);
	req_init(talk.loop);
	talk.pool = iobuf_pool_new(TALK_CEILING_BYTES);
	talk.disk = memory_layer_new(TALK_DISK_BYTES);
	talk.gate = gate_new(talk.disk);
	talk.say = malloc(ROOM_BYTES);
	talk.hear = malloc(ROOM_BYTES);
	assert_true(talk.pool && talk.disk && talk.gate && talk.say && talk.hear);
	talk_words = bytes_writer(talk.say, ROOM_BYTES);
	start_server(false, 0);
	return 0;
}

int talk_tear_down(void **state)
{
	(void)state;
	if (talk.server) {
		talk_shut_down();
		talk_await_shut();
	}
	if (talk.watch)
		talk_hang_up();
	assert_int_equal(iobuf_pool_used(talk.pool), 0);
	layer_close(talk.gate);
	layer_close(talk.disk);
	loop_free(talk.loop);
	req_fini();
	iobuf_pool_free(talk.pool);
	free(talk.say);
	free(talk.hear);
	return 0;
}

static void on_shut(void *arg)
{
	(void)arg;
	nbdsrv_free(talk.server);
	talk.server = NULL;
	loop_stop(talk.loop);
}

void talk_shut_down(void)
{
	nbdsrv_shutdown(talk.server, on_shut, NULL);
}

void talk_await_shut(void)
{
	while (talk.server)
		loop_run(talk.loop);
}

void talk_hang_up(void)
{
	loop_watch_free(talk.watch);
	talk.watch = NULL;
	close(talk.fd);
	talk.fd = -1;
}

void talk_restart(bool is_read_only, unsigned max_clients)
{
	talk_hang_up();
	talk_shut_down();
	talk_await_shut();
	start_server(is_read_only, max_clients);
}

void talk_option(uint32_t option, uint32_t bytes)
{
	bytes_put_u64(&talk_words, WIRE_OPTION_MAGIC);
	bytes_put_u32(&talk_words, option);
	bytes_put_u32(&talk_words, bytes);
}

void talk_request(unsigned type, unsigned flags, uint64_t cookie, uint64_t offset, uint32_t length)
{
	bytes_put_u32(&talk_words, WIRE_REQUEST_MAGIC);
	bytes_put_u16(&talk_words, (uint16_t)flags);
	bytes_put_u16(&talk_words, (uint16_t)type);
	bytes_put_u64(&talk_words, cookie);
	bytes_put_u64(&talk_words, offset);
	bytes_put_u32(&talk_words, length);
}

void talk_fill(uint8_t value, size_t bytes)
{
	memset(bytes_put_space(&talk_words, bytes), value, bytes);
}

void talk_export_name(const char *name, size_t bytes)
{
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	talk_option(WIRE_OPT_EXPORT_NAME, (uint32_t)bytes);
	bytes_put(&talk_words, name, bytes);
}

void talk_enter(void)
{
	talk_export_name("", 0);
	talk_hear(28);
	talk.looked_bytes = 28;
}

void talk_enter_with(const char *const *contexts)
{
	uint32_t count = 0, bytes = 0;

	for (; contexts[count]; count++)
		bytes += 4 + (uint32_t)strlen(contexts[count]);
	bytes_put_u32(&talk_words, WIRE_FIXED_NEWSTYLE | WIRE_NO_ZEROES);
	talk_option(WIRE_OPT_STRUCTURED_REPLY, 0);
	talk_option(WIRE_OPT_SET_META_CONTEXT, 8 + bytes);
	bytes_put_u32(&talk_words, 0);
	bytes_put_u32(&talk_words, count);
	for (uint32_t i = 0; i < count; i++) {
		bytes_put_u32(&talk_words, (uint32_t)strlen(contexts[i]));
		bytes_put(&talk_words, contexts[i], strlen(contexts[i]));
	}
	talk_option(WIRE_OPT_GO, 6);
	bytes_put_u32(&talk_words, 0);
	bytes_put_u16(&talk_words, 0);
}

void talk_hear(size_t bytes)
{
	talk.say_bytes = bytes_written(&talk_words);
	talk.wanted_bytes = bytes;
	watch_client();
	while (talk.heard_bytes < bytes && !talk.has_eof)
		loop_run(talk.loop);
	assert_int_equal(talk.heard_bytes, bytes);
	talk.wanted_bytes = 0;
}

void talk_hear_eof(void)
{
	talk.say_bytes = bytes_written(&talk_words);
	watch_client();
	while (!talk.has_eof)
		loop_run(talk.loop);
}

static struct {
	bool (*cond)(void);
	struct loop_timer *timer;
} awaited;

static void on_tick(void *arg)
{
	(void)arg;
	if (awaited.cond())
		loop_stop(talk.loop);
	else
		loop_timer_set(awaited.timer, 1);
}

void talk_run_until(bool (*cond)(void))
{
	talk.say_bytes = bytes_written(&talk_words);
	watch_client();
	awaited.cond = cond;
	awaited.timer = loop_timer_new(talk.loop, on_tick, NULL);
	loop_timer_set(awaited.timer, 1);
	while (!cond())
		loop_run(talk.loop);
	loop_timer_free(awaited.timer);
}

void talk_expect(const void *expected, size_t bytes)
{
	assert_true(talk.looked_bytes + bytes <= talk.heard_bytes);
	assert_memory_equal(talk.hear + talk.looked_bytes, expected, bytes);
	talk.looked_bytes += bytes;
}

void talk_expect_simple(uint32_t error, uint64_t cookie)
{
	uint8_t bytes[WIRE_SIMPLE_REPLY_BYTES];
	struct bytes_writer w = bytes_writer(bytes, sizeof(bytes));

	bytes_put_u32(&w, WIRE_SIMPLE_REPLY_MAGIC);
	bytes_put_u32(&w, error);
	bytes_put_u64(&w, cookie);
	talk_expect(bytes, sizeof(bytes));
}
