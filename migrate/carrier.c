/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * carrier - see carrier.h: which kinds there are
 */
#include "migrate/carrier.h"

#include <errno.h>
#include <string.h>

static const struct carrier_ops *const kinds[] = {
	&carrier_exec,
	&carrier_ssh,
};

struct carrier *carrier_open(const struct carrier_spec *spec, struct error *e)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (spec->kind ? strcmp(kinds[i]->kind, spec->kind) == 0 : !spec->argv == (kinds[i] != &carrier_exec))
			return kinds[i]->open(spec, e);
	if (spec->kind)
		error_set(e, EPROTONOSUPPORT, "there is no way to a host called %s here", spec->kind);
	else
		error_set(e, EPROTONOSUPPORT, "this sxm was built without a way to other hosts");
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

void carrier_free(struct carrier *c)
{
	if (c)
		c->ops->free(c);
}
