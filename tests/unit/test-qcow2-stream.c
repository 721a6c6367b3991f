/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * qcow2 as a stream: what is written is read as the same, and nothing else than what is written is taken for one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2/qcow2-header.h"
#include "qcow2/qcow2-stream.h"

#define CLUSTER QCOW2_STREAM_CLUSTER
#define HEAD_MAX 64u /* clusters of a head that is kept */

static uint8_t head[HEAD_MAX * 65536];
static uint64_t head_clusters;

static int keep(void *arg, const void *cluster, struct error *e)
{
	(void)arg;
	(void)e;
	if (head_clusters < HEAD_MAX)
		memcpy(head + head_clusters * CLUSTER, cluster, CLUSTER);
	head_clusters++;
	return 0;
}

static void write_it(const struct qcow2_stream *s)
{
	struct error e;

	head_clusters = 0;
	assert_int_equal(qcow2_stream_write_head(s, keep, NULL, &e), 0);
}

/* 1: it was read, and the data follows; -1 + e. */
static int read_it(struct qcow2_stream *s, struct error *e)
{
	struct qcow2_stream_reader r;
	int took = 0;

	*e = (struct error) { 0 };
	if (qcow2_stream_read(&r, s, head, e) == -1)
		return -1;
	for (uint64_t i = 1; took == 0 && i < MIN(head_clusters, HEAD_MAX); i++)
		took = qcow2_stream_take(&r, head + i * CLUSTER, e);
	qcow2_stream_reader_fini(&r);
	if (took != 1)
		qcow2_stream_fini(s);
	return took;
}

static void assert_same(const struct qcow2_stream *a, const struct qcow2_stream *b)
{
	assert_int_equal(a->size_bytes, b->size_bytes);
	assert_string_equal(a->content, b->content);
	assert_string_equal(a->base, b->base);
	assert_int_equal(bitmap_count(a->data), bitmap_count(b->data));
	assert_int_equal(bitmap_count(a->zero), bitmap_count(b->zero));
	for (uint64_t i = 0; i < qcow2_stream_clusters(a); i++) {
		assert_int_equal(bitmap_test(a->data, i), bitmap_test(b->data, i));
		assert_int_equal(bitmap_test(a->zero, i), bitmap_test(b->zero, i));
	}
}

static struct qcow2_stream make(uint64_t bytes)
{
	struct qcow2_stream s;
	struct error e;

	assert_int_equal(qcow2_stream_init(&s, bytes, &e), 0);
	return s;
}

/* --- */

static void what_is_written_is_read(void **state)
{
	static const uint64_t sizes[] = { 512, CLUSTER, CLUSTER + 512, 511 * MiB, 513 * MiB, 3 * GiB };
	uint64_t seed = 1;

	(void)state;
	for (size_t n = 0; n < ARRAY_LEN(sizes) * 8; n++) {
		struct qcow2_stream s = make(sizes[n / 8]), got;
		struct error e;

		for (uint64_t i = 0; i < qcow2_stream_clusters(&s); i++) {
			seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
			if (seed >> 60 < n % 8)
				bitmap_set(seed >> 59 & 1 ? s.data : s.zero, i, i + 1);
		}
		if (n % 2)
			strcpy(s.content, "0b5d1c1e-9c54-4a35-9d7a-0a4f5e1f2f60");
		if (n % 3 == 0)
			strcpy(s.base, "d9f0a7c2-7a51-4b0e-8e61-6f2f1f0b7a11");
		write_it(&s);
		assert_int_equal(qcow2_stream_total_bytes(&s), (head_clusters + bitmap_count(s.data)) * CLUSTER);
		assert_int_equal(read_it(&got, &e), 1);
		assert_same(&s, &got);
		qcow2_stream_fini(&s);
		qcow2_stream_fini(&got);
	}
}

static void an_image_for_others_is_sound(void **state)
{
	struct qcow2_stream s = make(MiB);
	struct qcow2_header h;
	struct error e;

	(void)state;
	bitmap_set(s.data, 1, 2);
	write_it(&s);
	assert_int_equal(qcow2_header_parse(head, QCOW2_HEAD_BYTES, &h, &e), 0);
	assert_int_equal(h.size_bytes, MiB);
	assert_string_equal(h.backing, "");
	qcow2_stream_fini(&s);
}

