/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-serve - sxm serve: a disk image is served, for trying things out
 *
 *      which image -> does nobody have it? -> its datapath serves it to the domain "serve" -> [TCP | a name for the socket]
 *      -> the URI is printed -> until Ctrl-C, --stop, or with --detach until --stop -> flushed, let go of
 *
 * Two who serve one image at the same time are kept apart by SXM_RUN_DIR/<id>.serve, locked until it is served.
 * Killed, it ends as after Ctrl-C, by a process that outlives it (survivor). Should both be killed the image is left served: the
 * next one says so, and --stop ends it.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/proc.h"
#include "base/size.h"
#include "cmd/cmd.h"
#include "cmd/say.h"
#include "cmd/served.h"
#include "cmd/signals.h"
#include "cmd/survivor.h"
#include "plugins/lock.h"
#include "plugins/process.h"

enum status { SERVED = 0, NOT_SERVED = 1, USAGE = 2 };
enum option_value { FORMAT = 1, READ_ONLY, SOCKET, LISTEN, EXPORT, DETACH, STOP, JSON };

#define DOMAIN "serve"
#define LISTEN_MS 10000u
#define LOOK_MS 2000u
#define HOST_BYTES 256u

struct wish {
	const char *file, *format, *socket, *listen, *export_name; /* borrowed; NULL: not said */
	bool is_read_only, is_detached, is_stop, is_json;
};

/* --- where it is served */

struct answer {
	char *uri, *socket, *format, *image;
	int64_t size_bytes;
	bool is_read_only;
};
static const struct jsonspec_field answer_fields[] = {
	{ "uri", JS_STRING, offsetof(struct answer, uri) },
	{ "socket", JS_STRING, offsetof(struct answer, socket) },
	{ "image", JS_STRING, offsetof(struct answer, image) },
	{ "format", JS_STRING, offsetof(struct answer, format) },
	{ "size_bytes", JS_INT64, offsetof(struct answer, size_bytes) },
	{ "read_only", JS_BOOL, offsetof(struct answer, is_read_only) },
	{ NULL },
};
static const struct jsonspec answer_spec = { "served", sizeof(struct answer), answer_fields };

struct listen_args {
	char *domain, *host;
	int64_t port;
};
static const struct jsonspec_field listen_fields[] = {
	{ "domain", JS_STRING, offsetof(struct listen_args, domain) },
	{ "host", JS_STRING, offsetof(struct listen_args, host) },
	{ "port", JS_INT64, offsetof(struct listen_args, port) },
	{ NULL },
};
static const struct jsonspec listen_spec = { "listen", sizeof(struct listen_args), listen_fields };
static const struct jsonspec_field port_fields[] = { { "port", JS_INT64, offsetof(struct listen_args, port) }, { NULL } };
static const struct jsonspec port_spec = { "answer to listen", sizeof(struct listen_args), port_fields };

/* HOST:PORT, [HOST]:PORT. */
static bool take_address(const char *text, char host[static HOST_BYTES], int64_t *port)
{
	const char *colon = strrchr(text, ':');
	bool has_brackets = text[0] == '[' && colon && colon > text + 1 && colon[-1] == ']';
	size_t bytes = colon ? (size_t)(colon - text) - 2 * has_brackets : 0;

	if (!bytes || bytes >= HOST_BYTES || strlen(colon + 1) > 5 || !colon[1] || colon[1 + strspn(colon + 1, "0123456789")])
		return false;
	memcpy(host, text + has_brackets, bytes);
	host[bytes] = '\0';
	*port = strtol(colon + 1, NULL, 10);
	return *port <= UINT16_MAX && (has_brackets || !strchr(host, ':'));
}

