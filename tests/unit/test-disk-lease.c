/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-lease - nothing reaches the image when the lease is over; what waited goes on when it is renewed
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/lease.h"
#include "disk-rig.h"

#define SOON_NS (100 * NS_PER_S)

static uint8_t byte_at(const char *path, off_t offset)
{
	int fd = open(path, O_RDONLY);
	uint8_t b = 0xee;

	assert_int_equal(pread(fd, &b, 1, offset), 1);
	close(fd);
	return b;
}

static void open_leased(struct rig *rig)
{
	rig_init(rig);
	rig_file(rig->path, 65536);
	rig_open(rig, &(struct disk_spec){ .path = rig->path, .is_leased = true }, NULL);
	assert_string_equal(disk_engine_name(rig->disk), "threads");
}

static void without_time_everything_waits_and_goes_on_with_it(void **state)
{
	struct rig_io write = { 0 }, flush = { 0 };
	struct rig rig;

	(void)state;
	open_leased(&rig);
	rig_submit(&rig, &write, REQ_WRITE, 4096, 4096, 7);
	rig_submit(&rig, &flush, REQ_FLUSH, 0, 0, 0);
	rig_settle(&rig);
	assert_false(write.is_done || flush.is_done);
	disk_set_lease(rig.disk, lease_now_ns() - 1);
	rig_settle(&rig);
	assert_false(write.is_done || flush.is_done);
	assert_int_equal(byte_at(rig.path, 4096), 0);
	disk_set_lease(rig.disk, lease_now_ns() + SOON_NS);
	rig_wait(&rig, &write.is_done);
	rig_wait(&rig, &flush.is_done);
	assert_int_equal(write.err | flush.err, 0);
	assert_int_equal(byte_at(rig.path, 4096), 7);
	rig_release(&write);
	rig_release(&flush);
	rig_fini(&rig);
}

static void lease_it(struct disk_file *f)
{
	f->is_leased = true;
	f->lease_until_ns = lease_now_ns() + SOON_NS;
}

/* What was on its way when time ran out, in each of its pieces. */
static void what_the_engine_finds_late_begins_anew(void **state)
{
	struct fake_engine fake;
	struct rig_io first = { 0 }, second = { 0 };
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, 65536);
	fake_init(&fake);
	rig_open_fake(&rig, &fake, lease_it);
	rig_submit(&rig, &first, REQ_WRITE, 100, 9000, 3); /* a read, a change, a write ... */
	rig_submit(&rig, &second, REQ_WRITE, 200, 100, 4); /* waits for it */
	fake_finish(&fake, fake_op(&fake, 0), 0);
	disk_set_lease(rig.disk, 1);
	fake_finish(&fake, fake_op(&fake, 0), ENGINE_LATE);
	while (fake_op(&fake, 0))
		fake_finish(&fake, fake_op(&fake, 0), ENGINE_LATE);
	rig_settle(&rig);
	assert_false(first.is_done || second.is_done);
	disk_set_lease(rig.disk, lease_now_ns() + SOON_NS);
	while (fake_op(&fake, 0)) {
		fake_finish(&fake, fake_op(&fake, 0), 0);
		rig_settle(&rig);
	}
	assert_true(first.is_done && second.is_done);
	assert_int_equal(first.err | second.err, 0);
	assert_int_equal(byte_at(rig.path, 150), 3);
	assert_int_equal(byte_at(rig.path, 250), 4);
	assert_int_equal(byte_at(rig.path, 9099), 3);
	rig_release(&first);
	rig_release(&second);
	rig_fini(&rig);
}

struct late {
	struct engine_op op;
	struct loop *loop;
	bool is_done;
	int err;
};

static void on_late(struct engine_op *op, int err)
{
	struct late *l = container_of(op, struct late, op);

	l->is_done = true;
	l->err = err;
	loop_stop(l->loop);
}

static void a_thread_looks_at_the_clock_before_its_call(void **state)
{
	static uint8_t page[4096] __attribute__((aligned(4096)));
	const _Atomic uint64_t past = 1;
	struct late late = { .op = { .opcode = ENGINE_WRITE, .length = 4096, .buffer = page, .done = on_late } };
	struct engine *g;
	struct rig rig;
	struct error e;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, 65536);
	memset(page, 9, sizeof(page));
	late.op.fd = open(rig.path, O_RDWR);
	late.loop = rig.loop;
	g = engine_pool_new(rig.loop, &e);
	g->until_ns = &past;
	g->ops->submit(g, &late.op);
	rig_wait(&rig, &late.is_done);
	assert_int_equal(late.err, ENGINE_LATE);
	assert_int_equal(byte_at(rig.path, 0), 0);
	late.is_done = false;
	g->until_ns = NULL;
	g->ops->submit(g, &late.op);
	rig_wait(&rig, &late.is_done);
	assert_int_equal(late.err, 0);
	assert_int_equal(byte_at(rig.path, 0), 9);
	g->ops->free(g);
	close(late.op.fd);
	rig_fini(&rig);
}

static void what_goes_through_the_page_cache_is_not_for_shared_storage(void **state)
{
	struct disk_spec spec = { .is_leased = true, .no_direct = true };
	struct error e = { 0 };
	char path[128];

	(void)state;
	rig_file(path, 8192);
	spec.path = path;
	assert_null(disk_open(&spec, &e));
	assert_int_equal(e.err, EINVAL);
	assert_non_null(strstr(e.text, "O_DIRECT"));
	unlink(path);
}

static void a_dead_hosts_lock_is_skipped_and_a_sharable_one_shared(void **state)
{
	struct disk_spec spec = { .lock_wait_ms = 1 };
	struct error e = { 0 };
	struct disk_file *f;
	char path[128];
	int fd;

	(void)state;
	rig_file(path, 8192);
	spec.path = path;
	fd = open(path, O_RDWR);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	assert_null(disk_open(&spec, &e));
	assert_int_equal(e.err, EBUSY);
	spec.may_skip_lock = true;
	f = disk_open(&spec, &e);
	assert_non_null(f);
	disk_file_close(f);
	assert_int_equal(flock(fd, LOCK_SH), 0);
	spec.may_skip_lock = false;
	spec.is_sharable = true;
	f = disk_open(&spec, &e);
	assert_non_null(f);
	disk_file_close(f);
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_time_everything_waits_and_goes_on_with_it),
		cmocka_unit_test(what_the_engine_finds_late_begins_anew),
		cmocka_unit_test(a_thread_looks_at_the_clock_before_its_call),
		cmocka_unit_test(what_goes_through_the_page_cache_is_not_for_shared_storage),
		cmocka_unit_test(a_dead_hosts_lock_is_skipped_and_a_sharable_one_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
