/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * cmd-vbd - sxm vbd: a running Xen guest has a disk as a block device, without a toolstack that knows the verbs
 *
 *      attach:  Datapath.attach, activate -> its process serves the device, as soon as it is there -> both ends' keys are written
 *               -> the guest connects
 *      detach:  the guest is asked to let go -> it has -> the keys go -> Datapath.deactivate, detach
 *
 * Which device is which disk is known to the disks' processes, and nowhere else: so what is left of a guest that is no more, or
 * of an attach that was killed, is found, and detached.  Nothing that a guest wrote is believed.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "cmd/cmd.h"
#include "cmd/live.h"
#include "cmd/plug.h"
#include "cmd/say.h"
#include "cmd/served.h"
#include "base/backend-kind.h"
#include "plugins/process.h"

enum status { DONE = 0, NOT_DONE = 1, USAGE = 2 };

#define ASK_MS 10000u
#define LIST_MS 2000u
#define ATTACH_MS 20000u
#define DETACH_MS 30000u
#define FORCE_MS 10000u

struct wish {
	const char *disk, *format, *kind; /* borrowed; NULL: not said */
	uint16_t domain;
	uint32_t device;
	bool is_read_only, is_shared, is_forced, is_json;
};

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* --- xenstore */

static unsigned read_state(struct xenstore *x, const char *dir)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FREE char *text = NULL;

	if (asprintf(&path, "%s/state", dir) < 0)
		path = NULL;
	text = path ? xenstore_read(x, path) : NULL;
	return text && strlen(text) == 1 && *text >= '0' && *text <= '9' ? (unsigned)(*text - '0') : PLUG_NONE;
}

static bool is_there(struct xenstore *x, const char *dir)
{
	CLEANUP_FREE char *text = xenstore_read(x, dir);

	return text || read_state(x, dir) != PLUG_NONE;
}

/* The state the backend is in then; it is none of those that are gone on from, or time is over. */
static unsigned wait_state(struct xenstore *x, const struct plug *p, unsigned passing, unsigned ms)
{
	uint64_t end_ms = now_ms() + ms;
	unsigned state;

	while (state = read_state(x, p->backend), (passing >> state & 1) && now_ms() < end_ms)
		xenstore_wait(x, (unsigned)MIN(end_ms - now_ms(), 1000u));
	return state;
}

/* --- attach */

struct device_args {
	char *domain, *backend;
	bool is_eager;
};
static const struct jsonspec_field device_fields[] = {
	{ "domain", JS_STRING, offsetof(struct device_args, domain) },
	{ "backend", JS_STRING, offsetof(struct device_args, backend) },
	{ "eager", JS_BOOL, offsetof(struct device_args, is_eager) },
	{ NULL },
};
static const struct jsonspec device_spec = { "vbd", sizeof(struct device_args), device_fields };

/* From now on the disk's process looks for the device. */
static int announce(const struct plug *p, const struct place *place, char *domain, struct error *e)
{
	struct device_args a = { .domain = domain, .backend = (char *)(uintptr_t)p->backend, .is_eager = true };
	CLEANUP_FREE char *args = jsonspec_encode(&device_spec, &a);
	CLEANUP_FREE char *ok = NULL;
	struct process process;

	if (!args)
		return error_set(e, ENOMEM, "out of memory");
	if (process_by_path(&process, place->image, e) == -1)
		return -1;
	ok = process_ask(&process, "vbd", args, ASK_MS, e);
	return ok ? 0 : -1;
}

static bool has_libxl(struct xenstore *x, const struct plug *p)
{
	char path[32];

	snprintf(path, sizeof(path), "/libxl/%u", p->domain);
	return is_there(x, path);
}

static int write_keys(struct xenstore *x, const struct plug *p, const struct served *s, struct error *e)
{
	CLEANUP_FREE struct xenstore_steps *steps = malloc(sizeof(*steps));
	char params[XENSTORE_VALUE_MAX];

	if (!steps)
		return error_set(e, ENOMEM, "out of memory");
	snprintf(params, sizeof(params), "nbd:unix:%s:exportname=%s", s->socket, s->export_name);
	plug_attach(p, params, s->is_read_only, has_libxl(x, p), steps);
	return xenstore_change(x, steps, e);
}

