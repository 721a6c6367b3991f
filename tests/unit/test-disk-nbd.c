/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-nbd - a disk whose bytes an NBD server has: what names it, who is kept off it, and servers that go and come back
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/disk-nbd.h"
#include "nbd-disk-rig.h"

#define SIZE WORLD_BYTES
#define NBD_EIO 5
#define NBD_ENOSPC 28
#define NBD_ESHUTDOWN 108
#define WAIT_MS "300"

static struct fake_nbd_plan plan_of(uint64_t size)
{
	return (struct fake_nbd_plan){ .size_bytes = size, .can_zero = true, .can_fua = true };
}

/* --- what names it */

static void refuse(const char *path, const struct disk_spec *more, int err, const char *words)
{
	struct disk_spec spec = *more;
	struct error e = { 0 };
	struct disk_file *f;

	spec.path = path;
	f = disk_open(&spec, &e);
	disk_file_close(f);
	if (f || e.err != err || !strstr(e.text, words))
		fail_msg("%s: expected %s and \"%s\", got: %s", path, error_name(err), words, e.text);
}

static void what_names_no_export_is_refused(void **state)
{
	static char endless[9001];
	static const char *const text[] = { "", "\n", "hello", "nbd://host/", "nbds+unix:///?socket=/s", "nbd+unix:///?socket=/a b",
					    "nbd+unix:///?socket=/a\nnbd+unix:///?socket=/b\n", "nbd+unix:///\x01?socket=/a", "nbd+unix:///?socket=/a\nkeeps\n", "nbd+unix:///?socket=/a\nkeeps-writes\n\n", "\nkeeps-writes\n", endless };
	const struct disk_spec spec = { .lock_wait_ms = 50 };
	char path[128];

	(void)state;
	memset(endless, 'a', sizeof(endless) - 1);
	memcpy(endless, "nbd+unix:///?socket=/", 21);
	for (size_t i = 0; i < ARRAY_LEN(text); i++) {
		write_name(path, text[i]);
		refuse(path, &spec, EINVAL, "names no export");
	}
	write_name(path, "nbd+unix:///");
	refuse(path, &spec, EINVAL, "socket");
	snprintf(path, sizeof(path), "%s/d.nbd", run_dir);
	refuse(path, &spec, ENOENT, "No such file");
	assert_int_equal(mkdir(path, 0700), 0);
	refuse(path, &spec, EINVAL, "is not a file");
}

/* Else a guest could name another disk from inside its own. */
static void a_raw_image_is_not_looked_at_for_a_uri(void **state)
{
	struct disk_file *f;
	struct error e = { 0 };
	char path[128], raw[160];

	(void)state;
	write_uri(path, "");
	snprintf(raw, sizeof(raw), "%s.raw", path);
	assert_int_equal(rename(path, raw), 0);
	f = disk_open(&(struct disk_spec){ .path = raw }, &e);
	assert_non_null(f);
	assert_false(f->is_nbd);
	assert_true(f->size_bytes < 200);
	disk_file_close(f);
}

static void a_server_that_does_not_fit_is_refused_with_the_reason(void **state)
{
	static const struct {
		struct fake_nbd_plan plan;
		int err;
		const char *words;
	} tests[] = {
		{ { .size_bytes = SIZE, .is_read_only = true }, EROFS, "read-only" },
		{ { .size_bytes = SIZE + 512, .min_block = 4096, .max_block = SIZE }, EINVAL, "no multiple" },
	};
	const struct disk_spec spec = { .lock_wait_ms = 2000 };
	struct fake_nbd f;
	char path[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
		serve(&f, &tests[i].plan);
		write_uri(path, "");
		refuse(path, &spec, tests[i].err, tests[i].words);
		fake_nbd_stop(&f);
	}
	write_uri(path, "");
	refuse(path, &spec, ENOENT, socket_link);
}

static void a_server_that_starts_late_is_waited_for(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct disk_file *f;
	struct fake_nbd server;
	struct error e = { 0 };
	char path[128];

	(void)state;
	fake_nbd_start(&server, &plan, 100);
	unlink(socket_link);
	assert_int_equal(symlink(server.socket, socket_link), 0);
	write_uri(path, "");
	f = disk_open(&(struct disk_spec){ .path = path, .lock_wait_ms = 30000 }, &e);
	assert_non_null(f);
	disk_file_close(f);
	fake_nbd_stop(&server);
}

/* --- who is kept off */

