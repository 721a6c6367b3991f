/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What the map costs, and that a full tmpfs is an answer and not a signal.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/persist-rig.h"

#define SIZE (2 * TiB)
#define REGIONS (SIZE / PERSIST_REGION_BYTES)

static struct persist_rig rig;

static int setup(void **state)
{
	(void)state;
	rig_start(&rig, SIZE);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rig_stop(&rig);
	return 0;
}

static uint64_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	unsigned long long all, resident;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu %llu", &all, &resident), 2);
	fclose(f);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t map_bytes(void)
{
	struct stat st;

	assert_int_equal(stat(rig.map, &st), 0);
	assert_true((uint64_t)st.st_size > 2 * SIZE / PERSIST_CHUNK_BYTES / 8);
	return (uint64_t)st.st_blocks * 512;
}

static void ignore(void *arg, struct range r)
{
	uint64_t *told = arg;

	*told += range_length(r);
}

static void a_disk_nobody_writes_to_costs_nothing(void **state)
{
	struct persist_found found;
	uint64_t before = resident_bytes(), told = 0;

	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	rig_mark(&rig, 77777, 1);
	rig_reopen(&rig, &found);
	assert_true(found.has_map && found.has_marks);
	assert_int_equal(persist_each_owing(rig.p, PERSIST_OWING | PERSIST_UNFLUSHED, ignore, &told), 0);
	assert_int_equal(told, 0);
	assert_true(map_bytes() <= 80 * KiB);
	assert_true(resident_bytes() - before < 8 * MiB); /* of 128; sanitizers take some */
}

static void all_of_a_large_disk_is_marked_at_once(void **state)
{
	struct persist_found found;
	uint64_t told = 0;

	(void)state;
	rig_new(&rig);
	persist_vouch(rig.p);
	rig_mark(&rig, 0, REGIONS);
	memset(persist_owing(rig.p), 0xff, SIZE / PERSIST_CHUNK_BYTES / 8);
	rig_reopen(&rig, &found);
	assert_int_equal(persist_each_owing(rig.p, PERSIST_OWING, ignore, &told), 0);
	assert_int_equal(told, SIZE);
	memset(persist_owing(rig.p), 0, SIZE / PERSIST_CHUNK_BYTES / 8);
	for (uint64_t r = 0; r < REGIONS; r++)
		persist_retire(rig.p, r);
	rig_mark(&rig, 5, 1);
	assert_true(map_bytes() <= 80 * KiB);
}

/* The rig's directory becomes a tmpfs with so much room, for this process alone. False: we may not mount. */
static bool shrink(const char *size)
{
	char options[64];

	snprintf(options, sizeof(options), "size=%s,mode=0700", size);
	return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("none", rig.dir, "tmpfs", 0, options) == 0;
}

static void a_full_tmpfs_is_no_map_and_no_signal(void **state)
{
	struct persist_found found;
	struct try t;
	uint64_t told = 0, mapped = 0, fallen = 0;

	(void)state;
	if (!shrink("160k")) /* what is fixed takes 56, the marks 32 */
		skip();
	rig_new(&rig);
	persist_vouch(rig.p);
	for (uint64_t r = 0; r < 80; r += 8) {
		try_mark(&rig, &t, r, 1);
		rig_run(&rig);
		assert_int_equal(t.err, 0);
		assert_int_equal(persist_has_map(rig.p, r), t.has_map);
		if (!t.has_map) {
			fallen++;
			continue;
		}
		mapped++;
		for (unsigned i = 0; i < 64; i++)
			persist_owing(rig.p)[r * 64 + i] = persist_unflushed(rig.p)[r * 64 + i] = UINT64_MAX;
	}
	assert_true(mapped > 0 && fallen > 0);
	rig_close(&rig, PERSIST_KEEP);
	rig.spec.marks_path = "/tmp/sxm-persist-marks.tmp"; /* there is no room to make them anew */
	rig_reopen(&rig, &found);
	assert_true(found.has_map && found.is_same_boot);
	assert_int_equal(persist_each_owing(rig.p, PERSIST_OWING, ignore, &told), 0);
	assert_int_equal(told, (mapped + fallen) * PERSIST_REGION_BYTES);
	/* retired, the memory comes back, and the ones that had none get some */
	rig_mark(&rig, 0, 1);
	persist_retire(rig.p, 0);
	try_mark(&rig, &t, 72, 1);
	rig_run(&rig);
	assert_false(t.has_map); /* it had fallen already: until it is retired */
	persist_retire(rig.p, 72);
	rig_mark(&rig, 72, 1);
	rig_close(&rig, PERSIST_UNLINK);
	umount(rig.dir);
}

static void a_tmpfs_without_room_for_any_map_is_done_without(void **state)
{
	struct persist_found found;
	struct try t;
	uint64_t told = 0;

	(void)state;
	if (!shrink("40k"))
		skip();
	rig.spec.marks_path = "/tmp/sxm-persist-marks.tmp";
	rig_new(&rig);
	assert_null(persist_owing(rig.p));
	persist_vouch(rig.p);
	try_mark(&rig, &t, 3, 1);
	rig_run(&rig);
	assert_int_equal(t.err, 0);
	assert_false(t.has_map);
	assert_int_equal(persist_each_owing(rig.p, PERSIST_OWING, ignore, &told), 0);
	assert_int_equal(told, SIZE);
	persist_retire(rig.p, 3);
	try_mark(&rig, &t, 4, 1);
	rig_run(&rig);
	rig_reopen(&rig, &found);
	assert_false(found.has_map);
	assert_true(found.has_marks);
	assert_string_equal(rig_marked(&rig), "65536-81920");
	rig_close(&rig, PERSIST_UNLINK);
	umount(rig.dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_disk_nobody_writes_to_costs_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(all_of_a_large_disk_is_marked_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_tmpfs_is_no_map_and_no_signal, setup, teardown),
		cmocka_unit_test_setup_teardown(a_tmpfs_without_room_for_any_map_is_done_without, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
