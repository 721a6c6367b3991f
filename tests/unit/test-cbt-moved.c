/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-cbt-moved - logs that go with a disk arrive as they are, in pieces and again; what is no such thing is refused
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "cbt/cbt-moved.h"

#define B CBT_BLOCK_BYTES
#define SIZE (5 * CBT_PAGE_REGIONS * CBT_REGION_BYTES / 2) /* three pages */

static char dir[] = "/tmp/sxm-moved.XXXXXX";
static uint8_t buffer[CBT_MOVED_PART_BYTES];

static char *in_dir(const char *name)
{
	static char path[2][128];
	static unsigned turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

static struct cbt_log make(uint64_t bytes, const char *parent, uint64_t block)
{
	struct cbt_log l;
	struct error e;

	assert_int_equal(cbt_log_init(&l, bytes, &e), 0);
	snprintf(l.header.parent, sizeof(l.header.parent), "%s", parent);
	cbt_log_set(&l, (struct range){ block * B, block * B + 1 });
	return l;
}

static void put(const char *key, const char *parent, uint64_t block, bool is_sealed)
{
	struct cbt_log l = make(SIZE, parent, block);
	char name[80];
	struct error e;

	l.header.is_sealed = is_sealed;
	snprintf(name, sizeof(name), "%s.cbt", key);
	assert_int_equal(cbt_log_store(in_dir(name), &l, &e), 0);
	cbt_log_clear(&l);
}

/* V <- S2 <- S1, and V is the disk's. */
static struct cbt_moved collect(const char *parent, uint64_t block)
{
	struct cbt_log l = make(SIZE, parent, block);
	struct cbt_moved m;
	struct error e;

	l.header.id = 77;
	assert_int_equal(cbt_moved_collect(&m, in_dir("V.cbt"), &l, &e), 0);
	assert_null(l.bits);
	return m;
}

static unsigned send_to(struct cbt_moved *to, const struct cbt_moved *m, const struct cbt_moved *sent)
{
	uint64_t cursor = 0, at;
	unsigned pieces = 0;
	size_t bytes;

	while ((bytes = cbt_moved_part(m, sent, &cursor, buffer, &at))) {
		pieces++;
		assert_int_equal(cbt_moved_take(to, SIZE, at, buffer, bytes), 0);
	}
	return pieces;
}

static bool has(const struct cbt_log *l, uint64_t block)
{
	return cbt_bits_test_all(l->bits, block, block + 1);
}

static void the_chain_goes_and_arrives(void **state)
{
	struct cbt_moved m, there = { .count = 0 };

	(void)state;
	put("S1", "", 3, true);
	put("S2", "S1", 40000, true);
	m = collect("S2", 70000);
	assert_int_equal(m.count, 3);
	send_to(&there, &m, NULL);
	assert_true(there.count == 3 && cbt_moved_is_same(&there, &m));
	for (unsigned i = 0; i < 3; i++)
		assert_memory_equal(there.log[i].bits, m.log[i].bits, m.log[i].regions * CBT_REGION_WORDS * 8);
	assert_string_equal(there.log[0].header.origin, "");
	assert_string_equal(there.log[1].header.origin, "S2");
	assert_string_equal(there.log[2].header.origin, "S1");
	assert_true(there.log[2].header.is_sealed && !there.log[0].header.is_sealed && !there.log[2].header.parent[0]);
	cbt_moved_clear(&there);
	cbt_moved_clear(&m);
}

static void a_second_time_only_what_is_new_goes(void **state)
{
	struct cbt_moved m, there = { .count = 0 }, now;
	uint64_t cursor = 0, at;

	(void)state;
	m = collect("S2", 70000);
	send_to(&there, &m, NULL);
	now = collect("S2", 70000);
	assert_true(cbt_moved_is_same(&now, &m));
	assert_int_equal(cbt_moved_part(&now, &m, &cursor, buffer, &at), 0);
	cbt_log_set(&now.log[0], (struct range){ 5 * B, 6 * B });
	cursor = 0;
	assert_int_equal(cbt_moved_part(&now, &m, &cursor, buffer, &at), CBT_PAGE_BYTES);
	assert_true(at == CBT_PAGE_BYTES);
	assert_int_equal(send_to(&there, &now, &m), 1);
	assert_true(has(&there.log[0], 5) && has(&there.log[0], 70000) && !has(&there.log[0], 6));
	now.log[1].header.id++;
	assert_false(cbt_moved_is_same(&now, &m));
	cbt_moved_clear(&there);
	cbt_moved_clear(&now);
	cbt_moved_clear(&m);
}

static void a_chain_ends_where_it_cannot_be_read(void **state)
{
	struct cbt_moved m;

	(void)state;
	put("U", "S1", 1, false);
	m = collect("U", 1);
	assert_int_equal(m.count, 1);
	cbt_moved_clear(&m);
	m = collect("nowhere", 1);
	assert_int_equal(m.count, 1);
	cbt_moved_clear(&m);
}

static void it_is_stored_under_names_of_its_own(void **state)
{
	struct cbt_moved m, there = { .count = 0 };
	struct cbt_log disk, second, first;
	char name[80];
	struct error e;

	(void)state;
	m = collect("S2", 70000);
	send_to(&there, &m, NULL);
	assert_int_equal(cbt_moved_store_past(&there, in_dir("W.cbt"), &e), 0);
	assert_int_equal(access(in_dir("W.cbt"), F_OK), -1);
	snprintf(name, sizeof(name), "%s.cbt", there.key[2]);
	assert_int_equal(unlink(in_dir(name)), 0); /* swept, as nobody knew of it */
	assert_int_equal(cbt_moved_store(&there, in_dir("W.cbt"), &e), 0);
	assert_int_equal(cbt_log_load(in_dir("W.cbt"), &disk, &e), 0);
	assert_true(has(&disk, 70000) && disk.header.id != 77 && !disk.header.session && !disk.header.is_sealed);
	snprintf(name, sizeof(name), "%s.cbt", disk.header.parent);
	assert_int_equal(cbt_log_load(in_dir(name), &second, &e), 0);
	assert_true(has(&second, 40000) && second.header.is_sealed);
	assert_string_equal(second.header.origin, "S2");
	snprintf(name, sizeof(name), "%s.cbt", second.header.parent);
	assert_int_equal(cbt_log_load(in_dir(name), &first, &e), 0);
	assert_true(has(&first, 3) && !first.header.parent[0]);
	assert_string_equal(first.header.origin, "S1");
	cbt_log_clear(&disk);
	cbt_log_clear(&second);
	cbt_log_clear(&first);
	cbt_moved_clear(&there);
	cbt_moved_clear(&m);
	/* ... and moves on: its origin is told further. */
	assert_int_equal(cbt_log_load(in_dir("W.cbt"), &disk, &e), 0);
	assert_int_equal(cbt_moved_collect(&m, in_dir("W.cbt"), &disk, &e), 0);
	assert_int_equal(m.count, 3);
	assert_string_equal(m.log[1].header.origin, "S2");
	cbt_moved_clear(&m);
}

static int take_header(struct cbt_moved *m, unsigned window, const struct cbt_header *h)
{
	uint8_t page[CBT_PAGE_BYTES];

	cbt_header_encode(h, page);
	return cbt_moved_take(m, SIZE, window * CBT_MOVED_WINDOW, page, sizeof(page));
}

static void what_is_no_log_of_the_disk_is_refused(void **state)
{
	const struct cbt_header good = { .size_bytes = SIZE, .id = 1 }, past = { .size_bytes = B, .id = 2, .is_sealed = true, .origin = "S" };
	struct cbt_moved m = { .count = 0 };
	struct cbt_header h = good;
	uint8_t page[2 * CBT_PAGE_BYTES] = { 0 };

	(void)state;
	assert_int_equal(cbt_moved_take(&m, SIZE, 0, page, CBT_PAGE_BYTES), EINVAL);
	assert_int_equal(cbt_moved_take(&m, SIZE, CBT_PAGE_BYTES, page, CBT_PAGE_BYTES), EINVAL);
	h.size_bytes++;
	assert_int_equal(take_header(&m, 0, &h), EINVAL);
	h = good;
	h.is_sealed = true;
	assert_int_equal(take_header(&m, 0, &h), EINVAL);
	h = good;
	h.session = 1;
	assert_int_equal(take_header(&m, 0, &h), EINVAL);
	h = good;
	h.parent[0] = 'x';
	assert_int_equal(take_header(&m, 0, &h), EINVAL);
	h = good;
	h.origin[0] = 'x';
	assert_int_equal(take_header(&m, 0, &h), EINVAL);
	assert_int_equal(take_header(&m, 1, &past), EINVAL);
	assert_int_equal(m.count, 0);
	assert_int_equal(take_header(&m, 0, &good), 0);
	assert_int_equal(take_header(&m, 0, &good), 0);
	h = good;
	h.id = 3;
	assert_int_equal(take_header(&m, 0, &h), EINVAL);
	assert_int_equal(take_header(&m, 1, &good), EINVAL);
	assert_int_equal(take_header(&m, 2, &past), EINVAL);
	assert_int_equal(take_header(&m, 1, &past), 0);
	assert_int_equal(cbt_moved_take(&m, SIZE, CBT_PAGE_BYTES, page, 2 * CBT_PAGE_BYTES), 0);
	assert_int_equal(cbt_moved_take(&m, SIZE, CBT_PAGE_BYTES, page, CBT_PAGE_BYTES + 1), EINVAL);
	assert_int_equal(cbt_moved_take(&m, SIZE, CBT_PAGE_BYTES + 512, page, CBT_PAGE_BYTES), EINVAL);
	assert_int_equal(cbt_moved_take(&m, SIZE, 4 * CBT_PAGE_BYTES, page, CBT_PAGE_BYTES), EINVAL);
	assert_int_equal(cbt_moved_take(&m, SIZE, CBT_PAGE_BYTES, page, 0), EINVAL);
	assert_int_equal(cbt_moved_take(&m, SIZE, CBT_MOVED_MAX * CBT_MOVED_WINDOW, page, CBT_PAGE_BYTES), EINVAL);
	assert_int_equal(m.count, 2);
	cbt_moved_clear(&m);
}

static void a_stranger_gets_no_more_memory_than_is_said(void **state)
{
	struct cbt_header h = { .size_bytes = 16 * TiB, .id = 1 };
	struct cbt_moved m = { .count = 0 };
	uint8_t page[CBT_PAGE_BYTES];
	int err = 0;

	(void)state;
	for (unsigned i = 0; i < CBT_MOVED_MAX + 2 && !err; i++) {
		h.is_sealed = i > 0;
		h.origin[0] = i ? 'S' : '\0';
		cbt_header_encode(&h, page);
		err = cbt_moved_take(&m, 16 * TiB, i * CBT_MOVED_WINDOW, page, sizeof(page));
	}
	assert_int_equal(err, ENOSPC);
	assert_true(m.bytes <= CBT_MOVED_BYTES && m.count == 1);
	cbt_moved_clear(&m);
	h.size_bytes = 0;
	for (unsigned i = 0, taken = 0; i < CBT_MOVED_MAX + 2; i++) {
		h.is_sealed = i > 0;
		h.origin[0] = i ? 'S' : '\0';
		cbt_header_encode(&h, page);
		taken += cbt_moved_take(&m, SIZE, i * CBT_MOVED_WINDOW, page, sizeof(page)) == 0;
		assert_true(taken <= CBT_MOVED_MAX);
	}
	assert_int_equal(m.count, CBT_MOVED_MAX);
	cbt_moved_clear(&m);
}

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) == 0 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_chain_goes_and_arrives),
		cmocka_unit_test(a_second_time_only_what_is_new_goes),
		cmocka_unit_test(a_chain_ends_where_it_cannot_be_read),
		cmocka_unit_test(it_is_stored_under_names_of_its_own),
		cmocka_unit_test(what_is_no_log_of_the_disk_is_refused),
		cmocka_unit_test(a_stranger_gets_no_more_memory_than_is_said),
	};

	setenv("SXM_LOG", "stderr", 1);
	return cmocka_run_group_tests_name("cbt-moved", tests, make_dir, remove_dir);
}
