/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What no driver should do, what comes late, and what a far side may be: the core takes it, and nothing happens that should not.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mirror/core.h"

#define CHUNK CORE_CHUNK_BYTES
static const struct core_far good = {
	.generation = 1, .min_block_bytes = 1, .max_bytes = 1 << 20, .can_zero = true, .can_flush = true, .window_ops = 8,
};

static struct core *core;
static struct core_actions out;
static struct core_status status;

static void begin(const struct core_spec *spec)
{
	core = core_new(spec);
	assert_non_null(core);
}

static void plain(void)
{
	begin(&(struct core_spec){ .size_bytes = 64 * CHUNK });
}

static void happen(struct core_event ev)
{
	ev.now_ns = MAX(ev.now_ns, NS_PER_S);
	core_step(core, &ev, &out);
	core_status(core, &status);
}

static bool was_asked(enum core_action_type type)
{
	for (unsigned i = 0; i < out.count; i++)
		if (out.item[i].type == type)
			return true;
	return false;
}

static void end(void)
{
	core_free(core);
	core = NULL;
}

static void link_up(struct core_far far)
{
	happen((struct core_event){ .type = CORE_LINK_UP, .far = far });
}

static void a_far_side_that_cannot_be_used_fails_the_operation(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		struct core_far far = good;

		plain();
		if (i == 0)
			far.min_block_bytes = 0;
		else if (i == 1)
			far.min_block_bytes = 2 * CHUNK;
		else if (i == 2)
			far.min_block_bytes = 1536;
		else if (i == 3)
			far.max_bytes = 512;
		else
			far.window_ops = 0;
		if (i == 5) {
			end();
			begin(&(struct core_spec){ .size_bytes = 64 * CHUNK - 512 });
			far = good;
			far.min_block_bytes = 4096;
		}
		link_up(far);
		assert_int_equal(status.state, CORE_FAILED);
		assert_int_equal(status.err, ENOTSUP);
		assert_true(was_asked(CORE_DO_DROP_LINK));
		end();
	}
}

static void what_comes_of_another_link_is_not_looked_at(void **state)
{
	(void)state;
	plain();
	link_up(good);
	happen((struct core_event){ .type = CORE_REMOTE_DONE, .op = NULL, .generation = 7 });
	happen((struct core_event){ .type = CORE_FLUSHED, .generation = 7 });
	happen((struct core_event){ .type = CORE_FLUSHED, .generation = 1 }); /* nobody asked */
	happen((struct core_event){ .type = CORE_LINK_DOWN, .generation = 7 });
	happen((struct core_event){ .type = CORE_LINK_UP, .far = { .generation = 9 } });
	assert_int_equal(status.state, CORE_SYNCED);
	assert_int_equal(status.generation, 1);
	happen((struct core_event){ .type = CORE_LINK_DOWN, .generation = 1 });
	assert_int_equal(status.state, CORE_FAILED);
	assert_int_equal(status.err, ENOTCONN);
	happen((struct core_event){ .type = CORE_LINK_DOWN, .generation = 1 });
	happen((struct core_event){ .type = CORE_LINK_UP, .far = good });
	assert_int_equal(status.state, CORE_FAILED);
	end();
}

static void what_is_over_stays_so(void **state)
{
	(void)state;
	plain();
	happen((struct core_event){ .type = CORE_LINK_DOWN, .err = ECONNREFUSED });
	assert_int_equal(status.state, CORE_FAILED);
	assert_int_equal(status.err, ECONNREFUSED);
	happen((struct core_event){ .type = CORE_BARRIER });
	happen((struct core_event){ .type = CORE_GO_ON });
	happen((struct core_event){ .type = CORE_ABORT });
	happen((struct core_event){ .type = CORE_SET_MODE, .is_sync = true });
	happen((struct core_event){ .type = CORE_SET_MODE, .is_sync = true });
	happen((struct core_event){ .type = CORE_MAP_ON });
	happen((struct core_event){ .type = CORE_HOME_FLUSHED, .err = EIO });
	assert_int_equal(status.state, CORE_FAILED);
	assert_int_equal(status.err, ECONNREFUSED);
	end();
}

static void nothing_goes_on_that_was_not_finished_with_its_link(void **state)
{
	(void)state;
	plain();
	link_up(good);
	happen((struct core_event){ .type = CORE_GO_ON });
	assert_int_equal(status.state, CORE_SYNCED);
	happen((struct core_event){ .type = CORE_BARRIER });
	assert_true(status.state == CORE_FINISHING && was_asked(CORE_DO_FLUSH_FAR));
	happen((struct core_event){ .type = CORE_BARRIER });
	happen((struct core_event){ .type = CORE_FLUSHED, .generation = 1 });
	assert_int_equal(status.state, CORE_FINISHED);
	happen((struct core_event){ .type = CORE_GO_ON });
	assert_int_equal(status.state, CORE_FINISHED);
	end();
}

