/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A limit of bytes a second: copies keep it, zeros do not count, a guest's writes do and never wait, a handover knows none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mirror/core.h"

#define MIB UINT64_C(1048576)
#define DISK_BYTES (64 * MIB)
#define LIMIT (2 * MIB)
#define TICK_NS (10 * NS_PER_MS)

static struct core *core;
static struct core_actions out;
static struct core_status status;
static uint64_t now_ns;
static bool reads_zero;

/* Each leg is over as soon as it was asked for; the last one's answer may ask for more. */
static void happen(struct core_event ev)
{
	struct core_event next[2048];
	unsigned count = 0;

	next[count++] = ev;
	for (unsigned n = 0; n < count; n++) {
		next[n].now_ns = now_ns;
		core_step(core, &next[n], &out);
		for (unsigned i = 0; i < out.count; i++) {
			const struct core_action *a = &out.item[i];
			struct core_event *e = &next[count % ARRAY_LEN(next)];

			assert_true(count < ARRAY_LEN(next) - 2);
			*e = (struct core_event){ .op = a->op, .generation = 1 };
			if (a->type == CORE_DO_COPY_READ) {
				e->type = CORE_COPY_READ_DONE;
				a->op->zeros = (struct core_mask){ 0 };
				for (unsigned bit = 0; reads_zero && bit < CORE_COPY_CHUNKS; bit++)
					core_mask_set(&a->op->zeros, bit);
			} else if (a->type == CORE_DO_REMOTE_SUBMIT) {
				e->type = CORE_REMOTE_DONE;
			} else if (a->type == CORE_DO_FLUSH_FAR) {
				e->type = CORE_FLUSHED;
			} else if (a->type == CORE_DO_FLUSH_HOME) {
				e->type = CORE_HOME_FLUSHED;
			} else {
				continue;
			}
			count++;
		}
		if (out.is_full)
			next[count++] = (struct core_event){ .type = CORE_MORE };
	}
	core_status(core, &status);
}

static void run(unsigned ms)
{
	for (uint64_t end = now_ns + ms * NS_PER_MS; now_ns < end;) {
		now_ns += TICK_NS;
		happen((struct core_event){ .type = CORE_TICK });
	}
}

static int begin(void **state)
{
	static const struct core_far far = {
		.generation = 1, .min_block_bytes = 1, .max_bytes = 1 << 20, .can_zero = true, .can_flush = true, .window_ops = 16,
	};

	(void)state;
	now_ns = NS_PER_S;
	reads_zero = false;
	core = core_new(&(struct core_spec){ .size_bytes = DISK_BYTES });
	assert_non_null(core);
	core_mark_dirty(core, (struct range){ 0, DISK_BYTES });
	happen((struct core_event){ .type = CORE_SET_LIMIT, .limit_bytes = LIMIT });
	happen((struct core_event){ .type = CORE_LINK_UP, .far = far });
	return 0;
}

static int end(void **state)
{
	(void)state;
	core_abandon(core);
	return 0;
}

static void copies_keep_it(void **state)
{
	uint64_t before;

	(void)state;
	run(1000);
	before = status.sent_bytes;
	run(10000);
	assert_in_range(status.sent_bytes - before, 10 * LIMIT * 95 / 100, 10 * LIMIT * 105 / 100);
	assert_int_equal(status.limit_bytes, LIMIT);
}

static void it_changes_and_goes_at_once(void **state)
{
	uint64_t before;

	(void)state;
	run(1000);
	happen((struct core_event){ .type = CORE_SET_LIMIT, .limit_bytes = 3 * LIMIT });
	before = status.sent_bytes;
	run(2000);
	assert_in_range(status.sent_bytes - before, 6 * LIMIT * 90 / 100, 6 * LIMIT * 110 / 100);
	happen((struct core_event){ .type = CORE_SET_LIMIT });
	run(500);
	assert_int_equal(status.dirty_bytes, 0);
}

static void zeros_do_not_count(void **state)
{
	(void)state;
	reads_zero = true;
	run(1000);
	assert_int_equal(status.dirty_bytes, 0);
	assert_int_equal(status.zero_bytes, DISK_BYTES);
}

static void a_barrier_knows_none(void **state)
{
	(void)state;
	run(1000);
	happen((struct core_event){ .type = CORE_BARRIER });
	run(500);
	assert_int_equal(status.state, CORE_FINISHED);
}

static void guests_count_and_leave_a_part(void **state)
{
	static struct core_op op[4000];
	uint64_t copied, guests = 0;

	(void)state;
	run(1000);
	copied = status.copied_bytes;
	/* What is copied already, written again and again: twice the limit. */
	for (unsigned n = 0; n < 1000; n++) {
		op[n] = (struct core_op){ .kind = CORE_WRITE, .range = { 0, 4 * CORE_CHUNK_BYTES } };
		happen((struct core_event){ .type = CORE_WRITE_ARRIVED, .op = &op[n] });
		happen((struct core_event){ .type = CORE_LOCAL_DONE, .op = &op[n] });
		guests += range_length(op[n].range);
		now_ns += 4 * NS_PER_MS;
		happen((struct core_event){ .type = CORE_TICK });
	}
	copied = status.copied_bytes - copied;
	assert_in_range(guests, 7 * LIMIT, 9 * LIMIT);           /* in 4 s */
	assert_in_range(copied, LIMIT * 80 / 100, LIMIT * 150 / 100); /* a quarter of 4 s' */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(copies_keep_it, begin, end),
		cmocka_unit_test_setup_teardown(it_changes_and_goes_at_once, begin, end),
		cmocka_unit_test_setup_teardown(zeros_do_not_count, begin, end),
		cmocka_unit_test_setup_teardown(a_barrier_knows_none, begin, end),
		cmocka_unit_test_setup_teardown(guests_count_and_leave_a_part, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
