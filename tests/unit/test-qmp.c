/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * QMP with what is no QEMU, or a hostile one: each thing that a process at that socket may do has its end and its sentence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "migrate/qemu.h"
#include "migrate/qmp.h"

#define LONG_MS 20000u
#define GREETING "{\"QMP\":{\"version\":{\"qemu\":{\"major\":7}},\"capabilities\":[\"oob\"]}}\r\n"
#define AGREED "{\"return\":{},\"id\":1}\r\n"

static char path[64];

/* What is said before anything was heard, and after each line: one for one; then it hangs up, or is silent. */
struct script {
	const char *first;
	const char *after[6];
	bool is_silent; /* ... and stays */
	bool has_fd;    /* what comes with the third line is written to */
};

static void say(int fd, const char *text)
{
	if (text && write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		_exit(1);
}

static bool read_line(int fd, int *passed)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	char c = '\0';

	while (c != '\n') {
		struct iovec data = { &c, 1 };
		struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
				    .msg_controllen = sizeof(control.bytes) };
		struct cmsghdr *got;

		if (recvmsg(fd, &m, 0) != 1)
			return false;
		got = CMSG_FIRSTHDR(&m);
		if (got && got->cmsg_type == SCM_RIGHTS)
			memcpy(passed, CMSG_DATA(got), sizeof(int));
	}
	return true;
}

static void play(int server, const struct script *s)
{
	int fd = accept(server, NULL, NULL), passed = -1;

	say(fd, s->first);
	for (size_t i = 0; i < ARRAY_LEN(s->after) && s->after[i] && read_line(fd, &passed); i++) {
		if (passed >= 0 && s->has_fd)
			say(passed, "memory");
		say(fd, s->after[i]);
	}
	while (s->is_silent && read_line(fd, &passed))
		;
	_exit(0);
}

/* q: of a socket where that is played once. */
static void begin(struct qmp *q, const struct script *s)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(path, sizeof(path), "/tmp/sxm-test-qmp-%d", (int)getpid());
	unlink(path);
	strcpy(addr.sun_path, path);
	assert_int_equal(bind(server, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(server, 1), 0);
	if (fork() == 0)
		play(server, s);
	close(server);
	qmp_init(q, path);
}

static void end(struct qmp *q)
{
	qmp_fini(q);
	while (wait(NULL) > 0)
		;
	unlink(path);
}

static void assert_ends(const struct script *s, int err, unsigned wait_ms)
{
	struct qmp q;
	struct error e;
	CLEANUP_FREE char *result = NULL;

	begin(&q, s);
	result = qmp_ask(&q, "query-status", NULL, wait_ms, &e);
	assert_null(result);
	assert_int_equal(e.err, err);
	assert_non_null(strstr(e.text, path));
	end(&q);
}

static void an_answer_is_found_between_events(void **state UNUSED)
{
	struct qmp q;
	struct error e;
	struct qemu_state s;

	begin(&q, &(struct script) { GREETING, {
		"{\"event\":\"STOP\",\"timestamp\":{\"seconds\":1}}\r\n" AGREED,
		"{\"event\":\"MIGRATION\",\"data\":{\"status\":\"active\"}}\n{\"return\":{\"status\":\"active\",\"ram\":{\"remaining\":7,"
		"\"total\":9,\"dirty-sync-count\":2,\"x\":[]}},\"id\":2}\r\n",
		"{\"id\":3,\"return\":{\"status\":\"running\",\"running\":true}}\r\n" } });
	assert_int_equal(qemu_look(&q, &s, &e), 0);
	assert_string_equal(s.status, "running");
	assert_string_equal(s.memory, "active");
	assert_true(s.left_bytes == 7 && s.total_bytes == 9 && s.pass == 2);
	jsonspec_clear(&qemu_state_spec, &s);
	end(&q);
}

static void a_refusal_leaves_the_connection(void **state UNUSED)
{
	struct qmp q;
	struct error e;
	CLEANUP_FREE char *first = NULL;
	CLEANUP_FREE char *second = NULL;

	begin(&q, &(struct script) { GREETING, { AGREED, "{\"id\":2,\"error\":{\"class\":\"GenericError\",\"desc\":\"not now\"}}\n",
						 "{\"id\":3,\"return\":[1,2]}\n" } });
	first = qmp_ask(&q, "cont", NULL, LONG_MS, &e);
	assert_null(first);
	assert_int_equal(e.err, EREMOTEIO);
	assert_non_null(strstr(e.text, "not now"));
	second = qmp_ask(&q, "query-block", NULL, LONG_MS, &e);
	assert_string_equal(second, "[1,2]");
	end(&q);
}

