/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xenstore-lib - see xenstore.h; over libxenstore
 *
 * A directory that is made anew has its permissions before anything is in it; what is made in it afterwards has the same.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <xenstore.h>

#include "base/cleanup.h"
#include "cmd/xenstore.h"

#define TRIES 20u

struct xenstore *xenstore_open(struct error *e)
{
	struct xs_handle *h = xs_open(XS_UNWATCH_FILTER);

	if (!h)
		error_errno(e, errno, "xenstore: is this a Xen host's control domain?");
	return (struct xenstore *)h;
}

static struct xs_handle *handle(struct xenstore *x)
{
	return (struct xs_handle *)x;
}

void xenstore_close(struct xenstore *x)
{
	if (x)
		xs_close(handle(x));
}

char *xenstore_read(struct xenstore *x, const char *path)
{
	return xs_read(handle(x), XBT_NULL, path, NULL);
}

bool xenstore_has_domain(struct xenstore *x, uint16_t domain)
{
	return xs_is_domain_introduced(handle(x), domain);
}

static bool make(struct xs_handle *h, xs_transaction_t t, const struct xenstore_step *s)
{
	struct xs_permissions perms[] = {
		{ .id = s->owner, .perms = XS_PERM_NONE },
		{ .id = s->reader, .perms = XS_PERM_READ },
	};

	return xs_mkdir(h, t, s->path) && xs_set_permissions(h, t, s->path, perms, s->reader == s->owner ? 1 : 2);
}

static bool prune(struct xs_handle *h, xs_transaction_t t, const struct xenstore_step *s)
{
	unsigned count = 0;
	char **names = xs_directory(h, t, s->path, &count);

	if (!names)
		return errno == ENOENT;
	free(names);
	return count || xs_rm(h, t, s->path);
}

static bool do_step(struct xs_handle *h, xs_transaction_t t, const struct xenstore_step *s)
{
	switch (s->what) {
	case XENSTORE_MAKE:
		return make(h, t, s);
	case XENSTORE_PUT:
		return xs_write(h, t, s->path, s->value, (unsigned)strlen(s->value));
	case XENSTORE_REMOVE:
		return xs_rm(h, t, s->path) || errno == ENOENT;
	default:
		return prune(h, t, s);
	}
}

int xenstore_do(struct xenstore *x, const struct xenstore_steps *s, struct error *e)
{
	for (unsigned i = 0; i < s->count; i++)
		if (!do_step(handle(x), XBT_NULL, &s->step[i]))
			return error_errno(e, errno, "xenstore: %s", s->step[i].path);
	return 0;
}

/* An errno; EAGAIN: somebody else wrote there. */
static int change_once(struct xs_handle *h, const struct xenstore_steps *s, const char **path)
{
	xs_transaction_t t = xs_transaction_start(h);
	int err = t == XBT_NULL ? errno : 0;

	for (unsigned i = 0; !err && i < s->count; i++) {
		*path = s->step[i].path;
		if (!do_step(h, t, &s->step[i]))
			err = errno ? errno : EIO;
	}
	if (t != XBT_NULL && !xs_transaction_end(h, t, err != 0) && !err)
		err = errno;
	return err;
}

int xenstore_change(struct xenstore *x, const struct xenstore_steps *s, struct error *e)
{
	const char *path = "a transaction";
	int err = EAGAIN;

	for (unsigned i = 0; err == EAGAIN && i < TRIES; i++)
		err = change_once(handle(x), s, &path);
	return err ? error_errno(e, err, "xenstore: %s", path) : 0;
}

int xenstore_watch(struct xenstore *x, const char *path, struct error *e)
{
	return xs_watch(handle(x), path, "") ? 0 : error_errno(e, errno, "xenstore: watch %s", path);
}

void xenstore_wait(struct xenstore *x, unsigned ms)
{
	struct pollfd p = { .fd = xs_fileno(handle(x)), .events = POLLIN };
	char **event;

	poll(&p, 1, (int)ms);
	while ((event = xs_check_watch(handle(x))))
		free(event);
}
