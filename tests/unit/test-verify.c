/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-verify - a disk in memory against far sides that misbehave
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "block/req.h"
#include "mirror/verify.h"
#include "tests/lib/fake-nbd.h"
#include "tests/lib/memory-layer.h"

#define SIZE (4 * MiB)
#define CHUNK VERIFY_CHUNK_BYTES
#define PATIENT_MS 30000 /* what the far side's threads have for their work on a machine that is busy */
#define ALARM_MS 60000

/* The disk, and a layer over it that notes what is read and fails what it is told to fail. */
struct world {
	struct loop *loop;
	struct loop_timer *alarm;
	struct loop_task stop;
	struct layer *memory, top;
	struct fake_nbd far;
	struct verify *v;
	struct verify_spec spec;
	struct verify_status s;
	unsigned changes, overs;
	unsigned reads, cached_reads, most_in_flight;
	uint64_t fail_at;    /* UINT64_MAX: nowhere */
	int fail_err;
	bool is_settled;
	unsigned settled_asks, settled_for; /* is_settled for so many asks, then not */
	uint64_t in_flight_guests;
	bool is_rewriting;   /* a guest writes what is there already, while it is being read again */
	bool is_slow;        /* a write stands still */
	struct req *slow;
	struct iobuf_pool *pool;
};

static void on_rewritten(struct req *r)
{
	iobuf_return(r->data);
	req_put(r);
}

static void rewrite(struct world *w, struct range range)
{
	struct req *r = req_get();

	r->op = REQ_WRITE;
	r->range = range;
	r->data = iobuf_get(w->pool, range_length(range));
	memcpy(r->data->data, memory_layer_bytes(w->memory) + range.start, range_length(range));
	r->done = on_rewritten;
	layer_submit(&w->top, r);
}

static void submit(struct layer *l, struct req *r)
{
	struct world *w = container_of(l, struct world, top);

	if (r->op == REQ_READ && w->is_rewriting && range_length(r->range) == CHUNK)
		rewrite(w, r->range);
	if (r->op == REQ_WRITE && w->is_slow) {
		w->slow = r;
		return;
	}
	if (r->op == REQ_READ) {
		w->reads++;
		w->cached_reads += !(r->flags & REQ_UNCACHED);
		w->most_in_flight = MAX(w->most_in_flight, l->in_flight - (unsigned)w->in_flight_guests);
		if (w->fail_at >= r->range.start && w->fail_at < r->range.end) {
			req_complete(r, w->fail_err);
			return;
		}
	}
	layer_forward(l->below, r);
}

static void close_top(struct layer *l)
{
	(void)l;
}

static const struct layer_ops top_ops = { .name = "top", .submit = submit, .close = close_top };

static void on_alarm(void *arg)
{
	struct world *w = arg;

	verify_status(w->v, &w->s);
	fail_msg("nothing happened for 60 s: state %d, %s; %u reads here, %u requests in flight", (int)w->s.state, w->s.why.text, w->reads,
		 w->top.in_flight);
}

static void on_change(void *arg)
{
	struct world *w = arg;

	w->changes++;
	loop_stop(w->loop);
}

static void on_over(void *arg)
{
	struct world *w = arg;

	w->overs++;
	loop_stop(w->loop);
}

