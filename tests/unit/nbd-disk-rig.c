/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * nbd-disk-rig - see nbd-disk-rig.h
 */
#include "nbd-disk-rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk/disk-nbd.h"

char run_dir[64], socket_link[96];

int world_run(const struct CMUnitTest *tests, size_t count, const char *wait_ms)
{
	char command[96];
	int failed;

	strcpy(run_dir, "/tmp/sxm-disk-nbd-XXXXXX");
	if (!mkdtemp(run_dir))
		return 1;
	setenv("SXM_RUN_DIR", run_dir, 1);
	setenv("SXM_NBD_WAIT_MS", wait_ms, 1);
	failed = _cmocka_run_group_tests("a disk behind an NBD server", tests, count, NULL, NULL);
	snprintf(command, sizeof(command), "rm -r %s", run_dir);
	return system(command) != 0 || failed;
}

int world_setup(void **state)
{
	static unsigned number;

	(void)state;
	alarm(180); /* a test that waits in vain ends */
	snprintf(socket_link, sizeof(socket_link), "%s/s%u", run_dir, ++number);
	return 0;
}

void serve(struct fake_nbd *f, const struct fake_nbd_plan *plan)
{
	fake_nbd_start(f, plan, 0);
	unlink(socket_link);
	assert_int_equal(symlink(f->socket, socket_link), 0);
}

void write_name(char path[static 128], const char *text)
{
	int fd;

	snprintf(path, 128, "%s/%ld.nbd", run_dir, random());
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

void write_uri(char path[static 128], const char *promise)
{
	char text[200];

	snprintf(text, sizeof(text), "nbd+unix:///?socket=%s\n%s", socket_link, promise);
	write_name(path, text);
}

void start(struct world *w, const struct fake_nbd_plan *plan, const char *promise)
{
	rig_init(&w->rig);
	serve(&w->server, plan);
	write_uri(w->rig.path, promise);
	rig_open(&w->rig, &(struct disk_spec){ .path = w->rig.path, .lock_wait_ms = 30000 }, NULL);
	assert_string_equal(disk_engine_name(w->rig.disk), "nbd");
	assert_false(disk_is_direct(w->rig.disk));
}

void stop(struct world *w)
{
	rig_fini(&w->rig);
	if (w->server.own)
		fake_nbd_stop(&w->server);
}

void turn_until(struct world *w, atomic_uint *what, unsigned wanted)
{
	uint64_t until_ns = loop_now_ns() + 60 * NS_PER_S;

	while (atomic_load(what) < wanted) {
		if (loop_now_ns() > until_ns)
			fail_msg("waited in vain for %u, it is %u; the server greeted %u of %u clients, %u reads, %u writes", wanted,
				 atomic_load(what), atomic_load(&w->server.greeted), atomic_load(&w->server.accepted),
				 atomic_load(&w->server.reads), atomic_load(&w->server.writes));
		rig_settle(&w->rig);
		usleep(1000);
	}
}
