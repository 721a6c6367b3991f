/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a Xen guest asks for over its ring is in the file that xcp-rrdd reads. A disk over fakes, a Xen in a directory.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/proc.h"
#include "tests/lib/blk-front.h"
#include "tests/lib/fake-xen.h"
#include "tests/unit/vdi-rig.h"
#include "vdi/figures.h"

#define VM "5e0b8c3d-0000-4000-8000-00000000000a"
#define OTHER "5e0b8c3d-0000-4000-8000-00000000000b"
#define LEAVING "5e0b8c3d-0000-4000-8000-000000000000"
#define DOMAIN_VM "/local/domain/5/vm"
#define BACK "/local/domain/0/backend/qdisk/5/51712"
#define FRONT "/local/domain/5/device/vbd/51712"
#define CHANNEL 9u
#define DATA 100u

static char dir[64];
static struct world world;
static struct front front;
static int events;

/* --- a guest and its toolstack */

static void key(const char *path, const char *value)
{
	world_put(&world, path, value);
}

static bool has(const char *path, const char *wanted)
{
	char value[64];

	return world_get(&world, path, value, sizeof(value)) && strcmp(value, wanted) == 0;
}

static void plug(void)
{
	key(BACK "/frontend", FRONT);
	key(BACK "/frontend-id", "5");
	key(BACK "/online", "1");
	key(BACK "/mode", "w");
	key(BACK "/dev", "xvda");
	key(BACK "/state", "1");
	key(FRONT "/state", "1");
}

static int serve(void)
{
	struct answer a = { 0 };

	vdi_device(rig_vdi, "5", BACK, true, rig_answer, &a);
	return rig_answered(&a);
}

static void meet(void)
{
	UNTIL(has(BACK "/state", "2"));
	front_init(&front, world_page(&world, 1), 0, false);
	key(FRONT "/ring-ref", "1");
	key(FRONT "/event-channel", "9");
	key(FRONT "/state", "3");
	UNTIL(has(BACK "/state", "4"));
	key(FRONT "/state", "4");
}

static void begin_guest(void)
{
	assert_int_equal(rig_activate("5", false), 0);
	plug();
	assert_int_equal(serve(), 0);
	meet();
}

static void ask(struct front_request q)
{
	struct front_response a;

	front_put(&front, &q);
	if (front_push(&front))
		world_notify(&world, CHANNEL);
	UNTIL(front_take(&front, &a));
	assert_int_equal(a.status, 0);
}

static void work(unsigned reads, unsigned writes)
{
	world_page(&world, DATA);
	for (unsigned i = 0; i < reads + writes; i++)
		ask(front_one(i >= reads, i, i * 8, DATA, 0, 7));
	ask((struct front_request){ .op = 3 }); /* a flush counts with neither */
}

/* --- what xcp-rrdd sees */

enum { READ, WRITE, READ_LATENCY, WRITE_LATENCY, READ_OPS = 7, WRITE_OPS, TOTAL_OPS, IN_FLIGHT = 11 };

static char *path_of_figures(void)
{
	static char path[400];
	DIR *d = opendir(dir);
	unsigned count = 0;

	for (struct dirent *entry; (entry = readdir(d));)
		if (strncmp(entry->d_name, "sxm-", 4) == 0) {
			snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
			count++;
		}
	closedir(d);
	assert_true(count <= 1);
	return count ? path : NULL;
}

/* The file there is, as this VM's and device's. NULL: there is none. */
static char *read_figures(const char *vm, const char *device)
{
	const char *path = path_of_figures();
	char *metadata = figures_metadata(vm, device), *file;
	struct figures_sample totals;
	size_t bytes;

	file = path ? proc_read_file(path, 65536, &bytes, NULL) : NULL;
	if (file && !figures_read((uint8_t *)file, bytes, metadata, &totals)) {
		free(file);
		file = NULL;
	}
	free(metadata);
	return file;
}

static uint64_t value(int which)
{
	char *file = read_figures(VM, "xvda");
	struct bytes_reader r;
	uint64_t is;

	assert_non_null(file);
	r = bytes_reader((uint8_t *)file + 31 + 8 * which, 8);
	is = bytes_get_u64(&r);
	free(file);
	return is;
}

static int say(const char *vm, const char *device)
{
	struct answer a = { 0 };

	vdi_figures(rig_vdi, "5", vm, device, rig_answer, &a);
	return rig_answered(&a);
}

