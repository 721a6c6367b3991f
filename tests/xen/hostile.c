/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * hostile - a guest without a driver, that is one itself, and means harm: hostile SECONDS SECTORS
 *
 * By turns: a ring that is offered as it should be, and filled with requests of rubbish; numbers of that ring that
 * make no sense; keys that are missing, huge or no numbers; states in any order, as fast as they can be written; a device that
 * goes away in the middle. Then, as an honest one: it connects, writes to the last of the disk, which has so many sectors, reads
 * that back, and asks for what is past the end: of what is refused it gets no byte.
 * Exit 1: the honest part failed; a sentence says how.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#include "tests/lib/blk-front.h"

#define DIRECTORY "device/vbd/51712"
#define ORDER_MAX 4u
#define PAGES 16u
#define FILL 0xa5
enum { READ, WRITE, FLUSH = 3 };

static struct xs_handle *store;
static xenevtchn_handle *events;
static evtchn_port_t port;
static uint32_t ring_ref[1u << ORDER_MAX], page_ref[PAGES];
static uint8_t *ring, *pages;
static struct front front;
static unsigned order;

static void die(const char *what)
{
	printf("hostile: %s: %s\n", what, strerror(errno));
	exit(1);
}

static unsigned any(unsigned bound)
{
	return (unsigned)random() % bound;
}

/* --- xenstore; what it refuses is its business */

static void put(const char *key, const void *value, unsigned bytes)
{
	char path[64];

	snprintf(path, sizeof(path), DIRECTORY "/%s", key);
	if (value)
		xs_write(store, XBT_NULL, path, value, bytes);
	else
		xs_rm(store, XBT_NULL, path);
}

static void put_number(const char *key, unsigned value)
{
	char text[16];

	put(key, text, (unsigned)snprintf(text, sizeof(text), "%u", value));
}

static unsigned state_there(void)
{
	unsigned bytes, state = 0;
	char path[128], *text, *back = xs_read(store, XBT_NULL, DIRECTORY "/backend", &bytes);

	snprintf(path, sizeof(path), "%.100s/state", back ? back : "");
	free(back);
	text = xs_read(store, XBT_NULL, path, &bytes);
	if (text)
		state = (unsigned)atoi(text);
	free(text);
	return state;
}

static bool wait_for_state(unsigned wanted, unsigned tenths)
{
	while (state_there() != wanted && tenths--)
		poll(NULL, 0, 100);
	return state_there() == wanted;
}

/* --- a ring */

static void offer(void)
{
	char key[16];

	memset(ring, 0, 4096u << ORDER_MAX);
	front_init(&front, ring, order, false);
	put("ring-ref", NULL, 0);
	put_number("ring-page-order", order);
	for (unsigned i = 0; i < 1u << order; i++) {
		snprintf(key, sizeof(key), "ring-ref%u", i);
		put_number(key, ring_ref[i]);
	}
	put_number("event-channel", port);
	put("protocol", "x86_64-abi", 10);
	put_number("state", 3);
}

static void leave(void)
{
	put_number("state", 5);
	put_number("state", 6);
	wait_for_state(6, 30);
}

static bool connect_ring(void)
{
	order = any(ORDER_MAX + 1);
	if (!wait_for_state(2, 50))
		return false;
	offer();
	if (!wait_for_state(4, 50))
		return false;
	put_number("state", 4);
	return true;
}

/* --- harm */

static struct front_request make_rubbish(void)
{
	struct front_request q = {
		.op = (uint8_t)any(8), .segments = (uint8_t)any(14), .id = (uint64_t)random(),
		.sector = any(3) ? any(4096) : UINT64_MAX - any(64), .sectors = (uint64_t)random() << any(32),
	};

	for (unsigned i = 0; i < 11; i++)
		q.segment[i] = (struct front_segment){
			any(3) ? page_ref[any(PAGES)] : (uint32_t)random(), (uint8_t)any(10), (uint8_t)any(10),
		};
	if (any(40) == 0)
		q.segments = (uint8_t)any(256);
	return q;
}

/* Anew, from whatever there is. */
static void begin_again(void)
{
	put_number("state", 6);
	wait_for_state(6, 20);
	put_number("state", 1);
}

