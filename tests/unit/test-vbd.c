/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One device from its keys to its end, over the Xen of fake-xen: what is held for a guest, and what it can make us say. Tests of
 * what once was a vulnerability somewhere are named for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/lib/blk-front.h"
#include "tests/lib/fake-xen.h"
#include "tests/lib/memory-layer.h"
#include "vbd/vbd.h"

#define BACK "/local/domain/0/backend/qdisk/5/51712"
#define FRONT "/local/domain/5/device/vbd/51712"
#define CHANNEL 9u
#define NONE 4000u /* a channel that is none */
#define DATA 100u

static char dir[] = "/tmp/sxm-vbd-XXXXXX";
static struct loop *loop;
static struct world world;
static struct iobuf_pool *pool;
static struct layer *disk;
static struct vbd *vbd;
static struct front front;
static int events;
static bool is_stopped;
static int is_volume_now; /* -1: what is_volume() says, of any */
static unsigned asked, asked_of_it;

/* On a pool thread, while nothing else looks. */
static int is_volume(void *arg, const char *uri, struct error *e)
{
	bool is_it = strcmp(uri, "sxm:///sr/a.raw") == 0;

	(void)arg;
	asked++;
	asked_of_it += is_it;
	return is_volume_now == -1 ? error_set(e, EIO, "not now") : is_it;
}

static void stop_loop(void *arg)
{
	(void)arg;
	loop_stop(loop);
}

static void turn(unsigned ms)
{
	struct loop_timer *t = loop_timer_new(loop, stop_loop, NULL);

	loop_timer_set(t, ms);
	loop_run(loop);
	loop_timer_free(t);
}

static void key(const char *path, const char *value)
{
	world_put(&world, path, value);
}

static char *text_of(const char *path)
{
	static char value[64];

	return world_get(&world, path, value, sizeof(value)) ? value : NULL;
}

static void wait_state(const char *wanted)
{
	for (unsigned i = 0; i < 60000; i++) {
		char *now = text_of(BACK "/state");

		if (now && strcmp(now, wanted) == 0)
			return;
		turn(1);
	}
	fail_msg("the backend's state is not %s, but %s", wanted, text_of(BACK "/state"));
}

static void plug(void)
{
	key(BACK "/frontend", FRONT);
	key(BACK "/frontend-id", "5");
	key(BACK "/online", "1");
	key(BACK "/mode", "w");
	key(BACK "/state", "1");
	key(FRONT "/state", "1");
}

static void offer(unsigned gref, unsigned channel)
{
	char number[16];

	snprintf(number, sizeof(number), "%u", gref);
	key(FRONT "/ring-ref", number);
	snprintf(number, sizeof(number), "%u", channel);
	key(FRONT "/event-channel", number);
	key(FRONT "/protocol", "x86_64-abi");
	key(FRONT "/state", "3");
}

static void connect_guest(void)
{
	wait_state("2");
	front_init(&front, world_page(&world, 1), 0, false);
	offer(1, CHANNEL);
	wait_state("4");
	key(FRONT "/state", "4");
}

static int set_up(void **state)
{
	struct vbd_spec spec = { .backend = BACK, .params = "nbd:unix:/a:exportname=a", .is_volume = is_volume, .is_eager = true };
	char book[64];

	(void)state;
	loop = loop_new();
	req_init(loop);
	assert_non_null(mkdtemp(dir));
	setenv("SXM_FAKE_XEN", dir, 1);
	snprintf(book, sizeof(book), "%s/book", dir);
	world_open(&world, dir);
	events = world_channel(&world, CHANNEL);
	pool = iobuf_pool_new(4 * MiB);
	disk = memory_layer_new(4 * MiB);
	spec.loop = loop;
	spec.top = disk;
	spec.pool = pool;
	spec.book = book;
	vbd = vbd_new(&spec, NULL);
	assert_non_null(vbd);
	return 0;
}

