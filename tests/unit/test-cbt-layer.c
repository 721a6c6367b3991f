/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-cbt-layer - no write is below whose mark, or bit, is not on the medium; what a kill leaves is exact, what a crash leaves is more
 *
 * fdatasync() and fsync() are the test's: what the log's file has at that moment is on the medium, nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "block/gate.h"
#include "cbt/cbt-layer.h"

#define SIZE (5 * GiB + 4096)
#define B CBT_BLOCK_BYTES
#define BLOCKS (SIZE / B + 1)
#define MEDIA 256

static char dir[] = "/tmp/sxm-cbt.XXXXXX";
static struct loop *loop;
static struct layer bottom, *cbt, *gate;
static bool written[BLOCKS], since[BLOCKS]; /* that arrived below, since it began and since the last cut */
static const char *noted_in;
static unsigned arrived, done, failed, sync_err, syncs;

/* --- the medium */

static struct medium {
	ino_t file;
	uint8_t *data;
	size_t bytes;
} medium[MEDIA];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct medium *medium_of(ino_t file)
{
	for (unsigned i = 0; i < MEDIA; i++)
		if (medium[i].file == file || !medium[i].file)
			return &medium[i];
	return NULL;
}

static int take(int fd)
{
	struct medium *m;
	struct stat st;
	int r;

	syncs++;
	if (sync_err) {
		errno = sync_err;
		return -1;
	}
	if (fstat(fd, &st) == -1 || !S_ISREG(st.st_mode))
		return 0;
	pthread_mutex_lock(&lock); /* it is a pool's thread */
	m = medium_of(st.st_ino);
	m->file = st.st_ino;
	m->bytes = (size_t)st.st_size;
	m->data = realloc(m->data, m->bytes + 1);
	r = pread(fd, m->data, m->bytes, 0) == st.st_size ? 0 : -1;
	pthread_mutex_unlock(&lock);
	return r;
}

int fdatasync(int fd)
{
	return take(fd);
}

int fsync(int fd)
{
	return take(fd);
}

static char *in_dir(const char *name)
{
	static char path[4][128];
	static unsigned n;

	n = (n + 1) % 4;
	snprintf(path[n], sizeof(path[n]), "%s/%s", dir, name);
	return path[n];
}

/* Another test has such names, in a directory of its own. */
static void remove_in_dir(const char *pattern)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf %s/%s", dir, pattern);
	assert_int_equal(system(command), 0);
}

/* Of the log that notes what is written now: it has another name while a snapshot is under way. */
static bool is_noted(uint64_t block)
{
	uint64_t region = block / 256, n = region / CBT_PAGE_REGIONS, at = region % CBT_PAGE_REGIONS;
	const struct medium *m;
	const uint8_t *page;
	struct stat st;
	bool is_noted;

	assert_int_equal(stat(in_dir(noted_in), &st), 0);
	pthread_mutex_lock(&lock);
	m = medium_of(st.st_ino);
	assert_true(m->bytes >= (n + 2) * CBT_PAGE_BYTES);
	page = m->data + (n + 1) * CBT_PAGE_BYTES;
	is_noted = (page[at / 8] >> at % 8 & 1) || (page[16 + at * 32 + block % 256 / 8] >> block % 8 & 1);
	pthread_mutex_unlock(&lock);
	return is_noted;
}

/* The power was lost, and what is in SXM_RUN_DIR with it. */
static void lose_power(void)
{
	struct stat st;
	int fd = open(in_dir("V.cbt"), O_RDWR);
	const struct medium *m;

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	m = medium_of(st.st_ino);
	assert_int_equal(ftruncate(fd, (off_t)m->bytes), 0);
	assert_int_equal(pwrite(fd, m->data, m->bytes, 0), m->bytes);
	close(fd);
	remove_in_dir("run/cbt.*");
}

/* --- the disk */