static bool ask_settled(void *arg, struct range r)
{
	struct world *w = arg;

	assert_false(range_is_empty(r));
	return w->is_settled && w->settled_asks++ < w->settled_for;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->loop = loop_new();
	req_init(w->loop);
	w->alarm = loop_timer_new(w->loop, on_alarm, w);
	w->memory = memory_layer_new(SIZE);
	layer_init(&w->top, &top_ops, w->memory, &w->memory->geometry);
	w->pool = iobuf_pool_new(MiB);
	w->fail_at = UINT64_MAX;
	w->is_settled = true;
	w->settled_for = UINT32_MAX;
	w->spec = (struct verify_spec){
		.loop = w->loop, .top = &w->top, .connect_wait_ms = PATIENT_MS, .handshake_ms = PATIENT_MS,
		.dead_ms = PATIENT_MS, .tries = 4, .pause_ms = 1, .is_settled = ask_settled, .on_change = on_change, .on_over = on_over, .arg = w,
	};
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	verify_free(w->v);
	if (w->far.own)
		fake_nbd_stop(&w->far);
	layer_close(&w->top);
	layer_close(w->memory);
	iobuf_pool_free(w->pool);
	loop_timer_free(w->alarm);
	req_fini();
	loop_free(w->loop);
	free(w);
	return 0;
}

/* Random bytes here, the same there. */
static void start(struct world *w, const struct fake_nbd_plan *plan)
{
	struct error e = { 0 };

	fake_nbd_start(&w->far, plan, 0);
	for (size_t i = 0; i < SIZE; i++)
		memory_layer_bytes(w->memory)[i] = w->far.disk[i] = (uint8_t)(i * 2654435761u >> 13);
	w->spec.uri = w->spec.uri ? w->spec.uri : w->far.uri;
	w->v = verify_new(&w->spec, &e);
	if (!w->v)
		fail_msg("%s", e.text);
}

static void run_until(struct world *w, const unsigned *what)
{
	loop_timer_set(w->alarm, ALARM_MS);
	while (!*what)
		loop_run(w->loop);
	loop_timer_clear(w->alarm);
	verify_status(w->v, &w->s);
}

static void stop(struct loop_task *t)
{
	loop_stop(container_of(t, struct world, stop)->loop);
}

static void run_once(struct world *w)
{
	w->stop.run = stop;
	loop_defer(w->loop, &w->stop);
	loop_run(w->loop);
}

static const struct verify_result *finish(struct world *w)
{
	verify_start(w->v);
	run_until(w, &w->overs);
	return &w->s.result;
}

static void failed_because(struct world *w, int err, const char *because)
{
	finish(w);
	assert_int_equal(w->s.state, VERIFY_FAILED);
	assert_false(w->s.is_verified);
	assert_int_equal(w->s.why.err, err);
	if (!strstr(w->s.why.text, because))
		fail_msg("\"%s\" does not say \"%s\"", w->s.why.text, because);
}

static const struct fake_nbd_plan plain = { .size_bytes = SIZE, .can_zero = true };

static void equal_sides_are_verified_and_nothing_is_changed(void **state)
{
	struct world *w = *state;

	start(w, &plain);
	finish(w);
	assert_int_equal(w->s.state, VERIFY_COMPLETE);
	assert_true(w->s.is_verified);
	assert_int_equal(w->s.result.done_bytes, SIZE);
	assert_int_equal(w->far.reads, SIZE / VERIFY_PIECE_BYTES);
	assert_int_equal(w->far.writes + w->far.zeroes, 0);
	fake_nbd_await_end(&w->far);
	assert_int_equal(w->far.goodbyes, 1);
	assert_int_equal(w->cached_reads, 0);
	assert_int_equal(w->changes, 2);
	assert_int_equal(w->most_in_flight, VERIFY_PIECES_MAX);
}

static void differences_are_found(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .is_read_only = true });
	w->far.disk[100 * CHUNK + 17] ^= 0x80;
	memory_layer_bytes(w->memory)[SIZE - 1] ^= 1;
	r = finish(w);
	assert_int_equal(w->s.state, VERIFY_COMPLETE);
	assert_false(w->s.is_verified);
	assert_int_equal(r->different.count, 2);
	assert_int_equal(r->different.item[0].start, 100 * CHUNK);
	assert_int_equal(r->different.item[1].start, SIZE - CHUNK);
	assert_int_equal(r->different_bytes, 2 * CHUNK);
}

