/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xen-guest - a guest, and its toolstack, in the Xen of fake-xen ($SXM_FAKE_XEN)
 *
 *      xen-guest DOMID DEVICE plug [r|w [PARAMS]] what a toolstack writes before anybody is there
 *      xen-guest DOMID DEVICE unplug              ... and removes, whatever became of it
 *      xen-guest DOMID DEVICE die                 the domain is no more; its keys stay
 *      xen-guest DOMID DEVICE storm SECONDS       changes keys on either side thousands of times a second, wildly
 *      xen-guest DOMID DEVICE put KEY [VALUE]     B/KEY: the backend's, F/KEY: the frontend's, /KEY: any; no VALUE: removed
 *      xen-guest DOMID DEVICE get KEY
 *      xen-guest DOMID DEVICE wait KEY VALUE      20 s at most
 *      xen-guest DOMID DEVICE count               copies made, rings mapped
 *      xen-guest DOMID DEVICE run OPS [QUEUE [ORDER [32]]]
 *                                                 connects, writes and reads OPS times and checks; flushes, reads all, closes
 *      xen-guest DOMID DEVICE rubbish SECONDS     connects, and writes rubbish to ring and keys
 *
 * run: SIGUSR1: it goes on over a new ring, as a guest does that was suspended: what was not answered is asked again.
 * SIGUSR2: it comes to its end. A response to what was not asked, or was answered, is an error; so is a byte that was not
 * written last. Prints a line at each thousand, and how fast it was.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/blk-front.h"
#include "tests/lib/fake-xen.h"

#define BLOCKS 2048u /* of 4 KiB: what is used of the disk */
#define QUEUE_MAX 128u
#define PATIENCE_MS 20000
enum { READ, WRITE, FLUSH = 3 };

static struct world world;
static unsigned domid, device, base;
static char back[64], front_dir[64];
static struct front front;
static int events;
static unsigned order, generation;
static bool is_32;
static volatile sig_atomic_t must_resume, must_end;

static struct shadow {
	bool is_busy;
	struct front_request q;
} shadow[QUEUE_MAX];
static uint32_t version[BLOCKS];
static bool is_block_busy[BLOCKS];

