/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * xenstore-none - see xenstore.h; a build without Xen's library: there is none to be opened
 */
#include <errno.h>
#include <stddef.h>

#include "cmd/xenstore.h"

struct xenstore *xenstore_open(struct error *e)
{
	error_set(e, ENOTSUP, "this sxm was built without Xen's libraries (libxenstore, libxengnttab, libxenevtchn)");
	return NULL;
}

void xenstore_close(struct xenstore *x UNUSED)
{
}

char *xenstore_read(struct xenstore *x UNUSED, const char *path UNUSED)
{
	return NULL;
}

bool xenstore_has_domain(struct xenstore *x UNUSED, uint16_t domain UNUSED)
{
	return false;
}

int xenstore_change(struct xenstore *x UNUSED, const struct xenstore_steps *s UNUSED, struct error *e)
{
	return error_set(e, ENOTSUP, "there is no xenstore");
}

int xenstore_do(struct xenstore *x, const struct xenstore_steps *s, struct error *e)
{
	return xenstore_change(x, s, e);
}

int xenstore_watch(struct xenstore *x UNUSED, const char *path UNUSED, struct error *e)
{
	return xenstore_change(NULL, NULL, e);
}

void xenstore_wait(struct xenstore *x UNUSED, unsigned ms UNUSED)
{
}
