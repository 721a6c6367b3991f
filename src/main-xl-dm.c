/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * sxm-xl-dm - what libxl starts in QEMU's stead for a PV or PVH guest with disks of sxm
 *
 *      listen at the QMP sockets of the command line -> wait until sxm-xenbus has the guest's disks served
 *      -> /local/domain/0/device-model/DOMID/state = running -> answer QMP until SIGHUP or SIGTERM, or quit
 *
 * libxl starts a device model where a disk has backendtype=qdisk, waits until that says "running", and kills it with the domain.
 * The disks are sxm-xenbus' business; all this does is to make `xl create` fail, with a reason, where they cannot be had.
 * A domain that is just arriving from another host is not waited for: its disks are the other host's until it runs here.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/proc.h"
#include "broker/dm-qmp.h"
#include "broker/store.h"
#include "config.h"

#define SOCKETS_MAX 4u
#define PATIENCE_MS 30000u
#define LOOK_EACH_MS 10u
#define INCOMING "--incoming" /* xl calls such a domain so until it runs */

struct options {
	unsigned domain;
	bool has_domain;
	const char *chardev[SOCKETS_MAX]; /* borrowed from argv */
	unsigned chardevs;
};
struct program {
	struct loop *loop;
	const struct store_ops *ops;
	struct store *store;
	struct facts_root root;
	struct dm_qmp *qmp[SOCKETS_MAX];
};

/* Of QEMU's options two matter; what the others say is about what is not there. */
static int parse(int argc, char **argv, struct options *o)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0) {
			printf("usage: sxm-xl-dm -xen-domid DOMID [-chardev socket,id=ID,path=PATH]... [whatever QEMU has]\n"
			       "xl starts it: device_model_override=\"%s\" in a domain's configuration. See sxm-xenbus(8).\n",
			       argv[0]);
			exit(0);
		}
		if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-version") == 0) {
			printf("sxm-xl-dm %s\n", PACKAGE_VERSION);
			exit(0);
		}
		if (i + 1 < argc && strcmp(argv[i], "-xen-domid") == 0) {
			char *end;
			unsigned long domain = strtoul(argv[++i], &end, 10);

			o->has_domain = end != argv[i] && !*end && domain <= UINT16_MAX;
			o->domain = (unsigned)domain;
		} else if (i + 1 < argc && strcmp(argv[i], "-chardev") == 0 && strncmp(argv[i + 1], "socket,", 7) == 0) {
			i++;
			if (o->chardevs < SOCKETS_MAX)
				o->chardev[o->chardevs++] = argv[i];
		}
	}
	if (!o->has_domain)
		fprintf(stderr, "sxm-xl-dm: -xen-domid says no domain\n");
	return o->has_domain ? 0 : -1;
}

static void on_end(void *arg)
{
	struct program *p = arg;

	loop_stop(p->loop);
}

/* socket,id=libxl-cmd,path=/var/run/xen/qmp-libxl-5,server=on,wait=off; or fd=7 in the path's stead. */
static int listen_at(struct program *p, const char *chardev, unsigned number, struct error *e)
{
	const char *path = strstr(chardev, ",path="), *fd = strstr(chardev, ",fd=");
	CLEANUP_FREE char *name = NULL;

	if (path) {
		path += strlen(",path=");
		name = strndup(path, strcspn(path, ","));
		if (!name)
			return error_set(e, ENOMEM, "out of memory");
	} else if (!fd) {
		return error_set(e, EINVAL, "-chardev %s names no socket", chardev);
	}
	p->qmp[number] = dm_qmp_new(p->loop, name, fd && !path ? atoi(fd + strlen(",fd=")) : -1, on_end, p, e);
	return p->qmp[number] ? 0 : -1;
}

/* Somebody has its lock. */
static int check_broker(const struct program *p, struct error *e)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_CLOSE int fd = -1;

	if (asprintf(&path, "%s/xenbus/%s.lock", proc_run_dir(), p->root.kind) < 0)
		path = NULL;
	if (path)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == -1)
		return 0;
	return error_set(e, ESRCH, "sxm-xenbus does not run: nobody would serve this domain's disks "
			 "(systemctl start sxm-xenbus)");
}

