/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A client that sends any bytes and hangs up: whatever they are, the server ends, nothing stays in flight, nothing leaks,
 * and the pool has every buffer back. The server is the real one, on a socket pair, over a disk in memory.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "nbdsrv/nbdsrv.h"
#include "tests/lib/memory-layer.h"

#define DISK_BYTES (1 * MiB)
#define CEILING_BYTES (64 * KiB) /* of an input of an odd length the connection begins again after DISC */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
extern const char *const fuzz_words[];
const char *const fuzz_words[] = { "IHAVEOPT", "\x25\x60\x95\x13", "\x25\x60\x95\x13\0\0\0\1", "base:allocation", "\0\0\x10\0",
					"x-sxm:1/m/1/1", "\0\0\0\0\0\0\0\1\0\0\1\xff", NULL };

static struct {
	struct loop *loop;
	struct iobuf_pool *pool;
	struct layer *disk;
	struct nbdsrv *server;
	struct loop_watch *watch;
	const uint8_t *unsent;
	size_t unsent_bytes;
	int fd; /* the client's */
	struct nbdsrv_ask *asked; /* not answered */
	struct digest digest;
} t;

static void insist(bool is_so)
{
	if (!is_so)
		abort();
}

static void answer(struct nbdsrv_ask *a)
{
	const uint32_t field[] = { XSXM_OK, 4, 0, 7 };

	nbdsrv_answer(a, field, ARRAY_LEN(field));
}

/* An even opcode admits and is answered, an odd one is answered with the next, or after the link's end, or shuts it out. */
static void on_ask(void *arg, struct nbdsrv_ask *a)
{
	(void)arg;
	if (t.asked)
		answer(t.asked);
	t.asked = NULL;
	if (a->opcode == 5)
		nbdsrv_link_shut(a->link);
	else if (a->opcode % 2 == 0)
		nbdsrv_link_admit(a->link, &t.digest);
	if (a->opcode % 2)
		t.asked = a;
	else
		answer(a);
}

static void on_gone(void *arg, struct nbdsrv_link *l)
{
	(void)arg;
	insist(!nbdsrv_link_is_open(l));
}

static const struct nbdsrv_link_ops links = { .ask = on_ask, .gone = on_gone };

static void on_shut(void *arg)
{
	(void)arg;
	nbdsrv_free(t.server);
	if (t.asked)
		answer(t.asked);
	t.asked = NULL;
	loop_stop(t.loop);
}

/* Sends what goes, throws away what comes, and ends it all when the server has hung up. */
static void on_client(void *arg, int events)
{
	static char waste[65536];
	ssize_t n;

	(void)arg;
	(void)events;
	n = t.unsent_bytes ? send(t.fd, t.unsent, t.unsent_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
	if (n > 0) {
		t.unsent += n;
		t.unsent_bytes -= (size_t)n;
		if (t.unsent_bytes == 0) {
			shutdown(t.fd, SHUT_WR);
			loop_watch_set(t.watch, LOOP_IN);
		}
	}
	n = recv(t.fd, waste, sizeof(waste), MSG_DONTWAIT);
	if (n > 0 || (n < 0 && errno == EAGAIN))
		return;
	loop_watch_free(t.watch);
	t.watch = NULL;
	nbdsrv_shutdown(t.server, on_shut, NULL);
}

static void start(void)
{
	setenv("SXM_LOG", "stderr", 1);
	log_init("fuzz-nbdsrv");
	insist(freopen("/dev/null", "w", stderr) || true);
	t.loop = loop_new();
	t.pool = iobuf_pool_new(CEILING_BYTES);
	t.disk = memory_layer_new(DISK_BYTES);
	insist(t.loop && t.pool && t.disk);
	req_init(t.loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	int pair[2];
	struct error e;

	if (bytes == 0)
		return 0;
	if (!t.loop)
		start();
	insist(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	t.fd = pair[0];
	t.unsent = data;
	t.unsent_bytes = bytes;
	t.server = nbdsrv_new(&(struct nbdsrv_spec){ .loop = t.loop, .top = t.disk, .pool = t.pool, .export_name = "x",
						     .links = &links }, &e);
	insist(t.server && nbdsrv_adopt(t.server, pair[1], bytes % 2, &e) == 0);
	t.watch = loop_watch_new(t.loop, t.fd, LOOP_IN | LOOP_OUT, on_client, NULL);
	insist(t.watch);
	loop_run(t.loop);
	close(t.fd);
	insist(iobuf_pool_used(t.pool) == 0 && t.disk->in_flight == 0);
	return 0;
}