static void on_stopped(void *arg)
{
	(void)arg;
	is_stopped = true;
	loop_stop(loop);
}

static int tear_down(void **state)
{
	char command[64];

	(void)state;
	is_stopped = false;
	vbd_stop(vbd, on_stopped, NULL);
	while (!is_stopped)
		loop_run(loop);
	vbd_free(vbd);
	assert_int_equal(world.shared->mapped, 0);
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

static unsigned count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(d))
		count++;
	closedir(d);
	return count;
}

/* A pool thread may be reading a key just now, here and when it was counted before: who leaks has ever more. */
static void wait_descriptors(unsigned most)
{
	for (unsigned i = 0; i < 60000; i++) {
		if (count_descriptors() <= most)
			return;
		turn(1);
	}
	fail_msg("%u descriptors are open, there were %u", count_descriptors(), most);
}

/* A page, a channel, a whole ring: whatever fails, what succeeded before it is undone, and nothing of it is kept. */
static void xsa_371_a_ring_that_could_not_be_connected_leaves_nothing(void **state)
{
	unsigned descriptors;

	(void)state;
	plug();
	connect_guest();
	key(FRONT "/state", "6");
	wait_state("6");
	descriptors = count_descriptors();
	for (unsigned i = 0; i < 20; i++) {
		key(FRONT "/state", "1");
		wait_state("2");
		offer(i % 2 ? 1 : 3000, i % 2 ? NONE : CHANNEL);
		wait_state("6");
		assert_int_equal(world.shared->mapped, 0);
	}
	wait_descriptors(descriptors);
	key(FRONT "/state", "1");
	connect_guest();
}

/* It never says that it closes: its directory goes, or its device is taken by the toolstack. */
static void cve_2010_3699_a_guest_that_never_closes_is_let_go_of(void **state)
{
	unsigned descriptors = 0;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		plug();
		connect_guest();
		key(BACK "/online", "0");
		if (i % 2)
			key(BACK "/state", "6");
		else
			key(FRONT, NULL);
		for (unsigned n = 0; n < 60000 && world.shared->mapped; n++)
			turn(1);
		assert_int_equal(world.shared->mapped, 0);
		key(FRONT, NULL);
		wait_state("6");
		key(BACK, NULL);
		turn(5);
		if (i)
			wait_descriptors(descriptors);
		else
			descriptors = count_descriptors();
	}
}

static unsigned count_lines(const char *path, const char *with)
{
	FILE *f = fopen(path, "r");
	unsigned lines = 0;
	char line[1024];

	while (fgets(line, sizeof(line), f))
		lines += strstr(line, with) != NULL;
	fclose(f);
	return lines;
}

/* All that a guest can make us say within ten seconds. */
static void xsa_43_157_a_guest_does_not_fill_the_log(void **state)
{
	char path[64];
	int kept = dup(STDERR_FILENO), file;
	uint64_t began_ns = loop_now_ns();
	unsigned lines, windows;

	(void)state;
	snprintf(path, sizeof(path), "%s/log", dir);
	file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(file >= 0 && kept >= 0);
	dup2(file, STDERR_FILENO);
	plug();
	key(BACK "/params", "sxm:///sr/b.raw");
	for (unsigned i = 0; i < 400; i++) {
		if (i == 100)
			key(BACK "/params", NULL);
		if (i % 4 == 0) {
			front_init(&front, world_page(&world, 1), 0, false);
			offer(i % 8 ? 1 : 3000, CHANNEL);
		} else {
			key(FRONT "/state", i % 4 == 1 ? "6" : "1");
		}
		for (unsigned n = 0; front.shared && n < 40; n++) {
			memset(front_slot(&front, front.asked++), 0x5a, 112);
			world_notify(&world, CHANNEL);
		}
		*front_word(&front, 0) = i % 3 ? front.asked : 0x80000000;
		turn(5);
	}
	dup2(kept, STDERR_FILENO);
	close(kept);
	close(file);
	lines = count_lines(path, "\n");
	windows = 1 + (unsigned)((loop_now_ns() - began_ns) / (10 * NS_PER_S));
	assert_in_range(lines, 5, 25 * windows);
	assert_in_range(count_lines(path, "not served: its params name another disk, sxm:///sr/b.raw"), 1, 5 * windows);
}

