/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-race - the orders of completion that lose data or hide an error, played by hand over an engine that holds
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "disk-rig.h"

/* The rules ask for alignments, not for O_DIRECT: so also where $TMPDIR has none. */
static void force_4k(struct disk_file *f)
{
	f->is_direct = true;
	f->align = f->memory_align = 4096;
}

static void force_512(struct disk_file *f)
{
	f->is_direct = true;
	f->align = f->memory_align = 512;
}

static void use_cache(struct disk_file *f)
{
	fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) & ~O_DIRECT);
	f->is_direct = false;
	f->align = f->memory_align = 1;
}

static void setup(struct rig *rig, struct fake_engine *fake, void (*adjust)(struct disk_file *f))
{
	rig_init(rig);
	rig_file(rig->path, 64 * KiB);
	rig_open_fake(rig, fake, adjust);
}

static void finish_all(struct rig *rig, struct fake_engine *fake)
{
	for (rig_settle(rig); fake->count; rig_settle(rig))
		fake_finish(fake, fake_op(fake, 0), 0);
}

static int do_fake(struct rig *rig, struct fake_engine *fake, enum req_op op, uint64_t offset, uint64_t length, uint8_t fill)
{
	struct rig_io io = { 0 };

	rig_submit(rig, &io, op, offset, length, fill);
	finish_all(rig, fake);
	assert_true(io.is_done);
	if (op == REQ_READ)
		for (uint64_t i = 0; i < length; i++)
			assert_int_equal(rig_data(&io)[i], fill);
	rig_release(&io);
	return io.err;
}

static void an_aligned_write_during_a_read_modify_write_is_not_lost(void **state)
{
	struct fake_engine fake;
	struct rig_io rmw = { 0 }, whole = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_4k);
	rig_submit(&rig, &rmw, REQ_WRITE, 4096 + 100, 50, 0x11);
	assert_int_equal(fake.count, 1);
	assert_int_equal(fake_op(&fake, 0)->opcode, ENGINE_READ);
	rig_submit(&rig, &whole, REQ_WRITE, 0, 8192, 0x22);
	assert_int_equal(fake.count, 1); /* it waits */
	fake_finish(&fake, fake_op(&fake, 0), 0);
	assert_int_equal(fake.count, 1);
	assert_int_equal(fake_op(&fake, 0)->opcode, ENGINE_WRITE);
	assert_int_equal(fake_op(&fake, 0)->length, 4096);
	fake_finish(&fake, fake_op(&fake, 0), 0);
	assert_int_equal(fake.count, 1);
	assert_int_equal(fake_op(&fake, 0)->length, 8192);
	finish_all(&rig, &fake);
	assert_true(rmw.is_done && whole.is_done && !rmw.err && !whole.err);
	rig_release(&rmw);
	rig_release(&whole);
	do_fake(&rig, &fake, REQ_READ, 0, 8192, 0x22);
	rig_fini(&rig);
}

static void a_read_modify_write_waits_for_the_aligned_write_before_it(void **state)
{
	struct fake_engine fake;
	struct rig_io rmw = { 0 }, whole = { 0 }, other = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_4k);
	rig_submit(&rig, &whole, REQ_WRITE, 0, 4096, 0x22);
	rig_submit(&rig, &rmw, REQ_WRITE, 100, 50, 0x11);
	assert_int_equal(fake.count, 1); /* it has read nothing yet */
	rig_submit(&rig, &other, REQ_WRITE, 4096, 4096, 0x33);
	assert_int_equal(fake.count, 2); /* who does not touch that block does not wait */
	finish_all(&rig, &fake);
	assert_true(rmw.is_done && whole.is_done && other.is_done);
	rig_release(&rmw);
	rig_release(&whole);
	rig_release(&other);
	do_fake(&rig, &fake, REQ_READ, 0, 100, 0x22);
	do_fake(&rig, &fake, REQ_READ, 100, 50, 0x11);
	do_fake(&rig, &fake, REQ_READ, 150, 4096 - 150, 0x22);
	rig_fini(&rig);
}

