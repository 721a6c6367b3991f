/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * test-disk-qcow2 - a datapath process that is killed while the server of its image is ending: has that one lost anything?
 *
 *      this program       starts the two others, kills them, and opens the disk after them
 *      ... open IMAGE     the first datapath: has it open, says 'o'
 *      ... close IMAGE    the same, which closes it again, and ends its server
 *      qemu-nbd           the server: says its pid, and 't' when it is told to end, and ends when DIR/may-end says so
 *
 * What they say goes into DIR/said. So the moment between the signal and the end lasts until the test has done what it wants in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "disk-rig.h"
#include "disk/disk-file.h"
#include "disk/disk-nbd.h"
#include "disk/disk-qcow2.h"
#include "tests/lib/fake-nbd.h"

#define SERVER "/qemu-nbd"
#define SOCKET "--socket="

static char self[PATH_MAX];

/* --- the server */

static int open_pipe(const char *dir, const char *name, int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%.200s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		abort();
	return fd;
}

static void say(int fd, const void *what, size_t bytes)
{
	if (write(fd, what, bytes) != (ssize_t)bytes)
		abort();
}

static int be_server(const char *socket)
{
	const struct fake_nbd_plan plan = { .size_bytes = MiB, .can_zero = true, .can_fua = true };
	const char *dir = getenv("SXM_RUN_DIR");
	int said = open_pipe(dir, "said", O_WRONLY), may_end = open_pipe(dir, "may-end", O_RDONLY), number;
	struct fake_nbd nbd;
	pid_t pid = getpid();
	sigset_t term;
	char byte = 't';

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	fake_nbd_start(&nbd, &plan, 0);
	say(said, &pid, sizeof(pid));
	if (symlink(nbd.socket, socket) == -1 || sigwait(&term, &number) != 0)
		abort();
	say(said, &byte, 1);
	if (read(may_end, &byte, 1) != 1)
		abort();
	fake_nbd_stop(&nbd);
	return 0;
}

/* --- the first datapath */

static struct disk_file *open_disk(const char *path)
{
	const char *dir = getenv("SXM_RUN_DIR");
	struct error e = { 0 };
	struct disk_file *f = disk_open(&(struct disk_spec){ .path = path, .run_dir = dir, .lock_wait_ms = 10000 }, &e);

	if (!f)
		fprintf(stderr, "%s\n", e.text);
	return f;
}

static int be_datapath(const char *role, const char *path)
{
	const char *dir = getenv("SXM_RUN_DIR");
	struct disk_file *f = open_disk(path);
	struct error e = { 0 };

	if (!f)
		return 1;
	if (strcmp(role, "open") == 0) {
		say(open_pipe(dir, "said", O_WRONLY), "o", 1);
		pause();
	}
	disk_file_close(f);
	return disk_settle(dir, &e) == 0 ? 0 : 1;
}

/* --- the test */

struct world {
	struct rig rig;
	char dir[64];
	int said, may_end;     /* open for both: nobody waits for the other end */
	pid_t datapath, server;
};

static void make_image(const char *path)
{
	uint8_t head[104];
	struct bytes_writer w = bytes_writer(head, sizeof(head));
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	bytes_put_u32(&w, 0x514649fb);
	bytes_put_u32(&w, 3);
	bytes_put_zeros(&w, 12);       /* no backing file */
	bytes_put_u32(&w, 16);
	bytes_put_u64(&w, MiB);
	bytes_put_u32(&w, 0);
	bytes_put_u32(&w, 1);
	bytes_put_u64(&w, 0x30000);
	bytes_put_u64(&w, 0x10000);
	bytes_put_u32(&w, 1);
	bytes_put_zeros(&w, 12 + 24);  /* no snapshots, no features */
	bytes_put_u32(&w, 4);
	bytes_put_u32(&w, sizeof(head));
	assert_true(fd >= 0);
	assert_int_equal(write(fd, head, sizeof(head)), sizeof(head));
	assert_int_equal(ftruncate(fd, 0x40000), 0);
	close(fd);
}

static int make_pipe(const char *dir, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%.200s/%s", dir, name);
	assert_int_equal(mkfifo(path, 0600), 0);
	return open_pipe(dir, name, O_RDWR);
}

static void hear(struct world *w, void *what, size_t bytes)
{
	assert_int_equal(read(w->said, what, bytes), bytes);
}

