/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * relay-disk - what is asked of a disk's datapath process
 *
 *      control   one question over its control socket; the process is started where that is wanted
 *      connect   a domain's NBD socket: the relay becomes a pipe to it
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "cmd/relay-verbs.h"
#include "migrate/question.h"
#include "migrate/squeeze.h"
#include "plugins/datapath.h"
#include "plugins/process.h"

#define WAIT_MAX_MS 600000
#define STATUS_WAIT_MS 10000u

static int find_process(const char *uri, struct process *p, char **path, struct error *e)
{
	struct failure f;

	*path = datapath_image(uri, &f);
	if (!*path) {
		*e = f.e;
		return -1;
	}
	return process_by_path(p, *path, e);
}

/* --- control */

struct control_args {
	char *uri, *verb, *args;
	bool start;
	int64_t wait_ms;
};
static const struct jsonspec_field control_fields[] = {
	{ "uri", JS_STRING, offsetof(struct control_args, uri) },
	{ "verb", JS_STRING, offsetof(struct control_args, verb) },
	{ "args", JS_TEXT, offsetof(struct control_args, args), .is_optional = true },
	{ "start", JS_BOOL, offsetof(struct control_args, start), .is_optional = true },
	{ "wait_ms", JS_INT64, offsetof(struct control_args, wait_ms), .is_optional = true },
	{ NULL },
};
static const struct jsonspec control_spec = { "control", sizeof(struct control_args), control_fields };

/* These begin something new each time they are asked: an answer that was lost is not asked for again. */
static bool is_once(const char *verb)
{
	return strcmp(verb, "mirror.start") == 0 || strcmp(verb, "verify.start") == 0;
}

static int ask(const struct control_args *a, struct relay_reply *r, struct error *e)
{
	int64_t wait_ms = a->wait_ms > 0 && a->wait_ms < WAIT_MAX_MS ? a->wait_ms : WAIT_MAX_MS;
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct process p;
	char *text;

	if (find_process(a->uri, &p, &path, e) == -1)
		return -1;
	ok = process_call(&p, a->verb, a->args, !a->start ? PROCESS_RESTART : is_once(a->verb) ? PROCESS_ONCE : PROCESS_START,
			  (unsigned)wait_ms, e);
	if (!ok)
		return -1;
	return relay_say(asprintf(&text, "{\"answer\":%s}", ok) < 0 ? NULL : text, r, e);
}

int relay_control(const char *args, struct relay_reply *r, struct error *e)
{
	struct control_args a;
	int result;

	if (jsonspec_decode(&control_spec, args, strlen(args), &a, e) == -1)
		return -1;
	result = ask(&a, r, e);
	jsonspec_clear(&control_spec, &a);
	return result;
}

/* --- attach */

struct place {
	char *socket, *export;
};
static const struct jsonspec_field place_fields[] = {
	{ "socket", JS_STRING, offsetof(struct place, socket) },
	{ "export", JS_STRING, offsetof(struct place, export) },
	{ NULL },
};
static const struct jsonspec place_spec = { "attach", sizeof(struct place), place_fields };

int relay_attach(const char *uri, const char *domain, char **socket, char **export, struct error *e)
{
	CLEANUP_FREE char *args = question_new(NULL, "domain", domain, NULL);
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct process p;
	struct place place;

	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	if (find_process(uri, &p, &path, e) == -1)
		return -1;
	ok = process_call(&p, "attach", args, PROCESS_RESTART, STATUS_WAIT_MS, e);
	if (!ok || jsonspec_decode(&place_spec, ok, strlen(ok), &place, e) == -1)
		return -1;
	*socket = place.socket;
	*export = place.export;
	return 0;
}

/* --- connect */

struct connect_args {
	char *uri, *domain, *compress;
};
static const struct jsonspec_field connect_fields[] = {
	{ "uri", JS_STRING, offsetof(struct connect_args, uri) },
	{ "domain", JS_STRING, offsetof(struct connect_args, domain) },
	{ "compress", JS_STRING, offsetof(struct connect_args, compress), .is_optional = true },
	{ NULL },
};
static const struct jsonspec connect_spec = { "connect", sizeof(struct connect_args), connect_fields };

struct user {
	char *domain, *socket;
	bool served;
};
static const struct jsonspec_field user_fields[] = {
	{ "domain", JS_STRING, offsetof(struct user, domain) },
	{ "socket", JS_STRING, offsetof(struct user, socket), .is_optional = true },
	{ "served", JS_BOOL, offsetof(struct user, served), .is_optional = true },
	{ NULL },
};
static const struct jsonspec user_spec = { "domain", sizeof(struct user), user_fields };
struct users {
	struct jsonspec_records domains;
};
static const struct jsonspec_field users_fields[] = {
	{ "domains", JS_RECORDS, offsetof(struct users, domains), .sub = &user_spec },
	{ NULL },
};
static const struct jsonspec users_spec = { "status", sizeof(struct users), users_fields };

static int reach(const char *path, struct error *e)
{
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(addr.sun_path))
		return error_set(e, ENAMETOOLONG, "%s is too long for a socket's path", path);
	strcpy(addr.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1)
		return error_errno(e, errno, "connect to %s", path);
	return take_fd(&fd);
}

static int find_socket(const struct users *users, const struct connect_args *a, struct error *e)
{
	const struct user *user = users->domains.item;

	for (size_t i = 0; i < users->domains.count; i++)
		if (strcmp(user[i].domain, a->domain) == 0 && user[i].socket)
			return reach(user[i].socket, e);
	return error_set(e, ENOTCONN, "%s is not attached for domain %.60s", a->uri, a->domain);
}

static int open_stream(const struct connect_args *a, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct process p;
	struct users users;
	int fd;

	if (find_process(a->uri, &p, &path, e) == -1)
		return -1;
	ok = process_call(&p, "status", NULL, PROCESS_RESTART, STATUS_WAIT_MS, e);
	if (!ok || jsonspec_decode(&users_spec, ok, strlen(ok), &users, e) == -1)
		return -1;
	fd = find_socket(&users, a, e);
	jsonspec_clear(&users_spec, &users);
	return fd;
}

int relay_connect(const char *args, struct relay_reply *r, struct error *e)
{
	struct connect_args a;

	if (jsonspec_decode(&connect_spec, args, strlen(args), &a, e) == -1)
		return -1;
	r->stream = open_stream(&a, e);
	r->is_squeezed = a.compress && strcmp(a.compress, SQUEEZE_NAME) == 0 && squeeze_is_there();
	jsonspec_clear(&connect_spec, &a);
	if (r->stream < 0)
		return -1;
	return relay_say(strdup(r->is_squeezed ? "{\"compress\":\"" SQUEEZE_NAME "\"}" : "{}"), r, e);
}