static void two_writes_inside_one_block_both_survive(void **state)
{
	struct fake_engine fake;
	struct rig_io a = { 0 }, b = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_4k);
	rig_submit(&rig, &a, REQ_WRITE, 0, 1, 0x11);
	rig_submit(&rig, &b, REQ_WRITE, 1, 1, 0x22);
	assert_int_equal(fake.count, 1);
	finish_all(&rig, &fake);
	rig_release(&a);
	rig_release(&b);
	do_fake(&rig, &fake, REQ_READ, 0, 1, 0x11);
	do_fake(&rig, &fake, REQ_READ, 1, 1, 0x22);
	do_fake(&rig, &fake, REQ_READ, 2, 4094, 0);
	rig_fini(&rig);
}

static void zeroing_a_part_of_a_block_waits_for_writes_to_that_block(void **state)
{
	struct fake_engine fake;
	struct rig_io write = { 0 }, zero = { 0 }, after = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_512);
	rig_submit(&rig, &write, REQ_WRITE, 2048, 2048, 0x44);
	rig_submit(&rig, &zero, REQ_ZERO, 0, 1024, 0);
	rig_submit(&rig, &after, REQ_WRITE, 1024, 512, 0x55);
	assert_int_equal(fake.count, 1);
	fake_finish(&fake, fake_op(&fake, 0), 0);
	assert_int_equal(fake.count, 1);
	assert_int_equal(fake_op(&fake, 0)->opcode, ENGINE_FALLOCATE);
	finish_all(&rig, &fake);
	rig_release(&write);
	rig_release(&zero);
	rig_release(&after);
	do_fake(&rig, &fake, REQ_READ, 2048, 2048, 0x44);
	do_fake(&rig, &fake, REQ_READ, 1024, 512, 0x55);
	rig_fini(&rig);
}

static void an_error_inside_a_read_modify_write_frees_those_who_wait(void **state)
{
	struct fake_engine fake;
	struct rig_io rmw = { 0 }, whole = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_4k);
	rig_submit(&rig, &rmw, REQ_WRITE, 100, 50, 0x11);
	rig_submit(&rig, &whole, REQ_WRITE, 0, 4096, 0x22);
	fake_finish(&fake, fake_op(&fake, 0), EIO);
	finish_all(&rig, &fake);
	assert_int_equal(rmw.err, EIO);
	assert_int_equal(whole.err, 0);
	rig_release(&rmw);
	rig_release(&whole);
	do_fake(&rig, &fake, REQ_READ, 0, 4096, 0x22);
	rig_fini(&rig);
}

static void more_unaligned_requests_than_bounces_all_end(void **state)
{
	struct fake_engine fake;
	struct rig_io io[3 * DISK_BOUNCES] = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_512);
	for (unsigned i = 0; i < ARRAY_LEN(io); i++)
		rig_submit(&rig, &io[i], i % 2 ? REQ_READ : REQ_WRITE, i * 1024 + 1, 500, (uint8_t)i);
	assert_int_equal(fake.count, DISK_BOUNCES);
	finish_all(&rig, &fake);
	for (unsigned i = 0; i < ARRAY_LEN(io); i++) {
		assert_true(io[i].is_done);
		assert_int_equal(io[i].err, 0);
		rig_release(&io[i]);
	}
	for (unsigned i = 0; i < ARRAY_LEN(io); i += 2)
		do_fake(&rig, &fake, REQ_READ, i * 1024 + 1, 500, (uint8_t)i);
	rig_fini(&rig);
}

static int fail_flush(struct rig *rig, struct fake_engine *fake, int err)
{
	struct rig_io io = { 0 };

	rig_submit(rig, &io, REQ_FLUSH, 0, 0, 0);
	if (fake->count)
		fake_finish(fake, fake_op(fake, 0), err);
	rig_settle(rig);
	assert_true(io.is_done);
	rig_release(&io);
	return io.err;
}

