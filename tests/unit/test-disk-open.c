/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-open - what is refused, who is locked out, what is learnt, and where the holes are
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk-rig.h"

static enum disk_engine engine; /* every test runs once with each */

static void refuse(const char *path, int err, const char *words)
{
	struct disk_spec spec = { .path = path, .engine = engine };
	struct error e = { 0 };

	assert_null(disk_open(&spec, &e));
	assert_int_equal(e.err, err);
	assert_non_null(strstr(e.text, path));
	assert_non_null(strstr(e.text, words));
}

static void what_is_no_disk_is_refused_by_name(void **state)
{
	char path[128], fifo[160];

	(void)state;
	rig_file(path, 0);
	snprintf(fifo, sizeof(fifo), "%s.fifo", path);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	refuse("/nowhere/at/all", ENOENT, "No such file");
	refuse("/", EINVAL, "a directory");
	refuse("/dev/null", EINVAL, "a character device");
	refuse(fifo, EINVAL, "a fifo"); /* and does not wait for a writer */
	unlink(fifo);
	unlink(path);
}

static void a_symbolic_link_leads_to_its_disk(void **state)
{
	struct rig rig;
	char link[160];

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, 8192);
	snprintf(link, sizeof(link), "%s.link", rig.path);
	assert_int_equal(symlink(rig.path, link), 0);
	rig_open(&rig, &(struct disk_spec){ .path = link, .engine = engine }, NULL);
	assert_int_equal(rig.disk->geometry.size_bytes, 8192);
	rig_fini(&rig);
	unlink(link);
}