static void remove_keys(struct xenstore *x, const struct plug *p)
{
	CLEANUP_FREE struct xenstore_steps *steps = malloc(sizeof(*steps));
	struct error ignored;

	if (!steps)
		return;
	plug_remove(p, steps);
	xenstore_do(x, steps, &ignored);
}

static int meet_guest(struct xenstore *x, const struct plug *p, struct error *e)
{
	unsigned passing = 1u << PLUG_NONE | 1u << PLUG_NEW | 1u << PLUG_OFFERED | 1u << 3;
	unsigned state;
	CLEANUP_FREE char *why = NULL;

	if (xenstore_watch(x, p->backend, e) == -1)
		return -1;
	state = wait_state(x, p, passing, ATTACH_MS);
	if (state == PLUG_CONNECTED)
		return 0;
	if (passing >> state & 1) {
		fprintf(stderr, "sxm vbd: domain %u has not looked at it yet: it will have it when it does\n", p->domain);
		return 0;
	}
	why = xenstore_read(x, p->error);
	return error_set(e, EPROTO, "the guest could not be connected: %.300s", why ? why : "it closed the device at once");
}

static int plug_in(struct xenstore *x, const struct plug *p, const struct place *place, const struct wish *w, struct error *e)
{
	struct served s;
	struct error second;
	char domain[8];
	int r;

	snprintf(domain, sizeof(domain), "%u", p->domain);
	if (served_begin(&s, place, domain, w->is_read_only, e) == -1)
		return -1;
	r = announce(p, place, domain, e);
	if (r == 0)
		r = write_keys(x, p, &s, e);
	if (r == 0 && meet_guest(x, p, e) == -1) {
		remove_keys(x, p);
		r = -1;
	}
	if (r == -1)
		served_end(place, domain, &second);
	served_clear(&s);
	return r;
}

static int attach(struct xenstore *x, const struct wish *w, struct error *e)
{
	struct plug p;
	struct place place;
	int r;

	plug_init(&p, w->domain, w->device, w->kind);
	if (!xenstore_has_domain(x, w->domain))
		return error_set(e, ESRCH, "there is no domain %u", w->domain);
	if (is_there(x, p.frontend) || is_there(x, p.backend))
		return error_set(e, EEXIST, "domain %u has such a device already; `sxm vbd list` and `xl block-list` show which",
				 w->domain);
	if (place_find(&place, w->disk, w->format, e) == -1)
		return -1;
	r = w->is_shared ? 0 : place_check_unused(&place, w->is_read_only, e);
	if (r == 0)
		r = plug_in(x, &p, &place, w, e);
	place_clear(&place);
	return r;
}

/* --- whose device is which disk */

struct device {
	struct live live;       /* the process'; owned */
	const char *backend;    /* borrowed from it */
	uint16_t domain;
	uint32_t device;
	bool is_active, is_connected, is_read_only;
	bool is_gone; /* others have said that there is no such device any more; the process has the disk for it all the same */
};
struct search {
	void (*fn)(const struct device *d, void *arg);
	void *arg;
};

static bool take_backend(const char *backend, struct device *d)
{
	unsigned domain, device;
	int end = 0;

	if (!backend || sscanf(backend, "/local/domain/%*u/backend/%*[^/]/%5u/%10u%n", &domain, &device, &end) != 2 ||
	    backend[end])
		return false;
	d->backend = backend;
	d->domain = (uint16_t)domain;
	d->device = device;
	return true;
}

static void look_at(const char *id, void *arg)
{
	const struct search *s = arg;
	struct device d = { 0 };
	const struct live_user *u;
	struct error e;

	if (live_ask_id(id, LIST_MS, &d.live, &e) == -1)
		return;
	u = d.live.users.item;
	for (size_t i = 0; i < d.live.users.count; i++) {
		d.is_gone = u[i].had && *u[i].had;
		if (!take_backend(d.is_gone ? u[i].had : u[i].backend, &d))
			continue;
		d.is_active = u[i].is_active;
		d.is_connected = u[i].is_connected;
		d.is_read_only = u[i].is_read_only;
		s->fn(&d, s->arg);
	}
	live_clear(&d.live);
}

/* --- list */