/* Heap: the URI it can be had at now. NULL + e. */
static char *listen_at(const struct place *p, const char *address, const char *export_name, struct error *e)
{
	char host[HOST_BYTES];
	struct listen_args a = { .domain = (char *)(uintptr_t)DOMAIN, .host = host }, answer;
	CLEANUP_FREE char *args = NULL;
	CLEANUP_FREE char *ok = NULL;
	struct process process;
	char *uri;
	bool is_v6;

	if (!take_address(address, host, &a.port)) {
		error_set(e, EINVAL, "%s is no HOST:PORT", address);
		return NULL;
	}
	args = jsonspec_encode(&listen_spec, &a);
	if (!args || process_by_path(&process, p->image, e) == -1)
		return NULL;
	ok = process_ask(&process, "listen", args, LISTEN_MS, e);
	if (!ok || jsonspec_decode(&port_spec, ok, strlen(ok), &answer, e) == -1)
		return NULL;
	is_v6 = strchr(host, ':');
	if (asprintf(&uri, "nbd://%s%s%s:%d/%s", is_v6 ? "[" : "", host, is_v6 ? "]" : "", (int)answer.port, export_name) >= 0)
		return uri;
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

/* Another name of its socket, as a link. */
static char *name_socket(const struct served *s, const char *path, const char *export_name, struct error *e)
{
	CLEANUP_FREE char *whole = place_absolute(path, e);
	CLEANUP_FREE char *escaped = NULL;
	char *uri;

	if (!whole)
		return NULL;
	if (strlen(whole) >= PROCESS_SOCKET_MAX) {
		error_set(e, ENAMETOOLONG, "%s is too long: a socket's path has at most %d bytes", whole, PROCESS_SOCKET_MAX - 1);
		return NULL;
	}
	if (symlink(s->socket, whole) == -1) {
		error_errno(e, errno, "make %s", whole);
		return NULL;
	}
	escaped = served_escape(whole + 1);
	if (escaped && asprintf(&uri, "nbd+unix:///%s?socket=/%s", export_name, escaped) >= 0)
		return uri;
	unlink(whole);
	error_set(e, ENOMEM, "out of memory");
	return NULL;
}

/* It is not ours any more where it leads elsewhere. */
static void remove_socket(const char *path, const char *socket)
{
	char to[PROCESS_SOCKET_MAX + 1];
	ssize_t n = path ? readlink(path, to, sizeof(to) - 1) : -1;

	if (n < 0)
		return;
	to[n] = '\0';
	if (strcmp(to, socket) == 0)
		unlink(path);
}

static char *make_uri(const struct wish *w, const struct place *p, const struct served *s, struct error *e)
{
	CLEANUP_FREE char *name = served_escape(w->export_name ? w->export_name : s->export_name);
	char *uri = NULL;

	if (!name)
		error_set(e, ENOMEM, "out of memory");
	else if (w->listen)
		return listen_at(p, w->listen, name, e);
	else if (w->socket)
		return name_socket(s, w->socket, name, e);
	else if (asprintf(&uri, "nbd+unix:///%s%s", name, strchr(s->uri, '?')) < 0) {
		uri = NULL;
		error_set(e, ENOMEM, "out of memory");
	}
	return uri;
}

/* --- what is said */

static int print(const struct wish *w, const struct place *p, const struct served *s, const char *uri)
{
	char size[SIZE_TEXT_MAX];
	const struct answer a = {
		.uri = (char *)(uintptr_t)uri, .socket = s->socket, .image = p->real, .format = (char *)(uintptr_t)p->format,
		.size_bytes = s->size_bytes, .is_read_only = s->is_read_only,
	};
	CLEANUP_FREE char *text = w->is_json ? jsonspec_encode(&answer_spec, &a) : NULL;
	int r = 0;

	if (w->is_json) {
		r = say_json(text);
	} else {
		printf("%s\n", uri);
		fprintf(stderr, "%s, %s%s. Try: nbdinfo '%s'\n", size_format((uint64_t)s->size_bytes, size), p->format,
			s->is_read_only ? ", read only" : "", uri);
		if (w->listen)
			fprintf(stderr, "The port is protected by nothing: whoever reaches it has the disk.\n");
		fprintf(stderr, w->is_detached ? "End it with: sxm serve --stop FILE\n" : "Ctrl-C ends it.\n");
	}
	fflush(stdout);
	return r;
}

/* --- as long as it is served */

/* Its process is there, and says so. */
static bool is_let_go(const struct place *p)
{
	struct served s;
	struct error e;

	if (served_find(&s, p, DOMAIN, &e) == -1)
		return e.err == ESRCH;
	served_clear(&s);
	return false;
}

/* Until a signal, or until somebody else ended it; a process that died is started again meanwhile. */
static void wait_for_end(const struct place *p)
{
	while (!signals_came(LOOK_MS) && !is_let_go(p))
		;
}

static char *start_lock(const struct place *p)
{
	char id[VDI_ID_MAX], *path;

	return asprintf(&path, "%s/%s.serve", proc_run_dir(), vdi_id_of_path(p->image, id)) < 0 ? NULL : path;
}

static int check(const struct wish *w, const struct place *p, struct error *e)
{
	struct served s;
	struct error ignored;

	if (served_find(&s, p, DOMAIN, &ignored) == -1)
		return place_check_unused(p, w->is_read_only, e);
	served_clear(&s);
	return error_set(e, EBUSY, "%s is served already; `sxm serve --stop` ends that", p->name);
}

static int begin_locked(const struct wish *w, const struct place *p, struct served *s, char **uri, struct error *e)
{
	struct error ignored;

	if (served_begin(s, p, DOMAIN, w->is_read_only, e) == -1)
		return -1;
	*uri = make_uri(w, p, s, e);
	if (*uri)
		return 0;
	served_clear(s);
	served_end(p, DOMAIN, &ignored);
	return -1;
}

/* What is another one's already is not the survivor's to end. */
static int begin(const struct wish *w, const struct place *p, struct served *s, char **uri, const struct survivor *survivor,
		 struct error *e)
{
	CLEANUP_FREE char *path = start_lock(p);
	CLEANUP_LOCK int lock = -1;
	int r;

	if (!path)
		return error_set(e, ENOMEM, "out of memory");
	if (proc_make_dir(proc_run_dir(), e) == -1)
		return -1;
	lock = lock_make(path, LOCK_EXCLUSIVE, e);
	if (lock < 0)
		return -1;
	r = check(w, p, e);
	if (r == 0) {
		survivor_arm(survivor);
		r = begin_locked(w, p, s, uri, e);
		if (r == -1)
			survivor_disarm(survivor);
	}
	unlink(path);
	return r;
}

static int serve_until_end(const struct wish *w, const struct place *p, const struct survivor *survivor, struct error *e)
{
	CLEANUP_FREE char *uri = NULL;
	struct served s;
	int r;

	signals_hold();
	if (begin(w, p, &s, &uri, survivor, e) == -1)
		return -1;
	r = print(w, p, &s, uri);
	if (r == 0 && !w->is_detached)
		wait_for_end(p);
	signals_release(); /* a second Ctrl-C does not wait for the medium */
	if (r == -1 || !w->is_detached) {
		remove_socket(w->socket, s.socket);
		r = served_end(p, DOMAIN, e) == 0 ? r : -1;
	}
	survivor_disarm(survivor);
	served_clear(&s);
	return r;
}

static int stop(const struct wish *w, const struct place *p, struct error *e)
{
	struct served s;

	if (served_find(&s, p, DOMAIN, e) == -1)
		return e->err == ESRCH ? error_set(e, ENOENT, "%s is not served by this command", p->name) : -1;
	remove_socket(w->socket, s.socket);
	served_clear(&s);
	return served_end(p, DOMAIN, e);
}

struct serving {
	const struct wish *wish;   /* borrowed, both */
	const struct place *place;
};

static void end_serving(const void *arg)
{
	const struct serving *serving = arg;
	struct error ignored;
	struct served s;

	if (served_find(&s, serving->place, DOMAIN, &ignored) == 0) {
		remove_socket(serving->wish->socket, s.socket);
		served_clear(&s);
	}
	served_end(serving->place, DOMAIN, &ignored); /* it may be beginning */
}

/* Killed outright it serves no longer than after Ctrl-C. */
static int serve(const struct wish *w, const struct place *p, struct error *e)
{
	const struct serving serving = { w, p };
	struct survivor survivor = { .fd = -1 };
	int r;

	if (!w->is_detached && survivor_begin(&survivor, end_serving, &serving, e) == -1)
		return -1;
	r = serve_until_end(w, p, &survivor, e);
	survivor_end(&survivor);
	return r;
}

/* --- the command */

static int do_wish(const struct wish *w)
{
	struct error e = { 0 };
	struct place p;
	int r;

	if (place_find(&p, w->file, w->format, &e) == 0) {
		if (p.kind == PLACE_NBD)
			r = error_set(&e, EINVAL, "%s is served already", w->file);
		else
			r = w->is_stop ? stop(w, &p, &e) : serve(w, &p, &e);
		place_clear(&p);
	} else {
		r = -1;
	}
	if (r == 0)
		return SERVED;
	fprintf(stderr, "sxm serve: %s\n", e.text);
	return NOT_SERVED;
}

static bool take_option(struct wish *w, int c)
{
	switch (c) {
	case FORMAT:
		w->format = optarg;
		return strcmp(optarg, "raw") == 0 || strcmp(optarg, "qcow2") == 0 || strcmp(optarg, "auto") == 0;
	case READ_ONLY: w->is_read_only = true; return true;
	case SOCKET: w->socket = optarg; return true;
	case LISTEN: w->listen = optarg; return true;
	case EXPORT: w->export_name = optarg; return strlen(optarg) <= 255;
	case DETACH: w->is_detached = true; return true;
	case STOP: w->is_stop = true; return true;
	case JSON: w->is_json = true; return true;
	default: return false;
	}
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "format", required_argument, NULL, FORMAT }, { "read-only", no_argument, NULL, READ_ONLY },
		{ "socket", required_argument, NULL, SOCKET }, { "listen", required_argument, NULL, LISTEN },
		{ "export", required_argument, NULL, EXPORT }, { "detach", no_argument, NULL, DETACH },
		{ "stop", no_argument, NULL, STOP }, { "json", no_argument, NULL, JSON }, { NULL, 0, NULL, 0 },
	};
	struct wish w = { 0 };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(&w, c))
			return CMD_USAGE;
	if (argc - optind != 1 || (w.socket && w.listen))
		return CMD_USAGE;
	w.file = argv[optind];
	return do_wish(&w);
}

const struct cmd cmd_serve = {
	.name = "serve",
	.summary = "serve a disk image over NBD, for trying things out",
	.usage = "sxm serve [--format raw|qcow2|auto] [--read-only] [--socket PATH | --listen HOST:PORT] [--export NAME]\n"
		 "                 [--detach] [--json] FILE\n"
		 "       sxm serve --stop [--socket PATH] FILE\n"
		 "  FILE                a disk image, a block device, or a volume (SR/KEY)\n"
		 "  --format            auto (default): as its name says, *.qcow2 or else raw\n"
		 "  --read-only         nobody may write to it\n"
		 "  --socket PATH       where its socket is to be found besides\n"
		 "  --listen HOST:PORT  on TCP; port 0: any. Nothing protects it\n"
		 "  --export NAME       the export's name in the URI; every name is answered\n"
		 "  --detach            do not wait; it is served until --stop\n"
		 "  --stop              end that\n"
		 "It is served until Ctrl-C, or until this command ends in whatever way.\n"
		 "exit status: 0 it was served, 1 it could not be, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
