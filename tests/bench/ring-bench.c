/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * ring-bench - what one process serves over a Xen guest's ring, and over its NBD socket, of a disk that does nothing
 *
 *      [ONLY=ring|nbd] [POLL=1] [DISK=FILE] ring-bench [SECONDS [KIB [QUEUE [ORDER]]]]
 *
 * A gate, and under it a layer that answers at once; over it a vbd (Xen is one in memory, tests/lib/fake-xen) and an NBD server.
 * The guest, or the NBD client, is another process; each of the two has its turn at reads and writes, three times. With POLL
 * neither of them sleeps: then what is seen is what the server can do, and not how soon a sleeper is woken. A line for each:
 * requests a second, and for each second of the server's processor time. More than 44 KiB, up to 128, are indirect requests.
 * With DISK that file is below, of 1 GiB or more: what is in it is overwritten.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/gate.h"
#include "disk/disk.h"
#include "nbdsrv/nbdsrv.h"
#include "tests/lib/blk-front.h"
#include "tests/lib/fake-xen.h"
#include "vbd/vbd.h"

#define BACK "/local/domain/0/backend/qdisk/5/51712"
#define FRONT "/local/domain/5/device/vbd/51712"
#define CHANNEL 9u
#define DATA 64u
#define QUEUE_MAX 128u
#define DISK_BYTES (1024 * MiB)
#define ROUNDS 3u

static bool is_polling;
static unsigned seconds = 2, kib = 4, queue = 32, order;
static char dir[] = "/dev/shm/sxm-bench-XXXXXX", path[64];
static struct loop *loop;
static struct iobuf_pool *pool;
static struct layer nothing, *gate, *disk;
static struct nbdsrv *server;
static struct vbd *vbd;

static void insist(bool is_so, const char *what)
{
	if (is_so)
		return;
	perror(what);
	exit(1);
}

/* --- the client over NBD */

static void read_all(int fd, void *to, size_t bytes)
{
	for (size_t got = 0; got < bytes;) {
		ssize_t n = read(fd, (char *)to + got, bytes - got);

		insist(n > 0, "read");
		got += (size_t)n;
	}
}

static void write_all(int fd, const void *from, size_t bytes)
{
	for (size_t put = 0; put < bytes;) {
		ssize_t n = write(fd, (const char *)from + put, bytes - put);

		insist(n > 0, "write");
		put += (size_t)n;
	}
}

static int connect_nbd(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* NO_ZEROES; EXPORT_NAME x */
	uint8_t text[64] = { 0, 0, 0, 3, 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 1, 0, 0, 0, 1, 'x' };

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	insist(connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0, path);
	read_all(fd, text + 32, 18);
	write_all(fd, text, 21);
	read_all(fd, text, 10);
	return fd;
}

struct nbd_request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t handle, offset;
	uint32_t bytes;
} __attribute__((packed));

/* One after the other what is asked for, in one go what may be. */
static void ask_nbd(int fd, unsigned count, bool is_write)
{
	static uint8_t *text;
	static uint64_t at;
	size_t each = sizeof(struct nbd_request) + (is_write ? kib * 1024 : 0);

	if (!text)
		text = calloc(QUEUE_MAX, sizeof(struct nbd_request) + kib * 1024);
	for (unsigned i = 0; i < count; i++) {
		struct nbd_request *q = (struct nbd_request *)(void *)(text + i * each);

		*q = (struct nbd_request){ .magic = htonl(0x25609513), .type = htons(is_write), .handle = at,
					   .offset = htobe64(at % (DISK_BYTES / (kib * 1024)) * kib * 1024),
					   .bytes = htonl(kib * 1024) };
		at++;
	}
	write_all(fd, text, count * each);
}

static void nbd_client(bool is_write, volatile bool *must_end)
{
	size_t each = 16 + (is_write ? 0 : kib * 1024), have = 0;
	uint8_t *text = malloc(QUEUE_MAX * each);
	int fd = connect_nbd();

	ask_nbd(fd, queue, is_write);
	while (!*must_end) {
		ssize_t n = recv(fd, text + have, QUEUE_MAX * each - have, is_polling ? MSG_DONTWAIT : 0);
		unsigned count;

		if (n < 0 && errno == EAGAIN)
			continue;
		insist(n > 0, "read");
		have += (size_t)n;
		count = (unsigned)(have / each);
		insist(!count || (text[0] == 0x67 && text[4] == 0), "a reply");
		memmove(text, text + count * each, have - count * each);
		have -= count * each;
		if (count)
			ask_nbd(fd, count, is_write);
	}
	_exit(0);
}

