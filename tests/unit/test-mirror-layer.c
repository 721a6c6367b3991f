/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-mirror-layer - the mirror between a disk that obeys the test and a far side that obeys the test
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mirror/mirror.h"
#include "tests/lib/fake-nbd.h"

#define SIZE (UINT64_C(1) << 20)

/* A disk in memory, all of it a hole at first. What it is told to hold back it completes when the test says so. */
struct disk {
	struct layer layer;
	uint8_t bytes[SIZE];
	bool is_allocated[SIZE / 4096];
	bool holds_extents;
	struct req *held;
	int read_err, write_err, flush_err;
	unsigned extents_asked;
};

struct world {
	struct loop *loop;
	struct loop_timer *alarm;
	struct iobuf_pool *pool;
	struct disk disk;
	struct layer *mirror;
	struct fake_nbd far;
	unsigned done, finished, aborted, changes;
	uint64_t links;
	int done_err;
	struct error finish_error;
	bool (*is_there)(struct world *w);
};

/* --- the disk */

static void fill_extents(struct disk *d, struct req *r)
{
	for (uint64_t at = r->range.start; at < r->range.end; at += 4096)
		extents_add(r->extents, (struct range){ at, MIN(at + 4096, r->range.end) },
		            d->is_allocated[at / 4096] ? 0 : EXTENT_HOLE | EXTENT_ZERO);
}

static int transfer(struct disk *d, struct req *r)
{
	uint64_t bytes = range_length(r->range);

	switch (r->op) {
	case REQ_READ:
		memcpy(r->data->data + r->data_offset, d->bytes + r->range.start, bytes);
		return d->read_err;
	case REQ_WRITE:
		if (d->write_err)
			return d->write_err;
		memcpy(d->bytes + r->range.start, r->data->data + r->data_offset, bytes);
		memset(d->is_allocated + r->range.start / 4096, 1, (bytes + 4095) / 4096);
		return 0;
	case REQ_ZERO:
	case REQ_TRIM:
		memset(d->bytes + r->range.start, 0, bytes);
		return d->write_err;
	case REQ_FLUSH:
		return d->flush_err;
	case REQ_EXTENTS:
		d->extents_asked++;
		fill_extents(d, r);
		return 0;
	case REQ_CACHE:
		return 0;
	}
	abort();
}

static void disk_submit(struct layer *l, struct req *r)
{
	struct disk *d = container_of(l, struct disk, layer);
	int err = transfer(d, r);

	if (r->op == REQ_EXTENTS && d->holds_extents)
		d->held = r;
	else
		req_complete(r, err);
}

static const struct layer_ops disk_ops = { .name = "test", .submit = disk_submit };

/* --- the world */

static void check(struct world *w)
{
	if (w->is_there && w->is_there(w))
		loop_stop(w->loop);
}

static struct mirror_status status_of(struct world *w)
{
	struct mirror_status s;

	mirror_status(w->mirror, &s);
	return s;
}

static void on_alarm(void *arg)
{
	const struct mirror_status s = status_of(arg);

	fail_msg("nothing happened for 60 s: state %d, %s%s", (int)s.core.state, s.is_connected ? "connected" : "not connected ",
		 s.why.text);
}

static void await(struct world *w, bool (*is_there)(struct world *w))
{
	w->is_there = is_there;
	if (!is_there(w)) {
		loop_timer_set(w->alarm, 60000);
		loop_run(w->loop);
		loop_timer_clear(w->alarm);
	}
	w->is_there = NULL;
	assert_true(is_there(w));
}

static void on_change(void *arg)
{
	struct world *w = arg;

	w->changes++;
	check(w);
}

static bool is_synced(struct world *w) { return status_of(w).core.state == CORE_SYNCED; }
static bool is_failed(struct world *w) { return status_of(w).core.state == CORE_FAILED; }
static bool is_connected(struct world *w) { return status_of(w).is_connected; }
static bool is_held(struct world *w) { return w->disk.held != NULL; }
static bool is_done(struct world *w) { return w->done > 0; }
static bool is_finished(struct world *w) { return w->finished > 0; }
static bool is_aborted(struct world *w) { return w->aborted > 0; }
static bool is_aborted_twice(struct world *w) { return w->aborted == 2; }