static void a_failed_flush_through_the_page_cache_is_never_forgotten(void **state)
{
	struct fake_engine fake;
	struct rig_io fua = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, use_cache);
	assert_int_equal(fail_flush(&rig, &fake, 0), 0);
	assert_int_equal(do_fake(&rig, &fake, REQ_WRITE, 0, 512, 1), 0);
	assert_int_equal(fail_flush(&rig, &fake, EIO), EIO);
	assert_int_equal(fail_flush(&rig, &fake, 0), EIO);
	fua.req = req_get();
	fua.req->flags = REQ_FUA;
	rig_submit(&rig, &fua, REQ_WRITE, 0, 512, 1);
	rig_settle(&rig);
	assert_true(fua.is_done);
	assert_int_equal(fua.err, EIO);
	rig_release(&fua);
	assert_int_equal(do_fake(&rig, &fake, REQ_WRITE, 0, 512, 1), 0);
	rig_fini(&rig);
}

static void a_flush_in_flight_beside_a_failed_one_does_not_succeed(void **state)
{
	struct fake_engine fake;
	struct rig_io a = { 0 }, b = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, use_cache);
	rig_submit(&rig, &a, REQ_FLUSH, 0, 0, 0);
	rig_submit(&rig, &b, REQ_FLUSH, 0, 0, 0);
	fake_finish(&fake, fake_op(&fake, 0), EIO);
	fake_finish(&fake, fake_op(&fake, 0), 0);
	rig_settle(&rig);
	assert_int_equal(a.err, EIO);
	assert_int_equal(b.err, EIO);
	rig_release(&a);
	rig_release(&b);
	rig_fini(&rig);
}

static void a_direct_disk_reports_each_flush_as_it_went(void **state)
{
	struct fake_engine fake;
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_4k);
	assert_int_equal(fail_flush(&rig, &fake, EIO), EIO);
	assert_int_equal(fail_flush(&rig, &fake, EIO), EIO);
	assert_int_equal(fail_flush(&rig, &fake, 0), 0);
	rig_fini(&rig);
}

/* True: it came to the engine, where it was good. */
static bool is_flushed_by_engine(struct rig *rig, struct fake_engine *fake)
{
	unsigned before = fake->count;
	struct rig_io io = { 0 };
	bool was_asked;

	rig_submit(rig, &io, REQ_FLUSH, 0, 0, 0);
	rig_settle(rig);
	was_asked = fake->count > before;
	if (was_asked)
		fake_finish(fake, fake_op(fake, before), 0);
	rig_settle(rig);
	assert_true(io.is_done);
	assert_int_equal(io.err, 0);
	rig_release(&io);
	return was_asked;
}

static void what_is_flushed_is_not_flushed_again(void **state)
{
	static const enum req_op changes[] = { REQ_WRITE, REQ_ZERO, REQ_TRIM };
	struct fake_engine fake;
	struct rig_io write = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_4k);
	assert_true(is_flushed_by_engine(&rig, &fake)); /* of an earlier process nobody knows */
	assert_false(is_flushed_by_engine(&rig, &fake));
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		rig_submit(&rig, &write, changes[i], 0, 4096, 1);
		finish_all(&rig, &fake);
		assert_true(write.is_done);
		rig_release(&write);
		write = (struct rig_io){ 0 };
		assert_true(is_flushed_by_engine(&rig, &fake));
		assert_false(is_flushed_by_engine(&rig, &fake));
	}
	do_fake(&rig, &fake, REQ_READ, 0, 4096, 0);
	assert_false(is_flushed_by_engine(&rig, &fake));
	rig_submit(&rig, &write, REQ_WRITE, 0, 4096, 1);
	assert_true(is_flushed_by_engine(&rig, &fake)); /* does not cover what is under way */
	finish_all(&rig, &fake);
	assert_true(is_flushed_by_engine(&rig, &fake));
	assert_false(is_flushed_by_engine(&rig, &fake));
	rig_release(&write);
	rig_fini(&rig);
}