static void start(struct world *w, const char *role)
{
	char server[96];

	alarm(60); /* a test that waits in vain ends */
	memset(w, 0, sizeof(*w));
	strcpy(w->dir, "/tmp/sxm-disk-qcow2.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->said = make_pipe(w->dir, "said");
	w->may_end = make_pipe(w->dir, "may-end");
	snprintf(server, sizeof(server), "%s" SERVER, w->dir);
	assert_int_equal(symlink(self, server), 0);
	setenv("SXM_RUN_DIR", w->dir, 1);
	setenv("SXM_QCOW2_SERVER", server, 1);
	rig_init(&w->rig);
	snprintf(w->rig.path, sizeof(w->rig.path), "%s/d.qcow2", w->dir);
	make_image(w->rig.path);
	w->datapath = fork();
	if (w->datapath == 0) {
		execl(self, self, role, w->rig.path, (char *)NULL);
		_exit(127);
	}
	hear(w, &w->server, sizeof(w->server));
}

static void end_process(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static int flush_of_the_next(struct world *w)
{
	const struct disk_spec spec = { .path = w->rig.path, .run_dir = w->dir, .lock_wait_ms = 10000 };

	rig_open(&w->rig, &spec, NULL);
	return rig_do(&w->rig, REQ_FLUSH, 0, 0, 0);
}

static void stop(struct world *w)
{
	char command[96];
	struct error e = { 0 };

	layer_close(take_ptr(&w->rig.disk));
	rig_settle(&w->rig);
	say(w->may_end, "!", 1);
	assert_int_equal(disk_settle(w->dir, &e), 0);
	rig_fini(&w->rig);
	close(w->said);
	close(w->may_end);
	snprintf(command, sizeof(command), "rm -r %s", w->dir);
	assert_int_equal(system(command), 0);
}

static void hear_byte(struct world *w, char wanted)
{
	char byte;

	hear(w, &byte, 1);
	assert_int_equal(byte, wanted);
}

static void a_server_that_was_told_to_end_has_lost_nothing(void **state)
{
	struct world w;

	(void)state;
	start(&w, "close");
	hear_byte(&w, 't');
	kill(w.datapath, SIGKILL);
	end_process(w.datapath);
	say(w.may_end, "!", 1);
	end_process(w.server); /* ours, as its parent is dead */
	assert_int_equal(flush_of_the_next(&w), 0);
	stop(&w);
}

/* What a server leaves that could not. */
static void remove_socket(const struct world *w)
{
	char link[96], path[128] = "";

	snprintf(link, sizeof(link), "%s/qcow2.sock", w->dir);
	assert_true(readlink(link, path, sizeof(path) - 1) > 0);
	unlink(path);
	*strrchr(path, '/') = '\0';
	assert_int_equal(rmdir(path), 0);
}

static void one_that_died_may_have(void **state)
{
	struct world w;

	(void)state;
	start(&w, "open");
	hear_byte(&w, 'o');
	kill(w.datapath, SIGKILL);
	end_process(w.datapath);
	kill(w.server, SIGKILL);
	end_process(w.server);
	remove_socket(&w);
	assert_int_equal(flush_of_the_next(&w), EIO);
	stop(&w);
}

/* What is open of the image, once more: as if the opener had got to its server, or found that it lives, no sooner. */
static struct disk_file *open_again(struct disk_file *f, const struct disk_spec *spec, bool is_taken_up)
{
	struct disk_file *next = calloc(1, sizeof(*next));
	struct error e = { 0 };

	assert_non_null(next);
	next->path = strdup(f->path);
	next->fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
	next->tail_fd = -1;
	assert_int_equal(disk_nbd_open_server(next, spec, disk_qcow2_copy(f->nbd->server), false, is_taken_up, &e), 0);
	return next;
}

/* It was killed with the first datapath; the next found it while it was dying, and took it up. */
static void one_that_dies_when_it_has_been_taken_up_may_have(void **state)
{
	struct disk_file *f, *next;
	struct world w;

	(void)state;
	start(&w, "open");
	hear_byte(&w, 'o');
	kill(w.datapath, SIGKILL);
	end_process(w.datapath);
	f = open_disk(w.rig.path);
	assert_non_null(f);
	for (int is_taken_up = 1; is_taken_up >= 0; is_taken_up--) {
		kill(w.server, SIGKILL);
		end_process(w.server);
		remove_socket(&w);
		next = open_again(f, &(struct disk_spec){ .path = w.rig.path, .run_dir = w.dir, .lock_wait_ms = 10000 }, is_taken_up);
		assert_int_equal(next->nbd->was_lost, is_taken_up);
		hear(&w, &w.server, sizeof(w.server));
		disk_file_close(next);
	}
	disk_file_close(f);
	assert_int_equal(flush_of_the_next(&w), 0); /* its own, which nobody has written through */
	stop(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_dies_when_it_has_been_taken_up_may_have),
		cmocka_unit_test(a_server_that_was_told_to_end_has_lost_nothing),
		cmocka_unit_test(one_that_died_may_have),
	};
	ssize_t bytes = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (strcmp(argv[0], SERVER + 1) == 0)
		for (int i = 1; i < argc; i++)
			if (strncmp(argv[i], SOCKET, strlen(SOCKET)) == 0)
				return be_server(argv[i] + strlen(SOCKET));
	if (argc == 3)
		return be_datapath(argv[1], argv[2]);
	if (bytes <= 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) == -1)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