static void arrive(struct layer *l, struct req *r)
{
	(void)l;
	if (r->op == REQ_WRITE || r->op == REQ_ZERO || r->op == REQ_TRIM)
		for (uint64_t b = r->range.start / B; b * B < r->range.end; b++) {
			written[b] = since[b] = true;
			assert_true(is_noted(b));
		}
	arrived++;
	req_complete(r, 0);
}

static const struct layer_ops bottom_ops = { .name = "bottom", .submit = arrive };

static void stop(struct loop_task *t)
{
	(void)t;
	loop_stop(loop);
}

static void turn(void)
{
	static struct loop_task task = { .run = stop };

	loop_defer(loop, &task);
	loop_run(loop);
}

static void on_done(struct req *r)
{
	failed += r->err != 0;
	done++;
	req_put(r);
}

static void submit(enum req_op op, uint64_t start, uint64_t end)
{
	static struct iobuf_pool *pool;
	struct req *r = req_get();

	(void)pool;
	r->op = op;
	r->range = (struct range){ start, end };
	r->done = on_done;
	layer_submit(gate, r);
}

static void idle(unsigned want)
{
	while (done < want)
		turn();
}

static void open_log(uint64_t size)
{
	struct geometry g = { .size_bytes = size };
	struct cbt_live *log;
	struct error e;

	noted_in = "V.cbt";
	log = cbt_live_open(in_dir("V.cbt"), in_dir("run"), size, &e);
	if (!log)
		fail_msg("%s", e.text);
	layer_init(&bottom, &bottom_ops, NULL, &g);
	cbt = cbt_new(loop, &bottom, log);
	gate = gate_new(cbt);
}

static bool is_rested;

static void on_rested(void *arg)
{
	(void)arg;
	is_rested = true;
}

static void rest(void)
{
	is_rested = false;
	cbt_rest(cbt, on_rested, NULL);
	while (!is_rested)
		turn();
}

static void close_log(bool is_killed)
{
	struct error e;

	rest();
	if (!is_killed)
		assert_int_equal(cbt_seal(cbt, &e), 0);
	layer_close(gate);
	layer_close(cbt);
}

static struct cbt_log loaded(const char *name)
{
	struct cbt_log l;
	struct error e;

	if (cbt_log_take_up(in_dir(name), &l, &e) == -1)
		fail_msg("%s", e.text);
	return l;
}

static void is_exact(const char *name, const bool *want)
{
	struct cbt_log l = loaded(name);

	for (uint64_t b = 0; b < BLOCKS; b++)
		assert_int_equal(cbt_bits_test_all(l.bits, b, b + 1), want[b]);
	cbt_log_clear(&l);
}

static void has_all(const char *name, const bool *want)
{
	struct cbt_log l = loaded(name);

	for (uint64_t b = 0; b < BLOCKS; b++)
		assert_true(!want[b] || cbt_bits_test_all(l.bits, b, b + 1));
	cbt_log_clear(&l);
}

static void begin(void)
{
	struct cbt_log l;
	struct error e;

	memset(written, 0, sizeof(written));
	memset(since, 0, sizeof(since));
	remove_in_dir("V.cbt*");
	remove_in_dir("S*.cbt*");
	assert_int_equal(cbt_log_init(&l, SIZE, &e), 0);
	assert_int_equal(cbt_log_store(in_dir("V.cbt"), &l, &e), 0);
	cbt_log_clear(&l);
	done = arrived = failed = 0;
	open_log(SIZE);
}

static unsigned write_some(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		uint64_t start = (uint64_t)rand() * 4096 % SIZE, end = MIN(SIZE, start + 512 + (uint64_t)rand() % (rand() % 8 ? 8192 : 20 * MiB));

		submit(rand() % 4 ? REQ_ZERO : REQ_TRIM, start, end);
		if (rand() % 3 == 0)
			turn();
		if (rand() % 8 == 0)
			cbt_checkpoint(cbt);
	}
	return count;
}

