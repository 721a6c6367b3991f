/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-nbd-loss - a disk whose server dies with what it had acknowledged and not flushed: nobody is told that it is stored
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "disk-rig.h"
#include "tests/lib/fake-nbd.h"

#define SIZE (UINT64_C(1) << 20)

static char run_dir[64], socket_link[96];

/* A server at socket_link, whichever fake it is now, and a disk over it. */
struct world {
	struct rig rig; /* first */
	struct fake_nbd server;
};

/* A name of its own for each test: what a failed one left locked is not the next one's. */
static int setup(void **state)
{
	static unsigned number;

	(void)state;
	alarm(60); /* a test that waits in vain ends */
	snprintf(socket_link, sizeof(socket_link), "%s/s%u", run_dir, ++number);
	return 0;
}

static void serve(struct fake_nbd *f, const struct fake_nbd_plan *plan)
{
	fake_nbd_start(f, plan, 0);
	while (access(f->socket, F_OK) != 0)
		usleep(1000);
	unlink(socket_link);
	assert_int_equal(symlink(f->socket, socket_link), 0);
}

static void write_name(char path[static 128], const char *text)
{
	int fd;

	snprintf(path, 128, "%s/%ld.nbd", run_dir, random());
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static const struct fake_nbd_plan plan = { .size_bytes = SIZE, .can_zero = true, .can_fua = true };

static void start(struct world *w, const struct fake_nbd_plan *p, const char *promise)
{
	char text[200];

	rig_init(&w->rig);
	serve(&w->server, p);
	snprintf(text, sizeof(text), "nbd+unix:///?socket=%s\n%s", socket_link, promise);
	write_name(w->rig.path, text);
	rig_open(&w->rig, &(struct disk_spec){ .path = w->rig.path, .lock_wait_ms = 2000 }, NULL);
}

static void stop(struct world *w)
{
	rig_fini(&w->rig);
	fake_nbd_stop(&w->server);
}

/* The loop turns until *what is at least wanted. */
static void turn_until(struct world *w, atomic_uint *what, unsigned wanted)
{
	uint64_t until_ns = loop_now_ns() + 10 * NS_PER_S;

	while (atomic_load(what) < wanted) {
		if (loop_now_ns() > until_ns)
			fail_msg("waited in vain");
		rig_settle(&w->rig);
		usleep(1000);
	}
}

/* Another server takes the place of the one that was there, and has its bytes. */
static void replace(struct world *w)
{
	uint8_t *kept = malloc(SIZE);

	memcpy(kept, w->server.disk, SIZE);
	fake_nbd_stop(&w->server);
	serve(&w->server, &plan);
	memcpy(w->server.disk, kept, SIZE);
	free(kept);
	turn_until(w, &w->server.greeted, 1);
}

static void what_was_not_flushed_when_the_server_went_fails_the_next_flushes(void **state)
{
	struct world w;

	(void)state;
	start(&w, &plan, "");
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	replace(&w); /* nothing was there to be lost */
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	assert_int_equal(rig_do(&w.rig, REQ_ZERO, 0, 4096, 0), 0);
	replace(&w);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), EIO);
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), EIO); /* whoever asks */
	layer_close(w.rig.disk);
	rig_open(&w.rig, &(struct disk_spec){ .path = w.rig.path, .lock_wait_ms = 2000 }, NULL);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	stop(&w);
}

/* It is sent anew to a server that never saw the writes. */
static void a_flush_that_is_on_its_way_when_the_server_goes_fails(void **state)
{
	struct fake_nbd_plan hangs = plan;
	struct rig_io io = { 0 };
	struct world w;

	(void)state;
	hangs.hang_after = 1;
	start(&w, &hangs, "");
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	rig_submit(&w.rig, &io, REQ_FLUSH, 0, 0, 0);
	turn_until(&w, &w.server.flushes, 1);
	replace(&w);
	rig_wait(&w.rig, &io.is_done);
	assert_int_equal(io.err, EIO);
	rig_release(&io);
	stop(&w);
}

static void a_server_that_keeps_its_writes_may_go(void **state)
{
	struct world w;

	(void)state;
	start(&w, &plan, "keeps-writes\n");
	assert_int_equal(rig_do(&w.rig, REQ_WRITE, 0, 4096, 1), 0);
	replace(&w);
	assert_int_equal(rig_do(&w.rig, REQ_FLUSH, 0, 0, 0), 0);
	stop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_was_not_flushed_when_the_server_went_fails_the_next_flushes, setup),
		cmocka_unit_test_setup(a_flush_that_is_on_its_way_when_the_server_goes_fails, setup),
		cmocka_unit_test_setup(a_server_that_keeps_its_writes_may_go, setup),
	};
	char command[96];
	int failed;

	strcpy(run_dir, "/tmp/sxm-nbd-loss-XXXXXX");
	if (!mkdtemp(run_dir))
		return 1;
	setenv("SXM_RUN_DIR", run_dir, 1);
	setenv("SXM_NBD_WAIT_MS", "20000", 1);
	failed = cmocka_run_group_tests_name("a disk behind an NBD server", tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -r %s", run_dir);
	return system(command) != 0 || failed;
}