/* --- the guest */

static bool is_state(struct world *w, const char *key, const char *wanted)
{
	char value[64];

	return world_get(w, key, value, sizeof(value)) && strcmp(value, wanted) == 0;
}

static void connect_guest(struct world *w, struct front *f)
{
	char key[64], number[16];

	while (!is_state(w, BACK "/state", "2"))
		poll(NULL, 0, 1);
	for (unsigned i = 0; i < 1u << order; i++) {
		world_page(w, 1 + i);
		snprintf(key, sizeof(key), order ? FRONT "/ring-ref%u" : FRONT "/ring-ref", i);
		snprintf(number, sizeof(number), "%u", 1 + i);
		world_put(w, key, number);
	}
	snprintf(number, sizeof(number), "%u", order);
	if (order)
		world_put(w, FRONT "/ring-page-order", number);
	front_init(f, world_page(w, 1), order, false);
	world_put(w, FRONT "/event-channel", "9");
	world_put(w, FRONT "/state", "3");
	while (!is_state(w, BACK "/state", "4"))
		poll(NULL, 0, 1);
	world_put(w, FRONT "/state", "4");
}

static void ask_ring(struct front *f, uint64_t id, bool is_write)
{
	static uint64_t at;
	uint64_t sector = at++ % (DISK_BYTES / (kib * 1024)) * kib * 2;
	struct front_request q = front_one(is_write, id, sector, DATA + (uint32_t)id, 0, 7);

	if (kib > 44) {
		q = front_indirect(is_write, id, sector, DATA + QUEUE_MAX + (uint32_t)id, (uint16_t)(kib / 4));
		front_put(f, &q);
		return;
	}
	q.segments = (uint8_t)((kib + 3) / 4);
	for (unsigned i = 1; i < q.segments; i++)
		q.segment[i] = (struct front_segment){ DATA + (uint32_t)id, 0, 7 };
	q.segment[q.segments - 1].last = (uint8_t)((kib * 2 - 1) % 8);
	front_put(f, &q);
}

static void guest(bool is_write, volatile bool *must_end)
{
	struct world w;
	struct front f;
	struct front_response a;
	struct pollfd p = { .events = POLLIN };
	char bytes[64];

	world_open(&w, dir);
	p.fd = world_channel(&w, CHANNEL);
	for (unsigned i = 0; i < QUEUE_MAX; i++) {
		world_page(&w, DATA + i);
		for (unsigned n = 0; n < RING_INDIRECT_MAX; n++)
			front_put_segment(world_page(&w, DATA + QUEUE_MAX + i), n, (struct front_segment){ DATA + i, 0, 7 });
	}
	connect_guest(&w, &f);
	for (unsigned i = 0; i < MIN(queue, f.entries); i++)
		ask_ring(&f, i, is_write);
	while (!*must_end) {
		if (front_push(&f))
			world_notify(&w, CHANNEL);
		while (is_polling && __atomic_load_n(front_word(&f, 8), __ATOMIC_ACQUIRE) == f.heard)
			;
		if (!front_take(&f, &a)) {
			poll(&p, 1, 100);
			while (read(p.fd, bytes, sizeof(bytes)) > 0)
				;
			continue;
		}
		do {
			insist(a.status == 0, "a response");
			ask_ring(&f, a.id, is_write);
		} while ((!is_polling || __atomic_load_n(front_word(&f, 8), __ATOMIC_ACQUIRE) != f.heard) && front_take(&f, &a));
	}
	_exit(0);
}

/* --- the server */

static void answer_at_once(struct layer *l UNUSED, struct req *r)
{
	req_complete(r, 0);
}

static void stop_loop(void *arg UNUSED)
{
	loop_stop(loop);
}