static void what_is_written_is_noted_before(void **state)
{
	unsigned count = 0;

	(void)state;
	for (unsigned seed = 1; seed < 12; seed++) {
		srand(seed);
		begin();
		count = 0;
		for (unsigned life = 0; life < 8; life++) {
			count += write_some(40);
			idle(count);
			switch (rand() % 3) {
			case 0:
				close_log(false);
				is_exact("V.cbt", written);
				break;
			case 1:
				close_log(true);
				open_log(SIZE);
				close_log(false);
				is_exact("V.cbt", written);
				break;
			default:
				close_log(true);
				lose_power();
				has_all("V.cbt", written);
				open_log(SIZE);
				close_log(false);
				has_all("V.cbt", written);
				goto next;
			}
			open_log(SIZE);
		}
		close_log(false);
next:
		assert_int_equal(failed, 0);
	}
}

static void a_cut_is_at_the_moment(void **state)
{
	unsigned count = 0;
	struct error e;

	(void)state;
	srand(99);
	begin();
	for (unsigned i = 0; i < 10; i++) {
		bool before[BLOCKS];
		char name[16], key[8];

		count += write_some(20);
		rest();
		snprintf(key, sizeof(key), "S%u", i);
		snprintf(name, sizeof(name), "S%u.cbt", i);
		assert_int_equal(cbt_prepare(cbt, key, &e), 0);
		count += write_some(20);
		idle(count);
		memcpy(before, since, sizeof(before));
		memset(since, 0, sizeof(since));
		noted_in = "V.cbt.next";
	cbt_cut(cbt);
		count += write_some(20);
		idle(count);
		assert_int_equal(cbt_seal_cut(cbt, &e), 0);
		noted_in = "V.cbt";
		cbt_go_on(cbt);
		count += write_some(20);
		idle(count);
		is_exact(name, before);
		if (i % 2) {
			close_log(true);
			open_log(SIZE);
		}
	}
	close_log(false);
	is_exact("V.cbt", since);
	assert_int_equal(failed, 0);
}

/* Whoever asked was not answered, and asks again with the same key. */
static void a_snapshot_that_is_tried_again_keeps_what_was_sealed(void **state)
{
	unsigned count = 0;
	struct error e;

	(void)state;
	srand(7);
	begin();
	for (unsigned i = 0; i < 3; i++) {
		count += write_some(20);
		idle(count);
		rest();
		assert_int_equal(cbt_prepare(cbt, "S", &e), 0);
		noted_in = "V.cbt.next";
		cbt_cut(cbt);
		memset(since, 0, sizeof(since));
		assert_int_equal(cbt_seal_cut(cbt, &e), 0);
		noted_in = "V.cbt";
		cbt_go_on(cbt);
		is_exact("S.cbt", written);
	}
	close_log(false);
	is_exact("V.cbt", since);
}

static void killed_in_a_snapshot(bool is_power_lost)
{
	struct error e;
	unsigned count;

	begin();
	count = write_some(30);
	idle(count);
	rest();
	assert_int_equal(cbt_prepare(cbt, "S", &e), 0);
	noted_in = "V.cbt.next";
	cbt_cut(cbt);
	count += write_some(30);
	idle(count);
	layer_close(gate);
	layer_close(cbt);
	if (is_power_lost) {
		lose_power();
		has_all("V.cbt", written);
	} else {
		open_log(SIZE);
		close_log(false);
		is_exact("V.cbt", written);
	}
}

static void a_snapshot_that_is_killed_loses_nothing(void **state)
{
	(void)state;
	killed_in_a_snapshot(false);
	killed_in_a_snapshot(true);
}

