/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A mark that cannot be written ends the mirror and not the guest; and the write that goes on without it finds map and marks gone,
 * on the medium. So does a write after the mirror's end, or it is in map and marks: and that one waits for nobody. (fdatasync and
 * fsync are ours here.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mirror/mirror.h"
#include "tests/lib/fake-nbd.h"

#define SIZE (48 * MiB) /* three regions; the first is marked since it is to be copied */

struct world {
	struct loop *loop;
	struct loop_timer *alarm;
	struct iobuf_pool *pool;
	struct layer disk, *mirror;
	struct fake_nbd far;
	char dir[64], map[96], marks[96];
	bool is_aborted, is_written, is_restored;
	int err;
};
static struct world w;

static bool must_fail;              /* the next fdatasync */
static bool was_gone, was_gone_for_good; /* the marks' file, when its directory was synced; when the write came */
static atomic_bool is_slow;         /* the next directory is not synced before let_sync() */
static sem_t synced;

static bool is_there(const char *path)
{
	return access(path, F_OK) == 0;
}

int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);

int __wrap_fdatasync(int fd)
{
	if (must_fail) {
		must_fail = false;
		errno = EIO;
		return -1;
	}
	return fsync(fd);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd)
{
	struct stat st;

	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		while (is_slow && sem_wait(&synced) == -1)
			;
		was_gone = !is_there(w.marks);
	}
	return __real_fsync(fd);
}

static void let_sync(void)
{
	is_slow = false;
	sem_post(&synced);
}

/* --- a disk with data in its first chunk, and no memory */

static void disk_submit(struct layer *l UNUSED, struct req *r)
{
	if (r->op == REQ_WRITE)
		was_gone_for_good = was_gone && !is_there(w.marks) && !is_there(w.map);
	if (r->op == REQ_EXTENTS) {
		extents_add(r->extents, (struct range){ 0, 4096 }, 0);
		extents_add(r->extents, (struct range){ 4096, SIZE }, EXTENT_HOLE | EXTENT_ZERO);
	} else if (r->op == REQ_READ) {
		memset(r->data->data + r->data_offset, 1, range_length(r->range));
	}
	req_complete(r, 0);
}

static const struct layer_ops disk_ops = { .name = "test", .submit = disk_submit };

/* --- the world */

static void on_alarm(void *arg UNUSED)
{
	struct mirror_status s;

	mirror_status(w.mirror, &s);
	fail_msg("nothing happened for 60 s: state %d, %s", (int)s.core.state, s.why.text);
}

static void await(bool (*is_so)(void))
{
	loop_timer_set(w.alarm, 60000);
	while (!is_so())
		loop_run(w.loop);
	loop_timer_clear(w.alarm);
}

static void on_change(void *arg UNUSED)
{
	loop_stop(w.loop);
}

static void on_aborted(void *arg UNUSED)
{
	w.is_aborted = true;
	loop_stop(w.loop);
}

static void on_written(struct req *r)
{
	w.is_written = true;
	w.err = r->err;
	iobuf_return(r->data);
	req_put(r);
	loop_stop(w.loop);
}

static enum core_state state_of(void)
{
	struct mirror_status s;

	mirror_status(w.mirror, &s);
	return s.core.state;
}
static bool is_synced(void) { return state_of() == CORE_SYNCED; }
static bool has_failed(void) { return state_of() == CORE_FAILED; }
static bool is_aborted(void) { return w.is_aborted; }
static bool is_written(void) { return w.is_written; }

static void submit_write(uint64_t start)
{
	struct req *r = req_get();

	r->op = REQ_WRITE;
	r->range = (struct range){ start, start + 4096 };
	r->data = iobuf_get(w.pool, 4096);
	memset(r->data->data, 7, 4096);
	r->done = on_written;
	w.is_written = false;
	layer_submit(w.mirror, r);
}

static void await_written(void)
{
	await(is_written);
	assert_int_equal(w.err, 0);
}

static void write_at(uint64_t start)
{
	submit_write(start);
	await_written();
}

static struct layer *make(void)
{
	const struct mirror_spec spec = {
		.loop = w.loop, .below = &w.disk, .uri = w.far.uri, .on_change = on_change,
		.mirror_id = "5e6f.17", .epoch = 1, .map_path = w.map, .marks_path = w.marks, .source_name = "a disk",
	};
	struct error e = { 0 };
	struct layer *l = mirror_new(&spec, &e);

	if (!l)
		fail_msg("%s", e.text);
	return l;
}

static void start(void)
{
	w.mirror = make();
	mirror_start(w.mirror);
	await(is_synced);
}

static void end(void)
{
	mirror_abort(w.mirror, on_aborted, NULL);
	await(is_aborted);
	layer_close(w.mirror);
}

