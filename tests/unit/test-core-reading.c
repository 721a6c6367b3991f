/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * How much copies read at once: of a disk that does one thing after the other little beside a guest, of one that is only far away
 * as much as does not hurt; and what counts as a guest. The far side answers after half a millisecond.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mirror/core.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define DISK_BYTES (1024 * MIB)
#define PASS_NS (100 * NS_PER_MS)
#define FAR_AWAY_NS (5 * NS_PER_MS)
#define ANSWER_NS (NS_PER_MS / 2)
#define FAST (500 * KIB)   /* a millisecond */
#define SLOW (50 * KIB)

static struct core *core;
static struct core_actions out;
static uint64_t now_ns, free_ns;
static uint64_t serial; /* the disk does one thing after the other, so much in a millisecond; 0: all at once, FAR_AWAY_NS each */

static struct leg {
	struct core_op *op;
	enum core_event_type over;
	uint64_t due_ns;
} legs[3 * CORE_COPIES_MAX];
static unsigned leg_count;
static uint64_t reading_bytes, most_bytes;

static void begin_leg(struct core_op *op, enum core_event_type over, uint64_t due_ns)
{
	assert_true(leg_count < ARRAY_LEN(legs));
	legs[leg_count++] = (struct leg){ op, over, due_ns };
}

static void begin_read(struct core_op *op)
{
	uint64_t bytes = range_length(op->range);

	free_ns = MAX(free_ns, now_ns) + (serial ? bytes * NS_PER_MS / serial : 0);
	begin_leg(op, CORE_COPY_READ_DONE, serial ? free_ns : now_ns + FAR_AWAY_NS);
	reading_bytes += bytes;
	most_bytes = MAX(most_bytes, reading_bytes);
}

static void happen(struct core_event ev)
{
	do {
		ev.now_ns = now_ns;
		core_step(core, &ev, &out);
		for (unsigned i = 0; i < out.count; i++) {
			struct core_op *op = out.item[i].op;

			if (out.item[i].type == CORE_DO_COPY_READ)
				begin_read(op);
			else if (out.item[i].type == CORE_DO_REMOTE_SUBMIT)
				begin_leg(op, CORE_REMOTE_DONE, now_ns + ANSWER_NS);
			else if (out.item[i].type == CORE_DO_FLUSH_FAR)
				begin_leg(NULL, CORE_FLUSHED, now_ns + ANSWER_NS);
			else if (out.item[i].type == CORE_DO_FLUSH_HOME)
				begin_leg(NULL, CORE_HOME_FLUSHED, now_ns + ANSWER_NS);
		}
		ev = (struct core_event){ .type = CORE_MORE };
	} while (out.is_full);
}

static unsigned earliest(void)
{
	unsigned best = 0;

	for (unsigned i = 1; i < leg_count; i++)
		if (legs[i].due_ns < legs[best].due_ns)
			best = i;
	return best;
}

static void end_leg(unsigned i)
{
	struct leg leg = legs[i];

	now_ns = MAX(now_ns, leg.due_ns);
	legs[i] = legs[--leg_count];
	if (leg.over == CORE_COPY_READ_DONE) {
		reading_bytes -= range_length(leg.op->range);
		leg.op->zeros = (struct core_mask){ 0 };
	}
	happen((struct core_event){ .type = leg.over, .op = leg.op, .generation = 1 });
}

enum guest { NOBODY, WRITES, READS };

static void guest_does(enum guest guest)
{
	static struct core_op op;

	if (guest == READS)
		core_guest_reads(core, now_ns);
	if (guest != WRITES)
		return;
	op = (struct core_op){ .kind = CORE_WRITE, .range = { DISK_BYTES - CORE_CHUNK_BYTES, DISK_BYTES } }; /* no copy is there yet */
	happen((struct core_event){ .type = CORE_WRITE_ARRIVED, .op = &op });
	happen((struct core_event){ .type = CORE_LOCAL_DONE, .op = &op });
}

/* Returns the most that was read at once in it; the guest does something every ten milliseconds. */
static uint64_t run(enum guest guest, uint64_t ns)
{
	uint64_t end_ns = now_ns + ns, tick_ns = now_ns;

	most_bytes = 0;
	while (now_ns < end_ns) {
		unsigned i = earliest();

		if (leg_count && legs[i].due_ns <= tick_ns) {
			end_leg(i);
			continue;
		}
		now_ns = MAX(now_ns, tick_ns);
		tick_ns += 10 * NS_PER_MS;
		guest_does(guest);
		happen((struct core_event){ .type = CORE_TICK });
	}
	return most_bytes;
}

static const char far_away;

static int begin(void **state)
{
	static const struct core_far far = {
		.generation = 1, .min_block_bytes = 1, .max_bytes = 1 << 20, .can_zero = true, .can_flush = true, .window_ops = 16,
	};

	serial = *state == &far_away ? 0 : FAST;
	now_ns = NS_PER_S;
	free_ns = reading_bytes = 0;
	leg_count = 0;
	core = core_new(&(struct core_spec){ .size_bytes = DISK_BYTES, .lag_bytes = 16 * MIB, .lag_ms = 50 });
	assert_non_null(core);
	core_mark_dirty(core, (struct range){ 0, DISK_BYTES });
	happen((struct core_event){ .type = CORE_LINK_UP, .far = far });
	return 0;
}

static int end(void **state)
{
	(void)state;
	core_abandon(core);
	return 0;
}

static void beside_a_guest_a_serial_disk_is_given_little(void **state)
{
	(void)state;
	run(WRITES, PASS_NS);
	assert_in_range(run(WRITES, PASS_NS), 1024 * KIB, 1280 * KIB);
}

static void alone_it_is_kept_full(void **state)
{
	(void)state;
	run(NOBODY, PASS_NS);
	assert_in_range(run(NOBODY, PASS_NS), 3 * MIB, 4 * MIB);
}

static void a_disk_that_is_far_away_is_given_more(void **state)
{
	(void)state;
	run(WRITES, 2 * PASS_NS);
	assert_in_range(run(WRITES, PASS_NS), 1792 * KIB, 2048 * KIB);
}

static void as_soon_as_a_queue_stands_it_is_given_less(void **state)
{
	(void)state;
	run(WRITES, 3 * PASS_NS);
	serial = SLOW;
	run(WRITES, 3 * PASS_NS);
	assert_in_range(run(WRITES, PASS_NS), 1024 * KIB, 1280 * KIB);
}

static void who_only_reads_is_a_guest_and_is_soon_forgotten(void **state)
{
	(void)state;
	run(READS, PASS_NS);
	assert_in_range(run(READS, PASS_NS), 1024 * KIB, 1280 * KIB);
	run(NOBODY, 2 * PASS_NS);
	assert_in_range(run(NOBODY, PASS_NS), 3 * MIB, 4 * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(beside_a_guest_a_serial_disk_is_given_little, begin, end),
		cmocka_unit_test_setup_teardown(alone_it_is_kept_full, begin, end),
		cmocka_unit_test_prestate_setup_teardown(a_disk_that_is_far_away_is_given_more, begin, end, (void *)&far_away),
		cmocka_unit_test_prestate_setup_teardown(as_soon_as_a_queue_stands_it_is_given_less, begin, end, (void *)&far_away),
		cmocka_unit_test_setup_teardown(who_only_reads_is_a_guest_and_is_soon_forgotten, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