static void on_done(struct req *r)
{
	struct world *w = r->arg;

	w->done++;
	w->done_err = r->err;
	iobuf_return(r->data);
	req_put(r);
	check(w);
}

static void ask(struct world *w, enum req_op op, uint64_t start, uint64_t bytes, int byte)
{
	struct req *r = req_get();

	r->op = op;
	r->range = (struct range){ start, start + bytes };
	r->done = on_done;
	r->arg = w;
	if (op == REQ_WRITE || op == REQ_READ) {
		r->data = iobuf_get(w->pool, bytes);
		memset(r->data->data, byte, bytes);
	}
	w->done = 0;
	layer_submit(w->mirror, r);
}

/* What is asked is answered, and well. */
static void write_well(struct world *w, uint64_t start, uint64_t bytes, int byte)
{
	ask(w, REQ_WRITE, start, bytes, byte);
	await(w, is_done);
	assert_int_equal(w->done_err, 0);
}

static void on_finished(void *arg, const struct error *e)
{
	struct world *w = arg;

	w->finished++;
	if (e)
		w->finish_error = *e;
	check(w);
}

static void on_aborted(void *arg)
{
	struct world *w = arg;

	w->aborted++;
	check(w);
}

static void end(struct world *w)
{
	w->aborted = 0;
	mirror_abort(w->mirror, on_aborted, w);
	await(w, is_aborted);
	layer_close(w->mirror);
	w->mirror = NULL;
}

static void finish_well(struct world *w)
{
	mirror_finish(w->mirror, on_finished, w);
	await(w, is_finished);
	if (w->finish_error.err)
		fail_msg("%s", w->finish_error.text);
	assert_memory_equal(w->disk.bytes, w->far.disk, SIZE);
	assert_true(atomic_load(&w->far.flushes) > 0);
	fake_nbd_await_end(&w->far);
	assert_true(atomic_load(&w->far.goodbyes) > 0);
}

static void make(struct world *w, const struct fake_nbd_plan *plan)
{
	struct mirror_spec spec = { .loop = w->loop, .below = &w->disk.layer, .uri = w->far.uri, .on_change = on_change, .arg = w };
	struct error e = { 0 };

	fake_nbd_start(&w->far, plan, 0);
	w->mirror = mirror_new(&spec, &e);
	if (!w->mirror)
		fail_msg("%s", e.text);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct geometry g = { .size_bytes = SIZE, .block_bytes = 512, .can_trim = true, .can_zero = true, .trim_reads_zero = true };

	w->loop = loop_new();
	req_init(w->loop);
	w->alarm = loop_timer_new(w->loop, on_alarm, w);
	w->pool = iobuf_pool_new(16 << 20);
	layer_init(&w->disk.layer, &disk_ops, NULL, &g);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	if (w->far.own)
		fake_nbd_stop(&w->far);
	loop_timer_free(w->alarm);
	iobuf_pool_free(w->pool);
	req_fini();
	loop_free(w->loop);
	free(w);
	return 0;
}

static const struct fake_nbd_plan plain = { .size_bytes = SIZE, .can_zero = true };

/* The extents say "hole"; before they are heard a write fills it. */
static void a_write_between_extents_and_their_answer_is_not_lost(void **state)
{
	struct world *w = *state;

	w->disk.holds_extents = true;
	make(w, &plain);
	memset(w->far.disk, 0x77, SIZE);
	mirror_start(w->mirror);
	await(w, is_held);
	write_well(w, 65536, 8192, 0xab);
	req_complete(w->disk.held, 0);
	await(w, is_synced);
	finish_well(w);
	end(w);
}