static void a_large_disk_costs_what_is_in_it(void **state)
{
	struct qcow2_stream s = make(QCOW2_STREAM_SIZE_MAX), got;
	struct error e;

	(void)state;
	bitmap_set(s.data, qcow2_stream_clusters(&s) - 1, qcow2_stream_clusters(&s));
	bitmap_set(s.data, 0, 1);
	write_it(&s);
	assert_int_equal(read_it(&got, &e), 1);
	assert_int_equal(bitmap_count(got.data), 2);
	qcow2_stream_fini(&got);
	qcow2_stream_fini(&s);
	assert_int_equal(qcow2_stream_init(&s, QCOW2_STREAM_SIZE_MAX + 512, &e), -1);
	assert_int_equal(e.err, EFBIG);
	assert_int_equal(qcow2_stream_init(&s, 0, &e), -1);
	assert_int_equal(qcow2_stream_init(&s, 513, &e), -1);
}

/* Where the counts of clusters are: not looked at. And the base's name, for others. */
static bool is_ignored(size_t at)
{
	const size_t l1 = (size_t)head[44] << 24 | (size_t)head[45] << 16 | (size_t)head[46] << 8 | head[47];

	return (at >= CLUSTER && at < l1) || (at >= 8 && at < 20) || (at >= 64 && at < 72) || (at >= 256 && at < CLUSTER);
}

static void nothing_that_was_changed_is_taken_for_the_same(void **state)
{
	struct qcow2_stream s = make(600 * MiB), got;
	struct error e;
	size_t end;

	(void)state;
	bitmap_set(s.data, 3, 7);
	bitmap_set(s.data, 9000, 9003);
	bitmap_set(s.zero, 7, 9);
	strcpy(s.content, "c");
	strcpy(s.base, "b");
	write_it(&s);
	end = (size_t)(head_clusters * CLUSTER);
	for (size_t at = 0; at < end; at++) {
		uint8_t was = head[at];
		bool is_same;

		if (!was && at % 4099) /* of the many zeros some */
			continue;
		if (is_ignored(at))
			continue;
		head[at] ^= 1;
		if (read_it(&got, &e) == 1) {
			is_same = got.size_bytes == s.size_bytes && strcmp(got.content, s.content) == 0 &&
				  strcmp(got.base, s.base) == 0 && bitmap_count(got.data) == bitmap_count(s.data) &&
				  bitmap_count(got.zero) == bitmap_count(s.zero);
			/* size within the last cluster, an id, a cluster that is zero or not: other streams, and sound ones */
			if (is_same)
				fail_msg("byte %zu says nothing", at);
			qcow2_stream_fini(&got);
		}
		head[at] = was;
	}
	qcow2_stream_fini(&s);
}

static void what_is_cut_is_not_whole(void **state)
{
	struct qcow2_stream s = make(600 * MiB), got;
	struct error e;
	uint64_t whole;

	(void)state;
	bitmap_set(s.data, 9000, 9003);
	write_it(&s);
	whole = head_clusters;
	for (head_clusters = 1; head_clusters < whole; head_clusters++)
		assert_int_equal(read_it(&got, &e), 0);
	qcow2_stream_fini(&s);
}

static void an_id_is_plain(void **state)
{
	char text[QCOW2_STREAM_ID_MAX + 1];

	(void)state;
	assert_true(qcow2_stream_is_id("0b5d1c1e-9c54-4a35-9d7a-0a4f5e1f2f60"));
	assert_false(qcow2_stream_is_id(""));
	assert_false(qcow2_stream_is_id("a/b"));
	assert_false(qcow2_stream_is_id("a b"));
	memset(text, 'x', sizeof(text));
	text[QCOW2_STREAM_ID_MAX] = '\0';
	assert_false(qcow2_stream_is_id(text));
	text[QCOW2_STREAM_ID_MAX - 1] = '\0';
	assert_true(qcow2_stream_is_id(text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(an_image_for_others_is_sound),
		cmocka_unit_test(a_large_disk_costs_what_is_in_it),
		cmocka_unit_test(nothing_that_was_changed_is_taken_for_the_same),
		cmocka_unit_test(what_is_cut_is_not_whole),
		cmocka_unit_test(an_id_is_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