static double cpu_now(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void begin_server(void)
{
	static const struct layer_ops ops = { "nothing", answer_at_once, NULL };
	struct geometry g = { .size_bytes = DISK_BYTES, .block_bytes = 512, .optimal_bytes = 4096 };
	struct disk_file *file;
	struct error e = { 0 };

	loop = loop_new();
	req_init(loop);
	pool = iobuf_pool_new(64 * MiB);
	layer_init(&nothing, &ops, NULL, &g);
	if (getenv("DISK")) {
		file = disk_open(&(struct disk_spec){ .path = getenv("DISK") }, &e);
		insist(file != NULL, e.text);
		disk = disk_layer(loop, file, &e);
		insist(disk != NULL, e.text);
	}
	gate = gate_new(disk ? disk : &nothing);
	server = nbdsrv_new(&(struct nbdsrv_spec){ .loop = loop, .top = gate, .pool = pool, .export_name = "x" }, &e);
	insist(server && nbdsrv_listen_unix(server, path, &e) == 0, e.text);
}

static void plug(struct world *w, const char *book)
{
	struct vbd_spec spec = { .loop = loop, .top = gate, .pool = pool, .backend = BACK, .book = book, .is_eager = true };
	struct error e = { 0 };

	world_put(w, BACK, NULL);
	world_put(w, FRONT, NULL);
	world_put(w, BACK "/frontend", FRONT);
	world_put(w, BACK "/frontend-id", "5");
	world_put(w, BACK "/online", "1");
	world_put(w, BACK "/mode", "w");
	world_put(w, BACK "/state", "1");
	world_put(w, FRONT "/state", "1");
	vbd = vbd_new(&spec, &e);
	insist(vbd != NULL, e.text);
}

static uint64_t count(bool is_ring)
{
	struct nbdsrv_stats n;
	struct vbd_stats v;

	if (is_ring) {
		vbd_stats(vbd, &v);
		return v.reads + v.writes;
	}
	nbdsrv_stats(server, &n);
	return n.reads + n.writes;
}

static void wait_ms(unsigned ms)
{
	struct loop_timer *t = loop_timer_new(loop, stop_loop, NULL);

	loop_timer_set(t, ms);
	loop_run(loop);
	loop_timer_free(t);
}

static volatile bool never;

static void print_events(void)
{
	struct vbd_stats v;

	vbd_stats(vbd, &v);
	printf("   (%.3f events of the guest's for each, %.3f of ours)", (double)v.events / (double)(v.reads + v.writes),
	       (double)v.notifications / (double)(v.reads + v.writes));
}

static void measure(bool is_ring, bool is_write)
{
	char book[64];
	struct world w;
	uint64_t before, begun_ns;
	double cpu;
	pid_t child;

	snprintf(book, sizeof(book), "%s/book", dir);
	unlink(book);
	world_open(&w, dir);
	if (is_ring)
		plug(&w, book);
	child = fork();
	insist(child >= 0, "fork");
	if (child == 0)
		(is_ring ? guest : nbd_client)(is_write, &never);
	wait_ms(300);
	before = count(is_ring);
	cpu = cpu_now();
	begun_ns = loop_now_ns();
	wait_ms(seconds * 1000);
	before = count(is_ring) - before;
	cpu = cpu_now() - cpu;
	printf("%-4s %-5s %8.0f a second %8.0f a second of the processor's", is_ring ? "ring" : "nbd",
	       is_write ? "write" : "read", (double)before * 1e9 / (double)(loop_now_ns() - begun_ns), (double)before / cpu);
	if (is_ring)
		print_events();
	putchar('\n');
	fflush(stdout);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	if (is_ring) {
		vbd_stop(vbd, stop_loop, NULL);
		loop_run(loop);
		vbd_free(vbd);
	}
	world_close(&w);
	wait_ms(50);
}

static void end_server(void)
{
	nbdsrv_shutdown(server, stop_loop, NULL);
	loop_run(loop);
	nbdsrv_free(server);
	layer_close(gate);
	if (disk)
		layer_close(disk);
	iobuf_pool_free(pool);
	req_fini();
	loop_free(loop);
}

int main(int argc, char **argv)
{
	char command[80];
	const char *only = getenv("ONLY");

	if (argc > 1)
		seconds = (unsigned)atoi(argv[1]);
	if (argc > 2)
		kib = MIN((unsigned)atoi(argv[2]), RING_REQUEST_BYTES_MAX / 1024);
	if (argc > 3)
		queue = MIN((unsigned)atoi(argv[3]), QUEUE_MAX);
	if (argc > 4)
		order = MIN((unsigned)atoi(argv[4]), RING_ORDER_MAX);
	is_polling = getenv("POLL");
	insist(mkdtemp(dir) != NULL, dir);
	setenv("SXM_FAKE_XEN", dir, 1);
	snprintf(path, sizeof(path), "%s/nbd", dir);
	begin_server();
	for (unsigned i = 0; i < ROUNDS * 4; i++)
		if (!only || (strcmp(only, "ring") == 0) == (i % 2))
			measure(i % 2, i / 2 % 2);
	end_server();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) != 0;
}
