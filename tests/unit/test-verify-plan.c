/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-verify-plan - what may be said of two disks that are read while they change, in virtual time
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mirror/verify-plan.h"

#define CHUNK VERIFY_CHUNK_BYTES
#define SIZE (4 * MiB + 512) /* the last chunk is a short one */

struct world {
	struct verify_plan_spec spec;
	struct verify_plan *plan;
	uint8_t *here, *there;
	uint64_t now_ns;
	uint64_t quiet;
	struct extents zero_here, zero_there; /* the answers to ASK, clipped; nothing: not told */
	uint64_t answer_bytes;                /* ... which stop after so many */
	unsigned asks, reads, again;
	void (*before_read)(struct world *w, const struct verify_piece *piece);
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	*w = (struct world){ .spec = { .size_bytes = SIZE }, .quiet = UINT64_MAX, .answer_bytes = UINT64_MAX };
	w->here = malloc(64 * MiB);
	w->there = malloc(64 * MiB);
	for (uint64_t i = 0; i < 64 * MiB; i++)
		w->here[i] = w->there[i] = (uint8_t)(i % 251);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	verify_plan_free(w->plan);
	extents_fini(&w->zero_here);
	extents_fini(&w->zero_there);
	free(w->here);
	free(w->there);
	free(w);
	return 0;
}

static void clip(struct extents *out, const struct extents *zero, struct range r)
{
	uint64_t at = r.start;

	for (size_t i = 0; i < zero->count; i++) {
		struct range part = range_clip(zero->item[i].range, r);

		if (range_is_empty(part))
			continue;
		extents_add(out, (struct range){ at, part.start }, 0);
		extents_add(out, part, EXTENT_ZERO | EXTENT_HOLE);
		at = part.end;
	}
	extents_add(out, (struct range){ at, r.end }, 0);
}

static void answer(struct world *w, struct range r)
{
	struct extents here, there;

	extents_init(&here, 0);
	extents_init(&there, 0);
	r.end = MIN(r.end, r.start + w->answer_bytes);
	clip(&here, &w->zero_here, r);
	clip(&there, &w->zero_there, r);
	verify_plan_asked(w->plan, &here, w->zero_there.count ? &there : NULL);
	extents_fini(&here);
	extents_fini(&there);
	w->asks++;
}

static void read_piece(struct world *w, struct verify_piece *piece)
{
	if (w->before_read)
		w->before_read(w, piece);
	w->reads++;
	w->again += piece->suspects != 0;
	verify_plan_read(w->plan, piece, w->here + piece->range.start, w->there + piece->range.start, w->quiet, w->now_ns);
}

static const struct verify_result *run(struct world *w)
{
	struct verify_step step;

	w->plan = verify_plan_new(&w->spec);
	assert_non_null(w->plan);
	for (;;) {
		verify_plan_next(w->plan, w->now_ns, 4, &step);
		if (step.want == VERIFY_OVER)
			break;
		if (step.want == VERIFY_ASK)
			answer(w, step.range);
		else if (step.want == VERIFY_READ)
			read_piece(w, step.piece);
		else
			w->now_ns += step.wait_ns;
		assert_true(step.want != VERIFY_WAIT || step.wait_ns != UINT64_MAX);
	}
	assert_int_equal(verify_plan_result(w->plan)->done_bytes, verify_plan_result(w->plan)->total_bytes);
	assert_int_equal(verify_plan_result(w->plan)->suspect_bytes, 0);
	return verify_plan_result(w->plan);
}

static void is_range(const struct verify_list *l, size_t i, uint64_t start, uint64_t end)
{
	assert_true(i < l->count);
	assert_int_equal(l->item[i].start, start);
	assert_int_equal(l->item[i].end, end);
}

static void what_is_the_same_is_the_same_and_read_once(void **state)
{
	struct world *w = *state;
	const struct verify_result *r = run(w);

	assert_int_equal(r->total_bytes, SIZE);
	assert_int_equal(r->read_bytes, SIZE);
	assert_int_equal(r->different_bytes + r->unsettled_bytes + r->skipped_bytes, 0);
	assert_int_equal(w->now_ns, 0);
}

static void a_difference_is_told_to_the_chunk(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;

	w->there[5 * CHUNK + 7] ^= 1;
	w->there[63 * CHUNK + 4095] ^= 1; /* in two pieces, one range */
	w->there[64 * CHUNK] ^= 1;
	w->there[SIZE - 1] ^= 1;
	r = run(w);
	assert_int_equal(r->different.count, 3);
	is_range(&r->different, 0, 5 * CHUNK, 6 * CHUNK);
	is_range(&r->different, 1, 63 * CHUNK, 65 * CHUNK);
	is_range(&r->different, 2, 4 * MiB, SIZE);
	assert_int_equal(r->different_bytes, 3 * CHUNK + 512);
	assert_int_equal(w->again, 2 * 3); /* twice, each of three pieces, what differs in it together */
	assert_int_equal(r->unsettled_bytes, 0);
}

/* There, the write that is here already arrives only after the first reading. */
static void arrive(struct world *w, const struct verify_piece *piece)
{
	if (piece->suspects)
		w->there[9 * CHUNK] = w->here[9 * CHUNK];
}

