/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The stack's gateway and the gate: what is held waits and is not waited for, a drain ends when the last request did,
 * nothing out of range or read-only passes, every request ends once and outside its submitter's stack.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>

#include "block/extents.h"
#include "block/gate.h"
#include "block/layer.h"

/* A bottom layer that ends requests when the test says so. */
struct fake {
	struct layer layer;
	struct req *held[16];
	unsigned count;
};

static struct loop *the_loop;
static struct fake fake;
static struct layer *gate;
static struct iobuf_pool *buffers;
static unsigned done_count, idle_count;
static int last_err;

static void fake_submit(struct layer *l, struct req *r)
{
	struct fake *f = container_of(l, struct fake, layer);

	assert_true(f->count < ARRAY_LEN(f->held));
	f->held[f->count++] = r;
}

static void fake_close(struct layer *l)
{
	(void)l;
}

static const struct layer_ops fake_ops = { "fake", fake_submit, fake_close };

static void end_all(int err)
{
	for (unsigned i = 0; i < fake.count; i++)
		req_complete(fake.held[i], err);
	fake.count = 0;
}

static void stop(struct loop_task *t)
{
	(void)t;
	loop_stop(the_loop);
}

/* Everything that is posted now, and what that posts. */
static void turn(void)
{
	static struct loop_task stopper = { .run = stop };

	loop_defer(the_loop, &stopper);
	loop_run(the_loop);
}

static void on_done(struct req *r)
{
	done_count++;
	last_err = r->err;
	iobuf_return(r->data);
	req_put(r);
}

static void submit(enum req_op op, uint64_t start, uint64_t end)
{
	struct req *r = req_get();

	assert_non_null(r);
	r->op = op;
	r->range = (struct range){ start, end };
	r->done = on_done;
	if (op == REQ_READ || op == REQ_WRITE) {
		r->data = iobuf_get(buffers, 4096);
		assert_non_null(r->data);
	}
	layer_submit(gate, r);
}

static void on_idle(struct layer *l, void *arg)
{
	(void)arg;
	assert_int_equal(l->in_flight, 0);
	idle_count++;
}

static int setup(void **state)
{
	const struct geometry g = { .size_bytes = 1 * MiB, .block_bytes = 512 };

	(void)state;
	the_loop = loop_new();
	req_init(the_loop);
	buffers = iobuf_pool_new(64 * KiB);
	fake = (struct fake){ 0 };
	layer_init(&fake.layer, &fake_ops, NULL, &g);
	gate = gate_new(&fake.layer);
	done_count = idle_count = 0;
	last_err = -1;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	layer_close(gate);
	iobuf_pool_free(buffers);
	req_fini();
	loop_free(the_loop);
	return 0;
}

static void a_request_ends_once_and_not_in_its_submitters_stack(void **state)
{
	(void)state;
	submit(REQ_WRITE, 0, 4096);
	assert_int_equal(fake.count, 1);
	end_all(0);
	assert_int_equal(done_count, 0);
	assert_int_equal(gate->in_flight, 1);
	turn();
	assert_int_equal(done_count, 1);
	assert_int_equal(last_err, 0);
	assert_int_equal(gate->in_flight, 0);
	assert_int_equal(fake.layer.in_flight, 0);
}

static void what_is_out_of_range_never_reaches_the_disk(void **state)
{
	(void)state;
	submit(REQ_READ, 1 * MiB - 512, 1 * MiB + 512);
	turn();
	assert_int_equal(last_err, EINVAL);
	submit(REQ_WRITE, 1 * MiB, 1 * MiB + 1);
	turn();
	assert_int_equal(last_err, ENOSPC);
	submit(REQ_ZERO, 2 * MiB, 1 * MiB);
	turn();
	assert_int_equal(last_err, ENOSPC);
	submit(REQ_WRITE, 512, 512);
	turn();
	assert_int_equal(last_err, 0);
	assert_int_equal(fake.count, 0);
}

