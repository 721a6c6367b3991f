/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Histories of links: in sync with the far side, late, lost and made anew; and of what survives a kill and a power loss.
 */
#include <errno.h>

#include "tests/sim/golden.h"

static void in_sync_a_guest_hears_when_both_sides_have_it(void)
{
	struct sim_params p = golden_plain();

	p.spec.is_sync = true;
	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	golden_write(8, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_local_done(golden, 0, 0);
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] guest write 8+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0]   -> far write 8+8\n"
	       "[   0] local done 0+8\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0]   -> flush\n"
	       "[   0] far done 8+8\n"
	       "[   0] local done 8+8\n"
	       "[   0]   -> guest hears\n");
}

static void a_late_far_side_costs_one_stall_once(void)
{
	struct sim_params p = golden_plain();

	p.spec.is_sync = true;
	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_tick(golden, 250);
	golden_map();
	golden_write(8, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_map();
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] local done 0+8\n"
	       "[ 250]   -> guest hears\n"
	       "[ 250]   -> syncing\n"
	       "[ 250] map D...\n"
	       "[ 250] guest write 8+8\n"
	       "[ 250]   -> local 8+8\n"
	       "[ 250]   -> read 0+8\n"
	       "[ 250]   -> far write 8+8\n"
	       "[ 250] local done 8+8\n"
	       "[ 250]   -> guest hears\n"
	       "[ 250] far done 0+8\n"
	       "[ 250] map Cq..\n");
}

static void in_sync_a_flush_waits_for_one_that_began_after_it(void)
{
	struct sim_params p = golden_plain();

	p.spec.is_sync = true;
	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_guest(golden, CORE_FLUSH, (struct range){ 0, 0 }, false);
	sim_local_done(golden, 0, 0);
	sim_flushed(golden, 0);
	sim_flushed(golden, 0);
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0]   -> flush\n"
	       "[   0] guest flush 0+0\n"
	       "[   0]   -> local 0+0\n"
	       "[   0] local done 0+0\n"
	       "[   0] flushed\n"
	       "[   0]   -> flush\n"
	       "[   0] flushed\n"
	       "[   0]   -> guest hears\n");
}

static void a_link_made_anew_owes_what_was_in_flight(void)
{
	struct sim_params p = golden_plain();

	p.far.can_reconnect = true;
	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_write(8, 8);
	sim_local_done(golden, 0, 0);
	sim_link_down(golden, ENOTCONN);
	golden_map();
	golden_write(24, 8);
	sim_local_done(golden, 0, 0);
	golden_map();
	sim_link_up(golden);
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
	       "[   0] guest write 8+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0]   -> far write 8+8\n"
	       "[   0] local done 8+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] link down\n"
	       "[   0]   -> broken\n"
	       "[   0] map .D..\n"
	       "[   0] guest write 24+8\n"
	       "[   0]   -> local 24+8\n"
	       "[   0] local done 24+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] map .D.D\n"
	       "[   0] link up\n"
	       "[   0]   -> read 8+8\n"
	       "[   0]   -> read 24+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] map .C.C\n");
}

static void what_the_far_side_may_have_lost_is_owed(void)
{
	struct sim_params p = golden_plain();

	p.far.can_reconnect = true;
	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_link_down(golden, ENOTCONN);
	golden_map();
	sim_far_crashes(golden);
	sim_link_up(golden);
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
	       "[   0] link down\n"
	       "[   0]   -> broken\n"
	       "[   0] map ....\n"
	       "[   0] the far side crashes\n"
	       "[   0] link up, it may have lost something\n"
	       "[   0]   -> read 0+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] map C...\n");
}

static void a_barrier_outlives_a_link(void)
{
	struct sim_params p = golden_plain();

	p.far.can_reconnect = true;
	p.spec.keeps_link = true;
	p.dirty_percent = 0;
	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_event(golden, CORE_BARRIER, 0);
	sim_link_down(golden, ENOTCONN);
	sim_link_up(golden);
	sim_read_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_flushed(golden, 0);
	sim_event(golden, CORE_GO_ON, 0);
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
	       "[   0] link down\n"
	       "[   0]   -> broken\n"
	       "[   0] link up\n"
	       "[   0]   -> read 0+8\n"
	       "[   0]   -> finishing\n"
	       "[   0] read done 0+8\n"
	       "[   0]   -> far copy 0+8\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> flush\n"
	       "[   0] flushed\n"
	       "[   0]   -> finished\n"
	       "[   0] go on\n"
	       "[   0]   -> synced\n");
}

static struct sim_params marked_plain(void)
{
	struct sim_params p = golden_plain();

	p.has_map = true;
	p.far.can_reconnect = true;
	p.spec.region_bytes = 8192;
	p.spec.keep_mark_ms = 2000;
	return p;
}