static void a_link_lost_after_the_barrier_leaves_it_finished(void **state)
{
	struct core_far far = good;

	(void)state;
	far.can_reconnect = true;
	begin(&(struct core_spec){ .size_bytes = 64 * CHUNK, .keeps_link = true });
	link_up(far);
	happen((struct core_event){ .type = CORE_BARRIER });
	happen((struct core_event){ .type = CORE_FLUSHED, .generation = 1 });
	assert_int_equal(status.state, CORE_FINISHED);
	happen((struct core_event){ .type = CORE_LINK_DOWN, .generation = 1, .err = EPIPE });
	assert_int_equal(status.state, CORE_FINISHED);
	happen((struct core_event){ .type = CORE_GO_ON });
	assert_int_equal(status.state, CORE_BROKEN);
	happen((struct core_event){ .type = CORE_LINK_DOWN, .err = ESTALE });
	assert_int_equal(status.state, CORE_FAILED);
	end();
}

static void a_flush_that_ended_with_its_link_leaves_what_was_acknowledged(void **state)
{
	struct core_op op = { .kind = CORE_WRITE, .range = { 0, CHUNK } };
	struct core_far far = good;

	(void)state;
	far.can_reconnect = true;
	for (unsigned i = 0; i < 2; i++) {
		plain();
		link_up(far);
		happen((struct core_event){ .type = CORE_WRITE_ARRIVED, .op = &op });
		happen((struct core_event){ .type = CORE_LOCAL_DONE, .op = &op });
		happen((struct core_event){ .type = CORE_REMOTE_DONE, .op = &op, .generation = 1 });
		happen((struct core_event){ .type = CORE_TICK, .now_ns = 9 * NS_PER_S });
		happen((struct core_event){ .type = CORE_FLUSHED, .err = i ? EIO : ESHUTDOWN, .generation = 1 });
		assert_int_equal(status.dirty_bytes, i ? CHUNK : 0);
		happen((struct core_event){ .type = CORE_LINK_DOWN, .err = ENOTCONN, .generation = 1 });
		assert_int_equal(status.state, CORE_BROKEN);
		happen((struct core_event){ .type = CORE_ABORT });
		core_abandon(core);
	}
	core = NULL;
}

static void a_map_is_turned_on_once_and_before_the_link(void **state)
{
	uint64_t owing[1] = { 0 }, unflushed[1] = { 0 };

	(void)state;
	begin(&(struct core_spec){ .size_bytes = 64 * CHUNK, .region_bytes = 16 * CHUNK });
	core_mark_dirty(core, (struct range){ 0, CHUNK });
	core_mark_marked(core, (struct range){ 64 * CHUNK, 65 * CHUNK }, true); /* behind the end: nothing */
	happen((struct core_event){ .type = CORE_MAP_ON, .owing = owing, .unflushed = unflushed });
	assert_true(was_asked(CORE_DO_MARK) && !status.is_map_ready);
	happen((struct core_event){ .type = CORE_MAP_ON });
	assert_false(was_asked(CORE_DO_MARK));
	happen((struct core_event){ .type = CORE_MARKED, .region = 0, .count = 1, .has_map = true });
	assert_true(status.is_map_ready);
	assert_int_equal(owing[0], 1);
	assert_int_equal(status.marked_regions, 1);
	happen((struct core_event){ .type = CORE_ABORT });
	happen((struct core_event){ .type = CORE_MARKED, .region = 1, .count = 1, .has_map = true });
	assert_int_equal(status.marked_regions, 2); /* still believed */
	end();
}

static void a_mark_that_cannot_be_made_is_the_operations_end_and_frees_the_guest(void **state)
{
	struct core_op op = { .kind = CORE_WRITE, .range = { 0, CHUNK } };

	(void)state;
	plain();
	happen((struct core_event){ .type = CORE_MAP_ON });
	happen((struct core_event){ .type = CORE_WRITE_ARRIVED, .op = &op });
	assert_true(was_asked(CORE_DO_MARK) && !was_asked(CORE_DO_LOCAL_SUBMIT));
	happen((struct core_event){ .type = CORE_MARKED, .region = 0, .count = 1, .err = ENOSPC });
	assert_int_equal(status.state, CORE_FAILED);
	happen((struct core_event){ .type = CORE_TICK });
	happen((struct core_event){ .type = CORE_LOCAL_DONE, .op = &op });
	assert_true(was_asked(CORE_DO_COMPLETE_GUEST) && was_asked(CORE_DO_RELEASE));
	end();
}

