/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * dm-qmp - see dm-qmp.h
 *
 *      accept -> greeting -> { one line: a command -> {"return": nothing of that} } ...
 *
 * A few clients at a time; one that says too much in one line is hung up on.  What is sent is small and goes into the socket's
 * buffer, or its client is hung up on, too.
 */
#include "broker/dm-qmp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "config.h"

#define CLIENTS_MAX 8u
#define LINE_BYTES_MAX 65536u
#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}, " \
		 "\"package\": \"sxm " PACKAGE_VERSION "\"}, \"capabilities\": []}}\r\n"

struct qmp_client {
	struct dm_qmp *qmp;
	int fd;                   /* owned */
	struct loop_watch *watch; /* owned */
	size_t used;
	char line[LINE_BYTES_MAX];
	LIST_ENTRY(qmp_client) link;
};
struct dm_qmp {
	struct loop *loop;
	int fd;                   /* owned */
	struct sockaddr_un address; /* its path is "" where the socket was not made here */
	struct loop_watch *watch; /* owned */
	void (*on_quit)(void *arg);
	void *arg;
	unsigned clients;
	LIST_HEAD(, qmp_client) client;
};

struct command {
	char *execute, *id;
};
static const struct jsonspec_field command_fields[] = {
	{ .name = "execute", .type = JS_STRING, .offset = offsetof(struct command, execute) },
	{ .name = "id", .type = JS_TEXT, .offset = offsetof(struct command, id), .is_optional = true },
	{ .name = NULL },
};
static const struct jsonspec command_spec = { "command", sizeof(struct command), command_fields };

static void hang_up(struct qmp_client *c)
{
	LIST_REMOVE(c, link);
	c->qmp->clients--;
	loop_watch_free(c->watch);
	close(c->fd);
	free(c);
}

static bool send_text(struct qmp_client *c, const char *text)
{
	size_t bytes = strlen(text);

	return send(c->fd, text, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)bytes;
}

/* What is asked for in lists is an empty one. */
static bool is_list(const char *execute)
{
	return strcmp(execute, "query-chardev") == 0 || strncmp(execute, "query-cpus", 10) == 0 ||
	       strcmp(execute, "query-block") == 0;
}

static bool answer(struct qmp_client *c, const char *line, size_t bytes, bool *must_quit)
{
	CLEANUP_FREE char *text = NULL;
	struct command q;
	struct error e;
	int n;

	if (jsonspec_decode(&command_spec, line, bytes, &q, &e) == -1)
		return send_text(c, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no command\"}}\r\n");
	*must_quit = strcmp(q.execute, "quit") == 0;
	n = asprintf(&text, "{\"return\": %s%s%s}\r\n", is_list(q.execute) ? "[]" : "{}", q.id ? ", \"id\": " : "",
		     q.id ? q.id : "");
	jsonspec_clear(&command_spec, &q);
	if (n < 0)
		text = NULL;
	return text && send_text(c, text);
}

static void on_client(void *arg, int events UNUSED)
{
	struct qmp_client *c = arg;
	struct dm_qmp *q = c->qmp;
	ssize_t n = recv(c->fd, c->line + c->used, sizeof(c->line) - c->used, MSG_DONTWAIT);
	bool is_good = true, must_quit = false;
	char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		hang_up(c);
		return;
	}
	c->used += (size_t)n;
	while (is_good && !must_quit && (end = memchr(c->line, '\n', c->used))) {
		size_t bytes = (size_t)(end - c->line);

		if (strspn(c->line, " \t\r") < bytes)
			is_good = answer(c, c->line, bytes, &must_quit);
		c->used -= bytes + 1;
		memmove(c->line, end + 1, c->used);
	}
	if (!is_good || c->used == sizeof(c->line))
		hang_up(c);
	if (must_quit)
		q->on_quit(q->arg);
}

static void on_socket(void *arg, int events UNUSED)
{
	struct dm_qmp *q = arg;
	int fd = accept4(q->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct qmp_client *c = fd >= 0 && q->clients < CLIENTS_MAX ? calloc(1, sizeof(*c)) : NULL;

	if (c)
		c->watch = loop_watch_new(q->loop, fd, LOOP_IN, on_client, c);
	if (!c || !c->watch) {
		free(c);
		if (fd >= 0)
			close(fd);
		return;
	}
	c->qmp = q;
	c->fd = fd;
	LIST_INSERT_HEAD(&q->client, c, link);
	q->clients++;
	if (!send_text(c, GREETING))
		hang_up(c);
}

static int bind_it(struct dm_qmp *q, const char *path, struct error *e)
{
	q->address.sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(q->address.sun_path))
		return error_set(e, ENAMETOOLONG, "%s: a socket's path has at most %zu bytes", path,
				 sizeof(q->address.sun_path) - 1);
	memcpy(q->address.sun_path, path, strlen(path) + 1);
	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(path);
	if (q->fd < 0 || bind(q->fd, (struct sockaddr *)&q->address, sizeof(q->address)) == -1 || listen(q->fd, 4) == -1)
		return error_errno(e, errno, "listen at %s", path);
	return 0;
}

struct dm_qmp *dm_qmp_new(struct loop *l, const char *path, int fd, void (*on_quit)(void *arg), void *arg, struct error *e)
{
	struct dm_qmp *q = calloc(1, sizeof(*q));

	if (!q) {
		error_set(e, ENOMEM, "out of memory");
		return NULL;
	}
	q->loop = l;
	q->fd = path ? -1 : fd;
	q->on_quit = on_quit;
	q->arg = arg;
	if (path && bind_it(q, path, e) == -1)
		goto fail;
	q->watch = loop_watch_new(l, q->fd, LOOP_IN, on_socket, q);
	if (q->watch)
		return q;
	error_set(e, EINVAL, "%s %d cannot be listened at", path ? path : "descriptor", fd);
fail:
	dm_qmp_free(q);
	return NULL;
}

void dm_qmp_free(struct dm_qmp *q)
{
	if (!q)
		return;
	while (!LIST_EMPTY(&q->client))
		hang_up(LIST_FIRST(&q->client));
	loop_watch_free(q->watch);
	if (q->fd >= 0)
		close(q->fd);
	if (*q->address.sun_path)
		unlink(q->address.sun_path);
	free(q);
}