static void wait_mapped(unsigned wanted)
{
	for (unsigned i = 0; i < 60000 && world.shared->mapped != wanted; i++)
		turn(1);
	assert_int_equal(world.shared->mapped, wanted);
}

/* What names this disk is found out once; when that cannot be told, it is neither served nor let go of for that. */
static void a_volume_of_another_disk_is_not_served(void **state)
{
	(void)state;
	asked_of_it = 0;
	is_volume_now = 0;
	plug();
	key(BACK "/params", "aio:sxm:///sr/a.raw");
	connect_guest();
	key(BACK "/params", "aio:sxm:///sr/b.raw");
	wait_mapped(0);
	key(BACK "/params", "sxm:///sr/a.raw");
	wait_mapped(1);
	assert_int_equal(asked_of_it, 1);
	is_volume_now = -1;
	asked = 0;
	key(BACK "/params", "aio:sxm:///sr/c.raw");
	while (asked < 3)
		turn(1);
	assert_int_equal(world.shared->mapped, 1);
	is_volume_now = 0;
	wait_mapped(0);
}

static int status_of(uint8_t op)
{
	struct front_request q = op == 5 ? (struct front_request){ .op = 5, .id = 1, .sectors = 8 } : front_one(op, 1, 0, DATA, 0, 7);
	struct front_response a = { 0 };

	front_put(&front, &q);
	front_push(&front);
	world_notify(&world, CHANNEL);
	for (unsigned i = 0; i < 60000 && !front_take(&front, &a); i++)
		turn(1);
	assert_int_equal(a.id, 1);
	return a.status;
}

/* The toolstack's word is the guest's limit, and what it is told. */
static void xsa_142_a_device_whose_mode_is_r_is_not_written(void **state)
{
	(void)state;
	memset(world_page(&world, DATA), 7, 4096);
	plug();
	key(BACK "/mode", "r");
	connect_guest();
	assert_string_equal(text_of(BACK "/info"), "4");
	assert_null(text_of(BACK "/feature-discard"));
	assert_int_equal(status_of(1), -1);
	assert_int_equal(status_of(5), -2);
	assert_int_equal(memory_layer_bytes(disk)[0], 0);
	assert_int_equal(status_of(0), 0);
}

static void a_device_whose_toolstack_takes_discards_away_has_none(void **state)
{
	(void)state;
	memset(memory_layer_bytes(disk), 7, 4096);
	plug();
	key(BACK "/discard-enable", "0");
	connect_guest();
	assert_string_equal(text_of(BACK "/info"), "0");
	assert_null(text_of(BACK "/feature-discard"));
	assert_int_equal(status_of(5), -2);
	assert_int_equal(memory_layer_bytes(disk)[0], 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = { /* the first one first: what may be said in ten seconds it has to itself */
		cmocka_unit_test_setup_teardown(xsa_43_157_a_guest_does_not_fill_the_log, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_volume_of_another_disk_is_not_served, set_up, tear_down),
		cmocka_unit_test_setup_teardown(xsa_142_a_device_whose_mode_is_r_is_not_written, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_device_whose_toolstack_takes_discards_away_has_none, set_up, tear_down),
		cmocka_unit_test_setup_teardown(xsa_371_a_ring_that_could_not_be_connected_leaves_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cve_2010_3699_a_guest_that_never_closes_is_let_go_of, set_up, tear_down),
	};

	setenv("SXM_LOG", "stderr", 1);
	log_init("test-vbd");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
