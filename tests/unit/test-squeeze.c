/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A stream that is made shorter and long again is the same, however it is cut into pieces and however little room there is; what
 * was flushed comes at once; what is no such stream, or would need more memory than is said, is refused.
 */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/squeeze.h"

#define BYTES (3u << 20)

static char plain[BYTES], shorter[BYTES + 65536], again[BYTES];

/* Words, which can be made shorter, and every eighth page noise, which cannot. */
static void fill(void)
{
	uint64_t x = 88172645463325252u;

	for (size_t i = 0; i < BYTES; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		plain[i] = i / 4096 % 8 ? "a word and another "[i % 19] : (char)x;
	}
}

/* All of in, through pieces of so many bytes; how many came. */
static size_t put_through(struct squeeze *s, const char *in, size_t bytes, size_t piece, char *out, size_t room, size_t step,
			  enum squeeze_want last)
{
	size_t taken = 0, given = 0;
	struct error e;
	int r = 0;

	while (taken < bytes || r == 1) {
		size_t some = MIN(bytes - taken, piece);
		struct squeeze_piece p = { in + taken, some, out + given, MIN(room - given, step) };

		r = squeeze_run(s, &p, taken + some == bytes ? last : SQUEEZE_MORE, &e);
		assert_int_not_equal(r, -1);
		assert_true(p.in_bytes <= some && p.out_bytes <= step);
		taken += p.in_bytes;
		given += p.out_bytes;
		assert_true(given < room || r == 0);
	}
	return given;
}

static struct squeeze *make(enum squeeze_way way)
{
	struct error e;
	struct squeeze *s = squeeze_new(way, &e);

	assert_non_null(s);
	return s;
}

static void a_stream_is_the_same_again_in_whatever_pieces(void **state UNUSED)
{
	static const size_t pieces[][2] = { { BYTES, BYTES }, { 65536, 1000 }, { 4099, 65536 }, { 1, 4096 } };

	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		size_t all = pieces[i][0] == 1 ? 100000 : BYTES, bytes;
		struct squeeze *s = make(SQUEEZE_SHORTER), *l = make(SQUEEZE_LONGER);

		bytes = put_through(s, plain, all, pieces[i][0], shorter, sizeof(shorter), pieces[i][1], SQUEEZE_END);
		assert_true(bytes < all / 2);
		assert_int_equal(put_through(l, shorter, bytes, pieces[i][1], again, sizeof(again), pieces[i][0], SQUEEZE_MORE), all);
		assert_memory_equal(again, plain, all);
		assert_true(squeeze_is_whole(l));
		squeeze_free(s);
		squeeze_free(l);
	}
}

static void what_was_flushed_comes_at_once(void **state UNUSED)
{
	struct squeeze *s = make(SQUEEZE_SHORTER), *l = make(SQUEEZE_LONGER);

	for (size_t i = 0, at = 0; i < 200; at += 7 * i, i++) {
		size_t bytes = put_through(s, plain + at, 7 * i, 7 * i, shorter, sizeof(shorter), 32, SQUEEZE_FLUSH);

		assert_int_equal(put_through(l, shorter, bytes, 5, again, sizeof(again), 64, SQUEEZE_MORE), 7 * i);
		assert_memory_equal(again, plain + at, 7 * i);
	}
	squeeze_free(s);
	squeeze_free(l);
}

static void a_stream_that_is_cut_anywhere_is_not_whole(void **state UNUSED)
{
	struct squeeze *s = make(SQUEEZE_SHORTER);
	size_t bytes = put_through(s, plain, 3000, 1000, shorter, sizeof(shorter), sizeof(shorter), SQUEEZE_END);

	for (size_t i = 0; i <= bytes; i++) {
		struct squeeze *l = make(SQUEEZE_LONGER);

		put_through(l, shorter, i, BYTES, again, sizeof(again), BYTES, SQUEEZE_MORE);
		assert_int_equal(squeeze_is_whole(l), i == 0 || i == bytes);
		squeeze_free(l);
	}
	squeeze_free(s);
}

static int refused(const char *bytes, size_t count)
{
	struct squeeze *l = make(SQUEEZE_LONGER);
	struct squeeze_piece p = { bytes, count, again, sizeof(again) };
	struct error e = { 0 };
	int r = squeeze_run(l, &p, SQUEEZE_MORE, &e);

	squeeze_free(l);
	return r == -1 ? e.err : 0;
}

static void what_is_no_such_stream_is_refused(void **state UNUSED)
{
	/* A frame's magic number, no size, a window of 2 GiB, or of 2 MiB: more than is said. */
	static const char huge[] = "\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00", large[] = "\x28\xb5\x2f\xfd\x00\x58\x01\x00\x00";

	assert_int_equal(refused("{\"id\":1,\"ok\":{}}\n", 17), EBADMSG);
	assert_int_equal(refused(huge, 9), EBADMSG);
	assert_int_equal(refused(large, 9), EBADMSG);
}

static void nothing_comes_after_its_end(void **state UNUSED)
{
	struct squeeze *s = make(SQUEEZE_SHORTER), *l = make(SQUEEZE_LONGER);
	size_t bytes = put_through(s, plain, 3000, 3000, shorter, sizeof(shorter), sizeof(shorter), SQUEEZE_END);

	memcpy(shorter + bytes, shorter, bytes);
	assert_int_equal(put_through(l, shorter, bytes, 1000, again, sizeof(again), 100, SQUEEZE_MORE), 3000);
	squeeze_free(s);
	squeeze_free(l);
	assert_int_equal(refused(shorter, bytes + 1), EBADMSG);
	assert_int_equal(refused(shorter, 2 * bytes), EBADMSG);
}

/* What asks for 128 MiB in the format of zstd 0.7, for 64 MiB in that of 0.5; and a piece that says nothing. */
static void what_is_of_another_format_is_refused(void **state UNUSED)
{
	assert_int_equal(refused("\x27\xb5\x2f\xfd\x00\x88\x01\x00\x00", 9), EBADMSG);
	assert_int_equal(refused("\x25\xb5\x2f\xfd\x0f\x00\x00\x00\x00", 9), EBADMSG);
	assert_int_equal(refused("\x50\x2a\x4d\x18\x01\x00\x00\x00\x00", 9), EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stream_is_the_same_again_in_whatever_pieces),
		cmocka_unit_test(what_was_flushed_comes_at_once),
		cmocka_unit_test(a_stream_that_is_cut_anywhere_is_not_whole),
		cmocka_unit_test(what_is_no_such_stream_is_refused),
		cmocka_unit_test(nothing_comes_after_its_end),
		cmocka_unit_test(what_is_of_another_format_is_refused),
	};

	fill();
	return squeeze_is_there() ? cmocka_run_group_tests(tests, NULL, NULL) : 77;
}