static void die(const char *what)
{
	fprintf(stderr, "xen-guest %u: %s\n", domid, what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void put(const char *dir, const char *key, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "%.60s%s%.60s", dir, *key ? "/" : "", key);
	world_put(&world, path, value);
}

static void put_number(const char *dir, const char *key, unsigned value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	put(dir, key, text);
}

static bool get(const char *dir, const char *key, char *value, size_t bytes)
{
	char path[128];

	snprintf(path, sizeof(path), "%.60s/%.60s", dir, key);
	return world_get(&world, path, value, bytes);
}

static void wait_for(const char *dir, const char *key, const char *wanted)
{
	uint64_t end_ns = now_ns() + PATIENCE_MS * NS_PER_MS;
	char value[128], text[200];

	while (!get(dir, key, value, sizeof(value)) || strcmp(value, wanted) != 0) {
		if (now_ns() > end_ns) {
			snprintf(text, sizeof(text), "%s is not %s after 20 s, but %.40s", key, wanted,
				 get(dir, key, value, sizeof(value)) ? value : "missing");
			die(text);
		}
		poll(NULL, 0, 1);
	}
}

static void plug(const char *mode, const char *params)
{
	put(back, "frontend", front_dir);
	put_number(back, "frontend-id", domid);
	put(back, "online", "1");
	put(back, "mode", mode);
	if (params)
		put(back, "params", params);
	put(back, "state", "1");
	put(front_dir, "backend", back);
	put(front_dir, "state", "1");
}

static uint32_t page_of(unsigned slot)
{
	return base + 40 + slot;
}

/* --- the ring */

/* Made before anybody hears of it: over a resume the backend may be at it with the first key that says so. */
static void offer_ring(void)
{
	uint32_t first = base + (generation++ % 2) * 16;
	char key[16];

	for (unsigned i = 0; i < 1u << order; i++)
		world_page(&world, first + i);
	front_init(&front, world_page(&world, first), order, is_32);
	for (unsigned i = 0; i < 1u << order; i++) {
		snprintf(key, sizeof(key), order ? "ring-ref%u" : "ring-ref", i);
		put_number(front_dir, key, first + i);
	}
	if (order)
		put_number(front_dir, "ring-page-order", order);
	put_number(front_dir, "event-channel", domid);
	put(front_dir, "protocol", is_32 ? "x86_32-abi" : "x86_64-abi");
	put(front_dir, "state", "3");
}

static void connect_ring(void)
{
	events = world_channel(&world, domid);
	wait_for(back, "state", "2");
	offer_ring();
	wait_for(back, "state", "4");
	put(front_dir, "state", "4");
}

static void push(void)
{
	if (front_push(&front))
		world_notify(&world, domid);
}

/* The backend is at 4 already: it is at the new ring when it answers over it. */
static void resume(void)
{
	must_resume = 0;
	offer_ring();
	for (unsigned i = 0; i < QUEUE_MAX; i++)
		if (shadow[i].is_busy)
			front_put(&front, &shadow[i].q);
	push();
	put(front_dir, "state", "4");
	printf("resumed\n");
	fflush(stdout);
}

static void check(const struct front_request *q)
{
	const uint32_t *words = (const uint32_t *)(const void *)world_page(&world, q->segment[0].gref);
	uint32_t block = (uint32_t)(q->sector / 8);
	char text[120];

	for (unsigned i = 0; i < 1024; i += 2)
		if (version[block] && (words[i] != version[block] || words[i + 1] != block)) {
			snprintf(text, sizeof(text), "block %u should have version %u, has %u of block %u", block, version[block],
				 words[i], words[i + 1]);
			die(text);
		}
}

static bool take(void)
{
	struct front_response a;
	struct shadow *s;

	if (!front_take(&front, &a))
		return false;
	if (a.id >= QUEUE_MAX || !shadow[a.id].is_busy)
		die("an answer to what was not asked, or a second one");
	s = &shadow[a.id];
	if (a.status || a.op != s->q.op)
		die(a.status ? "a request failed" : "an answer with another operation");
	if (s->q.op == READ)
		check(&s->q);
	if (s->q.op != FLUSH)
		is_block_busy[s->q.sector / 8] = false;
	s->is_busy = false;
	return true;
}

static void wait_event(void)
{
	static uint64_t last_ns;
	struct pollfd p = { .fd = events, .events = POLLIN };
	char bytes[64];

	if (must_resume)
		resume();
	if (poll(&p, 1, 100) > 0) {
		last_ns = now_ns();
		while (read(events, bytes, sizeof(bytes)) > 0)
			;
	} else if (last_ns && now_ns() - last_ns > PATIENCE_MS * NS_PER_MS) {
		die("no answer for 20 s");
	}
}

static void ask(unsigned slot, unsigned op, uint32_t block)
{
	struct shadow *s = &shadow[slot];

	*s = (struct shadow){ .is_busy = true, .q = front_one((uint8_t)op, slot, block * 8ull, page_of(slot), 0, 7) };
	if (op == FLUSH)
		s->q = (struct front_request){ .op = FLUSH, .id = slot };
	else
		is_block_busy[block] = true;
	if (op == WRITE) {
		uint32_t *words = (uint32_t *)(void *)world_page(&world, page_of(slot));

		version[block]++;
		for (unsigned i = 0; i < 1024; i += 2) {
			words[i] = version[block];
			words[i + 1] = block;
		}
	}
	front_put(&front, &s->q);
}

static unsigned count_busy(unsigned queue)
{
	unsigned busy = 0;

	for (unsigned i = 0; i < queue; i++)
		busy += shadow[i].is_busy;
	return busy;
}

static void wait_all(unsigned queue)
{
	push();
	while (count_busy(queue))
		if (!take())
			wait_event();
}

static void fill_queue(unsigned queue, unsigned long *left)
{
	for (unsigned slot = 0; slot < queue && *left; slot++) {
		uint32_t block = (uint32_t)rand() % BLOCKS;

		if (shadow[slot].is_busy || is_block_busy[block])
			continue;
		ask(slot, rand() % 200 == 0 ? FLUSH : rand() % 2 ? WRITE : READ, block);
		if (--*left % 1000 == 0) {
			printf("%lu to go\n", *left);
			fflush(stdout);
		}
	}
	push();
}

static void on_signal(int number)
{
	if (number == SIGUSR1)
		must_resume = 1;
	else
		must_end = 1;
}

static void run(unsigned long ops, unsigned queue)
{
	unsigned long left = ops;
	uint64_t begun_ns;

	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, on_signal);
	for (unsigned i = 0; i < QUEUE_MAX; i++)
		world_page(&world, page_of(i));
	connect_ring();
	queue = MIN(queue, front.entries);
	begun_ns = now_ns();
	while (left && !must_end) {
		fill_queue(queue, &left);
		while (take())
			;
		if (count_busy(queue) == queue || must_resume)
			wait_event();
	}
	wait_all(queue);
	printf("%lu operations, %.0f a second\n", ops - left, (double)(ops - left) * 1e9 / (double)(now_ns() - begun_ns));
	for (uint32_t block = 0; block < BLOCKS; block += queue) {
		for (unsigned slot = 0; slot < queue && block + slot < BLOCKS; slot++)
			ask(slot, READ, block + slot);
		wait_all(queue);
	}
	put(front_dir, "state", "5");
	wait_for(back, "state", "5");
	put(front_dir, "state", "6");
	wait_for(back, "state", "6");
}

