/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What a guest is told of its disk, what is waited for and what is not, and what outlives a stop: over the Xen of fake-xen.
 */
#include "tests/unit/vbd-rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define ERROR "/local/domain/0/error/backend/qdisk/5/51712/error"

/* Of each kind as much as may be said in ten seconds, so it comes first. What was not done is not said to have been. */
static void why_nothing_happens_is_said_in_the_log(void **state UNUSED)
{
	char path[64];
	int kept = dup(STDERR_FILENO), file;

	snprintf(path, sizeof(path), "%s/log", dir);
	file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(file >= 0 && kept >= 0);
	dup2(file, STDERR_FILENO);
	end_vbd();
	unsetenv("SXM_FAKE_XEN");
	begin_vbd();
	wait_line(path, BACK ": not open yet: SXM_FAKE_XEN is not set");
	setenv("SXM_FAKE_XEN", dir, 1);
	key(WORLD_SICK, "read");
	wait_line(path, BACK ": not read: the store is sick");
	key(WORLD_SICK, "write");
	plug();
	wait_line(path, BACK ": xenstore: write: No space left on device");
	assert_int_equal(count_lines(path, "state 2"), 0);
	key(WORLD_SICK, NULL);
	wait_line(path, "state 2");
	offer(3000, CHANNEL);
	wait_state("6");
	assert_int_equal(count_lines(path, BACK ": connect: a page of the ring is not granted"), 1);
	dup2(kept, STDERR_FILENO);
	close(kept);
	close(file);
}

static void plug_one_with(uint32_t block_bytes)
{
	key(FRONT, NULL);
	key(BACK, NULL);
	turn(5);
	top.geometry.block_bytes = block_bytes;
	plug();
	wait_state("2");
}

static void is_said(const char *name, const char *wanted)
{
	char path[100], *now;

	snprintf(path, sizeof(path), BACK "/%s", name);
	now = text_of(path);
	if (wanted ? !now || strcmp(now, wanted) != 0 : now != NULL)
		fail_msg("%s is %s", name, now ? now : "not there");
}

/* Some look at it before they offer a ring, to see whether they can use it. */
static void a_guest_is_told_its_disk_before_it_offers_a_ring(void **state UNUSED)
{
	plug_one_with(4096);
	is_said("sectors", "8192");
	is_said("sector-size", "512");
	is_said("physical-sector-size", "4096");
	is_said("info", "0");
	is_said("feature-flush-cache", "1");
	is_said("max-ring-page-order", "4");
	is_said("feature-max-indirect-segments", "32");
	is_said("feature-discard", "1");
	is_said("discard-granularity", "4096");
	is_said("discard-alignment", "0");
	is_said("discard-secure", "0");
	plug_one_with(1); /* a file can be written by bytes; a guest cannot */
	is_said("physical-sector-size", "512");
	is_said("discard-granularity", "512");
	top.geometry.can_trim = false;
	plug_one_with(512);
	is_said("feature-discard", NULL);
}

static void a_guest_is_told_when_its_disk_has_grown(void **state UNUSED)
{
	top.geometry.size_bytes = 2 * MiB;
	plug();
	wait_state("2");
	assert_false(vbd_is_connected(vbd));
	connect_guest();
	wait_text(BACK "/sectors", "4096");
	turn(50); /* it has nothing more to read */
	top.geometry.size_bytes = 4 * MiB;
	vbd_resized(vbd);
	wait_text(BACK "/sectors", "8192");
	assert_string_equal(text_of(BACK "/state"), "4");
	assert_int_equal(status_of(1), 0);
	assert_int_equal(memory_layer_bytes(disk)[0], 7);
	assert_int_equal(status_of(5), 0);
	assert_int_equal(memory_layer_bytes(disk)[0], 0);
}

