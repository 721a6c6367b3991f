/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier - see carrier.h: which kinds there are
 */
#include "config.h"

#include "migrate/carrier.h"

#include <errno.h>
#include <string.h>

/* For a host the first that is usable is taken. Of one stream the ssh program carries a third more than a plain ssh pipe (its
 * cipher is AES-GCM), libssh2 1.10 a quarter less (it enciphers 16 bytes at a time, without AES-GCM): tests/bench/carriers.py. */
static const struct carrier_ops *const kinds[] = {
	&carrier_exec,
	&carrier_ssh,
#ifdef HAVE_SSH2
	&carrier_ssh2,
#endif
};

static bool is_meant(const struct carrier_ops *ops, const struct carrier_spec *spec)
{
	if (spec->kind)
		return strcmp(ops->kind, spec->kind) == 0;
	return spec->argv ? ops == &carrier_exec : ops != &carrier_exec && (!ops->is_usable || ops->is_usable());
}

struct carrier *carrier_open(const struct carrier_spec *spec, struct error *e)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (is_meant(kinds[i], spec))
			return kinds[i]->open(spec, e);
	if (spec->kind)
		error_set(e, EPROTONOSUPPORT, "there is no carrier %.40s here: there is %s", spec->kind,
			  ARRAY_LEN(kinds) > 2 ? "ssh (the program) and ssh2 (libssh2)" : "ssh (the program)");
	else
		error_set(e, EPROTONOSUPPORT, "there is no ssh here, and this sxm was built without libssh2");
	return NULL;
}

int carrier_channel(struct carrier *c, struct error *e)
{
	return c->ops->channel(c, e);
}

int carrier_why(struct carrier *c, int channel, struct error *e)
{
	return c->ops->why ? c->ops->why(c, channel, e) : error_set(e, EPIPE, "the relay on %s has ended", c->name);
}

bool carrier_is_alive(struct carrier *c)
{
	return c->ops->is_alive(c);
}

size_t carrier_descriptors(struct carrier *c, int fds[static CARRIER_DESCRIPTORS_MAX])
{
	return c->ops->descriptors ? c->ops->descriptors(c, fds) : 0;
}

void carrier_free(struct carrier *c)
{
	if (c)
		c->ops->free(c);
}