static void two_files_that_name_one_export_are_not_opened_together(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct fake_nbd f;
	struct error e = { 0 };
	struct disk_spec spec = { .lock_wait_ms = 50 };
	struct disk_file *first, *second;
	char a[128], b[128];

	(void)state;
	serve(&f, &plan);
	write_uri(a, "");
	write_uri(b, "");
	spec.path = a;
	first = disk_open(&spec, &e);
	assert_non_null(first);
	refuse(a, &spec, EBUSY, a);
	refuse(b, &spec, EBUSY, socket_link);
	disk_file_close(first);
	spec.is_read_only = true;
	first = disk_open(&spec, &e);
	spec.path = b;
	second = disk_open(&spec, &e);
	assert_true(first && second);
	disk_file_close(first);
	disk_file_close(second);
	fake_nbd_stop(&f);
}

/* --- requests */

static void requests_are_whole_blocks_of_at_most_what_the_server_takes(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct world w;

	(void)state;
	plan.min_block = 4096;
	plan.max_block = 64 * 1024;
	start(&w, &plan, "");
	assert_int_equal(w.rig.disk->geometry.block_bytes, 4096);
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, SIZE, 1), 0);
	assert_int_equal(w.server.longest, 64 * 1024);
	assert_int_equal(w.server.writes, 16);
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 5000, 3, 2), 0);
	assert_int_equal(rig_do(&w.rig, REQ_READ, 5000, 3, 2), 0);
	assert_int_equal(w.server.disk[4999], 1);
	assert_int_equal(w.server.disk[5003], 1);
	assert_int_equal(rig_do(&w.rig, REQ_ZERO, 100, 20000, 0), 0);
	assert_int_equal(rig_do(&w.rig, REQ_READ, 100, 20000, 0), 0);
	assert_int_equal(w.server.disk[99], 1);
	assert_int_equal(w.server.disk[20100], 1);
	assert_int_equal(w.server.no_holes, 1);
	assert_int_equal(rig_do(&w.rig, REQ_TRIM, 0, SIZE, 0), 0);
	assert_int_equal(rig_do(&w.rig, REQ_READ, 0, SIZE, 0), 0);
	assert_int_equal(w.server.no_holes, 1);
	stop(&w);
}

static void a_server_that_cannot_zero_is_written_to(void **state)
{
	struct fake_nbd_plan plan = { .size_bytes = SIZE };
	struct world w;

	(void)state;
	start(&w, &plan, "");
	assert_false(w.rig.disk->geometry.can_trim);
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 65536, 7), 0);
	assert_int_equal(rig_do(&w.rig, REQ_ZERO, 0, 65536, 0), 0);
	assert_int_equal(rig_do(&w.rig, REQ_READ, 0, 65536, 0), 0);
	assert_int_equal(w.server.zeroes, 0);
	stop(&w);
}

static int write_fua(struct world *w)
{
	struct rig_io io = { .req = req_get() };

	io.req->flags = REQ_FUA;
	rig_submit(&w->rig, &io, REQ_WRITE, 0, 4096, 9);
	rig_wait(&w->rig, &io.is_done);
	rig_release(&io);
	return io.err;
}

static void fua_is_the_servers_or_a_flush_after_the_write(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct world w;

	(void)state;
	start(&w, &plan, "");
	assert_int_equal(write_fua(&w), 0);
	assert_int_equal(w.server.fuas, 1);
	assert_int_equal(w.server.flushes, 0);
	stop(&w);
	plan.can_fua = false;
	start(&w, &plan, "");
	assert_int_equal(write_fua(&w), 0);
	assert_int_equal(w.server.fuas, 0);
	assert_int_equal(w.server.flushes, 1);
	stop(&w);
}

static void a_servers_error_is_the_requests(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct world w;

	(void)state;
	start(&w, &plan, "");
	w.server.plan.write_error = NBD_ENOSPC;
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), ENOSPC);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	w.server.plan.write_error = 0;
	w.server.plan.read_error = NBD_EIO;
	assert_int_equal(rig_do(&w.rig, REQ_READ, 0, 4096, 1), EIO);
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	stop(&w);
}

static void after_a_failed_flush_none_is_believed_until_reopened(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct world w;

	(void)state;
	start(&w, &plan, "");
	w.server.plan.flush_error = NBD_EIO;
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), EIO);
	w.server.plan.flush_error = 0;
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), EIO);
	layer_close(w.rig.disk);
	rig_open(&w.rig, &(struct disk_spec){ .path = w.rig.path, .lock_wait_ms = 30000 }, NULL);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	stop(&w);
}