static void a_descriptor_goes_with_its_command(void **state UNUSED)
{
	struct qmp q;
	struct error e;
	int ends[2];
	char text[7] = "";

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	begin(&q, &(struct script) { GREETING, { AGREED, "{\"id\":2,\"return\":{}}\n" }, .has_fd = true });
	assert_int_equal(qmp_pass(&q, "memory", ends[0], LONG_MS, &e), 0);
	assert_int_equal(read(ends[1], text, 6), 6);
	assert_string_equal(text, "memory");
	close(ends[0]);
	close(ends[1]);
	end(&q);
}

static void what_is_no_qemu(void **state UNUSED)
{
	struct qmp q;
	struct error e;

	assert_ends(&(struct script) { "220 welcome\r\n", { NULL } }, EPROTO, LONG_MS);
	assert_ends(&(struct script) { "{}\n", { NULL } }, EPROTO, LONG_MS);
	assert_ends(&(struct script) { "[]\n", { NULL } }, EPROTO, LONG_MS);
	assert_ends(&(struct script) { GREETING, { "{\"error\":{\"desc\":\"no\"}}\n" } }, EPROTO, LONG_MS);
	assert_ends(&(struct script) { GREETING, { AGREED, "{\"id\":2}\n" } }, EPROTO, LONG_MS);
	assert_ends(&(struct script) { GREETING, { AGREED, "{\"id\":\"two\",\"return\":{}}\n" } }, EPROTO, LONG_MS);
	assert_ends(&(struct script) { GREETING, { AGREED, "\xff\xfe\n" } }, EPROTO, LONG_MS);
	qmp_init(&q, "/tmp/sxm-test-qmp-none");
	assert_null(qmp_ask(&q, "stop", NULL, LONG_MS, &e));
	assert_int_equal(e.err, ESRCH);
	qmp_init(&q, "tcp:1");
	assert_null(qmp_ask(&q, "stop", NULL, LONG_MS, &e));
	assert_int_equal(e.err, EINVAL);
}

static void one_that_dies_at_any_place(void **state UNUSED)
{
	assert_ends(&(struct script) { NULL, { NULL } }, ECONNRESET, LONG_MS);
	assert_ends(&(struct script) { GREETING, { NULL } }, ECONNRESET, LONG_MS);
	assert_ends(&(struct script) { GREETING, { AGREED } }, ECONNRESET, LONG_MS);
	assert_ends(&(struct script) { GREETING, { AGREED, "{\"id\":2,\"ret" } }, ECONNRESET, LONG_MS);
}

/* The difference between a VM that stands still and none. */
static void one_that_hangs_up_is_not_gone(void **state UNUSED)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM, 0);
	struct qemu_state s;
	struct vm_side side;
	struct error e;
	struct qmp q;
	pid_t pid;

	begin(&q, &(struct script) { GREETING, { AGREED } });
	assert_int_equal(qemu_see(&q, &side, &s, &e), 0);
	assert_true(side.is_gone);
	end(&q);
	strcpy(addr.sun_path, path);
	assert_int_equal(bind(server, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(server, 1), 0);
	pid = fork();
	while (pid == 0)
		close(accept(server, NULL, NULL));
	close(server);
	qmp_init(&q, path);
	assert_int_equal(qemu_see(&q, &side, &s, &e), -1);
	assert_false(side.is_gone);
	kill(pid, SIGKILL);
	end(&q);
}

static void one_that_says_nothing(void **state UNUSED)
{
	assert_ends(&(struct script) { .is_silent = true }, ETIMEDOUT, 100);
	assert_ends(&(struct script) { GREETING, { AGREED, "{\"id\":1,\"return\":{\"status\":\"running\"}}\n" }, .is_silent = true },
		    ETIMEDOUT, 100); /* the answer to another question */
}

static void a_line_without_end(void **state UNUSED)
{
	CLEANUP_FREE char *long_line = malloc(5u << 20);

	assert_non_null(long_line);
	memset(long_line, ' ', (5u << 20) - 1);
	long_line[(5u << 20) - 1] = '\0';
	assert_ends(&(struct script) { GREETING, { AGREED, long_line } }, EPROTO, LONG_MS);
}

