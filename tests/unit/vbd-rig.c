/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * vbd-rig - see vbd-rig.h
 */
#include "tests/unit/vbd-rig.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISK_BYTES (4 * MiB)

char dir[] = "/tmp/sxm-vbd-XXXXXX";
struct loop *loop;
struct world world;
struct layer *disk;
struct front front;
struct layer top;
struct req *held;
bool is_slow;
int disk_err;
unsigned submitted;
struct vbd *vbd;
struct vbd_spec spec;
bool is_stopped;
int is_volume_now;
unsigned asked, asked_of_it;
static bool is_stopping;
static char book[64];
static struct iobuf_pool *pool;
static int events;

/* --- the disk */

static void top_submit(struct layer *l UNUSED, struct req *r)
{
	submitted++;
	if (is_slow)
		held = r;
	else if (disk_err)
		req_complete(r, disk_err);
	else
		layer_forward(disk, r);
}

static const struct layer_ops top_ops = { "top", top_submit, NULL };

/* On a pool thread, while nothing else looks. */
static int is_volume(void *arg, const char *uri, struct error *e)
{
	bool is_it = strcmp(uri, "sxm:///sr/a.raw") == 0 && arg == &spec;

	asked++;
	asked_of_it += is_it;
	return is_volume_now == -1 ? error_set(e, EIO, "not now") : is_it;
}

/* --- time */

static void stop_loop(void *arg UNUSED)
{
	loop_stop(loop);
}

void turn(unsigned ms)
{
	struct loop_timer *t = loop_timer_new(loop, stop_loop, NULL);

	loop_timer_set(t, ms);
	loop_run(loop);
	loop_timer_free(t);
}

/* --- the store */

void key(const char *path, const char *value)
{
	world_put(&world, path, value);
}

char *text_of(const char *path)
{
	static char value[200];

	return world_get(&world, path, value, sizeof(value)) ? value : NULL;
}

void wait_text(const char *path, const char *wanted)
{
	for (unsigned i = 0; i < 60000; i++) {
		char *now = text_of(path);

		if (now && strcmp(now, wanted) == 0)
			return;
		turn(1);
	}
	fail_msg("%s is not %s, but %s", path, wanted, text_of(path));
}

void wait_state(const char *wanted)
{
	wait_text(BACK "/state", wanted);
}

void wait_mapped(unsigned wanted)
{
	for (unsigned i = 0; i < 60000 && world.shared->mapped != wanted; i++)
		turn(1);
	assert_int_equal(world.shared->mapped, wanted);
}

void plug(void)
{
	key(BACK "/frontend", FRONT);
	key(BACK "/frontend-id", "5");
	key(BACK "/online", "1");
	key(BACK "/mode", "w");
	key(BACK "/dev", "xvda");
	key(VM, "/vm/" UUID);
	key(BACK "/state", "1");
	key(FRONT "/state", "1");
}

void offer(unsigned gref, unsigned channel)
{
	char number[16];

	snprintf(number, sizeof(number), "%u", gref);
	key(FRONT "/ring-ref", number);
	snprintf(number, sizeof(number), "%u", channel);
	key(FRONT "/event-channel", number);
	key(FRONT "/protocol", "x86_64-abi");
	key(FRONT "/state", "3");
}

void connect_guest(void)
{
	wait_state("2");
	front_init(&front, world_page(&world, 1), 0, false);
	offer(1, CHANNEL);
	wait_state("4");
	key(FRONT "/state", "4");
}

unsigned count_lines(const char *path, const char *with)
{
	FILE *f = fopen(path, "r");
	unsigned lines = 0;
	char line[1024];

	while (fgets(line, sizeof(line), f))
		lines += strstr(line, with) != NULL;
	fclose(f);
	return lines;
}

void wait_line(const char *path, const char *with)
{
	for (unsigned i = 0; i < 60000 && !count_lines(path, with); i++)
		turn(1);
	assert_true(count_lines(path, with));
}

unsigned count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(d))
		count++;
	closedir(d);
	return count;
}

/* A pool thread may be reading a key just now, here and when it was counted before: who leaks has ever more. */
void wait_descriptors(unsigned most)
{
	for (unsigned i = 0; i < 60000; i++) {
		if (count_descriptors() <= most)
			return;
		turn(1);
	}
	fail_msg("%u descriptors are open, there were %u", count_descriptors(), most);
}

bool is_book_mapped(void)
{
	return count_lines("/proc/self/maps", spec.book) != 0;
}

/* --- the ring */

void ask(uint8_t op, uint64_t id)
{
	struct front_request q = op == 5 ? (struct front_request){ .op = 5, .id = id, .sectors = 8 } :
					   front_one(op, id, 0, DATA, 0, 7);

	front_put(&front, &q);
	front_push(&front);
	world_notify(&world, CHANNEL);
}

int answer(uint64_t id)
{
	struct front_response a = { 0 };

	for (unsigned i = 0; i < 60000 && !front_take(&front, &a); i++)
		turn(1);
	assert_int_equal(a.id, id);
	return a.status;
}

int status_of(uint8_t op)
{
	ask(op, 1);
	return answer(1);
}

/* --- its life */

void begin_vbd(void)
{
	is_stopping = is_stopped = false;
	vbd = vbd_new(&spec, NULL);
	assert_non_null(vbd);
}

static void on_stopped(void *arg UNUSED)
{
	is_stopped = true;
	loop_stop(loop);
}

void stop_vbd(void)
{
	is_stopping = true;
	vbd_stop(vbd, on_stopped, NULL);
}

void end_vbd(void)
{
	if (!is_stopping)
		stop_vbd();
	while (!is_stopped)
		loop_run(loop);
	vbd_free(vbd);
	assert_int_equal(world.shared->mapped, 0);
}

int set_up(void **state UNUSED)
{
	struct geometry g;

	loop = loop_new();
	req_init(loop);
	assert_non_null(mkdtemp(dir));
	setenv("SXM_FAKE_XEN", dir, 1);
	snprintf(book, sizeof(book), "%s/book", dir);
	world_open(&world, dir);
	events = world_channel(&world, CHANNEL);
	memset(world_page(&world, DATA), 7, 4096);
	pool = iobuf_pool_new(4 * MiB);
	disk = memory_layer_new(DISK_BYTES);
	g = disk->geometry;
	layer_init(&top, &top_ops, disk, &g);
	is_slow = false;
	disk_err = is_volume_now = 0;
	held = NULL;
	submitted = asked = asked_of_it = 0;
	spec = (struct vbd_spec){ .loop = loop, .top = &top, .pool = pool, .backend = BACK, .book = book, .is_volume = is_volume,
				  .arg = &spec, .params = "nbd:unix:/a:exportname=a", .is_eager = true };
	begin_vbd();
	return 0;
}

int tear_down(void **state UNUSED)
{
	char command[64];

	end_vbd();
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