static void extents_that_nobody_tells_are_data(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct rig_io io = { 0 };
	struct extents x;
	struct world w;

	(void)state;
	start(&w, &plan, "");
	extents_init(&x, 0);
	io.req = req_get();
	io.req->extents = &x;
	rig_submit(&w.rig, &io, REQ_EXTENTS, 1000, 5000, 0);
	rig_wait(&w.rig, &io.is_done);
	assert_int_equal(io.err, 0);
	assert_int_equal(x.count, 1);
	assert_int_equal(x.item[0].type, 0);
	assert_int_equal(x.item[0].range.start, 1000);
	assert_int_equal(x.item[0].range.end, 6000);
	extents_fini(&x);
	rig_release(&io);
	stop(&w);
}

/* --- servers that go */

static void start_waiting(struct world *w, const struct fake_nbd_plan *plan, const char *ms)
{
	setenv("SXM_NBD_WAIT_MS", ms, 1);
	start(w, plan, "");
	setenv("SXM_NBD_WAIT_MS", WAIT_MS, 1);
}

static void start_patiently(struct world *w, const struct fake_nbd_plan *plan)
{
	start_waiting(w, plan, "60000");
}

#define CROWD 64

static void submit_crowd(struct world *w, struct rig_io io[CROWD])
{
	memset(io, 0, CROWD * sizeof(*io));
	for (unsigned i = 0; i < CROWD; i++)
		rig_submit(&w->rig, &io[i], REQ_WRITE, i * 4096u, 4096, (uint8_t)(i + 1));
}

/* Each must end so. */
static void wait_for_crowd(struct world *w, struct rig_io io[CROWD], int err)
{
	for (unsigned i = 0; i < CROWD; i++) {
		rig_wait(&w->rig, &io[i].is_done);
		assert_int_equal(io[i].err, err);
		rig_release(&io[i]);
	}
}

static void check_crowd(const struct world *w)
{
	for (unsigned i = 0; i < CROWD * 4096u; i++)
		assert_int_equal(w->server.disk[i], (uint8_t)(i / 4096 + 1));
}

static void a_cut_connection_is_made_anew_and_nobody_hears_of_it(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct rig_io io[CROWD];
	struct world w;

	(void)state;
	plan.die_after = 25;
	start_patiently(&w, &plan);
	submit_crowd(&w, io);
	wait_for_crowd(&w, io, 0);
	assert_true(w.server.accepted >= 3);
	check_crowd(&w);
	stop(&w);
}

static void a_server_that_says_it_ends_is_waited_for(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct rig_io io = { 0 };
	struct world w;

	(void)state;
	start_patiently(&w, &plan);
	w.server.plan.write_error = NBD_ESHUTDOWN;
	rig_submit(&w.rig, &io, REQ_WRITE, 0, 4096, 3);
	turn_until(&w, &w.server.accepted, 2);
	w.server.plan.write_error = 0;
	rig_wait(&w.rig, &io.is_done);
	assert_int_equal(io.err, 0);
	rig_release(&io);
	stop(&w);
}

static void requests_wait_for_a_server_that_comes_back(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct rig_io io[CROWD];
	struct world w;

	(void)state;
	plan.hang_after = 10;
	start_patiently(&w, &plan);
	submit_crowd(&w, io);
	turn_until(&w, &w.server.writes, CROWD); /* hung: arrived, not answered */
	fake_nbd_stop(&w.server);
	plan.hang_after = 0;
	for (unsigned i = 0; i < 50; i++) { /* it is noticed, and tried in vain */
		rig_settle(&w.rig);
		usleep(1000);
	}
	serve(&w.server, &plan);
	memset(w.server.disk, 0xff, SIZE);
	for (unsigned i = 0; i < 10; i++) /* these were answered before */
		memset(w.server.disk + 4096 * i, (int)i + 1, 4096);
	wait_for_crowd(&w, io, 0);
	check_crowd(&w);
	stop(&w);
}

static void a_server_that_stays_away_fails_requests_until_it_is_back(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct rig_io io[CROWD];
	uint64_t start_ns;
	struct world w;

	(void)state;
	start_waiting(&w, &plan, "2000");
	fake_nbd_stop(&w.server);
	submit_crowd(&w, io);
	start_ns = loop_now_ns();
	wait_for_crowd(&w, io, EIO);
	assert_true(loop_now_ns() - start_ns >= 1900 * NS_PER_MS);
	start_ns = loop_now_ns();
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), EIO);
	assert_true(loop_now_ns() - start_ns < 1900 * NS_PER_MS);
	serve(&w.server, &plan);
	turn_until(&w, &w.server.greeted, 1);
	while (rig_do(&w.rig, REQ_WRITE, 0, 4096, 1) != 0)
		usleep(1000);
	assert_int_equal(rig_do(&w.rig, REQ_READ, 0, 4096, 1), 0);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0); /* no server ever said that it failed */
	stop(&w);
}

