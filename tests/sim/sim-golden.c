/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Where a guest's write goes, and what a copy does. Read golden.h first.
 */
#include "tests/sim/golden.h"

static void a_write_to_clean_chunks_goes_to_both_sides(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	sim_link_up(golden);
	golden_write(4, 8);
	golden_map();
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_map();
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 4+8\n"
	       "[   0]   -> local 4+8\n"
	       "[   0]   -> far write 4+8\n"
	       "[   0] map qq..\n"
	       "[   0] local done 4+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 4+8\n"
	       "[   0]   -> flush\n"
	       "[   0] map ....\n");
}

static void a_write_inside_owed_chunks_stays_at_home(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	golden_write(8, 8);
	sim_local_done(golden, 0, 0);
	golden_map();
	p.far.window_ops = 1;
	golden_write(10, 2);
	sim_link_up(golden);
	golden_map();
	sim_local_done(golden, 0, 0);
	golden_map();
	sim_read_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_map();
	sim_flushed(golden, 0);
	golden_expect(__func__,
	       "[   0] guest write 8+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0] local done 8+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] map .D..\n"
	       "[   0] guest write 10+2\n"
	       "[   0]   -> local 10+2\n"
	       "[   0] link up\n"
	       "[   0]   -> syncing\n"
	       "[   0] map .D..\n"
	       "[   0] local done 10+2\n"
	       "[   0]   -> guest hears\n"
	       "[   0]   -> read 8+8\n"
	       "[   0] map .C..\n"
	       "[   0] read done 8+8\n"
	       "[   0]   -> far copy 8+8\n"
	       "[   0] far done 8+8\n"
	       "[   0]   -> flush\n"
	       "[   0] map ....\n"
	       "[   0] flushed\n"
	       "[   0]   -> synced\n");
}

static const char left_to_the_pass[] =
	"[   0] guest write 8+24\n"
	"[   0]   -> local 8+24\n"
	"[   0] guest write 64+8\n"
	"[   0]   -> local 64+8\n"
	"[   0] local done 8+24\n"
	"[   0]   -> guest hears\n"
	"[   0] local done 64+8\n"
	"[   0]   -> guest hears\n"
	"[   0] link up\n"
	"[   0]   -> read 8+24\n"
	"[   0]   -> syncing\n"
	"[   0] guest write 80+8\n"
	"[   0]   -> local 80+8\n"
	"[   0] local done 80+8\n"
	"[   0]   -> guest hears\n"
	"[   0] guest write 80+8\n"
	"[   0]   -> local 80+8\n"
	"[   0] guest write 0+8\n"
	"[   0]   -> local 0+8\n"
	"[   0]   -> far write 0+8\n"
	"[   0] guest write 112+8\n"
	"[   0]   -> local 112+8\n"
	"[   0]   -> far write 112+8\n"
	"[   0] map qcccppppdpdpppqp\n"
	"[   0] local done 80+8\n"
	"[   0]   -> guest hears\n"
	"[   0] local done 0+8\n"
	"[   0]   -> guest hears\n"
	"[   0] local done 112+8\n"
	"[   0]   -> guest hears\n"
	"[   0] read done 8+24\n"
	"[   0]   -> far copy 8+24\n"
	"[   0] far done 0+8\n"
	"[   0] far done 112+8\n"
	"[   0] far done 8+24\n"
	"[   0]   -> read 64+24\n"
	"[   0] map ....ppppcpcppp.p\n"
	"[   0] read done 64+24\n"
	"[   0]   -> far copy 64+24\n"
	"[   0] far done 64+24\n"
	"[   0]   -> flush\n"
	"[   0] map ....pppp...ppp.p\n";