/* --- the hostile one */

static void write_rubbish(uint8_t *at, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		at[i] = (uint8_t)(rand() % 3 ? rand() % 12 : rand());
}

static void write_rubbish_key(void)
{
	static const char *const keys[] = { "state", "ring-page-order", "ring-ref", "ring-ref0", "ring-ref1", "event-channel",
					    "protocol", "state" };
	static const char *const values[] = { "1", "2", "3", "4", "5", "6", "0", "4294967295", "-1", "", "x86_32-abi", "../../0",
					      "9" };
	const char *key = keys[(unsigned)rand() % ARRAY_LEN(keys)];
	static char huge[4000];
	char path[128];

	memset(huge, '9', sizeof(huge));
	snprintf(path, sizeof(path), "%.60s/%.30s", front_dir, key);
	if (rand() % 9 == 0)
		world_put_bytes(&world, path, huge, (uint32_t)rand() % 4000);
	else
		world_put(&world, path, rand() % 9 ? values[(unsigned)rand() % ARRAY_LEN(values)] : NULL);
}

static void rubbish(unsigned seconds)
{
	uint64_t end_ns = now_ns() + seconds * NS_PER_S;

	srand(domid);
	connect_ring();
	while (now_ns() < end_ns) {
		for (unsigned i = 0; i < 200; i++) {
			write_rubbish(front_slot(&front, front.asked++), is_32 ? 108 : 112);
			*front_word(&front, 0) = rand() % 50 ? front.asked : (uint32_t)rand();
			if (rand() % 20 == 0)
				*front_word(&front, 4u * ((unsigned)rand() % 4)) = (uint32_t)rand();
			world_notify(&world, domid);
		}
		for (unsigned i = 0; i < 20; i++)
			write_rubbish_key();
		if (rand() % 4 == 0) {
			put(front_dir, "state", "1");
			poll(NULL, 0, 20);
			offer_ring();
			poll(NULL, 0, 20);
			put(front_dir, "state", "4");
		}
	}
	put(front_dir, "state", NULL);
}