/* Whoever says so: the process' arguments, the toolstack, or the disk itself. */
static void a_disk_that_anybody_calls_read_only_is_not_written(void **state UNUSED)
{
	for (unsigned who = 0; who < 3; who++) {
		end_vbd();
		key(FRONT, NULL);
		key(BACK, NULL);
		spec.is_read_only = who == 0;
		top.geometry.is_read_only = who == 2;
		begin_vbd();
		plug();
		key(BACK "/mode", who == 1 ? "r" : "w");
		connect_guest();
		is_said("info", "4");
		is_said("feature-discard", NULL);
		assert_int_equal(status_of(1), -1);
		assert_int_equal(status_of(5), -2);
		assert_int_equal(submitted, who);
		assert_int_equal(status_of(0), 0);
	}
}

static char vm_told[64], device_told[64];

static void on_whose(void *arg, const char *vm, const char *device)
{
	assert_ptr_equal(arg, &spec);
	snprintf(vm_told, sizeof(vm_told), "%s", vm);
	snprintf(device_told, sizeof(device_told), "%s", device);
}

static void close_and_come_again(void)
{
	key(FRONT "/state", "6");
	wait_state("6");
	key(FRONT "/state", "1");
	connect_guest();
}

/* What a guest may have said, what is too long to be a device's name, and what stands beside another's disk, says nothing. */
static void whose_the_disk_is_is_told_where_only_the_toolstack_can_have_said_it(void **state UNUSED)
{
	char longer[XENBUS_VALUE_MAX + 8];
	unsigned before;

	end_vbd();
	spec.on_whose = on_whose;
	begin_vbd();
	plug();
	connect_guest();
	assert_string_equal(vm_told, UUID);
	assert_string_equal(device_told, "xvda");
	key(BACK "/params", "sxm:///sr/b.raw");
	wait_mapped(0);
	for (before = asked; asked < before + 3; turn(1))
		key(BACK "/dev", "xvdb");
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	key(BACK "/dev", longer);
	key(BACK "/params", NULL);
	close_and_come_again();
	world_give(&world, VM);
	key(BACK "/dev", "xvdb");
	close_and_come_again();
	assert_string_equal(device_told, "xvda");
	key(VM, NULL);
	key(VM, "/vm/" UUID);
	close_and_come_again();
	assert_string_equal(device_told, "xvdb");
}

/* Nobody can be asked whether it is this one. */
static void a_volume_is_not_served_by_who_knows_no_volumes(void **state UNUSED)
{
	end_vbd();
	spec.is_volume = NULL;
	begin_vbd();
	plug();
	connect_guest();
	key(BACK "/params", "sxm:///sr/a.raw");
	wait_mapped(0);
}

static void who_is_not_eager_waits_for_the_hotplug_script_and_takes_its_mark_away(void **state UNUSED)
{
	end_vbd();
	spec.is_eager = false;
	begin_vbd();
	plug();
	turn(20);
	assert_string_equal(text_of(BACK "/state"), "1");
	key(BACK "/hotplug-status", "connected");
	connect_guest();
	key(FRONT, NULL);
	wait_state("6");
	assert_null(text_of(BACK "/hotplug-status"));
}

static void why_a_ring_is_refused_is_told_where_its_user_looks(void **state UNUSED)
{
	plug();
	wait_state("2");
	offer(3000, CHANNEL);
	wait_state("6");
	assert_string_equal(text_of(ERROR), "a page of the ring is not granted");
}

/* A link in its place would have another file written. */
static void without_its_book_a_ring_is_not_served(void **state UNUSED)
{
	char other[64];

	snprintf(other, sizeof(other), "%s/other", dir);
	assert_int_equal(symlink(other, spec.book), 0);
	plug();
	wait_state("2");
	front_init(&front, world_page(&world, 1), 0, false);
	offer(1, CHANNEL);
	wait_state("6");
	assert_non_null(strstr(text_of(ERROR), spec.book));
	assert_int_equal(access(other, F_OK), -1);
	assert_int_equal(unlink(spec.book), 0);
	key(FRONT "/state", "1");
	connect_guest();
}