static void one_reading_proves_nothing(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;

	w->there[9 * CHUNK] ^= 1;
	w->before_read = arrive;
	r = run(w);
	assert_int_equal(r->different_bytes + r->unsettled_bytes, 0);
	assert_int_equal(w->again, 1);
	assert_int_equal(r->read_bytes, SIZE + CHUNK);
}

static void write_here(struct world *w, const struct verify_piece *piece)
{
	if (range_contains(piece->range, (struct range){ 9 * CHUNK, 10 * CHUNK }))
		w->here[9 * CHUNK]++;
}

static void what_never_stands_still_is_unsettled(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;

	w->there[9 * CHUNK + 1] ^= 1;
	w->before_read = write_here;
	r = run(w);
	assert_int_equal(r->different_bytes, 0);
	assert_int_equal(r->unsettled_bytes, CHUNK);
	is_range(&r->unsettled, 0, 9 * CHUNK, 10 * CHUNK);
	assert_int_equal(w->again, 12);
	assert_true(w->now_ns > 10 * NS_PER_S && w->now_ns < 30 * NS_PER_S);
}

static void write_there(struct world *w, const struct verify_piece *piece)
{
	if (range_contains(piece->range, (struct range){ 9 * CHUNK, 10 * CHUNK }))
		w->there[9 * CHUNK]++;
}

static void nor_what_changes_there(void **state)
{
	struct world *w = *state;

	w->there[9 * CHUNK + 1] ^= 1;
	w->before_read = write_there;
	assert_int_equal(run(w)->unsettled_bytes, CHUNK);
	assert_int_equal(verify_plan_result(w->plan)->different_bytes, 0);
}

static void the_same_contents_while_somebody_writes_prove_nothing(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;

	w->there[9 * CHUNK] ^= 1;
	w->there[11 * CHUNK] ^= 1;
	w->quiet = UINT64_C(1) << 2; /* of a group that begins with chunk 9 */
	r = run(w);
	assert_int_equal(r->unsettled_bytes, CHUNK);
	is_range(&r->unsettled, 0, 9 * CHUNK, 10 * CHUNK);
	is_range(&r->different, 0, 11 * CHUNK, 12 * CHUNK);
}

static void write_four_times(struct world *w, const struct verify_piece *piece)
{
	if (piece->suspects && w->again < 4)
		w->here[9 * CHUNK]++;
}

static void what_comes_to_rest_different_is_different(void **state)
{
	struct world *w = *state;

	w->there[9 * CHUNK + 1] ^= 1;
	w->before_read = write_four_times;
	assert_int_equal(run(w)->different_bytes, CHUNK);
	assert_int_equal(w->again, 6);
}

static void only_what_is_wanted_is_read_whole_chunks_of_it(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;
	struct extents only;

	extents_init(&only, 0);
	extents_add(&only, (struct range){ 5000, 5001 }, 0);
	extents_add(&only, (struct range){ 8191, 8200 }, 0);
	extents_add(&only, (struct range){ 2 * MiB, 3 * MiB }, 0);
	extents_add(&only, (struct range){ SIZE - 1, SIZE }, 0);
	w->spec.only = &only;
	w->there[0] ^= 1;
	w->there[3 * MiB] ^= 1;
	w->there[8192] ^= 1;
	w->there[3 * MiB - 1] ^= 1;
	r = run(w);
	extents_fini(&only);
	assert_int_equal(r->total_bytes, 2 * CHUNK + MiB + 512);
	assert_int_equal(r->different.count, 2);
	is_range(&r->different, 0, 8192, 12288);
	is_range(&r->different, 1, 3 * MiB - CHUNK, 3 * MiB);
}

static void what_both_sides_call_zero_is_not_read(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;

	extents_add(&w->zero_here, (struct range){ 0, MiB }, EXTENT_ZERO);
	extents_add(&w->zero_here, (struct range){ 2 * MiB + 100, SIZE }, EXTENT_ZERO);
	extents_add(&w->zero_there, (struct range){ MiB / 2, 2 * MiB }, EXTENT_ZERO);
	extents_add(&w->zero_there, (struct range){ 3 * MiB, SIZE }, EXTENT_ZERO);
	memset(w->there + MiB / 2, 1, MiB / 2);
	memset(w->there + 3 * MiB, 1, MiB + 512);
	w->there[0] ^= 1;
	w->there[2 * MiB] ^= 1;
	r = run(w);
	assert_int_equal(r->skipped_bytes, MiB / 2 + MiB + 512);
	assert_int_equal(r->different_bytes, 2 * CHUNK);
	assert_true(r->read_bytes < SIZE - r->skipped_bytes + 8 * CHUNK);
	assert_int_equal(w->asks, 1);
}