static void a_write_waits_for_its_regions_mark(void)
{
	struct sim_params p = marked_plain();

	golden_start(&p);
	sim_map_on(golden);
	sim_link_up(golden);
	golden_write(0, 8);
	golden_write(8, 8);
	sim_marked(golden, 0, 0, true);
	golden_expect(__func__,
	       "[   0] map on\n"
	       "[   0]   -> connecting\n"
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> mark 0+1\n"
	       "[   0] guest write 8+8\n"
	       "[   0] marked 0+1\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0]   -> far write 8+8\n");
}

static void a_mark_goes_when_both_disks_were_flushed(void)
{
	struct sim_params p = marked_plain();

	golden_start(&p);
	sim_map_on(golden);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_marked(golden, 0, 0, true);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_flushed(golden, 0);
	sim_tick(golden, 1000);
	sim_tick(golden, 1000);
	sim_flushed(golden, 0);
	sim_home_flushed(golden, 0);
	golden_expect(__func__,
	       "[   0] map on\n"
	       "[   0]   -> connecting\n"
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> mark 0+1\n"
	       "[   0] marked 0+1\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> flush\n"
	       "[   0] flushed\n"
	       "[2000]   -> flush at home\n"
	       "[2000]   -> flush\n"
	       "[2000] flushed\n"
	       "[2000] flushed at home\n"
	       "[2000]   -> retire 0+1\n");
}

static void after_a_kill_what_was_in_flight_is_owed(void)
{
	struct sim_params p = marked_plain();

	golden_start(&p);
	sim_map_on(golden);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_marked(golden, 0, 0, true);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_write(8, 8);
	sim_local_done(golden, 0, 0);
	sim_dies(golden, false);
	golden_map();
	sim_link_up(golden);
	golden_map();
	golden_expect(__func__,
	       "[   0] map on\n"
	       "[   0]   -> connecting\n"
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> mark 0+1\n"
	       "[   0] marked 0+1\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> flush\n"
	       "[   0] guest write 8+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0]   -> far write 8+8\n"
	       "[   0] local done 8+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] kill -9\n"
	       "[   0] map on\n"
	       "[   0]   -> connecting\n"
	       "[   0] map .D..\n"
	       "[   0] link up\n"
	       "[   0]   -> read 8+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] map .C..\n");
}

static void after_a_power_loss_whole_regions_are(void)
{
	struct sim_params p = marked_plain();

	golden_start(&p);
	sim_map_on(golden);
	sim_link_up(golden);
	golden_write(0, 8);
	sim_marked(golden, 0, 0, true);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_dies(golden, true);
	golden_map();
	golden_expect(__func__,
	       "[   0] map on\n"
	       "[   0]   -> connecting\n"
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> mark 0+1\n"
	       "[   0] marked 0+1\n"
	       "[   0]   -> local 0+8\n"
	       "[   0]   -> far write 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> flush\n"
	       "[   0] power loss\n"
	       "[   0] map on\n"
	       "[   0]   -> connecting\n"
	       "[   0] map DD..\n");
}

static void what_is_written_after_the_end_is_owed(void)
{
	struct sim_params p = marked_plain();

	golden_start(&p);
	sim_map_on(golden);
	sim_link_up(golden);
	sim_event(golden, CORE_ABORT, 0);
	golden_write(0, 8);
	sim_marked(golden, 0, 0, true);
	sim_local_done(golden, 0, 0);
	golden_write(16, 8);
	sim_dies(golden, false);
	golden_map();
	sim_event(golden, CORE_ABORT, 0);
	golden_write(16, 8);
	sim_voided(golden);
	golden_expect(__func__,
	       "[   0] map on\n"
	       "[   0]   -> connecting\n"
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] abort\n"
	       "[   0]   -> ended\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> mark 0+1\n"
	       "[   0] marked 0+1\n"
	       "[   0]   -> local 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] guest write 16+8\n"
	       "[   0]   -> mark 1+1\n"
	       "[   0] kill -9\n"
	       "[   0] map on\n"
	       "[   0]   -> connecting\n"
	       "[   0] map D...\n"
	       "[   0] abort\n"
	       "[   0]   -> ended\n"
	       "[   0] guest write 16+8\n"
	       "[   0]   -> mark 1+1\n"
	       "[   0] map and marks are void\n"
	       "[   0]   -> local 16+8\n");
}

int main(void)
{
	in_sync_a_guest_hears_when_both_sides_have_it();
	a_late_far_side_costs_one_stall_once();
	in_sync_a_flush_waits_for_one_that_began_after_it();
	a_link_made_anew_owes_what_was_in_flight();
	what_the_far_side_may_have_lost_is_owed();
	a_barrier_outlives_a_link();
	a_write_waits_for_its_regions_mark();
	a_mark_goes_when_both_disks_were_flushed();
	after_a_kill_what_was_in_flight_is_owed();
	after_a_power_loss_whole_regions_are();
	what_is_written_after_the_end_is_owed();
	return golden_end();
}