static bool is_incoming(struct program *p, unsigned domain)
{
	char path[FACTS_PATH_MAX], name[256];
	size_t bytes, tail = strlen(INCOMING);

	snprintf(path, sizeof(path), "/local/domain/%u/name", domain);
	if (!p->ops->get(p->store, path, name, sizeof(name)))
		return false;
	bytes = strlen(name);
	return bytes > tail && strcmp(name + bytes - tail, INCOMING) == 0;
}

/* Of a disk of ours: it is offered to the guest. Of any other: yes. */
static bool is_ready(struct program *p, struct broker_key key, struct error *e)
{
	struct facts_value value[FACTS_KEYS];
	struct broker_facts f;
	bool is_alive;

	if (p->ops->read(p->store, &p->root, key, value, &is_alive, e) == -1)
		return false;
	facts_read(&f, &p->root, key, value);
	return !f.is_there || f.kind <= BROKER_EMPTY || !f.is_young;
}

static int wait_for_disks(struct program *p, uint16_t domain, struct error *e)
{
	const struct timespec pause = { .tv_nsec = LOOK_EACH_MS * (long)NS_PER_MS };
	uint64_t end_ns = loop_now_ns() + PATIENCE_MS * NS_PER_MS;
	char path[FACTS_PATH_MAX];
	uint32_t device[64];
	size_t count, ready;

	facts_domain_path(&p->root, domain, path);
	for (;;) {
		if (p->ops->numbers(p->store, path, device, ARRAY_LEN(device), &count, e) == -1)
			return -1;
		for (ready = 0; ready < count && is_ready(p, (struct broker_key){ domain, device[ready] }, e); ready++)
			;
		if (ready == count)
			return 0;
		if (loop_now_ns() >= end_ns)
			break;
		nanosleep(&pause, NULL);
	}
	return error_set(e, ETIMEDOUT, "nobody serves %s/%u after %u s; the log of sxm-xenbus says why", path, device[ready],
			 PATIENCE_MS / 1000);
}

static int begin(struct program *p, const struct options *o, struct error *e)
{
	char path[FACTS_PATH_MAX];

	p->ops = store_ops();
	if (!p->ops)
		return error_set(e, ENOTSUP, "this sxm was built without Xen's libraries");
	snprintf(p->root.kind, sizeof(p->root.kind), "qdisk");
	p->root.run_dir = proc_run_dir();
	p->store = p->ops->open(&p->root, e);
	if (!p->store || check_broker(p, e) == -1)
		return -1;
	for (unsigned i = 0; i < o->chardevs; i++)
		if (listen_at(p, o->chardev[i], i, e) == -1)
			return -1;
	if (!is_incoming(p, o->domain) && wait_for_disks(p, (uint16_t)o->domain, e) == -1)
		return -1;
	snprintf(path, sizeof(path), "/local/domain/%u/device-model/%u/state", p->root.domain, o->domain);
	return p->ops->put(p->store, path, "running", e);
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	struct program p = { 0 };
	struct error e = { 0 };
	int status = 0;

	if (parse(argc, argv, &o) == -1)
		return 2;
	log_init("sxm-xl-dm");
	signal(SIGPIPE, SIG_IGN);
	p.loop = loop_new();
	if (!p.loop || loop_on_signal(p.loop, SIGTERM, on_end, &p) == -1 || loop_on_signal(p.loop, SIGHUP, on_end, &p) == -1)
		error_set(&e, ENOMEM, "out of memory");
	else if (begin(&p, &o, &e) == 0)
		loop_run(p.loop);
	if (e.err) {
		fprintf(stderr, "sxm-xl-dm: domain %u: %s\n", o.domain, e.text);
		log_error("domain %u: %s", o.domain, e.text);
		status = 1;
	}
	for (unsigned i = 0; i < SOCKETS_MAX; i++)
		dm_qmp_free(p.qmp[i]);
	if (p.store)
		p.ops->close(p.store);
	if (p.loop)
		loop_free(p.loop);
	return status;
}