static void fua_is_durable_before_it_completes(void **state)
{
	struct fake_engine fake;
	struct rig_io write = { 0 }, zero = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_4k);
	write.req = req_get();
	write.req->flags = REQ_FUA;
	rig_submit(&rig, &write, REQ_WRITE, 0, 4096, 1);
	assert_true(fake_op(&fake, 0)->is_fua);
	finish_all(&rig, &fake);
	zero.req = req_get();
	zero.req->flags = REQ_FUA | REQ_MAY_TRIM;
	rig_submit(&rig, &zero, REQ_ZERO, 0, 4096, 0);
	assert_int_equal(fake_op(&fake, 0)->opcode, ENGINE_FALLOCATE);
	fake_finish(&fake, fake_op(&fake, 0), 0);
	rig_settle(&rig);
	assert_false(zero.is_done);
	assert_int_equal(fake_op(&fake, 0)->opcode, ENGINE_FLUSH);
	fake_finish(&fake, fake_op(&fake, 0), EIO);
	rig_settle(&rig);
	assert_int_equal(zero.err, EIO);
	rig_release(&write);
	rig_release(&zero);
	rig_fini(&rig);
}

static void what_the_kernel_cannot_zero_is_written_and_remembered(void **state)
{
	struct fake_engine fake;
	struct rig_io zero = { 0 };
	struct rig rig;

	(void)state;
	setup(&rig, &fake, force_4k);
	do_fake(&rig, &fake, REQ_WRITE, 0, 64 * KiB, 0x77);
	zero.req = req_get();
	zero.req->flags = REQ_MAY_TRIM;
	rig_submit(&rig, &zero, REQ_ZERO, 4096, 8192, 0);
	assert_true(fake_op(&fake, 0)->mode & FALLOC_FL_PUNCH_HOLE);
	fake_finish(&fake, fake_op(&fake, 0), EOPNOTSUPP);
	assert_true(fake_op(&fake, 0)->mode & FALLOC_FL_ZERO_RANGE);
	fake_finish(&fake, fake_op(&fake, 0), EOPNOTSUPP);
	assert_int_equal(fake_op(&fake, 0)->opcode, ENGINE_WRITE);
	finish_all(&rig, &fake);
	assert_int_equal(zero.err, 0);
	rig_release(&zero);
	do_fake(&rig, &fake, REQ_READ, 0, 4096, 0x77);
	do_fake(&rig, &fake, REQ_READ, 4096, 8192, 0);
	do_fake(&rig, &fake, REQ_READ, 12288, 4096, 0x77);

	memset(&zero, 0, sizeof(zero));
	rig_submit(&rig, &zero, REQ_TRIM, 16384 + 10, 20000, 0);
	assert_int_not_equal(fake_op(&fake, 0)->opcode, ENGINE_FALLOCATE);
	finish_all(&rig, &fake);
	rig_release(&zero);
	do_fake(&rig, &fake, REQ_READ, 16384, 10, 0x77);
	do_fake(&rig, &fake, REQ_READ, 16394, 20000, 0);
	do_fake(&rig, &fake, REQ_READ, 36394, 100, 0x77);
	rig_fini(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_aligned_write_during_a_read_modify_write_is_not_lost),
		cmocka_unit_test(a_read_modify_write_waits_for_the_aligned_write_before_it),
		cmocka_unit_test(two_writes_inside_one_block_both_survive),
		cmocka_unit_test(zeroing_a_part_of_a_block_waits_for_writes_to_that_block),
		cmocka_unit_test(an_error_inside_a_read_modify_write_frees_those_who_wait),
		cmocka_unit_test(more_unaligned_requests_than_bounces_all_end),
		cmocka_unit_test(a_failed_flush_through_the_page_cache_is_never_forgotten),
		cmocka_unit_test(a_flush_in_flight_beside_a_failed_one_does_not_succeed),
		cmocka_unit_test(a_direct_disk_reports_each_flush_as_it_went),
		cmocka_unit_test(what_is_flushed_is_not_flushed_again),
		cmocka_unit_test(fua_is_durable_before_it_completes),
		cmocka_unit_test(what_the_kernel_cannot_zero_is_written_and_remembered),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