/* Another process takes the lock, says so, and lets it go when told. */
static pid_t hold_lock(const char *path, int how, int *told)
{
	int ready[2], stop[2];
	char byte = 0;
	pid_t child;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	assert_int_equal(pipe2(stop, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int fd = open(path, O_RDWR | O_CLOEXEC);

		close(stop[1]);
		if (fd < 0 || flock(fd, how) != 0 || write(ready[1], "r", 1) != 1)
			_exit(1);
		_exit(read(stop[0], &byte, 1) < 0);
	}
	close(ready[1]);
	close(stop[0]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	*told = stop[1];
	return child;
}

static void a_locked_disk_is_busy_after_a_bounded_wait(void **state)
{
	struct disk_spec spec = { .engine = engine, .lock_wait_ms = 60 };
	struct error e = { 0 };
	uint64_t start_ns, waited_ms;
	char path[128];
	int told, status;
	pid_t child;

	(void)state;
	rig_file(path, 4096);
	spec.path = path;
	child = hold_lock(path, LOCK_EX, &told);
	start_ns = loop_now_ns();
	assert_null(disk_open(&spec, &e));
	waited_ms = (loop_now_ns() - start_ns) / NS_PER_MS;
	assert_int_equal(e.err, EBUSY);
	assert_non_null(strstr(e.text, path));
	assert_true(waited_ms >= 60 && waited_ms < 30000);
	spec.is_read_only = true;
	assert_null(disk_open(&spec, &e));
	close(told);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	unlink(path);
}

static void a_lock_let_go_in_time_is_taken(void **state)
{
	struct disk_spec spec = { .engine = engine, .lock_wait_ms = 20000 };
	struct error e = { 0 };
	struct disk_file *f;
	char path[128];
	int told;
	pid_t child, closer;

	(void)state;
	rig_file(path, 4096);
	spec.path = path;
	child = hold_lock(path, LOCK_EX, &told);
	closer = fork();
	assert_true(closer >= 0);
	if (closer == 0) {
		usleep(30000); /* so that the open below has to wait; it works without, too */
		_exit(0);
	}
	close(told); /* the closer's copy keeps it open until it ends */
	f = disk_open(&spec, &e);
	assert_non_null(f);
	disk_file_close(f);
	waitpid(child, NULL, 0);
	waitpid(closer, NULL, 0);
	unlink(path);
}

static void a_file_replaced_while_its_lock_was_waited_for_is_not_used(void **state)
{
	struct disk_spec spec = { .engine = engine, .lock_wait_ms = 20000 };
	struct error e = { 0 };
	struct disk_file *f;
	struct stat st;
	char path[128], newer[128];
	int told;
	pid_t child, replacer;

	(void)state;
	rig_file(path, 4096);
	rig_file(newer, 8192);
	spec.path = path;
	child = hold_lock(path, LOCK_EX, &told);
	replacer = fork();
	assert_true(replacer >= 0);
	if (replacer == 0) {
		usleep(30000);
		_exit(rename(newer, path) != 0);
	}
	close(told);
	f = disk_open(&spec, &e);
	assert_non_null(f);
	waitpid(child, NULL, 0);
	waitpid(replacer, NULL, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(f->size_bytes, st.st_size);
	disk_file_close(f);
	unlink(path);
}

static void readers_share_and_keep_writers_out(void **state)
{
	struct disk_spec spec = { .engine = engine, .is_read_only = true };
	struct error e = { 0 };
	struct disk_file *a, *b;
	char path[128];

	(void)state;
	rig_file(path, 4096);
	spec.path = path;
	a = disk_open(&spec, &e);
	b = disk_open(&spec, &e);
	assert_true(a && b);
	spec.is_read_only = false;
	assert_null(disk_open(&spec, &e));
	assert_int_equal(e.err, EBUSY);
	disk_file_close(a);
	disk_file_close(b);
	a = disk_open(&spec, &e);
	assert_non_null(a);
	disk_file_close(a);
	unlink(path);
}

static void a_read_only_disk_takes_no_writes(void **state)
{
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, 4096);
	rig_open(&rig, &(struct disk_spec){ .path = rig.path, .engine = engine, .is_read_only = true }, NULL);
	assert_true(rig.disk->geometry.is_read_only);
	assert_false(rig.disk->geometry.can_trim);
	assert_int_equal(rig_do(&rig, REQ_WRITE, 0, 512, 1), EPERM);
	assert_int_equal(rig_do(&rig, REQ_READ, 0, 4096, 0), 0);
	assert_int_equal(rig_do(&rig, REQ_FLUSH, 0, 0, 0), 0);
	rig_fini(&rig);
}

static void an_empty_disk_opens_flushes_and_grows(void **state)
{
	struct error e = { 0 };
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, 0);
	rig_open(&rig, &(struct disk_spec){ .path = rig.path, .engine = engine }, NULL);
	assert_int_equal(rig.disk->geometry.size_bytes, 0);
	assert_int_equal(rig_do(&rig, REQ_FLUSH, 0, 0, 0), 0);
	assert_int_equal(rig_do(&rig, REQ_CACHE, 0, 0, 0), 0);
	assert_int_equal(rig_do(&rig, REQ_READ, 0, 512, 0), EINVAL);
	assert_int_equal(truncate(rig.path, 10000), 0);
	assert_int_equal(disk_refresh_size(rig.disk, &e), 0);
	assert_int_equal(rig_do(&rig, REQ_WRITE, 0, 10000, 5), 0);
	assert_int_equal(truncate(rig.path, 30001), 0);
	assert_int_equal(disk_refresh_size(rig.disk, &e), 0);
	assert_int_equal(rig_do(&rig, REQ_WRITE, 10000, 20001, 5), 0);
	assert_int_equal(rig_do(&rig, REQ_READ, 0, 30001, 5), 0);
	rig_fini(&rig);
}

static void a_disk_that_shrank_reads_as_an_error_not_as_zeroes(void **state)
{
	struct error e = { 0 };
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, 64 * KiB);
	rig_open(&rig, &(struct disk_spec){ .path = rig.path, .engine = engine }, NULL);
	assert_int_equal(rig_do(&rig, REQ_WRITE, 0, 64 * KiB, 9), 0);
	assert_int_equal(truncate(rig.path, 16 * KiB), 0);
	assert_int_equal(rig_do(&rig, REQ_READ, 16 * KiB, 4096, 9), EIO);
	assert_int_equal(rig_do(&rig, REQ_READ, 12 * KiB, 8192, 9), EIO);
	assert_int_equal(rig_do(&rig, REQ_READ, 12 * KiB, 4096, 9), 0);
	assert_int_equal(disk_refresh_size(rig.disk, &e), -1);
	assert_int_equal(rig.disk->geometry.size_bytes, 64 * KiB);
	rig_fini(&rig);
}