/* What a copy is to read anyway costs no far leg of its own; what it has gone by, or will not come near, does. */
static void a_write_beside_what_the_pass_comes_to_is_left_to_it(void)
{
	struct sim_params p = golden_plain();

	p.spec.size_bytes = 16 * CORE_CHUNK_BYTES;
	p.spec.lag_bytes = 24 * KiB;
	p.pristine_percent = 100;
	golden_start(&p);
	golden_write(8, 24);
	golden_write(64, 8);
	sim_local_done(golden, 0, 0);
	sim_local_done(golden, 0, 0);
	sim_link_up(golden);
	golden_write(80, 8);
	sim_local_done(golden, 0, 0);
	golden_write(80, 8);
	golden_write(0, 8);
	golden_write(112, 8);
	golden_map();
	for (unsigned i = 0; i < 3; i++)
		sim_local_done(golden, 0, 0);
	sim_read_done(golden, 0, 0);
	for (unsigned i = 0; i < 3; i++)
		sim_far_done(golden, 0, 0);
	golden_map();
	sim_read_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_map();
	golden_expect(__func__, left_to_the_pass);
}

static void a_write_waits_for_the_copys_read_and_follows_it(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_link_up(golden);
	golden_write(0, 4);
	sim_read_done(golden, 0, 0);
	golden_map();
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_map();
	sim_far_done(golden, 0, 0);
	golden_map();
	sim_flushed(golden, 0);
	golden_expect(__func__,
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] link up\n"
	       "[   0]   -> read 0+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] guest write 0+4\n"
	       "[   0] read done 0+8\n"
	       "[   0]   -> local 0+4\n"
	       "[   0]   -> far copy 0+8\n"
	       "[   0] map C...\n"
	       "[   0] local done 0+4\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> far write 0+4\n"
	       "[   0]   -> flush\n"
	       "[   0] map q...\n"
	       "[   0] far done 0+4\n"
	       "[   0] map ....\n"
	       "[   0] flushed\n"
	       "[   0]   -> synced\n");
}

static void overlapping_writes_keep_their_order_on_both_sides(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 4);
	golden_write(2, 4);
	golden_write(6, 2);
	sim_local_done(golden, 1, 0);
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 1, 0);
	sim_far_done(golden, 0, 0);
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+4\n"
	       "[   0]   -> local 0+4\n"
	       "[   0]   -> far write 0+4\n"
	       "[   0] guest write 2+4\n"
	       "[   0] guest write 6+2\n"
	       "[   0]   -> local 6+2\n"
	       "[   0]   -> far write 6+2\n"
	       "[   0] local done 6+2\n"
	       "[   0]   -> guest hears\n"
	       "[   0] local done 0+4\n"
	       "[   0]   -> guest hears\n"
	       "[   0]   -> local 2+4\n"
	       "[   0] far done 6+2\n"
	       "[   0]   -> flush\n"
	       "[   0] far done 0+4\n"
	       "[   0]   -> far write 2+4\n");
}

static void what_goes_dirty_is_no_copys_any_more(void)
{
	struct sim_params p = golden_plain();

	p.spec.lag_bytes = CORE_CHUNK_BYTES;
	golden_start(&p);
	golden_write(0, 8);
	sim_local_done(golden, 0, 0);
	sim_link_up(golden);
	sim_read_done(golden, 0, 0);
	golden_map();
	golden_write(0, 8);
	golden_map();
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_map();
	golden_expect(__func__,
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] link up\n"
	       "[   0]   -> read 0+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] read done 0+8\n"
	       "[   0]   -> far copy 0+8\n"
	       "[   0] map C...\n"
	       "[   0] guest write 0+8\n"
	       "[   0]   -> local 0+8\n"
	       "[   0] map D...\n"
	       "[   0] local done 0+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 0+8\n"
	       "[   0]   -> read 0+8\n"
	       "[   0] map C...\n");
}

static void a_trim_follows_its_local_leg_as_zeros(void)
{
	struct sim_params p = golden_plain();

	golden_start(&p);
	sim_link_up(golden);
	sim_guest(golden, CORE_TRIM, GOLDEN_SECTORS(8, 16), false);
	sim_local_done(golden, 0, 0);
	golden_map();
	sim_far_done(golden, 0, 0);
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest trim 8+16\n"
	       "[   0]   -> local 8+16\n"
	       "[   0] local done 8+16\n"
	       "[   0]   -> guest hears\n"
	       "[   0]   -> far zero 8+16\n"
	       "[   0] map .qq.\n"
	       "[   0] far done 8+16\n"
	       "[   0]   -> flush\n");
}

