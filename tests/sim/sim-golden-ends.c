/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What happens when the far side stands still, fails, is flushed, is left. Read golden.h first.
 */
#include <errno.h>

#include "tests/sim/golden.h"

static void a_far_side_that_stands_still_holds_nobody(void)
{
	struct sim_params p = golden_plain();

	p.far.window_ops = 1;
	p.spec.lag_ms = 50;
	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	golden_write(8, 8);
	sim_local_done(golden, 0, 0);
	sim_local_done(golden, 0, 0);
	sim_tick(golden, 300);
	golden_write(16, 8);
	sim_local_done(golden, 0, 0);
	golden_map();
	sim_far_done(golden, 0, 0);
	golden_map();
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] guest write 8+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] local done 8+8\n"
	       "[   0]   -> guest hears\n"
	       "[ 300]   -> synced, stalled\n"
	       "[ 300] guest write 16+8\n"
	       "[ 300]   -> local 16+8\n"
	       "[ 300]   -> syncing, stalled\n"
	       "[ 300] local done 16+8\n"
	       "[ 300]   -> guest hears\n"
	       "[ 300]   -> read 16+8\n"
	       "[ 300] map qqC.\n"
	       "[ 300] far done 0+8\n"
	       "[ 300]   -> far write 8+8\n"
	       "[ 300]   -> syncing\n"
	       "[ 300] map .qC.\n");
}

static void a_lost_link_leaves_its_debt_and_the_guest(void)
{
	struct sim_params p = golden_plain();

	p.far.window_ops = 1;
	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	golden_write(8, 8);
	sim_local_done(golden, 1, 0);
	sim_link_down(golden, ECONNRESET);
	golden_map();
	sim_local_done(golden, 0, 0);
	golden_write(24, 8);
	golden_map();
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] guest write 8+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0] local done 8+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] link down\n"
	       "[   0]   -> failed\n"
	       "[   0] map DD..\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] guest write 24+8\n"
	       "[   0]   -> local 24+8\n"
	       "[   0] map DD.D\n");
}

static void a_failed_flush_owes_all_that_was_not_flushed(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_flushed(golden, EIO);
	golden_map();
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> flush\n"
	       "[   0] flushed error\n"
	       "[   0]   -> read 0+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] map C...\n");
}

static void what_was_written_since_is_flushed_soon(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_flushed(golden, 0);
	golden_write(8, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_tick(golden, 99);
	sim_tick(golden, 1);
	sim_tick(golden, 50);
	sim_flushed(golden, 0);
	golden_write(16, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_tick(golden, 99);
	sim_tick(golden, 1);
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> flush\n"
	       "[   0] flushed\n"
	       "[   0] guest write 8+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0]   -> far write 8+8\n"
	       "[   0] local done 8+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 8+8\n"
	       "[ 100]   -> flush\n"
	       "[ 150] flushed\n"
	       "[ 150] guest write 16+8\n"
	       "[ 150]   -> local 16+8\n"
	       "[ 150]   -> far write 16+8\n"
	       "[ 150] local done 16+8\n"
	       "[ 150]   -> guest hears\n"
	       "[ 150] far done 16+8\n"
	       "[ 250]   -> flush\n");
}

static void a_barrier_sends_flushes_and_says_goodbye(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_link_up(golden);
	sim_event(golden, CORE_BARRIER, 0);
	sim_read_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_flushed(golden, 0);
	golden_expect(__func__,
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] link up\n"
	       "[   0]   -> read 0+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] barrier\n"
	       "[   0]   -> finishing\n"
	       "[   0] read done 0+8\n"
	       "[   0]   -> far copy 0+8\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> flush\n"
	       "[   0] flushed\n"
	       "[   0]   -> finished\n");
}

/* PREPARE, which follows, does. What was not flushed stays so until something has. */
static void a_barrier_whose_next_question_flushes_waits_for_none(void)
{
	struct sim_params p = golden_plain();

	p.spec.keeps_link = p.far.flushes_last = true;
	golden_start(&p);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_link_up(golden);
	sim_event(golden, CORE_BARRIER, 0);
	sim_read_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_expect(__func__,
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] link up\n"
	       "[   0]   -> read 0+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] barrier\n"
	       "[   0]   -> finishing\n"
	       "[   0] read done 0+8\n"
	       "[   0]   -> far copy 0+8\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> finished\n");
}

static void a_barrier_without_progress_backs_out(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_event(golden, CORE_BARRIER, 0);
	sim_tick(golden, 1000);
	sim_tick(golden, 1001);
	sim_far_done(golden, 0, 0);
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] barrier\n"
	       "[   0]   -> finishing\n"
	       "[1000]   -> finishing, stalled\n"
	       "[2001]   -> syncing, stalled, backed out\n"
	       "[2001] far done 0+8\n"
	       "[2001]   -> flush\n"
	       "[2001]   -> synced\n");
}

static void what_cannot_be_read_fails_before_complete(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	golden_write(0, 16);
	sim_local_done(golden, 0, 0);
	sim_link_up(golden);
	sim_read_done(golden, 0, EIO);
	sim_read_done(golden, 1, 0);
	sim_read_done(golden, 0, EIO);
	sim_read_done(golden, 0, EIO);
	sim_read_done(golden, 0, EIO);
	golden_map();
	golden_expect(__func__,
	       "[   0] guest write 0+16\n"
	       "[   0]   -> local 0+16\n"
	       "[   0] local done 0+16\n"
	       "[   0]   -> guest hears\n"
	       "[   0] link up\n"
	       "[   0]   -> read 0+16\n"
	       "[   0]   -> syncing\n"
	       "[   0] read done 0+16 error\n"
	       "[   0]   -> read 0+8\n"
	       "[   0]   -> read 8+8\n"
	       "[   0] read done 8+8\n"
	       "[   0]   -> far copy 8+8\n"
	       "[   0] read done 0+8 error\n"
	       "[   0]   -> read 0+8\n"
	       "[   0] read done 0+8 error\n"
	       "[   0]   -> read 0+8\n"
	       "[   0] read done 0+8 error\n"
	       "[   0]   -> failed\n"
	       "[   0] map DD..\n");
}

static void a_copy_of_a_live_disk_ends_at_one_instant(void)
{
	struct sim_params p = golden_plain();

	p.spec.is_copy = true;
	golden_start(&p);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_link_up(golden);
	golden_write(8, 8);
	sim_local_done(golden, 0, 0);
	sim_read_done(golden, 0, 0);
	sim_far_done(golden, 1, 0);
	golden_write(16, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_flushed(golden, 0);
	golden_expect(__func__,
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] link up\n"
	       "[   0]   -> read 0+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] guest write 8+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0]   -> far write 8+8\n"
	       "[   0] local done 8+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] read done 0+8\n"
	       "[   0]   -> far copy 0+8\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> finishing\n"
	       "[   0] guest write 16+8\n"
	       "[   0]   -> local 16+8\n"
	       "[   0] local done 16+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 8+8\n"
	       "[   0]   -> flush\n"
	       "[   0] flushed\n"
	       "[   0]   -> finished\n");
}

int main(void)
{
	a_far_side_that_stands_still_holds_nobody();
	a_lost_link_leaves_its_debt_and_the_guest();
	a_failed_flush_owes_all_that_was_not_flushed();
	what_was_written_since_is_flushed_soon();
	a_barrier_sends_flushes_and_says_goodbye();
	a_barrier_whose_next_question_flushes_waits_for_none();
	a_barrier_without_progress_backs_out();
	what_cannot_be_read_fails_before_complete();
	a_copy_of_a_live_disk_ends_at_one_instant();
	return golden_end();
}