static void what_is_still_on_its_way_is_unsettled(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;

	w->is_settled = false;
	start(w, &plain);
	w->far.disk[0] ^= 1;
	r = finish(w);
	assert_int_equal(r->different_bytes, 0);
	assert_int_equal(r->unsettled_bytes, CHUNK);
	assert_false(w->s.is_verified);
}

/* Asked before and after: a write may come and go in between. */
static void settled_before_is_not_settled_after(void **state)
{
	struct world *w = *state;

	w->settled_for = 3; /* the first reading is not asked for; then before, after, before */
	start(w, &plain);
	w->far.disk[0] ^= 1;
	assert_int_equal(finish(w)->different_bytes, 0);
	assert_int_equal(w->s.result.unsettled_bytes, CHUNK);
}

/* Neither before nor after, and the same contents each time. */
static void a_write_during_the_reading_is_noticed(void **state)
{
	struct world *w = *state;

	w->is_rewriting = true;
	start(w, &plain);
	w->far.disk[0] ^= 1;
	w->far.disk[SIZE - 1] ^= 1;
	assert_int_equal(finish(w)->different_bytes, 0);
	assert_int_equal(w->s.result.unsettled_bytes, 2 * CHUNK);
}

/* It has long arrived over there. */
static void a_write_that_takes_longer_than_all_readings_is_noticed(void **state)
{
	struct world *w = *state;

	w->is_slow = true;
	start(w, &plain);
	verify_start(w->v);
	rewrite(w, (struct range){ 0, 100 });
	w->far.disk[0] ^= 1;
	w->far.disk[CHUNK] ^= 1;
	run_until(w, &w->overs);
	assert_int_equal(w->s.result.unsettled_bytes, CHUNK);
	assert_int_equal(w->s.result.different.count, 1);
	assert_int_equal(w->s.result.different.item[0].start, CHUNK);
	req_complete(w->slow, 0);
	run_once(w);
}

static void guests_leave_room_for_one_small_piece(void **state)
{
	struct world *w = *state;

	w->in_flight_guests = 1;
	w->top.in_flight = 1;
	start(w, &plain);
	finish(w);
	w->top.in_flight = 0;
	assert_true(w->s.is_verified);
	assert_int_equal(w->most_in_flight, 1);
	assert_int_equal(w->far.longest, 65536);
}

static void a_far_side_with_small_requests_is_asked_in_small_ones(void **state)
{
	struct world *w = *state;

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .min_block = 512, .max_block = 65536 });
	finish(w);
	assert_true(w->s.is_verified);
	assert_int_equal(w->far.longest, 65536);
}

static void a_read_error_here_is_told(void **state)
{
	struct world *w = *state;

	w->fail_at = 1000000;
	w->fail_err = EIO;
	start(w, &plain);
	failed_because(w, EIO, "this disk could not be read at 786432");
}

static void a_disk_that_is_closed_meanwhile_is_told(void **state)
{
	struct world *w = *state;

	w->fail_at = 1000000;
	w->fail_err = ESHUTDOWN;
	start(w, &plain);
	failed_because(w, ESHUTDOWN, "closed or handed over");
}

static void a_read_error_there_is_told(void **state)
{
	struct world *w = *state;

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .read_error = 5 });
	failed_because(w, EIO, "the far side could not be read at 0");
}

static void a_far_side_that_goes_is_told(void **state)
{
	struct world *w = *state;

	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .die_after = 3 });
	finish(w);
	assert_int_equal(w->s.state, VERIFY_FAILED);
	assert_non_null(strstr(w->s.why.text, "link to the far side was lost"));
}

static void a_far_side_that_stops_is_given_up(void **state)
{
	struct world *w = *state;

	w->spec.dead_ms = 300;
	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .hang_after = 2 });
	failed_because(w, ETIMEDOUT, "no progress for 300 ms");
}