static bool is_book_there(void)
{
	struct stat st;

	if (stat(spec.book, &st) == -1)
		return false;
	assert_int_equal(st.st_mode & 07777, 0600);
	return true;
}

static void what_is_known_of_a_ring_goes_with_the_ring_and_stays_for_a_successor(void **state UNUSED)
{
	plug();
	connect_guest();
	assert_true(is_book_there());
	end_vbd();
	assert_true(is_book_there());
	assert_string_equal(text_of(BACK "/state"), "4");
	begin_vbd();
	wait_mapped(1);
	key(FRONT "/state", "6");
	wait_state("6");
	assert_false(is_book_there() || is_book_mapped());
}

/* A store into it may not fail: a full tmpfs would end the process. */
static void there_is_room_for_the_whole_book_before_a_ring_is_served(void **state UNUSED)
{
	const char *old = spec.book;
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/dev/shm/sxm-vbd-%d", (int)getpid());
	end_vbd();
	spec.book = path;
	begin_vbd();
	plug();
	connect_guest();
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size == sizeof(struct ring_book) && st.st_blocks * 512 >= st.st_size);
	end_vbd();
	assert_int_equal(unlink(path), 0);
	spec.book = old;
	begin_vbd();
}

/* Taken, and not answered: as of a killed process. */
static void leave_one_behind(void)
{
	plug();
	connect_guest();
	disk_err = ESHUTDOWN;
	ask(1, 7);
	while (!submitted)
		turn(1);
	end_vbd();
	disk_err = 0;
}

static unsigned left(void)
{
	struct vbd_stats stats;

	vbd_stats(vbd, &stats);
	return (unsigned)stats.left;
}

static void a_successor_does_what_was_left(void **state UNUSED)
{
	struct vbd_stats stats;

	leave_one_behind();
	assert_string_equal(text_of(BACK "/state"), "4");
	begin_vbd();
	assert_false(vbd_is_connected(vbd));
	assert_int_equal(answer(7), 0);
	assert_true(vbd_is_connected(vbd));
	assert_int_equal(memory_layer_bytes(disk)[0], 7);
	assert_int_equal(left(), 1);
	vbd_stats(vbd, &stats);
	assert_int_equal(stats.writes, 1);
}

static void a_guest_that_begins_anew_is_not_done_what_it_had_asked_before(void **state UNUSED)
{
	leave_one_behind();
	key(FRONT "/state", "1");
	begin_vbd();
	connect_guest();
	assert_int_equal(status_of(0), 0);
	assert_int_equal(left(), 0);
	assert_int_equal(memory_layer_bytes(disk)[0], 0);
}

/* What it shows of the answers is not what it was answered. */
static void a_guest_that_lies_to_the_successor_is_closed_and_may_begin_anew(void **state UNUSED)
{
	leave_one_behind();
	*front_word(&front, 8) = 0x12345678;
	begin_vbd();
	wait_state("6");
	assert_string_equal(text_of(ERROR), "the ring contradicts what was answered over it");
	assert_int_equal(world.shared->mapped, 0);
	assert_false(is_book_mapped());
	key(FRONT "/state", "1");
	connect_guest();
	assert_int_equal(status_of(0), 0);
}

static void put_below(const char *directory, const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	key(path, value);
}

/* At work, as if under an earlier process. */
static void make_connected(const char *back, const char *front_directory, const char *domain, const char *gref)
{
	front_init(&front, world_page(&world, (uint32_t)atoi(gref)), 0, false);
	put_below(front_directory, "ring-ref", gref);
	put_below(front_directory, "event-channel", "9");
	put_below(front_directory, "state", "4");
	put_below(back, "frontend-id", domain);
	put_below(back, "online", "1");
	put_below(back, "mode", "w");
	put_below(back, "state", "4");
	put_below(back, "frontend", front_directory);
}