static void what_was_written_before_the_start_goes_over(void **state)
{
	struct world *w = *state;

	make(w, &plain);
	write_well(w, 512, 1024, 0x5a);
	mirror_start(w->mirror);
	await(w, is_synced);
	write_well(w, 512, 512, 0x5b);
	ask(w, REQ_TRIM, 0, 1024, 0);
	await(w, is_done);
	ask(w, REQ_ZERO, 8192, 4096, 0);
	await(w, is_done);
	finish_well(w);
	end(w);
}

/* The buffer is the frontend's again at done(); the far leg has its own reference. */
static void a_buffer_given_back_early_still_goes_over(void **state)
{
	struct world *w = *state;

	make(w, &plain);
	mirror_start(w->mirror);
	await(w, is_synced);
	for (unsigned i = 0; i < 64; i++)
		write_well(w, i * 4096u, 4096, (int)i + 1);
	finish_well(w);
	assert_int_equal(iobuf_pool_used(w->pool), 0);
	end(w);
}

static void a_local_write_error_is_the_guests_alone(void **state)
{
	struct world *w = *state;

	make(w, &plain);
	mirror_start(w->mirror);
	await(w, is_synced);
	w->disk.write_err = EIO;
	ask(w, REQ_WRITE, 4096, 4096, 1);
	await(w, is_done);
	assert_int_equal(w->done_err, EIO);
	w->disk.write_err = 0;
	write_well(w, 4096, 4096, 2);
	finish_well(w);
	end(w);
}

static void an_unreadable_disk_fails_the_mirror_with_a_reason(void **state)
{
	struct world *w = *state;

	w->disk.read_err = EIO;
	w->disk.is_allocated[3] = true;
	make(w, &plain);
	mirror_start(w->mirror);
	await(w, is_failed);
	assert_non_null(strstr(status_of(w).why.text, "could not be read at 12288"));
	write_well(w, 0, 4096, 1);
	end(w);
}

static void a_flush_that_fails_at_home_fails_both(void **state)
{
	struct world *w = *state;

	make(w, &plain);
	mirror_start(w->mirror);
	await(w, is_synced);
	w->disk.flush_err = EIO;
	ask(w, REQ_FLUSH, 0, 0, 0);
	await(w, is_done);
	assert_int_equal(w->done_err, EIO);
	await(w, is_failed);
	assert_non_null(strstr(status_of(w).why.text, "flush of this disk"));
	end(w);
}

static void a_full_far_side_fails_the_mirror_not_the_guest(void **state)
{
	struct world *w = *state;

	make(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_zero = true, .write_error = 28 });
	mirror_start(w->mirror);
	await(w, is_connected);
	write_well(w, 0, 4096, 1);
	await(w, is_failed);
	assert_non_null(strstr(status_of(w).why.text, "No space left"));
	mirror_finish(w->mirror, on_finished, w);
	await(w, is_finished);
	assert_int_equal(w->finish_error.err, ENOSPC);
	end(w);
}

static void a_mute_far_side_does_not_hold_the_guest(void **state)
{
	struct world *w = *state;

	make(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_zero = true, .hang_after = 1 });
	mirror_start(w->mirror);
	await(w, is_connected);
	for (unsigned i = 0; i < 64; i++)
		write_well(w, i * 8192u, 8192, 1);
	assert_false(is_failed(w));
	end(w);
}

static void what_is_owed_or_on_its_way_is_not_settled(void **state)
{
	struct range written = { 8192, 16384 }, other = { 65536, SIZE };
	struct world *w = *state;

	make(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .can_zero = true, .hang_after = 1 });
	assert_false(mirror_is_settled(w->mirror, other));
	mirror_start(w->mirror);
	await(w, is_synced);
	assert_true(mirror_is_settled(w->mirror, (struct range){ 0, SIZE }));
	for (unsigned i = 0; i < 4; i++)
		write_well(w, written.start, 8192, 1);
	assert_false(mirror_is_settled(w->mirror, written));
	assert_false(mirror_is_settled(w->mirror, (struct range){ 12288, 20480 }));
	assert_true(mirror_is_settled(w->mirror, other));
	w->disk.write_err = EIO; /* what is there now is not known: it is owed */
	ask(w, REQ_WRITE, 40960, 4096, 1);
	await(w, is_done);
	assert_false(mirror_is_settled(w->mirror, (struct range){ 40960, 40961 }));
	mirror_abort(w->mirror, on_aborted, w);
	await(w, is_aborted);
	assert_true(mirror_is_settled(w->mirror, written)); /* nothing comes any more: what differs, differs */
	end(w);
}

