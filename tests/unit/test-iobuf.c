/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Buffers of requests: aligned, never more out than the ceiling, who waits is called once and in order, and bytes live as
 * long as somebody holds them, charged or not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/iobuf.h"

static void buffers_are_aligned_and_large_enough(void **state)
{
	static const size_t sizes[] = { 0, 1, 512, 4096, 4097, 65536, MiB, MiB + 1, 2 * MiB, 3 * MiB, 4 * MiB };
	struct iobuf_pool *p = iobuf_pool_new(16 * MiB);

	(void)state;
	for (int round = 0; round < 2; round++) { /* the second time some come from the cache */
		for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
			struct iobuf *b = iobuf_get(p, sizes[i]);

			assert_non_null(b);
			assert_true(b->capacity >= sizes[i]);
			assert_int_equal((uintptr_t)b->data % IOBUF_ALIGN, 0);
			if (b->capacity % IOBUF_HUGE_BYTES == 0)
				assert_int_equal((uintptr_t)b->data % IOBUF_HUGE_BYTES, 0);
			memset(b->data, 0x5a, b->capacity);
			assert_int_equal(iobuf_pool_used(p), b->capacity);
			iobuf_return(b);
			assert_int_equal(iobuf_pool_used(p), 0);
		}
	}
	iobuf_pool_free(p);
}

static void no_more_is_out_than_the_ceiling(void **state)
{
	struct iobuf_pool *p = iobuf_pool_new(4 * 4096);
	struct iobuf *b[4];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(b); i++) {
		b[i] = iobuf_get(p, 4096);
		assert_non_null(b[i]);
	}
	assert_null(iobuf_get(p, 1));
	assert_int_equal(iobuf_pool_used(p), 4 * 4096);
	iobuf_return(b[2]);
	b[2] = iobuf_get(p, 4096);
	assert_non_null(b[2]);
	for (size_t i = 0; i < ARRAY_LEN(b); i++)
		iobuf_return(b[i]);
	iobuf_pool_free(p);
}

static void one_larger_than_the_ceiling_is_given_when_nothing_else_is_out(void **state)
{
	struct iobuf_pool *p = iobuf_pool_new(8192);
	struct iobuf *large = iobuf_get(p, MiB), *small;

	(void)state;
	assert_non_null(large);
	assert_null(iobuf_get(p, 4096));
	iobuf_return(large);
	small = iobuf_get(p, 4096);
	assert_non_null(small);
	assert_null(iobuf_get(p, MiB));
	iobuf_return(small);
	iobuf_pool_free(p);
}

static void a_reference_keeps_the_bytes_but_not_the_charge(void **state)
{
	struct iobuf_pool *p = iobuf_pool_new(4096);
	struct iobuf *b = iobuf_get(p, 4096), *other;

	(void)state;
	assert_non_null(b);
	memset(b->data, 0x11, 4096);
	assert_ptr_equal(iobuf_ref(b), b);
	iobuf_return(b);
	assert_int_equal(iobuf_pool_used(p), 0);
	other = iobuf_get(p, 4096);
	assert_non_null(other);
	assert_ptr_not_equal(other, b);
	memset(other->data, 0x22, 4096);
	assert_int_equal(b->data[0], 0x11);
	assert_int_equal(b->data[4095], 0x11);
	iobuf_unref(b);
	iobuf_return(other);
	iobuf_return(NULL);
	iobuf_unref(NULL);
	iobuf_pool_free(p);
}

struct waiting {
	struct iobuf_waiter waiter;
	struct iobuf_pool *pool;
	struct iobuf *buffer;
	int calls;
	int *clock;
	int called_at;
};

/* As a frontend does: tries again, and queues again when there is no room. */
static void on_room(struct iobuf_waiter *w)
{
	struct waiting *me = container_of(w, struct waiting, waiter);

	assert_false(w->is_waiting);
	me->calls++;
	me->called_at = ++*me->clock;
	if (!me->buffer)
		me->buffer = iobuf_get(me->pool, 4096);
	if (!me->buffer)
		iobuf_wait(me->pool, w);
}

static void who_waits_is_called_in_order_and_once_per_return(void **state)
{
	struct iobuf_pool *p = iobuf_pool_new(4096);
	struct iobuf *b = iobuf_get(p, 4096);
	struct waiting w[3] = { 0 };
	int clock = 0;

	(void)state;
	assert_non_null(b);
	for (size_t i = 0; i < ARRAY_LEN(w); i++) {
		w[i] = (struct waiting){ .waiter.on_room = on_room, .pool = p, .clock = &clock };
		iobuf_wait(p, &w[i].waiter);
		iobuf_wait(p, &w[i].waiter); /* twice is once */
		assert_true(w[i].waiter.is_waiting);
	}
	iobuf_wait_cancel(p, &w[1].waiter);
	iobuf_wait_cancel(p, &w[1].waiter);
	iobuf_return(b);
	assert_non_null(w[0].buffer);
	assert_int_equal(w[1].calls, 0);
	assert_int_equal(w[2].calls, 1);
	assert_true(w[0].called_at < w[2].called_at);
	assert_true(w[2].waiter.is_waiting); /* no room was left for it: it waits again */
	iobuf_return(w[0].buffer);
	assert_non_null(w[2].buffer);
	assert_int_equal(w[2].calls, 2);
	assert_int_equal(w[0].calls, 1);
	iobuf_return(w[2].buffer);
	iobuf_pool_free(p);
}