static void a_trim_that_promises_nothing_is_owed(void)
{
	struct sim_params p = golden_plain();

	p.spec.trim_reads_zero = false;
	golden_start(&p);
	sim_link_up(golden);
	sim_guest(golden, CORE_TRIM, GOLDEN_SECTORS(8, 8), false);
	sim_local_done(golden, 0, 0);
	golden_map();
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest trim 8+8\n"
	       "[   0]   -> local 8+8\n"
	       "[   0] local done 8+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0]   -> read 8+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] map .C..\n");
}

static void zeros_are_not_sent_to_what_is_pristine(void)
{
	struct sim_params p = golden_plain();

	p.pristine_percent = 100;
	golden_start(&p);
	sim_link_up(golden);
	golden_map();
	sim_guest(golden, CORE_ZERO, GOLDEN_SECTORS(0, 16), false);
	sim_local_done(golden, 0, 0);
	golden_write(8, 1);
	golden_map();
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_guest(golden, CORE_WRITE, GOLDEN_SECTORS(8, 8), true);
	golden_map();
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] map pppp\n"
	       "[   0] guest zero 0+16\n"
	       "[   0]   -> local 0+16\n"
	       "[   0] local done 0+16\n"
	       "[   0]   -> guest hears\n"
	       "[   0] guest write 8+1\n"
	       "[   0]   -> local 8+1\n"
	       "[   0]   -> far write 8+1\n"
	       "[   0] map pqpp\n"
	       "[   0] local done 8+1\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 8+1\n"
	       "[   0]   -> flush\n"
	       "[   0] guest write 8+8 of zeros\n"
	       "[   0]   -> local 8+8\n"
	       "[   0]   -> far zero 8+8\n"
	       "[   0] map pqpp\n");
}

static void a_write_past_the_bound_is_owed_and_sent_by_a_copy(void)
{
	struct sim_params p = golden_plain();

	p.spec.lag_bytes = 2 * CORE_CHUNK_BYTES;
	golden_start(&p);
	sim_link_up(golden);
	golden_write(0, 16);
	golden_write(16, 8);
	golden_map();
	sim_local_done(golden, 1, 0);
	sim_read_done(golden, 0, 0);
	golden_map();
	sim_local_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	sim_far_done(golden, 0, 0);
	golden_map();
	golden_expect(__func__,
	       "[   0] link up\n"
	       "[   0]   -> synced\n"
	       "[   0] guest write 0+16\n"
	       "[   0]   -> local 0+16\n"
	       "[   0]   -> far write 0+16\n"
	       "[   0] guest write 16+8\n"
	       "[   0]   -> local 16+8\n"
	       "[   0]   -> syncing\n"
	       "[   0] map qqD.\n"
	       "[   0] local done 16+8\n"
	       "[   0]   -> guest hears\n"
	       "[   0]   -> read 16+8\n"
	       "[   0] read done 16+8\n"
	       "[   0]   -> far copy 16+8\n"
	       "[   0] map qqC.\n"
	       "[   0] local done 0+16\n"
	       "[   0]   -> guest hears\n"
	       "[   0] far done 0+16\n"
	       "[   0] far done 16+8\n"
	       "[   0]   -> flush\n"
	       "[   0]   -> synced\n"
	       "[   0] map ....\n");
}

int main(void)
{
	a_write_to_clean_chunks_goes_to_both_sides();
	a_write_inside_owed_chunks_stays_at_home();
	a_write_beside_what_the_pass_comes_to_is_left_to_it();
	a_write_waits_for_the_copys_read_and_follows_it();
	overlapping_writes_keep_their_order_on_both_sides();
	what_goes_dirty_is_no_copys_any_more();
	a_trim_follows_its_local_leg_as_zeros();
	a_trim_that_promises_nothing_is_owed();
	zeros_are_not_sent_to_what_is_pristine();
	a_write_past_the_bound_is_owed_and_sent_by_a_copy();
	return golden_end();
}