static const struct core_action *asked_mark(void)
{
	for (unsigned i = 0; i < out.count; i++)
		if (out.item[i].type == CORE_DO_MARK)
			return &out.item[i];
	fail_msg("no mark was asked for");
	return NULL;
}

static void who_waits_for_many_marks_in_a_second_gets_their_neighbours_too(void **state)
{
	struct core_op op[4];

	(void)state;
	begin(&(struct core_spec){ .size_bytes = 60 * CHUNK, .region_bytes = CHUNK, .mark_ahead_after = 2 });
	happen((struct core_event){ .type = CORE_MAP_ON });
	for (unsigned i = 0; i < 4; i++) {
		uint64_t at = (i < 2 ? i * 20 : i == 2 ? 42 : 57) * CHUNK;
		const struct core_action *a;

		op[i] = (struct core_op){ .kind = CORE_WRITE, .range = { at, at + CHUNK } };
		happen((struct core_event){ .type = CORE_WRITE_ARRIVED, .op = &op[i] });
		a = asked_mark();
		assert_int_equal(a->region, i < 2 ? i * 20 : i == 2 ? 40 : 56);
		assert_int_equal(a->count, i < 2 ? 1 : i == 2 ? 8 : 4); /* the disk ends there */
		happen((struct core_event){ .type = CORE_MARKED, .region = a->region, .count = a->count });
		happen((struct core_event){ .type = CORE_LOCAL_DONE, .op = &op[i] });
	}
	assert_int_equal(status.marked_regions, 2 + 8 + 4);
	op[0] = (struct core_op){ .kind = CORE_WRITE, .range = { 44 * CHUNK, 45 * CHUNK } };
	happen((struct core_event){ .type = CORE_WRITE_ARRIVED, .op = &op[0] });
	assert_true(was_asked(CORE_DO_LOCAL_SUBMIT));
	happen((struct core_event){ .type = CORE_LOCAL_DONE, .op = &op[0] });
	op[1] = (struct core_op){ .kind = CORE_WRITE, .range = { 30 * CHUNK, 31 * CHUNK } };
	happen((struct core_event){ .type = CORE_WRITE_ARRIVED, .op = &op[1], .now_ns = 3 * NS_PER_S });
	assert_int_equal(asked_mark()->count, 1); /* another second */
	happen((struct core_event){ .type = CORE_MARKED, .region = 30, .count = 1 });
	happen((struct core_event){ .type = CORE_LOCAL_DONE, .op = &op[1] });
	end();
}

/* Linked with --wrap=calloc. */
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
static unsigned callocs_left = UINT_MAX;

void *__wrap_calloc(size_t count, size_t bytes)
{
	if (callocs_left == 0)
		return NULL;
	callocs_left--;
	return __real_calloc(count, bytes);
}

static void without_memory_there_is_no_core(void **state)
{
	unsigned n = 0;

	(void)state;
	for (;; n++) {
		callocs_left = n;
		core = core_new(&(struct core_spec){ .size_bytes = 64 * CHUNK });
		callocs_left = UINT_MAX;
		if (core)
			break;
		assert_true(n < 100);
	}
	assert_true(n > 10);
	end();
	core_free(NULL);
}

static void bounds_that_are_given_are_kept(void **state)
{
	const struct core_spec spec = {
		.size_bytes = 64 * CHUNK, .lag_bytes = 1 << 20, .lag_ms = 7, .debt_ms = 9, .no_progress_ms = 11, .stall_ms = 13,
		.region_bytes = 2 * CHUNK, .keep_mark_ms = 15,
		.mark_ahead_after = 17,
	};

	(void)state;
	begin(&spec);
	link_up(good);
	assert_int_equal(status.state, CORE_SYNCED);
	assert_string_equal(core_state_name(status.state), "synced");
	happen((struct core_event){ .type = CORE_ABORT });
	assert_int_equal(status.state, CORE_ENDED);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_far_side_that_cannot_be_used_fails_the_operation),
		cmocka_unit_test(what_comes_of_another_link_is_not_looked_at),
		cmocka_unit_test(what_is_over_stays_so),
		cmocka_unit_test(nothing_goes_on_that_was_not_finished_with_its_link),
		cmocka_unit_test(a_link_lost_after_the_barrier_leaves_it_finished),
		cmocka_unit_test(a_flush_that_ended_with_its_link_leaves_what_was_acknowledged),
		cmocka_unit_test(a_map_is_turned_on_once_and_before_the_link),
		cmocka_unit_test(a_mark_that_cannot_be_made_is_the_operations_end_and_frees_the_guest),
		cmocka_unit_test(who_waits_for_many_marks_in_a_second_gets_their_neighbours_too),
		cmocka_unit_test(without_memory_there_is_no_core),
		cmocka_unit_test(bounds_that_are_given_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
