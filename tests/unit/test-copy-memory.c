/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What copies read into: as many as there are copies, apart from one another, long ones packed into the first huge pages, short
 * ones no larger than they must be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "mirror/copy-memory.h"

static uint8_t *at(const struct copy_bytes *b)
{
	return b->buffer->data + b->offset;
}

static void every_copy_has_bytes_of_its_own(void **state)
{
	static const size_t sizes[] = { 4096, COPY_SLOT_BYTES / 2, COPY_SLOT_BYTES / 2 + 4096, COPY_SLOT_BYTES, COPY_LONGEST_BYTES };
	struct copy_memory *m = copy_memory_new();
	struct copy_bytes b[CORE_COPIES_MAX] = { 0 };

	(void)state;
	for (unsigned round = 0; round < ARRAY_LEN(sizes); round++) {
		for (unsigned i = 0; i < CORE_COPIES_MAX; i++) {
			assert_true(copy_memory_get(m, sizes[(i + round) % ARRAY_LEN(sizes)], &b[i]));
			assert_true(b[i].offset + sizes[(i + round) % ARRAY_LEN(sizes)] <= b[i].buffer->capacity);
			memset(at(&b[i]), (int)i, sizes[(i + round) % ARRAY_LEN(sizes)]);
		}
		for (unsigned i = 0; i < CORE_COPIES_MAX; i++) {
			assert_int_equal(at(&b[i])[0], i);
			assert_int_equal(at(&b[i])[sizes[(i + round) % ARRAY_LEN(sizes)] - 1], i);
			copy_memory_put(m, &b[i]);
			assert_null(b[i].buffer);
		}
	}
	for (unsigned i = 0; i < CORE_COPIES_MAX; i++)
		assert_true(copy_memory_get(m, COPY_SLOT_BYTES, &b[i]));
	for (unsigned i = 0; i < CORE_COPIES_MAX; i++)
		copy_memory_put(m, &b[i]);
	copy_memory_free(m);
}

/* However many were alive before, one after the other they stay in the first. */
static void the_lowest_free_slot_is_taken(void **state)
{
	struct copy_memory *m = copy_memory_new();
	struct copy_bytes b[9] = { 0 }, again = { 0 };
	uint8_t *first, *second;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(b); i++)
		assert_true(copy_memory_get(m, COPY_SLOT_BYTES, &b[i]));
	assert_ptr_equal(b[0].buffer, b[7].buffer);
	assert_ptr_not_equal(b[0].buffer, b[8].buffer);
	first = at(&b[0]);
	second = at(&b[1]);
	copy_memory_put(m, &b[1]);
	copy_memory_put(m, &b[0]);
	assert_true(copy_memory_get(m, COPY_SLOT_BYTES, &again));
	assert_ptr_equal(at(&again), first);
	assert_true(copy_memory_get(m, COPY_SLOT_BYTES, &b[0]));
	assert_ptr_equal(at(&b[0]), second);
	copy_memory_put(m, &again);
	copy_memory_put(m, &again); /* nothing there: nothing done */
	for (unsigned i = 0; i < ARRAY_LEN(b); i++)
		copy_memory_put(m, &b[i]);
	copy_memory_free(m);
}

/* Two slots do not begin where only one is left in the page; a short one is taken there. */
static void a_longer_copy_lies_in_one_page(void **state)
{
	struct copy_memory *m = copy_memory_new();
	struct copy_bytes one = { 0 }, b[4] = { 0 }, last = { 0 };

	(void)state;
	assert_true(copy_memory_get(m, COPY_SLOT_BYTES, &one));
	for (unsigned i = 0; i < ARRAY_LEN(b); i++)
		assert_true(copy_memory_get(m, COPY_SLOT_BYTES + 4096, &b[i]));
	assert_ptr_equal(one.buffer, b[2].buffer);
	assert_int_equal(b[2].offset, 5 * COPY_SLOT_BYTES);
	assert_ptr_not_equal(one.buffer, b[3].buffer);
	assert_true(copy_memory_get(m, COPY_SLOT_BYTES, &last));
	assert_ptr_equal(last.buffer, one.buffer);
	assert_int_equal(last.offset, 7 * COPY_SLOT_BYTES);
	copy_memory_put(m, &one);
	copy_memory_put(m, &last);
	for (unsigned i = 0; i < ARRAY_LEN(b); i++)
		copy_memory_put(m, &b[i]);
	copy_memory_free(m);
}

static void what_is_in_no_use_is_trimmed_and_nothing_else(void **state)
{
	struct copy_memory *m = copy_memory_new();
	struct copy_bytes b[32] = { 0 };
	size_t most, little;

	(void)state;
	for (unsigned i = 0; i < ARRAY_LEN(b); i++)
		assert_true(copy_memory_get(m, COPY_LONGEST_BYTES, &b[i]));
	most = copy_memory_bytes(m);
	for (unsigned i = 0; i < ARRAY_LEN(b); i++)
		if (i != 31)
			copy_memory_put(m, &b[i]);
	assert_int_equal(copy_memory_bytes(m), most);
	copy_memory_trim(m);
	little = copy_memory_bytes(m);
	assert_true(little > 0 && little <= most / 2);
	memset(at(&b[31]), 7, COPY_LONGEST_BYTES);
	copy_memory_put(m, &b[31]);
	copy_memory_trim(m);
	assert_true(copy_memory_bytes(m) < little);
	for (unsigned i = 0; i < ARRAY_LEN(b); i++) {
		assert_true(copy_memory_get(m, COPY_LONGEST_BYTES, &b[i]));
		memset(at(&b[i]), 1, COPY_LONGEST_BYTES);
	}
	for (unsigned i = 0; i < ARRAY_LEN(b); i++)
		copy_memory_put(m, &b[i]);
	copy_memory_trim(m);
	copy_memory_free(m);
}

static void a_short_copy_takes_no_slot(void **state)
{
	struct copy_memory *m = copy_memory_new();
	struct copy_bytes small = { 0 };

	(void)state;
	assert_true(copy_memory_get(m, 4096, &small));
	assert_int_equal(small.buffer->capacity, 4096);
	assert_int_equal(small.offset, 0);
	copy_memory_put(m, &small);
	copy_memory_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_copy_has_bytes_of_its_own),
		cmocka_unit_test(the_lowest_free_slot_is_taken),
		cmocka_unit_test(a_longer_copy_lies_in_one_page),
		cmocka_unit_test(what_is_in_no_use_is_trimmed_and_nothing_else),
		cmocka_unit_test(a_short_copy_takes_no_slot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