static void answers_that_stop_early_are_asked_for_again(void **state)
{
	struct world *w = *state;

	extents_add(&w->zero_here, (struct range){ 0, SIZE }, EXTENT_ZERO);
	extents_add(&w->zero_there, (struct range){ MiB, SIZE }, EXTENT_ZERO);
	w->answer_bytes = MiB - 100;
	memset(w->there + 2 * MiB, 1, MiB);
	assert_int_equal(run(w)->different_bytes, 0);
	/* The last answer is of too little to be skipped. */
	assert_int_equal(verify_plan_result(w->plan)->read_bytes, MiB + SIZE - 4 * (MiB - CHUNK));
	assert_int_equal(w->asks, 5);
}

static void an_answer_of_nothing_is_read(void **state)
{
	struct world *w = *state;

	extents_add(&w->zero_here, (struct range){ 0, SIZE }, EXTENT_ZERO);
	extents_add(&w->zero_there, (struct range){ 0, SIZE }, EXTENT_ZERO);
	w->answer_bytes = 0;
	w->there[SIZE / 2] ^= 1;
	assert_int_equal(run(w)->different_bytes, CHUNK);
	assert_int_equal(verify_plan_result(w->plan)->skipped_bytes, 0);
}

static void one_side_alone_that_calls_it_zero_is_not_believed(void **state)
{
	struct world *w = *state;

	extents_add(&w->zero_here, (struct range){ 0, SIZE }, EXTENT_ZERO);
	w->there[MiB] ^= 1;
	assert_int_equal(run(w)->different_bytes, CHUNK);
	assert_int_equal(verify_plan_result(w->plan)->skipped_bytes, 0);
}

static void the_rate_is_kept(void **state)
{
	struct world *w = *state;

	w->spec.rate_bytes = MiB;
	w->now_ns = 77 * NS_PER_S;
	run(w);
	w->now_ns -= 77 * NS_PER_S;
	assert_true(w->now_ns > 3700 * NS_PER_MS && w->now_ns < 4200 * NS_PER_MS);
}

static void differences_beyond_all_bounds_are_counted(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;

	w->spec.size_bytes = 8 * MiB;
	w->spec.piece_bytes = CHUNK; /* more suspects than there is room for */
	for (unsigned i = 0; i < 2048; i++)
		w->there[i * CHUNK] ^= 1;
	r = run(w);
	assert_int_equal(r->different_bytes, 8 * MiB);
	assert_int_equal(r->different.count, 1);
	is_range(&r->different, 0, 0, 8 * MiB);
	assert_false(r->different.is_cut);
}

static void the_first_ranges_are_told(void **state)
{
	struct world *w = *state;
	const struct verify_result *r;

	for (unsigned i = 0; i < 200; i++)
		w->there[(2 * i + 1) * CHUNK] ^= 1;
	r = run(w);
	assert_int_equal(r->different_bytes, 200 * CHUNK);
	assert_int_equal(r->different.count, VERIFY_DIFFERENT_MAX);
	assert_true(r->different.is_cut);
	for (unsigned i = 0; i < VERIFY_DIFFERENT_MAX; i++)
		is_range(&r->different, i, (2 * i + 1) * CHUNK, (2 * i + 2) * CHUNK);
}

static void no_more_is_under_way_than_allowed(void **state)
{
	struct world *w = *state;
	struct verify_step step;
	struct verify_piece *busy[3];

	w->plan = verify_plan_new(&w->spec);
	verify_plan_next(w->plan, 1, 3, &step);
	assert_int_equal(step.want, VERIFY_ASK);
	verify_plan_next(w->plan, 1, 3, &step);
	assert_int_equal(step.want, VERIFY_WAIT);
	verify_plan_asked(w->plan, NULL, NULL);
	for (unsigned i = 0; i < 3; i++) {
		verify_plan_next(w->plan, 1, 3, &step);
		assert_int_equal(step.want, VERIFY_READ);
		assert_int_equal(step.piece->range.start, i * VERIFY_PIECE_BYTES);
		busy[i] = step.piece;
	}
	verify_plan_next(w->plan, 1, 3, &step);
	assert_int_equal(step.want, VERIFY_WAIT);
	assert_int_equal(step.wait_ns, UINT64_MAX);
	read_piece(w, busy[1]);
	verify_plan_next(w->plan, 1, 3, &step);
	assert_int_equal(step.want, VERIFY_READ);
	assert_int_equal(step.piece->range.start, 3 * VERIFY_PIECE_BYTES);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_is_the_same_is_the_same_and_read_once),
		TEST(a_difference_is_told_to_the_chunk),
		TEST(one_reading_proves_nothing),
		TEST(what_never_stands_still_is_unsettled),
		TEST(nor_what_changes_there),
		TEST(the_same_contents_while_somebody_writes_prove_nothing),
		TEST(what_comes_to_rest_different_is_different),
		TEST(only_what_is_wanted_is_read_whole_chunks_of_it),
		TEST(what_both_sides_call_zero_is_not_read),
		TEST(answers_that_stop_early_are_asked_for_again),
		TEST(an_answer_of_nothing_is_read),
		TEST(one_side_alone_that_calls_it_zero_is_not_believed),
		TEST(the_rate_is_kept),
		TEST(differences_beyond_all_bounds_are_counted),
		TEST(the_first_ranges_are_told),
		TEST(no_more_is_under_way_than_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