static void nobody_there_is_told(void **state)
{
	struct world *w = *state;

	w->spec.uri = "nbd+unix:///x?socket=/tmp/sxm-no-such-socket";
	w->spec.connect_wait_ms = 100;
	start(w, &plain);
	failed_because(w, ENOENT, "sxm-no-such-socket");
}

static void one_client_only_is_guessed(void **state)
{
	struct world *w = *state;

	w->spec.handshake_ms = 150;
	start(w, &(struct fake_nbd_plan){ .manner = FAKE_NBD_SILENT, .size_bytes = SIZE });
	failed_because(w, ETIMEDOUT, "another client");
}

static void cancelled_while_connecting_it_ends_soon(void **state)
{
	struct world *w = *state;
	uint64_t start_ns;

	w->spec.handshake_ms = 600000;
	start(w, &(struct fake_nbd_plan){ .manner = FAKE_NBD_SILENT, .size_bytes = SIZE });
	verify_start(w->v);
	start_ns = loop_now_ns();
	verify_cancel(w->v, NULL);
	verify_cancel(w->v, NULL);
	run_until(w, &w->overs);
	assert_int_equal(w->s.state, VERIFY_CANCELLED);
	assert_true(loop_now_ns() - start_ns < 30 * NS_PER_S);
	assert_int_equal(w->reads, 0);
}

static void on_tick(void *arg)
{
	struct world *w = arg;

	loop_stop(w->loop);
}

static void cancelled_while_reading_it_touches_nothing_more(void **state)
{
	struct world *w = *state;
	struct loop_timer *tick;
	struct error why = { 0 };
	unsigned reads;

	w->spec.dead_ms = 600000;
	start(w, &(struct fake_nbd_plan){ .size_bytes = SIZE, .hang_after = 2 });
	verify_start(w->v);
	run_until(w, &w->changes);
	tick = loop_timer_new(w->loop, on_tick, w);
	loop_timer_set(w->alarm, ALARM_MS);
	while (w->far.reads < 3) {
		loop_timer_set(tick, 1);
		loop_run(w->loop);
	}
	loop_timer_clear(w->alarm);
	loop_timer_free(tick);
	error_set(&why, EBUSY, "the guest comes first");
	verify_cancel(w->v, &why);
	reads = w->reads;
	run_until(w, &w->overs);
	assert_int_equal(w->s.state, VERIFY_FAILED);
	assert_string_equal(w->s.why.text, "the guest comes first");
	assert_int_equal(w->reads, reads);
	assert_int_equal(w->top.in_flight, 0);
	assert_int_equal(w->overs, 1);
}

static void a_bad_uri_is_refused_at_once(void **state)
{
	struct world *w = *state;
	struct error e = { 0 };

	w->spec.uri = "http://example.org/";
	assert_null(verify_new(&w->spec, &e));
	assert_int_equal(e.err, EINVAL);
	w->spec.uri = NULL;
	start(w, &plain); /* one that is never started can be freed, too */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(equal_sides_are_verified_and_nothing_is_changed),
		TEST(differences_are_found),
		TEST(what_is_still_on_its_way_is_unsettled),
		TEST(settled_before_is_not_settled_after),
		TEST(a_write_during_the_reading_is_noticed),
		TEST(a_write_that_takes_longer_than_all_readings_is_noticed),
		TEST(guests_leave_room_for_one_small_piece),
		TEST(a_far_side_with_small_requests_is_asked_in_small_ones),
		TEST(a_read_error_here_is_told),
		TEST(a_disk_that_is_closed_meanwhile_is_told),
		TEST(a_read_error_there_is_told),
		TEST(a_far_side_that_goes_is_told),
		TEST(a_far_side_that_stops_is_given_up),
		TEST(nobody_there_is_told),
		TEST(one_client_only_is_guessed),
		TEST(cancelled_while_connecting_it_ends_soon),
		TEST(cancelled_while_reading_it_touches_nothing_more),
		TEST(a_bad_uri_is_refused_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