static void one_byte_that_is_not_zero_is_seen_wherever_it_is(void **state)
{
	uint8_t *data = aligned_alloc(4096, 4096);

	(void)state;
	assert_non_null(data);
	memset(data, 0, 4096);
	assert_true(iobuf_is_zero(data, 0));
	for (size_t bytes = 1; bytes <= 80; bytes++) {
		assert_true(iobuf_is_zero(data, bytes));
		for (size_t at = 0; at <= bytes; at++) {
			data[at] = 0x80;
			assert_int_equal(iobuf_is_zero(data, bytes), at == bytes);
			data[at] = 0;
		}
	}
	for (size_t at = 0; at < 4096; at += 7) {
		data[at] = 1;
		assert_false(iobuf_is_zero(data, 4096));
		data[at] = 0;
	}
	assert_true(iobuf_is_zero(data, 4096));
	free(data);
}

static void on_excess(void *arg)
{
	++*(int *)arg;
}

static void take_and_return(struct iobuf_pool *p, unsigned count, size_t bytes)
{
	struct iobuf *b[64];

	for (unsigned i = 0; i < count; i++) {
		b[i] = iobuf_get(p, bytes);
		assert_non_null(b[i]);
	}
	for (unsigned i = 0; i < count; i++)
		iobuf_return(b[i]);
}

static void a_pool_that_is_trimmed_keeps_what_is_needed_again(void **state)
{
	struct iobuf_pool *p = iobuf_pool_new(8 * MiB);
	int told = 0;

	(void)state;
	iobuf_pool_on_excess(p, on_excess, &told);
	take_and_return(p, 4, 256 * KiB);
	assert_int_equal(told, 0);
	take_and_return(p, 32, 256 * KiB);
	assert_int_equal(told, 1);
	assert_int_equal(iobuf_pool_cached(p), 8 * MiB);
	assert_true(iobuf_pool_trim(p)); /* all of it was needed just now */
	assert_int_equal(iobuf_pool_cached(p), 8 * MiB);
	take_and_return(p, 12, 256 * KiB);
	assert_true(iobuf_pool_trim(p));
	assert_int_equal(iobuf_pool_cached(p), 3 * MiB);
	assert_false(iobuf_pool_trim(p));
	assert_int_equal(iobuf_pool_cached(p), MiB);
	assert_int_equal(told, 1);
	take_and_return(p, 5, 256 * KiB);
	assert_int_equal(told, 2);
	iobuf_pool_free(p);
}

static void what_is_kept_and_what_is_out_stay_under_the_ceiling(void **state)
{
	struct iobuf_pool *p = iobuf_pool_new(8 * MiB);
	struct iobuf *b[7];
	int told = 0;

	(void)state;
	iobuf_pool_on_excess(p, on_excess, &told);
	take_and_return(p, 64, 128 * KiB);
	for (size_t i = 0; i < ARRAY_LEN(b); i++)
		b[i] = iobuf_get(p, MiB);
	take_and_return(p, 2, 300 * KiB);
	iobuf_pool_trim(p);
	iobuf_pool_trim(p);
	assert_int_equal(iobuf_pool_cached(p), MiB);
	for (size_t i = 0; i < ARRAY_LEN(b); i++) {
		iobuf_return(b[i]);
		assert_true(iobuf_pool_used(p) + iobuf_pool_cached(p) <= 8 * MiB);
	}
	while (iobuf_pool_trim(p))
		;
	assert_int_equal(iobuf_pool_cached(p), MiB);
	iobuf_pool_free(p);
}

static void a_pool_that_nobody_trims_keeps_little(void **state)
{
	struct iobuf_pool *p = iobuf_pool_new(8 * MiB);

	(void)state;
	take_and_return(p, 32, 256 * KiB);
	assert_int_equal(iobuf_pool_cached(p), MiB);
	iobuf_pool_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_are_aligned_and_large_enough),
		cmocka_unit_test(no_more_is_out_than_the_ceiling),
		cmocka_unit_test(one_larger_than_the_ceiling_is_given_when_nothing_else_is_out),
		cmocka_unit_test(a_reference_keeps_the_bytes_but_not_the_charge),
		cmocka_unit_test(who_waits_is_called_in_order_and_once_per_return),
		cmocka_unit_test(a_pool_that_is_trimmed_keeps_what_is_needed_again),
		cmocka_unit_test(what_is_kept_and_what_is_out_stay_under_the_ceiling),
		cmocka_unit_test(a_pool_that_nobody_trims_keeps_little),
		cmocka_unit_test(one_byte_that_is_not_zero_is_seen_wherever_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