struct line {
	char *domain, *device, *disk, *backend, *state;
	bool is_read_only;
};
static const struct jsonspec_field line_fields[] = {
	{ "domain", JS_STRING, offsetof(struct line, domain) },
	{ "device", JS_STRING, offsetof(struct line, device) },
	{ "disk", JS_STRING, offsetof(struct line, disk) },
	{ "backend", JS_STRING, offsetof(struct line, backend) },
	{ "state", JS_STRING, offsetof(struct line, state) },
	{ "read_only", JS_BOOL, offsetof(struct line, is_read_only) },
	{ NULL },
};
static const struct jsonspec line_spec = { "device", sizeof(struct line), line_fields };

static void print_line(const struct device *d, void *arg)
{
	const bool *is_json = arg;
	const char *state = d->is_connected ? "connected" : d->is_gone ? "gone" : "waiting";
	char domain[8], name[16];
	struct line line = { domain, name, d->live.path, (char *)(uintptr_t)d->backend, (char *)(uintptr_t)state,
			     d->is_read_only };
	CLEANUP_FREE char *text = NULL;

	snprintf(domain, sizeof(domain), "%u", d->domain);
	plug_device_name(d->device, name);
	if (*is_json) {
		text = jsonspec_encode(&line_spec, &line);
		say_json(text);
		return;
	}
	printf("%-6s %-8s %-10s %s ", domain, name, state, d->is_read_only ? "r" : "w");
	say_text(stdout, d->live.path);
	putchar('\n');
}

static int list(const struct wish *w)
{
	bool is_json = w->is_json;
	struct search s = { print_line, &is_json };

	if (!is_json)
		printf("DOMID  DEVICE   STATE      MODE DISK\n");
	process_each(look_at, &s);
	return DONE;
}

/* --- detach */

struct found {
	uint16_t domain;
	uint32_t device;
	char *path;                 /* owned; NULL: none */
	bool is_gone;
	char kind[BACKEND_KIND_MAX];
};

static void take_found(const struct device *d, void *arg)
{
	struct found *f = arg;
	const char *kind = strstr(d->backend, "/backend/") + strlen("/backend/");

	if (d->domain != f->domain || d->device != f->device || (f->path && (d->is_gone || !f->is_gone)))
		return;
	free(f->path);
	f->path = strdup(d->live.path);
	f->is_gone = d->is_gone;
	snprintf(f->kind, sizeof(f->kind), "%.*s", (int)strcspn(kind, "/"), kind);
}

static int let_go(const char *path, uint16_t domain, struct error *e)
{
	struct place place;
	char text[8];
	int r;

	snprintf(text, sizeof(text), "%u", domain);
	if (place_find(&place, path, NULL, e) == -1)
		return -1;
	r = served_end(&place, text, e);
	place_clear(&place);
	return r;
}

static int complain_of_guest(struct xenstore *x, const struct plug *p, struct error *e)
{
	CLEANUP_FREE char *why = xenstore_read(x, p->front_error);

	return error_set(e, EBUSY, "the guest has not let go of it%s%.200s. It may be mounted there; --force takes it away",
			 why ? ", and says: " : "", why ? why : "");
}

static int take_away(struct xenstore *x, const struct plug *p, bool is_forced, struct error *e)
{
	CLEANUP_FREE struct xenstore_steps *steps = malloc(sizeof(*steps));
	unsigned passing = ~(1u << PLUG_CLOSED | 1u << PLUG_NONE), state;

	if (!steps)
		return error_set(e, ENOMEM, "out of memory");
	if (xenstore_watch(x, p->backend, e) == -1)
		return -1;
	state = read_state(x, p->backend);
	if (state != PLUG_CLOSED && state != PLUG_NONE) {
		plug_close(p, steps);
		if (xenstore_do(x, steps, e) == -1)
			return -1;
		if (!is_forced)
			state = wait_state(x, p, passing, DETACH_MS);
	}
	if (state != PLUG_CLOSED && state != PLUG_NONE && !is_forced)
		return complain_of_guest(x, p, e);
	if (state != PLUG_CLOSED && state != PLUG_NONE) {
		plug_force(p, steps);
		if (xenstore_do(x, steps, e) == -1)
			return -1;
		wait_state(x, p, passing, FORCE_MS);
	}
	return 0;
}