static void a_read_only_disk_is_not_written(void **state)
{
	(void)state;
	gate->geometry.is_read_only = true;
	submit(REQ_WRITE, 0, 512);
	turn();
	assert_int_equal(last_err, EPERM);
	submit(REQ_TRIM, 0, 512);
	turn();
	assert_int_equal(last_err, EPERM);
	submit(REQ_FLUSH, 0, 0);
	assert_int_equal(fake.count, 1);
	end_all(0);
	turn();
	assert_int_equal(last_err, 0);
}

static void a_held_gate_drains_while_requests_wait_at_it(void **state)
{
	(void)state;
	submit(REQ_WRITE, 0, 512);
	gate_hold(gate);
	submit(REQ_WRITE, 512, 1024);
	assert_int_equal(fake.count, 1);
	layer_drain(gate, on_idle, NULL);
	turn();
	assert_int_equal(idle_count, 0);
	end_all(0);
	turn();
	assert_int_equal(idle_count, 1);
	assert_int_equal(done_count, 1);
	gate_release(gate);
	assert_int_equal(fake.count, 1);
	end_all(EIO);
	turn();
	assert_int_equal(done_count, 2);
	assert_int_equal(last_err, EIO);
	assert_int_equal(idle_count, 1);
}

static void a_drain_of_an_idle_layer_ends_soon_but_not_at_once(void **state)
{
	(void)state;
	gate_hold(gate);
	layer_drain(gate, on_idle, NULL);
	assert_int_equal(idle_count, 0);
	turn();
	assert_int_equal(idle_count, 1);
}

static void a_refusing_gate_ends_what_waited_and_what_comes(void **state)
{
	(void)state;
	gate_hold(gate);
	submit(REQ_WRITE, 0, 512);
	gate_refuse(gate, ESHUTDOWN);
	submit(REQ_READ, 0, 512);
	turn();
	assert_int_equal(done_count, 2);
	assert_int_equal(last_err, ESHUTDOWN);
	assert_int_equal(fake.count, 0);
}

static void what_waited_is_checked_against_the_new_stack(void **state)
{
	const struct geometry smaller = { .size_bytes = 4096, .block_bytes = 512 };
	struct layer other;

	(void)state;
	layer_init(&other, &fake_ops, NULL, &smaller);
	gate_hold(gate);
	submit(REQ_WRITE, 8192, 8704);
	gate_set_below(gate, &other);
	gate_release(gate);
	turn();
	assert_int_equal(last_err, ENOSPC);
}

static void extents_merge_and_stop_at_their_bound(void **state)
{
	struct extents x;

	(void)state;
	extents_init(&x, 2);
	assert_int_equal(extents_add(&x, (struct range){ 0, 10 }, 0), 0);
	assert_int_equal(extents_add(&x, (struct range){ 10, 20 }, 0), 0);
	assert_int_equal(extents_add(&x, (struct range){ 20, 30 }, EXTENT_HOLE | EXTENT_ZERO), 0);
	assert_int_equal(extents_add(&x, (struct range){ 30, 40 }, 0), 1);
	assert_int_equal(x.count, 2);
	assert_int_equal(x.item[0].range.end, 20);
	extents_fini(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_request_ends_once_and_not_in_its_submitters_stack, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_out_of_range_never_reaches_the_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(a_read_only_disk_is_not_written, setup, teardown),
		cmocka_unit_test_setup_teardown(a_held_gate_drains_while_requests_wait_at_it, setup, teardown),
		cmocka_unit_test_setup_teardown(a_drain_of_an_idle_layer_ends_soon_but_not_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refusing_gate_ends_what_waited_and_what_comes, setup, teardown),
		cmocka_unit_test_setup_teardown(what_waited_is_checked_against_the_new_stack, setup, teardown),
		cmocka_unit_test(extents_merge_and_stop_at_their_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
