/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * lane-rig - see lane-rig.h
 */
#include "tests/unit/lane-rig.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RING 1u     /* grefs */

static char dir[] = "/tmp/sxm-lane-XXXXXX";
struct loop *loop;
struct world world;
struct iobuf_pool *pool;
struct layer *disk;
struct ring_book book;
struct vbd_stats stats;
struct xen *xen;
struct front front;
struct lane *lane;
static struct xenbus_ring ring;
static int events;
bool is_read_only, can_discard;

/* A disk that answers when it is told to, and as it is told to. */
struct layer slow;
struct req *held[RING_ENTRIES_MAX];
unsigned held_count, submitted;
bool is_slow;
int disk_err;

static void slow_submit(struct layer *l, struct req *r)
{
	(void)l;
	submitted++;
	if (is_slow)
		held[held_count++] = r;
	else if (disk_err)
		req_complete(r, disk_err);
	else
		layer_forward(disk, r);
}

static const struct layer_ops slow_ops = { "slow", slow_submit, NULL };

static void stop_loop(struct loop_task *t)
{
	(void)t;
	loop_stop(loop);
}

static void on_time(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

void turn(void)
{
	static struct loop_task task = { .run = stop_loop };
	struct loop_timer *t = loop_timer_new(loop, on_time, NULL);

	loop_defer(loop, &task);
	loop_run(loop);
	loop_timer_set(t, 2); /* once round all descriptors and timers */
	loop_run(loop);
	loop_timer_free(t);
}

void begin_lane(void)
{
	const struct lane_spec spec = {
		.loop = loop, .top = &slow, .pool = pool, .ops = xen_ops(), .xen = xen, .book = &book, .ring = &ring, .identity = 7,
		.name = "test", .is_read_only = is_read_only, .can_discard = can_discard, .stats = &stats,
		.shared = xen_ops()->connect(xen, &ring, NULL),
	};

	assert_non_null(spec.shared);
	lane = lane_new(&spec, NULL);
	assert_non_null(lane);
}

bool is_stopped;

void on_stopped(void *arg)
{
	(void)arg;
	is_stopped = true;
	loop_stop(loop);
}

void end_lane(void)
{
	is_stopped = false;
	lane_stop(lane, on_stopped, NULL);
	while (!is_stopped)
		loop_run(loop);
	lane_free(lane);
	lane = NULL;
	xen_ops()->disconnect(xen);
}

void begin_ring(unsigned order, bool is_32)
{
	ring = (struct xenbus_ring){ .order = order, .channel = CHANNEL, .abi = is_32 ? RING_X86_32 : RING_X86_64 };
	for (unsigned i = 0; i < 1u << order; i++) {
		ring.gref[i] = RING + i;
		world_page(&world, RING + i);
	}
	front_init(&front, world_page(&world, RING), order, is_32);
	memset(&book, 0, sizeof(book));
	memset(&stats, 0, sizeof(stats));
	begin_lane();
}

int set_up(void **state)
{
	struct geometry g;

	(void)state;
	loop = loop_new();
	req_init(loop);
	assert_non_null(mkdtemp(dir));
	setenv("SXM_FAKE_XEN", dir, 1);
	world_open(&world, dir);
	events = world_channel(&world, CHANNEL);
	xen = xen_ops()->open(5, NULL);
	pool = iobuf_pool_new(8 * MiB);
	disk = memory_layer_new(DISK_BYTES);
	g = disk->geometry;
	layer_init(&slow, &slow_ops, disk, &g);
	held_count = submitted = 0;
	is_slow = is_read_only = false;
	can_discard = true;
	disk_err = 0;
	begin_ring(0, false);
	return 0;
}

int tear_down(void **state)
{
	char command[64];

	(void)state;
	if (lane)
		end_lane();
	xen_ops()->close(xen);
	layer_close(disk);
	iobuf_pool_free(pool);
	close(events);
	world_close(&world);
	req_fini();
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
	memcpy(strchr(dir, '\0') - 6, "XXXXXX", 6);
	return 0;
}

void push(void)
{
	if (front_push(&front))
		world_notify(&world, CHANNEL);
}

bool was_notified(void)
{
	char bytes[64];
	bool was = false;

	while (read(events, bytes, sizeof(bytes)) > 0)
		was = true;
	return was;
}

void ask(struct front_request q)
{
	front_put(&front, &q);
	push();
}

/* The one answer that is there. */
int answered(uint64_t id)
{
	struct front_response a = { 0 };

	for (unsigned i = 0; i < 200 && !front_take(&front, &a); i++)
		turn();
	assert_int_equal(a.id, id);
	assert_false(front_take(&front, &a));
	return a.status;
}

int done(struct front_request q)
{
	ask(q);
	return answered(q.id);
}