/* As if the guest could write to the backend's side, too: the toolstack's keys are changed, and go, and are huge. */
/* With a moment between two, in which others get at the world's lock, too: whoever takes it again at once starves them. */
static void storm(unsigned seconds)
{
	const struct timespec moment = { .tv_nsec = 50000 };
	static const char *const keys[] = { "state", "online", "params", "hotplug-status", "frontend", "mode", "rubbish", "" };
	uint64_t begun_ns = now_ns(), end_ns = begun_ns + seconds * NS_PER_S;
	unsigned long changes = 0;
	static char huge[4000];

	memset(huge, '9', sizeof(huge));
	srand(domid);
	signal(SIGUSR2, on_signal);
	while (now_ns() < end_ns && !must_end) {
		const char *dir = rand() % 2 ? back : front_dir, *key = keys[(unsigned)rand() % ARRAY_LEN(keys)];
		char path[128];

		snprintf(path, sizeof(path), "%.60s%s%.30s", dir, *key ? "/" : "", key);
		if (rand() % 20 == 0)
			plug("w", "nbd:unix:/nowhere");
		else if (*key && rand() % 9 == 0)
			world_put_bytes(&world, path, huge, (uint32_t)rand() % 4000);
		else if (*key || rand() % 20 == 0)
			world_put(&world, path, *key && rand() % 9 ? "1" : NULL);
		changes++;
		nanosleep(&moment, NULL);
	}
	printf("%lu changes, %.0f a second\n", changes, (double)changes * 1e9 / (double)(now_ns() - begun_ns));
}

/* --- by hand */

static const char *directory(const char **key)
{
	const char *dir = **key == 'B' ? back : **key == 'F' ? front_dir : "";

	*key += *dir ? 2 : 1;
	return dir;
}

int main(int argc, char **argv)
{
	const char *dir = getenv("SXM_FAKE_XEN"), *what = argc > 3 ? argv[3] : "", *key = argc > 4 ? argv[4] : "";
	char value[512];

	if (!dir || argc < 4)
		die("usage: see the head of tests/lib/xen-guest.c");
	domid = (unsigned)atoi(argv[1]);
	device = (unsigned)atoi(argv[2]);
	base = domid % 16 * 200 + 1;
	snprintf(back, sizeof(back), "/local/domain/0/backend/qdisk/%u/%u", domid, device);
	snprintf(front_dir, sizeof(front_dir), "/local/domain/%u/device/vbd/%u", domid, device);
	world_open(&world, dir);
	if (strcmp(what, "plug") == 0) {
		plug(*key ? key : "w", argc > 5 ? argv[5] : NULL);
	} else if (strcmp(what, "unplug") == 0) {
		put(front_dir, "", NULL);
		put(back, "", NULL);
	} else if (strcmp(what, "die") == 0) {
		snprintf(value, sizeof(value), WORLD_DEAD "/%u", domid);
		world_put(&world, value, "");
	} else if (strcmp(what, "storm") == 0) {
		storm((unsigned)atoi(key));
	} else if (strcmp(what, "put") == 0 && *key == '/') {
		world_put(&world, key, argc > 5 ? argv[5] : NULL);
	} else if (strcmp(what, "put") == 0 && argc > 4) {
		const char *at = directory(&key);

		put(at, key, argc > 5 ? argv[5] : NULL);
	} else if (strcmp(what, "wait") == 0 && argc > 5) {
		const char *at = directory(&key);

		wait_for(at, key, argv[5]);
	} else if (strcmp(what, "get") == 0 && argc > 4) {
		const char *at = directory(&key);

		if (!(*argv[4] == '/' ? world_get(&world, argv[4], value, sizeof(value)) : get(at, key, value, sizeof(value))))
			return 1;
		puts(value);
	} else if (strcmp(what, "count") == 0) {
		printf("%llu %llu\n", (unsigned long long)world.shared->copies, (unsigned long long)world.shared->mapped);
	} else if (strcmp(what, "run") == 0 && argc > 4) {
		order = argc > 6 ? (unsigned)atoi(argv[6]) : 0;
		is_32 = argc > 7;
		run(strtoul(key, NULL, 10), argc > 5 ? MIN((unsigned)atoi(argv[5]), QUEUE_MAX) : 16);
	} else if (strcmp(what, "rubbish") == 0) {
		rubbish((unsigned)atoi(key));
	} else {
		die("does not know that");
	}
	return 0;
}
