/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sxm-xenbus - tells the disks' processes which Xen guests' devices are theirs: options, the loop, the broker
 *
 *      options -> lock -> store -> READY=1 -> until SIGTERM
 *
 * One on a host for each kind of backends.  It has nothing that cannot be found again: killed, at any time, it is started anew.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/backend-kind.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "broker/driver.h"
#include "config.h"

#define POOL_THREADS "2" /* one question to the store at a time */
#define VERBS "xapi-storage-script/datapath/sxm"

struct options {
	const char *kind, *verbs; /* borrowed from argv */
	enum broker_order order;
};
struct program {
	struct loop *loop;
	struct driver *driver;
};

static void on_ready(void *arg UNUSED)
{
	proc_notify("READY=1");
}

static void on_stopped(void *arg)
{
	struct program *p = arg;

	loop_stop(p->loop);
}

static void on_term(void *arg)
{
	struct program *p = arg;

	driver_stop(p->driver);
}

static void on_child(void *arg)
{
	struct program *p = arg;

	driver_reap(p->driver);
}

/* Where they are installed, from this program's directory on. NULL: no memory. */
static char *find_verbs(void)
{
	char path[1024];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash, *found;

	if (n < 0)
		n = 0;
	path[n] = '\0';
	slash = strrchr(path, '/');
	return asprintf(&found, "%.*s/../" VERBS, slash ? (int)(slash - path) : 0, path) < 0 ? NULL : found;
}

static int serve(struct program *p, const struct options *o, const char *verbs, struct error *e)
{
	const struct driver_spec spec = {
		.loop = p->loop, .kind = o->kind, .run_dir = proc_run_dir(), .verbs = verbs, .order = o->order,
		.on_ready = on_ready, .on_stopped = on_stopped, .arg = p,
	};

	p->driver = driver_new(&spec, e);
	if (!p->driver)
		return -1;
	if (loop_on_signal(p->loop, SIGTERM, on_term, p) == -1 || loop_on_signal(p->loop, SIGINT, on_term, p) == -1 ||
	    loop_on_signal(p->loop, SIGCHLD, on_child, p) == -1)
		return error_set(e, ENOMEM, "out of memory");
	loop_run(p->loop);
	return 0;
}

static void usage(FILE *out)
{
	fprintf(out, "usage: sxm-xenbus [--kind KIND] [--order auto|wait|eager] [--verbs DIRECTORY]\n"
		     "Tells each disk's process which device of a Xen guest it is to serve.\n"
		     "  --kind KIND      of the backends, in xenstore: backend/KIND (default: what this host has, or qdisk)\n"
		     "  --order ORDER    wait: for the hotplug script, as xenopsd wants it; eager: as libxl does;\n"
		     "                   auto: by who made the device (default)\n"
		     "  --verbs DIRECTORY  of the datapath verbs, for devices of xl's (default: ../" VERBS ")\n"
		     "  --help, --version\n"
		     "See sxm-xenbus(8).\n");
}

static int parse_order(const char *text, enum broker_order *order)
{
	static const char *const names[] = {
		[BROKER_ORDER_AUTO] = "auto", [BROKER_ORDER_WAIT] = "wait", [BROKER_ORDER_EAGER] = "eager",
	};

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(text, names[i]) == 0) {
			*order = (enum broker_order)i;
			return 0;
		}
	fprintf(stderr, "sxm-xenbus: --order is %s, not auto, wait or eager\n", text);
	return -1;
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "kind", required_argument, NULL, 'k' }, { "order", required_argument, NULL, 'o' },
		{ "verbs", required_argument, NULL, 'v' }, { "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' }, { NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'k': o->kind = optarg; break;
		case 'v': o->verbs = optarg; break;
		case 'h': usage(stdout); exit(0);
		case 'V': printf("sxm-xenbus %s\n", PACKAGE_VERSION); exit(0);
		case 'o':
			if (parse_order(optarg, &o->order) == -1)
				return -1;
			break;
		default: usage(stderr); return -1;
		}
	}
	if (optind == argc)
		return 0;
	usage(stderr);
	return -1;
}

int main(int argc, char **argv)
{
	CLEANUP_FREE char *verbs = NULL;
	char kind[BACKEND_KIND_MAX];
	struct options o = { .kind = kind };
	struct program p = { 0 };
	struct error e = { 0 };
	int status = 0;

	log_init("sxm-xenbus");
	backend_kind(kind);
	if (parse(argc, argv, &o) == -1)
		return 2;
	umask(077);
	signal(SIGPIPE, SIG_IGN);
	setenv("UV_THREADPOOL_SIZE", POOL_THREADS, 1);
	verbs = o.verbs ? strdup(o.verbs) : find_verbs();
	p.loop = loop_new();
	if (!p.loop || !verbs) {
		log_error("no event loop: out of memory or descriptors");
		return 1;
	}
	if (serve(&p, &o, verbs, &e) == -1) {
		fprintf(stderr, "sxm-xenbus: %s\n", e.text);
		log_error("%s", e.text);
		status = e.err == EBUSY || e.err == ENOTSUP || e.err == EINVAL ? 2 : 1;
	}
	driver_free(p.driver);
	loop_free(p.loop);
	return status;
}