static void every_abort_is_answered(void **state)
{
	struct world *w = *state;

	make(w, &(struct fake_nbd_plan){ .manner = FAKE_NBD_SILENT, .size_bytes = SIZE });
	mirror_start(w->mirror);
	mirror_abort(w->mirror, on_aborted, w);
	mirror_abort(w->mirror, on_aborted, w);
	await(w, is_aborted_twice);
	assert_int_equal(status_of(w).core.state, CORE_ENDED);
	write_well(w, 0, 4096, 1);
	end(w);
}

static void an_abort_while_extents_are_asked_waits_for_them(void **state)
{
	struct world *w = *state;

	w->disk.holds_extents = true;
	make(w, &plain);
	mirror_start(w->mirror);
	await(w, is_held);
	mirror_abort(w->mirror, on_aborted, w);
	write_well(w, 0, 4096, 1);
	assert_int_equal(w->aborted, 0);
	req_complete(w->disk.held, 0);
	await(w, is_aborted);
	assert_int_equal(atomic_load(&w->far.accepted), 0);
	end(w);
}

static void on_numbered(void *arg, const struct mirror_peer *p, void (*done)(void *done_arg, int err), void *done_arg)
{
	struct world *w = arg;

	if (!done)
		return;
	w->links = p->generation;
	done(done_arg, 0);
	check(w);
}

static bool is_tried_twice(struct world *w)
{
	return w->links >= 9;
}

/* Twice that long a barrier waits for a link, and a whole twenty seconds would be beyond it. */
static void a_far_side_that_has_greeted_once_must_be_quicker_the_next_time(void **state)
{
	struct world *w = *state;
	struct mirror_spec spec = {
		.loop = w->loop, .below = &w->disk.layer, .uri = w->far.uri, .mirror_id = "m", .epoch = 1,
		.peer = { .generation = 7 }, .save_peer = on_numbered, .on_change = on_change, .arg = w,
	};
	struct error e = { 0 };
	uint64_t start_ns;

	fake_nbd_start(&w->far, &(struct fake_nbd_plan){ .manner = FAKE_NBD_SILENT, .size_bytes = SIZE }, 0);
	w->mirror = mirror_new(&spec, &e);
	assert_non_null(w->mirror);
	start_ns = loop_now_ns();
	mirror_start(w->mirror);
	await(w, is_tried_twice);
	assert_true(loop_now_ns() - start_ns < 19 * NS_PER_S);
	end(w);
}

static void a_mirror_that_never_started_may_be_closed(void **state)
{
	struct world *w = *state;

	make(w, &plain);
	write_well(w, 0, 4096, 1);
	layer_close(w->mirror);
	assert_int_equal(w->disk.extents_asked, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_write_between_extents_and_their_answer_is_not_lost),
		TEST(what_was_written_before_the_start_goes_over),
		TEST(a_buffer_given_back_early_still_goes_over),
		TEST(a_local_write_error_is_the_guests_alone),
		TEST(an_unreadable_disk_fails_the_mirror_with_a_reason),
		TEST(a_flush_that_fails_at_home_fails_both),
		TEST(a_full_far_side_fails_the_mirror_not_the_guest),
		TEST(a_mute_far_side_does_not_hold_the_guest),
		TEST(what_is_owed_or_on_its_way_is_not_settled),
		TEST(every_abort_is_answered),
		TEST(an_abort_while_extents_are_asked_waits_for_them),
		TEST(a_far_side_that_has_greeted_once_must_be_quicker_the_next_time),
		TEST(a_mirror_that_never_started_may_be_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