static int setup(void **state)
{
	const struct geometry g = { .size_bytes = SIZE, .block_bytes = 512 };
	const struct fake_nbd_plan plan = { .size_bytes = SIZE, .can_zero = true };

	(void)state;
	memset(&w, 0, sizeof(w));
	was_gone = is_slow = false;
	sem_init(&synced, 0, 0);
	strcpy(w.dir, "/tmp/sxm-marks.XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	snprintf(w.map, sizeof(w.map), "%s/map", w.dir);
	snprintf(w.marks, sizeof(w.marks), "%s/disk.marks", w.dir);
	w.loop = loop_new();
	req_init(w.loop);
	w.alarm = loop_timer_new(w.loop, on_alarm, NULL);
	w.pool = iobuf_pool_new(16 * MiB);
	layer_init(&w.disk, &disk_ops, NULL, &g);
	fake_nbd_start(&w.far, &plan, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	let_sync();
	fake_nbd_stop(&w.far);
	loop_timer_free(w.alarm);
	iobuf_pool_free(w.pool);
	req_fini();
	loop_free(w.loop);
	return rmdir(w.dir);
}

static void a_write_goes_on_without_its_mark_when_no_mark_can_be_believed(void **state)
{
	(void)state;
	start();
	assert_true(is_there(w.marks) && is_there(w.map));
	write_at(16 * MiB); /* marked */
	assert_false(was_gone_for_good);
	was_gone = false;
	must_fail = true;
	write_at(32 * MiB);
	assert_true(was_gone_for_good);
	await(has_failed);
	end();
}

static void a_write_after_the_end_waits_until_map_and_marks_are_gone(void **state)
{
	(void)state;
	start();
	was_gone = was_gone_for_good = false;
	mirror_abort(w.mirror, on_aborted, NULL);
	write_at(32 * MiB);
	assert_true(was_gone_for_good);
	await(is_aborted);
	layer_close(w.mirror);
}

static void a_write_where_a_mark_is_does_not_wait_for_a_failing_mirror(void **state)
{
	(void)state;
	start();
	write_at(0);
	is_slow = true;
	submit_write(0);
	fake_nbd_cut(&w.far, 0);
	await_written(); /* on its way when the link went */
	await(has_failed);
	write_at(0);
	assert_false(was_gone_for_good); /* map and marks are still going */
	let_sync();
	end();
}

static void on_restored(void *arg, const struct error *e)
{
	(void)arg;
	assert_null(e);
	w.is_restored = true;
	loop_stop(w.loop);
}

static bool is_restored(void) { return w.is_restored; }

static void what_is_written_after_the_end_of_one_that_is_kept_is_owed(void **state)
{
	struct layer *ended, *next = make();
	struct mirror_status s;

	(void)state;
	start();
	ended = w.mirror;
	mirror_keep_debt(ended);
	mirror_abort(ended, on_aborted, NULL);
	write_at(32 * MiB);
	write_at(0); /* it is marked, and CLEAN */
	await(is_aborted);
	mirror_restore(next, on_restored, NULL); /* as if the process had been killed here */
	await(is_restored);
	mirror_status(next, &s);
	assert_int_equal(s.core.dirty_bytes, 2 * 4096);
	w.is_aborted = false;
	w.mirror = next;
	end();
	layer_close(ended);
}

static uint64_t owed_by_the_next(struct layer **next)
{
	struct mirror_status s;

	*next = make();
	w.is_restored = false;
	mirror_restore(*next, on_restored, NULL);
	await(is_restored);
	mirror_status(*next, &s);
	return s.core.dirty_bytes;
}

/* The host went down, and what took the mirror up is killed: what only the marks knew is in the map now. */
static void what_the_marks_alone_knew_is_owed_after_a_kill_too(void **state)
{
	struct layer *ended, *second, *third;
	uint64_t owed;

	(void)state;
	start();
	write_at(16 * MiB);
	ended = w.mirror;
	mirror_keep_debt(ended);
	mirror_abort(ended, on_aborted, NULL);
	await(is_aborted);
	unlink(w.map);
	owed = owed_by_the_next(&second);
	assert_true(owed >= 16 * MiB);
	assert_int_equal(owed_by_the_next(&third), owed);
	for (w.mirror = third; w.mirror; w.mirror = w.mirror == third ? second : NULL) {
		w.is_aborted = false;
		end();
	}
	layer_close(ended);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_write_goes_on_without_its_mark_when_no_mark_can_be_believed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_write_after_the_end_waits_until_map_and_marks_are_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(a_write_where_a_mark_is_does_not_wait_for_a_failing_mirror, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_written_after_the_end_of_one_that_is_kept_is_owed, setup, teardown),
		cmocka_unit_test_setup_teardown(what_the_marks_alone_knew_is_owed_after_a_kill_too, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