static size_t ask_extents(struct rig *rig, struct extents *x, struct range range, unsigned flags)
{
	struct rig_io io = { .req = req_get() };
	uint64_t position = range.start;

	io.req->extents = x;
	io.req->flags = flags;
	rig_submit(rig, &io, REQ_EXTENTS, range.start, range_length(range), 0);
	rig_wait(rig, &io.is_done);
	assert_int_equal(io.err, 0);
	rig_release(&io);
	assert_true(x->count > 0);
	for (size_t i = 0; i < x->count; i++) {
		assert_int_equal(x->item[i].range.start, position);
		position = x->item[i].range.end;
	}
	assert_true(position <= range.end);
	return x->count;
}

static void extents_tell_data_from_holes(void **state)
{
	struct extents x, one, none;
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, 16 * MiB + 100);
	rig_open(&rig, &(struct disk_spec){ .path = rig.path, .engine = engine }, NULL);
	assert_int_equal(rig_do(&rig, REQ_WRITE, 1 * MiB, MiB, 3), 0);
	assert_int_equal(rig_do(&rig, REQ_WRITE, 4 * MiB, MiB, 3), 0);
	extents_init(&x, 0);
	assert_int_equal(ask_extents(&rig, &x, (struct range){ 0, 16 * MiB + 100 }, 0), 5);
	assert_int_equal(x.item[0].type, EXTENT_HOLE | EXTENT_ZERO);
	assert_int_equal(x.item[1].type, 0);
	assert_int_equal(x.item[1].range.start, MiB);
	assert_int_equal(x.item[1].range.end, 2 * MiB);
	assert_int_equal(x.item[3].type, 0);
	assert_int_equal(x.item[4].range.end, 16 * MiB + 100);
	extents_init(&one, 0);
	assert_int_equal(ask_extents(&rig, &one, (struct range){ MiB + 5, 16 * MiB }, REQ_ONE), 1);
	assert_int_equal(one.item[0].range.end, 2 * MiB);
	if (rig.disk->geometry.can_trim) {
		assert_int_equal(rig_do(&rig, REQ_TRIM, 0, 16 * MiB + 100, 0), 0);
		extents_init(&none, 0);
		assert_int_equal(ask_extents(&rig, &none, (struct range){ 0, 16 * MiB + 100 }, 0), 1);
		assert_int_equal(none.item[0].type, EXTENT_HOLE | EXTENT_ZERO);
		extents_fini(&none);
	}
	extents_fini(&x);
	extents_fini(&one);
	rig_fini(&rig);
}

static void many_extents_come_in_bounded_answers(void **state)
{
	uint64_t position = 0, size = 2000 * 8192;
	unsigned asked = 0, data = 0;
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, size);
	rig_open(&rig, &(struct disk_spec){ .path = rig.path, .engine = engine }, NULL);
	for (uint64_t i = 0; i < 2000; i++)
		assert_int_equal(rig_do(&rig, REQ_WRITE, i * 8192, 4096, 1), 0);
	for (; position < size; asked++) {
		struct extents x;

		extents_init(&x, 0);
		ask_extents(&rig, &x, (struct range){ position, size }, 0);
		for (size_t i = 0; i < x.count; i++)
			data += x.item[i].type == 0;
		position = x.item[x.count - 1].range.end;
		assert_true(x.count <= 512);
		extents_fini(&x);
	}
	assert_int_equal(data, 2000);
	assert_true(asked >= 8);
	rig_fini(&rig);
}