/* The first try's log of S is there, and has nothing of what was written between the two. */
static void a_snapshot_that_is_killed_when_it_is_tried_again_loses_nothing(void **state)
{
	struct error e;
	unsigned count;

	(void)state;
	srand(5);
	begin();
	count = write_some(10);
	idle(count);
	rest();
	assert_int_equal(cbt_prepare(cbt, "S", &e), 0);
	noted_in = "V.cbt.next";
	cbt_cut(cbt);
	memset(since, 0, sizeof(since));
	assert_int_equal(cbt_seal_cut(cbt, &e), 0);
	noted_in = "V.cbt";
	cbt_go_on(cbt);
	count += write_some(10);
	idle(count);
	rest();
	assert_int_equal(cbt_prepare(cbt, "S", &e), 0);
	noted_in = "V.cbt.next";
	cbt_cut(cbt);
	count += write_some(10);
	idle(count);
	layer_close(gate);
	layer_close(cbt);
	open_log(SIZE);
	close_log(false);
	is_exact("V.cbt", since);
}

static void a_log_grows_with_its_disk(void **state)
{
	struct geometry g = { .size_bytes = SIZE };
	struct cbt_log l;
	unsigned count;
	struct error e;

	(void)state;
	begin();
	count = write_some(30);
	idle(count);
	rest();
	assert_int_equal(cbt_grow(cbt, 9 * GiB, &e), 0);
	cbt_go_on(cbt);
	g.size_bytes = 9 * GiB;
	bottom.geometry = cbt->geometry = gate->geometry = g;
	count += write_some(30);
	idle(count);
	close_log(true);
	open_log(9 * GiB);
	close_log(false);
	is_exact("V.cbt", written);
	l = loaded("V.cbt");
	assert_true(l.header.size_bytes == 9 * GiB && !cbt_bits_test_all(l.bits, 9 * GiB / B - 1, 9 * GiB / B));
	cbt_log_clear(&l);
}

static void a_guest_that_writes_everywhere_waits_some_times(void **state)
{
	unsigned before;

	(void)state;
	begin();
	before = syncs;
	for (uint64_t region = 0; region < SIZE / CBT_REGION_BYTES; region++) {
		uint64_t at = region * 97 % (SIZE / CBT_REGION_BYTES) * CBT_REGION_BYTES;

		submit(REQ_ZERO, at, at + 4096);
		idle((unsigned)region + 1);
	}
	assert_in_range(syncs - before, 1, 64); /* of 320 regions, one after the other */
	close_log(false);
	is_exact("V.cbt", written);
}

static void what_cannot_be_noted_puts_the_log_away(void **state)
{
	(void)state;
	begin();
	submit(REQ_ZERO, 0, 1);
	idle(1);
	sync_err = EIO;
	submit(REQ_ZERO, GiB, GiB + 1); /* the directory cannot be synced either: nobody knows whether the log is gone */
	idle(2);
	assert_int_equal(failed, 1);
	assert_int_equal(arrived, 1);
	sync_err = 0;
	assert_false(cbt_is_lost(cbt));
	rest();
	layer_close(gate);
	layer_close(cbt);
	assert_int_equal(access(in_dir("V.cbt"), F_OK), -1);
}

static int set_up(void **state)
{
	(void)state;
	loop = loop_new();
	req_init(loop);
	if (!mkdtemp(dir))
		return -1;
	return mkdir(in_dir("run"), 0700);
}

static int tear_down(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	for (unsigned i = 0; i < MEDIA; i++)
		free(medium[i].data);
	req_fini();
	loop_free(loop);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_noted_before),
		cmocka_unit_test(a_cut_is_at_the_moment),
		cmocka_unit_test(a_snapshot_that_is_tried_again_keeps_what_was_sealed),
		cmocka_unit_test(a_snapshot_that_is_killed_loses_nothing),
		cmocka_unit_test(a_snapshot_that_is_killed_when_it_is_tried_again_loses_nothing),
		cmocka_unit_test(a_log_grows_with_its_disk),
		cmocka_unit_test(a_guest_that_writes_everywhere_waits_some_times),
		cmocka_unit_test(what_cannot_be_noted_puts_the_log_away),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
