/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-nbd-loss - a disk whose server dies with what it had acknowledged and not flushed: nobody is told that it is stored
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nbd-disk-rig.h"

#define SIZE WORLD_BYTES

static const struct fake_nbd_plan plan = { .size_bytes = SIZE, .can_zero = true, .can_fua = true };

/* Another server takes the place of the one that was there, and has its bytes. */
static void replace(struct world *w)
{
	uint8_t *kept = malloc(SIZE);

	memcpy(kept, w->server.disk, SIZE);
	fake_nbd_stop(&w->server);
	serve(&w->server, &plan);
	memcpy(w->server.disk, kept, SIZE);
	free(kept);
	turn_until(w, &w->server.greeted, 1);
}

static void what_was_not_flushed_when_the_server_went_fails_the_next_flushes(void **state)
{
	struct world w;

	(void)state;
	start(&w, &plan, "");
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	replace(&w); /* nothing was there to be lost */
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	assert_int_equal(rig_do(&w.rig, REQ_ZERO, 0, 4096, 0), 0);
	replace(&w);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), EIO);
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), EIO); /* whoever asks */
	layer_close(w.rig.disk);
	rig_open(&w.rig, &(struct disk_spec){ .path = w.rig.path, .lock_wait_ms = 30000 }, NULL);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	stop(&w);
}

/* It is sent anew to a server that never saw the writes. */
static void a_flush_that_is_on_its_way_when_the_server_goes_fails(void **state)
{
	struct fake_nbd_plan hangs = plan;
	struct rig_io io = { 0 };
	struct world w;

	(void)state;
	hangs.hang_after = 1;
	start(&w, &hangs, "");
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	rig_submit(&w.rig, &io, REQ_FLUSH, 0, 0, 0);
	turn_until(&w, &w.server.flushes, 1);
	replace(&w);
	rig_wait(&w.rig, &io.is_done);
	assert_int_equal(io.err, EIO);
	rig_release(&io);
	stop(&w);
}

static void a_server_that_keeps_its_writes_may_go(void **state)
{
	struct world w;

	(void)state;
	start(&w, &plan, "keeps-writes\n");
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	replace(&w);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	stop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(what_was_not_flushed_when_the_server_went_fails_the_next_flushes),
		WORLD_TEST(a_flush_that_is_on_its_way_when_the_server_goes_fails),
		WORLD_TEST(a_server_that_keeps_its_writes_may_go),
	};

	return world_run(tests, ARRAY_LEN(tests), "60000");
}