static void the_disk_of_an_export_is_found(void **state UNUSED)
{
	struct qmp q;
	struct error e;
	struct jsonspec_records disks;
	const struct qemu_disk *d;

	begin(&q, &(struct script) { GREETING, { AGREED,
		"{\"id\":2,\"return\":[{\"device\":\"cd\",\"qdev\":\"/cd\",\"locked\":false},"
		"{\"device\":\"\",\"qdev\":\"/machine/peripheral/vd0/virtio-backend\",\"inserted\":{\"node-name\":\"disk0\",\"file\":"
		"\"nbd+unix:///abc?socket=/run/sxm/abc/nbd-1\",\"image\":{\"virtual-size\":4096}}},"
		"{\"device\":\"x\",\"inserted\":{\"node-name\":\"y\",\"file\":\"nbd+unix:///abcd?socket=/x\",\"image\":{}}}]}\n" } });
	assert_int_equal(qemu_disks(&q, &disks, &e), 0);
	assert_int_equal(disks.count, 1);
	d = qemu_find_export(&disks, "abc");
	assert_non_null(d);
	assert_true(d->size_bytes == 4096 && d == qemu_find_device(&disks, "/machine/peripheral/vd0/virtio-backend"));
	assert_null(qemu_find_export(&disks, "ab"));
	assert_null(qemu_find_export(&disks, "abcd"));
	qemu_clear_disks(&disks);
	end(&q);
}

static int loses(const char *kvm, const char *version, const char *memory, char text[static QEMU_VERSION_MAX])
{
	struct qmp q;
	struct error e;
	int r;

	begin(&q, &(struct script) { GREETING, { AGREED, kvm, version, memory } });
	r = qemu_loses_memory(&q, text, &e);
	end(&q);
	return r;
}

#define KVM(enabled) "{\"id\":2,\"return\":{\"enabled\":" enabled ",\"present\":true}}\n"
#define VERSION(major, minor) "{\"id\":3,\"return\":{\"package\":\"\",\"qemu\":{\"micro\":1,\"minor\":" minor ",\"major\":" major "}}}\n"
#define MEMORY(blocks) "{\"id\":4,\"return\":[" blocks "]}\n"
#define BLOCK(id, bytes) "{\"id\":\"" id "\",\"size\":" bytes ",\"merge\":true}"

/* What tests/e2e/test-vm-memory.py shows. */
static void a_qemu_that_loses_memory_is_known(void **state UNUSED)
{
	char version[QEMU_VERSION_MAX];

	assert_int_equal(loses(KVM("false"), VERSION("7", "2"), MEMORY(BLOCK("pc.ram", "167772160")), version), 1);
	assert_string_equal(version, "7.2.1");
	assert_int_equal(loses(KVM("false"), VERSION("8", "2"), MEMORY(BLOCK("n0", "8192") "," BLOCK("n1", "262144")), version), 1);
	assert_int_equal(loses(KVM("false"), VERSION("8", "2"), MEMORY(BLOCK("pc.ram", "167780352")), version), 0);
	assert_int_equal(loses(KVM("false"), VERSION("8", "2"), MEMORY(BLOCK("pc.ram", "131072")), version), 0);
	assert_int_equal(loses(KVM("false"), VERSION("9", "0"), NULL, version), 0);
	assert_int_equal(loses(KVM("true"), NULL, NULL, version), 0);
	assert_int_equal(loses("{\"id\":2,\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"no\"}}\n", NULL, NULL, version), 0);
	assert_int_equal(loses(KVM("false"), VERSION("\"nine\"", "0"), NULL, version), -1);
	assert_int_equal(loses(KVM("false"), VERSION("7", "2"), NULL, version), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_is_found_between_events), cmocka_unit_test(a_refusal_leaves_the_connection),
		cmocka_unit_test(a_descriptor_goes_with_its_command), cmocka_unit_test(what_is_no_qemu),
		cmocka_unit_test(one_that_dies_at_any_place), cmocka_unit_test(one_that_hangs_up_is_not_gone),
		cmocka_unit_test(one_that_says_nothing),
		cmocka_unit_test(a_line_without_end), cmocka_unit_test(the_disk_of_an_export_is_found),
		cmocka_unit_test(a_qemu_that_loses_memory_is_known),
	};

	return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