static void another_disk_is_not_taken_for_the_one_that_went(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE), other = plan_of(SIZE / 2);
	struct world w;

	(void)state;
	start(&w, &plan, "");
	fake_nbd_stop(&w.server);
	serve(&w.server, &other);
	turn_until(&w, &w.server.greeted, 1);
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), EIO);
	assert_int_equal(w.server.writes, 0);
	fake_nbd_stop(&w.server);
	serve(&w.server, &plan);
	while (rig_do(&w.rig, REQ_WRITE, 0, 4096, 1) != 0)
		usleep(1000);
	stop(&w);
}

/* What the old connection still holds could be written over what the new one writes. */
static void nothing_is_sent_before_the_server_is_done_with_the_lost_link(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	struct rig_io io = { 0 };
	struct world w;

	(void)state;
	plan.die_after = 1;
	start_patiently(&w, &plan);
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	atomic_store(&w.server.keeps_dead, true);
	rig_submit(&w.rig, &io, REQ_WRITE, 0, 4096, 2);
	turn_until(&w, &w.server.greeted, 4); /* it was tried twice more */
	assert_int_equal(w.server.writes, 2);
	assert_false(io.is_done);
	atomic_store(&w.server.keeps_dead, false);
	rig_wait(&w.rig, &io.is_done);
	assert_int_equal(io.err, 0);
	assert_int_equal(w.server.writes, 3);
	rig_release(&io);
	stop(&w);
}

static void an_open_waits_for_a_dead_clients_connection(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE);
	const struct disk_spec spec = { .lock_wait_ms = 100 };
	struct world w;

	(void)state;
	start(&w, &plan, "");
	atomic_store(&w.server.keeps_dead, true);
	layer_close(w.rig.disk);
	w.rig.disk = NULL;
	refuse(w.rig.path, &spec, ETIMEDOUT, "a client that is gone");
	atomic_store(&w.server.keeps_dead, false);
	rig_open(&w.rig, &(struct disk_spec){ .path = w.rig.path, .lock_wait_ms = 30000 }, NULL);
	stop(&w);
}

static void it_closes_while_it_is_trying_to_reach_the_server(void **state)
{
	struct fake_nbd_plan plan = plan_of(SIZE), silent = plan;
	struct world w;

	(void)state;
	silent.manner = FAKE_NBD_SILENT;
	start(&w, &plan, "");
	fake_nbd_stop(&w.server);
	serve(&w.server, &silent);
	turn_until(&w, &w.server.accepted, 1);
	stop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(what_names_no_export_is_refused),
		WORLD_TEST(a_raw_image_is_not_looked_at_for_a_uri),
		WORLD_TEST(a_server_that_does_not_fit_is_refused_with_the_reason),
		WORLD_TEST(a_server_that_starts_late_is_waited_for),
		WORLD_TEST(two_files_that_name_one_export_are_not_opened_together),
		WORLD_TEST(requests_are_whole_blocks_of_at_most_what_the_server_takes),
		WORLD_TEST(a_server_that_cannot_zero_is_written_to),
		WORLD_TEST(fua_is_the_servers_or_a_flush_after_the_write),
		WORLD_TEST(a_servers_error_is_the_requests),
		WORLD_TEST(after_a_failed_flush_none_is_believed_until_reopened),
		WORLD_TEST(extents_that_nobody_tells_are_data),
		WORLD_TEST(a_cut_connection_is_made_anew_and_nobody_hears_of_it),
		WORLD_TEST(a_server_that_says_it_ends_is_waited_for),
		WORLD_TEST(requests_wait_for_a_server_that_comes_back),
		WORLD_TEST(a_server_that_stays_away_fails_requests_until_it_is_back),
		WORLD_TEST(another_disk_is_not_taken_for_the_one_that_went),
		WORLD_TEST(nothing_is_sent_before_the_server_is_done_with_the_lost_link),
		WORLD_TEST(an_open_waits_for_a_dead_clients_connection),
		WORLD_TEST(it_closes_while_it_is_trying_to_reach_the_server),
	};

	return world_run(tests, ARRAY_LEN(tests), WAIT_MS);
}
