/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One device from its keys to its end, over the Xen of fake-xen: what is held for a guest, and what it can make us say. Tests of
 * what once was a vulnerability somewhere are named for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/unit/vbd-rig.h"

#define NONE 4000u /* a channel that is none */

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
		assert_false(is_book_mapped());
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
	wait_state("2");
	assert_int_equal(count_lines(path, "not served"), 0);
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

/* What names this disk is found out once; when that cannot be told, it is neither served nor let go of for that. */
static void a_volume_of_another_disk_is_not_served(void **state)
{
	(void)state;
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

/* The toolstack's word is the guest's limit, and what it is told. */
static void xsa_142_a_device_whose_mode_is_r_is_not_written(void **state)
{
	(void)state;
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

static void what_is_no_backends_directory_is_refused_with_its_name(void **state)
{
	struct vbd_spec other = spec;
	struct error e = { 0 };

	(void)state;
	other.backend = "/local/domain/0/backend/qdisk/5/xvda";
	assert_null(vbd_new(&other, &e));
	assert_int_equal(e.err, EINVAL);
	assert_non_null(strstr(e.text, other.backend));
}

int main(void)
{
	const struct CMUnitTest tests[] = { /* the first one first: what may be said in ten seconds it has to itself */
		VBD_TEST(xsa_43_157_a_guest_does_not_fill_the_log),
		VBD_TEST(a_volume_of_another_disk_is_not_served),
		VBD_TEST(xsa_142_a_device_whose_mode_is_r_is_not_written),
		VBD_TEST(a_device_whose_toolstack_takes_discards_away_has_none),
		VBD_TEST(xsa_371_a_ring_that_could_not_be_connected_leaves_nothing),
		VBD_TEST(cve_2010_3699_a_guest_that_never_closes_is_let_go_of),
		VBD_TEST(what_is_no_backends_directory_is_refused_with_its_name),
	};

	setenv("SXM_LOG", "stderr", 1);
	log_init("test-vbd");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