static void harm_ring(void)
{
	begin_again();
	if (!connect_ring())
		return;
	for (unsigned i = 0; i < 60; i++) {
		struct front_response answer;

		for (unsigned n = any(front.entries - (front.asked - front.heard) + 1); n--;) {
			struct front_request q = make_rubbish();

			front_put(&front, &q);
		}
		front_push(&front);
		xenevtchn_notify(events, port);
		poll(NULL, 0, 5);
		while (front_take(&front, &answer))
			;
	}
	if (any(2))
		front.asked += (uint32_t)random();
	else
		*front_word(&front, 4 * any(4)) = (uint32_t)random();
	front_push(&front);
	xenevtchn_notify(events, port);
}

static void harm_keys(void)
{
	static const char *const keys[] = { "state", "ring-page-order", "ring-ref", "ring-ref0", "ring-ref1", "event-channel",
					    "protocol" };
	static const char *const values[] = { "1", "3", "4", "5", "6", "4294967295", "4294967296", "-1", "", "x86_32-abi",
					      "../../0", "0x8" };
	static char huge[2000];

	memset(huge, '9', sizeof(huge));
	for (unsigned i = 0; i < 60; i++) {
		const char *key = keys[any(7)], *value = values[any(12)];

		if (any(9) == 0)
			put(key, huge, any(sizeof(huge)));
		else
			put(key, any(9) ? value : NULL, (unsigned)strlen(value));
	}
}

static void harm_states(void)
{
	for (unsigned i = 0; i < 60; i++)
		put_number("state", any(9));
}

static void harm_by_leaving(void)
{
	harm_ring();
	put("state", NULL, 0);
	poll(NULL, 0, 50);
}

/* --- and not */

static int16_t ask(uint8_t op, uint64_t sector, unsigned page)
{
	struct front_request q = front_one(op, 7, sector, page_ref[page], 0, 7);
	struct front_response answer;

	front_put(&front, &q);
	front_push(&front);
	xenevtchn_notify(events, port);
	for (unsigned tenths = 100; !front_take(&front, &answer); tenths--) {
		if (!tenths)
			die("an honest request was not answered");
		poll(NULL, 0, 100);
	}
	return answer.status;
}

static void be_honest(uint64_t sectors)
{
	poll(NULL, 0, 1500); /* questions a second have a bound */
	begin_again();
	if (!wait_for_state(2, 100) || !connect_ring())
		die("an honest device does not come to be connected any more");
	memset(pages, 0x5a, 4096);
	memset(pages + 4096, FILL, 2 * 4096);
	if (ask(WRITE, sectors - 8, 0) != 0 || ask(READ, sectors - 8, 1) != 0 || memcmp(pages, pages + 4096, 4096) != 0)
		die("what was written is not what is read");
	if (ask(READ, sectors, 2) != -1 || ask(WRITE, sectors - 4, 0) != -1)
		die("past the end of the disk");
	for (unsigned i = 0; i < 4096; i++)
		if (pages[2 * 4096 + i] != FILL)
			die("a page was changed by a request that failed");
	leave();
}

int main(int argc, char **argv)
{
	static void (*const harm[])(void) = { harm_ring, harm_keys, harm_ring, harm_states, harm_by_leaving };
	time_t end = time(NULL) + (argc > 2 ? atoi(argv[1]) : 0);
	xengntshr_handle *grants = xengntshr_open(NULL, 0);
	unsigned turns = 0;
	int bound;

	setvbuf(stdout, NULL, _IOLBF, 0);
	store = xs_open(0);
	events = xenevtchn_open(NULL, 0);
	if (!grants || !store || !events)
		die("/dev/xen");
	ring = xengntshr_share_pages(grants, 0, 1u << ORDER_MAX, ring_ref, 1);
	pages = xengntshr_share_pages(grants, 0, PAGES, page_ref, 1);
	bound = xenevtchn_bind_unbound_port(events, 0);
	if (!ring || !pages || bound < 0)
		die("pages and an event channel to share");
	port = (evtchn_port_t)bound;
	srandom((unsigned)time(NULL));
	for (; time(NULL) < end; turns++)
		harm[turns % 5]();
	printf("hostile: %u turns\n", turns);
	be_honest((uint64_t)atoll(argv[2]));
	printf("hostile: and honest\n");
	return 0;
}