static int detach(struct xenstore *x, const struct wish *w, struct error *e)
{
	struct found f = { .domain = w->domain, .device = w->device };
	struct search s = { take_found, &f };
	CLEANUP_FREE char *path = NULL;
	struct plug p;
	bool is_known, is_others;

	process_each(look_at, &s);
	path = f.path;
	plug_init(&p, w->domain, w->device, path ? f.kind : w->kind);
	is_known = (is_there(x, p.backend) || is_there(x, p.frontend)) && xenstore_has_domain(x, w->domain);
	is_others = is_known && (!path || f.is_gone);
	if (is_others || !path)
		return error_set(e, ESRCH, is_others ? "domain %u has such a device, but no process of sxm's serves it"
						     : "domain %u has no such device of sxm's", w->domain);
	if (is_known && take_away(x, &p, w->is_forced, e) == -1)
		return -1;
	/* The ring is let go of before the keys are no more: whoever looks for it would take it for one that is being made. */
	if (let_go(path, w->domain, e) == -1)
		return -1;
	remove_keys(x, &p);
	return 0;
}

/* --- what is wanted */

static int complain(const char *what)
{
	fprintf(stderr, "sxm vbd: %s\n", what);
	return CMD_USAGE;
}

static int take_device(struct wish *w, char **arg)
{
	if (!plug_domain(arg[0], &w->domain))
		return complain("DOMID is no domain's number");
	if (!plug_device(arg[1], &w->device))
		return complain("DEVICE is no name of one: xvdb, sda, hdc, or a number");
	return 0;
}

static int act(const struct wish *w, int (*fn)(struct xenstore *x, const struct wish *w, struct error *e))
{
	struct error e = { 0 };
	struct xenstore *x = xenstore_open(&e);
	int r = x ? fn(x, w, &e) : -1;

	xenstore_close(x);
	if (r == 0)
		return DONE;
	fprintf(stderr, "sxm vbd: ");
	say_text(stderr, e.text);
	fputc('\n', stderr);
	return NOT_DONE;
}

static bool take_option(int c, struct wish *w)
{
	switch (c) {
	case 'r':
		w->is_read_only = true;
		return true;
	case 's':
		w->is_shared = true;
		return true;
	case 'f':
		w->is_forced = true;
		return true;
	case 'j':
		w->is_json = true;
		return true;
	case 'F':
		w->format = optarg;
		return true;
	case 'k':
		w->kind = optarg;
		return true;
	default:
		return false;
	}
}

static int run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "read-only", no_argument, NULL, 'r' }, { "shared", no_argument, NULL, 's' },
		{ "force", no_argument, NULL, 'f' }, { "json", no_argument, NULL, 'j' },
		{ "format", required_argument, NULL, 'F' },
		{ "kind", required_argument, NULL, 'k' }, { NULL, 0, NULL, 0 },
	};
	char kind[BACKEND_KIND_MAX];
	struct wish w = { .kind = kind };
	int c;

	backend_kind(kind);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(c, &w))
			return CMD_USAGE;
	argv += optind;
	argc -= optind;
	if (!backend_kind_is_one(w.kind))
		return complain("--kind is no name of a directory");
	if (argc == 4 && strcmp(argv[0], "attach") == 0) {
		w.disk = argv[1];
		c = take_device(&w, argv + 2);
		return c ? c : act(&w, attach);
	}
	if (argc == 3 && strcmp(argv[0], "detach") == 0) {
		c = take_device(&w, argv + 1);
		return c ? c : act(&w, detach);
	}
	if (argc == 1 && strcmp(argv[0], "list") == 0)
		return list(&w);
	return complain("attach DISK DOMID DEVICE, detach DOMID DEVICE, or list");
}

const struct cmd cmd_vbd = {
	.name = "vbd",
	.summary = "a running Xen guest has a disk as a block device",
	.usage = "sxm vbd attach [--read-only] [--shared] [--format FORMAT] [--kind KIND] DISK DOMID DEVICE\n"
		 "       sxm vbd detach [--force] [--kind KIND] DOMID DEVICE\n"
		 "       sxm vbd list [--json]\n"
		 "  DISK      SR/KEY, sxm://..., an image or block device\n"
		 "  DOMID     the guest's number, as `xl domid` says\n"
		 "  DEVICE    what the guest is to call it: xvdb, sda, hdc, or a number\n"
		 "  --shared  though somebody else has it\n"
		 "  --force   though the guest has not let go of it\n"
		 "  --kind    the backend's directory in xenstore, if not qdisk or what /run/sxm/backend-kind says\n"
		 "exit status: 0 done, 1 not, 2 usage",
	.run = run,
	.usage_status = USAGE,
};