static void what_was_left_of_another_ring_guest_or_device_is_not_done(void **state UNUSED)
{
	static const char *const other[][4] = {
		{ BACK, FRONT, "5", "2" },
		{ "/local/domain/0/backend/qdisk/6/51712", "/local/domain/6/device/vbd/51712", "6", "1" },
		{ "/local/domain/0/backend/qdisk/5/51728", "/local/domain/5/device/vbd/51728", "5", "1" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(other); i++) {
		submitted = 0;
		leave_one_behind();
		make_connected(other[i][0], other[i][1], other[i][2], other[i][3]);
		spec.backend = other[i][0];
		begin_vbd();
		wait_mapped(1);
		assert_int_equal(status_of(0), 0);
		assert_int_equal(left(), 0);
		end_vbd();
		spec.backend = BACK;
		key(FRONT, NULL);
		key(BACK, NULL);
		begin_vbd();
	}
	assert_int_equal(memory_layer_bytes(disk)[0], 0);
}

static void hold_one(void)
{
	plug();
	connect_guest();
	is_slow = true;
	ask(1, 7);
	while (!held)
		turn(1);
}

static void release(void)
{
	is_slow = false;
	layer_forward(disk, held);
}

/* Its memory may be another's as soon as it hears that we have closed. */
static void a_guest_that_closes_hears_so_when_what_it_asked_for_has_ended(void **state UNUSED)
{
	hold_one();
	key(FRONT "/state", "5");
	turn(20);
	assert_int_equal(world.shared->mapped, 1);
	assert_string_equal(text_of(BACK "/state"), "4");
	release();
	wait_state("5");
	assert_int_equal(world.shared->mapped, 0);
	assert_int_equal(answer(7), 0);
}

static void who_stops_a_vbd_hears_so_when_what_was_taken_has_ended(void **state UNUSED)
{
	hold_one();
	stop_vbd();
	turn(20);
	assert_false(is_stopped);
	assert_int_equal(world.shared->mapped, 1);
	release();
	end_vbd();
	assert_int_equal(answer(7), 0);
	assert_string_equal(text_of(BACK "/state"), "4");
	begin_vbd();
}

static void what_a_vbd_had_opened_is_closed_after_it(void **state UNUSED)
{
	unsigned descriptors;

	plug();
	connect_guest();
	descriptors = count_descriptors();
	for (unsigned i = 0; i < 5; i++) {
		end_vbd();
		begin_vbd();
		wait_mapped(1);
	}
	wait_descriptors(descriptors);
}

static void resize_now(struct loop_task *t UNUSED)
{
	vbd_resized(vbd);
}

/* In the very turn in which a pool thread was given the work. */
static void who_opens_or_closes_or_is_over_does_nothing_else(void **state UNUSED)
{
	static struct loop_task task = { .run = resize_now };

	end_vbd();
	begin_vbd();
	loop_defer(loop, &task);
	plug();
	wait_state("2");
	stop_vbd();
	loop_defer(loop, &task);
	while (!is_stopped)
		turn(1);
	vbd_resized(vbd); /* it is over: nothing comes of it */
	turn(5);
	vbd_resized(vbd);
	end_vbd();
	begin_vbd();
	connect_guest();
}

static void a_xen_that_is_not_there_yet_is_tried_again_each_second(void **state UNUSED)
{
	uint64_t began_ns = loop_now_ns();

	end_vbd();
	unsetenv("SXM_FAKE_XEN");
	begin_vbd();
	turn(50);
	end_vbd(); /* who is asked to stop meanwhile, does */
	begin_vbd();
	turn(50);
	setenv("SXM_FAKE_XEN", dir, 1);
	plug();
	connect_guest();
	assert_in_range(loop_now_ns() - began_ns, NS_PER_S / 2, 30 * NS_PER_S);
}

/* What was opened before it failed is closed, and opened anew. */
static void a_store_that_is_not_there_yet_is_tried_again(void **state UNUSED)
{
	char path[100];
	unsigned descriptors;

	plug();
	connect_guest();
	descriptors = count_descriptors();
	end_vbd();
	snprintf(path, sizeof(path), "%s/store.5.51712.%d", dir, (int)getpid());
	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	begin_vbd();
	turn(50);
	assert_int_equal(rmdir(path), 0);
	wait_mapped(1);
	wait_descriptors(descriptors);
}

static void a_store_that_cannot_be_read_for_a_while_costs_nobody_its_ring(void **state UNUSED)
{
	plug();
	connect_guest();
	key(WORLD_SICK, "read");
	turn(50);
	assert_int_equal(status_of(1), 0);
	key(FRONT "/state", "6");
	turn(50);
	assert_string_equal(text_of(BACK "/state"), "4");
	key(WORLD_SICK, NULL);
	wait_state("6");
}

static unsigned turns;

static void count_turn(struct loop_hook *h UNUSED)
{
	turns++;
}

/* ... and until then the process sleeps. */
static void what_a_store_has_no_room_for_is_said_later(void **state UNUSED)
{
	struct loop_hook hook = { .run = count_turn };

	top.geometry.size_bytes = 2 * MiB;
	key(WORLD_SICK, "write");
	plug();
	turn(50);
	turns = 0;
	loop_hook_add(loop, &hook);
	turn(50);
	loop_hook_remove(loop, &hook);
	assert_in_range(turns, 1, 20);
	assert_string_equal(text_of(BACK "/state"), "1");
	key(WORLD_SICK, NULL);
	connect_guest();
	key(WORLD_SICK, "write");
	top.geometry.size_bytes = 4 * MiB;
	vbd_resized(vbd);
	turn(50);
	is_said("sectors", "4096");
	key(WORLD_SICK, NULL);
	wait_text(BACK "/sectors", "8192");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VBD_TEST(why_nothing_happens_is_said_in_the_log),
		VBD_TEST(a_guest_is_told_its_disk_before_it_offers_a_ring), VBD_TEST(a_guest_is_told_when_its_disk_has_grown),
		VBD_TEST(a_disk_that_anybody_calls_read_only_is_not_written),
		VBD_TEST(whose_the_disk_is_is_told_where_only_the_toolstack_can_have_said_it),
		VBD_TEST(a_volume_is_not_served_by_who_knows_no_volumes),
		VBD_TEST(who_is_not_eager_waits_for_the_hotplug_script_and_takes_its_mark_away),
		VBD_TEST(why_a_ring_is_refused_is_told_where_its_user_looks), VBD_TEST(without_its_book_a_ring_is_not_served),
		VBD_TEST(what_is_known_of_a_ring_goes_with_the_ring_and_stays_for_a_successor),
		VBD_TEST(there_is_room_for_the_whole_book_before_a_ring_is_served),
		VBD_TEST(a_successor_does_what_was_left),
		VBD_TEST(a_guest_that_begins_anew_is_not_done_what_it_had_asked_before),
		VBD_TEST(a_guest_that_lies_to_the_successor_is_closed_and_may_begin_anew),
		VBD_TEST(what_was_left_of_another_ring_guest_or_device_is_not_done),
		VBD_TEST(a_guest_that_closes_hears_so_when_what_it_asked_for_has_ended),
		VBD_TEST(who_stops_a_vbd_hears_so_when_what_was_taken_has_ended),
		VBD_TEST(what_a_vbd_had_opened_is_closed_after_it),
		VBD_TEST(who_opens_or_closes_or_is_over_does_nothing_else),
		VBD_TEST(a_xen_that_is_not_there_yet_is_tried_again_each_second),
		VBD_TEST(a_store_that_is_not_there_yet_is_tried_again),
		VBD_TEST(a_store_that_cannot_be_read_for_a_while_costs_nobody_its_ring),
		VBD_TEST(what_a_store_has_no_room_for_is_said_later),
	};

	setenv("SXM_LOG", "stderr", 1);
	log_init("test-vbd-life");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
