/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fake-xenstore - cmd/xenstore.h over the store of fake-xen ($SXM_FAKE_XEN). A domain exists where /local/domain/N is a key.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/xenstore.h"
#include "tests/lib/fake-xen.h"

struct xenstore {
	struct world world;
	char fifo[160];
	int fd;
};

struct xenstore *xenstore_open(struct error *e)
{
	const char *dir = getenv("SXM_FAKE_XEN");
	struct xenstore *x = dir ? calloc(1, sizeof(*x)) : NULL;

	if (!x) {
		error_set(e, ENODEV, "SXM_FAKE_XEN is not set");
		return NULL;
	}
	world_open(&x->world, dir);
	snprintf(x->fifo, sizeof(x->fifo), "%.100s/store.sxm.%d", dir, (int)getpid());
	x->fd = -1;
	return x;
}

void xenstore_close(struct xenstore *x)
{
	if (!x)
		return;
	if (x->fd >= 0)
		close(x->fd);
	unlink(x->fifo);
	world_close(&x->world);
	free(x);
}

char *xenstore_read(struct xenstore *x, const char *path)
{
	char value[4096];

	return world_get(&x->world, path, value, sizeof(value)) ? strdup(value) : NULL;
}

bool xenstore_has_domain(struct xenstore *x, uint16_t domain)
{
	char path[64], value[64];

	snprintf(path, sizeof(path), "/local/domain/%u", domain);
	return world_get(&x->world, path, value, sizeof(value));
}

int xenstore_do(struct xenstore *x, const struct xenstore_steps *s, struct error *e UNUSED)
{
	for (unsigned i = 0; i < s->count; i++)
		switch (s->step[i].what) {
		case XENSTORE_PUT:
			world_put(&x->world, s->step[i].path, s->step[i].value);
			break;
		case XENSTORE_REMOVE:
			world_put(&x->world, s->step[i].path, NULL);
			break;
		default: /* there are no directories here, but what is in them */
			break;
		}
	return 0;
}

int xenstore_change(struct xenstore *x, const struct xenstore_steps *s, struct error *e)
{
	return xenstore_do(x, s, e);
}

int xenstore_watch(struct xenstore *x, const char *path UNUSED, struct error *e)
{
	if (mkfifo(x->fifo, 0600) == -1 && errno != EEXIST)
		return error_errno(e, errno, "%s", x->fifo);
	x->fd = open(x->fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return x->fd >= 0 ? 0 : error_errno(e, errno, "%s", x->fifo);
}

void xenstore_wait(struct xenstore *x, unsigned ms)
{
	struct pollfd p = { .fd = x->fd, .events = POLLIN };
	char bytes[512];

	poll(&p, 1, (int)ms);
	while (read(x->fd, bytes, sizeof(bytes)) > 0)
		;
}