static void a_zero_that_may_not_trim_keeps_its_space(void **state)
{
	struct stat before, after;
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, 4 * MiB);
	rig_open(&rig, &(struct disk_spec){ .path = rig.path, .engine = engine }, NULL);
	assert_int_equal(rig_do(&rig, REQ_WRITE, 0, 4 * MiB, 1), 0);
	assert_int_equal(rig_do(&rig, REQ_FLUSH, 0, 0, 0), 0);
	assert_int_equal(stat(rig.path, &before), 0);
	assert_int_equal(rig_do(&rig, REQ_ZERO, 0, 4 * MiB, 0), 0);
	assert_int_equal(rig_do(&rig, REQ_FLUSH, 0, 0, 0), 0);
	assert_int_equal(stat(rig.path, &after), 0);
	assert_true(after.st_blocks >= before.st_blocks);
	assert_int_equal(rig_do(&rig, REQ_READ, 0, 4 * MiB, 0), 0);
	rig_fini(&rig);
}

static void the_environment_chooses_engine_and_cache(void **state)
{
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, 8192);
	setenv("SXM_ENGINE", "pool", 1);
	setenv("SXM_DIRECT", "0", 1);
	rig_open(&rig, &(struct disk_spec){ .path = rig.path }, NULL);
	unsetenv("SXM_ENGINE");
	unsetenv("SXM_DIRECT");
	assert_string_equal(disk_engine_name(rig.disk), "threads");
	assert_false(disk_is_direct(rig.disk));
	assert_int_equal(rig_do(&rig, REQ_WRITE, 3, 11, 0xaa), 0);
	assert_int_equal(rig_do(&rig, REQ_READ, 3, 11, 0xaa), 0);
	rig_fini(&rig);
}

static void more_requests_than_the_ring_holds_all_end(void **state)
{
	enum { COUNT = 1500 };
	struct rig_io *io = calloc(COUNT, sizeof(*io));
	struct rig rig;

	(void)state;
	rig_init(&rig);
	rig_file(rig.path, COUNT * 4096);
	rig_open(&rig, &(struct disk_spec){ .path = rig.path, .engine = engine }, NULL);
	for (unsigned i = 0; i < COUNT; i++)
		rig_submit(&rig, &io[i], REQ_WRITE, i * 4096, 4096, (uint8_t)i);
	for (unsigned i = 0; i < COUNT; i++) {
		rig_wait(&rig, &io[i].is_done);
		assert_int_equal(io[i].err, 0);
		rig_release(&io[i]);
	}
	for (unsigned i = 0; i < COUNT; i += 97)
		assert_int_equal(rig_do(&rig, REQ_READ, i * 4096, 4096, (uint8_t)i), 0);
	rig_fini(&rig);
	free(io);
}

static bool has_uring(void)
{
	struct loop *l = loop_new();
	struct engine *g = engine_uring_new(l, NULL);

	if (g)
		g->ops->free(g);
	loop_free(l);
	return g != NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_disk_is_refused_by_name),
		cmocka_unit_test(a_symbolic_link_leads_to_its_disk),
		cmocka_unit_test(a_locked_disk_is_busy_after_a_bounded_wait),
		cmocka_unit_test(a_lock_let_go_in_time_is_taken),
		cmocka_unit_test(a_file_replaced_while_its_lock_was_waited_for_is_not_used),
		cmocka_unit_test(readers_share_and_keep_writers_out),
		cmocka_unit_test(a_read_only_disk_takes_no_writes),
		cmocka_unit_test(an_empty_disk_opens_flushes_and_grows),
		cmocka_unit_test(a_disk_that_shrank_reads_as_an_error_not_as_zeroes),
		cmocka_unit_test(extents_tell_data_from_holes),
		cmocka_unit_test(many_extents_come_in_bounded_answers),
		cmocka_unit_test(a_zero_that_may_not_trim_keeps_its_space),
		cmocka_unit_test(the_environment_chooses_engine_and_cache),
		cmocka_unit_test(more_requests_than_the_ring_holds_all_end),
	};
	int failed;

	engine = DISK_ENGINE_POOL;
	failed = cmocka_run_group_tests_name("threads", tests, NULL, NULL);
	engine = DISK_ENGINE_URING;
	if (has_uring())
		failed += cmocka_run_group_tests_name("io_uring", tests, NULL, NULL);
	return failed;
}