static bool is_of(const char *vm, const char *device)
{
	char *file = read_figures(vm, device);

	free(file);
	return file != NULL;
}

/* Once it is written again, nobody asking. */
static void wait_value(int which, uint64_t wanted)
{
	UNTIL(value(which) == wanted);
}

/* That what the keys say now was read. */
static void until_read(void)
{
	key(BACK "/online", "0");
	key(FRONT "/state", "5");
	UNTIL(has(BACK "/state", "5"));
}

/* --- tests */

static void what_goes_over_a_ring_is_counted(void **state)
{
	(void)state;
	begin_guest();
	assert_int_equal(say(VM, "xvda"), 0);
	work(5, 3);
	assert_int_equal(say(VM, "xvda"), 0);
	assert_true(value(READ) == 5 * 4096 && value(WRITE) == 3 * 4096);
	assert_true(value(READ_OPS) == 5 && value(WRITE_OPS) == 3 && value(TOTAL_OPS) == 8);
	assert_true(value(IN_FLIGHT) == 0 && value(READ_LATENCY) < 5000000 && value(WRITE_LATENCY) < 5000000);
}

/* With the ring its counters go. */
static void what_went_over_a_ring_that_is_gone_stays_counted(void **state)
{
	struct answer a = { 0 };

	(void)state;
	begin_guest();
	assert_int_equal(say(VM, "xvda"), 0);
	work(2, 1);
	vdi_device_drop(rig_vdi, "5", BACK, rig_answer, &a);
	assert_int_equal(rig_answered(&a), 0);
	assert_int_equal(say(VM, "xvda"), 0);
	assert_true(value(READ) == 2 * 4096 && value(WRITE) == 4096 && value(TOTAL_OPS) == 3);
	assert_int_equal(say(VM, "xvda"), 0);
	assert_true(value(READ) == 2 * 4096 && value(WRITE) == 4096 && value(TOTAL_OPS) == 0);
	key(FRONT "/state", "1");
	key(BACK "/state", "1");
	assert_int_equal(serve(), 0);
	meet();
	work(1, 1);
	assert_int_equal(rig_deactivate("5"), 0);
	assert_true(value(READ) == 3 * 4096 && value(WRITE) == 2 * 4096 && value(TOTAL_OPS) == 2);
	assert_int_equal(say(VM, "xvda"), 0);
	assert_true(value(READ) == 3 * 4096 && value(WRITE) == 2 * 4096 && value(TOTAL_OPS) == 0);
	assert_int_equal(rig_detach("5"), 0);
	assert_null(path_of_figures());
}

/* --- ... and nobody says whose they are */

static void whose_they_are_is_in_xenstore(void **state)
{
	(void)state;
	key(DOMAIN_VM, "/vm/" VM);
	begin_guest();
	assert_true(is_of(VM, "xvda"));
	assert_false(rig_is_on_file(VM)); /* a successor reads it there, too */
	work(5, 3);
	wait_value(READ, 5 * 4096);
	assert_true(value(WRITE) == 3 * 4096 && value(TOTAL_OPS) == 8);
	assert_int_equal(rig_deactivate("5"), 0);
	assert_true(value(READ) == 5 * 4096);
	assert_int_equal(rig_detach("5"), 0);
	assert_null(path_of_figures());
}

static void who_was_told_does_not_ask_xenstore(void **state)
{
	(void)state;
	assert_int_equal(rig_activate("5", false), 0);
	assert_int_equal(say(VM, "xvdc"), 0);
	key(DOMAIN_VM, "/vm/" OTHER);
	begin_guest();
	assert_true(is_of(VM, "xvdc") && rig_is_on_file(VM));
	until_read();
	assert_true(is_of(VM, "xvdc"));
}

static void who_is_told_later_believes_that(void **state)
{
	(void)state;
	key(DOMAIN_VM, "/vm/" OTHER);
	begin_guest();
	assert_true(is_of(OTHER, "xvda"));
	work(2, 0);
	assert_int_equal(say(VM, "xvda"), 0);
	assert_true(value(READ) == 2 * 4096 && value(TOTAL_OPS) == 0); /* the past is no news */
	until_read();
	assert_true(is_of(VM, "xvda") && rig_is_on_file(VM));
}

/* The same as xenstore says: it is to stay so. */
static void what_was_found_can_be_told(void **state)
{
	(void)state;
	key(DOMAIN_VM, "/vm/" VM);
	begin_guest();
	assert_int_equal(say(VM, "xvda"), 0);
	assert_true(rig_is_on_file(VM));
	key(DOMAIN_VM, "/vm/" OTHER);
	until_read();
	assert_true(is_of(VM, "xvda"));
}

static void a_guest_does_not_say_whose_they_are(void **state)
{
	(void)state;
	key(DOMAIN_VM, "/vm/" OTHER);
	world_give(&world, DOMAIN_VM);
	begin_guest();
	assert_null(path_of_figures());
	key(DOMAIN_VM, NULL);
	key(DOMAIN_VM, "/vm/" VM); /* the toolstack's own */
	UNTIL(path_of_figures());
	world_give(&world, DOMAIN_VM);
	key(DOMAIN_VM, "/vm/" OTHER);
	until_read();
	assert_true(is_of(VM, "xvda"));
}

/* xapi gives it another uuid meanwhile. */
static void a_vm_that_moves_goes_on_in_its_file(void **state)
{
	struct stat before, after;

	(void)state;
	key(DOMAIN_VM, "/vm/" VM);
	begin_guest();
	assert_int_equal(stat(path_of_figures(), &before), 0);
	key(DOMAIN_VM, "/vm/" LEAVING);
	until_read();
	assert_true(is_of(VM, "xvda"));
	assert_int_equal(rig_deactivate("5"), 0);
	key("/vm/" LEAVING "/origin-uuid", VM);
	begin_guest(); /* as a process finds it that begins now */
	assert_true(is_of(VM, "xvda"));
	assert_int_equal(stat(path_of_figures(), &after), 0);
	assert_true(before.st_ino == after.st_ino);
}

static void a_process_that_begins_while_its_vm_moves_knows_it(void **state)
{
	(void)state;
	key("/vm/" LEAVING "/origin-uuid", VM);
	key(DOMAIN_VM, "/vm/" LEAVING);
	begin_guest();
	assert_true(is_of(VM, "xvda"));
}

static void a_successor_goes_on_in_the_same_file(void **state)
{
	struct stat before, after;

	(void)state;
	key(DOMAIN_VM, "/vm/" VM);
	begin_guest();
	work(2, 1);
	assert_int_equal(stat(path_of_figures(), &before), 0);
	rig_stop();
	rig_begin();
	UNTIL(has(BACK "/state", "4") && world.shared->mapped);
	work(1, 0);
	wait_value(READ, 3 * 4096);
	assert_int_equal(stat(path_of_figures(), &after), 0);
	assert_true(before.st_ino == after.st_ino);
	key(DOMAIN_VM, NULL);
	rig_stop();
	rig_begin(); /* and the next one never hears whose it was */
	assert_int_equal(rig_deactivate("5"), 0);
	assert_int_equal(rig_detach("5"), 0);
	assert_null(path_of_figures());
}

static int set_up(void **state)
{
	snprintf(dir, sizeof(dir), "%s/xen", rig_dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	setenv("SXM_FAKE_XEN", dir, 1);
	setenv("SXM_METRICS_DIR", dir, 1);
	world_open(&world, dir);
	events = world_channel(&world, CHANNEL);
	return rig_set_up(state);
}

static int tear_down(void **state)
{
	char command[100];
	int result = rig_tear_down(state);

	assert_int_equal(world.shared->mapped, 0);
	close(events);
	world_close(&world);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
	return result;
}

#define RING_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RING_TEST(what_goes_over_a_ring_is_counted),
		RING_TEST(what_went_over_a_ring_that_is_gone_stays_counted),
		RING_TEST(whose_they_are_is_in_xenstore),
		RING_TEST(who_was_told_does_not_ask_xenstore),
		RING_TEST(who_is_told_later_believes_that),
		RING_TEST(what_was_found_can_be_told),
		RING_TEST(a_guest_does_not_say_whose_they_are),
		RING_TEST(a_vm_that_moves_goes_on_in_its_file),
		RING_TEST(a_process_that_begins_while_its_vm_moves_knows_it),
		RING_TEST(a_successor_goes_on_in_the_same_file),
	};

	return rig_group("a ring's figures", tests, sizeof(tests) / sizeof(tests[0]));
}
